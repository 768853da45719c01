#include "eval/scaling.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "core/checksum.h"
#include "core/error.h"
#include "core/log.h"
#include "eval/iso_flop.h"
#include "eval/pareto.h"
#include "eval/scaling_table.h"

namespace tandem {

const char* const kScalingHelp =
    "Inputs are files of JSON lines: sweep.jsonl of `tandem sweep`, lines of one's own with\n"
    "non_embedding_parameters (or parameters), tokens, loss, compute and group, and the output of\n"
    "`tandem bench inference` on the runs. Each group gets the laws L = E + A/N^alpha + B/D^beta "
    "and\n"
    "L = a C^-b + c, and a parabola for each budget of FLOPs with three sizes; all groups share "
    "the\n"
    "Pareto fronts.\n"
    "--loss validation|train; --parameters non_embedding|all counts N; --compute measured|6nd is "
    "C;\n"
    "--memory state|peak bytes of a row; --resamples of the bootstrap and --level of its "
    "intervals.\n"
    "Example: tandem eval scaling runs/sweeps/yoco_sizes/sweep.jsonl --out fits.jsonl";

namespace {

using Json = nlohmann::ordered_json;

constexpr double kLargestExponent = 2;   // of language models none is near
constexpr double kSmallestFloor = 0.01;  // of the lowest loss
constexpr size_t kCurvePoints = 40;

std::set<double> distinct(const std::vector<double>& values) {
  return {values.begin(), values.end()};
}

double correlation_of_logs(const std::vector<double>& x, const std::vector<double>& y) {
  const auto n = static_cast<double>(x.size());
  double mean_x = 0, mean_y = 0, xx = 0, yy = 0, xy = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    mean_x += std::log(x[i]) / n;
    mean_y += std::log(y[i]) / n;
  }
  for (size_t i = 0; i < x.size(); ++i) {
    const double a = std::log(x[i]) - mean_x, b = std::log(y[i]) - mean_y;
    xx += a * a, yy += b * b, xy += a * b;
  }
  return xx > 0 && yy > 0 ? xy / std::sqrt(xx * yy) : 0;
}

/// The numbers of a law in the order of its names: floor, then coefficient and exponent of each
/// term.
std::vector<double> numbers_of(const LossLaw& law) {
  std::vector<double> numbers = {law.floor};
  for (size_t k = 0; k < law.exponents.size(); ++k) {
    numbers.push_back(std::exp(law.log_coefficients[k]));
    numbers.push_back(law.exponents[k]);
  }
  return numbers;
}

/// What intervals say against exponents.
std::vector<std::string> doubts_of_intervals(const LawNames& names,
                                             const std::vector<Interval>& intervals,
                                             double lowest_loss) {
  std::vector<std::string> doubts;
  for (size_t k = 0; k < names.exponents.size(); ++k) {
    const Interval& of = intervals[2 + 2 * k];
    if (!(of.low > 0))
      doubts.push_back(fmt::format("the interval of {} covers 0", names.exponents[k]));
    if (!(of.high < kLargestExponent))
      doubts.push_back(fmt::format("the interval of {} reaches {:g} and more", names.exponents[k],
                                   kLargestExponent));
  }
  if (!(intervals[0].low >= kSmallestFloor * lowest_loss))
    doubts.push_back(fmt::format("the interval of {} reaches 0", names.floor));
  return doubts;
}

/// From the least C to three times the greatest, evenly in its log.
std::vector<double> curve_grid(const std::vector<double>& c) {
  const auto [least, greatest] = std::minmax_element(c.begin(), c.end());
  std::vector<double> grid;
  for (size_t i = 0; i < kCurvePoints; ++i)
    grid.push_back(*least *
                   std::pow(3 * *greatest / *least, static_cast<double>(i) / (kCurvePoints - 1)));
  return grid;
}

Json pair_of(const Interval& interval) { return {interval.low, interval.high}; }

Json fit_record(const LawNames& names, const LossPoints& points, const ScalingConfig& config,
                const RandomStream& stream) {
  const size_t terms = points.x.size();
  std::vector<std::string> doubts = doubts_of_runs(points);
  const bool varied = std::all_of(points.x.begin(), points.x.end(), vary);
  const bool fitted = varied && points.size() >= 1 + 2 * terms;
  Json record = {{"formula", names.formula}, {"fitted", fitted}};
  if (!fitted) {
    record["separated"] = false;
    record["doubts"] = doubts;
    return record;
  }
  const LossLaw law = fit_loss_law(points);
  const std::vector<double> grid = terms == 1 ? curve_grid(points.x[0]) : std::vector<double>{};
  const auto numbers_and_curve = [&](const LossLaw& of) {
    std::vector<double> numbers = numbers_of(of);
    for (const double c : grid) numbers.push_back(of(std::span(&c, 1)));
    return numbers;
  };
  const Bootstrap boot = bootstrap(points.size(), config.resamples, config.level, stream,
                                   [&](std::span<const size_t> runs) {
                                     const LossPoints drawn = points.select(runs);
                                     // Fewer than two values of x have no exponent.
                                     for (const auto& x : drawn.x) {
                                       if (distinct(x).size() < 2) return std::vector<double>();
                                     }
                                     return numbers_and_curve(fit_loss_law(drawn, &law));
                                   });
  const auto keys = keys_of(names);
  const auto numbers = numbers_and_curve(law);
  for (size_t i = 0; i < keys.size(); ++i) record[keys[i]] = numbers[i];
  record["intervals"] = Json::object();
  if (!boot.intervals.empty()) {
    for (size_t i = 0; i < keys.size(); ++i)
      record["intervals"][keys[i]] = pair_of(boot.intervals[i]);
    const double lowest = *std::min_element(points.loss.begin(), points.loss.end());
    for (auto& doubt : doubts_of_intervals(names, boot.intervals, lowest))
      doubts.push_back(std::move(doubt));
  } else {
    doubts.push_back("no resample of the runs could be fitted");
  }
  record["good_resamples"] = boot.good;
  record["huber_sum"] = law.objective;
  record["rmse_log"] = law.rmse;
  record["separated"] = doubts.empty();
  record["doubts"] = doubts;
  for (size_t i = 0; i < grid.size(); ++i) {
    Json point = {{"compute", grid[i]}, {"loss", numbers[keys.size() + i]}};
    if (!boot.intervals.empty()) point["interval"] = pair_of(boot.intervals[keys.size() + i]);
    record["curve"].push_back(std::move(point));
  }
  return record;
}

Json iso_flop_record(std::span<const ScalingRun> runs, const ScalingConfig& config,
                     const RandomStream& stream) {
  const auto or_null = [](const auto& value) { return value ? Json(*value) : Json(); };
  const auto interval_or_null = [](const auto& value) { return value ? pair_of(*value) : Json(); };
  const IsoFlop found = iso_flop(runs, config.resamples, config.level, stream);
  Json record = {{"budgets", Json::array()}};
  for (const IsoFlopCurve& curve : found.curves) {
    const auto [least, greatest] = std::minmax_element(curve.n.begin(), curve.n.end());
    record["budgets"].push_back(
        {{"flops", curve.budget},
         {"runs", curve.n.size()},
         {"parameters", curve.n},
         {"losses", curve.loss},
         {"parabola",
          {{"middle", curve.parabola.middle},
           {"c0", curve.parabola.c0},
           {"c1", curve.parabola.c1},
           {"c2", curve.parabola.c2}}},
         {"best_parameters", or_null(curve.best_n)},
         {"interval", interval_or_null(curve.best_n_interval)},
         {"resamples_with_minimum", curve.resamples_with_minimum},
         {"within_sizes", curve.best_n && *curve.best_n >= *least && *curve.best_n <= *greatest},
         {"best_loss", curve.best_n ? Json(curve.parabola.at(*curve.best_n)) : Json()}});
  }
  record["exponent"] = or_null(found.exponent);  // best N ~ C ^ exponent
  record["exponent_interval"] = interval_or_null(found.exponent_interval);
  return record;
}

std::string without_slash(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}

/// By case: what was measured of the runs, or their training where nothing was.
std::map<std::string, std::vector<ParetoPoint>> pareto_cases(const ScalingPoints& points) {
  std::map<std::string, std::vector<ParetoPoint>> cases;
  std::map<std::string, const ScalingRun*> by_folder;
  for (const ScalingRun& run : points.runs) by_folder[without_slash(run.folder)] = &run;
  for (const BenchPoint& bench : points.bench) {
    const auto at = by_folder.find(without_slash(bench.model));
    if (at == by_folder.end()) {
      log_warning(bench.model + " was measured, but is no run of these files; it is left out");
      continue;
    }
    const ScalingRun& run = *at->second;
    cases[bench.of_case].push_back(
        {run.name, run.group, bench.batch, run.loss, bench.tokens_per_second, bench.bytes_per_row});
  }
  if (!cases.empty()) return cases;
  std::vector<ParetoPoint> training;
  for (const ScalingRun& run : points.runs) {
    if (run.tokens_per_second && run.state_bytes)
      training.push_back(
          {run.name, run.group, 0, run.loss, *run.tokens_per_second, *run.state_bytes});
  }
  if (training.size() > 1) cases["training"] = std::move(training);
  return cases;
}

Json pareto_record(std::vector<ParetoPoint> points) {
  mark_fronts(points);
  Json list = Json::array();
  for (const ParetoPoint& p : points) {
    list.push_back({{"run", p.run},
                    {"group", p.group},
                    {"batch", p.batch == 0 ? Json() : Json(p.batch)},
                    {"loss", p.loss},
                    {"tokens_per_second", p.tokens_per_second},
                    {"bytes_per_row", p.bytes_per_row},
                    {"on_throughput_front", p.on_throughput_front},
                    {"on_memory_front", p.on_memory_front},
                    {"on_front", p.on_front}});
  }
  return {{"points", list}};
}

/// What decides a fit: its runs by their numbers, not by the files they came in.
std::string hash_of(const std::vector<double>& numbers) {
  return sha256_hex(std::as_bytes(std::span(numbers))).substr(0, 16);
}

void warn_of_doubts(const std::vector<Json>& records) {
  for (const Json& record : records) {
    if (!record.contains("doubts") || record["doubts"].empty()) continue;
    std::string text;
    for (const Json& doubt : record["doubts"])
      text += (text.empty() ? "" : "; ") + doubt.get<std::string>();
    const std::string group = record["group"], formula = record["formula"];
    log_warning(group + ": the runs cannot separate the exponents of " + formula + ": " + text);
  }
}

}  // namespace

