#include "train/start_record.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/version.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>

#include "core/log.h"
#include "core/version.h"
#include "nn/device_info.h"

namespace tandem {
namespace {

using nlohmann::ordered_json;

std::string utc_now() {
  char text[32];
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

/// What a run over `tokens` sees of each source of a mixture.
void log_sources(const std::vector<TrainSourceConfig>& sources, const Sampler& sampler,
                 int64_t tokens) {
  if (sources.size() == 1) return;
  double weights = 0;
  for (const auto& source : sources) weights += source.weight;
  for (size_t i = 0; i < sources.size(); ++i) {
    const double share = sources[i].weight / weights;
    const int64_t epoch = sampler.view(static_cast<int64_t>(i)).tokens();
    log_line(fmt::format("  {}: {} tokens, {:.1f} % of the samples, {:.2f} epochs", sources[i].path,
                         with_commas(epoch), 100 * share,
                         share * static_cast<double>(tokens) / static_cast<double>(epoch)));
  }
}

/// Warns, and says so, where `source` is a single document that nothing ended: its eos_id and its
/// lengths have no effect then, nor have `settings`.
bool warn_of_one_document(const std::string& key, const SourceConfig& source,
                          const WindowView& view, std::vector<std::string> settings) {
  const std::string why = why_one_document(view.documents().file(), source.eos_id);
  if (why.empty()) return false;
  if (source.max_length) settings.insert(settings.begin(), "max_length");
  if (source.min_length) settings.insert(settings.begin(), "min_length");
  if (source.eos_id) settings.insert(settings.begin(), "eos_id");
  if (!settings.empty())
    log_warning(fmt::format("{}: {}, so that it is one document: {} {} no effect on it", key, why,
                            fmt::join(settings, ", "), settings.size() == 1 ? "has" : "have"));
  return true;
}

}  // namespace

ordered_json start_record(const Run& run, const TrainConfig& config, const ordered_json& weights,
                          const std::string& command) {
  char host[256] = "localhost";
  gethostname(host, sizeof host - 1);
  ordered_json record = {{"time", utc_now()},
                         {"step", run.step},
                         {"weights", weights},
                         {"host", host},
                         {"process", getpid()},
                         {"command", command},
                         {"device", run.device.str()},
                         {"device_name", device_name(run.device)},
                         {"threads", config.training.threads.value()},
                         {"tandem", kTandemVersion},
                         {"libtorch", TORCH_VERSION},
                         {"compiler", __VERSION__}};
  if (config.training.deterministic == "elastic") record["elastic"] = true;
  if (run.mesh->world->size() > 1) {
    record["ranks"] = run.mesh->world->size();
    record["mesh"] = run.mesh->shape.str();
  }
  return record;
}

void warn_of_changes(const ordered_json& before, const ordered_json& now) {
  const auto mesh_of = [](const ordered_json& start) {
    return start.is_object() ? start.value("mesh", std::string("one process")) : "one process";
  };
  const bool elastic = now.is_object() && now.value("elastic", false);
  if (before.is_object() && mesh_of(before) != mesh_of(now) && !elastic)
    log_warning(
        fmt::format("the ranks were {}, are {}; further steps may differ in their last bits",
                    mesh_of(before), mesh_of(now)));
  for (const char* key : {"device_name", "tandem", "libtorch", "compiler"}) {
    if (!before.is_object() || !before.contains(key) || before.at(key) == now.at(key)) continue;
    log_warning(fmt::format("{} was {}, is {}; further steps may differ in their last bits", key,
                            before.at(key).dump(), now.at(key).dump()));
  }
}

void log_summary(const Plan& plan, const Stage& stage, const Run& run, const Sampler& sampler,
                 const std::string& run_folder) {
  const TrainingConfig& training = stage.config.training;
  const Flops flops = flops_per_token(*run.model, training.context_length);
  std::string parts;
  for (const auto& [name, part] : flops.parts)
    parts += fmt::format("{}{} {:.3g}", parts.empty() ? "" : ", ", name, part);
  const int64_t tokens = plan.tokens_before(stage.end) - plan.tokens_before(stage.begin),
                epoch = sampler.tokens_per_epoch();
  log_line(fmt::format("model: {}, {} parameters, {}", stage.config.model.name,
                       with_commas(count_parameters(*run.model)), training.dtype));
  log_line(fmt::format("FLOPs per token of training: {:.3g} ({})", flops.total(), parts));
  log_line(fmt::format("data: {} tokens{}, {:.2f} epochs of {}{}", with_commas(tokens),
                       plan.stages().size() > 1 ? fmt::format(" of stage {}", stage.index) : "",
                       static_cast<double>(tokens) / static_cast<double>(epoch), with_commas(epoch),
                       stage.packing.pad_documents ? ", the padding of documents included" : ""));
  log_sources(stage.config.data.train, sampler, tokens);
  for (const Stage& each : plan.stages()) {
    const TrainingConfig& its = each.config.training;
    log_line(fmt::format("steps: {} of {} tokens = {} x micro-batch of {} x {}{}{}",
                         with_commas(each.end - each.begin), with_commas(its.tokens_per_step),
                         its.rows_per_step() / *its.micro_batch_size, *its.micro_batch_size,
                         its.context_length,
                         its.batch_ramp ? fmt::format(", from {} tokens on over {} steps",
                                                      its.batch_ramp->from, its.batch_ramp->steps)
                                        : "",
                         plan.stages().size() > 1 ? fmt::format(" (stage {})", each.index) : ""));
  }
  log_line(fmt::format("device: {} ({}), {} threads", run.device.str(), device_name(run.device),
                       *training.threads));
  log_line(fmt::format("run folder: {}{}", run_folder,
                       run.step > 0 ? fmt::format(", going on after step {}", run.step) : ""));
  const auto weighted = [](const TrainSourceConfig& source) { return source.target_weights; };
  if (std::ranges::any_of(stage.config.data.train, weighted))
    log_line("tflops and mfu count every position; targets of weight 0 may leave part of it out");
  for (const Stage& each : plan.stages()) {
    for (const auto& sentence : settings_without_effect(each.config)) log_warning(sentence);
  }
}

void log_left_out(const Stage& stage, const Sampler& sampler, const Validation& validation) {
  const auto log = [](const char* what, const SourceConfig& source, const WindowView& view) {
    for (const auto& phrase : view.documents().left_out())
      log_line(fmt::format("{}: left out {} of {}", what, phrase, source.path));
  };
  const DataConfig& data = stage.config.data;
  for (size_t i = 0; i < data.train.size(); ++i) {
    const TrainSourceConfig& source = data.train[i];
    const WindowView& view = sampler.view(static_cast<int64_t>(i));
    log("train", source, view);
    std::vector<std::string> settings;
    if (source.upsample) settings.push_back("upsample");
    if (data.shuffle == "documents") settings.push_back("data.shuffle: documents");
    if (data.mask_documents) settings.push_back("data.mask_documents");
    const std::string key = fmt::format("data.train[{}]", i);
    if (warn_of_one_document(key, source, view, settings)) continue;
    if (source.upsample && view.documents().upsampled() == 0)
      log_warning(fmt::format("{}.upsample has no effect: {} has no document of {} tokens or more",
                              key, source.path, with_commas(source.upsample->from)));
  }
  for (size_t i = 0; i < data.validation.size(); ++i) {
    const SourceConfig& source = data.validation[i];
    log("validation", source, validation.view(i));
    std::vector<std::string> settings;
    if (data.mask_documents) settings.push_back("data.mask_documents");
    warn_of_one_document(fmt::format("data.validation[{}]", i), source, validation.view(i),
                         settings);
  }
}

}  // namespace tandem
