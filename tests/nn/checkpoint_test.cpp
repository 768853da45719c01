#include "nn/checkpoint.h"

#include <gtest/gtest.h>

#include <map>

#include "core/checksum.h"
#include "core/file.h"
#include "tests/data/temp_folder.h"
#include "tests/nn/helpers.h"

namespace tandem {
namespace {

class TwoLayers : public Module {
 public:
  explicit TwoLayers(int64_t width = 3) {
    declare(*this, "matrix", {width, 5}, init_normal(1));
    declare(*this, "vector", {7}, init_constant(1));
    materialise_empty(*this, torch::kCPU, torch::kFloat32);
  }
};

CheckpointContents contents() {
  auto generator = seeded(5);
  CheckpointContents contents;
  contents.step = 12;
  contents.weights = {whole_piece("", "matrix", torch::randn({3, 5}, generator)),
                      whole_piece("", "vector", torch::randn({7}, generator))};
  for (const char* kind : {"exp_avg", "exp_avg_sq"}) {
    contents.optimizer.push_back(whole_piece(kind, "matrix", torch::randn({3, 5}, generator)));
    contents.optimizer.push_back(whole_piece(kind, "vector", torch::randn({7}, generator)));
  }
  contents.config_yaml = "training: {steps: 20}\n";
  contents.state = {{"step", 12}, {"skipped", 1}};
  contents.tokenizer_model = "a tokenizer's bytes";
  return contents;
}

/// The parameter that a piece is of, divided by nobody.
ParameterInfo info_of(const TensorPiece& piece) {
  ParameterInfo info;
  info.name = piece.parameter;
  info.global_shape = piece.global_shape;
  return info;
}

class CheckpointTest : public testing::Test {
 protected:
  CheckpointTest() : path_(folder_ / "step-00000012") { write_checkpoint(path_, contents()); }
  /// The error of opening and verifying.
  std::string error() const {
    return error_of([&] { Checkpoint(path_).verify(); });
  }
  std::string file(const std::string& name) const { return join_path(path_, name); }
  /// Flips a bit of each `stride`-th byte of each file, one after the other.
  void expect_flips_found(size_t stride) const {
    for (const auto& name : list_directory(path_)) {
      const std::string good = file_bytes(file(name));
      for (size_t i = 0; i < good.size(); i += stride) {
        std::string bad = good;
        bad[i] = static_cast<char>(bad[i] ^ (1 << (i % 8)));
        write_file(file(name), bad);
        const std::string message = error();
        ASSERT_TRUE(message.starts_with(file(name) + ": ")) << "byte " << i << ": " << message;
      }
      write_file(file(name), good);
    }
    Checkpoint(path_).verify();
  }
  TempFolder folder_;
  std::string path_;
};

TEST_F(CheckpointTest, HoldsWhatWasWritten) {
  const CheckpointContents expected = contents();
  const Checkpoint checkpoint(path_);
  checkpoint.verify();
  EXPECT_EQ(checkpoint.step(), 12);
  EXPECT_EQ(checkpoint.config_yaml(), expected.config_yaml);
  EXPECT_EQ(checkpoint.state(), expected.state);
  EXPECT_EQ(read_text(checkpoint.tokenizer()), expected.tokenizer_model);
  EXPECT_TRUE(checkpoint.has_optimizer());
  for (const auto& piece : expected.weights)
    EXPECT_TRUE(checkpoint.weight(piece.name).flatten().equal(piece.data)) << piece.name;
  EXPECT_EQ(checkpoint.weight_names(), (std::vector<std::string>{"matrix", "vector"}));
  for (const auto& piece : expected.optimizer) {
    Tensor whole = torch::empty_like(piece.data), part = torch::empty({3});
    const std::string kind = piece.name.substr(0, piece.name.find('.'));
    checkpoint.load_part(kind, info_of(piece), 0, piece.end, whole);
    EXPECT_TRUE(whole.equal(piece.data)) << piece.name;
    checkpoint.load_part(kind, info_of(piece), 2, 5, part);
    EXPECT_TRUE(part.equal(piece.data.slice(0, 2, 5))) << piece.name;
  }
  TwoLayers module;
  checkpoint.load_weights(module);
  for (const auto& piece : expected.weights)
    EXPECT_TRUE(module.named_parameters()[piece.name].flatten().equal(piece.data)) << piece.name;
}

TEST_F(CheckpointTest, SameContentsGiveSameBytes) {
  write_checkpoint(folder_ / "again", contents());
  for (const auto& name : list_directory(path_))
    EXPECT_EQ(file_bytes(file(name)), file_bytes(folder_ / ("again/" + name))) << name;
}

TEST_F(CheckpointTest, TheManifestHoldsItsOwnSha) {
  std::string text = file_bytes(file("manifest.json"));
  const size_t digits = text.rfind("\"sha256\": \"") + 11;
  const std::string recorded = text.substr(digits, 64);
  text.erase(digits, 64);  // the definition: over all bytes but the 64 digits
  EXPECT_EQ(sha256_hex(text), recorded);
}

TEST_F(CheckpointTest, WeightsAloneAndTheByteTokenizer) {
  CheckpointContents small = contents();
  small.optimizer.clear();
  small.tokenizer_model.clear();
  write_checkpoint(folder_ / "small", small);
  const Checkpoint checkpoint(folder_ / "small");
  checkpoint.verify();
  EXPECT_FALSE(checkpoint.has_optimizer());
  EXPECT_EQ(checkpoint.tokenizer(), "bytes");
  EXPECT_EQ(list_directory(folder_ / "small"),
            (std::vector<std::string>{"config.yaml", "manifest.json", "model.safetensors",
                                      "state.json"}));
}

TEST_F(CheckpointTest, TheTokenizerKeepsItsName) {
  CheckpointContents other = contents();
  other.tokenizer_file = "cl100k_base.tiktoken";
  write_checkpoint(folder_ / "other", other);
  const Checkpoint checkpoint(folder_ / "other");
  EXPECT_EQ(checkpoint.tokenizer(), folder_ / "other/cl100k_base.tiktoken");
  EXPECT_EQ(read_text(checkpoint.tokenizer()), other.tokenizer_model);
  EXPECT_EQ(Checkpoint(path_).tokenizer(), file("tokenizer.model"));
  for (const char* taken : {"config.yaml", "manifest.json", "weights.safetensors"}) {
    other.tokenizer_file = taken;
    EXPECT_THROW(write_checkpoint(folder_ / "taken", other), c10::Error) << taken;
  }
}

TEST_F(CheckpointTest, OneTokenizerIsExpected) {
  Manifest manifest = parse_manifest(file_bytes(file("manifest.json")), "manifest.json");
  manifest.files.emplace_back("tokenizer.json", ManifestFile{});  // no bytes, whose CRC32C is 0
  write_file(file("tokenizer.json"), "");
  write_file(file("manifest.json"), manifest_text(manifest));
  const Checkpoint checkpoint(path_);
  checkpoint.verify();
  EXPECT_EQ(
      error_of([&] { checkpoint.tokenizer(); }),
      file("manifest.json") + ": lists tokenizer.model and tokenizer.json, expected one tokenizer");
}

TEST_F(CheckpointTest, AFlippedBitIsFoundAndItsFileNamed) { expect_flips_found(17); }

using CheckpointSlowTest = CheckpointTest;
TEST_F(CheckpointSlowTest, AFlippedBitOfAnyByteIsFoundAndItsFileNamed) { expect_flips_found(1); }

TEST_F(CheckpointTest, ADamagedTextIsNotRead) {
  const Checkpoint checkpoint(path_);
  const auto expect_refused = [&](const std::string& name, const auto& read) {
    const std::string good = file_bytes(file(name));
    std::string bad = good;
    bad[bad.size() / 2] = static_cast<char>(bad[bad.size() / 2] ^ 1);
    write_file(file(name), bad);
    EXPECT_TRUE(error_of(read).starts_with(file(name) + ": is damaged: its CRC32C is ")) << name;
    write_file(file(name), good);
  };
  expect_refused("config.yaml", [&] { checkpoint.config_yaml(); });
  expect_refused("state.json", [&] { checkpoint.state(); });
  expect_refused("tokenizer.model", [&] { checkpoint.tokenizer(); });
}

TEST_F(CheckpointTest, DamageNamesTheTensorAndBothSums) {
  std::string bytes = file_bytes(file("model.safetensors"));
  bytes.back() = static_cast<char>(bytes.back() ^ 4);  // the last element of `vector`
  write_file(file("model.safetensors"), bytes);
  const auto crc = [](const Tensor& tensor) {
    char text[9];
    std::snprintf(
        text, sizeof text, "%08x",
        crc32c({static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()}));
    return std::string(text);
  };
  const Tensor good = contents().weights[1].data;
  Tensor bad = good.clone();
  auto* last = static_cast<unsigned char*>(bad.mutable_data_ptr()) + bad.nbytes() - 1;
  *last = static_cast<unsigned char>(*last ^ 4);
  const std::string expected = file("model.safetensors") +
                               ": tensor vector is damaged: its CRC32C is " + crc(bad) +
                               ", manifest.json records " + crc(good);
  EXPECT_EQ(error(), expected);
  EXPECT_EQ(error_of([&] { Checkpoint(path_).weight("vector"); }), expected);
  Checkpoint(path_).weight("matrix");  // is whole
  TwoLayers module;
  EXPECT_EQ(error_of([&] { Checkpoint(path_).load_weights(module); }), expected);
}

TEST_F(CheckpointTest, EveryTruncationIsFound) {
  for (const auto& name : list_directory(path_)) {
    const std::string good = file_bytes(file(name));
    for (size_t size = 0; size < good.size(); size += 1 + size / 3) {
      write_file(file(name), good.substr(0, size));
      const std::string message = error();
      if (name == "manifest.json") {
        ASSERT_EQ(message,
                  file(name) + ": does not end with its sha256, it is damaged or cut short");
      } else {
        ASSERT_EQ(message, file(name) + ": holds " + std::to_string(size) +
                               " bytes, manifest.json records " + std::to_string(good.size()));
      }
    }
    write_file(file(name), good);
  }
}

TEST_F(CheckpointTest, EveryMissingFileIsFound) {
  for (const auto& name : list_directory(path_)) {
    const std::string good = file_bytes(file(name));
    std::filesystem::remove(file(name));
    EXPECT_EQ(error(), file(name) + ": cannot open: No such file or directory");
    write_file(file(name), good);
  }
}

TEST_F(CheckpointTest, AFileOfAnotherCheckpointIsFound) {
  CheckpointContents other = contents();
  other.step = 13;
  other.optimizer[0].data += 1;
  write_checkpoint(folder_ / "step-00000013", other);
  const char* name = "optimizer-00001-of-00001.safetensors";
  write_file(file(name), file_bytes(folder_ / ("step-00000013/" + std::string(name))));
  EXPECT_TRUE(
      error().starts_with(file(name) + ": tensor exp_avg.matrix is damaged: its CRC32C is "))
      << error();
}

TEST_F(CheckpointTest, WeightsThatDoNotFitTheModelAreNamed) {
  const Checkpoint checkpoint(path_);
  TwoLayers wider(4);
  EXPECT_EQ(error_of([&] { checkpoint.load_weights(wider); }),
            file("model.safetensors") +
                ": tensor matrix is [3, 5], the model of this config needs [4, 5]");
  TwoLayers more;
  declare(more, "extra", {2}, init_constant(0));
  EXPECT_EQ(
      error_of([&] { checkpoint.load_weights(more); }),
      file("model.safetensors") + ": has no tensor extra, which the model of this config needs");
  struct One : Module {
    One() {
      declare(*this, "vector", {7}, init_constant(1));
      materialise_empty(*this, torch::kCPU, torch::kFloat32);
    }
  } less;
  EXPECT_EQ(error_of([&] { checkpoint.load_weights(less); }),
            file("model.safetensors") + ": tensor matrix is not in the model of this config");
}

TEST_F(CheckpointTest, WeightsAreCastToTheModule) {
  TwoLayers module;
  module.to(torch::kBFloat16);
  Checkpoint(path_).load_weights(module);
  EXPECT_TRUE(module.named_parameters()["matrix"].flatten().equal(
      contents().weights[0].data.to(torch::kBFloat16)));
}

TEST_F(CheckpointTest, OptimizerPiecesAreIntersected) {
  CheckpointContents cut = contents();
  cut.optimizer.clear();
  const Tensor whole = torch::arange(15, torch::kFloat32);
  const ParameterInfo matrix = info_of(contents().weights[0]),
                      vector = info_of(contents().weights[1]);
  cut.optimizer.push_back(piece_of("exp_avg", matrix, 4, 11, whole.slice(0, 4, 11)));
  write_checkpoint(folder_ / "cut", cut);
  const Checkpoint checkpoint(folder_ / "cut");
  Tensor inside = torch::empty({5});
  checkpoint.load_part("exp_avg", matrix, 5, 10, inside);
  EXPECT_TRUE(inside.equal(whole.slice(0, 5, 10)));
  Tensor beyond = torch::empty({9});
  EXPECT_EQ(error_of([&] { checkpoint.load_part("exp_avg", matrix, 5, 14, beyond); }),
            (folder_ / "cut/manifest.json") + ": no piece holds element 11 of exp_avg.matrix");
  EXPECT_EQ(error_of([&] { checkpoint.load_part("exp_avg", vector, 0, 5, inside); }),
            (folder_ / "cut/manifest.json") + ": no piece holds element 0 of exp_avg.vector");
}

TEST_F(CheckpointTest, AFailedWriteLeavesNothing) {
  write_file(folder_ / "file", "in the way");
  const std::string message = error_of(
      [&] { write_checkpoint(folder_ / "file/step-00000012", contents()); }, kExitCannotWrite);
  EXPECT_EQ(message,
            (folder_ / "file/step-00000012.partial") + ": cannot make the folder: Not a directory");
  EXPECT_EQ(list_directory(folder_.path()), (std::vector<std::string>{"file", "step-00000012"}));
}

TEST_F(CheckpointTest, IsNeverWrittenOver) {
  CheckpointContents other = contents();
  other.config_yaml = "training: {steps: 21}\n";
  EXPECT_THROW(write_checkpoint(path_, other), std::logic_error);
  Checkpoint(path_).verify();
  EXPECT_EQ(Checkpoint(path_).config_yaml(), contents().config_yaml);
}

TEST_F(CheckpointTest, IsFoundInARunFolder) {
  const std::string run = folder_ / "run";
  EXPECT_EQ(error_of([&] { find_checkpoint(run); }),
            run + ": does not exist, expected a checkpoint or a run folder");
  make_directories(run);
  EXPECT_EQ(error_of([&] { find_checkpoint(run); }), run + ": holds no checkpoint");
  make_directories(run + "/checkpoints/step-00000099.partial");
  for (const int64_t step : {5, 20, 100}) {
    CheckpointContents one = contents();
    one.step = step;
    write_checkpoint(checkpoint_folder(run, step), one);
  }
  EXPECT_EQ(checkpoint_steps(run), (std::vector<int64_t>{5, 20, 100}));
  EXPECT_EQ(checkpoint_folder(run, 5), run + "/checkpoints/step-00000005");
  EXPECT_EQ(find_checkpoint(run), checkpoint_folder(run, 100));
  EXPECT_EQ(find_checkpoint(checkpoint_folder(run, 20)), checkpoint_folder(run, 20));
  write_file(checkpoint_folder(run, 100) + "/model.safetensors", "");
  EXPECT_EQ(find_checkpoint(run), checkpoint_folder(run, 20));
  // A folder under the name of another step is no checkpoint of the run.
  std::filesystem::rename(checkpoint_folder(run, 5), checkpoint_folder(run, 60));
  testing::internal::CaptureStderr();
  EXPECT_EQ(find_checkpoint(run), checkpoint_folder(run, 20));
  EXPECT_NE(testing::internal::GetCapturedStderr().find("warning: " + checkpoint_folder(run, 60) +
                                                        ": holds step 5\n"),
            std::string::npos);
}

}  // namespace
}  // namespace tandem
