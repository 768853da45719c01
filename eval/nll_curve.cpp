#include "eval/nll_curve.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kLevel = 0.95;

std::vector<int64_t> linear_edges(int64_t positions, int64_t n) {
  const int64_t width = (positions + n - 1) / n;
  std::vector<int64_t> edges;
  for (int64_t begin = 0; begin < positions; begin += width) edges.push_back(begin);
  edges.push_back(positions);
  return edges;
}

std::vector<int64_t> log_edges(int64_t positions, int64_t n) {
  std::vector<int64_t> edges = {0};
  for (int64_t i = 0; i <= n; ++i) {
    const double share = static_cast<double>(i) / static_cast<double>(n);
    const auto edge = std::llround(std::pow(static_cast<double>(positions), share));
    if (edge > edges.back()) edges.push_back(edge);
  }
  edges.back() = positions;
  return edges;
}

Json finite(double value) { return std::isfinite(value) ? Json(value) : Json(); }

Json interval_json(const std::optional<Interval>& interval) {
  return interval ? Json::array({finite(interval->low), finite(interval->high)}) : Json();
}

}  // namespace

CurveGrid::CurveGrid(int64_t positions, int64_t n_buckets, const std::string& scale) {
  if (positions < 1 || n_buckets < 1) {
    throw std::logic_error(fmt::format("CurveGrid: {} positions, {} buckets, expected 1 or more",
                                       positions, n_buckets));
  }
  n_buckets = std::min(n_buckets, positions);
  buckets = scale == "log" ? log_edges(positions, n_buckets) : linear_edges(positions, n_buckets);
  for (int64_t n = 1; n < positions; n *= 2) lengths.push_back(n);
  lengths.push_back(positions);
  std::set_union(buckets.begin(), buckets.end(), lengths.begin(), lengths.end(),
                 std::back_inserter(edges));
}

NllSums::NllSums(const CurveGrid& grid, int64_t groups, int64_t block_length, int64_t padding)
    : grid_(grid),
      groups_(groups),
      block_length_(block_length),
      padding_(padding),
      sums_(static_cast<size_t>(groups) * grid.intervals()),
      slots_(static_cast<size_t>(block_length)) {}

void NllSums::add(int64_t group, int64_t position, double nll) {
  const auto& edges = grid_.edges;
  const auto above = std::upper_bound(edges.begin(), edges.end(), position);
  if (above == edges.end() || position < 0 || group < 0 || group >= groups_) {
    throw std::logic_error(fmt::format("NllSums: position {} of group {}, expected below {} of {}",
                                       position, group, edges.back(), groups_));
  }
  const auto interval = static_cast<size_t>(above - edges.begin()) - 1;
  Sum& sum = sums_[static_cast<size_t>(group) * grid_.intervals() + interval];
  sum.nll += nll, ++sum.count;
  Sum& slot = slots_[static_cast<size_t>((padding_ + position + 1) % block_length_)];
  slot.nll += nll, ++slot.count;
}

NllSums& NllSums::operator+=(const NllSums& other) {
  if (other.grid_.edges != grid_.edges || other.block_length_ != block_length_)
    throw std::logic_error("NllSums: sums of another grid, expected the same");
  groups_ += other.groups_;
  sums_.insert(sums_.end(), other.sums_.begin(), other.sums_.end());
  for (size_t i = 0; i < slots_.size(); ++i)
    slots_[i].nll += other.slots_[i].nll, slots_[i].count += other.slots_[i].count;
  return *this;
}

double NllSums::nll() const { return between(of_all(), 0, grid_.edges.back()).nll; }
int64_t NllSums::count() const { return between(of_all(), 0, grid_.edges.back()).count; }

NllSums::Sums NllSums::of_groups(std::span<const int64_t> times) const {
  Sums of_intervals(grid_.intervals());
  for (size_t group = 0; group < times.size(); ++group) {
    if (times[group] == 0) continue;
    const Sum* of_group = sums_.data() + group * grid_.intervals();
    for (size_t i = 0; i < of_intervals.size(); ++i) {
      of_intervals[i].nll += static_cast<double>(times[group]) * of_group[i].nll;
      of_intervals[i].count += times[group] * of_group[i].count;
    }
  }
  return of_intervals;
}

NllSums::Sums NllSums::of_all() const {
  return of_groups(std::vector<int64_t>(static_cast<size_t>(groups_), 1));
}

