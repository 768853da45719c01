#include <gmock/gmock.h>

#include "core/file.h"
#include "tests/eval/nll_fixture.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;
using testing::ElementsAre;

class NllOptionsTest : public NllTest {
 protected:
  /// NLL of each target of `ids` given those before it.
  static std::vector<double> each(const std::vector<int64_t>& ids) {
    const auto model = make_recurrent_model(kVocabulary);
    const auto state = model->make_state({.batch = 1, .dtype = torch::kFloat64});
    const auto n = std::ssize(ids) - 1;
    const Tensor all = torch::tensor(ids, torch::kInt64).unsqueeze(0);
    const Tensor nll = model->extend_nll(all.narrow(1, 0, n), all.narrow(1, 1, n), {}, *state);
    const auto* values = nll.const_data_ptr<double>();
    return {values, values + n};
  }
  std::vector<int64_t> ids_of(size_t document) const {
    return {documents_[document].begin(), documents_[document].end()};
  }
  static double mean(const std::vector<double>& values) {
    double sum = 0;
    for (const double value : values) sum += value;
    return sum / static_cast<double>(values.size());
  }
};

TEST_F(NllOptionsTest, TheCumulativeCurveIsTheMeanUpToEachLength) {
  const auto nll = each(stream_);
  for (const int64_t chunk : {0, 6}) {
    const auto record = run({.context_length = 100, .chunk = chunk}).front();
    const auto& curve = record["nll_cumulative"];
    ASSERT_EQ(curve.size(), 6u);
    for (size_t i = 0; i < 6; ++i) {
      const size_t end = i < 5 ? size_t{1} << i : 27;
      EXPECT_EQ(curve[i]["end"], end);
      EXPECT_EQ(curve[i]["tokens_scored"], end);
      EXPECT_NEAR(curve[i]["nll"].get<double>(),
                  mean({nll.begin(), nll.begin() + static_cast<std::ptrdiff_t>(end)}), 1e-10);
    }
    EXPECT_EQ(curve.back()["nll"], record["nll"]);
  }
  // two windows share each position
  const auto record = run({.context_length = 14, .buckets = 14}).front();
  const auto first = each({stream_.begin(), stream_.begin() + 15}),
             second = each({stream_.begin() + 14, stream_.end()});
  EXPECT_EQ(record["nll_cumulative"][2]["tokens_scored"], 8);
  double sum = 0;
  for (size_t t = 0; t < 4; ++t) sum += first[t] + second[t];
  EXPECT_NEAR(record["nll_cumulative"][2]["nll"].get<double>(), sum / 8, 1e-10);
  EXPECT_EQ(record["nll_by_position"].back()["tokens_scored"], 1);  // the second has 13
}

TEST_F(NllOptionsTest, BucketsMayGrow) {
  const auto record = run({.context_length = 100, .buckets = 3, .bucket_scale = "log"}).front();
  std::vector<int64_t> ends;
  for (const auto& bucket : record["nll_by_position"]) ends.push_back(bucket["end"]);
  EXPECT_THAT(ends, ElementsAre(1, 3, 9, 27));
  EXPECT_EQ(record["bucket_scale"], "log");
}

TEST_F(NllOptionsTest, LastIsTheTailOfTheFullScoring) {
  const auto nll = each(stream_);
  for (const int64_t chunk : {0, 4}) {
    const auto record = run({.context_length = 100, .last = 5, .chunk = chunk}).front();
    EXPECT_EQ(record["tokens_scored"], 5);
    EXPECT_EQ(record["last"], 5);
    EXPECT_NEAR(record["nll"].get<double>(), mean({nll.end() - 5, nll.end()}), 1e-10);
    ASSERT_EQ(record["nll_cumulative"].size(), 1u);  // nothing is scored up to 16
  }
}

