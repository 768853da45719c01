#include "data/loader.h"

#include <gtest/gtest.h>

#include <atomic>
#include <set>

#include "tests/data/token_files.h"

namespace tandem {
namespace {

class LoaderTest : public testing::Test {
 protected:
  /// 300 tokens in documents of 1 to 19; `damaged` makes token 150 negative.
  std::shared_ptr<const Sampler> sampler(bool damaged = false,
                                         const std::string& shuffle = "documents") {
    std::vector<int64_t> lengths;
    int64_t tokens = 0;
    for (int64_t length = 1; tokens < 300; length = length * 7 % 19 + 1) {
      lengths.push_back(std::min(length, 300 - tokens));
      tokens += lengths.back();
    }
    write_tokens(folder_ / "x", lengths, 0);
    if (damaged) {
      std::string bin = file_bytes(folder_ / "x.bin");
      bin[4 * 150 + 3] = '\x80';
      write_file(folder_ / "x.bin", bin);
    }
    return std::make_shared<Sampler>(std::vector<SourceSpec>{{{folder_ / "x"}, 1}}, 7, shuffle,
                                     true, 5);
  }
  TempFolder folder_;
};

/// Groups one behind the other, the k-th of size(k) samples.
template <typename Size>
Loader::Groups groups_from(int64_t first, Size size) {
  return [next = first, size](int64_t k) mutable {
    const SampleRange group = {next, size(k)};
    next += group.n;
    return group;
  };
}

Loader::Groups groups_of(int64_t first, int64_t n) {
  return groups_from(first, [n](int64_t) { return n; });
}

TEST_F(LoaderTest, GivesTheSameRowsWhateverTheGroups) {
  const auto rows = sampler();
  int64_t (*const sizes[])(int64_t) = {
      [](int64_t) -> int64_t { return 1; }, [](int64_t) -> int64_t { return 2; },
      [](int64_t) -> int64_t { return 5; }, [](int64_t k) -> int64_t { return 1 + k * k % 7; }};
  for (const auto& size : sizes) {
    for (const int64_t ahead : {1, 3}) {
      Loader loader(rows, groups_from(11, size), ahead);
      int64_t sample = 11;
      for (int64_t k = 0; k < 12; ++k) {  // over the border of an epoch of 43 windows
        const auto memory = loader.next();
        const RowsView given = memory->view();
        ASSERT_EQ(given.rows, size(k));
        EXPECT_EQ(given.weights, nullptr);
        for (int64_t r = 0; r < given.rows; ++r, ++sample) {
          EXPECT_EQ(given.samples[r], sample);
          expect_same(row_at(given, r), rows->row(sample));
        }
      }
    }
  }
}

TEST_F(LoaderTest, RanksReadTogetherWhatOneReadsAlone) {
  const auto rows = sampler();
  const auto size = [](int64_t k) -> int64_t { return 4 + k * 3 % 7; };  // 4, 7, 10, 6, 9, 5, 8
  for (int64_t world = 1; world <= 4; ++world) {
    std::vector<std::unique_ptr<Loader>> ranks;
    for (int64_t rank = 0; rank < world; ++rank) {
      ranks.push_back(std::make_unique<Loader>(
          rows, [steps = groups_from(2, size), rank, world](int64_t k) mutable {
            return share_of(steps(k), rank, world);
          }));
    }
    int64_t sample = 2;
    for (int64_t k = 0; k < 15; ++k) {  // more than two epochs
      const int64_t step_begin = sample;
      for (const auto& rank : ranks) {
        const auto memory = rank->next();
        EXPECT_LE(memory->view().rows, size(k) / world + 1);
        EXPECT_GE(memory->view().rows, size(k) / world);
        for (int64_t r = 0; r < memory->view().rows; ++r, ++sample)
          expect_same(row_at(memory->view(), r), rows->row(sample));
      }
      ASSERT_EQ(sample, step_begin + size(k));
    }
  }
}

TEST(ShareTest, SharesOfAStepAreItsRowsInOrder) {
  for (int64_t n = 0; n < 20; ++n) {
    for (int64_t world = 1; world < 8; ++world) {
      int64_t next = 100;
      for (int64_t rank = 0; rank < world; ++rank) {
        const SampleRange share = share_of({100, n}, rank, world);
        EXPECT_EQ(share.first, next);
        EXPECT_TRUE(share.n == n / world || share.n == (n + world - 1) / world);
        next += share.n;
      }
      EXPECT_EQ(next, 100 + n);
    }
  }
  for (const auto& [rank, world] : {std::pair(0, 0), {2, 2}, {-1, 2}})
    EXPECT_THROW(share_of({0, 4}, rank, world), std::logic_error);
}

/// Memory that says when it goes.
struct WatchedRows : RowsMemory {
  WatchedRows(int64_t rows, int64_t length, bool weighted, std::set<const RowsMemory*>& all)
      : plain(make_rows_memory(rows, length, weighted)), alive(all) {
    alive.insert(this);
  }
  ~WatchedRows() override { alive.erase(this); }
  RowsView view() const override { return plain->view(); }
  std::unique_ptr<RowsMemory> plain;
  std::set<const RowsMemory*>& alive;
};

TEST_F(LoaderTest, FillsTheMemoryItIsGiven) {
  write_weights(folder_ / "y", write_tokens(folder_ / "y", {40, 3, 9}, 5000));
  const auto rows = std::make_shared<Sampler>(
      std::vector<SourceSpec>{{{.path = folder_ / "y", .weights = TargetWeights::kRead}, 1}}, 7,
      "windows", true, 5);
  std::mutex mutex;
  std::set<const RowsMemory*> alive;
  std::set<std::thread::id> threads;
  {
    Loader loader(rows, groups_of(3, 2), 3, [&](int64_t n, int64_t length, bool weighted) {
      EXPECT_EQ(n, 2);
      EXPECT_EQ(length, 7);
      EXPECT_TRUE(weighted);
      const std::lock_guard lock(mutex);
      threads.insert(std::this_thread::get_id());
      return std::make_unique<WatchedRows>(n, length, weighted, alive);
    });
    std::vector<std::unique_ptr<RowsMemory>> kept;
    for (int64_t k = 0; k < 6; ++k) {
      kept.push_back(loader.next());
      const std::lock_guard lock(mutex);
      EXPECT_EQ(alive.count(kept.back().get()), 1u);
    }
    for (int64_t k = 0; k < 6; ++k) {  // none was given to two groups
      for (int64_t r = 0; r < 2; ++r)
        expect_same(row_at(kept[k]->view(), r), rows->row(3 + 2 * k + r));
    }
    const std::lock_guard lock(mutex);
    EXPECT_EQ(threads.size(), 1u);
    EXPECT_EQ(threads.count(std::this_thread::get_id()), 0u);
    kept.clear();
  }
  EXPECT_TRUE(alive.empty());
}

TEST_F(LoaderTest, AsksForGroupsAheadOfReadingThem) {
  int64_t asked = 0;
  std::vector<int64_t> asked_before;  // each group was read
  {
    Loader loader(
        sampler(),
        [&](int64_t k) {
          EXPECT_EQ(k, asked++);
          return SampleRange{.first = k, .n = k == 9 ? 0 : 1};
        },
        3,
        [&](int64_t n, int64_t length, bool weighted) {
          asked_before.push_back(asked);
          return make_rows_memory(n, length, weighted);
        });
    for (int64_t k = 0; k < 9; ++k) EXPECT_EQ(loader.next()->view().samples[0], k);
  }
  EXPECT_EQ(asked_before, (std::vector<int64_t>{2, 4, 6, 7, 8, 9, 10, 10, 10}));
}

TEST_F(LoaderTest, StopsWhileReadingAhead) {
  const auto rows = sampler();
  for (int i = 0; i < 50; ++i) Loader loader(rows, groups_of(i, 3), 2);  // never asked
  SUCCEED();
}

TEST_F(LoaderTest, RethrowsAfterWhatWasReadBefore) {
  const auto rows = sampler(true, "none");
  Loader loader(rows, groups_of(0, 4));
  for (int64_t first = 0; first + 3 < 21; first += 4) {  // window 21 is tokens 147 to 154
    EXPECT_EQ(loader.next()->view().samples[0], first);
  }
  for (int again = 0; again < 2; ++again) {
    EXPECT_EQ(error_of([&] { loader.next(); }),
              folder_ / "x.bin" + ": token 150 is -2147483498, expected 0 or more");
  }
}

TEST_F(LoaderTest, RethrowsThatThereIsNoMemory) {
  int64_t made = 0;
  Loader loader(sampler(), groups_of(0, 4), 4, [&](int64_t n, int64_t length, bool weighted) {
    if (made++ == 2) throw std::bad_alloc();
    return make_rows_memory(n, length, weighted);
  });
  EXPECT_EQ(loader.next()->view().samples[0], 0);
  EXPECT_EQ(loader.next()->view().samples[0], 4);
  EXPECT_THROW(loader.next(), std::bad_alloc);
}

TEST_F(LoaderTest, RefusesImpossibleNumbers) {
  const auto rows = sampler();
  EXPECT_THROW(Loader(rows, {}), std::logic_error);
  EXPECT_THROW(Loader(rows, groups_of(0, 1), 0), std::logic_error);
  EXPECT_THROW(Loader(nullptr, groups_of(0, 1)), std::logic_error);
  EXPECT_THROW(Loader(rows, groups_of(0, 1), 4, nullptr), std::logic_error);
  EXPECT_THROW(Loader(rows, groups_of(-1, 1)).next(), std::logic_error);
}

/// What next() says when it throws std::logic_error.
std::string logic_error_of(Loader& loader) {
  try {
    loader.next();
  } catch (const std::logic_error& error) {
    return error.what();
  }
  ADD_FAILURE() << "no std::logic_error";
  return "";
}

TEST_F(LoaderTest, AnEmptyGroupIsTheEnd) {
  std::atomic<int64_t> asked = 0;
  {
    Loader loader(sampler(), groups_from(0, [&](int64_t k) {
                    ++asked;
                    return 2 - k;
                  }));
    EXPECT_EQ(loader.next()->view().rows, 2);
    EXPECT_EQ(loader.next()->view().rows, 1);
    for (int again = 0; again < 2; ++again)
      EXPECT_EQ(logic_error_of(loader), "Loader::next: there is no group behind the last one");
  }
  EXPECT_EQ(asked, 3);
}

TEST_F(LoaderTest, AGroupOfFewerThanNoRowsIsNamedAfterThoseBeforeIt) {
  Loader loader(sampler(), groups_from(0, [](int64_t k) { return 2 - 3 * k; }));
  EXPECT_EQ(loader.next()->view().rows, 2);
  EXPECT_EQ(logic_error_of(loader), "Loader: group 1 has -1 rows, expected at least 0");
}

}  // namespace
}  // namespace tandem
