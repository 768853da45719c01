#include "nn/tensor_piece.h"

#include <gtest/gtest.h>

#include "tests/nn/helpers.h"

namespace tandem {
namespace {

using Piece = ManifestTensor::Piece;

ParameterInfo divided(std::vector<int64_t> shape, int dim, int64_t begin, int64_t end) {
  ParameterInfo info;
  info.name = "p";
  info.global_shape = std::move(shape);
  info.split_dim = dim;
  info.split_begin = begin;
  info.split_end = end;
  return info;
}

/// The numbers of the elements of the whole parameter that a piece holds, by LibTorch.
Tensor elements_held(const ParameterInfo& info, int64_t begin, int64_t end) {
  const Tensor whole = torch::arange(info.numel()).view(info.global_shape);
  return local_part(info, whole).reshape({-1}).slice(0, begin, end);
}

/// Slices of a parameter of three dimensions, whole or divided along any of them.
std::vector<ParameterInfo> slices() {
  const std::vector<int64_t> shape = {4, 5, 3};
  return {divided(shape, -1, 0, 0), divided(shape, 0, 0, 4), divided(shape, 0, 1, 3),
          divided(shape, 1, 0, 2),  divided(shape, 1, 2, 5), divided(shape, 2, 1, 2),
          divided(shape, 2, 0, 3)};
}

TEST(TensorPieceTest, KnowsWhereItsElementsAre) {
  for (const auto& info : slices()) {
    const Tensor expected = elements_held(info, 0, info.numel());
    for (int64_t i = 0; i < expected.numel(); ++i)
      ASSERT_EQ(whole_index(range_of(info, i, i), 0), expected[i].item<int64_t>());
  }
}

// Every range of every slice against some of every other: the elements that both hold, each once.
TEST(TensorPieceTest, OverlapsAreThoseOfTheElements) {
  for (const auto& one : slices()) {
    for (const auto& other : slices()) {
      const int64_t n = elements_of(one.local_shape()), m = elements_of(other.local_shape());
      for (int64_t begin = 0; begin <= n; begin += 3) {
        for (int64_t end = begin; end <= n; end += 5) {
          const Tensor want = elements_held(one, begin, end),
                       have = elements_held(other, m / 3, m - m / 5);
          Tensor found = torch::full({end - begin}, -1, torch::kInt64);
          int64_t next = 0;
          for_each_overlap(range_of(one, begin, end), range_of(other, m / 3, m - m / 5),
                           [&](int64_t i, int64_t j, int64_t count) {
                             ASSERT_GE(i, next);
                             ASSERT_GT(count, 0);
                             next = i + count;
                             found.slice(0, i, next).copy_(have.slice(0, j, j + count));
                           });
          ASSERT_TRUE(found.equal(torch::where(torch::isin(want, have), want, -1)))
              << one.split_dim << " " << other.split_dim << " [" << begin << ", " << end << ")";
        }
      }
    }
  }
}

TEST(TensorPieceTest, FindsTheFirstMissingElement) {
  EXPECT_EQ(first_missing({}, 0), 0);
  EXPECT_EQ(first_missing({}, 3), 0);
  EXPECT_EQ(first_missing({{4, 6}, {0, 4}}, 6), 6);
  EXPECT_EQ(first_missing({{5, 6}, {0, 4}}, 6), 4);
  EXPECT_EQ(first_missing({{0, 4}, {1, 2}, {3, 6}}, 7), 6);
}

TEST(TensorPieceTest, PiecesMakeUpTheirParameter) {
  const auto columns = [](int64_t begin, int64_t end, int64_t from, int64_t to) {
    return range_of(divided({3, 5}, 1, begin, end), from, to);
  };
  const auto whole = [](int64_t from, int64_t to) {
    return range_of(divided({3, 5}, -1, 0, 0), from, to);
  };
  EXPECT_EQ(fault_of_pieces({whole(0, 15)}), "");
  EXPECT_EQ(fault_of_pieces({whole(9, 15), whole(4, 4), whole(0, 9)}), "");
  EXPECT_EQ(fault_of_pieces({columns(2, 5, 0, 9), columns(0, 2, 5, 6), columns(0, 2, 0, 5)}), "");
  EXPECT_EQ(fault_of_pieces({range_of(divided({0, 5}, -1, 0, 0), 0, 0)}), "");
  EXPECT_EQ(fault_of_pieces({range_of(divided({}, -1, 0, 0), 0, 1)}), "");

  EXPECT_EQ(fault_of_pieces({}), "there is no piece");
  EXPECT_EQ(fault_of_pieces({whole(0, 0)}), "no piece holds element 0");
  EXPECT_EQ(fault_of_pieces({whole(0, 7)}), "no piece holds element 7");
  EXPECT_EQ(fault_of_pieces({whole(0, 7), whole(8, 15)}), "no piece holds element 7");
  EXPECT_EQ(fault_of_pieces({whole(1, 15)}), "no piece holds element 0");
  EXPECT_EQ(fault_of_pieces({whole(0, 8), whole(7, 15)}), "element 7 comes twice");
  EXPECT_EQ(fault_of_pieces({whole(0, 15), whole(0, 15)}), "element 0 comes twice");
  // Columns 0 and 1 of five: element 2 of the whole is the third column's first.
  EXPECT_EQ(fault_of_pieces({columns(0, 2, 0, 6)}), "no piece holds element 2");
  EXPECT_EQ(fault_of_pieces({columns(0, 2, 0, 6), columns(3, 5, 0, 6)}),
            "no piece holds element 2");
  EXPECT_EQ(fault_of_pieces({columns(0, 2, 0, 3), columns(2, 5, 0, 9)}),
            "no piece holds element 6");
  EXPECT_EQ(fault_of_pieces({columns(0, 2, 0, 6), columns(1, 5, 0, 12)}), "element 1 comes twice");
  EXPECT_EQ(fault_of_pieces({columns(0, 5, 0, 15), whole(0, 15)}),
            "pieces are divided along different dimensions");
  EXPECT_EQ(fault_of_pieces({whole(0, 15), range_of(divided({15}, -1, 0, 0), 0, 15)}),
            "pieces are of different shapes");
}

TEST(TensorPieceTest, RangesLieInTheirSlice) {
  EXPECT_THROW(range_of(divided({3, 5}, 1, 0, 2), 0, 7), c10::Error);
  EXPECT_THROW(range_of(divided({3, 5}, 1, 0, 2), 4, 3), c10::Error);
}

}  // namespace
}  // namespace tandem
