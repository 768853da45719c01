#include "eval/tasks.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/file.h"
#include "eval/task_file.h"
#include "tests/data/temp_folder.h"
#include "tests/eval/text_model.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;

/// Knows some texts by heart: where the text so far ends in the beginning of one, at least `kSure`
/// bytes long, its next byte has the logit 12. All else is equally likely.
class KnowingModel : public TextModel {
 public:
  static constexpr size_t kSure = 3;
  explicit KnowingModel(std::vector<std::string> texts) : texts_(std::move(texts)) {
    materialise_random(*this, 1);
  }

 private:
  Tensor predict(const std::string& text) const override {
    const Tensor logits = torch::zeros({kVocabulary}, torch::kFloat64);
    size_t longest = kSure - 1;
    for (const std::string& known : texts_) {
      for (size_t n = std::min(known.size(), text.size()); n > longest; --n) {
        if (!text.ends_with(known.substr(0, n))) continue;
        longest = n;
        logits.zero_();
        logits[n < known.size() ? static_cast<unsigned char>(known[n]) : int64_t{kEos}] = 12;
      }
    }
    return logits;
  }
  std::vector<std::string> texts_;
};

class TasksTest : public testing::Test {
 protected:
  void SetUp() override {
    write_file(data_ + "/piqa.jsonl",
               R"({"goal": "Boil it", "sol1": "Heat.", "sol2": "Cool it down.", "label": 0})"
               "\n"
               R"({"goal": "Dry it", "sol1": "Wet it well.", "sol2": "Sun.", "label": 1})"
               "\n");
    write_file(data_ + "/piqa.train.jsonl", R"({"goal": "A", "sol1": "a", "sol2": "b", "label": 0})"
                                            "\n"
                                            R"({"goal": "B", "sol1": "c", "sol2": "d", "label": 1})"
                                            "\n"
                                            R"({"goal": "C", "sol1": "e", "sol2": "f", "label": 0})"
                                            "\n");
    write_file(data_ + "/lambada_openai.jsonl",
               "{\"text\": \"The sea was blue\"}\n{\"text\": \"My old d\xC3\xB6g\"}\n");
    write_file(data_ + "/wikitext.jsonl", "{\"page\": \"Once , upon a time\"}\n");
  }
  std::vector<Json> run(TasksConfig config, std::shared_ptr<LanguageModel> model,
                        const std::string& out = "") {
    if (config.data.empty()) config.data = data_;
    std::vector<Json> records;
    EvalArgs args;
    args.inputs = {"runs/a"};
    args.batch = 3;
    args.load = [&](const std::string& path) {
      LoadedModel loaded;
      loaded.model = model;
      loaded.config = ConfigNode::make_map();
      loaded.tokenizer = load_tokenizer("bytes");
      loaded.checkpoint = path + "/checkpoints/step-00000009";
      loaded.context_length = 200;
      return loaded;
    };
    CellRunner cells(out, nullptr, [&](const auto& record) { records.push_back(record); });
    args.cells = &cells;
    table_ = run_tasks(config, args);
    return records;
  }
  static double value(const Json& record, const char* metric) {
    return record["metrics"][metric]["value"].get<double>();
  }
  std::shared_ptr<KnowingModel> knowing() const {
    return std::make_shared<KnowingModel>(std::vector<std::string>{
        "Question: Boil it\nAnswer: Heat.", "Question: Dry it\nAnswer: Sun.", "The sea was blue",
        "My old d\xC3\xB6g", "Once, upon a time"});
  }

  TempFolder folder_;
  const std::string data_ = folder_ / "data";
  EvalTable table_;
};

TEST_F(TasksTest, AModelThatKnowsTheAnswersIsRight) {
  const auto records = run({.tasks = {"piqa", "lambada_openai", "wikitext"}}, knowing());
  ASSERT_EQ(records.size(), 3u);
  EXPECT_EQ(value(records[0], "acc"), 1);
  EXPECT_EQ(value(records[0], "acc_norm"), 1);
  EXPECT_EQ(value(records[1], "acc"), 1);
  EXPECT_LT(value(records[1], "ppl"), 1.05);
  // all but the first three bytes of " Once, upon a time" are known; none of the three is
  const double unsure = std::log(TextModel::kVocabulary), sure = -std::log(1 / (1 + 257 * std::exp(-12)));
  EXPECT_NEAR(value(records[2], "byte_ppl"), std::exp((3 * unsure + 14 * sure) / 18), 1e-4);
  EXPECT_NEAR(value(records[2], "word_ppl"), std::exp((3 * unsure + 14 * sure) / 5), 1e-1);
}

TEST_F(TasksTest, AUniformModelTakesTheShortestAndNormalisedTheLongest) {
  const auto uniform = std::make_shared<KnowingModel>(std::vector<std::string>{});
  auto record = run({.tasks = {"piqa"}}, uniform).at(0);
  EXPECT_EQ(value(record, "acc"), 1);       // the right answers are the shorter ones
  EXPECT_EQ(value(record, "acc_norm"), 0);  // the space in front weighs less in longer ones
  EXPECT_EQ(record["metrics"]["acc"]["stderr"], 0);
  record = run({.tasks = {"lambada_openai"}}, uniform).at(0);
  EXPECT_NEAR(value(record, "ppl"), std::pow(258.0, 5), 1e7);  // " blue" and " dög": 5 bytes each
  EXPECT_EQ(value(record, "acc"), 0);
}

