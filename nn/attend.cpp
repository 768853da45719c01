#include "nn/attend.h"

#include <algorithm>
#include <limits>
#include <optional>

// LibTorch's fused attention does the work: on a CPU its flash kernel, on a GPU whichever fits. It
// knows one whole causal sequence; everything else is cut into blocks of queries, each with the
// keys that it sees and an additive mask. In a block the query heads that share a key head are laid
// behind one another as one head with more queries, so that keys and values are read once and never
// repeated.

namespace tandem {
namespace {

constexpr int64_t kQueriesPerBlock = 256;
constexpr int64_t kFewestQueriesPerBlock = 32;

struct Range {
  int64_t begin = 0, end = 0;
  int64_t size() const { return end - begin; }
};

/// The same tensor cut into ranges. The backward pass adds the pieces' gradients into one tensor,
/// where that of slices would make one of full size for each piece.
struct Pieces : torch::autograd::Function<Pieces> {
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* ctx,
                                                const Tensor& x, const std::vector<Range>& ranges) {
    Tensors pieces;
    std::vector<int64_t> begins;
    for (const auto& range : ranges) {
      pieces.push_back(x.slice(1, range.begin, range.end));
      begins.push_back(range.begin);
    }
    ctx->saved_data["begins"] = begins;
    ctx->saved_data["sizes"] = x.sizes().vec();
    ctx->set_materialize_grads(false);
    return pieces;
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 const torch::autograd::variable_list& grads) {
    const auto begins = ctx->saved_data["begins"].toIntVector();
    Tensor sum;
    for (size_t i = 0; i < grads.size(); ++i) {
      if (!grads[i].defined()) continue;
      if (!sum.defined())
        sum = torch::zeros(ctx->saved_data["sizes"].toIntVector(), grads[i].options());
      sum.slice(1, begins[i], begins[i] + grads[i].size(1)).add_(grads[i]);
    }
    return {sum, {}};
  }
};

bool aligned_to_end(const AttendMask& mask) {
  return !mask.query_index.defined() && !mask.key_lengths.defined() &&
         !mask.query_segment.defined();
}

/// Keys that some query of a block may see, as far as the host knows.
Range keys_of(const Range& queries, int64_t n_queries, int64_t n_keys, const AttendMask& mask) {
  if (mask.query_index.defined()) return {0, n_keys};
  const int64_t shift = n_keys - n_queries;
  Range keys{0, std::clamp<int64_t>(shift + queries.end, 0, n_keys)};
  if (mask.window > 0)
    keys.begin = std::clamp<int64_t>(shift + queries.begin - mask.window + 1, 0, keys.end);
  return keys;
}

/// [B or 1, queries, keys] bool: AttendMask's rule for a block.
Tensor visible_keys(const Range& queries, const Range& keys, int64_t n_queries, int64_t n_keys,
                    const AttendMask& mask, torch::Device device) {
  const auto integers = torch::TensorOptions().dtype(torch::kInt64).device(device);
  const auto j = torch::arange(keys.begin, keys.end, integers);  // [keys]
  const int64_t shift = n_keys - n_queries;
  const auto i =
      mask.query_index.defined()  // [B or 1, queries, 1]
          ? mask.query_index.slice(1, queries.begin, queries.end).unsqueeze(2)
          : torch::arange(shift + queries.begin, shift + queries.end, integers).view({1, -1, 1});
  auto visible = j <= i;
  if (mask.window > 0) visible = visible & (j > i - mask.window);
  if (mask.key_lengths.defined()) visible = visible & (j < mask.key_lengths.view({-1, 1, 1}));
  if (mask.query_segment.defined()) {
    visible = visible & (mask.query_segment.slice(1, queries.begin, queries.end).unsqueeze(2) ==
                         mask.key_segment.slice(1, keys.begin, keys.end).unsqueeze(1));
  }
  return visible;
}

/// From the first to the last key that any query sees; on a GPU all, as asking would wait for it.
Range trim(const Tensor& visible) {
  if (!visible.is_cpu()) return {0, visible.size(2)};
  const auto seen = visible.any(0).any(0).nonzero();
  if (seen.numel() == 0) return {};
  return {seen[0].item<int64_t>(), seen[-1].item<int64_t>() + 1};
}

/// Queries [B, T, H, K] over keys and values [B, S, G, K]. visible: [B or 1, T, S], undefined: all.
Tensor attend_block(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& visible) {
  const int64_t n_queries = q.size(1), n_kv_heads = k.size(2), n_shared = q.size(2) / n_kv_heads;
  // [B, G, H/G * T, K]
  const auto grouped =
      q.unflatten(2, {n_kv_heads, n_shared}).permute({0, 2, 3, 1, 4}).flatten(2, 3);
  std::optional<Tensor> bias;
  if (visible.defined()) {
    // Not -inf: a query that sees nothing would give NaN on some kernels. Half of the lowest number
    // stays finite beside any score.
    const double hidden =
        q.dtype() == torch::kFloat16 ? -6e4 : std::numeric_limits<float>::lowest() / 2;
    const auto added = torch::zeros(visible.sizes(), q.options()).masked_fill_(~visible, hidden);
    bias = added.unsqueeze(1).repeat({1, 1, n_shared, 1});  // [B or 1, 1, H/G * T, S]
  }
  const auto out =
      torch::scaled_dot_product_attention(grouped, k.transpose(1, 2), v.transpose(1, 2), bias);
  return out.unflatten(2, {n_shared, n_queries}).permute({0, 3, 1, 2, 4}).flatten(2, 3);
}

void check(const Tensor& q, const Tensor& k, const Tensor& v, const AttendMask& mask) {
  TORCH_CHECK(q.dim() == 4 && k.dim() == 4 && k.sizes() == v.sizes() && q.size(0) == k.size(0) &&
                  q.size(3) == k.size(3),
              "attend: q ", q.sizes(), ", k ", k.sizes(), ", v ", v.sizes(),
              ", expected [B, T, H, K] and [B, S, G, K] twice");
  TORCH_CHECK(k.size(2) > 0 && q.size(2) % k.size(2) == 0, "attend: ", q.size(2),
              " query heads, expected a multiple of ", k.size(2));
  TORCH_CHECK(mask.query_segment.defined() == mask.key_segment.defined(),
              "attend: query_segment and key_segment go together");
}

}  // namespace

