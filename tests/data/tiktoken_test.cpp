#include "data/tiktoken.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "tests/data/base64.h"
#include "tests/data/temp_folder.h"

namespace tandem {
namespace {

using Ids = std::vector<int32_t>;

/// The highest rank that a name wants, -1 for any.
int highest_rank(const std::string& name) {
  const std::map<std::string, int> known = {
      {"gpt2", 50255},    {"r50k_base", 50255},         {"p50k_base", 50280},  // 50256 is no rank
      {"qwen", 151642},   {"cl100k_base", 100255},      {"llama3", 127999},
      {"gpt2_ranks", -1}, {"yoco_cl100k_base", 100255}, {"cl100k_ranks", -1}};
  return known.at(name);
}

/// All bytes in order, as 0 to 255, then `tokens`, then as many as `name` wants of bytes that no
/// text holds.
std::string ranks(const std::vector<std::string>& tokens = {},
                  const std::string& name = "gpt2_ranks") {
  std::string text;
  for (int byte = 0; byte < 256; ++byte) {
    text += base64(std::string(1, static_cast<char>(byte))) + " " + std::to_string(byte) + "\n";
  }
  for (size_t i = 0; i < tokens.size(); ++i) {
    text += base64(tokens[i]) + " " + std::to_string(256 + i) + "\n";
  }
  for (auto rank = static_cast<int>(256 + tokens.size()); rank <= highest_rank(name); ++rank) {
    if (rank == 50256 && name == "p50k_base") continue;
    text += base64("\xFF" + std::to_string(rank)) + " " + std::to_string(rank) + "\n";
  }
  return text;
}

std::string message(const std::string& text, const std::string& name = "gpt2_ranks") {
  return error_of([&] { parse_tiktoken(text, "file", name); });
}

TEST(TiktokenTest, SpecialTokensHaveTheIdsOfTheirTokenizer) {
  std::map<std::string, std::unique_ptr<Tokenizer>> loaded;
  const auto id = [&](const std::string& name, const char* text) {
    auto& tokenizer = loaded[name];
    if (!tokenizer) tokenizer = parse_tiktoken(ranks({}, name), "file", name);
    return tokenizer->special_id(text);
  };
  EXPECT_EQ(id("gpt2", "<|endoftext|>"), 50256);
  EXPECT_EQ(id("r50k_base", "<|endoftext|>"), 50256);
  EXPECT_EQ(id("p50k_base", "<|endoftext|>"), 50256);
  EXPECT_EQ(id("cl100k_base", "<|endoftext|>"), 100257);
  EXPECT_EQ(id("cl100k_base", "<|fim_suffix|>"), 100260);
  EXPECT_EQ(id("cl100k_base", "<|endofprompt|>"), 100276);
  EXPECT_EQ(id("llama3", "<|begin_of_text|>"), 128000);
  EXPECT_EQ(id("llama3", "<|eot_id|>"), 128009);
  EXPECT_EQ(id("llama3", "<|reserved_special_token_245|>"), 128255);
  EXPECT_EQ(id("llama3", "<|reserved_special_token_246|>"), std::nullopt);
  EXPECT_EQ(id("qwen", "<|im_end|>"), 151645);
  EXPECT_EQ(id("qwen", "<|extra_204|>"), 151850);
  EXPECT_EQ(id("qwen", "<s>"), std::nullopt);
}

// The layout of the official YOCO code: four ids in front, all others moved up by four.
TEST(TiktokenTest, YocoShiftsIds) {
  const auto plain = parse_tiktoken(ranks({"th", "the"}, "cl100k_base"), "file", "cl100k_base");
  const auto shifted =
      parse_tiktoken(ranks({"th", "the"}, "yoco_cl100k_base"), "file", "yoco_cl100k_base");
  EXPECT_EQ(plain->vocab_size(), 100277);
  EXPECT_EQ(shifted->vocab_size(), 100288);
  EXPECT_EQ(shifted->bos(), 0);
  EXPECT_EQ(shifted->eos(), 2);
  EXPECT_EQ(shifted->special_id("<pad>"), 1);
  EXPECT_EQ(shifted->special_id("<unk>"), 3);
  EXPECT_EQ(shifted->special_id("<|endoftext|>"), 100261);
  EXPECT_EQ(shifted->special_id("<jupyter_code>"), 100280);
  EXPECT_EQ(shifted->special_id("<|endofprompt|>"), 100280);  // one id for two
  EXPECT_EQ(shifted->special_id("<commit_after>"), 100285);
  const std::string text = "the</s> th<|endofprompt|>";
  for (const auto specials : {Specials::kAsText, Specials::kAsIds}) {
    Ids moved = plain->encode(text, specials);
    for (int32_t& id : moved) id += 4;
    EXPECT_EQ(shifted->encode(text, specials), moved);  // "</s>" is never matched in text
    EXPECT_EQ(shifted->decode(moved), plain->decode(plain->encode(text, specials)));
  }
  EXPECT_EQ(shifted->decode(Ids{0, 261, 2, 100286}), "the\xEF\xBF\xBD");
  EXPECT_EQ(shifted->byte_length(261), 3);
  EXPECT_EQ(shifted->byte_length(2), 0);
  EXPECT_EQ(shifted->byte_length(100280), 0);
}

TEST(TiktokenTest, OnlyQwenBringsTextToNormalForm) {
  const std::string decomposed = "e\xCC\x81", composed = "\xC3\xA9";
  for (const std::string& name : tiktoken_names()) {
    const auto tokenizer = parse_tiktoken(ranks({}, name), "file", name);
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(decomposed)),
              name == "qwen" ? composed : decomposed);
  }
}

