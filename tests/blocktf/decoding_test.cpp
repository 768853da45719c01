#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "core/packing.h"
#include "nn/device_sampler.h"
#include "nn/generate.h"
#include "tests/cli/tiny_models.h"

// Block by block, prompts of any lengths beside each other: what is drawn comes from the logits of
// the training pass.

namespace tandem {
namespace {

constexpr int64_t kVocab = 31;
using Ids = std::vector<int64_t>;

const std::map<std::string, std::string>& block_decoders() {
  static const std::map<std::string, std::string> kinds = {
      {"gpt_neox", "{stack: gpt_neox, d_model: 24, ffn_dim: 29, n_layers: 2, n_heads: 3}"},
      {"transformer",
       "{stack: transformer, d_model: 24, ffn_dim: 29, n_layers: 2, n_heads: 4, n_kv_heads: 2, "
       "head_dim: 6}"},
      {"yoco_retention",
       "{stack: yoco, d_model: 24, ffn_dim: 29, self_decoder: {n_layers: 1, mixers: [{name: "
       "gated_retention, n_heads: 2, head_dim: 6, chunk: 4}]}, cross_decoder: {n_layers: 1, "
       "n_heads: 4, n_kv_heads: 2, head_dim: 6}}"},
      {"yoco_window",
       "{stack: yoco, d_model: 24, ffn_dim: 29, self_decoder: {n_layers: 2, mixers: [{name: "
       "sliding_window, n_heads: 2, head_dim: 6, window: 2}]}, cross_decoder: {n_layers: 1, "
       "n_heads: 2, head_dim: 6}}"},
  };
  return kinds;
}

const std::map<std::string, std::string>& token_decoders() {
  static const std::map<std::string, std::string> kinds = {
      {"prefix",
       "{kind: prefix, prefix_length: 2, stack: gpt_neox, d_model: 21, ffn_dim: 31, n_layers: 2, "
       "n_heads: 3, head_dim: 8}"},
      {"summation",
       "{kind: summation, stack: transformer, d_model: 18, ffn_dim: 31, n_layers: 1, n_heads: 3, "
       "head_dim: 6}"},
      {"cross_attention",
       "{kind: cross_attention, d_model: 14, ffn_dim: 19, n_layers: 2, n_heads: 3, head_dim: 6}"},
  };
  return kinds;
}

struct Case {
  std::string block_decoder, token_decoder;
  int64_t block_length;
  bool pad_documents;
};
std::string name_of(const Case& c) {
  return fmt::format("{}_{}_{}_{}", c.block_decoder, c.token_decoder, c.block_length,
                     c.pad_documents ? "padded" : "unpadded");
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const auto& [block_decoder, unused] : block_decoders()) {
    for (const auto& [token_decoder, also_unused] : token_decoders()) {
      for (const int64_t length : {1, 2, 3, 4, 8}) {
        for (const bool pad : {true, false})
          all.push_back({block_decoder, token_decoder, length, pad});
      }
    }
  }
  return all;
}

std::string yaml_of(const Case& c) {
  return fmt::format(
      "{{family: block_transformer, vocab_size: {}, block_length: {}, pad_documents: {}, embedder: "
      "{{kind: lookup, combine: projection, d_embed: 5}}, block_decoder: {}, token_decoder: {}}}",
      kVocab, c.block_length, c.pad_documents, block_decoders().at(c.block_decoder),
      token_decoders().at(c.token_decoder));
}

/// Draws the likeliest token and keeps what it was given.
struct RecordingSampler : DeviceSampler {
  explicit RecordingSampler(int64_t batch)
      : DeviceSampler({.temperature = 0}, batch, torch::kCPU) {}
  Tensor sample(const Tensor& logits) override {
    seen.push_back(logits.clone());
    return DeviceSampler::sample(logits);
  }
  Tensors seen;  // [B, V] each
};

class BlockDecodingTest : public testing::TestWithParam<Case> {
 protected:
  const int64_t length_ = GetParam().block_length;
  std::shared_ptr<LanguageModel> model_ = make_tiny_model(yaml_of(GetParam()));

