#include "comm/planned_communicator.h"

#include <c10/util/Exception.h>

#include <utility>

namespace tandem {
namespace {

class PlannedCommunicator final : public Communicator {
 public:
  PlannedCommunicator(std::string name, int64_t size) : name_(std::move(name)), size_(size) {}
  int64_t rank() const override { return 0; }
  int64_t size() const override { return size_; }
  const std::string& name() const override { return name_; }
  std::unique_ptr<Work> all_reduce(at::Tensor&, Reduction) override { return refused(); }
  std::unique_ptr<Work> reduce_scatter(at::Tensor&, const at::Tensor&, Reduction) override {
    return refused();
  }
  std::unique_ptr<Work> all_gather(at::Tensor&, const at::Tensor&) override { return refused(); }
  std::unique_ptr<Work> broadcast(at::Tensor&, int64_t) override { return refused(); }
  std::unique_ptr<Work> all_to_all(at::Tensor&, const at::Tensor&) override { return refused(); }
  std::unique_ptr<Work> gather(at::Tensor&, const at::Tensor&, int64_t) override {
    return refused();
  }
  std::unique_ptr<Work> shift(at::Tensor&, const at::Tensor&) override { return refused(); }
  std::unique_ptr<Work> shift_back(at::Tensor&, const at::Tensor&) override { return refused(); }
  void barrier() override { refused(); }

 private:
  std::unique_ptr<Work> refused() const {
    TORCH_CHECK(false, name_, ": an operation of a group that is only planned");
  }
  std::string name_;
  int64_t size_;
};

}  // namespace

std::unique_ptr<Communicator> make_planned_communicator(std::string name, int64_t size) {
  if (size == 1) return make_single_communicator(std::move(name));
  return std::make_unique<PlannedCommunicator>(std::move(name), size);
}

}  // namespace tandem
