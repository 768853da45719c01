#include "tests/ledger/ledger.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string_view>

#include "core/file.h"
#include "tests/data/temp_folder.h"

namespace tandem {
namespace {

using testing::Contains;
using testing::Each;
using testing::HasSubstr;
using testing::IsEmpty;

class LedgerTest : public testing::Test {
 protected:
  LedgerReport run(const std::string& configuration, LedgerFault fault = LedgerFault::kNone) {
    return run_ledger(
        ledger_configuration(configuration),
        {.folder = folder_.path(), .epochs = 1, .kills = 5, .seed = 3, .fault = fault});
  }
  TempFolder folder_;
};

class LedgerOfEachTest : public LedgerTest, public testing::WithParamInterface<size_t> {};

TEST_P(LedgerOfEachTest, EverySampleOnceUnderKillsInChangingWorlds) {
  const LedgerConfiguration& configuration = ledger_configurations()[GetParam()];
  const LedgerReport report = run(configuration.name);
  EXPECT_THAT(report.violations(), IsEmpty()) << configuration.name;
  EXPECT_EQ(report.facts["kills"], 5);
  EXPECT_GT(report.facts["samples"], 500);
  int64_t steps = 0;
  for (const int64_t one : report.facts["steps_by_world"]) steps += one;
  EXPECT_EQ(report.facts["steps"], steps);
}

INSTANTIATE_TEST_SUITE_P(Configurations, LedgerOfEachTest,
                         testing::Range<size_t>(0, ledger_configurations().size()),
                         [](const auto& test) { return ledger_configurations()[test.param].name; });

TEST_F(LedgerTest, ASampleLeftOutIsFound) {
  const auto violations = run("masked", LedgerFault::kSkip).violations();
  // Step 3 is the first in which the last rank leaves its last of seven samples out.
  EXPECT_THAT(violations, Contains("expected sample 27, found 28"));
  EXPECT_THAT(violations, Contains("source 0, epoch 0: a window is missing"));
}

TEST_F(LedgerTest, ASampleReadTwiceIsFound) {
  const auto violations = run("padded", LedgerFault::kRepeat).violations();
  EXPECT_THAT(violations, Contains("expected sample 44, found 43"));
  EXPECT_THAT(violations, Contains(HasSubstr("a window 1 times too often")));
}

TEST_F(LedgerTest, TwoSamplesInTheWrongOrderAreFound) {
  const auto violations = run("documents", LedgerFault::kSwap).violations();
  EXPECT_THAT(violations, Contains("expected sample 26, found 27"));
}

TEST_F(LedgerTest, OtherContentsAfterAKillAreFound) {
  const LedgerReport report = run("views", LedgerFault::kDrift);
  EXPECT_THAT(report.violations(), Contains(HasSubstr("is not that of the undisturbed run")));
  EXPECT_THAT(report.violations(), Contains(HasSubstr("a window that is not in the source")));
  const bool found =
      testing::Value(report.violations(), Contains(HasSubstr("is not what it was before")));
  EXPECT_EQ(found, report.facts["resumed_steps"] > 0);
}

TEST_F(LedgerTest, WeightsOfOtherTargetsAreFound) {
  const LedgerConfiguration& configuration = ledger_configuration("packed");
  const auto data = make_ledger_data(configuration, 3, 1);
  LedgerPlan whole = {.configuration = &configuration,
                      .data = folder_.path() + "/data",
                      .run = folder_.path() + "/whole",
                      .seed = 3};
  write_ledger_data(configuration, data, whole.data);
  const std::vector<float> ones(static_cast<size_t>(data[1].tokens()), 1.0f);
  File::create(whole.data + "/source1.weights").write(std::as_bytes(std::span(ones)));
  whole.steps = ledger_steps(whole, 1);
  LedgerReport report;
  const auto attempts = drive_ledger(whole, 0, report);
  verify_ledger(whole, attempts, whole, data, report);
  EXPECT_THAT(report.violations(), Contains(HasSubstr(" has the weight of another")));
  EXPECT_THAT(report.violations(), Each(HasSubstr(" has the weight of another")));
}

TEST(LedgerCrcTest, TellsWeightsApart) {
  Row row = {.tokens = {3, 4}, .targets = {4, kIgnored}, .segment = {0, 0}};
  const uint32_t without = ledger_crc(row);
  row.weights = {1, 0};  // what rows without weights have beside others
  EXPECT_EQ(ledger_crc(row), without);
  row.weights = {0.5, 0};
  EXPECT_NE(ledger_crc(row), without);
}

TEST_F(LedgerTest, GoingOnOneStepTooLateIsFound) {
  const auto violations = run("masked", LedgerFault::kLate).violations();
  EXPECT_THAT(violations, Contains(HasSubstr(" has no step ")));
}

}  // namespace
}  // namespace tandem

int main(int argc, char** argv) {
  if (argc > 1 && argv[1] == std::string_view("rank")) return tandem::ledger_main(argc, argv);
  testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}
