// Checkpoints that several ranks write and others read.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>

#include "core/file.h"
#include "nn/checkpoint.h"
#include "tests/comm/thread_ranks.h"
#include "tests/data/temp_folder.h"
#include "tests/nn/helpers.h"

namespace tandem {
namespace {

/// Parameters that ranks divide in every way: nothing evenly where that may be.
class Divided : public Module {
 public:
  Divided() {
    declare(*this, "rows", {7, 5}, init_normal(1), Split::kRows);
    declare(*this, "columns", {6, 11}, init_normal(1), Split::kColumns);
    declare(*this, "heads", {12, 3}, init_normal(1), Split::kRows, true, /*split_unit=*/2);
    declare(*this, "few", {2, 4}, init_normal(1), Split::kRows);  // whole with three ranks
    declare(*this, "norm", {5}, init_uniform(1));
    declare(*this, "scalar", {}, init_uniform(1));
  }
};
std::shared_ptr<Divided> divided_over(Communicator& tensor) {
  const auto model = std::make_shared<Divided>();
  split_over(*model, tensor);
  return model;
}

constexpr const char* kKinds[] = {"", "exp_avg", "exp_avg_sq"};

/// The whole of a weight or a moment.
Tensor global(const std::string& kind, const ParameterInfo& info) {
  return initial_values(info, RandomStream(5).fork("kind " + kind));
}

struct Range {
  int64_t begin, end;
};

/// The elements of a slice that this rank of the shard group holds.
Range share_of(const Mesh& mesh, const ParameterInfo& info) {
  const int64_t n = elements_of(info.local_shape()), rank = mesh.shard->rank();
  return {rank * n / mesh.shard->size(), (rank + 1) * n / mesh.shard->size()};
}

/// What a rank gives: of replicas and of what tensor parallelism leaves whole, only one does.
CheckpointContents contents_of(const Mesh& mesh) {
  CheckpointContents contents;
  if (mesh.world->rank() == 0) {
    contents.step = 12;
    contents.config_yaml = "training: {steps: 20}\n";
    contents.state = {{"step", 12}};
    contents.tokenizer_model = "a tokenizer's bytes";
  }
  if (mesh.replica->rank() > 0) return contents;
  for (const auto& info : parameters_info(*divided_over(*mesh.tensor))) {
    if (!info.divided() && mesh.tensor->rank() > 0) continue;
    const auto [begin, end] = share_of(mesh, info);
    for (const std::string kind : kKinds) {
      const Tensor slice = local_part(info, global(kind, info)).reshape({-1});
      auto& pieces = kind.empty() ? contents.weights : contents.optimizer;
      pieces.push_back(piece_of(kind, info, begin, end, slice.slice(0, begin, end)));
    }
  }
  return contents;
}

void write_by(const MeshShape& shape, const std::string& folder) {
  run_mesh(shape,
           [&](Mesh& mesh, int64_t) { write_checkpoint(folder, contents_of(mesh), *mesh.save); });
}

void expect_read_by(const MeshShape& shape, const std::string& folder) {
  run_mesh(shape, [&](Mesh& mesh, int64_t) {
    const Checkpoint checkpoint(folder);
    const auto model = divided_over(*mesh.tensor);
    checkpoint.check_weights(*model);
    materialise_empty(*model, torch::kCPU, torch::kFloat32);
    checkpoint.load_weights(*model);
    for (const auto& info : parameters_info(*model)) {
      EXPECT_TRUE(model->named_parameters()[info.name].equal(local_part(info, global("", info))))
          << info.name;
      const auto [begin, end] = share_of(mesh, info);
      for (const std::string kind : kKinds) {
        Tensor part = torch::full({end - begin}, 99.f);
        checkpoint.load_part(kind, info, begin, end, part);
        const Tensor slice = local_part(info, global(kind, info)).reshape({-1});
        EXPECT_TRUE(part.equal(slice.slice(0, begin, end))) << name_of_piece(kind, info.name);
      }
    }
  });
}

const MeshShape kShapes[] = {{},
                             {.data = 2},
                             {.data = 3},
                             {.data = 4},
                             {.tensor = 2},
                             {.tensor = 3},
                             {.data = 2, .tensor = 2},
                             {.data = 3, .tensor = 3},
                             {.data = 2, .sequence = 2, .tensor = 2},
                             {.data = 4, .tensor = 2, .replicate = 2},
                             {.data = 2, .replicate = 2}};

std::string named(const MeshShape& shape) {
  return c10::str("data ", shape.data, ", sequence ", shape.sequence, ", tensor ", shape.tensor,
                  ", replicate ", shape.replicate);
}

TEST(CheckpointMeshTest, WhatAnyMeshWroteAnyMeshReads) {
  const TempFolder folder;
  for (const MeshShape& shape : kShapes) write_by(shape, folder / named(shape));
  const std::string alone = folder / named(kShapes[0]);
  for (const MeshShape& from : kShapes) {
    const std::string path = folder / named(from);
    Checkpoint(path).verify();
    for (const char* name : {"model.safetensors", "config.yaml", "state.json", "tokenizer.model"})
      EXPECT_EQ(file_bytes(path + "/" + name), file_bytes(alone + "/" + name)) << named(from);
    for (const MeshShape& to : kShapes) {
      SCOPED_TRACE(named(from) + " to " + named(to));
      expect_read_by(to, path);
    }
  }
}

TEST(CheckpointMeshTest, SameMeshGivesSameBytes) {
  const TempFolder folder;
  const MeshShape shape = {.data = 3, .tensor = 2};
  for (const char* name : {"a", "b"}) write_by(shape, folder / name);
  EXPECT_EQ(list_directory(folder / "a").size(), 5u + 6u);  // a file of moments of each rank
  for (const auto& name : list_directory(folder / "a"))
    EXPECT_EQ(file_bytes(folder / ("a/" + name)), file_bytes(folder / ("b/" + name))) << name;
}

// A process that is no part of a mesh: `tandem eval` and the like.
TEST(CheckpointMeshTest, WeightsAreReadWhole) {
  const TempFolder folder;
  write_by({.data = 2, .tensor = 2}, folder / "c");
  const Checkpoint checkpoint(folder / "c");
  for (const auto& info : parameters_info(Divided()))
    EXPECT_TRUE(checkpoint.weight(info.name).equal(global("", info))) << info.name;
}

/// What write_checkpoint throws on each rank when what a rank gives was changed by `change`.
std::vector<std::string> errors_of(
    const MeshShape& shape, const std::string& folder,
    const std::function<void(CheckpointContents&, int64_t)>& change) {
  std::vector<std::string> errors(static_cast<size_t>(shape.world()));
  run_mesh(shape, [&](Mesh& mesh, int64_t rank) {
    CheckpointContents contents = contents_of(mesh);
    change(contents, rank);
    auto& error = errors[static_cast<size_t>(rank)];
    try {
      write_checkpoint(folder, contents, *mesh.save);
    } catch (const UserError& thrown) {
      EXPECT_EQ(thrown.exit_code(), kExitCannotWrite);
      error = thrown.what();
    } catch (const c10::Error& thrown) {
      error = thrown.what_without_backtrace();
    } catch (const std::runtime_error& thrown) {
      error = thrown.what();
    }
    mesh.save->barrier();  // all are still in step
  });
  return errors;
}

/// While it lives, no file can grow beyond so many bytes.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  void (*handler_)(int);
  rlimit before_{};
};

TEST(CheckpointMeshTest, AFullDiskOfOneRankEndsTheSaveOfAll) {
  const TempFolder folder;
  const std::string path = folder / "c";
  std::vector<std::string> errors;
  {
    const FileSizeLimit limit(9000);
    errors = errors_of({.data = 3}, path, [](CheckpointContents& contents, int64_t rank) {
      if (rank == 1)
        contents.optimizer.push_back(whole_piece("exp_avg", "large", torch::ones({3000})));
    });
  }
  const std::string expected =
      path + ".partial/optimizer-00002-of-00003.safetensors: cannot write: File too large (rank 1)";
  EXPECT_EQ(errors, (std::vector<std::string>{expected, expected, expected}));
  EXPECT_EQ(list_directory(folder.path()), std::vector<std::string>{});
  write_by({.data = 3}, path);
  Checkpoint(path).verify();
}

// Rank 0 fails between two tensors that the others send.
TEST(CheckpointMeshTest, WeightsThatDoNotFitEndTheSaveOfAll) {
  const TempFolder folder;
  const std::string path = folder / "c";
  for (const rlim_t bytes : {5, 100, 800, 1000, 1300}) {
    const FileSizeLimit limit(bytes);
    const auto errors = errors_of({.data = 2, .tensor = 2}, path, [](auto&, int64_t) {});
    EXPECT_TRUE(errors[0].ends_with(": cannot write: File too large")) << errors[0];
    for (const auto& error : errors) EXPECT_EQ(error, errors[0]);
    EXPECT_EQ(list_directory(folder.path()), std::vector<std::string>{});
  }
}

TEST(CheckpointMeshTest, AFolderThatCannotBeMadeIsEverybodysError) {
  const TempFolder folder;
  write_file(folder / "file", "in the way");
  const auto errors = errors_of({.data = 3}, folder / "file/c", [](auto&, int64_t) {});
  for (const auto& error : errors)
    EXPECT_EQ(error, (folder / "file/c.partial") + ": cannot make the folder: Not a directory");
}

TEST(CheckpointMeshTest, PiecesThatDoNotMakeUpAWeightAreNamed) {
  const TempFolder folder;
  const auto fault = [&](const auto& change) {
    const auto errors = errors_of({.data = 2}, folder / "c", change);
    EXPECT_EQ(errors[1], "rank 0: " + errors[0]);
    return errors[0];
  };
  const auto rows_of = [](CheckpointContents& contents) -> TensorPiece& {
    return *std::find_if(contents.weights.begin(), contents.weights.end(),
                         [](const TensorPiece& piece) { return piece.name == "rows"; });
  };
  // Of 35 elements, rank 0 holds [0, 17).
  EXPECT_EQ(fault([&](CheckpointContents& contents, int64_t rank) {
              if (rank == 1)
                contents.weights.erase(contents.weights.begin() +
                                       (&rows_of(contents) - contents.weights.data()));
            }),
            "write_checkpoint: rows: no piece holds element 17");
  EXPECT_EQ(fault([&](CheckpointContents& contents, int64_t rank) {
              if (rank == 1) contents.weights.push_back(rows_of(contents));
            }),
            "write_checkpoint: rows: element 17 comes twice");
  EXPECT_EQ(list_directory(folder.path()), std::vector<std::string>{});
}

TEST(CheckpointMeshTest, AMissingPieceOfAMomentIsNamed) {
  const TempFolder folder;
  const std::string path = folder / "c";
  EXPECT_EQ(errors_of({.tensor = 2}, path,
                      [](CheckpointContents& contents, int64_t rank) {
                        if (rank == 1) contents.optimizer.clear();
                      }),
            (std::vector<std::string>{"", ""}));
  EXPECT_TRUE(exists(path + "/optimizer-00001-of-00001.safetensors"));
  const Checkpoint checkpoint(path);
  const auto error_of_moment = [&](const std::string& name) {
    for (const auto& info : parameters_info(Divided())) {
      if (info.name != name) continue;
      Tensor part = torch::empty({info.numel()});
      return error_of([&] { checkpoint.load_part("exp_avg", info, 0, info.numel(), part); });
    }
    return std::string("no such parameter");
  };
  const std::string begin = path + "/manifest.json: no piece holds element ";
  EXPECT_EQ(error_of_moment("rows"), begin + "15 of exp_avg.rows");       // 3 rows of 5
  EXPECT_EQ(error_of_moment("columns"), begin + "5 of exp_avg.columns");  // 5 columns of 11
}

TEST(CheckpointMeshTest, ADamagedPieceIsNamed) {
  const TempFolder folder;
  const std::string path = folder / "c";
  write_by({.data = 2}, path);
  const std::string file = path + "/optimizer-00002-of-00002.safetensors";
  std::string bytes = file_bytes(file);
  bytes.back() = static_cast<char>(bytes.back() ^ 1);  // the last element of exp_avg_sq.scalar
  write_file(file, bytes);
  const Checkpoint checkpoint(path);
  ParameterInfo info;
  info.name = "scalar";
  Tensor part = torch::empty({1});
  checkpoint.load_part("exp_avg", info, 0, 1, part);
  EXPECT_TRUE(error_of([&] {
                checkpoint.load_part("exp_avg_sq", info, 0, 1, part);
              }).starts_with(file + ": tensor exp_avg_sq.scalar is damaged: its CRC32C is "));
  EXPECT_TRUE(error_of([&] {
                checkpoint.verify();
              }).starts_with(file + ": tensor exp_avg_sq.scalar is damaged: its CRC32C is "));
}

TEST(CheckpointMeshTest, AnotherShapeIsRefused) {
  const TempFolder folder;
  write_by({.data = 2}, folder / "c");
  const Checkpoint checkpoint(folder / "c");
  ParameterInfo info;
  info.name = "norm";
  info.global_shape = {6};
  Tensor part = torch::empty({1});
  EXPECT_EQ(error_of([&] { checkpoint.load_part("exp_avg", info, 0, 1, part); }),
            (folder / "c/manifest.json") +
                ": tensor exp_avg.norm is [5], the model of this config needs [6]");
  EXPECT_EQ(error_of([&] { checkpoint.load_part("", info, 0, 1, part); }),
            (folder / "c/model.safetensors") +
                ": tensor norm is [5], the model of this config needs [6]");
}

}  // namespace
}  // namespace tandem
