#include "train/flat_bucket.h"

#include <algorithm>
#include <utility>

#include "nn/run_unit.h"

namespace tandem {
namespace {

constexpr int64_t kAlignment = 32;  // elements: each rank's part begins where vector loads like it

}  // namespace

std::vector<BucketMembers> make_buckets(const torch::nn::Module& model, bool by_layer,
                                        int64_t bucket_elements) {
  const auto info = parameters_info(model);
  std::vector<BucketMembers> buckets;
  std::vector<bool> taken(info.size());
  const auto add = [&](BucketMembers& bucket, size_t i) {
    bucket.members.push_back(i);
    bucket.sizes.push_back(c10::multiply_integers(info[i].local_shape()));
    taken[i] = true;
  };
  if (by_layer) {
    for (const auto& item : model.named_modules()) {
      if (!dynamic_cast<const RunUnit*>(item.value().get())) continue;
      BucketMembers bucket{{}, {}, item.value().get()};
      for (size_t i = 0; i < info.size(); ++i) {
        if (!info[i].name.starts_with(item.key() + ".")) continue;
        TORCH_CHECK(!taken[i], item.key(), " is a layer within a layer");
        add(bucket, i);
      }
      if (!bucket.members.empty()) buckets.push_back(std::move(bucket));
    }
    std::reverse(buckets.begin(), buckets.end());
  }
  int64_t elements = bucket_elements;  // of the bucket that is being filled
  for (size_t i = info.size(); i-- > 0;) {
    if (taken[i]) continue;
    if (elements >= bucket_elements) {
      buckets.emplace_back();
      elements = 0;
    }
    add(buckets.back(), i);
    if (!by_layer) elements += buckets.back().sizes.back();
  }
  for (auto& bucket : buckets) {
    if (bucket.layer) continue;
    std::reverse(bucket.members.begin(), bucket.members.end());
    std::reverse(bucket.sizes.begin(), bucket.sizes.end());
  }
  return buckets;
}

FlatBucket::FlatBucket(BucketMembers given, int64_t ranks, int64_t rank)
    : members(std::move(given.members)),
      sizes_(std::move(given.sizes)),
      ranks_(ranks),
      rank_(rank) {
  for (const int64_t size : sizes_) {
    offsets_.push_back(numel_);
    numel_ += size;
  }
  const int64_t multiple = ranks == 1 ? 1 : ranks * kAlignment;
  numel_ = (numel_ + multiple - 1) / multiple * multiple;
}

// In place of resize_bytes_cpu and resize_bytes_cuda: the latter is in no library of a build
// without CUDA.
void free_storage(const Tensor& tensor) {
  auto* storage = tensor.storage().unsafeGetStorageImpl();
  storage->set_data_ptr_noswap(c10::DataPtr(nullptr, tensor.device()));
  storage->set_nbytes(0);
}

void allocate_storage(const Tensor& tensor) {
  auto* storage = tensor.storage().unsafeGetStorageImpl();
  const auto bytes =
      static_cast<size_t>(tensor.storage_offset() + tensor.numel()) * tensor.element_size();
  storage->set_data_ptr_noswap(storage->allocator()->allocate(bytes));
  storage->set_nbytes(bytes);
}

}  // namespace tandem
