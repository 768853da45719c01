#include "eval/nll.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <numeric>

#include "core/error.h"
#include "core/log.h"
#include "core/progress.h"
#include "eval/nll_job.h"
#include "eval/nll_scorer.h"
#include "nn/generate.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kUnigram = "unigram";
constexpr int64_t kResamples = 1000;  // of a fit

/// What a source gave.
struct Total {
  NllSums sums;
  RecallSums recall = {};
  int64_t bytes = 0;  // of text that the scored tokens stand for; 0 = not known
  double seconds = 0;
  int64_t state_bytes = 0;
  Total& operator+=(const Total& other) {
    sums += other.sums;
    recall += other.recall;
    bytes += other.bytes;
    seconds += other.seconds;
    state_bytes = std::max(state_bytes, other.state_bytes);
    return *this;
  }
};

// 0 without a tokenizer.
int64_t byte_length(int64_t target, const Tokenizer* tokenizer) {
  const bool known = tokenizer && target < tokenizer->vocab_size();
  return known ? tokenizer->byte_length(static_cast<int32_t>(target)) : 0;
}

Total score_source(const NllJob& job, const NllUnits& units, NllScorer& scorer,
                   const std::string& label) {
  // Groups to draw anew, as many as a bounded table of sums holds.
  constexpr int64_t kMostGroups = 1024, kMostSums = 1 << 22;
  const CurveGrid grid = job.grid();
  const int64_t most =
      std::clamp<int64_t>(kMostSums / static_cast<int64_t>(grid.intervals()), 2, kMostGroups);
  const int64_t groups = job.config.fit == "none" ? 1 : std::min(units.count, most);
  const int64_t front = job.packing.padding_to_score();
  Total total{.sums = NllSums(grid, groups, job.packing.multiple, front)};

  std::vector<int64_t> order(static_cast<size_t>(units.count)), inputs;
  std::iota(order.begin(), order.end(), int64_t{0});
  for (const int64_t k : order) inputs.push_back(units.sequence(k).inputs());
  // by length, so that a batch holds little padding
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return inputs[static_cast<size_t>(a)] > inputs[static_cast<size_t>(b)];
  });
  Progress progress(label, std::accumulate(inputs.begin(), inputs.end(), int64_t{0}), "tokens");
  int64_t done = 0;
  const auto begin_time = std::chrono::steady_clock::now();
  for (int64_t begin = 0; begin < units.count; begin += job.args.batch) {
    const int64_t end = std::min(begin + job.args.batch, units.count);
    const std::span<const int64_t> batch(order.data() + begin, order.data() + end);
    std::vector<NllSequence> rows;
    for (const int64_t k : batch) rows.push_back(units.sequence(k));
    RecallSplit recall(rows.size(), job.data.frequent);
    scorer.score(rows, [&](const ScoredPart& part) {
      const int64_t group = batch[part.row] * groups / units.count;
      for (size_t t = 0; t < part.columns.targets.size(); ++t) {
        done += part.columns.segment[t] >= 0;
        const int64_t target = part.columns.targets[t];
        if (target == kIgnored) continue;
        total.sums.add(group, part.begin + static_cast<int64_t>(t) - front, part.nll[t]);
        total.bytes += byte_length(target, job.loaded.tokenizer.get());
      }
      if (job.config.recall_split) recall.add(part);
      progress.update(done);
    });
    total.recall += recall.sums();
  }
  total.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_time).count();
  total.state_bytes = scorer.state_bytes();
  return total;
}

Json cost_of(const Total& total) {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return {{"seconds", total.seconds},
          {"threads", at::get_num_threads()},
          {"state_bytes", total.state_bytes > 0 ? Json(total.state_bytes) : Json()},
          // of the process so far, its model and all cells before included
          {"peak_resident_bytes", int64_t{1024} * usage.ru_maxrss}};
}

