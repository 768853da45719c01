#include "blocktf/embedder.h"

#include <cmath>
#include <limits>
#include <map>

#include "nn/recomputing_runner.h"
#include "tests/nn/helpers.h"

namespace tandem {
namespace {

using Weights = std::map<std::string, Tensor>;

constexpr int64_t kVocab = 11;
constexpr int64_t kModel = 7;  // H, where the embedder projects

Choice choice_of(const std::string& kind) {
  Choice choice;
  choice.options = embedder_options();
  choice.key = "kind";
  choice.pick(kind);
  return choice;
}

void set_encoder(EncoderConfig& config) {
  config.d_embed = 6;
  config.n_layers = 2;
  config.n_heads = 3;
  config.head_dim = 5;
  config.ffn_dim = 9;
  config.norm_eps = 1e-3;
  config.max_positions = 13;
}

struct Case {
  std::string name;
  std::string kind;
  int64_t block_length;
  std::string combine = "";
};

Choice choice_of(const Case& c) {
  Choice choice = choice_of(c.kind);
  if (c.kind == "lookup") {
    choice.as<LookupEmbedderConfig>().d_embed = 5;
    choice.as<LookupEmbedderConfig>().combine = c.combine;
  } else if (c.kind == "encoder") {
    set_encoder(choice.as<EncoderEmbedderConfig>());
  } else {
    set_encoder(choice.as<ClsEmbedderConfig>());
    choice.as<ClsEmbedderConfig>().n_cls = 2;
  }
  return choice;
}

EmbedderSpec spec_of(const Case& c) {
  return {kVocab, c.block_length, c.combine == "concat" ? 5 * c.block_length : kModel};
}

// ---- the same in plain arithmetic, one block at a time

// A row of a table; without a gradient where it is the frozen one.
Tensor row(const Tensor& table, int64_t i, int64_t frozen = -1) {
  return i == frozen ? table.detach()[i] : table[i];
}

Tensor apply(const Weights& w, const std::string& name, const Tensor& x) {
  return torch::mv(w.at(name + ".weight"), x) + w.at(name + ".bias");
}

Tensor layer_norm(const Weights& w, const std::string& name, const Tensor& x, double eps) {
  const Tensor centred = x - x.mean();
  return centred / torch::sqrt(centred.square().mean() + eps) * w.at(name + ".weight") +
         w.at(name + ".bias");
}

Tensors encoder_layer(const EncoderConfig& config, const Weights& w, const std::string& at,
                      const Tensors& x, const std::vector<bool>& real) {
  const int64_t head_dim = *config.head_dim;
  const auto head = [&](const char* name, size_t i, int64_t h) {
    return apply(w, at + name, x[i]).narrow(0, h * head_dim, head_dim);
  };
  Tensors out;
  for (size_t i = 0; i < x.size(); ++i) {
    Tensors heads;
    for (int64_t h = 0; h < config.n_heads; ++h) {
      Tensors scores;
      for (size_t j = 0; j < x.size(); ++j) {
        scores.push_back(torch::dot(head("q_proj", i, h), head("k_proj", j, h)) /
                             std::sqrt(static_cast<double>(head_dim)) +
                         (real[j] ? 0.0 : std::numeric_limits<double>::lowest()));
      }
      const Tensor all = torch::stack(scores), shares = torch::exp(all - all.max().detach());
      Tensor mixed = torch::zeros({head_dim}, torch::kFloat64);
      for (size_t j = 0; j < x.size(); ++j) {
        mixed = mixed + shares[static_cast<int64_t>(j)] / shares.sum() * head("v_proj", j, h);
      }
      heads.push_back(mixed);
    }
    const Tensor h = layer_norm(w, at + "attention_norm",
                                x[i] + apply(w, at + "o_proj", torch::cat(heads)), config.norm_eps);
    const Tensor up = apply(w, at + "up_proj", h);
    const Tensor gelu = up * 0.5 * (1 + torch::erf(up / std::sqrt(2.0)));
    out.push_back(
        layer_norm(w, at + "ffn_norm", h + apply(w, at + "down_proj", gelu), config.norm_eps));
  }
  return out;
}

// ids, real: of one block. -> [H]
Tensor encoder_reference(const EncoderConfig& config, int64_t n_cls, const Weights& w,
                         std::vector<int64_t> ids, std::vector<bool> real) {
  ids.insert(ids.begin(), static_cast<size_t>(n_cls), 0);
  real.insert(real.begin(), static_cast<size_t>(n_cls), true);
  Tensors x;
  int64_t last = 1;
  for (const int64_t id : ids) {
    const int64_t position = id == 1 ? 1 : ++last;
    x.push_back(layer_norm(w, "norm",
                           row(w.at("embedding.weight"), id, 1) + w.at("type_embedding.weight")[0] +
                               row(w.at("position_embedding.weight"), position, 1),
                           config.norm_eps));
  }
  for (int64_t i = 0; i < config.n_layers; ++i) {
    x = encoder_layer(config, w, "layers." + std::to_string(i) + ".", x, real);
  }
  if (n_cls > 0) x.resize(static_cast<size_t>(n_cls));
  return apply(w, "projection", torch::cat(x));
}

Tensor reference(const Case& c, const Weights& w, const std::vector<int64_t>& ids,
                 const std::vector<bool>& real) {
  if (c.kind == "lookup") {
    Tensors rows;
    for (const int64_t id : ids) rows.push_back(row(w.at("embedding.weight"), id));
    const Tensor joined = torch::cat(rows);
    return c.combine == "concat" ? joined : apply(w, "projection", joined);
  }
  const Choice choice = choice_of(c);
  if (c.kind == "encoder") {
    return encoder_reference(choice.as<EncoderEmbedderConfig>(), 0, w, ids, real);
  }
  const auto& config = choice.as<ClsEmbedderConfig>();
  return encoder_reference(config, config.n_cls, w, ids, real);
}

// ---- tests of all embedders

class EmbedderTest : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    embedder_ = make_embedder(choice_of(GetParam()), spec_of(GetParam()));
    materialise_random(*embedder_, 3);
    // Small ids, so that id 1 occurs; block 0 is padding as a whole, block 1 not at all.
    const int64_t length = GetParam().block_length;
    tokens_ = torch::randint(4, {5, length}, seeded(4), torch::kInt64);
    tokens_[1][0] = kVocab - 1;
    tokens_[2][length - 1] = 1;
    real_ = torch::rand({5, length}, seeded(5)) < 0.5;
    real_[0] = false;
    real_[1] = true;
    gradient_ = torch::randn({5, spec_of(GetParam()).d_model}, seeded(6), torch::kFloat64);
  }

