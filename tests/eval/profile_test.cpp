#include "eval/profile.h"

#include <gmock/gmock.h>

#include <cmath>
#include <sstream>

#include "cli/commands.h"
#include "cli/load_model.h"
#include "core/error.h"
#include "core/file.h"
#include "core/json_lines.h"
#include "eval/profile_cost.h"
#include "nn/parameter.h"
#include "tests/cli/tiny_checkpoint.h"
#include "tests/cli/tiny_models.h"
#include "tests/data/temp_folder.h"
#include "tests/paths.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;
using testing::HasSubstr;

const char* const kTinyYoco =
    "{family: yoco, vocab_size: 53, d_model: 22, ffn_dim: 29, "
    "self_decoder: {n_layers: 2, mixers: [{name: sliding_window, n_heads: 4, n_kv_heads: 2, "
    "head_dim: 6, window: 5}]}, "
    "cross_decoder: {n_layers: 3, n_heads: 6, n_kv_heads: 2, head_dim: 6}}";
const char* const kTinyBlocks =
    "{family: block_transformer, vocab_size: 53, block_length: 4, embedder: {kind: lookup, "
    "d_embed: 6}, block_decoder: {stack: gpt_neox, d_model: 24, ffn_dim: 29, n_layers: 2, "
    "n_heads: 3}, token_decoder: {kind: prefix, prefix_length: 2, stack: gpt_neox, d_model: 21, "
    "ffn_dim: 31, n_layers: 1, n_heads: 3, head_dim: 8}}";

// ---- what follows from shapes alone

/// Of a config that comes with tandem, at 16 bit.
struct Shapes {
  explicit Shapes(const std::string& name)
      : loaded(describe_model(std::string(kSourceDir) + "/configs/" + name + ".yaml")),
        cost(*loaded.model, loaded.config, torch::kBFloat16, torch::kBFloat16) {}
  LoadedModel loaded;
  InferenceCost cost;
};

InferenceLength row_of(int64_t length) { return {length - 1024, 1024}; }

TEST(ProfileCostTest, KvBytesAreThoseOfThePaper) {
  // The ratio by model size (YOCO, inference profile).
  const std::pair<std::string, double> kRatios[] = {
      {"1.4b", 24}, {"6.8b", 32}, {"13b", 40}, {"30b", 64}, {"65b", 80}};
  for (const auto& [size, ratio] : kRatios) {
    SCOPED_TRACE(size);
    EXPECT_EQ(Shapes("transformer_" + size).cost.cache_bytes_per_token() /
                  Shapes("yoco_" + size).cost.cache_bytes_per_token(),
              ratio);
  }
  const double gib = std::ldexp(1.0, 30);
  EXPECT_EQ(gib / Shapes("yoco_65b").cost.cache_bytes_per_token(), 128 * 1024);  // "128K"
  EXPECT_NEAR(gib / Shapes("transformer_65b").cost.cache_bytes_per_token(), 1.6 * 1024, 1);
  // 3B: 4 KiB against 104 KiB a token.
  EXPECT_EQ(Shapes("yoco_3b").cost.cache_bytes_per_token(), 4 << 10);
  EXPECT_EQ(Shapes("transformer_3b").cost.cache_bytes_per_token(), 104 << 10);
}

TEST(ProfileCostTest, TheLargeConfigsAreOfTheirSize) {
  struct Size {
    std::string name;
    double billions, layers, d_model;
  };
  for (const Size& size : {Size{"30b", 30, 64, 6144}, Size{"65b", 65, 80, 8192}}) {
    // The names count keys and values as wide as queries; a quarter of them are kept.
    const double left_out = 2 * 0.75 * size.d_model * size.d_model / 1e9;
    const auto billions = [&](const char* family, double n_kv) {
      return static_cast<double>(count_parameters(*Shapes(family + size.name).loaded.model)) / 1e9 +
             n_kv * left_out;
    };
    EXPECT_NEAR(billions("transformer_", size.layers), size.billions, 0.03 * size.billions);
    EXPECT_NEAR(billions("yoco_", 1), size.billions, 0.08 * size.billions);
  }
}

TEST(ProfileCostTest, MemoryAtAMillionTokensIsNearThePapers) {
  const InferenceLength tokens = row_of(1 << 20);
  const InferenceMemory yoco = Shapes("yoco_3b").cost.memory(tokens, 1, 4096),
                        transformer = Shapes("transformer_3b").cost.memory(tokens, 1, 4096);
  EXPECT_NEAR(yoco.total(), 12.4e9, 0.05 * 12.4e9);
  EXPECT_NEAR(transformer.total() / yoco.total(), 9.38, 0.1 * 9.38);
}