std::vector<std::string> doubts_of_runs(const LossPoints& points) {
  const size_t terms = points.x.size(), numbers = 1 + 2 * terms;
  // Three degrees of freedom are left for the scatter of the runs, without which no interval means
  // much.
  const size_t fewest = numbers + 3;
  std::vector<std::string> doubts;
  if (points.size() < fewest)
    doubts.push_back(fmt::format("{} runs for {} numbers, expected at least {}", points.size(),
                                 numbers, fewest));
  const char* names[] = {terms == 1 ? "FLOPs" : "N", "D"};
  for (size_t k = 0; k < terms; ++k) {
    const size_t n = distinct(points.x[k]).size();
    if (n < 3) {
      doubts.push_back(
          fmt::format("{} value{} of {}, expected at least 3", n, n == 1 ? "" : "s", names[k]));
    } else if (!vary(points.x[k])) {
      const auto [least, greatest] = std::minmax_element(points.x[k].begin(), points.x[k].end());
      doubts.push_back(fmt::format("the greatest {} is {:.2f} of the least, expected at least {:g}",
                                   names[k], *greatest / *least, kLeastSpan));
    }
  }
  if (terms < 2) return doubts;
  std::map<double, std::set<double>> d_of_n, n_of_d;
  for (size_t i = 0; i < points.size(); ++i) {
    d_of_n[points.x[0][i]].insert(points.x[1][i]);
    n_of_d[points.x[1][i]].insert(points.x[0][i]);
  }
  const auto one_each = [](const auto& map) {
    return std::all_of(map.begin(), map.end(),
                       [](const auto& entry) { return entry.second.size() == 1; });
  };
  if (one_each(d_of_n) && n_of_d.size() > 1) {
    doubts.push_back(
        "every N has one D: what more parameters do and what more tokens do cannot be told apart");
  } else if (const double r = correlation_of_logs(points.x[0], points.x[1]); std::abs(r) > 0.98) {
    doubts.push_back(fmt::format("N and D go together (correlation {:.3f} of their logs)", r));
  }
  return doubts;
}

