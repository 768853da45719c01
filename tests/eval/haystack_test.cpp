#include "eval/haystack.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cctype>

#include "data/token_file_writer.h"
#include "data/tokenizer_trainer.h"
#include "tests/data/temp_folder.h"

namespace tandem {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string joined(std::span<const std::string_view> pieces) {
  std::string text;
  for (const std::string_view piece : pieces) text += piece;
  return text;
}

std::string taken(SentenceSource& source, int n) {
  std::string text;
  for (int i = 0; i < n; ++i) text += source.next().text;
  return text;
}

TEST(CutSentencesTest, TheyBeginWithTheirSpaceAndTogetherAreTheText) {
  const std::string text =
      "\nA title without an end\n\nFirst one. \"Second?\" Third (of 3.5)!\n\n\n  Fourth";
  const auto sentences = cut_sentences(text);
  EXPECT_THAT(sentences, ElementsAre("\nA title without an end", "\n\nFirst one.", " \"Second?\"",
                                     " Third (of 3.5)!", "\n\n\n  Fourth"));
  EXPECT_EQ(joined(sentences), text);
}

TEST(CutSentencesTest, LongOnesAreCutAtASpaceElseBetweenCharacters) {
  EXPECT_THAT(cut_sentences("aaa bbb ccc ddd", 10), ElementsAre("aaa bbb", " ccc ddd"));
  const std::string text = "\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9";  // six times é
  const auto pieces = cut_sentences(text, 5);
  EXPECT_EQ(joined(pieces), text);
  ASSERT_EQ(pieces.size(), 3u);
  for (const std::string_view piece : pieces) EXPECT_EQ(piece.size(), 4u);
}

class HaystackTest : public testing::Test {
 protected:
  const TempFolder folder_;
  const std::unique_ptr<Tokenizer> bytes_ = load_tokenizer("bytes");
};

TEST_F(HaystackTest, NoiseIsRulersAndHasNoDigits) {
  HaystackSource source(load_haystack("noise", *bytes_), *bytes_, RandomStream(3));
  const std::string text = taken(source, 12);
  const std::string line = "\n" + std::string(kNoiseLine);
  EXPECT_EQ(text, line + line + "\nThe grass is green. The sky is blue.");
  EXPECT_TRUE(
      std::none_of(text.begin(), text.end(), [](unsigned char c) { return std::isdigit(c); }));
}

TEST_F(HaystackTest, DocumentsComeInTheStreamsOrderAndAgainWhenAllWereGiven) {
  for (const char* name : {"a", "b", "c", "d", "e"})
    write_file(folder_ / (std::string("essays/") + name + ".txt"),
               std::string("One ") + name + ". Two " + name + ". Three " + name + ".");
  const auto haystack = load_haystack(folder_ / "essays", *bytes_);
  ASSERT_EQ(haystack->documents(), 5);
  HaystackSource source(haystack, *bytes_, RandomStream(1));
  std::string first = taken(source, 30);  // five documents of three, twice
  for (const char* sentence : {" Two a.", " Two b.", " Two c.", " Two d.", " Two e."}) {
    const size_t at = first.find(sentence);
    ASSERT_NE(at, std::string::npos) << sentence;
    EXPECT_NE(first.find(sentence, at + 1), std::string::npos) << sentence;
  }
  HaystackSource same(haystack, *bytes_, RandomStream(1)),
      other(haystack, *bytes_, RandomStream(2));
  EXPECT_EQ(taken(same, 30), first);
  EXPECT_NE(taken(other, 30), first);
}

TEST_F(HaystackTest, CountsOfSentencesAddUpToTheDocuments) {
  std::string text;
  for (int i = 0; i < 300; ++i)
    text += "The caf\xC3\xA9 number " + std::to_string(i * 37) + " is open (at last). Who knows?" +
            (i % 7 == 0 ? "\n\n" : " ");
  write_file(folder_ / "text.txt", text);
  train_tokenizer(folder_ / "text.txt", {}, {.vocab_size = 320, .model = "bpe", .threads = 1}, 0,
                  folder_ / "pieces.model");
  const auto pieces = load_tokenizer(folder_ / "pieces.model");
  for (const Tokenizer* tokenizer : {bytes_.get(), pieces.get()}) {
    const auto haystack = load_haystack(folder_ / "text.txt", *tokenizer);
    int64_t tokens = 0;
    for (const Sentence& sentence : haystack->sentences(0, *tokenizer)) tokens += sentence.tokens;
    EXPECT_EQ(tokens, static_cast<int64_t>(tokenizer->encode("\n" + text).size()));
    EXPECT_EQ(load_haystack(folder_ / "text.txt", *tokenizer), haystack);  // counted once
  }
  EXPECT_EQ(haystack_hash(folder_ / "text.txt", *bytes_),
            load_haystack(folder_ / "text.txt", *bytes_)->content_hash());
}

TEST_F(HaystackTest, TokensAreDecoded) {
  TokenFileWriter writer(folder_ / "books", 258);
  writer.add_document(bytes_->encode("A book of one line."));
  writer.publish();
  const auto haystack = load_haystack(folder_ / "books", *bytes_);
  const auto sentences = haystack->sentences(0, *bytes_);
  ASSERT_EQ(sentences.size(), 1u);
  EXPECT_EQ(sentences[0].text, "\nA book of one line.");
  EXPECT_EQ(haystack->content_hash(), haystack_hash(folder_ / "books", *bytes_));
}

TEST_F(HaystackTest, NoTextIsRefused) {
  EXPECT_THAT(error_of([&] { load_haystack(folder_ / "none", *bytes_); }),
              HasSubstr("not there; a haystack is a file or folder of text, the prefix of a token "
                        "file, or \"noise\""));
  write_file(folder_ / "blank.txt", " \n \n");
  EXPECT_EQ(error_of([&] { load_haystack(folder_ / "blank.txt", *bytes_); }),
            (folder_ / "blank.txt") + ": holds no text to hide a needle in");
}

}  // namespace
}  // namespace tandem
