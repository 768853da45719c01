#include "train/sweep_rules.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "core/error.h"
#include "core/yaml_scalar.h"

namespace tandem {
namespace {

using Kind = ConfigNode::Kind;

// More steps than any run has: what must hold of a config before its steps are known does.
constexpr int64_t kManySteps = 1'000'000'000;

/// Calls `visit` with each map of the model section, its path and the d_model it is in (0: none).
void for_each_map(
    const ConfigNode& node, const std::string& path, int64_t d_model,
    const std::function<void(const ConfigNode&, const std::string&, int64_t)>& visit) {
  if (const ConfigNode* own = node.find("d_model"))
    d_model = yaml_integer(own->scalar).value_or(d_model);
  if (node.kind == Kind::kMap) visit(node, path, d_model);
  for (const auto& [key, value] : node.entries)
    for_each_map(value, path + "." + key, d_model, visit);
  for (size_t i = 0; i < node.items.size(); ++i)
    for_each_map(node.items[i], path + "[" + std::to_string(i) + "]", d_model, visit);
}

void for_each_model_map(
    const ConfigNode& root,
    const std::function<void(const ConfigNode&, const std::string&, int64_t)>& visit) {
  if (const ConfigNode* model = root.find("model")) for_each_map(*model, "model", 0, visit);
}

class Deriver {
 public:
  Deriver(const SweepRules& rules, ConfigNode root, const std::vector<Setting>& given,
          const Origin& origin)
      : rules_(rules), root_(std::move(root)), given_(given), origin_(origin) {}

  std::vector<Setting> run(const std::function<SizedModel(const ConfigNode&)>& sized) {
    if (rules_.heads) set_heads(rules_.heads->head_dim);
    if (rules_.ffn) set_ffn(*rules_.ffn->ratio, rules_.ffn->multiple);
    if (rules_.lr) set_lr(*rules_.lr);
    if (rules_.steps) set_steps(*rules_.steps, sized);
    return std::move(made_);
  }

 private:
  void make(const std::string& key, const std::string& value, const char* rule) {
    for (const Setting& setting : given_) {
      if (setting.key != key) continue;
      throw bad_config(setting.origin, key + " is given, and made by rules." + rule +
                                           " too; take one of them away");
    }
    made_.push_back({key, ConfigNode::make_scalar(value), origin_});
    apply(root_, made_.back());
  }

  void set_heads(std::optional<int64_t> head_dim) {
    const ConfigNode before = root_;
    bool found = false;
    for_each_model_map(before, [&](const ConfigNode& map, const std::string& path,
                                   int64_t d_model) {
      if (!map.find("n_heads") || d_model == 0) return;
      found = true;
      const ConfigNode* written = map.find("head_dim");
      const auto dim = head_dim ? head_dim : written ? yaml_integer(written->scalar) : std::nullopt;
      if (!dim || *dim < 1)
        throw bad_config(origin_,
                         "rules.heads needs head_dim: " + path + " has none beside its n_heads");
      if (d_model % *dim != 0)
        throw bad_config(
            origin_, "rules.heads: " + path + " has d_model " + std::to_string(d_model) +
                         ", expected a multiple of its head_dim (" + std::to_string(*dim) + ")");
      make(path + ".n_heads", std::to_string(d_model / *dim), "heads");
      if (head_dim && written) make(path + ".head_dim", std::to_string(*dim), "heads");
    });
    if (!found)
      throw bad_config(origin_, "rules.heads finds no n_heads in a part of the model with d_model");
  }

  void set_ffn(double ratio, int64_t multiple) {
    const ConfigNode before = root_;
    bool found = false;
    for_each_model_map(
        before, [&](const ConfigNode& map, const std::string& path, int64_t d_model) {
          if (!map.find("ffn_dim") || d_model == 0) return;
          found = true;
          // 8 / 3 as 2.6666667 must not lift 2.6666667 * 96 past 256.
          const double units = ratio * static_cast<double>(d_model) / static_cast<double>(multiple);
          const auto whole = static_cast<int64_t>(std::ceil(units * (1 - 1e-6)));
          make(path + ".ffn_dim", std::to_string(std::max<int64_t>(1, whole) * multiple), "ffn");
        });
    if (!found)
      throw bad_config(origin_, "rules.ffn finds no ffn_dim in a part of the model with d_model");
  }

