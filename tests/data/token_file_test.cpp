#include "data/token_file.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>

#include "core/checksum.h"
#include "tests/data/temp_folder.h"

namespace tandem {
namespace {

std::string bytes_of(std::initializer_list<int> values) {
  return std::string(values.begin(), values.end());
}

template <typename T>
std::string raw(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

/// The parts of an index, so that a test can damage one of them.
struct Parts {
  std::string magic = bytes_of({'M', 'M', 'I', 'D', 'I', 'D', 'X', 0, 0});
  uint64_t version = 1;
  uint8_t dtype = 8;
  std::vector<int32_t> lengths = {3, 2};
  std::vector<int64_t> offsets = {0, 6};
  std::vector<int64_t> documents = {0, 1, 2};
  std::string tail = "";
  std::string str() const {
    return magic + raw<uint64_t>({version}) + raw<uint8_t>({dtype}) +
           raw<uint64_t>({lengths.size()}) + raw<uint64_t>({documents.size()}) + raw(lengths) +
           raw(offsets) + raw(documents) + tail;
  }
};

class TokenFileTest : public testing::Test {
 protected:
  TokenFile open(const Parts& parts, const std::string& bin) {
    write_file(folder_ / "x.idx", parts.str());
    write_file(folder_ / "x.bin", bin);
    return TokenFile(folder_ / "x");
  }
  /// What opening says, without the folder.
  std::string damage(const Parts& parts, const std::string& bin = std::string(10, '\0')) {
    return relative(error_of([&] { open(parts, bin); }));
  }
  std::string relative(std::string message) {
    const std::string start = folder_.path() + "/";
    for (size_t at; (at = message.find(start)) != message.npos;) message.erase(at, start.size());
    return message;
  }
  TempFolder folder_;
};

TEST_F(TokenFileTest, WritesTheExampleOfTheFormatByteForByte) {
  TokenFileWriter writer(folder_ / "x", 1000);
  writer.add_document(std::vector<int32_t>{5, 6, 999});
  writer.add_document(std::vector<int32_t>{});
  writer.add_document(std::vector<int32_t>{7, 8});
  EXPECT_FALSE(std::filesystem::exists(folder_ / "x.bin"));
  writer.finish();
  EXPECT_EQ(writer.documents(), 2);
  EXPECT_EQ(writer.tokens(), 5);
  EXPECT_EQ(writer.skipped_empty(), 1);
  // The 82 bytes that Megatron's own writer makes of documents of 3 and 2 tokens.
  const std::string expected =
      bytes_of({0x4d, 0x4d, 0x49, 0x44, 0x49, 0x44, 0x58, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 8, 2, 0, 0,
                0,    0,    0,    0,    0,    3,    0,    0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0,
                0,    0,    0,    0,    0,    0,    0,    0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                0,    0,    0,    1,    0,    0,    0,    0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0});
  EXPECT_EQ(file_bytes(folder_ / "x.idx"), expected);
  EXPECT_EQ(file_bytes(folder_ / "x.bin"), bytes_of({5, 0, 6, 0, 0xe7, 3, 7, 0, 8, 0}));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "x.bin.partial"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "x.idx.partial"));
}

TEST_F(TokenFileTest, ReadsWhatItWroteAtAnyPlace) {
  std::vector<int32_t> all;
  TokenFileWriter writer(folder_ / "deep/x.bin", 70000);
  for (int d = 0; d < 13; ++d) {
    std::vector<int32_t> document(static_cast<size_t>(1 + d * 7 % 11));
    std::iota(document.begin(), document.end(), 69000 - 31 * d);
    writer.add_document(document);
    all.insert(all.end(), document.begin(), document.end());
  }
  writer.finish();
  const TokenFile file(folder_ / "deep/x.idx");
  EXPECT_EQ(file.prefix(), folder_ / "deep/x");
  EXPECT_EQ(file.dtype_code(), 4);
  EXPECT_EQ(file.documents(), 13);
  EXPECT_EQ(file.tokens(), static_cast<int64_t>(all.size()));
  EXPECT_EQ(file.document_length(3), 11);
  EXPECT_EQ(file.document_begins().front(), 0);
  EXPECT_EQ(file.document_begins().back(), file.tokens());
  for (int64_t begin = 0; begin <= file.tokens(); begin += 5) {
    std::vector<int64_t> read(static_cast<size_t>(std::min<int64_t>(17, file.tokens() - begin)));
    file.read(begin, read);
    EXPECT_TRUE(std::equal(read.begin(), read.end(), all.begin() + begin)) << begin;
  }
  std::vector<int64_t> beyond(2);
  EXPECT_THROW(file.read(file.tokens() - 1, beyond), std::logic_error);
  EXPECT_THROW(file.read(-1, beyond), std::logic_error);
}

TEST_F(TokenFileTest, WriterChoosesMegatronsTypeAndRefusesForeignTokens) {
  for (const auto& [vocab_size, code] : {std::pair{65499, 8}, std::pair{65500, 4}}) {
    TokenFileWriter writer(folder_ / "y", vocab_size);
    writer.add_document(std::vector<int32_t>{vocab_size - 1});
    EXPECT_THROW(writer.add_document(std::vector<int32_t>{vocab_size}), std::logic_error);
    EXPECT_THROW(writer.add_document(std::vector<int32_t>{-1}), std::logic_error);
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder_.path()));  // neither finished
  TokenFileWriter writer(folder_ / "y", 65500);
  writer.add_document(std::vector<int32_t>{65499});
  writer.finish();
  EXPECT_EQ(TokenFile(folder_ / "y").dtype_code(), 4);
}

