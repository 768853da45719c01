#include "eval/scaling.h"

#include <gmock/gmock.h>

#include <cmath>

#include "core/file.h"
#include "core/json_lines.h"
#include "eval/iso_flop.h"
#include "eval/pareto.h"
#include "tests/data/temp_folder.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;
using testing::ElementsAre;
using testing::HasSubstr;

double chinchilla(double n, double d) {
  return 1.69 + 406.4 * std::pow(n, -0.34) + 410.7 * std::pow(d, -0.28);
}

Json line_of(const std::string& group, double n, double d, double loss) {
  static int number = 0;
  const std::string name = group + std::to_string(number++);
  return {{"sweep", "test"},
          {"run", name},
          {"group", group},
          {"hash", name},
          {"folder", "runs/" + name},
          {"parameters", 2 * n},
          {"tokens", d},
          {"non_embedding_parameters", n},
          {"compute", 6 * n * d},
          {"train_loss", 2 * loss},
          {"validation_loss", loss}};
}

class ScalingTest : public testing::Test {
 protected:
  void add(const Json& line) { text_ += line.dump() + "\n"; }
  void add_grid(const std::string& group, int sizes, int tokens) {
    for (int i = 0; i < sizes; ++i) {
      for (int j = 0; j < tokens; ++j) {
        const double n = 1e6 * std::pow(4, i), d = 1e8 * std::pow(4, j);
        // Scatter of half a percent, as runs have it.
        add(line_of(group, n, d,
                    chinchilla(n, d) * std::exp(0.005 * RandomStream(4).normal(
                                                            static_cast<uint64_t>(i * 31 + j)))));
      }
    }
  }
  std::vector<Json> run(const ScalingConfig& config = {.resamples = 60}) {
    write_file(path_, text_);
    std::vector<Json> records;
    EvalArgs args;
    args.inputs = {path_};
    CellRunner cells(out_, nullptr, [&](const Json& record) { records.push_back(record); });
    args.cells = &cells;
    testing::internal::CaptureStderr();
    try {
      table_ = run_scaling(config, args);
    } catch (...) {
      testing::internal::GetCapturedStderr();
      throw;
    }
    said_ = testing::internal::GetCapturedStderr();
    return records;
  }
  static Json find(const std::vector<Json>& records, const std::string& fit,
                   const std::string& group = "") {
    for (const Json& record : records) {
      if (record["fit"] == fit && (group.empty() || record["group"] == group)) return record;
    }
    ADD_FAILURE() << "no " << fit << " of " << group;
    return Json::object();
  }
  std::string table_text() const {
    std::string text;
    for (const auto& row : table_)
      for (const auto& cell : row) text += cell + "|";
    return text;
  }

  TempFolder folder_;
  const std::string path_ = folder_ / "sweep.jsonl";
  std::string out_, text_, said_;
  EvalTable table_;
};

TEST_F(ScalingTest, AGridOfSizesAndTokensSeparatesTheExponents) {
  add_grid("yoco", 5, 4);
  const auto record = find(run(), "loss_of_parameters_and_tokens", "yoco");
  EXPECT_EQ(record["runs"], 20);
  EXPECT_EQ(record["separated"], true) << record["doubts"];
  const std::pair<const char*, double> truths[] = {{"E", 1.69}, {"alpha", 0.34}, {"beta", 0.28}};
  for (const auto& [name, truth] : truths) {
    const Json& interval = record["intervals"][name];
    EXPECT_LT(interval[0].get<double>(), interval[1].get<double>());
    EXPECT_NEAR(record[name].get<double>(), truth, 0.15 * truth) << name;
  }
  EXPECT_LT(record["rmse_log"].get<double>(), 0.01);
  EXPECT_THAT(table_text(), HasSubstr("separated|"));
  EXPECT_THAT(said_, testing::Not(HasSubstr("L = E + A/N^alpha + B/D^beta")));
}

