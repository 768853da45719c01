#include "nn/cross_entropy.h"

#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <limits>
#include <optional>

#include "comm/communicator.h"

// Of one token with hidden state h, target y and weight w: nll = logsumexp(W h) - (W h)_y and d(w
// nll)/d(W h) = w (softmax(W h) - onehot(y)). A chunk's probabilities become that gradient in place
// and are dropped before the next chunk. Where ranks divide the rows of W, each has the logits of
// its own: their maximum and then the sum of exponentials and the target's logit are taken over the
// group.

namespace tandem {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Wanted {
  bool dh = false, dweight = false;
};

struct Scored {
  Tensor nll;          // [N]
  Tensor dh, dweight;  // like h [N, D], and [V, D] in the dtype of nll; undefined where not wanted
};

// Log-probabilities of some tokens, and where among them the targets' are.
struct LogProbabilities {
  Tensor values;  // [n, V], or the columns that this rank holds
  Tensor nll;     // [n]
  Tensor index;   // [n, 1], column of the target
  Tensor minus;   // [n, 1], -1, or 0 where another rank holds that column
};

LogProbabilities log_probabilities(const Tensor& logits, const Tensor& targets, torch::Dtype wide) {
  const auto index = targets.unsqueeze(1);
  const auto p = at::log_softmax(logits, -1, wide);
  return {p, p.gather(1, index).squeeze(1).neg_(), index,
          torch::full({1, 1}, -1, p.options()).expand_as(index)};
}

LogProbabilities log_probabilities(const Tensor& logits, const Tensor& targets, torch::Dtype wide,
                                   const HeldRows& part) {
  const auto local = targets.unsqueeze(1) - part.begin;  // [n, 1]
  const auto elsewhere = local.lt(0).logical_or_(local.ge(logits.size(1)));
  const auto index = local.masked_fill(elsewhere, 0);
  auto p = logits.to(wide);
  Tensor highest = p.amax(1, /*keepdim=*/true);  // [n, 1]
  part.group->all_reduce(highest, Reduction::kMax)->wait();
  p = p - highest;
  const auto of_target = p.gather(1, index).masked_fill_(elsewhere, 0);
  Tensor sums = torch::stack({p.exp().sum(1, /*keepdim=*/true), of_target});
  part.group->all_reduce(sums, Reduction::kSum)->wait();  // [2, n, 1]
  const auto log_sum = sums[0].log();
  return {p.sub_(log_sum), (log_sum - sums[1]).squeeze(1), index,
          torch::full_like(of_target, -1).masked_fill_(elsewhere, 0)};
}

// h: [N, D], targets: [N] in [0, V), weights: [N] or undefined; all N tokens are scored.
void score_chunk(const Tensor& h, const Tensor& head, const HeldRows& part, const Tensor& targets,
                 const Tensor& weights, Wanted wanted, Scored& out, int64_t begin) {
  const auto wide = out.nll.scalar_type();
  const auto of_chunk = part.group == nullptr
                            ? log_probabilities(at::linear(h, head), targets, wide)
                            : log_probabilities(at::linear(h, head), targets, wide, part);
  out.nll.narrow(0, begin, h.size(0)).copy_(of_chunk.nll);
  if (!wanted.dh && !wanted.dweight) return;
  const auto p = of_chunk.values;
  p.exp_();
  p.scatter_add_(1, of_chunk.index, of_chunk.minus);
  if (weights.defined()) p.mul_(weights.unsqueeze(1));
  const auto d = p.to(h.scalar_type());
  if (wanted.dh) out.dh.narrow(0, begin, h.size(0)).copy_(d.mm(head));
  if (wanted.dweight && d.scalar_type() == out.dweight.scalar_type()) {
    out.dweight.addmm_(d.t(), h);
  } else if (wanted.dweight) {
    out.dweight.add_(d.t().mm(h));  // summed over chunks in float32
  }
}

Scored score(const Tensor& h, const Tensor& head, const HeldRows& part, const Tensor& targets,
             const Tensor& weights, int64_t chunk, Wanted wanted) {
  const auto options = h.options().dtype(float_or_wider(h.scalar_type()));
  Scored out;
  out.nll = torch::empty({h.size(0)}, options);
  if (wanted.dh) out.dh = torch::empty_like(h, at::MemoryFormat::Contiguous);
  if (wanted.dweight) out.dweight = torch::zeros(head.sizes(), options);
  for (int64_t begin = 0; begin < h.size(0); begin += chunk) {
    const int64_t n = std::min(chunk, h.size(0) - begin);
    score_chunk(h.narrow(0, begin, n), head, part, targets.narrow(0, begin, n),
                weights.defined() ? weights.narrow(0, begin, n) : weights, wanted, out, begin);
  }
  if (part.group != nullptr && wanted.dh && h.size(0) > 0)
    part.group->all_reduce(out.dh, Reduction::kSum)->wait();
  return out;
}

struct CrossEntropy : torch::autograd::Function<CrossEntropy> {
  // -> {weighted sum, nll [B * T]}
  static variable_list forward(AutogradContext* ctx, const Tensor& h, const Tensor& head,
                               const Tensor& targets, const std::optional<Tensor>& weights,
                               int64_t chunk, const HeldRows& part, bool want_dh,
                               bool want_dweight) {
    const auto flat = h.reshape({-1, h.size(-1)}), flat_targets = targets.reshape(-1);
    const auto at = flat_targets.ne(kIgnored).nonzero().squeeze(1);  // [N], waits for the device
    const bool all = at.size(0) == flat_targets.size(0);
    const auto of_scored = [&](const Tensor& x) { return all ? x : x.index_select(0, at); };
    const auto y = of_scored(flat_targets);
    const int64_t vocab_size = part.group == nullptr ? head.size(0) : part.count;
    const auto valid = y.ge(0).logical_and_(y.lt(vocab_size)).all();
    TORCH_CHECK(valid.item<bool>(), "cross_entropy: targets from ", y.min().item<int64_t>(), " to ",
                y.max().item<int64_t>(), ", expected 0 to ", vocab_size - 1, " or ", kIgnored);
    const auto options = h.options().dtype(float_or_wider(h.scalar_type()));
    const auto w = weights ? of_scored(weights->reshape(-1)).to(options) : Tensor();
    const auto scored = score(of_scored(flat), head, part, y, w, chunk, {want_dh, want_dweight});
    const auto sum = (w.defined() ? scored.nll * w : scored.nll).sum();
    const auto nll =
        all ? scored.nll
            : torch::full_like(flat_targets, std::numeric_limits<double>::quiet_NaN(), options)
                  .index_copy_(0, at, scored.nll);
    Tensor dh = scored.dh, dweight = scored.dweight;
    if (want_dh && !all) dh = torch::zeros_like(flat).index_copy_(0, at, dh);
    if (want_dh) dh = dh.view(h.sizes());
    if (want_dweight) dweight = dweight.to(head.scalar_type());
    ctx->save_for_backward({dh, dweight});
    ctx->mark_non_differentiable({nll});
    return {sum, nll};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    variable_list result(8);
    const auto saved = ctx->get_saved_variables();
    for (size_t i = 0; i < saved.size(); ++i) {
      if (saved[i].defined()) result[i] = saved[i] * gradients[0];
    }
    return result;
  }
};

}  // namespace

