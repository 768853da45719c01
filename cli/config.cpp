#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/build_model.h"
#include "cli/commands.h"
#include "cli/mesh_report.h"
#include "cli/parse.h"
#include "core/config_node.h"
#include "core/error.h"
#include "core/file.h"
#include "core/json_lines.h"
#include "core/log.h"
#include "train/model_size.h"
#include "train/plan.h"
#include "train/setup.h"

// `tandem config`: what a config comes to before anything is trained. Models stand on the meta
// device, so that any size costs nothing.

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;

struct Request {
  std::string path;
  std::vector<std::string> words;  // overrides
  int64_t world = 1;
  bool json = false;
};

bool vocab_size_is_written(const ConfigNode& root) {
  const ConfigNode* model = root.find("model");
  return model && model->kind == ConfigNode::Kind::kMap && model->find("vocab_size");
}

/// A config that names its vocabulary needs no tokenizer file to be looked at.
Plan plan_without_training(const TrainConfig& config, const ConfigNode& root, int64_t world) {
  const int64_t data_ranks = mesh_of(config, world).data;
  ModelFactory factory = model_factory();
  const std::string& tokenizer = config.data.tokenizer;
  if (tokenizer_exists(tokenizer) || !vocab_size_is_written(root))
    return Plan(config, factory, *load_tokenizer(tokenizer), data_ranks);
  log_warning(tokenizer + " does not exist; model.vocab_size is taken as written");
  factory.set_vocab_size = [](Choice&, int64_t) {};
  return Plan(config, factory, *load_tokenizer("bytes"), data_ranks);
}

bool begins_with(const std::string& name, const std::string& module) {
  return name.starts_with(module + ".");
}

struct Counts {
  int64_t total = 0, non_embedding = 0;
  std::vector<std::pair<std::string, int64_t>>
      parts;  // by the first component of the names, in order
};

Counts count(const std::vector<ParameterInfo>& infos) {
  Counts counts;
  for (const auto& info : infos) {
    const std::string part = info.name.substr(0, info.name.find('.'));
    if (counts.parts.empty() || counts.parts.back().first != part)
      counts.parts.emplace_back(part, 0);
    counts.parts.back().second += info.numel();
    counts.total += info.numel();
    if (!is_embedding(info.name)) counts.non_embedding += info.numel();
  }
  return counts;
}

/// Elements of the matrices that a part of the FLOPs multiplies every token with. A tied head is
/// the embedding.
int64_t matrix_elements(const std::vector<ParameterInfo>& infos, const std::string& part) {
  const auto sum_of = [&](const std::string& module) {
    int64_t sum = 0;
    for (const auto& info : infos)
      sum += begins_with(info.name, module) && info.global_shape.size() > 1 ? info.numel() : 0;
    return sum;
  };
  const int64_t own = sum_of(part);
  return own == 0 && part == "head" ? sum_of("embedding") : own;
}

/// A Block Transformer's parts run once a block, or more often than once a token.
bool runs_once_a_token(const Flops& flops) {
  return std::none_of(flops.parts.begin(), flops.parts.end(),
                      [](const auto& part) { return part.first == "token_decoder"; });
}

std::string scientific(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4g", value);
  return text;
}

/// Training FLOPs of one token in a part: forward and twice that backward, each a product with
/// every matrix and the mixing along the sequence.
std::string formula(double flops, int64_t elements) {
  return "3 * (2 * " + with_commas(elements) + " + " + scientific(flops / 3 - 2.0 * elements) + ")";
}

Json flops_per_token(const Flops& flops, double n_tokens) {
  Json json;
  for (const auto& [part, value] : flops.parts) json[part] = value / n_tokens;
  json["total"] = flops.total() / n_tokens;
  return json;
}

/// What differs from stage to stage.
Json describe_stages(const Plan& plan) {
  Json stages = Json::array();
  for (const Stage& stage : plan.stages()) {
    const int64_t length = stage.config.training.context_length;
    const auto model = model_factory().build(stage.config.model);
    stages.push_back({{"first_step", stage.begin + 1},
                      {"last_step", stage.end},
                      {"tokens", plan.tokens_before(stage.end) - plan.tokens_before(stage.begin)},
                      {"context_length", length},
                      {"tokens_per_step", stage.config.training.tokens_per_step},
                      {"lr", stage.config.optimizer.lr},
                      {"flops_per_token", model->flops(Phase::kTrain, length, 1).total() /
                                              static_cast<double>(length)}});
  }
  return stages;
}

