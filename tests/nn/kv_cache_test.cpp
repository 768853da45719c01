#include "nn/kv_cache.h"

#include <gtest/gtest.h>

#include "nn/cache_rows.h"
#include "tests/nn/helpers.h"

namespace tandem {
namespace {

constexpr int64_t kHeads = 2, kHeadDim = 3;

Tensor random_tokens(int64_t batch, int64_t n_tokens, uint64_t seed) {
  return torch::randn({batch, n_tokens, kHeads, kHeadDim}, seeded(seed), torch::kFloat64);
}

KvCache make_cache(int64_t batch, int64_t capacity) {
  return KvCache({.batch = batch, .capacity = capacity, .dtype = torch::kFloat64}, kHeads,
                 kHeadDim);
}

TEST(KvCacheTest, HoldsWhatWasAppendedAndGrows) {
  auto cache = make_cache(2, 4);
  const auto k = random_tokens(2, 23, 1), v = random_tokens(2, 23, 2);
  int64_t begin = 0;
  for (const int64_t n : {3, 1, 1, 11, 7}) {  // past the capacity twice
    const auto positions = positions_after(cache.key_lengths(), n);
    cache.append(k.narrow(1, begin, n), v.narrow(1, begin, n), positions, {});
    begin += n;
    EXPECT_TRUE(cache.keys().equal(k.narrow(1, 0, begin)));
    EXPECT_TRUE(cache.values().equal(v.narrow(1, 0, begin)));
    EXPECT_TRUE(cache.key_lengths().equal(torch::full({2}, begin, torch::kInt64)));
    EXPECT_FALSE(
        cache.mask(positions).key_lengths.defined());  // aligned to the end: no mask is needed
  }
}

TEST(KvCacheTest, AppendingOneByOneCopiesSeldom) {
  auto cache = make_cache(1, 0);
  const auto k = random_tokens(1, 100, 1);
  int64_t moves = 0;
  const void* data = nullptr;
  for (int64_t t = 0; t < 100; ++t) {
    cache.append(k.narrow(1, t, 1), k.narrow(1, t, 1), torch::full({1, 1}, t, torch::kInt64), {});
    moves += cache.keys().data_ptr() != data;
    data = cache.keys().data_ptr();
  }
  EXPECT_TRUE(cache.keys().equal(k));
  EXPECT_LE(moves, 8);  // 1, 2, 4, ..., 128
}

TEST(KvCacheTest, RowsOfDifferentLengthsKeepTheirOwnTokens) {
  auto cache = make_cache(3, 5);
  const std::vector<std::vector<int64_t>> calls = {{4, 2, 0}, {0, 3, 1}, {1, 1, 1}, {2, 0, 4}};
  std::vector<Tensors> held(3);
  std::vector<int64_t> n_held(3, 0);
  for (size_t call = 0; call < calls.size(); ++call) {
    const auto lengths = torch::tensor(calls[call], torch::kInt64);
    const int64_t n_tokens = lengths.max().item<int64_t>();
    const auto k = random_tokens(3, n_tokens, call);
    const auto positions = positions_after(cache.key_lengths(), n_tokens);
    cache.append(k, 2 * k, positions, lengths);
    const auto keys = cache.keys(), values = cache.values();
    EXPECT_TRUE(keys.isfinite().all().item<bool>());
    for (size_t b = 0; b < 3; ++b) {
      const auto row = static_cast<int64_t>(b);
      held[b].push_back(k[row].narrow(0, 0, calls[call][b]));
      n_held[b] += calls[call][b];
      ASSERT_LE(n_held[b], keys.size(1));
      const auto expected = torch::cat(held[b]);
      EXPECT_TRUE(keys[row].narrow(0, 0, n_held[b]).equal(expected))
          << "row " << b << ", call " << call;
      EXPECT_TRUE(values[row].narrow(0, 0, n_held[b]).equal(2 * expected))
          << "row " << b << ", call " << call;
    }
    EXPECT_TRUE(cache.key_lengths().equal(torch::tensor(n_held, torch::kInt64)));
    const auto mask = cache.mask(positions);
    EXPECT_TRUE(mask.key_lengths.equal(cache.key_lengths()));
    EXPECT_TRUE(mask.query_index.equal(positions));
  }
}

TEST(KvCacheTest, HoldsItsOwnType) {
  KvCache cache({.batch = 2, .capacity = 3, .dtype = torch::kBFloat16}, kHeads, kHeadDim);
  const auto k = random_tokens(2, 7, 1);
  const auto append = [&](int64_t begin, int64_t n, const Tensor& lengths) {
    const auto added = k.narrow(1, begin, n);
    cache.append(added, 2 * added, positions_after(cache.key_lengths(), n), lengths);
  };
  append(0, 2, {});
  append(2, 5, torch::tensor({5, 3}, torch::kInt64));  // ragged, past the capacity
  EXPECT_EQ(cache.keys().scalar_type(), torch::kBFloat16);
  EXPECT_TRUE(cache.keys()[0].equal(k[0].to(torch::kBFloat16)));
  EXPECT_TRUE(
      cache.values()[1].narrow(0, 0, 5).equal((2 * k[1]).narrow(0, 0, 5).to(torch::kBFloat16)));
}

TEST(KvCacheTest, HoldsCodes) {
  KvCache cache({.batch = 2, .capacity = 3, .dtype = torch::kInt8}, kHeads, kHeadDim);
  const auto k = random_tokens(2, 7, 1), rows = to_cache_rows(k, torch::kInt8);
  const auto append = [&](int64_t begin, int64_t n, const Tensor& lengths) {
    const auto added = k.narrow(1, begin, n);
    cache.append(added, added, positions_after(cache.key_lengths(), n), lengths);
  };
  append(0, 2, {});
  append(2, 5, torch::tensor({5, 3}, torch::kInt64));  // ragged, past the capacity
  EXPECT_TRUE(cache.keys()[0].equal(rows[0]));
  EXPECT_TRUE(cache.values()[1].narrow(0, 0, 5).equal(rows[1].narrow(0, 0, 5)));
  EXPECT_TRUE(cache.select(torch::tensor({1}, torch::kInt64)).keys().equal(cache.keys()[1].unsqueeze(0)));
}

TEST(KvCacheTest, LengthsThatFillEveryRowAreNotRagged) {
  auto cache = make_cache(2, 5);
  const auto k = random_tokens(2, 3, 1);
  const auto positions = positions_after(cache.key_lengths(), 3);
  cache.append(k, k, positions, torch::tensor({3, 3}, torch::kInt64));
  EXPECT_FALSE(cache.mask(positions).query_index.defined());
}

TEST(KvCacheTest, SelectedRowsGoTheirOwnWay) {
  auto cache = make_cache(2, 4);
  const auto k = random_tokens(2, 3, 1), more = random_tokens(3, 2, 2);
  cache.append(k, k, positions_after(cache.key_lengths(), 3), {});
  const auto rows = torch::tensor({1, 1, 0}, torch::kInt64);
  auto selected = cache.select(rows);
  EXPECT_TRUE(selected.keys().equal(k.index_select(0, rows)));
  selected.append(more, more, positions_after(selected.key_lengths(), 2), {});
  EXPECT_TRUE(selected.keys().equal(torch::cat({k.index_select(0, rows), more}, 1)));
  EXPECT_TRUE(selected.key_lengths().equal(torch::tensor({5, 5, 5}, torch::kInt64)));
  EXPECT_TRUE(cache.keys().equal(k));  // the original has not changed
}

TEST(KvCacheTest, RefusesOtherShapes) {
  auto cache = make_cache(2, 4);
  const auto k = random_tokens(3, 2, 1);
  EXPECT_THROW(cache.append(k, k, torch::zeros({3, 2}, torch::kInt64), {}), c10::Error);
}

}  // namespace
}  // namespace tandem
