#include <c10/util/Exception.h>

#include "comm/communicator.h"
#include "comm/mesh.h"

namespace tandem {
namespace {

struct Done final : Work {
  void wait() override {}
};

class SingleCommunicator final : public Communicator {
 public:
  explicit SingleCommunicator(std::string name) : name_(std::move(name)) {}
  int64_t rank() const override { return 0; }
  int64_t size() const override { return 1; }
  const std::string& name() const override { return name_; }

  std::unique_ptr<Work> all_reduce(at::Tensor& tensor, Reduction) override { return done(tensor); }
  std::unique_ptr<Work> reduce_scatter(at::Tensor& out, const at::Tensor& in, Reduction) override {
    return copy(out, in);
  }
  std::unique_ptr<Work> all_gather(at::Tensor& out, const at::Tensor& in) override {
    return copy(out, in);
  }
  std::unique_ptr<Work> broadcast(at::Tensor& tensor, int64_t root) override {
    TORCH_CHECK(root == 0, name_, ": broadcast from rank ", root, " in a group of 1");
    return done(tensor);
  }
  std::unique_ptr<Work> all_to_all(at::Tensor& out, const at::Tensor& in) override {
    return copy(out, in);
  }
  std::unique_ptr<Work> gather(at::Tensor& out, const at::Tensor& in, int64_t root) override {
    TORCH_CHECK(root == 0, name_, ": gather to rank ", root, " in a group of 1");
    return copy(out, in);
  }
  std::unique_ptr<Work> shift(at::Tensor& out, const at::Tensor& in) override {
    check_not_empty(in);
    out.zero_();
    return std::make_unique<Done>();
  }
  std::unique_ptr<Work> shift_back(at::Tensor& out, const at::Tensor& in) override {
    return shift(out, in);
  }
  void barrier() override {}

 private:
  void check_not_empty(const at::Tensor& tensor) const {
    TORCH_CHECK(tensor.numel() > 0, name_, ": a collective of an empty tensor");
  }
  std::unique_ptr<Work> done(const at::Tensor& tensor) const {
    check_not_empty(tensor);
    return std::make_unique<Done>();
  }
  std::unique_ptr<Work> copy(at::Tensor& out, const at::Tensor& in) const {
    check_not_empty(in);
    TORCH_CHECK(out.numel() == in.numel(), name_, ": out has ", out.numel(), " elements, in ", in.numel());
    out.copy_(in.view_as(out));
    return std::make_unique<Done>();
  }

  std::string name_;
};

}  // namespace

std::unique_ptr<Communicator> make_single_communicator(std::string name) {
  return std::make_unique<SingleCommunicator>(std::move(name));
}

Mesh single_process_mesh() {
  Mesh mesh;
  mesh.data = make_single_communicator("data");
  mesh.tensor = make_single_communicator("tensor");
  mesh.sequence = make_single_communicator("sequence");
  mesh.shard = make_single_communicator("shard");
  mesh.replica = make_single_communicator("replica");
  mesh.gradient = make_single_communicator("gradient");
  mesh.world = make_single_communicator("world");
  mesh.control = make_single_communicator("control");
  mesh.save = make_single_communicator("save");
  mesh.traffic = std::make_shared<Traffic>();
  return mesh;
}

Mesh& this_process() {
  static Mesh mesh = single_process_mesh();
  return mesh;
}

}  // namespace tandem
