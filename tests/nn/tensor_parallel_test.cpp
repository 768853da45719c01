#include "nn/tensor_parallel.h"

#include <map>

#include "nn/cross_entropy.h"
#include "nn/full_attention.h"
#include "nn/gated_retention.h"
#include "nn/linear.h"
#include "nn/swiglu.h"
#include "tests/comm/thread_ranks.h"
#include "tests/nn/helpers.h"

// The parts that models divide; whole models are in tests/cli/tensor_parallel_test.cpp.

namespace tandem {
namespace {

constexpr int64_t kRanks = 3;

void on_ranks(const std::function<void(Mesh&, int64_t)>& body) {
  run_mesh({.tensor = kRanks}, body);
}

Tensor random(std::vector<int64_t> sizes, uint64_t seed) {
  return torch::randn(sizes, seeded(seed), torch::kFloat64);
}

/// Gives `part` its parts of the parameters of `whole`.
void take_parts(torch::nn::Module& part, const torch::nn::Module& whole) {
  const auto infos = parameters_info(part);
  const auto values = whole.parameters();
  size_t i = 0;
  for (auto& item : part.named_parameters()) {
    materialise(item.value(), local_part(infos[i], values[i].detach()).clone());
    ++i;
  }
}

std::string error_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const UserError& error) {
    EXPECT_EQ(error.exit_code(), kExitUsage);
    return error.what();
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  }
  return "nothing was thrown";
}

TEST(TensorParallelTest, ACopySumsGradientsAndASumCopiesThem) {
  on_ranks([](Mesh& mesh, int64_t rank) {
    const double r = static_cast<double>(rank + 1);
    const auto x = random({2, 5}, 1).requires_grad_();
    const auto y = copy_to_group(x, mesh.tensor.get());
    EXPECT_TRUE(torch::equal(y, x));
    const auto sum = sum_over_group(y * r, mesh.tensor.get());
    expect_close(sum, 6 * x);  // 1 + 2 + 3
    sum.sum().backward();
    expect_close(x.grad(), torch::full_like(x, 6));
  });
}

TEST(TensorParallelTest, AGroupOfOneChangesNothing) {
  const auto one = make_single_communicator("tensor");
  const auto x = random({2, 5}, 1).requires_grad_();
  for (Communicator* group : {static_cast<Communicator*>(nullptr), one.get()}) {
    EXPECT_TRUE(copy_to_group(x, group).is_same(x));
    EXPECT_TRUE(sum_over_group(x, group).is_same(x));
  }
  SwiGlu ffn(7, 11);
  split_over(*ffn, *one);
  for (const auto& info : parameters_info(*ffn)) EXPECT_FALSE(info.divided()) << info.name;
}

TEST(TensorParallelTest, UnequalPartsOfLogitsAreGathered) {
  const auto all = random({2, 3, 37}, 2);  // 12, 12 and 13 columns
  on_ranks([&](Mesh& mesh, int64_t rank) {
    const auto [begin, end] = units_of_rank(37, rank, kRanks);
    const auto own = all.slice(-1, begin, end);
    expect_close(gather_logits(own, {mesh.tensor.get(), begin, 37}), all, 0);
  });
}

TEST(TensorParallelTest, LinearsWithBiasMakeAFeedForwardOfUnequalParts) {
  struct FeedForward : Module {
    Linear up{nullptr}, down{nullptr};
    FeedForward() {
      up = register_module("up", Linear(7, 37, init_normal(1), Split::kRows, /*bias=*/true));
      down = register_module("down", Linear(37, 5, init_normal(1), Split::kColumns, /*bias=*/true));
    }
    Tensor forward(const Tensor& x) {
      return down->forward(up->forward(copy_to_group(x, tensor_group())).tanh());
    }
  };
  const auto whole = std::make_shared<FeedForward>();
  materialise_random(*whole, 3);
  const auto x = random({2, 4, 7}, 4).requires_grad_();
  const auto expected = whole->forward(x);
  const auto weights = random({2, 4, 5}, 5);
  (expected * weights).sum().backward();
  on_ranks([&](Mesh& mesh, int64_t) {
    const auto part = std::make_shared<FeedForward>();
    split_over(*part, *mesh.tensor);
    take_parts(*part, *whole);
    const auto own = x.detach().clone().requires_grad_();
    const auto y = part->forward(own);
    expect_close(y, expected);
    (y * weights).sum().backward();
    expect_close(own.grad(), x.grad());
    const auto infos = parameters_info(*part);
    for (size_t i = 0; i < infos.size(); ++i)
      expect_close(part->parameters()[i].grad(),
                   local_part(infos[i], whole->parameters()[i].grad()));
  });
}

TEST(TensorParallelTest, ATableOfUnequalPartsFindsEveryRowAndKeepsTheFrozenOne) {
  for (const int64_t frozen : {-1, 1, 20}) {
    Embedding whole(37, 5, init_normal(1), frozen, Split::kRows);
    materialise_random(*whole, 3);
    const auto ids = torch::cat({torch::arange(37), torch::tensor({1, 1, 20, 36})}).view({1, -1});
    const auto weights = random({1, 41, 5}, 6);
    const auto expected = whole->forward(ids);
    (expected * weights).sum().backward();
    on_ranks([&](Mesh& mesh, int64_t) {
      Embedding part(37, 5, init_normal(1), frozen, Split::kRows);
      split_over(*part, *mesh.tensor);
      take_parts(*part, *whole);
      const auto found = part->forward(ids);
      expect_close(found, expected, 0);
      (found * weights).sum().backward();
      const auto info = parameters_info(*part)[0];
      expect_close(part->weight().grad(), local_part(info, whole->weight().grad()));
    });
  }
}

