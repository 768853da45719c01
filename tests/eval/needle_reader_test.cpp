#include "eval/needle_reader.h"

#include <algorithm>
#include <cmath>

#include "nn/generate.h"
#include "nn/score.h"
#include "tests/cli/tiny_models.h"
#include "tests/paths.h"

// What a model says to prompts that begin alike, for every family.

namespace tandem {
namespace {

using Ids = std::vector<int64_t>;

Ids random_ids(int64_t n, uint64_t seed) {
  const Tensor ids = torch::randint(53, {n}, seeded(seed), torch::kInt64);
  return {ids.data_ptr<int64_t>(), ids.data_ptr<int64_t>() + n};
}

Ids joined(Ids a, const Ids& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

void expect_near(const std::vector<NeedleReading>& a, const std::vector<NeedleReading>& b,
                 double tolerance) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].ids, b[i].ids);
    EXPECT_EQ(a[i].first_token_rank, b[i].first_token_rank);
    ASSERT_EQ(a[i].log_probs.size(), b[i].log_probs.size());
    for (size_t c = 0; c < a[i].log_probs.size(); ++c)
      EXPECT_NEAR(a[i].log_probs[c], b[i].log_probs[c], tolerance);
  }
}

class NeedleReaderTest : public testing::TestWithParam<TinyModel> {
 protected:
  // Three prompts that share their first 17 tokens, of different lengths.
  static std::vector<NeedleQuestion> questions(uint64_t seed = 1) {
    std::vector<NeedleQuestion> made;
    for (const uint64_t i : {0u, 1u, 2u}) {
      NeedleQuestion question;
      question.prompt = joined(random_ids(17, 1), random_ids(12 + (i * 2) % 3, seed * 100 + i));
      for (const int64_t n : {3, 1, 4, 2})
        question.candidates.push_back(
            random_ids(n, seed * 100 + i + 10 + static_cast<uint64_t>(n)));
      made.push_back(std::move(question));
    }
    return made;
  }
  static NeedleReaderConfig config(int64_t chunk, int64_t rows) {
    return {.chunk = chunk, .rows = rows, .capacity = 44, .max_new_tokens = 5};
  }
  std::vector<NeedleReading> read(const NeedleReaderConfig& wanted) {
    NeedleReader reader(*model_, wanted);
    return reader.read(questions());
  }
  const std::shared_ptr<LanguageModel> model_ = make_tiny_model(GetParam().yaml);
};

TEST_P(NeedleReaderTest, ClonesOfACommonStateAnswerAsSeparatePrompts) {
  const auto alone = read(config(/*chunk=*/100, /*rows=*/1));
  using Sizes = std::pair<int64_t, int64_t>;  // chunk, rows
  for (const auto& [chunk, rows] : {Sizes(7, 1), Sizes(5, 2), Sizes(7, 3), Sizes(100, 3)})
    expect_near(read(config(chunk, rows)), alone, 1e-9);
  NeedleReader reader(*model_, config(7, 3));
  reader.read(questions());
  int64_t tokens = 0;
  for (const auto& question : questions()) {
    const auto n = static_cast<int64_t>(question.prompt.size());
    tokens += n + model_->packing().padding_to_continue(n);
  }
  EXPECT_LE(reader.tokens_fed(), tokens);
  if (model_->packing().multiple == 1) {
    EXPECT_EQ(reader.tokens_fed(), tokens - 2 * 14);
  }
}

TEST_P(NeedleReaderTest, CandidatesAreGivenTheWholePrompt) {
  const auto readings = read(config(7, 2));
  const auto asked = questions();
  const Packing packing = model_->packing();
  for (size_t i = 0; i < asked.size(); ++i) {
    const Ids& prompt = asked[i].prompt;
    const int64_t padding = packing.padding_to_continue(std::ssize(prompt));
    for (size_t c = 0; c < asked[i].candidates.size(); ++c) {
      const Ids& candidate = asked[i].candidates[c];
      const Ids whole =
          joined(joined(Ids(static_cast<size_t>(padding), kPadding), prompt), candidate);
      const auto state = inference_state(*model_, 1, std::ssize(whole));
      const Tensor log_p =
          model_->extend(torch::tensor(whole, torch::kInt64).unsqueeze(0), {}, *state, Want::kAll)
              .log_softmax(2);
      double sum = 0;
      for (int64_t t = 0; t < std::ssize(candidate); ++t)
        sum += log_p[0][padding + std::ssize(prompt) + t - 1][candidate[static_cast<size_t>(t)]]
                   .item<double>();
      EXPECT_NEAR(readings[i].log_probs[c], sum, 1e-9);

      if (packing.pad_documents) continue;  // scored behind other padding
      const auto scored =
          log_probs(*model_, std::vector<Ids>{joined(prompt, candidate)}, torch::kCPU, 1).front();
      double of_score = 0;
      for (size_t t = prompt.size(); t < scored.size(); ++t) of_score += scored[t];
      EXPECT_NEAR(readings[i].log_probs[c], of_score, 1e-5);  // score keeps float32
    }
  }
}

