#pragma once
#include "nn/cost.h"
#include "nn/forward_context.h"
#include "nn/kv_cache.h"
#include "nn/linear.h"
#include "nn/norm.h"
#include "nn/rope.h"
#include "nn/run_unit.h"

namespace tandem {

/// Keys and values that every layer of the cross-decoder reads: of this call's tokens, or of all tokens so far.
struct SharedKv {
  Tensor keys, values;             // [B, S, G, K]; keys are rotated
  Tensor segment;                  // [B, S] document of each key; undefined = one document
  const KvCache* cache = nullptr;  // where they are held; nullptr = they are this call's
  int64_t begin = 0;               // the key of this call's first token, where they are this call's: other ranks' come before it
};

/// What the cross-decoder's heads look like to the one that makes their keys and values.
struct SharedKvSpec {
  int64_t d_model = 0, n_kv_heads = 0, head_dim = 0;
  double norm_eps = 1e-5;
  RopeConfig rope;
  bool bias = false;  // of both projections
};

/// K = RMS(X) W_K, V = RMS(X) W_V, computed once from the self-decoder's output X (YOCO, sec. 2.2). The norm is its own, and keys are rotated once,
/// before they are cached. Parameters: norm, k_proj, v_proj [G*K, D], these two with a bias where asked for.
class SharedKvMaker : public RunUnit {
 public:
  explicit SharedKvMaker(const SharedKvSpec& spec);
  /// h: [B, T, D]. Where ranks divide the rows, keys and values of all ranks are gathered, up to this rank's last. With `cache`: appends this call's `context.lengths` tokens to it and gives all tokens so far.
  SharedKv forward(const Tensor& h, const ForwardContext& context, KvCache* cache);
  KvCache make_cache(const StateShape& shape) const;
  double forward_flops(double n_tokens) const;
  int64_t state_bytes(int64_t length, torch::Dtype dtype) const;
  double sequence_bytes(const SequencePass& pass) const;

 private:
  SharedKvSpec spec_;
  RmsNorm norm_{nullptr};
  Linear k_proj_{nullptr}, v_proj_{nullptr};
};

}  // namespace tandem