/// What `config show` says of the first stage's model beyond the config itself; `formulas` by part
/// for people.
Json describe(const Plan& plan, int64_t world, std::vector<std::string>& formulas) {
  const TrainConfig& config = plan.stages().front().config;
  const auto model = model_factory().build(config.model);
  const auto infos = parameters_info(*model);
  const Counts counts = count(infos);
  const int64_t length = config.training.context_length;
  const bool bfloat16 = config.training.dtype == "bfloat16";

  Json json;
  json["family"] = config.model.name;
  json["parameters"] = counts.total;
  json["non_embedding_parameters"] = counts.non_embedding;
  for (const auto& [part, n] : counts.parts) json["parameters_by_part"][part] = n;

  const Flops train = model->flops(Phase::kTrain, length, 1);
  const auto n_tokens = static_cast<double>(length);
  for (const auto& [part, flops] : train.parts) {
    if (runs_once_a_token(train))
      formulas.push_back(formula(flops / n_tokens, matrix_elements(infos, part)));
  }
  json["context_length"] = length;
  json["flops_per_token"]["train"] = flops_per_token(train, n_tokens);
  json["flops_per_token"]["prefill"] =
      flops_per_token(model->flops(Phase::kPrefill, length, 1), n_tokens);
  json["flops_per_token"]["decode"] = flops_per_token(model->flops(Phase::kDecode, length, 1), 1);

  const StateBytes state = model->state_bytes(length, bfloat16 ? torch::kBFloat16 : torch::kFloat32);
  for (const auto& [part, bytes] : state.parts) json["state_bytes"][part] = bytes;
  json["state_bytes"]["total"] = state.total();

  json.update(describe_mesh(plan.stages().front(), world));
  json["training_tokens"] = plan.tokens_before(plan.steps());
  if (plan.stages().size() > 1) json["stages"] = describe_stages(plan);
  return json;
}

/// A comment, so that all that is printed can be read as a config again.
void print_row(const std::string& name, const std::string& value, const std::string& note = "") {
  std::printf("#   %-18s %18s%s%s\n", name.c_str(), value.c_str(), note.empty() ? "" : "  ",
              note.c_str());
}

/// What a rank sends; nothing where it is alone.
void print_traffic(const Json& json) {
  if (json["world"] == 1) return;
  std::printf("# sent by a rank in a step; %s\n", json["mesh"].get<std::string>().c_str());
  for (const auto& [kind, group] : {std::pair{"sent_bytes_per_step", ""},
                                    {"tensor_sent_bytes_per_step", "tensor."},
                                    {"sequence_sent_bytes_per_step", "sequence."}}) {
    if (!json.contains(kind)) continue;
    for (const auto& [name, bytes] : json[kind].items())
      print_row(group + name, human_bytes(bytes.get<double>()));
  }
  if (json.contains("imbalance"))
    std::printf("# %s\n", json["imbalance"].get<std::string>().c_str());
}

void print_report(const Json& json, const std::vector<std::string>& formulas) {
  std::printf("#\n# parameters\n");
  for (const auto& [part, n] : json["parameters_by_part"].items())
    print_row(part, with_commas(n.get<long long>()));
  print_row("total", with_commas(json["parameters"].get<long long>()));
  print_row("non-embedding", with_commas(json["non_embedding_parameters"].get<long long>()));

  const std::string length = with_commas(json["context_length"].get<long long>());
  const Json& flops = json["flops_per_token"];
  std::printf("# FLOPs per token of training at context_length %s: %s\n", length.c_str(),
              formulas.empty() ? "3 * those of the forward pass"
                               : "3 * (2 * matrix elements + mixing along the sequence)");
  size_t i = 0;
  for (const auto& [part, value] : flops["train"].items()) {
    print_row(part, scientific(value.get<double>()), i < formulas.size() ? formulas[i] : "");
    ++i;
  }
  std::printf("# FLOPs per token otherwise\n");
  print_row("prefill", scientific(flops["prefill"]["total"].get<double>()),
            "a prompt of " + length + " with its early exit");
  print_row("decode", scientific(flops["decode"]["total"].get<double>()),
            "one token after " + length);

  std::printf("# state of one sequence of %s tokens\n", length.c_str());
  for (const auto& [part, bytes] : json["state_bytes"].items())
    print_row(part, human_bytes(bytes.get<double>()));
  std::printf("# memory of training without activations, per rank (world size %s)\n",
              with_commas(json["world"].get<long long>()).c_str());
  for (const auto& [name, bytes] : json["training_memory_bytes"].items())
    print_row(name, human_bytes(bytes.get<double>()));
  print_traffic(json);
  std::printf("# %s tokens in all; %s micro-batches a step and rank\n",
              with_commas(json["training_tokens"].get<long long>()).c_str(),
              with_commas(json["micro_batches_per_step_and_rank"].get<long long>()).c_str());
  if (!json.contains("stages")) return;
  std::printf("# stages; what stands above is of the first\n");
  for (const Json& stage : json["stages"]) {
    const auto whole = [&](const char* key) { return with_commas(stage[key].get<long long>()); };
    std::printf("#   steps %s to %s: %s tokens, context_length %s, lr %s, %s FLOPs per token\n",
                whole("first_step").c_str(), whole("last_step").c_str(), whole("tokens").c_str(),
                whole("context_length").c_str(), scientific(stage["lr"].get<double>()).c_str(),
                scientific(stage["flops_per_token"].get<double>()).c_str());
  }
}

