#include "eval/needle_reader.h"

#include <algorithm>

#include "nn/device_sampler.h"
#include "nn/generate.h"

namespace tandem {
namespace {

using Ids = std::vector<int64_t>;

int64_t common_begin(const Ids& a, const Ids& b) {
  return std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin();
}

// Of each prompt with its partner: the fewest tokens.
int64_t common_begins(std::span<const Ids> a, std::span<const Ids> b) {
  if (a.size() != b.size()) return 0;
  int64_t least = common_begin(a[0], b[0]);
  for (size_t i = 1; i < a.size(); ++i) least = std::min(least, common_begin(a[i], b[i]));
  return least;
}

bool begins_with(const Ids& prompt, const Ids& begin) {
  return prompt.size() > begin.size() && std::equal(begin.begin(), begin.end(), prompt.begin());
}

Ids first_ids(const Ids& ids, int64_t n) { return {ids.begin(), ids.begin() + n}; }

bool is_white(const std::string& text) {
  return text.find_first_not_of(" \t\r\n") == std::string::npos;
}

}  // namespace

NeedleReader::NeedleReader(LanguageModel& model, const NeedleReaderConfig& config)
    : model_(model), config_(config), device_(model.parameters().front().device()) {
  TORCH_CHECK(config.chunk >= 1 && config.rows >= 1 && config.max_new_tokens >= 1,
              "NeedleReader: chunk = ", config.chunk, ", rows = ", config.rows,
              ", max_new_tokens = ", config.max_new_tokens, ", expected at least 1 each");
  const auto dtype = config.cache_dtype.value_or(model.parameters().front().scalar_type());
  row_bytes_ = std::max<int64_t>(
      1, model.state_bytes(config.capacity, dtype).total());
  // States of prompts and what is kept of them share one half, candidates have the other.
  rows_ = std::clamp<int64_t>(config.memory_bytes / 4 / row_bytes_, 1, config.rows);
  candidate_rows_ = std::max<int64_t>(1, config.memory_bytes / 2 / row_bytes_);
}

std::vector<NeedleReading> NeedleReader::read(std::span<const NeedleQuestion> questions,
                                              std::span<const NeedleQuestion> next) {
  const c10::InferenceMode inference;
  std::vector<NeedleReading> readings(questions.size());
  for (size_t begin = 0; begin < questions.size(); begin += static_cast<size_t>(rows_)) {
    const size_t n = std::min(static_cast<size_t>(rows_), questions.size() - begin);
    const auto group = questions.subspan(begin, n);
    std::vector<Ids> coming;
    if (next.size() == questions.size()) coming = padded(next.subspan(begin, n));
    const auto state = prefill(begin, padded(group), coming);
    for (size_t i = 0; i < n; ++i)
      score(*state, static_cast<int64_t>(i), group[i], readings[begin + i]);
    generate(*state, std::span(readings).subspan(begin, n));
  }
  return readings;
}

std::vector<Ids> NeedleReader::padded(std::span<const NeedleQuestion> questions) const {
  std::vector<Ids> rows;
  for (const NeedleQuestion& question : questions) {
    const Ids& prompt = question.prompt;
    Ids row(static_cast<size_t>(
                model_.packing().padding_to_continue(static_cast<int64_t>(prompt.size()))),
            kPadding);
    row.insert(row.end(), prompt.begin(), prompt.end());
    rows.push_back(std::move(row));
  }
  return rows;
}

std::unique_ptr<ModelState> NeedleReader::prefill(size_t group, std::span<const Ids> prompts,
                                                  std::span<const Ids> next) {
  const auto rows = static_cast<int64_t>(prompts.size());
  const auto whole = [&](int64_t n) { return n / config_.chunk * config_.chunk; };
  int64_t shortest = std::ssize(prompts[0]), longest = 0;
  for (const Ids& prompt : prompts) {
    shortest = std::min<int64_t>(shortest, std::ssize(prompt));
    longest = std::max<int64_t>(longest, std::ssize(prompt));
  }
  const int64_t inner = whole(shortest - 1);  // the last call brings a token of each row at least
  int64_t common = inner;                     // up to here one row stands for all
  for (const Ids& prompt : prompts)
    common = std::min(common, whole(common_begin(prompts[0], prompt)));
  const int64_t keep = std::min(inner, whole(common_begins(prompts, next)));

  int64_t from = 0;
  std::unique_ptr<ModelState> state = take_kept(group, prompts, common, inner, keep, &from);
  bool is_one = from <= common && (from > 0 || common > 0);
  if (!state)
    state = inference_state(model_, is_one ? 1 : rows, config_.capacity, config_.cache_dtype);
  const auto spread = [&] {
    if (is_one && rows > 1) state = repeated(*state, 0, rows);
    is_one = false;
  };
  for (; from < inner; from += config_.chunk) {
    if (from >= common) spread();
    feed(*state, is_one ? prompts.first(1) : prompts, from, from + config_.chunk, Want::kNothing);
    if (from + config_.chunk != keep || !may_keep(is_one ? 1 : rows)) continue;
    Kept kept{.begins = {}, .state = nullptr, .rows = is_one ? 1 : rows};
    kept.state =
        state->select(torch::arange(kept.rows, torch::dtype(torch::kInt64).device(device_)));
    for (const Ids& prompt : prompts) kept.begins.push_back(first_ids(prompt, keep));
    kept_.insert_or_assign(group, std::move(kept));
    note_bytes(state->bytes());
  }
  spread();
  feed(*state, prompts, inner, longest, Want::kLast);
  note_bytes(state->bytes());
  return state;
}

// Null where nothing that fits is kept. What the coming call does not need goes.
std::unique_ptr<ModelState> NeedleReader::take_kept(size_t group, std::span<const Ids> prompts,
                                                    int64_t common, int64_t inner, int64_t keep,
                                                    int64_t* from) {
  const auto found = kept_.find(group);
  if (found == kept_.end()) return nullptr;
  Kept& kept = found->second;
  const int64_t length = kept.length();
  const bool fits = kept.begins.size() == prompts.size() && length <= inner &&
                    kept.rows == (length <= common ? 1 : static_cast<int64_t>(prompts.size())) &&
                    std::equal(prompts.begin(), prompts.end(), kept.begins.begin(), begins_with);
  std::unique_ptr<ModelState> state;
  if (fits) {
    *from = length;
    if (keep == length)
      return kept.state->select(
          torch::arange(kept.rows, torch::dtype(torch::kInt64).device(device_)));
    state = std::move(kept.state);
  }
  kept_.erase(found);
  return state;
}

// Tokens [begin, end) of each prompt, as far as it goes.
void NeedleReader::feed(ModelState& state, std::span<const Ids> prompts, int64_t begin, int64_t end,
                        Want want) {
  const auto rows = static_cast<int64_t>(prompts.size());
  Tensor tokens = torch::zeros({rows, end - begin}, torch::kInt64);
  Tensor lengths = torch::zeros({rows}, torch::kInt64);
  bool full = true;
  for (int64_t b = 0; b < rows; ++b) {
    const Ids& prompt = prompts[static_cast<size_t>(b)];
    const int64_t upto = std::min<int64_t>(end, std::ssize(prompt));
    std::copy(prompt.begin() + begin, prompt.begin() + upto, tokens[b].mutable_data_ptr<int64_t>());
    lengths[b] = upto - begin;
    full = full && upto == end;
    tokens_fed_ += upto - begin;
  }
  model_.extend(tokens.to(device_), full ? Tensor() : lengths.to(device_), state, want);
}

std::unique_ptr<ModelState> NeedleReader::repeated(const ModelState& state, int64_t row,
                                                   int64_t n) const {
  return state.select(torch::full({n}, row, torch::dtype(torch::kInt64).device(device_)));
}

void NeedleReader::score(const ModelState& state, int64_t row, const NeedleQuestion& question,
                         NeedleReading& reading) {
  const Tensor logits =
      state.next_logits[row].to(torch::kCPU, torch::kFloat64).contiguous();  // [V]
  const Tensor first = logits.log_softmax(0);
  const double* log_p = first.const_data_ptr<double>();
  const double* values = logits.const_data_ptr<double>();
  const double value = values[question.candidates.front().front()];
  const std::span<const double> all(values, static_cast<size_t>(logits.numel()));
  const auto higher = std::count_if(all.begin(), all.end(), [&](double v) { return v > value; });
  const auto equal = std::count(all.begin(), all.end(), value) - 1;
  reading.first_token_rank = 1 + static_cast<double>(higher) + static_cast<double>(equal) / 2;

  std::vector<size_t> longer;  // candidates with a second token
  for (size_t i = 0; i < question.candidates.size(); ++i) {
    reading.log_probs.push_back(log_p[question.candidates[i].front()]);
    if (question.candidates[i].size() > 1) longer.push_back(i);
  }
  for (size_t begin = 0; begin < longer.size(); begin += static_cast<size_t>(candidate_rows_)) {
    const auto part = std::span(longer).subspan(
        begin, std::min(static_cast<size_t>(candidate_rows_), longer.size() - begin));
    const auto n = static_cast<int64_t>(part.size());
    int64_t most = 0;
    for (const size_t i : part) most = std::max<int64_t>(most, std::ssize(question.candidates[i]));
    const Tensor tokens = torch::zeros({n, most - 1}, torch::kInt64),
                 lengths = torch::zeros({n}, torch::kInt64),
                 targets = torch::full({n, most - 1}, kIgnored, torch::kInt64);
    for (int64_t b = 0; b < n; ++b) {
      const Ids& ids = question.candidates[part[static_cast<size_t>(b)]];
      std::copy(ids.begin(), ids.end() - 1, tokens[b].mutable_data_ptr<int64_t>());
      std::copy(ids.begin() + 1, ids.end(), targets[b].mutable_data_ptr<int64_t>());
      lengths[b] = std::ssize(ids) - 1;
    }
    const auto clone = repeated(state, row, n);
    const Tensor nll =
        model_.extend_nll(tokens.to(device_), targets.to(device_), lengths.to(device_), *clone)
            .to(torch::kCPU, torch::kFloat64);  // [n, most - 1]
    note_bytes(state.bytes() + clone->bytes());
    for (int64_t b = 0; b < n; ++b) {
      const size_t i = part[static_cast<size_t>(b)];
      const int64_t scored = std::ssize(question.candidates[i]) - 1;
      reading.log_probs[i] -= nll[b].narrow(0, 0, scored).sum().item<double>();
    }
  }
}

void NeedleReader::generate(ModelState& state, std::span<NeedleReading> readings) {
  DeviceSampler sampler({.temperature = 0, .forbidden = config_.forbidden},
                        static_cast<int64_t>(readings.size()), device_);
  const auto is_done = [&](const NeedleReading& reading) {
    return std::ssize(reading.ids) >= config_.max_new_tokens ||
           (!reading.ids.empty() && std::find(config_.stop_ids.begin(), config_.stop_ids.end(),
                                              reading.ids.back()) != config_.stop_ids.end());
  };
  while (!std::all_of(readings.begin(), readings.end(), is_done)) {
    const Tensor drawn = model_.generate_block(state, sampler).to(torch::kCPU);  // [B, per_call]
    const auto ids = drawn.accessor<int64_t, 2>();
    for (int64_t b = 0; b < ids.size(0); ++b) {
      NeedleReading& reading = readings[static_cast<size_t>(b)];
      for (int64_t t = 0; t < ids.size(1); ++t) {
        if (ids[b][t] != kPadding && !is_done(reading)) reading.ids.push_back(ids[b][t]);
      }
    }
  }
  note_bytes(state.bytes());
}

// Beside the state it is a clone of, whose rows may still spread.
bool NeedleReader::may_keep(int64_t rows) const {
  int64_t kept_rows = rows_ + rows;
  for (const auto& [group, kept] : kept_) kept_rows += kept.rows;
  return kept_rows * row_bytes_ <= config_.memory_bytes / 2;
}

void NeedleReader::note_bytes(int64_t in_use) {
  for (const auto& [group, kept] : kept_) in_use += kept.state->bytes();
  peak_bytes_ = std::max(peak_bytes_, in_use);
}

std::vector<int64_t> ids_behind(const std::string& prompt, const std::string& text,
                                const Tokenizer& tokenizer) {
  constexpr size_t kTail = 64;  // tokens do not reach further; long prompts are not encoded again
  const size_t space = prompt.size() > kTail ? prompt.find(' ', prompt.size() - kTail) : 0;
  const std::string tail = prompt.substr(space == std::string::npos ? 0 : space);
  const auto before = tokenizer.encode(tail), both = tokenizer.encode(tail + text);
  if (both.size() > before.size() && std::equal(before.begin(), before.end(), both.begin()))
    return {both.begin() + std::ssize(before), both.end()};
  const auto alone = tokenizer.encode(text);
  const bool drop = alone.size() > 1 && !text.starts_with(' ') &&
                    is_white(tokenizer.decode(std::span(alone).first(1)));
  return {alone.begin() + (drop ? 1 : 0), alone.end()};
}

}  // namespace tandem
