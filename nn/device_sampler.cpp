#include "nn/device_sampler.h"

#include <limits>

// One uniform number a row and call, put through the inverse of the cumulative distribution.
// Gumbel's maximum would need one a token of the vocabulary. The numbers are counted Philox draws
// made on the host for many calls at once and copied ahead without waiting, so that a call on a GPU
// only queues kernels.

namespace tandem {
namespace {

constexpr int64_t kCallsAhead = 256;

}  // namespace

DeviceSampler::DeviceSampler(const SamplingConfig& config, int64_t batch, torch::Device device,
                             std::vector<int64_t> rows)
    : config_(config), batch_(batch), device_(device) {
  TORCH_CHECK(config.temperature >= 0 && config.top_k >= 0 && config.top_p > 0 && config.top_p <= 1,
              "DeviceSampler: temperature = ", config.temperature, ", top_k = ", config.top_k,
              ", top_p = ", config.top_p, ", expected at least 0, at least 0 and in (0, 1]");
  TORCH_CHECK(rows.empty() || static_cast<int64_t>(rows.size()) == batch,
              "DeviceSampler: ", rows.size(), " row numbers for a batch of ", batch);
  const RandomStream stream = RandomStream(config.seed).fork("sampling");
  for (int64_t b = 0; b < batch; ++b) {
    streams_.push_back(
        stream.fork(static_cast<uint64_t>(rows.empty() ? b : rows[static_cast<size_t>(b)])));
  }
  if (!config.forbidden.empty())
    forbidden_ = torch::tensor(config.forbidden, torch::kInt64).to(device);
}

Tensor DeviceSampler::next_uniforms() {
  const int64_t within = calls_ % kCallsAhead;
  if (uniforms_from_ != calls_ - within) {
    uniforms_from_ = calls_ - within;
    const auto options = torch::TensorOptions(torch::kFloat64).pinned_memory(device_.is_cuda());
    const Tensor host = torch::empty({kCallsAhead, batch_}, options);
    double* out = host.mutable_data_ptr<double>();
    for (int64_t call = 0; call < kCallsAhead; ++call) {
      for (const RandomStream& row : streams_)
        *out++ = row.uniform(static_cast<uint64_t>(uniforms_from_ + call));
    }
    uniforms_ = host.to(device_, /*non_blocking=*/true);
  }
  ++calls_;
  return uniforms_[within].unsqueeze(1);  // [B, 1]
}

void DeviceSampler::skip(int64_t calls) {
  TORCH_CHECK(calls >= 0, "DeviceSampler: skip ", calls, " calls, expected at least 0");
  calls_ += calls;
}

Tensor DeviceSampler::sample(const Tensor& logits) {
  TORCH_CHECK(logits.dim() == 2 && logits.size(0) == batch_, "DeviceSampler: logits of shape ",
              logits.sizes(), ", expected [", batch_, ", V]");
  Tensor scores = logits;
  if (forbidden_.defined())
    scores = scores.index_fill(1, forbidden_, -std::numeric_limits<double>::infinity());
  if (config_.temperature == 0) return scores.argmax(1);

  const Tensor uniforms = next_uniforms();
  scores = scores.to(torch::kFloat64) / config_.temperature;
  Tensor ids;  // of the columns of `scores`, most likely first; undefined: column v is token v
  if (config_.top_k > 0 && config_.top_k < scores.size(1)) {
    std::tie(scores, ids) = scores.topk(config_.top_k, 1);
  } else if (config_.top_p < 1) {
    std::tie(scores, ids) = scores.sort(/*stable=*/true, /*dim=*/1, /*descending=*/true);
  }
  Tensor p = scores.softmax(1);  // [B, K]
  if (config_.top_p < 1) p = p.masked_fill(p.cumsum(1) - p >= config_.top_p, 0);
  const Tensor cumulative = p.cumsum(1);
  const Tensor total = cumulative.narrow(1, cumulative.size(1) - 1, 1);
  // the first column whose cumulative probability passes u * total; u < 1, so there is one and its
  // probability is not 0
  const Tensor column =
      cumulative.gt(uniforms * total).to(torch::kUInt8).argmax(1, /*keepdim=*/true);
  return (ids.defined() ? ids.gather(1, column) : column).squeeze(1);
}

}  // namespace tandem
