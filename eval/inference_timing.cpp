#include "eval/inference_timing.h"

#include <fmt/format.h>
#include <torch/cuda.h>

#include <algorithm>
#include <chrono>
#include <string_view>

#include "core/error.h"
#include "core/log.h"
#include "core/random.h"
#include "nn/generate.h"
#include "nn/peak_memory.h"

namespace tandem {
namespace {

using Clock = std::chrono::steady_clock;

// A first run that takes as long as this counts.
constexpr double kLongRunMs = 20e3;
// Runs as long as this are reported as they end.
constexpr double kReportedSeconds = 5;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

template <typename Function>
double time_ms(torch::Device device, const Function& f) {
  const auto wait = [&] {
    if (device.is_cuda()) torch::cuda::synchronize(device.index());
  };
  wait();
  const auto begin = Clock::now();
  f();
  wait();
  return 1e3 * seconds_since(begin);
}

/// Of `tokens.generated` tokens after what the state holds.
double decode_ms(LanguageModel& model, const InferenceLength& tokens, int64_t batch,
                 ModelState& state, torch::Device device) {
  DeviceSampler greedy({.temperature = 0}, batch, device);
  return time_ms(device, [&] {
    for (int64_t done = 0; done < tokens.generated; done += model.tokens_per_call())
      model.generate_block(state, greedy);
  });
}

}  // namespace

int64_t rounded_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

InferenceLength whole_blocks(InferenceLength tokens, const std::string& name,
                             const LanguageModel& model) {
  const Packing packing = model.packing();
  tokens.prompt = rounded_up(tokens.prompt, packing.multiple);
  tokens.generated = rounded_up(tokens.generated, model.tokens_per_call());
  if (packing.max_length > 0 && tokens.total() > packing.max_length) {
    throw bad_usage(
        fmt::format("{} takes at most {} tokens in a row, got {} of prompt and {} after it", name,
                    with_commas(packing.max_length), with_commas(tokens.prompt),
                    with_commas(tokens.generated)));
  }
  return tokens;
}

Workload whole_workload(LanguageModel& model, const InferenceLength& tokens,
                        const TimingOptions& options, torch::Device device) {
  std::vector<std::vector<int64_t>> prompts;  // of the last batch: repeats read the same
  return [=, &model, &options](int64_t batch) mutable {
    if (static_cast<int64_t>(prompts.size()) != batch)
      prompts = random_prompts(model.vocab_size(), batch, tokens.prompt, options.seed);
    InferenceRun run;
    const PeakMemory peak(device);
    run.before_bytes = peak.before_bytes();
    std::unique_ptr<ModelState> state;
    run.total_ms = time_ms(device, [&] {
      state = inference_state(model, batch, tokens.total(), cache_dtype_of(options.cache_dtype));
      run.prefill_ms =
          time_ms(device, [&] { prefill(model, prompts, options.prefill_chunk, *state); });
      run.state_bytes = state->bytes();
      run.prefill_peak_bytes = peak.growth_bytes();
      run.decode_ms = decode_ms(model, tokens, batch, *state, device);
    });
    run.end_state_bytes = state->bytes();
    run.peak_bytes = peak.growth_bytes();
    run.reserved_bytes = peak.reserved_bytes();
    if (run.prefill_peak_bytes) {  // the state was made with room for what is full only now
      run.prefill_beyond_state_bytes =
          std::max<int64_t>(0, *run.prefill_peak_bytes - state->bytes());
    }
    return run;
  };
}

Workload decode_workload(LanguageModel& model, const InferenceLength& tokens,
                         const TimingOptions& options, torch::Device device) {
  const auto prompts = random_prompts(model.vocab_size(), 1, tokens.prompt, options.seed);
  const std::shared_ptr<ModelState> row =
      inference_state(model, 1, tokens.total(), cache_dtype_of(options.cache_dtype));
  const double prefill_ms =
      time_ms(device, [&] { prefill(model, prompts, options.prefill_chunk, *row); });
  return [=, &model](int64_t batch) {
    InferenceRun run;
    run.prefill_ms = prefill_ms;
    const PeakMemory peak(device);
    run.before_bytes = peak.before_bytes();
    const auto state =
        row->select(torch::zeros({batch}, torch::dtype(torch::kInt64).device(device)));
    run.state_bytes = state->bytes();
    run.decode_ms = decode_ms(model, tokens, batch, *state, device);
    run.end_state_bytes = state->bytes();
    run.total_ms = run.decode_ms;
    run.peak_bytes = peak.growth_bytes();
    run.reserved_bytes = peak.reserved_bytes();
    return run;
  };
}

bool is_out_of_memory(const c10::Error& error) {
  if (dynamic_cast<const c10::OutOfMemoryError*>(&error)) return true;
  const std::string_view what = error.what_without_backtrace();
  // CUDA and its libraries, which take memory beside the allocator; then the CPU's allocator.
  for (const char* sign :
       {"out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "can't allocate memory"}) {
    if (what.find(sign) != what.npos) return true;
  }
  return false;
}

Measured measure(const Workload& workload, int64_t batch, const TimingOptions& o) {
  const auto begin = Clock::now();
  InferenceRun run = workload(batch);
  const auto time_is_up = [&] {
    return o.max_seconds > 0 && seconds_since(begin) + run.total_ms / 1e3 > o.max_seconds;
  };
  Measured measured;
  measured.warm_up = run.total_ms < kLongRunMs && !time_is_up();
  if (!measured.warm_up) measured.runs.push_back(run);
  const auto n_left = [&] { return o.repeats - static_cast<int64_t>(measured.runs.size()); };
  while (n_left() > 0 && (measured.runs.empty() || !time_is_up())) {
    if (run.total_ms / 1e3 > kReportedSeconds) {
      log_line(fmt::format("  prefill {:.1f} s, decoding {:.1f} s; up to {} more, {}",
                           run.prefill_ms / 1e3, run.decode_ms / 1e3, n_left(),
                           human_duration(static_cast<double>(n_left()) * run.total_ms / 1e3)));
    }
    run = workload(batch);
    measured.runs.push_back(run);
  }
  return measured;
}

Spread spread_over(const Measured& measured,
                   const std::function<double(const InferenceRun&)>& value_of) {
  std::vector<double> values;
  for (const InferenceRun& run : measured.runs) values.push_back(value_of(run));
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  TORCH_CHECK(n > 0, "spread_over: no runs");
  const double median = n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
  return {median, values.front(), values.back()};
}

std::vector<std::vector<int64_t>> random_prompts(int64_t vocab_size, int64_t batch, int64_t length,
                                                 uint64_t seed) {
  const RandomStream stream = RandomStream(seed).fork("bench prompts");
  std::vector<std::vector<int64_t>> prompts(static_cast<size_t>(batch));
  for (size_t b = 0; b < prompts.size(); ++b) {
    const RandomStream of_row = stream.fork(b);
    for (int64_t t = 0; t < length; ++t) {
      prompts[b].push_back(static_cast<int64_t>(
          of_row.below(static_cast<uint64_t>(t), static_cast<uint64_t>(vocab_size))));
    }
  }
  return prompts;
}

}  // namespace tandem
