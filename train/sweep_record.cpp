#include "train/sweep_record.h"

#include <algorithm>
#include <functional>
#include <vector>

#include "core/error.h"
#include "core/file.h"
#include "core/json_lines.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kFewestSmoothed = 10;  // steps
constexpr uint64_t kTailBytes = 8192;   // holds a line of metrics.jsonl and a piece of one

std::string metrics_of(const std::string& run_folder) {
  return join_path(run_folder, "metrics.jsonl");
}

/// Each whole line of `text` with its number.
void for_each_line(std::string_view text,
                   const std::function<void(std::string_view, int64_t)>& act) {
  int64_t number = 1;
  for (size_t begin = 0, end; (end = text.find('\n', begin)) != text.npos;
       begin = end + 1, ++number)
    act(text.substr(begin, end - begin), number);
}

bool has_number(const Json& line, const char* key) {
  const auto at = line.find(key);
  return at != line.end() && at->is_number();
}

}  // namespace

RunFacts facts_of(const std::string& run_folder) {
  const std::string path = metrics_of(run_folder);
  RunFacts facts;
  std::vector<double> losses;
  int64_t validated = -1;
  for_each_line(read_text(path), [&](std::string_view text, int64_t number) {
    try {
      const Json line = parse_json(text);
      const int64_t step = get_int(line, "step", 0, INT64_MAX);
      if (has_number(line, "validation_loss")) {
        validated = step;
        facts.validation_loss = line["validation_loss"].get<double>();
        return;
      }
      if (!line.contains("loss")) return;
      facts.last_step = step;
      if (has_number(line, "seconds")) facts.seconds += line["seconds"].get<double>();
      if (has_number(line, "loss") && !line.contains("skipped"))
        losses.push_back(line["loss"].get<double>());
    } catch (const std::runtime_error& error) {
      throw bad_file(path + ":" + std::to_string(number), error.what());
    }
  });
  if (validated != facts.last_step) facts.validation_loss.reset();
  const size_t n = std::min(losses.size(), std::max(kFewestSmoothed, losses.size() / 20));
  for (size_t i = losses.size() - n; i < losses.size(); ++i) facts.train_loss += losses[i];
  if (n > 0) facts.train_loss /= static_cast<double>(n);
  facts.train_loss_steps = static_cast<int64_t>(n);
  return facts;
}

int64_t last_step_of(const std::string& run_folder) {
  const std::string path = metrics_of(run_folder);
  if (!exists(path)) return 0;
  const File file = File::open_read(path);
  const uint64_t size = file.size(), begin = size > kTailBytes ? size - kTailBytes : 0;
  std::string tail(size - begin, '\0');
  file.read_at(begin, std::as_writable_bytes(std::span(tail)));
  int64_t step = 0;
  for_each_line(tail, [&](std::string_view text, int64_t) {
    try {
      step = get_int(parse_json(text), "step", 0, INT64_MAX);
    } catch (const std::runtime_error&) {
      // the tail may begin inside a line
    }
  });
  return step;
}

std::string folder_of(const SweepPlan& plan, const SweepRun& run) {
  return join_path(plan.folder, run.name);
}

Json describe(const SweepPlan& plan, const SweepRun& run) {
  Json settings = Json::object();
  for (const Setting& setting : run.settings)
    settings[setting.key] = parse_json(to_json(setting.value, -1));
  Json json = {{"sweep", plan.name},
               {"run", run.name},
               {"group", run.group},
               {"hash", run.hash},
               {"folder", folder_of(plan, run)},
               {"base", run.base},
               {"settings", settings},
               {"family", run.family},
               {"d_model", run.d_model},
               {"lr", run.lr},
               {"parameters", run.parameters.total},
               {"non_embedding_parameters", run.parameters.non_embedding},
               {"context_length", run.context_length},
               {"flops_per_token", run.flops_per_token},
               {"state_bytes", run.state_bytes},
               {"steps", run.steps},
               {"tokens", run.tokens},
               {"compute", run.compute}};
  if (run.flops_budget) json["flops_budget"] = *run.flops_budget;
  return json;
}

Json record_of(const SweepPlan& plan, const SweepRun& run) {
  const std::string folder = folder_of(plan, run);
  const RunFacts facts = facts_of(folder);
  if (facts.last_step != run.steps)
    throw bad_file(metrics_of(folder), "ends at step " + std::to_string(facts.last_step) + " of " +
                                           std::to_string(run.steps));
  Json record = describe(plan, run);
  record["train_loss"] = facts.train_loss;
  record["train_loss_steps"] = facts.train_loss_steps;
  record["validation_loss"] = facts.validation_loss ? Json(*facts.validation_loss) : Json();
  record["seconds"] = facts.seconds;
  record["tokens_per_second"] =
      facts.seconds > 0 ? Json(static_cast<double>(run.tokens) / facts.seconds) : Json();
  return record;
}

}  // namespace tandem