TEST_F(NllOptionsTest, BosGivesEachWindowsFirstTokenSomethingBeforeIt) {
  const auto record = run({.context_length = 14, .bos = "window"}).front();
  std::vector<int64_t> first = {256}, second = {256};
  first.insert(first.end(), stream_.begin(), stream_.begin() + 14);
  second.insert(second.end(), stream_.begin() + 14, stream_.end());
  EXPECT_EQ(record["bos"], "window");
  EXPECT_EQ(record["tokens"], 28);
  EXPECT_EQ(record["tokens_scored"], 28);
  EXPECT_NEAR(record["nll"].get<double>(), (mean(each(first)) + mean(each(second))) / 2, 1e-10);
  EXPECT_EQ(run({.max_tokens = 5, .bos = "window"}).front()["tokens_scored"], 5);
  with_tokenizer_ = false;
  EXPECT_EQ(error_of([&] { run({.bos = "window"}); }, kExitUsage),
            "--bos window: runs/recurrent has no tokenizer; give --bos none");
}

TEST_F(NllOptionsTest, DocumentsAreScoredOneByOneFromTheirStart) {
  std::vector<double> nll;
  for (size_t d = 0; d < 4; ++d) {
    auto ids = ids_of(d);
    if (ids.size() > 9) ids.resize(9);
    for (const double value : each(ids)) nll.push_back(value);
  }
  for (const int64_t chunk : {0, 3}) {
    const auto record = run({.unit = "documents", .context_length = 8, .chunk = chunk}).front();
    EXPECT_EQ(record["unit"], "documents");
    EXPECT_EQ(record["documents"], 4);
    EXPECT_EQ(record["tokens"], 6 + 2 + 8 + 9);
    EXPECT_EQ(record["tokens_scored"], std::ssize(nll));
    EXPECT_NEAR(record["nll"].get<double>(), mean(nll), 1e-10);
    EXPECT_EQ(record["documents_cut"], 1);
    EXPECT_EQ(record["tokens_cut"], 3);
    EXPECT_TRUE(record["stride"].is_null());
    EXPECT_EQ(record["nll_by_position"][0]["tokens_scored"], 4);
  }
  const auto chosen =
      run({.unit = "documents", .min_length = 3, .max_length = 8, .max_documents = 1}).front();
  EXPECT_EQ(chosen["documents"], 1);
  EXPECT_EQ(chosen["documents_left_out"], 2);
  EXPECT_EQ(chosen["documents_not_reached"], 1);
  EXPECT_NEAR(chosen["nll"].get<double>(), mean(each(ids_of(0))), 1e-10);
  trained_with_ = parse_yaml("data: {mask_documents: true}", "config.yaml");
  EXPECT_EQ(run({.unit = "documents"}).front()["mask_documents"], false);
}

TEST_F(NllOptionsTest, SeveralSourcesGiveARecordEachAndOneOverAll) {
  const std::string other = folder_ / "other";
  TokenFileWriter writer(other, kVocabulary);
  writer.add_document(documents_[3]);
  writer.publish();
  out_ = folder_ / "nll.jsonl";
  const NllConfig config = {
      .data = {data_, other}, .context_length = 14, .buckets = 3, .fit = "cumulative"};
  const auto records = run(config);
  ASSERT_EQ(records.size(), 3u);
  const auto number = [](const Json& json, const char* key) { return json[key].get<double>(); };
  EXPECT_EQ(records[0]["data"], data_);
  EXPECT_EQ(records[1]["data"], other);
  EXPECT_EQ(records[2]["data"], "all");
  EXPECT_EQ(records[2]["sources"], (Json{data_, other}));
  EXPECT_EQ(records[2]["data_hash"], (Json{records[0]["data_hash"], records[1]["data_hash"]}));
  EXPECT_EQ(records[2]["tokens"], 28 + 12);
  EXPECT_EQ(records[2]["tokens_scored"], 27 + 11);
  EXPECT_EQ(records[1]["positions"], 14);  // of the longer one, so that buckets are the same
  const double sum = number(records[0], "nll") * 27 + number(records[1], "nll") * 11;
  EXPECT_NEAR(number(records[2], "nll"), sum / 38, 1e-12);
  const auto& a = records[0]["nll_by_position"][1];
  const auto& b = records[1]["nll_by_position"][1];
  const auto& both = records[2]["nll_by_position"][1];
  const double n_a = number(a, "tokens_scored"), n_b = number(b, "tokens_scored");
  EXPECT_NEAR(number(both, "nll"), (number(a, "nll") * n_a + number(b, "nll") * n_b) / (n_a + n_b),
              1e-12);
  EXPECT_EQ(records[2]["power_law"]["interval"]["groups"], 3);  // windows of both
  EXPECT_EQ(table_.front()[1], "data");
  EXPECT_EQ(table_[3][1], "all");

  // What is there is not measured again; what is missing comes out the same alone.
  const std::string lines = read_text(out_);
  EXPECT_EQ(run(config), records);
  EXPECT_EQ(read_text(out_), lines);
  write_file(out_, lines.substr(0, lines.find('\n') + 1));
  EXPECT_EQ(run(config), records);
  EXPECT_EQ(read_text(out_), lines);
  EXPECT_EQ(error_of(
                [&] {
                  run({.data = {data_, data_}});
                },
                kExitUsage),
            "--data names " + data_ + " twice");
}

