#include "cli/bench_case.h"

#include <fmt/format.h>

#include <charconv>
#include <optional>

#include "cli/load_model.h"
#include "core/error.h"
#include "core/log.h"
#include "core/random.h"
#include "nn/generate.h"

namespace tandem {
namespace {

int64_t rounded_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

std::optional<int64_t> positive_integer(std::string_view text) {
  int64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto read = std::from_chars(text.data(), end, value);
  if (read.ec != std::errc() || read.ptr != end || value < 1) return std::nullopt;
  return value;
}

BenchLength length_of_case(const std::string& text) {
  const size_t plus = text.find('+');
  const auto prompt = positive_integer(std::string_view(text).substr(0, plus));
  const auto generated =
      plus == text.npos ? std::nullopt : positive_integer(std::string_view(text).substr(plus + 1));
  if (!prompt || !generated) {
    throw bad_usage("--cases " + text +
                    ", expected the tokens of prompt and answer, such as 2048+128");
  }
  return {text, *prompt + *generated, *prompt, *generated};
}

std::vector<BenchLength> asked_lengths(const BenchOptions& o, int64_t per_call) {
  std::vector<BenchLength> all;
  if (o.protocol == "block-transformer") {
    for (const std::string& text : o.cases) all.push_back(length_of_case(text));
    return all;
  }
  const int64_t generated = rounded_up(o.decode, per_call);
  for (const int64_t length : o.lengths) {
    const int64_t prompt = o.protocol == "yoco" ? length - generated : length;
    if (prompt < 1) {
      throw bad_usage(
          fmt::format("--lengths {} leaves no prompt, expected more than the {} tokens "
                      "that are generated",
                      length, generated));
    }
    all.push_back({"", length, prompt, generated});
  }
  return all;
}

}  // namespace

std::vector<BenchLength> bench_lengths(const BenchOptions& options, const std::string& name,
                                       const LanguageModel& model) {
  const Packing packing = model.packing();
  auto all = asked_lengths(options, model.tokens_per_call());
  for (BenchLength& tokens : all) {
    tokens.prompt = rounded_up(tokens.prompt, packing.multiple);
    tokens.generated = rounded_up(tokens.generated, model.tokens_per_call());
    if (packing.max_length > 0 && tokens.total() > packing.max_length) {
      throw bad_usage(
          fmt::format("{} takes at most {} tokens in a row, got {} of prompt and {} after it", name,
                      with_commas(packing.max_length), with_commas(tokens.prompt),
                      with_commas(tokens.generated)));
    }
  }
  return all;
}

int64_t cache_element_size(const BenchOptions& options) {
  return static_cast<int64_t>(
      torch::elementSize(cache_dtype_of(options.cache_dtype).value_or(parse_dtype(options.dtype))));
}

std::vector<std::vector<int64_t>> random_prompts(int64_t vocab_size, int64_t batch, int64_t length,
                                                 uint64_t seed) {
  const RandomStream stream = RandomStream(seed).fork("bench prompts");
  std::vector<std::vector<int64_t>> prompts(static_cast<size_t>(batch));
  for (size_t b = 0; b < prompts.size(); ++b) {
    const RandomStream of_row = stream.fork(b);
    for (int64_t t = 0; t < length; ++t) {
      prompts[b].push_back(static_cast<int64_t>(
          of_row.below(static_cast<uint64_t>(t), static_cast<uint64_t>(vocab_size))));
    }
  }
  return prompts;
}

}  // namespace tandem
