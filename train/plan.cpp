#include "train/plan.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <utility>

#include "core/error.h"
#include "train/schedule.h"

namespace tandem {
namespace {

/// What stays the same for a whole run: sections, and keys of sections.
constexpr std::array kFixed = {"init",
                               "parallelism",
                               "communication",
                               "stages",
                               "metrics",
                               "data.tokenizer",
                               "training.seed",
                               "training.dtype",
                               "training.steps",
                               "training.threads",
                               "training.deterministic",
                               "checkpoint.async",
                               "model.family"};

const ConfigNode* find_path(const ConfigNode& node, const std::string& path) {
  const size_t dot = path.find('.');
  const ConfigNode* found = node.find(path.substr(0, dot));
  if (!found || dot == path.npos) return found;
  return found->kind == ConfigNode::Kind::kMap ? find_path(*found, path.substr(dot + 1)) : nullptr;
}

/// What stage `i` changes: all that it writes but its steps.
ConfigNode changes_of(const ConfigNode& stage, int64_t i) {
  ConfigNode changes = ConfigNode::make_map();
  changes.origin = stage.origin;
  for (const auto& [key, value] : stage.entries) {
    if (key != "steps") changes.entries.emplace_back(key, value);
  }
  for (const char* key : kFixed) {
    if (const ConfigNode* written = find_path(changes, key))
      throw bad_config(
          written->origin,
          name_of_stage(i) + "." + key + " stands in a stage, but stays the same for a whole run");
  }
  return changes;
}

/// A stage's config; errors begin with its name.
TrainConfig read_stage(const ConfigNode& node, const ModelFactory& factory, int64_t i) {
  TrainConfig config = make_train_config(factory);
  try {
    read_config(node, config);
  } catch (const UserError& error) {
    throw UserError(error.exit_code(), name_of_stage(i) + ": " + error.what());
  }
  return config;
}

/// Throws UserError where the rows of a stage are not what its model can read; `origin`, where the
/// stage was written, and `where` are put in front.
void check_rows(const Stage& stage, const Origin& origin, const std::string& where) {
  const int64_t length = stage.config.training.context_length;
  const Packing& packing = stage.packing;
  const auto wrong_length = [&](const std::string& expected) {
    return bad_config(origin, where + "training.context_length = " + std::to_string(length) +
                                  ", expected " + expected);
  };
  if (length % packing.multiple != 0)
    throw wrong_length("a multiple of " + std::to_string(packing.multiple) +
                       ", as the rows of the model are");
  if (packing.max_length > 0 && length > packing.max_length)
    throw wrong_length("at most " + std::to_string(packing.max_length) +
                       ", the positions of the model");
  if (stage.config.data.mask_documents && packing.multiple > 1 && !packing.pad_documents)
    throw bad_config(origin, where +
                                 "data.mask_documents = true, expected false for a model with "
                                 "pad_documents: false, whose blocks mix documents");
}

/// Names and shapes of a model's parameters.
std::vector<std::pair<std::string, std::vector<int64_t>>> shapes_of(const LanguageModel& model) {
  std::vector<std::pair<std::string, std::vector<int64_t>>> shapes;
  for (const auto& info : parameters_info(model)) shapes.emplace_back(info.name, info.global_shape);
  return shapes;
}

/// What decides which rows a run reads.
ConfigNode rows_of(Stage& stage) {
  ConfigNode node = write_config(stage.config.data);
  std::erase_if(node.entries, [](const auto& entry) {
    return entry.first == "tokenizer" || entry.first == "validation";
  });
  const auto add = [&](const char* key, int64_t value) {
    node.entries.emplace_back(key, ConfigNode::make_scalar(std::to_string(value)));
  };
  add("context_length", stage.config.training.context_length);
  add("padded_to", stage.packing.pad_documents ? stage.packing.multiple : 1);
  return node;
}

}  // namespace

std::string name_of_stage(int64_t i) { return "stages[" + std::to_string(i) + "]"; }

Plan::Plan(TrainConfig config, const ModelFactory& factory, const Tokenizer& tokenizer,
           int64_t data_ranks) {
  const ConfigNode written = std::exchange(config.stages, {});
  const std::vector<int64_t> steps = stage_steps(written);
  if (steps.empty()) {
    resolve(config, factory, tokenizer, {}, data_ranks);
    stages_.push_back({.end = config.training.steps,
                       .config = config,
                       .packing = factory.build(config.model)->packing()});
    check_rows(stages_.back(), {}, "");
    config_ = std::move(config);
    return;
  }

  config.training.steps = std::accumulate(steps.begin(), steps.end(), int64_t{0});
  ConfigNode node = write_config(config);
  for (size_t i = 0; i < steps.size(); ++i) {
    const ConfigNode changes = changes_of(written.items[i], i);
    node = merge(node, changes);
    Stage stage;
    stage.index = static_cast<int64_t>(i);
    stage.config = read_stage(node, factory, i);
    if (i > 0) {
      const Stage& before = stages_.back();
      stage.begin = before.end;
      const auto since = [&](const char* key, int64_t earlier) {
        return find_path(changes, key) ? stage.begin : earlier;
      };
      stage.schedule_begin = since("lr_schedule", before.schedule_begin);
      stage.ramp_begin = since("training.batch_ramp", before.ramp_begin);
    }
    stage.end = stage.begin + steps[i];
    stages_.push_back(std::move(stage));
  }

  std::vector<std::pair<std::string, std::vector<int64_t>>> shapes;  // of the first stage
  for (size_t i = 0; i < stages_.size(); ++i) {
    Stage& stage = stages_[i];
    int64_t schedule_end = config.training.steps;  // or where a later stage starts another
    for (size_t later = stages_.size() - 1; later > i; --later) {
      if (stages_[later].schedule_begin > stage.schedule_begin)
        schedule_end = stages_[later].schedule_begin;
    }
    const int64_t length = schedule_end - stage.schedule_begin;
    resolve(stage.config, factory, tokenizer, length, data_ranks);
    const LrScheduleConfig& schedule = stage.config.lr_schedule;
    if (schedule.name != "constant" && schedule.warmup_steps >= *schedule.steps)
      throw bad_config(written.items[i].origin,
                       name_of_stage(i) + ": lr_schedule.warmup_steps = " +
                           std::to_string(schedule.warmup_steps) + ", expected less than " +
                           std::to_string(*schedule.steps) + ", the steps of the schedule");
    if (schedule.name == "warmup_stable_decay" &&
        *schedule.decay_steps > *schedule.steps - schedule.warmup_steps)
      throw bad_config(written.items[i].origin,
                       name_of_stage(i) + ": lr_schedule.decay_steps = " +
                           std::to_string(*schedule.decay_steps) + ", expected at most " +
                           std::to_string(*schedule.steps - schedule.warmup_steps) +
                           ", the steps of the schedule less its warm-up");
    const auto model = factory.build(stage.config.model);
    stage.packing = model->packing();
    check_rows(stage, written.items[i].origin, name_of_stage(i) + ": ");
    if (i == 0) {
      shapes = shapes_of(*model);
      continue;
    }
    Stage& before = stages_[i - 1];
    stage.samples_begin = rows_of(stage) == rows_of(before) ? before.samples_begin : stage.begin;
    if (shapes_of(*model) != shapes)
      throw bad_config(written.items[i].origin,
                       name_of_stage(i) +
                           ".model changes the shapes of parameters; a stage may "
                           "change what has none, such as rope or window");
  }
  config_ = std::move(config);
  config_.training.threads = stages_[0].config.training.threads;
  config_.stages = written;
}

const Stage& Plan::at(int64_t step) const {
  const auto found = std::find_if(stages_.begin(), stages_.end(),
                                  [&](const Stage& stage) { return step < stage.end; });
  return found == stages_.end() ? stages_.back() : *found;
}

int64_t Plan::rows(int64_t step) const {
  const Stage& stage = at(step);
  const TrainingConfig& training = stage.config.training;
  const int64_t full = training.rows_per_step(), done = step - stage.ramp_begin;
  if (!training.batch_ramp || done >= training.batch_ramp->steps) return full;
  const BatchRampConfig& ramp = *training.batch_ramp;
  const double over = static_cast<double>(done) / static_cast<double>(ramp.steps);
  const double tokens = static_cast<double>(ramp.from) +
                        over * static_cast<double>(training.tokens_per_step - ramp.from);
  const int64_t each = *training.micro_batch_size;
  const auto batches = static_cast<int64_t>(tokens) / (each * training.context_length);
  return std::max<int64_t>(1, batches) * each;
}

double Plan::lr(int64_t step) const {
  const Stage& stage = at(step);
  return learning_rate(stage.config.lr_schedule, stage.config.optimizer.lr,
                       step - stage.schedule_begin);
}

int64_t Plan::tokens_before(int64_t step) const {
  int64_t tokens = 0;
  for (int64_t before = 0; before < step; ++before)
    tokens += rows(before) * at(before).config.training.context_length;
  return tokens;
}

bool Plan::checkpoint_due(int64_t step) const {
  if (step <= 0) return false;
  const Stage& stage = at(step - 1);
  return step % stage.config.checkpoint.every == 0 || step == stage.end;
}

}  // namespace tandem