TEST_F(TokenFileTest, ReadsEveryIntegerType) {
  const std::vector<int64_t> expected = {0, 1, 100, 127, 7};
  const std::string bins[] = {
      raw<uint8_t>({0, 1, 100, 127, 7}), raw<int8_t>({0, 1, 100, 127, 7}),
      raw<int16_t>({0, 1, 100, 127, 7}), raw<int32_t>({0, 1, 100, 127, 7}),
      raw<int64_t>({0, 1, 100, 127, 7}), raw<uint16_t>({0, 1, 100, 127, 7})};
  const uint8_t codes[] = {1, 2, 3, 4, 5, 8};
  const char* names[] = {"uint8", "int8", "int16", "int32", "int64", "uint16"};
  for (int i = 0; i < 6; ++i) {
    Parts parts;
    parts.dtype = codes[i];
    parts.offsets = {0, static_cast<int64_t>(bins[i].size()) / 5 * 3};
    const TokenFile file = open(parts, bins[i]);
    std::vector<int64_t> read(5);
    file.read(0, read);
    EXPECT_EQ(read, expected) << names[i];
    EXPECT_STREQ(token_dtype_name(file.dtype_code()), names[i]);
  }
  Parts bytes;
  bytes.dtype = 1;
  bytes.offsets = {0, 3};
  std::vector<int64_t> top(1);
  open(bytes, raw<uint8_t>({1, 2, 3, 4, 255})).read(4, top);
  EXPECT_EQ(top[0], 255);  // not -1
}

TEST_F(TokenFileTest, NegativeTokensAreDamage) {
  Parts parts;
  parts.dtype = 3;
  const TokenFile file = open(parts, raw<int16_t>({1, 2, 3, -4, 5}));
  std::vector<int64_t> read(3);
  file.read(0, read);
  EXPECT_EQ(relative(error_of([&] { file.read(2, read); })),
            "x.bin: token 3 is -4, expected 0 or more");
}

TEST_F(TokenFileTest, DocumentsMayHoldSeveralSequencesOrNone) {
  Parts parts;
  parts.lengths = {3, 0, 2};
  parts.offsets = {0, 6, 6};
  parts.documents = {0, 0, 2, 3};
  const TokenFile file = open(parts, std::string(10, '\1'));
  EXPECT_EQ(file.documents(), 3);
  EXPECT_EQ(file.document_begins(), (std::vector<int64_t>{0, 0, 3, 5}));
}

TEST_F(TokenFileTest, AnEmptySetIsWhole) {
  TokenFileWriter(folder_ / "e", 10).finish();
  const TokenFile file(folder_ / "e");
  EXPECT_EQ(file.documents(), 0);
  EXPECT_EQ(file.tokens(), 0);
}

TEST_F(TokenFileTest, EveryDamageIsNamed) {
  Parts p;
  EXPECT_EQ(open(p, std::string(10, '\0')).tokens(), 5);

  EXPECT_EQ(damage({.magic = "MMIDIDY\0\0"}),
            "x.idx: not a token index (does not begin with MMIDIDX)");
  EXPECT_EQ(damage({.version = 2}), "x.idx: version 2, expected 1");
  for (const int code : {0, 6, 7, 9, 255}) {
    EXPECT_EQ(damage({.dtype = static_cast<uint8_t>(code)}),
              "x.idx: dtype code " + std::to_string(code) +
                  ", expected 1, 2, 3, 4, 5 or 8 (an integer type)");
  }
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

  EXPECT_EQ(damage(p, std::string(8, '\0')),
            "x.idx: promises 5 tokens, x.bin holds 4; run `tandem data tokenize` again");
  EXPECT_EQ(damage(p, std::string(9, '\0')),
            "x.idx: promises 5 tokens, x.bin holds 9 bytes; run `tandem data tokenize` again");
  EXPECT_EQ(damage(p, std::string(12, '\0')),
            "x.idx: promises 5 tokens, x.bin holds 6; run `tandem data tokenize` again");
}

