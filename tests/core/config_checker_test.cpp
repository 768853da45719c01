#include <gtest/gtest.h>

#include "core/config.h"
#include "tests/core/config_examples.h"

namespace tandem {
namespace {

using namespace config_examples;

TEST(CheckerTest, DividesNamesOnlyKeysThatWereWritten) {
  EXPECT_EQ(error_of<WindowConfig>("n_heads: 6\nn_kv_heads: 4", "mixer"),
            "a.yaml:1: mixer.n_heads = 6, expected a multiple of n_kv_heads (4)");
  EXPECT_EQ(error_of<WindowConfig>("\nn_kv_heads: 3", "mixer"),
            "a.yaml:2: mixer.n_kv_heads = 3, expected a divisor of 8");
  EXPECT_EQ(error_of<WindowConfig>("n_heads: 6\nn_kv_heads: 3"), "no error");
  EXPECT_EQ(error_of<WindowConfig>("n_heads: 6"), "no error");

  const ConfigNode node = parse_yaml("n_heads: 6\nhead_dim: null", "a.yaml");
  const auto message = [&](const char* small_key, int64_t small, const char* large_key,
                           int64_t large) -> std::string {
    try {
      Checker(node, "mixer").divides(small_key, small, large_key, large);
    } catch (const UserError& error) {
      return error.what();
    }
    return "no error";
  };
  EXPECT_EQ(message("n_kv_heads", 4, "n_heads", 6),
            "a.yaml:1: mixer.n_heads = 6, expected a multiple of 4");
  EXPECT_EQ(message("group", 4, "head_dim", 6),
            "a.yaml:1: mixer: default head_dim = 6, expected a multiple of group (4)");
  EXPECT_EQ(message("n_kv_heads", 0, "n_heads", 6),
            "a.yaml:1: mixer.n_heads = 6, expected a multiple of 0");
}

TEST(CheckerTest, ReachesNestedConfigsAndSeesWhatWasWritten) {
  EXPECT_EQ(error_of("mixer:\n  n_kv_heads: 3"),
            "a.yaml:2: mixer.n_kv_heads = 3, expected a divisor of 8");
  EXPECT_EQ(error_of("model:\n  family: yoco\n  mixers:\n  - {name: gated_retention}\n  - {name: "
                     "sliding_window, n_kv_heads: 5}"),
            "a.yaml:5: model.mixers[1].n_kv_heads = 5, expected a divisor of 8");
  const ConfigNode node = parse_yaml("a: 1\nb: null", "");
  const Checker checker(node, "");
  EXPECT_TRUE(checker.written("a"));
  EXPECT_FALSE(checker.written("b"));
  EXPECT_FALSE(checker.written("c"));
}

struct Broken {
  int64_t size = 3;
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.value("size", size);
  }
  void check(Checker& check) const {
    check.require(size > 3, "size", std::to_string(size), "more than 3");
  }
};

struct Outer {
  Broken inner;
  std::vector<Broken> list;
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.section("inner", inner);
    visit.list("list", list);
  }
};

TEST(CheckerTest, RulesHoldForDefaultsToo) {
  EXPECT_EQ(error_of<Outer>(""), "inner: default size = 3, expected more than 3");
  EXPECT_EQ(error_of<Outer>("\ninner: {}"),
            "a.yaml:2: inner: default size = 3, expected more than 3");
  EXPECT_EQ(error_of<Outer>("inner: {size: 4}\nlist:\n- size: 5\n- size: 2"),
            "a.yaml:4: list[1].size = 2, expected more than 3");
}

}  // namespace
}  // namespace tandem