TEST(ProfileCostTest, AYocoReadsItsCacheOnceACrossLayer) {
  // By hand: 2.829B weights and the head at 2 bytes; 13 retention states of 24 heads, read and
  // written in float32; 13 times 4 KiB a token.
  const Shapes shapes("yoco_3b");
  for (const int64_t length : {int64_t{32768}, int64_t{1} << 19, int64_t{1} << 20}) {
    const double by_hand = 2 * (2.829e9 + 3072.0 * 100288) + 2 * 13 * 24 * 128 * 128 * 4.0 +
                           13 * 4096.0 * static_cast<double>(length - 512);
    const double weights_and_states = shapes.cost.decode_bytes(row_of(length), 1);
    EXPECT_NEAR(weights_and_states, by_hand, 0.01 * by_hand) << length;
  }
}

TEST(ProfileCostTest, ABlockModelReadsItsTokenDecoderOnceABlockPosition) {
  // 85M: 184 MB a token at batch 1 against 247 MB of the vanilla model, context left out.
  const auto megabytes = [](const std::string& name) {
    return Shapes(name).cost.decode_bytes({4, 4}, 1) / 1e6;
  };
  EXPECT_NEAR(megabytes("block_main_b4_85"), 184, 3);
  EXPECT_NEAR(megabytes("vanilla_160"), 247, 3);
}

TEST(ProfileCostTest, ContextReadByABlockModelIsAThirtySecondOfTheVanillas) {
  const auto of_context = [](const std::string& name) {
    const Shapes shapes(name);
    return shapes.cost.decode_bytes({2'000'000, 4}, 1) -
           shapes.cost.decode_bytes({1'000'000, 4}, 1);
  };
  EXPECT_NEAR(of_context("vanilla_160") / of_context("block_main_b4_85"), 32, 0.01);
}

TEST(ProfileCostTest, APromptReadsTheWeightsItMeetsOnce) {
  // All of them, as the last token goes through the cross-decoder too: 2.829B beside the tables,
  // and the head.
  const Shapes shapes("yoco_3b");
  const double bytes = shapes.cost.prefill_bytes({1000, 24});
  EXPECT_NEAR(bytes, 2 * (2.829e9 + 3072.0 * 100288), 0.01 * bytes);
  EXPECT_DOUBLE_EQ(shapes.cost.at_peak({1e15, 1e9}, {1000, 24}, 2).prefill, bytes / 1e9);
  EXPECT_DOUBLE_EQ(shapes.cost.at_peak({1e12, 1e12}, {1000, 24}, 2).prefill,
                   shapes.cost.prefill_flops({1000, 24}, 2).total() / 1e12);
}

TEST(ProfileCostTest, GroupedQueriesAreFoundInEveryFamily) {
  // G key/value heads of K channels in each layer that keeps all keys: 2 G K elements a layer.
  const std::pair<const char*, double> kModels[] = {
      {kTinyYoco, 3 * 2 * 2 * 6},
      {"{family: transformer, vocab_size: 53, d_model: 22, ffn_dim: 29, n_layers: 3, n_heads: 4, "
       "n_kv_heads: 2, head_dim: 6}",
       3 * 2 * 2 * 6},
      {"{family: hybrid, vocab_size: 53, d_model: 22, ffn_dim: 29, n_layers: 2, mixers: "
       "[{name: sliding_window, n_heads: 2, head_dim: 10, window: 3}, "
       "{name: full_attention, n_heads: 4, n_kv_heads: 1, head_dim: 6}]}",
       2 * 6}};
  for (const auto& [yaml, elements] : kModels) {
    const auto model = make_tiny_model(yaml);
    ConfigNode config = ConfigNode::make_map();
    config.entries.emplace_back("model", parse_yaml(yaml, "model"));
    const InferenceCost cost(*model, config, torch::kFloat32, torch::kFloat32);
    EXPECT_NEAR(cost.decode_bytes({2000, 2}, 3) - cost.decode_bytes({1000, 2}, 3),
                3 * 4 * elements * 1000, 1e-6)
        << yaml;
  }
}

