#include "nn/kv_cache.h"

#include <algorithm>

#include "nn/cache_rows.h"
#include "nn/token_mixer.h"

namespace tandem {

KvCache::KvCache(const StateShape& shape, int64_t n_kv_heads, int64_t head_dim)
    : keys_(torch::zeros({shape.batch, shape.capacity, n_kv_heads,
                          cache_row_width(head_dim, shape.dtype)},
                         torch::dtype(shape.dtype).device(shape.device))),
      values_(torch::zeros_like(keys_)),
      lengths_(torch::zeros({shape.batch}, torch::dtype(torch::kInt64).device(shape.device))) {}

void KvCache::append(const Tensor& k, const Tensor& v, const Tensor& positions,
                     const Tensor& lengths) {
  const int64_t n_tokens = k.size(1);
  const auto dtype = keys_.scalar_type();
  TORCH_CHECK(k.size(0) == keys_.size(0) && k.size(2) == keys_.size(2) && v.sizes() == k.sizes() &&
                  cache_row_width(k.size(3), dtype) == keys_.size(3),
              "KvCache::append: keys ", k.sizes(), ", values ", v.sizes(), " into a cache of ",
              keys_.sizes(), " ", dtype);
  const Tensor held_k = to_cache_rows(k.detach(), dtype), held_v = to_cache_rows(v.detach(), dtype);
  reserve(upper_ + n_tokens);
  ragged_ = ragged_ || !rows_are_full(lengths, n_tokens);
  if (ragged_) {
    // Padded columns land past their row's end, where the row's next tokens overwrite them.
    const auto rows = torch::arange(k.size(0), positions.options()).unsqueeze(1);
    keys_.index_put_({rows, positions}, held_k);
    values_.index_put_({rows, positions}, held_v);
  } else {
    keys_.narrow(1, upper_, n_tokens).copy_(held_k);
    values_.narrow(1, upper_, n_tokens).copy_(held_v);
  }
  upper_ += n_tokens;
  lengths_ = lengths.defined() ? lengths_ + lengths : lengths_ + n_tokens;
  // Rows that grow at different calls are shorter than the sum of the calls; on a GPU asking would
  // wait for it.
  if (ragged_ && lengths_.is_cpu()) upper_ = lengths_.max().item<int64_t>();
}

void KvCache::reserve(int64_t n_tokens) {
  const int64_t held = keys_.size(1);
  if (n_tokens <= held) return;
  const int64_t extra = std::max(n_tokens, 2 * held) - held;
  keys_ = torch::constant_pad_nd(keys_, {0, 0, 0, 0, 0, extra});
  values_ = torch::constant_pad_nd(values_, {0, 0, 0, 0, 0, extra});
}

Tensor KvCache::keys() const { return keys_.narrow(1, 0, upper_); }
Tensor KvCache::values() const { return values_.narrow(1, 0, upper_); }

AttendMask KvCache::mask(const Tensor& positions) const {
  if (!ragged_) return {};
  return {.query_index = positions, .key_lengths = lengths_};
}

KvCache KvCache::select(const Tensor& rows) const {
  KvCache selected = *this;
  selected.keys_ = keys_.index_select(0, rows);
  selected.values_ = values_.index_select(0, rows);
  selected.lengths_ = lengths_.index_select(0, rows);
  return selected;
}

}  // namespace tandem
