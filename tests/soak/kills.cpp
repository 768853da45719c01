#include <dirent.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <optional>
#include <thread>

#include "core/file.h"
#include "core/json_lines.h"
#include "core/progress.h"
#include "data/token_file.h"
#include "data/token_file_writer.h"
#include "tests/process.h"
#include "tests/soak/soak.h"

// COUNT SIGKILLs of `tandem train`, at random moments and, at least a third of them, while a save
// or a removal of an old checkpoint is half done; the same command goes on each time. About ten
// kills hit one run. When it is through, every line of its metrics (but for times) and every byte
// of its checkpoints must be those of a run that nobody disturbed.

namespace tandem {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr int64_t kSteps = 600, kEvery = 2;
constexpr double kLongestSeconds = 120;  // until the next save
// A save may be in flight while the steps up to the next one are done: two intervals at most.
constexpr int64_t kMostLost = 2 * kEvery;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}
void sleep_for(double seconds) {
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

struct Family {
  const char* name;
  const char* model;  // YAML
};
constexpr Family kFamilies[] = {
    {"yoco",
     "{family: yoco, d_model: 18, ffn_dim: 23, self_decoder: {n_layers: 2, mixers: [{name: "
     "gated_retention, n_heads: 2, head_dim: 6, chunk: 7}, {name: sliding_window, n_heads: 2, "
     "head_dim: 6, window: 5}]}, cross_decoder: {n_layers: 1, n_heads: 3, head_dim: 6}}"},
    {"transformer",
     "{family: transformer, d_model: 16, ffn_dim: 24, n_layers: 2, n_heads: 2, head_dim: 8}"},
};

/// Documents of 20 to 59 tokens, each counting up from somewhere.
void write_tokens(const std::string& prefix, Draws draws, int64_t documents) {
  TokenFileWriter writer(prefix, 258);
  for (int64_t d = 0; d < documents; ++d) {
    std::vector<int32_t> tokens(static_cast<size_t>(20 + draws.below(40)));
    const auto first = static_cast<int32_t>(draws.below(200));
    for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = first + static_cast<int32_t>(i % 50);
    writer.add_document(tokens);
  }
  writer.publish();
}

/// The lines of metrics.jsonl without what depends on the clock.
std::vector<nlohmann::ordered_json> metrics_of(const std::string& run) {
  std::vector<nlohmann::ordered_json> lines;
  if (!exists(run + "/metrics.jsonl")) return lines;
  const std::string text = read_text(run + "/metrics.jsonl");
  for (size_t begin = 0, end; (end = text.find('\n', begin)) != text.npos; begin = end + 1) {
    const auto line = parse_json(std::string_view(text).substr(begin, end - begin));
    auto& kept = lines.emplace_back(nlohmann::ordered_json::object());
    for (const auto& [key, value] : line.items()) {
      if (!key.ends_with("seconds")) kept[key] = value;
    }
  }
  return lines;
}

/// A save or the removal of an old checkpoint is half done.
bool inside_a_save(const std::string& run) {
  DIR* folder = ::opendir((run + "/checkpoints").c_str());
  if (folder == nullptr) return false;
  bool inside = false;
  while (const dirent* entry = ::readdir(folder)) {
    const std::string_view name = entry->d_name;
    inside = inside || name.ends_with(".partial") || name.ends_with(".removed");
  }
  ::closedir(folder);
  return inside;
}

class Kills {
 public:
  Kills(const SoakOptions& options, SoakReport& report)
      : options_(options), report_(report), draws_(RandomStream(options.seed).fork("kills")) {
    write_tokens(options_.folder + "/train", Draws(RandomStream(1)), 40);
    write_tokens(options_.folder + "/valid", Draws(RandomStream(2)), 5);
  }

  void work() {
    Progress progress("kills", options_.count, "kills");
    for (size_t i = 0; go_on(); ++i) {
      const Family& family = kFamilies[i % std::size(kFamilies)];
      if (!prepare(family)) return;
      const std::string run = options_.folder + "/run" + std::to_string(i);
      while (go_on() && start_and_kill(family, run)) progress.update(kills_);
      finish_and_compare(family, run);
      fs::remove_all(run);
      ++runs_;
    }
    progress.finish();
    if (3 * inside_ < kills_) report_.violation("fewer than a third of the kills hit a save");
    report_.facts["kills"] = kills_;
    report_.facts["inside_a_save"] = inside_;
    report_.facts["runs"] = runs_;
    report_.facts["steps"] = kSteps;
    report_.facts["most_steps_lost"] = most_lost_;
    report_.facts["differences"] = differences_;
  }

 private:
  std::vector<std::string> words(const Family& family, const std::string& run) const {
    return {options_.binary, "train", config(family), "--out", run, "--device", "cpu"};
  }
  std::string config(const Family& family) const {
    return options_.folder + "/" + family.name + ".yaml";
  }
  std::string whole(const Family& family) const {
    return options_.folder + "/" + family.name + "-whole";
  }

  /// Until there are as many kills as wanted, and a third of them inside a save.
  bool go_on() const {
    return kills_ < options_.count || (3 * inside_ < kills_ && kills_ < 2 * options_.count);
  }

  /// Trains the run that nobody disturbs, once.
  bool prepare(const Family& family) {
    if (exists(whole(family))) return true;
    write_bytes(config(family),
                std::string("model: ") + family.model +
                    "\ndata: {tokenizer: bytes, train: [{path: " + options_.folder +
                    "/train}], validation: [{path: " + options_.folder +
                    "/valid}]}\ntraining: {context_length: 13, tokens_per_step: 52, "
                    "micro_batch_size: 2, steps: " +
                    std::to_string(kSteps) + ", seed: " + std::to_string(options_.seed) +
                    ", threads: 1}\noptimizer: {lr: 0.01}\nlr_schedule: {warmup_steps: 20}\n"
                    "checkpoint: {every: " +
                    std::to_string(kEvery) + ", keep: 2, keep_every: 100, async: true}\n" +
                    "validation: {every: 150, tokens: 60}\n");
    const auto begin = Clock::now();
    Process process(words(family, whole(family)), whole(family) + ".stderr");
    while (!process.ended() && metrics_of(whole(family)).empty() && seconds_since(begin) < 60)
      sleep_for(0.005);
    startup_seconds_ = seconds_since(begin);
    if (const int code = process.wait(); code != 0) {
      complain(whole(family), "the run that nobody disturbs ended with " + std::to_string(code));
      return false;
    }
    run_seconds_ = seconds_since(begin) - startup_seconds_;
    return true;
  }

  /// False when the run ended by itself.
  bool start_and_kill(const Family& family, const std::string& run) {
    Process process(words(family, run), run + ".stderr");
    // Somewhere in its start or in the next sixth of the run.
    const double delay = draws_.uniform() * (startup_seconds_ + run_seconds_ / 6);
    const bool wait_for_save = 2 * inside_ <= kills_;
    const auto begin = Clock::now();
    while (!process.ended() && seconds_since(begin) < delay) sleep_for(0.001);
    if (wait_for_save) {
      while (!process.ended() && !inside_a_save(run)) {
        if (seconds_since(begin) > kLongestSeconds) {
          complain(run, "hangs");
          return false;
        }
        std::this_thread::yield();
      }
      if (draws_.one_in(2)) sleep_for(draws_.uniform() * 0.0005);  // and then somewhere in it
    }
    process.send(SIGKILL);
    const int code = process.wait();
    if (code != 128 + SIGKILL) {
      if (code != 0) complain(run, "ended with " + std::to_string(code));
      return false;
    }
    ++kills_;
    if (inside_a_save(run)) ++inside_;
    expect_little_lost(run);
    return true;
  }

  void expect_little_lost(const std::string& run) {
    const auto lines = metrics_of(run);
    const auto steps = checkpoint_steps(run);
    const int64_t reached = lines.empty() ? 0 : lines.back().at("step").get<int64_t>();
    const int64_t lost = reached - (steps.empty() ? 0 : steps.back());
    most_lost_ = std::max(most_lost_, lost);
    if (lost > kMostLost)
      complain(run, "killed after step " + std::to_string(reached) + ", " + std::to_string(lost) +
                        " steps are lost");
  }

  void finish_and_compare(const Family& family, const std::string& run) {
    if (const int code = Process(words(family, run), run + ".stderr").wait(); code != 0)
      complain(run, "undisturbed at last, ended with " + std::to_string(code));
    const auto expected = metrics_of(whole(family)), found = metrics_of(run);
    for (size_t i = 0; i < std::max(expected.size(), found.size()); ++i) {
      if (i < expected.size() && i < found.size() && expected[i] == found[i]) continue;
      differ(run, "line " + std::to_string(i + 1) + " of metrics.jsonl");
      break;
    }
    const auto steps = checkpoint_steps(whole(family));
    if (checkpoint_steps(run) != steps) differ(run, "other checkpoints are kept");
    for (const int64_t step : steps) {
      if (!exists(checkpoint_folder(run, step))) continue;
      const std::string where = difference(files_of(checkpoint_folder(whole(family), step)),
                                           files_of(checkpoint_folder(run, step)));
      if (!where.empty()) differ(run, "step " + std::to_string(step) + ": " + where);
    }
  }

  void differ(const std::string& run, const std::string& what) {
    ++differences_;
    report_.violation(run + " differs from the undisturbed run: " + what);
  }
  void complain(const std::string& run, const std::string& what) {
    report_.violation(run + " " + what + "\n" + read_text(run + ".stderr"));
  }

  const SoakOptions& options_;
  SoakReport& report_;
  Draws draws_;
  double startup_seconds_ = 0, run_seconds_ = 0;
  int64_t kills_ = 0, inside_ = 0, runs_ = 0, differences_ = 0, most_lost_ = 0;
};

}  // namespace

void soak_kills(const SoakOptions& options, SoakReport& report) { Kills(options, report).work(); }

}  // namespace tandem