TEST_F(TokenFileTest, CountsThatOverflowAndCutFilesAreNamed) {
  const std::string whole = Parts().str();
  const auto parse = [&](const std::string& idx) {
    return error_of([&] { parse_token_index(std::as_bytes(std::span(idx)), "x.idx"); });
  };
  for (size_t size = 0; size < whole.size(); ++size) {
    const std::string message = parse(whole.substr(0, size));
    const std::string begin = "x.idx: has " + std::to_string(size) + " bytes, ";
    EXPECT_EQ(message, begin + (size < 34 ? "a token index begins with 34"
                                          : "not what 2 sequences and 3 document entries take"));
  }
  // Counts whose sizes wrap around to the file's own size when multiplied in 64 bits.
  for (const size_t at : {18u, 26u}) {
    for (const uint64_t count :
         {uint64_t{1} << 61, uint64_t{1} << 62, (uint64_t{1} << 62) + 2, ~uint64_t{0}}) {
      std::string idx = whole;
      std::memcpy(idx.data() + at, &count, 8);
      const auto sequences = at == 18 ? std::to_string(count) : "2";
      const auto entries = at == 26 ? std::to_string(count) : "3";
      EXPECT_EQ(parse(idx), "x.idx: has 82 bytes, not what " + sequences + " sequences and " +
                                entries + " document entries take");
    }
  }
}

TEST_F(TokenFileTest, MissingFilesAreNamed) {
  EXPECT_EQ(relative(error_of([&] { TokenFile(folder_ / "none"); })),
            "none.idx: cannot open: No such file or directory");
  write_file(folder_ / "x.idx", Parts().str());
  EXPECT_EQ(relative(error_of([&] { TokenFile(folder_ / "x"); })),
            "x.bin: cannot open: No such file or directory");
}

TEST_F(TokenFileTest, ContentHashIsOfBothFiles) {
  const std::string bin = raw<uint16_t>({1, 2, 3, 4, 5});
  const TokenFile file = open(Parts(), bin);
  const std::string both = Parts().str() + bin;
  char expected[9];
  std::snprintf(expected, sizeof expected, "%08x", crc32c(std::as_bytes(std::span(both))));
  EXPECT_EQ(file.content_hash(), expected);
  EXPECT_NE(open(Parts(), raw<uint16_t>({1, 2, 3, 4, 6})).content_hash(), expected);
}

TEST_F(TokenFileTest, WeightsBelongToTokens) {
  open(Parts(), std::string(10, '\1'));
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
  open(Parts(), std::string(10, '\1'));
  const auto damage_of = [&](const std::string& weights) {
    write_file(folder_ / "x.weights", weights);
    return relative(error_of([&] {
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
  EXPECT_EQ(relative(error_of([&] { TokenFile(folder_ / "x", TargetWeights::kRead); })),
            "x.weights: cannot open: No such file or directory");
}

TEST_F(TokenFileTest, ContentHashIsOfTheWeightsThatWereOpened) {
  const std::string plain = open(Parts(), std::string(10, '\1')).content_hash();
  const auto hash = [&](const std::vector<float>& weights) {
    write_file(folder_ / "x.weights", raw(weights));
    return TokenFile(folder_ / "x", TargetWeights::kRead).content_hash();
  };
  const std::string first = hash({1, 1, 1, 1, 1});
  EXPECT_NE(first, plain);
  EXPECT_NE(hash({1, 1, 1, 1, 2}), first);
  EXPECT_EQ(TokenFile(folder_ / "x").content_hash(), plain);  // not what was not asked for
}

TEST_F(TokenFileTest, FinishReplacesAnOlderFile) {
  for (const int32_t token : {1, 2}) {
    TokenFileWriter writer(folder_ / "x", 10);
    writer.add_document(std::vector<int32_t>{token, token});
    writer.finish();
  }
  std::vector<int64_t> read(2);
  TokenFile(folder_ / "x").read(0, read);
  EXPECT_EQ(read, (std::vector<int64_t>{2, 2}));
}

}  // namespace
}  // namespace tandem
