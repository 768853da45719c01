#pragma once
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "nn/attend.h"
#include "tests/nn/helpers.h"

// Attention written out, and the calls that it is compared with.

namespace tandem {

struct AttendCase {
  const char* name;
  int64_t n_queries, n_keys, n_heads, n_kv_heads;
  int64_t window = 0;
  bool query_index = false, key_lengths = false, segments = false;
  bool scattered = false;  // queries at any ascending columns of each row, as training wants them
  bool padding = false;    // every third document is padding
};

inline void PrintTo(const AttendCase& c, std::ostream* out) { *out << c.name; }

/// AttendMask's rule, read key by key: [B, T, S] of 0 and 1.
inline Tensor visible_by_definition(int64_t batch, int64_t n_queries, int64_t n_keys,
                                    const AttendMask& mask) {
  auto visible = torch::zeros({batch, n_queries, n_keys}, torch::kFloat64);
  auto out = visible.accessor<double, 3>();
  const auto none = torch::zeros({batch, std::max(n_queries, n_keys)}, torch::kInt32);
  const bool segments = mask.query_segment.defined();
  const auto query_segment = (segments ? mask.query_segment : none).accessor<int32_t, 2>();
  const auto key_segment = (segments ? mask.key_segment : none).accessor<int32_t, 2>();
  for (int64_t b = 0; b < batch; ++b) {
    const int64_t n_valid =
        mask.key_lengths.defined() ? mask.key_lengths[b].item<int64_t>() : n_keys;
    for (int64_t t = 0; t < n_queries; ++t) {
      const int64_t i = mask.query_index.defined() ? mask.query_index[b][t].item<int64_t>()
                                                   : n_keys - n_queries + t;
      for (int64_t j = 0; j < n_keys; ++j) {
        const bool near = mask.window == 0 || j > i - mask.window;
        const bool together = query_segment[b][t] == key_segment[b][j] && query_segment[b][t] >= 0;
        out[b][t][j] = j <= i && near && together && j < n_valid;
      }
    }
  }
  return visible;
}

/// Softmax attention with explicit sums; zeros where nothing is visible.
inline Tensor attend_by_definition(const Tensor& q, const Tensor& k, const Tensor& v,
                                   const Tensor& visible) {
  const int64_t n_shared = q.size(2) / k.size(2);
  Tensors heads;
  for (int64_t h = 0; h < q.size(2); ++h) {
    const auto key = k.select(2, h / n_shared), value = v.select(2, h / n_shared);  // [B, S, K]
    const auto scores =
        q.select(2, h).matmul(key.transpose(1, 2)) / std::sqrt(static_cast<double>(q.size(3)));
    const auto weights = scores.exp() * visible;  // [B, T, S]
    const auto sum = weights.sum(-1, /*keepdim=*/true);
    heads.push_back((weights / torch::where(sum > 0, sum, 1)).matmul(value));
  }
  return torch::stack(heads, 2);
}

/// Documents of lengths 5, 1, 12, 3, 30, ... and a different cut in every row.
inline Tensor documents_of_rows(int64_t batch, int64_t n_tokens) {
  auto segment = torch::zeros({batch, n_tokens}, torch::kInt32);
  const int64_t lengths[] = {5, 1, 12, 3, 30, 170};
  for (int64_t b = 0; b < batch; ++b) {
    int64_t begin = 0;
    for (int32_t n = 0; begin < n_tokens; ++n) {
      segment[b].slice(0, begin, n_tokens).fill_(n);
      begin += lengths[(n + b) % 6];
    }
  }
  return segment;
}

inline constexpr int64_t kAttendBatch = 2;

inline AttendMask mask_of(const AttendCase& c, at::Generator generator) {
  AttendMask mask{.window = c.window};
  if (c.query_index) {
    const auto begins = torch::randint(0, std::max<int64_t>(1, c.n_keys - c.n_queries),
                                       {kAttendBatch, 1}, generator, torch::kInt64);
    mask.query_index = begins + torch::arange(c.n_queries);
  }
  if (c.scattered) {  // the first n columns of a random order
    const auto order = torch::rand({kAttendBatch, c.n_keys}, generator)
                           .argsort(/*dim=*/int64_t{1}, /*descending=*/false);
    mask.query_index = std::get<0>(order.slice(1, 0, c.n_queries).sort(1));
  }
  if (c.key_lengths) mask.key_lengths = torch::tensor({c.n_keys - 2, c.n_keys / 3}, torch::kInt64);
  if (c.segments) {
    mask.key_segment = documents_of_rows(kAttendBatch, c.n_keys);
    if (c.padding) {
      const auto number = mask.key_segment.clone();
      mask.key_segment.masked_fill_(number % 3 == 1, -1).masked_fill_(number == 4, -3);
    }
    mask.query_segment = c.scattered ? mask.key_segment.gather(1, mask.query_index)
                                     : mask.key_segment.slice(1, c.n_keys - c.n_queries);
  }
  return mask;
}

inline const std::vector<AttendCase>& attend_cases() {
  static const std::vector<AttendCase> cases = {
      AttendCase{"Causal", 37, 37, 4, 4},
      AttendCase{"CausalGrouped", 37, 37, 6, 2},
      AttendCase{"OneToken", 1, 1, 4, 2},
      AttendCase{"Decode", 1, 41, 6, 2},
      AttendCase{"LongerKeys", 19, 41, 6, 3},
      AttendCase{"LongerKeysInBlocks", 300, 317, 2, 1},
      AttendCase{"LongerQueries", 23, 9, 4, 2},
      AttendCase{"Window", 101, 101, 4, 2, 7},
      AttendCase{"WindowOfOne", 37, 37, 2, 2, 1},
      AttendCase{"WideWindow", 37, 37, 4, 2, 50},
      AttendCase{"WindowLongerKeys", 75, 91, 4, 2, 40},
      AttendCase{"WindowLongerQueries", 91, 75, 4, 2, 40},
      AttendCase{"WindowDecode", 1, 41, 6, 2, 5},
      AttendCase{"Segments", 103, 103, 4, 2, 0, false, false, true},
      AttendCase{"SegmentsInBlocks", 290, 290, 2, 1, 0, false, false, true},
      AttendCase{"SegmentsWindow", 103, 103, 4, 2, 9, false, false, true},
      AttendCase{"Ragged", 13, 41, 4, 2, 0, true, true},
      AttendCase{"RaggedDecode", 1, 41, 4, 2, 0, true, true},
      AttendCase{"RaggedWindow", 13, 41, 4, 2, 6, true, true},
      AttendCase{"KeyLengths", 41, 41, 4, 2, 0, false, true},
      AttendCase{"Scattered", 17, 101, 4, 2, 0, false, false, false, true},
      AttendCase{"ScatteredOne", 1, 101, 6, 2, 0, false, false, false, true},
      AttendCase{"ScatteredInBlocks", 261, 401, 2, 1, 0, false, false, false, true},
      AttendCase{"ScatteredSegments", 67, 103, 4, 2, 0, false, false, true, true},
      AttendCase{"ScatteredWindow", 81, 103, 4, 2, 9, false, false, true, true},
      AttendCase{"Everything", 70, 95, 6, 3, 33, true, true, true},
      AttendCase{"Padding", 103, 103, 4, 2, 0, false, false, true, false, true},
      AttendCase{"PaddingInBlocks", 590, 590, 2, 1, 0, false, false, true, false, true},
      AttendCase{"PaddingWindow", 103, 103, 4, 2, 9, false, false, true, false, true},
      AttendCase{"PaddingScattered", 67, 103, 4, 2, 0, false, false, true, true, true}};
  return cases;
}

}  // namespace tandem
