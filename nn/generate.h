#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "nn/device_sampler.h"
#include "nn/language_model.h"

namespace tandem {

/// An empty state on the device of the model's parameters. Keys and values are held in `cache_dtype`, by default the parameters' (retention states
/// are never narrower than float32).
std::unique_ptr<ModelState> inference_state(const LanguageModel& model, int64_t batch, int64_t capacity,
                                            std::optional<torch::Dtype> cache_dtype = {});
/// An empty state with room for each prompt, padded as the model wants it, and `room` tokens after it.
std::unique_ptr<ModelState> state_for_prompts(const LanguageModel& model, std::span<const std::vector<int64_t>> prompts, int64_t room,
                                              std::optional<torch::Dtype> cache_dtype = {});
/// Tokens that the longest row holds once generate_block has added at least `new_tokens` to every prompt: padding in front and the rest of a last block
/// included.
int64_t length_when_continued(const LanguageModel& model, std::span<const std::vector<int64_t>> prompts, int64_t new_tokens);
/// The words of --cache-dtype: "same" (as the parameters), "float32", "bfloat16", "int8". Another one is a c10::Error.
std::optional<torch::Dtype> cache_dtype_of(const std::string& word);
inline const std::vector<std::string> kCacheDtypes = {"same", "float32", "bfloat16", "int8"};

/// Feeds prompts of any lengths >= 1 into an empty `state` of as many rows, at most `chunk` tokens
/// of each row a call (0 = all at once), and leaves the logits that follow each prompt in
/// state.next_logits. In front of each prompt stand as many kPadding tokens as the model's Packing
/// says; they are fed and counted like the rest. Pieces are counted from the end, so that each
/// row's last token is in the last one; only that one asks for logits.
void prefill(LanguageModel& model, std::span<const std::vector<int64_t>> prompts, int64_t chunk,
             ModelState& state);

/// Turns the ids of one row into text as they come. nn knows no tokenizer: who has one wraps it.
class TextStream {
 public:
  virtual ~TextStream() = default;
  virtual std::string push(int64_t id) = 0;  ///< text that became certain
  virtual std::string flush() = 0;           ///< what was held back
};

struct GenerateConfig {
  SamplingConfig sampling;
  int64_t max_new_tokens = 128;
  int64_t prefill_chunk = 0;           // prompt tokens of a row in one call; 0 = all at once
  std::optional<torch::Dtype> cache_dtype = {};  // of keys and values held; absent: the model's
  std::vector<int64_t> stop_ids = {};            // EOS
  std::vector<std::string> stop = {};  // a row ends where its text contains one of these
  std::function<std::unique_ptr<TextStream>()> make_text = {};  // none: ids only
  /// Text of a row as soon as it can no longer turn out to be part of a stop string; it adds up to
  /// Generated::text.
  std::function<void(int64_t row, const std::string& text)> on_text = {};
};

enum class StopReason { kLength, kStopId, kStopString };
const char* name_of(StopReason reason);  ///< "length", "stop_id", "stop_string"

/// What one row got.
struct Generated {
  std::vector<int64_t> ids;  // all that were drawn, the one that stopped the row included
  std::string text;          // of ids, up to the stop string and without it
  StopReason reason = StopReason::kLength;
};

/// Continues each prompt: prefill once, then decode until every row has stopped. What a row
/// gets depends on its prompt and its number only, not on the other rows. Throws c10::Error before
/// any work when length_when_continued is more than the model's Packing::max_length.
std::vector<Generated> generate(LanguageModel& model, std::span<const std::vector<int64_t>> prompts,
                                const GenerateConfig& config);

}  // namespace tandem
