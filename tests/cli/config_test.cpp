#include <gmock/gmock.h>

#include <map>
#include <nlohmann/json.hpp>

#include "cli/build_model.h"
#include "cli/commands.h"
#include "core/config_node.h"
#include "core/json_lines.h"
#include "tests/core/helpers.h"
#include "tests/paths.h"
#include "train/train_config.h"

namespace tandem {
namespace {

using testing::HasSubstr;

std::string config_file(const std::string& name) { return std::string(kSourceDir) + "/configs/" + name; }

struct Ran {
  int code;
  std::string out, err;
};

Ran run(std::vector<std::string> arguments) {
  std::vector<const char*> argv = {"tandem config"};
  for (const auto& argument : arguments) argv.push_back(argument.c_str());
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  int code = -1;
  try {
    code = run_config(static_cast<int>(argv.size()), argv.data());
  } catch (...) {
    testing::internal::GetCapturedStdout();
    testing::internal::GetCapturedStderr();
    throw;
  }
  return {code, testing::internal::GetCapturedStdout(), testing::internal::GetCapturedStderr()};
}

nlohmann::ordered_json shown(const std::string& path, const std::vector<std::string>& words = {}) {
  std::vector<std::string> arguments = {"show", path, "--json"};
  arguments.insert(arguments.end(), words.begin(), words.end());
  return parse_json(run(arguments).out);
}

class ConfigCommandTest : public testing::Test {
 protected:
  /// A small config with `model` as its model section.
  std::string write(const std::string& model) {
    write_file(folder_ / "small.yaml", "model:\n" + model + "data: {tokenizer: bytes, train: [{path: books}]}\n" +
                                         "training: {context_length: 32, tokens_per_step: 256, micro_batch_size: 2}\n");
    return folder_ / "small.yaml";
  }
  void expect_refused(const std::string& model, const std::string& message, std::vector<std::string> words = {}) {
    const std::string path = write(model);
    std::vector<std::string> arguments = {"check", path};
    arguments.insert(arguments.end(), words.begin(), words.end());
    expect_user_error(kExitUsage, message, [&] { run(arguments); });
  }
  TempFolder folder_;
  const std::string tiny_ = "  family: yoco\n  d_model: 24\n  ffn_dim: 40\n  self_decoder: {n_layers: 1, mixers: [{name: gated_retention, n_heads: 3, head_dim: 8}]}\n"
                            "  cross_decoder: {n_layers: 1, n_heads: 4, head_dim: 6}\n";
};

// The literals are the official code's own count of its 3B preset.
TEST_F(ConfigCommandTest, TheParametersOfYoco3bAreTheOfficialOnes) {
  const auto json = shown(config_file("yoco_3b.yaml"));
  EXPECT_EQ(json["parameters"], 3'445'303'296);
  EXPECT_EQ(json["non_embedding_parameters"], 2'829'133'824);
  const nlohmann::ordered_json parts = {{"embedding", 308'084'736},
                                        {"self_decoder", 13 * 122'763'264LL},
                                        {"shared_kv", 6'291'456 + 3'072},
                                        {"cross_decoder", 13 * 94'377'984LL},
                                        {"final_norm", 3'072},
                                        {"head", 308'084'736}};
  EXPECT_EQ(json["parameters_by_part"], parts);
}

// YOCO-3B, sec. 4.4: 2 bytes * 2 * 8 heads * 128 = 4 KiB a token of shared keys and values.
TEST_F(ConfigCommandTest, StateFlopsAndMemoryOfYoco3b) {
  const auto json = shown(config_file("yoco_3b.yaml"));
  EXPECT_EQ(json["state_bytes"]["shared_kv"], 4096 * 4096);
  EXPECT_EQ(json["training_memory_bytes"]["masters"], 4.0 * 3'445'303'296);
  EXPECT_EQ(json["training_memory_bytes"]["gradients"], 4.0 * 3'445'303'296);
  EXPECT_EQ(json["training_memory_bytes"]["adam_moments"], 8.0 * 3'445'303'296);
  EXPECT_EQ(json["training_memory_bytes"]["bfloat16_copies"], 2.0 * 3'445'303'296);
  EXPECT_EQ(json["training_memory_bytes"]["total"], 18.0 * 3'445'303'296);
  const auto& flops = json["flops_per_token"];
  EXPECT_EQ(flops["train"]["head"], 6.0 * 308'084'736);
  // 13 layers: matrices without their two norms, and two products of 3072 channels with half of the keys
  EXPECT_EQ(flops["train"]["cross_decoder"], 3 * 13 * (2.0 * (94'377'984 - 2 * 3'072) + 4.0 * 3'072 * 4'097 / 2));
  EXPECT_LT(flops["prefill"]["total"].get<double>(), flops["train"]["total"].get<double>() / 3 / 1.7);
  const auto float32 = shown(config_file("yoco_3b.yaml"), {"training.dtype=float32"});
  EXPECT_EQ(float32["training_memory_bytes"]["total"], 16.0 * 3'445'303'296);
  EXPECT_EQ(float32["state_bytes"]["shared_kv"], 2 * 4096 * 4096);
}

TEST_F(ConfigCommandTest, EveryModelOfThePaperReads) {
  const std::map<std::string, int64_t> non_embedding = {
      {"yoco_160m.yaml", 89'687'040},      // six layers of 5 d^2 + 3 d + 3 d f, six of 2 d^2 + 3 d f, 2 d^2 and 26 norms
      {"yoco_160m_swa.yaml", 86'134'272},  // 4 d^2 in place of 5 d^2 + 3 d
      {"transformer_160m.yaml", 84'953'856},  // twelve of 4 d^2 + 3 d f with f = 2048, 25 norms
  };
  for (const auto& [name, expected] : non_embedding) {
    const auto json = shown(config_file(name));
    EXPECT_EQ(json["non_embedding_parameters"], expected) << name;
    EXPECT_EQ(json["parameters"], expected + 100'288 * 768) << name;
    EXPECT_EQ(json["config"]["training"]["context_length"], 2048) << name;
    EXPECT_EQ(json["training_tokens"], 40'000LL * 262'144) << name;
  }
}

// The literals are counted from the official shapes.
TEST_F(ConfigCommandTest, PartsOfABlockTransformerShowNoFormula) {
  const std::pair<std::string, std::string> kShown[] = {{"block_main_b4_85.yaml", "86,238,720"},
                                                        {"block_vanilla_ablation_b1_85.yaml", "85,648,128"}};
  for (const auto& [name, non_embedding] : kShown) {
    SCOPED_TRACE(name);
    const Ran ran = run({"show", config_file(name)});
    EXPECT_EQ(ran.code, kExitDone);
    EXPECT_THAT(ran.out, testing::ContainsRegex("# +non-embedding +" + non_embedding + "\n"));
    EXPECT_THAT(ran.out, HasSubstr("# FLOPs per token of training at context_length 2,048: 3 * those of the forward pass\n"));
    EXPECT_THAT(ran.out, testing::Not(HasSubstr("3 * (2 * ")));
  }
  EXPECT_THAT(run({"show", config_file("transformer_160m.yaml")}).out, HasSubstr("3 * (2 * "));
}

TEST_F(ConfigCommandTest, TheQuickstartModelsAreSmallAndOfEqualSize) {
  const double reference = shown(config_file("quickstart/transformer.yaml"))["parameters"].get<double>();
  EXPECT_LT(reference, 5e6);
  for (const char* name : {"quickstart/yoco.yaml", "quickstart/yoco_swa.yaml"}) {
    EXPECT_NEAR(shown(config_file(name))["parameters"].get<double>() / reference, 1, 0.01) << name;
  }
}

TEST_F(ConfigCommandTest, WhatIsShownReadsAsTheSameConfig) {
  const std::string path = write(tiny_);
  const Ran first = run({"show", path, "optimizer.lr=1e-3", "--training.steps", "70"});
  EXPECT_EQ(first.code, kExitDone);
  EXPECT_THAT(first.out, HasSubstr("lr: 0.001"));
  EXPECT_THAT(first.out, HasSubstr("steps: 70"));
  EXPECT_THAT(first.out, HasSubstr("vocab_size: 258"));  // of bytes
  EXPECT_THAT(first.out, HasSubstr("pairs: interleaved"));
  write_file(folder_ / "again.yaml", first.out);
  EXPECT_EQ(run({"show", folder_ / "again.yaml"}).out, first.out);
}

TEST_F(ConfigCommandTest, ADecodersOwnRopeShowsOnlyWhatItGives) {
  const auto json = shown(write(tiny_), {"model.cross_decoder.rope={base: 640000}"});
  const nlohmann::ordered_json rope = {{"base", 640000}};
  EXPECT_EQ(json["config"]["model"]["cross_decoder"]["rope"], rope);
}

TEST_F(ConfigCommandTest, CheckSaysWhatWasRead) {
  const std::string path = write(tiny_);
  // tables 2 * 258 * 24; retention 5 * 24^2 + 72; cross 2 * 24^2; shared 2 * 24^2; two feed-forwards of 3 * 24 * 40; six norms
  EXPECT_EQ(run({"check", path}).out, path + ": good; yoco with 23,544 parameters\n");
  EXPECT_EQ(parse_json(run({"check", path, "--json"}).out)["parameters"], 23'544);
}

TEST_F(ConfigCommandTest, MistakesAreNamed) {
  const std::string path = folder_ / "small.yaml";
  expect_refused("  family: yocco\n", path + ":2: model.family = yocco, expected one of: yoco, block_transformer, transformer, gpt_neox, hybrid; did you mean yoco?");
  expect_refused("  family: yoco\n  d_modle: 24\n",
                 path + ":3: unknown key model.d_modle; did you mean d_model? known here: cross_decoder, d_model, embedding_scale, ffn_dim, norm_eps, "
                        "rope, self_decoder, tie_embeddings, vocab_size");
  expect_refused("  family: yoco\n  self_decoder: {mixers: [{name: sliding_window, window: 0}]}\n",
                 path + ":3: model.self_decoder.mixers[0].window = 0, expected an integer >= 1");
  expect_refused("  family: yoco\n  self_decoder: {mixers: []}\n", path + ":3: model.self_decoder.mixers = [], expected at least one mixer");
  expect_refused("  family: yoco\n  self_decoder: {mixers: [{name: mamba}]}\n",
                 path + ":3: model.self_decoder.mixers[0].name = mamba, expected one of: gated_retention, retention, sliding_window, full_attention");
  expect_refused("  family: yoco\n  cross_decoder: {n_heads: 6, n_kv_heads: 4}\n",
                 path + ":3: model.cross_decoder.n_heads = 6, expected a multiple of n_kv_heads (4)");
  expect_refused("  family: yoco\n  cross_decoder: {head_dim: 5}\n", path + ":3: model.cross_decoder.head_dim = 5, expected an even integer >= 2");
  expect_refused("  family: transformer\n  rope: {pairs: thirds}\n",
                 path + ":3: model.rope.pairs = thirds, expected one of: interleaved, halves");
  expect_refused("  family: transformer\n  n_heads: 6\n  n_kv_heads: 4\n", path + ":3: model.n_heads = 6, expected a multiple of n_kv_heads (4)");
  expect_refused(tiny_ + "  vocab_size: 200\n",
                 "model.vocab_size = 200, expected at least 258, the tokenizer's; leave the key out to take that");
  const std::string step = "step 1 has 4 micro-batches (tokens_per_step = 256, context_length = 32, micro_batch_size = 2) for ";
  expect_refused(tiny_, step + "5 data ranks, expected at least one each", {"--world", "5"});
  expect_refused(tiny_, step + "3 data ranks, expected a multiple, as parallelism.shard is gradients", {"--world", "3", "parallelism.shard=gradients"});
  expect_refused(tiny_, "parallelism: tensor = 2 times sequence = 1 does not divide 3 ranks", {"--world", "3", "parallelism.tensor=2"});
  expect_refused(tiny_, "parallelism.replicate = 3 does not divide the 4 ranks of data and sequence (4 ranks)",
                 {"--world", "4", "parallelism.shard=optimizer", "parallelism.replicate=3"});
}

TEST_F(ConfigCommandTest, ATokenizerThatIsNotThereIsNeededForItsVocabularyOnly) {
  const std::string path = write(tiny_);
  const std::string missing = folder_ / "tokenizer.model";
  EXPECT_THROW(run({"check", path, "data.tokenizer=" + missing}), UserError);
  const Ran ran = run({"check", path, "data.tokenizer=" + missing, "model.vocab_size=70"});
  EXPECT_EQ(ran.code, kExitDone);
  EXPECT_EQ(ran.err, "warning: " + missing + " does not exist; model.vocab_size is taken as written\n");
}

TEST_F(ConfigCommandTest, UsageErrorsAreCode2) {
  EXPECT_EQ(run({"show"}).code, kExitUsage);
  EXPECT_EQ(run({}).code, kExitUsage);
  EXPECT_EQ(run({"check", write(tiny_), "--world", "0"}).code, kExitUsage);
  EXPECT_EQ(run({"show", "--help"}).code, kExitDone);
  expect_user_error(kExitBadFile, (folder_ / "none.yaml") + ": cannot open: No such file or directory", [&] { run({"show", folder_ / "none.yaml"}); });
}

}  // namespace
}  // namespace tandem
