#include "train/sweep_plan.h"

#include <map>
#include <memory>
#include <set>
#include <span>
#include <sstream>

#include "core/checksum.h"
#include "core/error.h"
#include "core/file.h"
#include "data/tokenizer.h"
#include "train/plan.h"
#include "train/setup.h"

namespace tandem {
namespace {

using Kind = ConfigNode::Kind;

constexpr const char* kRules = "rules.";

std::string stem_of(const std::string& path) {
  const std::string name = path.substr(path.rfind('/') + 1);
  return name.substr(0, name.rfind('.'));
}

bool is_absent(const ConfigNode& node) { return node.kind == Kind::kNull; }

void require_map(const ConfigNode& node, const char* key) {
  if (!is_absent(node) && node.kind != Kind::kMap)
    throw bad_value(node.origin, key, inline_yaml(node), "a map of keys of a training config");
}

/// What one combination of the grid's values sets, and calls itself.
struct Combination {
  std::string name;
  std::vector<Setting> settings;
};

std::vector<Combination> combinations(const ConfigNode& grid) {
  require_map(grid, "grid");
  std::vector<Combination> made = {{}};
  for (const auto& [key, values] : grid.entries) {
    if (values.kind != Kind::kList || values.items.empty())
      throw bad_value(values.origin, "grid." + key, inline_yaml(values), "a list of values");
    std::vector<Combination> longer;
    for (const Combination& before : made) {
      for (const ConfigNode& value : values.items) {
        Combination next = before;
        next.settings.push_back({key, value, values.origin});
        const std::string text = value.kind == Kind::kScalar ? value.scalar : inline_yaml(value);
        next.name += "-" + as_run_name(key.substr(key.rfind('.') + 1) + text);  // npos + 1 is 0
        longer.push_back(std::move(next));
      }
    }
    made = std::move(longer);
  }
  return made;
}

/// Makes runs out of entries and combinations; keeps what several of them need.
class Planner {
 public:
  explicit Planner(const ModelFactory& factory) : factory_(factory) {}

  /// `given`: all that is written for it; `origin`: where the sweep speaks of it.
  SweepRun run(const std::string& base, const std::vector<Setting>& given,
               const ConfigNode& rules_node, const Origin& origin) {
    SweepRun run;
    run.base = base;
    ConfigNode root = base_config(base), rules_root = rules_node;
    if (is_absent(rules_root)) rules_root = ConfigNode::make_map();
    for (Setting setting : given) {
      if (setting.key.starts_with(kRules)) {
        setting.key.erase(0, std::string(kRules).size());
        apply(rules_root, setting);
      } else {
        apply(root, setting);
        run.settings.push_back(setting);
      }
    }
    SweepRules rules;
    read_config(rules_root, rules, "rules");
    const Origin& of_rules = is_absent(rules_node) ? origin : rules_node.origin;
    const auto made = derive(rules, root, run.settings, of_rules,
                             [&](const ConfigNode& node) { return sized(node); });
    for (const Setting& setting : made) {
      apply(root, setting);
      run.settings.push_back(setting);
    }
    if (rules.steps) run.flops_budget = rules.steps->flops;
    run.d_model = width_of(root);
    count_costs(run, root);
    return run;
  }

 private:
  const ConfigNode& base_config(const std::string& path) {
    const auto found = bases_.find(path);
    return found != bases_.end() ? found->second
                                 : bases_.emplace(path, parse_yaml_file(path)).first->second;
  }

  TrainConfig read(const ConfigNode& root) const {
    TrainConfig config = make_train_config(factory_);
    read_config(root, config);
    return config;
  }

  /// A vocabulary that the config writes needs no tokenizer.
  Plan plan_of(const TrainConfig& config, const ConfigNode& root) {
    const std::string& name = config.data.tokenizer;
    const ConfigNode* model = root.find("model");
    const bool written = model && model->find("vocab_size");
    if (!written || tokenizer_exists(name)) return Plan(config, factory_, tokenizer(name));
    ModelFactory as_written = factory_;
    as_written.set_vocab_size = [](Choice&, int64_t) {};
    return Plan(config, as_written, tokenizer("bytes"));
  }

