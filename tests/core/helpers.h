#pragma once
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <functional>
#include <string>

#include "core/error.h"
#include "core/file.h"

// What the tests of core share.

namespace tandem {

/// A folder of the test's own, gone at its end.
class ScratchFolder {
 public:
  ScratchFolder() : path_(testing::TempDir() + "tandem_core_XXXXXX") {
    if (::mkdtemp(path_.data()) == nullptr) ADD_FAILURE() << "no scratch folder " << path_;
  }
  ~ScratchFolder() { remove_tree(path_); }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

inline void put_file(const std::string& path, std::string_view text) {
  File file = File::create(path);
  file.write(text);
  file.close();
}

inline std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

/// What `run` prints to standard error.
inline std::string printed(const std::function<void()>& run) {
  testing::internal::CaptureStderr();
  run();
  return testing::internal::GetCapturedStderr();
}

/// `run` must throw a UserError with this exit code and exactly this message.
inline void expect_user_error(int exit_code, const std::string& message,
                              const std::function<void()>& run) {
  try {
    run();
    ADD_FAILURE() << "no error, expected: " << message;
  } catch (const UserError& error) {
    EXPECT_EQ(error.what(), message);
    EXPECT_EQ(error.exit_code(), exit_code);
  }
}

/// `run` must throw an Error (std::logic_error, std::runtime_error) with exactly this message.
template <typename Error>
void expect_error(const std::string& message, const std::function<void()>& run) {
  try {
    run();
    ADD_FAILURE() << "no error, expected: " << message;
  } catch (const Error& error) {
    EXPECT_EQ(error.what(), message);
  }
}

}  // namespace tandem
