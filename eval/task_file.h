#pragma once
#include <string>
#include <vector>

#include "core/config.h"
#include "eval/task_template.h"

namespace tandem {

/// A task as its YAML file gives it. Values are templates (eval/task_template.h) where it says so.
struct TaskDefinition {
  std::string name = "";
  int64_t version = 1;  // of what it asks; results of different versions do not compare
  // multiple_choice   which continuation is likeliest
  // likelihood        how likely one continuation is, and whether greedy decoding gives it
  // rolling           how likely whole texts are, in windows
  // generation        whether what is generated is the answer
  std::string kind = "multiple_choice";
  std::string process = "none";  // what documents go through first (eval/task_process.h)
  std::string prompt = "";       // template; a list of texts where the choices are contexts
  std::string choices = "";      // template of a list of texts; absent where `ending` is given
  std::string ending = "";       // template: what follows each of the contexts
  // template: place of the right choice, a list of them or its text; else the text to be scored or
  // generated, of generation also a list of texts
  std::string target = "";
  std::string counted = "";  // template: the text whose words and bytes count; absent: the target
  std::string target_delimiter = " ", fewshot_delimiter = "\n\n";
  std::string fewshot_split = "train";  // examples are in NAME.SPLIT.jsonl; "": the documents
  bool fewshot_leave_out = true;  // one example more is drawn and the document itself left out
  std::vector<std::string> metrics = {};
  std::vector<std::string> until = {"\n\n"};  // ends what is generated
  int64_t max_new_tokens = 256;
  bool ignore_case = false;  // where what was generated is compared
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.value("name", name);
    visit.value("version", version, at_least(0));
    visit.one_of("kind", kind, {"generation", "likelihood", "multiple_choice", "rolling"});
    visit.one_of("process", process, {"hellaswag", "none", "wikitext", "winogrande"});
    visit.value("prompt", prompt);
    visit.value("choices", choices);
    visit.value("ending", ending);
    visit.value("target", target);
    visit.value("counted", counted);
    visit.value("target_delimiter", target_delimiter);
    visit.value("fewshot_delimiter", fewshot_delimiter);
    visit.value("fewshot_split", fewshot_split);
    visit.value("fewshot_leave_out", fewshot_leave_out);
    visit.value("metrics", metrics);
    visit.value("until", until);
    visit.value("max_new_tokens", max_new_tokens, at_least(1));
    visit.value("ignore_case", ignore_case);
  }
  void check(Checker& check) const;
};

/// A task ready to be asked.
struct Task {
  TaskDefinition definition = {};
  Template prompt = {}, choices = {}, ending = {}, target = {}, counted = {};
  std::string source = "";  // path, or "built in"
  std::string hash = "";    // SHA-256 of the YAML
};

/// The names of the tasks that are part of the program: configs/tasks/NAME.yaml.
std::vector<std::string> builtin_tasks();
/// A built-in task, or the file of a name that ends in .yaml. Throws UserError.
Task load_task(const std::string& name_or_path);
Task parse_task(std::string_view yaml, const std::string& source);

}  // namespace tandem
