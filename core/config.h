#pragma once
// Configs are plain structs. `template <class Visitor> void fields(Visitor& visit)` is the only list of a struct's keys;
// ConfigReader, ConfigWriter and Checker all go through it. Visitors offer:
//   visit.value("n_heads", n_heads, at_least(1));          bool, int64_t, double, std::string, std::vector of these
//   visit.optional("n_kv_heads", n_kv_heads, at_least(1)); std::optional of these; absent stays empty
//   visit.one_of("pairs", pairs, {"interleaved", "halves"});   a std::string out of a list
//   visit.section("rope", rope);                            a nested config struct (also std::optional<Struct>: absent or a map)
//   visit.list("train", sources);                           std::vector of config structs
//   visit.choice("mixer", choice) / visit.choices("mixers", choices)   a Choice, or std::vector<Choice>
//   visit.inline_choice(choice)                             a Choice whose keys stand among the struct's own
// A struct may also have `void check(Checker& check) const` for rules across fields, called after all values were read.
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/config_node.h"
#include "core/error.h"

namespace tandem {

/// What a value may be: `expected` completes "expected ..." in the message; where the field is an integer, "a number" at its
/// start is shown as "an integer". Applied to numbers and to each element of a list. Without `holds` anything goes.
struct Rule {
  std::string expected;
  std::function<bool(double)> holds;
};
Rule any_value();
Rule at_least(double low);            ///< "an integer >= 1" or "a number >= 1" by the field's type
Rule above(double low);
Rule in_range(double low, double high);  ///< both included
Rule even();                          ///< an even integer >= 2

class ConfigReader;
class ConfigWriter;
class Checker;

/// A config whose type is chosen by name at run time.
struct AnyConfig {
  virtual ~AnyConfig() = default;
  virtual void read(ConfigReader& reader) = 0;
  virtual void write(ConfigWriter& writer) = 0;
  virtual void check(Checker& checker) = 0;
};
template <typename C>
struct ConfigOf;  // below
/// One entry of a table of choices.
struct Option {
  std::string name;
  std::function<std::unique_ptr<AnyConfig>()> make_config;
};
/// A name and the config that goes with it, written as one map: `{name: sliding_window, window: 256}`. `key` is the key that
/// names the option ("name", "family", "kind", "stack"). The table must outlive the Choice.
struct Choice {
  std::span<const Option> options;
  std::string key = "name";
  std::string name;
  std::shared_ptr<AnyConfig> config;

  /// The config as C. Throws std::bad_cast when another option was chosen.
  template <typename C>
  C& as() { return dynamic_cast<ConfigOf<C>&>(*config).value; }
  template <typename C>
  const C& as() const { return dynamic_cast<const ConfigOf<C>&>(*config).value; }
  /// Picks an option with its default config. Throws std::out_of_range for a name that is not in the table.
  void pick(const std::string& option_name);
};

/// Reads one map into a struct through fields(). Type and range errors and unknown keys are UserErrors with origin and full key path.
class ConfigReader {
 public:
  ConfigReader(const ConfigNode& node, std::string path);

  void value(const char* key, bool& out);
  void value(const char* key, int64_t& out, const Rule& rule = any_value());
  void value(const char* key, double& out, const Rule& rule = any_value());
  void value(const char* key, std::string& out);
  void value(const char* key, std::vector<int64_t>& out, const Rule& rule = any_value());
  void value(const char* key, std::vector<double>& out, const Rule& rule = any_value());
  void value(const char* key, std::vector<std::string>& out);
  template <typename T>
  void optional(const char* key, std::optional<T>& out, const Rule& rule = any_value()) {
    if (!present(key)) return;
    T read{};
    if constexpr (requires { value(key, read, rule); }) value(key, read, rule);
    else value(key, read);  // bool, std::string and lists of these have no rule
    out = std::move(read);
  }
  /// Like optional, but the word `none` makes it empty and absent leaves what was there.
  void optional_or_none(const char* key, std::optional<double>& out, const Rule& rule);
  void one_of(const char* key, std::string& out, std::initializer_list<const char*> allowed);
  template <typename S>
  void section(const char* key, S& out) {
    if (const ConfigNode* node = map_at(key)) read_into(*node, join(key), out);
  }
  template <typename S>
  void section(const char* key, std::optional<S>& out) {
    if (const ConfigNode* node = map_at(key)) read_into(*node, join(key), out.emplace());
  }
  template <typename S>
  void list(const char* key, std::vector<S>& out) {
    const ConfigNode* node = list_at(key);
    if (!node) return;
    out.clear();
    for (size_t i = 0; i < node->items.size(); ++i) {
      read_into(node->items[i], join(key) + "[" + std::to_string(i) + "]", out.emplace_back());
    }
  }
  /// A map without the key that names the option keeps the option picked before, with its defaults.
  void choice(const char* key, Choice& out);
  /// `prototype` gives the table and the key of each element.
  void choices(const char* key, std::vector<Choice>& out, const Choice& prototype);
  /// The key that names the option and the option's keys stand in this very map.
  void inline_choice(Choice& out);
  /// A map of free keys, such as the overrides of a stage: taken whole, checked by whoever uses it.
  void raw(const char* key, ConfigNode& out);

  /// After fields(): throws unknown_key() for the first key that no field took.
  void finish() const;

  template <typename S>
  static void read_into(const ConfigNode& node, const std::string& path, S& out) {
    ConfigReader reader(node, path);
    out.fields(reader);
    reader.finish();
  }

