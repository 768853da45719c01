#include "core/yaml_reader.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <optional>
#include <sstream>
#include <unordered_map>

#include "core/yaml_scalar.h"

// yaml-cpp's own tree keeps one of two equal keys silently and follows aliases, so the tree is
// built here from its events.
namespace tandem {
namespace {

constexpr int kMaxDepth = 64;
constexpr size_t kMaxKeyBytes =
    128;  // written back, quoted, it stays under YAML's 1024 characters for a key

UserError refused(const YamlSource& source, int line, const std::string& what) {
  const Origin origin{source.name, source.has_lines ? line : 0};
  return bad_config(origin, (source.key.empty() ? "" : source.key + ": ") + what);
}

std::string nesting_rule() { return "nesting over " + std::to_string(kMaxDepth) + " levels"; }

/// Bytes of the UTF-8 character at the front of `text`, or 0 when it is not one (Unicode 15, table
/// 3-7).
size_t utf8_length(std::string_view text) {
  const auto byte = [&](size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0;
  };
  const auto follows = [&](size_t i) { return (byte(i) & 0xC0) == 0x80; };
  const int first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF) return follows(1) ? 2 : 0;
  if (first >= 0xE0 && first <= 0xEF) {
    const bool overlong = first == 0xE0 && byte(1) < 0xA0;
    const bool surrogate = first == 0xED && byte(1) > 0x9F;
    return follows(1) && follows(2) && !overlong && !surrogate ? 3 : 0;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    const bool overlong = first == 0xF0 && byte(1) < 0x90;
    const bool too_large = first == 0xF4 && byte(1) > 0x8F;
    return follows(1) && follows(2) && follows(3) && !overlong && !too_large ? 4 : 0;
  }
  return 0;
}

/// Throws unless `text` is UTF-8 without control characters, which yaml-cpp would pass on or take
/// for its end mark.
void check_text(std::string_view text, const YamlSource& source) {
  int line = 1;
  for (size_t i = 0; i < text.size();) {
    const size_t length = utf8_length(text.substr(i));
    if (length == 0) throw refused(source, line, "not UTF-8 text");
    const char c = text[i];
    const bool control = (c >= 0 && c < 0x20 && c != '\n' && c != '\r' && c != '\t') || c == 0x7F;
    if (control) throw refused(source, line, "holds the control character " + one_line({&c, 1}));
    if (c == '\n') ++line;
    i += length;
  }
}

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

class TreeBuilder : public YAML::EventHandler {
 public:
  TreeBuilder(std::string_view text, const YamlSource& source) : text_(text), source_(source) {}

  ConfigNode take_root() { return std::move(root_); }
  int last_line() const { return last_line_; }  ///< of what was read last

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (seen_document_)
      throw fail(mark, "a second document starts here, expected one; is the indentation right?");
    seen_document_ = true;
  }
  void OnDocumentEnd() override {}
  void OnAnchor(const YAML::Mark& mark, const std::string& name) override {
    throw fail(mark, "anchors are not allowed: &" + one_line(name));
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    throw fail(mark, "aliases are not allowed");
  }

