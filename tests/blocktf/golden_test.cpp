#include "tests/golden.h"

#include <algorithm>

#include "blocktf/embedder.h"
#include "blocktf/official_names.h"
#include "cli/build_model.h"
#include "cli/convert.h"
#include "cli/load_model.h"
#include "nn/decoder_stack.h"
#include "nn/generate.h"
#include "tests/core/helpers.h"
#include "tests/nn/helpers.h"

// What the official Block Transformer code computes, through `convert import` and what every
// program of ours asks of a model. The README of the goldens says how they were made and how far
// float32 may be off.

namespace tandem {
namespace {

struct Tolerance {
  double absolute, relative;
};
// A float64 program is apart from the goldens by their own rounding, a float32 one by its own too.
Tolerance tolerance_of(torch::Dtype dtype) {
  return dtype == torch::kFloat64 ? Tolerance{1e-5, 0} : Tolerance{5e-5, 1e-5};
}

std::string golden_block_transformer(const std::string& name) {
  return golden_path("block_transformer/" + name);
}

/// `actual` is `expected` where `valid` (all, when undefined), within the goldens' tolerance.
void expect_golden(const Tensor& actual, const Tensor& expected, const Tensor& valid = {}) {
  ASSERT_EQ(actual.sizes(), expected.sizes());
  const auto wanted = expected.detach().to(torch::kFloat64);
  const Tolerance tolerance = tolerance_of(actual.scalar_type());
  auto excess =
      (actual.detach().to(torch::kFloat64) - wanted).abs() - tolerance.relative * wanted.abs();
  if (valid.defined()) excess = excess.masked_select(valid.to(torch::kBool).expand_as(excess));
  ASSERT_GT(excess.numel(), 0);
  EXPECT_LE(excess.max().item<double>(), tolerance.absolute);
}

/// One case, imported and loaded.
class GoldenModel {
 public:
  GoldenModel(const std::string& name, torch::Dtype dtype)
      : folder_(golden_block_transformer(name)), io_(read_tensors(folder_ + "/io.safetensors")) {
    const TempFolder temp;
    printed([&] {  // that no tokenizer is kept
      import_model(
          {.format = "block-transformer", .from = folder_, .to = temp / "imported", .config = ""});
    });
    LoadedModel loaded = load_model(temp / "imported", torch::kCPU, dtype);
    choice_ = read_model_section(loaded.config, "config.yaml");
    model_ = loaded.model;
  }
  LanguageModel& model() const { return *model_; }
  const Choice& choice() const { return choice_; }
  const Tensor& operator()(const std::string& name) const { return io_.at(name); }
  bool has(const std::string& name) const { return io_.contains(name); }
  /// Names of the prompts that were continued.
  std::vector<std::string> generations() const {
    std::vector<std::string> names;
    const std::string before = "generate.", after = ".prompt";
    for (const auto& [name, tensor] : io_) {
      if (name.starts_with(before) && name.ends_with(after))
        names.push_back(name.substr(before.size(), name.size() - before.size() - after.size()));
    }
    return names;
  }
  std::map<std::string, Tensor> gradients() const {
    return read_tensors(folder_ + "/gradients.safetensors");
  }