NllSums::Sum NllSums::between(const Sums& sums, int64_t begin, int64_t end) const {
  Sum sum;
  const auto& edges = grid_.edges;
  auto i = static_cast<size_t>(std::lower_bound(edges.begin(), edges.end(), begin) - edges.begin());
  for (; i < sums.size() && edges[i + 1] <= end; ++i)
    sum.nll += sums[i].nll, sum.count += sums[i].count;
  return sum;
}

Json NllSums::by_bucket() const {
  const Sums sums = of_all();
  Json list = Json::array();
  for (size_t i = 0; i + 1 < grid_.buckets.size(); ++i) {
    const int64_t begin = grid_.buckets[i], end = grid_.buckets[i + 1];
    const Sum sum = between(sums, begin, end);
    if (sum.count == 0) continue;
    list.push_back({{"begin", begin},
                    {"end", end},
                    {"nll", sum.nll / static_cast<double>(sum.count)},
                    {"tokens_scored", sum.count}});
  }
  return list;
}

Json NllSums::cumulative() const {
  const Sums sums = of_all();
  Json list = Json::array();
  for (const int64_t end : grid_.lengths) {
    const Sum sum = between(sums, 0, end);
    if (sum.count == 0) continue;
    list.push_back({{"end", end},
                    {"nll", sum.nll / static_cast<double>(sum.count)},
                    {"tokens_scored", sum.count}});
  }
  return list;
}

Json NllSums::by_block_position() const {
  Json list = Json::array();
  for (const Sum& slot : slots_)
    list.push_back(slot.count > 0 ? Json(slot.nll / static_cast<double>(slot.count)) : Json());
  return list;
}

std::vector<int64_t> NllSums::counts_by_block_position() const {
  std::vector<int64_t> counts;
  for (const Sum& slot : slots_) counts.push_back(slot.count);
  return counts;
}

Json NllSums::fit(const std::string& curve, const std::string& unit, int64_t resamples,
                  const RandomStream& random) const {
  const bool cumulative = curve == "cumulative";
  std::vector<std::pair<int64_t, int64_t>> points;  // positions [first, second)
  std::vector<double> n;                            // inputs before their targets
  const Sums all = of_all();
  const auto add_point = [&](int64_t begin, int64_t end, double inputs) {
    if (between(all, begin, end).count == 0) return;
    points.emplace_back(begin, end);
    n.push_back(inputs);
  };
  if (cumulative) {
    for (const int64_t end : grid_.lengths) add_point(0, end, static_cast<double>(end));
  } else {
    for (size_t i = 0; i + 1 < grid_.buckets.size(); ++i) {
      const int64_t begin = grid_.buckets[i], end = grid_.buckets[i + 1];
      add_point(begin, end, static_cast<double>(begin + end + 1) / 2);
    }
  }
  const auto curve_of = [&](std::span<const int64_t> times, std::span<double> nll,
                            std::span<double> weight) {
    const Sums sums = of_groups(times);
    for (size_t p = 0; p < points.size(); ++p) {
      const Sum sum = between(sums, points[p].first, points[p].second);
      const auto count = static_cast<double>(sum.count);
      nll[p] = sum.count > 0 ? sum.nll / count : 0;
      weight[p] = cumulative ? (sum.count > 0 ? 1 : 0) : count;
    }
  };
  const FittedPowerLaw fitted = fit_power_law(n, groups_, curve_of, resamples, kLevel, random);
  Json json = {{"curve", curve},
               {"law", "nll = a n^-b + c"},
               {"points", std::ssize(n)},
               {"weights", cumulative ? "equal" : "targets"}};
  for (const char* key : {"a", "b", "c", "error"}) json[key] = nullptr;
  if (fitted.fit) {
    json["a"] = finite(fitted.fit->law.a);
    json["b"] = finite(fitted.fit->law.b);
    json["c"] = finite(fitted.fit->law.c);
    json["error"] = finite(fitted.fit->error);
  }
  json["interval"] = {{"level", kLevel},
                      {"resampled", "groups of " + unit},
                      {"groups", groups_},
                      {"resamples", resamples},
                      {"a", interval_json(fitted.a)},
                      {"b", interval_json(fitted.b)},
                      {"c", interval_json(fitted.c)}};
  json["separated"] = fitted.why.empty();
  json["why_not"] = fitted.why.empty() ? Json() : Json("cannot be separated: " + fitted.why);
  return json;
}

}  // namespace tandem