Loss cross_entropy(const Tensor& h, const Tensor& weight, const Tensor& targets,
                   const Tensor& weights, int64_t chunk, const HeldRows& part) {
  TORCH_CHECK(h.dim() == 3 && weight.dim() == 2 && h.size(2) == weight.size(1) &&
                  targets.sizes() == h.sizes().slice(0, 2) && chunk >= 1,
              "cross_entropy: h is ", h.sizes(), ", weight ", weight.sizes(), ", targets ",
              targets.sizes(), ", chunk ", chunk,
              "; expected [B, T, D], [V, D], [B, T], at least 1");
  TORCH_CHECK(!weights.defined() || weights.sizes() == targets.sizes(),
              "cross_entropy: weights are ", weights.sizes(), ", targets ", targets.sizes());
  const bool grad = torch::GradMode::is_enabled();  // off inside forward
  const auto optional_weights = weights.defined() ? std::optional(weights) : std::nullopt;
  const auto out = CrossEntropy::apply(h, weight, targets, optional_weights, chunk, part,
                                       grad && h.requires_grad(), grad && weight.requires_grad());
  return {out[0], out[1].view(targets.sizes())};
}

Tensor token_nll(const Tensor& h, const Tensor& weight, const Tensor& targets, int64_t chunk,
                 const HeldRows& part) {
  const torch::NoGradGuard no_grad;
  return cross_entropy(h, weight, targets, /*weights=*/{}, chunk, part).nll;
}

}  // namespace tandem
