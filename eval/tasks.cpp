#include "eval/tasks.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "core/progress.h"
#include "eval/streaming_text.h"
#include "eval/task_metrics.h"
#include "eval/task_scores.h"
#include "nn/generate.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;

/// A task with its files read, the same for all models.
struct OpenTask {
  Task task;
  TaskDocuments documents = {}, examples = {};  // the second is empty where no examples are drawn
};

struct Totals {
  int64_t requests = 0, truncated = 0, tokens_scored = 0;
  void count(const TokenRequest& request) {
    ++requests;
    truncated += request.truncated;
    tokens_scored += std::ssize(request.continuation);
  }
};

std::string file_of(const TasksConfig& config, const Task& task, const std::string& split) {
  const std::string name = task.definition.name + (split.empty() ? "" : "." + split) + ".jsonl";
  const std::string path = join_path(config.data, name);
  if (exists(path)) return path;
  throw bad_file(
      path, fmt::format("is missing; task {} reads {} from there, one document a line",
                        task.definition.name, split.empty() ? "its questions" : "its examples"));
}

OpenTask open_task(const TasksConfig& config, const std::string& name) {
  OpenTask open{.task = load_task(name)};
  const TaskDefinition& definition = open.task.definition;
  open.documents = read_documents(file_of(config, open.task, ""), definition, config.limit);
  const auto& shots = config.num_fewshot;
  if (std::all_of(shots.begin(), shots.end(), [](int64_t n) { return n == 0; })) return open;
  if (definition.kind == "rolling") return open;  // make_items says that it takes none
  open.examples =
      read_documents(file_of(config, open.task, definition.fewshot_split), definition, 0);
  return open;
}

int64_t max_length_of(const TasksConfig& config, const LoadedModel& loaded,
                      const std::string& input) {
  const int64_t longest = longest_context(loaded.model->packing());
  if (config.max_length) {
    if (longest > 0 && *config.max_length > longest)
      throw bad_usage(fmt::format("--max-length {}, expected at most {}, the positions of {}",
                                  *config.max_length, longest, input));
    return *config.max_length;
  }
  const int64_t trained = loaded.context_length;
  if (trained == 0 && longest == 0)
    throw bad_usage(input +
                    " does not say what context length it was trained with; give --max-length");
  if (trained == 0 || longest == 0) return std::max(trained, longest);
  return std::min(trained, longest);
}

/// One cell: a model, a task, a number of examples.
struct Question {
  const OpenTask& open;
  const EvalArgs& args;
  const LoadedModel& loaded;
  RequestRules rules;
  int64_t n_fewshot;
  uint64_t fewshot_seed;
};

[[noreturn]] void at_document(const Question& question, size_t i, const std::exception& error) {
  throw bad_file(fmt::format("{}:{}", question.open.documents.path, i + 1), error.what());
}

// Requests of all documents as ids, and which document each belongs to.
struct Encoded {
  std::vector<TokenRequest> requests;
  std::vector<size_t> item;
};
Encoded encode_all(const Question& question, const std::vector<TaskItem>& items, Totals& totals) {
  const TaskDefinition& definition = question.open.task.definition;
  Encoded encoded;
  for (size_t i = 0; i < items.size(); ++i) {
    for (const TextRequest& request : items[i].requests) {
      std::vector<TokenRequest> made;
      try {
        if (definition.kind == "rolling")
          made = rolling_windows(request.continuation, question.rules);
        else if (definition.kind == "generation")
          made = {encode_prompt(request.context, question.rules, definition.max_new_tokens)};
        else
          made = {encode_request(request, question.rules)};
      } catch (const UserError&) {
        throw;
      } catch (const std::runtime_error& error) {
        at_document(question, i, error);
      }
      for (TokenRequest& one : made) {
        totals.count(one);
        encoded.requests.push_back(std::move(one));
        encoded.item.push_back(i);
      }
    }
  }
  return encoded;
}

