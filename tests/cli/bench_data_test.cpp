#include <gmock/gmock.h>

#include <nlohmann/json.hpp>
#include <numeric>

#include "cli/commands.h"
#include "core/checksum.h"
#include "core/json_lines.h"
#include "data/token_file_writer.h"
#include "data/tokenizer.h"
#include "tests/cli/tiny_checkpoint.h"
#include "tests/data/temp_folder.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;

class DataBenchTest : public testing::Test {
 protected:
  static Json record(std::vector<std::string> arguments) {
    arguments.push_back("--json");
    const Ran ran = run_captured(run_bench, "tandem bench", arguments);
    EXPECT_EQ(ran.code, kExitDone);
    return parse_json(ran.out);
  }
  static std::string error(const std::vector<std::string>& arguments, int exit_code) {
    return error_of([&] { run_captured(run_bench, "tandem bench", arguments); }, exit_code);
  }
  TempFolder folder_;
};

TEST_F(DataBenchTest, EncodesTheDocumentsThatTokenizeWould) {
  write_file(folder_ / "a.txt", "In the\nbeginning\n\n\nwas the word\n");
  const auto bench = [&](const char* threads) {
    return record({"tokenizer", "--tokenizer", "bytes", "--input", folder_ / "a.txt", "--split",
                   "blank-line", "--repeats", "3", "--threads", threads});
  };
  const Json one = bench("1");
  EXPECT_EQ(one["documents"], 2);
  EXPECT_EQ(one["bytes"], 30);  // without the blank lines
  EXPECT_EQ(one["tokens"], 30);
  EXPECT_EQ(one["vocab_size"], 258);
  const auto ids = load_tokenizer("bytes")->encode("In the\nbeginning\nwas the word\n");
  EXPECT_EQ(one["ids_sha256"], sha256_hex(std::as_bytes(std::span(ids))));
  EXPECT_EQ(one["tokenizer_sha256"], tokenizer_hash(*load_tokenizer("bytes")));
  ASSERT_EQ(one["each_mb_per_s"].size(), 3u);
  EXPECT_GT(one["smallest_mb_per_s"], 0);
  EXPECT_LE(one["smallest_mb_per_s"], one["mb_per_s"]);
  EXPECT_LE(one["mb_per_s"], one["largest_mb_per_s"]);
  EXPECT_THAT(one["each_mb_per_s"], testing::Contains(one["mb_per_s"]));
  EXPECT_EQ(bench("5")["ids_sha256"], one["ids_sha256"]);
}

TEST_F(DataBenchTest, TheTokenizerNeedsTextAndGoodLines) {
  write_file(folder_ / "empty.txt", "");
  EXPECT_EQ(
      error({"tokenizer", "--tokenizer", "bytes", "--input", folder_ / "empty.txt"}, kExitBadFile),
      (folder_ / "empty.txt") + ": holds no text");
  write_file(folder_ / "bad.jsonl", "{\"text\": \"a\"}\n{\"text\": \n");
  EXPECT_THAT(error({"tokenizer", "--tokenizer", "bytes", "--input", folder_ / "bad.jsonl",
                     "--max-bad-lines", "0"},
                    kExitBadFile),
              testing::StartsWith((folder_ / "bad.jsonl") + ":"));
}

TEST_F(DataBenchTest, TheLoaderCountsBytesInTheTypeOfTheFile) {
  const auto bench = [&](const char* name, int64_t vocab_size) {
    TokenFileWriter writer(folder_ / name, vocab_size);
    std::vector<int32_t> ids(101);
    std::iota(ids.begin(), ids.end(), 0);
    writer.add_document(ids);
    writer.publish();
    return record({"loader", folder_ / name, "--context-length", "7", "--rows", "3", "--rate",
                   "2e5", "--seconds", "0.003", "--busy-threads", "1"});
  };
  const Json narrow = bench("narrow", 300), wide = bench("wide", 70000);
  EXPECT_EQ(narrow["dtype"], "uint16");
  EXPECT_EQ(narrow["tokens"], 101);
  EXPECT_EQ(wide["dtype"], "int32");
  int64_t bytes = 2;
  for (const Json& one : {narrow, wide}) {
    const double groups = one["groups"], seconds = one["seconds"];
    EXPECT_GE(groups, 1);
    EXPECT_GE(seconds, 0.003);
    EXPECT_DOUBLE_EQ(one["bytes_per_s"], groups * 7 * 3 * static_cast<double>(bytes) / seconds);
    EXPECT_LE(one["bytes_per_s"], 2.02e5);  // never faster than asked
    EXPECT_DOUBLE_EQ(one["share_waited_for"], one["waited_for"].get<double>() / groups);
    EXPECT_DOUBLE_EQ(one["most_bytes_per_s"],
                     one["most_tokens_per_s"].get<double>() * static_cast<double>(bytes));
    bytes = 4;
  }
}

TEST_F(DataBenchTest, ARateThatTakesNoGroupIsRefused) {
  TokenFileWriter writer(folder_ / "x", 300);
  writer.add_document(std::vector<int32_t>{1, 2, 3});
  writer.publish();
  EXPECT_EQ(error({"loader", folder_ / "x", "--context-length", "2", "--rows", "5", "--rate", "10",
                   "--seconds", "1.5"},
                  kExitUsage),
            "a group is 20 bytes: --rate 10 for --seconds 1.5 takes none");
}

}  // namespace
}  // namespace tandem
