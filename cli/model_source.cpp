#include "cli/model_source.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <memory>
#include <set>

#include "cli/build_model.h"
#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "data/tokenizer.h"
#include "nn/checkpoint.h"
#include "nn/language_model.h"

namespace tandem {
namespace {

constexpr const char* kHead = "head.weight";
constexpr const char* kEmbedding = "embedding.weight";

/// The name under which `source` holds a weight: forms differ in whether a tied head is kept apart.
std::string name_in(const std::set<std::string>& names, const std::string& name) {
  return name == kHead && !names.contains(kHead) ? kEmbedding : name;
}

std::set<std::string> names_of(const ModelSource& source) {
  std::set<std::string> names;
  for (const auto& [name, shape] : source.weights) names.insert(name);
  return names;
}

Tensor logits_of(const ModelSource& source, torch::Dtype dtype) {
  const torch::NoGradGuard no_grad;
  const auto model = model_factory().build(source.model);
  materialise_empty(*model, torch::kCPU, torch::kFloat32);
  auto parameters = model->parameters();
  size_t i = 0;
  for (const auto& info : parameters_info(*model))
    parameters[i++].copy_(source.read(info.name).to(dtype));
  int64_t length = 12;
  if (model->packing().max_length > 0) length = std::min(length, model->packing().max_length);
  const auto tokens = (torch::arange(length) * 31 % model->vocab_size()).unsqueeze(0);
  const auto state = model->make_state({.batch = 1, .capacity = length, .dtype = torch::kFloat32});
  return model->extend(tokens, {}, *state, Want::kAll).nan_to_num();
}

int64_t bytes_of(const ModelSource& source) {
  int64_t n = 0;
  for (const auto& [name, shape] : source.weights) {
    int64_t size = sizeof(float);
    for (const int64_t d : shape) size *= d;
    n += size;
  }
  return n;
}

std::optional<int64_t> context_length_of(const ConfigNode& config) {
  const ConfigNode* training = config.find("training");
  const ConfigNode* node = training ? training->find("context_length") : nullptr;
  int64_t length = 0;
  if (node) std::from_chars(node->scalar.data(), node->scalar.data() + node->scalar.size(), length);
  return length > 0 ? std::optional(length) : std::nullopt;
}

/// Those that came with an import; else the tokenizer's.
nlohmann::ordered_json special_ids_of(const Checkpoint& checkpoint) {
  const auto state = checkpoint.state();
  if (state.contains("special_ids")) return state.at("special_ids");
  nlohmann::ordered_json ids = nlohmann::ordered_json::object();
  const std::string path = checkpoint.tokenizer();
  if (path == "bytes") return ids;
  const auto tokenizer = load_tokenizer(path);
  if (tokenizer->bos()) ids["bos_token_id"] = *tokenizer->bos();
  if (tokenizer->eos()) ids["eos_token_id"] = *tokenizer->eos();
  return ids;
}

}  // namespace

ModelSource source_of(PortableModel portable) {
  ModelSource source;
  source.model = portable.model;
  const auto weights = std::make_shared<std::map<std::string, Tensor>>();
  for (auto& [name, tensor] : portable.weights) {
    source.weights.emplace_back(name, tensor.sizes().vec());
    weights->emplace(name, std::move(tensor));
  }
  source.read = [weights](const std::string& name) {
    return weights->at(name).to(torch::kFloat32);
  };
  return source;
}

PortableModel read_whole(const ModelSource& source, torch::Dtype dtype) {
  PortableModel portable;
  portable.model = source.model;
  for (const auto& [name, shape] : source.weights)
    portable.weights.emplace_back(name, source.read(name).to(dtype));
  return portable;
}

ModelSource open_checkpoint(const std::string& path) {
  const auto checkpoint = std::make_shared<const Checkpoint>(find_checkpoint(path));
  const std::string config_path = join_path(checkpoint->folder(), "config.yaml");
  const ConfigNode config = parse_yaml(checkpoint->config_yaml(), config_path);
  ModelSource source;
  source.model = read_model_section(config, config_path);
  const std::string tokenizer = checkpoint->tokenizer();
  if (!config.find("model")->find("vocab_size"))
    model_factory().set_vocab_size(source.model, load_tokenizer(tokenizer)->vocab_size());
  if (tokenizer != "bytes") source.tokenizer_files = {tokenizer};
  const auto model = model_factory().build(source.model);
  checkpoint->check_weights(*model);
  for (const auto& info : parameters_info(*model))
    source.weights.emplace_back(info.name, info.global_shape);
  for (const auto& name : checkpoint->weight_names()) {
    if (name.starts_with(kUnusedPrefix))
      source.weights.emplace_back(name, checkpoint->weight(name).sizes().vec());
  }
  source.read = [checkpoint](const std::string& name) { return checkpoint->weight(name); };
  source.facts = {context_length_of(config), special_ids_of(*checkpoint)};
  return source;
}

void verify_equal(const std::string& path, const ModelSource& found, const ModelSource& expected,
                  torch::Dtype dtype, int64_t logits_bytes) {
  const auto found_names = names_of(found), expected_names = names_of(expected);
  std::set<std::string> wanted = expected_names;
  for (const auto& name : found_names) {
    if (!name.starts_with(kUnusedPrefix)) wanted.insert(name);
  }
  for (const auto& name : wanted) {
    const auto damaged = [&] {
      return bad_file(path, "tensor " + name + " is not what was written");
    };
    const std::string there = name_in(found_names, name), here = name_in(expected_names, name);
    if (!found_names.contains(there) || !expected_names.contains(here)) throw damaged();
    const Tensor one = found.read(there).contiguous(),
                 other = expected.read(here).to(dtype).to(torch::kFloat32).contiguous();
    if (one.sizes() != other.sizes() ||
        !torch::equal(one.view(torch::kInt32), other.view(torch::kInt32)))
      throw damaged();
  }
  log_line("verified: " + std::to_string(found.weights.size()) + " tensors of " + path +
           " are equal, bit for bit");
  if (bytes_of(expected) > logits_bytes) {
    log_line("logits were not compared: the model is larger than " +
             std::to_string(logits_bytes >> 20) + " MiB");
    return;
  }
  const Tensor one = logits_of(found, dtype), other = logits_of(expected, dtype);
  const double largest = other.abs().max().item<double>(),
               difference = (one - other).abs().max().item<double>();
  if (!(difference <= 1e-4 * largest)) {
    throw bad_file(path, "its logits differ by " + std::to_string(difference) +
                             " where the largest is " + std::to_string(largest) +
                             ": it says another architecture");
  }
  char text[96];
  std::snprintf(text, sizeof text, "verified: logits differ by %g, the largest is %g", difference,
                largest);
  log_line(text);
}

}  // namespace tandem