  Tensor expected(const Weights& w, const Tensor& real) const {
    Tensors blocks;
    for (int64_t m = 0; m < tokens_.size(0); ++m) {
      std::vector<int64_t> ids;
      std::vector<bool> keys;
      for (int64_t t = 0; t < tokens_.size(1); ++t) {
        ids.push_back(tokens_[m][t].item<int64_t>());
        keys.push_back(!real.defined() || real[m][t].item<bool>());
      }
      blocks.push_back(reference(GetParam(), w, ids, keys));
    }
    return torch::stack(blocks);
  }

  // Gradients of all parameters by name, of `loss`, which calls backward().
  Weights gradients_after(const Tensor& out) const {
    embedder_->zero_grad(/*set_to_none=*/true);
    (out * gradient_).sum().backward();
    Weights gradients;
    for (const auto& item : embedder_->named_parameters()) {
      gradients.emplace(item.key(), item.value().grad());
    }
    return gradients;
  }

  std::shared_ptr<Embedder> embedder_;
  Tensor tokens_, real_, gradient_;
  ForwardContext context_;
};

TEST_P(EmbedderTest, ValuesAndGradientsEqualPlainArithmetic) {
  for (const Tensor& real : {real_, Tensor()}) {
    Weights leaves;
    for (const auto& item : embedder_->named_parameters()) {
      leaves.emplace(item.key(), item.value().detach().clone().requires_grad_());
    }
    const Tensor wanted = expected(leaves, real);
    const Tensor out = embedder_->forward(tokens_, real, context_);
    expect_close(out, wanted);
    (wanted * gradient_).sum().backward();
    for (const auto& [name, gradient] : gradients_after(out)) {
      SCOPED_TRACE(name);
      expect_close(gradient, leaves.at(name).grad());
    }
  }
}

TEST_P(EmbedderTest, LeadingDimensionsOfAnyNumber) {
  const Tensor flat = embedder_->forward(tokens_, real_, context_);
  const int64_t length = GetParam().block_length;
  const Tensor nested = embedder_->forward(tokens_.narrow(0, 1, 4).view({2, 2, length}),
                                           real_.narrow(0, 1, 4).view({2, 2, length}), context_);
  expect_close(nested, flat.narrow(0, 1, 4).view({2, 2, -1}), 1e-13);
  expect_close(embedder_->forward(tokens_[3], real_[3], context_), flat[3], 1e-13);
  EXPECT_EQ(embedder_->forward(tokens_.narrow(0, 0, 0), {}, context_).sizes(),
            torch::IntArrayRef({0, flat.size(1)}));
}

