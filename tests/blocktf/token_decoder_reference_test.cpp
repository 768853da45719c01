#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <functional>

#include "blocktf/cross_attention_decoder.h"
#include "tests/blocktf/token_decoders.h"
#include "tests/nn/helpers.h"

// Token decoders against slow programs written from the papers: one block, one head and one query
// at a time, in float64.

namespace tandem {
namespace {

constexpr int64_t kHeads = 3, kLayers = 2;

struct Weights {
  torch::OrderedDict<std::string, Tensor> parameters;

  const Tensor& operator[](const std::string& name) const { return parameters[name]; }
  Tensor linear(const std::string& name, const Tensor& x) const {
    const auto product = x.matmul(parameters[name + ".weight"].t());
    const auto* bias = parameters.find(name + ".bias");
    return bias ? product + *bias : product;
  }
  Tensor layer_norm(const std::string& name, const Tensor& x) const {
    const auto centred = x - x.mean(-1, true);
    const auto variance = centred.square().mean(-1, true);
    return centred / (variance + 1e-5).sqrt() * parameters[name + ".weight"] +
           parameters[name + ".bias"];
  }
  Tensor rms_norm(const std::string& name, const Tensor& x) const {
    return x / (x.square().mean(-1, true) + 1e-6).sqrt() * parameters[name + ".weight"];
  }
};

/// scores, visible: [T, S]; values: [S, K] -> [T, K], each query's mean of the values it sees.
Tensor attention(const Tensor& scores, const Tensor& visible, const Tensor& values) {
  const auto weights = scores.exp() * visible;
  return weights.matmul(values) / weights.sum(-1, /*keepdim=*/true);
}

/// is_key: [T] bool -> [T, T], what causal queries see.
Tensor causal(const Tensor& is_key) {
  return torch::ones({is_key.size(0), is_key.size(0)}, torch::kFloat64).tril() * is_key;
}

/// Channels h * K .. of head h.
Tensor head_of(const Tensor& x, int64_t head) {
  return x.chunk(kHeads, -1)[static_cast<size_t>(head)];
}

/// x: [T, 6], of which channels 0 and 2 turn by the position, 1 and 3 by a hundredth of it.
Tensor rotated(const Tensor& x, const Tensor& positions) {
  Tensors channels = x.unbind(1);
  for (const size_t i : {0, 1}) {
    const auto angle = positions * (i == 0 ? 1 : 0.01);
    const auto a = x.select(1, static_cast<int64_t>(i)),
               b = x.select(1, static_cast<int64_t>(i) + 2);
    channels[i] = a * angle.cos() - b * angle.sin();
    channels[i + 2] = b * angle.cos() + a * angle.sin();
  }
  return torch::stack(channels, 1);
}

/// GPT-NeoX layers and their final norm. x: [T, D]; positions: [T]; is_key: [T], others see the
/// token.
Tensor neox(const Weights& w, Tensor x, const Tensor& positions, const Tensor& is_key) {
  for (int64_t i = 0; i < kLayers; ++i) {
    const auto name = "layers." + std::to_string(i) + ".";
    const auto y = w.layer_norm(name + "mixer_norm", x), z = w.layer_norm(name + "ffn_norm", x);
    const auto q = w.linear(name + "mixer.q_proj", y), k = w.linear(name + "mixer.k_proj", y),
               v = w.linear(name + "mixer.v_proj", y);
    Tensors heads;
    for (int64_t h = 0; h < kHeads; ++h) {
      const auto scores =
          rotated(head_of(q, h), positions).matmul(rotated(head_of(k, h), positions).t());
      heads.push_back(attention(scores / std::sqrt(6.0), causal(is_key), head_of(v, h)));
    }
    const auto up = w.linear(name + "ffn.up_proj", z);
    const auto gelu = 0.5 * up * (1 + (up / std::sqrt(2.0)).erf());
    x = x + w.linear(name + "mixer.o_proj", torch::cat(heads, -1)) +
        w.linear(name + "ffn.down_proj", gelu);
  }
  return w.layer_norm("final_norm", x);
}

/// One block. context: [H]; tokens: [n]; real: [n] bool.
struct Block {
  Tensor context, tokens, real;
  Tensor vectors(const Weights& w, int64_t count) const {
    return w.linear("expansion", context).view({count, -1});
  }
  Tensor with_bos(int64_t bos_id) const {
    return torch::cat({torch::full({1}, bos_id, torch::kInt64), tokens});
  }
  /// Of n_front inputs and the tokens.
  Tensor is_key(int64_t n_front) const {
    return torch::cat({torch::ones({n_front}, torch::kBool), real});
  }
};
/// -> [n + 1, D].
using Reference = std::function<Tensor(const Weights&, const Block&)>;

Reference prefix_reference(int64_t r, bool official = false) {
  return [=](const Weights& w, const Block& block) {
    const auto counted = torch::arange(r + block.tokens.size(0), torch::kFloat64);
    const auto x = torch::cat({block.vectors(w, r), w["embedding.weight"].index({block.tokens})});
    return neox(w, x, official ? (counted - (r - 1)).clamp_min(0) : counted, block.is_key(r))
        .slice(0, r - 1);
  };
}

Reference summation_reference(int64_t block_length) {
  return [=](const Weights& w, const Block& block) {
    const auto ids = block.with_bos(3);
    const auto x = w["embedding.weight"].index({ids}) + block.vectors(w, block_length);
    return neox(w, x, torch::arange(ids.size(0), torch::kFloat64), block.is_key(1));
  };
}

Reference cross_attention_reference(int64_t block_length) {
  return [=](const Weights& w, const Block& block) {
    const int64_t bucket_of[] = {0, 1, 2, 2, 3};  // of 4 buckets up to distance 8
    const auto ids = block.with_bos(1);
    const int64_t n = ids.size(0);
    auto buckets = torch::zeros({n, n}, torch::kInt64);
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j <= i; ++j) buckets[i][j] = bucket_of[i - j];
    const auto bias = w["position_bias.weight"].index({buckets});  // [n, n, heads]
    const auto vectors = block.vectors(w, block_length);
    Tensor x = w["embedding.weight"].index({ids});
    for (int64_t i = 0; i < kLayers; ++i) {
      const auto name = "layers." + std::to_string(i) + ".";
      const auto attend_to = [&](const std::string& prefix, const Tensor& y, const Tensor& source,
                                 const Tensor& added, const Tensor& visible) {
        const auto q = w.linear(name + prefix + "q_proj", y),
                   k = w.linear(name + prefix + "k_proj", source),
                   v = w.linear(name + prefix + "v_proj", source);
        Tensors heads;
        for (int64_t h = 0; h < kHeads; ++h) {
          const auto scores = head_of(q, h).matmul(head_of(k, h).t()) + added.select(-1, h);
          heads.push_back(attention(scores, visible, head_of(v, h)));
        }
        return w.linear(name + prefix + "o_proj", torch::cat(heads, -1));
      };
      const auto y = w.rms_norm(name + "attention_norm", x);
      x = x + attend_to("", y, y, bias, causal(block.is_key(1)));
      const auto none = torch::zeros({1, 1, kHeads}), all = torch::ones({1, 1});
      x = x + attend_to("cross_", w.rms_norm(name + "cross_norm", x), vectors, none, all);
      const auto up = w.linear(name + "up_proj", w.rms_norm(name + "ffn_norm", x));
      x = x + w.linear(name + "down_proj", up.clamp_min(0));
    }
    return w.rms_norm("final_norm", x) / std::sqrt(10.0);
  };
}

struct Blocks {
  Tensor context, tokens, real;
};

/// Four blocks: one without padding, the others with some of it, in front, between and at the end.
Blocks some_blocks(int64_t block_length) {
  const int64_t n = block_length - 1;
  Blocks blocks;
  blocks.context = torch::randn({4, kTestContext}, seeded(1), torch::kFloat64).requires_grad_();
  blocks.tokens = torch::randint(kTestVocab, {4, n}, seeded(2), torch::kInt64);
  blocks.real = torch::ones({4, n}, torch::kBool);
  if (n == 0) return blocks;
  blocks.real[1].slice(0, 0, 1).fill_(false);
  blocks.real[2].slice(0, n / 2, n / 2 + 1).fill_(false);
  blocks.real[3].slice(0, n - 1, n).fill_(false);
  return blocks;
}

/// Values and all gradients of `decoder` are those of `reference`, with and without padding.
void expect_reference(TokenDecoder& decoder, const Reference& reference, int64_t block_length) {
  materialise_random(decoder, 3);
  const Weights weights{decoder.named_parameters()};
  const auto blocks = some_blocks(block_length);
  Tensors leaves = decoder.parameters();
  leaves.push_back(blocks.context);
  for (const Tensor& real : {blocks.real, Tensor()}) {
    const auto actual = decoder.forward(blocks.context, blocks.tokens, real, {});
    Tensors rows;
    for (int64_t m = 0; m < 4; ++m) {
      const auto mask = real.defined() ? real[m] : torch::ones({block_length - 1}, torch::kBool);
      rows.push_back(reference(weights, {blocks.context[m], blocks.tokens[m], mask}));
    }
    const auto expected = torch::stack(rows);  // [M, L, D]
    expect_close(actual, expected);
    const auto by = torch::randn(expected.sizes(), seeded(4), torch::kFloat64);
    const auto gradients_of = [&](const Tensor& h) {
      return torch::autograd::grad({(h * by).sum()}, leaves, /*grad_outputs=*/{},
                                   /*retain_graph=*/false, /*create_graph=*/false,
                                   /*allow_unused=*/true);
    };
    const auto actual_gradients = gradients_of(actual), gradients = gradients_of(expected);
    for (size_t i = 0; i < leaves.size(); ++i) {
      const auto or_zero = [&](const Tensor& x) {
        return x.defined() ? x : torch::zeros_like(leaves[i]);
      };
      SCOPED_TRACE(i < weights.parameters.size() ? weights.parameters.keys()[i] : "context");
      expect_close(or_zero(actual_gradients[i]), or_zero(gradients[i]));
    }
  }
}

class TokenDecoderReferenceTest : public testing::TestWithParam<int64_t> {};

TEST_P(TokenDecoderReferenceTest, Prefix) {
  for (const int64_t r : {1, 2, 3}) {
    SCOPED_TRACE(r);
    expect_reference(*test_decoder(prefix_of(r), GetParam()), prefix_reference(r), GetParam());
  }
}

TEST_P(TokenDecoderReferenceTest, Summation) {
  expect_reference(*test_decoder(summation_of(), GetParam()), summation_reference(GetParam()),
                   GetParam());
}

TEST_P(TokenDecoderReferenceTest, CrossAttention) {
  expect_reference(*test_decoder(kCrossAttention, GetParam()),
                   cross_attention_reference(GetParam()), GetParam());
}

// block-transformer-code, sec. 10: all vectors of the prefix at position 0, token t (from 1) at t.
TEST_P(TokenDecoderReferenceTest, OfficialPositionsWhileGenerating) {
  const int64_t block_length = GetParam();
  for (const int64_t r : {2, 3}) {
    SCOPED_TRACE(r);
    const auto decoder = test_decoder(prefix_of(r), block_length, /*official=*/true);
    expect_reference(*decoder, prefix_reference(r), block_length);  // not while training
    const Weights weights{decoder->named_parameters()};
    const auto blocks = some_blocks(block_length);
    Tensors rows, in_training;
    for (int64_t m = 0; m < 4; ++m) {
      const Block block{blocks.context[m], blocks.tokens[m],
                        torch::ones({block_length - 1}, torch::kBool)};
      rows.push_back(prefix_reference(r, /*official=*/true)(weights, block));
      in_training.push_back(prefix_reference(r)(weights, block));
    }
    const auto expected = torch::stack(rows);
    EXPECT_GT((expected - torch::stack(in_training)).abs().max().item<double>(), 1e-3);
    for (int64_t n = 0; n < block_length; ++n) {
      auto [h, state] = decoder->begin(blocks.context, blocks.tokens.narrow(1, 0, n),
                                       {.batch = 4, .dtype = torch::kFloat64});
      expect_close(h, expected.select(1, n));
      for (int64_t t = n; t + 1 < block_length; ++t)
        expect_close(decoder->step(blocks.tokens.select(1, t), *state), expected.select(1, t + 1));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(BlockLengths, TokenDecoderReferenceTest, testing::Values(1, 2, 3, 5));

// Bucket of distance d >= 16 by T5's formula for 32 buckets up to distance 128: 16 + floor(16 log(d
// / 16) / log 8), at most 31.
TEST(CausalBucketsTest, AreThoseOfT5) {
  const auto distances = torch::tensor({0, 1, 15, 16, 17, 20, 31, 32, 64, 113, 127, 128, 4000});
  EXPECT_TRUE(torch::equal(
      causal_buckets(distances, 32, 128),
      torch::tensor({0, 1, 15, 16, 16, 17, 21, 21, 26, 31, 31, 31, 31}, torch::kInt64)));
}

}  // namespace
}  // namespace tandem