 private:
  bool present(const char* key);
  const ConfigNode* take(const char* key);
  const ConfigNode* map_at(const char* key);
  const ConfigNode* list_at(const char* key);
  std::string join(const char* key) const;
  static void read_choice(const ConfigNode& node, const std::string& path, Choice& out);
  /// The name that the map gives, checked; out.name where it gives none.
  std::string name_of_option(const Choice& out);

  const ConfigNode& node_;
  std::string path_;
  std::string choice_key_;          // the key that named the option: taken, but not one of the option's own keys
  std::vector<std::string> known_;  // keys that the fields asked for
};

/// Writes every field, so that what was resolved can be shown and saved. Absent optionals are left out.
class ConfigWriter {
 public:
  void value(const char* key, bool& in);
  void value(const char* key, int64_t& in, const Rule& = any_value());
  void value(const char* key, double& in, const Rule& = any_value());
  void value(const char* key, std::string& in);
  void value(const char* key, std::vector<int64_t>& in, const Rule& = any_value());
  void value(const char* key, std::vector<double>& in, const Rule& = any_value());
  void value(const char* key, std::vector<std::string>& in);
  template <typename T>
  void optional(const char* key, std::optional<T>& in, const Rule& = any_value()) { if (in) value(key, *in); }
  void optional_or_none(const char* key, std::optional<double>& in, const Rule&);  ///< empty is written as `none`
  void one_of(const char* key, std::string& in, std::initializer_list<const char*>) { value(key, in); }
  template <typename S>
  void section(const char* key, S& in) { add(key, write(in)); }
  template <typename S>
  void section(const char* key, std::optional<S>& in) { if (in) add(key, write(*in)); }
  template <typename S>
  void list(const char* key, std::vector<S>& in) {
    ConfigNode node = ConfigNode::make_list();
    for (auto& element : in) node.items.push_back(write(element));
    add(key, std::move(node));
  }
  void choice(const char* key, Choice& in);
  void choices(const char* key, std::vector<Choice>& in, const Choice& prototype);
  void inline_choice(Choice& in);
  void raw(const char* key, ConfigNode& in);

  template <typename S>
  static ConfigNode write(S& in) {
    ConfigWriter writer;
    in.fields(writer);
    return std::move(writer.node_);
  }

 private:
  void add(const char* key, ConfigNode node);
  ConfigNode node_ = ConfigNode::make_map();
};

/// Rules across fields. Messages name the key that the user wrote; when none was written, the struct's own path.
class Checker {
 public:
  Checker(const ConfigNode& node, std::string path);

  /// `large` must be a multiple of `small`: "n_heads = 6, expected a multiple of n_kv_heads (4)". With only one of them
  /// written: "n_heads = 6, expected a multiple of 4", "n_kv_heads = 4, expected a divisor of 6".
  void divides(const char* small_key, int64_t small, const char* large_key, int64_t large) const;
  /// Throws bad_value at `key` unless `holds`.
  void require(bool holds, const char* key, const std::string& value, const std::string& expected) const;
  bool written(const char* key) const;  ///< the user wrote this key

  // as a visitor: goes into nested configs
  template <typename... A> void value(const char*, A&&...) {}
  template <typename... A> void optional(const char*, A&&...) {}
  void optional_or_none(const char*, std::optional<double>&, const Rule&) {}
  void one_of(const char*, std::string&, std::initializer_list<const char*>) {}
  void raw(const char*, ConfigNode&) {}
  template <typename S>
  void section(const char* key, S& in) { Checker(child(key), join(key)).run(in); }
  template <typename S>
  void section(const char* key, std::optional<S>& in) { if (in) Checker(child(key), join(key)).run(*in); }
  template <typename S>
  void list(const char* key, std::vector<S>& in) {
    for (size_t i = 0; i < in.size(); ++i) Checker(child(key, i), join(key, i)).run(in[i]);
  }
  void choice(const char* key, Choice& in) { if (in.config) { Checker c(child(key), join(key)); in.config->check(c); } }
  void choices(const char* key, std::vector<Choice>& in, const Choice&) {
    for (size_t i = 0; i < in.size(); ++i) { Checker c(child(key, i), join(key, i)); in[i].config->check(c); }
  }
  void inline_choice(Choice& in) { if (in.config) in.config->check(*this); }
  /// Checks the nested configs of `in`, then `in` itself.
  template <typename S>
  void run(S& in) {
    in.fields(*this);
    if constexpr (requires { in.check(*this); }) in.check(*this);
  }

 private:
  const ConfigNode& child(const char* key) const;           // a shared empty map when the user wrote none
  const ConfigNode& child(const char* key, size_t i) const;
  std::string join(const char* key) const;
  std::string join(const char* key, size_t i) const;

  const ConfigNode& node_;
  std::string path_;
};

template <typename C>
struct ConfigOf final : AnyConfig {
  C value;
  void read(ConfigReader& reader) override { value.fields(reader); }
  void write(ConfigWriter& writer) override { value.fields(writer); }
  void check(Checker& checker) override { checker.run(value); }
};
template <typename C>
Option option(std::string name) {
  return {std::move(name), [] { return std::make_unique<ConfigOf<C>>(); }};
}
/// The same with other defaults than C's own, such as a table that C does not know.
template <typename C>
Option option(std::string name, C defaults) {
  return {std::move(name), [defaults] {
            auto config = std::make_unique<ConfigOf<C>>();
            config->value = defaults;
            return config;
          }};
}

/// Reads `node` into `out` and runs all checks.
template <typename S>
void read_config(const ConfigNode& node, S& out, const std::string& path = "") {
  ConfigReader::read_into(node, path, out);
  Checker(node, path).run(out);
}
/// Every field of `config` with its value as it is now.
template <typename S>
ConfigNode write_config(S& config) { return ConfigWriter::write(config); }

}  // namespace tandem
