#include <algorithm>
#include <cstdio>
#include <limits>
#include <map>
#include <optional>
#include <set>

#include "core/file.h"
#include "core/json_lines.h"
#include "tests/ledger/ledger.h"

namespace tandem {
namespace {

using Entries = std::vector<LedgerEntry>;
using Steps = std::map<int64_t, Entries>;

std::string text(int64_t number) { return std::to_string(number); }

/// One rank's ledger of one attempt. The half line that a kill may leave at its end is none.
Steps read_part(const std::string& path) {
  Steps steps;
  if (!exists(path)) return steps;  // killed before it wrote
  const std::string lines = read_text(path);
  for (size_t begin = 0, end; (end = lines.find('\n', begin)) != lines.npos; begin = end + 1) {
    const auto line = parse_json(std::string_view(lines).substr(begin, end - begin));
    Entries& entries = steps[get_int(line, "step", 0, std::numeric_limits<int64_t>::max())];
    const auto& samples = line.at("samples");
    for (size_t i = 0; i < samples.size(); ++i)
      entries.push_back({samples[i].get<int64_t>(), line.at("crc32c")[i].get<uint32_t>()});
  }
  return steps;
}

class Verifier {
 public:
  Verifier(const LedgerPlan& killed, const LedgerPlan& whole, LedgerReport& report)
      : killed_(killed),
        whole_(whole),
        report_(report),
        sampler_(ledger_sampler(killed, killed.configuration->shuffle)),
        mixture_(ledger_mixture(*killed.configuration)) {}

  void check(const std::vector<LedgerAttempt>& attempts, const std::vector<LedgerData>& data) {
    undisturbed_ = committed(whole_, {{.world = 1, .first_step = 0}});
    expect_order(undisturbed_);
    expect_tokens_once(data);

    const Entries entries = committed(killed_, attempts);
    expect_order(entries);
    expect_the_undisturbed(entries);
    if (killed_.configuration->shuffle == std::string("windows")) expect_windows_once(entries);
    expect_the_same_when_read_again(attempts);
  }

 private:
  /// What a run read in the end: of each step the attempt that took it into a checkpoint, its ranks
  /// in order.
  Entries committed(const LedgerPlan& plan, const std::vector<LedgerAttempt>& attempts) {
    Entries all;
    for (size_t a = 0; a < attempts.size(); ++a) {
      const int64_t end = a + 1 < attempts.size() ? attempts[a + 1].first_step : plan.steps;
      const int64_t world = attempts[a].world;
      std::vector<Steps> parts;
      for (int64_t rank = 0; rank < world; ++rank)
        parts.push_back(read_part(plan.part(static_cast<int64_t>(a), rank)));
      for (int64_t step = attempts[a].first_step; step < end; ++step) {
        for (int64_t rank = 0; rank < world; ++rank) {
          const Steps& part = parts[static_cast<size_t>(rank)];
          if (const auto entries = part.find(step); entries != part.end()) {
            all.insert(all.end(), entries->second.begin(), entries->second.end());
          } else {
            report_.violation("attempt " + text(static_cast<int64_t>(a)) + ": rank " + text(rank) +
                              " of " + text(world) + " has no step " + text(step));
          }
        }
      }
    }
    return all;
  }

  /// Samples 0, 1, 2, ... to the last.
  void expect_order(const Entries& entries) {
    int64_t expected = 0;
    for (const auto& [sample, crc] : entries) {
      if (sample != expected)
        report_.violation("expected sample " + text(expected) + ", found " + text(sample));
      expected = sample + 1;
    }
    if (expected != killed_.samples())
      report_.violation("ends before sample " + text(expected) + " of " + text(killed_.samples()));
  }

  void expect_the_undisturbed(const Entries& entries) {
    for (const auto& [sample, crc] : entries) {
      const auto at = static_cast<size_t>(sample);
      if (at >= undisturbed_.size() || undisturbed_[at].crc != crc)
        report_.violation("sample " + text(sample) + " is not that of the undisturbed run");
    }
  }

