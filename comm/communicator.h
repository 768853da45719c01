#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace tandem {

enum class Reduction { kSum, kMax, kMin };

/// A collective under way. wait() orders the current stream (GPU) or blocks (CPU) until its result may be read.
class Work {
 public:
  virtual ~Work() = default;
  virtual void wait() = 0;
};

/// Collectives in one group of ranks. Every rank of the group calls the same operations in the same order. Empty tensors are refused.
class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int64_t rank() const = 0;
  virtual int64_t size() const = 0;
  virtual const std::string& name() const = 0;  ///< "data", "tensor", ... for messages

  virtual std::unique_ptr<Work> all_reduce(at::Tensor& tensor, Reduction reduction) = 0;                        ///< in place
  virtual std::unique_ptr<Work> reduce_scatter(at::Tensor& out, const at::Tensor& in, Reduction reduction) = 0;  ///< in: size() * out
  virtual std::unique_ptr<Work> all_gather(at::Tensor& out, const at::Tensor& in) = 0;                           ///< out: size() * in
  virtual std::unique_ptr<Work> broadcast(at::Tensor& tensor, int64_t root) = 0;                                 ///< in place
  virtual std::unique_ptr<Work> all_to_all(at::Tensor& out, const at::Tensor& in) = 0;                           ///< equal parts of dim 0
  virtual std::unique_ptr<Work> shift(at::Tensor& out, const at::Tensor& in) = 0;                                ///< from rank - 1 to rank + 1; rank 0 gets zeros
  virtual void barrier() = 0;
};

/// The group of one rank: results are the inputs.
std::unique_ptr<Communicator> make_single_communicator(std::string name);

}  // namespace tandem