TEST(ProfileCostTest, APaceGivesBackWhatItWasTakenFromAndScalesWithTheFlops) {
  const Shapes shapes("yoco_160m");
  const InferenceLength tokens{1000, 24}, longer{3000, 24};
  const InferenceSeconds taken{0.5, 0.01};
  const Pace pace = shapes.cost.pace_of(taken, tokens, 3);
  EXPECT_EQ(pace.length, 1024);
  EXPECT_DOUBLE_EQ(shapes.cost.at_pace(pace, tokens, 3).total(tokens), 0.5 + 24 * 0.01);
  const double growth =
      shapes.cost.prefill_flops(longer, 3).total() / shapes.cost.prefill_flops(tokens, 3).total();
  EXPECT_GT(growth, 2.5);
  EXPECT_DOUBLE_EQ(shapes.cost.at_pace(pace, longer, 3).prefill, 0.5 * growth);
}

// ---- runs

class ProfileTest : public testing::Test {
 protected:
  ProfileTest() {
    config_.lengths = {24};
    config_.generated = 8;
    config_.memory = "1GiB";
    config_.max_seconds = 1e6;
    config_.repeats = 2;
    config_.prefill_chunk = 7;
  }
  std::string write_config(const std::string& name, const std::string& model) {
    File file = File::create(folder_ / name);
    file.write("model: " + model + "\n");
    file.close();
    return folder_ / name;
  }
  std::vector<Json> run(const std::string& input, const std::string& out = "") {
    std::vector<Json> records;
    EvalArgs args;
    args.inputs = {input};
    args.seed = 3;
    args.describe = describe_model;
    args.load_or_make = [&](const std::string& path) {
      ++n_loaded_;
      return random_model(path, args.seed, torch::kCPU, torch::kFloat32);
    };
    CellRunner cells(out, nullptr, [&](const Json& record) { records.push_back(record); });
    args.cells = &cells;
    table_ = run_profile(config_, args);
    return records;
  }
  std::string usage_error(const std::string& input) {
    try {
      run(input);
    } catch (const UserError& error) {
      EXPECT_EQ(error.exit_code(), kExitUsage);
      return error.what();
    }
    return "no error";
  }

  TempFolder folder_;
  const std::string yoco_ = write_config("yoco.yaml", kTinyYoco);
  ProfileConfig config_;
  EvalTable table_;
  int n_loaded_ = 0;
};

double value(const Json& number) { return number["value"]; }

TEST_F(ProfileTest, WhatFitsIsMeasured) {
  config_.batches = {1, 3};
  config_.lengths = {29, 24};
  const auto records = run(yoco_);
  ASSERT_EQ(records.size(), 4u);
  EXPECT_EQ(n_loaded_, 1);
  EXPECT_EQ(records[0]["length"], 24);  // the shorter first
  EXPECT_EQ(records[3]["rows"], 3);
  for (const Json& record : records) {
    EXPECT_EQ(record["prompt_length"], record["length"].get<int64_t>() - 8);
    EXPECT_TRUE(record["computed_because_of"].is_null());
    EXPECT_EQ(record["runs"], 2);
    const auto rows = record["rows"].get<double>();
    for (const char* key :
         {"prefill_ms", "decode_ms_per_token", "decode_tokens_per_s", "throughput_tokens_per_s"}) {
      EXPECT_TRUE(record[key]["measured"].get<bool>()) << key;
      EXPECT_GT(record[key]["min"], 0) << key;
      EXPECT_LE(record[key]["min"], record[key]["value"]) << key;
      EXPECT_LE(record[key]["value"], record[key]["max"]) << key;
    }
    // The state that was there is what the shapes say, and throughput counts the prompt too.
    EXPECT_EQ(value(record["memory_bytes"]["cache"]),
              rows * record["cache_bytes_per_row"]["total"].get<double>());
    EXPECT_TRUE(record["memory_bytes"]["cache"]["measured"].get<bool>());
    EXPECT_LT(value(record["throughput_tokens_per_s"]), value(record["decode_tokens_per_s"]));
    EXPECT_NEAR(value(record["memory_bytes"]["total"]),
                value(record["memory_bytes"]["weights"]) + value(record["memory_bytes"]["cache"]) +
                    value(record["memory_bytes"]["rest"]),
                1);
    EXPECT_TRUE(record["decode_mfu"]["value"].is_null());  // of an unknown peak
  }
  EXPECT_EQ(table_.size(), 5u);
  EXPECT_EQ(table_[1].size(), table_[0].size());
}

