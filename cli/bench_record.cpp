#include "cli/bench_record.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "cli/expected_ratios.h"
#include "core/error.h"
#include "core/json_lines.h"
#include "eval/cost_json.h"
#include "nn/device_info.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;

std::vector<double> values_of(const Measured& m, const auto& value_of) {
  std::vector<double> values;
  for (const InferenceRun& run : m.runs) values.push_back(value_of(run));
  return values;
}

Json spread_of(const Measured& m, const auto& value_of) {
  const Spread spread = spread_over(m, value_of);
  return {{"median", spread.median}, {"min", spread.min}, {"max", spread.max}};
}

/// The largest of the runs; absent where the system did not tell.
std::optional<int64_t> largest_of(const Measured& m, std::optional<int64_t> InferenceRun::*bytes) {
  std::optional<int64_t> largest;
  for (const InferenceRun& run : m.runs) largest = std::max(largest, run.*bytes);
  return largest;
}

Json or_null(std::optional<int64_t> value) { return value ? Json(*value) : Json(); }

double decode_flops(const LanguageModel& model, int64_t length) {
  return model.flops(Phase::kDecode, length, 1).total();
}

/// What one more token of context costs each token after it, and what a token costs without
/// context. The growth is taken where every window is full, whatever the case.
void add_costs_of_context(Json& record, const LanguageModel& model, torch::Dtype dtype) {
  constexpr int64_t kFar = int64_t{1} << 24;  // tokens
  const auto growth = [&](const auto& of_length) {
    return static_cast<double>(of_length(2 * kFar) - of_length(kFar)) / static_cast<double>(kFar);
  };
  record["linear_flops_per_token"] = decode_flops(model, 0);
  record["attention_flops_per_context_token"] =
      growth([&](int64_t n) { return decode_flops(model, n); });
  record["state_bytes_per_context_token"] =
      growth([&](int64_t n) { return model.state_bytes(n, dtype).total(); });
}

const char* const kColumns =
    "model,prefill_length,decode_length,batch_size,oom,mean,std,mean_per_sample,mean_per_token,"
    "max_memory_allocated,max_memory_reserved";

std::string csv_cell(const std::string& text) {
  if (text.find_first_of(",\"\n\r") == text.npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? "\"\"" : std::string(1, c);
  return quoted + "\"";
}

std::string gib(std::optional<int64_t> bytes) {
  return bytes ? json_number(std::ldexp(static_cast<double>(*bytes), -30)) : "";
}

}  // namespace

