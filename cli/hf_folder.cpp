#include "cli/hf_folder.h"

#include <algorithm>
#include <map>
#include <memory>

#include "cli/build_model.h"
#include "cli/hf_weights.h"
#include "core/error.h"
#include "core/file.h"
#include "core/json_lines.h"
#include "core/log.h"

namespace tandem {
namespace {

using nlohmann::ordered_json;

constexpr const char *kConfig = "config.json", *kGeneration = "generation_config.json";
constexpr const char* kSpecialIds[] = {"bos_token_id", "eos_token_id", "pad_token_id"};
constexpr int64_t kContextLength = 2048;  // of a model that says none

// ---- reading

/// What config.json says whatever the form, and keys that are about training, speed or the library.
void read_common(const HfForm& form, OfficialParams& params, const ordered_json& json,
                 ModelFacts& facts) {
  const std::string type = params.text("model_type");
  params.require(type == form.model_type, "model_type", "\"" + std::string(form.model_type) + "\"");
  if (params.given("architectures")) {
    const ordered_json expected = ordered_json::array({form.architecture});
    params.require(json.at("architectures") == expected, "architectures", expected.dump());
  }
  for (const char* key : {"quantization_config", "compression_config"})
    params.require_absent(key, "quantized weights are not read");
  if (params.given("max_position_embeddings"))
    facts.context_length = params.integer("max_position_embeddings");
  for (const char* key : kSpecialIds) {
    if (params.given(key)) facts.special_ids[key] = json.at(key);
  }
  params.ignore({"_name_or_path", "_attn_implementation_autoset", "attention_dropout", "auto_map",
                 "classifier_dropout", "dtype", "hidden_dropout", "initializer_range", "is_decoder",
                 "pretraining_tp", "torch_dtype", "transformers_version", "use_cache"});
}

/// The copy of the table that files of tied models may hold beside it.
void drop_tied_head(const HfForm& form, const std::vector<FormTensor>& tensors,
                    HfWeights& weights) {
  const auto is_head = [&](const FormTensor& tensor) { return tensor.name == form.tied_head; };
  if (std::any_of(tensors.begin(), tensors.end(), is_head)) return;
  if (!weights.has(form.tied_head) || !weights.has(form.table)) return;
  const Tensor head = weights.read(form.tied_head), table = weights.read(form.table);
  if (!torch::equal(head, table)) {
    throw bad_file(weights.path(), std::string("tensor ") + form.tied_head + " differs from " +
                                       form.table + ", whose copy it is by tie_word_embeddings");
  }
  weights.drop([&](const std::string& name) { return name == form.tied_head; });
}

void list_dropped(const std::string& folder, const std::vector<std::string>& names) {
  if (names.empty()) return;
  std::string line = folder + ": nothing reads";
  for (const auto& name : names) line += (name == names.front() ? " " : ", ") + name;
  log_line(line);
}

// ---- writing

/// The text of the token `id` in a tokenizer.json; empty where it is none of the added ones.
std::string added_token(const ordered_json& tokenizer, const ordered_json& id) {
  if (!tokenizer.is_object() || !tokenizer.contains("added_tokens")) return "";
  for (const auto& token : tokenizer.at("added_tokens")) {
    if (token.is_object() && token.contains("id") && token.at("id") == id &&
        token.contains("content") && token.at("content").is_string())
      return token.at("content").get<std::string>();
  }
  return "";
}

/// Copies the tokenizer's model and says what it is.
void write_tokenizer(const std::string& folder, const ModelSource& source) {
  if (source.tokenizer_files.empty()) return;
  const std::string& path = source.tokenizer_files.front();
  const std::string name = path.substr(path.rfind('/') + 1);
  if (name != "tokenizer.json" && name != "tokenizer.model") {
    log_warning("the tokenizer is left out: " + name +
                " is not read by those who read this form, which know tokenizer.json and "
                "tokenizer.model");
    return;
  }
  const std::string bytes = read_text(path);
  write_atomically(join_path(folder, name), bytes);
  const bool is_json = name == "tokenizer.json";
  ordered_json config = {
      {"tokenizer_class", is_json ? "PreTrainedTokenizerFast" : "LlamaTokenizer"},
      {"model_max_length", source.facts.context_length.value_or(kContextLength)},
      {"clean_up_tokenization_spaces", false}};
  if (is_json) {
    const auto tokenizer = parse_json(bytes);
    for (const char* key : kSpecialIds) {
      if (!source.facts.special_ids.contains(key)) continue;
      const std::string text = added_token(tokenizer, source.facts.special_ids.at(key));
      const std::string word = std::string(key).substr(0, 9);  // "bos_token"
      if (!text.empty()) config[word] = text;
    }
  }
  write_atomically(join_path(folder, "tokenizer_config.json"), config.dump(2) + "\n");
}

std::string dtype_name(torch::Dtype dtype) {
  if (dtype == torch::kFloat32) return "float32";
  return dtype == torch::kBFloat16 ? "bfloat16" : "float16";
}

}  // namespace

ModelSource open_hf_folder(const HfForm& form, const std::string& folder) {
  if (!is_directory(folder)) throw bad_file(folder, "is not a folder");
  const std::string path = join_path(folder, kConfig);
  if (!exists(path)) throw bad_file(folder, "holds no config.json that says what its weights are");
  const auto json = read_json(path);
  ModelSource source;
  std::vector<FormTensor> tensors;
  try {
    OfficialParams params(json);
    read_common(form, params, json, source.facts);
    source.model = form.read(params);
    for (const auto& key : params.not_asked_for())
      log_warning(path + ": " + key + " has no effect");
  } catch (const std::runtime_error& error) {
    throw bad_file(path, error.what());
  }
  tensors = form.tensors(source.model);
  const auto weights = std::make_shared<HfWeights>(folder);
  list_dropped(folder, weights->drop(form.is_dead));
  drop_tied_head(form, tensors, *weights);
  weights->expect(tensors);

  struct Part {
    FormTensor tensor;
    size_t i;
  };
  const auto parts = std::make_shared<std::map<std::string, Part>>();
  for (const auto& tensor : tensors) {
    for (size_t i = 0; i < tensor.ours.size(); ++i) parts->emplace(tensor.ours[i], Part{tensor, i});
  }
  for (const auto& info : parameters_info(*model_factory().build(source.model)))
    source.weights.emplace_back(info.name, info.global_shape);
  source.read = [weights, parts](const std::string& name) {
    const auto& [tensor, i] = parts->at(name);
    return part_of(tensor, weights->read(tensor.name), i);
  };
  for (const char* name : {"tokenizer.json", "tokenizer.model"}) {
    if (exists(join_path(folder, name))) source.tokenizer_files.push_back(join_path(folder, name));
  }
  return source;
}

void write_hf_folder(const HfForm& form, const std::string& folder, const ModelSource& source,
                     const HfWriteOptions& options) {
  const ordered_json described = form.write(source.model);
  const auto tensors = form.tensors(source.model);
  ordered_json config = {{"architectures", ordered_json::array({form.architecture})},
                         {"model_type", form.model_type}};
  config.update(described);
  config["max_position_embeddings"] = source.facts.context_length.value_or(kContextLength);
  // null, where nobody knows: the libraries have defaults of their own, which would be wrong
  ordered_json generation = {{"_from_model_config", true}};
  for (const char* key : kSpecialIds) {
    const bool known = source.facts.special_ids.contains(key);
    config[key] = known ? source.facts.special_ids.at(key) : ordered_json();
    if (known) generation[key] = source.facts.special_ids.at(key);
  }
  config["torch_dtype"] = dtype_name(options.dtype);
  config["use_cache"] = true;
  const auto make = [&](const FormTensor& tensor) {
    std::vector<Tensor> parts;
    for (const auto& name : tensor.ours) parts.push_back(source.read(name));
    return joined(tensor, parts);
  };
  write_folder(folder, [&](const std::string& partial) {
    write_atomically(join_path(partial, kConfig), config.dump(2) + "\n");
    write_atomically(join_path(partial, kGeneration), generation.dump(2) + "\n");
    write_tokenizer(partial, source);
    write_hf_weights(partial, tensors, make, options.dtype, options.max_file_bytes);
  });
}

}  // namespace tandem