  struct Place {
    int64_t source, epoch;
  };
  Place place_of(int64_t sample) const {
    const auto [source, index] = mixture_.pick(sample);
    return {source, index / sampler_.view(source).windows()};
  }

  /// Each epoch of each source has the windows that the same views give in file order, each as
  /// often as these; an epoch cut short by the end of the run none more often. Holds where windows
  /// are shuffled; where documents are, each epoch cuts other windows.
  void expect_windows_once(const Entries& entries) {
    using Counts = std::map<uint32_t, int64_t>;  // by CRC-32C
    const Sampler in_file_order = ledger_sampler(killed_, "none");
    std::map<std::pair<int64_t, int64_t>, Counts> found;  // by source and epoch
    for (const auto& [sample, crc] : entries) {
      const Place place = place_of(sample);
      ++found[{place.source, place.epoch}][crc];
    }
    std::vector<Counts> expected(sampler_.files().size());
    for (size_t source = 0; source < expected.size(); ++source) {
      const WindowView& view = in_file_order.view(static_cast<int64_t>(source));
      for (int64_t k = 0; k < view.windows(); ++k) {
        ++expected[source][ledger_crc(view.window(k, killed_.configuration->mask_documents))];
      }
    }
    for (const auto& [place, counts] : found) {
      const auto [source, epoch] = place;
      const Counts& wanted = expected[static_cast<size_t>(source)];
      const bool complete = found.contains({source, epoch + 1});
      const std::string where = "source " + text(source) + ", epoch " + text(epoch) + ": ";
      for (const auto& [crc, times] : counts) {
        const auto it = wanted.find(crc);
        if (it == wanted.end()) {
          report_.violation(where + "a window that is not in the source");
        } else if (times > it->second) {
          report_.violation(where + "a window " + text(times - it->second) + " times too often");
        }
      }
      for (const auto& [crc, times] : wanted) {
        const auto it = counts.find(crc);
        if (complete && (it == counts.end() || it->second < times))
          report_.violation(where + "a window is missing");
      }
    }
  }

  /// The rows themselves, by way of Sampler::row: the same as in the ledgers, with the weights of
  /// their targets, and in each epoch of each source every token of the view as often as the view
  /// says.
  void expect_tokens_once(const std::vector<LedgerData>& data) {
    std::vector<std::vector<int64_t>> seen;  // by source and token; the last counts kLedgerEos
    for (const LedgerData& source : data) seen.emplace_back(source.tokens() + 1, 0);
    for (const auto& [sample, crc] : undisturbed_) {
      const Row row = sampler_.row(sample);
      if (ledger_crc(row) != crc)
        report_.violation("sample " + text(sample) + " is not what Sampler::row gives");
      const auto [source, epoch] = place_of(sample);
      const int64_t windows = sampler_.view(source).windows();
      auto& counts = seen[static_cast<size_t>(source)];
      const std::string where = "source " + text(source) + ", epoch " + text(epoch) + ": ";
      for (size_t t = 0; t < row.tokens.size(); ++t) {
        if (row.segment[t] < 0) continue;
        const LedgerData& whole = data[static_cast<size_t>(source)];
        const bool ends = row.tokens[t] == kLedgerEos && format(source) == LedgerFormat::kPacked;
        const int64_t at = ends ? whole.tokens() : row.tokens[t] - whole.first_token;
        if (at < 0 || at >= whole.tokens() + ends) {
          report_.violation(where + "token " + text(row.tokens[t]) + " of another source");
        } else {
          ++counts[static_cast<size_t>(at)];
        }
      }
      expect_weights(row, source, where);
      if (mixture_.pick(sample).index % windows != windows - 1) continue;
      expect_counts(counts, source, data[static_cast<size_t>(source)], where);
      std::fill(counts.begin(), counts.end(), 0);
    }
  }

  LedgerFormat format(int64_t source) const {
    return killed_.configuration->sources[static_cast<size_t>(source)].format;
  }

