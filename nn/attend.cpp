#include "nn/attend.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "nn/cache_rows.h"

// LibTorch's fused attention does the work: on a CPU its flash kernel, on a GPU whichever of its
// own fits. It knows one whole causal sequence; everything else is cut into blocks of queries, each
// with the keys that it sees and an additive mask. In a block the query heads that share a key head
// are laid behind one another as one head with more queries, so that keys and values are read once
// and never repeated.

namespace tandem {
namespace {

constexpr int64_t kQueriesPerBlock = 256;
constexpr int64_t kFewestQueriesPerBlock = 32;
constexpr int64_t kLargestMask = int64_t{1} << 26;  // numbers of one row of a block
constexpr int64_t kKeysPerConversion = 1024;  // of a decode step: these stay in a core's cache
constexpr int64_t kMostRowsOnGpu =
    65535;  // where the y and z of a CUDA grid end, along which rows lie

struct Range {
  int64_t begin = 0, end = 0;
  int64_t size() const { return end - begin; }
};

/// The same tensor cut into ranges. The backward pass adds the pieces' gradients into one tensor,
/// in float32 or wider, where that of slices would make one of full size for each piece.
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
    ctx->saved_data["dtype"] = x.scalar_type();
    ctx->set_materialize_grads(false);
    return pieces;
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 const torch::autograd::variable_list& grads) {
    const auto begins = ctx->saved_data["begins"].toIntVector();
    const auto dtype = ctx->saved_data["dtype"].toScalarType();
    Tensor sum;
    for (size_t i = 0; i < grads.size(); ++i) {
      if (!grads[i].defined()) continue;
      if (!sum.defined()) {
        sum = torch::zeros(ctx->saved_data["sizes"].toIntVector(),
                           grads[i].options().dtype(float_or_wider(dtype)));
      }
      sum.slice(1, begins[i], begins[i] + grads[i].size(1)).add_(grads[i]);
    }
    return {sum.defined() ? sum.to(dtype) : sum, {}};
  }
};

Tensors cut(const Tensor& x, const std::vector<Range>& ranges) {
  if (torch::GradMode::is_enabled() && x.requires_grad()) return Pieces::apply(x, ranges);
  Tensors pieces;
  for (const auto& range : ranges) pieces.push_back(x.slice(1, range.begin, range.end));
  return pieces;
}

/// Queries of a call and the keys that one of them may see.
struct Block {
  Range queries, keys;
};

/// Rows differ in what their queries see.
bool is_by_row(const AttendMask& mask) {
  return mask.query_index.defined() || mask.key_lengths.defined() || mask.query_segment.defined();
}

/// [B or 1, queries, keys] bool: AttendMask's rule. `shift`: key index of the first query where the
/// mask does not say.
Tensor visible_keys(const Block& block, int64_t shift, const AttendMask& mask,
                    torch::Device device) {
  const auto& [queries, keys] = block;
  const auto integers = torch::TensorOptions().dtype(torch::kInt64).device(device);
  const auto j = torch::arange(keys.begin, keys.end, integers);  // [keys]
  const auto i =
      mask.query_index.defined()  // [B or 1, queries, 1]
          ? mask.query_index.slice(1, queries.begin, queries.end).unsqueeze(2)
          : torch::arange(shift + queries.begin, shift + queries.end, integers).view({1, -1, 1});
  auto visible = j <= i;
  if (mask.window > 0) visible = visible & (j > i - mask.window);
  if (mask.key_lengths.defined()) visible = visible & (j < mask.key_lengths.view({-1, 1, 1}));
  if (mask.query_segment.defined()) {
    const auto of_queries = mask.query_segment.slice(1, queries.begin, queries.end).unsqueeze(2);
    const auto of_keys = mask.key_segment.slice(1, keys.begin, keys.end).unsqueeze(1);
    // Padding is -2 as a query and -1 as a key, which are never equal.
    visible = visible & (of_queries.masked_fill(of_queries < 0, -2) == of_keys.clamp_min(-1));
  }
  return visible;
}

/// Lowest and highest key index of the queries in each range.
std::vector<std::pair<int64_t, int64_t>> extremes(const std::vector<Range>& queries, int64_t shift,
                                                  const Tensor& query_index) {
  std::vector<std::pair<int64_t, int64_t>> found;
  for (const auto& range : queries) found.emplace_back(shift + range.begin, shift + range.end - 1);
  if (!query_index.defined()) return found;
  Tensors bounds;
  for (const auto& range : queries) {
    const auto [least, most] = at::aminmax(query_index.slice(1, range.begin, range.end));
    bounds.insert(bounds.end(), {least, most});
  }
  const auto on_host = torch::stack(bounds).cpu();
  const auto* values = on_host.const_data_ptr<int64_t>();
  for (size_t n = 0; n < found.size(); ++n) found[n] = {values[2 * n], values[2 * n + 1]};
  return found;
}

