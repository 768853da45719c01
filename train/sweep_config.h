#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/config.h"

namespace tandem {

/// Heads of a fixed width: every n_heads of the model that is written becomes d_model / head_dim.
struct HeadsRule {
  std::optional<int64_t> head_dim;  // channels of one head; absent: as written beside each n_heads
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.optional("head_dim", head_dim, at_least(1));
  }
};

/// Every ffn_dim of the model that is written becomes ratio * d_model, rounded up to a multiple.
struct FfnRule {
  std::optional<double> ratio;
  int64_t multiple = 1;
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.optional("ratio", ratio, above(0));
    visit.value("multiple", multiple, at_least(1));
  }
  void check(Checker& check) const {
    check.require(ratio.has_value(), "ratio", "absent", "a number > 0");
  }
};

/// optimizer.lr = lr * (d_model / the model's d_model) ^ power.
struct LrRule {
  std::optional<double> lr;        // of a model that is
  std::optional<int64_t> d_model;  // so wide
  double power = 1;
  std::optional<double> min_share;  // lr_schedule.min_lr is this share of lr; absent: as it was
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.optional("lr", lr, above(0));
    visit.optional("d_model", d_model, at_least(1));
    visit.value("power", power);
    visit.optional("min_share", min_share, in_range(0, 1));
  }
  void check(Checker& check) const {
    check.require(lr.has_value(), "lr", "absent", "a number > 0");
    check.require(d_model.has_value(), "d_model", "absent", "an integer >= 1");
  }
};

/// training.steps out of one of three numbers.
struct StepsRule {
  std::optional<double> tokens;                // of the run
  std::optional<double> tokens_per_parameter;  // of `parameters`
  std::optional<double> flops;                 // the run's budget, by the model's FLOPs per token
  std::string parameters = "non_embedding";    // non_embedding | all
  std::optional<double>
      warmup_share;  // lr_schedule.warmup_steps is this share of the steps; absent: as it was
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.optional("tokens", tokens, above(0));
    visit.optional("tokens_per_parameter", tokens_per_parameter, above(0));
    visit.optional("flops", flops, above(0));
    visit.one_of("parameters", parameters, {"non_embedding", "all"});
    visit.optional("warmup_share", warmup_share, in_range(0, 1));
  }
  void check(Checker& check) const;
};

/// What follows from a run's settings rather than being written.
struct SweepRules {
  std::optional<HeadsRule> heads;
  std::optional<FfnRule> ffn;
  std::optional<LrRule> lr;
  std::optional<StepsRule> steps;
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.section("heads", heads);
    visit.section("ffn", ffn);
    visit.section("lr", lr);
    visit.section("steps", steps);
  }
};

/// One entry of `runs`.
struct SweepEntry {
  std::string name;
  std::optional<std::string> base;   // absent: the sweep's
  std::optional<std::string> group;  // whose points are fitted together; absent: name
  ConfigNode set;                    // over the sweep's
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.value("name", name);
    visit.optional("base", base);
    visit.optional("group", group);
    visit.raw("set", set);
  }
  void check(Checker& check) const;
};

/// A sweep: every entry of `runs` (without: one) with every combination of the values of `grid`.
/// Keys in `set` and `grid` are those of a training config, or `rules.` and a key of the rules.
struct SweepConfig {
  std::optional<std::string> base;  // a training config
  std::optional<std::string> out;  // folder of the runs; absent: runs/sweeps/NAME for .../NAME.yaml
  std::string launcher;            // words in front of `tandem train`, apart by spaces
  ConfigNode set;   // {key: value}; a map is laid over the base's, a list replaces it
  ConfigNode grid;  // {key: [values]}
  std::vector<SweepEntry> runs;
  ConfigNode rules;  // SweepRules, read for each run
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.optional("base", base);
    visit.optional("out", out);
    visit.value("launcher", launcher);
    visit.raw("set", set);
    visit.raw("grid", grid);
    visit.list("runs", runs);
    visit.raw("rules", rules);
  }
};

/// Letters, digits and ._+- only, not beginning with a dot: fit for the name of a folder.
bool is_run_name(const std::string& name);
/// The same with _ for every other character.
std::string as_run_name(std::string text);

}  // namespace tandem
