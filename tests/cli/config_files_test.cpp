#include "tests/cli/config_files.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <map>
#include <set>

#include "core/file.h"
#include "nn/full_attention.h"
#include "nn/gated_retention.h"
#include "nn/parameter.h"
#include "nn/sliding_window_attention.h"
#include "nn/transformer.h"
#include "yoco/hybrid.h"
#include "yoco/yoco.h"

// The configs that come with tandem against the numbers of the papers.

namespace tandem {
namespace {

// ---- the formulas of the paper's layers (YOCO: gRet 5 d^2 + d h + 3 d f, windows 4 d^2 + 3 d f,
// cross 2 d^2 + 3 d f, shared 2 d h_kv d_h)

int64_t mixer_elements(const Choice& mixer, int64_t d) {
  const auto attention = [d](int64_t n_kv_heads, int64_t head_dim) {
    return 2 * d * d + 2 * d * n_kv_heads * head_dim;
  };
  if (mixer.name == "gated_retention")
    return 5 * d * d + d * mixer.as<GatedRetentionConfig>().n_heads;
  if (mixer.name == "retention") return 5 * d * d;
  if (mixer.name == "sliding_window") {
    const auto& config = mixer.as<SlidingWindowConfig>();
    return attention(config.n_kv_heads.value_or(config.n_heads), config.head_dim);
  }
  TORCH_CHECK(mixer.name == "full_attention", "no formula for ", mixer.name);
  const auto& config = mixer.as<FullAttentionConfig>();
  return attention(config.n_kv_heads.value_or(config.n_heads), config.head_dim);
}

/// Layers whose mixers repeat a pattern, with two norms each.
int64_t layer_elements(const std::vector<Choice>& mixers, int64_t n_layers, int64_t d, int64_t f) {
  int64_t sum = 0;
  for (int64_t i = 0; i < n_layers; ++i)
    sum += mixer_elements(mixers[i % mixers.size()], d) + 3 * d * f + 2 * d;
  return sum;
}

struct Formula {
  int64_t outside_embeddings = 0, embeddings = 0;
  int64_t total() const { return outside_embeddings + embeddings; }
};

template <typename Config>
int64_t embedding_elements(const Config& config) {
  return (config.tie_embeddings ? 1 : 2) * config.vocab_size.value() * config.d_model;
}

Formula formula(const Choice& model) {
  if (model.name == "yoco") {
    const auto& config = model.as<YocoConfig>();
    const auto& cross = config.cross_decoder;
    const int64_t d = config.d_model, f = config.ffn_dim;
    const int64_t shared = 2 * d * cross.n_kv_heads.value_or(cross.n_heads) * cross.head_dim;
    const int64_t norms = 2 * d;  // of the shared keys and values, and the last
    const int64_t cross_layers = cross.n_layers * (2 * d * d + 3 * d * f + 2 * d);
    return {layer_elements(config.self_decoder.mixers, config.self_decoder.n_layers, d, f) +
                shared + cross_layers + norms,
            embedding_elements(config)};
  }
  if (model.name == "hybrid") {
    const auto& config = model.as<HybridConfig>();
    return {layer_elements(config.mixers, config.n_layers, config.d_model, config.ffn_dim) +
                config.d_model,
            embedding_elements(config)};
  }
  TORCH_CHECK(model.name == "transformer", "no formula for ", model.name);
  const auto& config = model.as<TransformerConfig>();
  const int64_t d = config.d_model,
                kv = config.n_kv_heads.value_or(config.n_heads) * config.head_dim;
  return {config.n_layers * (2 * d * d + 2 * d * kv + 3 * d * config.ffn_dim + 2 * d) + d,
          embedding_elements(config)};
}

const std::set<std::string> kFamiliesWithFormula = {"yoco", "hybrid", "transformer"};

TEST(ConfigFilesTest, EveryFileReadsBuildsAndHasTheParametersOfTheFormula) {
  int64_t compared = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(kConfigFolder)) {
    if (entry.path().extension() != ".yaml") continue;
    const auto folder = entry.path().parent_path().filename();  // these have tests of their own
    if (folder == "sweeps" || folder == "tasks") continue;
    SCOPED_TRACE(entry.path().string());
    TrainConfig config = read(entry.path().string());
    model_factory().set_vocab_size(config.model,
                                   256);  // where it is the tokenizer's: that of bytes
    const int64_t parameters = count(config.model);
    EXPECT_GT(parameters, 0);
    EXPECT_FALSE(config.data.train.empty());
    EXPECT_TRUE(settings_without_effect(config).empty());
    if (!kFamiliesWithFormula.contains(config.model.name)) continue;
    EXPECT_EQ(parameters, formula(config.model).total());
    ++compared;
  }
  EXPECT_GE(compared, 34);
}

// ---- the scaling curves

struct Size {
  std::string name;
  int64_t d_model, n_layers, n_heads;
  double lr;
};
const Size kSizes[] = {{"160m", 768, 12, 12, 1.5e-4},  {"400m", 1024, 24, 16, 1.5e-4},
                       {"830m", 1536, 24, 12, 1.5e-4}, {"1.4b", 2048, 24, 16, 1.5e-4},
                       {"2.7b", 2560, 32, 20, 7.5e-5}, {"6.8b", 4096, 32, 32, 7.5e-5},
                       {"13b", 5120, 40, 40, 7.5e-5}};

void expect_scaling_recipe(const TrainConfig& config, double lr) {
  EXPECT_EQ(config.training.context_length, 2048);
  EXPECT_EQ(config.training.tokens_per_step, 1 << 18);
  EXPECT_EQ(config.training.steps, 40000);
  EXPECT_EQ(config.optimizer.lr, lr);
  EXPECT_EQ(config.optimizer.betas, (std::vector<double>{0.9, 0.98}));
  EXPECT_EQ(config.optimizer.weight_decay, 0.05);
  EXPECT_EQ(config.lr_schedule.name, "linear");
  EXPECT_EQ(config.lr_schedule.warmup_steps, 375);
}

TEST(ConfigFilesTest, EverySizeOfTheScalingCurvesIsThere) {
  for (const auto& size : kSizes) {
    SCOPED_TRACE(size.name);
    const bool tied = size.name == "160m";
    const auto retention = read(path_of("yoco_" + size.name)),
               window = read(path_of("yoco_" + size.name + "_swa")),
               transformer = read(path_of("transformer_" + size.name));
    for (const auto* config : {&retention, &window}) {
      expect_scaling_recipe(*config, size.lr);
      const auto& model = config->model.as<YocoConfig>();
      EXPECT_EQ(model.d_model, size.d_model);
      EXPECT_EQ(model.ffn_dim, 3 * size.d_model);
      EXPECT_EQ(model.tie_embeddings, tied);
      EXPECT_EQ(model.self_decoder.n_layers, size.n_layers / 2);
      EXPECT_EQ(model.cross_decoder.n_layers, size.n_layers / 2);
      EXPECT_EQ(model.cross_decoder.n_heads, size.n_heads);
      EXPECT_EQ(model.cross_decoder.head_dim, size.d_model / size.n_heads);
    }
    const auto& heads =
        retention.model.as<YocoConfig>().self_decoder.mixers.at(0).as<GatedRetentionConfig>();
    EXPECT_EQ(heads.head_dim, 256);
    EXPECT_EQ(heads.n_heads, size.d_model / 256);
    const auto& windows =
        window.model.as<YocoConfig>().self_decoder.mixers.at(0).as<SlidingWindowConfig>();
    EXPECT_EQ(windows.window, 1024);
    EXPECT_EQ(windows.n_heads, size.n_heads);
    EXPECT_EQ(windows.head_dim, size.d_model / size.n_heads);

    expect_scaling_recipe(transformer, size.lr);
    const auto& baseline = transformer.model.as<TransformerConfig>();
    EXPECT_EQ(baseline.d_model, size.d_model);
    EXPECT_EQ(baseline.n_layers, size.n_layers);
    EXPECT_EQ(baseline.n_heads, size.n_heads);
    EXPECT_EQ(baseline.head_dim, size.d_model / size.n_heads);
    EXPECT_EQ(baseline.tie_embeddings, tied);
  }
}

TEST(ConfigFilesTest, TheTransformersFeedForwardIsRoundedAsItsCommentSays) {
  for (const auto& size : kSizes) {
    SCOPED_TRACE(size.name);
    const std::string path = path_of("transformer_" + size.name);
    const Choice model = read(path).model;
    const int64_t d = size.d_model, f = model.as<TransformerConfig>().ffn_dim;
    EXPECT_EQ(f, (8 * d + 383) / 384 * 128);  // 8 d / 3 rounded up to a multiple of 128
    const Formula built = formula(model);
    const double added = static_cast<double>(
        size.n_layers * d * (3 * f - 8 * d));  // by rounding: three matrices a layer
    const double outside = added / (static_cast<double>(built.outside_embeddings) - added),
                 all = added / (static_cast<double>(built.total()) - added);
    EXPECT_LT(all, 0.02);
    char comment[64];
    std::snprintf(comment, sizeof comment, "%.2f %% more parameters beside the embeddings",
                  100 * outside);
    EXPECT_EQ(read_text(path).find(comment) != std::string::npos, f * 3 != 8 * d) << comment;
  }
}

double outside_embeddings(const std::string& name) {
  return static_cast<double>(formula(read(path_of(name)).model).outside_embeddings);
}

TEST(ConfigFilesTest, ParametersOfThe160MModelsAreAsNearAsThePaperHasThem) {
  const double transformer = outside_embeddings("transformer_160m"),
               yoco = outside_embeddings("yoco_160m");
  EXPECT_NEAR(yoco / transformer, 1.056, 5e-4);
  EXPECT_NEAR(outside_embeddings("yoco_160m_swa") / transformer, 1.014, 5e-4);
  EXPECT_EQ(outside_embeddings("retnet_160m"), transformer);  // 5 d^2 + 7 d^2 = 4 d^2 + 8 d^2
  EXPECT_EQ(outside_embeddings("gretnet_160m"), transformer + 12 * 768 * 3);  // and its gates
  EXPECT_NEAR(outside_embeddings("h3_160m") / transformer, 1 - 0.014, 5e-4);  // as its comment says
  EXPECT_NEAR(outside_embeddings("hybrid_160m") / yoco, 1 - 0.013, 5e-4);     // as its comment says
  EXPECT_EQ(outside_embeddings("yoco_160m_unstacked"), yoco);
}

TEST(ConfigFilesTest, The160MTableHasItsArchitecturesAndLayouts) {
  for (const char* name :
       {"retnet_160m", "gretnet_160m", "h3_160m", "hybrid_160m", "yoco_160m_3to1", "yoco_160m_1to3",
        "yoco_160m_0to1", "yoco_160m_unstacked"}) {
    SCOPED_TRACE(name);
    const auto config = read(path_of(name));
    expect_scaling_recipe(config, 1.5e-4);
    EXPECT_NE(read_text(path_of(name)).find("\n  tie_embeddings: true\n"), std::string::npos);
  }
  const auto mixers_of = [](const std::string& name) {
    const TrainConfig config = read(path_of(name));
    const auto& model = config.model.as<HybridConfig>();
    std::string letters;
    for (int64_t i = 0; i < model.n_layers; ++i)
      letters += model.mixers[i % model.mixers.size()].name[0];
    return letters;
  };
  EXPECT_EQ(mixers_of("retnet_160m"), "rrrrrrrrrrrr");
  EXPECT_EQ(mixers_of("gretnet_160m"), "gggggggggggg");
  EXPECT_EQ(mixers_of("h3_160m"), "rfrrrrfrrrrr");  // full attention in layers 2 and L / 2 + 1
  EXPECT_EQ(mixers_of("hybrid_160m"), "gfgfgfgfgfgf");
  const auto layout_of = [](const std::string& name) {
    const TrainConfig config = read(path_of(name));
    const auto& model = config.model.as<YocoConfig>();
    return std::to_string(model.self_decoder.n_layers) + ":" +
           std::to_string(model.cross_decoder.n_layers) + " " + model.cross_decoder.input;
  };
  EXPECT_EQ(layout_of("yoco_160m"), "6:6 self_decoder");
  EXPECT_EQ(layout_of("yoco_160m_3to1"), "9:3 self_decoder");
  EXPECT_EQ(layout_of("yoco_160m_1to3"), "3:9 self_decoder");
  EXPECT_EQ(layout_of("yoco_160m_0to1"), "0:12 self_decoder");
  EXPECT_EQ(layout_of("yoco_160m_unstacked"), "6:6 embeddings");
}

// ---- YOCO-3B

TEST(ConfigFilesTest, Yoco3BHasThePapersParameters) {
  const auto config = read(path_of("yoco_3b"));
  EXPECT_EQ(count(config.model), 3'445'303'296);
  EXPECT_EQ(formula(config.model).outside_embeddings, 2'829'133'824);  // "2.83B"
}

TEST(ConfigFilesTest, Yoco3BHasThePapersRecipe) {
  const auto config = read(path_of("yoco_3b"));
  EXPECT_EQ(config.optimizer.lr, 3.2e-4);
  EXPECT_EQ(config.optimizer.betas, (std::vector<double>{0.9, 0.95}));
  EXPECT_EQ(config.optimizer.weight_decay, 0.1);
  EXPECT_EQ(config.lr_schedule.name, "linear");
  EXPECT_EQ(config.lr_schedule.warmup_steps, 1000);
  EXPECT_EQ(config.lr_schedule.min_lr, 1.28e-5);
  EXPECT_EQ(config.lr_schedule.steps,
            5'000'000'000'000 / (4096 * 1024) + 1);  // 5T tokens of 4M a step
  EXPECT_EQ(config.training.steps, 400'000);
  EXPECT_EQ(config.training.context_length, 4096);
  EXPECT_EQ(config.training.tokens_per_step, 4096 * 1024);
}

TEST(ConfigFilesTest, Yoco3BGrowsTo1MInThePapersStages) {
  const auto shapes_of = [](const Choice& model) {
    std::map<std::string, std::vector<int64_t>> shapes;
    for (const auto& info : parameters_info(*model_factory().build(model)))
      shapes[info.name] = info.global_shape;
    return shapes;
  };
  ConfigNode root = parse_yaml_file(path_of("yoco_3b_1m"));
  const TrainConfig whole = read_node(root), start = read(path_of("yoco_3b"));
  ASSERT_TRUE(whole.init.has_value());
  EXPECT_EQ(whole.init->as, "weights");
  EXPECT_EQ(root.find("training")->find("steps"), nullptr);

  struct Expected {
    int64_t context_length;
    double lr, base, tokens;
  };
  const Expected stages[] = {
      {65536, 8e-5, 640e3, 6e9}, {262144, 4e-5, 5e6, 4e9}, {1048576, 2e-5, 80e6, 1.5e9}};
  ASSERT_EQ(whole.stages.items.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    SCOPED_TRACE("stage " + std::to_string(i));
    ConfigNode changes = whole.stages.items[i];
    const auto steps = std::stoll(changes.find("steps")->scalar);
    std::erase_if(changes.entries, [](const auto& entry) { return entry.first == "steps"; });
    root = merge(root, changes);
    const TrainConfig stage = read_node(root);
    EXPECT_EQ(stage.training.context_length, stages[i].context_length);
    EXPECT_EQ(stage.training.tokens_per_step, start.training.tokens_per_step);
    EXPECT_EQ(stage.optimizer.lr, stages[i].lr);
    EXPECT_EQ(stage.model.as<YocoConfig>().rope.base, stages[i].base);
    EXPECT_EQ(steps,
              std::ceil(stages[i].tokens / static_cast<double>(stage.training.tokens_per_step)));
    EXPECT_EQ(shapes_of(stage.model), shapes_of(start.model));
  }
}

}  // namespace
}  // namespace tandem
