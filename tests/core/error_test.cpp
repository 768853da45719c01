#include "core/error.h"

#include <gtest/gtest.h>

#include <vector>

namespace tandem {
namespace {

const std::vector<std::string> kKeys = {"window", "n_heads", "head_dim", "n_kv_heads"};

TEST(ErrorTest, OriginNamesFileAndLineOrTheCommandLine) {
  EXPECT_EQ((Origin{"configs/a.yaml", 14}).str(), "configs/a.yaml:14");
  EXPECT_EQ((Origin{"command line", 0}).str(), "command line");
}

TEST(ErrorTest, BadValueSaysWhereWhatAndWhatIsAllowed) {
  const UserError error = bad_value({"configs/yoco_160m.yaml", 14},
                                    "model.self_decoder.mixers[0].window", "0", "an integer >= 1");
  EXPECT_STREQ(error.what(),
               "configs/yoco_160m.yaml:14: model.self_decoder.mixers[0].window = 0, expected an "
               "integer >= 1");
  EXPECT_EQ(error.exit_code(), 2);
}

TEST(ErrorTest, BadValueLeavesOutWhatIsNotThere) {
  EXPECT_STREQ(bad_value({}, "lr", "x", "a number").what(), "lr = x, expected a number");
  EXPECT_STREQ(bad_value({"a.yaml", 1}, "", "[1]", "a map").what(),
               "a.yaml:1: [1], expected a map");
}

TEST(ErrorTest, UnknownKeyListsKnownKeysSortedAndOnce) {
  const UserError error =
      unknown_key({"configs/yoco_160m.yaml", 9}, "model.self_decoder.mixers[0].widow", kKeys);
  EXPECT_STREQ(error.what(),
               "configs/yoco_160m.yaml:9: unknown key model.self_decoder.mixers[0].widow; did you "
               "mean window? "
               "known here: head_dim, n_heads, n_kv_heads, window");
  EXPECT_EQ(error.exit_code(), 2);
  const std::vector<std::string> twice = {"b", "a", "b"};
  EXPECT_STREQ(unknown_key({"a.yaml", 2}, "colour", twice).what(),
               "a.yaml:2: unknown key colour; known here: a, b");
  EXPECT_STREQ(unknown_key({"a.yaml", 2}, "x", {}).what(),
               "a.yaml:2: unknown key x; no key is known here");
}

TEST(ErrorTest, FileErrorsNameThePathAndCarryTheirExitCode) {
  EXPECT_STREQ(bad_file("books.idx", "ends after 7 bytes").what(), "books.idx: ends after 7 bytes");
  EXPECT_EQ(bad_file("a", "b").exit_code(), 66);
  EXPECT_STREQ(cannot_write("out", "disk full").what(), "out: disk full");
  EXPECT_EQ(cannot_write("a", "b").exit_code(), 74);
  EXPECT_STREQ(bad_usage("--top-k needs a number").what(), "--top-k needs a number");
  EXPECT_EQ(bad_usage("a").exit_code(), 2);
  EXPECT_STREQ(bad_config({"a.yaml", 3}, "stages overlap").what(), "a.yaml:3: stages overlap");
  EXPECT_EQ(bad_config({}, "a").exit_code(), 2);
}

TEST(ErrorTest, NearestAllowsAThirdOfTheLettersAndAtLeastOne) {
  EXPECT_EQ(nearest("n_head", kKeys), "n_heads");
  EXPECT_EQ(nearest("nheads", kKeys), "n_heads");
  EXPECT_EQ(nearest("widnow", kKeys), "window");       // neighbours swapped
  EXPECT_EQ(nearest("head_size", kKeys), "head_dim");  // three letters of nine
  EXPECT_EQ(nearest("head_sz", kKeys), "");            // three of seven
  const std::vector<std::string> options = {"lr", "eps"};
  EXPECT_EQ(nearest("l", options), "lr");
  EXPECT_EQ(nearest("rl", options), "lr");
  EXPECT_EQ(nearest("xy", options), "");
  EXPECT_EQ(nearest("", options), "");
  EXPECT_EQ(nearest(std::string(1 << 20, 'w'), kKeys), "");
}

TEST(ErrorTest, NearestTakesTheFirstOfEquallyNear) {
  const std::vector<std::string> known = {"beta1", "beta2"};
  EXPECT_EQ(nearest("beta3", known), "beta1");
}

TEST(ErrorTest, MessagesStayOnOneLineAndShort) {
  EXPECT_EQ(one_line("a\nb\x1b[31m\t"), "a\\nb\\x1b[31m\\x09");
  EXPECT_EQ(one_line(std::string(121, 'a')), std::string(120, 'a') + "...");
  EXPECT_EQ(one_line(std::string(120, 'a')), std::string(120, 'a'));
  EXPECT_EQ(one_line(std::string(119, 'a') + "\xC3\xA9"),
            std::string(119, 'a') + "...");  // not half a letter
  EXPECT_STREQ(bad_value({"a", 1}, "k", "x\ny", "a number").what(),
               "a:1: k = x\\ny, expected a number");
}

}  // namespace
}  // namespace tandem
