#include <gtest/gtest.h>

#include <cmath>

#include "cli/build_model.h"
#include "nn/checkpoint.h"
#include "tests/train/helpers.h"
#include "train/dry_run.h"
#include "train/plan.h"
#include "train/setup.h"

// What training does for a model that reads blocks: padding of documents, the first block without a
// loss, loss by slot, uptraining.

namespace tandem {
namespace {

constexpr const char* kTraining =
    "training={context_length: 20, tokens_per_step: 120, micro_batch_size: 2, steps: 9, seed: 5, "
    "threads: 1}";
constexpr const char* kBlockModel =
    "model={family: block_transformer, block_length: 4, embedder: {kind: lookup, d_embed: 6}, "
    "block_decoder: {stack: gpt_neox, d_model: 24, ffn_dim: 32, n_layers: 1, n_heads: 3}, "
    "token_decoder: {kind: prefix, prefix_length: 2, stack: gpt_neox, d_model: 16, ffn_dim: 24, "
    "n_layers: 1, n_heads: 2}}";
/// The transformer of tiny.yaml cut in two.
constexpr const char* kUptrained =
    "model={family: block_transformer, block_length: 4, embedder: {kind: lookup, combine: "
    "projection}, block_decoder: {stack: transformer, d_model: 16, ffn_dim: 24, n_layers: 1, "
    "n_heads: 2, head_dim: 8}, token_decoder: {kind: prefix, stack: transformer, d_model: 16, "
    "ffn_dim: 24, n_layers: 1, n_heads: 2, head_dim: 8}}";

class BlockTransformerTrainTest : public testing::Test {
 protected:
  static std::vector<std::string> words(const std::vector<std::string>& more = {}) {
    std::vector<std::string> words = {kTraining, kBlockModel};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }
  TrainOutcome train(const std::string& run, const std::vector<std::string>& more = {},
                     std::optional<int64_t> stop_at = {}) {
    return train_tiny(folder_, run, words(more), stop_at, model_factory());
  }
  TrainConfig config(const std::vector<std::string>& more = {}) {
    return tiny_config(folder_.path(), words(more), model_factory());
  }
  std::string error(const std::string& run, const std::vector<std::string>& more) {
    return error_of([&] { train(run, more); }, kExitUsage);
  }
  TempFolder folder_;
};

TEST_F(BlockTransformerTrainTest, LearnsAndShowsItsLossBySlot) {
  const std::vector<std::string> more = {"training.steps=60", "lr_schedule.steps=60",
                                         "validation.every=30", "checkpoint.every=60"};
  const TrainOutcome outcome = train("run", more);
  EXPECT_EQ(outcome.step, 60);
  const auto metrics = metrics_of(folder_ / "run");
  EXPECT_NEAR(metrics.front().at("loss").get<double>(), std::log(258), 0.5);
  EXPECT_EQ(metrics.front().at("tokens"), 120);
  EXPECT_LT(*outcome.loss, 0.8 * std::log(258));
  EXPECT_LT(*outcome.validation_loss, std::log(258));
  const auto slots = metrics.back().at("nll_by_block_position").get<std::vector<double>>();
  ASSERT_EQ(slots.size(), 4u);
  for (const double nll : slots) {
    EXPECT_GT(nll, 0);
    EXPECT_LT(nll, std::log(258));
  }
  const std::string log = read_text(folder_ / "run/log.txt");
  EXPECT_NE(log.find("  loss_by_block_position: "), std::string::npos) << log;
  EXPECT_NE(log.find(", the padding of documents included"), std::string::npos) << log;
}

TEST_F(BlockTransformerTrainTest, StoppingAnywhereChangesNothing) {
  for (const char* padding : {"true", "false"}) {
    const std::string name = padding;
    const std::vector<std::string> more = {"model.pad_documents=" + name,
                                           "data.mask_documents=" + name, "data.shuffle=documents",
                                           "training.recompute=layers"};
    EXPECT_EQ(train("whole_" + name, more).step, 9);
    for (const int64_t stop_at : {2, 5}) train("part_" + name, more, stop_at);
    EXPECT_EQ(train("part_" + name, more).step, 9);
    EXPECT_EQ(metrics_of(folder_ / ("part_" + name)), metrics_of(folder_ / ("whole_" + name)));
    EXPECT_TRUE(bytes_of_folder(checkpoint_folder(folder_ / ("part_" + name), 9)) ==
                bytes_of_folder(checkpoint_folder(folder_ / ("whole_" + name), 9)));
  }
}

TEST_F(BlockTransformerTrainTest, ADryRunTakesAMicroBatch) {
  const DryRun run = dry_run(config(), model_factory(), this_process(), torch::kCPU);
  EXPECT_NEAR(run.loss, std::log(258), 0.5);
  EXPECT_GT(run.flops_per_token.total(), 0);
}

TEST_F(BlockTransformerTrainTest, BlocksMustFit) {
  EXPECT_EQ(error("run", {"training.context_length=30"}),
            "training.context_length = 30, expected a multiple of 4, as the rows of the model are");
  EXPECT_EQ(error("run", {"model.pad_documents=false", "data.mask_documents=true"}),
            "data.mask_documents = true, expected false for a model with pad_documents: false, "
            "whose blocks mix documents");
}

TEST_F(BlockTransformerTrainTest, OtherBlocksAreAnotherRun) {
  train("run", {}, 2);
  const std::string begin = (folder_ / "run") + ": cannot be resumed with another config: ",
                    end = "; go back, or start another run with --out";
  EXPECT_EQ(error("run", {"model.pad_documents=false"}),
            begin + "model.pad_documents was true, is false" + end);
  EXPECT_EQ(error("run", {"model.block_length=2", "model.embedder.d_embed=12"}),
            begin + "model.block_length was 4, is 2; model.embedder.d_embed was 6, is 12" + end);
}

TEST_F(BlockTransformerTrainTest, AStageOfOtherPaddingCountsItsSamplesAnew) {
  const std::string no_steps =
      "training={context_length: 20, tokens_per_step: 120, micro_batch_size: 2}";
  const TrainConfig staged =
      config({no_steps,
              "stages=[{steps: 4}, {steps: 3, model: {pad_documents: false}}, "
              "{steps: 2, optimizer: {lr: 0.001}}]"});
  const Plan plan(staged, model_factory(), *load_tokenizer("bytes"));
  EXPECT_TRUE(plan.stages()[0].packing.pad_documents);
  EXPECT_FALSE(plan.stages()[1].packing.pad_documents);
  EXPECT_EQ(plan.stages()[1].samples_begin, 4);
  EXPECT_EQ(plan.stages()[2].samples_begin, 4);
}

TEST_F(BlockTransformerTrainTest, UptrainingBeginsWithTheLayersOfATransformer) {
  const TrainOutcome source = train_tiny(
      folder_, "source", {"training.steps=30", "lr_schedule.steps=30", "checkpoint.every=30"}, {},
      model_factory());
  const std::string init = "init={from: " + (folder_ / "source") + ", as: uptrain}";
  const std::vector<std::string> words = {kTraining, kUptrained, init};
  TrainConfig config = tiny_config(folder_.path(), words, model_factory());
  const auto tokenizer = load_tokenizer("bytes");
  resolve(config, model_factory(), *tokenizer);
  nlohmann::ordered_json origin;
  const tandem::Run run = new_run(config, model_factory(), *tokenizer, this_process(), torch::kCPU, &origin);
  EXPECT_EQ(origin.dump(),
            "{\"checkpoint\":\"" + source.checkpoint + "\",\"step\":30,\"as\":\"uptrain\"}");
  const Checkpoint from(source.checkpoint);
  const auto parameters = run.model->named_parameters();
  for (const auto& [ours, theirs] : std::vector<std::pair<std::string, std::string>>{
           {"token_decoder.embedding.weight", "embedding.weight"},
           {"block_decoder.layers.0.mixer.q_proj.weight", "layers.0.mixer.q_proj.weight"},
           {"token_decoder.layers.0.mixer.q_proj.weight", "layers.1.mixer.q_proj.weight"}}) {
    EXPECT_TRUE(parameters[ours].equal(from.weight(theirs))) << ours;
  }

  // The same through the trainer, which goes on without the source.
  train_tiny(folder_, "whole", words, {}, model_factory());
  train_tiny(folder_, "part", words, 3, model_factory());
  EXPECT_EQ(read_json(folder_ / "part/run.json").at("starts")[0].at("weights"), origin);
  train_tiny(folder_, "part", words, {}, model_factory());
  EXPECT_EQ(metrics_of(folder_ / "part"), metrics_of(folder_ / "whole"));
}

}  // namespace
}  // namespace tandem
