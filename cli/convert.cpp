#include "cli/convert.h"

#include <malloc.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <span>

#include "cli/block_transformer_official.h"
#include "cli/build_model.h"
#include "cli/commands.h"
#include "cli/hf_folder.h"
#include "cli/load_model.h"
#include "cli/model_source.h"
#include "cli/parse.h"
#include "cli/yoco_official.h"
#include "core/config_node.h"
#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "data/tokenizer.h"
#include "nn/checkpoint.h"
#include "nn/streamed_checkpoint.h"

namespace tandem {
namespace {

struct Format {
  const char* name;
  /// `model`: the model section of --config, for forms that keep no architecture; null without.
  ModelSource (*open)(const std::string& folder, const ConfigNode* model);
  void (*write)(const Conversion& conversion, const ModelSource& source);
  bool in_files;  // weights may be divided into files
};

/// A form of Hugging Face's libraries.
template <const HfForm& (*kForm)()>
Format hf_format() {
  return {
      kForm().name,
      [](const std::string& folder, const ConfigNode*) { return open_hf_folder(kForm(), folder); },
      [](const Conversion& conversion, const ModelSource& source) {
        HfWriteOptions options{.dtype = conversion.dtype};
        options.max_file_bytes = conversion.max_file_bytes.value_or(options.max_file_bytes);
        write_hf_folder(kForm(), conversion.to, source, options);
      },
      /*in_files=*/true};
}

std::span<const Format> formats() {
  static const Format kFormats[] = {
      {"block-transformer",  // --format <name>
       [](const std::string& folder, const ConfigNode* model) {
         return source_of(read_block_transformer_official(folder, model));
       },
       [](const Conversion& conversion, const ModelSource& source) {
         write_block_transformer_official(conversion.to, read_whole(source, conversion.dtype));
       },
       /*in_files=*/false},
      hf_format<fla_yoco>(),
      hf_format<hf_gpt_neox>(),
      hf_format<hf_llama>(),
      {"yoco-official",
       [](const std::string& folder, const ConfigNode*) {
         return source_of(read_yoco_official(folder));
       },
       [](const Conversion& conversion, const ModelSource& source) {
         write_yoco_official(conversion.to, read_whole(source, conversion.dtype));
       },
       /*in_files=*/false},
  };
  return kFormats;
}

std::string format_names() {
  std::string names;
  for (const auto& format : formats())
    names += std::string(names.empty() ? "" : ", ") + format.name;
  return names;
}

const Format& format_named(const std::string& name) {
  for (const auto& format : formats()) {
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

void keep(const Tokenizer& tokenizer, Choice& model, CheckpointContents& contents) {
  // refuses one with more ids than the model has
  model_factory().set_vocab_size(model, tokenizer.vocab_size());
  contents.tokenizer_model = tokenizer.model_bytes();
  contents.tokenizer_file = tokenizer.file_name();
}

/// Puts the tokenizer that `root` names beside the weights, nothing for bytes; where it names none,
/// the one that came with the weights, if it can be read.
void keep_tokenizer(const ConfigNode& root, const std::vector<std::string>& files, Choice& model,
                    CheckpointContents& contents) {
  const ConfigNode* data = root.find("data");
  if (const ConfigNode* tokenizer = data ? data->find("tokenizer") : nullptr)
    return keep(*load_tokenizer(tokenizer->scalar), model, contents);
  for (const auto& file : files) {
    try {
      return keep(*load_tokenizer(file), model, contents);
    } catch (const UserError& error) {
      log_warning(error.what());
    }
  }
  log_warning(
      "no tokenizer is kept, so that generate will refuse the model; give --config, a config "
      "that names data.tokenizer");
}

/// training.context_length, where neither --config nor anything else says it: what generate and
/// eval go by.
void set_context_length(ConfigNode& root, const ModelFacts& facts) {
  if (!facts.context_length) return;
  ConfigNode* training = root.find("training");
  if (!training) {
    root.entries.emplace_back("training", ConfigNode::make_map());
    training = &root.entries.back().second;
  }
  if (!training->find("context_length")) {
    training->entries.emplace_back("context_length",
                                   ConfigNode::make_scalar(std::to_string(*facts.context_length)));
  }
}

CLI::App* add_command(CLI::App& app, const std::string& name, const std::string& description,
                      Conversion& conversion) {
  auto* command = app.add_subcommand(name, description);
  command->add_option("--format", conversion.format, "Of the files outside: " + format_names())
      ->capture_default_str();
  command->add_flag("--verify", conversion.verify,
                    "Read what was written and compare every tensor, then logits");
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
  ModelSource source = format.open(conversion.from, root.find("model"));
  CheckpointContents contents;
  keep_tokenizer(root, source.tokenizer_files, source.model, contents);
  set_model_section(root, source.model);
  set_context_length(root, source.facts);
  contents.config_yaml = to_yaml(root);
  for (const auto& [name, shape] : source.weights) {
    TensorPiece piece;
    piece.name = piece.parameter = name;
    piece.global_shape = shape;
    piece.end = elements_of(shape);
    contents.weights.push_back(std::move(piece));
  }
  contents.state = {{"imported_from", conversion.from}, {"format", conversion.format}};
  if (!source.facts.special_ids.empty()) contents.state["special_ids"] = source.facts.special_ids;
  write_streamed_checkpoint(conversion.to, contents, source.read);
  if (!conversion.verify) return;
  Checkpoint(conversion.to).verify();
  verify_equal(conversion.to, open_checkpoint(conversion.to), source, torch::kFloat32);
}

void export_model(const Conversion& conversion) {
  const Format& format = format_named(conversion.format);
  expect_absent(conversion.to);
  if (conversion.max_file_bytes && !format.in_files)
    throw bad_usage("--max-shard-size: " + conversion.format + " is one file");
  const ModelSource source = open_checkpoint(conversion.from);
  format.write(conversion, source);
  if (!conversion.verify) return;
  verify_equal(conversion.to, format.open(conversion.to, /*model=*/nullptr), source,
               conversion.dtype);
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
      "block-transformer are (without it FROM/config.yaml does); for the others it is replaced");
  auto* export_command =
      add_command(app, "export", "A checkpoint into another program's files", conversion);
  export_command->footer(
      "Example: tandem convert export --format hf-llama --dtype bfloat16 --verify runs/llama "
      "llama/");
  std::string dtype = "float32";
  export_command->add_option("--dtype", dtype, "Of the weights written")
      ->check(CLI::IsMember({"float32", "bfloat16", "float16"}))
      ->capture_default_str();
  uint64_t max_file_bytes = 0;
  auto* max_file_option = export_command
                              ->add_option("--max-shard-size", max_file_bytes,
                                           "hf-llama, hf-gpt-neox, fla-yoco: bytes of a file of "
                                           "weights at most, as 500MB or 5GB "
                                           "(default 5GB)")
                              ->transform(CLI::AsSizeValue(/*kb_is_1000=*/true))
                              ->check(CLI::PositiveNumber);
  if (const auto code = parse_arguments(app, argc, argv)) return *code;
  conversion.dtype = dtype == "float16" ? torch::kFloat16 : parse_dtype(dtype);
  if (*max_file_option) conversion.max_file_bytes = max_file_bytes;
  // Tensors one after another: each goes back to the system, where the heap would keep holes
  // between aligned blocks.
  ::mallopt(M_MMAP_THRESHOLD, 1 << 20);
  while (conversion.to.size() > 1 && conversion.to.ends_with('/')) conversion.to.pop_back();
  import_command->parsed() ? import_model(conversion) : export_model(conversion);
  std::printf("%s\n", conversion.to.c_str());
  return kExitDone;
}

}  // namespace tandem
