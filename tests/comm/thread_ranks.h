#pragma once
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "comm/mesh.h"

// Ranks as threads of one process, for tests of whatever runs on several ranks: no sockets, no start-up. The first rank that fails
// ends the others' waiting, and its exception is the test's.

namespace tandem {

/// Where the threads of one group meet.
class Meeting {
 public:
  explicit Meeting(int64_t size) : size_(size), slots_(static_cast<size_t>(size)) {}
  int64_t size() const { return size_; }

  /// Leaves `mine`, waits for all, calls read(everybody's), and waits until all have read.
  template <typename Read>
  void exchange(int64_t rank, const std::pair<const at::Tensor*, std::string>& mine, const Read& read) {
    slots_[static_cast<size_t>(rank)] = mine;
    arrive();
    std::exception_ptr error;
    try {
      for (const auto& slot : slots_)
        TORCH_CHECK(slot.second == mine.second, "ranks disagree: ", slot.second, " and ", mine.second);
      read(slots_);
    } catch (...) {
      error = std::current_exception();
      give_up();
    }
    if (error) std::rethrow_exception(error);
    arrive();
  }
  void arrive() {
    std::unique_lock lock(mutex_);
    if (given_up_) throw std::runtime_error("another rank failed");
    const int64_t round = round_;
    if (++here_ == size_) {
      here_ = 0;
      ++round_;
      changed_.notify_all();
      return;
    }
    changed_.wait(lock, [&] { return round_ != round || given_up_; });
    if (round_ == round) throw std::runtime_error("another rank failed");
  }
  void give_up() {
    const std::lock_guard lock(mutex_);
    given_up_ = true;
    changed_.notify_all();
  }

 private:
  int64_t size_;
  std::vector<std::pair<const at::Tensor*, std::string>> slots_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int64_t here_ = 0, round_ = 0;
  bool given_up_ = false;
};

/// One thread's end of a group. Every operation is done when it returns. Sums go in the order of ranks.
class ThreadCommunicator final : public Communicator {
 public:
  ThreadCommunicator(std::string name, std::shared_ptr<Meeting> meeting, int64_t rank, std::shared_ptr<Traffic> traffic)
      : name_(std::move(name)), meeting_(std::move(meeting)), rank_(rank), traffic_(std::move(traffic)) {}
  int64_t rank() const override { return rank_; }
  int64_t size() const override { return meeting_->size(); }
  const std::string& name() const override { return name_; }

  std::unique_ptr<Work> all_reduce(at::Tensor& tensor, Reduction reduction) override {
    at::Tensor result;
    exchange("all_reduce", tensor, 2 * (n() - 1) / n(), [&](const auto& slots) { result = reduced(slots, reduction); });
    tensor.copy_(result);
    return done();
  }
  std::unique_ptr<Work> reduce_scatter(at::Tensor& out, const at::Tensor& in, Reduction reduction) override {
    TORCH_CHECK(in.numel() == size() * out.numel(), name_, ": reduce_scatter of ", in.sizes(), " into ", out.sizes());
    exchange("reduce_scatter", in, (n() - 1) / n(), [&](const auto& slots) {
      out.copy_(reduced(slots, reduction).view({size(), -1})[rank_].view_as(out));
    });
    return done();
  }
  std::unique_ptr<Work> all_gather(at::Tensor& out, const at::Tensor& in) override {
    TORCH_CHECK(out.numel() == size() * in.numel(), name_, ": all_gather of ", in.sizes(), " into ", out.sizes());
    std::vector<at::Tensor> all;  // copied first: `in` may lie in `out`
    exchange("all_gather", in, n() - 1, [&](const auto& slots) {
      for (const auto& slot : slots) all.push_back(slot.first->reshape({-1}).clone());
    });
    out.copy_(at::cat(all).view_as(out));
    return done();
  }
  std::unique_ptr<Work> broadcast(at::Tensor& tensor, int64_t root) override {
    at::Tensor copy;
    exchange("broadcast from " + std::to_string(root), tensor, rank_ == root ? 1 : 0,
             [&](const auto& slots) { copy = slots[static_cast<size_t>(root)].first->clone(); });
    tensor.copy_(copy);
    return done();
  }
  std::unique_ptr<Work> all_to_all(at::Tensor& out, const at::Tensor& in) override {
    std::vector<at::Tensor> parts;
    exchange("all_to_all", in, (n() - 1) / n(), [&](const auto& slots) {
      for (const auto& slot : slots) parts.push_back(slot.first->reshape({size(), -1})[rank_].clone());
    });
    out.copy_(at::cat(parts).view_as(out));
    return done();
  }
  std::unique_ptr<Work> gather(at::Tensor& out, const at::Tensor& in, int64_t root) override {
    exchange("gather to " + std::to_string(root), in, rank_ == root ? 0 : 1, [&](const auto& slots) {
      if (rank_ != root) return;
      std::vector<at::Tensor> all;
      for (const auto& slot : slots) all.push_back(slot.first->reshape({-1}));
      out.copy_(at::cat(all).view_as(out));
    });
    return done();
  }
  std::unique_ptr<Work> shift(at::Tensor& out, const at::Tensor& in) override {
    exchange("shift", in, rank_ + 1 < size() ? 1 : 0, [&](const auto& slots) {
      if (rank_ == 0) {
        out.zero_();
      } else {
        out.copy_(slots[static_cast<size_t>(rank_ - 1)].first->view_as(out));
      }
    });
    return done();
  }
  std::unique_ptr<Work> shift_back(at::Tensor& out, const at::Tensor& in) override {
    exchange("shift_back", in, rank_ > 0 ? 1 : 0, [&](const auto& slots) {
      if (rank_ + 1 == size()) {
        out.zero_();
      } else {
        out.copy_(slots[static_cast<size_t>(rank_ + 1)].first->view_as(out));
      }
    });
    return done();
  }
  void barrier() override { meeting_->arrive(); }
  const std::shared_ptr<Meeting>& meeting() const { return meeting_; }

