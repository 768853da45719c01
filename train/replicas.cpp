#include "train/replicas.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <vector>

#include "comm/agreement.h"
#include "core/checksum.h"

namespace tandem {
namespace {

uint32_t checksum_of(const Tensor& tensor, uint32_t crc) {
  const Tensor host = tensor.cpu().contiguous();
  return crc32c({static_cast<const std::byte*>(host.const_data_ptr()), host.nbytes()}, crc);
}

/// What is wrong in `group`, empty where nothing is: `names` and `sums` of the parts it should hold
/// alike.
std::string difference_in(Communicator& group, int64_t world_rank,
                          const std::vector<std::string>& names, std::vector<int64_t> sums) {
  if (group.size() == 1 || names.empty()) return "";
  sums.push_back(world_rank);
  const auto n = static_cast<int64_t>(names.size());
  const auto sent = torch::tensor(sums, torch::kInt64);
  auto received = torch::empty({group.size(), n + 1}, torch::kInt64);
  group.all_gather(received, sent)->wait();
  std::map<std::vector<int64_t>, std::vector<int64_t>> ranks;  // with the same sums
  for (int64_t r = 0; r < group.size(); ++r) {
    const auto* words = received[r].const_data_ptr<int64_t>();
    ranks[{words, words + n}].push_back(words[n]);
  }
  if (ranks.size() == 1) return "";
  const auto most = std::max_element(ranks.begin(), ranks.end(), [](const auto& a, const auto& b) {
    return a.second.size() < b.second.size();
  });
  const auto odd =
      std::find_if(ranks.begin(), ranks.end(), [&](const auto& entry) { return &entry != &*most; });
  const auto [first, other] =
      std::mismatch(odd->first.begin(), odd->first.end(), most->first.begin());
  const std::string& name = names[static_cast<size_t>(first - odd->first.begin())];
  const auto ranks_text = [](const std::vector<int64_t>& who) {
    return fmt::format("rank{} {}", who.size() == 1 ? "" : "s", fmt::join(who, ", "));
  };
  if (most->second.size() == odd->second.size())
    return fmt::format("{} and {} hold different values of {}", ranks_text(odd->second),
                       ranks_text(most->second), name);
  return fmt::format("{} went wrong: its values of {} are not those of {}", ranks_text(odd->second),
                     name, ranks_text(most->second));
}

}  // namespace

void compare_replicas(const Run& run) {
  const Mesh& mesh = *run.mesh;
  Optimizer& optimizer = *run.optimizer;
  const auto& parts = optimizer.sharding().parts();
  std::vector<std::string> names, whole_names;
  std::vector<int64_t> sums, whole_sums;
  for (size_t i = 0; i < parts.size(); ++i) {
    const ParameterInfo& info = optimizer.sharding().parameters()[parts[i].parameter];
    uint32_t crc = checksum_of(parts[i].master, 0);
    crc = checksum_of(optimizer.exp_avg()[i], crc);
    crc = checksum_of(optimizer.exp_avg_sq()[i], crc);
    names.push_back(info.name);
    sums.push_back(crc);
    if (info.divided()) continue;
    whole_names.push_back(info.name);
    whole_sums.push_back(crc);
  }
  const int64_t rank = mesh.world->rank();
  std::string wrong = difference_in(*mesh.replica, rank, names, sums);
  if (wrong.empty()) wrong = difference_in(*mesh.tensor, rank, whole_names, whole_sums);
  // Ranks of other groups may have seen nothing.
  for (const auto& theirs : texts_of_all(*mesh.control, wrong)) {
    if (theirs.empty()) continue;
    throw PeerLost(fmt::format("step {}: replicas differ: {}", run.step, theirs));
  }
}

}  // namespace tandem
