#include "eval/task_requests.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <stdexcept>

#include "core/checksum.h"
#include "core/error.h"
#include "core/file.h"
#include "core/json_lines.h"
#include "eval/task_process.h"
#include "eval/task_random.h"
#include "eval/task_text.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;

std::string text_at(const Json& value, const char* key) {
  if (!value.is_string()) throw std::runtime_error(std::string(key) + " is not a text");
  return value.get<std::string>();
}

std::vector<std::string> texts_at(const Json& value, const char* key) {
  if (!value.is_array() || value.empty())
    throw std::runtime_error(std::string(key) + " is not a list of texts");
  std::vector<std::string> texts;
  for (const Json& element : value) texts.push_back(text_at(element, key));
  return texts;
}

/// A document as its templates give it.
struct Asked {
  std::vector<std::string> prompts;  // one, or one for each choice
  std::vector<std::string> choices;  // of multiple choice
  std::vector<size_t> gold;
  std::vector<std::string> targets;  // texts: the ending, or what is to be scored or generated
};

std::optional<int64_t> place_of(const Json& target, const std::vector<std::string>& choices) {
  if (target.is_boolean()) return target.get<bool>() ? 1 : 0;
  if (target.is_number_integer()) return target.get<int64_t>();
  if (!target.is_string()) return std::nullopt;
  const auto& text = target.get_ref<const std::string&>();
  int64_t place = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), place);
  if (error == std::errc() && end == text.data() + text.size()) return place;
  const auto found = std::find(choices.begin(), choices.end(), text);
  if (found == choices.end()) return std::nullopt;
  return found - choices.begin();
}

std::vector<size_t> gold_of(const Json& target, const std::vector<std::string>& choices) {
  std::vector<size_t> gold;
  const Json list = target.is_array() ? target : Json::array({target});
  for (const Json& one : list) {
    const auto place = place_of(one, choices);
    if (!place || *place < 0 || *place >= std::ssize(choices)) {
      throw std::runtime_error(fmt::format("target = {}, expected a place of the {} choices",
                                           json_string(one.dump(), 40), choices.size()));
    }
    gold.push_back(static_cast<size_t>(*place));
  }
  if (gold.empty()) throw std::runtime_error("target is an empty list");
  return gold;
}

Asked ask(const Task& task, const Json& document) {
  const TaskDefinition& definition = task.definition;
  Asked asked;
  const Json target = task.target.value(document);
  if (definition.kind != "multiple_choice") {
    asked.prompts = {task.prompt.text(document)};
    asked.targets = target.is_array() && definition.kind == "generation"
                        ? texts_at(target, "target")
                        : std::vector<std::string>{task.target.text(document)};
    return asked;
  }
  if (definition.ending.empty()) {
    asked.prompts = {task.prompt.text(document)};
    asked.choices = texts_at(task.choices.value(document), "choices");
  } else {
    asked.prompts = texts_at(task.prompt.value(document), "prompt");
    asked.choices = asked.prompts;
    asked.targets = {task.ending.text(document)};
  }
  asked.gold = gold_of(target, asked.choices);
  return asked;
}

std::string example(const TaskDefinition& task, const Asked& asked) {
  const std::string& prompt = asked.prompts[task.ending.empty() ? 0 : asked.gold[0]];
  const std::string& answer =
      asked.targets.empty() ? asked.choices[asked.gold[0]] : asked.targets[0];
  return prompt + task.target_delimiter + answer + task.fewshot_delimiter;
}

