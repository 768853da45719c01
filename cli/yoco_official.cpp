#include "cli/yoco_official.h"

#include <map>
#include <nlohmann/json.hpp>

#include "cli/build_model.h"
#include "cli/official_weights.h"
#include "core/error.h"
#include "core/file.h"
#include "core/json_lines.h"
#include "core/log.h"
#include "nn/official_transformer_names.h"
#include "yoco/official_names.h"

namespace tandem {
namespace {

constexpr const char* kWrapper =
    "decoder.model.";  // in front of every name of a checkpoint that training wrote
constexpr const char* kHead = "head.weight";
constexpr const char* kEmbedding = "embedding.weight";

std::string official_name(const Choice& model, const std::string& ours) {
  return model.name == "yoco" ? official_yoco_name(ours) : official_transformer_name(ours);
}

// ---- reading

std::string params_path(const std::string& folder) {
  if (!is_directory(folder)) throw bad_file(folder, "is not a folder");
  for (const char* name : {"params.json", "config.json"}) {
    if (exists(join_path(folder, name))) return join_path(folder, name);
  }
  throw bad_file(folder, "holds no params.json with the model's arguments");
}

Choice read_params(const std::string& path) {
  const auto json = read_json(path);
  Choice model = model_factory().choice();
  try {
    OfficialParams params(json);
    if (json.contains("n_self_heads")) {
      model.pick("yoco");
      model.as<YocoConfig>() = yoco_of_official(params);
    } else {
      model.pick("transformer");
      model.as<TransformerConfig>() = transformer_of_official(params);
    }
    for (const auto& key : params.not_asked_for())
      log_warning(path + ": " + key + " has no effect");
  } catch (const std::runtime_error& error) {
    throw bad_file(path, error.what());
  }
  return model;
}

// ---- writing

nlohmann::ordered_json params_of(const Choice& model) {
  if (model.name == "yoco") return official_params_of(model.as<YocoConfig>());
  if (model.name == "transformer") return official_params_of(model.as<TransformerConfig>());
  throw bad_usage("a model of family " + model.name +
                  " cannot be written as yoco-official, which has yoco and transformer");
}

/// Under the official names. A tied head is there twice, as the official tables are always
/// separate.
std::map<std::string, Tensor> official_weights(const PortableModel& portable) {
  std::map<std::string, Tensor> weights;
  for (const auto& [name, tensor] : portable.weights)
    weights.emplace(official_name(portable.model, name), tensor);
  weights.emplace(official_name(portable.model, kHead),
                  weights.at(official_name(portable.model, kEmbedding)));
  return weights;
}

}  // namespace

PortableModel read_yoco_official(const std::string& folder) {
  PortableModel portable;
  portable.model = read_params(params_path(folder));
  OfficialWeights weights(folder, kWrapper);
  for (const auto& info : parameters_info(*model_factory().build(portable.model))) {
    portable.weights.emplace_back(
        info.name, weights.take(official_name(portable.model, info.name), info.global_shape));
  }
  weights.expect_all_taken();
  return portable;
}

void write_yoco_official(const std::string& folder, const PortableModel& portable) {
  const std::string params = params_of(portable.model).dump(2) + "\n";
  write_official_folder(folder, official_weights(portable), "params.json", params);
}

}  // namespace tandem
