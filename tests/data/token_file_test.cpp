#include "data/token_file.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "core/checksum.h"
#include "core/json_lines.h"
#include "tests/data/token_parts.h"
#include "tests/paths.h"

namespace tandem {
namespace {

class TokenFileTest : public testing::Test {
 protected:
  TokenFile open(const IndexParts& parts, const std::string& bin) {
    write_file(folder_ / "x.idx", parts.str());
    write_file(folder_ / "x.bin", bin);
    return TokenFile(folder_ / "x");
  }
  /// What opening says, without the folder.
  std::string damage(const std::string& bin) {
    return relative(folder_, error_of([&] { open({}, bin); }));
  }
  std::string refusal(TokenFileSpec spec, int exit_code = kExitBadFile) {
    spec.path = folder_ / spec.path;
    return relative(folder_, error_of([&] { TokenFile{spec}; }, exit_code));
  }
  TempFolder folder_;
};

// Indexed datasets.

TEST_F(TokenFileTest, ReadsEveryIntegerType) {
  const std::vector<int64_t> expected = {0, 1, 100, 127, 7};
  const std::string bins[] = {
      raw<uint8_t>({0, 1, 100, 127, 7}), raw<int8_t>({0, 1, 100, 127, 7}),
      raw<int16_t>({0, 1, 100, 127, 7}), raw<int32_t>({0, 1, 100, 127, 7}),
      raw<int64_t>({0, 1, 100, 127, 7}), raw<uint16_t>({0, 1, 100, 127, 7})};
  const uint8_t codes[] = {1, 2, 3, 4, 5, 8};
  const char* names[] = {"uint8", "int8", "int16", "int32", "int64", "uint16"};
  for (int i = 0; i < 6; ++i) {
    IndexParts parts;
    parts.dtype = codes[i];
    parts.offsets = {0, static_cast<int64_t>(bins[i].size()) / 5 * 3};
    const TokenFile file = open(parts, bins[i]);
    EXPECT_EQ(all_tokens(file), expected) << names[i];
    EXPECT_STREQ(file.dtype(), names[i]);
    EXPECT_STREQ(file.format(), "indexed");
  }
  IndexParts bytes;
  bytes.dtype = 1;
  bytes.offsets = {0, 3};
  EXPECT_EQ(all_tokens(open(bytes, raw<uint8_t>({1, 2, 3, 4, 255})))[4], 255);  // not -1
}

TEST_F(TokenFileTest, NegativeTokensAreDamage) {
  IndexParts parts;
  parts.dtype = 3;
  const TokenFile file = open(parts, raw<int16_t>({1, 2, 3, -4, 5}));
  std::vector<int64_t> read(3);
  file.read(0, read);
  EXPECT_EQ(relative(folder_, error_of([&] { file.read(2, read); })),
            "x.bin: token 3 is -4, expected 0 or more");
}

TEST_F(TokenFileTest, TokensThatTheIndexDoesNotFitAreNamed) {
  EXPECT_EQ(open({}, std::string(10, '\0')).tokens(), 5);
  EXPECT_EQ(damage(std::string(8, '\0')),
            "x.idx: promises 5 tokens, x.bin holds 4; run `tandem data tokenize` again");
  EXPECT_EQ(damage(std::string(9, '\0')),
            "x.idx: promises 5 tokens, x.bin holds 9 bytes; run `tandem data tokenize` again");
  EXPECT_EQ(damage(std::string(12, '\0')),
            "x.idx: promises 5 tokens, x.bin holds 6; run `tandem data tokenize` again");
}

TEST_F(TokenFileTest, ReadsWhatMegatronWrote) {
  // tests/golden/megatron/make.py
  const std::string golden = std::string(kSourceDir) + "/tests/golden/megatron/";
  const auto expected = read_json(golden + "expected.json");
  ASSERT_EQ(expected.size(), 2u);
  for (const auto& [name, set] : expected.items()) {
    const TokenFile file(golden + name);
    EXPECT_EQ(file.dtype(), set["dtype"].get<std::string>());
    const auto documents = set["documents"].get<std::vector<std::vector<int64_t>>>();
    ASSERT_EQ(file.documents(), static_cast<int64_t>(documents.size())) << name;
    for (int64_t d = 0; d < file.documents(); ++d) {
      std::vector<int64_t> read(static_cast<size_t>(file.document_length(d)));
      file.read(file.document_begins()[static_cast<size_t>(d)], read);
      EXPECT_EQ(read, documents[static_cast<size_t>(d)]) << name << ", document " << d;
    }
  }
}

// Packed chunks.

class PackedChunksTest : public TokenFileTest {
 protected:
  void write_three(const std::string& prefix) {
    write_file(folder_ / prefix + "_0000000000.bin", packed_chunk<uint16_t>(8, {1, 2, 9, 3}));
    write_file(folder_ / prefix + "_0000000001.bin", packed_chunk<uint16_t>(8, {4, 65535, 9}));
    write_file(folder_ / prefix + "_0000000002.bin", packed_chunk<uint16_t>(8, {9, 5, 6, 7}));
  }
  const std::vector<int64_t> all_ = {1, 2, 9, 3, 4, 65535, 9, 9, 5, 6, 7};
};

TEST_F(PackedChunksTest, ReadsAcrossTheirBordersAtAnyPlace) {
  write_three("deep/x");
  const TokenFile file(folder_ / "deep/x");
  EXPECT_STREQ(file.format(), "packed");
  EXPECT_STREQ(file.dtype(), "uint16");
  EXPECT_EQ(file.prefix(), folder_ / "deep/x");
  ASSERT_EQ(file.tokens(), 11);
  for (int64_t begin = 0; begin <= 11; ++begin) {
    for (int64_t end = begin; end <= 11; ++end) {
      std::vector<int64_t> read(static_cast<size_t>(end - begin));
      file.will_read(begin, end - begin);
      file.read(begin, read);
      EXPECT_TRUE(std::equal(read.begin(), read.end(), all_.begin() + begin))
          << begin << " " << end;
    }
  }
  std::vector<int64_t> beyond(2);
  EXPECT_THROW(file.read(10, beyond), std::logic_error);
  EXPECT_THROW(file.read(-1, beyond), std::logic_error);
  EXPECT_THROW(file.will_read(10, 2), std::logic_error);
  EXPECT_THROW(file.will_read(10, -1), std::logic_error);
}

TEST_F(PackedChunksTest, AreFoundByPrefixFolderOrName) {
  write_three("x");
  write_file(folder_ / "notes.txt", "");
  write_file(folder_ / "other_0000.bin", "");
  EXPECT_EQ(all_tokens(TokenFile(folder_ / "x")), all_);
  EXPECT_EQ(TokenFile(folder_.path()).prefix(), folder_ / "x");
  EXPECT_EQ(all_tokens(TokenFile(folder_.path() + "/")), all_);
  const TokenFile second(folder_ / "x_0000000001.bin");
  EXPECT_EQ(all_tokens(second), (std::vector<int64_t>{4, 65535, 9}));
  EXPECT_EQ(second.prefix(), folder_ / "x_0000000001");
  write_file(folder_ / "moved", packed_chunk<int8_t>(2, {3, 1}));
  EXPECT_EQ(all_tokens(TokenFile(folder_ / "moved")), (std::vector<int64_t>{3, 1}));
}

TEST_F(PackedChunksTest, EosCutsDocuments) {
  write_three("x");
  const auto begins = [&](std::optional<int64_t> eos) {
    return TokenFile({.path = folder_ / "x", .eos_id = eos}).document_begins();
  };
  EXPECT_EQ(begins(std::nullopt), (std::vector<int64_t>{0, 11}));
  EXPECT_EQ(begins(9), (std::vector<int64_t>{0, 3, 7, 8, 11}));  // one lies across a border
  EXPECT_EQ(begins(7), (std::vector<int64_t>{0, 11}));           // no empty document at the end
  EXPECT_EQ(begins(8), (std::vector<int64_t>{0, 11}));
}

TEST_F(PackedChunksTest, EveryDamageIsNamed) {
  const std::string path = "x_0000000000.bin";
  const auto damage_of = [&](const std::string& chunk) {
    write_file(folder_ / path, chunk);
    return refusal({.path = "x"});
  };
  const std::string chunk = packed_chunk<int32_t>(4, {1, 2, 3});
  const auto with = [&](size_t at, const std::string& bytes) {
    return std::string(chunk).replace(at, bytes.size(), bytes);
  };
  EXPECT_EQ(damage_of(""), path + ": not a packed chunk (does not begin with LITPKDS)");
  EXPECT_EQ(damage_of(with(6, "T")), path + ": not a packed chunk (does not begin with LITPKDS)");
  EXPECT_EQ(damage_of(chunk.substr(0, 23)), path + ": has 23 bytes, a packed chunk begins with 24");
  EXPECT_EQ(damage_of(with(7, "\x02")), path + ": version 2, expected 1");
  EXPECT_EQ(damage_of(with(15, "\x06")),
            path +
                ": dtype code 6 is a float (float64 in Megatron, float32 in GPT-NeoX), expected 1, "
                "2, 3, 4, 5 or 8 (an integer type)");
  EXPECT_EQ(damage_of(with(15, "\x0b")),
            path + ": dtype code 11, expected 1, 2, 3, 4, 5 or 8 (an integer type)");
  EXPECT_EQ(damage_of(with(16, "\x02")),
            path + ": promises 2 tokens of int32, holds 12 bytes of them");
  EXPECT_EQ(damage_of(with(23, "\x40")),  // wraps around to 12 bytes
            path + ": promises 4611686018427387907 tokens of int32, holds 12 bytes of them");
  for (size_t size = 24; size < chunk.size(); ++size) {
    EXPECT_EQ(damage_of(chunk.substr(0, size)), path + ": promises 3 tokens of int32, holds " +
                                                    std::to_string(size - 24) + " bytes of them");
  }
  EXPECT_EQ(damage_of(chunk + "\x01"),
            path + ": promises 3 tokens of int32, holds 13 bytes of them");

  write_file(folder_ / path, chunk);
  write_file(folder_ / "x_0000000001.bin", packed_chunk<int32_t>(4, {4, -5}));
  std::vector<int64_t> read(5);
  EXPECT_EQ(relative(folder_, error_of([&] { TokenFile(folder_ / "x").read(0, read); })),
            "x_0000000001.bin: token 1 is -5, expected 0 or more");
  write_file(folder_ / "x_0000000001.bin", packed_chunk<uint16_t>(8, {4}));
  EXPECT_EQ(refusal({.path = "x"}), "x_0000000001.bin: holds uint16, x_0000000000.bin holds int32");
}

TEST_F(PackedChunksTest, MissingChunksAndSeveralSetsAreNamed) {
  write_three("x");
  std::filesystem::remove(folder_ / "x_0000000001.bin");
  EXPECT_EQ(refusal({.path = "x"}), "x_0000000001.bin: is missing, x_0000000002.bin is there");
  std::filesystem::remove(folder_ / "x_0000000000.bin");
  EXPECT_EQ(refusal({.path = "x"}), "x_0000000000.bin: is missing, x_0000000002.bin is there");
  write_three("y_0");
  write_three("y_1");
  EXPECT_EQ(refusal({.path = ""}),
            ": holds packed chunks of several sets, name one of them: x, y_0, y_1");
  EXPECT_EQ(TokenFile(folder_ / "y_1").tokens(), 11);
  EXPECT_EQ(refusal({.path = "y_1", .dtype = "uint16"}, kExitUsage),
            "y_1: packed chunks know their type; remove dtype");
}

// Headerless files.

class HeaderlessTest : public TokenFileTest {
 protected:
  TokenFile open_as(const char* dtype, const std::string& bytes, std::optional<int64_t> eos = {}) {
    write_file(folder_ / "x.bin", bytes);
    return TokenFile({.path = folder_ / "x.bin", .dtype = dtype, .eos_id = eos});
  }
};

TEST_F(HeaderlessTest, ReadsBothTypes) {
  const TokenFile small = open_as("uint16", raw<uint16_t>({0, 65535, 7}));
  EXPECT_EQ(all_tokens(small), (std::vector<int64_t>{0, 65535, 7}));
  EXPECT_STREQ(small.format(), "headerless");
  EXPECT_STREQ(small.dtype(), "uint16");
  EXPECT_EQ(small.prefix(), folder_ / "x");
  EXPECT_EQ(small.document_begins(), (std::vector<int64_t>{0, 3}));
  const TokenFile large = open_as("uint32", raw<uint32_t>({0, 4294967295, 2147483648}), 2147483648);
  EXPECT_EQ(all_tokens(large), (std::vector<int64_t>{0, 4294967295, 2147483648}));
  EXPECT_STREQ(large.dtype(), "uint32");
  EXPECT_EQ(large.documents(), 1);
  EXPECT_EQ(open_as("uint32", "").documents(), 0);
  EXPECT_EQ(open_as("uint16", "", 3).tokens(), 0);
}

TEST_F(HeaderlessTest, EosCutsDocumentsWhereverItLies) {
  // The search goes by blocks: against one that goes by tokens, over lengths around a block's.
  for (const size_t n : {1u, 127u, 128u, 129u, 255u, 256u, 385u, 3000u}) {
    std::vector<uint16_t> tokens(n);
    for (size_t i = 0; i < n; ++i)
      tokens[i] = static_cast<uint16_t>(i * i % 37);  // 0 at 0, 37, ...
    for (const uint16_t eos : {0, 1, 2, 36}) {
      std::vector<int64_t> expected = {0};
      for (size_t i = 0; i < n; ++i) {
        if (tokens[i] == eos) expected.push_back(static_cast<int64_t>(i + 1));
      }
      if (expected.back() != static_cast<int64_t>(n)) expected.push_back(static_cast<int64_t>(n));
      EXPECT_EQ(open_as("uint16", raw(tokens), eos).document_begins(), expected) << n << " " << eos;
    }
  }
}

TEST_F(HeaderlessTest, WhatCannotBeIsNamed) {
  const auto refused = [&](const char* dtype, const std::string& bytes,
                           std::optional<int64_t> eos = {}, int exit_code = kExitUsage) {
    return relative(folder_, error_of([&] { open_as(dtype, bytes, eos); }, exit_code));
  };
  EXPECT_EQ(refused("uint16", "abc", {}, kExitBadFile),
            "x.bin: has 3 bytes, not a multiple of 2 (uint16)");
  EXPECT_EQ(refused("uint32", "abcdef", {}, kExitBadFile),
            "x.bin: has 6 bytes, not a multiple of 4 (uint32)");
  EXPECT_EQ(refused("int32", "abcd"), "x.bin: dtype int32, expected uint16 or uint32");
  EXPECT_EQ(refused("uint16", "abcd", 65536), "x.bin: eos_id 65536, uint16 holds 0 to 65535");
  EXPECT_EQ(refused("uint32", "abcd", -1), "x.bin: eos_id -1, uint32 holds 0 to 4294967295");
  EXPECT_EQ(refused("uint16", packed_chunk<uint16_t>(8, {1})),
            "x.bin: packed chunks know their type; remove dtype");
  EXPECT_EQ(
      refused("uint16", IndexParts().str(), {}, kExitBadFile),
      "x.bin: begins with MMIDIDX: it is the index of an indexed dataset; name it .idx beside "
      "its .bin and give their prefix, without dtype");
  EXPECT_EQ(
      refused("uint16", "\x93NUMPY\x01", {}, kExitBadFile),
      "x.bin: begins with a header of NumPy: write the tokens alone, with numpy.ndarray.tofile");
  for (const int32_t magic : {20240520, 20240801}) {
    EXPECT_EQ(refused("uint16", raw<int32_t>({magic, 1}), {}, kExitBadFile),
              "x.bin: begins with a header of llm.c: cut off its 1024 bytes");
  }
}

// All of them.

TEST_F(TokenFileTest, SettingsThatDoNotBelongAreRefused) {
  open({}, std::string(10, '\1'));
  const std::string start = ": an indexed dataset knows its type and documents; remove ";
  EXPECT_EQ(refusal({.path = "x", .dtype = "uint16"}, kExitUsage), "x" + start + "dtype");
  EXPECT_EQ(refusal({.path = "x.bin", .eos_id = 1}, kExitUsage), "x.bin" + start + "eos_id");
  EXPECT_EQ(refusal({.path = "x.idx", .dtype = "uint32", .eos_id = 1}, kExitUsage),
            "x.idx" + start + "dtype and eos_id");
}

TEST_F(TokenFileTest, PathsWhereNothingFitsSayWhatWasLookedFor) {
  EXPECT_EQ(refusal({.path = "none"}),
            "none: no tokens: looked for none.idx (indexed dataset), none_0000000000.bin (packed "
            "chunks) and none itself");
  EXPECT_EQ(refusal({.path = "no/where"}),
            "no/where: no tokens: looked for no/where.idx (indexed dataset), "
            "no/where_0000000000.bin (packed chunks) and no/where itself");
  EXPECT_EQ(refusal({.path = "none.idx"}), "none.idx: cannot open: No such file or directory");
  EXPECT_EQ(refusal({.path = "none", .dtype = "uint16"}),
            "none: cannot open: No such file or directory");
  write_file(folder_ / "y.bin", "abcd");
  const std::string hint = "; a headerless file needs its dtype, uint16 or uint32";
  EXPECT_EQ(refusal({.path = "y"}), "y.bin: has no y.idx beside it" + hint);
  EXPECT_EQ(refusal({.path = "y.bin"}),
            "y.bin: has no y.idx beside it and does not begin with LITPKDS" + hint);
  std::filesystem::create_directory(folder_ / "empty");
  EXPECT_EQ(refusal({.path = "empty"}),
            "empty: is a folder without packed chunks (NAME_0000000000.bin)");
  EXPECT_EQ(refusal({.path = "empty", .dtype = "uint16"}), "empty: is a folder, expected a file");
  write_file(folder_ / "x.idx", IndexParts().str());
  EXPECT_EQ(refusal({.path = "x"}), "x.bin: cannot open: No such file or directory");
}

TEST_F(TokenFileTest, ContentHashOfAnIndexedDatasetIsOfBothFiles) {
  const std::string bin = raw<uint16_t>({1, 2, 3, 4, 5});
  const TokenFile file = open({}, bin);
  const std::string both = IndexParts().str() + bin;
  char expected[9];
  std::snprintf(expected, sizeof expected, "%08x", crc32c(std::as_bytes(std::span(both))));
  EXPECT_EQ(file.content_hash(), expected);
  EXPECT_EQ(expected, std::string("5c10766a"));  // what earlier versions recorded in checkpoints
  EXPECT_NE(open({}, raw<uint16_t>({1, 2, 3, 4, 6})).content_hash(), expected);
}

TEST_F(TokenFileTest, ContentHashOfOthersIsOfTheTokensAndWhereDocumentsEnd) {
  const std::vector<uint16_t> tokens = {1, 2, 3, 0, 5, 0};
  write_file(folder_ / "h.bin", raw(tokens));
  write_file(folder_ / "p_0000000000.bin", packed_chunk<uint16_t>(8, {1, 2, 3, 0}));
  write_file(folder_ / "p_0000000001.bin", packed_chunk<uint16_t>(8, {5, 0}));
  const auto hash = [&](const std::string& dtype, std::optional<int64_t> eos) {
    return TokenFile({.path = folder_ / "h.bin", .dtype = dtype, .eos_id = eos}).content_hash();
  };
  const std::string whole = hash("uint16", std::nullopt);
  EXPECT_EQ(hash("uint16", std::nullopt), whole);
  EXPECT_NE(hash("uint16", 2), whole);
  EXPECT_NE(hash("uint16", 3), hash("uint16", 2));
  EXPECT_NE(hash("uint32", std::nullopt), whole);
  EXPECT_EQ(TokenFile(folder_ / "p").content_hash(), whole);  // the same tokens, cut otherwise
  write_file(folder_ / "h.bin", raw<uint16_t>({1, 2, 3, 0, 5, 1}));
  EXPECT_NE(hash("uint16", std::nullopt), whole);
}

TEST_F(TokenFileTest, WeightsBelongToTokens) {
  open({}, std::string(10, '\1'));
  write_file(folder_ / "x.weights", raw<float>({0, 0.25f, 1, 3e38f, 7}));
  const TokenFile file(folder_ / "x.bin", TargetWeights::kRead);
  EXPECT_TRUE(file.has_weights());
  std::vector<float> read(3);
  file.read_weights(1, read);
  EXPECT_EQ(read, (std::vector<float>{0.25f, 1, 3e38f}));
  EXPECT_THROW(file.read_weights(3, read), std::logic_error);
  EXPECT_THROW(file.read_weights(-1, read), std::logic_error);
  const TokenFile without(folder_ / "x");
  EXPECT_FALSE(without.has_weights());
  EXPECT_THROW(without.read_weights(0, read), std::logic_error);
}

TEST_F(TokenFileTest, WeightsThatAreDamagedAreNamed) {
  open({}, std::string(10, '\1'));
  const auto damage_of = [&](const std::string& weights) {
    write_file(folder_ / "x.weights", weights);
    return relative(folder_, error_of([&] {
                      std::vector<float> read(3);
                      TokenFile(folder_ / "x", TargetWeights::kRead).read_weights(2, read);
                    }));
  };
  EXPECT_EQ(damage_of(raw<float>({1, 1, 1, 1})),
            "x.weights: has 16 bytes, expected 20, a float32 for each token of x.bin");
  EXPECT_EQ(damage_of(raw<float>({1, 1, 1, 1, 1, 1})),
            "x.weights: has 24 bytes, expected 20, a float32 for each token of x.bin");
  EXPECT_EQ(damage_of(""),
            "x.weights: has 0 bytes, expected 20, a float32 for each token of x.bin");
  EXPECT_EQ(damage_of(raw<float>({1, 1, 1, -0.5f, 1})),
            "x.weights: weight 3 is -0.5, expected a finite number >= 0");
  EXPECT_EQ(damage_of(raw<float>({1, 1, 1, 1, INFINITY})),
            "x.weights: weight 4 is inf, expected a finite number >= 0");
  EXPECT_EQ(damage_of(raw<float>({1, 1, NAN, 1, 1})),
            "x.weights: weight 2 is nan, expected a finite number >= 0");
  std::filesystem::remove(folder_ / "x.weights");
  EXPECT_EQ(refusal({.path = "x", .weights = TargetWeights::kRead}),
            "x.weights: cannot open: No such file or directory");
}

TEST_F(PackedChunksTest, MayHaveWeights) {
  write_three("x");
  std::vector<float> weights(11);
  std::iota(weights.begin(), weights.end(), 0.5f);
  write_file(folder_ / "x.weights", raw(weights));
  std::vector<float> read(11);
  TokenFile({.path = folder_ / "x", .weights = TargetWeights::kRead}).read_weights(0, read);
  EXPECT_EQ(read, weights);
  weights.pop_back();
  write_file(folder_ / "x.weights", raw(weights));
  EXPECT_EQ(refusal({.path = "x", .weights = TargetWeights::kRead}),
            "x.weights: has 40 bytes, expected 44, a float32 for each token of x");
}

TEST_F(TokenFileTest, ContentHashIsOfTheWeightsThatWereOpened) {
  const std::string plain = open({}, std::string(10, '\1')).content_hash();
  const auto hash = [&](const std::vector<float>& weights) {
    write_file(folder_ / "x.weights", raw(weights));
    return TokenFile(folder_ / "x", TargetWeights::kRead).content_hash();
  };
  const std::string first = hash({1, 1, 1, 1, 1});
  EXPECT_NE(first, plain);
  EXPECT_NE(hash({1, 1, 1, 1, 2}), first);
  EXPECT_EQ(TokenFile(folder_ / "x").content_hash(), plain);  // not what was not asked for
}

}  // namespace
}  // namespace tandem
