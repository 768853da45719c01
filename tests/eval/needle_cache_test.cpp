#include "eval/needle_cache.h"

#include <nlohmann/json.hpp>

#include "core/file.h"
#include "core/json_lines.h"
#include "tests/eval/needle_fixture.h"

namespace tandem {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

class NeedleCacheTest : public NeedleSetTest {
 protected:
  NeedleCacheTest() {
    wanted_ = config("ruler", "niah_multiquery", 2048);
    wanted_.cache = folder_ / "cache";
    path_ = needle_set_path(wanted_, needle_set_hash(wanted_, *bytes_));
  }
  NeedleSetConfig wanted_;
  std::string path_;
};

TEST_F(NeedleCacheTest, ASetIsWrittenInRulersShapeAndReadBack) {
  const auto made = make(wanted_);
  EXPECT_EQ(path_, folder_ / "cache/ruler-niah_multiquery-2048-" +
                       needle_set_hash(wanted_, *bytes_) + "/validation.jsonl");
  const std::string text = read_text(path_);
  const auto line = parse_json(text.substr(0, text.find('\n')));
  std::vector<std::string> keys;
  for (const auto& [key, value] : line.items()) keys.push_back(key);
  keys.resize(7);
  EXPECT_THAT(keys, ElementsAre("index", "input", "outputs", "length", "length_w_model_temp",
                                "answer_prefix", "token_position_answer"));
  EXPECT_EQ(line["token_position_answer"], made[0].token_position_answer[0]);
  const auto again = make(wanted_);
  ASSERT_EQ(again.size(), made.size());
  for (size_t i = 0; i < made.size(); ++i) {
    EXPECT_EQ(again[i].index, made[i].index);
    EXPECT_EQ(again[i].input, made[i].input);
    EXPECT_EQ(again[i].answer_prefix, made[i].answer_prefix);
    EXPECT_EQ(again[i].outputs, made[i].outputs);
    EXPECT_EQ(again[i].decoys, made[i].decoys);
    EXPECT_EQ(again[i].length, made[i].length);
    EXPECT_EQ(again[i].depth, made[i].depth);
    EXPECT_EQ(again[i].token_position_answer, made[i].token_position_answer);
  }
  EXPECT_THAT(list_directory(parent_of(path_)), ElementsAre("validation.jsonl"));
}

TEST_F(NeedleCacheTest, TheKeptSetIsReadAndNotMadeAgain) {
  make(wanted_);
  std::string text = read_text(path_);
  const size_t at = text.find("\"index\":0,\"input\":\"Some special");
  ASSERT_NE(at, std::string::npos);
  text.replace(text.find("Some special"), 12, "Five special");
  write_file(path_, text);
  EXPECT_THAT(make(wanted_)[0].input, StartsWith("Five special"));
}

TEST_F(NeedleCacheTest, AHalfWrittenOneOfAKilledProcessIsIgnored) {
  const auto made = make(wanted_);
  const std::string text = read_text(path_);
  remove_tree(path_);
  write_file(path_ + ".4711-1.partial", text.substr(0, text.size() / 2));
  EXPECT_EQ(make(wanted_)[1].input, made[1].input);
  EXPECT_EQ(read_text(path_), text);
}

TEST_F(NeedleCacheTest, ADamagedOneIsRefusedWithItsLine) {
  make(wanted_);
  const std::string text = read_text(path_);
  const size_t first = text.find('\n') + 1;
  const auto error = [&](const std::string& bytes) {
    write_file(path_, bytes);
    return error_of([&] { make(wanted_); });
  };
  EXPECT_THAT(error(text.substr(0, first) + "{\"index\": 1, " + "\n"),
              StartsWith(path_ + ":2: byte "));
  EXPECT_THAT(error(text.substr(0, text.size() - 1)),
              StartsWith(path_ + ":2: the line does not end"));
  EXPECT_THAT(error(text.substr(0, first)), StartsWith(path_ + ": holds 1 samples, expected 2"));
  EXPECT_THAT(error(text.substr(first)), StartsWith(path_ + ":1: index = 1, expected 0"));
  std::string other = text;
  other.replace(other.find("\"set\":\"") + 7, 4, "zzzz");
  EXPECT_THAT(error(other), HasSubstr(":1: of set zzzz"));
  std::string longer = text;
  longer.replace(longer.find("\"length\":") + 9, 1, "9");
  EXPECT_THAT(error(longer), HasSubstr(":1: length = 9"));
}
}  // namespace
}  // namespace tandem