struct LossCase {
  Tensor h = random({2, 13, 6}, 7).requires_grad_(), head = random({37, 6}, 8).requires_grad_();
  Tensor targets = torch::randint(37, {2, 13}, seeded(9), torch::kInt64)
                       .masked_fill_(random({2, 13}, 10) > 1, kIgnored);
  Tensor weights = torch::rand({2, 13}, seeded(11), torch::kFloat32);
};

TEST(TensorParallelTest, TheLossOfADividedHeadEqualsThatOfTheWhole) {
  LossCase c;
  const auto expected = cross_entropy(c.h, c.head, c.targets, c.weights);
  (expected.sum * 3).backward();
  for (const int64_t chunk : {1, 4, 1000}) {
    on_ranks([&](Mesh& mesh, int64_t rank) {
      const auto [begin, end] = units_of_rank(37, rank, kRanks);
      const auto h = c.h.detach().clone().requires_grad_();
      const auto head = c.head.detach().slice(0, begin, end).clone().requires_grad_();
      const HeldRows part{mesh.tensor.get(), begin, 37};
      const auto loss = cross_entropy(h, head, c.targets, c.weights, chunk, part);
      expect_close(loss.sum, expected.sum);
      expect_close(loss.nll.nan_to_num(-1), expected.nll.nan_to_num(-1));
      (loss.sum * 3).backward();
      expect_close(h.grad(), c.h.grad());
      expect_close(head.grad(), c.head.grad().slice(0, begin, end));
      expect_close(token_nll(h, head, c.targets, chunk, part).nan_to_num(-1),
                   expected.nll.nan_to_num(-1));
    });
  }
}

TEST(TensorParallelTest, TheLossOfADividedHeadStandsLargeLogitsAndNoTargets) {
  LossCase c;
  on_ranks([&](Mesh& mesh, int64_t rank) {
    const auto [begin, end] = units_of_rank(37, rank, kRanks);
    const auto head = c.head.detach().slice(0, begin, end);
    const HeldRows part{mesh.tensor.get(), begin, 37};
    const auto loss = cross_entropy(c.h.detach() * 1e4, head, c.targets, {}, 5, part);
    const auto expected = cross_entropy(c.h.detach() * 1e4, c.head.detach(), c.targets, {});
    expect_close(loss.sum / 1e4, expected.sum / 1e4);
    const auto h = c.h.detach().clone().requires_grad_();
    const auto none =
        cross_entropy(h, head, torch::full({2, 13}, kIgnored, torch::kInt64), {}, 5, part);
    EXPECT_EQ(none.sum.item<double>(), 0);
    none.sum.backward();
    EXPECT_EQ(h.grad().abs().max().item<double>(), 0);
    EXPECT_EQ(error_of([&] {
                token_nll(h, head, torch::full({2, 13}, 37, torch::kInt64), 5, part);
              }),
              "cross_entropy: targets from 37 to 37, expected 0 to 36 or -100");
  });
}

template <typename Mixer, typename Config>
std::string error_of_heads(const Config& config, int64_t ranks) {
  std::string message;
  run_mesh({.tensor = ranks}, [&](Mesh& mesh, int64_t rank) {
    const auto mixer = std::make_shared<Mixer>(config, MixerSpec{.d_model = 22});
    const std::string error = error_of([&] { split_over(*mixer, *mesh.tensor); });
    if (rank == 0) message = error;
  });
  return message;
}

TEST(TensorParallelTest, HeadsThatDoNotDivideAreNamed) {
  EXPECT_EQ((error_of_heads<FullAttention>(
                FullAttentionConfig{.n_heads = 4, .n_kv_heads = {}, .head_dim = 6}, 3)),
            "q_proj.weight: 4 heads cannot be divided over parallelism.tensor = 3 ranks");
  EXPECT_EQ((error_of_heads<FullAttention>(
                FullAttentionConfig{.n_heads = 6, .n_kv_heads = 2, .head_dim = 6}, 3)),
            "k_proj.weight: 2 heads cannot be divided over parallelism.tensor = 3 ranks");
  EXPECT_EQ((error_of_heads<FullAttention>(
                FullAttentionConfig{.n_heads = 2, .n_kv_heads = {}, .head_dim = 6}, 4)),
            "o_proj.weight: 2 heads cannot be divided over parallelism.tensor = 4 ranks");
  EXPECT_EQ((error_of_heads<GatedRetention>(GatedRetentionConfig{.n_heads = 3, .head_dim = 6}, 2)),
            "q_proj.weight: 3 heads cannot be divided over parallelism.tensor = 2 ranks");
  on_ranks([](Mesh& mesh, int64_t) {
    SwiGlu ffn(7, 2);
    EXPECT_EQ(error_of([&] { split_over(*ffn, *mesh.tensor); }),
              "down_proj.weight: 2 channels cannot be divided over parallelism.tensor = 3 ranks");
  });
}

}  // namespace
}  // namespace tandem
