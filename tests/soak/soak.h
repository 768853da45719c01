#pragma once
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/random.h"
#include "nn/checkpoint.h"

// What the parts of the soak share. Each part does what its file says at the top, many times, with
// checkpoints whose every byte is known, and counts what should never be: violations.

namespace tandem {

struct SoakOptions {
  int64_t count = 0;   // how much of it; what is counted differs from part to part
  uint64_t seed = 1;   // of all that is random
  std::string folder;  // scratch, empty at first; an absolute path
  std::string binary;  // the program `tandem`
};

/// What a part found.
class SoakReport {
 public:
  nlohmann::ordered_json facts = nlohmann::ordered_json::object();  // the part's own counts
  /// Something that should never be; the first ones are also printed.
  void violation(const std::string& what);
  int64_t violations() const { return violations_; }

 private:
  int64_t violations_ = 0;
};

void soak_kills(const SoakOptions& options, SoakReport& report);
void soak_flips(const SoakOptions& options, SoakReport& report);
void soak_syscalls(const SoakOptions& options, SoakReport& report);
void soak_disk_full(const SoakOptions& options, SoakReport& report);
void soak_sequences(const SoakOptions& options, SoakReport& report);

/// Random numbers one after the other.
class Draws {
 public:
  explicit Draws(RandomStream stream) : stream_(stream) {}
  int64_t below(int64_t n) {
    return static_cast<int64_t>(stream_.below(next_++, static_cast<uint64_t>(n)));
  }
  double uniform() { return stream_.uniform(next_++); }
  bool one_in(int64_t n) { return below(n) == 0; }
  template <typename Items>
  const auto& any_of(const Items& items) {
    return items[static_cast<size_t>(below(static_cast<int64_t>(items.size())))];
  }

 private:
  RandomStream stream_;
  uint64_t next_ = 0;
};

/// A checkpoint of everything there is: two weights, their optimizer state, a tokenizer; about
/// rows * 204 bytes of tensors. No tensor is the same at two steps.
CheckpointContents contents_at(int64_t step, int64_t rows = 13);

/// Name and bytes of each file of a folder, read without the calls that faults.cpp defines.
using Files = std::map<std::string, std::string>;
Files files_of(const std::string& folder);
void write_bytes(const std::string& path, const std::string& bytes);
/// Where two folders differ, in a few words; empty where they do not.
std::string difference(const Files& expected, const Files& found);

/// write_checkpoint() of contents_at(step).
void write_at(int64_t step, const std::string& folder);

/// The files of a step, written once in peace.
class Golden {
 public:
  using Write = void (*)(int64_t step, const std::string& folder);
  explicit Golden(std::string folder, Write write = write_at)
      : folder_(std::move(folder)), write_(write) {}
  const Files& at(int64_t step);

 private:
  std::string folder_;
  Write write_;
  std::map<int64_t, Files> files_;
};

/// The step of the checkpoint that a reader of `run_folder` would take, every byte compared with
/// what was saved. 0 where none verifies; throws std::runtime_error where one verifies and its
/// bytes are not those of its step.
int64_t step_found(const std::string& run_folder, Golden& golden);

}  // namespace tandem
