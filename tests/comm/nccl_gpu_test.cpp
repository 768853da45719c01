#include "tests/comm/nccl_group.h"
#include "tests/gpu.h"

// NCCL refuses two ranks on one GPU, so that what one machine can show is a group of one: that
// every operation is put to NCCL as it wants it, in every type, and gives what one rank's is.

namespace tandem {
namespace {

class NcclGroupGpuTest : public OnGpu<> {
 protected:
  void SetUp() override {
    OnGpu<>::SetUp();
    if (IsSkipped()) return;
    group_ = make_nccl_group("data", gpu_);
  }
  void TearDown() override {
    if (group_) shut_down(*group_);
    OnGpu<>::TearDown();
  }
  Tensor numbers(torch::Dtype dtype, int64_t n = 1003) const {
    return torch::arange(n, torch::dtype(torch::kFloat32).device(gpu_)).to(dtype);
  }
  std::unique_ptr<Communicator> group_;
};

TEST_F(NcclGroupGpuTest, EveryOperationInEveryType) {
  EXPECT_EQ(group_->rank(), 0);
  EXPECT_EQ(group_->size(), 1);
  for (const auto dtype :
       {torch::kFloat32, torch::kBFloat16, torch::kFloat64, torch::kInt64, torch::kInt32}) {
    SCOPED_TRACE(c10::toString(dtype));
    const Tensor in = numbers(dtype);
    const auto expect = [&](const char* what, const Tensor& out) {
      EXPECT_TRUE(torch::equal(out.flatten(), in)) << what;
    };
    for (const Reduction reduction : {Reduction::kSum, Reduction::kMax, Reduction::kMin}) {
      Tensor out = in.clone();
      group_->all_reduce(out, reduction)->wait();
      expect("all_reduce", out);
      out = torch::zeros_like(in);
      group_->reduce_scatter(out, in, reduction)->wait();
      expect("reduce_scatter", out);
    }
    Tensor out = torch::zeros({1, in.numel()}, in.options());
    group_->all_gather(out, in)->wait();
    expect("all_gather", out);
    out = torch::zeros({1, in.numel()}, in.options());
    group_->gather(out, in, 0)->wait();
    expect("gather", out);
    out = in.clone();
    group_->broadcast(out, 0)->wait();
    expect("broadcast", out);
    out = torch::zeros_like(in);
    group_->all_to_all(out, in)->wait();
    expect("all_to_all", out);
    for (const bool back : {false, true}) {
      out = in.clone();
      (back ? group_->shift_back(out, in) : group_->shift(out, in))->wait();
      EXPECT_TRUE(out.eq(0).all().item<bool>()) << "there is no neighbour";
    }
  }
  group_->barrier();
}

TEST_F(NcclGroupGpuTest, APartOfTheOutputAtItsOwnPlace) {
  Tensor all = numbers(torch::kFloat32);
  const Tensor expected = all.clone();
  group_->all_gather(all, all.narrow(0, 0, all.numel()))->wait();
  EXPECT_TRUE(torch::equal(all, expected));
}

// wait() orders the stream: what is queued after it sees the result, what was queued before the
// operation is what it sends.
TEST_F(NcclGroupGpuTest, OperationsUnderWayAreOrderedWithTheStream) {
  Tensors sums;
  std::vector<std::unique_ptr<Work>> works;
  for (int64_t i = 0; i < 20; ++i) {
    Tensor x = torch::full({1 << 20}, 1.0, torch::dtype(torch::kFloat32).device(gpu_));
    for (int64_t k = 0; k < i; ++k) x.add_(1);
    sums.push_back(x);
    works.push_back(group_->all_reduce(sums.back(), Reduction::kSum));
  }
  for (int64_t i = 0; i < 20; ++i) {
    works[static_cast<size_t>(i)]->wait();
    const Tensor doubled = sums[static_cast<size_t>(i)] * 2;
    EXPECT_TRUE(doubled.eq(2.0 * static_cast<double>(i + 1)).all().item<bool>()) << i;
  }
}

TEST_F(NcclGroupGpuTest, TensorsOfTheHostAreRefused) {
  Tensor here = torch::zeros({3});
  EXPECT_THROW(group_->all_reduce(here, Reduction::kSum), c10::Error);
  Tensor none = torch::zeros({0}, torch::TensorOptions().device(gpu_));
  EXPECT_THROW(group_->all_reduce(none, Reduction::kSum), c10::Error);
}

}  // namespace
}  // namespace tandem