Plan read(const Request& request) {
  ConfigNode root = parse_yaml_file(request.path);
  for (const auto& word : override_words(request.words)) apply_override(root, word);
  TrainConfig config = make_train_config(model_factory());
  read_config(root, config);
  Plan plan = plan_without_training(config, root, request.world);
  check_mesh(plan, mesh_of(config, request.world));
  for (const Stage& stage : plan.stages()) {
    for (const auto& sentence : settings_without_effect(stage.config)) log_warning(sentence);
  }
  return plan;
}

int show(const Request& request) {
  const Plan plan = read(request);
  std::vector<std::string> formulas;
  Json report = describe(plan, request.world, formulas);
  TrainConfig config = plan.config();
  const ConfigNode resolved = write_config(config);
  if (request.json) {
    report["config"] = parse_json(to_json(resolved));
    std::printf("%s\n", report.dump().c_str());
    return kExitDone;
  }
  std::printf("%s", to_yaml(resolved).c_str());
  print_report(report, formulas);
  return kExitDone;
}

int check(const Request& request) {
  const Plan plan = read(request);
  const TrainConfig& config = plan.stages().front().config;
  const auto infos = parameters_info(*model_factory().build(config.model));
  const Counts counts = count(infos);
  Json report = {
      {"config", request.path}, {"family", config.model.name}, {"parameters", counts.total}};
  for (const Stage& stage : plan.stages()) {
    const Json mesh = describe_mesh(stage, request.world);  // refuses what cannot work
    if (stage.index == 0) report.update(mesh);
  }
  if (request.json) {
    std::printf("%s\n", report.dump().c_str());
    return kExitDone;
  }
  std::printf("%s: good; %s with %s parameters\n", request.path.c_str(), config.model.name.c_str(),
              with_commas(counts.total).c_str());
  if (request.world == 1) return kExitDone;
  std::printf("# held by each of %s ranks, without activations; %s micro-batches a step and rank\n",
              with_commas(request.world).c_str(),
              with_commas(report["micro_batches_per_step_and_rank"].get<long long>()).c_str());
  for (const auto& [name, bytes] : report["training_memory_bytes"].items())
    print_row(name, human_bytes(bytes.get<double>()));
  print_traffic(report);
  return kExitDone;
}

CLI::App* add_command(CLI::App& app, const std::string& name, const std::string& description,
                      Request& request) {
  auto* command = app.add_subcommand(name, description + "; key=value words override any key");
  command->footer("Example: tandem config " + name + " configs/yoco_160m.yaml training.steps=1000");
  command->allow_extras();
  command->add_option("CONFIG", request.path, "A training config")->required();
  command->add_option("--world", request.world, "Ranks the run would have")
      ->capture_default_str()
      ->check(CLI::Range(1, 1'000'000));
  command->add_flag("--json", request.json, "Print the result as JSON");
  return command;
}

}  // namespace

int run_config(int argc, const char* const* argv) {
  CLI::App app("Show or check a training config without training", "tandem config");
  app.footer("Example: tandem config show configs/yoco_160m.yaml training.steps=1000");
  app.require_subcommand(1);
  Request request;
  auto* show_command = add_command(
      app, "show", "The resolved config, parameters, FLOPs per token, state and memory", request);
  auto* check_command =
      add_command(app, "check", "Read and check a config, and build its model", request);
  if (const auto code = parse_arguments(app, argc, argv)) return *code;
  request.words = (show_command->parsed() ? show_command : check_command)->remaining();
  return show_command->parsed() ? show(request) : check(request);
}

}  // namespace tandem