/// From the first to the last key of `block` that a query sees; on a GPU all, as asking would wait
/// for it.
Range seen_keys(const Block& block, int64_t shift, const AttendMask& mask, torch::Device device) {
  if (!device.is_cpu() || block.keys.size() == 0) return block.keys;
  const auto seen = visible_keys(block, shift, mask, device).any(0).any(0).nonzero();
  if (seen.numel() == 0) return {};
  return {block.keys.begin + seen[0].item<int64_t>(),
          block.keys.begin + seen[-1].item<int64_t>() + 1};
}

/// Queries of a block, where `n_shared` heads read the same keys.
int64_t block_length(int64_t n_keys, int64_t n_shared, int64_t window) {
  // A block and its window overlap most when the block is as long as the window.
  const int64_t wanted = window > 0 ? window : kLargestMask / std::max<int64_t>(1, n_keys * n_shared);
  return std::clamp(wanted, kFewestQueriesPerBlock, kQueriesPerBlock);
}

std::vector<Block> make_blocks(int64_t n_queries, int64_t n_keys, int64_t n_shared,
                               const AttendMask& mask, torch::Device device) {
  const int64_t length = block_length(n_keys, n_shared, mask.window);
  const int64_t shift = n_keys - n_queries;
  std::vector<Range> queries;
  for (int64_t begin = 0; begin < n_queries; begin += length)
    queries.push_back({begin, std::min(begin + length, n_queries)});
  // The indices of one block are not worth waiting for a GPU.
  const bool by_index = device.is_cpu() || queries.size() > 1 || !mask.query_index.defined();
  std::vector<Block> blocks;
  for (const auto& range : queries) blocks.push_back({range, {0, n_keys}});
  if (by_index) {
    const auto indices = extremes(queries, shift, mask.query_index);
    for (size_t n = 0; n < blocks.size(); ++n) {
      auto& keys = blocks[n].keys;
      keys.end = std::clamp<int64_t>(indices[n].second + 1, 0, n_keys);
      if (mask.window > 0)
        keys.begin = std::clamp<int64_t>(indices[n].first - mask.window + 1, 0, keys.end);
    }
  }
  if (mask.query_segment.defined()) {
    for (auto& block : blocks) block.keys = seen_keys(block, shift, mask, device);
  }
  return blocks;
}

/// A decode step over a cache of another type: grouped [B, G, R, K], one query each of R heads.
/// Keys and values are converted a piece at a time, as the softmax goes over them once with its
/// running maximum and sum (Milakov and Gimelshein 2018, "Online normalizer calculation for
/// softmax").
Tensor attend_converting(const Tensor& grouped, const Tensor& k, const Tensor& v,
                         const std::optional<Tensor>& bias) {
  const double scale = 1 / std::sqrt(static_cast<double>(grouped.size(3)));
  const auto wide = float_or_wider(grouped.scalar_type());
  const std::vector<int64_t> sizes = {k.size(0), k.size(2), kKeysPerConversion, grouped.size(3)};
  const Tensor keys = torch::empty(sizes, grouped.options()), values = torch::empty_like(keys);
  Tensor highest, sum, mixed;  // [B, G, R, 1] twice, [B, G, R, K]
  for (int64_t begin = 0; begin < k.size(1); begin += kKeysPerConversion) {
    const int64_t n = std::min(kKeysPerConversion, k.size(1) - begin);
    const auto converted = [&](const Tensor& buffer, const Tensor& x) {
      const Tensor piece = buffer.narrow(2, 0, n);  // [B, G, n, K]
      copy_from_cache_rows(piece, x.narrow(1, begin, n).transpose(1, 2));
      return piece;
    };
    auto scores = grouped.matmul(converted(keys, k).transpose(2, 3)).to(wide) * scale;
    if (bias) scores = scores + bias->narrow(3, begin, n);  // [B, G, R, n]
    const auto above = begin == 0 ? scores.amax(-1, true) : scores.amax(-1, true).maximum(highest);
    const auto p = (scores - above).exp();
    const auto added = p.to(grouped.scalar_type()).matmul(converted(values, v)).to(wide);
    const auto kept = begin == 0 ? Tensor() : (highest - above).exp();
    sum = begin == 0 ? p.sum(-1, true) : sum * kept + p.sum(-1, true);
    mixed = begin == 0 ? added : mixed * kept + added;
    highest = above;
  }
  return (mixed / sum).to(grouped.scalar_type());
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
    bias = added.unsqueeze(1);  // [B or 1, 1, H/G * T, S]
    if (n_shared > 1) bias = bias->repeat({1, 1, n_shared, 1});
  }
  const auto like_queries = [&](const Tensor& x) {
    return from_cache_rows(x, q.size(3), q.scalar_type()).transpose(1, 2);
  };  // a cache may be of another type
  const bool in_pieces = !torch::GradMode::is_enabled() && n_queries == 1 &&
                         k.scalar_type() != q.scalar_type() && k.size(1) > kKeysPerConversion;
  const auto out = in_pieces ? attend_converting(grouped, k, v, bias)
                             : torch::scaled_dot_product_attention(grouped, like_queries(k),
                                                                   like_queries(v), bias);
  return out.unflatten(2, {n_shared, n_queries}).permute({0, 3, 1, 2, 4}).flatten(2, 3);
}

