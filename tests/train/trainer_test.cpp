#include "train/trainer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>

#include "core/log.h"
#include "nn/checkpoint.h"
#include "tests/nn/helpers.h"
#include "tests/nn/tiny_model.h"
#include "tests/train/helpers.h"
#include "train/dry_run.h"
#include "train/setup.h"
#include "train/train_step.h"

namespace tandem {
namespace {

TEST(TrainerTest, LearnsToCount) {
  const TempFolder folder;
  const TrainOutcome outcome =
      train_tiny(folder, "run", {"training.steps=60", "lr_schedule.steps=60"});
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_EQ(outcome.step, 60);
  EXPECT_EQ(outcome.checkpoint, folder / "run/checkpoints/step-00000060");
  const auto metrics = metrics_of(folder / "run");
  EXPECT_NEAR(metrics.front().at("loss").get<double>(), std::log(258),
              0.5);  // nothing is known yet
  EXPECT_LT(*outcome.loss, 0.8 * std::log(258));
  EXPECT_LT(*outcome.validation_loss, std::log(258));
}

TEST(TrainerTest, ARunLeavesEverythingItShould) {
  const TempFolder folder;
  train_tiny(folder, "run");
  EXPECT_EQ(list_directory(folder / "run"),
            (std::vector<std::string>{"checkpoints", "config.yaml", "lock", "log.txt",
                                      "metrics.jsonl", "run.json", "tb"}));
  EXPECT_EQ(list_directory(folder / "run/checkpoints"),
            (std::vector<std::string>{"step-00000006", "step-00000008", "step-00000009"}));
  std::vector<std::string> lines;
  for (const auto& line : metrics_of(folder / "run")) {
    lines.push_back((line.contains("loss") ? "step " : "validation ") + line.at("step").dump());
  }
  EXPECT_EQ(lines, (std::vector<std::string>{"step 1", "step 2", "step 3", "step 4", "validation 4",
                                             "step 5", "step 6", "step 7", "step 8", "validation 8",
                                             "step 9", "validation 9"}));
  const auto run = read_json(folder / "run/run.json");
  EXPECT_EQ(run.at("starts").size(), 1u);
  EXPECT_EQ(run.at("starts")[0].at("weights"), "random");
  EXPECT_EQ(run.at("starts")[0].at("threads"), 1);
  const Checkpoint checkpoint(folder / "run/checkpoints/step-00000009");
  EXPECT_EQ(checkpoint.config_yaml(), read_text(folder / "run/config.yaml"));
  EXPECT_EQ(checkpoint.state().at("next_sample"), 9 * 6);
  const std::string log = read_text(folder / "run/log.txt");
  for (const char* part :
       {"model: transformer, ", "FLOPs per token of training: ", "step: 1  loss: ",
        "validate step: 4  loss: ", "step: 8  loss: ", "finished after step 9"}) {
    EXPECT_NE(log.find(part), std::string::npos) << part << " is not in\n" << log;
  }
  EXPECT_EQ(log.find("step: 2  loss: "), std::string::npos);  // log_every is 4
}

/// Gradients and loss of 12 rows in micro-batches of `size`, in float64, with targets spread
/// unevenly over the rows.
std::pair<Tensor, Tensors> gradients_in(const TempFolder& folder, int64_t size) {
  TrainConfig config = tiny_config(
      folder.path(),
      {"training.tokens_per_step=156", "training.micro_batch_size=" + std::to_string(size)});
  resolve(config, tiny_factory(), *load_tokenizer("bytes"));
  tandem::Run run;
  run.model = tiny_factory().build(config.model);
  materialise_random(*run.model, 3);
  run.optimizer = std::make_unique<Optimizer>(*run.model, torch::kFloat64, config.optimizer);
  const auto sampler = make_sampler(config, {});
  std::vector<Row> rows;
  for (int64_t i = 0; i < 12; ++i) {
    rows.push_back(sampler->row(i));
    for (int64_t t = 0; t < i; ++t) rows.back().targets[t] = kIgnored;
  }
  const auto packed = pack_rows(rows);
  const Tensor loss = accumulate_gradients(run, packed->view(), {0, 12 / size, 12 / size}, config);
  Tensors gradients;
  for (const auto& gradient : run.optimizer->main_gradients())
    gradients.push_back(gradient.clone());
  return {loss, gradients};
}

TEST(TrainerTest, FourMicroBatchesEqualOne) {
  const TempFolder folder;
  const auto [loss, gradients] = gradients_in(folder, 12);
  const auto [loss_of_four, gradients_of_four] = gradients_in(folder, 3);
  expect_close(loss_of_four, loss, 1e-10);
  for (size_t i = 0; i < gradients.size(); ++i) {
    EXPECT_GT(gradients[i].abs().max().item<double>(), 0);
    expect_close(gradients_of_four[i], gradients[i], 1e-10);
  }
}

TEST(TrainerTest, TheLossIsTheMeanOverTheStepsTargets) {
  const TempFolder folder;
  TrainConfig config = tiny_config(folder.path());
  resolve(config, tiny_factory(), *load_tokenizer("bytes"));
  nlohmann::ordered_json origin;
  const auto tokenizer = load_tokenizer("bytes");
  auto run = new_run(config, tiny_factory(), *tokenizer, this_process(), torch::kCPU, &origin);
  std::vector<Row> rows;
  for (int64_t i = 0; i < 6; ++i) rows.push_back(make_sampler(config, {})->row(i));
  for (size_t t = 1; t < 13; ++t) rows[0].targets[t] = kIgnored;  // 1 target here, 13 elsewhere
  const ScoreResult scored = score_rows(*run.model, rows, torch::kCPU, 6);
  EXPECT_EQ(scored.weight, 1 + 5 * 13);
  const StepStats stats = train_step(run, pack_rows(rows)->view(), {0, 3, 3}, config, 0.005);
  EXPECT_NEAR(stats.loss, scored.nll_sum / scored.weight, 1e-6);
  EXPECT_EQ(stats.step, 1);
  EXPECT_EQ(stats.tokens, 78);
  EXPECT_EQ(stats.lr, 0.005);
}

TEST(TrainerTest, RowsWithoutTargetsAreNoCatastrophe) {
  const TempFolder folder;
  TrainConfig config = tiny_config(folder.path());
  const auto tokenizer = load_tokenizer("bytes");
  resolve(config, tiny_factory(), *tokenizer);
  nlohmann::ordered_json origin;
  auto run = new_run(config, tiny_factory(), *tokenizer, this_process(), torch::kCPU, &origin);
  std::vector<Row> rows;
  for (int64_t i = 0; i < 6; ++i) rows.push_back(make_sampler(config, {})->row(i));
  apply_packing(rows, {.multiple = 1, .unscored_prefix = 13});
  const StepStats stats = train_step(run, pack_rows(rows)->view(), {0, 3, 3}, config, 0.005);
  EXPECT_EQ(stats.loss, 0);
  EXPECT_EQ(stats.grad_norm, 0);
  EXPECT_EQ(stats.bad, BadStep::kNone);
}

TEST(TrainerTest, ThreeBadStepsInARowEndTheRun) {
  const TempFolder folder;
  // The first step makes weights of about 1e30, on which everything overflows.
  const TrainOutcome outcome = train_tiny(folder, "run",
                                          {"optimizer.lr=1e30", "lr_schedule={name: constant}",
                                           "checkpoint.every=2", "data.validation=[]"});
  EXPECT_EQ(outcome.exit_code, kExitStopped);
  EXPECT_EQ(outcome.step, 4);
  const auto metrics = metrics_of(folder / "run");
  ASSERT_EQ(metrics.size(), 4u);
  EXPECT_FALSE(metrics[0].contains("skipped"));
  for (size_t i = 1; i < 4; ++i) EXPECT_EQ(metrics[i].at("skipped"), "not finite");
  EXPECT_EQ(checkpoint_steps(folder / "run"), std::vector<int64_t>{2});  // none at step 4
  const Checkpoint checkpoint(outcome.checkpoint);
  EXPECT_EQ(checkpoint.state().at("skipped"), 1);
  for (const auto& name : checkpoint.weight_names())
    EXPECT_TRUE(checkpoint.weight(name).isfinite().all().item<bool>()) << name;
  EXPECT_NE(read_text(folder / "run/log.txt")
                .find("stopped after step 4 by bad_steps: 3 in a row changed no weight, 0 "
                      "rollbacks; the last "
                      "checkpoint is " +
                      outcome.checkpoint),
            std::string::npos);
  // Nothing changes by trying again.
  EXPECT_EQ(train_tiny(folder, "run",
                       {"optimizer.lr=1e30", "lr_schedule={name: constant}", "checkpoint.every=2",
                        "data.validation=[]"})
                .step,
            4);
}

TEST(TrainerTest, ASignalSavesAfterTheStep) {
  for (const auto& [number, code] : {std::pair(SIGTERM, 143), std::pair(SIGINT, 130)}) {
    const TempFolder folder;
    const TrainOutcome outcome = train_tiny(folder, "run", {}, {}, raising_factory(number));
    EXPECT_EQ(outcome.exit_code, code);
    EXPECT_EQ(checkpoint_steps(folder / "run"), std::vector<int64_t>{1});
  }
}

TEST(TrainerTest, BeginsWithGivenWeights) {
  const TempFolder folder;
  const TrainOutcome first =
      train_tiny(folder, "first", {"training.steps=60", "lr_schedule.steps=60"});
  const TrainOutcome second = train_tiny(
      folder, "second", {"init={from: " + (folder / "first") + "}", "training.seed=6"}, 1);
  const auto losses = metrics_of(folder / "second");
  EXPECT_LT(losses.front().at("loss").get<double>(),
            metrics_of(folder / "first").front().at("loss").get<double>() - 0.5);
  EXPECT_EQ(second.step, 1);
  EXPECT_EQ(read_json(folder / "second/run.json").at("starts")[0].at("weights").dump(),
            "{\"checkpoint\":\"" + first.checkpoint + "\",\"step\":60}");
}

TEST(TrainerTest, Bfloat16Trains) {
  const TempFolder folder;
  const TrainOutcome outcome = train_tiny(
      folder, "run", {"training.steps=40", "lr_schedule.steps=40", "training.dtype=bfloat16"});
  EXPECT_LT(*outcome.loss, 0.9 * std::log(258));
  const Checkpoint checkpoint(outcome.checkpoint);
  const Tensor weight = checkpoint.weight("head.weight");
  EXPECT_FALSE(weight.equal(
      weight.to(torch::kBFloat16).to(torch::kFloat32)));  // the masters, not what the module holds
}

TEST(TrainerTest, IdsOfAnotherTokenizerAreRefused) {
  const TempFolder folder;
  int64_t highest = 0;
  const auto sampler = make_sampler(tiny_config(folder.path()), {});
  for (int64_t i = 0; i < 6; ++i) {  // of the first step
    const Row row = sampler->row(i);
    for (const auto* ids : {&row.tokens, &row.targets})
      highest = std::max(highest, *std::max_element(ids->begin(), ids->end()));
  }
  ASSERT_GE(highest, 100);
  const std::string advice =
      ", the model's vocab_size is 100; tokenize the data with the tokenizer of data.tokenizer";
  EXPECT_EQ(error_of([&] {
              train_tiny(folder, "run", {"model.vocab_size=100", "data.validation=[]"});
            }),
            "the training data holds token " + std::to_string(highest) + advice);
  const std::string validation =
      error_of([&] { train_tiny(folder, "other", {"model.vocab_size=100"}); });
  EXPECT_TRUE(validation.starts_with("the validation data holds token ")) << validation;
  EXPECT_EQ(checkpoint_steps(folder / "other"), std::vector<int64_t>{});
  TrainConfig config = tiny_config(folder.path(), {"model.vocab_size=100"});
  const std::string dry = error_of([&] { dry_run(config, tiny_factory(), this_process(), torch::kCPU); });
  EXPECT_TRUE(dry.starts_with("the training data holds token ")) << dry;
}

TEST(TrainerTest, SaysWhatIsLeftOut) {
  const TempFolder folder;
  tiny_yaml(folder.path());
  const auto phrase = [&](const std::string& name, const ViewSpec& spec) {
    const DocumentView view(std::make_shared<TokenFile>(folder / name), spec);
    EXPECT_EQ(view.left_out().size(), 1u);
    return view.left_out()[0] + " of " + folder / name;
  };
  train_tiny(folder, "run",
             {"data.train=[{path: " + (folder / "train") +
                  ", min_length: 30, upsample: {from: 60, times: 2}}]",
              "data.validation=[{path: " + (folder / "valid") + ", max_length: 40}]",
              "training={context_length: 13, tokens_per_step: 78, micro_batch_size: 2}",
              "stages=[{steps: 2}, {steps: 1, data: {train: [{path: " + (folder / "train") +
                  ", min_length: 45, upsample: {from: 50, times: 3}}]}}]",
              "lr_schedule={name: constant}"});
  std::string log = read_text(folder / "run/log.txt");
  const size_t second = log.find("stage 1: steps 3 to 3");
  ASSERT_NE(second, log.npos) << log;
  const std::string validation = "validation: left out " + phrase("valid", {.max_length = 40});
  for (const std::string& line :
       {"train: left out " + phrase("train", {.min_length = 30}), validation,
        "data.train[0].upsample has no effect: " + folder / "train" +
            " has no document of 60 tokens or more"}) {
    EXPECT_LT(log.find(line), second) << line << " is not in\n" << log;
  }
  const std::string later = "train: left out " + phrase("train", {.min_length = 45});
  EXPECT_EQ(log.find(later), log.rfind(later));
  EXPECT_NE(log.find(later), log.npos) << log;
  EXPECT_EQ(log.find("has no effect: ", second), log.npos);
  // The first stage of a dry run says so too.
  testing::internal::CaptureStderr();
  TrainConfig config = tiny_config(
      folder.path(), {"data.train=[{path: " + (folder / "train") + ", min_length: 30}]"});
  dry_run(config, tiny_factory(), this_process(), torch::kCPU);
  EXPECT_NE(testing::internal::GetCapturedStderr().find("train: left out "), std::string::npos);
}

/// 400 tokens of 1 to 19 as uint16, without a document's end.
void write_raw(const std::string& path) {
  std::string raw;
  for (int i = 0; i < 400; ++i) raw += {static_cast<char>(1 + i % 19), '\0'};
  write_file(path, raw);
}

TEST(TrainerTest, SaysWhatHasNoEffectOnASingleDocument) {
  const TempFolder folder;
  const std::string raw = folder / "raw.bin", other = folder / "other.bin";
  write_raw(raw);
  write_raw(other);
  const std::vector<std::string> words = {
      "data.train=[{path: " + raw +
          ", dtype: uint16, min_length: 3, max_length: 500, upsample: {from: 2, times: 2}}, "
          "{path: " +
          other + ", dtype: uint16, eos_id: 77}]",
      "data.validation=[{path: " + raw + ", dtype: uint16, min_length: 2}]"};
  const auto expect = [&](const std::string& log, const std::string& line) {
    EXPECT_NE(log.find("warning: " + line + "\n"), log.npos) << line << " is not in\n" << log;
  };
  auto masked = words;
  masked.insert(masked.end(), {"data.mask_documents=true", "data.shuffle=documents"});
  train_tiny(folder, "run", masked, 1);
  testing::internal::CaptureStderr();
  dry_run(tiny_config(folder.path(), masked), tiny_factory(), this_process(), torch::kCPU);
  for (const std::string& log :
       {read_text(folder / "run/log.txt"), testing::internal::GetCapturedStderr()}) {
    expect(log, "data.train[0]: " + raw +
                    " has no eos_id, so that it is one document: min_length, max_length, "
                    "upsample, data.shuffle: documents, data.mask_documents have no effect on it");
    expect(log, "data.train[1]: " + other +
                    " holds no token 77, so that it is one document: eos_id, data.shuffle: "
                    "documents, data.mask_documents have no effect on it");
    expect(log, "data.validation[0]: " + raw +
                    " has no eos_id, so that it is one document: min_length, data.mask_documents "
                    "have no effect on it");
  }
  train_tiny(folder, "plain", words, 1);
  const std::string log = read_text(folder / "plain/log.txt");
  expect(log, "data.train[1]: " + other +
                  " holds no token 77, so that it is one document: eos_id has no effect on it");
  // Nothing is said of one document where nothing wants several, or where several there are.
  train_tiny(folder, "quiet",
             {"data.train=[{path: " + raw + ", dtype: uint16}]",
              "data.validation=[{path: " + raw + ", dtype: uint16, eos_id: 5, min_length: 2}]"},
             1);
  EXPECT_EQ(read_text(folder / "quiet/log.txt").find("one document"), log.npos);
}

TEST(TrainerTest, SaysWhatIsSeenOfEachSource) {
  const TempFolder folder;
  write_raw(folder / "raw.bin");
  const std::string train = folder / "train";
  tiny_yaml(folder.path());
  train_tiny(folder, "run",
             {"data.train=[{path: " + train + ", weight: 3}, {path: " + (folder / "raw.bin") +
              ", dtype: uint16, weight: 1}]"},
             1);
  const int64_t tokens = TokenFile(train).tokens();
  const std::string log = read_text(folder / "run/log.txt");
  char epochs[32];
  std::snprintf(epochs, sizeof epochs, "%.2f", 0.75 * 9 * 78 / static_cast<double>(tokens));
  for (const std::string& line :
       {"  " + train + ": " + with_commas(tokens) + " tokens, 75.0 % of the samples, " + epochs +
            " epochs\n",
        "  " + (folder / "raw.bin") + ": 400 tokens, 25.0 % of the samples, 0.44 epochs\n"})
    EXPECT_NE(log.find(line), log.npos) << line << " is not in\n" << log;
  train_tiny(folder, "alone", {}, 1);
  EXPECT_EQ(read_text(folder / "alone/log.txt").find("of the samples"), log.npos);
}

TEST(TrainerTest, SourcesOfLaterStagesAreOpenedBeforeTheFirstStep) {
  const TempFolder folder;
  tiny_yaml(folder.path());
  const auto words = [&](const std::string& stages) {
    return std::vector<std::string>{
        "training={context_length: 13, tokens_per_step: 78, micro_batch_size: 2}",
        "lr_schedule={name: constant}", "stages=" + stages};
  };
  const auto expect = [&](const std::string& stages, const std::string& message) {
    EXPECT_EQ(error_of([&] { train_tiny(folder, "run", words(stages)); }), message);
    EXPECT_EQ(error_of([&] {
                dry_run(tiny_config(folder.path(), words(stages)), tiny_factory(), this_process(), torch::kCPU);
              }),
              message);
  };
  const std::string later = folder / "later";
  expect("[{steps: 2}, {steps: 1, data: {train: [{path: " + later + "}]}}]",
         "stages[1]: " + later + ": no tokens: looked for " + later + ".idx (indexed dataset), " +
             later + "_0000000000.bin (packed chunks) and " + later + " itself");
  const std::string tokens = with_commas(TokenFile(folder / "valid").tokens());
  expect("[{steps: 2}, {steps: 1}, {steps: 1, data: {validation: [{path: " + (folder / "valid") +
             ", min_length: 60}]}}]",
         "stages[2]: " + (folder / "valid") + ": without 5 documents (" + tokens +
             " tokens) shorter than 60 it holds 0 tokens, at least 2 are needed");
  EXPECT_EQ(checkpoint_steps(folder / "run"), std::vector<int64_t>{});
  // Those of a stage that is done are not needed any more.
  write_tokens(later, 3, 20);
  const std::string both = "[{steps: 2, data: {train: [{path: " + later +
                           "}]}}, {steps: 2, data: {train: [{path: " + (folder / "train") + "}]}}]";
  EXPECT_EQ(train_tiny(folder, "both", words(both), 3).step, 3);
  std::filesystem::remove(later + ".idx");
  EXPECT_EQ(train_tiny(folder, "both", words(both)).step, 4);
}

TEST(TrainerTest, FilteredDocumentsAreNotLearntFrom) {
  const TempFolder folder;
  {
    TokenFileWriter writer(folder / "mixed", 258);
    for (int32_t d = 0; d < 30; ++d)
      writer.add_document(std::vector<int32_t>(static_cast<size_t>(d % 2 ? 20 : 31), 7 + d % 2));
    writer.publish();
  }
  const TrainConfig config =
      tiny_config(folder.path(), {"data.train=[{path: " + (folder / "mixed") +
                                  ", max_length: 25, upsample: {from: 20, times: 2}}]"});
  const auto sampler = make_sampler(config, {});
  EXPECT_EQ(sampler->tokens_per_epoch(), 15 * 20 * 2);
  for (int64_t sample = 0; sample < 100; ++sample) {
    const Row row = sampler->row(sample);
    for (size_t t = 0; t < row.tokens.size(); ++t)
      EXPECT_EQ(row.tokens[t], row.segment[t] < 0 ? 0 : 8);
  }
}

TEST(TrainerTest, TokensOfAnotherTokenizerAreRefusedByTheirManifest) {
  const TempFolder folder;
  tiny_yaml(folder.path());
  const auto manifest = [&](const std::string& name, const std::string& tokenizer) {
    write_file(folder / name + ".manifest.json",
               R"({"format": "tandem tokens", "version": 1, "tokenizer": )" + tokenizer + "}");
  };
  const auto said = [](const std::string& name, const std::string& hash) {
    return R"({"name": ")" + name + R"(", "sha256": ")" + hash + R"(", "vocab_size": 258})";
  };
  const auto bytes = load_tokenizer("bytes");
  const std::string hash = tokenizer_hash(*bytes), other(64, '0');
  manifest("train", said("bytes", hash));
  EXPECT_EQ(train_tiny(folder, "run", {}, 1).step, 1);  // valid has none, which says nothing

  const std::string advice =
      "; set data.tokenizer to the one it was made with, or run `tandem data tokenize` again";
  manifest("valid", said("books.model", other));
  const std::string message = folder / "valid" +
                              ": was made with the tokenizer books.model, data.tokenizer is bytes" +
                              advice;
  EXPECT_EQ(error_of([&] { train_tiny(folder, "other"); }, kExitUsage), message);
  EXPECT_EQ(error_of([&] { train_tiny(folder, "run"); }, kExitUsage), message);
  EXPECT_EQ(error_of([&] { dry_run(tiny_config(folder.path()), tiny_factory(), this_process(), torch::kCPU); },
                     kExitUsage),
            message);
  EXPECT_EQ(train_tiny(folder, "run", {"data.validation=[]"}, 2).step, 2);
  // Of later stages too, before the first step.
  const std::vector<std::string> staged = {
      "training={context_length: 13, tokens_per_step: 78, micro_batch_size: 2}",
      "lr_schedule={name: constant}", "data.validation=[]",
      "stages=[{steps: 2}, {steps: 1, data: {validation: [{path: " + (folder / "valid.bin") +
          "}]}}]"};
  EXPECT_EQ(error_of([&] { train_tiny(folder, "staged", staged); }, kExitUsage),
            "stages[1]: " + (folder / "valid.bin") + message.substr((folder / "valid").size()));

  manifest("train", said("bytes", other));
  EXPECT_EQ(error_of([&] { train_tiny(folder, "other"); }, kExitUsage),
            folder / "train" +
                ": was made with the tokenizer bytes, data.tokenizer is bytes with other contents" +
                advice);
  manifest("train", "{}");
  EXPECT_TRUE(error_of([&] {
                train_tiny(folder, "other");
              }).starts_with(folder / "train.manifest.json" + ": tokenizer: "));
}

TEST(TrainerTest, ManifestsAreFoundBesideFoldersChunksAndHeaderlessFiles) {
  const TempFolder folder;
  write_raw(folder / "raw.bin");
  std::string chunk("LITPKDS\1\0\0\0\0\0\0\0\10\220\1\0\0\0\0\0\0", 24);  // 400 of uint16
  chunk += read_text(folder / "raw.bin");
  write_file(folder / "chunks/x_0000000000.bin", chunk);
  const std::string other(64, '0');
  const auto manifest = [&](const std::string& name) {
    write_file(folder / name + ".manifest.json",
               R"({"format": "tandem tokens", "version": 1, "tokenizer": {"name": "books", )"
               R"("sha256": ")" +
                   other + "\"}}");
  };
  const auto expect = [&](const std::string& path, const std::string& keys) {
    const std::string source = "[{path: " + (folder / path) + keys + "}]";
    EXPECT_EQ(error_of([&] { train_tiny(folder, "run", {"data.train=" + source}); }, kExitUsage),
              folder / path +
                  ": was made with the tokenizer books, data.tokenizer is bytes; set "
                  "data.tokenizer to the one it was made with, or run `tandem data tokenize` "
                  "again");
  };
  manifest("raw");
  expect("raw.bin", ", dtype: uint16");
  manifest("chunks/x");
  expect("chunks/x", "");
  expect("chunks", "");
  std::filesystem::remove(folder / "chunks/x.manifest.json");
  manifest("chunks/x_0000000000");
  expect("chunks/x_0000000000.bin", "");
}

TEST(TrainerTest, RowsAreWhatTheModelCanRead) {
  const TempFolder folder;
  const auto error = [&](const Packing& packing, const std::vector<std::string>& words) {
    ModelFactory factory = tiny_factory();
    factory.build = [packing](const Choice&) {
      return std::make_shared<RecurrentModel>(258, 7, packing);
    };
    return error_of([&] { train_tiny(folder, "run", words, {}, factory); }, kExitUsage);
  };
  const Packing blocks = {.multiple = 4, .unscored_prefix = 3};
  EXPECT_EQ(error(blocks, {}),
            "training.context_length = 13, expected a multiple of 4, as the rows of the model are");
  EXPECT_EQ(error({.max_length = 12}, {}),
            "training.context_length = 13, expected at most 12, the positions of the model");
  const std::string no_steps =
      "training={context_length: 12, tokens_per_step: 72, micro_batch_size: 2}";
  EXPECT_EQ(error(blocks, {no_steps, "data.mask_documents=true"}),
            "data.mask_documents = true, expected false for a model with pad_documents: false, "
            "whose blocks mix documents");
  // Before the first step, also where a later stage is to blame.
  EXPECT_EQ(error({.max_length = 12},
                  {no_steps, "stages=[{steps: 4}, {steps: 5, training: {context_length: 36}}]"}),
            "command line: stages[1]: training.context_length = 36, expected at most 12, the "
            "positions of the "
            "model");
  EXPECT_EQ(
      error(blocks, {no_steps, "stages=[{steps: 4}, {steps: 5, data: {mask_documents: true}}]"}),
      "command line: stages[1]: data.mask_documents = true, expected false for a model with "
      "pad_documents: false, whose blocks mix documents");
  EXPECT_EQ(checkpoint_steps(folder / "run"), std::vector<int64_t>{});
}

TEST(TrainerTest, ADryRunWritesNothing) {
  const TempFolder folder;
  TrainConfig config = tiny_config(folder.path());
  const auto before = list_directory(folder.path());
  const DryRun run = dry_run(config, tiny_factory(), this_process(), torch::kCPU);
  EXPECT_EQ(list_directory(folder.path()), before);
  EXPECT_NEAR(run.loss, std::log(258), 0.5);
  EXPECT_GT(run.flops_per_token.total(), 6.0 * 16 * 24);
  EXPECT_NEAR(run.tokens_per_second, 26 / run.micro_batch_seconds, 1e-6);
  EXPECT_NEAR(run.run_seconds, 9 * 3 * run.micro_batch_seconds, 1e-9);
  EXPECT_EQ(run.weights_bytes, 16.0 * static_cast<double>(run.parameters));
}

}  // namespace
}  // namespace tandem
