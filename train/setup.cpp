#include "train/setup.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "core/checksum.h"
#include "core/error.h"
#include "core/json_lines.h"
#include "core/log.h"
#include "data/token_manifest.h"
#include "nn/recomputing_runner.h"
#include "train/drift.h"
#include "train/gathering_runner.h"
#include "train/validation.h"

namespace tandem {
namespace {

using nlohmann::ordered_json;

/// What `read` takes from state.json; throws bad_file for what is missing or wrong there.
template <typename Read>
auto from_state(const Checkpoint& checkpoint, const Read& read) {
  const ordered_json state = checkpoint.state();
  try {
    return read(state);
  } catch (const std::runtime_error& error) {
    throw bad_file(join_path(checkpoint.folder(), "state.json"), error.what());
  }
}

/// Warns where weights are of another tokenizer, or do not say of which: imported ones may not.
void compare_tokenizers(const Checkpoint& from, const Tokenizer& tokenizer) {
  const std::string path = from.tokenizer();
  const ConfigNode config = parse_yaml(from.config_yaml(), join_path(from.folder(), "config.yaml"));
  const ConfigNode* data = config.find("data");
  if (path == "bytes" && !(data && data->find("tokenizer"))) {
    log_warning(from.folder() + " does not say which tokenizer its weights are for");
  } else if (tokenizer_hash(*load_tokenizer(path)) != tokenizer_hash(tokenizer)) {
    log_warning(from.folder() + " has another tokenizer than " + tokenizer.name());
  }
}

std::string hex_float(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%a", value);
  return text;
}

std::vector<double> hex_floats(const ordered_json& list) {
  std::vector<double> values;
  for (const auto& text : list) {
    if (!text.is_string()) throw std::runtime_error("losses holds " + text.dump());
    const std::string word = text;
    char* end = nullptr;
    values.push_back(std::strtod(word.c_str(), &end));
    if (end != word.c_str() + word.size() || !std::isfinite(values.back()))
      throw std::runtime_error("losses holds \"" + word + "\"");
  }
  return values;
}

/// The model on meta, divided over the tensor ranks, and a run around it.
Run empty_run(const TrainConfig& config, const ModelFactory& factory, Mesh& mesh,
              torch::Device device) {
  Run run;
  run.mesh = &mesh;
  run.device = device;
  run.model = factory.build(config.model);
  split_over(*run.model, *mesh.tensor);
  check_sequence(*run.model, mesh.shape);
  if (config.bad_steps.spike != "ignore")
    run.spikes.emplace(config.bad_steps.spike_window, config.bad_steps.spike_threshold);
  return run;
}

WeightsOf weights_of(const Checkpoint& checkpoint) {
  return [&checkpoint](const ParameterInfo& info) {
    Tensor values = torch::empty(info.local_shape(), torch::kFloat32);
    Tensor flat = values.view({-1});
    checkpoint.load_part("", info, 0, flat.numel(), flat);
    return values;
  };
}

/// A whole model made out of `from`, on the CPU, of which every rank takes its part.
WeightsOf uptrained_weights(const TrainConfig& config, const ModelFactory& factory,
                            const Checkpoint& from) {
  const std::shared_ptr<LanguageModel> whole = factory.build(config.model);
  initialise(*whole, static_cast<uint64_t>(config.training.seed), torch::kCPU, torch::kFloat32);
  factory.uptrain(config.model, *whole, from);
  return [whole, parameters = whole->named_parameters()](const ParameterInfo& info) {
    return local_part(info, parameters[info.name].detach());
  };
}

}  // namespace

WeightsOf random_weights(int64_t seed) {
  return [stream = RandomStream(static_cast<uint64_t>(seed)).fork("init")](
             const ParameterInfo& info) { return local_part(info, initial_values(info, stream)); };
}

ShardingOptions sharding_options(const TrainConfig& config) {
  const ParallelismConfig& parallelism = config.parallelism;
  ShardingOptions options;
  options.level = shard_level(parallelism.shard);
  options.dtype = dtype_of(config.training);
  if (parallelism.reduce_dtype == "bfloat16") options.reduce_dtype = torch::kBFloat16;
  options.overlap = parallelism.overlap;
  options.bucket_elements = (parallelism.bucket_mb << 20) / int64_t{sizeof(float)};
  return options;
}

void make_trainable(Run& run, const TrainConfig& config, const ShardingOptions& options,
                    const WeightsOf& weights_of) {
  auto sharding =
      std::make_unique<Sharding>(*run.model, *run.mesh, options, run.device, weights_of);
  if (config.training.recompute == "layers") run.runner = std::make_unique<RecomputingRunner>();
  if (options.level == ShardLevel::kParameters)
    run.runner = std::make_unique<GatheringRunner>(*sharding, std::move(run.runner));
  run.optimizer = std::make_unique<Optimizer>(std::move(sharding), config.optimizer);
}

Origins origins_of(const Tokenizer& tokenizer, const Sampler& sampler) {
  const std::string bytes = tokenizer.model_bytes();
  const bool bytes_say_all = bytes.empty() || tokenizer.file_name() == "tokenizer.model";
  const std::string hash = bytes_say_all ? sha256_hex(bytes)  // as of old
                                         : tokenizer_hash(tokenizer);
  return {hash.substr(0, 16), sampler.data_hash()};
}

void check_mesh(const Plan& plan, const MeshShape& shape) {
  for (const Stage& stage : plan.stages()) {
    const TrainingConfig& training = stage.config.training;
    const ShardLevel level = shard_level(stage.config.parallelism.shard);
    if (training.context_length % (shape.sequence * stage.packing.multiple) != 0)
      throw bad_usage(
          "parallelism.sequence = " + std::to_string(shape.sequence) +
          " does not divide training.context_length = " + std::to_string(training.context_length));
    // Collectives of sharded gradients come with each micro-batch, so ranks must have equally many.
    const bool even = level >= ShardLevel::kGradients && shape.shard() > 1;
    const int64_t ramp = training.batch_ramp ? training.batch_ramp->steps : 0;
    const int64_t last = std::min(stage.end, stage.ramp_begin + ramp + 1);
    for (int64_t step = stage.begin; step < std::max(stage.begin + 1, last); ++step) {
      const int64_t batches = plan.rows(step) / *training.micro_batch_size;
      if (batches >= shape.data && (!even || batches % shape.data == 0)) continue;
      const std::string ranks = std::to_string(shape.data) + " data ranks";
      throw bad_usage("step " + std::to_string(step + 1) + " has " + std::to_string(batches) +
                      (batches == 1 ? " micro-batch" : " micro-batches") +
                      " (tokens_per_step = " + std::to_string(training.tokens_per_step) +
                      ", context_length = " + std::to_string(training.context_length) +
                      ", micro_batch_size = " + std::to_string(*training.micro_batch_size) +
                      ") for " + ranks + ", expected " +
                      (even
                           ? "a multiple, as parallelism.shard is " + stage.config.parallelism.shard
                           : "at least one each"));
    }
  }
}

void check_sequence(const LanguageModel& model, const MeshShape& shape) {
  if (shape.sequence == 1) return;
  if (const std::string why = model.why_not_sequence_parallel(); !why.empty())
    throw bad_usage("parallelism.sequence = " + std::to_string(shape.sequence) +
                    ", expected 1 for this model: " + why);
}

void check_data(const Plan& plan, const Tokenizer& tokenizer, int64_t step) {
  const auto check = [&](const TokenFile& file) {
    check_made_by(file, tokenizer, "data.tokenizer",
                  "set data.tokenizer to the one it was made with, or run `tandem data tokenize` "
                  "again");
  };
  for (const Stage& stage : plan.stages()) {
    if (stage.end <= step) continue;  // its data may be gone
    try {
      const auto sampler = make_sampler(stage.config, stage.packing);
      for (const auto& file : sampler->files()) check(*file);
      const Validation validation(stage.config, stage.packing);
      for (size_t i = 0; i < stage.config.data.validation.size(); ++i)
        check(validation.view(i).documents().file());
    } catch (const UserError& error) {
      if (plan.stages().size() == 1) throw;
      throw UserError(error.exit_code(), name_of_stage(stage.index) + ": " + error.what());
    }
  }
}

void make_deterministic(int64_t threads) {
  setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/0);  // read at the first CUDA call
  // Not warn_only: attention's backward kernels on a GPU would stay as they are, and sum in any
  // order.
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
  at::globalContext().setDeterministicFillUninitializedMemory(false);
  at::set_num_threads(static_cast<int>(threads));
}

