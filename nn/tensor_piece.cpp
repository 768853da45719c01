#include "nn/tensor_piece.h"

#include <algorithm>

namespace tandem {
namespace {

using Piece = ManifestTensor::Piece;

/// A slice of a flattened row-major tensor: n runs of `width` elements, the first at `offset`, each
/// `stride` after the one before.
struct Runs {
  int64_t n = 1, offset = 0, width = 0, stride = 0;
};

Runs runs_of(const Piece& piece) {
  Runs runs;
  if (piece.split_dim < 0) {
    runs.width = runs.stride = elements_of(piece.global_shape);
    return runs;
  }
  const auto split = static_cast<size_t>(piece.split_dim);
  int64_t inner = 1;
  for (size_t d = 0; d < piece.global_shape.size(); ++d)
    (d < split ? runs.n : inner) *= d == split ? 1 : piece.global_shape[d];
  runs.offset = piece.split_begin * inner;
  runs.width = (piece.split_end - piece.split_begin) * inner;
  runs.stride = piece.global_shape[split] * inner;
  return runs;
}

}  // namespace

std::string name_of_piece(const std::string& kind, const std::string& parameter) {
  return kind.empty() ? parameter : kind + "." + parameter;
}

int64_t elements_of(const std::vector<int64_t>& shape) {
  int64_t product = 1;
  for (const int64_t size : shape) product *= size;
  return product;
}

Piece range_of(const ParameterInfo& info, int64_t begin, int64_t end) {
  Piece piece{info.name, info.global_shape, begin, end};
  if (info.divided()) {
    piece.split_dim = info.split_dim;
    piece.split_begin = info.split_begin;
    piece.split_end = info.split_end;
  }
  TORCH_CHECK(0 <= begin && begin <= end && end <= elements_of(info.local_shape()), info.name,
              ": elements [", begin, ", ", end, ") of a slice ", info.local_shape());
  return piece;
}

TensorPiece piece_of(const std::string& kind, const ParameterInfo& info, int64_t begin, int64_t end,
                     Tensor data) {
  return {range_of(info, begin, end), name_of_piece(kind, info.name), std::move(data)};
}

TensorPiece whole_piece(const std::string& kind, const std::string& parameter,
                        const Tensor& tensor) {
  return {{parameter, tensor.sizes().vec(), 0, tensor.numel()},
          name_of_piece(kind, parameter),
          tensor.reshape({-1})};
}

int64_t whole_index(const Piece& piece, int64_t i) {
  const Runs runs = runs_of(piece);
  const int64_t element = piece.begin + i;
  return runs.offset + element / runs.width * runs.stride + element % runs.width;
}

void for_each_overlap(const Piece& wanted, const Piece& held,
                      const std::function<void(int64_t, int64_t, int64_t)>& each) {
  if (wanted.begin == wanted.end || held.begin == held.end) return;
  const Runs want = runs_of(wanted), have = runs_of(held);
  const int64_t first_run = held.begin / have.width,
                end_run = std::min(have.n, (held.end - 1) / have.width + 1);
  int64_t n = 0;
  for (int64_t i = wanted.begin; i < wanted.end; i += n) {
    n = std::min(want.width - i % want.width, wanted.end - i);
    // Elements [begin, end) of the whole, adjacent in both.
    const int64_t begin = want.offset + i / want.width * want.stride + i % want.width,
                  end = begin + n;
    const int64_t behind = begin - have.offset - have.width;  // the first run's end
    int64_t run = std::max(first_run, behind < 0 ? 0 : behind / have.stride + 1);
    for (; run < end_run; ++run) {
      const int64_t start = have.offset + run * have.stride;
      if (start >= end) break;
      const int64_t shift = run * have.width - start;  // from the whole to the held slice
      const int64_t from = std::max(std::max(begin, start) + shift, held.begin);
      const int64_t to = std::min(std::min(end, start + have.width) + shift, held.end);
      if (from < to) each(i - wanted.begin + (from - shift - begin), from - held.begin, to - from);
    }
  }
}

int64_t first_missing(std::vector<std::pair<int64_t, int64_t>> intervals, int64_t n) {
  std::sort(intervals.begin(), intervals.end());
  int64_t covered = 0;
  for (const auto& [begin, end] : intervals) {
    if (begin > covered) break;
    covered = std::max(covered, end);
  }
  return std::min(covered, n);
}

// One slice after the other along the divided dimension, and in each one range after the other.
std::string fault_of_pieces(std::vector<Piece> pieces) {
  if (pieces.empty()) return "there is no piece";
  for (Piece& piece : pieces) {
    if (piece.global_shape != pieces.front().global_shape) return "pieces are of different shapes";
    if (piece.split_dim != pieces.front().split_dim)
      return "pieces are divided along different dimensions";
  }
  const int64_t elements = elements_of(pieces.front().global_shape);
  if (elements == 0) return "";
  for (Piece& piece : pieces) {
    if (piece.split_dim >= 0) continue;
    piece.global_shape = {1, elements};  // one slice of one
    piece.split_dim = 0;
    piece.split_end = 1;
  }
  const auto is_empty = [](const Piece& piece) { return piece.begin == piece.end; };
  if (std::all_of(pieces.begin(), pieces.end(), is_empty)) return "no piece holds element 0";
  std::erase_if(pieces, is_empty);
  std::sort(pieces.begin(), pieces.end(), [](const Piece& a, const Piece& b) {
    return std::pair(a.split_begin, a.begin) < std::pair(b.split_begin, b.begin);
  });
  int64_t done = 0, filled = 0;  // slices up to `done` are whole, then elements of the next one
  Piece slice = pieces.front();
  const auto missing = [&] {
    if (filled == 0) slice.split_begin = done, slice.split_end = done + 1;
    slice.begin = filled;
    return "no piece holds element " + std::to_string(whole_index(slice, 0));
  };
  for (const Piece& piece : pieces) {
    const auto expected = std::pair(filled > 0 ? slice.split_begin : done, filled);
    const auto found = std::pair(piece.split_begin, piece.begin);
    if (found > expected) return missing();
    if (found < expected || (filled > 0 && piece.split_end != slice.split_end))
      return "element " + std::to_string(whole_index(piece, 0)) + " comes twice";
    slice = piece;
    filled = piece.end;
    if (const Runs runs = runs_of(piece); filled == runs.n * runs.width) {
      done = piece.split_end;
      filled = 0;
    }
  }
  const int64_t all = slice.global_shape[static_cast<size_t>(slice.split_dim)];
  return filled == 0 && done == all ? "" : missing();
}

}  // namespace tandem
