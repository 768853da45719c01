#pragma once
#include <vector>

#include "core/packing.h"
#include "nn/parameter.h"

namespace tandem {

/// Rows as tensors on a device: where tensors begin.
struct Batch {
  Tensor tokens, targets;   // [B, T] int64; target -100 = not scored; column t scores tokens[t + 1]
  Tensor segment;           // [B, T] int32, which document of the row a token belongs to, -1 = padding; undefined = every row is one document
  Tensor samples;           // [B] int64, global sample numbers: the counter of every random stream
  Tensor weights;           // [B, T] float32 weight of each target, 0 where not scored; undefined = 1
  Tensor scored;            // [B, N] int64, N >= 1, ascending: columns of each row that hold all of its scored targets, rows with fewer filled up with unscored ones;
                            // undefined = so many are scored that all columns may as well be computed
  double total_weight = 0;  // of the scored targets of this batch, known on the host before the forward pass
  Tensor positions;         // [B, T] int64, where the columns are a part of longer rows; undefined = counted from the first column on
  Tensor row_segment;       // [B, n T] int32, `segment` of the whole rows, where the columns are one of n parts; undefined where `segment` is
};

/// Columns [rank T / size, (rank + 1) T / size) of rows of T columns: what a rank holds of rows that `size` ranks divide.
struct RowPart {
  int64_t rank = 0, size = 1;
};

/// Rows of equal length (core/packing pads them, with token 0) to `device`. Targets of weight 0 become unscored. `scored` is given when at most three quarters of
/// the columns of any row are.
/// With a `part`: its columns alone, total_weight of their targets and positions of the whole rows. Throws c10::Error where the columns do not divide evenly.
Batch make_batch(const std::vector<Row>& rows, torch::Device device, const RowPart& part = {});
/// The same from memory that the caller keeps until the batch is used up, and may find changed: targets of weight 0 are unscored in place. Beside a GPU copies from pinned memory do not wait.
Batch make_batch(const RowsView& rows, torch::Device device, const RowPart& part = {});

/// Memory for rows that batches on `device` are made from: pinned beside a GPU (given out again once the copies from it are done), plain on a CPU, where batches are views of it.
MakeRowsMemory rows_memory_for(torch::Device device);

/// positions [B, T] int64: columns counted from 0, from the start of each document where `segment` is given; or as the batch gives them.
Tensor positions_of(const Batch& batch);

}  // namespace tandem