torch::Dtype dtype_of(const TrainingConfig& training) {
  return training.dtype == "bfloat16" ? torch::kBFloat16 : torch::kFloat32;
}

std::shared_ptr<const Sampler> make_sampler(const TrainConfig& config, const Packing& packing) {
  std::vector<SourceSpec> sources;
  for (const auto& source : config.data.train)
    sources.push_back({source.file(), source.weight, source.view()});
  return std::make_shared<const Sampler>(sources, config.training.context_length,
                                         config.data.shuffle, config.data.mask_documents,
                                         static_cast<uint64_t>(config.training.seed), packing);
}

Run new_run(const TrainConfig& config, const ModelFactory& factory, const Tokenizer& tokenizer,
            Mesh& mesh, torch::Device device, ordered_json* origin) {
  Run run = empty_run(config, factory, mesh, device);
  if (!config.init) {
    *origin = "random";
    make_trainable(run, config, sharding_options(config), random_weights(config.training.seed));
    return run;
  }
  const Checkpoint from(find_checkpoint(config.init->from));
  compare_tokenizers(from, tokenizer);
  *origin = {{"checkpoint", from.folder()}, {"step", from.step()}};
  if (config.init->as == "uptrain") {
    (*origin)["as"] = config.init->as;
    make_trainable(run, config, sharding_options(config), uptrained_weights(config, factory, from));
  } else {
    from.check_weights(*run.model);
    make_trainable(run, config, sharding_options(config), weights_of(from));
  }
  return run;
}