TEST_F(ScalingTest, WhatCannotBeSeparatedIsSaid) {
  for (int i = 0; i < 9; ++i) {  // tokens follow parameters
    const double n = 1e6 * std::pow(2, i);
    add(line_of("ladder", n, 20 * n, chinchilla(n, 20 * n)));
  }
  add_grid("six", 3, 2);
  for (int i = 0; i < 9; ++i)
    add(line_of("fixed", 1e6 * std::pow(2, i), 1e9, chinchilla(1e6 * std::pow(2, i), 1e9)));
  const auto records = run();
  const std::string law = "loss_of_parameters_and_tokens";
  const auto ladder = find(records, law, "ladder");
  EXPECT_EQ(ladder["separated"], false);
  EXPECT_EQ(
      ladder["doubts"][0],
      "every N has one D: what more parameters do and what more tokens do cannot be told apart");
  const auto six = find(records, law, "six");
  EXPECT_EQ(six["separated"], false);
  EXPECT_EQ(six["doubts"][0], "6 runs for 5 numbers, expected at least 8");
  EXPECT_EQ(six["doubts"][1], "2 values of D, expected at least 3");
  const auto fixed = find(records, law, "fixed");
  EXPECT_EQ(fixed["fitted"], false);
  EXPECT_FALSE(fixed.contains("alpha"));
  EXPECT_EQ(fixed["doubts"][0], "1 value of D, expected at least 3");
  // with one number of tokens the law of compute is one of size: 406.4 N^-0.34 and what is left
  const auto compute = find(records, "loss_of_compute", "fixed");
  EXPECT_NEAR(compute["b"].get<double>(), 0.34, 1e-3);
  EXPECT_NEAR(compute["c"].get<double>(), 1.69 + 410.7 * std::pow(1e9, -0.28), 1e-3);
  EXPECT_EQ(compute["curve"].size(), 40u);
  EXPECT_THAT(said_, HasSubstr("warning: six: the runs cannot separate the exponents of "
                               "L = E + A/N^alpha + B/D^beta: 6 runs for 5 numbers, expected at "
                               "least 8; 2 values of D, expected at least 3"));
  EXPECT_THAT(table_text(), HasSubstr("|not separated|"));
}

TEST_F(ScalingTest, AnAblationOfOneSizeHasNoLaw) {
  for (int i = 0; i < 12; ++i)
    add(line_of("layouts", 1e6 * (1 + 0.01 * i), 1e8, 3 - 0.02 * i));
  const auto records = run();
  for (const Json& record : records) EXPECT_NE(record["fit"], "iso_flop");
  EXPECT_EQ(find(records, "loss_of_parameters_and_tokens")["fitted"], false);
  const auto compute = find(records, "loss_of_compute");
  EXPECT_EQ(compute["fitted"], false);
  EXPECT_EQ(compute["doubts"][0],
            "the greatest FLOPs is 1.11 of the least, expected at least 1.5");
  EXPECT_THAT(table_text(), HasSubstr("|not separated|"));
}

TEST_F(ScalingTest, NoiseWithoutALawIsNotCalledSeparated) {
  for (int i = 0; i < 12; ++i)
    add(line_of("noise", 1e6 * (1 + i % 4), 1e8 * (1 + i / 4),
                3 * std::exp(0.05 * RandomStream(8).normal(static_cast<uint64_t>(i)))));
  EXPECT_EQ(find(run(), "loss_of_parameters_and_tokens")["separated"], false);
}

TEST_F(ScalingTest, OptionsChooseWhatIsCounted) {
  add_grid("a", 3, 3);
  const auto by_default = find(run(), "loss_of_parameters_and_tokens"),
             all =
                 find(run({.parameters = "all", .resamples = 20}), "loss_of_parameters_and_tokens"),
             train = find(run({.loss = "train", .resamples = 20}), "loss_of_parameters_and_tokens");
  EXPECT_NEAR(all["alpha"].get<double>(), by_default["alpha"].get<double>(), 1e-4);
  EXPECT_NEAR(all["A"].get<double>(),
              by_default["A"].get<double>() * std::pow(2, by_default["alpha"].get<double>()), 1);
  EXPECT_NEAR(train["E"].get<double>(), 2 * by_default["E"].get<double>(), 1e-3);
}

TEST_F(ScalingTest, ASecondRunReadsWhatTheFirstWrote) {
  out_ = folder_ / "fits.jsonl";
  add_grid("a", 3, 3);
  const auto first = run();
  const std::string written = read_text(out_);
  EXPECT_EQ(run(), first);
  EXPECT_EQ(read_text(out_), written);
  add(line_of("a", 3e6, 3e8, 3));  // one run more is another fit
  EXPECT_NE(find(run(), "loss_of_compute"), find(first, "loss_of_compute"));
}

