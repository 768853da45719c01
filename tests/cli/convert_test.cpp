#include "cli/convert.h"

#include <gmock/gmock.h>

#include "cli/commands.h"
#include "nn/checkpoint.h"
#include "tests/cli/convert_fixture.h"
#include "tests/cli/tiny_checkpoint.h"
#include "yoco/official_names.h"

namespace tandem {
namespace {

using testing::HasSubstr;

TEST_F(ConvertTest, ImportThenExportIsTheIdentityOfEveryTensor) {
  for (const char* golden :
       {"gated_retention", "gated_retention_gqa", "sliding_window", "transformer_llama"}) {
    SCOPED_TRACE(golden);
    const std::string from = golden_yoco(golden),
                      checkpoint = folder_ / (std::string(golden) + "_checkpoint");
    const std::string back = folder_ / (std::string(golden) + "_back");
    import_model({.from = from, .to = checkpoint, .config = "", .verify = true});
    export_model({.from = checkpoint, .to = back, .config = "", .verify = true});
    const auto expected = read_tensors(from + "/model.safetensors"),
               actual = read_tensors(back + "/model.safetensors");
    ASSERT_EQ(actual.size(), expected.size());
    for (const auto& [name, tensor] : expected)
      EXPECT_TRUE(torch::equal(actual.at(name), tensor)) << name;
    // the arguments too, apart from those that the official code takes at run time or has as
    // constants
    const auto params = read_json(back + "/params.json"), given = read_json(from + "/config.json");
    for (const auto& [key, value] : params.items()) EXPECT_EQ(value, given.at(key)) << key;
    for (const auto& [key, value] : given.items()) {
      const bool left_out = key == "model" || key == "max_seq_len" ||
                            key == "gate_logit_normalizer" || key == "chunk_size" ||
                            value.is_null();
      EXPECT_EQ(params.contains(key), !left_out) << key;
    }
  }
}

TEST_F(ConvertTest, ExportThenImportIsTheIdentityOfEveryTensor) {
  const std::string yaml =
      "{family: yoco, vocab_size: 53, d_model: 24, ffn_dim: 29, self_decoder: {n_layers: 2, "
      "mixers: [{name: gated_retention, n_heads: 3, head_dim: 8}]}, "
      "cross_decoder: {n_layers: 2, n_heads: 4, n_kv_heads: 2, head_dim: 6}}";
  for (const bool tied : {false, true}) {
    PortableModel portable = random_model(yaml);
    if (tied) portable = random_model(yaml.substr(0, yaml.size() - 1) + ", tie_embeddings: true}");
    const std::string folder = folder_ / (tied ? "tied" : "separate");
    write_yoco_official(folder, portable);
    const PortableModel back = read_yoco_official(folder);
    auto expected = named(portable);
    if (tied)
      expected["head.weight"] =
          expected.at("embedding.weight");  // the official tables are always separate
    ASSERT_EQ(back.weights.size(), expected.size());
    for (const auto& [name, tensor] : back.weights)
      EXPECT_TRUE(torch::equal(tensor, expected.at(name))) << name;
  }
}

// Spelled out from the list of the official state dict, as a second source beside the table in the
// code.
TEST_F(ConvertTest, OfficialNames) {
  const std::map<std::string, std::string> names = {
      {"embedding.weight", "embed_tokens.weight"},
      {"self_decoder.layers.11.mixer_norm.weight",
       "self_decoder.layers.11.mixer_layer_norm.weight"},
      {"self_decoder.layers.11.mixer.q_proj.weight", "self_decoder.layers.11.mixer.q_proj.weight"},
      {"self_decoder.layers.11.mixer.g_proj.weight", "self_decoder.layers.11.mixer.g_proj.weight"},
      {"self_decoder.layers.11.mixer.gate_proj.weight",
       "self_decoder.layers.11.mixer.gt_proj.weight"},
      {"self_decoder.layers.11.mixer.o_proj.weight",
       "self_decoder.layers.11.mixer.out_proj.weight"},
      {"self_decoder.layers.11.ffn_norm.weight", "self_decoder.layers.11.final_layer_norm.weight"},
      {"self_decoder.layers.11.ffn.gate_proj.weight", "self_decoder.layers.11.ffn.fc1.weight"},
      {"self_decoder.layers.11.ffn.up_proj.weight", "self_decoder.layers.11.ffn.gate.weight"},
      {"self_decoder.layers.11.ffn.down_proj.weight", "self_decoder.layers.11.ffn.fc2.weight"},
      {"shared_kv.norm.weight", "cross_decoder.kv_layer_norm.weight"},
      {"shared_kv.k_proj.weight", "cross_decoder.k_proj.weight"},
      {"shared_kv.v_proj.weight", "cross_decoder.v_proj.weight"},
      {"cross_decoder.layers.0.mixer.o_proj.weight",
       "cross_decoder.layers.0.mixer.out_proj.weight"},
      {"final_norm.weight", "layer_norm.weight"},
      {"head.weight", "output_projection.weight"},
  };
  for (const auto& [ours, theirs] : names) EXPECT_EQ(official_yoco_name(ours), theirs);
}

TEST_F(ConvertTest, TheCheckpointHoldsConfigAndWeights) {
  write_file(folder_ / "run.yaml",
             "data: {tokenizer: bytes, train: [{path: books}]}\nmodel: {family: "
             "transformer}\ntraining: {context_length: 64}\n");
  testing::internal::CaptureStderr();
  import_model({.from = golden_yoco("sliding_window"),
                .to = folder_ / "plain",
                .config = "",
                .verify = false});
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("warning: no tokenizer is kept"));
  const Checkpoint plain(folder_ / "plain");
  plain.verify();
  EXPECT_EQ(plain.step(), 0);
  EXPECT_EQ(plain.tokenizer(), "bytes");
  EXPECT_FALSE(plain.has_optimizer());
  const ConfigNode config = parse_yaml(plain.config_yaml(), "config.yaml");
  EXPECT_EQ(config.entries.size(), 1u);
  EXPECT_EQ(config.find("model")->find("family")->scalar, "yoco");
  EXPECT_EQ(config.find("model")->find("vocab_size")->scalar, "107");

