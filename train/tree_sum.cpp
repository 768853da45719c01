#include "train/tree_sum.h"

#include <ATen/ops/_foreach_add.h>

#include <algorithm>
#include <map>
#include <utility>

namespace tandem {
namespace {

using Place = std::pair<int64_t, int64_t>;  // level, index

/// The largest whole nodes of leaves [begin, end), ascending: what add() leaves of them.
std::vector<Place> nodes_of(int64_t begin, int64_t end) {
  std::vector<Place> nodes;
  for (int64_t leaf = begin; leaf < end; ++leaf) {
    Place node{0, leaf};
    while (!nodes.empty() && nodes.back().first == node.first && node.second % 2 == 1 &&
           nodes.back().second + 1 == node.second) {
      nodes.pop_back();
      node = {node.first + 1, node.second / 2};
    }
    nodes.push_back(node);
  }
  return nodes;
}

/// Node (level, index) out of `nodes`; undefined where it has no leaf.
Tensor combined(const std::map<Place, Tensor>& nodes, int64_t level, int64_t index,
                int64_t leaves) {
  if (index << level >= leaves) return {};
  if (const auto found = nodes.find({level, index}); found != nodes.end()) return found->second;
  TORCH_CHECK(level > 0, "TreeSum: nobody added leaf ", index);
  const Tensor left = combined(nodes, level - 1, 2 * index, leaves),
               right = combined(nodes, level - 1, 2 * index + 1, leaves);
  return right.defined() ? left + right : left;
}

int64_t root_level(int64_t leaves) {
  int64_t level = 0;
  while (int64_t{1} << level < leaves) ++level;
  return level;
}

}  // namespace

void TreeSum::add(int64_t leaf, const Tensors& values) {
  Node node{0, leaf, {}};
  for (const auto& value : values) node.values.push_back(value.clone());
  while (!nodes_.empty() && nodes_.back().level == node.level && node.index % 2 == 1 &&
         nodes_.back().index + 1 == node.index) {
    Node left = std::move(nodes_.back());
    nodes_.pop_back();
    at::_foreach_add_(left.values, node.values);
    node = {node.level + 1, node.index / 2, std::move(left.values)};
  }
  nodes_.push_back(std::move(node));
}

void TreeSum::finish(Communicator& group, Tensors& out) {
  const int64_t n = group.size();
  std::vector<std::vector<Place>> of_rank;
  size_t rounds = 0;
  for (int64_t r = 0; r < n; ++r) {
    of_rank.push_back(nodes_of(r * leaves_ / n, (r + 1) * leaves_ / n));
    rounds = std::max(rounds, of_rank.back().size());
  }
  const auto& own = of_rank[static_cast<size_t>(group.rank())];
  TORCH_CHECK(own.size() == nodes_.size(), "TreeSum: ", nodes_.size(), " nodes of rank ",
              group.rank(), ", expected ", own.size());
  for (size_t t = 0; t < out.size(); ++t) {
    const int64_t numel = out[t].numel(), part = (numel + n - 1) / n;
    Tensor sent = torch::zeros({n * part}, out[t].options()), received = torch::empty_like(sent);
    std::map<Place, Tensor> nodes;  // this rank's part of everybody's
    for (size_t k = 0; k < rounds; ++k) {
      if (k < nodes_.size()) sent.narrow(0, 0, numel).copy_(nodes_[k].values[t].view({-1}));
      group.all_to_all(received, sent)->wait();
      const Tensor parts = received.view({n, part}).clone();
      for (int64_t r = 0; r < n; ++r) {
        const auto& theirs = of_rank[static_cast<size_t>(r)];
        if (k < theirs.size()) nodes[theirs[k]] = parts[r];
      }
    }
    const Tensor root = combined(nodes, root_level(leaves_), 0, leaves_).contiguous();
    group.all_gather(sent, root)->wait();
    out[t].view({-1}).copy_(sent.narrow(0, 0, numel));
  }
  nodes_.clear();
}

}  // namespace tandem