void check_ids(const Question& question, const std::vector<TokenRequest>& requests) {
  const int64_t vocab_size = question.loaded.model->vocab_size();
  for (const TokenRequest& request : requests) {
    for (const auto* ids : {&request.context, &request.continuation}) {
      for (const int64_t id : *ids) {
        if (id >= vocab_size)
          throw bad_usage(
              fmt::format("the tokenizer gives id {}, the model's vocabulary ends at "
                          "{}: is it the model's tokenizer?",
                          id, vocab_size - 1));
      }
    }
  }
}

void generate_answers(const Question& question, const Encoded& encoded,
                      std::vector<TaskAnswer>& answers, Totals& totals, Progress& progress) {
  const TaskDefinition& definition = question.open.task.definition;
  const Tokenizer& tokenizer = *question.rules.tokenizer;
  GenerateConfig config;
  config.sampling.temperature = 0;
  config.max_new_tokens = definition.max_new_tokens;
  config.stop = definition.until;
  if (tokenizer.eos()) config.stop_ids = {*tokenizer.eos()};
  config.make_text = [&] { return std::make_unique<StreamingText>(tokenizer); };
  const auto step = static_cast<size_t>(question.args.batch);
  for (size_t begin = 0; begin < encoded.requests.size(); begin += step) {
    const size_t end = std::min(begin + step, encoded.requests.size());
    std::vector<std::vector<int64_t>> prompts;
    for (size_t i = begin; i < end; ++i) prompts.push_back(encoded.requests[i].context);
    const auto generated = generate(*question.loaded.model, prompts, config);
    for (size_t i = begin; i < end; ++i) {
      answers[encoded.item[i]].generated = generated[i - begin].text;
      totals.tokens_scored += std::ssize(generated[i - begin].ids);
    }
    progress.update(static_cast<int64_t>(end));
  }
}

Json measure(const Question& question) {
  const Task& task = question.open.task;
  const auto items = make_items(task, question.open.documents, question.open.examples,
                                question.n_fewshot, question.fewshot_seed);
  Totals totals;
  const Encoded encoded = encode_all(question, items, totals);
  check_ids(question, encoded.requests);
  std::vector<TaskAnswer> answers(items.size());
  Progress progress(task.definition.name, std::ssize(encoded.requests), "requests");
  if (task.definition.kind == "generation") {
    generate_answers(question, encoded, answers, totals, progress);
  } else {
    const auto scores = score_requests(
        *question.loaded.model, encoded.requests, question.args.device, question.args.batch,
        task.definition.kind == "likelihood", [&](int64_t done) { progress.update(done); });
    for (size_t i = 0; i < scores.size(); ++i) {
      answers[encoded.item[i]].log_probs.push_back(scores[i].log_prob);
      answers[encoded.item[i]].greedy.push_back(scores[i].greedy);
    }
  }
  progress.finish();
  Json metrics;
  for (const MetricValue& metric : task_metrics(task.definition, items, answers)) {
    metrics[metric.name] = {
        {"value", metric.value},
        {"stderr", metric.standard_error ? Json(*metric.standard_error) : Json()}};
  }
  return {{"requests", totals.requests},
          {"truncated", totals.truncated},
          {task.definition.kind == "generation" ? "tokens_generated" : "tokens_scored",
           totals.tokens_scored},
          {"metrics", std::move(metrics)}};
}

Json identity_of(const Question& question, const std::string& input) {
  const OpenTask& open = question.open;
  Json identity = about("tasks", question.args, input, question.loaded);
  identity["task"] = open.task.definition.name;
  identity["task_version"] = open.task.definition.version;
  identity["task_hash"] = open.task.hash;
  identity["data"] = open.documents.path;
  identity["data_hash"] = open.documents.hash;
  identity["n"] = std::ssize(open.documents.documents);
  identity["num_fewshot"] = question.n_fewshot;
  if (question.n_fewshot > 0) {
    identity["fewshot_data"] = open.examples.path;
    identity["fewshot_hash"] = open.examples.hash;
    identity["fewshot_seed"] = question.fewshot_seed;
  }
  identity["max_length"] = question.rules.max_length;
  identity["add_bos"] = question.rules.add_bos;
  return identity;
}

