#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "comm/communicator.h"
#include "nn/parameter.h"

namespace tandem {

/// Which parameters share a bucket, and of what size their local parts are.
struct BucketMembers {
  std::vector<size_t> members;               // indices of parameters_info(), ascending
  std::vector<int64_t> sizes;
  const torch::nn::Module* layer = nullptr;  // whose parameters they are, where buckets go by layers
};
/// Buckets in the order in which their gradients travel, that of a backward pass. `by_layer`: one for each RunUnit of `model` and one for the rest; else of about `bucket_elements` each.
std::vector<BucketMembers> make_buckets(const torch::nn::Module& model, bool by_layer, int64_t bucket_elements);

/// Parameters that travel together, laid end to end and filled up to a multiple of the ranks that share them.
class FlatBucket {
 public:
  /// `ranks`, `rank`: of the group that shares the bucket.
  FlatBucket(BucketMembers members, int64_t ranks, int64_t rank);

  int64_t numel() const { return numel_; }           ///< with the filling
  int64_t own_begin() const { return rank_ * numel_ / ranks_; }
  int64_t own_numel() const { return numel_ / ranks_; }
  /// Where member i begins.
  int64_t offset(size_t i) const { return offsets_[i]; }
  int64_t size(size_t i) const { return sizes_[i]; }
  /// This rank's part of a whole flat tensor, as a view.
  Tensor own(const Tensor& whole) const { return whole.narrow(0, own_begin(), own_numel()); }
  Tensor of_member(const Tensor& whole, size_t i) const { return whole.narrow(0, offsets_[i], sizes_[i]); }

  const std::vector<size_t> members;  // indices of parameters
  // Weights in the modules' dtype: members are views of `weights`. Undefined where every rank holds its parameters alone.
  Tensor weights, own_weights;
  bool freed = false;         // `weights` has no storage at the moment
  bool sharded = false;       // and has it only while its layer runs
  Tensor master;              // [own_numel], undefined where masters are the parameters
  Tensor gradient;            // [numel] main gradients of this backward pass or, where they are kept whole, of the step
  Tensor own_gradient;        // [own_numel] of the step
  size_t arrived = 0;         // members whose gradient came in this backward pass
  Tensor travelling, received;  // buffers of a reduction under way
  std::unique_ptr<Work> reduction, gathering;
  bool in_order = false;      // its reduction has begun in this backward pass
  FlatBucket* next_forward = nullptr;   // what was gathered after this one the last time, in the forward pass
  FlatBucket* next_backward = nullptr;  // and in the backward pass

 private:
  std::vector<int64_t> sizes_, offsets_;
  int64_t ranks_, rank_, numel_ = 0;
};

/// Frees the storage of `tensor`, which stays what it is; and gives it new storage of its size, uninitialised. Views of it, and what autograd keeps of them, follow.
void free_storage(const Tensor& tensor);
void allocate_storage(const Tensor& tensor);

}  // namespace tandem
