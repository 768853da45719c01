#include "comm/process_group.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/core/ScalarType.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <map>
#include <stdexcept>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <utility>
#include <vector>

#include "comm/gather_ranks.h"

namespace tandem {
namespace {

using C10Work = c10::intrusive_ptr<c10d::Work>;

std::chrono::milliseconds milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000));
}

c10d::ReduceOp op_of(Reduction reduction) {
  switch (reduction) {
    case Reduction::kMax:
      return c10d::ReduceOp::MAX;
    case Reduction::kMin:
      return c10d::ReduceOp::MIN;
    case Reduction::kSum:
      break;
  }
  return c10d::ReduceOp::SUM;
}

const char* name_of(Reduction reduction) {
  return reduction == Reduction::kSum ? "sum" : reduction == Reduction::kMax ? "max" : "min";
}

std::string name_of(at::ScalarType dtype) { return c10::getDtypeNames(dtype).first; }

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

/// Calls `act`. A connection that failed or timed out becomes PeerLost, with the first line of it
/// behind what was done: c10d throws DistError, Gloo std::runtime_error. All else is this rank's
/// own fault (a type that has no sum, no memory left) and stays what it is.
template <typename Act>
void guarded(const std::string& what, const Act& act) {
  try {
    act();
  } catch (const UserError&) {
    throw;
  } catch (const c10::DistError& error) {
    throw PeerLost(what + ": " + first_line(error.what_without_backtrace()));
  } catch (const std::runtime_error& error) {
    throw PeerLost(what + ": " + first_line(error.what()));
  }
}

/// Holds what c10d needs while an operation is under way.
class GroupWork final : public Work {
 public:
  /// `limit`: of each wait; zero: the one that the operation was started with.
  GroupWork(std::string what, std::vector<C10Work> works, std::vector<at::Tensor> tensors,
            std::chrono::milliseconds limit = {})
      : what_(std::move(what)),
        works_(std::move(works)),
        tensors_(std::move(tensors)),
        limit_(limit) {}
  void wait() override {
    guarded(what_, [this] {
      for (const auto& work : works_) work->wait(limit_);
    });
    works_.clear();
    tensors_.clear();
  }

 private:
  std::string what_;
  std::vector<C10Work> works_;
  std::vector<at::Tensor> tensors_;
  std::chrono::milliseconds limit_;
};

/// What a rank is about to do, as numbers that others can compare. Hosts are told apart by name.
struct Signature {
  static constexpr size_t kWords = 6, kHost = 64;
  std::array<int64_t, kWords> words{};  // sequence, operation, dtype, elements, root, reduction
  std::array<char, kHost> host{};
};

class ProcessGroup final : public Communicator {
 public:
  ProcessGroup(GroupSpec spec, BackendPointer backend, BackendPointer host)
      : spec_(std::move(spec)), backend_(std::move(backend)), host_(std::move(host)) {}
  /// After an error: NCCL would wait for the operations that others never come to.
  ~ProcessGroup() override {
    try {
      if (!is_shut_down_) backend_->abort();
    } catch (const std::exception&) {  // gone with the device, which whoever used it reports
    }
  }
  void shut_down() {
    guarded(spec_.name, [this] { backend_->shutdown(); });
    is_shut_down_ = true;
  }
  int64_t rank() const override { return spec_.rank; }
  int64_t size() const override { return spec_.size; }
  const std::string& name() const override { return spec_.name; }

  std::unique_ptr<Work> all_reduce(at::Tensor& tensor, Reduction reduction) override {
    begin(kAllReduce, tensor, 2 * (n() - 1) / n(), -1, reduction);
    std::vector<at::Tensor> tensors = {tensor};
    c10d::AllreduceOptions options;
    options.reduceOp = op_of(reduction);
    options.timeout = limit();
    return started({tensor}, [&] { return backend_->allreduce(tensors, options); });
  }

