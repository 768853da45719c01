#include "data/loader.h"

#include <gtest/gtest.h>

#include "tests/data/temp_folder.h"

namespace tandem {
namespace {

bool same(const Row& a, const Row& b) {
  return a.tokens == b.tokens && a.targets == b.targets && a.segment == b.segment &&
         a.sample == b.sample;
}

class LoaderTest : public testing::Test {
 protected:
  /// 300 tokens in documents of 1 to 19; `damaged` makes token 150 negative.
  std::shared_ptr<const Sampler> sampler(bool damaged = false,
                                         const std::string& shuffle = "documents") {
    TokenFileWriter writer(folder_ / "x", 100'000);
    int32_t token = 0;
    for (int32_t length = 1; token < 300; length = length * 7 % 19 + 1) {
      std::vector<int32_t> document;
      for (int32_t i = 0; i < length && token < 300; ++i) document.push_back(token++);
      writer.add_document(document);
    }
    writer.finish();
    if (damaged) {
      std::string bin = file_bytes(folder_ / "x.bin");
      bin[4 * 150 + 3] = '\x80';
      write_file(folder_ / "x.bin", bin);
    }
    return std::make_shared<Sampler>(std::vector<SourceSpec>{{folder_ / "x", 1}}, 7, shuffle, true,
                                     5);
  }
  TempFolder folder_;
};

Loader::GroupSizes groups_of(int64_t size) {
  return [size](int64_t) { return size; };
}

TEST_F(LoaderTest, GivesTheSameRowsWhateverTheGroups) {
  const auto rows = sampler();
  const Loader::GroupSizes sizes[] = {groups_of(1), groups_of(2), groups_of(5),
                                      [](int64_t k) { return 1 + k * k % 7; }};
  for (const auto& size : sizes) {
    for (const int64_t ahead : {1, 3}) {
      Loader loader(rows, 11, size, ahead);
      int64_t sample = 11;
      for (int64_t k = 0; k < 12; ++k) {  // over the border of an epoch of 43 windows
        const auto given = loader.next();
        ASSERT_EQ(given.size(), static_cast<size_t>(size(k)));
        for (const Row& row : given) {
          EXPECT_EQ(row.sample, sample);
          EXPECT_TRUE(same(row, rows->row(sample))) << sample;
          ++sample;
        }
      }
    }
  }
}

TEST_F(LoaderTest, StopsWhileReadingAhead) {
  const auto rows = sampler();
  for (int i = 0; i < 50; ++i) Loader loader(rows, i, groups_of(3), 2);  // never asked
  SUCCEED();
}

TEST_F(LoaderTest, RethrowsAfterWhatWasReadBefore) {
  const auto rows = sampler(true, "none");
  Loader loader(rows, 0, groups_of(4));
  for (int64_t first = 0; first + 3 < 21; first += 4) {  // window 21 is tokens 147 to 154
    EXPECT_EQ(loader.next().front().sample, first);
  }
  for (int again = 0; again < 2; ++again) {
    EXPECT_EQ(error_of([&] { loader.next(); }),
              folder_ / "x.bin" + ": token 150 is -2147483498, expected 0 or more");
  }
}

TEST_F(LoaderTest, RefusesImpossibleNumbers) {
  const auto rows = sampler();
  EXPECT_THROW(Loader(rows, -1, groups_of(1)), std::logic_error);
  EXPECT_THROW(Loader(rows, 0, {}), std::logic_error);
  EXPECT_THROW(Loader(rows, 0, groups_of(1), 0), std::logic_error);
  EXPECT_THROW(Loader(nullptr, 0, groups_of(1)), std::logic_error);
}

TEST_F(LoaderTest, AnEmptyGroupIsNamedAfterThoseBeforeIt) {
  Loader loader(sampler(), 0, [](int64_t k) { return 2 - k; });
  EXPECT_EQ(loader.next().size(), 2u);
  EXPECT_EQ(loader.next().size(), 1u);
  try {
    loader.next();
    FAIL();
  } catch (const std::logic_error& error) {
    EXPECT_STREQ(error.what(), "Loader: group 2 has 0 rows, expected at least 1");
  }
}

}  // namespace
}  // namespace tandem
