#pragma once
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "comm/mesh.h"
#include "nn/parameter.h"
#include "train/flat_bucket.h"

// How the ranks of mesh.gradient share weights, gradients and optimizer (Rajbhandari et al. 2020, "ZeRO"). Parameters lie end to end in flat buckets. With S ranks in
// mesh.shard and R in mesh.replica, each rank owns one S-th of every bucket and updates it alone, and R ranks own the same:
//
//   shard       weights     main gradients   masters and moments   traffic of a step, of n elements (b bytes in reduce_dtype, w in the module's dtype), over M micro-batches
//   none        whole       whole            whole                 all_reduce n b
//   optimizer   whole       whole            1/S                   reduce_scatter n b, all_gather n w
//   gradients   whole       1/S              1/S                   reduce_scatter M n b, all_gather n w
//   parameters  1/S *       1/S              1/S                   reduce_scatter M n b, all_gather 2 M n w *
//
// and where R > 1, for each of the last three, all_reduce of n/S b over mesh.replica. With `none`, S is 1 and R all ranks. (*) of the layers, which are gathered before they run and freed after it, in
// the forward pass and again in the backward pass; what belongs to no layer (tables, head, last norms) stays whole as with `gradients`.

namespace tandem {

enum class ShardLevel { kNone, kOptimizer, kGradients, kParameters };
ShardLevel shard_level(const std::string& name);  ///< of parallelism.shard

struct ShardingOptions {
  ShardLevel level = ShardLevel::kNone;
  torch::Dtype dtype = torch::kFloat32;         // of the modules
  torch::Dtype master_dtype = torch::kFloat32;  // of masters and main gradients; float64 in tests
  torch::Dtype reduce_dtype = torch::kFloat32;  // gradients travel as; kBFloat16 halves the bytes
  int64_t bucket_elements = (int64_t{25} << 20) / 4;
  bool overlap = true;  // gradients begin to travel as soon as a bucket of them is complete
};

/// Gives the initial or loaded values of a parameter's local part, any floating type and device.
using WeightsOf = std::function<Tensor(const ParameterInfo&)>;
/// What the model's parameters hold already.
WeightsOf weights_in(torch::nn::Module& model);

/// A part of a parameter that this rank's optimizer updates: elements [begin, end) of its flattened local part.
struct OwnedPart {
  size_t parameter = 0;  // index in parameters()
  int64_t begin = 0, end = 0;
  Tensor master, gradient;  // [end - begin], or the local part's shape where it is all of it; views
};

class Sharding {
 public:
  /// Gives every parameter of `model`, on meta or not, its storage on `device` out of `weights_of`, one bucket after another, and hooks that add each gradient to the main gradients and
  /// free it. `mesh` outlives it; mesh.shape.replicate is what the level asks for (see shape_for).
  Sharding(torch::nn::Module& model, Mesh& mesh, const ShardingOptions& options, torch::Device device, const WeightsOf& weights_of);
  ~Sharding();
  Sharding(const Sharding&) = delete;

  /// Forgets the main gradients. A step is this, then for each micro-batch begin_backward, forward and backward, end_backward, then finish_gradients.
  void zero_gradients();
  /// `last`: of the step. Where all of a step's gradients are kept (none, optimizer) they travel during the last backward pass only.
  void begin_backward(bool last);
  void end_backward();
  /// After it the gradients of parts() are summed over mesh.gradient.
  void finish_gradients();
  /// Rounds the masters into the modules and brings updated weights to all who hold them.
  void publish_weights();

  const std::vector<ParameterInfo>& parameters() const { return info_; }
  /// In the order of parameters().
  const std::vector<OwnedPart>& parts() const { return parts_; }
  /// This rank speaks for its parts where several ranks own the same: in checkpoints and sums over all ranks. Whole parameters beside divided ones are the first tensor rank's.
  bool speaks_for(const OwnedPart& part) const;
  /// Main gradients of whole buckets, for sums in another order than the groups' (elastic); level kNone only.
  Tensors& whole_gradients() { return whole_gradients_; }

  /// Where a layer's weights are sharded: the bucket of `layer`, or nullptr.
  FlatBucket* bucket_of(const torch::nn::Module& layer);
  enum class Pass { kForward, kBackward };
  void gather(FlatBucket& bucket, Pass pass);  ///< its weights are there when this returns; begins to gather what came next the last time
  void release(FlatBucket& bucket);  ///< frees them

  Mesh& mesh() { return mesh_; }
  torch::Device device() const { return device_; }
  ShardLevel level() const { return options_.level; }
  /// Seconds the host waited for gradients after the backward pass, and for weights, since reset.
  struct Waited { double gradients = 0, weights = 0; } waited;
  /// Bytes of storage held now: weights, main gradients, masters that are not weights.
  struct Held { int64_t weights = 0, gradients = 0, masters = 0; };
  Held held() const;

 private:
  struct AddToMainGradient;
  void fill(FlatBucket& bucket, const WeightsOf& weights_of);
  void collect_parts();
  void accumulate(size_t parameter);
  void advance();
  void begin_reduction(FlatBucket& bucket);
  void finish_reduction(FlatBucket& bucket);
  void start_gather(FlatBucket& bucket);
  bool keeps_whole_gradients() const { return mesh_.shard->size() == 1 || options_.level <= ShardLevel::kOptimizer; }
  bool shares_masters() const { return options_.dtype == options_.master_dtype; }

  Mesh& mesh_;
  ShardingOptions options_;
  torch::Device device_;
  std::vector<ParameterInfo> info_;
  Tensors parameters_;
  std::vector<std::unique_ptr<FlatBucket>> buckets_;  // in the order in which their gradients travel
  std::vector<size_t> bucket_index_;                  // of each parameter
  std::map<const torch::nn::Module*, FlatBucket*> layer_buckets_;
  std::vector<OwnedPart> parts_;
  Tensors whole_gradients_;
  bool travelling_ = false;  // gradients of this backward pass travel
  size_t next_ = 0;          // bucket to travel next: the same order on all ranks, whatever gradients come when
  size_t waiting_ = 0;       // first bucket that travels and was not waited for
  FlatBucket** last_link_ = nullptr;  // where to note what is gathered next
};

/// The mesh that `parallelism` asks for with so many ranks. Throws UserError (exit code 2) where it does not work out.
MeshShape mesh_shape(ShardLevel level, int64_t world, int64_t tensor, int64_t sequence, int64_t replicate);

}  // namespace tandem
