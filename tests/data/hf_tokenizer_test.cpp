#include "data/hf_tokenizer.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>

#include "core/json_lines.h"
#include "data/utf8.h"
#include "tests/data/temp_folder.h"
#include "tests/paths.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;
using Ids = std::vector<int32_t>;

/// A file of tests/golden/tokenizers.
Json golden(const std::string& name) {
  return read_json(std::string(kSourceDir) + "/tests/golden/tokenizers/" + name);
}

std::unique_ptr<Tokenizer> parse(const Json& json) {
  return parse_hf_tokenizer(json.dump(), "tokenizer.json");
}

/// The message that a changed file gives, without its name.
template <typename Change>
std::string refusal(const std::string& name, Change change) {
  Json json = golden(name);
  change(json);
  const std::string message = error_of([&] { parse(json); });
  const std::string path = "tokenizer.json: ";
  EXPECT_TRUE(message.starts_with(path)) << message;
  return message.substr(path.size());
}

Json added(const std::string& content, int id) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", false}};
}

TEST(HfTokenizerTest, SaysWhatItIs) {
  const TempFolder folder;
  const std::string path = folder / "some.json", text = golden("llama3.json").dump();
  write_file(path, text);
  const auto tokenizer = load_tokenizer(path);
  EXPECT_EQ(tokenizer->name(), path);
  EXPECT_EQ(tokenizer->file_name(), "tokenizer.json");
  EXPECT_EQ(tokenizer->model_bytes(), text);
  EXPECT_EQ(tokenizer->special_id("<|eot_id|>"), 502);
  EXPECT_EQ(tokenizer->special_id("<|begin_of_text|>"), tokenizer->bos());
  EXPECT_EQ(tokenizer->special_id("<|nothing|>"), std::nullopt);
  EXPECT_EQ(tokenizer->special_id("the"), std::nullopt);
  EXPECT_EQ(tokenizer->byte_length(502), 0);
  EXPECT_EQ(tokenizer->byte_length(503), 0);
  EXPECT_EQ(tokenizer->byte_length(-1), 0);
  EXPECT_EQ(tokenizer->decode(Ids{64, 502, 65, 503, -1}), "ab\xEF\xBF\xBD\xEF\xBF\xBD");
}

TEST(HfTokenizerTest, BothSpellingsOfMergesAreTheSame) {
  Json pairs = golden("gpt2.json");
  ASSERT_TRUE(pairs["model"]["merges"][0].is_string());
  for (Json& merge : pairs["model"]["merges"]) {
    const auto text = merge.get<std::string>();
    const size_t space = text.find(' ');
    merge = {text.substr(0, space), text.substr(space + 1)};
  }
  Json with_version = golden("gpt2.json");
  auto& merges = with_version["model"]["merges"];
  merges.insert(merges.begin(), "#version: 0.2");
  const std::string text = "the river runs, don't wait 1984\n\n  caf\xC3\xA9";
  const Ids expected = parse(golden("gpt2.json"))->encode(text);
  EXPECT_EQ(parse(pairs)->encode(text), expected);
  EXPECT_EQ(parse(with_version)->encode(text), expected);
}

TEST(HfTokenizerTest, PartsThatSayTheSameAreTheSame) {
  const std::string text = "e\xCC\x81 The ferry's 1234567\r\n\r\n   end  ";
  const auto same = [&](const char* name, auto change) {
    Json json = golden(name);
    const Ids expected = parse(json)->encode(text);
    change(json);
    EXPECT_EQ(parse(json)->encode(text), expected);
  };
  same("llama3.json", [](Json& json) {
    auto& split = json["pre_tokenizer"]["pretokenizers"][0];
    split["behavior"] = "Removed";
    split["invert"] = true;
  });
  same("llama3.json", [](Json& json) {
    json["normalizer"] = {{"type", "Sequence"}, {"normalizers", Json::array()}};
  });
  same("qwen2.json", [](Json& json) {
    json["normalizer"] = {{"type", "Sequence"}, {"normalizers", {{{"type", "NFC"}}}}};
  });
  same("gpt2.json", [](Json& json) {
    json["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", {json["pre_tokenizer"]}}};
  });
  same("gpt2.json", [](Json& json) {
    json["model"].erase("type");
    json["model"]["dropout"] = 0.0;
    json["model"]["end_of_word_suffix"] = "";
  });
}

