#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/config.h"
#include "data/document_view.h"
#include "data/tokenizer.h"
#include "nn/model_factory.h"

namespace tandem {

/// Weights to begin with in place of random ones; optimizer and step start anew.
struct InitConfig {
  std::string from;            // a checkpoint or a run folder
  std::string as = "weights";  // weights: names and shapes are the same; uptrain: a Block Transformer out of a Transformer or GPT-NeoX
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.value("from", from);
    visit.one_of("as", as, {"weights", "uptrain"});
  }
  void check(Checker& check) const {
    check.require(!from.empty(), "from", from, "a checkpoint or a run folder");
  }
};

/// Tokens that training or validation reads.
struct SourceConfig {
  std::string path;                   // indexed dataset without .bin and .idx, headerless file, packed chunks without _0000000000.bin, or a folder of them
  std::optional<std::string> dtype;   // uint16 | uint32: the file is headerless
  std::optional<int64_t> eos_id;      // ends the documents of headerless files and packed chunks
  bool target_weights = false;        // the loss weighs each token as PATH.weights says: float32, one a token
  std::optional<int64_t> min_length;  // tokens; shorter documents are left out
  std::optional<int64_t> max_length;  // tokens; longer documents are left out
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.value("path", path);
    visit.optional("dtype", dtype);
    visit.optional("eos_id", eos_id, at_least(0));
    visit.value("target_weights", target_weights);
    visit.optional("min_length", min_length, at_least(1));
    visit.optional("max_length", max_length, at_least(1));
  }
  void check(Checker& check) const;
  TokenFileSpec file() const;
  ViewSpec filter() const;  ///< the lengths alone
};

/// Long documents come more often (YOCO, length extension).
struct UpsampleConfig {
  int64_t from = 1;   // tokens of the documents it is about
  int64_t times = 0;  // how often each comes in an epoch; must be given
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.value("from", from, at_least(1));
    visit.value("times", times, in_range(2, kMostUpsampling));
  }
  void check(Checker& check) const {
    check.require(times != 0, "times", "absent", "an integer from 2 to 1000");
  }
};

struct TrainSourceConfig : SourceConfig {
  double weight = 1.0;                     // share of the samples, relative to the other sources
  std::optional<UpsampleConfig> upsample;  // absent: every document once an epoch
  template <typename Visitor>
  void fields(Visitor& visit) {
    SourceConfig::fields(visit);
    visit.value("weight", weight, above(0));
    visit.section("upsample", upsample);
  }
  ViewSpec view() const;
};

struct DataConfig {
  std::string tokenizer = "bytes";  // bytes, or what data/tokenizer.h lists: a tokenizer.model, tokenizer.json, NAME:PATH
  std::vector<TrainSourceConfig> train;
  std::vector<SourceConfig> validation;  // empty: no validation
  std::string shuffle = "windows";  // what is put into a new order each epoch: windows | documents
  bool mask_documents = false;      // tokens see their own document only
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.value("tokenizer", tokenizer);
    visit.list("train", train);
    visit.list("validation", validation);
    visit.one_of("shuffle", shuffle, {"windows", "documents"});
    visit.value("mask_documents", mask_documents);
  }
  void check(Checker& check) const {
    check.require(!train.empty(), "train", "[]", "at least one {path: ..., weight: ...}");
  }
};

/// Smaller steps at first.
struct BatchRampConfig {
  int64_t from = 0;   // tokens of the first step
  int64_t steps = 0;  // over which it grows linearly to tokens_per_step, in whole micro-batches
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.value("from", from, at_least(1));
    visit.value("steps", steps, at_least(1));
  }
};

struct TrainingConfig {
  int64_t context_length = 1024;    // tokens in one training sequence
  int64_t tokens_per_step = 32768;  // tokens an optimizer step learns from, over all ranks
  std::optional<BatchRampConfig> batch_ramp;  // absent: tokens_per_step from the start
  std::optional<int64_t> micro_batch_size;    // sequences of one forward pass; absent: as many as
                                              // make up to 16,384 tokens, or a data rank's share
  int64_t steps = 1000;  // optimizer steps of the run; with stages the sum of theirs
  int64_t seed = 0;      // of the initial weights, the order of samples and all that is random
  std::string dtype = "float32";  // of the modules: bfloat16 | float32; masters are always float32
  std::optional<int64_t>
      threads;  // of one process; absent: all cores at the first start, then as recorded
  std::string recompute = "none";  // layers: keeps each layer's input only and runs it again in the
                                   // backward pass, for the same bits in less memory
  std::string deterministic =
      "run";  // run: bit-identical on the same hardware, build, mesh and thread count; elastic: on
              // any number of data ranks, with one thread each, reduced in one order
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.value("context_length", context_length, at_least(1));
    visit.value("tokens_per_step", tokens_per_step, at_least(1));
    visit.section("batch_ramp", batch_ramp);
    visit.optional("micro_batch_size", micro_batch_size, at_least(1));
    visit.value("steps", steps, at_least(1));
    visit.value("seed", seed, at_least(0));
    visit.one_of("dtype", dtype, {"bfloat16", "float32"});
    visit.optional("threads", threads, in_range(1, 1024));
    visit.one_of("recompute", recompute, {"none", "layers"});
    visit.one_of("deterministic", deterministic, {"run", "elastic"});
  }
  /// tokens_per_step is a multiple of context_length * micro_batch_size.
  void check(Checker& check) const;
  int64_t rows_per_step() const { return tokens_per_step / context_length; }
};

