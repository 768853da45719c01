#include "core/config.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/core/config_examples.h"

namespace tandem {
namespace {

using namespace config_examples;

TEST(ConfigTest, ReadsEveryKindOfField) {
  const RunConfig config = read(
      "deterministic: true\ntokens: 1e6\nlr: 1e-3\nname: x y\nsizes: [3, 262_144]\nbetas: [.5, "
      "1]\nwords: [a, '8']\n"
      "maybe_flag: false\nmaybe_number: .5\nmaybe_name: \"\"\nmaybe_words: [b]\nrope: {base: "
      "640000, pairs: halves}\n"
      "other_rope: {}\ntrain: [{path: p, weight: 0.25}, {path: q}]\n"
      "model: {family: yoco, n_layers: 2, mixers: [{name: sliding_window, window: 7}, {n_heads: 5, "
      "name: gated_retention}]}\n"
      "stage: {lr: 8e-5, any: [1]}\n");
  EXPECT_TRUE(config.deterministic);
  EXPECT_EQ(config.tokens, 1000000);
  EXPECT_EQ(config.lr, 1e-3);
  EXPECT_EQ(config.name, "x y");
  EXPECT_EQ(config.sizes, (std::vector<int64_t>{3, 262144}));
  EXPECT_EQ(config.betas, (std::vector<double>{0.5, 1}));
  EXPECT_EQ(config.words, (std::vector<std::string>{"a", "8"}));
  EXPECT_EQ(config.maybe_flag, false);
  EXPECT_EQ(config.maybe_number, 0.5);
  EXPECT_EQ(config.maybe_name, "");
  EXPECT_EQ(config.maybe_words, (std::vector<std::string>{"b"}));
  EXPECT_EQ(config.rope.base, 640000);
  EXPECT_EQ(config.rope.pairs, "halves");
  ASSERT_TRUE(config.other_rope);
  EXPECT_EQ(config.other_rope->base, 10000);
  ASSERT_EQ(config.train.size(), 2u);
  EXPECT_EQ(config.train[0].weight, 0.25);
  EXPECT_EQ(config.train[1].path, "q");
  const auto& model = config.model.as<DecoderConfig>();
  EXPECT_EQ(model.n_layers, 2);
  ASSERT_EQ(model.mixers.size(), 2u);
  EXPECT_EQ(model.mixers[0].name, "sliding_window");
  EXPECT_EQ(model.mixers[0].as<WindowConfig>().window, 7);
  EXPECT_EQ(model.mixers[1].as<RetentionConfig>().n_heads, 5);
  EXPECT_THROW(model.mixers[1].as<WindowConfig>(), std::bad_cast);
  EXPECT_EQ(config.stage, parse_yaml("{lr: 8e-5, any: [1]}", ""));
}

TEST(ConfigTest, AbsentAndNullKeepDefaults) {
  for (const char* yaml : {"",
                           "tokens:\nlr: null\nname: ~\nsizes: null\nmaybe_flag: "
                           "~\nrope:\nother_rope: null\ntrain: ~\n"
                           "model: null\nmixer:\nstage:\n"}) {
    const RunConfig config = read(yaml);
    EXPECT_EQ(config.tokens, 262144);
    EXPECT_EQ(config.lr, 1.5e-4);
    EXPECT_EQ(config.name, "run");
    EXPECT_EQ(config.sizes, (std::vector<int64_t>{1, 2}));
    EXPECT_FALSE(config.maybe_flag || config.maybe_number || config.maybe_name ||
                 config.maybe_words || config.other_rope);
    EXPECT_EQ(config.model.config, nullptr);
    EXPECT_EQ(config.mixer.name, "sliding_window");
    EXPECT_EQ(config.stage.kind, ConfigNode::Kind::kNull);
  }
  RunConfig from_nothing;
  read_config(ConfigNode{}, from_nothing);
  EXPECT_EQ(from_nothing.tokens, 262144);
}

TEST(ConfigTest, WrongValuesSayWhatIsAllowed) {
  const std::pair<const char*, const char*> kCases[] = {
      {"deterministic: 1", "a.yaml:1: deterministic = 1, expected true or false"},
      {"deterministic: True", "a.yaml:1: deterministic = True, expected true or false"},
      {"deterministic: yes", "a.yaml:1: deterministic = yes, expected true or false"},
      {"deterministic: 'true'", "a.yaml:1: deterministic = \"true\", expected true or false"},
      {"deterministic: []", "a.yaml:1: deterministic = [], expected true or false"},
      {"tokens: 2.5", "a.yaml:1: tokens = 2.5, expected an integer"},
      {"tokens: \"8\"", "a.yaml:1: tokens = \"8\", expected an integer"},
      {"tokens: true", "a.yaml:1: tokens = true, expected an integer"},
      {"tokens: 9223372036854775808",
       "a.yaml:1: tokens = 9223372036854775808, expected an integer"},
      {"tokens: 0x10", "a.yaml:1: tokens = 0x10, expected an integer"},
      {"tokens: {a: 1, b: [x]}", "a.yaml:1: tokens = {a: 1, b: [x]}, expected an integer"},
      {"lr: 0", "a.yaml:1: lr = 0, expected a number > 0"},
      {"lr: 1e400", "a.yaml:1: lr = 1e400, expected a number > 0"},
      {"lr: 1e-400", "a.yaml:1: lr = 1e-400, expected a number > 0"},
      {"lr: .inf", "a.yaml:1: lr = .inf, expected a number > 0"},
      {"lr: nan", "a.yaml:1: lr = nan, expected a number > 0"},
      {"lr: '1e-3'", "a.yaml:1: lr = \"1e-3\", expected a number > 0"},
      {"\n\nlr:\n  - 1", "a.yaml:3: lr = [1], expected a number > 0"},
      {"name: [x]", "a.yaml:1: name = [x], expected a string"},
      {"name: {x: 1}", "a.yaml:1: name = {x: 1}, expected a string"},
      {"sizes: 3", "a.yaml:1: sizes = 3, expected a list of integers"},
      {"sizes: [1, -5]", "a.yaml:1: sizes[1] = -5, expected an integer >= 1"},
      {"sizes: [1, null]", "a.yaml:1: sizes[1] = null, expected an integer >= 1"},
      {"betas: 0.9", "a.yaml:1: betas = 0.9, expected a list of numbers"},
      {"betas:\n- 0.9\n- 2", "a.yaml:3: betas[1] = 2, expected a number from 0 to 1"},
      {"words: a", "a.yaml:1: words = a, expected a list of strings"},
      {"words: [a, [b]]", "a.yaml:1: words[1] = [b], expected a string"},
      {"maybe_flag: 0", "a.yaml:1: maybe_flag = 0, expected true or false"},
      {"maybe_number: 0.25", "a.yaml:1: maybe_number = 0.25, expected a number >= 0.5"},
      {"maybe_number: 11", "a.yaml:1: maybe_number = too large, expected at most 10"},
      {"rope: none", "a.yaml:1: rope = none, expected a map"},
      {"other_rope: [1]", "a.yaml:1: other_rope = [1], expected a map"},
      {"rope:\n  pairs: half", "a.yaml:2: rope.pairs = half, expected one of: interleaved, halves"},
      {"rope: {pairs: [halves]}",
       "a.yaml:1: rope.pairs = [halves], expected one of: interleaved, halves"},
      {"train: {path: x}", "a.yaml:1: train = {path: x}, expected a list of maps"},
      {"train: [x]", "a.yaml:1: train[0] = x, expected a map"},
      {"train:\n- path: x\n-", "a.yaml:3: train[1] = null, expected a map"},
      {"train:\n- path: x\n- path: y\n  weight: 2",
       "a.yaml:4: train[1].weight = 2, expected a number from 0 to 1"},
      {"[1, 2]", "a.yaml:1: [1, 2], expected a map"},
      {"name", "a.yaml:1: name, expected a map"},
  };
  for (const auto& [yaml, expected] : kCases) EXPECT_EQ(error_of(yaml), expected) << yaml;
}

TEST(ConfigTest, MessagesHaveTheFullPath) {
  const std::string mixers = "\nmixers:\n- name: sliding_window\n  window: 0\n";
  EXPECT_EQ(error_of<DecoderConfig>(mixers, "model.self_decoder"),
            "a.yaml:4: model.self_decoder.mixers[0].window = 0, expected an integer >= 1");
  EXPECT_EQ(
      error_of<DecoderConfig>("mixers: [{name: sliding_window, widow: 8}]", "model.self_decoder"),
      "a.yaml:1: unknown key model.self_decoder.mixers[0].widow; did you mean window? "
      "known here: head_dim, n_heads, n_kv_heads, window");
  EXPECT_EQ(error_of<DecoderConfig>("mixers: [{name: sliding_window, head_dim: 7}]"),
            "a.yaml:1: mixers[0].head_dim = 7, expected an even integer >= 2");
}

TEST(ConfigTest, UnknownKeysAreRefusedAtTheirOwnLine) {
  EXPECT_EQ(error_of<RopeConfig>("base: 1\npair:\n  halves\n"),
            "a.yaml:2: unknown key pair; did you mean pairs? known here: base, pairs");
  EXPECT_EQ(error_of<RopeConfig>("colour: null"),
            "a.yaml:1: unknown key colour; known here: base, pairs");
  EXPECT_EQ(error_of("train: [{path: x}, {path: x, wait: 1}]"),
            "a.yaml:1: unknown key train[1].wait; known here: path, weight");
  EXPECT_EQ(error_of<RopeConfig>("\"a\\nb\": 1"),
            "a.yaml:1: unknown key \"a\\nb\"; known here: base, pairs");
  EXPECT_EQ(error_of<WindowConfig>("{name: 1}"),
            "a.yaml:1: unknown key name; known here: head_dim, n_heads, n_kv_heads, window");
}

TEST(ConfigTest, StringsTakeUnquotedTextAsItStands) {
  EXPECT_EQ(read("name: 2024").name, "2024");
  EXPECT_EQ(read("name: 007").name, "007");
  EXPECT_EQ(read("name: 'null'").name, "null");
}

TEST(ConfigTest, ChoicesPrintTheirOptions) {
  EXPECT_EQ(error_of("model: {family: yoko}"),
            "a.yaml:1: model.family = yoko, expected one of: yoco; did you mean yoco?");
  EXPECT_EQ(
      error_of("mixer:\n  window: 1\n  name: slidng_window"),
      "a.yaml:3: mixer.name = slidng_window, expected one of: gated_retention, sliding_window; "
      "did you mean sliding_window?");
  EXPECT_EQ(error_of("mixer: {name: x}"),
            "a.yaml:1: mixer.name = x, expected one of: gated_retention, sliding_window");
  EXPECT_EQ(error_of("mixer: {name: [x]}"), "a.yaml:1: mixer.name = [x], expected a string");
  EXPECT_EQ(error_of("model: {n_layers: 2}"),
            "a.yaml:1: model.family is missing, expected one of: yoco");
  EXPECT_EQ(
      error_of("model:\n  famly: yoco"),
      "a.yaml:1: model.family is missing, expected one of: yoco; is famly meant to be family?");
  EXPECT_EQ(error_of("model: {family: null}"),
            "a.yaml:1: model.family is missing, expected one of: yoco");
  EXPECT_EQ(error_of("model: yoco"),
            "a.yaml:1: model = yoco, expected a map with family, one of: yoco");
  EXPECT_EQ(error_of<DecoderConfig>("mixers: [gated_retention]"),
            "a.yaml:1: mixers[0] = gated_retention, expected a map with name, one of: "
            "gated_retention, sliding_window");
  EXPECT_EQ(error_of<DecoderConfig>("mixers:\n-"), "a.yaml:2: mixers[0] = null, expected a map");
}

TEST(ConfigTest, ChoiceKeepsThePickedOptionAndCopiesStayApart) {
  const RunConfig first = read("mixer: {window: 5}");
  EXPECT_EQ(first.mixer.name, "sliding_window");
  EXPECT_EQ(first.mixer.as<WindowConfig>().window, 5);
  RunConfig second = first;
  read_config(parse_yaml("mixer: {window: 9}", ""), second);
  EXPECT_EQ(first.mixer.as<WindowConfig>().window, 5);
  EXPECT_EQ(second.mixer.as<WindowConfig>().window, 9);
  Choice choice = mixer();
  EXPECT_THROW(choice.pick("none"), std::out_of_range);
}

/// Keys of its own beside those of an option; the option's checks name its keys.
struct InlineConfig {
  int64_t prefix = 2;
  Choice stack = mixer();
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.value("prefix", prefix, at_least(1));
    visit.inline_choice(stack);
  }
};

TEST(ConfigTest, AnInlineChoiceStandsAmongTheStructsOwnKeys) {
  auto config = read<InlineConfig>("name: sliding_window\nprefix: 3\nwindow: 5\nhead_dim: 8\n");
  EXPECT_EQ(config.prefix, 3);
  EXPECT_EQ(config.stack.name, "sliding_window");
  EXPECT_EQ(config.stack.as<WindowConfig>().window, 5);
  EXPECT_EQ(
      write_config(config),
      parse_yaml("{prefix: 3, name: sliding_window, n_heads: 8, head_dim: 8, window: 5}", ""));
  auto again = config;  // copies stay apart, and the option picked before is kept
  read_config(parse_yaml("{window: 9}", ""), again);
  EXPECT_EQ(again.stack.as<WindowConfig>().window, 9);
  EXPECT_EQ(config.stack.as<WindowConfig>().window, 5);
  InlineConfig empty;
  EXPECT_EQ(write_config(empty), parse_yaml("{prefix: 2}", ""));
}

TEST(ConfigTest, AnInlineChoiceSaysWhatAChoiceSays) {
  EXPECT_EQ(error_of<InlineConfig>("prefix: 2\nname: slidng_window", "decoder"),
            "a.yaml:2: decoder.name = slidng_window, expected one of: gated_retention, "
            "sliding_window; did you mean sliding_window?");
  EXPECT_EQ(error_of<InlineConfig>("name: x"),
            "a.yaml:1: name = x, expected one of: gated_retention, sliding_window");
  EXPECT_EQ(error_of<InlineConfig>("name: [x]"), "a.yaml:1: name = [x], expected a string");
  EXPECT_EQ(error_of<InlineConfig>("prefix: 2", "decoder"),
            "a.yaml:1: decoder.name is missing, expected one of: gated_retention, sliding_window");
  EXPECT_EQ(error_of<InlineConfig>("nam: sliding_window", "decoder"),
            "a.yaml:1: decoder.name is missing, expected one of: gated_retention, sliding_window; "
            "is nam meant to be name?");
  EXPECT_EQ(error_of<InlineConfig>("name: sliding_window\nwindow: 0", "decoder"),
            "a.yaml:2: decoder.window = 0, expected an integer >= 1");
  EXPECT_EQ(error_of<InlineConfig>("name: sliding_window\nprefix: 0", "decoder"),
            "a.yaml:2: decoder.prefix = 0, expected an integer >= 1");
  EXPECT_EQ(error_of<InlineConfig>("name: sliding_window\nwidow: 1", "decoder"),
            "a.yaml:2: unknown key decoder.widow; did you mean window? known here: head_dim, "
            "n_heads, n_kv_heads, name, prefix, window");
  EXPECT_EQ(error_of<InlineConfig>("name: sliding_window\nn_kv_heads: 3", "decoder"),
            "a.yaml:2: decoder.n_kv_heads = 3, expected a divisor of 8");
  EXPECT_EQ(error_of<InlineConfig>("name: gated_retention\nrope: {base: 0}", "decoder"),
            "a.yaml:2: decoder.rope.base = 0, expected a number > 0");
}

TEST(ConfigTest, AnOptionMayHaveDefaultsOfItsOwn) {
  const std::vector<Option> options = {
      option<WindowConfig>("plain"),
      option<WindowConfig>("narrow", {.n_heads = 4, .n_kv_heads = 2, .window = 3})};
  Choice choice;
  choice.options = options;
  choice.pick("narrow");
  choice.as<WindowConfig>().window = 77;
  choice.pick("narrow");  // the defaults once more
  EXPECT_EQ(choice.as<WindowConfig>().window, 3);
  EXPECT_EQ(choice.as<WindowConfig>().n_kv_heads, 2);
  EXPECT_EQ(choice.as<WindowConfig>().head_dim, 64);
  choice.pick("plain");
  EXPECT_EQ(choice.as<WindowConfig>().window, 1024);
}

TEST(ConfigTest, OverridesAreReadLikeTheFile) {
  ConfigNode root =
      parse_yaml("model:\n  family: yoco\n  mixers: [{name: sliding_window}]\n", "a.yaml");
  for (const auto& word : override_words(
           {"lr=1e-3", "--model.mixers[0].window=9", "--name", "-5", "other_rope={base: 2}"})) {
    apply_override(root, word);
  }
  RunConfig config;
  read_config(root, config);
  EXPECT_EQ(config.lr, 1e-3);
  EXPECT_EQ(config.model.as<DecoderConfig>().mixers[0].as<WindowConfig>().window, 9);
  EXPECT_EQ(config.name, "-5");
  EXPECT_EQ(config.other_rope->base, 2);

  const auto override_error = [&](const char* word) -> std::string {
    ConfigNode changed = root;
    apply_override(changed, word);
    try {
      RunConfig unused;
      read_config(changed, unused);
    } catch (const UserError& error) {
      return error.what();
    }
    return "no error";
  };
  EXPECT_EQ(override_error("model.mixers[0].window=-5"),
            "command line: model.mixers[0].window = -5, expected an integer >= 1");
  EXPECT_EQ(override_error("ropes.base=1"),
            "command line: unknown key ropes; did you mean rope? known here: betas, deterministic, "
            "lr, maybe_flag, "
            "maybe_name, maybe_number, maybe_words, mixer, model, name, other_rope, rope, sizes, "
            "stage, tokens, train, words");
}

TEST(ConfigTest, WrittenConfigReadsBackTheSame) {
  RunConfig config = read(
      "deterministic: true\ntokens: -7\nlr: 0.1\nname: 'true'\nsizes: []\nbetas: [1e-8, "
      "0.3333333333333333]\n"
      "words: ['', '1e3', \"a: b\\n\"]\nmaybe_number: 3\nmaybe_words: []\nother_rope: {base: "
      "1e300}\n"
      "train: [{path: a/b, weight: 0.3}, {path: 'c d'}]\nstage: {x: \"1\", y: 1}\n"
      "model: {family: yoco, mixers: [{name: gated_retention, rope: {base: 2}}, {name: "
      "sliding_window, n_kv_heads: 4}]}\n");
  const ConfigNode written = write_config(config);
  const ConfigNode parsed = parse_yaml(to_yaml(written), "b.yaml");
  EXPECT_EQ(parsed, written) << to_yaml(written);
  RunConfig again;
  read_config(parsed, again);
  EXPECT_EQ(write_config(again), written);
  EXPECT_EQ(again.words, config.words);
  EXPECT_EQ(again.betas, config.betas);
  EXPECT_EQ(again.stage, config.stage);
  EXPECT_EQ(again.name, "true");
}

TEST(ConfigTest, WritesEveryFieldButAbsentOptionals) {
  RunConfig config;
  EXPECT_EQ(to_yaml(write_config(config)),
            "deterministic: false\n"
            "tokens: 262144\n"
            "lr: 0.00015\n"
            "name: run\n"
            "sizes: [1, 2]\n"
            "betas: [0.9, 0.98]\n"
            "words: []\n"
            "rope: {base: 10000, pairs: interleaved}\n"
            "train: []\n"
            "mixer: {name: sliding_window, n_heads: 8, head_dim: 64, window: 1024}\n");
}

TEST(ConfigTest, RefusesToWriteWhatCannotBeRead) {
  RunConfig config;
  config.lr = std::numeric_limits<double>::infinity();
  EXPECT_THROW(write_config(config), std::logic_error);
}

TEST(ConfigTest, RulesIncludeTheirBounds) {
  EXPECT_TRUE(at_least(2).holds(2) && !at_least(2).holds(1.999));
  EXPECT_TRUE(above(2).holds(2.001) && !above(2).holds(2));
  EXPECT_TRUE(in_range(0, 1).holds(0) && in_range(0, 1).holds(1) && !in_range(0, 1).holds(-0.1) &&
              !in_range(0, 1).holds(1.1));
  EXPECT_TRUE(even().holds(2) && even().holds(64) && !even().holds(0) && !even().holds(7) &&
              !even().holds(-2));
  const Rule power_of_two{"a power of two",
                          [](double v) { return std::exp2(std::round(std::log2(v))) == v; }};
  int64_t out = 0;
  const ConfigNode node = parse_yaml("n: 12", "a.yaml");
  try {
    ConfigReader(node, "").value("n", out, power_of_two);
    FAIL();
  } catch (const UserError& error) {
    EXPECT_STREQ(error.what(), "a.yaml:1: n = 12, expected a power of two");
  }
}

struct RotaryConfig {
  std::optional<double> base = 10000.0;
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.optional_or_none("base", base, above(0));
  }
};

TEST(ConfigTest, NoneEmptiesAnOptionalThatHasADefault) {
  RotaryConfig config;
  read_config(parse_yaml("{}", "a.yaml"), config);
  EXPECT_EQ(config.base, 10000.0);
  read_config(parse_yaml("base: none", "a.yaml"), config);
  EXPECT_EQ(config.base, std::nullopt);
  EXPECT_EQ(to_yaml(write_config(config)), "base: none\n");
  read_config(parse_yaml("base: 5e6", "a.yaml"), config);
  EXPECT_EQ(config.base, 5e6);
  EXPECT_THROW(read_config(parse_yaml("base: 0", "a.yaml"), config), UserError);
}

}  // namespace
}  // namespace tandem