TEST(HfTokenizerTest, AddedTokensAreTheLeftmostAndOfThoseTheLongest) {
  Json json = golden("gpt2.json");  // 451 ids
  for (const auto& [content, id] :
       {std::pair("zb", 451), {"zbq", 452}, {"bqqq", 453}, {"qq", 454}}) {
    json["added_tokens"].push_back(added(content, id));
  }
  const auto tokenizer = parse(json);
  const int32_t b = tokenizer->encode("b")[0];
  EXPECT_EQ(tokenizer->encode("zbqqq"), (Ids{452, 454}));
  EXPECT_EQ(tokenizer->encode("bqqqzbb"), (Ids{453, 451, b}));
  EXPECT_EQ(tokenizer->decode(Ids{452, 451}), "zbqzb");
  EXPECT_EQ(tokenizer->byte_length(452), 3);
}

// As the library with encode_special_tokens: a special token that stays text is still passed over
// as a whole, so that the runs of spaces inside are not matched.
TEST(HfTokenizerTest, NoTokenBeginsInsideASpecialOne) {
  Json json = golden("gpt2.json");
  json["added_tokens"].push_back(added("<x  y>", 451));
  json["added_tokens"].back()["special"] = true;
  json["added_tokens"].push_back(added("  ", 452));
  const auto tokenizer = parse(json);
  const Ids outside = tokenizer->encode("a  b"), inside = tokenizer->encode("<x  y>");
  EXPECT_EQ(std::count(outside.begin(), outside.end(), 452), 1);
  EXPECT_EQ(std::count(inside.begin(), inside.end(), 452), 0);
  EXPECT_EQ(tokenizer->decode(inside), "<x  y>");
  EXPECT_EQ(tokenizer->encode("<x  y>", Specials::kAsIds), Ids{451});
}

// As the library with encode_special_tokens, which looks up words in the whole vocabulary.
TEST(HfTokenizerTest, AWordThatIsASpecialTokenIsTakenWholeWhereMergesAreIgnored) {
  Json json = golden("llama3.json");
  const int id = static_cast<int>(json["model"]["vocab"].size());
  json["model"]["vocab"]["zqz"] = id;
  for (Json& token : json["added_tokens"]) token["id"] = token["id"].get<int>() + 1;
  json["added_tokens"].push_back(added("zqz", id));
  json["added_tokens"].back()["special"] = true;
  const auto tokenizer = parse(json);
  EXPECT_EQ(tokenizer->encode("zqz"), Ids{id});
  EXPECT_EQ(tokenizer->encode("zqz", Specials::kAsIds), Ids{id});
  EXPECT_EQ(tokenizer->encode(" zqz").size(), 4U);  // " z", or " " and "z", is another word
  json["model"]["ignore_merges"] = false;
  EXPECT_EQ(parse(json)->encode("zqz").size(), 3U);
}

TEST(HfTokenizerTest, EndsAreNamedWhereThereIsOneOfAKind) {
  Json json = golden("gpt2.json");
  json["added_tokens"].push_back(added("<s>", 451));
  EXPECT_EQ(parse(json)->bos(), 450);  // <|endoftext|>: the other is not special
  json["added_tokens"].back()["special"] = true;
  EXPECT_EQ(parse(json)->bos(), std::nullopt);
  EXPECT_EQ(parse(json)->eos(), 450);
}

