#include "eval/profile.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>

#include "core/checksum.h"
#include "core/error.h"
#include "core/log.h"
#include "eval/profile_record.h"
#include "nn/device_info.h"
#include "nn/generate.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;

// The first of the short cases that tell a model's pace before its first measurement.
constexpr InferenceLength kProbe = {256, 16};

torch::Dtype dtype_of(const std::string& word) {
  return word == "bfloat16" ? torch::kBFloat16
         : word == "float64" ? torch::kFloat64
                             : torch::kFloat32;
}

/// What all cells share.
struct Device {
  std::string name;
  double memory = 0;                       // bytes
  double peak_flops = 0, bytes_per_s = 0;  // 0: not known
};

Device device_of(const ProfileConfig& config, const EvalArgs& args) {
  Device device;
  device.name = device_name(args.device);
  device.memory = config.memory.empty() ? available_memory(args.device)
                                        : parse_bytes("--memory", config.memory);
  const auto known = args.dtype == "bfloat16" ? peak_flops(device.name, torch::kBFloat16)
                                              : std::optional<double>();
  device.peak_flops = config.peak_tflops ? 1e12 * *config.peak_tflops : known.value_or(0);
  device.bytes_per_s = 1e9 * config.bandwidth.value_or(0);
  return device;
}

/// One input: its shapes at once, its weights when the first measurement asks for them.
class ProfiledModel {
 public:
  ProfiledModel(const ProfileConfig& config, const EvalArgs& args, const Device& device,
                std::string input)
      : config_(config),
        args_(args),
        device_(device),
        input_(std::move(input)),
        shapes_(args.describe(input_)),
        cost_(*shapes_.model, shapes_.config, dtype_of(args.dtype), cache_dtype()) {}

  InferenceLength tokens_of(int64_t length) const {
    const int64_t generated = rounded_up(config_.generated, shapes_.model->tokens_per_call());
    if (length <= generated) {
      throw bad_usage(fmt::format(
          "--lengths {} leaves no prompt, expected more than the {} tokens that are generated",
          length, generated));
    }
    return whole_blocks({length - generated, generated}, input_, *shapes_.model);
  }

  Json identity(int64_t length, int64_t batch) const {
    const InferenceLength tokens = tokens_of(length);
    Json json = about("profile", args_, input_, shapes_);
    const ConfigNode* section = shapes_.config.find("model");
    const std::string text = section ? to_yaml(*section) : "";
    const auto or_null = [](const auto& value) { return value ? Json(*value) : Json(); };
    json.update({{"model_config", sha256_hex(text).substr(0, 16)},
                 {"length", length},
                 {"prompt_length", tokens.prompt},
                 {"decode_length", tokens.generated},
                 {"batch", batch},  // as asked: 0 is the largest
                 {"cache_dtype", config_.cache_dtype == "same" ? args_.dtype : config_.cache_dtype},
                 {"prefill_chunk", config_.prefill_chunk},
                 {"repeats", config_.repeats},
                 {"measure", config_.measure},
                 {"memory", config_.memory.empty() ? Json() : Json(device_.memory)},
                 {"max_seconds", config_.max_seconds},
                 {"peak_tflops", or_null(config_.peak_tflops)},
                 {"bandwidth", or_null(config_.bandwidth)},
                 {"device_name", device_.name},
                 {"threads", at::get_num_threads()}});
    return json;
  }

  Json numbers(int64_t length, int64_t batch, std::optional<Pace> pace) {
    const ProfileCase c = case_of(tokens_of(length), batch);
    return profile_record(shapes_, cost_, c, times_of(c, pace), device_.peak_flops);
  }

  std::optional<Pace> pace_in(const Json& record, int64_t length) const {
    return pace_of_record(record, cost_, tokens_of(length));
  }

 private:
  torch::Dtype cache_dtype() const {
    return cache_dtype_of(config_.cache_dtype).value_or(dtype_of(args_.dtype));
  }

  ProfileCase case_of(const InferenceLength& tokens, int64_t batch) const {
    ProfileCase c{tokens, batch, device_.memory, {}};
    if (batch == 0) {  // where not even one row fits, one is computed
      c.rows =
          std::max<int64_t>(1, cost_.rows_within(device_.memory, tokens, config_.prefill_chunk));
    }
    c.memory = cost_.memory(tokens, c.rows, config_.prefill_chunk);
    return c;
  }

  ProfileTimes times_of(const ProfileCase& c, std::optional<Pace> pace) {
    ProfileTimes times;
    if (!config_.measure) {
      times.why_computed = "asked";
    } else if (!c.fits()) {
      times.why_computed = "memory";
    } else {
      try {
        if (!pace) pace = probe(c);
        if (cost_.at_pace(*pace, c.tokens, c.rows).total(c.tokens) > config_.max_seconds)
          times.why_computed = "time";
        else
          times.measured = time(c.tokens, c.rows, config_.repeats);
      } catch (const c10::Error& error) {
        if (!is_out_of_memory(error)) throw;
        times.why_computed = "memory";
      }
    }
    if (!times.measured) compute(c, pace, times);
    return times;
  }

