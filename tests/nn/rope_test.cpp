#include "nn/rope.h"

#include <gmock/gmock.h>

#include <numbers>
#include <tuple>

#include "tests/nn/helpers.h"

namespace tandem {
namespace {

RopeConfig config_of(const std::string& pairs, const std::string& exponents, double base = 500) {
  RopeConfig config;
  config.base = base;
  config.pairs = pairs;
  config.exponents = exponents;
  return config;
}

double exponent(const RopeConfig& config, int64_t i, int64_t head_dim) {
  const auto n_pairs = static_cast<double>(head_dim / 2), k = static_cast<double>(i);
  if (config.exponents == "standard") return k / n_pairs;
  return head_dim == 2 ? 0 : k / (n_pairs - 1);
}

// One channel at a time, straight from the definition; the first `rotated` channels of each head.
Tensor rotate_slowly(const Tensor& x, const Tensor& positions, const RopeConfig& config,
                     int64_t rotated) {
  auto out = x.clone();
  const int64_t n_pairs = rotated / 2;
  const bool interleaved = config.pairs == "interleaved";
  for (int64_t b = 0; b < x.size(0); ++b) {
    for (int64_t t = 0; t < x.size(1); ++t) {
      for (int64_t i = 0; i < n_pairs; ++i) {
        const double phase = static_cast<double>(positions[b][t].item<int64_t>()) *
                             std::pow(*config.base, -exponent(config, i, rotated));
        const int64_t first = interleaved ? 2 * i : i,
                      second = interleaved ? 2 * i + 1 : i + n_pairs;
        const auto p = x[b][t].select(1, first), q = x[b][t].select(1, second);
        out[b][t].select(1, first).copy_(p * std::cos(phase) - q * std::sin(phase));
        out[b][t].select(1, second).copy_(q * std::cos(phase) + p * std::sin(phase));
      }
    }
  }
  return out;
}

class RopeTest : public testing::TestWithParam<std::tuple<std::string, std::string>> {
 protected:
  RopeConfig config_ = config_of(std::get<0>(GetParam()), std::get<1>(GetParam()));
};

TEST_P(RopeTest, IsTheDefinition) {
  for (const int64_t head_dim : {2, 4, 10}) {
    const auto x = torch::randn({2, 5, 3, head_dim}, seeded(1), torch::kFloat64);
    const auto positions = torch::randint(0, 1000, {2, 5}, seeded(2), torch::kInt64);
    const auto table = make_rope_table(config_, head_dim, positions, torch::kFloat64);
    expect_close(apply_rope(x, table, config_), rotate_slowly(x, positions, config_, head_dim));
  }
}

TEST_P(RopeTest, RotatesAPartOfEachHead) {
  config_.fraction = 0.45;
  EXPECT_EQ(rotated_channels(config_, 11), 4);
  const auto x = torch::randn({2, 5, 3, 11}, seeded(1), torch::kFloat64);
  const auto positions = torch::randint(0, 1000, {2, 5}, seeded(2), torch::kInt64);
  const auto table = make_rope_table(config_, 11, positions, torch::kFloat64);
  EXPECT_EQ(table.cos.sizes(), (std::vector<int64_t>{2, 5, 1, 2}));
  const auto out = apply_rope(x, table, config_);
  expect_close(out, rotate_slowly(x, positions, config_, 4));
  expect_close(out.narrow(3, 4, 7), x.narrow(3, 4, 7), 0);
  expect_gradients(
      [&](const Tensors& in) -> Tensors { return {apply_rope(in[0], table, config_)}; }, {x});
  const auto narrow = x.to(torch::kBFloat16);
  const auto rotated =
      apply_rope(narrow, make_rope_table(config_, 11, positions, torch::kBFloat16), config_);
  EXPECT_EQ(rotated.scalar_type(), torch::kBFloat16);
  EXPECT_TRUE(torch::equal(rotated.narrow(3, 4, 7), narrow.narrow(3, 4, 7)));
}

TEST_P(RopeTest, ProductsDependOnDistancesOnly) {
  const auto q = torch::randn({1, 1, 1, 6}, seeded(1), torch::kFloat64).expand({1, 7, 1, 6});
  const auto k = torch::randn({1, 1, 1, 6}, seeded(2), torch::kFloat64).expand({1, 7, 1, 6});
  const auto rotated = [&](const Tensor& x, int64_t begin) {
    const auto positions = torch::arange(begin, begin + 7).unsqueeze(0);
    return apply_rope(x, make_rope_table(config_, 6, positions, torch::kFloat64), config_);
  };
  const auto products = (rotated(q, 40) * rotated(k, 37)).sum(-1);  // distance 3 everywhere
  expect_close(products, products.narrow(1, 0, 1).expand({1, 7, 1}));
}

TEST_P(RopeTest, GradientsMatchFiniteDifferences) {
  const auto positions = torch::arange(3, 8).unsqueeze(0);
  const auto table = make_rope_table(config_, 6, positions, torch::kFloat64);
  expect_gradients([&](const Tensors& x) -> Tensors { return {apply_rope(x[0], table, config_)}; },
                   {torch::randn({1, 5, 2, 6}, seeded(1), torch::kFloat64)});
}

TEST_P(RopeTest, RoundsOnce) {
  const auto x = torch::randn({2, 9, 3, 6}, seeded(1), torch::kFloat32).to(torch::kBFloat16);
  const auto positions = torch::arange(9).repeat({2, 1});
  const auto table = make_rope_table(config_, 6, positions, torch::kBFloat16);
  EXPECT_EQ(table.cos.scalar_type(), torch::kFloat32);
  const auto narrow = apply_rope(x, table, config_);
  EXPECT_EQ(narrow.scalar_type(), torch::kBFloat16);
  EXPECT_TRUE(
      torch::equal(narrow, apply_rope(x.to(torch::kFloat32), table, config_).to(torch::kBFloat16)));
}

TEST_P(RopeTest, TakesStridedInput) {
  const auto wide = torch::randn({2, 3, 5, 12}, seeded(1), torch::kFloat64);
  const auto x = wide.transpose(1, 2).narrow(3, 5, 6);  // starts at an odd element
  const auto table = make_rope_table(config_, 6, torch::arange(5).repeat({2, 1}), torch::kFloat64);
  expect_close(apply_rope(x, table, config_), apply_rope(x.contiguous(), table, config_), 0);
}

INSTANTIATE_TEST_SUITE_P(, RopeTest,
                         testing::Combine(testing::Values("halves", "interleaved"),
                                          testing::Values("standard", "inclusive")),
                         [](const auto& test) {
                           return std::get<0>(test.param) + "_" + std::get<1>(test.param);
                         });

TEST(RopeTableTest, Float32RoundsAnglesBeforePositions) {
  const auto config = config_of("halves", "inclusive", 10000);
  const int64_t position = 999983;
  const auto table =
      make_rope_table(config, 8, torch::full({1, 1}, position, torch::kInt64), torch::kFloat32);
  for (int64_t i = 0; i < 4; ++i) {
    const auto angle = static_cast<float>(std::pow(10000.0, -static_cast<double>(i) / 3));
    const float phase = static_cast<float>(position) * angle;
    EXPECT_NEAR(table.cos[0][0][0][i].item<float>(), std::cos(static_cast<double>(phase)), 1e-6)
        << i;
    EXPECT_NEAR(table.sin[0][0][0][i].item<float>(), std::sin(static_cast<double>(phase)), 1e-6)
        << i;
  }
}

TEST(RopeTableTest, WithoutABaseNothingTurns) {
  RopeConfig config;
  config.base.reset();
  const auto table = make_rope_table(config, 6, torch::arange(4).unsqueeze(0), torch::kFloat32);
  EXPECT_FALSE(table.cos.defined());
  EXPECT_FALSE(table.sin.defined());
  const auto x = torch::randn({1, 4, 2, 6}, seeded(1), torch::kFloat32);
  EXPECT_TRUE(apply_rope(x, table, config).is_same(x));
}

TEST(RopeTableTest, ChannelsThatARoundFractionRotates) {
  RopeConfig config;
  EXPECT_EQ(rotated_channels(config, 6), 6);
  config.fraction = 0.25;  // GPT-NeoX's
  EXPECT_EQ(rotated_channels(config, 32), 8);
  EXPECT_EQ(rotated_channels(config, 64), 16);
  EXPECT_EQ(rotated_channels(config, 128), 32);
  EXPECT_EQ(rotated_channels(config, 6), 1);
}

TEST(RopeTableTest, AnOddOrNoNumberOfChannelsIsAnError) {
  const auto positions = torch::arange(4).unsqueeze(0);
  RopeConfig config;
  for (const auto& [fraction, expected] :
       std::vector<std::pair<double, std::string>>{{0.25, "got 3"}, {0, "got 0"}}) {
    config.fraction = fraction;
    try {
      make_rope_table(config, 12, positions, torch::kFloat32);
      ADD_FAILURE() << fraction;
    } catch (const c10::Error& error) {
      EXPECT_THAT(
          error.what_without_backtrace(),
          testing::HasSubstr("rotary positions need an even number of channels, " + expected));
    }
  }
}

TEST(RopeTableTest, ATableOfAnotherHeadDimIsAnError) {
  const RopeConfig config;
  const auto table = make_rope_table(config, 8, torch::arange(4).unsqueeze(0), torch::kFloat32);
  try {
    apply_rope(torch::zeros({1, 4, 2, 6}), table, config);
    FAIL();
  } catch (const c10::Error& error) {
    EXPECT_THAT(error.what_without_backtrace(),
                testing::HasSubstr(
                    "apply_rope: x is [1, 4, 2, 6], the table was made for 8 rotated channels"));
  }
}

}  // namespace
}  // namespace tandem