void add_rows(EvalTable& table, const Json& record) {
  for (const auto& [name, metric] : record["metrics"].items()) {
    const Json& error = metric["stderr"];
    table.push_back(
        {record["model"], record["task"], record["num_fewshot"].dump(),
         with_commas(record["n"].get<int64_t>()), name,
         metric["value"].is_null() ? "n/a" : fmt::format("{:.4f}", metric["value"].get<double>()),
         error.is_null() ? "n/a" : fmt::format("{:.4f}", error.get<double>())});
  }
  const auto truncated = record["truncated"].get<int64_t>();
  if (truncated > 0)
    log_warning(fmt::format(
        "{}: {} of {} contexts lost tokens at their front, as --max-length is {}",
        record["task"].get<std::string>(), with_commas(truncated),
        with_commas(record["requests"].get<int64_t>()), record["max_length"].get<int64_t>()));
}

}  // namespace

const char* const kTasksHelp =
    R"(Scores multiple-choice, likelihood and generation tasks from JSON lines in the form in which the
datasets are published, with the prompts, normalisation and examples of lm-evaluation-harness. --data is a folder of
TASK.jsonl, the split that is asked, and for --num-fewshot above 0 TASK.train.jsonl (lambada_standard: TASK.validation.jsonl;
lambada_openai: TASK.jsonl itself). Built-in tasks and the fields of their documents:
  arc_easy, arc_challenge, openbookqa   question (openbookqa: question_stem), choices {text: [], label: []}, answerKey
  boolq       passage, question, label 0 or 1
  hellaswag   activity_label, ctx_a, ctx_b, endings [], label "0" to "3"
  piqa        goal, sol1, sol2, label 0 or 1
  winogrande  sentence with a blank _, option1, option2, answer "1" or "2"
  sciq        support, question, distractor1 to distractor3, correct_answer
  lambada_openai, lambada_standard      text
  wikitext    page
Any other task is a YAML file of templates like those in configs/tasks, named in --tasks by its path, which ends in .yaml.
--num-fewshot lists how many examples stand in front of a question, one result each; --fewshot-seed draws them. --limit takes the
first documents only. --max-length is the most tokens that the model sees at once (absent: as trained); longer contexts lose their
front, and the record says how many did. --add-bos true puts BOS in front of every text, as some models' tokenizers do.
Example: tandem eval tasks runs/yoco --data data/tasks --tasks arc_easy,piqa,lambada_openai --num-fewshot 0,5 --out tasks.jsonl)";

EvalTable run_tasks(const TasksConfig& config, const EvalArgs& args) {
  if (config.data.empty())
    throw bad_usage("eval tasks needs a folder of TASK.jsonl files, --data FOLDER");
  if (config.tasks.empty())
    throw bad_usage(fmt::format("eval tasks needs --tasks, some of {}, or YAML files",
                                fmt::join(builtin_tasks(), ", ")));
  if (config.num_fewshot.empty()) throw bad_usage("--num-fewshot is empty, expected 0 or more");
  std::vector<OpenTask> tasks;
  for (const std::string& name : config.tasks) tasks.push_back(open_task(config, name));
  EvalTable table = {{"model", "task", "shots", "n", "metric", "value", "stderr"}};
  for (const std::string& input : args.inputs) {
    const LoadedModel loaded = args.load(input);
    if (!loaded.tokenizer)
      throw bad_usage(input + " has no tokenizer, and tasks are text: convert it with one");
    const RequestRules rules{.tokenizer = loaded.tokenizer.get(),
                             .add_bos = config.add_bos,
                             .max_length = max_length_of(config, loaded, input)};
    if (config.add_bos && !loaded.tokenizer->bos())
      throw bad_usage("--add-bos true, but the tokenizer of " + input + " has no BOS");
    std::vector<Cell> cells;
    for (const OpenTask& open : tasks) {
      for (const int64_t n_fewshot : config.num_fewshot) {
        const Question question{open,  args,      loaded,
                                rules, n_fewshot, static_cast<uint64_t>(config.fewshot_seed)};
        cells.push_back({identity_of(question, input), [question] { return measure(question); }});
      }
    }
    for (const Json& record : args.cells->run("tasks " + input, cells)) add_rows(table, record);
  }
  return table;
}

}  // namespace tandem
