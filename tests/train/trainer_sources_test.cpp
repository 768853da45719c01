#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>

#include "core/log.h"
#include "tests/nn/helpers.h"
#include "tests/train/helpers.h"
#include "train/dry_run.h"
#include "train/setup.h"
#include "train/trainer.h"

// What training says of the sources that it reads, and which it refuses.

namespace tandem {
namespace {

TEST(TrainerSourcesTest, IdsOfAnotherTokenizerAreRefused) {
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

TEST(TrainerSourcesTest, SaysWhatIsLeftOut) {
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

TEST(TrainerSourcesTest, SaysWhatHasNoEffectOnASingleDocument) {
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

TEST(TrainerSourcesTest, SaysWhatIsSeenOfEachSource) {
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

TEST(TrainerSourcesTest, SourcesOfLaterStagesAreOpenedBeforeTheFirstStep) {
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

TEST(TrainerSourcesTest, FilteredDocumentsAreNotLearntFrom) {
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

TEST(TrainerSourcesTest, TokensOfAnotherTokenizerAreRefusedByTheirManifest) {
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

TEST(TrainerSourcesTest, ManifestsAreFoundBesideFoldersChunksAndHeaderlessFiles) {
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

}  // namespace
}  // namespace tandem