  std::unique_ptr<Work> reduce_scatter(at::Tensor& out, const at::Tensor& in,
                                       Reduction reduction) override {
    check_out(kReduceScatter, out, in, in.numel(), size() * out.numel());
    begin(kReduceScatter, in, (n() - 1) / n(), -1, reduction);
    at::Tensor from = in.view({-1}), to = out.view({-1});
    c10d::ReduceScatterOptions options;
    options.reduceOp = op_of(reduction);
    options.timeout = limit();
    return started({from, to}, [&] { return backend_->_reduce_scatter_base(to, from, options); });
  }

  std::unique_ptr<Work> all_gather(at::Tensor& out, const at::Tensor& in) override {
    check_out(kAllGather, out, in, out.numel(), size() * in.numel());
    begin(kAllGather, in, n() - 1);
    at::Tensor to = out.view({-1});
    // A part of `out` at its own place is read while `out` is written.
    at::Tensor from = in.is_alias_of(out) ? in.view({-1}).clone() : in.view({-1});
    c10d::AllgatherOptions options;
    options.timeout = limit();
    return started({from, to}, [&] { return backend_->_allgather_base(to, from, options); });
  }

  std::unique_ptr<Work> broadcast(at::Tensor& tensor, int64_t root) override {
    check_root(kBroadcast, root);
    begin(kBroadcast, tensor, rank() == root ? 1 : 0, root);
    std::vector<at::Tensor> tensors = {tensor};
    c10d::BroadcastOptions options;
    options.rootRank = root;
    options.timeout = limit();
    return started({tensor}, [&] { return backend_->broadcast(tensors, options); });
  }

  std::unique_ptr<Work> all_to_all(at::Tensor& out, const at::Tensor& in) override {
    check_out(kAllToAll, out, in, out.numel(), in.numel());
    TORCH_CHECK(in.numel() % size() == 0, spec_.name, ": all_to_all of ", in.numel(),
                " elements among ", size());
    begin(kAllToAll, in, (n() - 1) / n());
    at::Tensor from = in.view({size(), -1}), to = out.view({size(), -1});
    std::vector<int64_t> even;
    c10d::AllToAllOptions options;
    options.timeout = limit();
    return started({from, to},
                   [&] { return backend_->alltoall_base(to, from, even, even, options); });
  }

  std::unique_ptr<Work> gather(at::Tensor& out, const at::Tensor& in, int64_t root) override {
    check_root(kGather, root);
    if (rank() == root) check_out(kGather, out, in, out.numel(), size() * in.numel());
    begin(kGather, in, rank() == root ? 0 : 1, root);
    std::vector<at::Tensor> from = {in.view({-1})};
    std::vector<std::vector<at::Tensor>> to;
    if (rank() == root) to.push_back(out.view({size(), -1}).unbind());
    c10d::GatherOptions options;
    options.rootRank = root;
    options.timeout = limit();
    return started({in, rank() == root ? out : in},
                   [&] { return backend_->gather(to, from, options); });
  }

  std::unique_ptr<Work> shift(at::Tensor& out, const at::Tensor& in) override {
    check_out(kShift, out, in, out.numel(), in.numel());
    begin(kShift, in, rank() + 1 < size() ? 1 : 0);
    return exchange(out, in, rank() + 1, rank() - 1);
  }
  std::unique_ptr<Work> shift_back(at::Tensor& out, const at::Tensor& in) override {
    check_out(kShiftBack, out, in, out.numel(), in.numel());
    begin(kShiftBack, in, rank() > 0 ? 1 : 0);
    return exchange(out, in, rank() - 1, rank() + 1);
  }

  void barrier() override {
    at::Tensor token = at::zeros({1}, at::TensorOptions(at::kFloat).device(spec_.device));
    begin(kBarrier, token, 0);
    std::vector<at::Tensor> tensors = {token};
    c10d::AllreduceOptions options;
    options.timeout = limit();
    started(tensors, [&] { return backend_->allreduce(tensors, options); })->wait();
    guarded(what_, [&] { token.item(); });  // blocks the host where wait() only orders streams
  }
  void set_time_limit(double seconds) override {
    spec_.limit_seconds = seconds;
    backend_->setTimeout(limit());
    if (host_ && host_ != backend_) host_->setTimeout(limit());
  }