TEST_F(ProfileTest, WhatDoesNotFitIsComputedWithoutWeights) {
  config_.memory = "1KiB";
  const auto record = run(yoco_).front();
  EXPECT_EQ(n_loaded_, 0);
  EXPECT_EQ(record["computed_because_of"], "memory");
  EXPECT_FALSE(record["fits"].get<bool>());
  EXPECT_FALSE(record["memory_bytes"]["total"]["measured"].get<bool>());
  EXPECT_EQ(record["memory_bytes"]["weights"]["basis"], "shapes");
  EXPECT_EQ(record["memory_bytes"]["rest"]["basis"], "estimate");
  EXPECT_TRUE(record["prefill_ms"]["value"].is_null());
  EXPECT_EQ(value(record["kv_bytes_per_token"]), 2 * 2 * 6 * 4);
  EXPECT_EQ(value(record["tokens_per_gib"]), std::ldexp(1.0, 30) / 96);
  EXPECT_THAT(table_[1].back(), HasSubstr("does not fit"));
}

TEST_F(ProfileTest, WhatIsTooLongGoesOnFromThePaceOfWhatWasMeasured) {
  config_.lengths = {24, 1 << 20};
  config_.memory = "32MiB";  // the cache alone takes 96 MiB
  const auto records = run(yoco_);
  const Json& far = records.at(1);
  EXPECT_EQ(far["computed_because_of"], "memory");
  EXPECT_EQ(far["from_length"], 24);
  EXPECT_EQ(far["prefill_ms"]["basis"], "extrapolated");
  EXPECT_FALSE(far["prefill_ms"]["measured"].get<bool>());
  const auto flops = [](const Json& record) {
    return record["prefill_flops"]["total"].get<double>();
  };
  EXPECT_NEAR(value(far["prefill_ms"]) / value(records[0]["prefill_ms"]),
              flops(far) / flops(records[0]), 1e-6 * flops(far) / flops(records[0]));
}

TEST_F(ProfileTest, NoTimeToMeasure) {
  config_.max_seconds = 0;
  config_.lengths = {2000};
  const auto record = run(yoco_).front();
  EXPECT_EQ(record["computed_because_of"], "time");
  EXPECT_EQ(record["prefill_ms"]["basis"], "extrapolated");
  EXPECT_EQ(record["from_length"], 256 + 8);  // of the short case that told the pace
}

TEST_F(ProfileTest, ShortCasesGrowWhileThereIsTime) {
  config_.prefill_chunk = 1024;
  config_.lengths = {1 << 20};
  config_.generated = 1;
  config_.max_seconds = 0.1;
  const auto computed = run(yoco_).front();
  EXPECT_EQ(computed["computed_because_of"], "time");
  EXPECT_GE(computed["from_length"], 256 + 1);
  EXPECT_LT(computed["from_length"], 1 << 20);
}

TEST_F(ProfileTest, AShortModelIsMeasuredWithinItsPositions) {
  const std::string gpt2 = write_config(
      "gpt2.yaml",
      "{family: gpt_neox, vocab_size: 53, tie_embeddings: true, max_positions: 47, d_model: 24, "
      "ffn_dim: 29, n_layers: 2, n_heads: 3, rope: {base: none}, parallel_residual: false}");
  config_.lengths = {47};
  EXPECT_TRUE(run(gpt2).front()["prefill_ms"]["measured"].get<bool>());
  config_.lengths = {48};
  EXPECT_THAT(usage_error(gpt2), HasSubstr("takes at most 47 tokens in a row"));
}

TEST_F(ProfileTest, WithoutMeasuringTheLeastThatADeviceNeeds) {
  config_.measure = false;
  config_.peak_tflops = 2;
  config_.bandwidth = 0.001;  // so slow that bytes decide
  config_.batches = {3};
  const auto record = run(yoco_).front();
  EXPECT_EQ(n_loaded_, 0);
  EXPECT_EQ(record["prefill_ms"]["basis"], "roofline");
  const LoadedModel shapes = describe_model(yoco_);
  const InferenceCost cost(*shapes.model, shapes.config, torch::kFloat32, torch::kFloat32);
  EXPECT_DOUBLE_EQ(value(record["prefill_ms"]), cost.prefill_bytes({16, 8}) / 1e6 * 1e3);
  const double step_ms = cost.decode_bytes({16, 8}, 3) / 1e6 * 1e3;
  EXPECT_DOUBLE_EQ(value(record["decode_ms_per_token"]), step_ms);
  EXPECT_DOUBLE_EQ(
      value(record["decode_mfu"]),
      record["decode_flops_per_token"]["total"].get<double>() * 3 / (step_ms / 1e3) / 2e12);
  EXPECT_FALSE(record["decode_mfu"]["measured"].get<bool>());
}

