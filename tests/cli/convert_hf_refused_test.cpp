// Damaged and foreign folders: each is refused in one line that names what is wrong, and nothing is
// written.
#include <gmock/gmock.h>

#include "cli/build_model.h"
#include "cli/hf_folder.h"
#include "nn/checkpoint.h"
#include "tests/cli/hf_folders.h"
#include "tests/cli/tiny_checkpoint.h"

namespace tandem {
namespace {

using nlohmann::ordered_json;

class HfRefusedTest : public testing::Test {
 protected:
  /// A copy of a golden that `spoil` changes is refused with exactly this message; FOLDER in it
  /// stands for the folder.
  void expect_refused(const std::string& format, const std::string& golden, std::string message,
                      const std::function<void(const std::string& folder)>& spoil) {
    SCOPED_TRACE(message);
    const std::string folder = copy_golden(golden, folder_ / ("case" + std::to_string(n_cases_++)));
    spoil(folder);
    const std::string place = "FOLDER";
    for (size_t at; (at = message.find(place)) != message.npos;)
      message.replace(at, place.size(), folder);
    const std::string to = folder_ / "made";
    printed([&] {
      expect_user_error(kExitBadFile, message, [&] {
        import_model({.format = format, .from = folder, .to = to, .config = "", .verify = true});
      });
    });
    EXPECT_FALSE(exists(to));
    EXPECT_FALSE(exists(to + ".partial"));
  }
  void expect_config(const std::string& format, const std::string& golden,
                     const std::string& message, const std::function<void(ordered_json&)>& change) {
    expect_refused(
        format, golden, "FOLDER/config.json: " + message,
        [&](const std::string& folder) { change_json(folder + "/config.json", change); });
  }
  void expect_llama(const std::string& message, const std::function<void(ordered_json&)>& change) {
    expect_config("hf-llama", "llama_gqa", message, change);
  }
  void expect_neox(const std::string& message, const std::function<void(ordered_json&)>& change) {
    expect_config("hf-gpt-neox", "neox_parallel", message, change);
  }
  void expect_fla(const std::string& message, const std::function<void(ordered_json&)>& change) {
    expect_config("fla-yoco", "fla_retention", message, change);
  }
  void expect_tensors(const std::string& golden, const std::string& format,
                      const std::string& message,
                      const std::function<void(std::map<std::string, Tensor>&)>& change) {
    expect_refused(format, golden, "FOLDER/model.safetensors: " + message,
                   [&](const std::string& folder) {
                     auto tensors = folder_tensors(folder);
                     change(tensors);
                     write_tensor_file(folder + "/model.safetensors", tensors);
                   });
  }
  TempFolder folder_;
  int n_cases_ = 0;
};

TEST_F(HfRefusedTest, OptionsOfLlamaThatHaveNoCounterpart) {
  expect_llama("model_type = \"mistral\", expected \"llama\"",
               [](auto& config) { config["model_type"] = "mistral"; });
  expect_llama("model_type is missing, expected a string",
               [](auto& config) { config.erase("model_type"); });
  expect_llama(
      "architectures = [\"LlamaForSequenceClassification\"], expected [\"LlamaForCausalLM\"]",
      [](auto& config) { config["architectures"] = {"LlamaForSequenceClassification"}; });
  expect_llama(
      "rope_scaling.rope_type = \"llama3\", expected \"default\": scaled rotary positions are not "
      "computed here",
      [](auto& config) {
        config["rope_scaling"] = {{"rope_type", "llama3"}, {"factor", 8.0}};
      });
  expect_llama(
      "rope_scaling.type = \"linear\", expected \"default\": scaled rotary positions are not "
      "computed here",
      [](auto& config) {
        config["rope_scaling"] = {{"type", "linear"}, {"factor", 2.0}};
      });
  expect_llama(
      "rope_parameters.rope_type = \"yarn\", expected \"default\": scaled rotary positions are "
      "not computed here",
      [](auto& config) { config["rope_parameters"]["rope_type"] = "yarn"; });
  expect_llama(
      "rope_parameters.factor has no counterpart: scaled rotary positions are not computed here",
      [](auto& config) { config["rope_parameters"]["factor"] = 4.0; });
  expect_llama(
      "rope_parameters.partial_rotary_factor = 0.5, expected 1: heads are rotated as a whole",
      [](auto& config) { config["rope_parameters"]["partial_rotary_factor"] = 0.5; });
  expect_llama("rope_scaling = 2, expected an object",
               [](auto& config) { config["rope_scaling"] = 2; });
  expect_llama("attention_bias = true, expected false: the projections have no biases",
               [](auto& config) { config["attention_bias"] = true; });
  expect_llama("mlp_bias = true, expected false: the projections have no biases",
               [](auto& config) { config["mlp_bias"] = true; });
  expect_llama("sliding_window = 4096, expected null: every layer has full attention",
               [](auto& config) { config["sliding_window"] = 4096; });
  expect_llama(
      "quantization_config = {\"quant_method\":\"gptq\"}, expected null: quantized weights are not "
      "read",
      [](auto& config) {
        config["quantization_config"] = {{"quant_method", "gptq"}};
      });
  expect_llama("hidden_act = \"relu\", expected \"silu\"",
               [](auto& config) { config["hidden_act"] = "relu"; });
  expect_llama("tie_word_embeddings = \"no\", expected true or false",
               [](auto& config) { config["tie_word_embeddings"] = "no"; });
}

TEST_F(HfRefusedTest, NumbersOfLlamaThatMakeNoModel) {
  const std::string range = ", expected an integer in [1, 2147483647]";
  expect_llama("hidden_size is missing" + range, [](auto& config) { config.erase("hidden_size"); });
  expect_llama("hidden_size = 0" + range, [](auto& config) { config["hidden_size"] = 0; });
  expect_llama("num_hidden_layers = 1000000, expected at most 10000",
               [](auto& config) { config["num_hidden_layers"] = 1'000'000; });
  expect_llama("num_attention_heads = 4, expected a multiple of num_key_value_heads (3)",
               [](auto& config) { config["num_key_value_heads"] = 3; });
  expect_llama("heads of 9 channels, expected an even number",
               [](auto& config) { config["head_dim"] = 9; });
  expect_llama(
      "hidden_size = 26, expected a multiple of num_attention_heads (4), as there is no head_dim",
      [](auto& config) {
        config["hidden_size"] = 26;
        config["head_dim"] = nullptr;
      });
  expect_llama("rms_norm_eps = -1.0, expected a number > 0",
               [](auto& config) { config["rms_norm_eps"] = -1.0; });
  expect_llama("rope_parameters.rope_theta = \"10k\", expected a number > 0",
               [](auto& config) { config["rope_parameters"]["rope_theta"] = "10k"; });
}

TEST_F(HfRefusedTest, OptionsOfGptNeoxThatHaveNoCounterpart) {
  expect_neox("attention_bias = false, expected true: the projections have biases",
              [](auto& config) { config["attention_bias"] = false; });
  expect_neox(
      "hidden_act = \"relu\", expected \"gelu\", \"gelu_new\", \"gelu_fast\" or "
      "\"gelu_pytorch_tanh\"",
      [](auto& config) { config["hidden_act"] = "relu"; });
  expect_neox(
      "hidden_size = 32, expected a multiple of num_attention_heads (3) that leaves even heads",
      [](auto& config) { config["num_attention_heads"] = 3; });
  expect_neox("the rotated part of a head is 3 of 16 channels, expected an even number, at least 2",
              [](auto& config) { config["rope_parameters"]["partial_rotary_factor"] = 0.2; });
  expect_neox("model_type = \"gpt_neox_japanese\", expected \"gpt_neox\"",
              [](auto& config) { config["model_type"] = "gpt_neox_japanese"; });
  expect_neox(
      "rope_scaling.rope_type = \"dynamic\", expected \"default\": scaled rotary positions are "
      "not computed here",
      [](auto& config) {
        config["rope_scaling"] = {{"rope_type", "dynamic"}};
      });
}

TEST_F(HfRefusedTest, OptionsOfFlaThatHaveNoCounterpart) {
  expect_fla("attnres_block_size = 4, expected null: attention residuals are not computed here",
             [](auto& config) { config["attnres_block_size"] = 4; });
  expect_fla("self_decoder_attn.type = \"gated_deltanet\", expected \"gated_retention\" or \"swa\"",
             [](auto& config) { config["self_decoder_attn"].erase("type"); });
  expect_fla("cross_decoder_attn.qk_norm = 1, expected true or false",
             [](auto& config) { config["cross_decoder_attn"]["qk_norm"] = 1; });
  expect_fla(
      "cross_decoder_attn.window_size = 8, expected null: queries see all shared keys before them",
      [](auto& config) { config["cross_decoder_attn"]["window_size"] = 8; });
  expect_fla("cross_decoder_attn.rope_inv_freq = \"ntk\", expected \"fla\" or \"yoco\"",
             [](auto& config) { config["cross_decoder_attn"]["rope_inv_freq"] = "ntk"; });
  expect_fla("self_decoder_attn.conv_bias is not known here",
             [](auto& config) { config["self_decoder_attn"]["conv_bias"] = true; });
  expect_fla("num_hidden_layers = 2, expected more than num_self_decoder_layers (2)",
             [](auto& config) { config["num_hidden_layers"] = 2; });
  expect_fla(
      "cross_decoder_attn.num_heads = 32, expected a divisor of hidden_size (24) that leaves even "
      "heads",
      [](auto& config) { config.erase("cross_decoder_attn"); });
  expect_config("fla-yoco", "fla_swa",
                "self_decoder_attn.window_size is missing, expected an integer in [1, 2147483647]",
                [](auto& config) { config["self_decoder_attn"].erase("window_size"); });
  expect_config("hf-llama", "fla_swa", "model_type = \"yoco\", expected \"llama\"", [](auto&) {});
}

TEST_F(HfRefusedTest, TensorsThatDoNotFit) {
  const std::string needs = ", which a model of this architecture needs",
                    q = "model.layers.1.self_attn.q_proj.weight",
                    qkv = "gpt_neox.layers.0.attention.query_key_value.weight";
  expect_tensors("llama_gqa", "hf-llama", "has no tensor " + q + needs,
                 [&](auto& tensors) { tensors.erase(q); });
  expect_tensors("llama_gqa", "hf-llama",
                 "tensor " + q + " is [24, 40], a model of this architecture needs [40, 24]",
                 [&](auto& tensors) { tensors[q] = tensors[q].t(); });
  expect_tensors(
      "llama_gqa", "hf-llama",
      "tensor model.layers.0.self_attn.q_norm.weight is not in a model of this "
      "architecture",
      [](auto& tensors) { tensors["model.layers.0.self_attn.q_norm.weight"] = torch::ones({10}); });
  expect_tensors("llama_gqa", "hf-llama", "tensor " + q + " is I64, expected F32, F16 or BF16",
                 [&](auto& tensors) { tensors[q] = tensors[q].to(torch::kInt64); });
  // config.json says a layer more, and one less, than there is.
  const auto with_layers = [&](int64_t n, const std::string& message) {
    expect_refused("hf-llama", "llama_gqa", "FOLDER/model.safetensors: " + message,
                   [&](const std::string& folder) {
                     change_json(folder + "/config.json",
                                 [&](auto& config) { config["num_hidden_layers"] = n; });
                   });
  };
  with_layers(3, "has no tensor model.layers.2.input_layernorm.weight" + needs);
  with_layers(
      1, "tensor model.layers.1.input_layernorm.weight is not in a model of this architecture");
  expect_tensors("llama_gqa", "hf-llama", "has no tensor lm_head.weight" + needs,
                 [](auto& tensors) { tensors.erase("lm_head.weight"); });
  expect_tensors("neox_parallel", "hf-gpt-neox",
                 "tensor " + qkv + " is [64, 32], a model of this architecture needs [96, 32]",
                 [&](auto& tensors) { tensors[qkv] = tensors[qkv].narrow(0, 0, 64); });
  expect_tensors(
      "neox_parallel", "hf-gpt-neox",
      "tensor gpt_neox.layers.0.attention.gate.bias is not in a model of this "
      "architecture",
      [](auto& tensors) { tensors["gpt_neox.layers.0.attention.gate.bias"] = torch::ones({3}); });
  expect_tensors("fla_retention", "fla-yoco",
                 "tensor model.self_layers.0.attn_res_proj.weight is not in a model of this "
                 "architecture",
                 [](auto& tensors) {
                   tensors["model.self_layers.0.attn_res_proj.weight"] = torch::ones({1, 24});
                 });
  // What config.json says of norms and biases and what the weights hold must agree.
  const auto expect_fla_tensor = [&](const std::string& golden, const std::string& name,
                                     const char* section, const char* key) {
    expect_refused(
        "fla-yoco", golden,
        "FOLDER/model.safetensors: tensor " + name + " is not in a model of this architecture",
        [&](const std::string& folder) {
          change_json(folder + "/config.json", [&](auto& config) { config[section][key] = false; });
        });
    expect_tensors(golden, "fla-yoco", "has no tensor " + name + needs,
                   [&](auto& tensors) { tensors.erase(name); });
  };
  expect_fla_tensor("fla_qk_norm", "model.cross_layers.0.attn.q_norm.weight", "cross_decoder_attn",
                    "qk_norm");
  expect_fla_tensor("fla_bias", "model.cross_layers.0.attn.q_proj.bias", "cross_decoder_attn",
                    "qkv_bias");
  expect_fla_tensor("fla_bias", "model.self_layers.0.attn.k_proj.bias", "self_decoder_attn",
                    "qkv_bias");
  expect_tensors("fla_retention_tied", "fla-yoco",
                 "tensor lm_head.weight differs from model.embeddings.weight, whose copy it is by "
                 "tie_word_embeddings",
                 [](auto& tensors) {
                   tensors["lm_head.weight"] = torch::ones({64, 24});
                 });
}

TEST_F(HfRefusedTest, FilesThatAreDamagedOrNotThere) {
  const std::string index = "/model.safetensors.index.json",
                    first = "model-00001-of-00004.safetensors",
                    third = "model-00003-of-00004.safetensors";
  const auto expect_sharded = [&](const std::string& message, const auto& spoil) {
    expect_refused("hf-llama", "llama_tied", message, spoil);
  };
  const auto expect_index = [&](const std::string& message, const auto& change) {
    expect_sharded("FOLDER" + index + ": " + message,
                   [&](const std::string& folder) { change_json(folder + index, change); });
  };
  expect_sharded("FOLDER: holds no config.json that says what its weights are",
                 [](const std::string& folder) { remove_tree(folder + "/config.json"); });
  expect_sharded(
      "FOLDER/config.json: expected an object of model arguments",
      [](const std::string& folder) { write_atomically(folder + "/config.json", "[1, 2]"); });
  expect_sharded("FOLDER" + index + ": lists " + third + ", which is not in the folder",
                 [&](const std::string& folder) { remove_tree(folder + "/" + third); });
  expect_index("has no object weight_map", [](auto& json) { json.erase("weight_map"); });
  expect_index("weight_map is empty",
               [](auto& json) { json["weight_map"] = ordered_json::object(); });
  expect_index("tensor model.norm.weight is in 4, expected a file's name",
               [](auto& json) { json["weight_map"]["model.norm.weight"] = 4; });
  expect_index("lists ../" + first + ", expected the name of a *.safetensors in this folder",
               [&](auto& json) { json["weight_map"]["model.norm.weight"] = "../" + first; });
  expect_sharded(
      "FOLDER/" + first +
          ": has no tensor model.norm.weight, which model.safetensors.index.json says it "
          "holds",
      [&](const std::string& folder) {
        change_json(folder + index,
                    [&](auto& json) { json["weight_map"]["model.norm.weight"] = first; });
      });
  expect_sharded(
      "FOLDER/model-00004-of-00004.safetensors: tensor model.norm.weight is not in "
      "model.safetensors.index.json",
      [&](const std::string& folder) {
        change_json(folder + index,
                    [](auto& json) { json["weight_map"].erase("model.norm.weight"); });
      });
  expect_sharded(
      "FOLDER/" + third + ": holds 5 bytes, a safetensors file at least 8",
      [&](const std::string& folder) { write_atomically(folder + "/" + third, "short"); });
  expect_sharded("FOLDER/" + third + ": header length 7521970595947701347, expected 2 to 100000000",
                 [&](const std::string& folder) {
                   write_atomically(folder + "/" + third, "cdefghch and so on");
                 });
  // Without an index every file counts, and no tensor may come twice.
  expect_sharded(
      "FOLDER/more.safetensors: tensor model.norm.weight comes twice",
      [&](const std::string& folder) {
        remove_tree(folder + index);
        write_tensor_file(folder + "/more.safetensors", {{"model.norm.weight", torch::ones({24})}});
      });
  expect_refused("hf-llama", "llama_gqa", "FOLDER: holds no *.safetensors",
                 [](const std::string& folder) { remove_tree(folder + "/model.safetensors"); });
  expect_refused(
      "hf-llama", "llama_gqa",
      "FOLDER/pytorch_model.bin: is a pickle, which can run any program and is not read; save it "
      "as model.safetensors first, in Python: safetensors.torch.save_file({k: v.clone() for k, v "
      "in torch.load(\"pytorch_model.bin\", weights_only=True).items()}, \"model.safetensors\")",
      [](const std::string& folder) {
        rename_file(folder + "/model.safetensors", folder + "/pytorch_model.bin");
      });
  expect_user_error(kExitBadFile, (folder_ / "nowhere") + ": is not a folder", [&] {
    import_model({.format = "hf-llama", .from = folder_ / "nowhere", .to = folder_ / "made"});
  });
}

// What is cut off is found before anything is written.
TEST_F(HfRefusedTest, FilesThatEndTooEarly) {
  const std::string folder = copy_golden("llama_gqa", folder_ / "cut");
  const std::string path = folder + "/model.safetensors", whole = read_text(path);
  write_atomically(path, whole.substr(0, whole.size() - 4));
  const auto data =
      SafetensorsReader(golden_hf("llama_gqa") + "/model.safetensors").entries().back().end;
  expect_user_error(kExitBadFile,
                    path + ": its tensors need " + std::to_string(data) +
                        " bytes of data, the file holds " + std::to_string(data - 4),
                    [&] { open_hf_folder(hf_llama(), folder); });
}

// ---- models of ours that a form has not

TEST_F(HfRefusedTest, WhatAFormCannotExpressIsNamed) {
  const auto expect_not = [&](const std::string& format, const std::string& yaml,
                              const std::string& message) {
    SCOPED_TRACE(message);
    const std::string run = write_tiny_run(folder_ / ("run" + std::to_string(n_cases_++)), yaml);
    const std::string to = folder_ / "made";
    expect_user_error(kExitUsage, message,
                      [&] { export_model({.format = format, .from = run, .to = to}); });
    EXPECT_FALSE(exists(to));
  };
  const std::string llama =
      "{family: transformer, vocab_size: 53, d_model: 24, ffn_dim: 29, n_layers: 1, n_heads: 2, "
      "head_dim: 8";
  const std::string as_llama = " cannot be written as hf-llama, which has ";
  expect_not("hf-llama", llama + ", embedding_scale: true}",
             "model.embedding_scale = true" + as_llama + "embeddings as they are");
  expect_not("hf-llama", llama + ", rope: {base: none}}",
             "model.rope.base = none" + as_llama + "rotary positions");
  expect_not("hf-llama", llama + ", rope: {pairs: interleaved}}",
             "model.rope.pairs = interleaved" + as_llama + "halves");
  expect_not("hf-llama", llama + ", rope: {exponents: inclusive}}",
             "model.rope.exponents = inclusive" + as_llama + "standard");
  expect_not("hf-llama", llama + ", rope: {fraction: 0.5}}",
             "model.rope.fraction = 0.5" + as_llama + "heads rotated as a whole");
  expect_not("hf-llama", llama + ", qkv_bias: true}",
             "model.qkv_bias = true" + as_llama + "projections without biases");
  expect_not("hf-llama", llama + ", qk_norm_eps: 1e-6}",
             "model.qk_norm_eps = 1e-6" + as_llama + "no norms of heads");
  expect_not("hf-gpt-neox", llama + "}",
             "a model of family transformer cannot be written as hf-gpt-neox, which has gpt_neox");
  expect_not("hf-llama",
             "{family: transformer, vocab_size: 53, d_model: 25, ffn_dim: 29, n_layers: 1, "
             "n_heads: 2, head_dim: 8}",
             "model.d_model = 25" + as_llama + "a multiple of n_heads (2)");
  const std::string as_neox = " cannot be written as hf-gpt-neox, which has ";
  expect_not("hf-gpt-neox",
             "{family: gpt_neox, vocab_size: 53, max_positions: 9, d_model: 24, ffn_dim: 29, "
             "n_layers: 1, n_heads: 3, rope: {base: none}}",
             "model.max_positions" + as_neox + "rotary positions only");
  expect_not("hf-gpt-neox",
             "{family: gpt_neox, vocab_size: 53, d_model: 21, ffn_dim: 29, n_layers: 1, n_heads: "
             "3, head_dim: 10, rope: {fraction: 0.4}}",
             "3 heads of 10" + as_neox + "n_heads * head_dim = d_model (21)");
  const std::string as_fla = " cannot be written as fla-yoco, which has ";
  const auto yoco = [](const std::string& self, const std::string& rest) {
    return "{family: yoco, vocab_size: 53, d_model: 24, ffn_dim: 29, self_decoder: {n_layers: 2, "
           "mixers: [" +
           self + "]}, cross_decoder: {n_layers: 1, n_heads: 4, head_dim: 6}" + rest + "}";
  };
  const std::string retention = "{name: gated_retention, n_heads: 3, head_dim: 8}";
  // The official code's windows have interleaved pairs, fla's have halves.
  expect_not("fla-yoco", yoco("{name: sliding_window, n_heads: 3, head_dim: 8}", ""),
             "a sliding window with rope.pairs = interleaved, rope.exponents = inclusive" + as_fla +
                 "halves and standard there");
  expect_not("fla-yoco",
             yoco("{name: sliding_window, n_heads: 3, head_dim: 8, qk_norm_eps: 1e-5}",
                  ", rope: {pairs: halves, exponents: standard}"),
             "a sliding window with qk_norm_eps = 1e-5" + as_fla + "no norms of heads there");
  expect_not("fla-yoco",
             "{family: yoco, vocab_size: 53, d_model: 24, ffn_dim: 29, self_decoder: {n_layers: 2, "
             "mixers: [" +
                 retention +
                 "]}, cross_decoder: {n_layers: 1, n_heads: 4, head_dim: 6, q_norm_eps: 1e-6}}",
             "cross_decoder.q_norm_eps = 1e-6" + as_fla + "1e-5");
  expect_not("fla-yoco", yoco("{name: full_attention, n_heads: 3, head_dim: 8}", ""),
             "mixer full_attention" + as_fla + "gated_retention or sliding_window");
  expect_not("fla-yoco", yoco("{name: gated_retention, n_heads: 3, head_dim: 6}", ""),
             "a self-decoder of 3 heads of 6" + as_fla + "n_heads * head_dim = d_model (24)");
  expect_not("fla-yoco", yoco(retention + ", {name: gated_retention, n_heads: 4, head_dim: 6}", ""),
             "a self-decoder of several mixers" + as_fla + "the same in every layer");
  expect_not("fla-yoco", yoco(retention, ", embedding_scale: false"),
             "model.embedding_scale = false" + as_fla + "embeddings times the root of d_model");
  expect_not("fla-yoco", yoco(retention, ", rope: {pairs: halves}"),
             "rope.pairs = halves of the self-decoder" + as_fla + "interleaved");
}

TEST_F(HfRefusedTest, NumbersThatFloat16HasNotAreRefused) {
  const std::string folder = copy_golden("llama_gqa", folder_ / "theirs");
  auto tensors = folder_tensors(folder);
  tensors["model.norm.weight"][3] = 1e6;
  write_tensor_file(folder + "/model.safetensors", tensors);
  const std::string checkpoint = folder_ / "checkpoint";
  printed([&] { import_model({.format = "hf-llama", .from = folder, .to = checkpoint}); });
  Conversion narrow{.format = "hf-llama", .from = checkpoint, .to = folder_ / "narrow"};
  narrow.dtype = torch::kFloat16;
  expect_user_error(
      kExitUsage,
      "tensor model.norm.weight holds numbers that float16 has not; write bfloat16 or float32",
      [&] { export_model(narrow); });
  EXPECT_FALSE(exists(narrow.to));
  EXPECT_FALSE(exists(narrow.to + ".partial"));
}

}  // namespace
}  // namespace tandem
