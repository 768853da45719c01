#include "eval/task_process.h"

#include <nlohmann/json.hpp>
#include <stdexcept>

#include "core/json_lines.h"
#include "eval/task_text.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;

// `open` to the next `close` on one line becomes nothing.
std::string without_brackets(std::string_view text) {
  std::string result;
  while (!text.empty()) {
    const size_t open = text.find('[');
    if (open == std::string_view::npos) break;
    const size_t close = text.find(']', open), line_end = text.find('\n', open);
    const bool closed = close != std::string_view::npos && close < line_end;
    result += text.substr(0, closed ? open : open + 1);
    text.remove_prefix(closed ? close + 1 : open + 1);
  }
  return result += text;
}

std::string clean_hellaswag(std::string_view text) {
  const std::string titles = replace_all(strip(text), " [title]", ". ");
  return replace_all(without_brackets(titles), "  ", " ");
}

void hellaswag(Json& document) {
  const std::string context =
      get_string(document, "ctx_a") + " " + capitalize(get_string(document, "ctx_b"));
  Json choices = Json::array();
  const auto endings = document.find("endings");
  if (endings == document.end() || !endings->is_array())
    throw std::runtime_error("endings is missing or not a list");
  for (const Json& ending : *endings) {
    if (!ending.is_string()) throw std::runtime_error("endings holds what is not a text");
    choices.push_back(clean_hellaswag(ending.get<std::string>()));
  }
  document["query"] = clean_hellaswag(get_string(document, "activity_label") + ": " + context);
  document["choices"] = std::move(choices);
}

void winogrande(Json& document) {
  const std::string sentence = get_string(document, "sentence"),
                    answer = get_string(document, "answer");
  const size_t blank = sentence.find('_');
  if (blank == std::string::npos) throw std::runtime_error("sentence has no blank, _");
  if (answer != "1" && answer != "2")
    throw std::runtime_error("answer = " + json_string(answer, 40) + ", expected \"1\" or \"2\"");
  const std::string before = sentence.substr(0, blank);
  document["contexts"] = {before + get_string(document, "option1"),
                          before + get_string(document, "option2")};
  document["ending"] = strip(std::string_view(sentence).substr(blank + 1));
  document["gold"] = answer == "1" ? 0 : 1;
}

// `open`, spaces, text, spaces, `close` without the spaces; the text holds no `close`.
std::string tighten(std::string_view text, char open, char close) {
  std::string result;
  while (true) {
    const size_t begin = text.find(open);
    const size_t end = begin == std::string_view::npos ? begin : text.find(close, begin + 1);
    if (end == std::string_view::npos) return result += text;
    result += text.substr(0, begin + 1);
    result += strip(text.substr(begin + 1, end - begin - 1));
    result += close;
    text.remove_prefix(end + 1);
  }
}

// Slash, quote, space, digit, slash. What it becomes is no digit: the published rule was written
// so.
std::string odd_rule_of_digits(std::string_view text) {
  std::string result;
  for (size_t i = 0; i < text.size();) {
    const auto at = text.substr(i);
    if (at.size() >= 5 && at.starts_with("/' ") && at[3] >= '0' && at[3] <= '9' && at[4] == '/') {
      result += "/'[0-9]/";
      i += 5;
    } else {
      result += text[i++];
    }
  }
  return result;
}

void wikitext(Json& document) {
  std::string text = replace_all(get_string(document, "page"), "s '", "s'");
  text = odd_rule_of_digits(text);
  const auto replace = [&](std::string_view from, std::string_view to) {
    text = replace_all(text, from, to);
  };
  replace(" @-@ ", "-");
  replace(" @,@ ", ",");
  replace(" @.@ ", ".");
  for (const char mark : std::string_view(":;.!?,"))
    replace(std::string(" ") + mark + " ", std::string(1, mark) + " ");
  text = tighten(text, '(', ')');
  text = tighten(text, '[', ']');
  text = tighten(text, '{', '}');
  text = tighten(text, '"', '"');
  text = tighten(text, '\'', '\'');
  replace("= = = =", "====");
  replace("= = =", "===");
  replace("= =", "==");
  replace(" \xC2\xB0 ", "\xC2\xB0");  // degrees
  replace(" \n", "\n");
  replace("\n ", "\n");
  replace(" N ", " 1 ");
  replace(" 's", "'s");
  document["text"] = std::move(text);
}

const struct {
  const char* name;
  void (*process)(Json& document);
} kProcesses[] = {
    {"hellaswag", hellaswag},
    {"wikitext", wikitext},
    {"winogrande", winogrande},
};

}  // namespace

std::vector<std::string> document_processes() {
  std::vector<std::string> names;
  for (const auto& entry : kProcesses) names.push_back(entry.name);
  return names;
}

void process_document(std::string_view process, Json& document) {
  for (const auto& entry : kProcesses) {
    if (process == entry.name) return entry.process(document);
  }
  throw std::logic_error("process_document: no process " + std::string(process));
}

}  // namespace tandem
