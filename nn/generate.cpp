#include "nn/generate.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "nn/token_mixer.h"

namespace tandem {
namespace {

// The text of one row: cut at the first stop string, given out as soon as no stop string can begin
// in it.
class RowText {
 public:
  RowText(const GenerateConfig& config, int64_t row, std::span<const int64_t> prompt)
      : config_(config), row_(row) {
    if (config.make_text) stream_ = config.make_text();
    if (!stream_) return;
    // The end of the prompt is the context of the first token, whose leading space some tokenizers
    // would drop.
    constexpr size_t kContextTokens = 8;
    for (const int64_t id : prompt.last(std::min(prompt.size(), kContextTokens))) stream_->push(id);
  }
  // Both are true when a stop string ended the text.
  bool push(int64_t id) { return stream_ && add(stream_->push(id), /*last=*/false); }
  bool finish() { return stream_ && add(stream_->flush(), /*last=*/true); }
  std::string take() { return std::move(text_); }

 private:
  bool add(const std::string& piece, bool last) {
    text_ += piece;
    // The one that is complete first, as if the text came byte by byte, so that token borders do
    // not matter.
    size_t begin = std::string::npos, end = std::string::npos;
    for (const std::string& stop : config_.stop) {
      const size_t at = text_.find(stop, given_);
      if (at == std::string::npos || std::pair(at + stop.size(), at) >= std::pair(end, begin))
        continue;
      begin = at, end = at + stop.size();
    }
    const bool stopped = begin != std::string::npos;
    if (stopped) text_.resize(begin);
    give(stopped || last ? text_.size() : certain());
    return stopped;
  }
  // Where the longest tail begins that a stop string may begin with.
  size_t certain() const {
    for (size_t begin = given_; begin < text_.size(); ++begin) {
      const std::string_view tail = std::string_view(text_).substr(begin);
      for (const std::string& stop : config_.stop) {
        if (stop.starts_with(tail)) return begin;
      }
    }
    return text_.size();
  }
  void give(size_t end) {
    if (config_.on_text && end > given_) config_.on_text(row_, text_.substr(given_, end - given_));
    given_ = end;
  }

  const GenerateConfig& config_;
  int64_t row_;
  std::unique_ptr<TextStream> stream_;
  std::string text_;
  size_t given_ = 0;  // bytes given to on_text; no stop string begins before
};

struct RowProgress {
  RowText text;
  Generated result;
  bool running = true;

