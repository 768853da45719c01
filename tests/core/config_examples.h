#pragma once
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "core/config.h"

namespace tandem::config_examples {

struct RopeConfig {
  double base = 10000;
  std::string pairs = "interleaved";
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.value("base", base, above(0));
    visit.one_of("pairs", pairs, {"interleaved", "halves"});
  }
};

struct WindowConfig {
  int64_t n_heads = 8;
  std::optional<int64_t> n_kv_heads;
  int64_t head_dim = 64;
  int64_t window = 1024;
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.value("n_heads", n_heads, at_least(1));
    visit.optional("n_kv_heads", n_kv_heads, at_least(1));
    visit.value("head_dim", head_dim, even());
    visit.value("window", window, at_least(1));
  }
  void check(Checker& check) const {
    check.divides("n_kv_heads", n_kv_heads.value_or(n_heads), "n_heads", n_heads);
  }
};

struct RetentionConfig {
  int64_t n_heads = 3;
  RopeConfig rope;
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.value("n_heads", n_heads, at_least(1));
    visit.section("rope", rope);
  }
};

inline const Option kMixers[] = {option<RetentionConfig>("gated_retention"),
                          option<WindowConfig>("sliding_window")};

inline Choice mixer() {
  Choice choice;
  choice.options = kMixers;
  return choice;
}

/// A choice within a choice.
struct DecoderConfig {
  int64_t n_layers = 6;
  std::vector<Choice> mixers;
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.value("n_layers", n_layers, at_least(1));
    visit.choices("mixers", mixers, mixer());
  }
};

inline const Option kFamilies[] = {option<DecoderConfig>("yoco")};

struct SourceConfig {
  std::string path;
  double weight = 1;
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.value("path", path);
    visit.value("weight", weight, in_range(0, 1));
  }
};

struct RunConfig {
  bool deterministic = false;
  int64_t tokens = 262144;
  double lr = 1.5e-4;
  std::string name = "run";
  std::vector<int64_t> sizes = {1, 2};
  std::vector<double> betas = {0.9, 0.98};
  std::vector<std::string> words;
  std::optional<bool> maybe_flag;
  std::optional<double> maybe_number;
  std::optional<std::string> maybe_name;
  std::optional<std::vector<std::string>> maybe_words;
  RopeConfig rope;
  std::optional<RopeConfig> other_rope;
  std::vector<SourceConfig> train;
  Choice model;
  Choice mixer;
  ConfigNode stage;

  RunConfig() {
    model.options = kFamilies;
    model.key = "family";
    mixer = config_examples::mixer();
    mixer.pick("sliding_window");
  }
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.value("deterministic", deterministic);
    visit.value("tokens", tokens);
    visit.value("lr", lr, above(0));
    visit.value("name", name);
    visit.value("sizes", sizes, at_least(1));
    visit.value("betas", betas, in_range(0, 1));
    visit.value("words", words);
    visit.optional("maybe_flag", maybe_flag);
    visit.optional("maybe_number", maybe_number, at_least(0.5));
    visit.optional("maybe_name", maybe_name);
    visit.optional("maybe_words", maybe_words);
    visit.section("rope", rope);
    visit.section("other_rope", other_rope);
    visit.list("train", train);
    visit.choice("model", model);
    visit.choice("mixer", mixer);
    visit.raw("stage", stage);
  }
  void check(Checker& check) const {
    check.require(!maybe_number || *maybe_number <= 10, "maybe_number", "too large", "at most 10");
  }
};

template <typename Config = RunConfig>
Config read(const std::string& yaml, const std::string& path = "") {
  Config config;
  read_config(parse_yaml(yaml, "a.yaml"), config, path);
  return config;
}

template <typename Config = RunConfig>
std::string error_of(const std::string& yaml, const std::string& path = "") {
  try {
    read<Config>(yaml, path);
  } catch (const UserError& error) {
    EXPECT_EQ(error.exit_code(), 2);
    return error.what();
  }
  return "no error";
}

}  // namespace tandem::config_examples
