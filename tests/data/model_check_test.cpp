#include "data/model_check.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "core/error.h"
#include "core/file.h"
#include "data/sentencepiece_tokenizer.h"
#include "tests/data/temp_folder.h"
#include "tests/paths.h"

// What is refused, and how, is in tests/evil/sentencepiece; here is what must not be.

namespace tandem {
namespace {

std::string field(int number, const std::string& bytes) {
  std::string out = {static_cast<char>(number << 3 | 2)};
  size_t n = bytes.size();
  for (; n > 127; n >>= 7) out += static_cast<char>((n & 127) | 128);
  return out + static_cast<char>(n) + bytes;
}
std::string number_field(int number, int value) {
  return {static_cast<char>(number << 3), static_cast<char>(value)};
}
std::string piece(const std::string& text, int type) {
  return field(1, field(1, text) + number_field(3, type));
}
constexpr int kNormal = 1, kUnknown = 2, kUserDefined = 4;

/// A unigram model whose normalizer has one row of keys, "a" to `longest` times "a", all for the
/// text "x".
std::string with_keys(size_t longest) {
  std::vector<uint32_t> units(256);
  for (uint32_t i = 0; i < 256; ++i) units[i] = i ^ 1;  // nothing leads to them
  const auto base = [](size_t n) {
    return static_cast<uint32_t>(2 + n);
  };  // without bit 6, which nodes have
  units[0] = base(0) << 10;
  for (size_t n = 0; n < longest; ++n) {
    const uint32_t node = base(n) ^ 'a';
    units[node] = 'a' | 1u << 8 | (node ^ base(n + 1)) << 10;
    units[base(n + 1)] = 1u << 31;
  }
  std::string map(4 + 1024, '\0');
  map[1] = 4;  // 1024, little endian
  std::memcpy(map.data() + 4, units.data(), 1024);
  return piece("<unk>", kUnknown) + piece("a", kNormal) + piece("x", kNormal) +
         field(3, field(2, map + std::string("x\0", 2)));
}

std::string error(const std::string& model) {
  try {
    check_sentencepiece_model(model, "m");
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

TEST(ModelCheckTest, TakesWhatTheLibraryWrites) {
  for (const char* name : {"unigram.model", "bpe.model"}) {
    EXPECT_EQ(error(read_text(std::string(kSourceDir) + "/fuzz/seeds/" + name)), "") << name;
  }
}

TEST(ModelCheckTest, TellsModelsByTheirSettings) {
  const auto traits = [](const std::string& file) {
    return check_sentencepiece_model(read_text(kSourceDir + file), "m");
  };
  const std::string golden = "/tests/golden/tokenizers/";
  EXPECT_TRUE(traits(golden + "bpe.model").from_train_tokenizer);
  EXPECT_TRUE(traits(golden + "unigram.model").from_train_tokenizer);
  EXPECT_FALSE(traits(golden + "no_prefix_bpe.model").from_train_tokenizer);
  EXPECT_FALSE(traits(golden + "llama2_bpe.model").from_train_tokenizer);
  EXPECT_TRUE(traits(golden + "llama2_bpe.model").keeps_characters);
  EXPECT_FALSE(traits("/fuzz/seeds/bpe.model").keeps_characters);  // has a charsmap
}

TEST(ModelCheckTest, TakesKeysUpToTheLibrarysRoom) {
  EXPECT_EQ(error(with_keys(32)), "");
  EXPECT_EQ(error(with_keys(33)),
            "m: normalizer_spec.precompiled_charsmap: more than 32 keys that begin each other");
  const TempFolder folder;
  write_file(folder / "tokenizer.model", with_keys(32));
  EXPECT_EQ(load_sentencepiece(folder / "tokenizer.model")->decode({}), "");
}

TEST(ModelCheckTest, TakesUserDefinedPiecesUpToTheLibrarysRoom) {
  std::string model = piece("<unk>", kUnknown) + piece("a", kNormal);
  for (size_t n = 1; n <= 64; ++n) model += piece(std::string(n, 's'), kUserDefined);
  EXPECT_EQ(error(model), "");
  // Those that do not begin each other do not count.
  for (char c = 'A'; c <= 'Z'; ++c) model += piece(std::string("t") + c, kUserDefined);
  EXPECT_EQ(error(model), "");
  EXPECT_NE(error(model + piece(std::string(65, 's'), kUserDefined)), "");
}

TEST(ModelCheckTest, TakesWaysThatMeet) {
  // "aa" and "ba" share their last node, as keys of equal ends do in the library's tries.
  std::string model = with_keys(2);
  const size_t units = model.find(std::string("\0\4\0\0", 4)) + 4;
  uint32_t a = 0;
  const size_t node_a = 2 ^ 'a', node_b = 2 ^ 'b';
  std::memcpy(&a, model.data() + units + 4 * node_a, 4);
  const uint32_t after = (a >> 10) ^ static_cast<uint32_t>(node_a);
  const auto with_b = [&](uint32_t place) {
    const uint32_t b = 'b' | (static_cast<uint32_t>(node_b) ^ place) << 10;
    std::memcpy(model.data() + units + 4 * node_b, &b, 4);
    return model;
  };
  EXPECT_EQ(error(with_b(after)), "");
  EXPECT_EQ(error(with_b(300)),
            "m: normalizer_spec.precompiled_charsmap: unit 96 leads to unit 300 of 256");
}

}  // namespace
}  // namespace tandem