 private:
  struct Done final : Work {
    void wait() override {}
  };
  static std::unique_ptr<Work> done() { return std::make_unique<Done>(); }
  double n() const { return static_cast<double>(size()); }
  template <typename Read>
  void exchange(const std::string& operation, const at::Tensor& tensor, double share, const Read& read) {
    TORCH_CHECK(tensor.numel() > 0, name_, ": a collective of an empty tensor");
    TORCH_CHECK(tensor.is_contiguous(), name_, ": a collective of a tensor that is not contiguous");
    const torch::NoGradGuard no_grad;
    traffic_->add(name_ + "." + operation.substr(0, operation.find(' ')), share * static_cast<double>(tensor.nbytes()));
    meeting_->exchange(rank_, {&tensor, c10::str(operation, " ", tensor.numel(), " ", tensor.scalar_type())}, read);
  }
  template <typename Slots>
  at::Tensor reduced(const Slots& slots, Reduction reduction) const {
    at::Tensor result = slots[0].first->reshape({-1}).clone();
    for (size_t r = 1; r < slots.size(); ++r) {
      const at::Tensor other = slots[r].first->reshape({-1});
      if (reduction == Reduction::kSum) result = result + other;
      if (reduction == Reduction::kMax) result = at::maximum(result, other);
      if (reduction == Reduction::kMin) result = at::minimum(result, other);
    }
    return result.view_as(*slots[0].first);
  }

  std::string name_;
  std::shared_ptr<Meeting> meeting_;
  int64_t rank_;
  std::shared_ptr<Traffic> traffic_;
};

/// Calls body(mesh, rank) on a thread for each rank of `shape`; returns when all are done. Rethrows what the first failing rank threw.
inline void run_mesh(const MeshShape& shape, const std::function<void(Mesh&, int64_t rank)>& body) {
  const int64_t world = shape.world();
  std::vector<std::unique_ptr<Mesh>> meshes;
  for (int64_t r = 0; r < world; ++r) {
    meshes.push_back(std::make_unique<Mesh>());
    meshes.back()->shape = shape;
    meshes.back()->traffic = std::make_shared<Traffic>();
  }
  std::vector<std::shared_ptr<Meeting>> meetings;
  // Ranks with the same color are one group, in their order.
  const auto make = [&](const char* name, std::unique_ptr<Communicator> Mesh::*group, const std::function<int64_t(int64_t)>& color) {
    for (int64_t c = 0; c < world; ++c) {
      std::vector<int64_t> members;
      for (int64_t r = 0; r < world; ++r) {
        if (color(r) == c) members.push_back(r);
      }
      if (members.empty()) continue;
      meetings.push_back(std::make_shared<Meeting>(static_cast<int64_t>(members.size())));
      for (size_t i = 0; i < members.size(); ++i) {
        Mesh& mesh = *meshes[static_cast<size_t>(members[i])];
        mesh.*group = std::make_unique<ThreadCommunicator>(name, meetings.back(), static_cast<int64_t>(i), mesh.traffic);
      }
    }
  };
  const int64_t t = shape.tensor, s = shape.sequence, shard = shape.shard();
  make("tensor", &Mesh::tensor, [=](int64_t r) { return r / t; });
  make("sequence", &Mesh::sequence, [=](int64_t r) { return r / (t * s) * t + r % t; });
  make("data", &Mesh::data, [=](int64_t r) { return r % (t * s); });
  make("gradient", &Mesh::gradient, [=](int64_t r) { return r % t; });
  make("shard", &Mesh::shard, [=](int64_t r) { return r / t / shard * t + r % t; });
  make("replica", &Mesh::replica, [=](int64_t r) { return r / t % shard * t + r % t; });
  for (const auto& [name, group] : {std::pair{"world", &Mesh::world}, {"control", &Mesh::control}, {"save", &Mesh::save}})
    make(name, group, [](int64_t) { return 0; });

  std::mutex mutex;
  std::exception_ptr first;
  std::vector<std::thread> threads;
  for (int64_t r = 0; r < world; ++r) {
    threads.emplace_back([&, r] {
      at::set_num_threads(1);  // ranks share the cores
      try {
        body(*meshes[static_cast<size_t>(r)], r);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!first) first = std::current_exception();
        for (const auto& meeting : meetings) meeting->give_up();
      }
    });
  }
  for (auto& thread : threads) thread.join();
  if (first) std::rethrow_exception(first);
}

/// The same with one group of `n` ranks.
inline void run_ranks(int64_t n, const std::function<void(Communicator&)>& body) {
  run_mesh({.data = n}, [&](Mesh& mesh, int64_t) { body(*mesh.world); });
}

}  // namespace tandem
