#include "eval/cells.h"

#include <gmock/gmock.h>

#include <atomic>
#include <fstream>

#include "core/error.h"
#include "core/file.h"
#include "tests/comm/thread_ranks.h"
#include "tests/data/temp_folder.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;
using testing::HasSubstr;

void write_text(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

class CellsTest : public testing::Test {
 protected:
  Cell cell(int64_t n) {
    return {{{"evaluation", "square"}, {"n", n}}, [this, n] {
              ++measured_;
              if (n == bad_) throw bad_usage("n is bad");
              return Json{{"square", n * n}, {"third", static_cast<double>(n) / 3}};
            }};
  }
  std::vector<Cell> cells(std::initializer_list<int64_t> ns) {
    std::vector<Cell> list;
    for (const int64_t n : ns) list.push_back(cell(n));
    return list;
  }
  TempFolder folder_;
  const std::string path_ = folder_ / "out.jsonl";
  std::atomic<int> measured_ = 0;
  int64_t bad_ = -1;
};

TEST_F(CellsTest, WhatTheFileHoldsIsNotMeasuredAgain) {
  std::vector<Json> seen;
  const auto see = [&](const Json& record) { seen.push_back(record); };
  const auto first = CellRunner(path_, nullptr, see).run("squares", cells({3, 5}));
  EXPECT_EQ(first[1]["square"], 25);
  EXPECT_EQ(first, seen);
  const std::string written = read_text(path_);
  EXPECT_EQ(measured_, 2);

  seen.clear();
  const auto again = CellRunner(path_, nullptr, see).run("squares", cells({3, 7, 5}));
  EXPECT_EQ(measured_, 3);
  EXPECT_EQ(again[0], first[0]);
  EXPECT_EQ(again[2], first[1]);
  EXPECT_EQ(seen.size(), 3u);
  EXPECT_TRUE(read_text(path_).starts_with(written));
}

TEST_F(CellsTest, AKilledWriterLeavesWholeLinesOnly) {
  CellRunner(path_, nullptr, {}).run("squares", cells({1, 2, 3}));
  const std::string whole = read_text(path_);
  for (size_t size = 0; size < whole.size(); ++size) {
    write_text(path_, whole.substr(0, size));
    CellRunner(path_, nullptr, {}).run("squares", cells({1, 2, 3}));
    EXPECT_EQ(read_text(path_), whole) << "cut after " << size << " bytes";
  }
}

TEST_F(CellsTest, CellsBeforeAFailureAreKept) {
  bad_ = 2;
  EXPECT_THROW(CellRunner(path_, nullptr, {}).run("squares", cells({1, 2, 3})), UserError);
  bad_ = -1;
  measured_ = 0;
  CellRunner(path_, nullptr, {}).run("squares", cells({1, 2, 3}));
  EXPECT_EQ(measured_, 2);
}

TEST_F(CellsTest, RanksShareTheWorkAndTheFileIsTheSame) {
  CellRunner(path_, nullptr, {}).run("squares", cells({1, 2, 3, 4, 5, 6, 7}));
  const std::string alone = read_text(path_), shared = folder_ / "shared.jsonl";
  for (const int64_t world : {2, 3}) {
    write_text(shared, alone.substr(0, alone.find('\n') + 1));
    measured_ = 0;
    run_ranks(world, [&](Communicator& control) {
      CellRunner runner(shared, &control, {});
      const auto records = runner.run("squares", cells({1, 2, 3, 4, 5, 6, 7}));
      EXPECT_EQ(records[6]["square"], 49);
    });
    EXPECT_EQ(measured_, 6);
    EXPECT_EQ(read_text(shared), alone);
  }
}

TEST_F(CellsTest, ADamagedLineIsNamed) {
  write_text(path_, "{\"cell\": \"0123\"}\n{\"cell\": 7}\n");
  try {
    CellRunner(path_, nullptr, {});
    FAIL() << "expected an error";
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(), HasSubstr("out.jsonl:2: cell = 7, expected a string"));
  }
}

}  // namespace
}  // namespace tandem