Json bench_record(const BenchCase& c, const Measured& m, const BenchOptions& o,
                  torch::Device device) {
  const LanguageModel& model = *c.loaded.model;
  const BenchLength& tokens = c.tokens;
  const bool decode_only = o.protocol == "decode";
  const torch::Dtype dtype = cache_dtype_of(o);
  const auto batch = static_cast<double>(c.batch),
             generated = static_cast<double>(tokens.generated);
  const auto prompt_tokens =
      static_cast<double>(tokens.prompt) * (decode_only ? 1 : batch);  // read in prefill_ms
  const Flops prefill_flops =
      model.flops(Phase::kPrefill, tokens.prompt, decode_only ? 1 : c.batch);
  const Flops decode_flops =
      model.flops(Phase::kDecode, tokens.prompt + tokens.generated / 2, c.batch);
  const Json prefill_ms = spread_of(m, [](const InferenceRun& run) { return run.prefill_ms; });
  const Json decode_ms =
      spread_of(m, [&](const InferenceRun& run) { return run.decode_ms / generated; });
  const double median_prefill = prefill_ms["median"], median_decode = decode_ms["median"];
  const int64_t parameters = count_parameters(model);
  Json record = {{"benchmark", "inference"},
                 {"model", c.name},
                 {"family", family_of(c.loaded)},
                 {"checkpoint", c.loaded.checkpoint},
                 {"step", c.loaded.step},
                 {"parameters", parameters},
                 {"layers", model.n_layers()},
                 {"device", device.str()},
                 {"device_name", device_name(device)},
                 {"threads", at::get_num_threads()},
                 {"dtype", o.dtype},
                 {"cache_dtype", o.cache_dtype == "same" ? o.dtype : o.cache_dtype},
                 {"protocol", o.protocol}};
  if (!tokens.of_case.empty()) record["case"] = tokens.of_case;
  record.update(
      {{"batch", c.batch},
       {"asked_batch", c.asked_batch},  // 0: the largest in memory_bytes
       {"memory_bytes", c.asked_batch == 0 && o.memory_bytes > 0 ? Json(o.memory_bytes) : Json()},
       {"length", tokens.length},
       {"prompt_length", tokens.prompt},
       {"decode_length", tokens.generated},
       {"prefill_chunk", o.prefill_chunk},
       {"repeats", m.runs.size()},
       {"warm_up", m.warm_up},
       {"seed", o.seed},
       {"prefill_ms", prefill_ms},  // decode: of one row, once
       {"prefill_tokens_per_s", prompt_tokens / median_prefill * 1e3},
       {"prefill_flops", by_part(prefill_flops)},
       {"prefill_gflops_per_s", prefill_flops.total() / median_prefill / 1e6},
       {"decode_ms_per_token", decode_ms},
       {"decode_tokens_per_s", batch / median_decode * 1e3},
       {"decode_flops_per_token", by_part(decode_flops)},  // of all rows
       {"decode_gflops_per_s", decode_flops.total() / median_decode / 1e6}});
  if (!decode_only) {
    record["total_ms"] = spread_of(m, [](const InferenceRun& run) { return run.total_ms; });
    // Generated tokens over prefill and decoding; of the Block Transformer's paper over the whole
    // call, as there.
    const bool whole_call = o.protocol == "block-transformer";
    record["throughput_tokens_per_s"] = spread_of(m, [&](const InferenceRun& run) {
      return batch * generated / (whole_call ? run.total_ms / 1e3 : run.seconds());
    });
  }
  record.update(
      {{"state_bytes", m.runs.back().state_bytes},
       {"state_bytes_per_row", by_part(model.state_bytes(tokens.prompt, dtype))},
       {"state_bytes_per_row_at_end", by_part(model.state_bytes(tokens.total(), dtype))},
       {"before_bytes", m.runs.back().before_bytes},
       {"prefill_peak_bytes", or_null(largest_of(m, &InferenceRun::prefill_peak_bytes))},
       {"prefill_beyond_state_bytes",
        or_null(largest_of(m, &InferenceRun::prefill_beyond_state_bytes))},
       {"peak_bytes", or_null(largest_of(m, &InferenceRun::peak_bytes))},
       {"reserved_bytes", or_null(largest_of(m, &InferenceRun::reserved_bytes))}});
  add_costs_of_context(record, model, dtype);
  if (const Json expected = expected_ratios(record["family"], parameters); !expected.empty())
    record["expected"] = expected;
  return record;
}

GenerationCsv::GenerationCsv(const std::string& path) : file_(File::open_append(path)) {
  const std::string before = read_text(path);
  if (before.empty()) {
    file_.write(std::string(kColumns) + "\n");
  } else if (!before.starts_with(std::string(kColumns) + "\n")) {
    throw bad_file(path, fmt::format("its first line is not {}; name another file", kColumns));
  }
}

void GenerationCsv::write(const BenchCase& c, const Measured& m) {
  const auto times = values_of(m, [](const InferenceRun& run) { return run.total_ms; });
  const auto n = static_cast<double>(times.size());
  const double mean = std::accumulate(times.begin(), times.end(), 0.0) / n;
  double squares = 0;
  for (const double time : times) squares += (time - mean) * (time - mean);
  const double of_a_row = mean / static_cast<double>(c.batch);
  auto in_use = largest_of(m, &InferenceRun::peak_bytes);
  if (in_use) *in_use += m.runs.back().before_bytes;
  write_line(c.name, c.tokens, c.batch,
             fmt::format("False,{},{},{},{},{},{}", json_number(mean),
                         json_number(std::sqrt(squares / n)), json_number(of_a_row),
                         json_number(of_a_row / static_cast<double>(c.tokens.generated)),
                         gib(in_use), gib(largest_of(m, &InferenceRun::reserved_bytes))));
}

void GenerationCsv::write_out_of_memory(const std::string& model, const BenchLength& tokens,
                                        int64_t batch) {
  write_line(model, tokens, batch, "True,,,,,,");
}

void GenerationCsv::write_line(const std::string& model, const BenchLength& tokens, int64_t batch,
                               const std::string& rest) {
  file_.write(fmt::format("{},{},{},{},{}\n", csv_cell(model), tokens.prompt, tokens.generated,
                          batch, rest));
}

}  // namespace tandem