TaskItem item_of(const Task& task, const Json& document, const std::string& before) {
  const TaskDefinition& definition = task.definition;
  const Asked asked = ask(task, document);
  TaskItem item;
  if (definition.kind == "multiple_choice") {
    item.gold = asked.gold;
    for (size_t i = 0; i < asked.choices.size(); ++i) {
      const bool contexts = !definition.ending.empty();
      item.requests.push_back(
          {before + asked.prompts[contexts ? i : 0],
           definition.target_delimiter + (contexts ? asked.targets[0] : asked.choices[i])});
      item.characters.push_back(static_cast<double>(count_characters(asked.choices[i])));
      item.bytes.push_back(static_cast<double>(asked.choices[i].size()));
    }
  } else if (definition.kind == "generation") {
    item.requests = {{before + asked.prompts[0], ""}};
    item.references = asked.targets;
  } else {
    item.requests = {{before + asked.prompts[0], asked.targets[0]}};
  }
  if (definition.kind == "rolling") {
    const std::string counted =
        definition.counted.empty() ? asked.targets[0] : task.counted.text(document);
    item.counted_words = static_cast<double>(count_words(counted));
    item.counted_bytes = static_cast<double>(counted.size());
  }
  return item;
}

/// What the sampler of examples draws for each document, in order.
class Examples {
 public:
  Examples(const Task& task, const TaskDocuments& pool, int64_t n, uint64_t seed)
      : task_(task), pool_(pool), n_(static_cast<size_t>(n)), random_(seed) {
    const size_t needed = n_ + (task.definition.fewshot_leave_out && n_ > 0);
    if (n_ > 0 && pool.documents.size() < needed) {
      throw bad_file(pool.path, fmt::format("holds {} documents, {} examples need {}",
                                            pool.documents.size(), n_, needed));
    }
  }
  std::string before(const Json& document) {
    std::string text;
    if (n_ == 0) return text;
    for (const size_t i : places(document)) {
      try {
        text += example(task_.definition, ask(task_, pool_.documents[i]));
      } catch (const std::runtime_error& error) {
        throw bad_file(fmt::format("{}:{}", pool_.path, i + 1), error.what());
      }
    }
    return text;
  }

 private:
  std::vector<size_t> places(const Json& document) {
    const auto& all = pool_.documents;
    if (!task_.definition.fewshot_leave_out) return random_.sample(all.size(), n_);
    std::vector<size_t> drawn = random_.sample(all.size(), n_ + 1);
    std::erase_if(drawn, [&](size_t i) { return all[i] == document; });
    if (drawn.size() >= n_) {
      drawn.resize(n_);
      return drawn;
    }
    std::vector<size_t> others, result;  // it came more than once
    for (size_t i = 0; i < all.size(); ++i) {
      if (all[i] != document) others.push_back(i);
    }
    if (others.size() < n_)
      throw bad_file(pool_.path, fmt::format("holds {} documents beside one that is asked, "
                                             "expected at least {}",
                                             others.size(), n_));
    for (const size_t i : random_.sample(others.size(), n_)) result.push_back(others[i]);
    return result;
  }
  const Task& task_;
  const TaskDocuments& pool_;
  size_t n_;
  PythonRandom random_;
};

std::vector<int64_t> encode(const std::string& text, const RequestRules& rules, bool add_bos) {
  std::vector<int64_t> ids;
  if (add_bos) ids.push_back(rules.tokenizer->bos().value());
  for (const int32_t id : rules.tokenizer->encode(text, Specials::kAsIds)) ids.push_back(id);
  return ids;
}

void cut_front(TokenRequest& request, int64_t max_length) {
  const auto n = std::ssize(request.continuation), all = std::ssize(request.context) + n;
  if (n == 0) throw std::runtime_error("the text to be scored has no tokens of its own");
  if (n > max_length)
    throw std::runtime_error(fmt::format(
        "the text to be scored has {} tokens, expected at most {} (--max-length)", n, max_length));
  if (all <= max_length + 1) return;
  request.truncated = true;
  request.context.erase(request.context.begin(), request.context.begin() + (all - max_length - 1));
}

}  // namespace

