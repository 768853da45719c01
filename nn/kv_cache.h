#pragma once
#include <string>
#include <utility>
#include <vector>

#include "nn/attend.h"
#include "nn/state.h"

namespace tandem {

/// Keys and values of all positions so far of each row, in rows of the shape's dtype (nn/cache_rows.h): the cache that grows.
class KvCache {
 public:
  KvCache(const StateShape& shape, int64_t n_kv_heads, int64_t head_dim);
  /// Writes k, v [B, T, G, K] at positions [B, T] (each row continues its own length; columns t >= lengths[b] are not kept). Doubles the capacity
  /// when it is passed. lengths undefined = T each.
  void append(const Tensor& k, const Tensor& v, const Tensor& positions, const Tensor& lengths);
  /// [B, S, G, K], or what rows of kInt8 take for K, with S at least every row's length; entries past a row's length are finite and must be masked by key_lengths().
  Tensor keys() const;
  Tensor values() const;
  Tensor key_lengths() const { return lengths_; }  ///< [B] int64
  /// For queries at `positions` [B, T], the last of their rows: nothing to mask but causality while all rows are equally long.
  AttendMask mask(const Tensor& positions) const;
  KvCache select(const Tensor& rows) const;

 private:
  void reserve(int64_t n_tokens);
  Tensor keys_, values_;     // [B, capacity, G, width of a row]
  Tensor lengths_;           // [B] int64
  int64_t upper_ = 0;        // no row is longer: known on the host without asking the device
  bool ragged_ = false;      // rows may differ in length
};

}  // namespace tandem