/// What every block of a call shares.
struct Rule {
  AttendMask mask;
  int64_t shift = 0;  // key index of the first query where the mask does not say
  std::vector<Block> blocks;
};

/// Block n of a call, whose queries and keys these are.
Tensor attend_block_of(const Rule& rule, size_t n, const Tensor& q, const Tensor& k,
                       const Tensor& v) {
  const Block& block = rule.blocks[n];
  if (block.keys.size() == 0) return torch::zeros_like(q);
  const bool by_row = is_by_row(rule.mask);
  // A decode step: the slice is just what it sees.
  if (!by_row && block.queries.size() == 1) return attend_block(q, k, v, {});
  const auto visible = visible_keys(block, rule.shift, rule.mask, q.device());
  const auto out = attend_block(q, k, v, visible);
  if (!by_row && rule.shift >= 0) return out;
  // Some may see nothing.
  return out.masked_fill(visible.any(-1).logical_not().unsqueeze(-1).unsqueeze(-1), 0);
}

Tensor attend_blocks(const Tensor& q, const Tensor& k, const Tensor& v, const Rule& rule) {
  std::vector<Range> keys;
  for (const auto& block : rule.blocks) keys.push_back(block.keys);
  const auto pieces_q = q.split(rule.blocks.front().queries.size(), 1);
  const auto pieces_k = cut(k, keys), pieces_v = cut(v, keys);
  Tensors outputs;
  for (size_t n = 0; n < rule.blocks.size(); ++n)
    outputs.push_back(attend_block_of(rule, n, pieces_q[n], pieces_k[n], pieces_v[n]));
  return outputs.size() == 1 ? outputs[0] : torch::cat(outputs, 1);
}

/// The same; the backward pass makes the blocks again one by one, and adds up each one's
/// gradients before the next: neither masks nor gradients of all blocks are held at once.
struct BlocksAgain : torch::autograd::Function<BlocksAgain> {
  struct Held : torch::CustomClassHolder {
    Rule rule;
    explicit Held(Rule of_call) : rule(std::move(of_call)) {}
  };
  static Tensor forward(torch::autograd::AutogradContext* ctx, const Tensor& q, const Tensor& k,
                        const Tensor& v, const Rule& rule) {
    ctx->save_for_backward({q, k, v});
    ctx->saved_data["rule"] = c10::IValue::make_capsule(c10::make_intrusive<Held>(rule));
    return attend_blocks(q, k, v, rule);  // grad mode is off in here
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 const torch::autograd::variable_list& gradients) {
    const Tensors saved = ctx->get_saved_variables();
    const auto held = c10::static_intrusive_pointer_cast<Held>(ctx->saved_data["rule"].toCapsule());
    const Rule& rule = held->rule;
    Tensors sums;  // of q, k and v, in float32 or wider
    for (const Tensor& x : saved)
      sums.push_back(torch::zeros(x.sizes(), x.options().dtype(float_or_wider(x.scalar_type()))));
    for (size_t n = 0; n < rule.blocks.size(); ++n) {
      const auto& [queries, keys] = rule.blocks[n];
      if (keys.size() == 0) continue;
      const Range ranges[] = {queries, keys, keys};
      Tensors inputs;
      for (size_t i = 0; i < saved.size(); ++i)
        inputs.push_back(
            saved[i].slice(1, ranges[i].begin, ranges[i].end).detach().requires_grad_());
      Tensor out;
      {
        const torch::AutoGradMode grad_mode(true);
        out = attend_block_of(rule, n, inputs[0], inputs[1], inputs[2]);
      }
      const auto of_inputs = torch::autograd::grad(
          {out}, inputs, {gradients[0].slice(1, queries.begin, queries.end)});
      for (size_t i = 0; i < saved.size(); ++i)
        sums[i].slice(1, ranges[i].begin, ranges[i].end).add_(of_inputs[i]);
    }
    for (size_t i = 0; i < saved.size(); ++i) sums[i] = sums[i].to(saved[i].scalar_type());
    return {sums[0], sums[1], sums[2], {}};
  }
};

