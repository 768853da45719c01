#include "nn/parameter.h"

#include <ATen/Parallel.h>
#include <gmock/gmock.h>

#include "tests/nn/helpers.h"

namespace tandem {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

struct Inner : Module {
  Tensor weight, scale;
  Inner() {
    weight = declare(*this, "weight", {5, 7}, init_normal(0.5), Split::kColumns);
    scale = declare(*this, "scale", {7}, init_constant(1), Split::kNone, /*decay=*/false);
  }
};

struct Outer : Module {
  std::shared_ptr<Inner> first, second;
  Tensor table;
  Outer() {
    table = declare(*this, "table", {11, 3}, init_uniform(0.25), Split::kRows);
    first = register_module("first", std::make_shared<Inner>());
    second = register_module("second", std::make_shared<Inner>());
  }
};

std::string error_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  }
  return "nothing was thrown";
}

ParameterInfo info_of(const std::string& name, std::vector<int64_t> shape, Init init) {
  ParameterInfo info;
  info.name = name;
  info.global_shape = std::move(shape);
  info.init = init;
  return info;
}

TEST(ParameterTest, AModelIsMadeWithoutStorage) {
  const Outer model;
  for (const auto& parameter : model.parameters()) {
    EXPECT_TRUE(parameter.is_meta());
    EXPECT_TRUE(parameter.requires_grad());
  }
  EXPECT_EQ(count_parameters(model), 11 * 3 + 2 * (5 * 7 + 7));
}

TEST(ParameterTest, InfosCarryFullNamesInTheOrderOfNamedParameters) {
  const Outer model;
  const auto infos = parameters_info(model);
  std::vector<std::string> names, expected;
  for (const auto& info : infos) names.push_back(info.name);
  for (const auto& item : model.named_parameters()) expected.push_back(item.key());
  EXPECT_EQ(names, expected);
  EXPECT_THAT(names,
              ElementsAre("table", "first.weight", "first.scale", "second.weight", "second.scale"));
  EXPECT_THAT(infos[0].global_shape, ElementsAre(11, 3));
  EXPECT_EQ(infos[0].split_dim, 0);
  EXPECT_EQ(infos[1].split_dim, 1);
  EXPECT_EQ(infos[2].split_dim, -1);
  EXPECT_TRUE(infos[1].decay);
  EXPECT_FALSE(infos[2].decay);
  EXPECT_EQ(infos[1].numel(), 35);
  EXPECT_EQ(infos[1].init.value, 0.5);
}

TEST(ParameterTest, AParameterThatWasNotDeclaredIsAnError) {
  Outer model;
  model.second->register_parameter("stray", torch::zeros({2}));
  EXPECT_THAT(error_of([&] { parameters_info(model); }),
              HasSubstr("parameter second.stray was not made by declare()"));
}

TEST(ParameterTest, AVectorCannotBeSplitByColumns) {
  Outer model;
  EXPECT_THAT(error_of([&] { declare(model, "bias", {4}, init_constant(0), Split::kColumns); }),
              HasSubstr("parameter bias has 1 dimensions and cannot be split along dimension 1"));
}

TEST(ParameterTest, MaterialisingKeepsTheMemberAndTrains) {
  Outer model;
  const auto shard = torch::arange(100, torch::kFloat64);
  auto parameter = model.parameters()[0];
  materialise(parameter, shard.narrow(0, 10, 33).view({11, 3}));
  EXPECT_TRUE(model.table.is_same(parameter));
  EXPECT_EQ(model.table.scalar_type(), torch::kFloat64);
  EXPECT_TRUE(model.table.requires_grad());
  (model.table * 2).sum().backward();
  expect_close(model.table.grad(), torch::full({11, 3}, 2.0));
  shard.fill_(4);  // the parameter is a view of the shard
  expect_close(model.table, torch::full({11, 3}, 4.0));
}

TEST(ParameterTest, DataOfAnotherShapeIsAnError) {
  Outer model;
  EXPECT_THAT(error_of([&] {
                materialise(model.table, torch::zeros({3, 11}));
              }),
              HasSubstr("materialise: data is [3, 11], the parameter [11, 3]"));
}