  expect_user_error(kExitUsage,
                    "model.vocab_size = 107, expected at least 258, the tokenizer's; leave the key "
                    "out to take that",
                    [&] {
                      import_model({.from = golden_yoco("sliding_window"),
                                    .to = folder_ / "kept",
                                    .config = folder_ / "run.yaml",
                                    .verify = false});
                    });
  write_file(folder_ / "run.yaml",
             "training: {context_length: 64}\nmodel: {family: transformer}\n");
  import_model({.from = golden_yoco("sliding_window"),
                .to = folder_ / "kept",
                .config = folder_ / "run.yaml",
                .verify = true});
  const ConfigNode kept = parse_yaml(Checkpoint(folder_ / "kept").config_yaml(), "config.yaml");
  EXPECT_EQ(kept.find("training")->find("context_length")->scalar, "64");
  EXPECT_EQ(*kept.find("model"), *config.find("model"));
}

TEST_F(ConvertTest, TheWrapperOfTrainingAndSixteenBitsAreRead) {
  const std::string folder = official_folder("gated_retention_gqa");
  const auto expected = named(read_yoco_official(folder));
  std::map<std::string, Tensor> first, second;
  for (const auto& [name, tensor] : read_tensors(folder + "/model.safetensors")) {
    (first.size() <= second.size() ? first : second)["decoder.model." + name] =
        tensor.to(torch::kBFloat16);
  }
  remove_tree(folder + "/model.safetensors");
  write_tensors(folder + "/model-1.safetensors", first, DataType::kBF16);
  write_tensors(folder + "/model-2.safetensors", second, DataType::kBF16);
  const auto actual = named(read_yoco_official(folder));
  ASSERT_EQ(actual.size(), expected.size());
  for (const auto& [name, tensor] : actual) {
    EXPECT_EQ(tensor.scalar_type(), torch::kFloat32);
    EXPECT_TRUE(torch::equal(tensor, expected.at(name).to(torch::kBFloat16).to(torch::kFloat32)))
        << name;
  }
}

TEST_F(ConvertTest, TensorsThatDoNotFitAreNamed) {
  const std::string folder = official_folder("gated_retention"),
                    path = folder + "/model.safetensors";
  const auto whole = read_tensors(path);
  const auto expect_message = [&](const std::map<std::string, Tensor>& tensors,
                                  const std::string& message, DataType type = DataType::kF32) {
    write_tensors(path, tensors, type);
    expect_user_error(kExitBadFile, path + ": " + message, [&] { read_yoco_official(folder); });
  };
  auto missing = whole;
  missing.erase("self_decoder.layers.1.mixer.gt_proj.weight");
  expect_message(missing,
                 "has no tensor self_decoder.layers.1.mixer.gt_proj.weight, which a model of this "
                 "architecture needs");
  auto unknown = whole;
  unknown["self_decoder.layers.1.mixer.subln.weight"] = torch::ones({12});
  expect_message(
      unknown,
      "tensor self_decoder.layers.1.mixer.subln.weight is not in a model of this architecture");
  auto misshapen = whole;
  misshapen["layer_norm.weight"] = torch::ones({35});
  expect_message(misshapen,
                 "tensor layer_norm.weight is [35], a model of this architecture needs [36]");
  auto twice = whole;
  twice["decoder.model.layer_norm.weight"] = torch::ones({36});
  expect_message(twice, "tensor layer_norm.weight comes twice");
  std::map<std::string, Tensor> doubles;
  for (const auto& [name, tensor] : whole) doubles[name] = tensor.to(torch::kFloat64);
  expect_message(doubles, "tensor embed_tokens.weight is F64, expected F32, F16 or BF16",
                 DataType::kF64);
}

TEST_F(ConvertTest, ArgumentsThatDoNotFitAreNamed) {
  const std::string yoco = official_folder("gated_retention");
  expect_refused(yoco,
                 "sliding_window = 0, expected null for gated retention or an integer >= 1: to the "
                 "official code any other value is a window without end",
                 [](auto& params) { params["sliding_window"] = 0; });
  expect_refused(yoco,
                 "sliding_window = false, expected null for gated retention or an integer >= 1: to "
                 "the official code any other value is a window without end",
                 [](auto& params) { params["sliding_window"] = false; });
  expect_refused(yoco, "n_layers = 5, expected an even number, half of them in each decoder",
                 [](auto& params) { params["n_layers"] = 5; });
  expect_refused(yoco, "n_self_heads = 4, expected a divisor of dim (36) that leaves even heads",
                 [](auto& params) { params["n_self_heads"] = 4; });
  expect_refused(yoco, "n_attn_heads = 3, expected a multiple of n_attn_kv_heads (2)",
                 [](auto& params) { params["n_attn_heads"] = 3; });
  expect_refused(yoco, "norm_eps = 0, expected a number > 0",
                 [](auto& params) { params["norm_eps"] = 0; });
  const std::string baseline = official_folder("transformer_llama");
  expect_refused(
      baseline,
      "sliding_window = 16, expected null: the transformer family has full attention only",
      [](auto& params) { params["sliding_window"] = 16; });

  auto params = read_json(yoco + "/params.json");  // absent ones have the official defaults
  for (const char* key : {"norm_eps", "rope_theta", "n_attn_kv_heads", "sliding_window",
                          "gate_logit_normalizer", "chunk_size", "max_seq_len"})
    params.erase(key);
  write_file(yoco + "/params.json", params.dump());
  const auto model = read_yoco_official(yoco).model.as<YocoConfig>();
  EXPECT_EQ(model.norm_eps, 1e-5);
  EXPECT_EQ(model.rope.base, 10000);
  EXPECT_EQ(model.cross_decoder.n_kv_heads, 2);
  EXPECT_EQ(model.self_decoder.mixers[0].name, "gated_retention");
}

TEST_F(ConvertTest, FoldersThatDoNotFitAreNamed) {
  const std::string folder = official_folder("gated_retention");
  remove_tree(folder + "/model.safetensors");
  expect_user_error(kExitBadFile, folder + ": holds no *.safetensors",
                    [&] { read_yoco_official(folder); });
  write_file(folder + "/checkpoint.pth", "pickle");
  expect_user_error(kExitBadFile,
                    folder +
                        "/checkpoint.pth: is a pickle, which can run any program and is not read; "
                        "save it as model.safetensors first, in Python: "
                        "safetensors.torch.save_file({k: v.clone() for k, v in "
                        "torch.load(\"checkpoint.pth\", weights_only=True).items()}, "
                        "\"model.safetensors\")",
                    [&] { read_yoco_official(folder); });
  remove_tree(folder + "/params.json");
  expect_user_error(kExitBadFile, folder + ": holds no params.json with the model's arguments",
                    [&] { read_yoco_official(folder); });
  expect_user_error(kExitBadFile, (folder_ / "nowhere") + ": is not a folder",
                    [&] { read_yoco_official(folder_ / "nowhere"); });
  expect_user_error(kExitUsage, folder + " exists already; name a folder that does not", [&] {
    import_model(
        {.from = golden_yoco("sliding_window"), .to = folder, .config = "", .verify = false});
  });
  expect_user_error(
      kExitUsage, "--format = onnx, expected one of: block-transformer, fla-yoco, hf-gpt-neox, hf-llama, yoco-official", [&] {
        import_model(
            {.format = "onnx", .from = folder, .to = folder_ / "x", .config = "", .verify = false});
      });
}

TEST_F(ConvertTest, WhatTheOfficialFormCannotExpressIsRefused) {
  const std::string yoco = "{family: yoco, vocab_size: 53, d_model: 24, ffn_dim: 29, ",
                    form = " cannot be written as an official YOCO model, which has ";
  const std::string retention =
      "self_decoder: {n_layers: 2, mixers: [{name: gated_retention, n_heads: 3, head_dim: 8}]}, ";
  const std::string cross = "cross_decoder: {n_layers: 2, n_heads: 4, head_dim: 6}}";
  expect_not_expressible(
      yoco + "embedding_scale: false, " + retention + cross,
      "model.embedding_scale = false" + form + "embeddings times the root of d_model");
  expect_not_expressible(yoco + "rope: {pairs: halves}, " + retention + cross,
                         "rope.pairs = halves of the self-decoder" + form + "interleaved");
  expect_not_expressible(yoco + "rope: {base: none}, " + retention + cross,
                         "rope.base = none of the self-decoder" + form + "rotary positions");
  expect_not_expressible(
      yoco + retention +
          "cross_decoder: {n_layers: 2, n_heads: 4, head_dim: 6, rope: {exponents: standard}}}",
      "rope.exponents = standard of the cross-decoder" + form + "inclusive");
  expect_not_expressible(
      yoco + retention +
          "cross_decoder: {n_layers: 2, n_heads: 4, head_dim: 6, rope: {base: 500}}}",
      "two rope bases, 10000 and 500" + form + "one");
  expect_not_expressible(
      yoco + retention + "cross_decoder: {n_layers: 3, n_heads: 4, head_dim: 6}}",
      "2 self and 3 cross layers" + form + "as many of each");
  expect_not_expressible(
      yoco + retention + "cross_decoder: {n_layers: 2, n_heads: 4, head_dim: 8}}",
      "a cross-decoder of 4 heads of 8" + form + "n_heads * head_dim = d_model (24)");
  const auto self = [&](const std::string& mixers) {
    return yoco + "self_decoder: {n_layers: 2, mixers: [" + mixers + "]}, " + cross;
  };
  expect_not_expressible(
      self("{name: gated_retention, n_heads: 4, head_dim: 8}"),
      "a self-decoder of 4 heads of 8" + form + "n_heads * head_dim = d_model (24)");
  expect_not_expressible(self("{name: gated_retention, n_heads: 3, head_dim: 8, temperature: 8}"),
                         "temperature = 8" + form + "16");
  expect_not_expressible(self("{name: full_attention, n_heads: 3, head_dim: 8}"),
                         "mixer full_attention" + form + "gated_retention or sliding_window");
  expect_not_expressible(self("{name: sliding_window, n_heads: 4, n_kv_heads: 2, head_dim: 6}"),
                         "a sliding window with n_kv_heads = 2" + form + "as many as n_heads (4)");
  expect_not_expressible(self("{name: sliding_window, n_heads: 3, head_dim: 8, qkv_bias: true}"),
                         "a sliding window with qkv_bias = true" + form +
                             "projections without biases");
  expect_not_expressible(
      self("{name: sliding_window, n_heads: 3, head_dim: 8, qk_norm_eps: 1e-5}"),
      "a sliding window with qk_norm_eps = 1e-5" + form + "no norms of heads");
  expect_not_expressible(
      yoco + retention + "cross_decoder: {n_layers: 2, n_heads: 4, head_dim: 6, qkv_bias: true}}",
      "cross_decoder.qkv_bias = true" + form + "projections without biases");
  expect_not_expressible(
      yoco + retention + "cross_decoder: {n_layers: 2, n_heads: 4, head_dim: 6, q_norm_eps: 0.5}}",
      "cross_decoder.q_norm_eps = 0.5" + form + "no norms of heads");
  expect_not_expressible(self("{name: gated_retention, n_heads: 3, head_dim: 8}, {name: "
                              "sliding_window, n_heads: 3, head_dim: 8}"),
                         "a self-decoder of several mixers" + form + "the same in every layer");
  expect_not_expressible(
      "{family: transformer, vocab_size: 53, d_model: 24, ffn_dim: 29, n_layers: 1, n_heads: 2, "
      "head_dim: 8, rope: {exponents: inclusive}}",
      "model.rope.exponents = inclusive cannot be written as an official baseline, which has "
      "standard");
  expect_not_expressible(
      "{family: transformer, vocab_size: 53, d_model: 24, ffn_dim: 29, n_layers: 1, n_heads: 2, "
      "head_dim: 8, qkv_bias: true}",
      "model.qkv_bias = true cannot be written as an official baseline, which has projections "
      "without biases");
  expect_not_expressible(
      "{family: transformer, vocab_size: 53, d_model: 24, ffn_dim: 29, n_layers: 1, n_heads: 2, "
      "head_dim: 8, qk_norm_eps: 1e-6}",
      "model.qk_norm_eps = 1e-6 cannot be written as an official baseline, which has no norms of "
      "heads");
  expect_not_expressible(
      "{family: transformer, vocab_size: 53, d_model: 24, ffn_dim: 29, n_layers: 1, n_heads: 2, "
      "head_dim: 8, rope: {fraction: 0.5}}",
      "model.rope.fraction = 0.5 cannot be written as an official baseline, which has heads "
      "rotated as a whole");
}

TEST_F(ConvertTest, ArgumentsWithoutEffectAreSaid) {
  const std::string folder = official_folder("gated_retention");
  auto params = read_json(folder + "/params.json");
  params["use_flash"] = true;
  write_file(folder + "/params.json", params.dump());
  testing::internal::CaptureStderr();
  read_yoco_official(folder);
  EXPECT_EQ(testing::internal::GetCapturedStderr(),
            "warning: " + folder + "/params.json: use_flash has no effect\n");
}

}  // namespace
}  // namespace tandem
