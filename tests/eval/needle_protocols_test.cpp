#include "eval/needle_protocols.h"

#include <algorithm>

#include "eval/haystack.h"
#include "tests/eval/needle_fixture.h"

namespace tandem {
namespace {

using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;
using testing::SizeIs;
using testing::StartsWith;

constexpr const char* kDigits7 = "[0-9]{7}";
constexpr const char* kUuid4 =
    "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}";
constexpr const char* kWord = "[a-z]+-[a-z]+";

class NeedleProtocolsTest : public NeedleSetTest {};

struct RulerCase {
  const char* task;
  std::string key, value;
  bool uuid;
  int needles, outputs;
  bool lines;
};

TEST_F(NeedleProtocolsTest, RulersTasksHaveTheirPublishedWording) {
  const RulerCase cases[] = {
      {"niah_single_1", kWord, kDigits7, false, 1, 1, false},
      {"niah_single_2", kWord, kDigits7, false, 1, 1, false},
      {"niah_single_3", kWord, kUuid4, true, 1, 1, false},
      {"niah_multikey_1", kWord, kDigits7, false, 4, 1, false},
      {"niah_multikey_2", kWord, kDigits7, false, 0, 1, true},
      {"niah_multikey_3", kUuid4, kUuid4, true, 0, 1, true},
      {"niah_multivalue", kWord, kDigits7, false, 4, 4, false},
      {"niah_multiquery", kWord, kDigits7, false, 4, 4, false},
  };
  for (const RulerCase& one : cases) {
    SCOPED_TRACE(one.task);
    const NeedleSample sample = make(config("ruler", one.task))[0];
    const std::string type = one.uuid ? "uuid" : "number";
    const bool single = one.outputs == 1;
    const std::string types = single ? type : type + "s";
    EXPECT_THAT(sample.input,
                StartsWith((single ? "A special magic " + type + " is"
                                   : "Some special magic " + types + " are") +
                           " hidden within the following text. Make sure to memorize it. I will "
                           "quiz you about the " +
                           types + " afterwards.\n"));
    const std::string needle =
        "One of the special magic " + type + "s for (" + one.key + ") is: " + one.value + "\\.";
    const auto keys = matches(sample.input, needle);
    const auto values = matches(sample.input, "One of the special magic " + type + "s for " +
                                                  one.key + " is: (" + one.value + ")\\.");
    if (one.lines) {
      EXPECT_GT(keys.size(), 20u);
      EXPECT_EQ(std::set(values.begin(), values.end()).size(), values.size());
    } else {
      EXPECT_EQ(keys.size(), static_cast<size_t>(one.needles));
    }
    ASSERT_THAT(sample.outputs, SizeIs(one.outputs));
    // The query names the outputs' keys in their order, each once.
    std::vector<std::string> asked;
    for (const std::string& output : sample.outputs) {
      const auto at = std::find(values.begin(), values.end(), output);
      ASSERT_NE(at, values.end());
      const std::string& key = keys[static_cast<size_t>(at - values.begin())];
      if (asked.empty() || asked.back() != key) asked.push_back(key);
    }
    std::string query = asked[0];
    for (size_t i = 1; i < asked.size(); ++i)
      query += (i + 1 < asked.size() ? ", " : ", and ") + asked[i];
    EXPECT_EQ(asked.size(), std::string(one.task) == "niah_multiquery" ? 4u : 1u);
    EXPECT_THAT(sample.input, EndsWith("\nWhat " + std::string(single ? "is" : "are all") +
                                       " the special magic " + types + " for " + query +
                                       " mentioned in the provided text?"));
    EXPECT_EQ(sample.answer_prefix, " The special magic " + types + " for " + query +
                                        " mentioned in the provided text " +
                                        (single ? "is" : "are"));
  }
}

TEST_F(NeedleProtocolsTest, RulersNoiseAndNeedlesAreLines) {
  const NeedleSample noise = make(config("ruler", "niah_single_1"))[0];
  const NeedleSample lines = make(config("ruler", "niah_multikey_2"))[0];
  const std::string line(kNoiseLine);
  EXPECT_EQ(matches(noise.input, "\n(One of the special magic numbers for [^\n]*\\.)\n"),
            matches(noise.input, "One of the special magic numbers for [^\n]*\\."));
  EXPECT_GT(count(noise.input, "\n" + line + "\n"), 10);
  EXPECT_EQ(count(noise.input, "The grass is green."), count(noise.input, line + "\n"));  // whole
  const size_t begin = lines.input.find('\n'), end = lines.input.rfind('\n');
  const std::regex needle("\nOne of the special magic numbers for [a-z]+-[a-z]+ is: [0-9]{7}\\.");
  EXPECT_EQ(std::regex_replace(lines.input.substr(begin, end - begin), needle, ""), "");
  EXPECT_EQ(lines.decoys.size(), 9u);
  for (const std::string& decoy : lines.decoys) EXPECT_EQ(count(lines.input, decoy), 1);
}

TEST_F(NeedleProtocolsTest, RulersEssaysHaveNeedlesBetweenSentences) {
  const NeedleSample sample = make(config("ruler", "niah_multikey_1"))[0];
  EXPECT_THAT(matches(sample.input, "(?:[.\n]|Things) ?(One of the special magic numbers)"),
              SizeIs(4));
  // RULER's essays are one line of single spaces.
  EXPECT_EQ(count(sample.input, "\n"), 2);
  EXPECT_EQ(count(sample.input, "  "), 0);
}

TEST_F(NeedleProtocolsTest, YocosPromptIsThePublishedOne) {
  const NeedleSample sample = make(config("yoco", "single"))[0];
  ASSERT_THAT(sample.outputs, SizeIs(1));
  const auto cities = matches(sample.input, "\nWhat is the special magic (.*) number\\? $");
  ASSERT_THAT(cities, SizeIs(1));
  EXPECT_THAT(sample.input,
              AllOf(StartsWith("There is a special magic number inside a lot of irrelevant text. "
                               "Find it and memorize them. I will quiz you about the magic number "
                               "there. "),
                    HasSubstr("\nThe special magic " + cities[0] + " number is " +
                              sample.outputs[0] + " . \n")));
  EXPECT_EQ(sample.answer_prefix, "The special magic " + cities[0] + " number is ");
  const int64_t n = std::stoll(sample.outputs[0]);
  EXPECT_TRUE(n >= 1 && n <= 50'000) << n;
}

TEST_F(NeedleProtocolsTest, YocosOtherNeedlesStandOnBothSidesAndNameOtherCities) {
  for (const int64_t needles : {1, 2, 4, 8}) {
    for (const char* task : {"multi", "multi_dot"}) {
      NeedleSetConfig wanted = config("yoco", task, 6000);
      wanted.needles = needles;
      wanted.samples = 6;
      for (const NeedleSample& sample : make(wanted)) {
        const std::string is = std::string(task) == "multi" ? "is: " : "is ";
        const auto cities =
            matches(sample.input, "\nThe special magic ([A-Z][a-z]+) number " + is + "[0-9]+");
        const auto values =
            matches(sample.input, "\nThe special magic [A-Z][a-z]+ number " + is + "([0-9]+)");
        ASSERT_EQ(cities.size(), static_cast<size_t>(needles));
        EXPECT_EQ(std::set(cities.begin(), cities.end()).size(), cities.size());
        for (const std::string& a : values) {
          for (const std::string& b : values) EXPECT_TRUE(&a == &b || a.find(b) == a.npos);
        }
        const auto asked = std::find(values.begin(), values.end(), sample.outputs[0]);
        ASSERT_NE(asked, values.end());
        EXPECT_THAT(sample.answer_prefix,
                    HasSubstr(" " + cities[static_cast<size_t>(asked - values.begin())] + " "));
        if (needles > 1) {  // one at least stands behind it
          EXPECT_NE(asked, values.end() - 1);
        }
        for (const std::string& value : values) {  // the others are the first decoys
          if (value == *asked) continue;
          EXPECT_LT(
              std::find(sample.decoys.begin(), sample.decoys.end(), value) - sample.decoys.begin(),
              needles - 1);
        }
      }
    }
  }
}

TEST_F(NeedleProtocolsTest, BlockTransformersEndingsAndPlaceBetweenTokens) {
  const NeedleSample verbatim = make(config("block-transformer", "verbatim", 1950))[0];
  const std::string city = matches(verbatim.input, "What is the special magic (.*) number\\?")[0];
  const std::string needle = "The special magic " + city + " number is: " + verbatim.outputs[0];
  EXPECT_THAT(verbatim.input, AllOf(StartsWith("<context>\n"), HasSubstr(needle),
                                    EndsWith("\n</context>\n\nWhat is the special magic " + city +
                                             " number?\n\n")));
  EXPECT_EQ(verbatim.answer_prefix, "the special magic " + city + " number is:");
  EXPECT_EQ(make(config("block-transformer", "gemini_simplified"))[0].answer_prefix,
            "Here is the magic number from the context:");
  EXPECT_THAT(make(config("block-transformer", "gemini_original"))[0].input,
              HasSubstr("number? Don't give information outside the document"));
  NeedleSetConfig many = config("block-transformer", "verbatim", 1950);
  many.samples = 20;
  int within_words = 0;
  for (const NeedleSample& sample : make(many)) {
    EXPECT_NEAR(sample.depth, 0.5, 13.0 / 1500);  // 10 tokens of jitter
    within_words += !matches(sample.input, "[a-z](The special magic)").empty();
  }
  EXPECT_GT(within_words, 5);
}

TEST_F(NeedleProtocolsTest, LwmAsksForAllItSaysAndKamradtForOne) {
  const NeedleSample two = make(config("lwm", "2_of_4"))[0];
  EXPECT_THAT(two.outputs, SizeIs(2));
  EXPECT_THAT(two.input, AllOf(StartsWith("You are a helpful assistant. USER: "),
                               EndsWith("Keep your response short and direct. ASSISTANT: ")));
  EXPECT_THAT(matches(two.input, "\nThe special magic [A-Z][a-z]+ number is: ([0-9]{7})\n"),
              SizeIs(4));
  EXPECT_THAT(
      matches(two.input,
              "What are the special magic numbers for [A-Z][a-z]+, and [A-Z][a-z]+\\? Don't"),
      SizeIs(1));
  const NeedleSample one = make(config("gkamradt", "single"))[0];
  const auto behind =
      matches(one.input, "([.]|On Things)\nThe special magic [A-Z][a-z]+ number is: [0-9]{7}\n");
  EXPECT_THAT(behind, SizeIs(1)) << "the needle stands behind a sentence";
}

TEST_F(NeedleProtocolsTest, ThePhoneBookShowsTwoEntriesAndAsksForAThird) {
  const NeedleSample sample = make(config("phonebook", "single"))[0];
  const size_t end = sample.input.find("\n\n");
  const auto names = matches(sample.input.substr(0, end), "([^\n:]+): [0-9]{10}");
  EXPECT_GT(names.size(), 100u);
  EXPECT_EQ(std::set(names.begin(), names.end()).size(), names.size());
  const auto shown = matches(sample.input.substr(end + 2), "[^\n]+: [0-9]{10}\n");
  ASSERT_THAT(shown, SizeIs(2));
  const std::string book = "\n" + sample.input.substr(0, end) + "\n";
  for (const std::string& line : shown) EXPECT_EQ(count(book, "\n" + line), 1);
  EXPECT_EQ(count(book, "\n" + sample.answer_prefix + " " + sample.outputs[0] + "\n"), 1);
}
}  // namespace
}  // namespace tandem