TEST_F(ProfileTest, MfuOfABlockModelCountsItsOwnFlops) {
  config_.peak_tflops = 0.25;
  config_.lengths = {31};
  config_.generated = 6;
  const auto record = run(write_config("blocks.yaml", kTinyBlocks)).front();
  EXPECT_EQ(record["prompt_length"], 24);  // 31 - 8, in whole blocks
  EXPECT_EQ(record["decode_length"], 8);
  EXPECT_TRUE(record["decode_mfu"]["measured"].get<bool>());
  EXPECT_DOUBLE_EQ(value(record["decode_mfu"]),
                   record["decode_flops_per_token"]["total"].get<double>() *
                       value(record["decode_tokens_per_s"]) / 0.25e12);
}

TEST_F(ProfileTest, TheLargestBatchFillsTheMemory) {
  config_.measure = false;
  config_.batches = {0};
  config_.memory = "1MiB";
  const auto record = run(yoco_).front();
  const LoadedModel shapes = describe_model(yoco_);
  const InferenceCost cost(*shapes.model, shapes.config, torch::kFloat32, torch::kFloat32);
  const int64_t rows = record["rows"];
  EXPECT_GT(rows, 1);
  EXPECT_LE(cost.memory({16, 8}, rows, 7).total(), 1 << 20);
  EXPECT_GT(cost.memory({16, 8}, rows + 1, 7).total(), 1 << 20);
  EXPECT_TRUE(record["fits"].get<bool>());
}

TEST_F(ProfileTest, ASecondRunDoesNothingAndAnotherModelIsAnotherResult) {
  const std::string out = folder_ / "profile.jsonl";
  const auto first = run(yoco_, out);
  const std::string written = read_text(out);
  EXPECT_EQ(run(yoco_, out), first);
  EXPECT_EQ(n_loaded_, 1);
  EXPECT_EQ(read_text(out), written);
  std::string wider = kTinyYoco;
  wider.replace(wider.find("ffn_dim: 29"), 11, "ffn_dim: 31");
  write_config("yoco.yaml", wider);
  EXPECT_NE(run(yoco_, out).front()["cell"], first.front()["cell"]);
  EXPECT_EQ(n_loaded_, 2);
}

TEST_F(ProfileTest, TheCommandTakesRunFoldersAndConfigs) {
  const std::string trained = write_tiny_run(folder_ / "run", kTinyByteYoco);
  const Ran ran = run_captured(
      run_eval, "tandem eval",
      {"profile", trained, yoco_, "--lengths", "24,40", "--generated", "8", "--batches", "2",
       "--memory", "1GiB", "--repeats", "1", "--device", "cpu", "--json"});
  EXPECT_EQ(ran.code, kExitDone);
  std::istringstream lines(ran.out);
  std::vector<Json> records;
  for (std::string line; std::getline(lines, line);) records.push_back(parse_json(line));
  ASSERT_EQ(records.size(), 4u);
  EXPECT_EQ(records[0]["checkpoint"], checkpoint_folder(trained, 7));
  EXPECT_EQ(records[3]["checkpoint"], "");
  EXPECT_EQ(records[3]["length"], 40);
  for (const Json& record : records) EXPECT_TRUE(record["prefill_ms"]["measured"].get<bool>());
}

TEST_F(ProfileTest, MistakesAreNamed) {
  config_.lengths = {8};
  EXPECT_EQ(usage_error(yoco_),
            "--lengths 8 leaves no prompt, expected more than the 8 tokens that are generated");
  config_.memory = "plenty";
  EXPECT_EQ(usage_error(yoco_), "--memory plenty, expected bytes above 0, such as 512MiB or 80GB");
  EXPECT_EQ(parse_bytes("--memory", "1.5GiB"), 1.5 * 1024 * 1024 * 1024);
  EXPECT_EQ(parse_bytes("--memory", "80GB"), 80e9);
  EXPECT_THROW(parse_bytes("--memory", "80gb"), UserError);
  EXPECT_THROW(parse_bytes("--memory", "-3"), UserError);
}

}  // namespace
}  // namespace tandem
