#include "eval/needle.h"

#include <gmock/gmock.h>

#include <cmath>
#include <set>

#include "core/file.h"
#include "eval/needle_table.h"
#include "tests/cli/tiny_checkpoint.h"
#include "tests/data/temp_folder.h"
#include "tests/eval/needle_models.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;

class NeedleTest : public testing::Test {
 protected:
  std::vector<Json> run(const NeedleConfig& config, std::shared_ptr<LanguageModel> model,
                        const std::string& out = "", uint64_t seed = 4,
                        const std::string& dtype = "float64") {
    std::vector<Json> records;
    EvalArgs args;
    args.inputs = {"runs/model"};
    args.batch = 2;
    args.seed = seed;
    args.dtype = dtype;
    args.load = [&](const std::string& path) {
      LoadedModel loaded;
      loaded.model = model;
      if (with_tokenizer_) loaded.tokenizer = load_tokenizer("bytes");
      loaded.config = ConfigNode::make_map();
      loaded.checkpoint = path + "/checkpoints/step-00000009";
      return loaded;
    };
    CellRunner cells(out, nullptr, [&](const Json& record) { records.push_back(record); });
    args.cells = &cells;
    table_ = run_needle(config, args);
    return records;
  }
  TempFolder folder_;
  EvalTable table_;
  bool with_tokenizer_ = true;
};

const NeedleConfig kYoco = {.lengths = {600, 900}, .depths = {0, 0.4, 1}, .samples = 3};

NeedleConfig with(NeedleConfig config, const std::function<void(NeedleConfig&)>& change) {
  change(config);
  return config;
}

std::vector<NeedleConfig> solvable() {
  return {kYoco,
          with(kYoco,
               [](auto& c) {
                 c.tasks = {"single", "multi_dot"}, c.needles = {1, 4};
                 c.lengths = {1200};
               }),
          with(kYoco, [](auto& c) { c.protocol = "block-transformer"; })};
}

TEST_F(NeedleTest, AModelThatLooksScoresOneEverywhere) {
  for (const NeedleConfig& config : solvable()) {
    const auto records = run(config, make_looking_model());
    EXPECT_GE(records.size(), 6u);
    for (const Json& record : records) {
      for (const char* score :
           {"substring", "exact", "decoy_accuracy", "decoy_rank", "first_token_rank"})
        EXPECT_EQ(record[score], 1.0) << score << record.dump(1);
      EXPECT_EQ(record["nulls"], 0);
      EXPECT_EQ(record["answers"].size(), 3u);
    }
  }
}

TEST_F(NeedleTest, WithoutTheNeedleItFindsNothing) {
  for (const NeedleConfig& config : solvable()) {
    const auto removed = with(config, [](auto& c) { c.remove_needle = true; });
    for (const Json& record : run(removed, make_looking_model())) {
      EXPECT_EQ(record["substring"], 0.0);
      EXPECT_EQ(record["exact"], 0.0);
      EXPECT_EQ(record["nulls"], 3);  // it says so
    }
  }
}

TEST_F(NeedleTest, AModelThatKnowsNothingScoresChance) {
  // Numbers of 7 digits, 9 decoys: all have the same probability, and equal ones share.
  const auto config = with(kYoco, [](auto& c) { c.protocol = "block-transformer"; });
  for (const Json& record : run(config, make_looking_model(/*knows_nothing=*/true))) {
    EXPECT_NEAR(record["decoy_accuracy"].get<double>(), 0.1, 1e-12);
    EXPECT_NEAR(record["decoy_rank"].get<double>(), 5.5, 1e-12);
    EXPECT_NEAR(record["log_prob"].get<double>(), -8 * std::log(258.0), 1e-9);  // with a space
    EXPECT_EQ(record["first_token_rank"], (258 + 1) / 2.0);
    EXPECT_EQ(record["substring"], 0.0);
    EXPECT_EQ(record["exact"], 0.0);
  }
}

TEST_F(NeedleTest, ARecordSaysAllThatDecidesItsNumbers) {
  const auto record = run(kYoco, make_looking_model()).front();
  for (const char* key :
       {"evaluation",  "model",         "checkpoint", "manifest",       "step",
        "parameters",  "dtype",         "device",     "seed",           "protocol",
        "task",        "needles",       "length",     "depth",          "samples",
        "haystack",    "remove_needle", "set",        "max_new_tokens", "decoys",
        "chunk",       "cache_dtype",   "cell",       "prompt_tokens",  "tokens_fed",
        "state_bytes", "seconds"})
    EXPECT_TRUE(record.contains(key)) << key;
  EXPECT_EQ(record["evaluation"], "needle");
  EXPECT_EQ(record["task"], "single");
  EXPECT_LE(record["prompt_tokens"].get<double>(), 580);
  const auto expected = record["answers"][0]["expected"][0].get<std::string>();
  EXPECT_THAT(record["answers"][0]["answer"].get<std::string>(),
              testing::StartsWith(expected + " ."));
}