  void expect_weights(const Row& row, int64_t source, const std::string& where) {
    if (format(source) != LedgerFormat::kWeighted) return;
    for (size_t t = 0; t < row.targets.size(); ++t) {
      const float expected = row.targets[t] == kIgnored ? 0.0f : ledger_weight(row.targets[t]);
      if (row.weights[t] != expected)
        report_.violation(where + "target " + text(row.targets[t]) + " has the weight of another");
    }
  }

  /// How often each token comes in an epoch, laid out as in expect_tokens_once().
  std::vector<int64_t> expected_counts(int64_t source, const LedgerData& data) const {
    const ViewSpec& spec = killed_.configuration->sources[static_cast<size_t>(source)].view;
    const bool ends = format(source) == LedgerFormat::kPacked;
    std::vector<int64_t> expected(static_cast<size_t>(data.tokens()) + 1, 0);
    size_t token = 0, last = 0;  // last: of the documents that are read
    int64_t most = 1;
    for (const int64_t length : data.lengths) {
      const size_t begin = token;
      token += static_cast<size_t>(length);
      const bool left_out =
          length < spec.min_length || (spec.max_length > 0 && length > spec.max_length);
      if (left_out) continue;
      const int64_t copies = length >= spec.upsample_from ? spec.upsample_times : 1;
      std::fill(expected.begin() + static_cast<int64_t>(begin),
                expected.begin() + static_cast<int64_t>(token), copies);
      if (ends) {
        expected[token - 1] = 0;
        expected.back() += copies;
      }
      if (copies < most) continue;  // the passes over upsampled documents come last
      most = copies;
      last = ends ? expected.size() - 1 : token - 1;
    }
    // The epoch's last token is only a target where it would be the first of a window. That is
    // never so with padded documents: their epochs, as their windows, are multiples of a block.
    const WindowView& view = sampler_.view(source);
    if (view.tokens() % killed_.configuration->context_length == 1) --expected[last];
    return expected;
  }

  void expect_counts(const std::vector<int64_t>& counts, int64_t source, const LedgerData& data,
                     const std::string& where) {
    const std::vector<int64_t> expected = expected_counts(source, data);
    for (size_t i = 0; i < counts.size(); ++i) {
      if (counts[i] == expected[i]) continue;
      const int64_t token =
          i + 1 < counts.size() ? data.first_token + static_cast<int64_t>(i) : kLedgerEos;
      report_.violation(where + "token " + text(token) + " came " + text(counts[i]) +
                        " times, expected " + text(expected[i]));
    }
  }

  /// Also what no checkpoint took in is what its samples always are.
  void expect_the_same_when_read_again(const std::vector<LedgerAttempt>& attempts) {
    std::map<int64_t, uint32_t> first_time;  // CRC-32C by sample
    std::set<int64_t> again;                 // steps
    for (size_t a = 0; a < attempts.size(); ++a) {
      const auto attempt = static_cast<int64_t>(a);
      for (int64_t rank = 0; rank < attempts[a].world; ++rank) {
        for (const auto& [step, entries] : read_part(killed_.part(attempt, rank))) {
          for (const auto& [sample, crc] : entries) {
            const auto [it, is_new] = first_time.try_emplace(sample, crc);
            if (is_new) continue;
            again.insert(step);
            if (it->second != crc)
              report_.violation("attempt " + text(attempt) + ": sample " + text(sample) +
                                " is not what it was before");
          }
        }
      }
    }
    report_.facts["resumed_steps"] = again.size();
  }

  const LedgerPlan &killed_, &whole_;
  LedgerReport& report_;
  Sampler sampler_;
  Mixture mixture_;
  Entries undisturbed_;  // by sample
};

}  // namespace

void verify_ledger(const LedgerPlan& killed, const std::vector<LedgerAttempt>& attempts,
                   const LedgerPlan& whole, const std::vector<LedgerData>& data,
                   LedgerReport& report) {
  Verifier(killed, whole, report).check(attempts, data);
}

}  // namespace tandem
