#include "eval/task_text.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "eval/task_process.h"
#include "eval/task_random.h"

// Literals are what CPython 3.11 gives, and for documents the functions that publish them.

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;

TEST(TaskTextTest, SpacesAreThoseOfPython) {
  EXPECT_EQ(strip(" \t\xC2\xA0\x1C x\xE2\x80\x8B \n"), "x\xE2\x80\x8B");  // U+200B is none
  EXPECT_EQ(strip_left("\xE3\x80\x80 a "), "a ");
  EXPECT_EQ(strip_right(" a\xE2\x80\x83"), " a");
  EXPECT_EQ(strip(" \n "), "");
  EXPECT_EQ(count_characters("h\xC3\xA9llo \xF0\x9F\x98\x80"), 7u);
  EXPECT_EQ(count_words(" a\xC2\xA0"
                        "b \x1C"
                        "c\xE2\x80\x83"),
            5u);
  EXPECT_EQ(count_words(""), 1u);
}

TEST(TaskTextTest, SplitsAndReplacements) {
  EXPECT_EQ(split("a  b", " "), (std::vector<std::string>{"a", "", "b"}));
  EXPECT_EQ(split("", " "), std::vector<std::string>{""});
  EXPECT_EQ(replace_all("aaaa b", "aa", "a"), "aa b");
}

TEST(TaskTextTest, CapitalizeLowersTheRest) {
  EXPECT_EQ(capitalize("\xC3\xA9T\xC3\x89 \xC3\x80"
                       "B"),
            "\xC3\x89t\xC3\xA9 \xC3\xA0"
            "b");
  EXPECT_EQ(capitalize("\xC4\xB0\xC4\xB0"), "\xC4\xB0i\xCC\x87");  // dotted capital I
  EXPECT_EQ(capitalize("\xC7\x86X"), "\xC7\x85x");                 // title case is not upper case
  EXPECT_EQ(capitalize(""), "");
  EXPECT_EQ(capitalize("1A"), "1a");
}

TEST(TaskTextTest, HellaSwagLosesItsBrackets) {
  Json document = {{"activity_label", "Home and Garden"},
                   {"ctx_a", "[header] How to clean [title] Take a  cloth. [step] Wipe it."},
                   {"ctx_b", "THE \xC3\x89lan [substeps"},
                   {"endings", {"  goes [x] home. ", "[title] Rest [a\nb]."}}};
  process_document("hellaswag", document);
  EXPECT_EQ(document["query"],
            "Home and Garden: How to clean. Take a cloth. Wipe it. The \xC3\xA9lan [substeps");
  EXPECT_EQ(document["choices"], Json({"goes home.", " Rest [a\nb]."}));
  document["endings"] = "one";
  EXPECT_THROW(process_document("hellaswag", document), std::runtime_error);
}

TEST(TaskTextTest, WikiTextIsNoLongerCutIntoWords) {
  Json document;
  document["page"] =
      " = Robert <unk> = \n \n He said ' hello ' and \" go away \" ( see [ 1 ] ) at 20 @.@ 5 "
      "\xC2\xB0 , in 1 @,@ 000 well @-@ known N days ; boys ' toys : /' 5/ it 's = = = Head = = = "
      "\n { a } ! ? . \n";
  process_document("wikitext", document);
  EXPECT_EQ(document["text"],
            " = Robert <unk> =\n\nHe said 'hello' and \"go away\" (see [1]) at 20.5 \xC2\xB0, in "
            "1,000 well-known 1 days; boys'toys: /'[0-9]/ it's === Head ===\n{a}! ?.\n");
  EXPECT_EQ(count_words(document["page"].get<std::string>()), 59u);
  EXPECT_EQ(document["page"].get<std::string>().size(), 182u);
}

TEST(TaskTextTest, WinoGrandeIsFilledWithEachOption) {
  Json document = {{"sentence", "Ann beat Bo because _ was  _fast. "},
                   {"option1", "Ann"},
                   {"option2", "Bo"},
                   {"answer", "2"}};
  process_document("winogrande", document);
  EXPECT_EQ(document["contexts"], Json({"Ann beat Bo because Ann", "Ann beat Bo because Bo"}));
  EXPECT_EQ(document["ending"], "was  _fast.");
  EXPECT_EQ(document["gold"], 1);
  document["answer"] = "";
  EXPECT_THROW(process_document("winogrande", document), std::runtime_error);
}

TEST(TaskRandomTest, BitsAreThoseOfPython) {
  const auto first = [](uint64_t seed, int n) {
    PythonRandom random(seed);
    std::vector<uint32_t> bits;
    for (int i = 0; i < n; ++i) bits.push_back(random.bits(32));
    return bits;
  };
  EXPECT_EQ(first(1234, 5),
            (std::vector<uint32_t>{4150886329u, 3342196574u, 1892932127u, 501869158u, 32175636u}));
  EXPECT_EQ(first(0, 3), (std::vector<uint32_t>{3626764237u, 1654615998u, 3255389356u}));
  EXPECT_EQ(first((uint64_t{1} << 40) + 5, 3),
            (std::vector<uint32_t>{2166296868u, 2220160828u, 1153647273u}));
  EXPECT_EQ(first(1234, 1001).back(), 3260923217u);  // two refills on
}

TEST(TaskRandomTest, SamplesAreThoseOfPython) {
  using Places = std::vector<size_t>;
  PythonRandom random(1234);
  EXPECT_EQ(random.sample(10, 3), (Places{7, 1, 0}));
  EXPECT_EQ(random.sample(10, 3), (Places{1, 0, 9}));
  EXPECT_EQ(random.sample(10, 3), (Places{1, 5, 3}));
  EXPECT_EQ(random.sample(1000, 5), (Places{17, 31, 807, 16, 354}));  // drawn one by one
  EXPECT_EQ(random.sample(100, 7), (Places{82, 79, 61, 78, 59, 19, 11}));
  EXPECT_EQ(random.sample(21, 5), (Places{5, 3, 0, 16, 15}));  // the longest list that is copied
  EXPECT_EQ(random.sample(22, 5), (Places{7, 2, 21, 17, 14}));
  EXPECT_EQ(random.sample(7, 7), (Places{0, 4, 6, 5, 1, 3, 2}));
  EXPECT_THROW(random.sample(2, 3), std::logic_error);
}

}  // namespace
}  // namespace tandem
