#include "nn/linear.h"

#include <gmock/gmock.h>

#include "tests/nn/helpers.h"

namespace tandem {
namespace {

TEST(LinearTest, IsAProductAndABias) {
  for (const bool bias : {false, true}) {
    Linear linear(5, 3, init_normal(1), Split::kNone, bias);
    materialise_random(*linear, 1);
    const auto p = linear->named_parameters();
    const auto x = torch::randn({2, 7, 5}, seeded(2), torch::kFloat64);
    auto expected = x.matmul(p["weight"].t());
    if (bias) expected = expected + p["bias"];
    expect_close(linear->forward(x), expected, 1e-13);
    auto inputs = linear->parameters();
    EXPECT_EQ(inputs.size(), bias ? 2u : 1u);
    inputs.push_back(x);
    expect_gradients([&](const Tensors& in) -> Tensors { return {linear->forward(in.back())}; },
                     inputs);
  }
}

TEST(LinearTest, ItsBiasBeginsAtZeroAndDoesNotDecay) {
  Linear linear(5, 3, init_normal(1), Split::kNone, /*bias=*/true);
  const auto infos = parameters_info(*linear);
  ASSERT_EQ(infos.size(), 2u);
  EXPECT_EQ(infos[0].name, "weight");
  EXPECT_TRUE(infos[0].decay);
  EXPECT_EQ(infos[1].name, "bias");
  EXPECT_FALSE(infos[1].decay);
  initialise(*linear, 1, torch::kCPU, torch::kFloat32);
  expect_close(linear->parameters()[1], torch::zeros({3}), 0);
}

TEST(LinearTest, ABiasIsCutWithTheRowsOfItsWeight) {
  const auto split_dims = [](Split split) {
    const auto infos = parameters_info(*Linear(5, 3, init_normal(1), split, /*bias=*/true));
    return std::pair(infos[0].split_dim, infos[1].split_dim);
  };
  EXPECT_EQ(split_dims(Split::kRows), std::pair(0, 0));
  EXPECT_EQ(split_dims(Split::kColumns), std::pair(1, -1));
  EXPECT_EQ(split_dims(Split::kNone), std::pair(-1, -1));
}

TEST(EmbeddingTest, LooksRowsUpAndGivesEachItsGradient) {
  Embedding table(7, 3, init_normal(1));
  materialise_random(*table, 1);
  const auto ids = torch::tensor({4, 0, 4, 6}, torch::kInt64).view({2, 2});
  const auto out = table->forward(ids);
  for (int64_t i = 0; i < 4; ++i)
    expect_close(out.view({4, 3})[i], table->weight()[ids.flatten()[i].item<int64_t>()], 0);
  const auto gradient = torch::autograd::grad({out.sum()}, {table->weight()})[0];
  expect_close(gradient.select(1, 0), torch::tensor({1, 0, 0, 0, 2, 0, 1}, torch::kFloat64), 0);
}

TEST(EmbeddingTest, AFrozenRowIsReadAndGetsNoGradient) {
  for (const int64_t frozen : {0, 4}) {
    Embedding table(7, 3, init_normal(1), frozen), plain(7, 3, init_normal(1));
    materialise_random(*table, 1);
    materialise_random(*plain, 1);
    const auto ids = torch::tensor({4, 0, 4, 6}, torch::kInt64).view({2, 2});
    const auto weights = torch::randn({2, 2, 3}, seeded(2), torch::kFloat64);
    const auto gradient = [&](const Embedding& embedding) {
      return torch::autograd::grad({(embedding->forward(ids) * weights).sum()},
                                   {embedding->weight()})[0];
    };
    expect_close(table->forward(ids), plain->forward(ids), 0);
    auto expected = gradient(plain);
    EXPECT_TRUE(expected[frozen].ne(0).all().item<bool>());
    expected[frozen].zero_();
    expect_close(gradient(table), expected, 0);
  }
}

TEST(EmbeddingTest, AFrozenRowThatTheTableLacksIsAnError) {
  try {
    Embedding(7, 3, init_normal(1), 7);
    FAIL();
  } catch (const c10::Error& error) {
    EXPECT_THAT(error.what_without_backtrace(), testing::HasSubstr("Embedding: frozen row 7 of 7"));
  }
}

}  // namespace
}  // namespace tandem