// ---- iso-FLOP curves

TEST_F(ScalingTest, AParabolaGivesItsLowestPointBack) {
  std::vector<double> n, loss;
  for (int i = -2; i <= 2; ++i) {
    n.push_back(5e6 * std::pow(2, i + 0.3));
    loss.push_back(3 + 0.1 * std::pow(std::log(n.back() / 5e6), 2));
  }
  const auto parabola = fit_parabola(n, loss);
  ASSERT_TRUE(parabola);
  EXPECT_NEAR(parabola->c2, 0.1, 1e-10);
  EXPECT_NEAR(*parabola->lowest(), 5e6, 1);
  EXPECT_NEAR(parabola->at(5e6), 3, 1e-10);
  for (double& value : loss) value = -value;
  EXPECT_FALSE(fit_parabola(n, loss)->lowest());
  EXPECT_FALSE(fit_parabola(std::vector<double>{1, 2, 2}, std::vector<double>{1, 2, 2}));
}

TEST_F(ScalingTest, TheBestSizeGrowsWithTheBudgetAsTheLawSays) {
  // best N ~ C ^ (beta / (alpha + beta)) = C ^ 0.4516
  for (const double budget : {1e18, 1e19, 1e20}) {
    const double g = std::pow(0.34 * 406.4 / (0.28 * 410.7), 1 / 0.62);
    const double best = g * std::pow(budget / 6, 0.28 / 0.62);
    for (int i = -3; i <= 3; ++i) {
      const double n = best * std::pow(1.3, i), d = budget / 6 / n;
      Json line =
          line_of("a", n, d,
                  chinchilla(n, d) + 1e-4 * RandomStream(6).normal(static_cast<uint64_t>(i + 3)));
      line["flops_budget"] = budget;
      add(line);
    }
  }
  const auto record = find(run(), "iso_flop", "a");
  ASSERT_EQ(record["budgets"].size(), 3u);
  EXPECT_NEAR(record["exponent"].get<double>(), 0.28 / 0.62, 0.02);
  EXPECT_LE(record["exponent_interval"][0].get<double>(), record["exponent"].get<double>());
  EXPECT_GE(record["exponent_interval"][1].get<double>(), record["exponent"].get<double>());
  for (const Json& budget : record["budgets"]) {
    EXPECT_EQ(budget["runs"], 7);
    EXPECT_EQ(budget["within_sizes"], true);
    EXPECT_LT(budget["interval"][0].get<double>(), budget["best_parameters"].get<double>());
    EXPECT_GT(budget["interval"][1].get<double>(), budget["best_parameters"].get<double>());
  }
  EXPECT_THAT(table_text(), HasSubstr("a||best N as|C^0.4"));
}

TEST_F(ScalingTest, RunsOfNearlyEqualFlopsAreOneBudget) {
  for (const double n : {1e6, 2e6, 4e6, 8e6})
    add(line_of("a", n, 1.02e15 / n, 3 + 0.1 * std::pow(std::log(n / 3e6), 2)));
  for (const double n : {1e6, 2e6}) add(line_of("a", n, 9e15 / n, 2.5));  // two sizes only
  const auto record = find(run(), "iso_flop");
  ASSERT_EQ(record["budgets"].size(), 1u);
  EXPECT_NEAR(record["budgets"][0]["best_parameters"].get<double>(), 3e6, 1e3);
  EXPECT_TRUE(record["exponent"].is_null());
}

// ---- Pareto fronts

TEST(ParetoTest, FrontsByHand) {
  const auto point = [](const char* run, double loss, double rate, double bytes) {
    ParetoPoint p;
    p.run = run, p.loss = loss, p.tokens_per_second = rate, p.bytes_per_row = bytes;
    return p;
  };
  std::vector<ParetoPoint> points = {point("best", 2.0, 10, 100),
                                     point("fast", 2.5, 90, 90),
                                     point("slow twin of fast", 2.5, 80, 95),
                                     point("small", 2.6, 20, 10),
                                     point("between", 2.55, 85, 50),
                                     point("equal of between", 2.55, 85, 50)};
  mark_fronts(points);
  std::vector<std::string> throughput, memory, both;
  for (const auto& p : points) {
    if (p.on_throughput_front) throughput.push_back(p.run);
    if (p.on_memory_front) memory.push_back(p.run);
    if (p.on_front) both.push_back(p.run);
  }
  EXPECT_THAT(throughput, ElementsAre("best", "fast"));
  EXPECT_THAT(memory, ElementsAre("best", "fast", "small", "between", "equal of between"));
  EXPECT_THAT(both, ElementsAre("best", "fast", "small", "between", "equal of between"));
}

