#include "train/sharding.h"

#include <ATen/ops/_foreach_copy.h>
#include <ATen/ops/_foreach_zero.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <chrono>
#include <set>

#include "core/error.h"
#include "nn/run_unit.h"

namespace tandem {
namespace {

constexpr size_t kTravellingAtOnce = 2;  // reductions of gradients that are not kept whole

/// Adds the seconds of its life to `sum`.
class Stopwatch {
 public:
  explicit Stopwatch(double& sum) : sum_(sum) {}
  ~Stopwatch() {
    sum_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  }
  Stopwatch(const Stopwatch&) = delete;

 private:
  double& sum_;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

}  // namespace

ShardLevel shard_level(const std::string& name) {
  if (name == "optimizer") return ShardLevel::kOptimizer;
  if (name == "gradients") return ShardLevel::kGradients;
  return name == "parameters" ? ShardLevel::kParameters : ShardLevel::kNone;
}

WeightsOf weights_in(torch::nn::Module& model) {
  return [parameters = model.named_parameters()](const ParameterInfo& info) {
    return parameters[info.name].detach();
  };
}

/// Adds each gradient to the main gradient as soon as the backward pass has it, and frees it.
struct Sharding::AddToMainGradient : torch::autograd::PostAccumulateGradHook {
  AddToMainGradient(Sharding& owner, size_t index) : sharding(owner), parameter(index) {}
  void operator()(const torch::autograd::Variable&) override { sharding.accumulate(parameter); }
  Sharding& sharding;
  size_t parameter;
};

Sharding::Sharding(torch::nn::Module& model, Mesh& mesh, const ShardingOptions& options,
                   torch::Device device, const WeightsOf& weights_of)
    : mesh_(mesh),
      options_(options),
      device_(device),
      info_(parameters_info(model)),
      parameters_(model.parameters()),
      bucket_index_(info_.size()) {
  TORCH_CHECK(!parameters_.empty() && parameters_.size() == info_.size(),
              "Sharding: ", parameters_.size(), " parameters, ", info_.size(), " described");
  const bool by_layer = options_.level == ShardLevel::kParameters && mesh_.shard->size() > 1;
  for (auto& members : make_buckets(model, by_layer, options_.bucket_elements)) {
    for (const size_t i : members.members) bucket_index_[i] = buckets_.size();
    const torch::nn::Module* layer = members.layer;
    buckets_.push_back(
        std::make_unique<FlatBucket>(std::move(members), mesh_.shard->size(), mesh_.shard->rank()));
    if (!layer) continue;
    buckets_.back()->sharded = true;
    layer_buckets_[layer] = buckets_.back().get();
  }
  for (const auto& bucket : buckets_) fill(*bucket, weights_of);
  collect_parts();
  for (size_t i = 0; i < parameters_.size(); ++i) {
    torch::autograd::impl::set_post_acc_grad_hooks(parameters_[i],
                                                   std::make_unique<AddToMainGradient>(*this, i));
  }
}

Sharding::~Sharding() {
  for (const auto& bucket : buckets_) {
    // Nobody writes into memory that is about to go; where a peer is lost there is nothing to wait
    // for.
    try {
      if (bucket->reduction) bucket->reduction->wait();
      if (bucket->gathering) bucket->gathering->wait();
    } catch (const std::exception&) {
    }
  }
}

void Sharding::fill(FlatBucket& bucket, const WeightsOf& weights_of) {
  const torch::NoGradGuard no_grad;
  const auto modules = torch::TensorOptions().device(device_).dtype(options_.dtype),
             masters = modules.dtype(options_.master_dtype);
  const bool shared = mesh_.shard->size() > 1;
  if (shared) {
    bucket.weights = torch::zeros({bucket.numel()}, modules);
    bucket.own_weights = bucket.own(bucket.weights);
  }
  if (!shares_masters()) bucket.master = torch::zeros({bucket.own_numel()}, masters);
  for (size_t k = 0; k < bucket.members.size(); ++k) {
    const size_t i = bucket.members[k];
    Tensor& parameter = parameters_[i];
    const Tensor values = weights_of(info_[i]);
    TORCH_CHECK(values.is_floating_point() && values.sizes() == info_[i].local_shape(),
                "Sharding: ", info_[i].name, " is ", values.toString(), " ", values.sizes(),
                ", expected a floating type and ", info_[i].local_shape());
    if (!shares_masters()) {
      // What of this member lies in this rank's part.
      const int64_t from = std::max(bucket.offset(k), bucket.own_begin()),
                    to = std::min(bucket.offset(k) + bucket.size(k),
                                  bucket.own_begin() + bucket.own_numel());
      if (from < to)
        bucket.master.slice(0, from - bucket.own_begin(), to - bucket.own_begin())
            .copy_(values.reshape({-1}).slice(0, from - bucket.offset(k), to - bucket.offset(k)));
    }
    if (shared) {
      const Tensor view = bucket.of_member(bucket.weights, k).view(info_[i].local_shape());
      view.copy_(values);
      materialise(parameter, view);
    } else if (parameter.is_meta() || parameter.device() != device_ ||
               parameter.scalar_type() != options_.dtype) {
      materialise(parameter, values.to(modules).contiguous());
    } else if (!values.is_same(parameter) && values.data_ptr() != parameter.data_ptr()) {
      parameter.copy_(values);
    }
  }
  if (bucket.sharded) {
    bucket.own_weights = bucket.own_weights.clone();
    release(bucket);
  }
  if (shared && shares_masters()) bucket.master = bucket.own_weights;
  if (keeps_whole_gradients()) {
    bucket.gradient = torch::zeros({bucket.numel()}, masters);
    bucket.own_gradient = bucket.own(bucket.gradient);
    whole_gradients_.push_back(bucket.gradient);
  } else {
    bucket.own_gradient = torch::zeros({bucket.own_numel()}, masters);
  }
}

void Sharding::collect_parts() {
  for (const auto& bucket : buckets_) {
    const int64_t own_begin = bucket->own_begin(), own_end = own_begin + bucket->own_numel();
    for (size_t k = 0; k < bucket->members.size(); ++k) {
      const int64_t offset = bucket->offset(k);
      const int64_t from = std::max(offset, own_begin),
                    to = std::min(offset + bucket->size(k), own_end);
      if (from >= to) continue;
      OwnedPart part{bucket->members[k], from - offset, to - offset, {}, {}};
      part.master = bucket->master.defined()
                        ? bucket->master.slice(0, from - own_begin, to - own_begin)
                        : parameters_[part.parameter].detach().view({-1});
      part.gradient = bucket->own_gradient.slice(0, from - own_begin, to - own_begin);
      if (to - from == bucket->size(k)) {  // all of it, in its own shape
        const auto shape = info_[part.parameter].local_shape();
        part.master = part.master.view(shape);
        part.gradient = part.gradient.view(shape);
      }
      parts_.push_back(std::move(part));
    }
  }
  std::sort(parts_.begin(), parts_.end(),
            [](const OwnedPart& a, const OwnedPart& b) { return a.parameter < b.parameter; });
}

bool Sharding::speaks_for(const OwnedPart& part) const {
  return mesh_.replica->rank() == 0 &&
         (info_[part.parameter].divided() || mesh_.tensor->rank() == 0);
}

void Sharding::zero_gradients() {
  Tensors gradients;
  for (const auto& bucket : buckets_)
    gradients.push_back(bucket->gradient.defined() ? bucket->gradient : bucket->own_gradient);
  at::_foreach_zero_(gradients);
}

void Sharding::begin_backward(bool last) {
  travelling_ = mesh_.gradient->size() > 1 && (last || !keeps_whole_gradients());
  next_ = waiting_ = 0;
  for (const auto& bucket : buckets_) {
    bucket->arrived = 0;
    bucket->in_order = false;
  }
}

/// The gradient of a parameter is there.
void Sharding::accumulate(size_t parameter) {
  FlatBucket& bucket = *buckets_[bucket_index_[parameter]];
  TORCH_CHECK(!bucket.in_order, "a second gradient of ", info_[parameter].name,
              " came in one backward pass, after the first had been sent");
  if (!bucket.gradient.defined())
    bucket.gradient = torch::zeros({bucket.numel()}, bucket.own_gradient.options());
  const auto member = static_cast<size_t>(
      std::lower_bound(bucket.members.begin(), bucket.members.end(), parameter) -
      bucket.members.begin());
  Tensor& gradient = parameters_[parameter].mutable_grad();
  bucket.of_member(bucket.gradient, member).add_(gradient.reshape({-1}));
  gradient.reset();
  if (++bucket.arrived == bucket.members.size() && travelling_ && options_.overlap) advance();
}

/// Sends what is complete, in the order of buckets: all ranks call the same collectives whatever
/// came first.
void Sharding::advance() {
  for (; next_ < buckets_.size(); ++next_) {
    FlatBucket& bucket = *buckets_[next_];
    if (bucket.arrived < bucket.members.size()) return;
    begin_reduction(bucket);
  }
}

void Sharding::begin_reduction(FlatBucket& bucket) {
  bucket.in_order = true;
  if (!bucket.gradient.defined())
    bucket.gradient = torch::zeros({bucket.numel()}, bucket.own_gradient.options());
  bucket.travelling = bucket.gradient.to(
      options_.reduce_dtype == torch::kBFloat16 ? torch::kBFloat16 : options_.master_dtype);
  if (mesh_.shard->size() > 1) {
    bucket.received = torch::empty({bucket.own_numel()}, bucket.travelling.options());
    bucket.reduction =
        mesh_.shard->reduce_scatter(bucket.received, bucket.travelling, Reduction::kSum);
  } else {
    bucket.reduction = mesh_.replica->all_reduce(bucket.travelling, Reduction::kSum);
  }
  if (keeps_whole_gradients()) return;
  while (waiting_ + kTravellingAtOnce <= next_) finish_reduction(*buckets_[waiting_++]);
}

void Sharding::finish_reduction(FlatBucket& bucket) {
  {
    const Stopwatch watch(waited.gradients);
    bucket.reduction->wait();
  }
  bucket.reduction.reset();
  if (mesh_.shard->size() == 1) {
    if (!bucket.travelling.is_same(bucket.gradient)) bucket.gradient.copy_(bucket.travelling);
  } else if (keeps_whole_gradients()) {
    bucket.own_gradient.copy_(bucket.received);
  } else {
    bucket.own_gradient.add_(bucket.received);
    bucket.gradient.reset();
  }
  bucket.travelling.reset();
  bucket.received.reset();
}

void Sharding::end_backward() {
  if (travelling_) {
    for (; next_ < buckets_.size(); ++next_) begin_reduction(*buckets_[next_]);
    for (; waiting_ < buckets_.size(); ++waiting_) finish_reduction(*buckets_[waiting_]);
  }
  travelling_ = false;
  // Weights of the next step are other ones.
  last_link_ = nullptr;
  for (const auto& bucket : buckets_) {
    if (bucket->gathering) bucket->gathering->wait();
    bucket->gathering.reset();
    release(*bucket);
  }
}

void Sharding::finish_gradients() {
  if (mesh_.shard->size() == 1 || mesh_.replica->size() == 1) return;
  for (const auto& bucket : buckets_) {
    bucket->travelling = bucket->own_gradient.to(
        options_.reduce_dtype == torch::kBFloat16 ? torch::kBFloat16 : options_.master_dtype);
    bucket->reduction = mesh_.replica->all_reduce(bucket->travelling, Reduction::kSum);
  }
  for (const auto& bucket : buckets_) {
    const Stopwatch watch(waited.gradients);
    bucket->reduction->wait();
    bucket->reduction.reset();
    if (!bucket->travelling.is_same(bucket->own_gradient))
      bucket->own_gradient.copy_(bucket->travelling);
    bucket->travelling.reset();
  }
}

void Sharding::publish_weights() {
  const torch::NoGradGuard no_grad;
  if (!shares_masters()) {
    Tensors rounded, exact;
    for (const auto& bucket : buckets_) {
      if (mesh_.shard->size() > 1) {
        rounded.push_back(bucket->own_weights);
        exact.push_back(bucket->master);
        continue;
      }
      for (size_t k = 0; k < bucket->members.size(); ++k) {
        const Tensor& parameter = parameters_[bucket->members[k]];
        rounded.push_back(parameter);
        exact.push_back(bucket->of_member(bucket->master, k).view_as(parameter));
      }
    }
    at::_foreach_copy_(rounded, exact);
  }
  if (mesh_.shard->size() == 1) return;
  for (const auto& bucket : buckets_) {
    if (!bucket->sharded)
      bucket->gathering = mesh_.shard->all_gather(bucket->weights, bucket->own_weights);
  }
  const Stopwatch watch(waited.weights);
  for (const auto& bucket : buckets_) {
    if (!bucket->gathering) continue;
    bucket->gathering->wait();
    bucket->gathering.reset();
  }
}

FlatBucket* Sharding::bucket_of(const torch::nn::Module& layer) {
  const auto found = layer_buckets_.find(&layer);
  return found == layer_buckets_.end() ? nullptr : found->second;
}

void Sharding::start_gather(FlatBucket& bucket) {
  allocate_storage(bucket.weights);
  bucket.freed = false;
  bucket.gathering = mesh_.shard->all_gather(bucket.weights, bucket.own_weights);
}

void Sharding::gather(FlatBucket& bucket, Pass pass) {
  if (bucket.freed) start_gather(bucket);
  if (bucket.gathering) {
    const Stopwatch watch(waited.weights);
    bucket.gathering->wait();
    bucket.gathering.reset();
  }
  if (last_link_) *last_link_ = &bucket;
  last_link_ = pass == Pass::kForward ? &bucket.next_forward : &bucket.next_backward;
  FlatBucket* next = *last_link_;
  if (next && next->freed) start_gather(*next);
}

void Sharding::release(FlatBucket& bucket) {
  if (!bucket.sharded || bucket.freed || bucket.gathering) return;
  free_storage(bucket.weights);
  bucket.freed = true;
}

Sharding::Held Sharding::held() const {
  Held held;
  std::set<const void*> counted;  // storages
  const auto add = [&](int64_t& sum, const Tensor& tensor) {
    if (!tensor.defined() || tensor.storage().nbytes() == 0) return;
    if (counted.insert(tensor.storage().data()).second) sum += tensor.storage().nbytes();
  };
  for (const auto& parameter : parameters_) add(held.weights, parameter);
  for (const auto& bucket : buckets_) {
    add(held.weights, bucket->own_weights);
    add(held.masters, bucket->master);
    add(held.gradients, bucket->gradient);
    add(held.gradients, bucket->own_gradient);
  }
  return held;
}

MeshShape mesh_shape(ShardLevel level, int64_t world, int64_t tensor, int64_t sequence,
                     int64_t replicate) {
  const std::string ranks = std::to_string(world) + (world == 1 ? " rank" : " ranks");
  if (world % (tensor * sequence) != 0)
    throw bad_usage("parallelism: tensor = " + std::to_string(tensor) +
                    " times sequence = " + std::to_string(sequence) + " does not divide " + ranks);
  MeshShape shape;
  shape.tensor = tensor;
  shape.sequence = sequence;
  shape.data = world / (tensor * sequence);
  const int64_t sharing = shape.data * sequence;
  shape.replicate = level == ShardLevel::kNone ? sharing : replicate;
  if (sharing % shape.replicate != 0)
    throw bad_usage("parallelism.replicate = " + std::to_string(replicate) +
                    " does not divide the " + std::to_string(sharing) +
                    " ranks of data and sequence (" + ranks + ")");
  return shape;
}

}  // namespace tandem
