#include "train/dry_run.h"

#include <chrono>

#include "nn/batch.h"
#include "train/mesh_cost.h"
#include "train/setup.h"
#include "train/start_record.h"
#include "train/train_step.h"
#include "train/validation.h"

namespace tandem {

DryRun dry_run(const TrainConfig& given, const ModelFactory& factory, Mesh& mesh,
               torch::Device device) {
  const auto tokenizer = load_tokenizer(given.data.tokenizer);
  const Plan plan(given, factory, *tokenizer, mesh.data->size());
  check_mesh(plan, mesh.shape);
  const TrainConfig& config = plan.stages().front().config;
  check_data(plan, *tokenizer, /*step=*/0);
  make_deterministic(*config.training.threads);
  nlohmann::ordered_json origin;
  Run run = new_run(config, factory, *tokenizer, mesh, device, &origin);

  DryRun result;
  result.parameters = count_parameters(*run.model);
  result.flops_per_token = flops_per_token(*run.model, config.training.context_length);
  const MeshCost cost = mesh_cost(*run.model, mesh.shape, sharding_options(config), 1);
  result.weights_bytes =
      cost.weight_bytes + cost.gradient_bytes + cost.master_bytes + cost.moment_bytes;

  const Packing packing = run.model->packing();
  const auto sampler = make_sampler(config, packing);
  const int64_t rows_each = config.training.micro_batch_size.value();
  const auto memory =
      rows_memory_for(device)(rows_each, sampler->context_length(), sampler->weighted());
  const RowsView rows = memory->view();
  for (int64_t r = 0; r < rows_each; ++r) sampler->fill(mesh.data->rank() * rows_each + r, rows, r);
  check_ids(rows, run.model->vocab_size(), "the training data");
  const Validation validation(config, packing);
  validation.check_ids(run.model->vocab_size());
  log_left_out(plan.stages().front(), *sampler, validation);
  apply_packing(rows, packing);
  for (int pass = 0; pass < 2; ++pass) {  // the first one also warms up
    const auto begin = std::chrono::steady_clock::now();
    result.loss = accumulate_gradients(run, rows, {mesh.data->rank(), 1, mesh.data->size()}, config)
                      .item<double>();
    result.micro_batch_seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }
  result.tokens_per_second =
      static_cast<double>(mesh.data->size() * rows_each * config.training.context_length) /
      result.micro_batch_seconds;
  result.run_seconds =
      static_cast<double>(plan.tokens_before(plan.steps())) / result.tokens_per_second;
  result.memory = memory_use(device);
  return result;
}

}  // namespace tandem
