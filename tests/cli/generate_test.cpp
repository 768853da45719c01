#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "core/json_lines.h"
#include "tests/cli/tiny_checkpoint.h"
#include "tests/data/temp_folder.h"

namespace tandem {
namespace {

class GenerateCommandTest : public testing::Test {
 protected:
  Ran generate_with(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {run_, "--device", "cpu"});
    return run_captured(run_generate, "tandem generate", arguments);
  }
  nlohmann::ordered_json json_of(std::vector<std::string> arguments) {
    arguments.push_back("--json");
    return parse_json(generate_with(arguments).out);
  }
  TempFolder folder_;
  const std::string run_ = write_tiny_run(folder_ / "run", kTinyByteYoco);
};

TEST_F(GenerateCommandTest, StreamsTheTextThatJsonReports) {
  const auto json = json_of({"--prompt", "In the", "--seed", "5", "--max-new-tokens", "20"});
  const Ran streamed =
      generate_with({"--prompt", "In the", "--seed", "5", "--max-new-tokens", "20"});
  EXPECT_EQ(streamed.code, 0);
  EXPECT_EQ(streamed.out, json["text"].get<std::string>() + "\n");
  EXPECT_EQ(json["prompt_tokens"], 7);  // EOS in front
  EXPECT_EQ(json["step"], 7);
  EXPECT_NE(json["ids"], json_of({"--prompt", "In the", "--seed", "6"})["ids"]);
}

TEST_F(GenerateCommandTest, PrefillInPiecesChangesNothing) {
  const std::vector<std::string> arguments = {
      "--prompt", "and it came to pass", "--seed", "3", "--top-k", "40", "--top-p", "0.9"};
  const auto whole = json_of(arguments);
  auto in_pieces = arguments;
  in_pieces.insert(in_pieces.end(), {"--prefill-chunk", "4"});
  EXPECT_EQ(json_of(in_pieces)["ids"], whole["ids"]);
}

TEST_F(GenerateCommandTest, KeysAndValuesMayBeOfAnotherType) {
  const std::vector<std::string> greedy = {"--prompt", "In the", "--temperature", "0"};
  const auto json_with = [&](const std::string& cache_dtype) {
    auto arguments = greedy;
    arguments.insert(arguments.end(), {"--cache-dtype", cache_dtype});
    return json_of(arguments);
  };
  const auto same = json_of(greedy);
  EXPECT_EQ(same["cache_dtype"], "same");
  EXPECT_EQ(json_with("float32")["ids"], same["ids"]);  // as the model
  const auto narrow = json_with("bfloat16");
  EXPECT_EQ(narrow["cache_dtype"], "bfloat16");
  EXPECT_EQ(narrow["ids"].size(), same["ids"].size());
  const auto codes = json_with("int8");
  EXPECT_EQ(codes["cache_dtype"], "int8");
  EXPECT_EQ(codes["ids"].size(), same["ids"].size());
  EXPECT_EQ(generate_with({"--prompt", "x", "--cache-dtype", "int4"}).code, kExitUsage);
}

TEST_F(GenerateCommandTest, NeverDrawsIdsWithoutText) {
  const auto json = json_of({"--prompt", "x", "--temperature", "100", "--max-new-tokens", "400"});
  for (const auto& id : json["ids"])
    EXPECT_TRUE(id < 256 || id == 257)
        << id;  // neither BOS nor what the vocabulary was padded with
}

TEST_F(GenerateCommandTest, StopsBeforeAStopString) {
  const std::vector<std::string> arguments = {"--prompt",      "x",  "--seed", "2",
                                              "--temperature", "0.5"};
  const auto whole = json_of(arguments)["text"].get<std::string>();
  std::string stop;  // the first ASCII letter of the text
  for (const char c : whole) {
    if (stop.empty() && c > 0) stop = c;
  }
  ASSERT_FALSE(stop.empty());
  auto stopping = arguments;
  stopping.insert(stopping.end(), {"--stop", "never to be seen", "--stop", stop});
  const auto json = json_of(stopping);
  EXPECT_EQ(json["text"], whole.substr(0, whole.find(stop)));
  EXPECT_EQ(json["stop_reason"], "stop_string");
}

TEST_F(GenerateCommandTest, WithoutAnyTokenThereIsNothingToContinue) {
  EXPECT_EQ(error_of(
                [&] {
                  generate_with({"--prompt", "", "--bos", "none"});
                },
                kExitUsage),
            "--prompt is empty and --bos gives no token to begin with");
  EXPECT_EQ(json_of({"--prompt", "", "--bos", "bos"})["prompt_tokens"], 1);
}

TEST_F(GenerateCommandTest, PositionsThatTheModelHasNotAreRefused) {
  const std::string run = write_tiny_run(
      folder_ / "gpt2",
      "{family: gpt_neox, vocab_size: 259, max_positions: 12, d_model: 24, ffn_dim: 29, "
      "n_layers: 1, n_heads: 3, rope: {base: none}}");
  const auto generate_more = [&](const std::string& n) {
    return run_captured(
        run_generate, "tandem generate",
        {run, "--prompt", "In the", "--max-new-tokens", n, "--device", "cpu", "--json"});
  };
  EXPECT_EQ(parse_json(generate_more("5").out)["prompt_tokens"], 7);
  EXPECT_EQ(
      error_of([&] { generate_more("6"); }, kExitUsage),
      "prompt of 7 tokens and --max-new-tokens 6, expected at most 12 together, the positions "
      "of the model");
}

// With and without padding in front of prompts, whose 7 tokens fill no block of 4.
TEST_F(GenerateCommandTest, ModelsOfBlocksContinuePromptsOfAnyLength) {
  for (const std::string pad_documents : {"true", "false"}) {
    const std::string run = write_tiny_run(
        folder_ / pad_documents,
        "{family: block_transformer, vocab_size: 259, block_length: 4, pad_documents: " +
            pad_documents +
            ", embedder: {kind: lookup, d_embed: 6}, "
            "block_decoder: {stack: gpt_neox, d_model: 24, ffn_dim: 29, n_layers: 1, n_heads: 3}, "
            "token_decoder: {kind: prefix, prefix_length: 2, stack: gpt_neox, d_model: 18, "
            "ffn_dim: 31, n_layers: 1, n_heads: 3, head_dim: 8}}");
    std::vector<std::string> arguments = {run,        "--prompt", "In the",           "--seed",
                                          "5",        "--json",   "--max-new-tokens", "10",
                                          "--device", "cpu"};
    const auto json = parse_json(run_captured(run_generate, "tandem generate", arguments).out);
    EXPECT_EQ(json["prompt_tokens"], 7);
    EXPECT_EQ(json["stop_reason"], "length");
    EXPECT_EQ(json["ids"].size(), 10u);
    for (const auto& id : json["ids"]) EXPECT_GE(id, 0);
    arguments.insert(arguments.end(), {"--prefill-chunk", "3"});
    EXPECT_EQ(parse_json(run_captured(run_generate, "tandem generate", arguments).out)["ids"],
              json["ids"]);
  }
}

TEST_F(GenerateCommandTest, WithoutATokenizerItRefuses) {
  const std::string run = write_tiny_run(folder_ / "imported", kTinyByteYoco, 7, 24, false);
  EXPECT_EQ(
      error_of([&] {
        run_captured(run_generate, "tandem generate", {run, "--prompt", "x", "--device", "cpu"});
      }),
      checkpoint_folder(run, 7) +
          ": holds no tokenizer to read the prompt with; import it with --config, a config "
          "that names data.tokenizer");
}

TEST_F(GenerateCommandTest, WrongOptionsAreNamed) {
  const Ran ran = generate_with({"--prompt", "x", "--top-p", "1.5"});
  EXPECT_EQ(ran.code, kExitUsage);
  EXPECT_EQ(ran.err,
            "tandem: --top-p: 1.5 is not above 0 and at most 1; see tandem generate --help\n");
}

}  // namespace
}  // namespace tandem
