#include "train/train_step.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "nn/batch.h"
#include "nn/sequence_parallel.h"
#include "train/tree_sum.h"

namespace tandem {
namespace {

std::vector<Batch> make_batches(const RowsView& rows, int64_t size, torch::Device device,
                                const RowPart& part) {
  std::vector<Batch> batches;
  for (int64_t first = 0; first < rows.rows; first += size)
    batches.push_back(
        make_batch(rows.slice(first, std::min(size, rows.rows - first)), device, part));
  return batches;
}

/// The weight of all scored targets of the step, summed in the order of its micro-batches whoever
/// has them.
double weight_of_step(const std::vector<Batch>& batches, const MicroBatches& share, Mesh& mesh) {
  Tensor weights = torch::zeros({share.total}, torch::kFloat64);
  if (mesh.tensor->rank() == 0) {  // its neighbours have the same rows
    for (size_t i = 0; i < batches.size(); ++i)
      weights[share.first + static_cast<int64_t>(i)] = batches[i].total_weight;
  }
  mesh.control->all_reduce(weights, Reduction::kSum)->wait();
  double sum = 0;
  for (int64_t i = 0; i < share.total; ++i) sum += weights[i].item<double>();
  return sum;
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

ForwardContext context_of(const Run& run) {
  ForwardContext context;
  context.runner = run.runner.get();
  if (run.mesh->sequence->size() > 1) context.sequence = run.mesh->sequence.get();
  return context;
}

MicroBatches share_of(int64_t total, const Mesh& mesh) {
  const int64_t rank = mesh.data->rank(), ranks = mesh.data->size();
  const int64_t first = rank * total / ranks;
  return {first, (rank + 1) * total / ranks - first, total};
}

Tensor accumulate_gradients(Run& run, const RowsView& rows, const MicroBatches& share,
                            const TrainConfig& config) {
  Mesh& mesh = *run.mesh;
  Sharding& sharding = run.optimizer->sharding();
  ForwardContext context = context_of(run);
  context.random =
      RandomStream(static_cast<uint64_t>(config.training.seed), static_cast<uint64_t>(run.step));
  context.training = true;
  // The denominator of the whole step comes first, however targets are spread over micro-batches
  // and ranks.
  const auto batches = make_batches(rows, config.training.micro_batch_size.value(), run.device,
                                    part_of(context.sequence));
  TORCH_CHECK(static_cast<int64_t>(batches.size()) == share.n, "a step's share is ", share.n,
              " micro-batches, its rows make ", batches.size());
  const double scored = weight_of_step(batches, share, mesh);
  const double weight = scored > 0 ? scored : 1;  // nothing scored: loss and gradients are 0
  const bool elastic = config.training.deterministic == "elastic";
  TreeSum tree(share.total);
  Tensor losses =
      torch::zeros({share.total}, torch::TensorOptions().dtype(torch::kFloat64).device(run.device));
  sharding.zero_gradients();
  for (int64_t i = 0; i < share.n; ++i) {
    if (elastic && i > 0) sharding.zero_gradients();
    const Tensor loss = run.model->loss(batches[static_cast<size_t>(i)], context).sum / weight;
    sharding.begin_backward(/*last=*/!elastic && i + 1 == share.n);
    loss.backward();  // the sharding's hooks add the gradients up
    sharding.end_backward();
    losses[share.first + i] = loss.detach();
    if (elastic) tree.add(share.first + i, sharding.whole_gradients());
  }
  if (elastic) tree.finish(*mesh.data, sharding.whole_gradients());
  sharding.finish_gradients();
  mesh.gradient->all_reduce(losses, Reduction::kSum)->wait();
  Tensor mean = torch::zeros({}, losses.options());
  for (int64_t i = 0; i < share.total; ++i) mean += losses[i];
  return mean;
}

StepStats train_step(Run& run, const RowsView& rows, const MicroBatches& share,
                     const TrainConfig& config, double lr) {
  check_ids(rows, run.model->vocab_size(), "the training data");
  Sharding& sharding = run.optimizer->sharding();
  sharding.waited = {};
  const double sent_before = run.mesh->traffic->total();
  const Tensor loss = accumulate_gradients(run, rows, share, config);
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
  stats.wait_seconds = sharding.waited.gradients + sharding.waited.weights;
  stats.sent_bytes = run.mesh->traffic->total() - sent_before;
  if (seen[2].item<double>() != 0) {
    const bool finite = std::isfinite(stats.loss) && std::isfinite(stats.grad_norm);
    stats.bad = finite ? BadStep::kSpike : BadStep::kNotFinite;
  }
  const int64_t rows_of_step = share.total * config.training.micro_batch_size.value();
  stats.tokens = rows_of_step * config.training.context_length;
  run.next_sample += rows_of_step;
  const bool skipped = stats.bad != BadStep::kNone;
  run.skipped += skipped;
  run.skipped_in_a_row = skipped ? run.skipped_in_a_row + 1 : 0;
  if (run.spikes && !skipped) run.spikes->accept(stats.loss);
  return stats;
}

}  // namespace tandem