  void take(int64_t id, const GenerateConfig& config) {
    if (!running || id == kPadding) return;
    result.ids.push_back(id);
    if (std::find(config.stop_ids.begin(), config.stop_ids.end(), id) != config.stop_ids.end()) {
      end(StopReason::kStopId);
    } else if (text.push(id)) {
      end(StopReason::kStopString);
    } else if (static_cast<int64_t>(result.ids.size()) == config.max_new_tokens) {
      end(StopReason::kLength);
    }
  }
  void end(StopReason reason) {
    running = false;
    const bool stopped_in_tail = reason != StopReason::kStopString && text.finish();
    result.reason = stopped_in_tail ? StopReason::kStopString : reason;
    result.text = text.take();
  }
};

// Tokens of a prompt, those of padding in front of it included.
int64_t padded_length(const Packing& packing, const std::vector<int64_t>& prompt) {
  const auto n = static_cast<int64_t>(prompt.size());
  return packing.padding_to_continue(n) + n;
}

int64_t longest(const Packing& packing, std::span<const std::vector<int64_t>> prompts) {
  int64_t most = 0;
  for (const auto& prompt : prompts) most = std::max(most, padded_length(packing, prompt));
  return most;
}

void check_prompts(const Packing& packing, std::span<const std::vector<int64_t>> prompts) {
  for (const auto& prompt : prompts) {
    TORCH_CHECK(!prompt.empty(), "prefill: an empty prompt, expected at least 1 token");
    const int64_t length = padded_length(packing, prompt);
    TORCH_CHECK(packing.max_length == 0 || length <= packing.max_length, "prefill: a prompt of ",
                length, " tokens, padding included, expected at most ", packing.max_length,
                ", the positions of the model");
  }
}

// Tokens [begin, end) of a padded prompt go to `to`.
void copy_padded(const std::vector<int64_t>& prompt, int64_t padding, int64_t begin, int64_t end,
                 int64_t* to) {
  for (int64_t t = begin; t < end; ++t)
    *to++ = t < padding ? kPadding : prompt[static_cast<size_t>(t - padding)];
}

}  // namespace

std::unique_ptr<ModelState> inference_state(const LanguageModel& model, int64_t batch,
                                            int64_t capacity,
                                            std::optional<torch::Dtype> cache_dtype) {
  const Tensor parameter = model.parameters().front();
  return model.make_state({.batch = batch,
                           .capacity = capacity,
                           .device = parameter.device(),
                           .dtype = cache_dtype.value_or(parameter.scalar_type())});
}

std::unique_ptr<ModelState> state_for_prompts(const LanguageModel& model,
                                              std::span<const std::vector<int64_t>> prompts,
                                              int64_t room,
                                              std::optional<torch::Dtype> cache_dtype) {
  return inference_state(model, static_cast<int64_t>(prompts.size()),
                         longest(model.packing(), prompts) + room, cache_dtype);
}

int64_t length_when_continued(const LanguageModel& model,
                              std::span<const std::vector<int64_t>> prompts, int64_t new_tokens) {
  const int64_t per_call = model.tokens_per_call();
  int64_t blocks = 0, calls = 0;  // whole blocks of the longest prompt; calls of generate_block
  for (const auto& prompt : prompts) {
    const int64_t n = padded_length(model.packing(), prompt);
    blocks = std::max(blocks, n / per_call);
    // where the prompt has begun a block, the first call gives only the rest of it
    calls = std::max(calls, (n % per_call + new_tokens + per_call - 1) / per_call);
  }
  return (blocks + calls) * per_call;
}

std::optional<torch::Dtype> cache_dtype_of(const std::string& word) {
  if (word == "same") return std::nullopt;
  if (word == "float32") return torch::kFloat32;
  if (word == "bfloat16") return torch::kBFloat16;
  TORCH_CHECK(word == "int8", "cache dtype ", word, ", expected same, float32, bfloat16 or int8");
  return torch::kInt8;
}

void prefill(LanguageModel& model, std::span<const std::vector<int64_t>> prompts, int64_t chunk,
             ModelState& state) {
  const torch::NoGradGuard no_grad;
  const auto batch = static_cast<int64_t>(prompts.size());
  const Packing packing = model.packing();
  check_prompts(packing, prompts);
  const int64_t most = longest(packing, prompts);
  const torch::Device device = model.parameters().front().device();
  const int64_t piece = chunk > 0 ? std::min(chunk, most) : most;
  const int64_t pieces = (most + piece - 1) / piece;
  for (int64_t left = pieces - 1; left >= 0; --left) {  // pieces still to come after this one
    Tensor tokens = torch::zeros({batch, piece}, torch::kInt64);
    Tensor lengths = torch::zeros({batch}, torch::kInt64);
    auto length = lengths.accessor<int64_t, 1>();
    for (int64_t b = 0; b < batch; ++b) {
      const auto& prompt = prompts[static_cast<size_t>(b)];
      const int64_t n = padded_length(packing, prompt);
      const int64_t end = std::max<int64_t>(0, n - left * piece),
                    begin = std::max<int64_t>(0, n - (left + 1) * piece);
      length[b] = end - begin;
      copy_padded(prompt, n - static_cast<int64_t>(prompt.size()), begin, end,
                  tokens[b].mutable_data_ptr<int64_t>());
    }
    const auto width = lengths.max().item<int64_t>();  // the first piece is shorter
    tokens = tokens.narrow(1, 0, width);
    // Known here without asking the device: rows without padding need no mask.
    lengths = rows_are_full(lengths, width) ? Tensor() : lengths.to(device);
    model.extend(tokens.to(device), lengths, state, left == 0 ? Want::kLast : Want::kNothing);
  }
}

const char* name_of(StopReason reason) {
  switch (reason) {
    case StopReason::kLength:
      return "length";
    case StopReason::kStopId:
      return "stop_id";
    case StopReason::kStopString:
      return "stop_string";
  }
  TORCH_CHECK(false, "StopReason ", static_cast<int>(reason));
}

std::vector<Generated> generate(LanguageModel& model, std::span<const std::vector<int64_t>> prompts,
                                const GenerateConfig& config) {
  TORCH_CHECK(config.max_new_tokens >= 1, "generate: max_new_tokens = ", config.max_new_tokens,
              ", expected at least 1");
  TORCH_CHECK(config.stop.empty() || config.make_text, "generate: stop strings need make_text");
  for (const std::string& stop : config.stop)
    TORCH_CHECK(!stop.empty(), "generate: an empty stop string");
  if (prompts.empty()) return {};
  const c10::InferenceMode inference;
  const auto batch = static_cast<int64_t>(prompts.size());
  check_prompts(model.packing(), prompts);
  const int64_t length = length_when_continued(model, prompts, config.max_new_tokens);
  const int64_t max_length = model.packing().max_length;
  TORCH_CHECK(max_length == 0 || length <= max_length, "generate: a row comes to ", length,
              " tokens, padding included, expected at most ", max_length,
              ", the positions of the model");
  const auto state = inference_state(model, batch, length, config.cache_dtype);
  DeviceSampler sampler(config.sampling, batch, model.parameters().front().device());
  std::vector<RowProgress> rows;
  for (int64_t b = 0; b < batch; ++b) {
    rows.push_back({.text = RowText(config, b, prompts[static_cast<size_t>(b)]),
                    .result = {},
                    .running = true});
  }
  const auto running = [](const RowProgress& row) { return row.running; };

  prefill(model, prompts, config.prefill_chunk, *state);
  while (std::any_of(rows.begin(), rows.end(), running)) {
    const Tensor drawn = model.generate_block(*state, sampler).to(torch::kCPU);  // [B, per_call]
    const auto ids = drawn.accessor<int64_t, 2>();
    for (int64_t b = 0; b < batch; ++b) {
      for (int64_t t = 0; t < ids.size(1); ++t)
        rows[static_cast<size_t>(b)].take(ids[b][t], config);
    }
  }
  std::vector<Generated> results;
  for (RowProgress& row : rows) results.push_back(std::move(row.result));
  return results;
}

}  // namespace tandem
