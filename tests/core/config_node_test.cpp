#include "core/config_node.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <fstream>
#include <limits>
#include <random>

#include "core/yaml_scalar.h"

namespace tandem {
namespace {

/// "CODE MESSAGE" of the UserError that `action` throws.
template <typename Action>
std::string error_of(Action action) {
  try {
    action();
  } catch (const UserError& error) {
    return std::to_string(error.exit_code()) + " " + error.what();
  }
  return "no error";
}

std::string parse_error(const std::string& text) {
  return error_of([&] { parse_yaml(text, "a.yaml"); });
}

std::string override_error(const std::string& yaml, const std::string& word) {
  ConfigNode root = parse_yaml(yaml, "a.yaml");
  return error_of([&] { apply_override(root, word); });
}

ConfigNode with_override(const std::string& yaml, const std::string& word) {
  ConfigNode root = parse_yaml(yaml, "a.yaml");
  apply_override(root, word);
  return root;
}

std::string repeated(const std::string& piece, int times) {
  std::string out;
  for (int i = 0; i < times; ++i) out += piece;
  return out;
}

TEST(ConfigNodeTest, KeepsTextOrderQuotesAndLines) {
  const ConfigNode root = parse_yaml("b: 1\na:\n  - \"8\"\n  - {c: x}\nd:\n", "a.yaml");
  ASSERT_EQ(root.kind, ConfigNode::Kind::kMap);
  ASSERT_EQ(root.entries.size(), 3u);
  EXPECT_EQ(root.entries[0].first, "b");
  EXPECT_EQ(root.find("b")->scalar, "1");
  EXPECT_FALSE(root.find("b")->quoted);
  const ConfigNode& list = *root.find("a");
  EXPECT_EQ(list.origin.str(), "a.yaml:2");  // a value is found by its key
  EXPECT_TRUE(list.items[0].quoted);
  EXPECT_EQ(list.items[0].origin.str(), "a.yaml:3");
  EXPECT_EQ(list.items[1].find("c")->origin.str(), "a.yaml:4");
  EXPECT_EQ(root.find("d")->kind, ConfigNode::Kind::kNull);
  EXPECT_EQ(root.find("d")->origin.str(), "a.yaml:5");
  EXPECT_EQ(root.find("e"), nullptr);
}

TEST(ConfigNodeTest, EmptyDocumentIsAnEmptyMap) {
  for (const char* text : {"", "...\n", "# only a comment\n", "---\n", "~\n", "\n\n"}) {
    const ConfigNode root = parse_yaml(text, "a.yaml");
    EXPECT_EQ(root.kind, ConfigNode::Kind::kMap) << text;
    EXPECT_TRUE(root.entries.empty()) << text;
  }
}

TEST(ConfigNodeTest, NullIsSpelledFiveWaysAndOnlyUnquoted) {
  const ConfigNode root = parse_yaml("[null, Null, NULL, ~, , \"null\", '']", "a.yaml");
  ASSERT_EQ(root.items.size(), 7u);
  for (size_t i = 0; i < 5; ++i) EXPECT_EQ(root.items[i].kind, ConfigNode::Kind::kNull) << i;
  for (size_t i = 5; i < 7; ++i) EXPECT_EQ(root.items[i].kind, ConfigNode::Kind::kScalar) << i;
}

TEST(ConfigNodeTest, AcceptsWhatEditorsWrite) {
  const ConfigNode plain = parse_yaml("a: 1\nb: 2\n", "a.yaml");
  EXPECT_EQ(parse_yaml("\xEF\xBB\xBF"
                       "a: 1\nb: 2\n",
                       "a.yaml"),
            plain);  // byte order mark
  EXPECT_EQ(parse_yaml("a: 1\r\nb: 2\r\n", "a.yaml"), plain);
  EXPECT_EQ(parse_yaml("---\na: 1 # one\nb:\t2", "a.yaml"), plain);
  EXPECT_EQ(parse_yaml("%YAML 1.2\n---\na: 1\nb: 2\n...\n", "a.yaml"), plain);
  EXPECT_EQ(parse_yaml("a: |\n  x\n", "").find("a")->scalar, "x\n");
}

TEST(ConfigNodeTest, EvilYamlIsRefusedInOneLine) {
  const struct {
    std::string text, expected;
  } kEvil[] = {
      {"a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n", "2 a.yaml:5: duplicate key b.c; first on line 3"},
      {"l:\n- {x: 1}\n- {x: 1, x: 1}\n", "2 a.yaml:3: duplicate key l[1].x; first on line 3"},
      {"a: 1\n\"a\": 2\n", "2 a.yaml:2: duplicate key a; first on line 1"},
      {"a: 1\nb: &x 2\n", "2 a.yaml:2: anchors are not allowed: &x"},
      {"a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n",
       "2 a.yaml:1: anchors are not allowed: &a"},  // alias bomb
      {"a: *x\n", "2 a.yaml:1: not valid YAML: the referenced anchor is not defined"},
      {"a: !!int 3\n", "2 a.yaml:1: tags are not allowed"},
      {"a: \"\xC3\xA9\"\nb: ! 3\n", "2 a.yaml:2: tags are not allowed"},
      {"!x {a: 1}\n", "2 a.yaml:1: tags are not allowed"},
      {"!x a: 1\n", "2 a.yaml:1: tags are not allowed"},
      {"a: !\nb: 1\n", "2 a.yaml:1: tags are not allowed"},
      {"a: 1\n---\nb: 2\n",
       "2 a.yaml:2: a second document starts here, expected one; is the indentation right?"},
      {"  a: 1\nb: 2\n",
       "2 a.yaml:2: a second document starts here, expected one; is the indentation right?"},
      {"a:\n\tb: 1\n", "2 a.yaml:2: a tab in the indentation, expected spaces"},
      {"\tb: 1\n", "2 a.yaml:1: a tab in the indentation, expected spaces"},
      {"a: b: c\n", "2 a.yaml:1: not valid YAML: illegal map value"},
      {"a: 1\nb: [1,\n", "2 a.yaml:2: not valid YAML: end of sequence flow not found"},
      {"a: 'x\n", "2 a.yaml:1: a quote that opens here or below is not closed"},
      {"a: 1\nb: \"x\nc: 3\nd: 4", "2 a.yaml:2: a quote that opens here or below is not closed"},
      {"a: 1\nb: {c: 3\nd: 4\n", "2 a.yaml:3: not valid YAML: end of map flow not found"},
      {"a: @x\n", "2 a.yaml:1: not valid YAML: unknown token"},
      {std::string("a: 1\nb: x\0y\n", 12), "2 a.yaml:2: holds the control character \\x00"},
      {"a: \"x\\0y\"\n", "2 a.yaml:1: holds the control character \\x00"},
      {"a: x\x04y\n", "2 a.yaml:1: holds the control character \\x04"},
      {"a: \x1b[31m\n", "2 a.yaml:1: holds the control character \\x1b"},
      {"\n\na: \xff\n", "2 a.yaml:3: not UTF-8 text"},
      {"\xFF\xFE"
       "a",
       "2 a.yaml:1: not UTF-8 text"},                           // UTF-16
      {"a: \xC0\xAF\n", "2 a.yaml:1: not UTF-8 text"},          // overlong
      {"a: \xED\xA0\x80\n", "2 a.yaml:1: not UTF-8 text"},      // a surrogate
      {"a: \xF4\x90\x80\x80\n", "2 a.yaml:1: not UTF-8 text"},  // above U+10FFFF
      {"a: \xE2\x82", "2 a.yaml:1: not UTF-8 text"},            // cut off
      {"~: 3\n", "2 a.yaml:1: a key is empty or null, expected a name"},
      {"a: 1\n\"\": 3\n", "2 a.yaml:2: a key is empty or null, expected a name"},
      {"[1, 2]: 3\n", "2 a.yaml:1: a list or a map stands as a key; is a bracket not closed?"},
      {"? {a: 1}\n: 3\n", "2 a.yaml:1: a list or a map stands as a key; is a bracket not closed?"},
      {repeated("k", 129) + ": 1\n",
       "2 a.yaml:1: a key is over 128 bytes long: " + repeated("k", 120) + "..."},
      {repeated("[", 65) + repeated("]", 65), "2 a.yaml:1: nesting over 64 levels"},
      {repeated("[", 501) + repeated("]", 501), "2 a.yaml:1: nesting over 64 levels"},
      {repeated("{a: ", 501) + repeated("}", 501), "2 a.yaml:1: nesting over 64 levels"},
      {repeated("- ", 1 << 19), "2 a.yaml:1: nesting over 64 levels"},
      {repeated("[", 1 << 20),
       "2 a.yaml:1: a list or a map stands as a key; is a bracket not closed?"},
      {repeated("a", (1 << 20) + 1), "2 a.yaml: is 1048577 bytes long, expected at most 1 MiB"},
  };
  for (const auto& [text, expected] : kEvil)
    EXPECT_EQ(parse_error(text), expected) << text.substr(0, 80);
}

TEST(ConfigNodeTest, TheLimitsThemselvesAreAllowed) {
  EXPECT_EQ(parse_error(repeated("[", 64) + repeated("]", 64)), "no error");
  EXPECT_EQ(parse_error(repeated("k", 128) + ": 1\n"), "no error");
  EXPECT_EQ(parse_error("a: 1 #" + repeated("x", (1 << 20) - 6)), "no error");
}

TEST(ConfigNodeTest, SixtyThousandKeysAreKept) {
  std::string text;
  for (int i = 0; i < 60000; ++i) text += "key" + std::to_string(i) + ": 1\n";
  EXPECT_EQ(parse_yaml(text, "a.yaml").entries.size(), 60000u);
}

class ConfigFileTest : public testing::Test {
 protected:
  void SetUp() override {
    path_ = testing::TempDir() + "config_node_test_" +
            testing::UnitTest::GetInstance()->current_test_info()->name();
  }
  void TearDown() override { std::remove(path_.c_str()); }
  void write(const std::string& text) const { std::ofstream(path_, std::ios::binary) << text; }
  std::string path_;
};

TEST_F(ConfigFileTest, NamesThePath) {
  write("a: 1\na: 2\n");
  EXPECT_EQ(error_of([&] { parse_yaml_file(path_); }),
            "2 " + path_ + ":2: duplicate key a; first on line 1");
  write("a: 1\n");
  EXPECT_EQ(parse_yaml_file(path_), parse_yaml("a: 1", ""));
}

TEST_F(ConfigFileTest, MissingFileHasExitCode66) {
  const std::string error = error_of([&] { parse_yaml_file(path_); });
  EXPECT_EQ(error.substr(0, 3), "66 ");
  EXPECT_NE(error.find(path_), std::string::npos);
}

TEST_F(ConfigFileTest, OverOneMebibyteIsRefusedUnread) {
  write(repeated("a", (1 << 20) + 1));
  EXPECT_EQ(error_of([&] { parse_yaml_file(path_); }),
            "2 " + path_ + ": is 1048577 bytes long, expected at most 1 MiB");
}

TEST(ConfigOverrideTest, SetsReplacesAndMakes) {
  const std::string yaml = "a: {b: 1, c: [{d: 2}, {d: 3}]}\n";
  EXPECT_EQ(with_override(yaml, "a.b=5"), parse_yaml("a: {b: 5, c: [{d: 2}, {d: 3}]}", ""));
  EXPECT_EQ(with_override(yaml, "a.c[1].d=x"), parse_yaml("a: {b: 1, c: [{d: 2}, {d: x}]}", ""));
  EXPECT_EQ(with_override(yaml, "a.c=[1, 2]"), parse_yaml("a: {b: 1, c: [1, 2]}", ""));
  EXPECT_EQ(with_override(yaml, "n.e.w={k: v}"),
            parse_yaml("a: {b: 1, c: [{d: 2}, {d: 3}]}\nn: {e: {w: {k: v}}}", ""));
  EXPECT_EQ(with_override("a:\n", "a.b=1"),
            parse_yaml("a: {b: 1}", ""));  // a null section becomes a map
  EXPECT_EQ(with_override("", "a=x=y"), parse_yaml("a: x=y", ""));
  EXPECT_EQ(with_override("a: [[1, 2]]", "a[0][1]=3"), parse_yaml("a: [[1, 3]]", ""));
}

TEST(ConfigOverrideTest, NullAndNothingMakeAbsent) {
  EXPECT_EQ(with_override("a: {b: 1}", "a=null"), parse_yaml("a:", ""));
  EXPECT_EQ(with_override("a: {b: 1}", "a="), parse_yaml("a:", ""));
}

TEST(ConfigOverrideTest, QuotesMakeStrings) {
  EXPECT_TRUE(with_override("", "a=\"8\"").find("a")->quoted);
  EXPECT_FALSE(with_override("", "a=8").find("a")->quoted);
}

TEST(ConfigOverrideTest, OriginIsTheCommandLine) {
  const ConfigNode root = with_override("a:\n  b: 1\n  c: 2\n", "a.b=[{x: 1}]");
  EXPECT_EQ(root.find("a")->find("b")->origin.str(), "command line");
  EXPECT_EQ(root.find("a")->find("b")->items[0].find("x")->origin.str(), "command line");
  EXPECT_EQ(root.find("a")->find("c")->origin.str(), "a.yaml:3");
}

TEST(ConfigOverrideTest, ErrorsAreExact) {
  const std::string yaml = "a: {b: 1, c: [7]}\n";
  EXPECT_EQ(override_error(yaml, "a.c[1]=2"),
            "2 command line: a.c[1] does not exist; a.c has 1 entries");
  EXPECT_EQ(override_error(yaml, "a.b[0]=2"),
            "2 command line: a.b[0] does not exist; a.b is not a list");
  EXPECT_EQ(override_error(yaml, "a.b.c=2"),
            "2 command line: a.b.c cannot be set; a.b is 1, not a map");
  EXPECT_EQ(override_error("[1]", "a=2"),
            "2 command line: a cannot be set; the config is [1], not a map");
  EXPECT_EQ(override_error(yaml, "a.b"), "2 command line: a.b, expected KEY=VALUE");
  for (const char* path : {"", ".a", "a.", "a..b", "[0]", "a[", "a[]", "a[x]", "a[-1]", "a[0",
                           "a[0]b", "a b", "a]", "a[99999999999999999999]", "a\n"}) {
    EXPECT_EQ(
        override_error(yaml, std::string(path) + "=1"),
        "2 command line: " + one_line(path) + ", expected a key such as model.mixers[0].window");
  }
  EXPECT_EQ(override_error(yaml, "a.b={x: 1"),
            "2 command line: a.b: a list or a map stands as a key; is a bracket not closed?");
  EXPECT_EQ(override_error(yaml, "a.b={x: 1, x: 2}"), "2 command line: a.b: duplicate key x");
  EXPECT_EQ(override_error(yaml, "a.b=&x 1"), "2 command line: a.b: anchors are not allowed: &x");
  EXPECT_EQ(override_error(yaml, "a.b=\xff"), "2 command line: a.b: not UTF-8 text");
  EXPECT_EQ(override_error(yaml, "a.b=" + repeated("[", 63) + repeated("]", 63)),
            "2 command line: a.b: nesting over 64 levels");
  const std::string deep = "a" + repeated(".a", 64);
  EXPECT_EQ(override_error("", deep + "=1"),
            "2 command line: " + deep + ": nesting over 64 levels");
}

TEST(ConfigOverrideTest, DeepestOverrideCanBeReadBack) {
  const ConfigNode root = with_override("", "a.b=" + repeated("[", 62) + repeated("]", 62));
  EXPECT_EQ(parse_yaml(to_yaml(root), ""), root);
}

TEST(ConfigOverrideTest, WordsComeInThreeForms) {
  using Words = std::vector<std::string>;
  EXPECT_EQ(override_words({"a.b=1", "--a.c=2", "--a.d", "3", "--lr", "-1", "--text", "x=y"}),
            (Words{"a.b=1", "a.c=2", "a.d=3", "lr=-1", "text=x=y"}));
  EXPECT_EQ(override_words({}), Words{});
  EXPECT_EQ(error_of([] {
              override_words({"a=1", "b"});
            }),
            "2 command line: b, expected KEY=VALUE");
  EXPECT_EQ(error_of([] { override_words({"--a"}); }),
            "2 command line: --a has no value, expected one after it");
  EXPECT_EQ(error_of([] {
              override_words({"--a", "--b=1"});
            }),
            "2 command line: --a has no value, expected one after it");
}

TEST(ConfigNodeTest, MergeGoesSectionBySection) {
  const ConfigNode base = parse_yaml("a: {b: 1, c: {d: 2}}\nl: [1, 2]\ns: 1\n", "base.yaml");
  const ConfigNode later =
      parse_yaml("l: [3]\na: {c: {e: 5}, b: null}\ns: {t: 1}\nn: 9\n", "later.yaml");
  const ConfigNode merged = merge(base, later);
  EXPECT_EQ(merged, parse_yaml("a: {b: null, c: {d: 2, e: 5}}\nl: [3]\ns: {t: 1}\nn: 9\n", ""));
  EXPECT_EQ(merged.find("a")->find("c")->find("d")->origin.str(), "base.yaml:1");
  EXPECT_EQ(merged.find("a")->find("c")->find("e")->origin.str(), "later.yaml:2");
}

TEST(ConfigNodeTest, EqualityIgnoresOriginsAndQuotesThatMeanNothing) {
  const auto node = [](const char* text) { return parse_yaml(text, "x"); };
  EXPECT_EQ(node("a: \"abc\""), parse_yaml("\n\na: abc", "y"));
  EXPECT_FALSE(node("a: \"8\"") == node("a: 8"));
  EXPECT_FALSE(node("a: \"true\"") == node("a: true"));
  EXPECT_FALSE(node("a: \"null\"") == node("a: null"));
  EXPECT_FALSE(node("[1, 2]") == node("[1]"));
  EXPECT_FALSE(node("a: 1\nb: 2") == node("b: 2\na: 1"));  // written order is part of the value
}

TEST(ConfigNodeTest, YamlIsInBlockStyleWithShortLists) {
  const ConfigNode root = parse_yaml(
      "model: {family: yoco, mixers: [{name: gated_retention, n_heads: 3}, {name: x, list: [[1, "
      "2], {a: {}}]}]}\n"
      "betas: [0.9, .98]\nempty: []\nnone: ~\nlong: [" +
          repeated("abcdefghij, ", 10) + "k]\n",
      "a.yaml");
  EXPECT_EQ(to_yaml(root),
            "model:\n"
            "  family: yoco\n"
            "  mixers:\n"
            "    - {name: gated_retention, n_heads: 3}\n"
            "    - name: x\n"
            "      list:\n"
            "        - [1, 2]\n"
            "        - a: {}\n"
            "betas: [0.9, .98]\n"
            "empty: []\n"
            "none: null\n"
            "long:\n" +
                repeated("  - abcdefghij\n", 10) + "  - k\n");
}

TEST(ConfigNodeTest, YamlQuotesStringsThatLookLikeOtherTypes) {
  const std::vector<std::string> strings = {"",         "8",
                                            "-1",       ".5",
                                            "1e-3",     "262_144",
                                            "0x1F",     "2024-01-31",
                                            "1:30",     "true",
                                            "False",    "null",
                                            "~",        "yes",
                                            "off",      "n",
                                            ".inf",     ".nan",
                                            "nan",      "-",
                                            "--",       "---",
                                            "...",      "- a",
                                            "a: b",     "a #b",
                                            "#",        "[x",
                                            "{",        "!t",
                                            "&a",       "*a",
                                            "|",        ">",
                                            "%",        "@",
                                            "`",        "'",
                                            "\"",       "\\",
                                            "a\nb\n",   "\t",
                                            " x ",      "x,y",
                                            "?",        ":",
                                            "=",        "<<",
                                            "\xC3\xA9", "\xE2\x80\xA8",
                                            "\xC2\x85", "\xEF\xBB\xBF",
                                            "\x1b[0m",  "\x7f",
                                            "a/b.c",    "-x",
                                            "+",        repeated("long ", 300)};
  ConfigNode list = ConfigNode::make_list(), map = ConfigNode::make_map();
  for (const auto& text : strings) {
    list.items.push_back(ConfigNode::make_scalar(text, /*quoted=*/true));
    if (!text.empty() && text.size() <= 128) map.entries.emplace_back(text, list.items.back());
  }
  ConfigNode root = ConfigNode::make_map();
  root.entries = {{"list", list}, {"map", map}};
  EXPECT_EQ(parse_yaml(to_yaml(root), "x"), root);
  EXPECT_EQ(parse_yaml(inline_yaml(root), "x"), root);
  EXPECT_EQ(to_yaml(ConfigNode::make_scalar("8", true)), "\"8\"\n");
  EXPECT_EQ(to_yaml(ConfigNode::make_scalar("8")), "8\n");
  EXPECT_EQ(to_yaml(ConfigNode::make_scalar("runs/yoco_3b", true)), "runs/yoco_3b\n");
}

/// A node made of random choices, with strings that are awkward in YAML.
ConfigNode random_node(std::mt19937& random, int depth) {
  static const std::vector<std::string> kTexts = {"a",    "8",  "-2.5e3", "true", "null",    "x y",
                                                  "a: b", "- ", "#",      "\n",   "\xC3\xA9"};
  const auto below = [&](size_t n) { return random() % n; };
  const size_t kind = below(depth > 0 ? 5 : 2);
  if (kind == 0) return {};
  if (kind <= 2) {
    const std::string& text = kTexts[below(kTexts.size())];
    return ConfigNode::make_scalar(text, text == "null" || below(2) == 0);
  }
  ConfigNode node = kind == 3 ? ConfigNode::make_list() : ConfigNode::make_map();
  for (size_t i = 0, n = below(5); i < n; ++i) {
    ConfigNode child = random_node(random, depth - 1);
    if (kind == 3) {
      node.items.push_back(std::move(child));
    } else {
      node.entries.emplace_back(kTexts[below(kTexts.size())] + std::to_string(i), std::move(child));
    }
  }
  return node;
}

TEST(ConfigNodeTest, RandomNodesSurviveYaml) {
  std::mt19937 random(7);
  for (int i = 0; i < 500; ++i) {
    ConfigNode root = ConfigNode::make_map();
    root.entries.emplace_back("root", random_node(random, 5));
    ASSERT_EQ(parse_yaml(to_yaml(root), "x"), root) << to_yaml(root);
    ASSERT_EQ(parse_yaml(inline_yaml(root), "x"), root) << inline_yaml(root);
  }
}

TEST(ConfigNodeTest, JsonKeepsNumbersAndBooleans) {
  const ConfigNode root = parse_yaml(
      "{a: 262_144, b: 1e-5, c: \"8\", d: true, e: ~, f: [.5, x], g: {}, h: 1.0, i: 1e400}", "");
  EXPECT_EQ(
      to_json(root, -1),
      R"({"a":262144,"b":1e-05,"c":"8","d":true,"e":null,"f":[0.5,"x"],"g":{},"h":1.0,"i":"1e400"})");
  EXPECT_EQ(to_json(parse_yaml("a: [1]", ""), 2), "{\n  \"a\": [\n    1\n  ]\n}");
}

TEST(YamlScalarTest, Integers) {
  const std::pair<const char*, int64_t> kGood[] = {
      {"0", 0},
      {"-0", 0},
      {"+7", 7},
      {"007", 7},
      {"262144", 262144},
      {"262_144", 262144},
      {"1e6", 1000000},
      {"1.5e3", 1500},
      {"2.0", 2},
      {"10e-1", 1},
      {"1e18", 1000000000000000000},
      {"9223372036854775807", std::numeric_limits<int64_t>::max()},
      {"-9223372036854775808", std::numeric_limits<int64_t>::min()},
      {"0e99", 0}};
  for (const auto& [text, value] : kGood) EXPECT_EQ(yaml_integer(text), value) << text;
  for (const char* text : {"",
                           "+",
                           "-",
                           ".",
                           "e5",
                           "1.5",
                           "1e-1",
                           "9223372036854775808",
                           "1e19",
                           "1e400",
                           "1e99999999999",
                           "0x10",
                           "1__0",
                           "_1",
                           "1_",
                           "1e",
                           "1e+",
                           "1e+-5",
                           "1 ",
                           " 1",
                           "1a",
                           "nan",
                           "inf",
                           "true"}) {
    EXPECT_EQ(yaml_integer(text), std::nullopt) << text;
  }
}

TEST(YamlScalarTest, Numbers) {
  const std::pair<const char*, double> kGood[] = {
      {"1e-3", 1e-3},     {".5", .5},
      {"5.", 5},          {"-2", -2},
      {"+1.5E+2", 150},   {"1_000.25", 1000.25},
      {"0.1", 0.1},       {"1.7976931348623157e308", 1.7976931348623157e308},
      {"5e-324", 5e-324}, {"0.0", 0}};
  for (const auto& [text, value] : kGood) EXPECT_EQ(yaml_number(text), value) << text;
  EXPECT_TRUE(std::signbit(*yaml_number("-0")));
  for (const char* text : {"", "nan", "inf", ".inf", "-.inf", ".nan", "1e400", "-1e400", "1e-400",
                           "0x1p3", "1,5", "1.5.2"}) {
    EXPECT_EQ(yaml_number(text), std::nullopt) << text;
  }
}

TEST(YamlScalarTest, NumberTextIsShortAndExact) {
  EXPECT_EQ(number_text(1.5e-4), "0.00015");
  EXPECT_EQ(number_text(1e-8), "1e-8");
  EXPECT_EQ(number_text(1e10), "1e10");
  EXPECT_EQ(number_text(1e300), "1e300");
  EXPECT_EQ(number_text(640000), "640000");
  EXPECT_EQ(number_text(10000), "10000");
  EXPECT_EQ(number_text(0.1), "0.1");
  std::mt19937_64 random(3);
  for (int i = 0; i < 2000; ++i) {
    const double value =
        std::ldexp(static_cast<double>(random()), static_cast<int>(random() % 1900) - 1000);
    ASSERT_EQ(yaml_number(number_text(value)), value) << number_text(value);
  }
}

}  // namespace
}  // namespace tandem