TEST_P(EmbedderTest, RecomputingLayersGivesTheSameGradients) {
  const auto plain = gradients_after(embedder_->forward(tokens_, real_, context_));
  RecomputingRunner runner;
  Tensor out;
  {
    ForwardContext context;  // ends before the layers are run again
    context.runner = &runner;
    out = embedder_->forward(tokens_, real_, context);
  }
  for (const auto& [name, gradient] : gradients_after(out)) {
    EXPECT_TRUE(torch::equal(gradient, plain.at(name))) << name;
  }
}

TEST_P(EmbedderTest, Bfloat16StaysNear) {
  const Tensor exact = embedder_->forward(tokens_, real_, context_);
  embedder_->to(torch::kBFloat16);
  const Tensor rounded = embedder_->forward(tokens_, real_, context_);
  EXPECT_EQ(rounded.scalar_type(), torch::kBFloat16);
  expect_close(rounded, exact, 0.1);
}

TEST_P(EmbedderTest, BlocksOfAnotherLengthAreRefused) {
  const Tensor longer = torch::zeros({2, GetParam().block_length + 1}, torch::kInt64);
  EXPECT_THROW(embedder_->forward(longer, {}, context_), c10::Error);
  EXPECT_THROW(embedder_->forward(tokens_, real_.narrow(0, 1, 3), context_), c10::Error);
}

INSTANTIATE_TEST_SUITE_P(
    All, EmbedderTest,
    testing::Values(Case{"Concat1", "lookup", 1, "concat"}, Case{"Concat3", "lookup", 3, "concat"},
                    Case{"Concat4", "lookup", 4, "concat"},
                    Case{"Projection1", "lookup", 1, "projection"},
                    Case{"Projection3", "lookup", 3, "projection"},
                    Case{"Projection4", "lookup", 4, "projection"}, Case{"Encoder1", "encoder", 1},
                    Case{"Encoder3", "encoder", 3}, Case{"Encoder4", "encoder", 4},
                    Case{"Cls1", "cls", 1}, Case{"Cls3", "cls", 3}, Case{"Cls4", "cls", 4}),
    [](const auto& given) { return given.param.name; });

// ---- of one kind

TEST(EncoderEmbedderTest, RowsOfTheUnnumberedTokenAreReadAndGetNoGradient) {
  const Case c{"", "encoder", 4};
  const auto embedder = make_embedder(choice_of(c), spec_of(c));
  materialise_random(*embedder, 3);
  const Tensor tokens = torch::tensor({{1, 5, 1, 6}}, torch::kInt64);
  const Tensor before = embedder->forward(tokens, {}, {});
  before.square().sum().backward();
  for (const char* table : {"embedding.weight", "position_embedding.weight"}) {
    const Tensor weight = embedder->named_parameters()[table];
    EXPECT_EQ(weight.grad()[1].abs().max().item<double>(), 0) << table;
    // Its two tokens have positions 2 and 3; the fifth row is nobody's.
    EXPECT_GT(weight.grad().abs().sum().item<double>(), 0) << table;
    EXPECT_EQ(weight.grad()[4].abs().max().item<double>(), 0) << table;
    const torch::NoGradGuard no_grad;
    weight[1].add_(1 + torch::arange(6));
    EXPECT_FALSE(torch::allclose(embedder->forward(tokens, {}, {}), before)) << table;
    weight[1].sub_(1 + torch::arange(6));
  }
}

TEST(EncoderEmbedderTest, PaddingIsSeenByNobodyButStillSpeaksForItself) {
  const Case c{"", "encoder", 3};
  const auto embedder = make_embedder(choice_of(c), spec_of(c));
  materialise_random(*embedder, 3);
  {  // of the projection keep what token 0 says in channel 0 and token 2 in channel 1
    const torch::NoGradGuard no_grad;
    const Tensor projection = embedder->named_parameters()["projection.weight"];
    projection.zero_();
    projection[0].narrow(0, 0, 6).fill_(1).select(0, 0).fill_(3);
    projection[1].narrow(0, 12, 6).fill_(1).select(0, 0).fill_(3);
  }
  const Tensor real = torch::tensor({{false, true, true}});
  const Tensor a = embedder->forward(torch::tensor({{2, 5, 6}}, torch::kInt64), real, {});
  const Tensor b = embedder->forward(torch::tensor({{7, 5, 6}}, torch::kInt64), real, {});
  EXPECT_GT((a - b).abs()[0][0].item<double>(), 1e-3);
  EXPECT_EQ((a - b).abs()[0][1].item<double>(), 0);
}