TEST(HfTokenizerTest, UnknownNormalizersAreRefused) {
  const auto message = [](const Json& normalizer) {
    return refusal("gpt2.json", [&](Json& json) { json["normalizer"] = normalizer; });
  };
  EXPECT_EQ(message({{"type", "NFKC"}}), "normalizer NFKC, expected NFC or none");
  EXPECT_EQ(message({{"type", "Sequence"},
                     {"normalizers", {{{"type", "NFC"}}, {{"type", "Lowercase"}}}}}),
            "normalizer Lowercase, expected NFC or none");
  EXPECT_EQ(message({{"type", "Sequence"}, {"normalizers", 3}}),
            "normalizer.normalizers is not a list");
  EXPECT_EQ(message("NFC"), "normalizer without a type, expected NFC or none");
  EXPECT_EQ(message({{"type", "NFC"}, {"form", 1}}), "normalizer has the unknown key \"form\"");
}

TEST(HfTokenizerTest, UnknownPreTokenizersAreRefused) {
  const auto message = [](const char* name, auto change) {
    return refusal(name, [&](Json& json) { change(json["pre_tokenizer"]); });
  };
  EXPECT_EQ(message("gpt2.json",
                    [](Json& part) {
                      part = {{"type", "Whitespace"}};
                    }),
            "pre_tokenizer Whitespace, expected ByteLevel, or Split and ByteLevel");
  EXPECT_EQ(message("gpt2.json", [](Json& part) { part = nullptr; }),
            "pre_tokenizer null, expected ByteLevel, or Split and ByteLevel");
  EXPECT_EQ(message("gpt2.json", [](Json& part) { part["use_regex"] = false; }),
            "pre_tokenizer ByteLevel with use_regex false and no Split");
  EXPECT_EQ(message("gpt2.json", [](Json& part) { part["add_prefix_space"] = "no"; }),
            "pre_tokenizer ByteLevel.add_prefix_space = \"no\", expected true or false");
  EXPECT_EQ(
      message("llama3.json",
              [](Json& part) {
                part["pretokenizers"].push_back({{"type", "Digits"}});
              }),
      "pre_tokenizer of Split, ByteLevel, Digits, expected ByteLevel, or Split and ByteLevel");
  EXPECT_EQ(
      message("llama3.json", [](Json& part) { part["pretokenizers"][1]["use_regex"] = true; }),
      "pre_tokenizer ByteLevel with use_regex true behind a Split");
  EXPECT_EQ(message("llama3.json",
                    [](Json& part) { part["pretokenizers"][1]["add_prefix_space"] = true; }),
            "pre_tokenizer ByteLevel with add_prefix_space true behind a Split");
  const auto of_split = [&](auto change) {
    return message("llama3.json", [&](Json& part) { change(part["pretokenizers"][0]); });
  };
  EXPECT_EQ(of_split([](Json& split) { split["pattern"]["Regex"] = "\\p{L}+|."; }),
            "pre_tokenizer pattern \"\\\\p{L}+|.\" is not known, expected that of GPT-2, cl100k "
            "(Llama-3) or Qwen2");
  EXPECT_EQ(of_split([](Json& split) {
              split["pattern"] = {{"String", " "}};
            }),
            "pre_tokenizer Split.pattern is not a Regex");
  EXPECT_EQ(of_split([](Json& split) { split["behavior"] = "MergedWithNext"; }),
            "pre_tokenizer Split with behavior \"MergedWithNext\" and invert false, expected "
            "\"Isolated\" and false");
  EXPECT_EQ(of_split([](Json& split) { split["invert"] = true; }),
            "pre_tokenizer Split with behavior \"Isolated\" and invert true, expected \"Isolated\" "
            "and false");
}

TEST(HfTokenizerTest, UnknownModelsAreRefused) {
  const auto message = [](auto change) {
    return refusal("gpt2.json", [&](Json& json) { change(json["model"]); });
  };
  EXPECT_EQ(message([](Json& model) { model["type"] = "Unigram"; }), "model Unigram, expected BPE");
  EXPECT_EQ(message([](Json& model) { model = nullptr; }), "model null, expected BPE");
  EXPECT_EQ(message([](Json& model) { model["dropout"] = 0.1; }),
            "model.dropout = 0.1, expected null");
  EXPECT_EQ(message([](Json& model) { model["continuing_subword_prefix"] = "##"; }),
            "model.continuing_subword_prefix = \"##\", expected null");
  EXPECT_EQ(message([](Json& model) { model["end_of_word_suffix"] = "</w>"; }),
            "model.end_of_word_suffix = \"</w>\", expected null");
  EXPECT_EQ(message([](Json& model) { model["byte_fallback"] = true; }),
            "model.byte_fallback = true, expected false: bytes have tokens of their own");
  EXPECT_EQ(message([](Json& model) { model["speed"] = 2; }),
            "model has the unknown key \"speed\"");
}

