#include "cli/inference_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/output.h"
#include "core/log.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;
using Rows = std::vector<std::vector<std::string>>;

// YOCO's inference profile, Transformer / YOCO, throughput the other way round; the labels of its
// figures.
struct PaperRatios {
  int64_t length;  // prompt and 1,024 generated tokens
  double memory, prefill;
  std::optional<double> throughput;
};
constexpr PaperRatios kPaper[] = {
    {32'768, 1.95, 2.87, 2.72},   {65'536, 2.32, 5.05, 2.57},  {131'072, 3.01, 8.36, 2.77},
    {262'144, 4.16, 15.55, 4.37}, {524'288, 6.39, 30.3, 9.56}, {1'048'576, 9.38, 71.82, {}},
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

std::string times(double ratio) { return fmt::format("{:.2f}x", ratio); }

const PaperRatios* paper_ratios(const Json& record, const Json& reference) {
  if (record["family"] != "yoco" || reference["family"] != "transformer") return nullptr;
  const auto* found = std::find_if(std::begin(kPaper), std::end(kPaper), [&](const auto& row) {
    return row.length == record["length"].get<int64_t>();
  });
  return found == std::end(kPaper) ? nullptr : found;
}

const Json* same_case(const std::vector<Json>& records, const std::string& model,
                      const Json& record) {
  for (const Json& other : records) {
    if (other["model"] == model && other["batch"] == record["batch"] &&
        other["length"] == record["length"])
      return &other;
  }
  return nullptr;
}

}  // namespace

std::string inference_table(const std::vector<Json>& records) {
  Rows rows = {{"model", "batch", "tokens", "prefill ms (min – max)", "decode ms/token (min – max)",
                "throughput tokens/s", "runs", "state", "prefill beyond it"}};
  for (const Json& r : records) {
    rows.push_back({r["model"], with_commas(r["batch"].get<int64_t>()),
                    with_commas(r["length"].get<int64_t>()), median_and_range(r["prefill_ms"]),
                    median_and_range(r["decode_ms_per_token"]),
                    number(median(r, "throughput_tokens_per_s")),
                    with_commas(r["repeats"].get<int64_t>()), bytes_or_unknown(r["state_bytes"]),
                    bytes_or_unknown(r["prefill_beyond_state_bytes"])});
  }
  return format_table(rows);
}

std::string comparison_table(const std::vector<Json>& records, const std::string& reference) {
  Rows rows = {{"model", "batch", "tokens", "state", "prefill", "decode", "throughput"}};
  std::vector<const PaperRatios*> paper_of_row;
  for (const Json& r : records) {
    const Json* other = r["model"] == reference ? nullptr : same_case(records, reference, r);
    if (!other) continue;
    const auto ratio = [&](const char* key) { return median(*other, key) / median(r, key); };
    rows.push_back({r["model"], with_commas(r["batch"].get<int64_t>()),
                    with_commas(r["length"].get<int64_t>()),
                    times((*other)["state_bytes"].get<double>() / r["state_bytes"].get<double>()),
                    times(ratio("prefill_ms")), times(ratio("decode_ms_per_token")),
                    times(1 / ratio("throughput_tokens_per_s"))});
    paper_of_row.push_back(paper_ratios(r, *other));
  }
  if (paper_of_row.empty()) return "";
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
  return fmt::format(
      "\n{} against each model: its state and times over the model's, the model's throughput over "
      "its\n\n{}{}",
      reference, format_table(rows), note);
}

}  // namespace tandem
