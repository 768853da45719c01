#pragma once
#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "cli/build_model.h"
#include "data/sampler.h"
#include "nn/batch.h"
#include "tests/comm/thread_ranks.h"
#include "tests/train/helpers.h"
#include "train/setup.h"

// The same few steps on meshes of several ranks, each a thread, and on one process.

namespace tandem {

inline const std::map<std::string, std::string>& mesh_models() {
  static const std::map<std::string, std::string> models = {
      {"transformer", "{family: transformer, tie_embeddings: true, d_model: 12, ffn_dim: 22, n_layers: 2, n_heads: 4, n_kv_heads: 2, head_dim: 4}"},
      {"gpt_neox", "{family: gpt_neox, d_model: 32, ffn_dim: 22, n_layers: 2, n_heads: 4}"},
      {"yoco",
       "{family: yoco, d_model: 12, ffn_dim: 22, self_decoder: {n_layers: 2, mixers: [{name: gated_retention, n_heads: 2, head_dim: 6, chunk: 5}]}, "
       "cross_decoder: {n_layers: 2, n_heads: 4, n_kv_heads: 2, head_dim: 4}}"},
      {"yoco_swa",
       "{family: yoco, d_model: 12, ffn_dim: 22, self_decoder: {n_layers: 2, mixers: [{name: sliding_window, n_heads: 2, head_dim: 6, window: 7}]}, "
       "cross_decoder: {n_layers: 2, n_heads: 4, n_kv_heads: 2, head_dim: 4}}"},
      {"block_transformer",
       "{family: block_transformer, block_length: 3, embedder: {kind: lookup, combine: projection}, "
       "block_decoder: {stack: transformer, d_model: 12, ffn_dim: 22, n_layers: 2, n_heads: 2, head_dim: 6}, "
       "token_decoder: {kind: prefix, prefix_length: 2, stack: transformer, d_model: 12, ffn_dim: 22, n_layers: 2, n_heads: 2, head_dim: 6}}"},
  };
  return models;
}

/// 12 micro-batches of 2 rows of 24 tokens a step.
inline TrainConfig mesh_config(const TempFolder& folder, const std::string& model, const std::vector<std::string>& words = {}) {
  tiny_yaml(folder.path());  // writes the tokens
  const ModelFactory factory = model_factory();
  ConfigNode root = parse_yaml("model: " + mesh_models().at(model) + "\ndata: {tokenizer: bytes, train: [{path: " + folder / "train" +
                                   "}], mask_documents: true}\n"
                                   "training: {context_length: 24, tokens_per_step: 576, micro_batch_size: 2, steps: 20, seed: 3, threads: 1}\n"
                                   "optimizer: {lr: 0.01, clip_norm: 0.5}\n",
                               "mesh.yaml");
  for (const auto& word : words) apply_override(root, word);
  TrainConfig config = make_train_config(factory);
  read_config(root, config);
  resolve(config, factory, *load_tokenizer("bytes"));
  return config;
}

/// What a rank saw and holds; tensors are copies.
struct MeshRun {
  std::vector<double> losses, grad_norms;
  std::vector<ParameterInfo> info;
  std::vector<OwnedPart> parts;  // masters after the last step, gradients of the first one (clipped)
  std::map<std::string, double> sent;  // in the last step
};

/// `steps` steps from the same beginning in `dtype`, modules and masters.
inline MeshRun train_on(Mesh& mesh, const TrainConfig& config, int64_t steps, torch::Dtype dtype, torch::Device device = torch::kCPU) {
  const ModelFactory factory = model_factory();
  Run run;
  run.mesh = &mesh;
  run.device = device;
  run.model = factory.build(config.model);
  split_over(*run.model, *mesh.tensor);
  ShardingOptions options = sharding_options(config);
  options.dtype = options.master_dtype = dtype;
  options.bucket_elements = 300;  // several buckets
  make_trainable(run, config, options, random_weights(config.training.seed));
  const Packing packing = run.model->packing();
  const auto sampler = make_sampler(config, packing);

  MeshRun result;
  result.info = run.optimizer->sharding().parameters();
  Tensors gradients;
  for (int64_t step = 0; step < steps; ++step) {
    const int64_t each = *config.training.micro_batch_size, total = config.training.rows_per_step() / each;
    const MicroBatches share = share_of(total, mesh);
    std::vector<Row> rows;
    for (int64_t i = 0; i < share.n * each; ++i) rows.push_back(sampler->row(run.next_sample + share.first * each + i));
    apply_packing(rows, packing);
    mesh.traffic->reset();
    const StepStats stats = train_step(run, pack_rows(rows)->view(), share, config, config.optimizer.lr);
    result.losses.push_back(stats.loss);
    result.grad_norms.push_back(stats.grad_norm);
    if (step > 0) continue;
    for (const auto& gradient : run.optimizer->main_gradients()) gradients.push_back(gradient.clone());
  }
  result.sent = mesh.traffic->bytes();
  for (size_t i = 0; i < gradients.size(); ++i) {
    OwnedPart part = run.optimizer->sharding().parts()[i];
    part.master = part.master.clone();
    part.gradient = gradients[i];
    result.parts.push_back(part);
  }
  return result;
}

inline MeshRun train_alone(const TrainConfig& config, int64_t steps, torch::Dtype dtype, torch::Device device = torch::kCPU) {
  Mesh mesh = single_process_mesh();
  TrainConfig plain = config;
  plain.parallelism = {};
  return train_on(mesh, plain, steps, dtype, device);
}

/// The elements of a one-process run's tensor that `part` of a rank corresponds to.
inline Tensor elements_of(const OwnedPart& part, const ParameterInfo& info, const Tensor& whole) {
  return local_part(info, whole.view(info.global_shape)).reshape({-1}).slice(0, part.begin, part.end);
}

/// Calls check(rank's run, its mesh) for each rank of the mesh that config.parallelism makes of `world` ranks.
inline void for_each_rank(const TrainConfig& config, int64_t world, int64_t steps, torch::Dtype dtype,
                          const std::function<void(const MeshRun&, const Mesh&)>& check) {
  const ParallelismConfig& parallelism = config.parallelism;
  const MeshShape shape = mesh_shape(shard_level(parallelism.shard), world, parallelism.tensor, parallelism.sequence, parallelism.replicate);
  at::set_num_threads(1);
  std::mutex mutex;
  run_mesh(shape, [&](Mesh& mesh, int64_t) {
    const MeshRun run = train_on(mesh, config, steps, dtype);
    const std::lock_guard lock(mutex);
    check(run, mesh);
  });
}

}  // namespace tandem
