#include "data/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "data/tokenizer_trainer.h"
#include "data/utf8.h"
#include "tests/data/temp_folder.h"

namespace tandem {
namespace {

/// A little text with words, digits, newlines and indentation to learn from.
std::string corpus() {
  std::mt19937 random(7);
  const char* words[] = {"the",   "river", "runs",   "under",       "a",         "stone", "bridge",
                         "and",   "seven", "boats",  "wait",        "there",     "for",   "evening",
                         "light", "1984",  "x = 3;", "caf\xC3\xA9", "\"quoted\""};
  std::string text;
  for (int line = 0; line < 400; ++line) {
    if (line % 9 == 0) text += "    ";
    for (int i = 0; i < 8; ++i)
      text += std::string(i ? " " : "") + words[random() % std::size(words)];
    text += line % 13 == 0 ? ".\n\n" : ".\n";
  }
  return text;
}

void learn(const std::string& path, const TokenizerTraining& training, const std::string& output) {
  train_tokenizer(path, {}, training, /*max_bad_lines=*/0, output);
}

const std::string kTexts[] = {
    "",
    " ",
    "\n",
    "the river runs under a stone bridge",
    " leading and trailing  ",
    "runs   of    spaces\n\n\n  and newlines \n\t tabs\r\n",
    "12345 and 007",
    "emoji \xF0\x9F\x98\x80\xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x91\xA7 and "
    "\xE6\x97\xA5\xE6\x9C\xAC\xE8\xAA\x9E",
    "a literal \xE2\x96\x81 mark\xE2\x96\x81\xE2\x96\x81",
    "<s> </s> <unk> <0x41> \xE2\x81\x87 \xE2\x96\x85",
    std::string("NUL \0 inside", 12),
    "\xEF\xBC\xA1\xEF\xAC\x81 e\xCC\x81 \xC2\xA0no-break",  // what NFKC would change
    "\xEF\xBF\xBD",
};

class TokenizerTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TempFolder;
    write_file(*folder_ / "corpus.txt", corpus());
    for (const char* model : {"bpe", "unigram"}) {
      learn(*folder_ / "corpus.txt", {.vocab_size = 320, .model = model, .threads = 1},
            *folder_ / model);
    }
  }
  static void TearDownTestSuite() { delete folder_; }
  static TempFolder* folder_;
};
TempFolder* TokenizerTest::folder_ = nullptr;

class AnyTokenizerTest : public TokenizerTest, public testing::WithParamInterface<std::string> {
 protected:
  std::unique_ptr<Tokenizer> load() {
    return load_tokenizer(GetParam() == "bytes" ? "bytes" : *folder_ / GetParam());
  }
};

INSTANTIATE_TEST_SUITE_P(All, AnyTokenizerTest, testing::Values("bytes", "bpe", "unigram"),
                         [](const auto& test) { return test.param; });

TEST_P(AnyTokenizerTest, TextComesBackExactly) {
  const auto tokenizer = load();
  for (const std::string& text : kTexts) {
    const auto ids = tokenizer->encode(text);
    EXPECT_EQ(tokenizer->decode(ids), text);
    for (const int32_t id : ids) {
      EXPECT_GE(id, 0);
      EXPECT_LT(id, tokenizer->vocab_size());
    }
  }
  const std::string all = corpus();
  EXPECT_EQ(tokenizer->decode(tokenizer->encode(all)), all);
}

TEST_P(AnyTokenizerTest, ByteLengthsAddUpToTheText) {
  const auto tokenizer = load();
  for (const std::string& text : kTexts) {
    int64_t bytes = 0;
    for (const int32_t id : tokenizer->encode(text)) bytes += tokenizer->byte_length(id);
    EXPECT_EQ(bytes, static_cast<int64_t>(text.size())) << text;
  }
  EXPECT_EQ(tokenizer->byte_length(*tokenizer->bos()), 0);
  EXPECT_EQ(tokenizer->byte_length(*tokenizer->eos()), 0);
  EXPECT_EQ(tokenizer->byte_length(-1), 0);
  EXPECT_EQ(tokenizer->byte_length(static_cast<int32_t>(tokenizer->vocab_size())), 0);
}

TEST_P(AnyTokenizerTest, ControlIdsGiveNoTextAndForeignIdsShow) {
  const auto tokenizer = load();
  auto ids = tokenizer->encode("two words");
  ids.insert(ids.begin(), *tokenizer->bos());
  ids.push_back(*tokenizer->eos());
  EXPECT_EQ(tokenizer->decode(ids), "two words");
  ids.push_back(static_cast<int32_t>(tokenizer->vocab_size()));
  ids.push_back(-5);
  EXPECT_EQ(tokenizer->decode(ids), "two words\xEF\xBF\xBD\xEF\xBF\xBD");
}