 private:
  std::string folder_;
  std::map<std::string, Tensor> io_;
  Choice choice_;
  std::shared_ptr<LanguageModel> model_;
};

struct GoldenCase {
  std::string name;
  torch::Dtype dtype;
};
std::vector<GoldenCase> cases(const std::vector<std::string>& names) {
  std::vector<GoldenCase> all;
  for (const auto& name : names) {
    for (const auto dtype : {torch::kFloat32, torch::kFloat64}) all.push_back({name, dtype});
  }
  return all;
}
std::string name_of(const testing::TestParamInfo<GoldenCase>& info) {
  return info.param.name + (info.param.dtype == torch::kFloat32 ? "_float32" : "_float64");
}

class BlockTransformerGoldenTest : public testing::TestWithParam<GoldenCase> {
 protected:
  GoldenModel golden_{GetParam().name, GetParam().dtype};
};
const std::vector<std::string> kBlockCases = {
    "block_length_1", "cls_cross_attention", "cls_summation",  "lookup_prefix2",
    "megabyte",       "projection_prefix2",  "roberta_prefix1"};

/// The inputs under `prefix` as rows: all tokens of a row one document, padding apart. Targets are
/// those of which the official code takes a loss.
Batch batch_of(const GoldenModel& golden, const std::string& prefix) {
  const Tensor tokens = golden(prefix + "input_ids").flatten(1);  // [b, N * B]
  const Tensor real = golden(prefix + "attention_mask").flatten(1).to(torch::kBool);
  const Tensor keep = golden(prefix + "token_keep").flatten(1).to(torch::kBool);
  Batch batch;
  batch.tokens = tokens;
  batch.segment = torch::where(real, 0, -1).to(torch::kInt32);
  batch.targets = torch::full_like(tokens, kIgnored);
  const int64_t n_scored = keep.size(1), first = tokens.size(1) - n_scored;  // B
  batch.targets.narrow(1, first - 1, n_scored)
      .copy_(tokens.narrow(1, first, n_scored).masked_fill(keep.logical_not(), kIgnored));
  batch.total_weight = static_cast<double>(keep.sum().item<int64_t>());
  return batch;
}

/// [b, N * B, ...] at the columns that predict blocks 1 .. N - 1, as [b, N - 1, B, ...].
Tensor of_decoded(const Tensor& x, const Tensor& like) {
  const int64_t n_scored = like.size(1) * like.size(2), first = x.size(1) - n_scored;
  return x.narrow(1, first - 1, n_scored).unflatten(1, {like.size(1), like.size(2)});
}

class BlockTransformerInputsTest : public BlockTransformerGoldenTest {
 protected:
  void expect_losses(const std::string& prefix) const {
    const Batch batch = batch_of(golden_, prefix);
    const Tensor keep = golden_(prefix + "token_keep");
    const Loss loss = golden_.model().loss(batch, {});
    EXPECT_TRUE(torch::equal(loss.nll.isnan(), batch.targets == kIgnored));
    const Tensor nll = of_decoded(loss.nll, keep);
    expect_golden(nll, golden_(prefix + "token_loss"), keep);
    expect_golden(loss.sum.view(1) / batch.total_weight, golden_(prefix + "loss"));
    if (!golden_.has(prefix + "loss_by_position")) return;
    const auto by_position = [](const Tensor& x) { return x.flatten(0, 1).sum(0); };
    expect_golden(by_position(nll.nan_to_num()) / by_position(keep),
                  golden_(prefix + "loss_by_position"));
  }
  /// Every id takes its turn as the target of every column.
  void expect_log_probs(const std::string& prefix) const {
    const torch::NoGradGuard no_grad;
    const Tensor &keep = golden_(prefix + "token_keep"), &logits = golden_(prefix + "logits");
    const Batch all = batch_of(golden_, prefix);
    const int64_t vocab_size = logits.size(3), length = all.tokens.size(1);
    for (int64_t b = 0; b < all.tokens.size(0); ++b) {
      const auto repeated = [&](const Tensor& x) { return x[b].expand({vocab_size, length}); };
      Batch batch;
      batch.tokens = repeated(all.tokens);
      batch.segment = repeated(all.segment);
      batch.targets = torch::arange(vocab_size).unsqueeze(1).repeat({1, length});
      batch.targets.narrow(1, 0, golden_.model().packing().unscored_prefix).fill_(kIgnored);
      const Tensor nll = golden_.model().loss(batch, {}).nll.t().unsqueeze(0);  // [1, N * B, V]
      expect_golden(-of_decoded(nll, keep).squeeze(0), torch::log_softmax(logits[b], -1),
                    keep[b].unsqueeze(2));
    }
  }
};

TEST_P(BlockTransformerInputsTest, LossOfEveryToken) { expect_losses(""); }
TEST_P(BlockTransformerInputsTest, LossAroundBlocksOfPadding) { expect_losses("interior."); }
TEST_P(BlockTransformerInputsTest, LogitsAsLogProbabilities) { expect_log_probs(""); }
TEST_P(BlockTransformerInputsTest, LogitsAroundBlocksOfPadding) { expect_log_probs("interior."); }

// Rows without padding, in one call that gives the logits of all.
TEST_P(BlockTransformerInputsTest, LogitsThemselves) {
  const Tensor whole = golden_("attention_mask").flatten(1).all(1).nonzero().flatten();
  ASSERT_GT(whole.numel(), 0);
  const Tensor tokens = golden_("input_ids").flatten(1).index_select(0, whole);
  const auto state = inference_state(golden_.model(), tokens.size(0), tokens.size(1));
  const Tensor logits = golden_.model().extend(tokens, {}, *state, Want::kAll);
  const int64_t block_length = golden_.model().packing().multiple;
  EXPECT_TRUE(logits.narrow(1, 0, block_length - 1).isnan().all().item<bool>());
  const Tensor& keep = golden_("token_keep");
  expect_golden(of_decoded(logits, keep), golden_("logits").index_select(0, whole),
                keep.index_select(0, whole).unsqueeze(3));
}

// Block embeddings, padding included, and what the block decoder makes of them.
TEST_P(BlockTransformerInputsTest, EmbedderAndBlockDecoder) {
  const auto parts = golden_.model().named_children();
  const auto embedder = std::dynamic_pointer_cast<Embedder>(parts["embedder"]);
  const auto block_decoder = std::dynamic_pointer_cast<DecoderStack>(parts["block_decoder"]);
  ASSERT_TRUE(embedder && block_decoder);
  for (const std::string prefix : {"", "interior."}) {
    SCOPED_TRACE(prefix);
    const Tensor& tokens = golden_(prefix + "input_ids");  // [b, N, B]
    const Tensor real = golden_(prefix + "attention_mask").to(torch::kBool);
    ForwardContext context;
    context.segment = golden_(prefix + "block_attention_mask").sub(1).to(torch::kInt32);
    context.positions = torch::arange(tokens.size(1)).expand({tokens.size(0), tokens.size(1)});
    const Tensor embeddings = embedder->forward(tokens, real, context);
    if (prefix.empty()) expect_golden(embeddings, golden_("block_embeddings"));
    expect_golden(block_decoder->forward(embeddings, context, /*state=*/nullptr, Want::kAll),
                  golden_(prefix + "block_decoder_output"));
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, BlockTransformerInputsTest, testing::ValuesIn(cases(kBlockCases)),
                         name_of);

// ---- generation

/// What the official code made of one row of a prompt.
struct Continuation {
  std::vector<int64_t> prompt;  // without padding
  std::vector<int64_t> ids;     // until EOS and with it
  Tensor logits;                // [ids, V]
};

std::vector<Continuation> continuations(const GoldenModel& golden, const std::string& name) {
  const std::string prefix = "generate." + name + ".";
  const Tensor &prompts = golden(prefix + "prompt"), &output = golden(prefix + "output");
  std::vector<Continuation> rows;
  for (int64_t b = 0; b < prompts.size(0); ++b) {
    Continuation row;
    const int64_t length = prompts.size(1);
    const int64_t n_valid = golden(prefix + "logits_valid")[b].sum().item<int64_t>();
    for (int64_t t = 0; t < length; ++t) {
      const bool padding = golden.has(prefix + "attention_mask") &&
                           golden(prefix + "attention_mask")[b][t].item<int64_t>() == 0;
      if (!padding) row.prompt.push_back(prompts[b][t].item<int64_t>());
    }
    for (int64_t s = 0; s < n_valid; ++s) row.ids.push_back(output[b][length + s].item<int64_t>());
    row.logits = golden(prefix + "logits")[b].narrow(0, 0, n_valid);
    rows.push_back(std::move(row));
  }
  return rows;
}

/// The logits of each id, the ids before it given, one by one after whatever `state` holds.
void expect_steps(LanguageModel& model, ModelState& state, const Continuation& row) {
  for (size_t s = 0; s < row.ids.size(); ++s) {
    SCOPED_TRACE("slot " + std::to_string(s));
    const Tensor logits = state.next_logits[0];
    expect_golden(logits, row.logits[static_cast<int64_t>(s)]);
    EXPECT_EQ(logits.argmax().item<int64_t>(), row.ids[s]);
    if (s + 1 < row.ids.size())
      model.extend(torch::tensor({{row.ids[s]}}, torch::kInt64), {}, state, Want::kLast);
  }
}

/// The ids that whole blocks drawn greedily begin with.
void expect_blocks(LanguageModel& model, ModelState& state, const Continuation& row) {
  DeviceSampler sampler({.temperature = 0}, 1, torch::kCPU);
  std::vector<int64_t> ids;
  while (ids.size() < row.ids.size()) {
    const Tensor block = model.generate_block(state, sampler);
    ASSERT_EQ(block.sizes(), (std::vector<int64_t>{1, model.tokens_per_call()}));
    const int64_t* drawn = block.const_data_ptr<int64_t>();
    ids.insert(ids.end(), drawn, drawn + block.numel());
  }
  ids.resize(row.ids.size());
  EXPECT_EQ(ids, row.ids);
}

/// Rows together through the whole of generate(); each stops at EOS or at `n` ids.
void expect_generated(LanguageModel& model, const std::vector<Continuation>& rows) {
  std::vector<std::vector<int64_t>> prompts;
  GenerateConfig config;
  config.sampling.temperature = 0;
  config.max_new_tokens = 0;
  config.stop_ids = {0};
  for (const auto& row : rows) {
    prompts.push_back(row.prompt);
    config.max_new_tokens = std::max(config.max_new_tokens, static_cast<int64_t>(row.ids.size()));
  }
  const auto generated = generate(model, prompts, config);
  ASSERT_EQ(generated.size(), rows.size());
  for (size_t b = 0; b < rows.size(); ++b) EXPECT_EQ(generated[b].ids, rows[b].ids) << "row " << b;
}

class BlockTransformerGenerationTest : public BlockTransformerGoldenTest {
 protected:
  const LanguageModel& model() const { return golden_.model(); }
  int64_t block_length() const { return model().packing().multiple; }
  int64_t padding_of(const Continuation& row) const {
    return model().packing().padding_to_continue(static_cast<int64_t>(row.prompt.size()));
  }
};

class LookupGenerationTest : public BlockTransformerGenerationTest {};

TEST_P(LookupGenerationTest, LogitsTokenByToken) {
  for (const auto& name : golden_.generations()) {
    for (const auto& row : continuations(golden_, name)) {
      SCOPED_TRACE(name);
      const std::vector<std::vector<int64_t>> prompts = {row.prompt};
      const auto state = state_for_prompts(model(), prompts, /*room=*/24);
      prefill(golden_.model(), prompts, /*chunk=*/0, *state);
      expect_steps(golden_.model(), *state, row);
    }
  }
}

TEST_P(LookupGenerationTest, TokensInBlocks) {
  for (const auto& name : golden_.generations()) {
    SCOPED_TRACE(name);
    const auto rows = continuations(golden_, name);
    expect_generated(golden_.model(), rows);
    for (const auto& row : rows) {
      const std::vector<std::vector<int64_t>> prompts = {row.prompt};
      const auto state = state_for_prompts(model(), prompts, /*room=*/24);
      prefill(golden_.model(), prompts, /*chunk=*/0, *state);
      expect_blocks(golden_.model(), *state, row);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, LookupGenerationTest,
                         testing::ValuesIn(cases({"block_length_1", "lookup_prefix2", "megabyte",
                                                  "projection_prefix2"})),
                         name_of);

// With an encoder the official generation is at odds with training: it pads prompts with the
// encoder's padding id 1 in place of 0, whose position is 1 and does not count, and takes an id 1
// inside a prompt for padding. The former is undone here by tables that give padding those vectors
// while the first block is fed. The latter cannot be said to a model of ours: rows with such an id
// are left out.
class EncoderGenerationTest : public BlockTransformerGenerationTest {
 protected:
  Tensor table(const std::string& name) const {
    return model().named_parameters()["embedder." + name + ".weight"];
  }
  int64_t n_cls() const {
    const auto& embedder = golden_.choice().as<BlockTransformerConfig>().embedder;
    return embedder.name == "cls" ? embedder.as<ClsEmbedderConfig>().n_cls : 0;
  }
  /// A block of `n_padding` tokens of padding and real ones gets the embedding it has officially.
  void pad_officially(int64_t n_padding) const {
    const Tensor positions = table("position_embedding"), tokens = table("embedding");
    const int64_t first = 2 + n_cls(), n_real = block_length() - n_padding;
    const Tensor of_real = positions.narrow(0, first, n_real).clone();
    positions.narrow(0, first, n_padding).copy_(positions[1]);
    positions.narrow(0, first + n_padding, n_real).copy_(of_real);
    if (n_cls() == 0) tokens[0].copy_(tokens[1]);  // CLS is token 0 too; what it sees is no padding
  }
  /// A state that has taken the prompt.
  std::unique_ptr<ModelState> continued(const Continuation& row, bool padded_with_1) const {
    const torch::NoGradGuard no_grad;
    const int64_t n_padding = padding_of(row);
    std::vector<int64_t> ids(static_cast<size_t>(n_padding), kPadding);
    ids.insert(ids.end(), row.prompt.begin(), row.prompt.end());
    const Tensor tokens = torch::tensor(ids, torch::kInt64).unsqueeze(0);
    const Tensor positions = table("position_embedding").clone(),
                 words = table("embedding").clone();
    auto state = inference_state(model(), 1, tokens.size(1) + 24);
    if (padded_with_1 && n_padding > 0) pad_officially(n_padding);
    golden_.model().extend(tokens.narrow(1, 0, block_length()), {}, *state, Want::kLast);
    table("position_embedding").copy_(positions);
    table("embedding").copy_(words);
    if (const int64_t left = tokens.size(1) - block_length(); left > 0)
      golden_.model().extend(tokens.narrow(1, block_length(), left), {}, *state, Want::kLast);
    return state;
  }
  /// A left-padded prompt that the official code pads on is padded with 0 in its own first block.
  static bool padded_with_1(const std::string& name, size_t row) {
    return name != "left_padded" || row == 0;
  }
  static bool has_1(const Continuation& row) {
    return std::find(row.prompt.begin(), row.prompt.end(), 1) != row.prompt.end();
  }
};

TEST_P(EncoderGenerationTest, LogitsAndTokens) {
  int64_t n_rows = 0;
  for (const auto& name : golden_.generations()) {
    const auto rows = continuations(golden_, name);
    std::vector<Continuation> as_trained;  // rows whose padding, if any, is that of training
    for (size_t b = 0; b < rows.size(); ++b) {
      if (has_1(rows[b])) continue;
      SCOPED_TRACE(name + ", row " + std::to_string(b));
      const bool official_padding = padded_with_1(name, b);
      expect_steps(golden_.model(), *continued(rows[b], official_padding), rows[b]);
      expect_blocks(golden_.model(), *continued(rows[b], official_padding), rows[b]);
      if (!official_padding || padding_of(rows[b]) == 0) as_trained.push_back(rows[b]);
      ++n_rows;
    }
    if (!as_trained.empty()) expect_generated(golden_.model(), as_trained);
  }
  EXPECT_GE(n_rows, 8);
}

INSTANTIATE_TEST_SUITE_P(Cases, EncoderGenerationTest,
                         testing::ValuesIn(cases({"cls_summation", "roberta_prefix1"})), name_of);

// ---- gradients

class BlockTransformerGradientTest : public BlockTransformerGoldenTest {};

TEST_P(BlockTransformerGradientTest, OfEveryOfficialTensor) {
  const Batch batch = batch_of(golden_, "");
  ForwardContext context;
  context.training = true;
  (golden_.model().loss(batch, context).sum / batch.total_weight).backward();
  NamedTensors ours;
  for (const auto& parameter : golden_.model().named_parameters()) {
    ASSERT_TRUE(parameter.value().grad().defined()) << parameter.key();
    ours[parameter.key()] = parameter.value().grad();
  }
  const auto actual = to_official(golden_.choice().as<BlockTransformerConfig>(), ours);
  const auto expected = golden_.gradients();
  ASSERT_EQ(actual.size(), expected.size());
  for (const auto& [name, gradient] : expected) {
    SCOPED_TRACE(name);
    expect_golden(actual.at(name), gradient);
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, BlockTransformerGradientTest,
                         testing::ValuesIn(cases({"lookup_prefix2"})), name_of);

// ---- the baseline

class GptNeoxGoldenTest : public BlockTransformerGoldenTest {};

TEST_P(GptNeoxGoldenTest, LogitsAndLoss) {
  const Tensor& tokens = golden_("input_ids");
  const auto state = inference_state(golden_.model(), tokens.size(0), tokens.size(1));
  expect_golden(golden_.model().extend(tokens, {}, *state, Want::kAll), golden_("logits"));
  Batch batch;
  batch.tokens = tokens.narrow(1, 0, tokens.size(1) - 1);
  batch.targets = tokens.narrow(1, 1, tokens.size(1) - 1);
  batch.total_weight = static_cast<double>(batch.targets.numel());
  const Loss loss = golden_.model().loss(batch, {});
  expect_golden(loss.nll, golden_("token_loss"));
  expect_golden(loss.sum.view(1) / batch.total_weight, golden_("loss"));
}

TEST_P(GptNeoxGoldenTest, Generation) {
  for (const auto& name : golden_.generations()) {
    SCOPED_TRACE(name);
    const auto rows = continuations(golden_, name);
    expect_generated(golden_.model(), rows);
    for (const auto& row : rows) {
      const std::vector<std::vector<int64_t>> prompts = {row.prompt};
      const auto state = state_for_prompts(golden_.model(), prompts, /*room=*/24);
      prefill(golden_.model(), prompts, /*chunk=*/0, *state);
      expect_steps(golden_.model(), *state, row);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, GptNeoxGoldenTest, testing::ValuesIn(cases({"gpt_neox"})), name_of);

}  // namespace
}  // namespace tandem
