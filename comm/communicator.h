#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/error.h"

namespace tandem {

enum class Reduction { kSum, kMax, kMin };

/// A collective under way. wait() orders the current stream (GPU) or blocks (CPU) until its result may be read.
class Work {
 public:
  virtual ~Work() = default;
  virtual void wait() = 0;
};

/// Collectives in one group of ranks. Every rank of the group calls the same operations in the same order, from one thread. Tensors are contiguous and stay
/// alive and untouched until wait() returned; empty ones are refused. Throws PeerLost where another rank is gone or does not answer within the time limit.
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
  virtual std::unique_ptr<Work> gather(at::Tensor& out, const at::Tensor& in, int64_t root) = 0;                 ///< out: size() * in on the root, undefined elsewhere
  virtual std::unique_ptr<Work> shift(at::Tensor& out, const at::Tensor& in) = 0;                                ///< from rank - 1 to rank + 1; rank 0 gets zeros
  virtual std::unique_ptr<Work> shift_back(at::Tensor& out, const at::Tensor& in) = 0;                           ///< from rank + 1 to rank; the last rank gets zeros
  virtual void barrier() = 0;
  virtual void set_time_limit(double /*seconds*/) {}                                                            ///< of every later operation
};

/// Another rank is gone: nothing of this process's groups can be used any more. The launcher starts the job again.
class PeerLost : public UserError {
 public:
  explicit PeerLost(const std::string& message) : UserError(kExitPeerLost, message) {}
};

/// Bytes that this process gave to others through groups, by the name of the group and the operation ("gradient.all_reduce"): what ring algorithms send, (n - 1) / n of the
/// buffer for reduce_scatter, all_gather and all_to_all, twice that for all_reduce, the buffer for broadcast, gather (not on the root), shift and shift_back.
class Traffic {
 public:
  void add(const std::string& key, double bytes);
  std::map<std::string, double> bytes() const;
  double total() const;
  void reset();

 private:
  mutable std::mutex mutex_;
  std::map<std::string, double> bytes_;
};

/// The group of one rank: results are the inputs.
std::unique_ptr<Communicator> make_single_communicator(std::string name);

}  // namespace tandem
