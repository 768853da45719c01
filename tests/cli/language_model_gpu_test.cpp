#include <cstdlib>

#include "nn/generate.h"
#include "nn/language_model.h"
#include "nn/peak_memory.h"
#include "nn/recomputing_runner.h"
#include "tests/cli/tiny_models.h"
#include "tests/cli/tiny_rows.h"
#include "tests/gpu.h"

// Every model on a GPU is the one on the CPU: as in float64, but for the rounding of its type.

namespace tandem {
namespace {

constexpr int64_t kLength = kTinyLength;

std::shared_ptr<LanguageModel> moved(LanguageModel& from, const std::string& yaml,
                                     torch::Device device, torch::Dtype dtype) {
  auto model = model_factory().build(model_choice(yaml));
  auto values = from.named_parameters();
  for (auto& item : model->named_parameters())
    materialise(item.value(), values[item.key()].detach().to(device, dtype));
  return model;
}

struct Results {
  Loss loss;
  Tensors gradients;
  Tensor all_gradients;  // of all parameters in a row
};

Results run(LanguageModel& model, const Batch& batch, LayerRunner* runner = nullptr) {
  ForwardContext context;
  context.runner = runner;
  context.training = true;
  model.zero_grad();
  Results results{model.loss(batch, context), {}, {}};
  results.loss.sum.backward();
  Tensors flat;
  for (const auto& parameter : model.parameters()) {
    const Tensor gradient = parameter.grad();
    results.gradients.push_back(gradient.defined() ? gradient.clone()
                                                   : torch::zeros_like(parameter));
    flat.push_back(to_host(results.gradients.back()).flatten());
  }
  results.all_gradients = torch::cat(flat);
  return results;
}

class LanguageModelGpuTest : public OnGpu<testing::TestWithParam<TinyModel>> {
 protected:
  /// The same weights, rounded to `dtype`, on the GPU in that type and here in float64.
  void make(torch::Dtype dtype) {
    const auto exact = make_tiny_model(GetParam().yaml);
    const auto rounded = moved(*exact, GetParam().yaml, torch::kCPU, dtype);
    here_ = moved(*rounded, GetParam().yaml, torch::kCPU, torch::kFloat64);
    there_ = moved(*rounded, GetParam().yaml, gpu_, dtype);
    narrow_ = rounded;
    first_ = here_->packing().unscored_prefix;
  }
  /// Of all kinds of batches.
  template <typename Check>
  void for_each_batch(const Check& check) const {
    for (const bool dense : {false, true}) {
      for (const bool documents : {false, true}) {
        SCOPED_TRACE(std::string(dense ? "dense" : "sparse") + (documents ? ", documents" : ""));
        const auto rows = (dense ? dense_rows : sparse_rows)(*here_, documents, documents);
        check(make_batch(rows, torch::kCPU), make_batch(rows, gpu_));
      }
    }
  }
  std::unique_ptr<ModelState> state_of(const LanguageModel& model, int64_t batch,
                                       int64_t capacity = kLength) const {
    return inference_state(model, batch, capacity, std::nullopt);
  }
  std::shared_ptr<LanguageModel> here_, there_, narrow_;  // narrow_: here, in `dtype`
  int64_t first_ = 0;
};

TEST_P(LanguageModelGpuTest, LossAndGradientsInFloat32) {
  make(torch::kFloat32);
  for_each_batch([&](const Batch& batch, const Batch& on_gpu) {
    const Results expected = run(*here_, batch), actual = run(*there_, on_gpu);
    expect_close_in_norm(actual.loss.sum, expected.loss.sum, 1e-5);
    EXPECT_TRUE(torch::equal(actual.loss.nll.isnan().cpu(), expected.loss.nll.isnan()));
    expect_close(to_host(actual.loss.nll).nan_to_num(), expected.loss.nll.nan_to_num(), 1e-4);
    // Of tensors whose gradients nearly cancel, as that of a bias of keys, the sums' rounding is
    // left: it is measured against all gradients.
    const double all = expected.all_gradients.norm().item<double>();
    for (size_t i = 0; i < expected.gradients.size(); ++i) {
      SCOPED_TRACE(here_->named_parameters().keys()[i]);
      expect_close_in_norm(actual.gradients[i], expected.gradients[i], 1e-4, /*floor=*/0.01 * all);
    }
  });
}

// Each layer rounds about six times on the way from its input to its output, each time by up to
// 2^-8 of what is there and by less than half of that in norm; of up to six layers that is
// sqrt(36) / 2 = 3 roundings in norm, and twice that with what the layers behind make of them. The
// backward pass doubles the way.
// Retention of a document's first token is its value times one product of query and key, which is
// then normalised: where that product is near 0, gradients are large and all but rounding. So what
// bfloat16 costs on the CPU, which rounds in the same places, may come three times as well.
TEST_P(LanguageModelGpuTest, LossAndGradientsInBfloat16) {
  make(torch::kBFloat16);
  for_each_batch([&](const Batch& batch, const Batch& on_gpu) {
    const Results expected = run(*here_, batch), actual = run(*there_, on_gpu);
    EXPECT_EQ(actual.loss.nll.scalar_type(), torch::kFloat32);
    expect_close_in_norm(actual.loss.nll.nan_to_num(), expected.loss.nll.nan_to_num(),
                         6 * kBfloat16Rounding);
    const double on_cpu =
        (run(*narrow_, batch).all_gradients - expected.all_gradients).norm().item<double>();
    EXPECT_LE((actual.all_gradients - expected.all_gradients).norm().item<double>(),
              12 * kBfloat16Rounding * expected.all_gradients.norm().item<double>() + 3 * on_cpu);
  });
}

// As the trainer runs it: what is not deterministic would be refused.
TEST_P(LanguageModelGpuTest, StrictlyDeterministicAlsoWhereLayersRunAgain) {
  setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/0);
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
  RecomputingRunner again;
  for (const auto dtype : {torch::kFloat32, torch::kBFloat16}) {
    SCOPED_TRACE(c10::toString(dtype));
    make(dtype);
    for_each_batch([&](const Batch&, const Batch& batch) {
      const Results first = run(*there_, batch);
      for (LayerRunner* runner :
           {static_cast<LayerRunner*>(nullptr), static_cast<LayerRunner*>(&again)}) {
        const Results other = run(*there_, batch, runner);
        EXPECT_TRUE(same_bits(other.loss.sum, first.loss.sum));
        for (size_t i = 0; i < first.gradients.size(); ++i) {
          EXPECT_TRUE(same_bits(other.gradients[i], first.gradients[i]))
              << there_->named_parameters().keys()[i];
        }
      }
    });
  }
}

TEST_P(LanguageModelGpuTest, PrefillInAnyCutAndDecodingEqualTheCpu) {
  const torch::NoGradGuard no_grad;
  const Tensor tokens = random_tokens(2, kLength, 1);
  for (const auto& [dtype, tolerance] :
       {std::pair{torch::kFloat32, 1e-4}, {torch::kBFloat16, 6 * kBfloat16Rounding}}) {
    SCOPED_TRACE(c10::toString(dtype));
    make(dtype);
    const auto expected_state = state_of(*here_, 2);
    const Tensor expected = here_->extend(tokens, {}, *expected_state, Want::kAll).slice(1, first_);
    const std::vector<std::vector<int64_t>> cuts = {
        {kLength}, {20, 1, 1, 15}, std::vector<int64_t>(kLength, 1)};
    for (const auto& cut : cuts) {
      const auto state = state_of(*there_, 2, /*capacity=*/4);  // grows on the way
      Tensors pieces;
      for (const auto& piece : tokens.split_with_sizes(cut, 1))
        pieces.push_back(there_->extend(piece.to(gpu_), {}, *state, Want::kAll));
      const Tensor logits = torch::cat(pieces, 1);
      EXPECT_EQ(logits.scalar_type(), torch::kFloat32);
      expect_close_in_norm(logits.slice(1, first_), expected, tolerance);
      EXPECT_TRUE(logits.narrow(1, 0, first_).isnan().all().item<bool>());
      EXPECT_TRUE(torch::equal(state->lengths.cpu(), torch::full({2}, kLength, torch::kInt64)));
    }
  }
}

// The device is not asked how long rows are: what takes another way for it gives the same.
TEST_P(LanguageModelGpuTest, RowsOfDifferentLengths) {
  const torch::NoGradGuard no_grad;
  make(torch::kFloat64);
  const Tensor tokens = random_tokens(3, 29, 3), targets = random_tokens(3, 29, 4);
  const auto lengths_of = [](std::vector<int64_t> n) { return torch::tensor(n, torch::kInt64); };
  const auto results = [&](LanguageModel& model, torch::Device device) {
    const auto state = state_of(model, 3);
    Tensors given;
    const auto piece = [&](int64_t begin, int64_t n) {
      return tokens.narrow(1, begin, n).to(device);
    };
    model.extend(piece(0, 9), lengths_of({9, 0, 4}).to(device), *state, Want::kNothing);
    given.push_back(
        model.extend(piece(9, 8), lengths_of({2, 8, 1}).to(device), *state, Want::kLast));
    given.push_back(model.extend(piece(17, 1), {}, *state, Want::kLast));
    const auto copy = state->select(lengths_of({2, 0, 2}).to(device));
    given.push_back(
        model.extend(piece(18, 4), lengths_of({4, 1, 3}).to(device), *copy, Want::kLast));
    // Of columns behind a row's length, nothing is said.
    const Tensor nll =
        model.extend_nll(piece(22, 4), targets.narrow(1, 22, 4).to(device), {}, *state);
    given.push_back(nll);
    given.push_back(state->lengths);
    given.push_back(copy->lengths);
    return given;
  };
  const Tensors expected = results(*here_, torch::kCPU), actual = results(*there_, gpu_);
  for (size_t i = 0; i < expected.size(); ++i) {
    SCOPED_TRACE("result " + std::to_string(i));
    EXPECT_TRUE(torch::equal(actual[i].cpu().isnan(), expected[i].isnan()));
    expect_close(to_host(actual[i]).nan_to_num(), expected[i].nan_to_num(), 1e-10);
  }
}

TEST_P(LanguageModelGpuTest, GenerationDrawsTheIdsOfTheCpu) {
  make(torch::kFloat64);
  std::vector<std::vector<int64_t>> prompts;
  for (const int64_t n : {11, 4, 19}) {
    const Tensor ids = random_tokens(1, n, static_cast<uint64_t>(n));
    prompts.emplace_back(ids.const_data_ptr<int64_t>(), ids.const_data_ptr<int64_t>() + n);
  }
  for (const SamplingConfig& sampling :
       {SamplingConfig{.temperature = 0},
        SamplingConfig{.temperature = 0.8, .top_k = 20, .top_p = 0.9, .seed = 7}}) {
    for (const int64_t chunk : {0, 5}) {
      GenerateConfig config;
      config.max_new_tokens = 16;
      config.prefill_chunk = chunk;
      config.sampling = sampling;
      const auto expected = generate(*here_, prompts, config);
      const auto actual = generate(*there_, prompts, config);
      for (size_t b = 0; b < prompts.size(); ++b) EXPECT_EQ(actual[b].ids, expected[b].ids);
    }
  }
}

TEST_P(LanguageModelGpuTest, GenerationInBfloat16IsTheSameAgain) {
  make(torch::kBFloat16);
  const std::vector<std::vector<int64_t>> prompts = {{3, 1, 4, 1, 5, 9, 2}, {2, 7, 1, 8, 2}};
  for (const auto cache : {torch::kBFloat16, torch::kFloat32}) {
    GenerateConfig config;
    config.max_new_tokens = 20;
    config.cache_dtype = cache;
    config.sampling.seed = 9;
    const auto once = generate(*there_, prompts, config),
               again = generate(*there_, prompts, config);
    for (size_t b = 0; b < prompts.size(); ++b) {
      EXPECT_EQ(once[b].ids, again[b].ids);
      EXPECT_EQ(once[b].ids.size(), 20u);
      for (const int64_t id : once[b].ids) EXPECT_TRUE(id >= 0 && id < kTinyVocab);
    }
  }
}

// The allocator rounds each tensor up to 512 bytes. Beside what is counted there are lengths of
// rows, and room for eight tokens more than a sliding window.
TEST_P(LanguageModelGpuTest, TheStateTakesTheMemoryItSays) {
  const torch::NoGradGuard no_grad;
  constexpr int64_t kRows = 300;
  for (const auto dtype : {torch::kFloat32, torch::kBFloat16}) {
    make(dtype);
    const PeakMemory memory(gpu_);
    const auto state = state_of(*there_, kRows);
    const int64_t made = *memory.growth_bytes();
    there_->extend(random_tokens(kRows, kLength, 5).to(gpu_), {}, *state, Want::kLast);
    EXPECT_EQ(state->bytes(), kRows * there_->state_bytes(kLength, dtype).total());
    int64_t bytes = 0, n_tensors = 0;  // that were made with the state
    for (const auto& [name, tensor] : state->tensors()) {
      EXPECT_TRUE(tensor.is_cuda()) << name;
      if (name.starts_with("token_decoder.")) continue;
      bytes += tensor.numel() * tensor.element_size();
      ++n_tensors;
    }
    EXPECT_GE(made, bytes);
    EXPECT_LE(made, 4 * bytes + (512 + 8 * kRows) * (n_tensors + 8));  // windows are 3 at least
  }
}

INSTANTIATE_TEST_SUITE_P(Models, LanguageModelGpuTest, testing::ValuesIn(tiny_models()),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace tandem