  void compute(const ProfileCase& c, const std::optional<Pace>& pace, ProfileTimes& times) const {
    if (pace) {
      times.computed = cost_.at_pace(*pace, c.tokens, c.rows);
      times.basis = "extrapolated";
      times.from_length = pace->length;
    } else if (device_.peak_flops > 0 && device_.bytes_per_s > 0) {
      times.computed = cost_.at_peak({device_.peak_flops, device_.bytes_per_s}, c.tokens, c.rows);
      times.basis = "roofline";
    }
  }

  /// The pace of short cases, once for each number of rows: each is kGrowth times as long as the
  /// one before, as a short prompt is not as fast as a long one, while kShare of the time is
  /// enough.
  Pace probe(const ProfileCase& c) {
    const auto found = probed_.find(c.rows);
    if (found != probed_.end()) return found->second;
    constexpr int64_t kGrowth = 4;
    constexpr double kShare = 1.0 / 8;
    InferenceLength tokens = blocks(
        {std::min(kProbe.prompt, c.tokens.prompt), std::min(kProbe.generated, c.tokens.generated)});
    while (true) {
      const Pace pace = pace_of(tokens, c.rows);
      const int64_t prompt = kGrowth * tokens.prompt;
      if (prompt > c.tokens.prompt) return probed_[c.rows] = pace;
      tokens.prompt = prompt;
      if (cost_.at_pace(pace, tokens, c.rows).total(tokens) > kShare * config_.max_seconds)
        return probed_[c.rows] = pace;
    }
  }

  InferenceLength blocks(const InferenceLength& tokens) const {
    return whole_blocks(tokens, input_, *shapes_.model);
  }

  Pace pace_of(const InferenceLength& tokens, int64_t rows) {
    const Measured measured = time(tokens, rows, 1);
    const InferenceRun& run = measured.runs.back();
    return cost_.pace_of(
        {run.prefill_ms / 1e3, run.decode_ms / 1e3 / static_cast<double>(tokens.generated)}, tokens,
        rows);
  }

  Measured time(const InferenceLength& tokens, int64_t rows, int64_t repeats) {
    if (!loaded_.model) loaded_ = args_.load_or_make(input_);
    const TimingOptions options{.repeats = repeats,
                                .prefill_chunk = config_.prefill_chunk,
                                .max_seconds = config_.max_seconds,
                                .seed = args_.seed,
                                .cache_dtype = config_.cache_dtype};
    const c10::InferenceMode inference;
    return measure(whole_workload(*loaded_.model, tokens, options, args_.device), rows, options);
  }

  const ProfileConfig& config_;
  const EvalArgs& args_;
  const Device& device_;
  std::string input_;
  LoadedModel shapes_, loaded_;
  InferenceCost cost_;
  std::map<int64_t, Pace> probed_;  // by rows
};

}  // namespace

double parse_bytes(const std::string& flag, const std::string& text) {
  constexpr std::pair<const char*, double> kUnits[] = {
      {"", 1},      {"B", 1},        {"KB", 1e3},     {"MB", 1e6},     {"GB", 1e9},
      {"TB", 1e12}, {"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30}, {"TiB", 0x1p40}};
  double number = 0;
  const auto read = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string unit(read.ptr, text.data() + text.size());
  for (const auto& [name, bytes] : kUnits) {
    if (read.ec == std::errc() && number > 0 && unit == name) return number * bytes;
  }
  throw bad_usage(flag + " " + text + ", expected bytes above 0, such as 512MiB or 80GB");
}

const char* const kProfileHelp =
    R"(Inputs are checkpoints, run folders or configs (.yaml: random weights). A length of --lengths is that of a whole row: the last --generated tokens
are decoded greedily, the prompt before them is read in pieces of --prefill-chunk tokens with early exit. --batches are rows (it stands for --batch here); 0
is the most that --memory (such as 16GiB; absent: what the device has free) holds. A case is measured where its weights, cache and activations fit --memory and its
prompt and answer are expected within --max-seconds, judged by the model's pace in the case before; the others are computed and marked: ~ in the table,
"measured": false in the record. Their times follow from the pace of the longest case that was measured or, where there is none (--measure false), from
--peak-tflops and --bandwidth (GB/s): the least that a device of these peaks needs. MFU counts the model's FLOPs of a decoded token against --peak-tflops (absent: the
device's, where it is known, in bfloat16). Cases run one after another, whatever the number of processes: two at once would slow one another.
Example: tandem eval profile configs/quickstart/yoco.yaml configs/quickstart/transformer.yaml --lengths 32768,65536 --memory 4GiB --out profile.jsonl)";

EvalTable run_profile(const ProfileConfig& config, const EvalArgs& args) {
  std::vector<int64_t> lengths = config.lengths;
  std::sort(lengths.begin(), lengths.end());
  const Device device = device_of(config, args);
  EvalTable table = {profile_heading()};
  for (const std::string& input : args.inputs) {
    ProfiledModel model(config, args, device, input);
    for (const int64_t length : lengths)
      model.tokens_of(length);  // all are refused before any runs
    for (const int64_t batch : config.batches) {
      std::optional<Pace> pace;
      for (const int64_t length : lengths) {
        const Cell cell{model.identity(length, batch),
                        [&] { return model.numbers(length, batch, pace); }};
        const Json record =
            args.cells
                ->run(fmt::format("profile {} at {} tokens", input, with_commas(length)),
                      {&cell, 1})
                .front();
        if (const auto measured = model.pace_in(record, length)) pace = measured;
        table.push_back(profile_row(record));
      }
    }
  }
  return table;
}

}  // namespace tandem
