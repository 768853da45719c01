#include "nn/tensor_parallel.h"

#include "blocktf/block_transformer.h"
#include "nn/generate.h"
#include "nn/recomputing_runner.h"
#include "nn/tensor_traffic.h"
#include "tests/cli/tiny_models.h"
#include "tests/comm/thread_ranks.h"

// Models divided over a tensor group give what one process gives: losses, gradients, logits while
// decoding, states, initial values. Heads divide evenly, vocabularies (53) and widths do not.

namespace tandem {
namespace {

constexpr int64_t kVocab = 53, kLength = 19, kRows = 2;

struct SplitModel {
  std::string name;
  int64_t ranks;
  std::string yaml;
};
void PrintTo(const SplitModel& model, std::ostream* out) { *out << model.name; }

const std::vector<SplitModel>& split_models() {
  static const std::vector<SplitModel> models = {
      {"Transformer", 3,
       "{family: transformer, vocab_size: 53, d_model: 22, ffn_dim: 37, n_layers: 2, n_heads: 6, "
       "n_kv_heads: 3, head_dim: 4}"},
      {"TransformerWithFewerKvHeadsThanRanks", 4,
       "{family: transformer, vocab_size: 53, tie_embeddings: true, embedding_scale: true, "
       "d_model: 22, ffn_dim: 37, n_layers: 2, n_heads: 8, "
       "n_kv_heads: 2, head_dim: 4}"},
      {"TransformerWithOneKvHead", 3,
       "{family: transformer, vocab_size: 53, d_model: 22, ffn_dim: 37, n_layers: 2, n_heads: 6, "
       "n_kv_heads: 1, head_dim: 4}"},
      {"GptNeox", 2,
       "{family: gpt_neox, vocab_size: 53, d_model: 21, ffn_dim: 29, n_layers: 2, n_heads: 4, "
       "head_dim: 10, rope: {fraction: 0.4}}"},
      {"Gpt2", 3,
       "{family: gpt_neox, vocab_size: 53, tie_embeddings: true, max_positions: 47, d_model: 24, "
       "ffn_dim: 29, n_layers: 2, n_heads: 3, "
       "rope: {base: none}, parallel_residual: false, activation: gelu_tanh}"},
      {"YocoGatedRetention", 3,
       "{family: yoco, vocab_size: 53, d_model: 22, ffn_dim: 29, self_decoder: {n_layers: 2, "
       "mixers: [{name: gated_retention, n_heads: 3, head_dim: 10, chunk: 7}]}, "
       "cross_decoder: {n_layers: 2, n_heads: 6, n_kv_heads: 3, head_dim: 6}}"},
      {"YocoSlidingWindow", 4,
       "{family: yoco, vocab_size: 53, tie_embeddings: true, d_model: 22, ffn_dim: 29, "
       "self_decoder: {n_layers: 2, mixers: [{name: sliding_window, n_heads: 4, n_kv_heads: 2, "
       "head_dim: 6, window: 5}]}, "
       "cross_decoder: {n_layers: 2, n_heads: 8, n_kv_heads: 2, head_dim: 6}}"},
      {"YocoNormsAndBiases", 4,
       "{family: yoco, vocab_size: 53, tie_embeddings: true, d_model: 22, ffn_dim: 29, "
       "self_decoder: {n_layers: 2, mixers: [{name: sliding_window, n_heads: 4, n_kv_heads: 2, "
       "head_dim: 6, window: 5, qkv_bias: true, qk_norm_eps: 1e-3}]}, "
       "cross_decoder: {n_layers: 2, n_heads: 8, n_kv_heads: 2, head_dim: 6, qkv_bias: true, "
       "q_norm_eps: 1e-2}}"},
      {"YocoUnstacked", 2,
       "{family: yoco, vocab_size: 53, d_model: 22, ffn_dim: 29, self_decoder: {n_layers: 1, "
       "mixers: [{name: gated_retention, n_heads: 4, head_dim: 6, chunk: 7}]}, "
       "cross_decoder: {n_layers: 2, n_heads: 6, n_kv_heads: 2, head_dim: 6, input: embeddings}}"},
      {"RetNet", 3,
       "{family: hybrid, vocab_size: 53, tie_embeddings: true, d_model: 22, ffn_dim: 29, n_layers: "
       "2, mixers: [{name: retention, n_heads: 3, head_dim: 10, chunk: 7}]}"},
      {"Hybrid", 2,
       "{family: hybrid, vocab_size: 53, d_model: 22, ffn_dim: 29, n_layers: 3, mixers: [{name: "
       "gated_retention, n_heads: 2, head_dim: 6, chunk: 4}, "
       "{name: full_attention, n_heads: 4, n_kv_heads: 1, head_dim: 6, bias: true}, {name: "
       "sliding_window, n_heads: 2, head_dim: 10, window: 3}]}"},
      {"BlockLookupPrefix", 3,
       "{family: block_transformer, vocab_size: 53, block_length: 4, embedder: {kind: lookup, "
       "d_embed: 6}, "
       "block_decoder: {stack: gpt_neox, d_model: 24, ffn_dim: 29, n_layers: 2, n_heads: 3}, "
       "token_decoder: {kind: prefix, prefix_length: 2, stack: gpt_neox, d_model: 21, ffn_dim: 31, "
       "n_layers: 1, n_heads: 3, head_dim: 8}}"},
      {"BlockProjectionLlama", 2,
       "{family: block_transformer, vocab_size: 53, block_length: 3, pad_documents: false, "
       "embedder: {kind: lookup, combine: projection, d_embed: 10}, "
       "block_decoder: {stack: transformer, d_model: 22, ffn_dim: 29, n_layers: 2, n_heads: 4, "
       "n_kv_heads: 1, head_dim: 6}, "
       "token_decoder: {kind: prefix, prefix_length: 3, stack: transformer, d_model: 18, ffn_dim: "
       "31, n_layers: 2, n_heads: 4, head_dim: 6}}"},
      {"BlockYocoSummation", 2,
       "{family: block_transformer, vocab_size: 53, block_length: 2, embedder: {kind: lookup, "
       "d_embed: 11}, "
       "block_decoder: {stack: yoco, d_model: 22, ffn_dim: 29, self_decoder: {n_layers: 1, mixers: "
       "[{name: gated_retention, n_heads: 2, head_dim: 6, chunk: 4}]}, "
       "cross_decoder: {n_layers: 1, n_heads: 4, n_kv_heads: 2, head_dim: 6}}, "
       "token_decoder: {kind: summation, stack: gpt_neox, d_model: 18, ffn_dim: 31, n_layers: 1, "
       "n_heads: 2, head_dim: 8}}"},
      {"BlockEncoderCrossAttention", 3,
       "{family: block_transformer, vocab_size: 53, block_length: 4, embedder: {kind: encoder, "
       "d_embed: 12, n_layers: 2, n_heads: 3, ffn_dim: 17, max_positions: 9}, "
       "block_decoder: {stack: gpt_neox, d_model: 20, ffn_dim: 29, n_layers: 1, n_heads: 3, "
       "head_dim: 8}, "
       "token_decoder: {kind: cross_attention, d_model: 14, ffn_dim: 19, n_layers: 2, n_heads: 3, "
       "head_dim: 6}}"},
      {"BlockClsSummation", 2,
       "{family: block_transformer, vocab_size: 53, block_length: 3, embedder: {kind: cls, n_cls: "
       "2, d_embed: 12, n_layers: 1, n_heads: 4, ffn_dim: 17, max_positions: 9}, "
       "block_decoder: {stack: yoco, d_model: 22, ffn_dim: 29, self_decoder: {n_layers: 1, mixers: "
       "[{name: sliding_window, n_heads: 2, head_dim: 6, window: 3}]}, "
       "cross_decoder: {n_layers: 1, n_heads: 2, head_dim: 6}}, "
       "token_decoder: {kind: summation, stack: transformer, d_model: 16, ffn_dim: 31, n_layers: "
       "1, n_heads: 2, head_dim: 6}}"},
  };
  return models;
}

/// Documents, padding and weights in the way of everything.
Batch batch_for(const LanguageModel& model) {
  auto generator = seeded(5);
  const int64_t block = model.packing().multiple, first = model.packing().unscored_prefix;
  Batch batch;
  batch.tokens = torch::randint(kVocab, {kRows, kLength}, generator, torch::kInt64);
  batch.targets = torch::randint(kVocab, {kRows, kLength}, generator, torch::kInt64);
  batch.targets.narrow(1, 0, first).fill_(kIgnored);
  batch.targets.narrow(1, 7, 2).fill_(kIgnored);
  batch.segment = torch::zeros({kRows, kLength}, torch::kInt32);
  const int64_t border = 8 / block * block;
  batch.segment[0].narrow(0, border, kLength - border).fill_(1);
  batch.targets[0].narrow(0, border - 1, std::max<int64_t>(1, first)).fill_(kIgnored);
  batch.weights = torch::rand({kRows, kLength}, generator, torch::kFloat32) + 0.5;
  return batch;
}

std::shared_ptr<LanguageModel> divided(const std::string& yaml, Communicator& group) {
  auto model = model_factory().build(model_choice(yaml));
  split_over(*model, group);
  return model;
}

/// The same with this rank's parts of the parameters of `whole`.
std::shared_ptr<LanguageModel> divided(const std::string& yaml, Communicator& group,
                                       const LanguageModel& whole) {
  auto model = divided(yaml, group);
  const auto infos = parameters_info(*model);
  auto of_whole = whole.parameters();
  size_t i = 0;
  for (auto& item : model->named_parameters()) {
    materialise(item.value(), local_part(infos[i], of_whole[i].detach()).clone());
    ++i;
  }
  return model;
}

/// Every gradient of `model` is its part of the one that `whole` has.
void expect_gradients_of(const LanguageModel& model, const LanguageModel& whole) {
  const auto infos = parameters_info(model);
  const auto expected = whole.parameters(), actual = model.parameters();
  for (size_t i = 0; i < infos.size(); ++i) {
    SCOPED_TRACE(infos[i].name);
    ASSERT_EQ(actual[i].grad().defined(), expected[i].grad().defined());
    if (actual[i].grad().defined())
      expect_close(actual[i].grad(), local_part(infos[i], expected[i].grad()));
  }
}

class TensorParallelTest : public testing::TestWithParam<SplitModel> {
 protected:
  void on_ranks(const std::function<void(Mesh&, int64_t)>& body) {
    run_mesh({.tensor = GetParam().ranks}, body);
  }
};

TEST_P(TensorParallelTest, LossAndGradientsEqualOneProcess) {
  const auto whole = make_tiny_model(GetParam().yaml);
  const Batch batch = batch_for(*whole);
  const auto expected = whole->loss(batch, {});
  expected.sum.backward();
  for (const bool recompute : {false, true}) {
    on_ranks([&](Mesh& mesh, int64_t) {
      const auto model = divided(GetParam().yaml, *mesh.tensor, *whole);
      RecomputingRunner runner;
      ForwardContext context;
      if (recompute) context.runner = &runner;
      const auto loss = model->loss(batch, context);
      expect_close(loss.sum, expected.sum);
      expect_close(loss.nll.nan_to_num(-1), expected.nll.nan_to_num(-1));
      loss.sum.backward();
      expect_gradients_of(*model, *whole);
    });
  }
}

// What no rank divides nobody sums: its gradients must be the same numbers everywhere.
TEST_P(TensorParallelTest, GradientsOfWholeParametersAreTheSameBitsOnAllRanks) {
  const auto whole = make_tiny_model(GetParam().yaml, torch::kFloat32);
  const Batch batch = batch_for(*whole);
  on_ranks([&](Mesh& mesh, int64_t) {
    const auto model = divided(GetParam().yaml, *mesh.tensor, *whole);
    model->loss(batch, {}).sum.backward();
    const auto infos = parameters_info(*model);
    const auto parameters = model->parameters();
    for (size_t i = 0; i < infos.size(); ++i) {
      if (infos[i].divided() || !parameters[i].grad().defined()) continue;
      Tensor of_first = parameters[i].grad().contiguous().clone();
      mesh.tensor->broadcast(of_first, 0)->wait();
      EXPECT_TRUE(torch::equal(of_first, parameters[i].grad())) << infos[i].name;
    }
  });
}

TEST_P(TensorParallelTest, PrefillAndDecodingEqualOneProcess) {
  const auto whole = make_tiny_model(GetParam().yaml);
  const auto tokens = torch::randint(kVocab, {kRows, kLength}, seeded(6), torch::kInt64);
  const auto targets = torch::randint(kVocab, {kRows, kLength}, seeded(7), torch::kInt64);
  const StateShape shape{.batch = kRows, .capacity = kLength, .dtype = torch::kFloat64};
  const auto run = [&](LanguageModel& model) {
    const auto state = model.make_state(shape), scoring = model.make_state(shape);
    Tensors outputs = {model.extend(tokens.narrow(1, 0, 11), {}, *state, Want::kAll)};
    model.extend(tokens.narrow(1, 11, 3), {}, *state, Want::kNothing);
    for (int64_t t = 14; t < kLength; ++t)
      outputs.push_back(model.extend(tokens.narrow(1, t, 1), {}, *state, Want::kLast));
    outputs.push_back(model.extend_nll(tokens, targets, {}, *scoring));
    return outputs;
  };
  const auto expected = run(*whole);
  on_ranks([&](Mesh& mesh, int64_t) {
    const auto model = divided(GetParam().yaml, *mesh.tensor, *whole);
    const auto actual = run(*model);
    for (size_t i = 0; i < expected.size(); ++i)
      expect_close(actual[i].nan_to_num(-1), expected[i].nan_to_num(-1));
  });
}

// Every rank draws for itself, from the same logits.
TEST_P(TensorParallelTest, GenerationEqualsOneProcess) {
  const auto whole = make_tiny_model(GetParam().yaml);
  const std::vector<std::vector<int64_t>> prompts = {{3, 1, 4, 1, 5, 9, 2}, {6, 5, 3, 5}};
  GenerateConfig config;
  config.max_new_tokens = 5;
  const auto expected = generate(*whole, prompts, config);
  on_ranks([&](Mesh& mesh, int64_t) {
    const auto model = divided(GetParam().yaml, *mesh.tensor, *whole);
    const auto actual = generate(*model, prompts, config);
    for (size_t b = 0; b < prompts.size(); ++b) EXPECT_EQ(actual[b].ids, expected[b].ids);
  });
}

TEST_P(TensorParallelTest, AStateHoldsTheRanksHeadsAsReported) {
  const auto whole = make_tiny_model(GetParam().yaml);
  const StateShape shape{.batch = kRows, .capacity = kLength, .dtype = torch::kFloat64};
  const auto tokens = torch::randint(kVocab, {kRows, kLength}, seeded(6), torch::kInt64);
  const auto bytes_of = [&](LanguageModel& model) {
    const auto state = model.make_state(shape);
    model.extend(tokens, {}, *state, Want::kLast);
    EXPECT_EQ(state->bytes(), kRows * model.state_bytes(kLength, torch::kFloat64).total());
    return state->tensors();
  };
  const auto expected = bytes_of(*whole);
  on_ranks([&](Mesh& mesh, int64_t) {
    const auto model = divided(GetParam().yaml, *mesh.tensor, *whole);
    const auto actual = bytes_of(*model);
    for (size_t i = 0; i < expected.size(); ++i) {
      const auto& [name, held] = expected[i];
      if (!name.ends_with("keys") && !name.ends_with("values") && !name.ends_with("state"))
        continue;
      const int64_t heads_dim = name.ends_with("state") ? 1 : 2;
      EXPECT_EQ(actual[i].second.size(heads_dim),
                std::max<int64_t>(1, held.size(heads_dim) / GetParam().ranks))
          << name;
    }
  });
}

TEST_P(TensorParallelTest, InitialValuesArePartsOfTheWhole) {
  const auto whole = model_factory().build(model_choice(GetParam().yaml));
  initialise(*whole, 3, torch::kCPU, torch::kFloat32);
  on_ranks([&](Mesh& mesh, int64_t) {
    const auto model = divided(GetParam().yaml, *mesh.tensor);
    initialise(*model, 3, torch::kCPU, torch::kFloat32);
    EXPECT_EQ(count_parameters(*model), count_parameters(*whole));
    const auto infos = parameters_info(*model);
    const auto parts = model->parameters(), all = whole->parameters();
    int64_t held = 0;
    for (size_t i = 0; i < infos.size(); ++i) {
      EXPECT_TRUE(torch::equal(parts[i], local_part(infos[i], all[i]))) << infos[i].name;
      held += parts[i].numel();
    }
    EXPECT_LT(held, count_parameters(*whole) * 2 / 3);
  });
}

TEST_P(TensorParallelTest, TrafficIsAsCounted) {
  const auto whole = make_tiny_model(GetParam().yaml, torch::kFloat32);
  const Choice choice = model_choice(GetParam().yaml);
  const bool blocks = choice.name == "block_transformer";
  const TokensThrough tokens =
      blocks ? tokens_through(choice.as<BlockTransformerConfig>(), kRows, kLength)
             : [](const std::string&) { return static_cast<double>(kRows * kLength); };
  Batch batch;
  batch.tokens = torch::randint(kVocab, {kRows, kLength}, seeded(6), torch::kInt64);
  batch.targets = batch.tokens.clone();
  batch.targets.narrow(1, 0, whole->packing().unscored_prefix).fill_(kIgnored);
  const double n_scored = batch.targets.ge(0).sum().item<double>();
  on_ranks([&](Mesh& mesh, int64_t) {
    const auto model = divided(GetParam().yaml, *mesh.tensor, *whole);
    const auto expected = tensor_traffic(*model, GetParam().ranks, tokens, n_scored, 4);
    const auto sent = [&](const std::function<void()>& f) {
      mesh.traffic->reset();
      f();
      double sum = 0;
      for (const auto& [name, bytes] : mesh.traffic->bytes()) sum += bytes;
      return sum;
    };
    Loss loss;
    EXPECT_DOUBLE_EQ(sent([&] { loss = model->loss(batch, {}); }), expected.forward);
    EXPECT_DOUBLE_EQ(sent([&] { loss.sum.backward(); }), expected.backward);
    RecomputingRunner runner;
    ForwardContext context;
    context.runner = &runner;
    EXPECT_DOUBLE_EQ(sent([&] { model->loss(batch, context).sum.backward(); }),
                     expected.forward + expected.backward + expected.again);
  });
}

INSTANTIATE_TEST_SUITE_P(Models, TensorParallelTest, testing::ValuesIn(split_models()),
                         [](const auto& of) { return of.param.name; });

}  // namespace
}  // namespace tandem
