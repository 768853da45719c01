#include <gtest/gtest.h>

#include "cli/block_transformer_official.h"
#include "cli/commands.h"
#include "nn/checkpoint.h"
#include "tests/cli/convert_fixture.h"
#include "tests/cli/tiny_checkpoint.h"

namespace tandem {
namespace {

const std::string kDeadTable = "block_decoder.gpt_neox.embed_in.weight";
const std::vector<std::string> kBlockCases = {
    "block_length_1", "cls_cross_attention", "cls_summation",  "gpt_neox", "lookup_prefix2",
    "megabyte",       "projection_prefix2",  "roberta_prefix1"};
std::string golden_block_transformer(const std::string& name) {
  return golden_path("block_transformer/" + name);
}

class BlockTransformerConvertTest : public ConvertTest {
 protected:
  static Conversion conversion(const std::string& from, const std::string& to) {
    return {.format = "block-transformer", .from = from, .to = to, .config = "", .verify = true};
  }
  /// A copy of a golden's weights and config in a folder of this test.
  std::string block_folder(const std::string& golden) {
    const std::string folder = folder_ / golden;
    for (const std::string name : {"/config.yaml", "/model.safetensors"})
      write_file(folder + name, read_text(golden_block_transformer(golden) + name));
    return folder;
  }
  /// Reading `tensors` with the config of `folder` says `message` of the file.
  void expect_refused_tensors(const std::string& folder,
                              const std::map<std::string, Tensor>& tensors,
                              const std::string& message) {
    const std::string path = folder + "/model.safetensors";
    write_tensors(path, tensors);
    expect_user_error(kExitBadFile, path + ": " + message,
                      [&] { read_block_transformer_official(folder, /*config=*/nullptr); });
  }
};

TEST_F(BlockTransformerConvertTest, ImportThenExportIsTheIdentityOfEveryTensor) {
  for (const auto& golden : kBlockCases) {
    SCOPED_TRACE(golden);
    const std::string from = golden_block_transformer(golden),
                      checkpoint = folder_ / (golden + "_checkpoint"),
                      back = folder_ / (golden + "_back");
    import_model(conversion(from, checkpoint));
    export_model(conversion(checkpoint, back));
    const auto expected = read_tensors(from + "/model.safetensors"),
               actual = read_tensors(back + "/model.safetensors");
    ASSERT_EQ(actual.size(), expected.size());
    for (const auto& [name, tensor] : expected)
      EXPECT_TRUE(torch::equal(actual.at(name), tensor)) << name;
    const auto section = [](const std::string& folder) {
      const std::string path = folder + "/config.yaml";
      return write_model_section(read_model_section(parse_yaml_file(path), path));
    };
    EXPECT_EQ(section(back), section(from));
    EXPECT_EQ(section(checkpoint), section(from));
  }
}

TEST_F(BlockTransformerConvertTest, AModelOfOursIsWrittenWithZerosForWhatNothingReads) {
  const std::string yaml =
      "{family: block_transformer, vocab_size: 53, block_length: 3, embedder: {kind: lookup}, "
      "block_decoder: {stack: gpt_neox, d_model: 24, ffn_dim: 29, n_layers: 2, n_heads: 3}, "
      "token_decoder: {kind: prefix, prefix_length: 2, stack: gpt_neox, d_model: 16, ffn_dim: 13, "
      "n_layers: 1, n_heads: 2}}";
  const PortableModel portable = random_model(yaml);
  write_block_transformer_official(folder_ / "written", portable);
  const auto back = named(read_block_transformer_official(folder_ / "written", /*config=*/nullptr));
  const auto expected = named(portable);
  ASSERT_EQ(back.size(), expected.size() + 1);
  for (const auto& [name, tensor] : expected)
    EXPECT_TRUE(torch::equal(back.at(name), tensor)) << name;
  EXPECT_TRUE(torch::equal(back.at(kUnusedPrefix + kDeadTable), torch::zeros({53, 24})));
}

TEST_F(BlockTransformerConvertTest, TheConfigGivenSaysWhatTheWeightsAre) {
  const std::string folder = block_folder("megabyte");
  const std::string model = read_text(folder + "/config.yaml");
  write_file(folder_ / "run.yaml", model + "training: {context_length: 64}\n");
  remove_tree(folder + "/config.yaml");
  expect_user_error(kExitBadFile,
                    folder +
                        ": holds no config.yaml that says what its weights are; give --config, a "
                        "training config with their model section",
                    [&] { import_model(conversion(folder, folder_ / "refused")); });
  EXPECT_FALSE(exists(folder_ / "refused"));
  Conversion with_config = conversion(folder, folder_ / "imported");
  with_config.config = folder_ / "run.yaml";
  import_model(with_config);
  const Checkpoint checkpoint(folder_ / "imported");
  const ConfigNode kept = parse_yaml(checkpoint.config_yaml(), "config.yaml");
  EXPECT_EQ(kept.find("training")->find("context_length")->scalar, "64");
  EXPECT_EQ(kept.find("model")->find("family")->scalar, "block_transformer");
  EXPECT_TRUE(torch::equal(checkpoint.weight(kUnusedPrefix + kDeadTable),
                           read_tensors(folder + "/model.safetensors").at(kDeadTable)));
  // It comes before what stands beside the weights.
  write_file(folder + "/config.yaml", "model: {family: yoco}\n");
  with_config.to = folder_ / "again";
  import_model(with_config);
  EXPECT_EQ(Checkpoint(folder_ / "again").config_yaml(), checkpoint.config_yaml());
}

TEST_F(BlockTransformerConvertTest, FamiliesThatTheFormHasNot) {
  const std::string message =
      "a model of family transformer is not in the form block-transformer, which has "
      "block_transformer and gpt_neox";
  const std::string folder = block_folder("gpt_neox"),
                    yaml =
                        "{family: transformer, vocab_size: 53, d_model: 24, ffn_dim: 29, "
                        "n_layers: 1, n_heads: 2, head_dim: 8}";
  write_file(folder + "/config.yaml", "model: " + yaml + "\n");
  expect_user_error(kExitUsage, message, [&] { read_block_transformer_official(folder, nullptr); });
  expect_user_error(kExitUsage, message, [&] {
    write_block_transformer_official(folder_ / "refused", random_model(yaml));
  });
  EXPECT_FALSE(exists(folder_ / "refused"));
  const std::string neox =
      "{family: gpt_neox, vocab_size: 53, d_model: 24, ffn_dim: 29, n_layers: 1, n_heads: 3}";
  expect_not_expressible(neox,
                         "a model of family gpt_neox cannot be written as yoco-official, which has "
                         "yoco and transformer");
}

TEST_F(BlockTransformerConvertTest, TensorsThatDoNotFitAreNamed) {
  const std::string folder = block_folder("cls_cross_attention");
  const auto whole = read_tensors(folder + "/model.safetensors");
  auto missing = whole;
  missing.erase(kDeadTable);
  expect_refused_tensors(
      folder, missing,
      "has no tensor " + kDeadTable + ", which a model of this architecture needs");
  auto unknown = whole;
  unknown["token_mapper.weight"] = torch::ones({3});
  expect_refused_tensors(folder, unknown,
                         "tensor token_mapper.weight is not in a model of this architecture");
  auto misshapen = whole;
  misshapen["embedder.projection_layer.weight"] = torch::ones({32, 24, 4});
  expect_refused_tensors(folder, misshapen,
                         "tensor embedder.projection_layer.weight is [32, 24, 4], a model of this "
                         "architecture needs [32, 24, 3]");
  auto apart = whole;
  apart["token_decoder.lm_head.weight"] = whole.at("token_decoder.lm_head.weight") + 1;
  expect_refused_tensors(folder, apart,
                         "tensor token_decoder.lm_head.weight differs from "
                         "token_decoder.shared.weight, whose copy it is");
  expect_user_error(kExitBadFile, (folder_ / "nowhere") + ": is not a folder",
                    [&] { read_block_transformer_official(folder_ / "nowhere", nullptr); });
}

TEST_F(BlockTransformerConvertTest, BuffersOfOlderFilesAreNoWeights) {
  const std::string folder = block_folder("lookup_prefix2"), path = folder + "/model.safetensors";
  const auto expected = named(read_block_transformer_official(folder, nullptr));
  auto tensors = read_tensors(path);
  for (const std::string decoder : {"block_decoder", "token_decoder"}) {
    const std::string attention = decoder + ".gpt_neox.layers.0.attention.";
    tensors[attention + "bias"] = torch::ones({1, 1, 8, 8});
    tensors[attention + "masked_bias"] = torch::tensor(-1e9f);
    tensors[attention + "rotary_emb.inv_freq"] = torch::ones({2});
  }
  write_tensors(path, tensors);
  const auto actual = named(read_block_transformer_official(folder, nullptr));
  ASSERT_EQ(actual.size(), expected.size());
  for (const auto& [name, tensor] : actual) EXPECT_TRUE(torch::equal(tensor, expected.at(name)));
}

TEST_F(BlockTransformerConvertTest, SixteenBitsAreReadAndWritten) {
  const std::string folder = block_folder("cls_cross_attention"),
                    path = folder + "/model.safetensors";
  const auto whole = read_tensors(path);
  std::map<std::string, Tensor> narrow;
  for (const auto& [name, tensor] : whole) narrow[name] = tensor.to(torch::kBFloat16);
  write_tensors(path, narrow, DataType::kBF16);
  for (const auto& [name, tensor] : read_block_transformer_official(folder, nullptr).weights)
    EXPECT_EQ(tensor.scalar_type(), torch::kFloat32) << name;
  // A file as it is published goes in and out without a change.
  const std::string checkpoint = folder_ / "checkpoint", back = folder_ / "back";
  EXPECT_EQ(
      run_captured(run_convert, "convert",
                   {"import", "--format", "block-transformer", "--verify", folder, checkpoint})
          .out,
      checkpoint + "\n");
  EXPECT_EQ(run_captured(run_convert, "convert",
                         {"export", "--format", "block-transformer", "--dtype", "bfloat16",
                          "--verify", checkpoint, back})
                .out,
            back + "\n");
  EXPECT_EQ(read_text(back + "/model.safetensors"), read_text(path));
  // float16, whose numbers float32 has too
  for (const auto& [name, tensor] : whole) narrow[name] = tensor.to(torch::kFloat16);
  write_tensors(path, narrow, DataType::kF16);
  const auto read = named(read_block_transformer_official(folder, nullptr));
  EXPECT_TRUE(
      torch::equal(read.at("embedder.embedding.weight"),
                   narrow.at("embedder.embeddings.word_embeddings.weight").to(torch::kFloat32)));
}

}  // namespace
}  // namespace tandem
