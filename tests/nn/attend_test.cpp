#include "nn/attend.h"

#include <gtest/gtest.h>

#include "nn/cache_rows.h"
#include "tests/nn/attend_cases.h"

namespace tandem {
namespace {

constexpr int64_t kBatch = kAttendBatch, kHeadDim = 6;

class AttendTest : public testing::TestWithParam<AttendCase> {};

TEST_P(AttendTest, EqualsTheDefinitionInValuesAndGradients) {
  const AttendCase& c = GetParam();
  auto generator = seeded(3);
  const auto random = [&](int64_t n_tokens, int64_t n_heads) {
    return torch::randn({kBatch, n_tokens, n_heads, kHeadDim}, generator, torch::kFloat64)
        .requires_grad_();
  };
  const auto q = random(c.n_queries, c.n_heads), k = random(c.n_keys, c.n_kv_heads),
             v = random(c.n_keys, c.n_kv_heads);
  const auto mask = mask_of(c, generator);
  const auto actual = attend(q, k, v, mask);
  const auto expected =
      attend_by_definition(q, k, v, visible_by_definition(kBatch, c.n_queries, c.n_keys, mask));
  expect_close(actual, expected, 1e-12);

  const auto weights = torch::randn(expected.sizes(), generator, torch::kFloat64);
  const auto gradients = torch::autograd::grad({(actual * weights).sum()}, {q, k, v});
  const auto expected_gradients = torch::autograd::grad({(expected * weights).sum()}, {q, k, v});
  for (size_t i = 0; i < 3; ++i) {
    SCOPED_TRACE("gradient of input " + std::to_string(i));
    expect_close(gradients[i], expected_gradients[i], 1e-11);
  }

  const torch::NoGradGuard no_grad;  // inference slices keys where training cuts them
  expect_close(attend(q, k, v, mask), expected, 1e-12);
}

INSTANTIATE_TEST_SUITE_P(Cases, AttendTest, testing::ValuesIn(attend_cases()),
                         [](const auto& test) { return test.param.name; });

TEST(AttendBlindTest, AQueryThatSeesNothingGivesZerosAndNoGradient) {
  auto generator = seeded(5);
  for (const auto dtype : {torch::kFloat64, torch::kFloat32, torch::kBFloat16}) {
    const auto q =
        torch::randn({2, 3, 4, 8}, generator, torch::kFloat64).to(dtype).requires_grad_();
    const auto k =
        torch::randn({2, 5, 2, 8}, generator, torch::kFloat64).to(dtype).requires_grad_();
    const auto v =
        torch::randn({2, 5, 2, 8}, generator, torch::kFloat64).to(dtype).requires_grad_();
    const auto out = attend(q, k, v, {.key_lengths = torch::tensor({0, 4}, torch::kInt64)});
    EXPECT_TRUE(out[0].eq(0).all().item<bool>());
    EXPECT_TRUE(out[1].ne(0).all().item<bool>());
    const auto gradients = torch::autograd::grad({out.to(torch::kFloat64).sum()}, {q, k, v});
    for (const auto& gradient : gradients) {
      EXPECT_TRUE(gradient[0].eq(0).all().item<bool>());
      EXPECT_TRUE(gradient[1].isfinite().all().item<bool>());
    }
  }
}

TEST(AttendDtypeTest, SoftmaxIsInFloat32) {
  auto generator = seeded(6);
  const auto q = torch::randn({1, 50, 4, 16}, generator, torch::kFloat64).to(torch::kBFloat16);
  const auto k = torch::randn({1, 50, 2, 16}, generator, torch::kFloat64).to(torch::kBFloat16);
  const auto v = torch::randn({1, 50, 2, 16}, generator, torch::kFloat64).to(torch::kBFloat16);
  for (const int64_t window : {0, 11}) {
    const auto wide = attend(q.to(torch::kFloat64), k.to(torch::kFloat64), v.to(torch::kFloat64),
                             {.window = window});
    expect_close(attend(q.to(torch::kFloat32), k.to(torch::kFloat32), v.to(torch::kFloat32),
                        {.window = window}),
                 wide, 2e-6);
    const auto narrow = attend(q, k, v, {.window = window});
    EXPECT_EQ(narrow.dtype(), torch::kBFloat16);
    expect_close(narrow, wide, 0.03);  // values up to 3 have a spacing of 2^-6
  }
}

// A cache may hold keys and values in another type than the activations.
TEST(AttendDtypeTest, KeysOfAnotherTypeAreConverted) {
  auto generator = seeded(8);
  const auto random = [&](int64_t n_tokens, int64_t n_heads, torch::Dtype dtype) {
    return torch::randn({2, n_tokens, n_heads, 16}, generator, torch::kFloat64).to(dtype);
  };
  const AttendMask masks[] = {{},
                              {.window = 11},
                              {.key_lengths = torch::tensor({50, 21}, torch::kInt64)},
                              {.query_segment = torch::zeros({2, 50}, torch::kInt32),
                               .key_segment = torch::zeros({2, 50}, torch::kInt32)}};
  for (const auto& [activations, cache] : {std::pair{torch::kFloat32, torch::kBFloat16},
                                           {torch::kBFloat16, torch::kFloat32},
                                           {torch::kFloat64, torch::kFloat32}}) {
    const auto q = random(50, 4, activations), k = random(50, 2, cache), v = random(50, 2, cache);
    const auto same_k = k.to(activations), same_v = v.to(activations);
    for (const auto& mask : masks) {
      const auto out = attend(q, k, v, mask);
      EXPECT_EQ(out.scalar_type(), activations);
      expect_close(out, attend(q, same_k, same_v, mask), 0);
    }
    const auto last = q.slice(1, 49);
    expect_close(attend(last, k, v, {}), attend(last, same_k, same_v, {}), 0);
  }
}

TEST(AttendDtypeTest, RowsOfCodesAreReadAsTheNumbersThatTheyStandFor) {
  const torch::NoGradGuard no_grad;
  for (const int64_t head_dim : {10, 16}) {
    const auto rows = [&](int64_t n_tokens, uint64_t seed) {
      return to_cache_rows(torch::randn({2, n_tokens, 2, head_dim}, seeded(seed)), torch::kInt8);
    };
    const auto numbers = [&](const Tensor& x) {
      return from_cache_rows(x, head_dim, torch::kFloat64);
    };
    const auto q = torch::randn({2, 50, 6, head_dim}, seeded(50), torch::kFloat64);
    AttendMask ragged;
    ragged.key_lengths = torch::tensor({50, 21}, torch::kInt64);
    for (const auto& mask : {AttendMask{}, AttendMask{.window = 11}, ragged}) {
      const auto k = rows(50, 51), v = rows(50, 52);
      const auto visible = visible_by_definition(2, 50, 50, mask);
      expect_close(attend(q, k, v, mask),
                   attend_by_definition(q, numbers(k), numbers(v), visible));
    }
    // A decode step, over keys that are converted whole and over many in pieces.
    for (const int64_t n_keys : {37, 2611}) {
      const auto k = rows(n_keys, 53), v = rows(n_keys, 54), last = q.slice(1, 49);
      const auto visible = visible_by_definition(2, 1, n_keys, {});
      expect_close(attend(last, k, v, {}),
                   attend_by_definition(last, numbers(k), numbers(v), visible));
    }
  }
  EXPECT_THROW(attend(torch::zeros({1, 1, 2, 8}), torch::zeros({1, 3, 2, 8}, torch::kInt8),
                      torch::zeros({1, 3, 2, 8}, torch::kInt8), {}),
               c10::Error);  // no room for scales
}

// The first key's value gets 256 from the first block of queries and 0.9 from each of four others,
// which a sum in bfloat16 would lose: its spacing there is 2.
TEST(AttendDtypeTest, ADecodeStepConvertsALongCacheInPieces) {
  const torch::NoGradGuard no_grad;
  const auto q = torch::randn({3, 1, 6, 10}, seeded(41), torch::kFloat64);
  const auto k = torch::randn({3, 2611, 2, 10}, seeded(42)).to(torch::kBFloat16);
  const auto v = torch::randn({3, 2611, 2, 10}, seeded(43)).to(torch::kBFloat16);
  const auto wide_k = k.to(torch::kFloat64), wide_v = v.to(torch::kFloat64);
  const AttendMask plain;
  AttendMask ragged;  // the first row's keys end in the first piece, the last row has none
  ragged.key_lengths = torch::tensor({7, 2611, 0}, torch::kInt64);
  ragged.query_index = torch::tensor({6, 2610, 0}, torch::kInt64).unsqueeze(1);
  for (const auto& mask : {plain, ragged}) {
    const auto expected =
        attend_by_definition(q, wide_k, wide_v, visible_by_definition(3, 1, 2611, mask));
    expect_close(attend(q, k, v, mask), expected);
  }
}

TEST(AttendDtypeTest, GradientsOfBlocksAreAddedInFloat32) {
  constexpr int64_t kTokens = 5 * 256;
  const auto zeros = torch::zeros({1, kTokens, 1, 8}, torch::kBFloat16);
  const auto v = zeros.clone().requires_grad_();
  const auto index = torch::arange(kTokens).unsqueeze(0);
  auto weights = torch::zeros({1, kTokens, 1, 1});
  weights[0][0] = 256;
  for (int64_t t = 256; t < kTokens; t += 256)
    weights[0][t] = 0.9 * static_cast<double>(t + 1);  // it sees t + 1 keys alike
  const auto out = attend(zeros, zeros, v, {.query_index = index});
  (out.to(torch::kFloat32) * weights).sum().backward();
  EXPECT_NEAR(v.grad()[0][0][0][0].item<double>(), 256 + 4 * 0.9, 1.01);
}

// Padding in the middle of a row: as queries, as keys, or as keys only.
TEST(AttendPaddingTest, SeesNothingAndIsSeenByNobody) {
  constexpr int64_t kTokens = 311, kBegin = 7, kEnd = 290;  // a whole block of queries too
  const auto random = [](uint64_t seed, int64_t n_heads) {
    return torch::randn({2, kTokens, n_heads, 6}, seeded(seed), torch::kFloat64);
  };
  auto padded = torch::zeros({2, kTokens}, torch::kInt32);
  padded[0].slice(0, kBegin, kEnd).fill_(-1);
  const auto q = random(1, 4).requires_grad_();
  const auto changed = padded.lt(0).unsqueeze(2).unsqueeze(3);
  for (const bool keys_only : {false, true}) {
    const AttendMask mask{.query_segment = keys_only ? torch::zeros_like(padded) : padded,
                          .key_segment = padded};
    const auto k = random(2, 2).requires_grad_(), v = random(3, 2).requires_grad_();
    const auto out = attend(q, k, v, mask);
    const auto other = attend(q, k.masked_fill(changed, 1e3), v.masked_fill(changed, 1e3), mask);
    expect_close(other, out, 0);
    const auto at_padding = out[0].slice(0, kBegin, kEnd);
    EXPECT_EQ(at_padding.eq(0).all().item<bool>(), !keys_only);
    if (keys_only) {  // such a query sees the keys in front of the padding
      const auto index = torch::full({2, kEnd - kBegin}, kBegin - 1, torch::kInt64);
      const auto in_front = attend(q.slice(1, kBegin, kEnd), k.slice(1, 0, kBegin),
                                   v.slice(1, 0, kBegin), {.query_index = index});
      expect_close(at_padding, in_front[0], 1e-12);
    }
    const auto weights = random(4, 4);
    const auto gradients = torch::autograd::grad({(out * weights).sum()}, {q, k, v});
    for (size_t i = 0; i < 3; ++i) {
      const auto there = gradients[i][0].slice(0, kBegin, kEnd);
      EXPECT_EQ(there.eq(0).all().item<bool>(), i > 0 || !keys_only) << i;
      EXPECT_TRUE(gradients[i][1].ne(0).any().item<bool>()) << i;
    }
    // What is not padding attends as if the padding were not there
    const auto without = [&](const Tensor& x) {
      return torch::cat({x.slice(1, 0, kBegin), x.slice(1, kEnd)}, 1).slice(0, 0, 1);
    };
    expect_close(without(out), attend(without(q), without(k), without(v), {}), 1e-12);
  }
}

TEST(AttendCheckTest, NamesShapesThatDoNotFit) {
  const auto q = torch::zeros({1, 2, 3, 4});
  EXPECT_THROW(attend(q, torch::zeros({1, 2, 2, 4}), torch::zeros({1, 2, 2, 4}), {}), c10::Error);
  EXPECT_THROW(attend(q, torch::zeros({1, 2, 3, 6}), torch::zeros({1, 2, 3, 6}), {}), c10::Error);
  EXPECT_THROW(attend(q, torch::zeros({1, 2, 3, 4}), torch::zeros({1, 1, 3, 4}), {}), c10::Error);
  EXPECT_THROW(attend(q, q, q, {.query_segment = torch::zeros({1, 2}, torch::kInt32)}), c10::Error);
}

}  // namespace
}  // namespace tandem