Tensor attend(const Tensor& q, const Tensor& k, const Tensor& v, const AttendMask& mask) {
  check(q, k, v, mask);
  const int64_t n_queries = q.size(1), n_keys = k.size(1);
  const bool plain = aligned_to_end(mask);
  if (plain && n_queries == n_keys && (mask.window <= 0 || mask.window >= n_keys)) {
    const auto out = torch::scaled_dot_product_attention(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), /*attn_mask=*/{}, /*dropout_p=*/0,
        /*is_causal=*/true, /*scale=*/std::nullopt, /*enable_gqa=*/q.size(2) != k.size(2));
    return out.transpose(1, 2);
  }
  // A block and its window overlap most when the block is as long as the window.
  const int64_t block = mask.window > 0
                            ? std::clamp(mask.window, kFewestQueriesPerBlock, kQueriesPerBlock)
                            : kQueriesPerBlock;
  std::vector<Range> queries, keys;
  for (int64_t begin = 0; begin < n_queries; begin += block) {
    queries.push_back({begin, std::min(begin + block, n_queries)});
    keys.push_back(keys_of(queries.back(), n_queries, n_keys, mask));
  }
  Tensors pieces_k, pieces_v, outputs;
  const bool narrow = mask.window > 0 && torch::GradMode::is_enabled();
  if (narrow) {
    pieces_k = Pieces::apply(k, keys);
    pieces_v = Pieces::apply(v, keys);
  }
  for (size_t n = 0; n < queries.size(); ++n) {
    const auto query = q.slice(1, queries[n].begin, queries[n].end);
    auto key = narrow ? pieces_k[n] : k.slice(1, keys[n].begin, keys[n].end);
    auto value = narrow ? pieces_v[n] : v.slice(1, keys[n].begin, keys[n].end);
    if (plain && queries[n].size() == 1 && n_queries <= n_keys) {
      // A decode step: the slice is just what it sees.
      outputs.push_back(attend_block(query, key, value, {}));
      continue;
    }
    auto visible = visible_keys(queries[n], keys[n], n_queries, n_keys, mask, q.device());
    if (!plain) {
      const auto some = trim(visible);
      visible = visible.slice(2, some.begin, some.end);
      key = key.slice(1, some.begin, some.end);
      value = value.slice(1, some.begin, some.end);
    }
    if (key.size(1) == 0) {
      outputs.push_back(torch::zeros_like(query));
      continue;
    }
    auto out = attend_block(query, key, value, visible);
    if (!plain || n_queries > n_keys) {  // some may see nothing
      out = out.masked_fill(visible.any(-1).logical_not().unsqueeze(-1).unsqueeze(-1), 0);
    }
    outputs.push_back(out);
  }
  return outputs.size() == 1 ? outputs[0] : torch::cat(outputs, 1);
}

}  // namespace tandem
