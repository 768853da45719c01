#include "nn/cross_entropy.h"

#include <gmock/gmock.h>

#include "tests/nn/helpers.h"

namespace tandem {
namespace {

using testing::HasSubstr;

constexpr int64_t kB = 3, kT = 11, kD = 5, kV = 17;

struct Case {
  Tensor h, head, targets, weights;
};

// About a third of the targets is not scored.
Case make_case(torch::Dtype dtype) {
  Case c;
  c.h = (2 * torch::randn({kB, kT, kD}, seeded(1), torch::kFloat64)).to(dtype).requires_grad_();
  c.head = torch::randn({kV, kD}, seeded(2), torch::kFloat64).to(dtype).requires_grad_();
  c.targets = torch::randint(0, kV, {kB, kT}, seeded(3), torch::kInt64);
  c.targets.masked_fill_(torch::rand({kB, kT}, seeded(4), torch::kFloat64) < 0.33, kIgnored);
  c.weights = torch::rand({kB, kT}, seeded(5), torch::kFloat32);
  return c;
}

// LibTorch's own loss on whole logits. Not scored: 0.
Tensor reference_nll(const Tensor& h, const Tensor& head, const Tensor& targets) {
  const auto logits = h.matmul(head.t()).flatten(0, 1);
  return at::cross_entropy_loss(logits, targets.flatten(), /*weight=*/{}, at::Reduction::None,
                                kIgnored)
      .view(targets.sizes());
}

std::string error_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  }
  return "nothing was thrown";
}

class CrossEntropyTest : public testing::TestWithParam<int64_t> {};  // tokens in a chunk

TEST_P(CrossEntropyTest, EqualsLibTorchsInFloat64) {
  const auto c = make_case(torch::kFloat64);
  const auto loss = cross_entropy(c.h, c.head, c.targets, c.weights, GetParam());
  const auto nll = reference_nll(c.h, c.head, c.targets);
  const auto sum = (nll * c.weights.to(torch::kFloat64)).sum();
  expect_close(loss.sum, sum, 1e-12);
  expect_close(loss.nll.nan_to_num(), nll, 1e-12);
  EXPECT_TRUE(torch::equal(loss.nll.isnan(), c.targets == kIgnored));
  const auto actual = torch::autograd::grad({loss.sum * 0.7}, {c.h, c.head});
  const auto expected = torch::autograd::grad({sum * 0.7}, {c.h, c.head});
  expect_close(actual[0], expected[0], 1e-12);
  expect_close(actual[1], expected[1], 1e-12);
}

TEST_P(CrossEntropyTest, WithoutWeightsEveryTargetCountsOne) {
  const auto c = make_case(torch::kFloat64);
  const auto loss = cross_entropy(c.h, c.head, c.targets, /*weights=*/{}, GetParam());
  const auto sum = reference_nll(c.h, c.head, c.targets).sum();
  expect_close(loss.sum, sum, 1e-12);
  const auto actual = torch::autograd::grad({loss.sum}, {c.h, c.head});
  const auto expected = torch::autograd::grad({sum}, {c.h, c.head});
  expect_close(actual[0], expected[0], 1e-12);
  expect_close(actual[1], expected[1], 1e-12);
}

TEST_P(CrossEntropyTest, EverythingScored) {
  auto c = make_case(torch::kFloat64);
  c.targets = torch::randint(0, kV, {kB, kT}, seeded(3), torch::kInt64);
  const auto loss = cross_entropy(c.h, c.head, c.targets, c.weights, GetParam());
  const auto nll = reference_nll(c.h, c.head, c.targets);
  expect_close(loss.nll, nll, 1e-12);
  const auto actual = torch::autograd::grad({loss.sum}, {c.h, c.head});
  const auto expected = torch::autograd::grad({(nll * c.weights).sum()}, {c.h, c.head});
  expect_close(actual[0], expected[0], 1e-12);
  expect_close(actual[1], expected[1], 1e-12);
}

TEST_P(CrossEntropyTest, NllAlone) {
  const auto c = make_case(torch::kFloat64);
  const auto nll = token_nll(c.h, c.head, c.targets, GetParam());
  EXPECT_FALSE(nll.requires_grad());
  expect_close(nll.nan_to_num(), reference_nll(c.h, c.head, c.targets), 1e-12);
  EXPECT_TRUE(torch::equal(nll.isnan(), c.targets == kIgnored));
}