TEST_F(NeedleTest, EverySettingMakesAnotherCell) {
  const NeedleConfig base = {.lengths = {600}, .depths = {0.5}, .samples = 1};
  const auto model = make_looking_model();
  std::set<std::string> cells = {run(base, model).front()["cell"]};
  std::string essay;
  for (int i = 0; i < 200; ++i) essay += "It is small work. ";
  write_file(folder_ / "essay.txt", essay);
  const std::vector<std::function<void(NeedleConfig&)>> changes = {
      [](auto& c) { c.protocol = "block-transformer"; },
      [](auto& c) { c.tasks = {"multi"}; },
      [](auto& c) { c.tasks = {"multi"}, c.needles = {2}; },
      [](auto& c) { c.lengths = {700}; },
      [](auto& c) { c.depths = {0.6}; },
      [](auto& c) { c.samples = 2; },
      [&](auto& c) { c.haystack = folder_ / "essay.txt"; },
      [](auto& c) { c.remove_needle = true; },
      [](auto& c) { c.decoys = false; },
      [](auto& c) { c.chunk = 64; },
      [](auto& c) { c.cache_dtype = "float32"; }};
  for (const auto& change : changes) cells.insert(run(with(base, change), model).front()["cell"]);
  cells.insert(run(base, model, "", /*seed=*/5).front()["cell"]);
  cells.insert(run(base, model, "", 4, "float32").front()["cell"]);
  EXPECT_EQ(cells.size(), changes.size() + 3);
  // Where sets lie and how much room there is changes nothing.
  cells.insert(
      run(with(base, [&](auto& c) { c.cache = folder_ / "sets", c.memory_gib = 1; }), model)
          .front()["cell"]);
  EXPECT_EQ(cells.size(), changes.size() + 3);
}

TEST_F(NeedleTest, ASecondRunDoesNothing) {
  const std::string out = folder_ / "needle.jsonl";
  const auto model = make_looking_model();
  const auto first = run(kYoco, model, out);
  const EvalTable table = table_;
  const int64_t calls = model->n_calls;
  EXPECT_GT(calls, 0);
  EXPECT_EQ(run(kYoco, model, out), first);
  EXPECT_EQ(model->n_calls, calls);
  EXPECT_EQ(table_, table);
}

// What clocks and counters say is not among the results.
Json results(Json record) {
  for (const char* key : {"seconds", "tokens_fed", "state_bytes"}) record.erase(key);
  return record;
}

TEST_F(NeedleTest, AKilledRunGoesOnWithIdenticalResults) {
  const auto model = make_tiny_model(kTinyByteYoco, torch::kFloat32);
  const auto config = with(kYoco, [](auto& c) {
    c.chunk = 64, c.lengths = {500}, c.depths = {0, 0.3, 0.7, 1};
  });
  const auto whole = run(config, model, folder_ / "whole.jsonl", 4, "float32");
  ASSERT_EQ(whole.size(), 4u);
  const std::string out = folder_ / "killed.jsonl";
  write_file(out, whole[0].dump() + "\n" + whole[1].dump() + "\n");
  const auto resumed = run(config, model, out, 4, "float32");
  // A depth is read on from a state kept of the one before, where that was read.
  EXPECT_LT(whole[2]["tokens_fed"], resumed[2]["tokens_fed"]);
  for (size_t i = 0; i < whole.size(); ++i) EXPECT_EQ(results(resumed[i]), results(whole[i]));
}

TEST_F(NeedleTest, ModelsOfBlocksAreAsked) {
  for (const std::string pad : {"true", "false"}) {
    const auto model = make_tiny_model(
        "{family: block_transformer, vocab_size: 259, block_length: 3, pad_documents: " + pad +
        ", embedder: {kind: lookup, d_embed: 8}, "
        "block_decoder: {stack: gpt_neox, d_model: 24, ffn_dim: 29, n_layers: 1, n_heads: 3}, "
        "token_decoder: {kind: prefix, prefix_length: 2, stack: gpt_neox, d_model: 18, "
        "ffn_dim: 31, n_layers: 1, n_heads: 3, head_dim: 8}}");
    const auto pieces = run(with(kYoco, [](auto& c) { c.chunk = 50; }), model);
    const auto whole = run(kYoco, model);
    ASSERT_EQ(pieces.size(), 6u);
    for (size_t i = 0; i < pieces.size(); ++i) {
      EXPECT_EQ(pieces[i]["decoy_rank"], whole[i]["decoy_rank"]);
      EXPECT_NEAR(pieces[i]["log_prob"].get<double>(), whole[i]["log_prob"].get<double>(), 1e-9);
      EXPECT_LT(whole[i]["log_prob"].get<double>(), 0);
    }
  }
}