 private:
  enum Operation {
    kAllReduce,
    kReduceScatter,
    kAllGather,
    kBroadcast,
    kAllToAll,
    kGather,
    kShift,
    kShiftBack,
    kBarrier
  };
  static constexpr std::array kNames = {"all_reduce", "reduce_scatter", "all_gather",
                                        "broadcast",  "all_to_all",     "gather",
                                        "shift",      "shift_back",     "barrier"};

  double n() const { return static_cast<double>(size()); }
  std::chrono::milliseconds limit() const { return milliseconds(spec_.limit_seconds); }
  /// Gloo ends the process over some of what these let nobody ask for.
  void check_tensor(Operation operation, const at::Tensor& tensor) const {
    TORCH_CHECK(tensor.defined() && tensor.numel() > 0, spec_.name, ": ", kNames[operation],
                " of an empty tensor");
    TORCH_CHECK(tensor.is_contiguous(), spec_.name, ": ", kNames[operation],
                " of a tensor that is not contiguous");
    TORCH_CHECK(tensor.device() == spec_.device, spec_.name, ": ", kNames[operation],
                " of a tensor on ", tensor.device(), " in a group on ", spec_.device);
  }
  void check_out(Operation operation, const at::Tensor& out, const at::Tensor& in, int64_t found,
                 int64_t expected) const {
    check_tensor(operation, in);
    check_tensor(operation, out);
    TORCH_CHECK(out.scalar_type() == in.scalar_type(), spec_.name, ": ", kNames[operation], " of ",
                name_of(in.scalar_type()), " into ", name_of(out.scalar_type()));
    TORCH_CHECK(found == expected, spec_.name, ": ", kNames[operation], " of ", in.numel(),
                " elements into ", out.numel(), " among ", size(), " ranks");
  }
  void check_root(Operation operation, int64_t root) const {
    TORCH_CHECK(root >= 0 && root < size(), spec_.name, ": ", kNames[operation], " with root ",
                root, " in a group of ", size());
  }

  /// Counts the operation and, in checked mode, compares it with the others'.
  void begin(Operation operation, const at::Tensor& tensor, double share, int64_t root = -1,
             Reduction reduction = Reduction::kSum) {
    check_tensor(operation, tensor);
    ++sequence_;
    what_ = fmt::format("{}.{} number {} on rank {} of {} ({})", spec_.name, kNames[operation],
                        sequence_, rank(), size(), host_name_);
    if (spec_.traffic && operation != kBarrier)
      spec_.traffic->add(spec_.name + "." + kNames[operation],
                         share * static_cast<double>(tensor.nbytes()));
    if (!spec_.checked) return;
    Signature mine;
    mine.words = {sequence_,      operation, static_cast<int64_t>(tensor.scalar_type()),
                  tensor.numel(), root,      static_cast<int64_t>(reduction)};
    std::copy_n(host_name_.begin(), std::min(host_name_.size(), Signature::kHost - 1),
                mine.host.begin());
    compare(mine);
  }

  static std::string text_of(const std::array<int64_t, Signature::kWords>& words) {
    if (words[1] == kBarrier) return fmt::format("barrier as its operation {}", words[0]);
    std::string text = fmt::format("{} of {} {}", kNames.at(static_cast<size_t>(words[1])),
                                   words[3], name_of(static_cast<at::ScalarType>(words[2])));
    if (words[4] >= 0) text += fmt::format(", root {}", words[4]);
    if (words[1] <= kReduceScatter)
      text += fmt::format(" ({})", name_of(static_cast<Reduction>(words[5])));
    return text + fmt::format(" as its operation {}", words[0]);
  }