TEST_F(ScalingTest, BenchmarksJoinTheRunsTheyMeasured) {
  Json vanilla = line_of("vanilla", 1e6, 1e8, 3.0), block = line_of("block", 4e6, 1e8, 2.9);
  vanilla["folder"] = "runs/vanilla", block["folder"] = "runs/block/";
  add(vanilla);
  add(block);
  const auto bench = [&](const std::string& model, double rate, double bytes) {
    add({{"benchmark", "inference"},
         {"model", model},
         {"protocol", "block-transformer"},
         {"batch", 8},
         {"prompt_length", 128},
         {"decode_length", 2048},
         {"throughput_tokens_per_s", {{"median", rate}}},
         {"state_bytes_per_row_at_end", {{"total", bytes}}},
         {"peak_bytes", 8 * bytes + 80}});
  };
  bench("runs/vanilla/", 100, 5000);
  bench("runs/block", 900, 4000);
  bench("runs/other", 1000, 1);
  auto record = find(run(), "pareto");
  EXPECT_THAT(said_, HasSubstr("warning: runs/other was measured, but is no run of these files; it "
                               "is left out\n"));
  EXPECT_EQ(record["case"], "block-transformer, 128 + 2048 tokens");
  ASSERT_EQ(record["points"].size(), 2u);
  EXPECT_EQ(record["points"][0]["on_front"], false);
  EXPECT_EQ(record["points"][1]["on_throughput_front"], true);
  EXPECT_EQ(record["points"][1]["bytes_per_row"], 4000);
  EXPECT_THAT(table_text(), HasSubstr("throughput, memory|"));
  record = find(run({.memory = "peak", .resamples = 20}), "pareto");
  EXPECT_EQ(record["points"][1]["bytes_per_row"], 4010);
}

// ---- mistakes

TEST_F(ScalingTest, MistakesNameFileAndLine) {
  const auto message_of = [&](const std::string& text, const ScalingConfig& config = {}) {
    text_ = text;
    return error_of([&] { run(config); });
  };
  const std::string good = line_of("a", 1e6, 1e8, 3).dump() + "\n";
  EXPECT_EQ(message_of(good + "{}\n"), path_ +
                                           ":2: expected a record of `tandem sweep` (parameters, "
                                           "tokens, loss) or of `tandem bench inference`");
  EXPECT_EQ(message_of("{\"tokens\": 3}\n"),
            path_ + ":1: has no non_embedding_parameters; give --parameters all");
  EXPECT_EQ(
      message_of("{\"tokens\": 3, \"non_embedding_parameters\": 4, \"validation_loss\": null}\n"),
      path_ + ":1: has no validation_loss; give --loss train");
  EXPECT_EQ(message_of("{\"tokens\": 3, \"non_embedding_parameters\": 4, \"loss\": 2}\n"),
            path_ + ":1: has no compute; give --compute 6nd");
  EXPECT_EQ(message_of("{\"tokens\": -3, \"non_embedding_parameters\": 4}\n"),
            path_ + ":1: tokens = -3, expected a number > 0");
  EXPECT_EQ(message_of("[1\n").substr(0, path_.size() + 3), path_ + ":1:");
  text_ = "";
  EXPECT_EQ(error_of([&] { run(); }, kExitUsage),
            "no runs in the inputs: eval scaling needs a sweep.jsonl, or lines with parameters, "
            "tokens and loss");
}

TEST(ScalingRegistryTest, TheHelpNamesEveryOption) {
  for (const Evaluation& evaluation : evaluations()) {
    if (evaluation.name != "scaling") continue;
    for (const EvalFlag& flag : evaluation.flags)
      EXPECT_NE(evaluation.help.find("--" + flag.key), std::string::npos) << flag.key;
    EXPECT_EQ(evaluation.flags.size(), 6u);
    return;
  }
  ADD_FAILURE() << "not in the registry";
}

}  // namespace
}  // namespace tandem
