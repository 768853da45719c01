#pragma once
#include <gtest/gtest.h>
#include <unistd.h>

#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "core/error.h"
#include "tests/data/temp_folder.h"

// What the tests of core share.

namespace tandem {

inline std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

/// While it lives, root is an ordinary user, so that permissions count.
class WithoutPrivileges {
 public:
  WithoutPrivileges() : user_(::geteuid()) { held_ = user_ != 0 || ::seteuid(65534) == 0; }
  ~WithoutPrivileges() {
    if (held_ && user_ == 0 && ::seteuid(0) != 0) ADD_FAILURE() << "root is gone for good";
  }
  bool held() const { return held_; }

 private:
  uid_t user_;
  bool held_;
};

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