INSTANTIATE_TEST_SUITE_P(, CrossEntropyTest, testing::Values(1, 7, 1024));

TEST(CrossEntropyDtypeTest, Float32) {
  const auto c = make_case(torch::kFloat32), exact = make_case(torch::kFloat64);
  const auto loss = cross_entropy(c.h, c.head, c.targets, c.weights);
  const auto sum = (reference_nll(exact.h, exact.head, c.targets) * c.weights).sum();
  EXPECT_EQ(loss.sum.scalar_type(), torch::kFloat32);
  EXPECT_EQ(loss.nll.scalar_type(), torch::kFloat32);
  expect_close(loss.sum, sum, 1e-4);
  const auto actual = torch::autograd::grad({loss.sum}, {c.h, c.head});
  const auto expected = torch::autograd::grad({sum}, {exact.h, exact.head});
  expect_close(actual[0], expected[0], 1e-5);
  expect_close(actual[1], expected[1], 1e-5);
}

TEST(CrossEntropyDtypeTest, BFloat16RoundsLogitsAndGradientsOnly) {
  const auto c = make_case(torch::kBFloat16);
  const auto h = c.h.detach().to(torch::kFloat32).requires_grad_(),
             head = c.head.detach().to(torch::kFloat32).requires_grad_();
  const auto loss = cross_entropy(c.h, c.head, c.targets, c.weights);
  const auto nll = reference_nll(h, head, c.targets);
  EXPECT_EQ(loss.sum.scalar_type(), torch::kFloat32);
  EXPECT_EQ(loss.nll.scalar_type(), torch::kFloat32);
  expect_close(loss.nll.nan_to_num(), nll, 0.15);  // logits reach 15, their spacing above 8 is 1/16
  const auto actual = torch::autograd::grad({loss.sum}, {c.h, c.head});
  const auto expected = torch::autograd::grad({(nll * c.weights).sum()}, {h, head});
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(actual[i].scalar_type(), torch::kBFloat16);
    expect_close(actual[i], expected[i], 0.03 * expected[i].abs().max().item<double>());
  }
}

TEST(CrossEntropyDtypeTest, BFloat16SumsTheHeadsGradientInFloat32) {
  // Chunks of one token: a gradient of 256, then twenty of 0.5, which a sum in bfloat16 would lose.
  const auto h = torch::ones({1, 21, 1}, torch::kBFloat16);
  const auto head = torch::zeros({2, 1}, torch::kBFloat16).requires_grad_();
  const auto weights = torch::ones({1, 21});
  weights[0][0] = 512;
  const auto targets = torch::zeros({1, 21}, torch::kInt64);
  cross_entropy(h, head, targets, weights, /*chunk=*/1).sum.backward();
  EXPECT_EQ(head.grad()[1].item<float>(), 266);  // probability one half each
}

// Of 211 tokens and 97 words, in chunks that do not divide them: within 1e-12 of the largest
// element of the unchunked loss, and the same bits each time.
TEST(CrossEntropyChunkTest, EqualsTheUnchunkedLossAndItself) {
  const auto h = (3 * torch::randn({1, 211, 24}, seeded(6), torch::kFloat64)).requires_grad_();
  const auto head = torch::randn({97, 24}, seeded(7), torch::kFloat64).requires_grad_();
  auto targets = torch::randint(0, 97, {1, 211}, seeded(8), torch::kInt64);
  targets.narrow(1, 30, 50).fill_(kIgnored);
  const auto weights = torch::rand({1, 211}, seeded(9), torch::kFloat32);
  const auto run = [&](int64_t chunk) -> Tensors {
    const auto loss = cross_entropy(h, head, targets, weights, chunk);
    const auto gradients = torch::autograd::grad({loss.sum}, {h, head});
    return {loss.sum.detach(), loss.nll.nan_to_num(), gradients[0], gradients[1]};
  };
  const auto nll = reference_nll(h, head, targets);
  const auto sum = (nll * weights).sum();
  const auto gradients = torch::autograd::grad({sum}, {h, head});
  const Tensors expected = {sum, nll, gradients[0], gradients[1]};
  for (const int64_t chunk : {1, 13, 64, 160, 161}) {  // 161 are scored
    const Tensors first = run(chunk), again = run(chunk);
    for (size_t i = 0; i < first.size(); ++i) {
      SCOPED_TRACE("chunk " + std::to_string(chunk) + ", tensor " + std::to_string(i));
      expect_close(first[i], expected[i], 1e-12 * expected[i].abs().max().item<double>());
      EXPECT_TRUE(torch::equal(again[i], first[i]));
    }
  }
}

