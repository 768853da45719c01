#pragma once
#include <functional>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "core/config.h"
#include "eval/cells.h"
#include "eval/loaded_model.h"

namespace tandem {

/// What every evaluation gets, beside its own config.
struct EvalArgs {
  std::vector<std::string> inputs;  // checkpoints and run folders; for `scaling` result files
  std::function<LoadedModel(const std::string& path)> load;  // onto `device`, in `dtype`
  // The same without weights, for costs alone; or a config (.yaml).
  std::function<LoadedModel(const std::string& path)> describe;
  // As `load`; a config (.yaml) is a model of random weights.
  std::function<LoadedModel(const std::string& path)> load_or_make;
  CellRunner* cells = nullptr;  // measures what is not there yet, keeps and shows each result
  torch::Device device = torch::kCPU;
  std::string dtype = "float32";
  int64_t batch = 8;  // rows of one call
  uint64_t seed = 0;
};

/// The fields that every record begins with: evaluation, model (as the user named it), checkpoint,
/// manifest (its hash), step, parameters, dtype, device, seed.
nlohmann::ordered_json about(const std::string& evaluation, const EvalArgs& args,
                             const std::string& input, const LoadedModel& loaded);

/// What people see at the end: rows of cells, the first row the heading.
using EvalTable = std::vector<std::vector<std::string>>;

/// An option of the command line: `--some-key` for the key `some_key` of an evaluation's config.
struct EvalFlag {
  std::string key;
  std::string kind;      // TEXT, INT, NUMBER, true|false
  bool is_list = false;  // comma-separated on the command line
};

/// One row of the table behind `tandem eval`.
struct Evaluation {
  std::string name, summary;
  std::string help;  // what the options mean, and an example
  std::vector<EvalFlag> flags;
  std::function<EvalTable(const ConfigNode& options, const EvalArgs& args)>
      run;  // throws UserError
};

std::span<const Evaluation> evaluations();

/// Visits a config's fields() for the names and kinds of its keys.
struct EvalFlagLister {
  std::vector<EvalFlag> flags;
  template <typename T, typename... Rest>
  void value(const char* key, T&, Rest&&...) {
    flags.push_back(flag_of<T>(key));
  }
  template <typename T, typename... Rest>
  void optional(const char* key, std::optional<T>&, Rest&&...) {
    flags.push_back(flag_of<T>(key));
  }
  void one_of(const char* key, std::string&, std::initializer_list<const char*>) {
    flags.push_back(flag_of<std::string>(key));
  }

 private:
  template <typename T>
  static EvalFlag flag_of(const char* key) {
    if constexpr (std::is_same_v<T, bool>)
      return {key, "true|false"};
    else if constexpr (std::is_same_v<T, int64_t>)
      return {key, "INT"};
    else if constexpr (std::is_same_v<T, double>)
      return {key, "NUMBER"};
    else if constexpr (std::is_same_v<T, std::string>)
      return {key, "TEXT"};
    else
      return {key, flag_of<typename T::value_type>(key).kind + ",...", true};
  }
};

template <typename Config>
Evaluation evaluation(std::string name, std::string summary, std::string help,
                      EvalTable (*run)(const Config&, const EvalArgs&)) {
  EvalFlagLister lister;
  Config defaults;
  defaults.fields(lister);
  return {std::move(name), std::move(summary), std::move(help), std::move(lister.flags),
          [run](const ConfigNode& options, const EvalArgs& args) {
            Config config;
            read_config(options, config);
            return run(config, args);
          }};
}

}  // namespace tandem