void check(const Tensor& q, const Tensor& k, const Tensor& v, const AttendMask& mask) {
  TORCH_CHECK(q.dim() == 4 && k.dim() == 4 && k.sizes() == v.sizes() && q.size(0) == k.size(0) &&
                  k.size(3) == cache_row_width(q.size(3), k.scalar_type()) && q.size(1) > 0,
              "attend: q ", q.sizes(), ", k ", k.sizes(), ", v ", v.sizes(),
              ", expected [B, T, H, K] and [B, S, G, K] twice");
  TORCH_CHECK(k.size(2) > 0 && q.size(2) % k.size(2) == 0, "attend: ", q.size(2),
              " query heads, expected a multiple of ", k.size(2));
  TORCH_CHECK(mask.query_segment.defined() == mask.key_segment.defined(),
              "attend: query_segment and key_segment go together");
}

/// On a GPU of compute capability 9 LibTorch would choose cuDNN's kernel before its own. That makes
/// a plan for each new number of keys, which decoding has at each token, and is not deterministic
/// backwards.
void leave_out_cudnn() {
  static const bool done = [] {
    at::globalContext().setSDPUseCuDNN(false);
    return true;
  }();
  static_cast<void>(done);
}

/// [B, S, G, K] -> [B, S, n G, K], each head n times.
Tensor repeated_heads(const Tensor& x, int64_t n) {
  return n == 1 ? x : x.unsqueeze(3).expand({-1, -1, -1, n, -1}).flatten(2, 3);
}

/// Whole causal sequences of one document each.
Tensor attend_whole(const Tensor& q, const Tensor& k, const Tensor& v) {
  // GPU kernels for wide types do not all know shared heads, and what is left to them would keep
  // all scores: there heads are repeated, which takes far less.
  const bool repeats = q.is_cuda() && q.element_size() > 2;
  const auto heads = [&](const Tensor& x) {
    const Tensor same = from_cache_rows(x, q.size(3), q.scalar_type());
    return (repeats ? repeated_heads(same, q.size(2) / x.size(2)) : same).transpose(1, 2);
  };
  const auto out = torch::scaled_dot_product_attention(
      q.transpose(1, 2), heads(k), heads(v), /*attn_mask=*/{}, /*dropout_p=*/0,
      /*is_causal=*/true, /*scale=*/std::nullopt,
      /*enable_gqa=*/!repeats && q.size(2) != k.size(2));
  return out.transpose(1, 2);
}

/// More rows than a GPU's kernels take, some at a time.
Tensor attend_in_parts(const Tensor& q, const Tensor& k, const Tensor& v, const AttendMask& mask) {
  Tensors outputs;
  for (int64_t begin = 0; begin < q.size(0); begin += kMostRowsOnGpu) {
    const int64_t n = std::min(kMostRowsOnGpu, q.size(0) - begin);
    const auto part = [&](const Tensor& x) { return x.defined() ? x.narrow(0, begin, n) : x; };
    outputs.push_back(attend(part(q), part(k), part(v),
                             {part(mask.query_index), part(mask.key_lengths), mask.window,
                              part(mask.query_segment), part(mask.key_segment)}));
  }
  return torch::cat(outputs, 0);
}

}  // namespace

Tensor attend(const Tensor& q, const Tensor& k, const Tensor& v, const AttendMask& mask) {
  check(q, k, v, mask);
  if (q.is_cuda()) {
    leave_out_cudnn();
    if (q.size(0) > kMostRowsOnGpu) return attend_in_parts(q, k, v, mask);
  }
  const int64_t n_queries = q.size(1), n_keys = k.size(1), shift = n_keys - n_queries;
  const bool by_row = is_by_row(mask);
  if (!by_row && shift == 0 && (mask.window <= 0 || mask.window >= n_keys))
    return attend_whole(q, k, v);
  const int64_t n_shared = q.size(2) / k.size(2);
  const Rule rule{mask, shift, make_blocks(n_queries, n_keys, n_shared, mask, q.device())};
  int64_t most_keys = 0;  // of a block
  for (const auto& block : rule.blocks) most_keys = std::max(most_keys, block.keys.size());
  // A mask of so many keys, for each row or for queries that begin far behind the first key (a
  // rank's part of a row), takes more memory than what a layer keeps of the queries.
  const bool again = (by_row || shift > 0) && most_keys > 4 * k.size(2) * k.size(3) &&
                     torch::GradMode::is_enabled() &&
                     (q.requires_grad() || k.requires_grad() || v.requires_grad());
  return again ? BlocksAgain::apply(q, k, v, rule) : attend_blocks(q, k, v, rule);
}

}  // namespace tandem
