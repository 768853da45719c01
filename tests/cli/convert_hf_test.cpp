// Folders of transformers and flash-linear-attention, in and out.
#include <gmock/gmock.h>

#include "cli/commands.h"
#include "cli/hf_folder.h"
#include "cli/load_model.h"
#include "data/tokenizer.h"
#include "nn/checkpoint.h"
#include "tests/cli/hf_folders.h"
#include "tests/cli/tiny_checkpoint.h"

namespace tandem {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class HfConvertTest : public testing::Test {
 protected:
  static Conversion conversion(const std::string& format, const std::string& from,
                               const std::string& to) {
    return {.format = format, .from = from, .to = to, .config = "", .verify = true};
  }
  void import_quietly(const Conversion& wanted) {
    printed([&] { import_model(wanted); });
  }
  TempFolder folder_;
};

TEST_F(HfConvertTest, LogitsAreThoseOfTheOriginalLibrary) {
  for (const auto& [format, name] : hf_goldens()) {
    SCOPED_TRACE(name);
    import_quietly(conversion(format, golden_hf(name), folder_ / name));
    const auto loaded = load_model(folder_ / name, torch::kCPU, torch::kFloat32);
    EXPECT_EQ(loaded.context_length, 96);
    const Golden io("hf/" + name + "/io.safetensors");
    const auto tokens = io("tokens"), expected = io("logits");
    const torch::NoGradGuard no_grad;
    const auto state = loaded.model->make_state(
        {.batch = tokens.size(0), .capacity = tokens.size(1), .dtype = torch::kFloat32});
    const auto actual = loaded.model->extend(tokens, {}, *state, Want::kAll);
    expect_close(actual, expected, 1e-4 * expected.abs().max().item<double>());
  }
}

TEST_F(HfConvertTest, ImportThenExportIsTheIdentityOfEveryTensor) {
  for (const auto& [format, name] : hf_goldens()) {
    SCOPED_TRACE(name);
    const std::string checkpoint = folder_ / (name + "_checkpoint"), back = folder_ / name;
    import_quietly(conversion(format, golden_hf(name), checkpoint));
    const std::string said = printed([&] { export_model(conversion(format, checkpoint, back)); });
    EXPECT_THAT(said, HasSubstr("are equal, bit for bit"));
    EXPECT_THAT(said, HasSubstr("verified: logits differ by 0, the largest is"));
    auto expected = folder_tensors(golden_hf(name));
    std::erase_if(expected, [](const auto& tensor) {  // the buffers of older files
      return tensor.first.ends_with("masked_bias") || tensor.first.ends_with("inv_freq");
    });
    const auto actual = folder_tensors(back);
    ASSERT_EQ(actual.size(), expected.size());
    for (const auto& [key, tensor] : expected)
      EXPECT_TRUE(torch::equal(actual.at(key), tensor)) << key;
    // What config.json says of the model comes back under one of its two spellings.
    const auto given = read_json(golden_hf(name) + "/config.json"),
               written = read_json(back + "/config.json");
    for (const auto& [key, value] : written.items()) {
      if (given.contains(key) && !value.is_object()) {
        EXPECT_EQ(value, given.at(key)) << key;
      }
    }
    EXPECT_EQ(written.at("model_type"), given.at("model_type"));
    EXPECT_EQ(written.at("eos_token_id"), 2);
    EXPECT_EQ(read_json(back + "/generation_config.json").at("eos_token_id"), 2);
  }
}

TEST_F(HfConvertTest, LargeModelsAreDividedIntoFiles) {
  import_quietly(conversion("hf-llama", golden_hf("llama_tied"), folder_ / "checkpoint"));
  const auto ran = run_captured(run_convert, "convert",
                                {"export", "--format", "hf-llama", "--verify", "--max-shard-size",
                                 "12KB", folder_ / "checkpoint", folder_ / "back"});
  EXPECT_EQ(ran.out, (folder_ / "back") + "\n");
  std::vector<std::string> files;
  uint64_t total = 0;
  for (const auto& file : list_directory(folder_ / "back")) {
    if (!is_weight_file(file)) continue;
    files.push_back(file);
    uint64_t bytes = 0;
    const SafetensorsReader reader(folder_ / ("back/" + file));
    for (const auto& entry : reader.entries()) bytes += entry.bytes();
    EXPECT_LE(bytes, 12'000u) << file;
    total += bytes;
  }
  EXPECT_GE(files.size(), 3u);
  EXPECT_EQ(files.front(), "model-00001-of-0000" + std::to_string(files.size()) + ".safetensors");
  const auto index = read_json(folder_ / "back/model.safetensors.index.json");
  EXPECT_EQ(index.at("metadata").at("total_size"), total);
  const auto tensors = folder_tensors(golden_hf("llama_tied"));
  EXPECT_EQ(index.at("weight_map").size(), tensors.size());
  EXPECT_FALSE(tensors.contains("lm_head.weight"));  // tied: once
  for (const auto& [name, file] : index.at("weight_map").items()) {
    EXPECT_NE(SafetensorsReader(folder_ / ("back/" + file.get<std::string>())).find(name), nullptr);
  }
}

TEST_F(HfConvertTest, SixteenBitsComeBackAsTheyWere) {
  for (const auto dtype : {torch::kBFloat16, torch::kFloat16}) {
    const std::string word = dtype == torch::kBFloat16 ? "bfloat16" : "float16";
    const std::string from = copy_golden("neox_parallel", folder_ / word);
    std::map<std::string, Tensor> narrow;
    for (const auto& [name, tensor] : folder_tensors(from)) narrow[name] = tensor.to(dtype);
    write_tensor_file(from + "/model.safetensors", narrow);
    import_quietly(conversion("hf-gpt-neox", from, from + "_checkpoint"));
    run_captured(run_convert, "convert",
                 {"export", "--format", "hf-gpt-neox", "--dtype", word, "--verify",
                  from + "_checkpoint", from + "_back"});
    EXPECT_EQ(read_text(from + "_back/model.safetensors"), read_text(from + "/model.safetensors"));
    EXPECT_EQ(read_json(from + "_back/config.json").at("torch_dtype"), word);
  }
}

// Spelled out, as a second source beside the table in the code: head 0's query, key and value, then
// head 1's.
TEST_F(HfConvertTest, FusedRowsAreHeadAfterHead) {
  const FormTensor fused{"qkv", {12, 1}, {"q", "k", "v"}, /*n_heads=*/2};  // head_dim 2
  const auto theirs = torch::arange(12, torch::kFloat32).unsqueeze(1);
  const std::vector<std::vector<float>> rows = {{0, 1, 6, 7}, {2, 3, 8, 9}, {4, 5, 10, 11}};
  std::vector<Tensor> parts;
  for (size_t i = 0; i < 3; ++i) {
    parts.push_back(part_of(fused, theirs, i));
    EXPECT_TRUE(torch::equal(parts[i], torch::tensor(rows[i]).unsqueeze(1))) << i;
  }
  EXPECT_TRUE(torch::equal(joined(fused, parts), theirs));
  const auto bias = torch::arange(12, torch::kFloat32);
  EXPECT_TRUE(torch::equal(part_of(fused, bias, 1), torch::tensor(rows[1])));
}

TEST_F(HfConvertTest, TheConfigIsWrittenFromTheirs) {
  const auto model_of = [&](const HfForm& form, const std::string& name) {
    return write_model_section(open_hf_folder(form, golden_hf(name)).model);
  };
  EXPECT_EQ(model_of(hf_llama(), "llama_gqa"),
            write_model_section(model_choice(
                "{family: transformer, vocab_size: 64, d_model: 24, ffn_dim: 29, norm_eps: 1e-3, "
                "n_layers: 2, n_heads: 4, n_kv_heads: 2, head_dim: 10, rope: {base: 500}}")));
  EXPECT_EQ(model_of(hf_gpt_neox(), "neox_parallel"),
            write_model_section(model_choice(
                "{family: gpt_neox, vocab_size: 64, d_model: 32, ffn_dim: 37, n_layers: 2, "
                "n_heads: 2, rope: {base: 700, fraction: 0.25}}")));
  EXPECT_EQ(model_of(fla_yoco(), "fla_swa"),
            write_model_section(model_choice(
                "{family: yoco, vocab_size: 64, d_model: 24, ffn_dim: 29, norm_eps: 1e-6, "
                "self_decoder: {n_layers: 2, mixers: [{name: sliding_window, n_heads: 4, "
                "n_kv_heads: 2, head_dim: 6, window: 5}], rope: {base: 10000, pairs: halves, "
                "exponents: standard}}, "
                "cross_decoder: {n_layers: 1, n_heads: 3, n_kv_heads: 1, head_dim: 8}}")));
  EXPECT_EQ(model_of(fla_yoco(), "fla_qk_norm_bias_tied"),
            write_model_section(model_choice(
                "{family: yoco, vocab_size: 64, tie_embeddings: true, d_model: 24, ffn_dim: 29, "
                "norm_eps: 1e-6, rope: {base: 700}, "
                "self_decoder: {n_layers: 1, mixers: [{name: sliding_window, n_heads: 2, "
                "n_kv_heads: 1, head_dim: 12, window: 7, qkv_bias: true}], rope: {base: 500, "
                "pairs: halves, exponents: standard}}, "
                "cross_decoder: {n_layers: 1, n_heads: 3, n_kv_heads: 3, head_dim: 8, "
                "qkv_bias: true, q_norm_eps: 1e-5}}")));
}

// Both sections of config.json come back too.
TEST_F(HfConvertTest, NormsAndBiasesComeBackInTheirSections) {
  for (const char* name : {"fla_qk_norm", "fla_bias", "fla_qk_norm_bias_tied"}) {
    SCOPED_TRACE(name);
    import_quietly(
        conversion("fla-yoco", golden_hf(name), folder_ / (std::string(name) + "_ours")));
    printed([&] {
      export_model(conversion("fla-yoco", folder_ / (std::string(name) + "_ours"), folder_ / name));
    });
    const auto given = read_json(golden_hf(name) + "/config.json"),
               written = read_json((folder_ / name) + "/config.json");
    for (const char* section : {"self_decoder_attn", "cross_decoder_attn"}) {
      for (const auto& [key, value] : written.at(section).items())
        EXPECT_EQ(value, given.at(section).at(key)) << section << "." << key;
    }
  }
}

TEST_F(HfConvertTest, BuffersThatNothingReadsAreListed) {
  const std::string said =
      printed([&] { open_hf_folder(hf_gpt_neox(), golden_hf("neox_serial")); });
  EXPECT_EQ(said, golden_hf("neox_serial") +
                      ": nothing reads gpt_neox.layers.0.attention.bias, "
                      "gpt_neox.layers.0.attention.masked_bias, "
                      "gpt_neox.layers.0.attention.rotary_emb.inv_freq, "
                      "gpt_neox.layers.1.attention.bias, gpt_neox.layers.1.attention.masked_bias, "
                      "gpt_neox.layers.1.attention.rotary_emb.inv_freq\n");
}

TEST_F(HfConvertTest, ACopyOfTheTableInATiedModelIsDropped) {
  const std::string folder = copy_golden("fla_retention_tied", folder_ / "tied");
  auto tensors = folder_tensors(folder);
  tensors["lm_head.weight"] = tensors.at("model.embeddings.weight").clone();
  write_tensor_file(folder + "/model.safetensors", tensors);
  import_quietly(conversion("fla-yoco", folder, folder_ / "checkpoint"));
  for (const auto& name : Checkpoint(folder_ / "checkpoint").weight_names())
    EXPECT_NE(name, "head.weight");
}

TEST_F(HfConvertTest, TokenizersGoBothWays) {
  const std::string json = golden_path("tokenizers/neox.json");
  const auto tokenizer = load_tokenizer(json);
  const std::string yaml =
      "{family: transformer, d_model: 24, ffn_dim: 29, n_layers: 1, n_heads: 2, head_dim: 8}";
  CheckpointContents contents;
  const auto model = make_tiny_model(
      "{vocab_size: " + std::to_string(tokenizer->vocab_size()) + ", " + yaml.substr(1),
      torch::kFloat32);
  for (const auto& parameter : model->named_parameters())
    contents.weights.push_back(
        whole_piece("", parameter.key(), parameter.value().detach().clone()));
  contents.config_yaml = "model: " + yaml + "\ntraining: {context_length: 40}\n";
  contents.state = {{"step", 0}};
  contents.tokenizer_model = tokenizer->model_bytes();
  contents.tokenizer_file = tokenizer->file_name();
  write_checkpoint(folder_ / "ours", contents);
  printed([&] { export_model(conversion("hf-llama", folder_ / "ours", folder_ / "theirs")); });
  EXPECT_EQ(read_text(folder_ / "theirs/tokenizer.json"), read_text(json));
  const auto config = read_json(folder_ / "theirs/config.json");
  EXPECT_EQ(config.at("vocab_size"), tokenizer->vocab_size());
  EXPECT_EQ(config.at("max_position_embeddings"), 40);
  EXPECT_EQ(config.at("eos_token_id"), tokenizer->eos().value());
  const auto words = read_json(folder_ / "theirs/tokenizer_config.json");
  EXPECT_EQ(words.at("tokenizer_class"), "PreTrainedTokenizerFast");
  EXPECT_EQ(words.at("eos_token"), "<|endoftext|>");
  printed([&] { import_model(conversion("hf-llama", folder_ / "theirs", folder_ / "again")); });
  const auto again = load_model(folder_ / "again", torch::kCPU, torch::kFloat32);
  EXPECT_EQ(tokenizer_hash(*again.tokenizer), tokenizer_hash(*tokenizer));
  EXPECT_EQ(again.context_length, 40);
  EXPECT_EQ(Checkpoint(folder_ / "again").weight("embedding.weight").sizes().vec(),
            model->named_parameters()["embedding.weight"].sizes().vec());
}

TEST_F(HfConvertTest, ATokenizerThatCannotBeReadIsSaidAndLeftOut) {
  const std::string folder = copy_golden("llama_gqa", folder_ / "theirs");
  write_atomically(folder + "/tokenizer.json", "{}");
  const std::string said =
      printed([&] { import_model(conversion("hf-llama", folder, folder_ / "ours")); });
  EXPECT_THAT(said, HasSubstr("warning: " + folder + "/tokenizer.json: "));
  EXPECT_THAT(said, HasSubstr("warning: no tokenizer is kept"));
  EXPECT_EQ(Checkpoint(folder_ / "ours").tokenizer(), "bytes");
}

}  // namespace
}  // namespace tandem
