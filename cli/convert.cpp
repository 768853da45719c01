#include "cli/convert.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>

#include "cli/build_model.h"
#include "cli/commands.h"
#include "cli/parse.h"
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
  PortableModel (*read)(const std::string& folder);
  void (*write)(const std::string& folder, const PortableModel& portable);
};
const Format kFormats[] = {
    {"yoco-official", read_yoco_official, write_yoco_official},  // --format <name>
};

const Format& format_named(const std::string& name) {
  std::string known;
  for (const auto& format : kFormats) {
    if (format.name == name) return format;
    known += std::string(known.empty() ? "" : ", ") + format.name;
  }
  throw bad_usage("--format = " + name + ", expected one of: " + known);
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

/// Bytes of the tokenizer that `root` names; empty for bytes, and where it names none.
std::string tokenizer_bytes(const ConfigNode& root, Choice& model) {
  const ConfigNode* data = root.find("data");
  const ConfigNode* tokenizer = data ? data->find("tokenizer") : nullptr;
  if (!tokenizer) {
    log_warning(
        "no tokenizer is kept, so that generate will refuse the model; give --config, a config "
        "that names data.tokenizer");
    return "";
  }
  const auto loaded = load_tokenizer(tokenizer->scalar);
  model_factory().set_vocab_size(
      model, loaded->vocab_size());  // refuses one with more ids than the model has
  return loaded->model_bytes();
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
  return portable;
}

/// Every tensor of `expected` is in `found`, bit for bit; throws bad_file naming the first that is
/// not. A head that only one of the two keeps apart from the embedding must be equal to it.
void expect_equal_weights(const std::string& path, const PortableModel& found,
                          const PortableModel& expected) {
  const auto by_name = [](const PortableModel& portable) {
    std::map<std::string, Tensor> weights(portable.weights.begin(), portable.weights.end());
    if (!weights.contains("head.weight")) weights["head.weight"] = weights.at("embedding.weight");
    return weights;
  };
  const auto have = by_name(found);
  for (const auto& [name, tensor] : by_name(expected)) {
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
  command->add_option("--format", conversion.format, "Of the files outside: yoco-official")
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
  PortableModel portable = format.read(conversion.from);
  ConfigNode root =
      conversion.config.empty() ? ConfigNode::make_map() : parse_yaml_file(conversion.config);
  CheckpointContents contents;
  contents.tokenizer_model = tokenizer_bytes(root, portable.model);
  set_model_section(root, portable.model);
  contents.config_yaml = to_yaml(root);
  contents.weights = portable.weights;
  contents.state = {{"imported_from", conversion.from}, {"format", conversion.format}};
  write_checkpoint(conversion.to, contents);
  if (!conversion.verify) return;
  Checkpoint(conversion.to).verify();
  expect_equal_weights(conversion.to, read_checkpoint(conversion.to), portable);
}

void export_model(const Conversion& conversion) {
  const Format& format = format_named(conversion.format);
  expect_absent(conversion.to);
  const PortableModel portable = read_checkpoint(conversion.from);
  format.write(conversion.to, portable);
  if (conversion.verify) expect_equal_weights(conversion.to, format.read(conversion.to), portable);
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
      "Example: tandem convert import --format yoco-official --verify yoco_3b/ runs/yoco_3b");
  import_command->add_option(
      "--config", conversion.config,
      "Training config to keep beside the weights; its model section is replaced");
  auto* export_command =
      add_command(app, "export", "A checkpoint into another program's files", conversion);
  export_command->footer(
      "Example: tandem convert export --format yoco-official --verify runs/yoco_3b yoco_3b/");
  if (const auto code = parse_arguments(app, argc, argv)) return *code;
  while (conversion.to.size() > 1 && conversion.to.ends_with('/')) conversion.to.pop_back();
  import_command->parsed() ? import_model(conversion) : export_model(conversion);
  std::printf("%s\n", conversion.to.c_str());
  return kExitDone;
}

}  // namespace tandem
