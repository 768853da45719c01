#include "data/byte_bpe.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <random>
#include <stdexcept>
#include <thread>
#include <utility>

namespace tandem {
namespace {

using Ids = std::vector<int32_t>;
using Strings = std::vector<std::string>;
using Merges = std::vector<ByteBpe::Merge>;

/// A token for each byte, whose id is the byte, and `more` behind them.
Strings bytes_and(const Strings& more) {
  Strings tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(1, static_cast<char>(byte));
  tokens.insert(tokens.end(), more.begin(), more.end());
  return tokens;
}

Ids encode(const ByteBpe& bpe, std::string_view pretoken) {
  Ids ids = {-7};  // append() leaves what is there
  bpe.append(pretoken, ids);
  EXPECT_EQ(ids.front(), -7);
  ids.erase(ids.begin());
  return ids;
}

/// Of the tokens that are there.
std::map<std::string, int32_t> id_by_bytes(const Strings& tokens) {
  std::map<std::string, int32_t> ids;
  for (size_t id = 0; id < tokens.size(); ++id)
    if (!tokens[id].empty()) ids[tokens[id]] = static_cast<int32_t>(id);
  return ids;
}

/// The definition: the adjacent pair of lowest rank merges, the leftmost of equals, until no pair
/// does. `rank_of` is that of two neighbours, or -1.
template <typename RankOf>
Strings merged(std::string_view pretoken, const RankOf& rank_of) {
  Strings parts;
  for (const char byte : pretoken) parts.emplace_back(1, byte);
  while (true) {
    int64_t lowest = -1;
    size_t at = 0;
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      const int64_t rank = rank_of(parts[i], parts[i + 1]);
      if (rank < 0 || (lowest >= 0 && rank >= lowest)) continue;
      lowest = rank;
      at = i;
    }
    if (lowest < 0) return parts;
    parts[at] += parts[at + 1];
    parts.erase(parts.begin() + static_cast<int64_t>(at) + 1);
  }
}

std::string random_text(std::mt19937& random, size_t length) {
  const char* const kPieces[] = {"a", "a", "a", "b", "b", "c", "ab", "aab", "\xC3\xA9", "\xE4\xBD"};
  std::string text;
  while (text.size() < length) text += kPieces[random() % std::size(kPieces)];
  return text.substr(0, length);
}

struct Vocabulary {
  Strings tokens;
  Merges merges;
};

/// Learns `n` merges, each of the pair that is then most frequent in some text.
Vocabulary train(std::mt19937& random, int n) {
  Strings tokens = bytes_and({});
  std::shuffle(tokens.begin(), tokens.end(), random);
  auto ids = id_by_bytes(tokens);
  Merges merges;
  Ids text;
  for (const char byte : random_text(random, 1500)) text.push_back(ids[std::string(1, byte)]);
  for (int i = 0; i < n; ++i) {
    std::map<std::pair<int32_t, int32_t>, int> counts;
    for (size_t at = 0; at + 1 < text.size(); ++at) ++counts[{text[at], text[at + 1]}];
    const auto by_count = [](const auto& a, const auto& b) { return a.second < b.second; };
    const auto [left, right] = std::ranges::max_element(counts, by_count)->first;
    const std::string bytes =
        tokens[static_cast<size_t>(left)] + tokens[static_cast<size_t>(right)];
    const auto [token, is_new] = ids.emplace(bytes, static_cast<int32_t>(tokens.size()));
    if (is_new) tokens.push_back(bytes);
    merges.push_back({left, right, token->second});
    for (size_t at = 0; at + 1 < text.size(); ++at) {
      if (text[at] != left || text[at + 1] != right) continue;
      text[at] = token->second;
      text.erase(text.begin() + static_cast<int64_t>(at) + 1);
    }
  }
  return {tokens, merges};
}

/// Every way in which a token is two tokens, in random order.
Merges all_cuts(const Strings& tokens, std::mt19937& random) {
  const auto ids = id_by_bytes(tokens);
  Merges merges;
  for (const auto& [bytes, id] : ids)
    for (size_t cut = 1; cut < bytes.size(); ++cut) {
      const auto left = ids.find(bytes.substr(0, cut)), right = ids.find(bytes.substr(cut));
      if (left != ids.end() && right != ids.end())
        merges.push_back({left->second, right->second, id});
    }
  std::shuffle(merges.begin(), merges.end(), random);
  return merges;
}

/// Random pre-tokens, short ones, long ones and of all sizes between the two ways to merge, and the
/// tokens themselves.
Strings pretokens_for(const Strings& tokens, std::mt19937& random) {
  Strings pretokens = {random_text(random, 307), std::string(201, 'a'), std::string(1, '\0')};
  for (int i = 0; i < 150; ++i) pretokens.push_back(random_text(random, 1 + random() % 24));
  for (size_t size = 55; size < 75; ++size) pretokens.push_back(random_text(random, size));
  for (const std::string& token : tokens)
    if (!token.empty()) pretokens.push_back(token);
  return pretokens;
}

/// Encodes them and compares with `parts_of`, the definition.
void expect_equal(const ByteBpe& bpe, const Strings& tokens, std::mt19937& random,
                  const std::function<Strings(const std::string&)>& parts_of) {
  const auto ids = id_by_bytes(tokens);
  for (const std::string& pretoken : pretokens_for(tokens, random)) {
    Ids expected;
    for (const std::string& part : parts_of(pretoken)) expected.push_back(ids.at(part));
    ASSERT_EQ(encode(bpe, pretoken), expected) << testing::PrintToString(pretoken);
  }
}

class ByteBpeRanksTest : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Seeds, ByteBpeRanksTest, testing::Range(0, 16));

