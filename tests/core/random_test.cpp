#include "core/random.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>
#include <vector>

#include "tests/core/helpers.h"

namespace tandem {
namespace {

using Words = std::array<uint32_t, 4>;

TEST(PhiloxTest, KnownAnswers) {  // kat_vectors of Random123: zeros, ones, digits of pi
  EXPECT_EQ(philox({}, {}), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(PhiloxTest, PurposesAreFnv1a) {  // test vectors of the FNV authors
  EXPECT_EQ(purpose_id(""), 0xcbf29ce484222325u);
  EXPECT_EQ(purpose_id("a"), 0xaf63dc4c8601ec8cu);
  EXPECT_EQ(purpose_id("foobar"), 0x85944171f73967e8u);
}

TEST(RandomStreamTest, CopiesAreEqualAndDrawsDoNotDependOnOrder) {
  const RandomStream stream(3, 5);
  const RandomStream copy = stream;
  const auto later = stream.bits(9);
  EXPECT_NE(stream.bits(2), later);
  EXPECT_EQ(copy.bits(9), later);
  EXPECT_EQ(RandomStream(3, 5).bits(9), later);
  EXPECT_EQ(stream.fork("init").key(), copy.fork(purpose_id("init")).key());
}

TEST(RandomStreamTest, StreamsOfDifferentOriginDiffer) {
  std::set<std::array<uint32_t, 2>> keys;
  size_t n = 0;
  const auto add = [&](const RandomStream& stream) {
    keys.insert(stream.key());
    ++n;
  };
  for (uint64_t seed = 0; seed < 17; ++seed) {
    for (uint64_t step = 0; step < 13; ++step) {
      const RandomStream root(seed, step);
      add(root);
      for (uint64_t i = 0; i < 19; ++i) {
        add(root.fork(i));
        add(root.fork("dropout").fork(i));
        for (uint64_t j = 0; j < 7; ++j) add(root.fork(i).fork(j));  // (i, j) is not (j, i)
      }
    }
  }
  // what a careless sum or exclusive or of the parts would mix up
  add(RandomStream(uint64_t{1} << 32, 0));
  add(RandomStream(0, uint64_t{1} << 32));
  add(RandomStream(1, uint64_t{1} << 32));
  add(RandomStream(0).fork(uint64_t{1} << 32));
  EXPECT_EQ(keys.size(), n);
}

TEST(RandomStreamTest, AForkIsNotADrawOfItsParent) {
  const RandomStream stream(1);
  for (uint64_t i = 0; i < 50; ++i) {
    const auto words = stream.block(i);
    EXPECT_NE(stream.fork(i).key(), (std::array{words[0], words[1]}));
  }
}

TEST(RandomStreamTest, UniformHasItsMomentsAndRange) {
  const RandomStream stream = RandomStream(11).fork("uniform");
  const int n = 40'000;
  double sum = 0, squares = 0, with_next = 0;
  for (int i = 0; i < n; ++i) {
    const double u = stream.uniform(i);
    ASSERT_GE(u, 0);
    ASSERT_LT(u, 1);
    sum += u;
    squares += u * u;
    with_next += (u - 0.5) * (stream.uniform(i + 1) - 0.5);
  }
  EXPECT_NEAR(sum / n, 1.0 / 2, 5 * std::sqrt(1.0 / 12 / n));  // five standard errors each
  EXPECT_NEAR(squares / n, 1.0 / 3, 5 * std::sqrt(4.0 / 45 / n));
  EXPECT_NEAR(with_next / n, 0, 5 * (1.0 / 12) / std::sqrt(n));
}

TEST(RandomStreamTest, NormalHasItsMomentsAndTails) {
  const RandomStream stream = RandomStream(12).fork("normal");
  const int n = 40'000;
  double sum = 0, squares = 0, fourth = 0;
  int beyond_two = 0;
  for (int i = 0; i < n; ++i) {
    const double x = stream.normal(i);
    sum += x;
    squares += x * x;
    fourth += x * x * x * x;
    beyond_two += std::abs(x) > 2;
  }
  EXPECT_NEAR(sum / n, 0, 5 / std::sqrt(n));
  EXPECT_NEAR(squares / n, 1, 5 * std::sqrt(2.0 / n));
  EXPECT_NEAR(fourth / n, 3, 5 * std::sqrt(96.0 / n));
  const double expected = std::erfc(2 / std::sqrt(2.0));
  EXPECT_NEAR(static_cast<double>(beyond_two) / n, expected, 5 * std::sqrt(expected / n));
}

TEST(RandomStreamTest, BelowIsEvenAndScalesTheWholeRange) {
  const RandomStream stream = RandomStream(13).fork("below");
  const int n = 30'000;
  std::vector<int> counts(7);
  for (int i = 0; i < n; ++i) ++counts.at(stream.below(i, 7));
  for (const int count : counts) EXPECT_NEAR(count, n / 7.0, 5 * std::sqrt(n * 6.0 / 49));
  EXPECT_EQ(stream.below(3, 1), 0u);
  const uint64_t large = (uint64_t{1} << 63) + 5;  // a product that needs 128 bits
  EXPECT_NEAR(static_cast<double>(stream.below(4, large)),
              static_cast<double>(stream.bits(4)) / 0x1p64 * static_cast<double>(large), 4096);
  expect_error<std::logic_error>("RandomStream::below: n = 0, expected at least 1",
                                 [&] { stream.below(0, 0); });
}

TEST(PermutationTest, IsABijectionForEverySmallSize) {
  for (uint64_t n = 1; n <= 300; ++n) {
    const Permutation permutation(n, RandomStream(n));
    std::vector<bool> seen(n);
    for (uint64_t i = 0; i < n; ++i) {
      const uint64_t image = permutation(i);
      ASSERT_LT(image, n);
      ASSERT_FALSE(seen[image]) << "n = " << n << ", twice " << image;
      seen[image] = true;
    }
  }
}

TEST(PermutationTest, IsABijectionAroundPowersOfTwo) {
  for (const uint64_t n : {4095, 4096, 4097, 65'537, 100'003}) {
    const Permutation permutation(n, RandomStream(7));
    std::vector<bool> seen(n);
    for (uint64_t i = 0; i < n; ++i) seen.at(permutation(i)) = true;
    EXPECT_EQ(std::count(seen.begin(), seen.end(), true), static_cast<int64_t>(n));
  }
}

TEST(PermutationTest, HugeSizesStayInRangeWithoutRepeating) {
  for (const uint64_t n : {(uint64_t{1} << 40) + 3, uint64_t{1} << 62, UINT64_MAX}) {
    const Permutation permutation(n, RandomStream(7));
    std::set<uint64_t> images;
    for (uint64_t i = 0; i < 500; ++i) {
      images.insert(permutation(i));
      images.insert(permutation(n - 1 - i));
    }
    EXPECT_EQ(images.size(), 1000u);
    EXPECT_LT(*images.rbegin(), n);
    EXPECT_GT(*images.rbegin(), n / 10 * 9);  // not only small numbers
  }
}

TEST(PermutationTest, ChangesWithTheStream) {
  const uint64_t n = 1000;
  const Permutation a(n, RandomStream(1)), same(n, RandomStream(1)), b(n, RandomStream(2));
  int fixed = 0, equal = 0;
  for (uint64_t i = 0; i < n; ++i) {
    EXPECT_EQ(a(i), same(i));
    fixed += a(i) == i;
    equal += a(i) == b(i);
  }
  EXPECT_LT(fixed, 10);  // one expected
  EXPECT_LT(equal, 10);
}

TEST(PermutationTest, AllOrdersOfFewThingsAreAsLikely) {
  const int n = 24'000;
  std::map<std::vector<uint64_t>, int> counts;
  for (int seed = 0; seed < n; ++seed) {
    const Permutation permutation(4, RandomStream(seed));
    ++counts[{permutation(0), permutation(1), permutation(2), permutation(3)}];
  }
  EXPECT_EQ(counts.size(), 24u);
  double chi_square = 0;
  for (const auto& [order, count] : counts)
    chi_square += (count - 1000.0) * (count - 1000.0) / 1000;
  EXPECT_LT(chi_square, 49.7);  // 23 degrees of freedom, p = 0.001
}

TEST(PermutationTest, RefusesWhatIsNotInIt) {
  expect_error<std::logic_error>("Permutation: n = 0, expected at least 1",
                                 [] { Permutation(0, RandomStream()); });
  expect_error<std::logic_error>("Permutation: i = 5, expected below 5",
                                 [] { Permutation(5, RandomStream())(5); });
}

}  // namespace
}  // namespace tandem