TEST_P(AnyTokenizerTest, StreamingGivesTheSameTextInWholeCharacters) {
  const auto tokenizer = load();
  std::string long_text;
  for (int i = 0; i < 5; ++i) {
    for (const std::string& text : kTexts) long_text += text;
  }
  for (const std::string& text : {kTexts[3], kTexts[4], kTexts[7], kTexts[12], long_text}) {
    StreamingDecoder stream(*tokenizer);
    std::string out;
    for (const int32_t id : tokenizer->encode(text)) {
      const std::string piece = stream.push(id);
      EXPECT_EQ(valid_utf8(piece), piece);
      out += piece;
    }
    out += stream.flush();
    EXPECT_EQ(out, text);
    EXPECT_EQ(stream.flush(), "");
  }
}

TEST_P(AnyTokenizerTest, StreamingGivesPlainTextAtOnce) {
  const auto tokenizer = load();
  StreamingDecoder stream(*tokenizer);
  std::string out;
  size_t taken = 0;
  const auto ids = tokenizer->encode("the bridge, the boats");
  for (const int32_t id : ids) {
    out += stream.push(id);
    EXPECT_EQ(out, tokenizer->decode(std::span(ids).subspan(0, ++taken)));
  }
}

TEST_P(AnyTokenizerTest, StreamingOfAnUnfinishedCharacterEndsInReplacements) {
  const auto tokenizer = load();
  auto ids = tokenizer->encode("a\xF0\x9F\x98\x80");
  ids.pop_back();  // the emoji's last byte: neither model knows it whole
  StreamingDecoder stream(*tokenizer);
  std::string out;
  for (const int32_t id : ids) out += stream.push(id);
  EXPECT_EQ(out, "a");
  out = stream.flush();
  // One for the cut character; sentencepiece itself gives one for each byte.
  EXPECT_EQ(out, GetParam() == "bytes" ? "\xEF\xBF\xBD" : "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
}

TEST_P(AnyTokenizerTest, StreamingOfManyReplacementsGivesThemAll) {
  const auto tokenizer = load();
  std::vector<int32_t> ids = tokenizer->encode("a");
  ids.insert(ids.end(), 300, static_cast<int32_t>(tokenizer->vocab_size()));  // no token
  const auto more = tokenizer->encode("\xF0\x9F\x98\x80 b");
  ids.insert(ids.end(), more.begin(), more.end());
  StreamingDecoder stream(*tokenizer);
  std::string out;
  for (const int32_t id : ids) out += stream.push(id);
  EXPECT_GT(out.size(), 3u * 290);
  EXPECT_EQ(out + stream.flush(), tokenizer->decode(ids));
}

TEST_F(TokenizerTest, SpecialTokensInTextAreTextUnlessAskedFor) {
  for (const char* model : {"bpe", "unigram"}) {
    const auto tokenizer = load_tokenizer(*folder_ / model);
    EXPECT_EQ(tokenizer->special_id("<s>"), 1);
    EXPECT_EQ(tokenizer->special_id("</s>"), 2);
    EXPECT_EQ(tokenizer->special_id("<unk>"), std::nullopt);  // no control piece
    EXPECT_EQ(tokenizer->special_id("the"), std::nullopt);
    EXPECT_EQ(tokenizer->special_id("<none>"), std::nullopt);
    const std::string text = "</s>the river<s></s> <unk>";
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
    std::vector<int32_t> expected = {2};
    const auto append = [&](const std::string& part) {
      const auto ids = tokenizer->encode(part);
      expected.insert(expected.end(), ids.begin(), ids.end());
    };
    append("the river");
    expected.insert(expected.end(), {1, 2});
    append(" <unk>");
    EXPECT_EQ(tokenizer->encode(text, Specials::kAsIds), expected);
  }
  const auto bytes = load_tokenizer("bytes");
  EXPECT_EQ(bytes->special_id("<s>"), std::nullopt);
  EXPECT_EQ(bytes->encode("<s>", Specials::kAsIds), (std::vector<int32_t>{'<', 's', '>'}));
}

TEST_P(AnyTokenizerTest, AppendGoesOnBehindWhatIsThere) {
  const auto tokenizer = load();
  std::vector<int32_t> ids = {7, 8}, expected = {7, 8};
  tokenizer->append("the river", Specials::kAsText, ids);
  const auto more = tokenizer->encode("the river");
  expected.insert(expected.end(), more.begin(), more.end());
  EXPECT_EQ(ids, expected);
}

TEST_F(TokenizerTest, HashIsOfTheModelWhereverItLies) {
  write_file(*folder_ / "copy", file_bytes(*folder_ / "bpe"));
  const auto hash = [&](const std::string& path) { return tokenizer_hash(*load_tokenizer(path)); };
  EXPECT_EQ(hash(*folder_ / "copy"), hash(*folder_ / "bpe"));
  EXPECT_NE(hash(*folder_ / "unigram"), hash(*folder_ / "bpe"));
  EXPECT_NE(hash("bytes"), hash(*folder_ / "bpe"));
  // printf '\n' | sha256sum
  EXPECT_EQ(hash("bytes"), "01ba4719c80b6fe911b091a7c05124b64eeece964e09c058ef8f9805daca546b");
}

TEST_F(TokenizerTest, AFolderMeansTheTokenizerInIt) {
  const std::string one = *folder_ / "one", both = *folder_ / "both", none = *folder_ / "neither";
  const std::string model = file_bytes(*folder_ / "bpe");
  write_file(one + "/tokenizer.model", model);
  write_file(both + "/tokenizer.model", model);
  write_file(both + "/tokenizer.json", "{}");
  write_file(none + "/config.json", "{}");
  EXPECT_EQ(load_tokenizer(one)->name(), one + "/tokenizer.model");
  EXPECT_EQ(load_tokenizer(one)->file_name(), "tokenizer.model");
  EXPECT_EQ(error_of([&] { load_tokenizer(both); }, kExitUsage),
            both + ": holds tokenizer.json and tokenizer.model; name one of them");
  EXPECT_EQ(error_of([&] { load_tokenizer(none); }),
            none + ": no tokenizer.json or tokenizer.model in this folder");
}

// Llama 3's tokenizer.model is no sentencepiece model.
TEST_F(TokenizerTest, RanksNamedAsAModelAreRecognised) {
  const std::string path = *folder_ / "tokenizer.model";
  write_file(path, "IQ== 0\nIg== 1\n");
  EXPECT_EQ(error_of([&] { load_tokenizer(path); }),
            path + ": ranks of tiktoken, no sentencepiece model; load it as NAME:" + path +
                " (llama3, ...)");
}

TEST_F(TokenizerTest, ByteTokenizerIsFixed) {
  const auto tokenizer = load_tokenizer("bytes");
  EXPECT_EQ(tokenizer->vocab_size(), 258);
  EXPECT_EQ(tokenizer->bos(), 256);
  EXPECT_EQ(tokenizer->eos(), 257);
  EXPECT_EQ(tokenizer->name(), "bytes");
  EXPECT_EQ(tokenizer->model_bytes(), "");
  EXPECT_EQ(tokenizer->file_name(), "");
  EXPECT_EQ(tokenizer->encode("A\xFF"), (std::vector<int32_t>{65, 255}));
  EXPECT_EQ(tokenizer->decode(std::vector<int32_t>{65, 255, 66}),
            "A\xEF\xBF\xBD"
            "B");
}

TEST_F(TokenizerTest, TrainedModelsFollowTheRules) {
  for (const char* model : {"bpe", "unigram"}) {
    const auto tokenizer = load_tokenizer(*folder_ / model);
    EXPECT_EQ(tokenizer->vocab_size(), 320);
    EXPECT_EQ(tokenizer->bos(), 1);
    EXPECT_EQ(tokenizer->eos(), 2);
    EXPECT_EQ(tokenizer->name(), *folder_ / model);
    EXPECT_EQ(tokenizer->model_bytes(), file_bytes(*folder_ / model));
    EXPECT_EQ(tokenizer->encode("1984").size(),
              4u + tokenizer->encode("x1").size() - 2);  // digits stay apart
    EXPECT_LT(tokenizer->encode("the river").size(), 9u);
    for (const int32_t id : tokenizer->encode("\xF0\x9F\x98\x80"))
      EXPECT_EQ(tokenizer->byte_length(id), 1);
  }
}

TEST_F(TokenizerTest, TrainingIsRepeatable) {
  for (const char* model : {"bpe", "unigram"}) {
    for (const char* name : {"r1", "r2"}) {
      learn(*folder_ / "corpus.txt",
            {.vocab_size = 310, .model = model, .max_sentences = 101, .threads = 2},
            *folder_ / name);
    }
    EXPECT_EQ(file_bytes(*folder_ / "r1"), file_bytes(*folder_ / "r2"));
    EXPECT_NE(file_bytes(*folder_ / "r1"), file_bytes(*folder_ / model));  // fewer lines
  }
}

// A BPE model's pieces begin with spaces only, so a text's ids are those of its words, each with
// the spaces before it, and cutting long text changes nothing.
TEST_F(TokenizerTest, LongTextGivesTheIdsOfItsWords) {
  const auto tokenizer = load_tokenizer(*folder_ / "bpe");
  std::string text = corpus();
  for (size_t at = text.find(' '); at < text.size(); at = text.find(' ', at + 977)) {
    text.insert(at, at % 2 ? "   " : " \n ");
  }
  ASSERT_GT(text.size(), 3u * 4096);
  std::vector<int32_t> expected;
  for (size_t begin = 0; begin < text.size();) {
    const size_t word = text.find_first_not_of(' ', begin);
    const size_t end = std::min(text.find(' ', word), text.size());
    const auto part = tokenizer->encode(std::string_view(text).substr(begin, end - begin));
    expected.insert(expected.end(), part.begin(), part.end());
    begin = end;
  }
  EXPECT_EQ(tokenizer->encode(text), expected);
}

TEST_F(TokenizerTest, TooLittleTextNamesTheLargestThatFits) {
  write_file(*folder_ / "tiny.txt", "hello world hello");
  const std::string tiny = *folder_ / "tiny.txt", output = *folder_ / "t.model";
  for (const char* model : {"bpe", "unigram"}) {
    const auto train = [&](int64_t vocab_size) {
      learn(tiny, {.vocab_size = vocab_size, .model = model}, output);
    };
    const std::string message = error_of([&] { train(400); }, kExitUsage);
    const std::string start =
        tiny + ": too little text for vocab_size = 400; the largest that fits is ";
    ASSERT_TRUE(message.starts_with(start)) << message;
    EXPECT_FALSE(std::filesystem::exists(output));
    train(std::stoll(message.substr(start.size())));
    std::filesystem::remove(output);
  }
}

TEST_F(TokenizerTest, WrongOptionsAreNamed) {
  const auto message = [&](TokenizerTraining options) {
    return error_of([&] { learn(*folder_ / "corpus.txt", options, *folder_ / "t"); }, kExitUsage);
  };
  EXPECT_EQ(message({.vocab_size = 259}),
            "vocab_size = 259, expected an integer in [260, 1000000]");
  EXPECT_EQ(message({.model = "word"}), "tokenizer model = word, expected bpe or unigram");
  EXPECT_EQ(message({.max_sentences = 0}), "max_sentences = 0, expected an integer >= 1");
  EXPECT_EQ(message({.threads = 0}), "threads = 0, expected an integer in [1, 1024]");
  write_file(*folder_ / "empty.txt", "");
  EXPECT_EQ(error_of([&] { learn(*folder_ / "empty.txt", {}, *folder_ / "t"); }),
            *folder_ / "empty.txt" + ": no text to learn a vocabulary from");
}

TEST_F(TokenizerTest, DamagedModelsAreNamed) {
  const std::string path = *folder_ / "damaged.model";
  const auto message = [&](const std::string& bytes) {
    write_file(path, bytes);
    return error_of([&] { load_tokenizer(path); });
  };
  EXPECT_EQ(error_of([&] { load_tokenizer(*folder_ / "none"); }),
            *folder_ / "none" + ": cannot open: No such file or directory");
  EXPECT_EQ(message(""), path + ": empty, expected a sentencepiece model");
  EXPECT_EQ(message("some text, no model"),
            path +
                ": not a sentencepiece model (byte 0: a field of wire type 3, expected 0, 1, 2 "
                "or 5)");
  const std::string model = file_bytes(*folder_ / "bpe");
  EXPECT_THAT(
      message(model.substr(0, model.size() / 2)),
      testing::MatchesRegex(path + ": not a sentencepiece model \\(byte [0-9]+: a field that "
                                   "ends behind its message\\)"));
  std::string flipped = model;
  const size_t unk = flipped.find("<unk>");
  ASSERT_NE(unk, flipped.npos);
  flipped.replace(unk, 5, "<0x41");
  flipped.replace(flipped.find("<0x41>"), 6, "<0x42>");  // a byte twice
  EXPECT_EQ(message(flipped), path + ": not a sentencepiece model: <0x42> is already defined.");
}

TEST_F(TokenizerTest, RandomDamageIsRefusedOrHarmless) {
  std::mt19937 random(11);
  const std::string path = *folder_ / "damaged.model", model = file_bytes(*folder_ / "unigram");
  for (int i = 0; i < 100; ++i) {
    std::string bytes = model;
    bytes[random() % bytes.size()] ^= static_cast<char>(1 << random() % 8);
    if (i % 5 == 0) bytes.resize(random() % bytes.size());
    write_file(path, bytes);
    try {
      const auto tokenizer = load_tokenizer(path);
      tokenizer->decode(tokenizer->encode("the river \xC3\xA9 12"));
    } catch (const UserError& error) {
      EXPECT_EQ(error.exit_code(), kExitBadFile);
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace tandem
