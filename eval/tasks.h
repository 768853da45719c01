#pragma once
#include <optional>
#include <string>
#include <vector>

#include "eval/registry.h"

namespace tandem {

/// `tandem eval tasks`: questions with known answers from local files.
struct TasksConfig {
  std::string data = "";                   // folder of TASK.jsonl and TASK.SPLIT.jsonl
  std::vector<std::string> tasks = {};     // names of built-in tasks, and YAML files
  std::vector<int64_t> num_fewshot = {0};  // examples in front of each question
  int64_t fewshot_seed = 1234;             // of which examples are drawn
  int64_t limit = 0;                       // first documents of each task; 0 = all
  // most ids that the model sees at once; absent: as trained, or as many as it has positions for
  std::optional<int64_t> max_length = {};
  bool add_bos = false;  // every text begins with BOS
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.value("data", data);
    visit.value("tasks", tasks);
    visit.value("num_fewshot", num_fewshot, at_least(0));
    visit.value("fewshot_seed", fewshot_seed, at_least(0));
    visit.value("limit", limit, at_least(0));
    visit.optional("max_length", max_length, at_least(2));
    visit.value("add_bos", add_bos);
  }
};

extern const char* const kTasksHelp;
EvalTable run_tasks(const TasksConfig& config, const EvalArgs& args);

}  // namespace tandem
