#include "eval/task_template.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <span>
#include <stdexcept>

#include "core/json_lines.h"
#include "eval/task_text.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;
using Expression = Template::Expression;
using Arguments = std::vector<Json>;

constexpr size_t kShown = 40;  // bytes of a value in a message
constexpr int kDeepest = 32;   // brackets in brackets

std::string shown(const Json& value) {
  return json_string(value.dump(-1, ' ', false, Json::error_handler_t::replace), kShown);
}

const std::string& text_of(const Json& value, const std::string& who) {
  if (!value.is_string())
    throw std::runtime_error(who + " of " + shown(value) + ", expected a text");
  return value.get_ref<const std::string&>();
}

const Json& list_of(const Json& value, const std::string& who) {
  if (!value.is_array())
    throw std::runtime_error(who + " of " + shown(value) + ", expected a list");
  return value;
}

Json place_of(const Json& list, const Arguments& arguments) {
  list_of(list, "index()");
  const auto found = std::find(list.begin(), list.end(), arguments[0]);
  if (found == list.end())
    throw std::runtime_error(shown(arguments[0]) + " is not in the list " + shown(list));
  return found - list.begin();
}

Json pieces_of(const Json& text, const Arguments& arguments) {
  const std::string& separator = text_of(arguments[0], "separator");
  if (separator.empty()) throw std::runtime_error("split(): the separator is empty");
  return split(text_of(text, "split()"), separator);
}

Json joined(const Json& list, const Arguments& arguments) {
  std::string text;
  for (const Json& piece : list_of(list, "join()")) {
    if (!text.empty() || &piece != &list.front()) text += text_of(arguments[0], "separator");
    text += text_of(piece, "join()");
  }
  return text;
}

struct Function {
  const char* name;
  size_t n_arguments;
  Json (*call)(const Json& self, const Arguments& arguments);
};
const Function kMethods[] = {
    {"capitalize", 0,
     [](const Json& x, const Arguments&) -> Json {
       return capitalize(text_of(x, "capitalize()"));
     }},
    {"index", 1, place_of},
    {"lstrip", 0,
     [](const Json& x, const Arguments&) -> Json { return strip_left(text_of(x, "lstrip()")); }},
    {"replace", 2,
     [](const Json& x, const Arguments& a) -> Json {
       const std::string& from = text_of(a[0], "replaced part");
       if (from.empty()) throw std::runtime_error("replace(): what is replaced is empty");
       return replace_all(text_of(x, "replace()"), from, text_of(a[1], "replacement"));
     }},
    {"rstrip", 0,
     [](const Json& x, const Arguments&) -> Json { return strip_right(text_of(x, "rstrip()")); }},
    {"split", 1, pieces_of},
    {"strip", 0,
     [](const Json& x, const Arguments&) -> Json { return strip(text_of(x, "strip()")); }},
};
const Function kFilters[] = {{"join", 1, joined}};

Json field_of(const Json& value, const std::string& name) {
  if (!value.is_object())
    throw std::runtime_error("field " + name + " of " + shown(value) + ", expected an object");
  const auto found = value.find(name);
  if (found != value.end()) return *found;
  std::vector<std::string> known;
  for (const auto& [key, unused] : value.items()) known.push_back(key);
  std::sort(known.begin(), known.end());
  throw std::runtime_error(
      fmt::format("has no field {}; it has: {}", name, fmt::join(known, ", ")));
}

Json entry_of(const Json& list, const Json& place) {
  list_of(list, "an entry");
  if (!place.is_number_integer()) throw std::runtime_error(shown(place) + " is no place in a list");
  const auto n = static_cast<int64_t>(list.size());
  auto i = place.get<int64_t>();
  if (i < -n || i >= n) throw std::runtime_error(fmt::format("entry {} of a list of {}", i, n));
  return list[static_cast<size_t>(i < 0 ? i + n : i)];
}

Json slice_of(const Json& list, std::optional<int64_t> begin, std::optional<int64_t> end) {
  const auto n = static_cast<int64_t>(list_of(list, "a slice").size());
  const auto place = [&](int64_t i) { return std::clamp<int64_t>(i < 0 ? i + n : i, 0, n); };
  const int64_t first = place(begin.value_or(0)), last = place(end.value_or(n));
  Json slice = Json::array();
  for (int64_t i = first; i < last; ++i) slice.push_back(list[static_cast<size_t>(i)]);
  return slice;
}

Json sum_of(Json a, const Json& b) {
  if (a.is_string() && b.is_string())
    return a.get_ref<const std::string&>() + b.get_ref<const std::string&>();
  if (!a.is_array() || !b.is_array())
    throw std::runtime_error(shown(a) + " + " + shown(b) + ", expected two texts or two lists");
  for (const Json& element : b) a.push_back(element);
  return a;
}

