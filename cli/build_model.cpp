#include "cli/build_model.h"

#include <stdexcept>
#include <string>
#include <vector>

#include "core/error.h"
#include "nn/transformer.h"
#include "yoco/hybrid.h"
#include "yoco/yoco.h"

namespace tandem {
namespace {

struct Family {
  Option option;
  std::shared_ptr<LanguageModel> (*build)(const Choice& model);
  std::optional<int64_t>& (*vocab_size)(Choice& model);
};

template <typename Config, std::shared_ptr<LanguageModel> (*kMake)(const Config&)>
Family family(const char* name) {
  return {option<Config>(name), [](const Choice& model) { return kMake(model.as<Config>()); },
          [](Choice& model) -> std::optional<int64_t>& { return model.as<Config>().vocab_size; }};
}

const Family kFamilies[] = {
    family<YocoConfig, make_yoco>("yoco"),  // model: {family: <name>, ...}
    family<TransformerConfig, make_transformer>("transformer"),
    family<HybridConfig, make_hybrid>("hybrid"),
};

std::span<const Option> options() {
  static const std::vector<Option> table = [] {
    std::vector<Option> rows;
    for (const auto& family : kFamilies) rows.push_back(family.option);
    return rows;
  }();
  return table;
}

const Family& family_of(const Choice& model) {
  for (const auto& family : kFamilies) {
    if (family.option.name == model.name) return family;
  }
  throw std::logic_error("no family named " + model.name);
}

void set_vocab_size(Choice& model, int64_t tokenizer_vocab_size) {
  auto& vocab_size = family_of(model).vocab_size(model);
  if (!vocab_size) vocab_size = tokenizer_vocab_size;
  if (*vocab_size < tokenizer_vocab_size) {
    throw bad_usage("model.vocab_size = " + std::to_string(*vocab_size) + ", expected at least " +
                    std::to_string(tokenizer_vocab_size) +
                    ", the tokenizer's; leave the key out to take that");
  }
}

struct ModelSection {
  Choice model = model_factory().choice();
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.choice("model", model);
  }
};

}  // namespace

Choice read_model_section(const ConfigNode& config, const std::string& path) {
  const ConfigNode* model = config.find("model");
  if (!model) throw bad_file(path, "has no model section");
  ConfigNode alone = ConfigNode::make_map();
  alone.origin = config.origin;
  alone.entries.emplace_back("model", *model);
  ModelSection section;
  read_config(alone, section);
  return section.model;
}

ConfigNode write_model_section(const Choice& model) {
  ModelSection section;
  section.model = model;
  return write_config(section).entries.front().second;
}

ModelFactory model_factory() {
  return {options(), [](const Choice& model) { return family_of(model).build(model); },
          set_vocab_size};
}

}  // namespace tandem
