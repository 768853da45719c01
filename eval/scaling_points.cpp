#include "eval/scaling_points.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "core/error.h"
#include "core/file.h"
#include "core/json_lines.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;

std::optional<double> number_at(const Json& object, const char* key) {
  const auto at = object.find(key);
  if (at == object.end() || at->is_null()) return std::nullopt;
  if (!at->is_number())
    throw std::runtime_error(fmt::format("{} = {}, expected a number", key, at->dump()));
  return at->get<double>();
}

double positive_at(const Json& object, const char* key, const std::string& otherwise) {
  const auto value = number_at(object, key);
  if (!value) throw std::runtime_error(fmt::format("has no {}{}", key, otherwise));
  if (!(*value > 0) || !std::isfinite(*value))
    throw std::runtime_error(
        fmt::format("{} = {}, expected a number > 0", key, json_number(*value)));
  return *value;
}

std::string text_at(const Json& object, const char* key, const std::string& otherwise) {
  return object.contains(key) ? get_string(object, key) : otherwise;
}

ScalingRun run_of(const Json& line, const ScalingConfig& config) {
  ScalingRun run;
  run.name = text_at(line, "run", "");
  run.group = text_at(line, "group", "all");
  run.folder = text_at(line, "folder", run.name);
  const bool all = config.parameters == "all";
  run.n = positive_at(line, all ? "parameters" : "non_embedding_parameters",
                      all ? "; give --parameters non_embedding" : "; give --parameters all");
  run.d = positive_at(line, "tokens", "");
  const bool train = config.loss == "train";
  if (line.contains("loss"))
    run.loss = positive_at(line, "loss", "");
  else
    run.loss = positive_at(line, train ? "train_loss" : "validation_loss",
                           train ? "" : "; give --loss train");
  run.c = config.compute == "6nd" ? 6 * run.n * run.d
                                  : positive_at(line, "compute", "; give --compute 6nd");
  run.budget = number_at(line, "flops_budget");
  run.tokens_per_second = number_at(line, "tokens_per_second");
  run.state_bytes = number_at(line, "state_bytes");
  return run;
}

BenchPoint bench_of(const Json& line, const ScalingConfig& config) {
  BenchPoint point;
  point.model = get_string(line, "model");
  point.batch = get_int(line, "batch", 1, INT64_MAX);
  const std::string protocol = get_string(line, "protocol");
  point.of_case =
      fmt::format("{}, {} + {} tokens", protocol, get_int(line, "prompt_length", 0, INT64_MAX),
                  get_int(line, "decode_length", 0, INT64_MAX));
  point.tokens_per_second =
      protocol == "decode"
          ? positive_at(line, "decode_tokens_per_s", "")
          : positive_at(line.value("throughput_tokens_per_s", Json::object()), "median", "");
  if (config.memory == "peak")
    point.bytes_per_row =
        positive_at(line, "peak_bytes", "; give --memory state") / static_cast<double>(point.batch);
  else
    point.bytes_per_row =
        positive_at(line.value("state_bytes_per_row_at_end", Json::object()), "total", "");
  return point;
}

}  // namespace

ScalingPoints read_scaling_points(std::span<const std::string> paths, const ScalingConfig& config) {
  ScalingPoints points;
  std::set<std::string> seen;  // hashes of a sweep's records, and lines without
  for (const std::string& path : paths) {
    const std::string text = read_text(path);
    int64_t number = 1;
    for (size_t begin = 0, end; begin < text.size(); begin = end + 1, ++number) {
      end = std::min(text.find('\n', begin), text.size());
      const std::string_view one = std::string_view(text).substr(begin, end - begin);
      if (one.empty()) continue;
      try {
        const Json line = parse_json(one);
        if (!line.is_object()) throw std::runtime_error("expected an object");
        if (!seen.insert(text_at(line, "hash", std::string(one))).second) continue;
        if (line.contains("benchmark")) {
          points.bench.push_back(bench_of(line, config));
        } else if (line.contains("tokens")) {
          points.runs.push_back(run_of(line, config));
        } else {
          throw std::runtime_error(
              "expected a record of `tandem sweep` (parameters, tokens, loss) or of `tandem bench "
              "inference`");
        }
      } catch (const std::runtime_error& error) {
        throw bad_file(path + ":" + std::to_string(number), error.what());
      }
    }
  }
  return points;
}

bool vary(std::span<const double> values) {
  const auto [least, greatest] = std::minmax_element(values.begin(), values.end());
  return least != values.end() && *greatest >= kLeastSpan * *least;
}

}  // namespace tandem