  void set_lr(const LrRule& rule) {
    const int64_t width = width_of(root_);
    if (width == 0) throw bad_config(origin_, "rules.lr finds no d_model in the model");
    const double lr =
        *rule.lr *
        std::pow(static_cast<double>(*rule.d_model) / static_cast<double>(width), rule.power);
    // What a person would write: six digits.
    const auto rounded = [](double value) {
      char text[32];
      std::snprintf(text, sizeof text, "%.6g", value);
      return number_text(std::strtod(text, nullptr));
    };
    make("optimizer.lr", rounded(lr), "lr");
    if (rule.min_share) make("lr_schedule.min_lr", rounded(*rule.min_share * lr), "lr");
  }

  double integer_at(const char* section, const char* key, int64_t fallback) const {
    const ConfigNode* map = root_.find(section);
    const ConfigNode* node = map ? map->find(key) : nullptr;
    return static_cast<double>(node ? yaml_integer(node->scalar).value_or(fallback) : fallback);
  }

  void set_steps(const StepsRule& rule, const std::function<SizedModel(const ConfigNode&)>& sized) {
    const auto is_there = [](const ConfigNode* node) { return node && node->kind != Kind::kNull; };
    if (is_there(root_.find("stages")))
      throw bad_config(origin_,
                       "rules.steps cannot divide the steps among stages; take one of them away");
    const ConfigNode* training = root_.find("training");
    if (training && is_there(training->find("batch_ramp")))
      throw bad_config(origin_,
                       "rules.steps expects steps of equal size; take training.batch_ramp away");
    const double tokens_per_step = integer_at("training", "tokens_per_step", 32768);
    double tokens = rule.tokens.value_or(0);
    if (!rule.tokens) {
      ConfigNode with_steps = root_;
      apply(with_steps,
            {"training.steps", ConfigNode::make_scalar(std::to_string(kManySteps)), origin_});
      const SizedModel model = sized(with_steps);
      const int64_t n = rule.parameters == "all" ? model.size.total : model.size.non_embedding;
      tokens = rule.flops ? *rule.flops / model.flops_per_token
                          : *rule.tokens_per_parameter * static_cast<double>(n);
    }
    const double steps = std::round(tokens / tokens_per_step);
    if (!(steps <= static_cast<double>(kManySteps)))
      throw bad_config(origin_,
                       "rules.steps comes to " + number_text(tokens) +
                           " tokens, more than 1,000,000,000 steps of training.tokens_per_step");
    const auto whole = std::max<int64_t>(1, std::llround(steps));
    make("training.steps", std::to_string(whole), "steps");
    if (rule.warmup_share) {
      const auto warmup = std::llround(*rule.warmup_share * static_cast<double>(whole));
      make("lr_schedule.warmup_steps", std::to_string(warmup), "steps");
    }
  }

  const SweepRules& rules_;
  ConfigNode root_;
  const std::vector<Setting>& given_;
  const Origin& origin_;
  std::vector<Setting> made_;
};

void set_origin(ConfigNode& node, const Origin& origin) {
  if (node.origin.file == "command line" || node.origin.file.empty()) node.origin = origin;
  for (auto& item : node.items) set_origin(item, origin);
  for (auto& entry : node.entries) set_origin(entry.second, origin);
}

}  // namespace

std::string Setting::word() const { return key + "=" + inline_yaml(value); }

std::vector<Setting> settings_of(const ConfigNode& map, const std::string& key) {
  std::vector<Setting> settings;
  for (const auto& [name, value] : map.entries) {
    const std::string path = key.empty() ? name : key + "." + name;
    if (value.kind == Kind::kMap && !value.entries.empty()) {
      for (Setting& inner : settings_of(value, path)) settings.push_back(std::move(inner));
    } else {
      settings.push_back({path, value, value.origin});
    }
  }
  return settings;
}

void apply(ConfigNode& root, const Setting& setting) {
  const std::string elsewhere = "command line: ";
  try {
    apply_override(root, setting.word());
  } catch (const UserError& error) {
    const std::string what = error.what();
    throw bad_config(setting.origin,
                     what.starts_with(elsewhere) ? what.substr(elsewhere.size()) : what);
  }
  set_origin(root, setting.origin);
}

std::vector<Setting> derive(const SweepRules& rules, const ConfigNode& root,
                            const std::vector<Setting>& given, const Origin& origin,
                            const std::function<SizedModel(const ConfigNode& root)>& sized) {
  return Deriver(rules, root, given, origin).run(sized);
}

int64_t width_of(const ConfigNode& root) {
  int64_t width = 0;
  for_each_model_map(root, [&](const ConfigNode&, const std::string&, int64_t d_model) {
    width = std::max(width, d_model);
  });
  return width;
}

}  // namespace tandem
