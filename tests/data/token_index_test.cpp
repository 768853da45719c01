#include "data/token_index.h"

#include <gtest/gtest.h>

#include <cstring>

#include "tests/data/token_parts.h"

namespace tandem {
namespace {

TokenIndex parse(const std::string& idx) {
  return parse_token_index(std::as_bytes(std::span(idx)), "x.idx");
}
std::string damage_of(const std::string& idx) {
  return error_of([&] { parse(idx); });
}
std::string damage(const IndexParts& parts) { return damage_of(parts.str()); }

TEST(TokenIndexTest, DocumentsMayHoldSeveralSequencesOrNone) {
  IndexParts parts;
  parts.lengths = {3, 0, 2};
  parts.offsets = {0, 6, 6};
  parts.documents = {0, 0, 2, 3};
  EXPECT_EQ(parse(parts.str()).document_begin, (std::vector<int64_t>{0, 0, 3, 5}));
}

TEST(TokenIndexTest, TypesAreKnownByCodeAndByName) {
  const std::pair<int, const char*> codes[] = {{1, "uint8"}, {2, "int8"},  {3, "int16"},
                                               {4, "int32"}, {5, "int64"}, {8, "uint16"}};
  for (const auto& [code, name] : codes) {
    ASSERT_NE(find_token_dtype(code), nullptr) << code;
    EXPECT_STREQ(find_token_dtype(code)->name, name);
    EXPECT_EQ(find_token_dtype(name), find_token_dtype(code));
  }
  for (const int code : {-1, 0, 6, 7, 9, 255}) EXPECT_EQ(find_token_dtype(code), nullptr) << code;
  ASSERT_NE(find_token_dtype("uint32"), nullptr);  // of headerless files, without a code
  EXPECT_EQ(find_token_dtype("uint32")->bytes, 4);
  EXPECT_EQ(find_token_dtype("float32"), nullptr);
}

TEST(TokenIndexTest, EveryDamageIsNamed) {
  EXPECT_EQ(parse(IndexParts().str()).document_begin, (std::vector<int64_t>{0, 3, 5}));

  EXPECT_EQ(damage({.magic = "MMIDIDY\0\0"}),
            "x.idx: not a token index (does not begin with MMIDIDX)");
  EXPECT_EQ(damage({.version = 2}), "x.idx: version 2, expected 1");
  for (const int code : {0, 9, 255}) {
    EXPECT_EQ(damage({.dtype = static_cast<uint8_t>(code)}),
              "x.idx: dtype code " + std::to_string(code) +
                  ", expected 1, 2, 3, 4, 5 or 8 (an integer type)");
  }
  EXPECT_EQ(
      damage({.dtype = 6}),
      "x.idx: dtype code 6 is a float (float64 in Megatron, float32 in GPT-NeoX), expected 1, "
      "2, 3, 4, 5 or 8 (an integer type)");
  EXPECT_EQ(
      damage({.dtype = 7}),
      "x.idx: dtype code 7 is a float (float32 in Megatron, float64 in GPT-NeoX), expected 1, "
      "2, 3, 4, 5 or 8 (an integer type)");
  EXPECT_EQ(damage({.tail = "\x01"}),
            "x.idx: has 83 bytes, not what 2 sequences and 3 document entries take");
  EXPECT_EQ(damage({.tail = "ab"}),
            "x.idx: index of a multimodal set (it holds modes), expected text");
  EXPECT_EQ(damage({.documents = {}}), "x.idx: document index is empty, expected 0 at its start");
  EXPECT_EQ(damage({.lengths = {3, -2}}), "x.idx: sequence 1 has length -2");
  EXPECT_EQ(damage({.offsets = {0, 7}}),
            "x.idx: sequence 1 begins at byte 7, expected 6 (sequences lie back to back)");
  EXPECT_EQ(damage({.offsets = {6, 0}}),
            "x.idx: sequence 0 begins at byte 6, expected 0 (sequences lie back to back)");
  EXPECT_EQ(damage({.documents = {1, 1, 2}}), "x.idx: document entry 0 is 1, expected 0");
  EXPECT_EQ(damage({.documents = {0, 2, 1}}),
            "x.idx: document entry 2 is 1, less than the one before (2)");
  EXPECT_EQ(damage({.documents = {0, 1, 3}}),
            "x.idx: document entry 2 is 3, more than the 2 sequences");
  EXPECT_EQ(damage({.documents = {0, 1, -1}}),
            "x.idx: document entry 2 is -1, less than the one before (1)");
  EXPECT_EQ(damage({.documents = {0, 1}}),
            "x.idx: document index ends at 1, expected 2, the number of sequences");
}

TEST(TokenIndexTest, CutFilesAreNamed) {
  const std::string whole = IndexParts().str();
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_EQ(damage_of(whole.substr(0, size)),
              "x.idx: has " + std::to_string(size) + " bytes, " +
                  (size < 34 ? "a token index begins with 34"
                             : "not what 2 sequences and 3 document entries take"));
  }
}

TEST(TokenIndexTest, CountsThatWrapAroundAreNamed) {
  // Their sizes are the file's own when multiplied in 64 bits.
  for (const size_t at : {18u, 26u}) {
    for (const uint64_t count :
         {uint64_t{1} << 61, uint64_t{1} << 62, (uint64_t{1} << 62) + 2, ~uint64_t{0}}) {
      std::string idx = IndexParts().str();
      std::memcpy(idx.data() + at, &count, 8);
      const auto sequences = at == 18 ? std::to_string(count) : "2";
      const auto entries = at == 26 ? std::to_string(count) : "3";
      EXPECT_EQ(damage_of(idx), "x.idx: has 82 bytes, not what " + sequences + " sequences and " +
                                    entries + " document entries take");
    }
  }
}

TEST(TokenIndexTest, PrefixIsTheNameWithoutEnding) {
  EXPECT_EQ(token_prefix("a/books"), "a/books");
  EXPECT_EQ(token_prefix("a/books.bin"), "a/books");
  EXPECT_EQ(token_prefix("a/books.idx"), "a/books");
  EXPECT_EQ(token_prefix("a/books.npy"), "a/books.npy");
  EXPECT_EQ(token_prefix(".bin"), ".bin");
}

}  // namespace
}  // namespace tandem
