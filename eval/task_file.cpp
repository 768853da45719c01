#include "eval/task_file.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "core/checksum.h"
#include "core/file.h"
#include "eval/task_metrics.h"

namespace tandem {
namespace {

struct BuiltinTask {
  const char *name, *yaml;
};
const BuiltinTask kBuiltin[] = {
#include "builtin_tasks.inc"
};

Template compile(const std::string& text, const char* key, const std::string& source) {
  try {
    return Template(text);
  } catch (const std::runtime_error& error) {
    throw bad_config({source, 0}, fmt::format("{} = {}: {}", key, one_line(text), error.what()));
  }
}

}  // namespace

void TaskDefinition::check(Checker& check) const {
  const bool plain_name = !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-';
  });
  check.require(plain_name, "name", name, "letters, digits, _ and -, as files are named after it");
  const auto given = [&](const char* key, const std::string& value, bool wanted) {
    check.require(
        value.empty() != wanted, key, value.empty() ? "\"\"" : value,
        wanted ? "a template, as the kind is " + kind : "nothing, as the kind is " + kind);
  };
  const bool is_choice = kind == "multiple_choice";
  if (kind == "rolling") given("prompt", prompt, false);
  if (is_choice && ending.empty()) given("choices", choices, true);
  if (is_choice && !ending.empty())
    check.require(choices.empty(), "choices", choices, "nothing beside `ending`");
  if (!is_choice) given("choices", choices, false), given("ending", ending, false);
  given("target", target, true);
  if (kind != "rolling") given("counted", counted, false);
  check.require(!metrics.empty(), "metrics", "[]", "at least one metric");
  const auto known = metrics_of(kind);
  for (const std::string& metric : metrics) {
    check.require(std::find(known.begin(), known.end(), metric) != known.end(), "metrics", metric,
                  fmt::format("one of {}, as the kind is {}", fmt::join(known, ", "), kind));
  }
  for (const std::string& stop : until)
    check.require(!stop.empty(), "until", "\"\"", "texts that are not empty");
}

std::vector<std::string> builtin_tasks() {
  std::vector<std::string> names;
  for (const BuiltinTask& task : kBuiltin) names.push_back(task.name);
  return names;
}

Task parse_task(std::string_view yaml, const std::string& source) {
  Task task{.source = source};
  read_config(parse_yaml(yaml, source), task.definition);
  const TaskDefinition& definition = task.definition;
  task.prompt = compile(definition.prompt, "prompt", source);
  task.choices = compile(definition.choices, "choices", source);
  task.ending = compile(definition.ending, "ending", source);
  task.target = compile(definition.target, "target", source);
  task.counted = compile(definition.counted, "counted", source);
  task.hash = sha256_hex(yaml);
  return task;
}

Task load_task(const std::string& name_or_path) {
  if (name_or_path.ends_with(".yaml") || name_or_path.ends_with(".yml"))
    return parse_task(read_text(name_or_path), name_or_path);
  for (const BuiltinTask& task : kBuiltin) {
    if (name_or_path == task.name) return parse_task(task.yaml, "built in");
  }
  const auto known = builtin_tasks();
  const std::string close = nearest(name_or_path, known);
  throw bad_usage(fmt::format(
      "unknown task {}; {}known here: {}, and files that end in .yaml", one_line(name_or_path),
      close.empty() ? "" : "did you mean " + close + "? ", fmt::join(known, ", ")));
}

}  // namespace tandem
