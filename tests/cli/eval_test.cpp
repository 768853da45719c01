#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "core/file.h"
#include "core/json_lines.h"
#include "data/token_file.h"
#include "data/token_file_writer.h"
#include "data/tokenizer.h"
#include "tests/cli/tiny_checkpoint.h"
#include "tests/data/temp_folder.h"

namespace tandem {
namespace {

using testing::HasSubstr;

class EvalCommandTest : public testing::Test {
 protected:
  void SetUp() override {
    TokenFileWriter writer(data_, 258);
    const auto text =
        load_tokenizer("bytes")->encode("In the beginning God created the heaven and the earth.");
    writer.add_document(text);
    writer.publish();
  }
  Ran eval(std::vector<std::string> arguments) {
    return run_captured(run_eval, "tandem eval", arguments);
  }

  TempFolder folder_;
  const std::string run_ = write_tiny_run(folder_ / "run", kTinyByteYoco),
                    data_ = folder_ / "valid";
};

TEST_F(EvalCommandTest, NllPrintsATableAndAppendsJson) {
  const std::string out = folder_ / "nll.jsonl";
  const Ran ran = eval({"nll", run_, "--data", data_, "--unigram", data_, "--stride", "8", "--out",
                        out, "--device", "cpu"});
  EXPECT_EQ(ran.code, 0);
  EXPECT_THAT(ran.out, HasSubstr("tokens scored"));
  EXPECT_THAT(ran.out, HasSubstr("unigram"));
  EXPECT_THAT(ran.out, HasSubstr(run_));
  const std::string lines = read_text(out);
  EXPECT_EQ(std::count(lines.begin(), lines.end(), '\n'), 2);

  const Ran as_json =
      eval({"nll", run_, "--data", data_, "--stride", "8", "--json", "--device", "cpu"});
  const auto record = parse_json(as_json.out);
  EXPECT_EQ(record["window"], 24);
  EXPECT_EQ(record["stride"], 8);
  EXPECT_EQ(record["tokens_scored"], 53);
  EXPECT_THAT(lines, HasSubstr(as_json.out));
}

TEST_F(EvalCommandTest, WithoutATokenizerThereAreNoBitsPerByte) {
  const std::string run = write_tiny_run(folder_ / "imported", kTinyByteYoco, 7, 24, false);
  const auto record = parse_json(eval({"nll", run, "--data", data_, "--json", "--device", "cpu",
                                       "--max-tokens", "9223372036854775807"})
                                     .out);
  EXPECT_EQ(record["tokens_scored"], 53);
  EXPECT_TRUE(record["bpb"].is_null());
  EXPECT_TRUE(record["bytes_scored"].is_null());
  EXPECT_THAT(eval({"nll", run, "--data", data_, "--device", "cpu"}).out, HasSubstr(" n/a\n"));
}

TEST_F(EvalCommandTest, ModelsOfBlocksGetTheSameLossInPieces) {
  for (const bool pad_documents : {true, false}) {
    const std::string flag = pad_documents ? "true" : "false";
    const std::string run = write_tiny_run(
        folder_ / flag,
        "{family: block_transformer, vocab_size: 259, block_length: 3, pad_documents: " + flag +
            ", embedder: {kind: lookup, d_embed: 8}, "
            "block_decoder: {stack: gpt_neox, d_model: 24, ffn_dim: 29, n_layers: 1, n_heads: 3}, "
            "token_decoder: {kind: prefix, prefix_length: 2, stack: gpt_neox, d_model: 18, "
            "ffn_dim: 31, n_layers: 1, n_heads: 3, head_dim: 8}}");
    const auto record_with = [&](std::vector<std::string> arguments) {
      arguments.insert(arguments.begin(), {"nll", run, "--data", data_, "--json", "--device", "cpu",
                                           "--dtype", "float64", "--context-length", "23"});
      return parse_json(eval(arguments).out);
    };
    const auto whole = record_with({}), pieces = record_with({"--chunk", "5"});
    EXPECT_EQ(whole["unscored_prefix"], pad_documents ? 0 : 2);
    EXPECT_EQ(whole["tokens_scored"], pad_documents ? 53 : 53 - 3 * 2);  // three windows
    EXPECT_EQ(pieces["tokens_scored"], whole["tokens_scored"]);
    EXPECT_NEAR(pieces["nll"].get<double>(), whole["nll"].get<double>(), 1e-10);
    EXPECT_EQ(whole["nll_by_block_position"].size(), 3u);
  }
}

TEST_F(EvalCommandTest, OptionsAreCheckedAsConfigValues) {
  EXPECT_EQ(error_of(
                [&] {
                  eval({"nll", run_, "--data", data_, "--stride", "0"});
                },
                kExitUsage),
            "command line: stride = 0, expected an integer >= 1");
  EXPECT_EQ(error_of(
                [&] {
                  eval({"nll", run_, "--data", data_, "--skip", "many"});
                },
                kExitUsage),
            "command line: skip = many, expected an integer >= 0");
  EXPECT_EQ(eval({"nll"}).code, kExitUsage);
  EXPECT_EQ(eval({"nll", run_, "--widow", "3"}).code, kExitUsage);
}

TEST_F(EvalCommandTest, HelpNamesTheOptionsAndAnExample) {
  const Ran ran = eval({"nll", "--help"});
  EXPECT_EQ(ran.code, 0);
  EXPECT_THAT(ran.out, HasSubstr("--context-length INT"));
  EXPECT_THAT(ran.out, HasSubstr("Example: tandem eval nll"));
}

}  // namespace
}  // namespace tandem