TEST(CrossEntropyGradientTest, OnlyWhatIsAskedFor) {
  const auto c = make_case(torch::kFloat64);
  const auto fixed_head = cross_entropy(c.h, c.head.detach(), c.targets, {}).sum;
  const auto fixed_h = cross_entropy(c.h.detach(), c.head, c.targets, {}).sum;
  const auto both =
      torch::autograd::grad({cross_entropy(c.h, c.head, c.targets, {}).sum}, {c.h, c.head});
  expect_close(torch::autograd::grad({fixed_head}, {c.h})[0], both[0], 1e-14);
  expect_close(torch::autograd::grad({fixed_h}, {c.head})[0], both[1], 1e-14);
  EXPECT_FALSE(cross_entropy(c.h.detach(), c.head.detach(), c.targets, {}).sum.requires_grad());
  const torch::NoGradGuard no_grad;
  EXPECT_FALSE(cross_entropy(c.h, c.head, c.targets, {}).sum.requires_grad());
}

TEST(CrossEntropyGradientTest, TheNllIsDetached) {
  const auto c = make_case(torch::kFloat64);
  EXPECT_FALSE(cross_entropy(c.h, c.head, c.targets, {}).nll.requires_grad());
}

TEST(CrossEntropyGradientTest, NothingScoredIsZero) {
  const auto c = make_case(torch::kFloat32);
  const auto loss =
      cross_entropy(c.h, c.head, torch::full({kB, kT}, kIgnored, torch::kInt64), c.weights);
  EXPECT_EQ(loss.sum.item<float>(), 0);
  EXPECT_TRUE(loss.nll.isnan().all().item<bool>());
  const auto gradients = torch::autograd::grad({loss.sum}, {c.h, c.head});
  expect_close(gradients[0], torch::zeros({kB, kT, kD}), 0);
  expect_close(gradients[1], torch::zeros({kV, kD}), 0);
}

TEST(CrossEntropyGradientTest, TokensThatAreNotScoredMayHoldAnything) {
  const auto c = make_case(torch::kFloat64);
  const auto loss = cross_entropy(c.h, c.head, c.targets, c.weights);
  const auto expected = torch::autograd::grad({loss.sum}, {c.h, c.head});
  const auto spoiled =
      c.h.detach().masked_fill((c.targets == kIgnored).unsqueeze(2), NAN).requires_grad_();
  const auto spoiled_loss = cross_entropy(spoiled, c.head, c.targets, c.weights);
  const auto actual = torch::autograd::grad({spoiled_loss.sum}, {spoiled, c.head});
  expect_close(spoiled_loss.sum, loss.sum, 0);
  expect_close(actual[0], expected[0], 0);
  expect_close(actual[1], expected[1], 0);
}

TEST(CrossEntropyErrorTest, ATargetOutsideTheVocabulary) {
  const auto c = make_case(torch::kFloat32);
  const auto targets = torch::zeros({kB, kT}, torch::kInt64);
  targets[1][2] = kV;
  EXPECT_THAT(error_of([&] { cross_entropy(c.h, c.head, targets, {}); }),
              HasSubstr("cross_entropy: targets from 0 to 17, expected 0 to 16 or -100"));
  targets[1][2] = -1;
  EXPECT_THAT(error_of([&] { token_nll(c.h, c.head, targets); }),
              HasSubstr("cross_entropy: targets from -1 to 0, expected 0 to 16 or -100"));
}

TEST(CrossEntropyErrorTest, ShapesThatDoNotMatch) {
  const auto c = make_case(torch::kFloat32);
  EXPECT_THAT(
      error_of([&] { cross_entropy(c.h, c.head, c.targets.t(), {}); }),
      HasSubstr("cross_entropy: h is [3, 11, 5], weight [17, 5], targets [11, 3], chunk 1024; "
                "expected [B, T, D], [V, D], [B, T], at least 1"));
  EXPECT_THAT(error_of([&] { cross_entropy(c.h, c.head, c.targets, c.weights.t()); }),
              HasSubstr("cross_entropy: weights are [11, 3], targets [3, 11]"));
}

}  // namespace
}  // namespace tandem