TEST_F(TasksTest, TheRecordHasAllThatDecidesTheNumbers) {
  const auto records = run({.tasks = {"piqa"}, .num_fewshot = {0, 2}}, knowing());
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(records[0]["task"], "piqa");
  EXPECT_EQ(records[0]["task_version"], 1);
  EXPECT_EQ(records[0]["data_hash"].get<std::string>().size(), 64u);
  EXPECT_EQ(records[0]["n"], 2);
  EXPECT_EQ(records[0]["max_length"], 200);
  EXPECT_EQ(records[0]["requests"], 4);
  EXPECT_EQ(records[0]["truncated"], 0);
  EXPECT_EQ(records[0]["tokens_scored"], 6 + 14 + 13 + 5);  // " Heat." and so on, in bytes
  EXPECT_FALSE(records[0].contains("fewshot_seed"));
  EXPECT_EQ(records[1]["num_fewshot"], 2);
  EXPECT_EQ(records[1]["fewshot_seed"], 1234);
  EXPECT_EQ(value(records[1], "acc"), 1);
  EXPECT_EQ(table_.size(), 5u);
  EXPECT_EQ(table_[1],
            (std::vector<std::string>{"runs/a", "piqa", "0", "2", "acc", "1.0000", "0.0000"}));
}

TEST_F(TasksTest, ASecondRunDoesNothing) {
  const std::string out = folder_ / "tasks.jsonl";
  const TasksConfig config{.tasks = {"piqa", "lambada_openai"}};
  const auto first = run(config, knowing(), out);
  const std::string kept = read_text(out);
  const auto model = knowing();
  EXPECT_EQ(run(config, model, out), first);
  EXPECT_EQ(model->n_calls, 0);
  EXPECT_EQ(read_text(out), kept);
  write_file(data_ + "/piqa.jsonl",
             R"({"goal": "Boil it", "sol1": "Heat.", "sol2": "Cool it down.", "label": 0})"
             "\n");
  run(config, model, out);  // another file is another question
  EXPECT_GT(model->n_calls, 0);
  EXPECT_GT(read_text(out).size(), kept.size());
}

TEST_F(TasksTest, LongContextsAreCountedAndSaid) {
  testing::internal::CaptureStderr();
  const auto record = run({.tasks = {"piqa"}, .max_length = 30}, knowing()).at(0);
  EXPECT_EQ(record["truncated"], 2);  // "Question: Boil it\nAnswer:" has 25 bytes, "Dry" one less
  EXPECT_NE(testing::internal::GetCapturedStderr().find(
                "warning: piqa: 2 of 4 contexts lost tokens at their front, as --max-length is 30"),
            std::string::npos);
}

TEST_F(TasksTest, TasksOfOnesOwnAreYaml) {
  const std::string yaml = folder_ / "capitals.yaml";
  write_file(yaml,
             "name: capitals\nkind: generation\nprompt: \"Capital of {{land}}:\"\ntarget: "
             "\"{{names}}\"\nmetrics: [exact_match, contains]\nuntil: [\"\\n\"]\n"
             "max_new_tokens: 20\n");
  write_file(data_ + "/capitals.jsonl",
             "{\"land\": \"France\", \"names\": [\" Paris\", \" Lutetia\"]}\n"
             "{\"land\": \"Peru\", \"names\": [\"Lima\"]}\n");
  const auto model = std::make_shared<KnowingModel>(
      std::vector<std::string>{"Capital of France: Paris\nand more", "Capital of Peru: Lima"});
  const auto record = run({.tasks = {yaml}}, model).at(0);
  EXPECT_EQ(value(record, "exact_match"), 0.5);  // " Lima" has a space in front
  EXPECT_EQ(value(record, "contains"), 1);
  EXPECT_EQ(record["tokens_generated"], 7 + 6);  // with what ended them
}

TEST_F(TasksTest, WhatIsMissingIsSaid) {
  EXPECT_EQ(error_of([&] { run({.tasks = {"sciq"}}, knowing()); }),
            data_ +
                "/sciq.jsonl: is missing; task sciq reads its questions from there, one "
                "document a line");
  EXPECT_EQ(error_of([&] {
              run({.tasks = {"lambada_openai", "piqa"}, .num_fewshot = {3}}, knowing());
            }),
            data_ + "/lambada_openai.jsonl: holds 2 documents, 3 examples need 3");
  EXPECT_EQ(error_of([&] { run({}, knowing()); }, kExitUsage).substr(0, 39),
            "eval tasks needs --tasks, some of arc_c");
  EXPECT_EQ(error_of([&] {
              run({.tasks = {"piqa"}, .num_fewshot = {2}, .max_length = 3, .add_bos = true},
                  knowing());
            }).substr(0, data_.size() + 13),
            data_ + "/piqa.jsonl:1");
}

}  // namespace
}  // namespace tandem