  const Tokenizer& tokenizer(const std::string& name) {
    auto& held = tokenizers_[name];
    if (!held) held = load_tokenizer(name);
    return *held;
  }

  SizedModel sized(const ConfigNode& root) {
    const Plan plan = plan_of(read(root), root);
    const TrainConfig& config = plan.stages().front().config;
    const auto model = factory_.build(config.model);
    return {model_size(parameters_info(*model)),
            flops_per_token(*model, config.training.context_length).total()};
  }

  void count_costs(SweepRun& run, const ConfigNode& root) {
    TrainConfig config = read(root);
    const std::string text = to_yaml(write_config(config));
    run.hash = sha256_hex(text).substr(0, 16);
    const Plan plan = plan_of(config, root);
    run.family = config.model.name;
    run.lr = config.optimizer.lr;
    run.steps = plan.steps();
    run.tokens = plan.tokens_before(plan.steps());
    for (const Stage& stage : plan.stages()) {
      const auto model = factory_.build(stage.config.model);
      const int64_t length = stage.config.training.context_length;
      const double flops = flops_per_token(*model, length).total();
      run.compute += flops * static_cast<double>(plan.tokens_before(stage.end) -
                                                 plan.tokens_before(stage.begin));
      if (stage.index > 0) continue;
      run.parameters = model_size(parameters_info(*model));
      run.context_length = length;
      run.flops_per_token = flops;
      run.state_bytes =
          model->state_bytes(length, dtype_of(stage.config.training)).total();
    }
  }

  const ModelFactory& factory_;
  std::map<std::string, ConfigNode> bases_;
  std::map<std::string, std::unique_ptr<Tokenizer>> tokenizers_;
};

/// Names are folders, and one config is trained once.
void check_distinct(const SweepPlan& plan, const std::string& path) {
  std::map<std::string, std::string> name_of_hash;
  std::set<std::string> names = {"lock", "logs", "sweep.jsonl"};  // what the sweep itself writes
  for (const SweepRun& run : plan.runs) {
    if (!names.insert(run.name).second)
      throw bad_config({path},
                       "the folder of run " + run.name + " is not its own; name it otherwise");
    const auto [at, is_new] = name_of_hash.emplace(run.hash, run.name);
    if (!is_new)
      throw bad_config({path}, at->second + " and " + run.name + " are the same training");
  }
}

}  // namespace

SweepPlan plan_sweep(const ConfigNode& root, const std::string& path, const ModelFactory& factory) {
  SweepConfig config;
  read_config(root, config);
  require_map(config.set, "set");
  require_map(config.rules, "rules");
  SweepPlan plan;
  plan.name = stem_of(path);
  plan.folder = config.out.value_or(join_path("runs/sweeps", plan.name));
  std::istringstream words(config.launcher);
  for (std::string word; words >> word;) plan.launcher.push_back(word);
  if (config.runs.empty() && is_absent(config.grid))
    throw bad_config({path}, "a sweep has runs, a grid, or both");

  const bool has_list = !config.runs.empty();
  if (!has_list) config.runs.emplace_back();
  const auto of_grid = combinations(config.grid);
  const auto common = settings_of(config.set);
  Planner planner(factory);
  for (const SweepEntry& entry : config.runs) {
    require_map(entry.set, "set");
    const auto base = entry.base ? entry.base : config.base;
    if (!base)
      throw bad_config({path}, (has_list ? "run " + entry.name : "the sweep") +
                                   " has no base, expected the path of a training config");
    for (const Combination& combination : of_grid) {
      std::vector<Setting> given = common;
      for (Setting& setting : settings_of(entry.set)) given.push_back(std::move(setting));
      given.insert(given.end(), combination.settings.begin(), combination.settings.end());
      SweepRun run = planner.run(*base, given, config.rules, {path});
      run.name = has_list ? entry.name + combination.name : combination.name.substr(1);
      run.group = entry.group.value_or(has_list ? entry.name : stem_of(*base));
      plan.runs.push_back(std::move(run));
    }
  }
  check_distinct(plan, path);
  return plan;
}

}  // namespace tandem
