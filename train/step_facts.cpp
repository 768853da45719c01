#include "train/step_facts.h"

#include <fmt/format.h>
#include <torch/types.h>

#include <algorithm>
#include <bit>
#include <map>
#include <vector>

namespace tandem {
namespace {

/// Without the signal, in which ranks may differ.
using Words = std::vector<int64_t>;

Words words_of(const StepFacts& facts) {
  return {facts.step, facts.next_sample, std::bit_cast<int64_t>(facts.loss),
          std::bit_cast<int64_t>(facts.grad_norm), facts.skipped};
}

std::string text_of(const Words& words) {
  return fmt::format("step {}, next sample {}, loss {:.17g}, grad_norm {:.17g}, {} skipped",
                     words[0], words[1], std::bit_cast<double>(words[2]),
                     std::bit_cast<double>(words[3]), words[4]);
}

}  // namespace

int agree_on(Communicator& control, const StepFacts& mine) {
  Words sent = words_of(mine);
  sent.push_back(mine.signal);
  const auto n = static_cast<int64_t>(sent.size());
  const auto in = torch::tensor(sent, torch::kInt64);
  auto out = torch::empty({control.size(), n}, torch::kInt64);
  control.all_gather(out, in)->wait();
  int signal = 0;
  std::map<Words, std::vector<int64_t>> ranks;  // that came to the same
  for (int64_t r = 0; r < control.size(); ++r) {
    const auto* words = out[r].const_data_ptr<int64_t>();
    ranks[Words(words, words + n - 1)].push_back(r);
    signal = std::max(signal, static_cast<int>(words[n - 1]));
  }
  if (ranks.size() == 1) return signal;
  const auto most = std::max_element(ranks.begin(), ranks.end(), [](const auto& a, const auto& b) {
    return a.second.size() < b.second.size();
  });
  std::string odd;
  for (const auto& [words, who] : ranks) {
    if (words == most->first) continue;
    for (const int64_t r : who)
      odd += fmt::format("{}rank {} came to {}", odd.empty() ? "" : "; ", r, text_of(words));
  }
  throw PeerLost(fmt::format("ranks went apart: {}; {} others to {}", odd, most->second.size(),
                             text_of(most->first)));
}

int agree_on_signal(Communicator& control, int signal) {
  auto highest = torch::tensor({static_cast<int64_t>(signal)}, torch::kInt64);
  control.all_reduce(highest, Reduction::kMax)->wait();
  return static_cast<int>(highest.item<int64_t>());
}

}  // namespace tandem
