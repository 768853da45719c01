#include "eval/profile_record.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/log.h"
#include "eval/cost_json.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;

Json quantity(std::optional<double> value, const std::string& basis) {
  if (!value) return {{"value", Json()}, {"measured", false}, {"basis", Json()}};
  return {{"value", *value}, {"measured", basis == "measured"}, {"basis", basis}};
}

Json measured_quantity(const Spread& spread) {
  Json json = quantity(spread.median, "measured");
  json["min"] = spread.min;
  json["max"] = spread.max;
  return json;
}

/// Weights, cache and rest at the end of the generated tokens, and their sum.
Json memory_of(const ProfileCase& c, const std::optional<Measured>& measured) {
  InferenceMemory memory = c.memory;
  std::string cache = "shapes", rest = "estimate";
  if (measured) {
    const InferenceRun& run = measured->runs.back();
    memory.cache = static_cast<double>(run.end_state_bytes);
    cache = "measured";
    if (run.peak_bytes) {
      memory.rest = std::max(0.0, static_cast<double>(*run.peak_bytes) - memory.cache);
      rest = "measured";
    }
  }
  return {{"weights", quantity(memory.weights, "shapes")},
          {"cache", quantity(memory.cache, cache)},
          {"rest", quantity(memory.rest, rest)},
          {"total", quantity(memory.total(), rest)}};
}

/// Rates of all rows together, by key of the record.
struct Rates {
  double prefill_ms, decode_ms_per_token, decode_tokens_per_s, throughput_tokens_per_s;
};
constexpr std::pair<const char*, double Rates::*> kRates[] = {
    {"prefill_ms", &Rates::prefill_ms},
    {"decode_ms_per_token", &Rates::decode_ms_per_token},
    {"decode_tokens_per_s", &Rates::decode_tokens_per_s},
    {"throughput_tokens_per_s", &Rates::throughput_tokens_per_s}};

Rates rates_of(const InferenceSeconds& taken, const ProfileCase& c) {
  const auto rows = static_cast<double>(c.rows),
             generated = static_cast<double>(c.tokens.generated);
  return {1e3 * taken.prefill, 1e3 * taken.decode_step, rows / taken.decode_step,
          rows * generated / taken.total(c.tokens)};
}

InferenceSeconds seconds_of(const InferenceRun& run, const InferenceLength& tokens) {
  return {run.prefill_ms / 1e3, run.decode_ms / 1e3 / static_cast<double>(tokens.generated)};
}

void add_rates(Json& record, const ProfileCase& c, const ProfileTimes& times) {
  for (const auto& [key, member] : kRates) {
    if (times.measured) {
      record[key] = measured_quantity(spread_over(*times.measured, [&](const InferenceRun& run) {
        return rates_of(seconds_of(run, c.tokens), c).*member;
      }));
    } else if (times.computed) {
      record[key] = quantity(rates_of(*times.computed, c).*member, times.basis);
    } else {
      record[key] = quantity({}, "");
    }
  }
}

std::string shown(const Json& number, const std::string& text) {
  if (number["value"].is_null()) return "n/a";
  return (number["measured"].get<bool>() ? "" : "~") + text;
}

double value_or_zero(const Json& number) {
  return number["value"].is_null() ? 0 : number["value"].get<double>();
}

std::string bytes_cell(const Json& number) {
  return shown(number, human_bytes(value_or_zero(number)));
}

std::string number_cell(const Json& number) {
  const double value = value_or_zero(number);
  return shown(number, value >= 100  ? with_commas(std::llround(value))
                       : value >= 10 ? fmt::format("{:.1f}", value)
                                     : fmt::format("{:.3f}", value));
}

}  // namespace

Json profile_record(const LoadedModel& loaded, const InferenceCost& cost, const ProfileCase& c,
                    const ProfileTimes& times, double peak_flops) {
  Json record = {
      {"family", family_of(loaded)},
      {"layers", loaded.model->n_layers()},
      {"rows", c.rows},
      {"memory_limit", c.memory_limit},
      {"fits", c.fits()},
      {"computed_because_of", times.why_computed.empty() ? Json() : Json(times.why_computed)},
      {"from_length", times.from_length > 0 ? Json(times.from_length) : Json()},
      {"runs", times.measured ? Json(times.measured->runs.size()) : Json()},
      {"warm_up", times.measured ? Json(times.measured->warm_up) : Json()},
      {"memory_bytes", memory_of(c, times.measured)},
      {"cache_bytes_per_row", by_part(cost.cache(c.tokens.total()))},
      {"prefill_flops", by_part(cost.prefill_flops(c.tokens, c.rows))},
      {"decode_flops_per_token", by_part(cost.decode_flops(c.tokens))}};
  add_rates(record, c, times);
  Json& mfu = record["decode_mfu"] = quantity({}, "");
  const Json& speed = record["decode_tokens_per_s"];
  if (peak_flops > 0 && !speed["value"].is_null()) {
    mfu = quantity(cost.decode_flops(c.tokens).total() * speed["value"].get<double>() / peak_flops,
                   speed["basis"]);
  }
  const double per_token = cost.cache_bytes_per_token();
  record["kv_bytes_per_token"] = quantity(per_token, "shapes");
  record["tokens_per_gib"] =
      per_token > 0 ? quantity(std::ldexp(1.0, 30) / per_token, "shapes") : quantity({}, "");
  record["peak_flops"] = peak_flops > 0 ? Json(peak_flops) : Json();
  return record;
}

std::optional<Pace> pace_of_record(const Json& record, const InferenceCost& cost,
                                   const InferenceLength& tokens) {
  const Json &prefill = record["prefill_ms"], &decode = record["decode_ms_per_token"];
  if (!prefill["measured"].get<bool>()) return std::nullopt;
  return cost.pace_of({prefill["value"].get<double>() / 1e3, decode["value"].get<double>() / 1e3},
                      tokens, record["rows"]);
}

std::vector<std::string> profile_heading() {
  return {"model",      "tokens",     "rows",       "weights",         "cache",
          "rest",       "total",      "prefill ms", "decode ms/token", "tokens/s",
          "decode MFU", "KV B/token", "tokens/GiB", "computed as"};
}

std::vector<std::string> profile_row(const Json& record) {
  const Json& memory = record["memory_bytes"];
  const Json &mfu = record["decode_mfu"], &basis = record["prefill_ms"]["basis"];
  std::string computed = basis.is_null() ? "shapes" : basis.get<std::string>();
  if (basis == "measured") computed = "";
  if (!record["from_length"].is_null())
    computed += " from " + with_commas(record["from_length"].get<int64_t>());
  if (!record["fits"].get<bool>()) computed += computed.empty() ? "" : ", does not fit";
  return {record["model"],
          with_commas(record["length"].get<int64_t>()),
          with_commas(record["rows"].get<int64_t>()),
          bytes_cell(memory["weights"]),
          bytes_cell(memory["cache"]),
          bytes_cell(memory["rest"]),
          bytes_cell(memory["total"]),
          number_cell(record["prefill_ms"]),
          number_cell(record["decode_ms_per_token"]),
          number_cell(record["throughput_tokens_per_s"]),
          shown(mfu, fmt::format("{:.3f}%", 100 * value_or_zero(mfu))),
          number_cell(record["kv_bytes_per_token"]),
          number_cell(record["tokens_per_gib"]),
          computed};
}

}  // namespace tandem