TEST(ParameterTest, EmptyStorageHasTheAskedType) {
  Outer model;
  materialise_empty(model, torch::kCPU, torch::kBFloat16);
  for (const auto& parameter : model.parameters()) {
    EXPECT_TRUE(parameter.is_cpu());
    EXPECT_EQ(parameter.scalar_type(), torch::kBFloat16);
  }
}

TEST(InitialValuesTest, DependOnSeedAndNameOnly) {
  Outer a, b, c;
  initialise(a, 3, torch::kCPU, torch::kFloat32);
  initialise(b, 3, torch::kCPU, torch::kBFloat16);
  initialise(c, 4, torch::kCPU, torch::kFloat32);
  EXPECT_TRUE(torch::equal(a.first->weight.to(torch::kBFloat16), b.first->weight));
  EXPECT_FALSE(torch::equal(a.first->weight, a.second->weight));
  EXPECT_FALSE(torch::equal(a.first->weight, c.first->weight));
  expect_close(a.first->scale, torch::ones({7}), 0);
}

TEST(InitialValuesTest, AnElementIsAFunctionOfItsIndex) {
  const auto stream = RandomStream(1);
  for (const auto init : {init_normal(2), init_uniform(2)}) {
    const auto many =
        initial_values(info_of("w", {101, 313}, init), stream);  // several tasks of a parallel loop
    const auto few = initial_values(info_of("w", {9, 17}, init), stream);
    EXPECT_TRUE(torch::equal(many.flatten().narrow(0, 0, 153), few.flatten()));
    const int threads = at::get_num_threads();
    at::set_num_threads(1);
    EXPECT_TRUE(torch::equal(initial_values(info_of("w", {101, 313}, init), stream), many));
    at::set_num_threads(threads);
  }
}

TEST(InitialValuesTest, NormalsAreNormal) {
  const auto values = initial_values(info_of("w", {3, 33333}, init_normal(0.5)), RandomStream(1))
                          .flatten()
                          .to(torch::kFloat64) /
                      0.5;
  const int64_t n = values.numel();
  const double error = 5 / std::sqrt(static_cast<double>(n));  // five standard errors
  EXPECT_NEAR(values.mean().item<double>(), 0, error);
  EXPECT_NEAR(values.square().mean().item<double>(), 1, error * std::sqrt(2.0));
  EXPECT_NEAR(values.pow(4).mean().item<double>(), 3, error * std::sqrt(96.0));
  EXPECT_NEAR((values < 1).to(torch::kFloat64).mean().item<double>(), 0.841345,
              error);  // normal distribution function at 1
  const auto even = values.slice(0, 0, n - 1, 2),
             odd = values.slice(0, 1, n, 2);  // the two of a block
  EXPECT_NEAR((even.narrow(0, 0, odd.size(0)) * odd).mean().item<double>(), 0,
              error * std::sqrt(2.0));
}

TEST(InitialValuesTest, UniformsFillTheirInterval) {
  const auto values = initial_values(info_of("w", {3, 33333}, init_uniform(0.3)), RandomStream(1))
                          .flatten()
                          .to(torch::kFloat64) /
                      0.3;
  const double error = 5 / std::sqrt(static_cast<double>(values.numel()));
  EXPECT_LE(values.abs().max().item<double>(), 1 + 1e-6);
  EXPECT_GT(values.abs().max().item<double>(), 0.999);
  EXPECT_NEAR(values.mean().item<double>(), 0, error / std::sqrt(3.0));
  EXPECT_NEAR(values.square().mean().item<double>(), 1 / 3.0, error * std::sqrt(4 / 45.0));
  for (int64_t word = 0; word < 4; ++word) {  // all four of a block
    EXPECT_NEAR(values.slice(0, word, values.numel(), 4).mean().item<double>(), 0,
                2 * error / std::sqrt(3.0));
  }
}

TEST(InitialValuesTest, BoundsFollowTheFans) {
  EXPECT_DOUBLE_EQ(init_xavier_uniform(20, 34, 0.5).value, 0.5 / 3);  // 6 / 54 = 1 / 9
  EXPECT_DOUBLE_EQ(init_kaiming_uniform(64).value, 0.125);
  EXPECT_EQ(init_kaiming_uniform(64).kind, Init::Kind::kUniform);
}

}  // namespace
}  // namespace tandem