TEST_F(NllOptionsTest, AFitIsInTheRecordWhereItWasAskedFor) {
  EXPECT_FALSE(run({}).front().contains("power_law"));
  const auto record = run({.context_length = 9, .buckets = 9, .fit = "buckets"}).front();
  const auto& fit = record["power_law"];
  EXPECT_EQ(record["fit"], "buckets");
  EXPECT_EQ(fit["curve"], "buckets");
  EXPECT_EQ(fit["points"], 9);
  EXPECT_EQ(fit["interval"]["resampled"], "groups of windows");
  EXPECT_EQ(fit["interval"]["groups"], 3);
  EXPECT_TRUE(fit["b"].is_number());
  // a random model's curve of 27 tokens has no exponent to speak of
  EXPECT_EQ(fit["separated"], false);
  EXPECT_THAT(fit["why_not"].get<std::string>(), testing::StartsWith("cannot be separated: "));
}

TEST_F(NllOptionsTest, CostIsRecordedWhereItWasAskedFor) {
  EXPECT_FALSE(run({}).front().contains("cost"));
  const auto cost = run({.chunk = 4, .cost = true}).front()["cost"];
  EXPECT_GE(cost["seconds"].get<double>(), 0);
  EXPECT_EQ(cost["state_bytes"], 3 * 7 * 8);  // three rows together, of 7 float64 each
  EXPECT_GT(cost["peak_resident_bytes"].get<int64_t>(), 1 << 20);
  EXPECT_TRUE(run({.cost = true}).front()["cost"]["state_bytes"].is_null());
}

TEST_F(NllOptionsTest, SettingsThatDoNotGoTogetherAreRefused) {
  const auto message = [&](const NllConfig& config) {
    return error_of([&] { run(config); }, kExitUsage);
  };
  EXPECT_EQ(message({.unit = "documents", .stride = 3}),
            "--stride has no effect with --unit documents");
  EXPECT_EQ(message({.unit = "documents", .max_tokens = 3}),
            "--max-tokens has no effect with --unit documents");
  EXPECT_EQ(message({.unit = "documents", .mask_documents = false}),
            "--mask-documents has no effect with --unit documents");
  EXPECT_EQ(message({.min_length = 3}), "--min-length has no effect with --unit windows");
  EXPECT_EQ(message({.max_length = 3}), "--max-length has no effect with --unit windows");
  EXPECT_EQ(message({.max_documents = 3}), "--max-documents has no effect with --unit windows");
  EXPECT_EQ(message({.bos = "window", .mask_documents = true}),
            "--bos window needs windows without document masks; give --mask-documents false");
  EXPECT_EQ(error_of([&] { run({.unit = "documents", .min_length = 100}); }),
            data_ +
                ": without 4 documents (28 tokens) shorter than 100 it holds 0 tokens, at "
                "least 2 are needed");
}

}  // namespace
}  // namespace tandem
