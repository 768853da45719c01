#include "train/train_config.h"

#include <gtest/gtest.h>

#include "tests/train/helpers.h"

namespace tandem {
namespace {

class TrainConfigTest : public testing::Test {
 protected:
  std::string error(const std::vector<std::string>& words) {
    return error_of([&] { tiny_config(folder_.path(), words); }, kExitUsage);
  }
  TrainConfig resolved(const std::vector<std::string>& words) {
    TrainConfig config = tiny_config(folder_.path(), words);
    resolve(config, tiny_factory(), *load_tokenizer("bytes"));
    return config;
  }
  TempFolder folder_;
};

TEST_F(TrainConfigTest, StepsAreWholeMicroBatches) {
  EXPECT_EQ(error({"training.tokens_per_step=80"}),
            "command line: training.tokens_per_step = 80, expected a multiple of context_length "
            "(13) * micro_batch_size (2)");
  EXPECT_EQ(error({"training.micro_batch_size=4"}),
            "tiny.yaml:6: training.tokens_per_step = 78, expected a multiple of context_length "
            "(13) * micro_batch_size (4)");
  EXPECT_EQ(
      error({"training={context_length: 13, tokens_per_step: 80}"}),
      "command line: training.tokens_per_step = 80, expected a multiple of context_length (13)");
}

TEST_F(TrainConfigTest, UnknownKeysAreRefused) {
  EXPECT_EQ(error({"optimizer.clip=1"}),
            "command line: unknown key optimizer.clip; known here: betas, clip_norm, eps, "
            "groups, lr, name, weight_decay");
}

TEST_F(TrainConfigTest, BetasAreTwoNumbersBelowOne) {
  const std::string expected = ", expected two numbers, each at least 0 and below 1";
  EXPECT_EQ(error({"optimizer.betas=[0.9]"}), "command line: optimizer.betas = [0.9]" + expected);
  EXPECT_EQ(error({"optimizer.betas=[0.9, 1]"}),
            "command line: optimizer.betas = [0.9, 1]" + expected);
}

TEST_F(TrainConfigTest, TheScheduleFits) {
  EXPECT_EQ(error({"lr_schedule.warmup_steps=9"}),
            "command line: lr_schedule.warmup_steps = 9, expected less than steps (9)");
  EXPECT_EQ(error({"lr_schedule={name: linear, warmup_steps: 9}"}),
            "command line: lr_schedule.warmup_steps = 9, expected less than training.steps (9)");
  EXPECT_EQ(
      error({"lr_schedule={name: warmup_stable_decay, warmup_steps: 2, steps: 9, decay_steps: 8}"}),
      "command line: lr_schedule.decay_steps = 8, expected at most steps (9) less warmup_steps "
      "(2)");
  EXPECT_EQ(error({"lr_schedule.min_lr=0.5"}),
            "command line: lr_schedule.min_lr = 0.5, expected at most optimizer.lr (0.01)");
}

TEST_F(TrainConfigTest, WhatMustBeGivenIsNamed) {
  EXPECT_EQ(error({"data.train=[]"}),
            "command line: data.train = [], expected at least one {path: ..., weight: ...}");
  EXPECT_EQ(error({"init.from=''"}),
            "command line: init.from = , expected a checkpoint or a run folder");
}

TEST_F(TrainConfigTest, SourcesAreChecked) {
  const auto train = [&](const std::string& keys) {
    return error({"data.train=[{path: x, " + keys + "}]"});
  };
  const std::string begin = "command line: data.train[0].";
  EXPECT_EQ(train("dtype: int32"), begin + "dtype = int32, expected uint16 or uint32");
  EXPECT_EQ(train("min_length: 8, max_length: 7"),
            begin + "max_length = 7, expected at least min_length (8)");
  EXPECT_EQ(train("max_length: 0"), begin + "max_length = 0, expected an integer >= 1");
  EXPECT_EQ(train("upsample: {from: 0, times: 2}"),
            begin + "upsample.from = 0, expected an integer >= 1");
  for (const char* times : {"0", "1", "1001"})
    EXPECT_EQ(train(std::string("upsample: {from: 8, times: ") + times + "}"),
              begin + "upsample.times = " + times + ", expected an integer from 2 to 1000");
  EXPECT_EQ(train("upsample: {from: 8}"),
            "command line: data.train[0].upsample: default times = absent, expected an integer "
            "from 2 to 1000");
  EXPECT_EQ(error({"data.validation=[{path: x, min_length: 8, max_length: 7}]"}),
            "command line: data.validation[0].max_length = 7, expected at least min_length (8)");
}

TEST_F(TrainConfigTest, AbsentValuesAreDerived) {
  const TrainConfig config =
      resolved({"training={context_length: 1000, tokens_per_step: 30000, steps: 50}",
                "lr_schedule={name: warmup_stable_decay, warmup_steps: 2}"});
  EXPECT_EQ(config.model.as<TransformerConfig>().vocab_size, 258);
  EXPECT_EQ(config.training.micro_batch_size,
            15);  // the largest divisor of 30 rows up to 16,384 tokens
  EXPECT_GE(config.training.threads.value(), 1);
  EXPECT_EQ(config.lr_schedule.steps, 50);
  EXPECT_EQ(config.lr_schedule.decay_steps, 10);
  EXPECT_EQ(resolved({"lr_schedule={name: constant}"}).lr_schedule.steps, std::nullopt);
}

TEST_F(TrainConfigTest, AResolvedConfigReadsBackAsItself) {
  TrainConfig config = resolved({"init={from: elsewhere}", "checkpoint.keep_every=4"});
  const ConfigNode written = write_config(config);
  TrainConfig again = make_train_config(tiny_factory());
  read_config(parse_yaml(to_yaml(written), "again.yaml"), again);
  EXPECT_TRUE(write_config(again) == written) << to_yaml(write_config(again));
}

TEST_F(TrainConfigTest, SettingsWithoutEffectAreNamed) {
  EXPECT_TRUE(settings_without_effect(resolved({})).empty());
  EXPECT_EQ(
      settings_without_effect(resolved({"lr_schedule.name=constant", "data.validation=[]"})),
      (std::vector<std::string>{"lr_schedule.steps has no effect: lr_schedule.name is constant",
                                "lr_schedule.min_lr has no effect: lr_schedule.name is constant",
                                "validation.every has no effect: data.validation is empty",
                                "validation.tokens has no effect: data.validation is empty"}));
}

}  // namespace
}  // namespace tandem