ordered_json state_of(const Run& run, const Stage& stage, const Origins& origins) {
  // Nothing of this process, such as a time: the same step has the same bytes however often the run
  // was stopped.
  ordered_json state = {{"step", run.step},
                        {"next_sample", run.next_sample},
                        {"skipped", run.skipped},
                        {"skipped_in_a_row", run.skipped_in_a_row},
                        {"rollbacks", run.rollbacks},
                        {"last_due", run.last_due},
                        {"stage_begin", stage.begin},
                        {"schedule_begin", stage.schedule_begin},
                        {"ramp_begin", stage.ramp_begin},
                        {"samples_begin", stage.samples_begin},
                        {"tokenizer_hash", origins.tokenizer},
                        {"data_hash", origins.data}};
  if (run.spikes) {
    state["losses"] = ordered_json::array();  // in hexadecimal: to the last bit
    for (const double loss : run.spikes->losses()) state["losses"].push_back(hex_float(loss));
  }
  return state;
}

Run resumed_run(const Checkpoint& checkpoint, const Stage& stage, const ModelFactory& factory,
                Mesh& mesh, torch::Device device) {
  Run run = empty_run(stage.config, factory, mesh, device);
  checkpoint.check_weights(*run.model);
  make_trainable(run, stage.config, sharding_options(stage.config), weights_of(checkpoint));
  run.step = checkpoint.step();
  from_state(checkpoint, [&](const ordered_json& state) {
    get_int(state, "step", run.step, run.step);
    run.next_sample = get_int(state, "next_sample", 0, INT64_MAX);
    run.skipped = get_int(state, "skipped", 0, run.step);
    run.skipped_in_a_row = get_int(state, "skipped_in_a_row", 0, run.skipped);
    if (state.contains("rollbacks")) run.rollbacks = get_int(state, "rollbacks", 0, INT64_MAX);
    run.last_due = state.contains("last_due") ? get_int(state, "last_due", 0, run.step) : run.step;
    // A stage of other rows counts them anew, and its losses are no measure for the next one's.
    if (run.step == stage.samples_begin) run.next_sample = 0;
    if (run.spikes && run.step != stage.begin && state.contains("losses"))
      run.spikes->restore(hex_floats(state.at("losses")));
  });
  run.optimizer->load(checkpoint, run.step - run.skipped);
  return run;
}

TrainConfig config_of(const Checkpoint& checkpoint, const ModelFactory& factory) {
  TrainConfig config = make_train_config(factory);
  read_config(parse_yaml(checkpoint.config_yaml(), join_path(checkpoint.folder(), "config.yaml")),
              config);
  return config;
}

void check_same_run(const std::string& run_folder, const Checkpoint& checkpoint,
                    TrainConfig& old_config, Stage stage, const Origins& origins) {
  judge_drift(run_folder, find_drift(write_config(old_config), write_config(stage.config)));
  const auto refused = [&](const std::string& what) {
    return bad_usage(run_folder + ": cannot be resumed: " + what +
                     "; go back, or start another run with --out");
  };
  const auto compare_begin = [&](int64_t before, const char* what, int64_t now) {
    if (before != now)
      throw refused(std::string(what) + " began after step " + std::to_string(before) +
                    ", now after step " + std::to_string(now));
  };
  const auto compare_hash = [&](const std::string& before, const char* key,
                                const std::string& now) {
    if (before != now)
      throw refused("the contents of " + std::string(key) + " changed, their hash was " + before +
                    ", is " + now);
  };
  struct {
    int64_t stage, schedule, ramp, samples;  // where they began
    Origins origins;
  } before;
  from_state(checkpoint, [&](const ordered_json& state) {
    const auto begin = [&](const char* key) {
      return state.contains(key) ? get_int(state, key, 0, INT64_MAX) : 0;  // of 0.1.0: no stages
    };
    before = {begin("stage_begin"),
              begin("schedule_begin"),
              begin("ramp_begin"),
              begin("samples_begin"),
              {get_string(state, "tokenizer_hash"), get_string(state, "data_hash")}};
  });
  compare_begin(before.stage, "the stage", stage.begin);
  compare_begin(before.schedule, "lr_schedule", stage.schedule_begin);
  compare_begin(before.ramp, "training.batch_ramp", stage.ramp_begin);
  compare_begin(before.samples, "the stage's data", stage.samples_begin);
  if (stage.config.training.batch_ramp &&
      old_config.training.micro_batch_size != stage.config.training.micro_batch_size)
    throw refused(
        "training.micro_batch_size changed, to whole ones of which training.batch_ramp "
        "rounds its steps");
  compare_hash(before.origins.tokenizer, "data.tokenizer", origins.tokenizer);
  compare_hash(before.origins.data, "data.train", origins.data);
}

Flops flops_per_token(const LanguageModel& model, int64_t context_length) {
  Flops flops = model.flops(Phase::kTrain, context_length, 1);
  for (auto& part : flops.parts) part.second /= static_cast<double>(context_length);
  return flops;
}

}  // namespace tandem
