#include "nn/cache_rows.h"

namespace tandem {
namespace {

constexpr int64_t kScaleBytes = sizeof(float);
constexpr double kLargestCode = 127;

/// [..., 1] float32, the scale of each row.
Tensor scales_of(const Tensor& rows) {
  return rows.narrow(-1, rows.size(-1) - kScaleBytes, kScaleBytes).view(torch::kFloat32);
}

}  // namespace

int64_t cache_row_width(int64_t head_dim, torch::Dtype dtype) {
  if (dtype != torch::kInt8) return head_dim;
  return (head_dim + kScaleBytes - 1) / kScaleBytes * kScaleBytes + kScaleBytes;
}

int64_t cache_bytes_per_token(int64_t n_heads, int64_t head_dim, torch::Dtype dtype) {
  return 2 * n_heads * cache_row_width(head_dim, dtype) *
         static_cast<int64_t>(torch::elementSize(dtype));
}

Tensor to_cache_rows(const Tensor& heads, torch::Dtype dtype) {
  if (dtype != torch::kInt8 || heads.scalar_type() == torch::kInt8) return heads.to(dtype);
  const int64_t head_dim = heads.size(-1);
  auto sizes = heads.sizes().vec();
  sizes.back() = cache_row_width(head_dim, dtype);
  const Tensor rows = torch::zeros(sizes, heads.options().dtype(dtype).requires_grad(false));
  const Tensor x = heads.detach().to(torch::kFloat32);
  const Tensor scale = x.abs().amax(-1, /*keepdim=*/true) / kLargestCode;
  // A head of zeros has scale 0. What is not finite has no code, but a scale that says so.
  rows.narrow(-1, 0, head_dim).copy_((x / scale).round().nan_to_num(0, 0, 0));
  scales_of(rows).copy_(scale);
  return rows;
}

void copy_from_cache_rows(const Tensor& to, const Tensor& rows) {
  if (rows.scalar_type() != torch::kInt8) {
    to.copy_(rows);
    return;
  }
  to.copy_(rows.narrow(-1, 0, to.size(-1)));
  to.mul_(scales_of(rows));
}

Tensor from_cache_rows(const Tensor& rows, int64_t head_dim, torch::Dtype dtype) {
  if (rows.scalar_type() != torch::kInt8) return rows.to(dtype);
  auto sizes = rows.sizes().vec();
  sizes.back() = head_dim;
  const Tensor heads = torch::empty(sizes, rows.options().dtype(dtype));
  copy_from_cache_rows(heads, rows);
  return heads;
}

}  // namespace tandem