  void OnNull(const YAML::Mark& mark, YAML::anchor_t) override {
    check_tag(mark, "");
    if (expects_key()) throw fail(mark, "a key is empty or null, expected a name");
    // An item that is not written is reported where the next thing begins; its dash or comma comes
    // before.
    YAML::Mark start = mark;
    for (auto i = static_cast<size_t>(mark.pos); i > 0 && is_blank(text_[i - 1]); --i) {
      if (text_[i - 1] == '\n') --start.line;
    }
    attach(make(ConfigNode::Kind::kNull, start));
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                const std::string& value) override {
    check_tag(mark, tag);
    if (value.find('\0') != std::string::npos)
      throw fail(mark, "holds the control character \\x00");
    if (expects_key()) return take_key(mark, value);
    ConfigNode node = make(ConfigNode::Kind::kScalar, mark);
    node.scalar = value;
    node.quoted = tag == "!";  // what yaml-cpp calls every scalar in quotes, | or >
    attach(std::move(node));
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {
    open(ConfigNode::Kind::kList, mark, tag);
  }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                  YAML::EmitterStyle::value) override {
    open(ConfigNode::Kind::kMap, mark, tag);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapEnd() override { close(); }

 private:
  /// A map or list that is being read.
  struct Open {
    ConfigNode node;
    std::optional<std::string> key;  // of a map: the key whose value comes next
    int key_line = 0;
    std::unordered_map<std::string, int> lines;  // of a map: where each key stands
  };

  UserError fail(const YAML::Mark& mark, const std::string& what) const {
    return refused(source_, mark.line + 1, what);
  }

  bool expects_key() const {
    return !open_.empty() && open_.back().node.kind == ConfigNode::Kind::kMap && !open_.back().key;
  }

  /// The tag itself is looked at in the text, as yaml-cpp reports "! 3" like a quoted "3".
  void check_tag(const YAML::Mark& mark, const std::string& tag) const {
    const auto position = static_cast<size_t>(mark.pos);
    const bool bare = position < text_.size() && text_[position] == '!';
    if (bare || (!tag.empty() && tag != "?" && tag != "!"))
      throw fail(mark, "tags are not allowed");
  }

  ConfigNode make(ConfigNode::Kind kind, const YAML::Mark& mark) {
    ConfigNode node;
    node.kind = kind;
    last_line_ = mark.line + 1;
    const bool in_map = !open_.empty() && open_.back().key;
    const int line = in_map ? open_.back().key_line : mark.line + 1;  // a value is found by its key
    node.origin = {source_.name, source_.has_lines ? line : 0};
    return node;
  }

  void take_key(const YAML::Mark& mark, const std::string& key) {
    if (key.empty()) throw fail(mark, "a key is empty or null, expected a name");
    if (key.size() > kMaxKeyBytes) {
      throw fail(mark,
                 "a key is over " + std::to_string(kMaxKeyBytes) + " bytes long: " + one_line(key));
    }
    Open& map = open_.back();
    const auto [first, is_new] = map.lines.emplace(key, mark.line + 1);
    if (!is_new) {
      const std::string line =
          source_.has_lines ? "; first on line " + std::to_string(first->second) : "";
      throw fail(mark, "duplicate key " + path() + scalar_text(key, /*is_string=*/true) + line);
    }
    map.key = key;
    map.key_line = last_line_ = mark.line + 1;
  }

  /// "model.mixers[0]." in front of a key of the innermost map.
  std::string path() const {
    std::string path;
    for (size_t i = 0; i + 1 < open_.size(); ++i) {
      const Open& outer = open_[i];
      if (outer.node.kind == ConfigNode::Kind::kList) {
        path += "[" + std::to_string(outer.node.items.size()) + "]";
      } else {
        path += (path.empty() ? "" : ".") + *outer.key;
      }
    }
    return path.empty() ? "" : path + ".";
  }

  void open(ConfigNode::Kind kind, const YAML::Mark& mark, const std::string& tag) {
    check_tag(mark, tag);
    if (expects_key()) {
      throw fail(mark, "a list or a map stands as a key; is a bracket not closed?");
    }
    if (source_.depth + static_cast<int>(open_.size()) >= kMaxDepth) {
      throw fail(mark, nesting_rule());
    }
    open_.push_back({make(kind, mark), std::nullopt, 0, {}});
  }

  void close() {
    ConfigNode node = std::move(open_.back().node);
    open_.pop_back();
    attach(std::move(node));
  }

  void attach(ConfigNode node) {
    if (open_.empty()) {
      root_ = std::move(node);
    } else if (Open& parent = open_.back(); parent.node.kind == ConfigNode::Kind::kList) {
      parent.node.items.push_back(std::move(node));
    } else {
      parent.node.entries.emplace_back(std::move(*parent.key), std::move(node));
      parent.key.reset();
    }
  }

  std::string_view text_;
  const YamlSource& source_;
  bool seen_document_ = false;
  int last_line_ = 1;
  ConfigNode root_;
  std::vector<Open> open_;
};

/// What yaml-cpp found wrong, in the user's words. `text` ends with the line "..." added below.
UserError syntax_error(const YAML::Exception& error, const std::string& text, int last_line,
                       const YamlSource& source) {
  const int lines = static_cast<int>(std::count(text.begin(), text.end(), '\n'));
  const int line = error.mark.line + 1;
  if (line >= lines || line < 1) {  // found at the end: the trouble starts after what was read last
    const bool in_quotes = error.msg == YAML::ErrorMsg::DOC_IN_SCALAR;
    return refused(source, last_line,
                   in_quotes ? "a quote that opens here or below is not closed"
                             : "not valid YAML: " + one_line(error.msg));
  }
  std::istringstream in(text);
  std::string current;
  for (int i = 0; i < line; ++i) std::getline(in, current);
  const size_t first = current.find_first_not_of(' ');
  if (first != std::string::npos && current[first] == '\t') {
    return refused(source, line, "a tab in the indentation, expected spaces");
  }
  return refused(source, line, "not valid YAML: " + one_line(error.msg));
}

}  // namespace

ConfigNode read_yaml(std::string_view text, const YamlSource& source) {
  if (text.size() > kMaxYamlBytes) {
    throw refused(source, 0,
                  "is " + std::to_string(text.size()) + " bytes long, expected at most 1 MiB");
  }
  if (source.depth > kMaxDepth) throw refused(source, 0, nesting_rule());
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);  // a byte order mark
  check_text(text, source);
  // The end is spelt out, as at the end of a file yaml-cpp takes an open quote for closed.
  const std::string ended = std::string(text) + (text.ends_with('\n') ? "...\n" : "\n...\n");
  std::istringstream in(ended);
  TreeBuilder builder(ended, source);
  try {
    YAML::Parser parser(in);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const YAML::Exception& error) {
    throw syntax_error(error, ended, builder.last_line(), source);
  }
  ConfigNode root = builder.take_root();
  if (root.kind == ConfigNode::Kind::kNull) root.origin = {source.name, source.has_lines ? 1 : 0};
  return root;
}

}  // namespace tandem