  /// Prompts that end in each phase of a block, of up to three blocks.
  std::vector<Ids> prompts() const {
    std::vector<Ids> made;
    auto generator = seeded(3);
    for (const int64_t n : {length_, 3 * length_, 2 * length_ + length_ / 2, length_ + 1}) {
      const Tensor ids = torch::randint(kVocab, {n}, generator, torch::kInt64);
      made.emplace_back(ids.data_ptr<int64_t>(), ids.data_ptr<int64_t>() + n);
    }
    return made;
  }
  /// Log-probabilities [T, V] of what follows each token of a sequence, by the training pass.
  Tensor training_log_probs(const Ids& ids, int64_t n_padding) const {
    Row row;
    row.tokens.assign(static_cast<size_t>(n_padding), 0);
    row.tokens.insert(row.tokens.end(), ids.begin(), ids.end());
    row.segment.assign(static_cast<size_t>(n_padding), -1);
    row.segment.resize(row.tokens.size(), 0);
    std::vector<Row> rows;
    for (int64_t v = 0; v < kVocab; ++v) {
      rows.push_back(row);
      rows.back().targets.assign(row.tokens.size(), v);
    }
    apply_packing(rows, model_->packing());
    const torch::NoGradGuard no_grad;
    const Tensor nll = model_->loss(make_batch(rows, torch::kCPU), {}).nll;  // [V, T]
    return -nll.t().slice(0, n_padding);
  }
};

TEST_P(BlockDecodingTest, EveryTokenIsDrawnFromTheLogitsOfTheTrainingPass) {
  const auto all = prompts();
  const auto batch = static_cast<int64_t>(all.size());
  constexpr int64_t kCalls = 3;
  const auto state = state_for_prompts(*model_, all, kCalls * length_);
  prefill(*model_, all, /*chunk=*/3, *state);
  RecordingSampler sampler(batch);
  Tensors drawn;
  for (int64_t call = 0; call < kCalls; ++call)
    drawn.push_back(model_->generate_block(*state, sampler));
  const Tensor ids = torch::cat(drawn, 1);  // [B, calls * L]
  ASSERT_EQ(ids.sizes(), (std::vector<int64_t>{batch, kCalls * length_}));
  for (int64_t b = 0; b < batch; ++b) {
    SCOPED_TRACE(b);
    Ids sequence = all[static_cast<size_t>(b)];
    const auto n_prompt = static_cast<int64_t>(sequence.size());
    const int64_t n_padding = model_->packing().padding_to_continue(n_prompt);
    const int64_t held = (n_padding + n_prompt) % length_;  // of the block that the prompt began
    std::vector<int64_t> slots;                             // where something was drawn
    for (int64_t t = 0; t < kCalls * length_; ++t) {
      const int64_t id = ids[b][t].item<int64_t>();
      EXPECT_EQ(id == kPadding, t < held);
      if (id == kPadding) continue;
      slots.push_back(t);
      sequence.push_back(id);
    }
    const Tensor expected = training_log_probs(sequence, n_padding);
    // A sampler that was called from the first slot of the first block on, or only from where all
    // rows were to draw.
    const auto n_left_out = kCalls * length_ - static_cast<int64_t>(sampler.seen.size());
    for (size_t i = 0; i < slots.size(); ++i) {
      const Tensor logits = sampler.seen.at(static_cast<size_t>(slots[i] - n_left_out))[b];
      expect_close(torch::log_softmax(logits, 0), expected[n_prompt - 1 + static_cast<int64_t>(i)]);
    }
    expect_close(torch::log_softmax(state->next_logits[b], 0), expected[-1]);
    EXPECT_EQ(state->lengths[b].item<int64_t>(), n_padding + n_prompt + kCalls * length_ - held);
  }
}

TEST_P(BlockDecodingTest, ARowGetsWhatItGetsAlone) {
  const auto all = prompts();
  GenerateConfig config;
  config.sampling = {.temperature = 0.9, .seed = 5};
  config.max_new_tokens = 2 * length_ + 1;  // the last block is cut short
  const auto together = generate(*model_, all, config);
  for (size_t b = 0; b < all.size(); ++b) {
    EXPECT_EQ(together[b].ids.size(), static_cast<size_t>(config.max_new_tokens));
  }
  // Each row has a random stream of its own, so that each is put first in turn.
  for (size_t first = 0; first < all.size(); ++first) {
    auto turned = all;
    std::rotate(turned.begin(), turned.begin() + static_cast<std::ptrdiff_t>(first), turned.end());
    const auto alone = generate(*model_, std::vector<Ids>{turned[0]}, config);
    EXPECT_EQ(generate(*model_, turned, config)[0].ids, alone[0].ids) << first;
  }
}

TEST_P(BlockDecodingTest, TokenByTokenEqualsBlockByBlock) {
  const auto all = prompts();
  const auto batch = static_cast<int64_t>(all.size());
  const auto by_block = state_for_prompts(*model_, all, length_),
             by_token = state_for_prompts(*model_, all, length_);
  prefill(*model_, all, 0, *by_block);
  prefill(*model_, all, 0, *by_token);
  DeviceSampler greedy({.temperature = 0}, batch, torch::kCPU);
  expect_close(by_token->next_logits, by_block->next_logits, 0);
  const Tensor drawn = model_->generate_block(*by_block, greedy);
  for (int64_t t = 0; t < length_; ++t) {
    const Tensor token = drawn.narrow(1, t, 1);
    const Tensor takes = token.squeeze(1).ne(kPadding);
    if (!takes.any().item<bool>()) continue;
    // Rows that drew nothing stay: a length of 0 needs a call that asks for no logits.
    if (takes.all().item<bool>()) {
      if (by_token->next_logits.defined())
        expect_close(by_token->next_logits.argmax(1), token.squeeze(1), 0);
      model_->extend(token, {}, *by_token, Want::kLast);
    } else {
      model_->extend(token.clamp_min(0), takes.to(torch::kInt64), *by_token, Want::kNothing);
    }
  }
  EXPECT_TRUE(torch::equal(by_token->lengths, by_block->lengths));
  const Tensor more = torch::full({batch, 1}, 7, torch::kInt64);
  expect_close(model_->extend(more, {}, *by_token, Want::kLast),
               model_->extend(more, {}, *by_block, Want::kLast));
}

TEST_P(BlockDecodingTest, SelectedRowsGoOnDecoding) {
  const auto all = prompts();
  const auto state = state_for_prompts(*model_, all, 3 * length_);
  prefill(*model_, all, 0, *state);
  DeviceSampler greedy({.temperature = 0}, static_cast<int64_t>(all.size()), torch::kCPU);
  model_->generate_block(*state, greedy);
  const Tensor rows = torch::tensor({2, 0, 2}, torch::kInt64);
  const auto selected = state->select(rows);
  DeviceSampler three({.temperature = 0}, 3, torch::kCPU);
  const Tensor actual = model_->generate_block(*selected, three);
  const Tensor expected = model_->generate_block(*state, greedy);
  EXPECT_TRUE(torch::equal(actual, expected.index_select(0, rows)));
  expect_close(selected->next_logits, state->next_logits.index_select(0, rows));
}

INSTANTIATE_TEST_SUITE_P(All, BlockDecodingTest, testing::ValuesIn(cases()),
                         [](const auto& info) { return name_of(info.param); });

}  // namespace
}  // namespace tandem