EvalTable run_scaling(const ScalingConfig& config, const EvalArgs& args) {
  const ScalingPoints points = read_scaling_points(args.inputs, config);
  if (points.runs.empty())
    throw bad_usage(
        "no runs in the inputs: eval scaling needs a sweep.jsonl, or lines with parameters, tokens "
        "and loss");
  std::vector<std::string> groups;  // in the order of the files
  std::map<std::string, std::vector<ScalingRun>> by_group;
  for (const ScalingRun& run : points.runs) {
    if (!by_group.contains(run.group)) groups.push_back(run.group);
    by_group[run.group].push_back(run);
  }
  const RandomStream random = RandomStream(args.seed).fork("scaling");
  std::vector<Cell> cells;
  const auto identity = [&](const std::string& fit, const std::string& name,
                            const std::string& value, size_t runs,
                            const std::vector<double>& numbers) {
    return Json{{"evaluation", "scaling"},
                {"fit", fit},
                {name, value},
                {"runs", runs},
                {"points", hash_of(numbers)},
                {"loss", config.loss},
                {"parameters", config.parameters},
                {"compute", config.compute},
                {"level", config.level},
                {"resamples", config.resamples},
                {"seed", args.seed}};
  };
  for (const std::string& group : groups) {
    const auto& runs = by_group[group];
    LossPoints of_size, of_compute;
    of_size.x.resize(2);
    of_compute.x.resize(1);
    std::vector<double> numbers;
    for (const ScalingRun& run : runs) {
      of_size.x[0].push_back(run.n);
      of_size.x[1].push_back(run.d);
      of_compute.x[0].push_back(run.c);
      of_size.loss.push_back(run.loss);
      of_compute.loss.push_back(run.loss);
      numbers.insert(numbers.end(), {run.n, run.d, run.c, run.loss, run.budget.value_or(0)});
    }
    const RandomStream stream = random.fork(group);
    cells.push_back(
        {identity(kOfSizeAndTokens.fit, "group", group, runs.size(), numbers), [=, &config] {
           return fit_record(kOfSizeAndTokens, of_size, config, stream.fork("size"));
         }});
    cells.push_back({identity(kOfCompute.fit, "group", group, runs.size(), numbers), [=, &config] {
                       return fit_record(kOfCompute, of_compute, config, stream.fork("compute"));
                     }});
    if (!iso_flop(runs, 0, config.level, stream).curves.empty())
      cells.push_back({identity("iso_flop", "group", group, runs.size(), numbers), [=, &config] {
                         return iso_flop_record(runs, config, stream.fork("iso_flop"));
                       }});
  }
  for (const auto& [of_case, of_points] : pareto_cases(points)) {
    std::vector<double> numbers;
    for (const ParetoPoint& p : of_points)
      numbers.insert(numbers.end(), {p.loss, p.tokens_per_second, p.bytes_per_row});
    Json who = identity("pareto", "case", of_case, of_points.size(), numbers);
    who["memory"] = config.memory;
    cells.push_back({std::move(who), [of = of_points] { return pareto_record(of); }});
  }
  const std::vector<Json> records = args.cells->run("scaling", cells);
  warn_of_doubts(records);
  return scaling_table(records);
}

}  // namespace tandem