TEST(HfTokenizerTest, OtherPartsAreRefused) {
  EXPECT_EQ(refusal("gpt2.json",
                    [](Json& json) {
                      json["decoder"] = {{"type", "Metaspace"}};
                    }),
            "decoder Metaspace, expected ByteLevel");
  EXPECT_EQ(refusal("gpt2.json", [](Json& json) { json["decoder"] = nullptr; }),
            "decoder null, expected ByteLevel");
  EXPECT_EQ(refusal("gpt2.json",
                    [](Json& json) {
                      json["truncation"] = {{"max_length", 5}};
                    }),
            "truncation is set, expected null");
  EXPECT_EQ(refusal("gpt2.json",
                    [](Json& json) {
                      json["padding"] = {{"length", 5}};
                    }),
            "padding is set, expected null");
  EXPECT_EQ(refusal("gpt2.json", [](Json& json) { json["pre_processor"] = 1; }),
            "the file has the unknown key \"pre_processor\"");
  EXPECT_EQ(error_of([] { parse(Json::array()); }),
            "tokenizer.json: the file is array, expected an object");
  EXPECT_EQ(error_of([] {
              parse_hf_tokenizer("{", "tokenizer.json");
            }).substr(0, std::string("tokenizer.json: byte 1: ").size()),
            "tokenizer.json: byte 1: ");
}

TEST(HfTokenizerTest, WrongVocabulariesAreRefused) {
  const auto message = [](auto change) {
    return refusal("gpt2.json", [&](Json& json) { change(json["model"]["vocab"]); });
  };
  EXPECT_EQ(message([](Json& vocab) { vocab = Json::array(); }),
            "model.vocab is missing, expected an object");
  EXPECT_EQ(message([](Json& vocab) { vocab["the"] = 1 << 20; }),
            "model.vocab: \"the\" has the id 1048576, expected an integer in [0, 1048575]");
  EXPECT_EQ(message([](Json& vocab) { vocab["the"] = "5"; }),
            "model.vocab: \"the\" has the id \"5\", expected an integer in [0, 1048575]");
  EXPECT_EQ(message([](Json& vocab) { vocab["the"] = 0; }), "model.vocab: id 0 is there twice");
  EXPECT_EQ(refusal("gpt2.json",
                    [](Json& json) {
                      json["added_tokens"] = nullptr;
                      json["model"]["vocab"]["two words"] = 450;
                    }),
            "model.vocab: \"two words\" is not spelled in byte-level characters");
  EXPECT_EQ(message([](Json& vocab) { vocab[""] = 450; }),
            "model.vocab: a token has 0 bytes, expected 1 to 4096");
  EXPECT_EQ(message([](Json& vocab) { vocab[std::string(4097, 'a')] = 450; }),
            "model.vocab: a token has 4097 bytes, expected 1 to 4096");
}

TEST(HfTokenizerTest, WrongMergesAreRefused) {
  const auto message = [](const Json& merge) {
    return refusal("gpt2.json", [&](Json& json) { json["model"]["merges"][7] = merge; });
  };
  EXPECT_EQ(message("a"), "model.merges[7] is \"a\", expected \"a b\" or [\"a\", \"b\"]");
  EXPECT_EQ(message("a b c"), "model.merges[7] is \"a b c\", expected \"a b\" or [\"a\", \"b\"]");
  EXPECT_EQ(message({"a", 1}), "model.merges[7] is array, expected \"a b\" or [\"a\", \"b\"]");
  EXPECT_EQ(message("a \xE2\x82\xAC"),
            "model.merges[7]: \"\xE2\x82\xAC\" is not in the vocabulary");
  EXPECT_EQ(message("z q"), "model.merges[7]: \"zq\" is not in the vocabulary");
  EXPECT_EQ(refusal("gpt2.json",
                    [](Json& json) { json["model"]["merges"][7] = json["model"]["merges"][6]; }),
            "model.merges[7] is there twice");
  EXPECT_EQ(refusal("gpt2.json", [](Json& json) { json["model"]["merges"] = nullptr; }),
            "model.merges is missing, expected a list");
}

