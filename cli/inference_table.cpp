#include "cli/inference_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "cli/output.h"
#include "core/log.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;
using Rows = std::vector<std::vector<std::string>>;

struct PaperRatios {
  int64_t length;  // prompt and 1,024 generated tokens
  double memory, prefill;
  std::optional<double> throughput;
};
constexpr PaperRatios kPaper[] = {
#include "cli/yoco_paper_ratios.inc"
};

std::string number(double value) {
  if (value >= 100) return with_commas(std::llround(value));
  return value >= 10 ? fmt::format("{:.1f}", value) : fmt::format("{:.2f}", value);
}

std::string median_and_range(const Json& spread) {
  return fmt::format("{} ({} – {})", number(spread["median"]), number(spread["min"]),
                     number(spread["max"]));
}

std::string bytes_or_unknown(const Json& bytes) {
  return bytes.is_null() ? "?" : human_bytes(bytes.get<double>());
}

double median(const Json& record, const char* key) { return record[key]["median"]; }

std::string times(double ratio) { return std::isinf(ratio) ? "∞" : fmt::format("{:.2f}x", ratio); }

std::string tokens_cell(const Json& record) {
  return record.contains("case") ? record["case"].get<std::string>()
                                 : with_commas(record["length"].get<int64_t>());
}

const PaperRatios* paper_ratios(const Json& record, const Json& reference) {
  if (record["family"] != "yoco" || reference["family"] != "transformer") return nullptr;
  const auto* found = std::find_if(std::begin(kPaper), std::end(kPaper), [&](const auto& row) {
    return row.length == record["length"].get<int64_t>();
  });
  return found == std::end(kPaper) ? nullptr : found;
}

bool same_case(const Json& one, const Json& other) {
  return tokens_cell(one) == tokens_cell(other) && one["asked_batch"] == other["asked_batch"];
}

const Json* same_case_of(const std::vector<Json>& records, const std::string& model,
                         const Json& record) {
  for (const Json& other : records) {
    if (other["model"] == model && same_case(other, record)) return &other;
  }
  return nullptr;
}

/// A model's record with one row at the shortest length, where the weights are most of what is
/// read, and the reference's of that case; null where there is none or the reference has other
/// rows.
std::pair<const Json*, const Json*> shortest_of_one_row(const std::vector<Json>& records,
                                                        const std::string& model,
                                                        const std::string& reference) {
  std::pair<const Json*, const Json*> shortest = {nullptr, nullptr};
  for (const Json& record : records) {
    if (record["model"] != model || record["batch"] != 1) continue;
    const Json* other = same_case_of(records, reference, record);
    if (!other || (*other)["batch"] != 1) continue;
    if (!shortest.first || record["length"] < (*shortest.first)["length"])
      shortest = {&record, other};
  }
  return shortest;
}

/// Rows of the model, and of the reference where it has others.
std::string batch_cell(const Json& record, const Json& reference) {
  const std::string own = with_commas(record["batch"].get<int64_t>());
  if (record["batch"] == reference["batch"]) return own;
  return own + " / " + with_commas(reference["batch"].get<int64_t>());
}

double per_row(const Json& record, double value) { return value / record["batch"].get<double>(); }

/// With --protocol decode one row reads the prompt for all.
double prefill_ms_of_row(const Json& record) {
  const double ms = median(record, "prefill_ms");
  return record.contains("throughput_tokens_per_s") ? per_row(record, ms) : ms;
}

double decode_ms_of_row(const Json& record) {
  return per_row(record, median(record, "decode_ms_per_token"));
}

double state_of_row(const Json& record) {
  return per_row(record, record["state_bytes"].get<double>());
}

}  // namespace

std::string inference_table(const std::vector<Json>& records) {
  Rows rows = {{"model", "batch", "tokens", "prefill ms (min – max)", "decode ms/token (min – max)",
                "throughput tokens/s", "runs", "state", "prefill beyond it"}};
  for (const Json& r : records) {
    rows.push_back({r["model"], with_commas(r["batch"].get<int64_t>()), tokens_cell(r),
                    median_and_range(r["prefill_ms"]), median_and_range(r["decode_ms_per_token"]),
                    number(median(r, "throughput_tokens_per_s")),
                    with_commas(r["repeats"].get<int64_t>()), bytes_or_unknown(r["state_bytes"]),
                    bytes_or_unknown(r["prefill_beyond_state_bytes"])});
  }
  return format_table(rows);
}

