#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "core/error.h"
#include "core/file.h"
#include "core/json_lines.h"
#include "data/token_file.h"
#include "data/token_file_writer.h"
#include "tests/cli/tiny_checkpoint.h"
#include "tests/data/temp_folder.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;

class DataTest : public testing::Test {
 protected:
  static Ran data(const std::vector<std::string>& arguments) {
    return run_captured(run_data, "tandem data", arguments);
  }
  static Json json_of(std::vector<std::string> arguments) {
    arguments.push_back("--json");
    const Ran ran = data(arguments);
    EXPECT_EQ(ran.code, 0);
    return parse_json(ran.out);
  }
  Json tokenize(const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments = {"tokenize", "--tokenizer", "bytes",      "--input",
                                          input_,     "--output",    folder_ / "x"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return json_of(arguments);
  }
  std::vector<int64_t> tokens() const {
    const TokenFile file(folder_ / "x");
    std::vector<int64_t> all(static_cast<size_t>(file.tokens()));
    file.read(0, all);
    return all;
  }

  TempFolder folder_;
  std::string input_ = folder_ / "text.jsonl";
};

TEST_F(DataTest, BosAndEosAreWhatTheFlagsSay) {
  write_file(input_, "{\"text\": \"ab\"}\n{\"text\": \"c\"}\n");
  const Json result = tokenize();
  EXPECT_EQ(result["documents"], 2);
  EXPECT_EQ(result["tokens"], 5);
  EXPECT_EQ(result["bytes"], 3);
  EXPECT_EQ(tokens(), (std::vector<int64_t>{'a', 'b', 257, 'c', 257}));
  tokenize({"--bos", "default", "--eos", "none"});
  EXPECT_EQ(tokens(), (std::vector<int64_t>{256, 'a', 'b', 256, 'c'}));
  EXPECT_EQ(error_of(
                [&] {
                  tokenize({"--eos", "<|end|>"});
                },
                kExitUsage),
            "--eos <|end|>: bytes has no token <|end|>; name a special token, or none");
}

TEST_F(DataTest, TheKeyOfTheTextIsChosen) {
  write_file(input_, "{\"content\": \"ab\"}\n{\"text\": \"c\", \"content\": \"d\"}\n");
  tokenize({"--json-key", "content", "text"});
  EXPECT_EQ(tokens(), (std::vector<int64_t>{'a', 'b', 257, 'd', 257}));
}

TEST_F(DataTest, TooManyBadLinesAreAnErrorThatNamesTheFirst) {
  std::string lines = "{\"text\": \"ab\"}\n{\"text\": 3}\n";
  write_file(input_, lines);
  EXPECT_NE(error_of([&] {
              tokenize({"--max-bad-lines", "0"});
            }).find(input_ + ":2"),
            std::string::npos);
  EXPECT_FALSE(exists(folder_ / "x.idx"));
  const Json result = tokenize({"--max-bad-lines", "0.5"});
  EXPECT_EQ(result["bad_lines"], 1);
  EXPECT_EQ(result["documents"], 1);
}

TEST_F(DataTest, HeldOutDocumentsAreInOneOfTheTwo) {
  std::string lines;
  for (int i = 0; i < 40; ++i) lines += "{\"text\": \"" + std::to_string(i) + "\"}\n";
  write_file(input_, lines);
  const Json result =
      tokenize({"--validation-output", folder_ / "v", "--validation-fraction", "0.25"});
  EXPECT_EQ(result["documents"], 30);
  EXPECT_EQ(result["validation_documents"], 10);
  EXPECT_EQ(error_of(
                [&] {
                  tokenize({"--validation-output", folder_ / "./x"});
                },
                kExitUsage),
            "--output and --validation-output are both " + folder_ / "x");
}

TEST_F(DataTest, InspectShowsTextByTheManifestsTokenizer) {
  write_file(input_, "{\"text\": \"first\"}\n{\"text\": \"the second\"}\n");
  tokenize();
  const Json result = json_of({"inspect", folder_ / "x", "--first", "1", "--tokens", "4"});
  EXPECT_EQ(result["format"], "indexed");
  EXPECT_EQ(result["dtype"], "uint16");
  EXPECT_EQ(result["shortest"], 6);
  EXPECT_EQ(result["longest"], 11);
  EXPECT_EQ(result["tokenizer"], "bytes");
  ASSERT_EQ(result["first_documents"].size(), 1);
  EXPECT_EQ(result["first_documents"][0]["text"], "the ");
  const Ran ran = data({"inspect", folder_ / "x"});
  EXPECT_NE(ran.out.find("\ndocument 1, 11 tokens\nthe second\n"), std::string::npos) << ran.out;
}

TEST_F(DataTest, HeaderlessFilesAreReadByTheirRule) {
  const std::vector<uint16_t> ids = {7, 8, 0, 9, 0, 5};
  write_file(folder_ / "raw.bin", {reinterpret_cast<const char*>(ids.data()), 12});
  const Json result = json_of(
      {"inspect", folder_ / "raw.bin", "--dtype", "uint16", "--eos-id", "0", "--documents", "9"});
  EXPECT_EQ(result["format"], "headerless");
  ASSERT_EQ(result["documents"], 3);
  EXPECT_EQ(result["first_documents"][0]["tokens"], Json({7, 8, 0}));
  EXPECT_EQ(result["first_documents"][2]["tokens"], Json({5}));
  EXPECT_EQ(json_of({"verify", folder_ / "raw.bin", "--dtype", "uint16"})["largest_token"], 9);
}

TEST_F(DataTest, VerifyHoldsTheFileAgainstItsManifest) {
  write_file(input_, "{\"text\": \"ab\"}\n");
  tokenize();
  EXPECT_EQ(json_of({"verify", folder_ / "x"})["manifest"], "agrees");
  const std::string path = folder_ / "x.manifest.json";
  Json manifest = parse_json(file_bytes(path));
  const Json whole = manifest;
  const auto verify_with = [&](const char* key, const Json& value) {
    manifest = whole;
    manifest[key] = value;
    write_file(path, manifest.dump());
    return error_of([&] { json_of({"verify", folder_ / "x"}); });
  };
  EXPECT_EQ(verify_with("documents", 2), path + ": records documents 2, the token file has 1");
  EXPECT_EQ(verify_with("bin_crc32c", "00000000").find(path + ": records bin_crc32c \"00000000\""),
            0);
  EXPECT_EQ(verify_with("eos", 98),
            folder_ / "x" + ": document 0 ends with token 257, the manifest promises EOS, 98");
  manifest = whole;
  manifest["tokenizer"]["vocab_size"] = 98;
  manifest["eos"] = nullptr;
  write_file(path, manifest.dump());
  EXPECT_EQ(error_of([&] {
              json_of({"verify", folder_ / "x"});
            }),
            folder_ / "x" + ": token 1 is 98, the vocabulary of bytes has 98");
}

class DataVerifyTest : public testing::Test {
 protected:
  void SetUp() override {
    TokenFileWriter writer(prefix_, 300);
    writer.add_document(std::vector<int32_t>{5, 299, 7});
    writer.publish();
  }
  Json verify() {
    const Ran ran = run_captured(run_data, "tandem data", {"verify", prefix_ + ".bin", "--json"});
    EXPECT_EQ(ran.code, 0);
    return parse_json(ran.out);
  }
  void write_weights(const std::vector<float>& weights) {
    write_file(prefix_ + ".weights",
               {reinterpret_cast<const char*>(weights.data()), weights.size() * sizeof(float)});
  }

