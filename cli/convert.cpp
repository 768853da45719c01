#include "cli/convert.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>

#include "cli/block_transformer_official.h"
#include "cli/build_model.h"
#include "cli/commands.h"
#include "cli/load_model.h"
#include "cli/parse.h"
#include "cli/yoco_official.h"
#include "core/config_node.h"
#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "data/tokenizer.h"
#include "nn/checkpoint.h"

namespace tandem {
namespace {

struct Format {
  const char* name;
  /// `model`: the model section of --config, for forms that keep no architecture; null without.
  PortableModel (*read)(const std::string& folder, const ConfigNode* model);
  void (*write)(const std::string& folder, const PortableModel& portable);
};
const Format kFormats[] = {
    {"block-transformer", read_block_transformer_official,  // --format <name>
     write_block_transformer_official},
    {"yoco-official",
     [](const std::string& folder, const ConfigNode*) { return read_yoco_official(folder); },
     write_yoco_official},
};

std::string format_names() {
  std::string names;
  for (const auto& format : kFormats) names += std::string(names.empty() ? "" : ", ") + format.name;
  return names;
}

const Format& format_named(const std::string& name) {
  for (const auto& format : kFormats) {
    if (format.name == name) return format;
  }
  throw bad_usage("--format = " + name + ", expected one of: " + format_names());
}

void expect_absent(const std::string& to) {
  if (exists(to)) throw bad_usage(to + " exists already; name a folder that does not");
}

/// `root` with the imported model in place of its own.
void set_model_section(ConfigNode& root, const Choice& model) {
  ConfigNode node = write_model_section(model);
  if (ConfigNode* written = root.find("model")) {
    *written = std::move(node);
  } else {
    root.entries.insert(root.entries.begin(), {"model", std::move(node)});
  }
}

/// Puts the tokenizer that `root` names beside the weights: nothing for bytes, and where it names
/// none.
void keep_tokenizer(const ConfigNode& root, Choice& model, CheckpointContents& contents) {
  const ConfigNode* data = root.find("data");
  const ConfigNode* tokenizer = data ? data->find("tokenizer") : nullptr;
  if (!tokenizer) {
    log_warning(
        "no tokenizer is kept, so that generate will refuse the model; give --config, a config "
        "that names data.tokenizer");
    return;
  }
  const auto loaded = load_tokenizer(tokenizer->scalar);
  model_factory().set_vocab_size(
      model, loaded->vocab_size());  // refuses one with more ids than the model has
  contents.tokenizer_model = loaded->model_bytes();
  contents.tokenizer_file = loaded->file_name();
}

PortableModel read_checkpoint(const std::string& path) {
  const Checkpoint checkpoint(find_checkpoint(path));
  const std::string config_path = join_path(checkpoint.folder(), "config.yaml");
  PortableModel portable;
  portable.model =
      read_model_section(parse_yaml(checkpoint.config_yaml(), config_path), config_path);
  for (const auto& info : parameters_info(*model_factory().build(portable.model))) {
    portable.weights.emplace_back(info.name, checkpoint.weight(info.name));
  }
  for (const auto& name : checkpoint.weight_names()) {
    if (name.starts_with(kUnusedPrefix))
      portable.weights.emplace_back(name, checkpoint.weight(name));
  }
  return portable;
}

/// All weights as float32. A tied head is written out: forms differ in whether they keep it apart.
std::map<std::string, Tensor> weights_by_name(const PortableModel& portable) {
  std::map<std::string, Tensor> weights;
  for (const auto& [name, tensor] : portable.weights)
    weights.emplace(name, tensor.to(torch::kFloat32));
  const auto embedding = weights.find("embedding.weight");
  if (embedding != weights.end()) weights.emplace("head.weight", embedding->second);
  return weights;
}

/// Every tensor of `expected` is in `found`, bit for bit; throws bad_file naming the first that is
/// not.
void expect_equal_weights(const std::string& path, const PortableModel& found,
                          const PortableModel& expected) {
  const auto have = weights_by_name(found);
  for (const auto& [name, tensor] : weights_by_name(expected)) {
    const auto other = have.find(name);
    if (other == have.end() ||
        !torch::equal(other->second.view(torch::kInt32), tensor.view(torch::kInt32))) {
      throw bad_file(path, "tensor " + name + " is not what was written");
    }
  }
  log_line("verified: " + std::to_string(found.weights.size()) + " tensors of " + path +
           " are equal, bit for bit");
}

CLI::App* add_command(CLI::App& app, const std::string& name, const std::string& description,
                      Conversion& conversion) {
  auto* command = app.add_subcommand(name, description);
  command->add_option("--format", conversion.format, "Of the files outside: " + format_names())
      ->capture_default_str();
  command->add_flag("--verify", conversion.verify,
                    "Read what was written and compare every tensor");
  command->add_option("FROM", conversion.from, "Folder to read")->required();
  command->add_option("TO", conversion.to, "Folder to make")->required();
  return command;
}

}  // namespace

void import_model(const Conversion& conversion) {
  const Format& format = format_named(conversion.format);
  expect_absent(conversion.to);
  ConfigNode root =
      conversion.config.empty() ? ConfigNode::make_map() : parse_yaml_file(conversion.config);
  PortableModel portable = format.read(conversion.from, root.find("model"));
  CheckpointContents contents;
  keep_tokenizer(root, portable.model, contents);
  set_model_section(root, portable.model);
  contents.config_yaml = to_yaml(root);
  for (const auto& [name, tensor] : portable.weights)
    contents.weights.push_back(whole_piece("", name, tensor));
  contents.state = {{"imported_from", conversion.from}, {"format", conversion.format}};
  write_checkpoint(conversion.to, contents);
  if (!conversion.verify) return;
  Checkpoint(conversion.to).verify();
  expect_equal_weights(conversion.to, read_checkpoint(conversion.to), portable);
}

void export_model(const Conversion& conversion) {
  const Format& format = format_named(conversion.format);
  expect_absent(conversion.to);
  PortableModel portable = read_checkpoint(conversion.from);
  for (auto& [name, tensor] : portable.weights) tensor = tensor.to(conversion.dtype);
  format.write(conversion.to, portable);
  if (!conversion.verify) return;
  const auto written = format.read(conversion.to, /*model=*/nullptr);
  expect_equal_weights(conversion.to, written, portable);
}

int run_convert(int argc, const char* const* argv) {
  CLI::App app("Models of other programs into checkpoints and back", "tandem convert");
  app.footer(
      "Example: tandem convert import --format yoco-official --verify yoco_3b/ runs/yoco_3b");
  app.require_subcommand(1);
  Conversion conversion;
  auto* import_command =
      add_command(app, "import", "Another program's files into a checkpoint", conversion);
  import_command->footer(
      "Example: tandem convert import --format block-transformer "
      "--config configs/block_main_b4_85.yaml block_85m/ runs/block_85m");
  import_command->add_option(
      "--config", conversion.config,
      "Training config to keep beside the weights. Its model section says what the weights of "
      "block-transformer are (without it FROM/config.yaml does); for yoco-official it is replaced");
  auto* export_command =
      add_command(app, "export", "A checkpoint into another program's files", conversion);
  export_command->footer(
      "Example: tandem convert export --format yoco-official --verify runs/yoco_3b yoco_3b/");
  std::string dtype = "float32";
  export_command->add_option("--dtype", dtype, "Of the weights written")
      ->check(CLI::IsMember({"float32", "bfloat16"}))
      ->capture_default_str();
  if (const auto code = parse_arguments(app, argc, argv)) return *code;
  conversion.dtype = parse_dtype(dtype);
  while (conversion.to.size() > 1 && conversion.to.ends_with('/')) conversion.to.pop_back();
  import_command->parsed() ? import_model(conversion) : export_model(conversion);
  std::printf("%s\n", conversion.to.c_str());
  return kExitDone;
}

}  // namespace tandem
