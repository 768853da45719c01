#include "nn/batch.h"

#include <gmock/gmock.h>
#include <torch/cuda.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <string>

#include "core/random.h"
#include "tests/nn/helpers.h"

namespace tandem {
namespace {

Row row_of(std::vector<int64_t> tokens, std::vector<int64_t> targets, std::vector<int32_t> segment,
           int64_t sample) {
  return {std::move(tokens), std::move(targets), std::move(segment), sample};
}

TEST(BatchTest, HoldsTheRows) {
  const auto batch =
      make_batch({row_of({5, 6, 7}, {6, 7, kIgnored}, {0, 0, 1}, 40),
                  row_of({8, 9, 0}, {9, kIgnored, kIgnored}, {0, 0, -1}, 1000000007)},
                 torch::kCPU);
  EXPECT_TRUE(
      torch::equal(batch.tokens, torch::tensor({5, 6, 7, 8, 9, 0}, torch::kInt64).view({2, 3})));
  EXPECT_TRUE(torch::equal(batch.targets,
                           torch::tensor({6, 7, -100, 9, -100, -100}, torch::kInt64).view({2, 3})));
  EXPECT_TRUE(
      torch::equal(batch.segment, torch::tensor({0, 0, 1, 0, 0, -1}, torch::kInt32).view({2, 3})));
  EXPECT_EQ(batch.segment.scalar_type(), torch::kInt32);
  EXPECT_TRUE(torch::equal(batch.samples, torch::tensor({40, 1000000007}, torch::kInt64)));
  EXPECT_FALSE(batch.weights.defined());
  EXPECT_EQ(batch.total_weight, 3);
}

TEST(BatchTest, RowsOfOneDocumentHaveNoSegments) {
  const auto whole = row_of({5, 6}, {6, 7}, {0, 0}, 0), other = row_of({5, 6}, {6, 7}, {3, 3}, 1);
  EXPECT_FALSE(make_batch({whole, other}, torch::kCPU).segment.defined());
  EXPECT_TRUE(make_batch({whole, row_of({5, 0}, {6, kIgnored}, {0, -1}, 1)}, torch::kCPU)
                  .segment.defined());
  EXPECT_TRUE(make_batch({row_of({0, 0}, {kIgnored, kIgnored}, {-1, -1}, 1)}, torch::kCPU)
                  .segment.defined());
}

TEST(BatchTest, PositionsCountFromTheDocumentsStart) {
  Batch batch;
  batch.tokens = torch::zeros({2, 7}, torch::kInt64);
  EXPECT_TRUE(torch::equal(positions_of(batch), torch::arange(7).repeat({2, 1})));
  batch.segment =
      torch::tensor({0, 0, 0, 1, 1, 2, -1, 4, 5, 5, 5, 5, -1, -1}, torch::kInt32).view({2, 7});
  const auto expected =
      torch::tensor({0, 1, 2, 0, 1, 0, 0, 0, 0, 1, 2, 3, 0, 1}, torch::kInt64).view({2, 7});
  EXPECT_TRUE(torch::equal(positions_of(batch), expected));
}

TEST(BatchTest, OneColumn) {
  const auto batch = make_batch({row_of({5}, {kIgnored}, {-1}, 0)}, torch::kCPU);
  EXPECT_TRUE(torch::equal(positions_of(batch), torch::zeros({1, 1}, torch::kInt64)));
  EXPECT_EQ(batch.total_weight, 0);
}

Row of_targets(std::vector<int64_t> targets, std::vector<float> weights = {}) {
  const size_t n = targets.size();
  return {std::vector<int64_t>(n, 1), std::move(targets), std::vector<int32_t>(n, 0), 0,
          std::move(weights)};
}

Tensor integers(const std::vector<int64_t>& values, int64_t rows) {
  return torch::tensor(values, torch::kInt64).view({rows, -1});
}

TEST(BatchTest, WeightsAreThoseOfScoredTargets) {
  const auto batch = make_batch({of_targets({6, 7, kIgnored, 9, 10}, {0.5f, 0, 4, 2, 0}),
                                 of_targets({6, kIgnored, 8, 9, 10})},
                                torch::kCPU);
  EXPECT_TRUE(
      torch::equal(batch.targets, integers({6, -100, -100, 9, -100, 6, -100, 8, 9, 10}, 2)));
  EXPECT_TRUE(torch::equal(
      batch.weights,
      torch::tensor({0.5, 0., 0., 2., 0., 1., 0., 1., 1., 1.}).to(torch::kFloat32).view({2, 5})));
  EXPECT_EQ(batch.total_weight, 6.5);
}

TEST(BatchTest, NamesTheColumnsOfFewScoredTargets) {
  const int64_t no = kIgnored;
  const auto batch = make_batch(
      {of_targets({no, no, 7, no, 9, no, no, 4}),  // three
       of_targets({no, no, no, no, no, no, no, no}), of_targets({1, no, no, no, no, no, no, 4})},
      torch::kCPU);
  // all scored ones, and first others where there are fewer than three
  EXPECT_TRUE(torch::equal(batch.scored, integers({2, 4, 7, 0, 1, 2, 0, 1, 7}, 3)));
}

TEST(BatchTest, ManyScoredTargetsNeedNoColumns) {
  const int64_t no = kIgnored;
  EXPECT_FALSE(make_batch({of_targets({1, 2, 3, 4})}, torch::kCPU).scored.defined());
  const auto fewer = of_targets({1, no, no, no}), three = of_targets({1, no, 3, 4});
  EXPECT_TRUE(torch::equal(make_batch({fewer, three}, torch::kCPU).scored,
                           integers({0, 1, 2, 0, 2, 3}, 2)));  // three quarters at most
  EXPECT_FALSE(make_batch({of_targets({1, no, 3, 4, 5})}, torch::kCPU).scored.defined());
  const auto weighed = make_batch({of_targets({1, 2, 3, 4}, {0, 0, 0, 1})}, torch::kCPU);
  EXPECT_TRUE(torch::equal(weighed.scored, integers({3}, 1)));
  const auto none = make_batch({of_targets({no, no, no, no})}, torch::kCPU);
  EXPECT_TRUE(torch::equal(none.scored, integers({0}, 1)));
  EXPECT_EQ(none.total_weight, 0);
}

TEST(BatchTest, WeightsThatMakeNoSenseAreAnError) {
  const auto error_of = [](const Row& row) -> std::string {
    try {
      make_batch({row}, torch::kCPU);
    } catch (const c10::Error& error) {
      return error.what_without_backtrace();
    }
    return "nothing was thrown";
  };
  EXPECT_THAT(error_of(of_targets({1, 2}, {1, -0.5f})),
              testing::HasSubstr("make_batch: a target weighs -0.5, expected at least 0"));
  EXPECT_THAT(error_of(of_targets({1, 2}, {1, NAN})),
              testing::HasSubstr("make_batch: a target weighs nan, expected at least 0"));
}

TEST(BatchTest, PaddingIsNoToken) {
  try {
    make_batch({row_of({5, 6, 7}, {6, 7, 8}, {0, 0, 0}, 0),
                row_of({5, 6, kPadding}, {6, kIgnored, kIgnored}, {0, 0, -1}, 1)},
               torch::kCPU);
    FAIL();
  } catch (const c10::Error& error) {
    EXPECT_STREQ(error.what_without_backtrace(),
                 "make_batch: token -1 at column 2, expected an id >= 0; padding has token 0 and "
                 "segment -1");
  }
}

TEST(BatchTest, RowsOfDifferentLengthsAreAnError) {
  EXPECT_THROW(
      make_batch({row_of({5, 6}, {6, 7}, {0, 0}, 0), row_of({5}, {6}, {0}, 1)}, torch::kCPU),
      std::logic_error);
  EXPECT_THROW(make_batch({of_targets({1, 2}, {1})}, torch::kCPU), std::logic_error);
  EXPECT_THROW(make_batch(std::vector<Row>(), torch::kCPU), c10::Error);
  EXPECT_THROW(make_batch(RowsView(), torch::kCPU), c10::Error);
}

/// Rows of all kinds: several documents, padding, weights of 0, unscored targets.
std::vector<Row> random_rows(uint64_t seed, int64_t n, int64_t length, bool weighted,
                             double scored) {
  const RandomStream random(seed);
  uint64_t at = 0;
  std::vector<Row> rows;
  for (int64_t r = 0; r < n; ++r) {
    Row row;
    row.sample = 1000 + r;
    int32_t document = 0;
    for (int64_t t = 0; t < length; ++t) {
      row.tokens.push_back(static_cast<int64_t>(random.below(at++, 50)));
      const bool no = random.uniform(at++) >= scored;
      row.targets.push_back(no ? kIgnored : static_cast<int64_t>(random.below(at++, 50)));
      document += random.below(at++, 5) == 0;
      row.segment.push_back(random.below(at++, 9) == 0 ? -1 : document);
      if (weighted && r % 2 == 0) row.weights.push_back(static_cast<float>(random.below(at++, 3)));
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

void expect_same(const Batch& a, const Batch& b) {
  const auto same = [](const Tensor& x, const Tensor& y) {
    return x.defined() == y.defined() &&
           (!x.defined() || (x.scalar_type() == y.scalar_type() && torch::equal(x, y)));
  };
  EXPECT_TRUE(same(a.tokens, b.tokens));
  EXPECT_TRUE(same(a.targets, b.targets));
  EXPECT_TRUE(same(a.segment, b.segment));
  EXPECT_TRUE(same(a.samples, b.samples));
  EXPECT_TRUE(same(a.weights, b.weights));
  EXPECT_TRUE(same(a.scored, b.scored));
  EXPECT_EQ(a.total_weight, b.total_weight);
}

TEST(BatchTest, MemoryGivesTheBatchOfItsRows) {
  for (const bool weighted : {false, true}) {
    for (const double scored : {0.0, 0.4, 1.0}) {
      const auto rows = random_rows(7, 5, 23, weighted, scored);
      const auto memory = pack_rows(rows);
      expect_same(make_batch(memory->view(), torch::kCPU), make_batch(rows, torch::kCPU));
      // A second time, from what the first left of it.
      expect_same(make_batch(memory->view(), torch::kCPU), make_batch(rows, torch::kCPU));
      const std::vector<Row> some(rows.begin() + 2, rows.begin() + 4);
      const auto part = pack_rows(rows);
      Batch expected = make_batch(some, torch::kCPU);
      expect_same(make_batch(part->view().slice(2, 2), torch::kCPU), expected);
    }
  }
}

// Parts put together are the batch of whole rows; what they score are all their targets.
TEST(BatchTest, PartsOfRows) {
  for (const double scored : {0.0, 0.2, 1.0}) {
    const auto rows = random_rows(9, 5, 24, /*weighted=*/true, scored);
    const Batch whole = make_batch(rows, torch::kCPU);
    for (const int64_t n : {2, 3, 24}) {
      std::map<std::string, Tensors> parts;
      double total_weight = 0;
      for (int64_t r = 0; r < n; ++r) {
        const Batch part = make_batch(rows, torch::kCPU, {r, n});
        parts["tokens"].push_back(part.tokens);
        parts["targets"].push_back(part.targets);
        parts["segment"].push_back(part.segment);
        parts["weights"].push_back(part.weights);
        parts["positions"].push_back(positions_of(part));
        total_weight += part.total_weight;
        EXPECT_TRUE(torch::equal(part.samples, whole.samples));
        EXPECT_TRUE(torch::equal(part.row_segment, whole.segment));
        if (!part.scored.defined()) continue;
        const auto unscored = part.targets.scatter(1, part.scored, kIgnored);
        EXPECT_TRUE((unscored == kIgnored).all().item<bool>());
      }
      EXPECT_EQ(total_weight, whole.total_weight);
      const std::map<std::string, Tensor> expected = {{"tokens", whole.tokens},
                                                      {"targets", whole.targets},
                                                      {"segment", whole.segment},
                                                      {"weights", whole.weights},
                                                      {"positions", positions_of(whole)}};
      for (const auto& [name, tensor] : expected)
        EXPECT_TRUE(torch::equal(torch::cat(parts[name], 1), tensor)) << name << ", " << n << " parts";
    }
  }
}

TEST(BatchTest, OnACpuItIsAViewOfTheMemory) {
  const auto rows = random_rows(8, 3, 11, true, 0.5);
  const auto memory = rows_memory_for(torch::kCPU)(3, 11, true);
  const RowsView view = memory->view();
  for (int64_t r = 0; r < 3; ++r) {
    const auto one = pack_rows({&rows[static_cast<size_t>(r)], 1});
    std::copy_n(one->view().tokens, 11, view.tokens + r * 11);
    std::copy_n(one->view().targets, 11, view.targets + r * 11);
    std::copy_n(one->view().segment, 11, view.segment + r * 11);
    std::fill_n(view.weights + r * 11, 11, static_cast<float>(r));
    view.samples[r] = r;
  }
  const Batch batch = make_batch(view.slice(1, 2), torch::kCPU);
  EXPECT_EQ(batch.tokens.const_data_ptr<int64_t>(), view.tokens + 11);
  EXPECT_EQ(batch.targets.const_data_ptr<int64_t>(), view.targets + 11);
  EXPECT_EQ(batch.segment.const_data_ptr<int32_t>(), view.segment + 11);
  EXPECT_EQ(batch.weights.const_data_ptr<float>(), view.weights + 11);
  EXPECT_EQ(batch.samples.const_data_ptr<int64_t>(), view.samples + 1);
}

TEST(BatchTest, TargetsOfWeight0AreUnscoredInPlace) {
  const auto memory = pack_rows(std::vector<Row>{of_targets({6, 7, kIgnored, 9}, {2, 0, 4, 1})});
  make_batch(memory->view(), torch::kCPU);
  EXPECT_THAT(std::span(memory->view().targets, 4), testing::ElementsAre(6, kIgnored, kIgnored, 9));
  EXPECT_THAT(std::span(memory->view().weights, 4), testing::ElementsAre(2.f, 0.f, 0.f, 1.f));
}

TEST(BatchTest, ABatchOfRowsKeepsItsMemory) {
  std::vector<Batch> batches, again;
  for (uint64_t seed = 0; seed < 20; ++seed)
    batches.push_back(make_batch(random_rows(seed, 3, 1000, true, 0.5), torch::kCPU));
  for (uint64_t seed = 0; seed < 20; ++seed)
    expect_same(batches[seed], make_batch(random_rows(seed, 3, 1000, true, 0.5), torch::kCPU));
}

TEST(BatchGpuTest, PinnedMemoryGivesTheSameBatch) {
  if (torch::cuda::device_count() == 0) GTEST_SKIP() << "no CUDA device";
  const torch::Device device(torch::kCUDA, 0);
  for (const bool weighted : {false, true}) {
    std::vector<Batch> batches;
    for (uint64_t seed = 0; seed < 50; ++seed) {  // memory is given out again while copies run
      const auto memory =
          pack_rows(random_rows(seed, 7, 3001, weighted, 0.5), rows_memory_for(device));
      EXPECT_TRUE(torch::from_blob(memory->view().tokens, {1}, torch::kInt64).is_pinned());
      batches.push_back(make_batch(memory->view(), device));
    }
    for (uint64_t seed = 0; seed < 50; ++seed) {
      Batch& batch = batches[seed];
      for (Tensor* tensor : {&batch.tokens, &batch.targets, &batch.segment, &batch.samples,
                             &batch.weights, &batch.scored}) {
        if (tensor->defined()) *tensor = tensor->cpu();
      }
      expect_same(batch, make_batch(random_rows(seed, 7, 3001, weighted, 0.5), torch::kCPU));
    }
  }
}

}  // namespace
}  // namespace tandem