std::string decode_table(const std::vector<Json>& records) {
  Rows rows = {{"model", "batch", "tokens", "decode ms/token (min – max)", "tokens/s", "runs",
                "state", "of a row", "in all at the end"}};
  for (const Json& r : records) {
    const auto batch = r["batch"].get<int64_t>();
    const double at_end = r["state_bytes_per_row_at_end"]["total"].get<double>();
    rows.push_back(
        {r["model"], with_commas(batch), tokens_cell(r), median_and_range(r["decode_ms_per_token"]),
         number(r["decode_tokens_per_s"].get<double>()), with_commas(r["repeats"].get<int64_t>()),
         bytes_or_unknown(r["state_bytes"]), human_bytes(state_of_row(r)),
         human_bytes(at_end * static_cast<double>(batch))});
  }
  return format_table(rows);
}

std::string comparison_table(const std::vector<Json>& records, const std::string& reference) {
  Rows rows = {{"model", "batch", "tokens", "state", "prefill", "decode"}};
  std::vector<const PaperRatios*> paper_of_row;
  bool with_throughput = false;
  for (const Json& r : records) {
    const Json* other = r["model"] == reference ? nullptr : same_case_of(records, reference, r);
    if (!other) continue;
    const auto ratio = [&](const auto& of_row) { return of_row(*other) / of_row(r); };
    rows.push_back({r["model"], batch_cell(r, *other), tokens_cell(r), times(ratio(state_of_row)),
                    times(ratio(prefill_ms_of_row)), times(ratio(decode_ms_of_row))});
    if (r.contains("throughput_tokens_per_s")) {
      with_throughput = true;
      rows.back().push_back(
          times(median(r, "throughput_tokens_per_s") / median(*other, "throughput_tokens_per_s")));
    }
    paper_of_row.push_back(paper_ratios(r, *other));
  }
  if (paper_of_row.empty()) return "";
  if (with_throughput) rows[0].push_back("throughput");
  std::string note;
  if (std::any_of(paper_of_row.begin(), paper_of_row.end(), [](auto* paper) { return paper; })) {
    rows[0].insert(rows[0].end(), {"paper: memory", "prefill", "throughput"});
    for (size_t i = 0; i < paper_of_row.size(); ++i) {
      if (const PaperRatios* paper = paper_of_row[i]) {
        rows[i + 1].insert(rows[i + 1].end(),
                           {times(paper->memory), times(paper->prefill),
                            paper->throughput ? times(*paper->throughput) : "not shown"});
      }
    }
    note =
        "paper: 3B, H100, total memory (weights and the rest too); 1,024 tokens generated, batch "
        "sizes not stated\n";
  }
  return fmt::format("\n{} against each model: a row's state and times over the model's{}\n\n{}{}",
                     reference, with_throughput ? ", the model's throughput over its" : "",
                     format_table(rows), note);
}

std::string cost_table(const std::vector<Json>& records, const std::string& reference) {
  Rows rows = {{"model", "linear FLOP of a token", "expected", "state of a context token",
                "expected", "attention over it", "expected", "decode at batch 1", "expected"}};
  const auto last_of = [&](const std::string& model) {
    return *std::find_if(records.rbegin(), records.rend(),
                         [&](const Json& r) { return r["model"] == model; });
  };
  for (size_t i = 0; i < records.size(); ++i) {
    const std::string model = records[i]["model"];
    if (model == reference || (i > 0 && records[i - 1]["model"] == model)) continue;
    const Json own = last_of(model), other = last_of(reference);
    const bool published =
        own.contains("expected") && own["expected"]["against_parameters"] == other["parameters"];
    const auto expected = [&](const char* key) {
      return published ? times(own["expected"][key].get<double>()) : "";
    };
    rows.push_back({model});
    for (const char* key : {"linear_flops_per_token", "state_bytes_per_context_token",
                            "attention_flops_per_context_token"}) {
      rows.back().push_back(times(other[key].get<double>() / own[key].get<double>()));
      rows.back().push_back(expected(key));
    }
    const auto [alone, others] = shortest_of_one_row(records, model, reference);
    if (!alone) continue;
    rows.back().push_back(times(decode_ms_of_row(*others) / decode_ms_of_row(*alone)));
    rows.back().push_back(expected("decode_ms_per_token"));
  }
  if (rows.size() == 1) return "";
  return fmt::format(
      "\n{} against each model: computed from the models, decoding measured; expected: of the "
      "paper's pairs, from their shapes, where decoding only reads weights\n\n{}",
      reference, format_table(rows));
}

}  // namespace tandem