TEST(EmbedderNamesTest, ParametersTheirShapesAndTheirStart) {
  struct Start {
    std::vector<int64_t> shape;
    Init::Kind kind;
    double value;
  };
  const auto normal = [](std::vector<int64_t> shape, double std) {
    return Start{std::move(shape), Init::Kind::kNormal, std};
  };
  const auto constant = [](std::vector<int64_t> shape, double value) {
    return Start{std::move(shape), Init::Kind::kConstant, value};
  };
  const auto expect = [](const Case& c, const std::map<std::string, Start>& expected) {
    const auto infos = parameters_info(*make_embedder(choice_of(c), spec_of(c)));
    EXPECT_EQ(infos.size(), expected.size());
    for (const auto& info : infos) {
      SCOPED_TRACE(c.name + " " + info.name);
      ASSERT_TRUE(expected.contains(info.name));
      const Start& start = expected.at(info.name);
      EXPECT_EQ(info.global_shape, start.shape);
      EXPECT_EQ(info.init.kind, start.kind);
      EXPECT_DOUBLE_EQ(info.init.value, start.value);
      EXPECT_EQ(info.decay, start.shape.size() > 1);
    }
  };
  expect({"Concat", "lookup", 3, "concat"}, {{"embedding.weight", normal({11, 5}, 0.02)}});
  expect({"Projection", "lookup", 3, "projection"},
         {{"embedding.weight", normal({11, 5}, 0.02)},
          {"projection.weight", normal({7, 15}, 1 / std::sqrt(15.0))},
          {"projection.bias", constant({7}, 0)}});
  std::map<std::string, Start> encoder = {{"embedding.weight", normal({11, 6}, 0.02)},
                                          {"position_embedding.weight", normal({13, 6}, 0.02)},
                                          {"type_embedding.weight", normal({1, 6}, 0.02)},
                                          {"norm.weight", constant({6}, 1)},
                                          {"norm.bias", constant({6}, 0)},
                                          {"projection.bias", constant({7}, 0)}};
  for (const std::string at : {"layers.0.", "layers.1."}) {
    for (const char* name : {"q_proj", "k_proj", "v_proj"}) {
      encoder[at + name + ".weight"] = normal({15, 6}, 0.02);
      encoder[at + name + ".bias"] = constant({15}, 0);
    }
    encoder[at + "o_proj.weight"] = normal({6, 15}, 0.02);
    encoder[at + "up_proj.weight"] = normal({9, 6}, 0.02);
    encoder[at + "down_proj.weight"] = normal({6, 9}, 0.02);
    encoder[at + "up_proj.bias"] = constant({9}, 0);
    for (const char* name :
         {"o_proj.bias", "down_proj.bias", "attention_norm.bias", "ffn_norm.bias"})
      encoder[at + name] = constant({6}, 0);
    for (const char* name : {"attention_norm.weight", "ffn_norm.weight"})
      encoder[at + name] = constant({6}, 1);
  }
  encoder["projection.weight"] = normal({7, 24}, 1 / std::sqrt(24.0));  // 4 tokens
  expect({"Encoder", "encoder", 4}, encoder);
  encoder["projection.weight"] = normal({7, 12}, 1 / std::sqrt(12.0));  // 2 CLS tokens
  expect({"Cls", "cls", 4}, encoder);
}

TEST(EmbedderConfigTest, WidthsThatAreAbsentFollowFromTheModel) {
  Choice choice = choice_of("lookup");
  EXPECT_EQ(parameters_info(*make_embedder(choice, {11, 3, 12}))[0].global_shape,
            (std::vector<int64_t>{11, 4}));
  choice.as<LookupEmbedderConfig>().combine = "projection";
  EXPECT_EQ(parameters_info(*make_embedder(choice, {11, 3, 13}))[0].global_shape,
            (std::vector<int64_t>{11, 13}));
  Choice encoder = choice_of("encoder");
  auto& config = encoder.as<EncoderEmbedderConfig>();
  config.d_embed = 12;
  config.n_heads = 3;  // of 4 channels
  config.ffn_dim = 5;
  for (const auto& info : parameters_info(*make_embedder(encoder, {11, 3, 13}))) {
    if (info.name == "layers.0.q_proj.weight") {
      EXPECT_EQ(info.global_shape, (std::vector<int64_t>{12, 12}));
    }
  }
}

