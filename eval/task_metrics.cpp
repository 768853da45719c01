#include "eval/task_metrics.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <stdexcept>

namespace tandem {
namespace {

bool contains(const std::vector<size_t>& places, size_t place) {
  return std::find(places.begin(), places.end(), place) != places.end();
}

// The place of the largest; the first of equal ones.
size_t best(const std::vector<double>& values) {
  return static_cast<size_t>(std::max_element(values.begin(), values.end()) - values.begin());
}

std::vector<double> over(const std::vector<double>& log_probs, const std::vector<double>& lengths) {
  std::vector<double> result;
  for (size_t i = 0; i < log_probs.size(); ++i) result.push_back(log_probs[i] / lengths[i]);
  return result;
}

std::string lower(std::string text) {
  for (char& c : text) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return text;
}

bool matches(const TaskDefinition& task, const TaskItem& item, const TaskAnswer& answer,
             bool whole) {
  const auto seen = [&](const std::string& text) { return task.ignore_case ? lower(text) : text; };
  const std::string generated = seen(answer.generated);
  return std::any_of(item.references.begin(), item.references.end(), [&](const auto& reference) {
    return whole ? generated == seen(reference)
                 : generated.find(seen(reference)) != std::string::npos;
  });
}

using PerDocument = double (*)(const TaskDefinition&, const TaskItem&, const TaskAnswer&);

double right(const TaskDefinition&, const TaskItem& item, const TaskAnswer& answer) {
  return contains(item.gold, best(answer.log_probs));
}

// Those that are the mean of a number of each document.
const std::map<std::string, std::map<std::string, PerDocument>>& means_by_kind() {
  static const std::map<std::string, std::map<std::string, PerDocument>> table = {
      {"multiple_choice",
       {{"acc", right},
        {"acc_norm",
         [](const TaskDefinition&, const TaskItem& item, const TaskAnswer& answer) -> double {
           return contains(item.gold, best(over(answer.log_probs, item.characters)));
         }},
        {"acc_bytes",
         [](const TaskDefinition&, const TaskItem& item, const TaskAnswer& answer) -> double {
           return contains(item.gold, best(over(answer.log_probs, item.bytes)));
         }}}},
      {"likelihood",
       {{"acc",
         [](const TaskDefinition&, const TaskItem&, const TaskAnswer& answer) -> double {
           return answer.greedy.at(0);
         }}}},
      {"generation",
       {{"exact_match",
         [](const TaskDefinition& task, const TaskItem& item, const TaskAnswer& answer) -> double {
           return matches(task, item, answer, true);
         }},
        {"contains",
         [](const TaskDefinition& task, const TaskItem& item, const TaskAnswer& answer) -> double {
           return matches(task, item, answer, false);
         }}}},
      {"rolling", {}},
  };
  return table;
}

double mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

std::optional<double> error_of_mean(const std::vector<double>& values) {
  if (values.size() < 2) return std::nullopt;
  const double center = mean(values), n = static_cast<double>(values.size());
  double squares = 0;
  for (const double value : values) squares += (value - center) * (value - center);
  return std::sqrt(squares / (n - 1) / n);
}

MetricValue perplexity(std::span<const TaskAnswer> answers) {
  std::vector<double> log_probs;
  for (const TaskAnswer& answer : answers) log_probs.push_back(answer.log_probs.at(0));
  const double value = std::exp(-mean(log_probs));
  const auto error = error_of_mean(log_probs);
  return {"ppl", value, error ? std::optional(value * *error) : std::nullopt};
}

MetricValue over_text(const std::string& name, std::span<const TaskItem> items,
                      std::span<const TaskAnswer> answers) {
  double log_prob = 0, units = 0;
  for (const TaskAnswer& answer : answers) {
    for (const double of_window : answer.log_probs) log_prob += of_window;
  }
  for (const TaskItem& item : items)
    units += name == "word_ppl" ? item.counted_words : item.counted_bytes;
  const double nats = -log_prob / units;
  return {name, name == "bpb" ? nats / std::log(2.0) : std::exp(nats), std::nullopt};
}

}  // namespace

std::vector<std::string> metrics_of(const std::string& kind) {
  std::vector<std::string> names;
  if (kind == "likelihood") names = {"ppl"};
  if (kind == "rolling") names = {"bpb", "byte_ppl", "word_ppl"};
  for (const auto& [name, unused] : means_by_kind().at(kind)) names.push_back(name);
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<MetricValue> task_metrics(const TaskDefinition& task, std::span<const TaskItem> items,
                                      std::span<const TaskAnswer> answers) {
  if (items.empty() || items.size() != answers.size())
    throw std::logic_error("task_metrics: " + std::to_string(items.size()) + " documents, " +
                           std::to_string(answers.size()) + " answers");
  const auto& means = means_by_kind().at(task.kind);
  std::vector<MetricValue> result;
  for (const std::string& name : task.metrics) {
    const auto per_document = means.find(name);
    if (per_document != means.end()) {
      std::vector<double> values;
      for (size_t i = 0; i < items.size(); ++i)
        values.push_back(per_document->second(task, items[i], answers[i]));
      result.push_back({name, mean(values), error_of_mean(values)});
    } else if (name == "ppl") {
      result.push_back(perplexity(answers));
    } else {
      result.push_back(over_text(name, items, answers));
    }
  }
  return result;
}

}  // namespace tandem