/// How ranks share the work. data ranks = world / (tensor * sequence).
struct ParallelismConfig {
  std::string shard = "none";  // what ranks divide among them: none | optimizer | gradients (and
                               // optimizer) | parameters (and both)
  int64_t replicate = 1;  // copies of what is sharded, side by side (hybrid sharding); divides the
                          // data and sequence ranks
  int64_t tensor = 1;     // ranks that divide heads and widths
  int64_t sequence = 1;   // ranks that divide each sequence into chunks (YOCO, sec. 5)
  std::string reduce_dtype = "float32";  // gradients travel as: float32 | bfloat16
  int64_t bucket_mb = 25;                // of gradients that are reduced together (MiB)
  bool overlap = true;  // gradients travel while the backward pass goes on, not after it
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.one_of("shard", shard, {"none", "optimizer", "gradients", "parameters"});
    visit.value("replicate", replicate, at_least(1));
    visit.value("tensor", tensor, at_least(1));
    visit.value("sequence", sequence, at_least(1));
    visit.one_of("reduce_dtype", reduce_dtype, {"float32", "bfloat16"});
    visit.value("bucket_mb", bucket_mb, at_least(1));
    visit.value("overlap", overlap);
  }
};

/// How ranks watch each other.
struct CommunicationConfig {
  double setup_seconds = 300;     // until all ranks have met
  double step_seconds = 300;      // a collective may take within a step, but for the first
  double save_seconds = 1800;     // and within a save
  double heartbeat_seconds = 60;  // a rank that is silent for so long is lost
  bool checked = false;           // compare what ranks are about to do before any data moves
  int64_t compare_replicas_every = 0;  // steps; 0 = never: checksums of parameters that should be
                                       // equal; the odd one is named
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.value("setup_seconds", setup_seconds, above(0));
    visit.value("step_seconds", step_seconds, above(0));
    visit.value("save_seconds", save_seconds, above(0));
    visit.value("heartbeat_seconds", heartbeat_seconds, above(0));
    visit.value("checked", checked);
    visit.value("compare_replicas_every", compare_replicas_every, at_least(0));
  }
};

/// Parameters that the optimizer treats in another way.
struct OptimizerGroupConfig {
  std::vector<std::string> parameters;  // names; * stands for any characters: "*norm.weight"
  std::optional<double> weight_decay;   // absent: as without the group
  double lr_scale = 1;                  // times the learning rate
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.value("parameters", parameters);
    visit.optional("weight_decay", weight_decay, at_least(0));
    visit.value("lr_scale", lr_scale, at_least(0));
  }
  void check(Checker& check) const {
    check.require(!parameters.empty(), "parameters", "[]", "at least one name or pattern");
  }
};

struct OptimizerConfig {
  std::string name = "adamw";
  double lr = 3e-4;  // the peak, before lr_schedule
  std::vector<double> betas = {0.9, 0.95};
  double eps = 1e-8;
  double weight_decay = 0.1;                 // on matrices; norms and biases do not decay
  double clip_norm = 1.0;                    // largest global gradient norm; 0 = no clipping
  std::vector<OptimizerGroupConfig> groups;  // the first with a pattern that fits decides
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.one_of("name", name, {"adamw"});
    visit.value("lr", lr, above(0));
    visit.value("betas", betas, in_range(0, 1));
    visit.value("eps", eps, above(0));
    visit.value("weight_decay", weight_decay, at_least(0));
    visit.value("clip_norm", clip_norm, at_least(0));
    visit.list("groups", groups);
  }
  /// Two betas, each below 1.
  void check(Checker& check) const;
};

struct LrScheduleConfig {
  std::string name = "cosine";  // constant | linear | cosine | warmup_stable_decay
  int64_t warmup_steps = 0;     // linear from lr / warmup_steps up to lr
  std::optional<int64_t>
      steps;          // where the schedule ends; absent: training.steps; constant has no end
  double min_lr = 0;  // reached at `steps`
  std::optional<int64_t> decay_steps;  // warmup_stable_decay: the linear fall takes the last
                                       // decay_steps; absent: a fifth of steps
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.one_of("name", name, {"constant", "linear", "cosine", "warmup_stable_decay"});
    visit.value("warmup_steps", warmup_steps, at_least(0));
    visit.optional("steps", steps, at_least(1));
    visit.value("min_lr", min_lr, at_least(0));
    visit.optional("decay_steps", decay_steps, at_least(1));
  }
  /// Warm-up and decay fit into `steps`.
  void check(Checker& check) const;
};