TEST_P(ByteBpeRanksTest, FollowsTheDefinition) {
  std::mt19937 random(static_cast<uint32_t>(GetParam()));
  Strings tokens = train(random, 5 + 5 * GetParam()).tokens;
  if (GetParam() % 2 == 1) {  // tokens without the parts they came from, and some never learned
    for (size_t id = 256; id < tokens.size(); id += 3) tokens[id].clear();
    for (int i = 0; i < 9; ++i) {
      const std::string token = random_text(random, 2 + random() % 12);
      if (!id_by_bytes(tokens).contains(token)) tokens.push_back(token);
    }
  }
  if (GetParam() % 4 >= 2)  // an order of ids in which a token may come before its parts
    std::shuffle(tokens.begin(), tokens.end(), random);
  const auto ids = id_by_bytes(tokens);
  const auto rank_of = [&](const std::string& left, const std::string& right) -> int64_t {
    const auto found = ids.find(left + right);
    return found == ids.end() ? -1 : found->second;
  };
  expect_equal(ByteBpe::from_ranks(tokens), tokens, random, [&](const std::string& pretoken) {
    return ids.contains(pretoken) ? Strings{pretoken} : merged(pretoken, rank_of);
  });
}

class ByteBpeMergesTest : public testing::TestWithParam<std::tuple<int, bool>> {};
INSTANTIATE_TEST_SUITE_P(Seeds, ByteBpeMergesTest,
                         testing::Combine(testing::Range(0, 12), testing::Bool()));

TEST_P(ByteBpeMergesTest, FollowsTheDefinition) {
  const auto [seed, whole_first] = GetParam();
  std::mt19937 random(static_cast<uint32_t>(seed));
  auto [tokens, merges] = train(random, 5 + 7 * seed);
  if (seed % 3 == 1) std::shuffle(merges.begin(), merges.end(), random);
  if (seed % 3 == 2) {  // a pair that comes twice, and tokens that no merge makes
    merges = all_cuts(tokens, random);
    merges.resize(1 + merges.size() / 2);
    merges.push_back(merges.front());
    tokens.emplace_back();
    tokens.push_back("no merge makes this");
  }
  std::map<std::pair<std::string, std::string>, int64_t> ranks;
  for (size_t rank = 0; rank < merges.size(); ++rank)
    ranks[{tokens[static_cast<size_t>(merges[rank].left)],
           tokens[static_cast<size_t>(merges[rank].right)]}] = static_cast<int64_t>(rank);
  const auto rank_of = [&](const std::string& left, const std::string& right) {
    const auto found = ranks.find({left, right});
    return found == ranks.end() ? -1 : found->second;
  };
  const auto ids = id_by_bytes(tokens);
  const ByteBpe bpe(tokens, merges, whole_first);
  const bool whole = whole_first;  // a lambda cannot have the structured binding
  expect_equal(bpe, tokens, random, [&](const std::string& pretoken) {
    return whole && ids.contains(pretoken) ? Strings{pretoken} : merged(pretoken, rank_of);
  });
}

TEST(ByteBpeTest, TheLeftmostOfEqualsMergesFirst) {
  const ByteBpe bpe(bytes_and({"aa"}), {{'a', 'a', 256}}, false);
  EXPECT_EQ(encode(bpe, "aaa"), (Ids{256, 'a'}));
  EXPECT_EQ(encode(bpe, "baaaaab"), (Ids{'b', 256, 256, 'a', 'b'}));
}

TEST(ByteBpeTest, AWholePretokenNeedsNoMergesWhereItComesFirst) {
  const Strings tokens = bytes_and({"ab", "abc"});
  const Merges merges = {{'a', 'b', 256}};
  EXPECT_EQ(encode(ByteBpe(tokens, merges, false), "abc"), (Ids{256, 'c'}));
  EXPECT_EQ(encode(ByteBpe(tokens, merges, true), "abc"), (Ids{257}));
  EXPECT_EQ(encode(ByteBpe(tokens, merges, true), "abcabc"), (Ids{256, 'c', 256, 'c'}));
}

// "bc" merges before "ab" does, so that no merging makes "abc"; as a whole pre-token it is there.
TEST(ByteBpeTest, RanksTakeAWholePretokenThatMergingDoesNotReach) {
  const ByteBpe bpe = ByteBpe::from_ranks(bytes_and({"bcd", "bc", "ab", "abc"}));
  EXPECT_EQ(encode(bpe, "abc"), (Ids{259}));
  EXPECT_EQ(encode(bpe, "abcd"), (Ids{'a', 256}));
}

