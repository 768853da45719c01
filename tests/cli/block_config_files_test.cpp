#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <string_view>

#include "blocktf/block_transformer.h"
#include "blocktf/embedder.h"
#include "blocktf/official_names.h"
#include "blocktf/token_decoder.h"
#include "nn/gpt_neox.h"
#include "nn/rope.h"
#include "nn/transformer.h"
#include "tests/cli/config_files.h"

// Block Transformer and the vanilla models it is compared with: every file of the official trainer
// with its settings, and the parameters counted from the official shapes.

namespace tandem {
namespace {

/// "3x256/8(32,8)": layers, width, heads (channels of one, rotated ones), as the official table has
/// it; the feed-forward where it is not four times the width.
std::string layers_text(const NeoxStackConfig& stack) {
  const int64_t channels = stack.channels_per_head();
  std::string text = fmt::format("{}x{}/{}({},{})", stack.n_layers, stack.d_model, stack.n_heads,
                                 channels, rotated_channels(stack.rope, channels));
  if (stack.ffn_dim != 4 * stack.d_model) text += fmt::format(" ffn {}", stack.ffn_dim);
  return text;
}

std::string encoder_text(const EncoderConfig& encoder) {
  return fmt::format("{}x{}/{} ffn {}", encoder.n_layers, encoder.d_embed, encoder.n_heads,
                     encoder.ffn_dim);
}

std::string embedder_text(const Choice& embedder) {
  if (embedder.name == "lookup") {
    const auto& config = embedder.as<LookupEmbedderConfig>();
    return fmt::format("lookup {} {}", config.d_embed.value(), config.combine);
  }
  if (embedder.name == "encoder")
    return "encoder " + encoder_text(embedder.as<EncoderEmbedderConfig>());
  const auto& config = embedder.as<ClsEmbedderConfig>();
  return fmt::format("cls {} {}", config.n_cls, encoder_text(config));
}

std::string token_decoder_text(const Choice& decoder) {
  if (decoder.name == "prefix") {
    const auto& config = decoder.as<PrefixDecoderConfig>();
    return fmt::format("{} prefix {}", layers_text(config.stack.as<NeoxStackConfig>()),
                       config.prefix_length);
  }
  if (decoder.name == "summation") {
    const auto& config = decoder.as<SummationDecoderConfig>();
    return layers_text(config.stack.as<NeoxStackConfig>()) + " summation";
  }
  const auto& config = decoder.as<CrossAttentionDecoderConfig>();
  return fmt::format("{}x{}/{}({}) ffn {} cross_attention", config.n_layers, config.d_model,
                     config.n_heads, config.head_dim, config.ffn_dim);
}

std::string model_text(const Choice& model) {
  if (model.name == "gpt_neox") return layers_text(model.as<GptNeoxConfig>());
  const auto& config = model.as<BlockTransformerConfig>();
  return fmt::format("L {}{}; {}; {}; {}", config.block_length,
                     config.pad_documents ? "" : " no pads", embedder_text(config.embedder),
                     layers_text(config.block_decoder.as<NeoxStackConfig>()),
                     token_decoder_text(config.token_decoder));
}

struct OfficialModel {
  std::string name, text;
  double lr;
  int64_t batch, schedule, stop, warmup, save, micro_batch;
  int64_t core, used, stored;  // without embeddings and head; of the model; in the official file
};

const std::string k5 = "3x256/8(32,8)", k19 = "3x512/8(64,16)", k85 = "6x768/12(64,16)",
                  k300 = "12x1024/16(64,16)", k800 = "8x2048/16(128,32)",
                  k1200 = "12x2048/16(128,32)", k800Uptrained = "8x2048/8(256,64)",
                  kEncoder = "3x256/8 ffn 1024";
const OfficialModel kOfficialModels[] = {
    {"block_main_b4_5", "L 4; lookup 64 concat; " + k5 + "; " + k5 + " prefix 2", 1e-3, 256, 572000,
     572000, 3000, 10000, 32, 4'871'168, 33'846'272, 46'724'096},
    {"block_main_b4_19", "L 4; lookup 128 concat; " + k19 + "; " + k19 + " prefix 2", 1e-3, 256,
     572000, 572000, 3000, 10000, 32, 19'441'664, 77'391'872, 103'147'520},
    {"block_main_b4_85", "L 4; lookup 192 concat; " + k85 + "; " + k85 + " prefix 2", 6e-4, 256,
     572000, 572000, 3000, 10000, 8, 86'238'720, 173'164'032, 211'797'504},
    {"block_main_b4_300", "L 4 no pads; lookup 256 concat; " + k300 + "; " + k300 + " prefix 2",
     3e-4, 256, 572000, 572000, 3000, 10000, 8, 304'412'672, 420'313'088, 471'824'384},
    {"block_main_b4_800", "L 4 no pads; lookup 512 concat; " + k800 + "; " + k800 + " prefix 2",
     3e-4, 512, 286000, 286000, 1500, 5000, 16, 814'133'248, 1'045'934'080, 1'148'956'672},
    {"block_main_b4_1.2b", "L 4 no pads; lookup 512 concat; " + k1200 + "; " + k1200 + " prefix 2",
     2e-4, 512, 286000, 286000, 1500, 5000, 16, 1'216'999'424, 1'448'800'256, 1'551'822'848},
    {"block_main_b4_85_flop_v70",
     "L 4 no pads; lookup 192 concat; " + k85 + "; " + k85 + " prefix 2", 6e-4, 256, 266317, 266317,
     3000, 10000, 16, 86'238'720, 173'164'032, 211'797'504},
    {"block_main_b4_300_flop_v70",
     "L 4 no pads; lookup 256 concat; " + k300 + "; " + k300 + " prefix 2", 3e-4, 256, 98120, 98120,
     3000, 8000, 8, 304'412'672, 420'313'088, 471'824'384},
    {"block_main_b4_800_flop_v70",
     "L 4 no pads; lookup 512 concat; " + k800 + "; " + k800 + " prefix 2", 3e-4, 512, 19300, 19300,
     1500, 5000, 16, 814'133'248, 1'045'934'080, 1'148'956'672},
    {"block_main_b4_1.2b_flop_v70",
     "L 4 no pads; lookup 512 concat; " + k1200 + "; " + k1200 + " prefix 2", 2e-4, 512, 13530,
     13530, 1500, 4000, 16, 1'216'999'424, 1'448'800'256, 1'551'822'848},
    {"block_uptrain_b4_85_10", "L 4; lookup 768 projection; " + k85 + "; " + k85 + " prefix 2",
     6e-4, 256, 57200, 57200, 3000, 5000, 16, 88'598'784, 204'499'200, 243'132'672},
    {"block_uptrain_b4_300_10", "L 4; lookup 1024 projection; " + k300 + "; " + k300 + " prefix 2",
     3e-4, 256, 57200, 57200, 3000, 5000, 8, 308'608'000, 463'141'888, 514'653'184},
    // 16 heads in the official config, which are not those of its source
    {"block_uptrain_b4_800_10",
     "L 4; lookup 2048 projection; " + k800Uptrained + "; " + k800Uptrained + " prefix 2", 3e-4,
     512, 28600, 28600, 1500, 1250, 8, 830'912'512, 1'139'980'288, 1'243'002'880},
    {"block_uptrain_b4_800_10_official",
     "L 4; lookup 2048 projection; " + k800 + "; " + k800 + " prefix 2", 3e-4, 512, 28600, 28600,
     1500, 1250, 8, 830'912'512, 1'139'980'288, 1'243'002'880},
    {"block_megabyte_b4_5", "L 4 no pads; lookup 64 concat; 5x256/8(32,8); 4x128/4(32,8) summation",
     1e-3, 256, 572000, 572000, 3000, 10000, 32, 4'874'240, 20'971'520, 33'849'344},
    {"block_megabyte_b4_19",
     "L 4 no pads; lookup 128 concat; 5x512/8(64,16); 4x256/8(32,8) summation", 1e-3, 256, 572000,
     572000, 3000, 10000, 16, 19'447'808, 51'642'368, 77'398'016},
    {"block_megabyte_b4_85",
     "L 4 no pads; lookup 192 concat; 11x768/12(64,16); 4x512/8(64,16) summation", 6e-4, 256,
     572000, 572000, 3000, 10000, 32, 92'153'600, 153'323'264, 191'956'736},
    {"block_ablation_b4_85_lookup_prefix",
     "L 4 no pads; lookup 192 concat; " + k85 + "; " + k85 + " prefix 1", 6e-4, 256, 572000, 20000,
     3000, 5000, 16, 85'648'128, 172'573'440, 211'206'912},
    {"block_ablation_b4_85_roberta_prefix",
     "L 4 no pads; encoder " + kEncoder + "; " + k85 + "; " + k85 + " prefix 1", 6e-4, 256, 572000,
     20000, 3000, 5000, 16, 88'804'608, 179'081'728, 217'715'200},
    {"block_ablation_b4_85_cls_sum",
     "L 4 no pads; cls 3 " + kEncoder + "; " + k85 + "; " + k85 + " summation", 6e-4, 256, 572000,
     50000, 3000, 5000, 16, 90'379'776, 180'656'896, 219'290'368},
    {"block_ablation_b4_85_cls_cross_attn",
     "L 4 no pads; cls 3 " + kEncoder + "; " + k85 + "; 6x768/12(64) ffn 3072 cross_attention",
     6e-4, 256, 572000, 50000, 3000, 5000, 32, 104'489'088, 156'132'736, 272'033'152},
    {"block_vanilla_ablation_b1_85", "L 1; lookup 768 concat; " + k85 + "; " + k85 + " prefix 1",
     6e-4, 256, 572000, 572000, 3000, 5000, 16, 85'648'128, 201'548'544, 240'182'016},
    {"vanilla_31", "6x256/8(32,8) ffn 4096", 1e-3, 256, 572000, 572000, 3000, 10000, 32, 14'194'688,
     39'950'336, 39'950'336},
    // as its name says; 9,455,616 less for three quarters of the feed-forward
    {"vanilla_31_ffn1024", "6x256/8(32,8)", 1e-3, 256, 572000, 572000, 3000, 10000, 32, 4'739'072,
     30'494'720, 30'494'720},
    {"vanilla_70", "6x512/8(64,16)", 1e-3, 256, 572000, 572000, 3000, 10000, 8, 18'915'328,
     70'426'624, 70'426'624},
    {"vanilla_160", "12x768/12(64,16)", 6e-4, 256, 572000, 572000, 3000, 10000, 8, 85'056'000,
     162'322'944, 162'322'944},
    {"vanilla_410", "24x1024/16(64,16)", 3e-4, 256, 572000, 572000, 3000, 10000, 8, 302'311'424,
     405'334'016, 405'334'016},
};

/// Of a block or vanilla model without tables of embeddings, what the encoder adds and normalises
/// them with, and the head.
int64_t count_core(const Choice& model) {
  constexpr std::string_view kOutside[] = {
      "embedding.",          "position_embedding.",          "head.",
      "embedder.embedding.", "embedder.position_embedding.", "embedder.type_embedding.",
      "embedder.norm.",      "token_decoder.embedding.",     "token_decoder.head."};
  int64_t sum = 0;
  for (const auto& info : parameters_info(*model_factory().build(model))) {
    const bool outside =
        std::any_of(std::begin(kOutside), std::end(kOutside),
                    [&](std::string_view prefix) { return info.name.starts_with(prefix); });
    if (!outside) sum += info.numel();
  }
  return sum;
}

int64_t count_stored(const Choice& model) {
  const auto tensors = model.name == "gpt_neox"
                           ? official_tensors(model.as<GptNeoxConfig>())
                           : official_tensors(model.as<BlockTransformerConfig>());
  int64_t sum = 0;
  for (const auto& tensor : tensors)
    sum +=
        std::accumulate(tensor.shape.begin(), tensor.shape.end(), int64_t{1}, std::multiplies<>());
  return sum;
}

TEST(BlockConfigFilesTest, EveryOfficialBlockTransformerIsThere) {
  for (const auto& official : kOfficialModels) {
    SCOPED_TRACE(official.name);
    const auto config = read(path_of(official.name));
    EXPECT_EQ(model_text(config.model), official.text);
    EXPECT_EQ(count_core(config.model), official.core);
    EXPECT_EQ(count(config.model), official.used);
    EXPECT_EQ(count_stored(config.model), official.stored);
  }
}

TEST(BlockConfigFilesTest, OfficialBlockTransformersHaveTheirRecipe) {
  for (const auto& official : kOfficialModels) {
    SCOPED_TRACE(official.name);
    const auto config = read(path_of(official.name));
    const auto& training = config.training;
    EXPECT_EQ(training.context_length, 2048);
    EXPECT_EQ(training.tokens_per_step, official.batch * 2048);
    EXPECT_EQ(training.micro_batch_size, official.micro_batch);
    EXPECT_EQ(training.steps, official.stop);
    EXPECT_EQ(training.dtype, "bfloat16");
    EXPECT_EQ(config.optimizer.lr, official.lr);
    EXPECT_EQ(config.optimizer.betas, (std::vector<double>{0.9, 0.95}));
    EXPECT_EQ(config.optimizer.eps, 1e-8);
    EXPECT_EQ(config.optimizer.clip_norm, 1);
    ASSERT_EQ(config.optimizer.groups.size(), 1u);  // all of the model decays
    EXPECT_EQ(config.optimizer.groups[0].parameters, std::vector<std::string>{"*"});
    EXPECT_EQ(config.optimizer.groups[0].weight_decay, 0.1);
    const auto& schedule = config.lr_schedule;
    EXPECT_EQ(schedule.name, "cosine");
    EXPECT_EQ(schedule.warmup_steps, official.warmup);
    EXPECT_EQ(schedule.steps.value_or(training.steps), official.schedule);
    EXPECT_DOUBLE_EQ(schedule.min_lr, official.lr / 10);
    EXPECT_EQ(config.checkpoint.every, official.save);
  }
}

TEST(BlockConfigFilesTest, UptrainingTakesHalvesOfAVanillaModel) {
  const std::pair<std::string, std::string> kPairs[] = {{"block_uptrain_b4_85_10", "vanilla_160"},
                                                        {"block_uptrain_b4_300_10", "vanilla_410"}};
  for (const auto& [name, source_name] : kPairs) {
    SCOPED_TRACE(name);
    const auto config = read(path_of(name)), source = read(path_of(source_name));
    ASSERT_TRUE(config.init.has_value());
    EXPECT_EQ(config.init->as, "uptrain");
    EXPECT_EQ(config.init->from, "runs/" + source_name);
    const auto& model = config.model.as<BlockTransformerConfig>();
    auto whole = model.block_decoder.as<NeoxStackConfig>();
    const auto& upper = model.token_decoder.as<PrefixDecoderConfig>().stack.as<NeoxStackConfig>();
    EXPECT_EQ(layers_text(whole), layers_text(upper));
    whole.n_layers += upper.n_layers;
    EXPECT_EQ(layers_text(whole), layers_text(source.model.as<GptNeoxConfig>()));
    EXPECT_EQ(model.vocab_size, source.model.as<GptNeoxConfig>().vocab_size);
  }
  const auto from_pythia = read(path_of("block_uptrain_b4_800_10"));
  ASSERT_TRUE(from_pythia.init.has_value());
  EXPECT_EQ(from_pythia.init->as, "uptrain");
  EXPECT_FALSE(read(path_of("block_uptrain_b4_800_10_official")).init.has_value());
}

TEST(BlockConfigFilesTest, ABlockDecoderOfYocoHasAsManyParameters) {
  const Choice yoco = read(path_of("block_yoco_b4_85")).model,
               main = read(path_of("block_main_b4_85")).model;
  EXPECT_EQ(yoco.as<BlockTransformerConfig>().block_decoder.name, "yoco");
  EXPECT_EQ(token_decoder_text(yoco.as<BlockTransformerConfig>().token_decoder),
            token_decoder_text(main.as<BlockTransformerConfig>().token_decoder));
  const auto ratio = static_cast<double>(count_core(yoco)) / static_cast<double>(count_core(main));
  EXPECT_NEAR(ratio, 1, 0.001);
}

TEST(BlockConfigFilesTest, Gpt2HasItsShape) {
  const auto config = read(path_of("gpt2_124m"));
  EXPECT_EQ(count(config.model), 124'439'808);  // as the released one
  const auto& model = config.model.as<GptNeoxConfig>();
  EXPECT_FALSE(model.parallel_residual);
  EXPECT_FALSE(model.rope.base.has_value());
  EXPECT_EQ(model.activation, "gelu_tanh");
  EXPECT_EQ(model.max_positions, config.training.context_length);
}

TEST(BlockConfigFilesTest, TheQuickstartsBlockTransformersFitItsTransformer) {
  const auto transformer = read(path_of("quickstart/transformer")),
             equal = read(path_of("quickstart/block_transformer")),
             uptrained = read(path_of("quickstart/block_transformer_uptrain"));
  const auto parameters = static_cast<double>(count(transformer.model));
  EXPECT_NEAR(static_cast<double>(count(equal.model)) / parameters, 1, 0.01);
  for (const auto* config : {&equal, &uptrained}) {
    EXPECT_EQ(config->training.context_length, transformer.training.context_length);
    EXPECT_EQ(config->training.tokens_per_step, transformer.training.tokens_per_step);
    EXPECT_EQ(config->optimizer.lr, transformer.optimizer.lr);
    EXPECT_EQ(config->validation.tokens, transformer.validation.tokens);
  }
  EXPECT_EQ(equal.training.steps, transformer.training.steps);

  const auto& source = transformer.model.as<TransformerConfig>();
  const auto& model = uptrained.model.as<BlockTransformerConfig>();
  const auto& lower = model.block_decoder.as<LayerStackConfig>();
  const auto& upper = model.token_decoder.as<PrefixDecoderConfig>().stack.as<LayerStackConfig>();
  EXPECT_EQ(lower.n_layers + upper.n_layers, source.n_layers);
  for (const auto* half : {&lower, &upper}) {
    EXPECT_EQ(half->d_model, source.d_model);
    EXPECT_EQ(half->ffn_dim, source.ffn_dim);
    EXPECT_EQ(half->n_heads, source.n_heads);
    EXPECT_EQ(half->head_dim, source.head_dim);
  }
}

}  // namespace
}  // namespace tandem