struct CheckpointConfig {
  int64_t every = 1000;               // steps
  int64_t keep = 3;                   // newest checkpoints that stay
  std::optional<int64_t> keep_every;  // multiples of this stay too
  bool async = true;                  // written beside the training, out of a copy
  std::string on_error = "stop";  // when one, or metrics, cannot be written: stop | warn (and train
                                  // on, but for the end of a stage, where the next one starts)
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.value("every", every, at_least(1));
    visit.value("keep", keep, at_least(1));
    visit.optional("keep_every", keep_every, at_least(1));
    visit.value("async", async);
    visit.one_of("on_error", on_error, {"stop", "warn"});
  }
};

/// What becomes of a step whose loss or gradient is not finite, or whose loss jumps out of its
/// recent past. Whatever the policy, such a step changes no weight.
struct BadStepConfig {
  std::string non_finite = "skip";  // skip | rollback | stop
  std::string spike = "ignore";     // ignore | skip | rollback | stop
  int64_t spike_window = 128;       // losses looked back on
  double spike_threshold = 10;      // robust standard deviations above their median
  int64_t max_skips = 3;            // in a row; then the run stops
  int64_t max_rollbacks = 3;        // in a run; then it stops
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.one_of("non_finite", non_finite, {"skip", "rollback", "stop"});
    visit.one_of("spike", spike, {"ignore", "skip", "rollback", "stop"});
    visit.value("spike_window", spike_window, at_least(4));
    visit.value("spike_threshold", spike_threshold, above(0));
    visit.value("max_skips", max_skips, at_least(1));
    visit.value("max_rollbacks", max_rollbacks, at_least(0));
  }
};

struct MetricsConfig {
  int64_t log_every =
      10;  // steps between log lines and TensorBoard points; metrics.jsonl has every step
  bool tensorboard = true;
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.value("log_every", log_every, at_least(1));
    visit.value("tensorboard", tensorboard);
  }
};

struct ValidationConfig {
  int64_t every = 500;         // steps; also after the last one
  int64_t tokens = 1'048'576;  // scored each time, from the start of the validation sources
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.value("every", every, at_least(1));
    visit.value("tokens", tokens, at_least(1));
  }
};

/// The config of `tandem train`. Read it with read_config into what make_train_config gives; a Plan
/// resolves it.
struct TrainConfig {
  Choice model;                    // family and its config
  std::optional<InitConfig> init;  // absent: random
  DataConfig data;
  TrainingConfig training;
  OptimizerConfig optimizer;
  LrScheduleConfig lr_schedule;
  ParallelismConfig parallelism;
  CommunicationConfig communication;
  BadStepConfig bad_steps;
  CheckpointConfig checkpoint;
  MetricsConfig metrics;
  ValidationConfig validation;
  /// A list of maps, each `steps` and what changes for that many steps, beside what the stages
  /// before it changed; absent: null. Read by train/plan.
  ConfigNode stages;
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.choice("model", model);
    visit.section("init", init);
    visit.section("data", data);
    visit.section("training", training);
    visit.section("optimizer", optimizer);
    visit.section("lr_schedule", lr_schedule);
    visit.section("parallelism", parallelism);
    visit.section("communication", communication);
    visit.section("bad_steps", bad_steps);
    visit.section("checkpoint", checkpoint);
    visit.section("metrics", metrics);
    visit.section("validation", validation);
    visit.raw("stages", stages);
  }
  /// A model is given; warm-up and decay fit into training.steps where lr_schedule.steps is absent;
  /// training.steps, where it is written, is the sum of the stages' steps.
  void check(Checker& check) const;
};

/// Defaults, with the table of families set.
TrainConfig make_train_config(const ModelFactory& factory);

/// The `steps` of each stage. Throws UserError where one is not a map with `steps`.
std::vector<int64_t> stage_steps(const ConfigNode& stages);

/// Fills in what may be absent: the model's vocab_size from the tokenizer, micro_batch_size,
/// threads, lr_schedule.steps and decay_steps. `schedule_steps`: where a schedule that does not say
/// so ends; absent: training.steps. `data_ranks`: that share the rows of a step. Throws UserError where the vocabulary is smaller than the
/// tokenizer's. For a whole config, which may have stages, see Plan.
void resolve(TrainConfig& config, const ModelFactory& factory, const Tokenizer& tokenizer,
             std::optional<int64_t> schedule_steps = {}, int64_t data_ranks = 1);

/// One sentence for each setting that was given and has no effect.
std::vector<std::string> settings_without_effect(const TrainConfig& config);

}  // namespace tandem
