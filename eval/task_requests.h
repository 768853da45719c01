#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "data/tokenizer.h"
#include "eval/task_file.h"

namespace tandem {

/// How likely is `continuation` behind `context`?
struct TextRequest {
  std::string context = {}, continuation = {};
  bool operator==(const TextRequest&) const = default;
};

/// One document of a task as questions to a model. Of generation the continuation is empty; of
/// rolling the context.
struct TaskItem {
  std::vector<TextRequest> requests = {};           // multiple choice: one for each choice
  std::vector<size_t> gold = {};                    // places of the right choices
  std::vector<double> characters = {}, bytes = {};  // of the choices
  double counted_words = 0, counted_bytes = 0;      // of rolling
  std::vector<std::string> references = {};         // of generation
};

/// Documents of a file, one a line.
struct TaskDocuments {
  std::string path = "", hash = "";  // SHA-256 of the file
  std::vector<nlohmann::ordered_json> documents = {};
};

/// The first `limit` documents (0: all), through the task's process. Throws bad_file naming line
/// and rule.
TaskDocuments read_documents(const std::string& path, const TaskDefinition& task, int64_t limit);

/// Questions about each of `documents`, behind `n_fewshot` examples out of `examples`: for all
/// documents one Python generator of `seed` draws them, without replacement, in the documents'
/// order. Throws UserError.
std::vector<TaskItem> make_items(const Task& task, const TaskDocuments& documents,
                                 const TaskDocuments& examples, int64_t n_fewshot, uint64_t seed);

/// A request as ids, neither part empty.
struct TokenRequest {
  std::vector<int64_t> context = {}, continuation = {};
  bool truncated = false;  // the context lost ids at its front
};

/// How text becomes ids.
struct RequestRules {
  const Tokenizer* tokenizer = nullptr;
  bool add_bos = false;    // every encoded text begins with BOS
  int64_t max_length = 0;  // most ids that the model sees at once
  /// What stands in front of a text that has no context: BOS, else EOS. Throws bad_usage without
  /// either.
  int64_t prefix() const;
};

/// Spaces that end the context belong to the continuation; both are encoded together and cut where
/// the context's own ids end. A context that is too long loses ids at its front.
/// Throws std::runtime_error for a continuation of no ids, or of more than rules.max_length.
TokenRequest encode_request(const TextRequest& request, const RequestRules& rules);
/// A text cut into windows of rules.max_length ids, each scored once: the first behind the prefix,
/// the last behind as many ids before it as fit.
std::vector<TokenRequest> rolling_windows(const std::string& text, const RequestRules& rules);
/// Ids to continue by up to `new_tokens`; the flag says whether some were lost at the front.
TokenRequest encode_prompt(const std::string& prompt, const RequestRules& rules,
                           int64_t new_tokens);

}  // namespace tandem
