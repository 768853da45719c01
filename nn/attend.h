#pragma once
#include "nn/parameter.h"

namespace tandem {

/// Which keys a query sees. Causal always: key j is seen by the query at key index i when j <= i, j > i - window (window > 0), both are in one
/// document, and j < key_lengths. A negative segment is padding: such a query sees nothing, such a key is seen by none.
struct AttendMask {
  Tensor query_index = {};              // [B, T] int64, index of each query among its row's keys; undefined = aligned to the end, S - T + t
  Tensor key_lengths = {};              // [B] int64 valid keys of each row; undefined = all S
  int64_t window = 0;                   // keys a query sees, itself included; 0 = no limit
  Tensor query_segment = {}, key_segment = {};  // [B, T], [B, S] int32; undefined = one document
};

/// Softmax attention with scale K^-0.5. q: [B, T, H, K]; k, v: [B, S, G, K], H a multiple of G, query head h reads head h * G / H; -> [B, T, H, K].
/// Softmax in float32 (float64 for float64). A query that sees no key gives zeros. Never materialises more than a block of queries by its visible
/// keys: time is that of the visible keys where neighbouring queries are near each other, memory that of one block (large masks that differ by row, or
/// of queries behind the first key, are not kept for the backward pass but made again). k and v may be rows of a cache of another dtype (nn/cache_rows.h): those that a block of queries sees are converted. The one file that picks an attention kernel.
Tensor attend(const Tensor& q, const Tensor& k, const Tensor& v, const AttendMask& mask);

}  // namespace tandem
