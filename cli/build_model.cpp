#include "cli/build_model.h"

#include <stdexcept>
#include <string>
#include <vector>

#include "blocktf/block_transformer.h"
#include "cli/uptrain.h"
#include "core/error.h"
#include "nn/gpt_neox.h"
#include "nn/transformer.h"
#include "yoco/hybrid.h"
#include "yoco/yoco.h"

namespace tandem {
namespace {

struct Stack {
  Option option;
  std::shared_ptr<DecoderStack> (*build)(const Choice& stack);
};

template <typename Config, typename Made>
Stack stack(const char* name) {
  return {option<Config>(name), [](const Choice& choice) -> std::shared_ptr<DecoderStack> {
            return std::make_shared<Made>(choice.as<Config>());
          }};
}

const Stack kStacks[] = {
    {option<NeoxStackConfig>("gpt_neox"),  // block_decoder: {stack: <name>, ...}
     [](const Choice& choice) -> std::shared_ptr<DecoderStack> {
       return make_neox_stack(choice.as<NeoxStackConfig>());
     }},
    stack<LayerStackConfig, LayerStack>("transformer"),
    stack<YocoStackConfig, YocoStack>("yoco"),
};
// Of these a token decoder is made: full attention, which can leave padding out.
constexpr size_t kTokenStacks = 2;

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

std::shared_ptr<LanguageModel> make_block_family(const BlockTransformerConfig& config) {
  return make_block_transformer(config, stack_factory());
}

std::span<const Option> options_of(const auto& entries) {
  static const std::vector<Option> table = [&] {
    std::vector<Option> rows;
    for (const auto& entry : entries) rows.push_back(entry.option);
    return rows;
  }();
  return table;
}

Family block_family() {
  static const std::vector<Option> token_decoders =
      token_decoder_options(stack_factory().options.first(kTokenStacks));
  Family made = family<BlockTransformerConfig, make_block_family>("");
  made.option = option("block_transformer",
                       block_transformer_defaults(stack_factory().options, token_decoders));
  return made;
}

std::span<const Family> families() {
  static const Family kFamilies[] = {
      family<YocoConfig, make_yoco>("yoco"),  // model: {family: <name>, ...}
      block_family(),
      family<TransformerConfig, make_transformer>("transformer"),
      family<GptNeoxConfig, make_gpt_neox>("gpt_neox"),
      family<HybridConfig, make_hybrid>("hybrid"),
  };
  return kFamilies;
}

const Family& family_of(const Choice& model) {
  for (const auto& family : families()) {
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

StackFactory stack_factory() {
  const auto build = [](const Choice& stack) {
    for (const auto& entry : kStacks) {
      if (entry.option.name == stack.name) return entry.build(stack);
    }
    throw std::logic_error("no stack named " + stack.name);
  };
  return {options_of(kStacks), build};
}

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
  return {options_of(families()), [](const Choice& model) { return family_of(model).build(model); },
          set_vocab_size, uptrain_from_checkpoint};
}

}  // namespace tandem
