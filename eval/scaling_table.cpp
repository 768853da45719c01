#include "eval/scaling_table.h"

#include <fmt/format.h>

#include <cmath>

#include "core/log.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;

std::string number(double value) {
  const bool extreme = std::abs(value) >= 1e4 || std::abs(value) < 1e-3;
  return extreme ? fmt::format("{:.3g}", value) : fmt::format("{:.4g}", value);
}

/// JSON has no infinity.
std::string number(const Json& value) {
  return value.is_null() ? "inf" : number(value.get<double>());
}

std::string with_interval(const Json& value, const Json& interval) {
  if (interval.is_null()) return number(value);
  return fmt::format("{} [{}, {}]", number(value), number(interval[0]), number(interval[1]));
}

std::string value_of(const Json& record, const std::string& key) {
  if (!record.contains(key)) return "n/a";
  return with_interval(record[key], record["intervals"].value(key, Json()));
}

void add_law(EvalTable& table, const LawNames& names, const std::vector<Json>& records) {
  bool first = true;
  for (const Json& record : records) {
    if (record["fit"] != names.fit) continue;
    if (first) {
      std::vector<std::string> heading = {names.formula, "runs"};
      for (const auto& key : keys_of(names)) heading.push_back(key);
      heading.push_back("rmse of log L");
      heading.push_back("exponents");
      table.push_back(std::move(heading));
    }
    first = false;
    std::vector<std::string> row = {record["group"], std::to_string(record["runs"].get<int64_t>())};
    for (const auto& key : keys_of(names)) row.push_back(value_of(record, key));
    row.push_back(record.contains("rmse_log") ? number(record["rmse_log"]) : "n/a");
    row.push_back(record["separated"].get<bool>() ? "separated" : "not separated");
    table.push_back(std::move(row));
  }
}

void add_iso_flop(EvalTable& table, const std::vector<Json>& records) {
  bool first = true;
  for (const Json& record : records) {
    if (record["fit"] != "iso_flop") continue;
    if (first) {
      table.push_back({""});
      table.push_back({"equal FLOPs", "runs", "FLOPs", "best N", "loss there", "note"});
    }
    first = false;
    for (const Json& curve : record["budgets"]) {
      std::string best = "none", note;
      if (!curve["best_parameters"].is_null()) {
        best = with_interval(curve["best_parameters"], curve["interval"]);
        if (!curve["within_sizes"].get<bool>()) note = "outside the sizes trained";
      } else {
        note = "no lowest point";
      }
      table.push_back({record["group"], std::to_string(curve["runs"].get<int64_t>()),
                       number(curve["flops"]), best,
                       curve["best_loss"].is_null() ? "n/a" : number(curve["best_loss"]), note});
    }
    if (record["exponent"].is_null()) continue;
    const std::string law = "C^" + with_interval(record["exponent"], record["exponent_interval"]);
    table.push_back({record["group"], "", "best N as", law});
  }
}

void add_pareto(EvalTable& table, const std::vector<Json>& records) {
  for (const Json& record : records) {
    if (record["fit"] != "pareto") continue;
    table.push_back({""});
    table.push_back({"Pareto: " + record["case"].get<std::string>(), "batch", "loss", "tokens/s",
                     "memory of a row", "on the front of loss and"});
    for (const Json& p : record["points"]) {
      std::string fronts;
      if (p["on_throughput_front"].get<bool>()) fronts = "throughput";
      if (p["on_memory_front"].get<bool>()) fronts += fronts.empty() ? "memory" : ", memory";
      if (fronts.empty() && p["on_front"].get<bool>()) fronts = "both together";
      table.push_back({p["run"], p["batch"].is_null() ? "" : p["batch"].dump(), number(p["loss"]),
                       with_commas(std::llround(p["tokens_per_second"].get<double>())),
                       human_bytes(p["bytes_per_row"].get<double>()),
                       fronts.empty() ? "-" : fronts});
    }
  }
}

}  // namespace

const LawNames kOfSizeAndTokens = {"loss_of_parameters_and_tokens",
                                   "L = E + A/N^alpha + B/D^beta",
                                   "E",
                                   {"A", "B"},
                                   {"alpha", "beta"}};
const LawNames kOfCompute = {"loss_of_compute", "L = a C^-b + c", "c", {"a"}, {"b"}};

std::vector<std::string> keys_of(const LawNames& names) {
  std::vector<std::string> keys = {names.floor};
  for (size_t k = 0; k < names.exponents.size(); ++k) {
    keys.push_back(names.coefficients[k]);
    keys.push_back(names.exponents[k]);
  }
  return keys;
}

EvalTable scaling_table(const std::vector<Json>& records) {
  EvalTable table;
  add_law(table, kOfSizeAndTokens, records);
  table.push_back({""});
  add_law(table, kOfCompute, records);
  add_iso_flop(table, records);
  add_pareto(table, records);
  return table;
}

}  // namespace tandem
