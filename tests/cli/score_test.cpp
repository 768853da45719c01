#include "nn/score.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "core/json_lines.h"
#include "core/safetensors.h"
#include "tests/cli/tiny_checkpoint.h"
#include "tests/data/temp_folder.h"

namespace tandem {
namespace {

using Sequences = std::vector<std::vector<int64_t>>;

class ScoreCommandTest : public testing::Test {
 protected:
  std::string put(const std::string& json) {
    write_file(folder_ / "ids.json", json);
    return folder_ / "ids.json";
  }
  Ran score(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), run_);
    return run_captured(run_score, "tandem score", arguments);
  }
  std::string refused(const std::string& json, int exit_code) {
    return error_of([&] { score({"--tokens", put(json)}); }, exit_code);
  }

  TempFolder folder_;
  const std::string yaml_ = tiny_models().front().yaml;  // vocabulary 53
  const std::string run_ = write_tiny_run(folder_ / "run", yaml_);
  const Sequences sequences_ = {{5, 0, 52, 17, 17, 3, 40, 8, 9}, {31}, {2, 44, 6}};
  const std::string ids_ = "{\"tokens\": [[5, 0, 52, 17, 17, 3, 40, 8, 9], [31], [2, 44, 6]]}";
};

TEST_F(ScoreCommandTest, PrintsTheLogProbOfEachTokenGivenThoseBefore) {
  const Ran ran = score({"--tokens", put(ids_), "--batch", "2", "--device", "cpu"});
  EXPECT_EQ(ran.code, 0);
  const auto printed = parse_json(ran.out)["log_probs"];
  const auto model = make_tiny_model(yaml_, torch::kFloat32);
  ASSERT_EQ(printed.size(), sequences_.size());
  for (size_t b = 0; b < sequences_.size(); ++b) {
    ASSERT_EQ(printed[b].size(), sequences_[b].size());
    EXPECT_TRUE(printed[b][0].is_null());
    for (size_t t = 1; t < sequences_[b].size(); ++t) {
      const std::vector<int64_t> before(sequences_[b].begin(),
                                        sequences_[b].begin() + static_cast<int64_t>(t));
      const auto state = model->make_state({.capacity = 16});
      const auto logits =
          model->extend(torch::tensor(before).unsqueeze(0), {}, *state, Want::kLast);
      EXPECT_NEAR(printed[b][t].get<double>(),
                  logits.log_softmax(1)[0][sequences_[b][t]].item<double>(), 1e-4);
    }
  }
}

TEST_F(ScoreCommandTest, LogitsPredictTheNextToken) {
  const std::string path = folder_ / "logits.safetensors";
  const Ran ran = score({"--tokens", put(ids_), "--logits", path, "--device", "cpu"});
  const auto printed = parse_json(ran.out)["log_probs"];
  const SafetensorsReader reader(path);
  const TensorEntry* entry = reader.find("logits");
  ASSERT_NE(entry, nullptr);
  EXPECT_EQ(reader.entries().size(), 1u);
  EXPECT_EQ(entry->type, DataType::kF32);
  ASSERT_EQ(entry->shape, (std::vector<int64_t>{3, 9, 53}));
  const Tensor logits = torch::empty(entry->shape);
  reader.read(*entry, 0, std::as_writable_bytes(std::span(logits.data_ptr<float>(), 3 * 9 * 53)));
  const Tensor log_p = logits.log_softmax(2);
  for (size_t b = 0; b < sequences_.size(); ++b) {
    const auto n = static_cast<int64_t>(sequences_[b].size());
    const auto row = logits[static_cast<int64_t>(b)];
    EXPECT_TRUE(row.narrow(0, 0, n).isfinite().all().item<bool>());  // the last one predicts what
                                                                     // would come next
    EXPECT_TRUE(row.narrow(0, n, 9 - n).isnan().all().item<bool>());
    for (int64_t t = 0; t + 1 < n; ++t) {
      const auto next = static_cast<size_t>(t) + 1;
      EXPECT_NEAR(log_p[static_cast<int64_t>(b)][t][sequences_[b][next]].item<double>(),
                  printed[b][next].get<double>(), 1e-4);
    }
  }
}

