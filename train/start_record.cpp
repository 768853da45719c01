#include "train/start_record.h"

#include <fmt/format.h>
#include <torch/version.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>

#include "core/log.h"
#include "core/version.h"
#include "train/device_info.h"

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

}  // namespace

ordered_json start_record(const Run& run, const TrainConfig& config, const ordered_json& weights,
                          const std::string& command) {
  char host[256] = "localhost";
  gethostname(host, sizeof host - 1);
  return {{"time", utc_now()},
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
}

void warn_of_changes(const ordered_json& before, const ordered_json& now) {
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
    if (source.upsample && view.documents().upsampled() == 0)
      log_warning(fmt::format("data.train[{}].upsample has no effect: {}", i,
                              source.upsample->times == 1
                                  ? "times is 1"
                                  : fmt::format("{} has no document of {} tokens or more",
                                                source.path, with_commas(source.upsample->from))));
  }
  for (size_t i = 0; i < data.validation.size(); ++i)
    log("validation", data.validation[i], validation.view(i));
}

}  // namespace tandem
