#include "train/train_step.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "nn/batch.h"

namespace tandem {
namespace {

/// The rows of a step as micro-batches, with the weight of all their scored targets.
struct MicroBatches {
  std::vector<Batch> batches;
  double total_weight = 0;
};

MicroBatches make_micro_batches(const RowsView& rows, int64_t size, torch::Device device) {
  MicroBatches made;
  for (int64_t first = 0; first < rows.rows; first += size) {
    const RowsView micro = rows.slice(first, std::min(size, rows.rows - first));
    made.batches.push_back(make_batch(micro, device));
    made.total_weight += made.batches.back().total_weight;
  }
  return made;
}

}  // namespace

// Better said here than by an index error on some device.
void check_ids(const RowsView& rows, int64_t vocab_size, const std::string& what) {
  int64_t highest = 0;
  for (const int64_t* ids : {rows.tokens, rows.targets})
    highest = std::max(highest, *std::max_element(ids, ids + rows.rows * rows.length));
  if (highest < vocab_size) return;
  throw UserError(kExitBadFile, what + " holds token " + std::to_string(highest) +
                                    ", the model's vocab_size is " + std::to_string(vocab_size) +
                                    "; tokenize the data with the tokenizer of data.tokenizer");
}

Tensor accumulate_gradients(Run& run, const RowsView& rows, const TrainConfig& config) {
  ForwardContext context;
  context.random =
      RandomStream(static_cast<uint64_t>(config.training.seed), static_cast<uint64_t>(run.step));
  context.training = true;
  context.runner = run.runner.get();
  run.optimizer->zero_gradients();
  // The denominator of the whole step comes first, however targets are spread over micro-batches.
  const MicroBatches micro =
      make_micro_batches(rows, config.training.micro_batch_size.value(), run.device);
  const double weight =
      micro.total_weight > 0 ? micro.total_weight : 1;  // nothing scored: loss and gradients are 0
  Tensor mean = torch::zeros({}, torch::TensorOptions().dtype(torch::kFloat64).device(run.device));
  for (const Batch& batch : micro.batches) {
    const Tensor loss = run.model->loss(batch, context).sum / weight;
    loss.backward();  // the optimizer's hooks add the gradients up
    mean += loss.detach();
  }
  return mean;
}

StepStats train_step(Run& run, const RowsView& rows, const TrainConfig& config, double lr) {
  check_ids(rows, run.model->vocab_size(), "the training data");
  const Tensor loss = accumulate_gradients(run, rows, config);
  const std::optional<double> limit = run.spikes ? run.spikes->limit() : std::nullopt;
  const StepOutcome outcome = run.optimizer->step(lr, loss, limit);

  // The one place of a step where the host waits for the device.
  const Tensor seen =
      torch::stack({loss, outcome.grad_norm, outcome.skipped.to(torch::kFloat64)}).cpu();
  StepStats stats;
  stats.step = ++run.step;
  stats.loss = seen[0].item<double>();
  stats.grad_norm = seen[1].item<double>();
  stats.lr = lr;
  if (seen[2].item<double>() != 0) {
    const bool finite = std::isfinite(stats.loss) && std::isfinite(stats.grad_norm);
    stats.bad = finite ? BadStep::kSpike : BadStep::kNotFinite;
  }
  stats.tokens = rows.rows * config.training.context_length;
  run.next_sample += rows.rows;
  const bool skipped = stats.bad != BadStep::kNone;
  run.skipped += skipped;
  run.skipped_in_a_row = skipped ? run.skipped_in_a_row + 1 : 0;
  if (run.spikes && !skipped) run.spikes->accept(stats.loss);
  return stats;
}

}  // namespace tandem