TEST_P(NeedleReaderTest, AnswersAreWhatGenerateGives) {
  const auto readings = read(config(7, 3));
  std::vector<Ids> prompts;
  for (const auto& question : questions()) prompts.push_back(question.prompt);
  const auto expected =
      generate(*model_, prompts, {.sampling = {.temperature = 0}, .max_new_tokens = 5});
  for (size_t i = 0; i < prompts.size(); ++i) EXPECT_EQ(readings[i].ids, expected[i].ids);

  NeedleReaderConfig stopping = config(7, 3);
  stopping.stop_ids = {expected[0].ids[1]};
  const auto stopped = read(stopping).front().ids;
  const auto first =
      std::find(expected[0].ids.begin(), expected[0].ids.end(), stopping.stop_ids[0]);
  EXPECT_EQ(stopped, Ids(expected[0].ids.begin(), first + 1));
  NeedleReaderConfig forbidding = config(7, 3);
  forbidding.forbidden = {expected[0].ids[0]};
  EXPECT_NE(read(forbidding).front().ids[0], expected[0].ids[0]);
}

// A state kept for the coming call changes not a bit.
TEST_P(NeedleReaderTest, KeptStatesAreThoseThatWouldBeComputed) {
  // What the calls share ends before, with and beyond what all prompts of one share.
  using Sizes = std::pair<int64_t, int64_t>;  // rows, common
  for (const auto& [rows, common] : {Sizes(3, 9), Sizes(3, 15), Sizes(3, 26), Sizes(1, 26)}) {
    const auto asked = questions();
    auto coming = asked;
    for (size_t i = 0; i < coming.size(); ++i) {
      Ids& prompt = coming[i].prompt;
      const Ids other = random_ids(std::ssize(prompt) - common, 50 + i);
      std::copy(other.begin(), other.end(), prompt.begin() + common);
    }
    NeedleReader fresh(*model_, config(7, rows)), kept(*model_, config(7, rows));
    const auto expected = fresh.read(coming);
    kept.read(asked, coming);
    const int64_t before = kept.tokens_fed();
    expect_near(kept.read(coming), expected, 0);
    if (model_->packing().multiple == 1) {
      EXPECT_LT(kept.tokens_fed() - before, fresh.tokens_fed());
    }
  }
}

TEST_P(NeedleReaderTest, LittleMemoryMeansFewerRows) {
  NeedleReaderConfig tight = config(7, 3);
  tight.memory_bytes = 1;
  NeedleReader reader(*model_, tight), roomy(*model_, config(7, 3));
  expect_near(reader.read(questions()), roomy.read(questions()), 1e-9);
  EXPECT_LT(reader.peak_state_bytes(), roomy.peak_state_bytes());
  EXPECT_GT(reader.peak_state_bytes(), 0);
}

INSTANTIATE_TEST_SUITE_P(Models, NeedleReaderTest, testing::ValuesIn(tiny_models()),
                         [](const auto& test) { return test.param.name; });

TEST(IdsBehindTest, AreThoseOfBothTogether) {
  const auto bytes = load_tokenizer("bytes");
  EXPECT_EQ(ids_behind("number is ", "41", *bytes), (Ids{'4', '1'}));
  const std::string longer = "x" + std::string(500, 'y') + " is";
  EXPECT_EQ(ids_behind(longer, " 4", *bytes), (Ids{' ', '4'}));
}

// Behind the prompt's own ids they spell the answer, whatever the vocabulary joins.
TEST(IdsBehindTest, SpellTheAnswerInEveryVocabulary) {
  for (const char* name : {"bpe.model", "unigram.model", "llama2_bpe.model", "gpt2.json",
                           "llama3.json", "neox.json", "qwen2.json"}) {
    const auto tokenizer =
        load_tokenizer(std::string(kSourceDir) + "/tests/golden/tokenizers/" + name);
    for (const std::string prompt : {"The special magic Lima number is ", "the number is:",
                                     "What is it?\n\n", "in the provided text are"}) {
      for (const std::string value : {"7", "4213", "1234567", "3f2a"}) {
        const std::string text =
            prompt.ends_with(' ') || prompt.ends_with('\n') ? value : " " + value;
        const Ids behind = ids_behind(prompt, text, *tokenizer);
        auto ids = tokenizer->encode(prompt);
        ids.insert(ids.end(), behind.begin(), behind.end());
        std::string spelled = tokenizer->decode(ids);
        EXPECT_EQ(spelled, tokenizer->decode(tokenizer->encode(prompt + text))) << name;
      }
    }
  }
}

}  // namespace
}  // namespace tandem
