#include "eval/needle_table.h"

#include <fmt/format.h>

#include <map>
#include <set>

#include "core/log.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::pair<const char*, const char*> kScores[] = {
    {"exact", "exact"}, {"substring", "substring"}, {"decoy_accuracy", "decoys"}};

std::string line_of(const Json& record) {
  const auto needles = record["needles"].get<int64_t>();
  return record["task"].get<std::string>() + (needles > 1 ? fmt::format(" x{}", needles) : "") +
         (record["remove_needle"] == true ? " removed" : "");
}

}  // namespace

std::string short_length(int64_t tokens) {
  constexpr int64_t kKibi = 1024, kMebi = kKibi * kKibi;
  if (tokens % kMebi == 0) return fmt::format("{}M", tokens / kMebi);
  if (tokens % kKibi == 0) return fmt::format("{}K", tokens / kKibi);
  return with_commas(tokens);
}

EvalTable needle_table(std::span<const Json> records) {
  struct Line {
    std::string model, task;
    std::map<int64_t, std::map<double, Json>> cells;  // by length and depth
  };
  std::vector<Line> lines;
  std::set<double> depths;
  for (const Json& record : records) {
    const std::string model = record["model"], task = line_of(record);
    if (lines.empty() || lines.back().model != model || lines.back().task != task)
      lines.push_back({.model = model, .task = task, .cells = {}});
    const double depth = record["depth"];
    depths.insert(depth);
    lines.back().cells[record["length"].get<int64_t>()][depth] = record;
  }
  EvalTable table = {{"model", "task", "score", "tokens"}};
  for (const double depth : depths) table[0].push_back(fmt::format("{:.2f}", depth));
  table[0].push_back("mean");
  for (const Line& line : lines) {
    for (const auto& [key, name] : kScores) {
      for (const auto& [length, cells] : line.cells) {
        std::vector<std::string> row = {line.model, line.task, name, short_length(length)};
        double sum = 0, n = 0;
        for (const double depth : depths) {
          const auto cell = cells.find(depth);
          const bool has = cell != cells.end() && cell->second[key].is_number();
          const double value = has ? cell->second[key].get<double>() : 0;
          row.push_back(has ? fmt::format("{:.2f}", value) : "");
          sum += value;
          n += has ? 1 : 0;
        }
        if (n == 0) continue;  // no decoys
        row.push_back(fmt::format("{:.3f}", sum / n));
        table.push_back(std::move(row));
      }
    }
  }
  return table;
}

}  // namespace tandem