  void compare(const Signature& mine) const {
    const int64_t bytes = sizeof(Signature);
    at::Tensor sent = at::empty({bytes}, at::kByte),
               received = at::empty({size() * bytes}, at::kByte);
    std::copy_n(reinterpret_cast<const uint8_t*>(&mine), bytes, sent.mutable_data_ptr<uint8_t>());
    c10d::AllgatherOptions options;
    options.timeout = limit();
    guarded(what_, [&] { host_->_allgather_base(received, sent, options)->wait(); });
    std::map<std::array<int64_t, Signature::kWords>, std::vector<std::string>> calls;
    for (int64_t r = 0; r < size(); ++r) {
      Signature theirs;
      std::copy_n(received.const_data_ptr<uint8_t>() + r * bytes, bytes,
                  reinterpret_cast<uint8_t*>(&theirs));
      theirs.host.back() = 0;
      calls[theirs.words].push_back(fmt::format("rank {} ({})", r, theirs.host.data()));
    }
    if (calls.size() == 1) return;
    std::vector<std::string> texts;  // the fewest first: they are the odd ones
    std::vector<std::pair<std::array<int64_t, Signature::kWords>, std::vector<std::string>>> sorted(
        calls.begin(), calls.end());
    std::stable_sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) {
      return a.second.size() < b.second.size();
    });
    for (const auto& [words, ranks] : sorted)
      texts.push_back(fmt::format("{} {} {}", fmt::join(ranks, ", "),
                                  ranks.size() == 1 ? "calls" : "call", text_of(words)));
    throw PeerLost(fmt::format("{}: ranks disagree: {}", spec_.name, fmt::join(texts, "; ")));
  }

  template <typename Start>
  std::unique_ptr<Work> started(std::vector<at::Tensor> held, const Start& start) {
    C10Work work;
    guarded(what_, [&] { work = start(); });
    return std::make_unique<GroupWork>(what_, std::vector<C10Work>{std::move(work)},
                                       std::move(held));
  }

  /// Sends `in` to one neighbour while `out` comes from the other; zeros where there is none.
  std::unique_ptr<Work> exchange(at::Tensor& out, const at::Tensor& in, int64_t to, int64_t from) {
    std::vector<at::Tensor> sent = {in.view({-1})}, received = {out.view({-1})};
    std::vector<C10Work> works;
    const int tag = static_cast<int>(sequence_ % 1'000'000);
    guarded(what_, [&] {
      const auto receive = [&] {
        if (from >= 0 && from < size())
          works.push_back(backend_->recv(received, static_cast<int>(from), tag));
      };
      const auto send = [&] {
        if (to >= 0 && to < size())
          works.push_back(backend_->send(sent, static_cast<int>(to), tag));
      };
      // NCCL's run one after the other, so neighbours must not both send first.
      if (rank() % 2 == 0) {
        send();
        receive();
      } else {
        receive();
        send();
      }
    });
    if (from < 0 || from >= size()) out.zero_();
    // Sends and receives take no limit when they start. NCCL's have the group's, and a limit here
    // would block the host; Gloo's have what the connections were made with, so it is given here.
    return std::make_unique<GroupWork>(
        what_, std::move(works), std::vector<at::Tensor>{sent[0], received[0]},
        spec_.device.is_cpu() ? limit() : std::chrono::milliseconds(0));
  }

  GroupSpec spec_;
  BackendPointer backend_, host_;
  bool is_shut_down_ = false;
  int64_t sequence_ = 0;
  std::string host_name_ = host_name(), what_;
};

}  // namespace

std::unique_ptr<Communicator> make_group(GroupSpec spec, BackendPointer backend,
                                         BackendPointer host) {
  return std::make_unique<ProcessGroup>(std::move(spec), std::move(backend), std::move(host));
}

void shut_down(Communicator& group) {
  if (auto* connected = dynamic_cast<ProcessGroup*>(&group)) connected->shut_down();
}

}  // namespace tandem