TEST(TiktokenTest, TheNameComesFromTheFileOrStandsInFront) {
  const TempFolder folder;
  const std::string own = folder / "cl100k_base.tiktoken", other = folder / "tokenizer.model";
  const std::string text = ranks({"ab"}, "cl100k_base");
  write_file(own, text);
  write_file(other, text);
  const auto by_file = load_tokenizer(own), by_name = load_tokenizer("yoco_cl100k_base:" + other);
  EXPECT_EQ(by_file->name(), own);
  EXPECT_EQ(by_name->name(), "yoco_cl100k_base:" + other);
  EXPECT_EQ(by_file->file_name(), "cl100k_base.tiktoken");
  EXPECT_EQ(by_name->file_name(), "yoco_cl100k_base.tiktoken");
  EXPECT_EQ(by_file->model_bytes(), text);
  // A copy under its file name is the same tokenizer.
  write_file(folder / by_name->file_name(), by_name->model_bytes());
  const auto copy = load_tokenizer(folder / by_name->file_name());
  EXPECT_EQ(tokenizer_hash(*copy), tokenizer_hash(*by_name));
  EXPECT_NE(tokenizer_hash(*copy), tokenizer_hash(*by_file));  // the same ranks, other specials
  EXPECT_EQ(copy->vocab_size(), 100288);
}

TEST(TiktokenTest, UnknownNamesAreRefusedWithTheKnownOnes) {
  const TempFolder folder;
  const std::string known =
      "; known are gpt2, r50k_base, p50k_base, cl100k_base, yoco_cl100k_base, llama3, qwen, "
      "gpt2_ranks, cl100k_ranks";
  const std::string path = folder / "mine.tiktoken";
  write_file(path, ranks());
  EXPECT_EQ(error_of([&] { load_tokenizer(path); }, kExitUsage),
            path + ": unknown tokenizer name mine" + known);
  EXPECT_EQ(error_of([&] { load_tokenizer("o200k:" + path); }, kExitUsage),
            path + ": unknown tokenizer name o200k" + known);
  EXPECT_EQ(error_of([&] { load_tokenizer("gpt2:" + (folder / "none")); }),
            folder / "none" + ": cannot open: No such file or directory");
}

TEST(TiktokenTest, RanksMayComeInAnyOrderAndWithGaps) {
  std::string text =
      base64("ab") + " 300\n\n" + ranks() + base64("abc") + " 299";  // no last newline
  const auto tokenizer = parse_tiktoken(text, "file", "gpt2_ranks");
  EXPECT_EQ(tokenizer->encode("abcab"), (Ids{299, 300}));
  EXPECT_EQ(tokenizer->encode("abc"), Ids{299});
  EXPECT_EQ(tokenizer->decode(Ids{299, 298, 300}),
            "abc\xEF\xBF\xBD"
            "ab");
}

TEST(TiktokenTest, DamagedLinesAreNamed) {
  const std::string expected = ", expected BASE64 RANK";
  EXPECT_EQ(message(""), "file: empty, expected lines of BASE64 RANK");
  EXPECT_EQ(message("YQ== 0\nYg==\n"), "file: line 2: found Yg==" + expected);
  EXPECT_EQ(message("YQ==\t0\n"), "file: line 1: found YQ==\\x090" + expected);
  EXPECT_EQ(message("YQ== 0\r\n"), "file: line 1: found YQ== 0\\x0d" + expected);
  for (const char* line :
       {"YQ== -1", "YQ== x", "YQ== 1 ", "YQ==  1", "YQ== 1x", "YQ== 99999999999", "YQ 1", "YQ= 1",
        "Y=== 1", "YR== 1", "Y*== 1", "YQ==YQ== 1", "=QYQ 1", " 1", "==== 1"}) {
    EXPECT_EQ(message(line), "file: line 1: found " + std::string(line) + expected);
  }
  EXPECT_EQ(message("YQ== 0\nYg== 0\n"), "file: line 2: rank 0 is there twice");
  EXPECT_EQ(message("YQ== 1048576\n"), "file: line 1: rank 1048576, expected at most 1048575");
  EXPECT_EQ(message("YQ== 1048572\n", "yoco_cl100k_base"),
            "file: line 1: rank 1048572, expected at most 1048571");
  EXPECT_EQ(message(base64(std::string(4097, 'a')) + " 0\n"),
            "file: line 1: a token of 4097 bytes, expected at most 4096");
}

