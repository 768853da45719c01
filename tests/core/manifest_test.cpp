#include "core/manifest.h"

#include <gtest/gtest.h>

#include "core/checksum.h"
#include "core/file.h"
#include "tests/core/helpers.h"
#include "tests/paths.h"

namespace tandem {
namespace {

/// What fuzz/seeds/manifest.json says, which tandem 0.1 wrote before manifests had a reader of
/// their own.
Manifest example() {
  Manifest manifest;
  manifest.step = 12;
  manifest.files = {{"config.yaml", {.bytes = 22, .crc32c = 0x65770179}},
                    {"state.json", {.bytes = 33, .crc32c = 0x9c1ab089}},
                    {"tokenizer.model", {.bytes = 19, .crc32c = 0x8914c53b}},
                    {"model.safetensors", {.bytes = 320, .crc32c = 0xfc720246}},
                    {"optimizer-00001-of-00001.safetensors", {.bytes = 232, .crc32c = 0x8083a7f0}}};
  auto& weights = manifest.files[3].second.tensors.emplace();
  weights["a"].crc32c = 0xf3632f3e;
  weights["b.weight"].crc32c = 0x7eda3f74;
  weights["unused.x \"q\""].crc32c = 0;
  auto& pieces = manifest.files[4].second.tensors.emplace();
  pieces["exp_avg.a"] = {.crc32c = 0xf3632f3e, .piece = ManifestTensor::Piece{"a", {7}, 0, 7}};
  pieces["exp_avg.b.weight"] = {.crc32c = 0xf3632f3e,
                                .piece = ManifestTensor::Piece{"b.weight", {3, 5}, 4, 11}};
  return manifest;
}

/// The same manifest with `from` replaced by `to` and its SHA-256 computed anew.
std::string changed(const std::string& from, const std::string& to,
                    const Manifest& manifest = example()) {
  std::string text = manifest_text(manifest);
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  text.replace(at, from.size(), to);
  const size_t digits = text.size() - 64 - std::string_view("\"\n}\n").size();
  text.erase(digits, 64);
  return text.insert(digits, sha256_hex(bytes_of(text)));
}

void expect_refused(const std::string& text, const std::string& rule) {
  expect_user_error(kExitBadFile, "ckpt/manifest.json: " + rule,
                    [&] { parse_manifest(text, "ckpt/manifest.json"); });
}

TEST(ManifestTest, TheWrittenFormIsThatOfEarlierVersions) {
  EXPECT_EQ(manifest_text(example()),
            read_text(std::string(kSourceDir) + "/fuzz/seeds/manifest.json"));
}

TEST(ManifestTest, IsReadBack) {
  const std::string text = manifest_text(example());
  const Manifest manifest = parse_manifest(text, "manifest.json");
  EXPECT_EQ(manifest.step, 12);
  ASSERT_EQ(manifest.files.size(), 5u);
  EXPECT_EQ(manifest.files[2].first, "tokenizer.model");
  EXPECT_EQ(manifest.find("state.json")->bytes, 33u);
  EXPECT_EQ(manifest.find("state.json")->crc32c, 0x9c1ab089u);
  EXPECT_FALSE(manifest.find("state.json")->tensors.has_value());
  EXPECT_EQ(manifest.find("state"), nullptr);
  const auto& piece = manifest.files[4].second.tensors->at("exp_avg.b.weight").piece;
  EXPECT_EQ(piece->parameter, "b.weight");
  EXPECT_EQ(piece->global_shape, (std::vector<int64_t>{3, 5}));
  EXPECT_EQ(piece->begin, 4);
  EXPECT_EQ(piece->end, 11);
  EXPECT_EQ(manifest_text(manifest), text);
}

/// The same with a piece of a slice: columns 1 and 2 of 5.
Manifest with_slice() {
  Manifest manifest = example();
  auto& piece = manifest.files[4].second.tensors->at("exp_avg.b.weight").piece;
  piece->begin = 1;
  piece->end = 6;
  piece->split_dim = 1;
  piece->split_begin = 1;
  piece->split_end = 3;
  return manifest;
}

TEST(ManifestTest, APieceOfASliceIsReadBack) {
  const std::string text = manifest_text(with_slice());
  EXPECT_EQ(text, read_text(std::string(kSourceDir) + "/fuzz/seeds/manifest_split.json"));
  const Manifest manifest = parse_manifest(text, "manifest.json");
  const auto& tensors = *manifest.files[4].second.tensors;
  const auto& piece = tensors.at("exp_avg.b.weight").piece;
  EXPECT_EQ(piece->split_dim, 1);
  EXPECT_EQ(piece->split_begin, 1);
  EXPECT_EQ(piece->split_end, 3);
  EXPECT_EQ(piece->begin, 1);
  EXPECT_EQ(piece->end, 6);
  EXPECT_EQ(tensors.at("exp_avg.a").piece->split_dim, -1);
  EXPECT_EQ(manifest_text(manifest), text);
}

TEST(ManifestTest, AFileIsSentByItself) {
  for (const auto& [name, file] : with_slice().files) {
    const ManifestFile back = parse_manifest_file(manifest_file_text(file));
    EXPECT_EQ(manifest_file_text(back), manifest_file_text(file)) << name;
    EXPECT_EQ(back.bytes, file.bytes) << name;
    EXPECT_EQ(back.tensors.has_value(), file.tensors.has_value()) << name;
  }
}

TEST(ManifestTest, AnyFlippedBitIsFound) {
  const std::string good = manifest_text(example());
  for (size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ (1 << (i % 8)));
    EXPECT_THROW(parse_manifest(bad, "m"), UserError) << i;
  }
}

TEST(ManifestTest, AnyTruncationIsFound) {
  const std::string good = manifest_text(example());
  for (size_t size = 0; size < good.size(); ++size) {
    expect_refused(good.substr(0, size),
                   "does not end with its sha256, it is damaged or cut short");
  }
}

TEST(ManifestTest, ADifferentByteNamesBothSums) {
  std::string text = manifest_text(example());
  const std::string recorded = text.substr(text.size() - 68, 64);
  text.replace(text.find("\"step\": 12"), 10, "\"step\": 13");
  const std::string found = sha256_hex(bytes_of(std::string(text).erase(text.size() - 68, 64)));
  expect_refused(text, "is damaged: its SHA-256 is " + found + ", it records " + recorded);
}

TEST(ManifestTest, RulesAreNamed) {
  const std::string most = std::to_string(int64_t{1} << 53);
  expect_refused(changed("tandem checkpoint", "other"), "format is not \"tandem checkpoint\"");
  expect_refused(changed("\"version\": 1", "\"version\": 2"),
                 "version = 2, expected an integer in [1, 1]");
  expect_refused(changed("\"step\": 12", "\"step\": -1"),
                 "step = -1, expected an integer in [0, " + most + "]");
  expect_refused(changed("\"step\": 12", "\"step\": 1e300"),
                 "step = 1e+300, expected an integer in [0, " + most + "]");
  expect_refused(changed("\"files\"", "\"fules\""), "files is missing, expected an object");
  expect_refused(changed("config.yaml", "config.yml"), "lists no config.yaml");
  expect_refused(changed("model.safetensors", "models.safetensors"), "lists no model.safetensors");
  expect_refused(changed("\"tensors\"", "\"tonsors\""), "lists no tensors of model.safetensors");
  expect_refused(changed("\"bytes\": 33", "\"bytes\": 3.3"),
                 "state.json: bytes = 3.3, expected an integer in [0, " + most + "]");
  expect_refused(
      changed("\"bytes\": 33", "\"bytes\": 18446744073709551615"),
      "state.json: bytes = 18446744073709551615, expected an integer in [0, " + most + "]");
  expect_refused(changed("9c1ab089", "9c1ab08"),
                 "state.json: crc32c = \"9c1ab08\", expected 8 hex digits (0-9, a-f)");
  expect_refused(changed("9c1ab089", "9C1AB089"),
                 "state.json: crc32c = \"9C1AB089\", expected 8 hex digits (0-9, a-f)");
  expect_refused(changed("7eda3f74", "+7eda3f7"),
                 "model.safetensors: tensor b.weight: crc32c = \"+7eda3f7\", expected 8 hex digits "
                 "(0-9, a-f)");
  expect_refused(changed("\"parameter\"", "\"parametre\""),
                 "optimizer-00001-of-00001.safetensors: tensor exp_avg.a: parameter is missing, "
                 "expected a string");
  expect_refused(changed("\"begin\": 4", "\"begin\": 16"),
                 "optimizer-00001-of-00001.safetensors: tensor exp_avg.b.weight: begin = 16, "
                 "expected an integer in [0, 15]");
  expect_refused(changed("\"end\": 11", "\"end\": 3"),
                 "optimizer-00001-of-00001.safetensors: tensor exp_avg.b.weight: end = 3, expected "
                 "an integer in [4, 15]");
  expect_refused(changed("            3,\n", "            9007199254740992,\n"),
                 "optimizer-00001-of-00001.safetensors: tensor exp_avg.b.weight: global_shape "
                 "holds more than 2^53 elements");
}

TEST(ManifestTest, RulesOfSlicesAreNamed) {
  const std::string begin = "optimizer-00001-of-00001.safetensors: tensor exp_avg.b.weight: ";
  const auto expect = [&](const std::string& from, const std::string& to, const std::string& rule) {
    expect_refused(changed(from, to, with_slice()), begin + rule);
  };
  expect("\"split_dim\": 1", "\"split_dim\": 2", "split_dim = 2, expected an integer in [0, 1]");
  expect("\"split_dim\": 1", "\"split_dim\": -1", "split_dim = -1, expected an integer in [0, 1]");
  expect("\"split_begin\": 1", "\"split_begin\": 5",
         "split_begin = 5, expected an integer in [0, 4]");
  expect("\"split_begin\": 1", "\"split_begin\": 3",
         "split_end = 3, expected an integer in [4, 5]");
  expect("\"split_end\": 3", "\"split_end\": 6", "split_end = 6, expected an integer in [2, 5]");
  expect("\"end\": 6", "\"end\": 7", "end = 7, expected an integer in [1, 6]");  // 3 rows of 2
  expect("\"split_dim\"", "\"split_dime\"", "split_dim is missing, expected an integer in [0, 1]");
  expect("\"split_end\"", "\"split_ende\"", "split_end is missing, expected an integer in [2, 5]");
  expect("            5\n", "            0\n", "split_dim divides a tensor without elements");
}

TEST(ManifestTest, NamesReachNoOtherFolder) {
  for (const char* name :
       {"../secret", "/etc/passwd", ".", "..", "", "a/b", "a\\u0000b", "a\\nb"}) {
    expect_refused(changed("tokenizer.model", name),
                   "lists \"" + std::string(name) + "\", expected files of this folder");
  }
}

TEST(ManifestTest, FilesOfEveryTokenizerAreListed) {
  Manifest manifest = example();
  manifest.files[2].first = "cl100k_base.tiktoken";
  EXPECT_EQ(parse_manifest(manifest_text(manifest), "m").files[2].first, "cl100k_base.tiktoken");
}

TEST(ManifestTest, ChecksumsAreEightDigits) {
  EXPECT_EQ(crc32c_text(0x0badcafe), "0badcafe");
  EXPECT_EQ(crc32c_text(0), "00000000");
}

}  // namespace
}  // namespace tandem