TEST_F(NeedleTest, TheTableHasLengthsByDepthsAndTheirMean) {
  run(kYoco, make_looking_model());
  ASSERT_EQ(table_.size(), 1u + 3 * 2);  // three scores, two lengths
  EXPECT_EQ(table_[0], (std::vector<std::string>{"model", "task", "score", "tokens", "0.00", "0.40",
                                                 "1.00", "mean"}));
  EXPECT_EQ(table_[1], (std::vector<std::string>{"runs/model", "single", "exact", "600", "1.00",
                                                 "1.00", "1.00", "1.000"}));
  run(with(kYoco, [](auto& c) { c.decoys = false; }), make_looking_model());
  EXPECT_EQ(table_.size(), 1u + 2 * 2);
  const std::vector<Json> records = {{{"model", "a"},
                                      {"task", "multi"},
                                      {"needles", 4},
                                      {"remove_needle", false},
                                      {"length", 2048},
                                      {"depth", 0.5},
                                      {"exact", 0.25},
                                      {"substring", 0.5},
                                      {"decoy_accuracy", nullptr}},
                                     {{"model", "a"},
                                      {"task", "multi"},
                                      {"needles", 4},
                                      {"remove_needle", false},
                                      {"length", 1024},
                                      {"depth", 0.25},
                                      {"exact", 1.0},
                                      {"substring", 1.0},
                                      {"decoy_accuracy", nullptr}}};
  const EvalTable table = needle_table(records);
  ASSERT_EQ(table.size(), 5u);
  EXPECT_EQ(table[1],
            (std::vector<std::string>{"a", "multi x4", "exact", "1K", "1.00", "", "1.000"}));
  EXPECT_EQ(table[2],
            (std::vector<std::string>{"a", "multi x4", "exact", "2K", "", "0.25", "0.250"}));
  EXPECT_EQ(short_length(1 << 20), "1M");
  EXPECT_EQ(short_length(1000), "1,000");
}

TEST_F(NeedleTest, DepthsAreEvenOrThoseOfThePaper) {
  EXPECT_EQ(depths_of({}, "single").size(), 11u);
  EXPECT_EQ(depths_of({}, "single")[3], 3 / 10.0);
  EXPECT_EQ(depths_of({}, "multi").size(), 10u);
  EXPECT_EQ(depths_of({}, "multi")[0], 1 / 11.0);
  EXPECT_EQ(depths_of({}, "multi")[9], 10 / 11.0);
  EXPECT_EQ(depths_of({.depth_count = 3}, "single"), (std::vector<double>{0, 0.5, 1}));
  EXPECT_EQ(depths_of({.depth_count = 1}, "single"), (std::vector<double>{0.5}));
  EXPECT_EQ(depths_of({.depths = {0.2}}, "multi"), (std::vector<double>{0.2}));
  EXPECT_EQ(depths_of({.protocol = "ruler"}, "niah_multikey_1").back(), 1);
}

TEST_F(NeedleTest, MistakesAreNamed) {
  const auto model = make_looking_model();
  EXPECT_EQ(
      error_of([&] { run(kYoco, make_looking_model(false, {.max_length = 800})); }, kExitUsage),
      "--lengths 900, expected at most 800: runs/model has 800 positions");
  EXPECT_EQ(longest_needle_text({.multiple = 4, .pad_documents = true, .max_length = 102}), 94);
  EXPECT_EQ(error_of([&] { run({.depths = {0.5}, .depth_count = 3}, model); }, kExitUsage),
            "--depths and --depth-count, expected one of them");
  EXPECT_EQ(error_of([&] { run({.needles = {4}}, model); }, kExitUsage),
            "--needles 4 has no effect on yoco single: only yoco's multi and multi_dot leave their "
            "number open");
  EXPECT_THAT(error_of([&] { run({.protocol = "niah"}, model); }, kExitUsage),
              testing::HasSubstr("expected one of: yoco, ruler, "));
  EXPECT_THAT(error_of([&] { run({.tasks = {"double"}}, model); }, kExitUsage),
              testing::HasSubstr("expected one of: single, multi"));
  EXPECT_THAT(error_of([&] { run({.lengths = {100}}, model); }, kExitUsage),
              testing::HasSubstr("length 100 is too short"));
  EXPECT_THAT(error_of([&] {
                run(kYoco, make_tiny_model("{family: transformer, vocab_size: 100, d_model: 8, "
                                           "ffn_dim: 8, n_layers: 1, n_heads: 1, head_dim: 8}"));
              }),
              testing::HasSubstr("its vocabulary ends at 99"));
  with_tokenizer_ = false;
  EXPECT_THAT(error_of([&] { run(kYoco, model); }), testing::HasSubstr("holds no tokenizer"));
}

TEST_F(NeedleTest, TheRegistryNamesEveryOption) {
  const auto table = evaluations();
  const auto needle =
      std::find_if(table.begin(), table.end(), [](const auto& e) { return e.name == "needle"; });
  ASSERT_NE(needle, table.end());
  for (const EvalFlag& flag : needle->flags) {
    std::string option = "--" + flag.key;
    std::replace(option.begin(), option.end(), '_', '-');
    EXPECT_NE(needle->help.find(option), std::string::npos) << option;
  }
}

}  // namespace
}  // namespace tandem