  TempFolder folder_;
  const std::string prefix_ = folder_ / "x";
};

TEST_F(DataVerifyTest, SaysWhatIsThere) {
  const auto result = verify();
  EXPECT_EQ(result["tokens"], 3);
  EXPECT_EQ(result["largest_token"], 299);
  EXPECT_EQ(result["manifest"], "none");
  EXPECT_FALSE(result.contains("tokens_with_weight"));
}

TEST_F(DataVerifyTest, WeightsAreCheckedWhereThereAreSome) {
  const auto without = verify();
  write_weights({0, 0.5, 2});
  const auto result = verify();
  EXPECT_EQ(result["tokens_with_weight"], 2);
  EXPECT_EQ(result["weight"], 2.5);
  EXPECT_EQ(result["content_hash"], without["content_hash"]);
  EXPECT_EQ(result["content_hash_with_weights"],
            TokenFile(prefix_, TargetWeights::kRead).content_hash());
  write_weights({0, 0.5, -2});
  EXPECT_EQ(error_of([&] { verify(); }),
            prefix_ + ".weights: weight 2 is -2, expected a finite number >= 0");
  write_weights({0, 0.5});
  EXPECT_EQ(error_of([&] { verify(); }),
            prefix_ + ".weights: has 8 bytes, expected 12, a float32 for each token of x.bin");
}

}  // namespace
}  // namespace tandem
