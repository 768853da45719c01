#pragma once
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace tandem {

/// Text with expressions in `{{ }}` over the fields of a document:
///   question, choices.text, rows[0], rows[-1], words[:-1]     fields, entries, slices of lists
///   'text', 3, [sol1, sol2], (a + b)                          literals; + joins texts or lists
///   x.index(y)  x.split(' ')  x.replace('a', 'b')  x.strip()  x.lstrip()  x.rstrip()
///   x.capitalize() list | join(' ')
/// They mean what they mean in Jinja templates; of those nothing else is understood. A field that
/// the document has not is an error.
class Template {
 public:
  Template() = default;  ///< of the empty text
  /// Throws std::runtime_error "column N: rule".
  explicit Template(std::string_view text);
  /// The text. Throws std::runtime_error for an unknown field or a value that is no text or number.
  std::string text(const nlohmann::ordered_json& document) const;
  /// The value itself, a list or a number too, where the template is one expression alone.
  nlohmann::ordered_json value(const nlohmann::ordered_json& document) const;

  using Expression = std::function<nlohmann::ordered_json(const nlohmann::ordered_json& document)>;

 private:
  struct Part {
    std::string text;       // before the expression
    Expression expression;  // empty behind the last one
  };
  std::vector<Part> parts_;
};

}  // namespace tandem