TEST(TiktokenTest, RanksThatCannotBeAreRefused) {
  const std::string all = ranks();
  const std::string no_a =
      message(all.substr(0, all.find("YQ== ")) + all.substr(all.find("Yg== ")));
  EXPECT_TRUE(no_a.starts_with("file: ")) << no_a;
  EXPECT_NE(no_a.find("byte"), no_a.npos) << no_a;
  EXPECT_TRUE(message(all + "YQ== 256\n").starts_with("file: "));  // "a" twice
}

TEST(TiktokenTest, RanksOfAnotherTokenizerAreRefused) {
  const auto refusal = [](int64_t n, int64_t highest, const std::string& expected) {
    return "file: " + std::to_string(n) + " ranks up to " + std::to_string(highest) +
           ", expected the " + expected + "; these are another tokenizer's or damaged";
  };
  const std::string gpt2 = ranks({}, "gpt2"), one_more = base64("\xFF\xFE") + " ";
  EXPECT_EQ(message(gpt2, "cl100k_base"),
            refusal(50256, 50255, "100256 up to 100255 of cl100k_base"));
  EXPECT_EQ(message(gpt2, "yoco_cl100k_base"),
            refusal(50256, 50255, "100256 up to 100255 of yoco_cl100k_base"));
  EXPECT_EQ(message(gpt2, "p50k_base"), refusal(50256, 50255, "50280 up to 50280 of p50k_base"));
  EXPECT_EQ(message(gpt2 + one_more + "50256", "gpt2"),
            refusal(50257, 50256, "50256 up to 50255 of gpt2"));
  const size_t line = gpt2.find(base64("\xFF" + std::string("9999")));
  const std::string hole = gpt2.substr(0, line) + gpt2.substr(gpt2.find('\n', line) + 1);
  EXPECT_EQ(message(hole, "gpt2"), refusal(50255, 50255, "50256 up to 50255 of gpt2"));
  // As many as there are to be, with the hole in another place.
  std::string p50k = ranks({}, "p50k_base");
  const size_t other = p50k.find(base64("\xFF" + std::string("9999")));
  p50k = p50k.substr(0, other) + p50k.substr(p50k.find('\n', other) + 1) + one_more + "50256";
  EXPECT_EQ(message(p50k, "p50k_base"),
            "file: rank 50256 is <|endoftext|> in p50k_base; these are another tokenizer's ranks");
}

TEST(TiktokenTest, OwnVocabulariesHaveTheSpecialTokenBehindThem) {
  const auto tokenizer = parse_tiktoken(ranks({"th", "the"}), "file", "cl100k_ranks");
  EXPECT_EQ(tokenizer->encode("the<|endoftext|>", Specials::kAsIds), (Ids{257, 258}));
  EXPECT_EQ(tokenizer->eos(), 258);
  EXPECT_EQ(tokenizer->bos(), 258);
  EXPECT_EQ(tokenizer->vocab_size(), 259);
  EXPECT_EQ(tokenizer->file_name(), "cl100k_ranks.tiktoken");
}

// U+0338 makes one character with the ">" before it, so that there is no special token any more.
TEST(TiktokenTest, QwenLooksForSpecialTokensInNormalForm) {
  const auto tokenizer = parse_tiktoken(ranks({}, "qwen"), "file", "qwen");
  EXPECT_EQ(tokenizer->encode("<|im_end|>", Specials::kAsIds), Ids{151645});
  const std::string text = "<|im_end|>\xCC\xB8";
  EXPECT_EQ(tokenizer->encode(text, Specials::kAsIds), tokenizer->encode(text));
}

TEST(TiktokenTest, RandomDamageIsRefusedOrHarmless) {
  const std::string text = ranks({"th", "the", " t", " the"});
  std::mt19937 random(13);
  for (int i = 0; i < 300; ++i) {
    std::string bytes = text;
    bytes[random() % bytes.size()] ^= static_cast<char>(1 << random() % 8);
    if (i % 7 == 0) bytes.resize(random() % bytes.size());
    try {
      const auto tokenizer = parse_tiktoken(bytes, "file", "cl100k_ranks");
      EXPECT_EQ(tokenizer->decode(tokenizer->encode("over the river")), "over the river");
    } catch (const UserError& error) {
      EXPECT_EQ(error.exit_code(), kExitBadFile);
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace tandem
