#include "eval/needle_scores.h"

#include <algorithm>
#include <cctype>
#include <regex>
#include <stdexcept>

namespace tandem {
namespace {

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

bool is_null(const std::string& answer) {
  return answer.find_first_not_of(" \t\r\n\v\f") == std::string::npos;
}

const std::regex& form_of(const std::string& output) {
  static const std::regex uuid("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), number("[0-9]+"),
      word("[0-9a-z]+");
  if (std::regex_match(output, number)) return number;
  return std::regex_match(output, uuid) ? uuid : word;
}

}  // namespace

double substring_score(const std::string& answer, std::span<const std::string> outputs) {
  const std::string text = lower(answer);
  double found = 0;
  for (const std::string& output : outputs)
    found += text.find(lower(output)) != std::string::npos ? 1 : 0;
  return found / static_cast<double>(outputs.size());
}

double exact_score(const std::string& answer, std::span<const std::string> outputs) {
  const std::string text = lower(answer);
  double found = 0;
  for (const std::string& output : outputs) {
    const std::string wanted = lower(output);
    std::sregex_iterator number(text.begin(), text.end(), form_of(wanted)), end;
    for (size_t i = 0; i < outputs.size() && number != end; ++i, ++number) {
      if (number->str() != wanted) continue;
      ++found;
      break;
    }
  }
  return found / static_cast<double>(outputs.size());
}

NeedleRank needle_rank(double value, std::span<const double> others) {
  const auto higher =
      std::count_if(others.begin(), others.end(), [&](double other) { return other > value; });
  const auto equal = std::count(others.begin(), others.end(), value);
  const auto ties = static_cast<double>(equal);
  return {.rank = 1 + static_cast<double>(higher) + ties / 2,
          .first = higher > 0 ? 0 : 1 / (1 + ties)};
}

NeedleScores needle_scores(std::span<const NeedleSample> samples,
                           std::span<const NeedleAnswer> answers) {
  if (samples.empty() || samples.size() != answers.size())
    throw std::logic_error("needle_scores: " + std::to_string(samples.size()) + " samples, " +
                           std::to_string(answers.size()) + " answers");
  NeedleScores sums;
  sums.samples = static_cast<int64_t>(samples.size());
  sums.has_decoys = answers.front().log_probs.size() > 1;
  for (size_t i = 0; i < samples.size(); ++i) {
    const NeedleAnswer& answer = answers[i];
    const std::span<const double> log_probs(answer.log_probs);
    const NeedleRank rank = needle_rank(log_probs[0], log_probs.subspan(1));
    sums.nulls += is_null(answer.text) ? 1 : 0;
    sums.substring += substring_score(answer.text, samples[i].outputs);
    sums.exact += exact_score(answer.text, samples[i].outputs);
    sums.decoy_accuracy += rank.first;
    sums.decoy_rank += rank.rank;
    sums.log_prob += log_probs[0];
    sums.first_token_rank += answer.first_token_rank;
  }
  for (double* sum : {&sums.substring, &sums.exact, &sums.decoy_accuracy, &sums.decoy_rank,
                      &sums.log_prob, &sums.first_token_rank})
    *sum /= static_cast<double>(samples.size());
  return sums;
}

nlohmann::ordered_json to_json(const NeedleScores& scores) {
  using Json = nlohmann::ordered_json;
  const auto with_decoys = [&](double value) { return scores.has_decoys ? Json(value) : Json(); };
  return {{"substring", scores.substring},
          {"exact", scores.exact},
          {"decoy_accuracy", with_decoys(scores.decoy_accuracy)},
          {"decoy_rank", with_decoys(scores.decoy_rank)},
          {"log_prob", scores.log_prob},
          {"first_token_rank", scores.first_token_rank},
          {"nulls", scores.nulls}};
}

}  // namespace tandem