TEST(ByteBpeTest, TokensThatDifferInAnyOneByteAreToldApart) {
  std::mt19937 random(5);
  Strings tokens = bytes_and({});
  for (size_t size = 2; size < 40; ++size) {
    const std::string token = random_text(random, size);
    for (size_t at = 0; at < size; ++at) {
      tokens.push_back(token);
      tokens.back()[at] = '\0';
    }
  }
  const ByteBpe bpe = ByteBpe::from_ranks(tokens);
  for (size_t id = 0; id < tokens.size(); ++id)
    ASSERT_EQ(encode(bpe, tokens[id]), Ids{static_cast<int32_t>(id)});
}

TEST(ByteBpeTest, ManyLettersInARow) {
  const Strings tokens = bytes_and({std::string(2, 'a'), std::string(4, 'a'), std::string(8, 'a')});
  const ByteBpe ranks = ByteBpe::from_ranks(tokens);
  const ByteBpe merges(tokens, {{'a', 'a', 256}, {256, 256, 257}, {257, 257, 258}}, false);
  Ids expected(25000, 258);  // 200007 = 25000 * 8 + 4 + 2 + 1
  expected.insert(expected.end(), {257, 256, 'a'});
  EXPECT_EQ(encode(ranks, std::string(200007, 'a')), expected);
  EXPECT_EQ(encode(merges, std::string(200007, 'a')), expected);
}

TEST(ByteBpeTest, KnowsTheBytesOfEachId) {
  ByteBpe bpe = ByteBpe::from_ranks(bytes_and({"ab", "", std::string("\0x", 2)}));
  EXPECT_EQ(bpe.size(), 259);
  EXPECT_EQ(bpe.bytes('a'), "a");
  EXPECT_EQ(bpe.bytes(256), "ab");
  EXPECT_EQ(bpe.bytes(257), "");
  EXPECT_EQ(bpe.bytes(258), std::string("\0x", 2));
  EXPECT_EQ(bpe.bytes(259), "");
  EXPECT_EQ(bpe.bytes(-1), "");
  const ByteBpe moved = std::move(bpe);
  EXPECT_EQ(encode(moved, "ab"), Ids{256});
}

TEST(ByteBpeTest, ThreadsShareIt) {
  std::mt19937 random(6);
  const ByteBpe bpe = ByteBpe::from_ranks(train(random, 40).tokens);
  const std::string text = random_text(random, 2000);
  const auto encode_all = [&] {
    Ids ids;
    for (size_t at = 0; at < text.size(); at += 20) bpe.append(text.substr(at, 20), ids);
    bpe.append(text, ids);
    return ids;
  };
  const Ids expected = encode_all();
  std::vector<Ids> results(3);
  std::vector<std::thread> threads;
  for (Ids& result : results) threads.emplace_back([&] { result = encode_all(); });
  for (std::thread& thread : threads) thread.join();
  for (const Ids& result : results) EXPECT_EQ(result, expected);
}

std::string error_of(const Strings& tokens, const Merges& merges) {
  try {
    ByteBpe(tokens, merges, false);
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "no error";
}

TEST(ByteBpeTest, SaysWhatIsWrongWithAVocabulary) {
  EXPECT_EQ(error_of(bytes_and({"ab"}), {{'a', 'b', 256}}), "no error");
  EXPECT_EQ(error_of(bytes_and({"ab", "", "", "ab"}), {}),
            "ids 256 and 259 stand for the same bytes");
  Strings tokens = bytes_and({"ab"});
  tokens[200].clear();
  EXPECT_EQ(error_of(tokens, {}), "no token stands for the byte 200");
  EXPECT_EQ(error_of({}, {}), "no token stands for the byte 0");
  EXPECT_EQ(error_of(bytes_and({"ab"}), {{'a', 'b', 256}, {'b', 'a', 256}}),
            "merge 1 makes id 256, which is not ids 98 and 97 together");
  EXPECT_EQ(error_of(bytes_and({"ab"}), {{'a', 'b', 257}}),
            "merge 0 names id 257, which stands for no bytes");
  EXPECT_EQ(error_of(bytes_and({"ab"}), {{-1, 'b', 256}}),
            "merge 0 names id -1, which stands for no bytes");
  EXPECT_EQ(error_of(bytes_and({"ab", ""}), {{256, 257, 256}}),
            "merge 0 names id 257, which stands for no bytes");
  EXPECT_THROW(ByteBpe::from_ranks(bytes_and({"ab", "ab"})), std::runtime_error);
}

TEST(ByteBpeTest, APretokenIsNotEmpty) {
  Ids ids;
  EXPECT_THROW(ByteBpe::from_ranks(bytes_and({})).append("", ids), std::logic_error);
}

}  // namespace
}  // namespace tandem
