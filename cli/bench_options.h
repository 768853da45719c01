#pragma once
#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "eval/inference_timing.h"

namespace tandem {

/// What `tandem bench inference` is asked for.
struct BenchOptions : TimingOptions {
  std::vector<std::string> models;
  std::string reference;                  // one of models; empty: the last
  std::string protocol = "prompt";        // prompt | yoco | block-transformer | decode
  std::vector<int64_t> lengths, batches;  // a batch of 0 is the largest that fits
  std::vector<std::string> cases;         // "2048+128": prompt and generated tokens
  int64_t decode = 0;                     // tokens generated after each prompt
  int64_t memory_bytes = 0;  // for the state of the largest batch; 0: the device's, by trying
  std::string device = "auto", dtype = "float32", out, csv;
  bool json = false;
};

/// Makes `command` read into `options`.
void add_bench_options(CLI::App& command, BenchOptions& options);

/// After parsing: what was left out becomes the protocol's. Throws bad_usage where an option has no
/// effect with the protocol or the device, or names no model.
void settle_bench_options(const CLI::App& command, bool on_cpu, BenchOptions& options);

}  // namespace tandem