std::string yaml_of(const std::string& name) {
  const auto& models = tiny_models();
  return std::find_if(models.begin(), models.end(), [&](const auto& m) { return m.name == name; })
      ->yaml;
}

TEST_F(ScoreCommandTest, LogitsOfModelsOfBlocksBeginWhereTheirProbabilitiesDo) {
  struct Case {
    std::string model;
    int64_t first;  // row of logits that is given
  };
  const std::string path = folder_ / "logits.safetensors";
  for (const Case& c : {Case{"BlockLookupPrefix", 0}, Case{"BlockProjectionLlama", 2}}) {
    const std::string run = write_tiny_run(folder_ / c.model, yaml_of(c.model));
    const Ran ran = run_captured(run_score, "tandem score",
                                 {run, "--tokens", put(ids_), "--logits", path, "--device", "cpu"});
    const auto printed = parse_json(ran.out)["log_probs"];
    const SafetensorsReader reader(path);
    const Tensor logits = torch::empty({3, 9, 53});
    reader.read(*reader.find("logits"), 0,
                std::as_writable_bytes(std::span(logits.data_ptr<float>(), 3 * 9 * 53)));
    const Tensor log_p = logits.log_softmax(2);
    for (size_t b = 0; b < sequences_.size(); ++b) {
      const auto n = static_cast<int64_t>(sequences_[b].size());
      for (int64_t t = 0; t < 9; ++t) {
        const Tensor row = log_p[static_cast<int64_t>(b)][t];
        const bool given = c.first <= t && t < n;
        EXPECT_EQ(row.isfinite().all().item<bool>(), given) << c.model << ", token " << t;
        EXPECT_EQ(row.isnan().all().item<bool>(), !given) << c.model << ", token " << t;
        if (t + 1 >= n) continue;
        const auto next = static_cast<size_t>(t) + 1;
        EXPECT_EQ(printed[b][next].is_null(), !given);
        if (!given) continue;
        EXPECT_NEAR(row[sequences_[b][next]].item<double>(), printed[b][next].get<double>(), 1e-4);
      }
    }
  }
}

TEST_F(ScoreCommandTest, SequencesBeyondTheModelsPositionsAreNamed) {
  const std::string run = write_tiny_run(folder_ / "gpt2", yaml_of("Gpt2"));
  const auto model = parse_yaml(yaml_of("Gpt2"), "model");
  const auto positions = std::stoull(model.find("max_positions")->scalar);
  const auto score_of = [&](size_t n_ids, std::vector<std::string> arguments) {
    const nlohmann::json ids = {{"tokens", {{1, 2}, std::vector<int>(n_ids, 3)}}};
    arguments.insert(arguments.begin(), {run, "--tokens", put(ids.dump()), "--device", "cpu"});
    return run_captured(run_score, "tandem score", arguments).code;
  };
  const std::vector<std::string> with_logits = {"--logits", folder_ / "logits.safetensors"};
  const auto too_many = [&](size_t n_ids) {
    return (folder_ / "ids.json") + ": tokens[1] holds " + std::to_string(n_ids) +
           " ids, expected at most " + std::to_string(n_ids - 1) + ", the positions of the model";
  };
  EXPECT_EQ(score_of(positions + 1, {}), kExitDone);  // the last one is not fed
  EXPECT_EQ(score_of(positions, with_logits), kExitDone);
  EXPECT_EQ(error_of([&] { score_of(positions + 2, {}); }, kExitUsage), too_many(positions + 2));
  EXPECT_EQ(error_of([&] { score_of(positions + 1, with_logits); }, kExitUsage),
            too_many(positions + 1));
}