Json numbers(const NllJob& job, std::span<const size_t> which, const Total& total) {
  const NllConfig& config = job.config;
  const int64_t scored = total.sums.count();
  if (scored == 0) {
    throw bad_usage(
        "nothing to score: --skip, --last and the model's unscored prefix leave no target");
  }
  const double nll = total.sums.nll() / static_cast<double>(scored);
  const double bits = total.sums.nll() / std::log(2.0);
  Json json;
  json["tokens_scored"] = scored;
  json["bytes_scored"] = total.bytes > 0 ? Json(total.bytes) : Json();
  json["nll"] = nll;
  json["ppl"] = std::exp(nll);
  json["bpb"] = total.bytes > 0 ? Json(bits / static_cast<double>(total.bytes)) : Json();
  json["nll_by_position"] = total.sums.by_bucket();
  json["nll_cumulative"] = total.sums.cumulative();
  if (job.packing.multiple > 1) {
    json["nll_by_block_position"] = total.sums.by_block_position();
    json["tokens_scored_by_block_position"] = total.sums.counts_by_block_position();
  }
  if (config.recall_split) json["nll_by_recall"] = total.recall.json();
  if (config.fit != "none") {
    json["power_law"] = total.sums.fit(config.fit, config.unit, kResamples,
                                       RandomStream(job.args.seed).fork("nll power law"));
  }
  for (const size_t i : which) {
    for (const auto& [key, value] : job.sources[i].counts.items())
      json[key] = value.get<int64_t>() + (json.contains(key) ? json[key].get<int64_t>() : 0);
  }
  if (config.cost) json["cost"] = cost_of(total);
  return json;
}

/// Cells of one scorer: each source, and all where there are several. A source that this process
/// scored is not scored again for all of them.
void add_cells(std::vector<Cell>& cells, const NllJob& job, const Json& identity,
               std::shared_ptr<NllScorer> scorer, const std::string& name) {
  const auto totals = std::make_shared<std::map<size_t, Total>>();
  const auto add = [&](std::vector<size_t> which) {
    Json own = identity;
    job.add_rules(own, which);
    cells.push_back({std::move(own), [=, &job] {
                       std::optional<Total> sum;
                       for (const size_t i : which) {
                         if (!totals->contains(i)) {
                           totals->emplace(
                               i, score_source(job, job.sources[i], *scorer, "nll of " + name));
                         }
                         const Total& total = totals->at(i);
                         if (sum)
                           *sum += total;
                         else
                           sum = total;
                       }
                       return numbers(job, which, *sum);
                     }});
  };
  std::vector<size_t> all;
  for (size_t i = 0; i < job.sources.size(); ++i) {
    add({i});
    all.push_back(i);
  }
  if (all.size() > 1) add(all);
}

std::vector<std::string> table_row(const Json& record, bool with_data) {
  const bool is_model = record.contains("step");
  const auto count = [&](const char* key) {
    return record[key].is_null() ? "-" : with_commas(record[key].get<int64_t>());
  };
  std::vector<std::string> row = {record["model"].get<std::string>()};
  if (with_data) row.push_back(record["data"].get<std::string>());
  row.insert(
      row.end(),
      {is_model ? count("step") : "-", count("window"), count("stride"), count("tokens_scored"),
       fmt::format("{:.4f}", record["nll"].get<double>()),
       fmt::format("{:.2f}", record["ppl"].get<double>()),
       record["bpb"].is_null() ? "n/a" : fmt::format("{:.4f}", record["bpb"].get<double>())});
  return row;
}

}  // namespace

EvalTable run_nll(const NllConfig& config, const EvalArgs& args) {
  check_nll(config);
  const NllData data = open_nll_data(config);
  const bool several = data.files.size() > 1;
  EvalTable table = {
      {"model", "step", "window", "stride", "tokens scored", "nll", "ppl", "bits/byte"}};
  if (several) table.front().insert(table.front().begin() + 1, "data");
  bool with_unigram = !config.unigram.empty();
  for (const std::string& input : args.inputs) {
    const LoadedModel loaded = args.load(input);
    const NllJob job = make_nll_job(config, args, loaded, data, input);
    std::vector<Cell> cells;
    // Once, over the first model's vocabulary and windows.
    if (std::exchange(with_unigram, false)) {
      const TokenFile file(TokenFileSpec{.path = config.unigram, .dtype = config.data_dtype});
      check_tokenizer(file, loaded, input);
      auto nll = unigram_nll(file, loaded.model->vocab_size());
      add_cells(cells, job,
                {{"evaluation", "nll"},
                 {"model", kUnigram},
                 {"counts_from", config.unigram},
                 {"counts_hash", file.content_hash()},
                 {"seed", args.seed}},
                std::make_shared<UnigramScorer>(std::move(nll), job.packing), kUnigram);
    }
    add_cells(cells, job, about("nll", args, input, loaded),
              std::make_shared<ModelScorer>(*loaded.model, args.device, config.chunk,
                                            cache_dtype_of(config.cache_dtype)),
              input);
    for (const Json& record : args.cells->run("nll " + input, cells))
      table.push_back(table_row(record, several));
  }
  return table;
}

}  // namespace tandem
