#include "cli/load_model.h"

#include <gtest/gtest.h>

#include "tests/cli/tiny_checkpoint.h"
#include "tests/data/temp_folder.h"

namespace tandem {
namespace {

TEST(LoadModelTest, TakesTheNewestCheckpointOfARun) {
  const TempFolder folder;
  write_tiny_run(folder / "run", kTinyByteYoco, 3);
  write_tiny_run(folder / "run", kTinyByteYoco, 12);
  const auto loaded = load_model(folder / "run", torch::kCPU, torch::kFloat64);
  EXPECT_EQ(loaded.step, 12);
  EXPECT_EQ(loaded.checkpoint, checkpoint_folder(folder / "run", 12));
  EXPECT_EQ(loaded.context_length, 24);
  EXPECT_EQ(loaded.tokenizer->name(), "bytes");
  EXPECT_EQ(loaded.model->vocab_size(), 259);
  const auto written = make_tiny_model(kTinyByteYoco, torch::kFloat32)->named_parameters();
  for (const auto& parameter : loaded.model->named_parameters()) {
    expect_close(parameter.value(), written[parameter.key()], 0);
    EXPECT_EQ(parameter.value().scalar_type(), torch::kFloat64);
  }
  EXPECT_EQ(load_model(checkpoint_folder(folder / "run", 3), torch::kCPU, torch::kFloat32).step, 3);
}

TEST(LoadModelTest, NamesAFolderWithoutCheckpoint) {
  const TempFolder folder;
  EXPECT_TRUE(error_of([&] {
                load_model(folder.path(), torch::kCPU, torch::kFloat32);
              }).starts_with(folder.path() + ": "));
}

TEST(LoadModelTest, NamesADamagedConfig) {
  const TempFolder folder;
  CheckpointContents contents;
  contents.config_yaml = "training: {context_length: 24}\n";
  contents.weights = {whole_piece("", "w", torch::zeros({1}))};
  write_checkpoint(folder / "c", contents);
  EXPECT_EQ(error_of([&] { load_model(folder / "c", torch::kCPU, torch::kFloat32); }),
            (folder / "c/config.yaml") + ": has no model section");
}

TEST(LoadModelTest, AConfigGivesRandomWeightsOfItsSeed) {
  const TempFolder folder;
  const std::string path = folder / "tiny.yaml";
  write_file(path, "model: " + std::string(kTinyByteYoco) +
                       "\ndata: {tokenizer: absent.model}\ntraining: {context_length: 99}\n");
  const auto a = random_model(path, 1, torch::kCPU, torch::kFloat32),
             b = random_model(path, 1, torch::kCPU, torch::kFloat32),
             c = random_model(path, 2, torch::kCPU, torch::kFloat32);
  const auto embedding = [](const LoadedModel& loaded) {
    return loaded.model->named_parameters()["embedding.weight"];
  };
  EXPECT_TRUE(embedding(a).equal(embedding(b)));
  EXPECT_FALSE(embedding(a).equal(embedding(c)));
  EXPECT_EQ(a.context_length, 99);
  EXPECT_EQ(a.checkpoint, "");
}

TEST(LoadModelTest, DevicesAndDtypesAreChecked) {
  EXPECT_EQ(parse_device("cpu"), torch::Device(torch::kCPU));
  for (const char* word : {"gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:0x", "cuda1", ""}) {
    EXPECT_EQ(error_of([&] { parse_device(word); }, kExitUsage),
              "--device " + std::string(word) + ", expected auto, cpu, cuda or cuda:N");
  }
  EXPECT_TRUE(error_of([&] { parse_device("cuda:127"); }, kExitUsage)
                  .starts_with("--device cuda:127: found "));
  EXPECT_EQ(parse_dtype("bfloat16"), torch::kBFloat16);
  EXPECT_EQ(error_of([&] { parse_dtype("half"); }, kExitUsage),
            "--dtype half, expected float32, bfloat16 or float64");
}

}  // namespace
}  // namespace tandem