TEST_F(ScoreCommandTest, LogitsOfACacheOfSixteenBitsAreNear) {
  const auto logits_of = [&](const std::string& cache_dtype) {
    const std::string path = folder_ / (cache_dtype + ".safetensors");
    score(
        {"--tokens", put(ids_), "--logits", path, "--device", "cpu", "--cache-dtype", cache_dtype});
    const SafetensorsReader reader(path);
    const Tensor logits = torch::empty({3, 9, 53});
    reader.read(*reader.find("logits"), 0,
                std::as_writable_bytes(std::span(logits.data_ptr<float>(), 3 * 9 * 53)));
    return logits.nan_to_num();
  };
  const Tensor narrow = logits_of("bfloat16"), same = logits_of("same");
  EXPECT_TRUE(torch::equal(logits_of("float32"), same));
  EXPECT_FALSE(torch::equal(narrow, same));
  expect_close(narrow, same, 0.1);  // keys and values move by up to 2^-9 of themselves
  EXPECT_EQ(error_of(
                [&] {
                  score({"--tokens", put(ids_), "--cache-dtype", "bfloat16"});
                },
                kExitUsage),
            "--cache-dtype bfloat16 has no effect without --logits: log-probabilities take whole "
            "sequences");
}

TEST_F(ScoreCommandTest, IdsOutsideTheVocabularyAreNamed) {
  EXPECT_EQ(
      refused("{\"tokens\": [[1], [2, 53]]}", kExitUsage),
      (folder_ / "ids.json") + ": tokens[1][1] = 53, expected an id of the vocabulary, 0 to 52");
  EXPECT_EQ(
      refused("{\"tokens\": [[-1]]}", kExitUsage),
      (folder_ / "ids.json") + ": tokens[0][0] = -1, expected an id of the vocabulary, 0 to 52");
  EXPECT_EQ(refused("{\"tokens\": [[18446744073709551615]]}", kExitUsage),
            (folder_ / "ids.json") +
                ": tokens[0][0] = 18446744073709551615, expected an id of the vocabulary, 0 to 52");
}

TEST_F(ScoreCommandTest, EmptyRowsAreNamed) {
  EXPECT_EQ(refused("{\"tokens\": [[1], []]}", kExitUsage),
            (folder_ / "ids.json") + ": tokens[1] is empty, expected at least one id");
  EXPECT_EQ(refused("{\"tokens\": []}", kExitUsage),
            (folder_ / "ids.json") + ": tokens is empty, expected at least one sequence");
}

TEST_F(ScoreCommandTest, WrongJsonIsABadFile) {
  const std::string shape = (folder_ / "ids.json") + ": expected {\"tokens\": [[id, ...], ...]}";
  EXPECT_EQ(refused("[[1, 2]]", kExitBadFile), shape);
  EXPECT_EQ(refused("{\"ids\": [[1, 2]]}", kExitBadFile), shape);
  EXPECT_EQ(refused("{\"tokens\": 5}", kExitBadFile), shape);
  EXPECT_EQ(refused("{\"tokens\": [1, 2]}", kExitBadFile),
            (folder_ / "ids.json") + ": tokens[0] is not a list of ids");
  EXPECT_EQ(refused("{\"tokens\": [[1, 2.5]]}", kExitBadFile),
            (folder_ / "ids.json") + ": tokens[0][1] is not an integer");
  EXPECT_EQ(refused("{\"tokens\": [[1, \"2\"]]}", kExitBadFile),
            (folder_ / "ids.json") + ": tokens[0][1] is not an integer");
  EXPECT_TRUE(refused("{\"tokens\": [[1, 2]", kExitBadFile)
                  .starts_with((folder_ / "ids.json") + ": byte "));
  EXPECT_TRUE(error_of(
                  [&] {
                    score({"--tokens", folder_ / "none.json"});
                  },
                  kExitBadFile)
                  .starts_with(folder_ / "none.json"));
}

}  // namespace
}  // namespace tandem