TaskDocuments read_documents(const std::string& path, const TaskDefinition& task, int64_t limit) {
  const std::string text = read_text(path);
  TaskDocuments result{.path = path, .hash = sha256_hex(text)};
  size_t begin = 0;
  for (int64_t line = 1; begin < text.size() && (limit == 0 || line <= limit); ++line) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    try {
      Json document = parse_json(std::string_view(text).substr(begin, end - begin));
      if (!document.is_object()) throw std::runtime_error("expected an object");
      if (task.process != "none") process_document(task.process, document);
      result.documents.push_back(std::move(document));
    } catch (const std::runtime_error& error) {
      throw bad_file(fmt::format("{}:{}", path, line), error.what());
    }
    begin = end + 1;
  }
  if (result.documents.empty()) throw bad_file(path, "holds no documents");
  return result;
}

std::vector<TaskItem> make_items(const Task& task, const TaskDocuments& documents,
                                 const TaskDocuments& examples, int64_t n_fewshot, uint64_t seed) {
  if (n_fewshot > 0 && task.definition.kind == "rolling")
    throw bad_usage(fmt::format("--num-fewshot {}: {} scores whole texts, which take no examples",
                                n_fewshot, task.definition.name));
  Examples sampler(task, examples, n_fewshot, seed);
  std::vector<TaskItem> items;
  for (const Json& document : documents.documents) {
    const std::string before = sampler.before(document);
    try {
      items.push_back(item_of(task, document, before));
    } catch (const std::runtime_error& error) {
      throw bad_file(fmt::format("{}:{}", documents.path, items.size() + 1), error.what());
    }
  }
  return items;
}

int64_t RequestRules::prefix() const {
  if (tokenizer->bos()) return *tokenizer->bos();
  if (tokenizer->eos()) return *tokenizer->eos();
  throw bad_usage("the tokenizer has neither BOS nor EOS to stand in front of a text");
}

TokenRequest encode_request(const TextRequest& text, const RequestRules& rules) {
  TokenRequest request;
  if (text.context.empty()) {
    request.continuation = encode(text.continuation, rules, false);
    request.context = {rules.prefix()};
    if (!request.continuation.empty() && request.continuation.front() == rules.prefix())
      request.continuation.erase(request.continuation.begin());
  } else {
    const std::string context(strip_right(text.context));
    request.context = encode(context, rules, rules.add_bos);
    const auto whole = encode(text.context + text.continuation, rules, rules.add_bos);
    const size_t n = std::min(request.context.size(), whole.size());
    request.continuation.assign(whole.begin() + static_cast<std::ptrdiff_t>(n), whole.end());
    if (request.context.empty()) request.context = {rules.prefix()};  // it was all spaces
  }
  cut_front(request, rules.max_length);
  return request;
}

std::vector<TokenRequest> rolling_windows(const std::string& text, const RequestRules& rules) {
  const auto ids = encode(text, rules, rules.add_bos);
  const auto n = std::ssize(ids);
  std::vector<TokenRequest> windows;
  for (int64_t begin = 0; begin < n;) {
    const int64_t end = std::min(begin + rules.max_length, n);
    TokenRequest& window = windows.emplace_back();
    if (begin == 0)
      window.context = {rules.prefix()};
    else
      window.context.assign(ids.begin() + (end - rules.max_length - 1), ids.begin() + begin);
    window.continuation.assign(ids.begin() + begin, ids.begin() + end);
    begin = end;
  }
  return windows;
}

TokenRequest encode_prompt(const std::string& prompt, const RequestRules& rules,
                           int64_t new_tokens) {
  const int64_t room = rules.max_length - new_tokens;
  if (room < 1)
    throw bad_usage(
        fmt::format("max_new_tokens = {} leaves no room for a prompt in {} tokens "
                    "(--max-length)",
                    new_tokens, rules.max_length));
  TokenRequest request{.context = encode(prompt, rules, rules.add_bos)};
  if (request.context.empty()) request.context = {rules.prefix()};
  const auto n = std::ssize(request.context);
  if (n > room) {
    request.truncated = true;
    request.context.erase(request.context.begin(), request.context.begin() + (n - room));
  }
  return request;
}

}  // namespace tandem