TEST(HfTokenizerTest, WrongAddedTokensAreRefused) {
  const auto message = [](auto change) {
    return refusal("gpt2.json", [&](Json& json) {
      Json token = added("<x>", 451);
      change(token);
      json["added_tokens"].push_back(token);
    });
  };
  EXPECT_EQ(message([](Json& token) { token["lstrip"] = true; }),
            "added token \"<x>\" has lstrip, expected false");
  EXPECT_EQ(message([](Json& token) { token["rstrip"] = true; }),
            "added token \"<x>\" has rstrip, expected false");
  EXPECT_EQ(message([](Json& token) { token["single_word"] = true; }),
            "added token \"<x>\" has single_word, expected false");
  EXPECT_EQ(message([](Json& token) { token["id"] = 460; }),
            "added token \"<x>\" has the id 460, expected 451, the next one");
  EXPECT_EQ(message([](Json& token) { token["content"] = "er"; }),
            "added token \"er\" has the id 451, expected 260, as in model.vocab");
  EXPECT_EQ(message([](Json& token) { token["content"] = "<|endoftext|>"; }),
            "added token \"<|endoftext|>\" is there twice");
  EXPECT_EQ(message([](Json& token) { token["content"] = ""; }),
            "added_tokens[1] has 0 bytes, expected 1 to 4096");
  EXPECT_EQ(message([](Json& token) { token["id"] = -1; }),
            "added_tokens[1]: id = -1, expected an integer in [0, 1048575]");
  EXPECT_EQ(message([](Json& token) { token = 5; }), "added_tokens[1] is 5, expected an object");
  // U+00E9 is how the vocabulary spells the byte E9.
  EXPECT_EQ(message([](Json& token) {
              token["content"] = "\xC3\xA9";
              token["id"] = golden("gpt2.json")["model"]["vocab"]["\xC3\xA9"];
            }),
            "added token \"\xC3\xA9\" spells other bytes in model.vocab");
  // A special token must come from its text alone.
  EXPECT_EQ(message([](Json& token) {
              token["content"] = "er";
              token["special"] = true;
              token["id"] = golden("gpt2.json")["model"]["vocab"]["er"];
            }).substr(0, 29),
            "a merge of the special token ");
}

TEST(HfTokenizerTest, AByteWithoutTokenIsRefused) {
  const std::string message = refusal("gpt2.json", [](Json& json) {
    auto& vocab = json["model"]["vocab"];
    vocab["!!!!"] = vocab["\xC4\x80"];  // how NUL is spelled
    vocab.erase("\xC4\x80");
  });
  EXPECT_NE(message.find("byte"), message.npos) << message;
}

TEST(HfTokenizerTest, RandomDamageIsRefusedOrHarmless) {
  const std::string text = golden("neox.json").dump();
  std::mt19937 random(12);
  int n_read = 0;
  for (int i = 0; i < 200; ++i) {
    std::string bytes = text;
    bytes[random() % bytes.size()] ^= static_cast<char>(1 << random() % 8);
    try {
      const auto tokenizer = parse_hf_tokenizer(bytes, "file");
      const std::string words = "the river 12";
      EXPECT_EQ(tokenizer->decode(tokenizer->encode(words)), words);
      ++n_read;
    } catch (const UserError& error) {
      EXPECT_EQ(error.exit_code(), kExitBadFile);
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    }
  }
  EXPECT_LT(n_read, 100);
}

}  // namespace
}  // namespace tandem