TEST(EmbedderConfigTest, WhatDoesNotFitIsNoModel) {
  EXPECT_THROW(make_embedder(choice_of("lookup"), {11, 4, 22}), c10::Error);
  Choice encoder = choice_of("encoder");
  encoder.as<EncoderEmbedderConfig>().max_positions = 5;
  EXPECT_THROW(make_embedder(encoder, {11, 4, 22}), c10::Error);
}

// A block of n tokens costs each layer 2 n (4 E W + 2 E F + 2 n W) with W channels of all heads,
// and 2 k E H the projection of k vectors.
TEST(EmbedderConfigTest, Flops) {
  const auto flops = [](const Case& c) {
    return make_embedder(choice_of(c), spec_of(c))->forward_flops(10);
  };
  EXPECT_EQ(flops({"", "lookup", 3, "concat"}), 0);
  EXPECT_EQ(flops({"", "lookup", 3, "projection"}), 10 * 2 * 3 * 5 * 7);
  EXPECT_EQ(flops({"", "encoder", 4}),
            10 * (2 * (2 * 4 * (4 * 6 * 15 + 2 * 6 * 9 + 2 * 4 * 15)) + 2 * 4 * 6 * 7));
  EXPECT_EQ(flops({"", "cls", 4}),
            10 * (2 * (2 * 6 * (4 * 6 * 15 + 2 * 6 * 9 + 2 * 6 * 15)) + 2 * 2 * 6 * 7));
}

// What read_config says of `yaml` for blocks of 4 tokens; "" where nothing is wrong.
std::string message_of(const std::string& yaml, int64_t d_model, int64_t block_length = 4) {
  struct Section {
    Choice embedder;
    int64_t block_length, d_model;
    void fields(ConfigReader& reader) { reader.choice("embedder", embedder); }
    void fields(Checker& checker) { checker.choice("embedder", embedder); }
    void check(Checker& checker) const { check_embedder(checker, embedder, block_length, d_model); }
  } section{choice_of("lookup"), block_length, d_model};
  try {
    read_config(parse_yaml(yaml, "a.yaml"), section, "model");
  } catch (const UserError& error) {
    EXPECT_EQ(error.exit_code(), kExitUsage);
    return error.what();
  }
  return "";
}

TEST(EmbedderConfigTest, MessagesNameTheKeyTheUserWrote) {
  EXPECT_EQ(message_of("embedder: {kind: lookup}", 24), "");
  EXPECT_EQ(message_of("embedder: {d_embed: 6}", 24), "");
  EXPECT_EQ(message_of("embedder: {d_embed: 6, combine: projection}", 22), "");
  EXPECT_EQ(message_of("\nembedder:\n  d_embed: 5\n", 24),
            "a.yaml:3: model.embedder.d_embed = 5, expected 6 (d_model / block_length = 24 / 4) "
            "with combine: concat");
  EXPECT_EQ(message_of("embedder:\n  combine: concat\n", 22),
            "a.yaml:2: model.embedder.combine = concat, expected projection, as d_model / "
            "block_length = 22 / 4 is no integer");
  EXPECT_EQ(message_of("embedder: {kind: lookup}", 22),
            "a.yaml:1: model.embedder: default combine = concat, expected projection, as d_model / "
            "block_length = 22 / 4 is no integer");
  EXPECT_EQ(message_of("embedder: {kind: encoder, max_positions: 6}", 22), "");
  EXPECT_EQ(message_of("embedder: {kind: encoder, max_positions: 5}", 22),
            "a.yaml:1: model.embedder.max_positions = 5, expected an integer >= 6: block_length + "
            "2");
  EXPECT_EQ(message_of("embedder: {kind: cls, n_cls: 2, max_positions: 8}", 22), "");
  EXPECT_EQ(message_of("embedder: {kind: cls, n_cls: 2, max_positions: 7}", 22),
            "a.yaml:1: model.embedder.max_positions = 7, expected an integer >= 8: n_cls + "
            "block_length + 2");
  EXPECT_EQ(message_of("embedder: {kind: encoder}", 22, 513),
            "a.yaml:1: model.embedder: default max_positions = 514, expected an integer >= 515: "
            "block_length + 2");
  EXPECT_EQ(message_of("embedder: {kind: encoder, n_heads: 5}", 22),
            "a.yaml:1: model.embedder.n_heads = 5, expected a divisor of 256");
  EXPECT_EQ(message_of("embedder: {kind: cls, n_heads: 5, head_dim: 6}", 22), "");
  EXPECT_EQ(message_of("embedder: {kind: roberta}", 22),
            "a.yaml:1: model.embedder.kind = roberta, expected one of: lookup, encoder, cls");
}

}  // namespace
}  // namespace tandem
