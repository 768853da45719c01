#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "core/manifest.h"
#include "nn/parameter.h"

// A parameter is divided in two ways: tensor parallelism gives a rank a slice of it along one dimension, and sharding a range of
// the elements of that slice. A piece is such a range. Pieces of different meshes meet in the elements of the whole parameter.

namespace tandem {

/// Elements [begin, end) of a flattened slice of a parameter: of a weight (its name is the parameter's) or of a moment ("exp_avg.NAME", "exp_avg_sq.NAME").
struct TensorPiece : ManifestTensor::Piece {
  std::string name;
  Tensor data;  // [end - begin] float32 on the CPU
};

/// `kind`: "" for the weight, "exp_avg", "exp_avg_sq". The slice is the one that `info` describes.
TensorPiece piece_of(const std::string& kind, const ParameterInfo& info, int64_t begin, int64_t end, Tensor data);
/// All of a parameter; the piece shares the storage of a contiguous `tensor`.
TensorPiece whole_piece(const std::string& kind, const std::string& parameter, const Tensor& tensor);

/// "exp_avg.NAME"; NAME where `kind` is empty.
std::string name_of_piece(const std::string& kind, const std::string& parameter);
/// Elements [begin, end) of the slice that `info` describes.
ManifestTensor::Piece range_of(const ParameterInfo& info, int64_t begin, int64_t end);
int64_t elements_of(const std::vector<int64_t>& shape);
/// The place in the flattened whole parameter of the element `i` of the piece's data.
int64_t whole_index(const ManifestTensor::Piece& piece, int64_t i);

/// Calls each(i, j, n) for all elements that both pieces of one parameter hold, in runs: the elements from i on of `wanted`'s data are those from j on of
/// `held`'s. `i` ascends.
void for_each_overlap(const ManifestTensor::Piece& wanted, const ManifestTensor::Piece& held,
                      const std::function<void(int64_t i, int64_t j, int64_t n)>& each);

/// The first of the elements [0, n) that none of the intervals holds; n where all are held.
int64_t first_missing(std::vector<std::pair<int64_t, int64_t>> intervals, int64_t n);

/// What keeps pieces from making up their whole parameter, each element once: "no piece holds element 7", "element 7 comes twice"; empty when nothing does.
std::string fault_of_pieces(std::vector<ManifestTensor::Piece> pieces);

}  // namespace tandem
