#include "eval/registry.h"

#include "eval/needle.h"
#include "eval/nll.h"

namespace tandem {

std::span<const Evaluation> evaluations() {
  static const std::vector<Evaluation> kTable = {
      evaluation<NllConfig>("nll", "Loss of held-out text: per token, per byte and by position",
                            kNllHelp, run_nll),
      evaluation<NeedleConfig>("needle", "Facts hidden in long texts: which are found, and where",
                               kNeedleHelp, run_needle),
  };
  return kTable;
}

nlohmann::ordered_json about(const std::string& evaluation, const EvalArgs& args,
                             const std::string& input, const LoadedModel& loaded) {
  return {{"evaluation", evaluation},
          {"model", input},
          {"checkpoint", loaded.checkpoint},
          {"manifest", loaded.manifest_hash},
          {"step", loaded.step},
          {"parameters", count_parameters(*loaded.model)},
          {"dtype", args.dtype},
          {"device", args.device.str()},
          {"seed", args.seed}};
}

}  // namespace tandem
