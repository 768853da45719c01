#include "nn/generate.h"

#include <gtest/gtest.h>

#include "tests/nn/block_model.h"
#include "tests/nn/tiny_model.h"

namespace tandem {
namespace {

const std::vector<std::vector<int64_t>> kPrompts = {
    {5, 1, 22, 0, 7, 7, 13}, {3}, {11, 4, 9}, {0, 19, 2, 2, 2, 8, 21, 6, 1, 14, 3}};

// One word an id. Text comes `late` ids late, as it does where characters are spread over tokens.
class Words : public TextStream {
 public:
  explicit Words(std::vector<std::string> words, size_t late = 0)
      : words_(std::move(words)), late_(late) {}
  std::string push(int64_t id) override {
    held_.push_back(words_[static_cast<size_t>(id)]);
    return held_.size() > late_ ? take() : "";
  }
  std::string flush() override {
    std::string text;
    while (!held_.empty()) text += take();
    return text;
  }

 private:
  std::string take() {
    const std::string word = held_.front();
    held_.erase(held_.begin());
    return word;
  }
  std::vector<std::string> words_, held_;
  size_t late_;
};

// Greedily, id v is followed by v + 1: E[v] and W[v + 1] are 4 times the v-th unit vector, and the
// past counts half.
std::shared_ptr<RecurrentModel> make_counting_model(int64_t vocab_size) {
  auto model = std::make_shared<RecurrentModel>(vocab_size, vocab_size);
  auto parameters = model->named_parameters();
  const Tensor unit = 4 * torch::eye(vocab_size, torch::kFloat64);
  materialise(parameters["embedding"], unit);
  materialise(parameters["head"], unit.roll(1, 0));
  return model;
}

std::vector<std::vector<int64_t>> ids_of(const std::vector<Generated>& results) {
  std::vector<std::vector<int64_t>> ids;
  for (const auto& result : results) ids.push_back(result.ids);
  return ids;
}

TEST(PrefillTest, PiecesOfAnySizeGiveTheSameState) {
  const auto model = make_recurrent_model();
  const auto whole = inference_state(*model, 4, 11);
  prefill(*model, kPrompts, 0, *whole);
  EXPECT_TRUE(whole->lengths.equal(torch::tensor({7, 1, 3, 11})));
  for (const int64_t chunk : {1, 2, 3, 5, 10, 11, 100}) {
    const auto state = inference_state(*model, 4, 11);
    prefill(*model, kPrompts, chunk, *state);
    expect_close(state->next_logits, whole->next_logits);
    EXPECT_TRUE(state->lengths.equal(whole->lengths)) << "chunk " << chunk;
  }
}

TEST(InferenceStateTest, TakesTheModelsTypeOrTheOneAskedFor) {
  const auto model = make_recurrent_model();  // float64
  const auto type_of = [&](std::optional<torch::Dtype> cache_dtype) {
    return inference_state(*model, 2, 5, cache_dtype)->tensors().front().second.scalar_type();
  };
  EXPECT_EQ(type_of({}), torch::kFloat64);
  EXPECT_EQ(type_of(cache_dtype_of("same")), torch::kFloat64);
  EXPECT_EQ(type_of(cache_dtype_of("float32")), torch::kFloat32);
  EXPECT_EQ(type_of(cache_dtype_of("bfloat16")), torch::kBFloat16);
  EXPECT_EQ(type_of(cache_dtype_of("int8")), torch::kInt8);
  EXPECT_THROW(cache_dtype_of("int4"), c10::Error);
}

TEST(PrefillTest, OnlyTheLastPieceAsksForLogits) {
  const auto model = make_recurrent_model();
  const auto state = inference_state(*model, 4, 11);
  prefill(*model, kPrompts, 4, *state);
  ASSERT_EQ(model->calls.size(), 3u);
  EXPECT_EQ(model->calls[0].n_tokens, 3);  // what is left over comes first
  EXPECT_EQ(model->calls[0].want, Want::kNothing);
  EXPECT_EQ(model->calls[1].n_tokens, 4);
  EXPECT_EQ(model->calls[1].want, Want::kNothing);
  EXPECT_EQ(model->calls[2].n_tokens, 4);
  EXPECT_EQ(model->calls[2].want, Want::kLast);
}

TEST(PrefillTest, RefusesAnEmptyPrompt) {
  const auto model = make_recurrent_model();
  const auto state = inference_state(*model, 2, 11);
  const std::vector<std::vector<int64_t>> prompts = {{1, 2}, {}};
  EXPECT_THROW(prefill(*model, prompts, 0, *state), c10::Error);
}

// What prefill feeds for kPrompts in blocks of 3.
std::vector<BlockModel::Ids> padded_prompts(bool pad_documents) {
  const std::vector<int64_t> padding =
      pad_documents ? std::vector<int64_t>{2, 2, 0, 1} : std::vector<int64_t>{0, 2, 0, 0};
  std::vector<BlockModel::Ids> prompts;
  for (size_t b = 0; b < kPrompts.size(); ++b) prompts.push_back(padded(padding[b], kPrompts[b]));
  return prompts;
}

TEST(PrefillTest, PaddingStandsInFrontOfPrompts) {
  for (const bool pad_documents : {true, false}) {
    const auto model = make_block_model(3, pad_documents);
    const auto expected = padded_prompts(pad_documents);
    for (const int64_t chunk : {0, 1, 2, 3, 5, 11, 100}) {
      const auto state = state_for_prompts(*model, kPrompts, 0);
      prefill(*model, kPrompts, chunk, *state);
      EXPECT_EQ(static_cast<BlockModel::BlockState&>(*state).rows, expected) << "chunk " << chunk;
      for (size_t b = 0; b < expected.size(); ++b)
        expect_close(state->next_logits[static_cast<int64_t>(b)], model->predict(expected[b]));
    }
  }
}

TEST(InferenceStateTest, HasRoomForPaddedPrompts) {
  const auto capacity = [&](bool pad_documents, int64_t room) {
    const auto state =
        state_for_prompts(*make_block_model(3, pad_documents), kPrompts, room, torch::kFloat32);
    const auto& shape = static_cast<BlockModel::BlockState&>(*state).shape;
    EXPECT_EQ(shape.batch, 4);
    EXPECT_EQ(shape.dtype, torch::kFloat32);
    return shape.capacity;
  };
  EXPECT_EQ(capacity(true, 0), 12);  // 11 and 1 of padding
  EXPECT_EQ(capacity(true, 5), 17);
  EXPECT_EQ(capacity(false, 5), 16);
}

TEST(LengthWhenContinuedTest, CountsWholeCalls) {
  EXPECT_EQ(length_when_continued(*make_recurrent_model(), kPrompts, 4), 11 + 4);
  const auto padding = make_block_model(3, true), plain = make_block_model(3, false);
  EXPECT_EQ(length_when_continued(*padding, kPrompts, 6), 12 + 6);
  EXPECT_EQ(length_when_continued(*padding, kPrompts, 7), 12 + 9);
  EXPECT_EQ(length_when_continued(*plain, kPrompts, 1), 9 + 3);  // within the block of the prompt
  EXPECT_EQ(length_when_continued(*plain, kPrompts, 4), 9 + 6);
  EXPECT_EQ(length_when_continued(*plain, kPrompts, 5), 9 + 9);  // 2 begun, 5 new
}

class GenerateBlocksTest : public testing::TestWithParam<std::tuple<int64_t, bool>> {
 protected:
  const std::shared_ptr<BlockModel> model_ =
      make_block_model(std::get<0>(GetParam()), std::get<1>(GetParam()));
};

TEST_P(GenerateBlocksTest, ContinuesGreedilyAsOneTokenAfterTheOther) {
  const auto results = generate(
      *model_, kPrompts, {.sampling = {.temperature = 0}, .max_new_tokens = 7, .prefill_chunk = 2});
  for (size_t b = 0; b < kPrompts.size(); ++b) {
    const auto n = std::ssize(kPrompts[b]);
    auto ids = padded(model_->packing().padding_to_continue(n), kPrompts[b]);
    std::vector<int64_t> expected;
    for (int i = 0; i < 7; ++i) {
      expected.push_back(model_->predict(ids).argmax().item<int64_t>());
      ids.push_back(expected.back());
    }
    EXPECT_EQ(results[b].ids, expected) << "row " << b;
    EXPECT_EQ(results[b].reason, StopReason::kLength);
  }
}

TEST_P(GenerateBlocksTest, ARowDrawsWhatItDrawsAlone) {
  const GenerateConfig config{.sampling = {.seed = 12}, .max_new_tokens = 11, .prefill_chunk = 4};
  for (size_t first = 0; first < kPrompts.size(); ++first) {
    auto prompts = kPrompts;  // a row's number is part of what it draws
    std::swap(prompts[0], prompts[first]);
    const auto together = generate(*model_, prompts, config);
    const auto alone = generate(*model_, std::span(prompts).first(1), config);
    EXPECT_EQ(together[0].ids, alone[0].ids) << "prompt " << first;
    EXPECT_EQ(together[0].ids.size(), 11u);
  }
}

INSTANTIATE_TEST_SUITE_P(All, GenerateBlocksTest,
                         testing::Combine(testing::Values(1, 2, 3, 4, 8), testing::Bool()));

TEST(GenerateTest, StopsWithinABlock) {
  const auto model = make_block_model(4, false);
  GenerateConfig config{.sampling = {.temperature = 0}, .max_new_tokens = 10};
  const auto whole = generate(*model, kPrompts, config)[0].ids;
  const int64_t stop = whole[4];
  config.stop_ids = {stop};
  const auto result = generate(*model, kPrompts, config)[0];
  const auto at = std::find(whole.begin(), whole.end(), stop);
  EXPECT_EQ(result.ids, std::vector<int64_t>(whole.begin(), at + 1));
  EXPECT_EQ(result.reason, StopReason::kStopId);
}

template <typename Call>
std::string message_of(Call call) {
  try {
    call();
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  }
  return "nothing was thrown";
}

TEST(GenerateTest, PositionsThatTheModelHasNotAreRefusedBeforeAnyWork) {
  const auto model = make_block_model(3, true, /*max_length=*/15);
  const std::vector<std::vector<int64_t>> long_prompt = {{1, 2}, std::vector<int64_t>(16, 4)};
  EXPECT_EQ(message_of([&] { generate(*model, kPrompts, {.sampling = {}, .max_new_tokens = 4}); }),
            "generate: a row comes to 18 tokens, padding included, expected at most 15, the "
            "positions of the model");
  EXPECT_EQ(message_of([&] {
              prefill(*model, long_prompt, 2, *state_for_prompts(*model, long_prompt, 0));
            }),
            "prefill: a prompt of 18 tokens, padding included, expected at most 15, the positions "
            "of the model");
  EXPECT_EQ(model->n_calls, 0);
  const auto results = generate(*model, kPrompts, {.sampling = {}, .max_new_tokens = 3});
  EXPECT_EQ(results[3].ids.size(), 3u);  // 12 + 3
}

TEST(GenerateTest, ContinuesGreedilyAsOneTokenAfterTheOther) {
  const auto model = make_recurrent_model();
  const auto results =
      generate(*model, kPrompts, {.sampling = {.temperature = 0}, .max_new_tokens = 9});
  for (size_t b = 0; b < kPrompts.size(); ++b) {
    auto tokens = kPrompts[b];
    for (int i = 0; i < 9; ++i) {
      const auto state = inference_state(*model, 1, 32);
      const auto logits =
          model->extend(torch::tensor(tokens).unsqueeze(0), {}, *state, Want::kLast);
      tokens.push_back(logits.argmax(1).item<int64_t>());
      EXPECT_EQ(results[b].ids[static_cast<size_t>(i)], tokens.back())
          << "row " << b << ", token " << i;
    }
    EXPECT_EQ(results[b].ids.size(), 9u);
    EXPECT_EQ(results[b].reason, StopReason::kLength);
    EXPECT_EQ(results[b].text, "");
  }
}

TEST(GenerateTest, PiecesOfAnySizeDrawTheSameTokens) {
  const auto model = make_recurrent_model();
  GenerateConfig config{.sampling = {.seed = 11}, .max_new_tokens = 20};
  const auto whole = ids_of(generate(*model, kPrompts, config));
  for (const int64_t chunk : {1, 3, 4, 50}) {
    config.prefill_chunk = chunk;
    EXPECT_EQ(ids_of(generate(*model, kPrompts, config)), whole) << "chunk " << chunk;
  }
}

TEST(GenerateTest, RowsOfDifferentLengthsGetWhatTheyGetAlone) {
  const auto model = make_recurrent_model();
  const GenerateConfig config{
      .sampling = {.temperature = 0}, .max_new_tokens = 12, .prefill_chunk = 2};
  const auto together = generate(*model, kPrompts, config);
  for (size_t b = 0; b < kPrompts.size(); ++b) {
    const auto alone = generate(*model, std::span(kPrompts).subspan(b, 1), config);
    EXPECT_EQ(together[b].ids, alone[0].ids) << "row " << b;
  }
}

TEST(GenerateTest, RowsStopEachOnItsOwn) {
  const auto model = make_counting_model(13);
  const std::vector<std::vector<int64_t>> prompts = {{2}, {8, 9}, {12, 0, 1}};
  const auto results = generate(
      *model, prompts, {.sampling = {.temperature = 0}, .max_new_tokens = 5, .stop_ids = {6, 11}});
  EXPECT_EQ(results[0].ids, (std::vector<int64_t>{3, 4, 5, 6}));
  EXPECT_EQ(results[0].reason, StopReason::kStopId);
  EXPECT_EQ(results[1].ids, (std::vector<int64_t>{10, 11}));
  EXPECT_EQ(results[1].reason, StopReason::kStopId);
  EXPECT_EQ(results[2].ids, (std::vector<int64_t>{2, 3, 4, 5, 6}));  // at the last token allowed
  EXPECT_EQ(results[2].reason, StopReason::kStopId);
}

const std::vector<std::string> kWords = {"<0>",  "The ", "old ", "man", " sa", "id \n", "\nand ",
                                         "went", " a",   "way",  ".",   "!",   "?"};

struct StopCase {
  std::vector<std::string> stop;
  std::string text;
  size_t n_ids;  // drawn until the row ended
  StopReason reason;
};

class StopStringTest : public testing::TestWithParam<std::tuple<StopCase, size_t>> {};

TEST_P(StopStringTest, CutsWhereverTheTokensBegin) {
  const auto& [c, late] = GetParam();
  const auto model = make_counting_model(13);
  std::string streamed;
  GenerateConfig config{.sampling = {.temperature = 0}, .max_new_tokens = 9, .stop = c.stop};
  config.make_text = [late_by = late] { return std::make_unique<Words>(kWords, late_by); };
  config.on_text = [&](int64_t row, const std::string& text) {
    EXPECT_EQ(row, 0);
    EXPECT_FALSE(text.empty());
    streamed += text;
  };
  const std::vector<std::vector<int64_t>> prompts = {{1}};
  const auto result = generate(*model, prompts, config).front();
  EXPECT_TRUE(result.text.ends_with(c.text)) << result.text;
  if (late == 0) {
    EXPECT_EQ(result.text, c.text);
    EXPECT_EQ(result.ids.size(), c.n_ids);
  }
  EXPECT_EQ(streamed, result.text);
  EXPECT_EQ(result.reason, c.reason);
}

INSTANTIATE_TEST_SUITE_P(
    All, StopStringTest,
    testing::Combine(
        testing::Values(
            StopCase{{}, "old man said \n\nand went away.", 9, StopReason::kLength},
            StopCase{{"\n\n"}, "old man said ", 5, StopReason::kStopString},  // over a border
            StopCase{{"man said"}, "old ", 4, StopReason::kStopString},       // over three tokens
            StopCase{{"xyz", " went", "d went"},
                     "old man said \n\nan",
                     6,
                     StopReason::kStopString},  // both end there
            StopCase{{"said so", "and went by"},
                     "old man said \n\nand went away.",
                     9,
                     StopReason::kLength},
            StopCase{{"old man went", "d m"}, "ol", 2, StopReason::kStopString},
            StopCase{{".!"},
                     "old man said \n\nand went away.",
                     9,
                     StopReason::kLength}),  // begins at the end
        testing::Values(size_t{0}, size_t{2})));

TEST(GenerateTest, TheFirstCompleteStopStringCountsInsideOneToken) {
  const auto model = make_counting_model(3);
  GenerateConfig config{.sampling = {.temperature = 0}, .max_new_tokens = 1, .stop = {"abcd", "b"}};
  config.make_text = [] {
    return std::make_unique<Words>(std::vector<std::string>{"x", "xabcd", "x"});
  };
  const std::vector<std::vector<int64_t>> prompts = {{0}};
  EXPECT_EQ(generate(*model, prompts, config).front().text, "xa");
}

TEST(GenerateTest, ThePromptIsContextForTheTextAndNotPartOfIt) {
  const auto model = make_counting_model(13);
  GenerateConfig config{.sampling = {.temperature = 0}, .max_new_tokens = 2};
  config.make_text = [] { return std::make_unique<Words>(kWords); };
  const std::vector<std::vector<int64_t>> prompts = {{1, 2}};
  EXPECT_EQ(generate(*model, prompts, config).front().text, "man sa");
}

}  // namespace
}  // namespace tandem
