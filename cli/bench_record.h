#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "cli/bench_inference.h"
#include "core/file.h"

namespace tandem {

/// All that was measured of a case, and what can be computed of it.
nlohmann::ordered_json bench_record(const BenchCase& measured_case, const Measured& measured,
                                    const BenchOptions& options, torch::Device device);

/// A file of the columns that the Block Transformer's code writes (measure_generation_time.py), with
/// the model in front: ms of the whole generate call, its mean and population standard deviation
/// over the runs, the mean over rows and over generated tokens, GiB that were in use at most (CPU:
/// of the process) and that a GPU's allocator held.
class GenerationCsv {
 public:
  /// Appends. Throws bad_file when the file has other columns.
  explicit GenerationCsv(const std::string& path);
  void write(const BenchCase& measured_case, const Measured& measured);
  void write_out_of_memory(const std::string& model, const BenchLength& tokens, int64_t batch);

 private:
  void write_line(const std::string& model, const BenchLength& tokens, int64_t batch,
                  const std::string& rest);
  File file_;
};

}  // namespace tandem