/// One expression, from behind its `{{` to behind its `}}`.
class Parser {
 public:
  Parser(std::string_view text, size_t at) : text_(text), at_(at) {}
  Expression expression() {
    Expression result = sum();
    if (!take("}}")) fail("expected }} or an operator");
    return result;
  }
  size_t at() const { return at_; }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw std::runtime_error(fmt::format("column {}: {}", at_ + 1, what));
  }
  void skip_spaces() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
  }
  bool take(std::string_view word) {
    skip_spaces();
    if (!text_.substr(at_).starts_with(word)) return false;
    at_ += word.size();
    return true;
  }
  char peek() {
    skip_spaces();
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  static bool begins_name(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
  }
  static bool is_digit(char c) { return c >= '0' && c <= '9'; }
  std::string name() {
    if (!begins_name(peek())) fail("expected a name");
    const size_t begin = at_;
    while (at_ < text_.size() && (begins_name(text_[at_]) || is_digit(text_[at_]))) ++at_;
    return std::string(text_.substr(begin, at_ - begin));
  }
  bool begins_integer() { return is_digit(peek()) || peek() == '-'; }
  int64_t integer() {
    int64_t value = 0;
    skip_spaces();
    const auto [end, error] =
        std::from_chars(text_.data() + at_, text_.data() + text_.size(), value);
    if (error != std::errc()) fail("expected an integer");
    at_ = static_cast<size_t>(end - text_.data());
    return value;
  }
  std::string literal() {
    const char quote = text_[at_++];
    std::string value;
    for (; at_ < text_.size() && text_[at_] != quote; ++at_) {
      if (text_[at_] == '\\') {
        if (++at_ == text_.size()) break;
        const char escaped = text_[at_];
        if (escaped != 'n' && escaped != '\\' && escaped != '\'' && escaped != '"')
          fail("unknown escape, known here: \\n \\\\ \\' \\\"");
        value += escaped == 'n' ? '\n' : escaped;
      } else {
        value += text_[at_];
      }
    }
    if (at_ == text_.size()) fail("the text in quotes does not end");
    ++at_;
    return value;
  }
  std::vector<Expression> list_until(std::string_view close) {
    std::vector<Expression> list;
    if (take(close)) return list;
    do list.push_back(sum());
    while (take(","));
    if (!take(close)) fail(fmt::format("expected , or {}", close));
    return list;
  }
  Expression primary() {
    if (peek() == '\'' || peek() == '"')
      return [value = literal()](const Json&) -> Json { return value; };
    if (begins_integer()) return [value = integer()](const Json&) -> Json { return value; };
    if (take("(")) {
      Expression inner = sum();
      if (!take(")")) fail("expected )");
      return inner;
    }
    if (take("[")) {
      return [list = list_until("]")](const Json& document) {
        Json value = Json::array();
        for (const Expression& element : list) value.push_back(element(document));
        return value;
      };
    }
    return [field = name()](const Json& document) { return field_of(document, field); };
  }
  Expression call(Expression self, std::span<const Function> table, const std::string& word) {
    const Function* found = nullptr;
    std::vector<std::string> known;
    for (const Function& function : table) {
      known.push_back(function.name);
      if (word == function.name) found = &function;
    }
    if (!found) fail(fmt::format("unknown {}(), known here: {}", word, fmt::join(known, ", ")));
    std::vector<Expression> arguments = list_until(")");
    if (arguments.size() != found->n_arguments)
      fail(fmt::format("{}() has {} arguments, expected {}", word, arguments.size(),
                       found->n_arguments));
    return [self = std::move(self), arguments = std::move(arguments), found](const Json& document) {
      Arguments values;
      for (const Expression& argument : arguments) values.push_back(argument(document));
      return found->call(self(document), values);
    };
  }
  Expression in_brackets(Expression self) {  // behind its [
    std::optional<int64_t> begin, end;
    if (begins_integer()) begin = integer();
    if (take(":")) {
      if (begins_integer()) end = integer();
      if (!take("]")) fail("expected ]");
      return [self = std::move(self), begin, end](const Json& document) {
        return slice_of(self(document), begin, end);
      };
    }
    Expression place;
    if (begin)
      place = [value = *begin](const Json&) -> Json { return value; };
    else
      place = sum();
    if (!take("]")) fail("expected ]");
    return [self = std::move(self), place = std::move(place)](const Json& document) {
      return entry_of(self(document), place(document));
    };
  }
  Expression postfix() {
    Expression value = primary();
    while (true) {
      if (take(".")) {
        const std::string word = name();
        if (take("(")) {
          value = call(std::move(value), kMethods, word);
        } else {
          value = [self = std::move(value), word](const Json& document) {
            return field_of(self(document), word);
          };
        }
      } else if (take("[")) {
        value = in_brackets(std::move(value));
      } else if (take("|")) {
        const std::string word = name();
        if (!take("(")) fail("expected (");
        value = call(std::move(value), kFilters, word);
      } else {
        return value;
      }
    }
  }
  Expression sum() {
    if (++depth_ > kDeepest) fail("too many brackets in brackets");
    Expression value = postfix();
    while (take("+")) {
      value = [a = std::move(value), b = postfix()](const Json& document) {
        return sum_of(a(document), b(document));
      };
    }
    --depth_;
    return value;
  }

  std::string_view text_;
  size_t at_;
  int depth_ = 0;
};

std::string as_text(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_boolean()) return value.get<bool>() ? "True" : "False";
  if (value.is_number_integer()) return value.dump();
  if (value.is_number()) return json_number(value.get<double>());
  throw std::runtime_error(shown(value) + " stands in a text, expected a text or a number");
}

}  // namespace

Template::Template(std::string_view text) {
  size_t begin = 0;
  while (true) {
    const size_t open = text.find("{{", begin), statement = text.find("{%", begin);
    if (statement < open)
      throw std::runtime_error(
          fmt::format("column {}: {{% %}} is not understood, only {{{{ }}}}", statement + 1));
    if (open == std::string_view::npos) break;
    Parser parser(text, open + 2);
    Expression expression = parser.expression();
    parts_.push_back({std::string(text.substr(begin, open - begin)), std::move(expression)});
    begin = parser.at();
  }
  parts_.push_back({std::string(text.substr(begin)), nullptr});
}

std::string Template::text(const Json& document) const {
  std::string result;
  for (const Part& part : parts_) {
    result += part.text;
    if (part.expression) result += as_text(part.expression(document));
  }
  return result;
}

Json Template::value(const Json& document) const {
  const bool alone = parts_.size() == 2 && parts_[0].text.empty() && parts_[1].text.empty();
  return alone ? parts_[0].expression(document) : Json(text(document));
}

}  // namespace tandem
