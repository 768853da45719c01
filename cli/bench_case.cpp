#include "cli/bench_case.h"

#include <fmt/format.h>

#include <charconv>
#include <optional>

#include "cli/load_model.h"
#include "core/error.h"
#include "core/log.h"
#include "nn/generate.h"

namespace tandem {
namespace {

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
  return {{*prompt, *generated}, text, *prompt + *generated};
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
    all.push_back({{prompt, generated}, "", length});
  }
  return all;
}

}  // namespace

std::vector<BenchLength> bench_lengths(const BenchOptions& options, const std::string& name,
                                       const LanguageModel& model) {
  auto all = asked_lengths(options, model.tokens_per_call());
  for (BenchLength& tokens : all) {
    static_cast<InferenceLength&>(tokens) = whole_blocks(tokens, name, model);
  }
  return all;
}

torch::Dtype cache_dtype_of(const BenchOptions& options) {
  return cache_dtype_of(options.cache_dtype).value_or(parse_dtype(options.dtype));
}

}  // namespace tandem
