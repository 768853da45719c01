#include "train/sweep.h"

#include <unistd.h>

#include <chrono>
#include <map>
#include <memory>
#include <thread>

#include "core/child_process.h"
#include "core/error.h"
#include "core/file.h"
#include "core/json_lines.h"
#include "core/log.h"
#include "core/progress.h"
#include "train/stop_signal.h"
#include "train/sweep_record.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

constexpr auto kBetweenLooks = std::chrono::milliseconds(20);
constexpr auto kBetweenReadings = std::chrono::seconds(1);  // of how far the run has come

int64_t gigaflops(double flops) { return static_cast<int64_t>(flops / 1e9); }

std::string last_line(const std::string& path) {
  std::string text = exists(path) ? read_text(path) : "";
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return one_line(text.substr(text.rfind('\n') + 1));  // npos + 1 is 0
}

class Sweep {
 public:
  Sweep(const SweepPlan& plan, const SweepOptions& options) : plan_(plan), options_(options) {
    make_directories(join_path(plan.folder, "logs"));
    std::string holder;
    lock_ = FileLock::try_lock(join_path(plan.folder, "lock"),
                               "process " + std::to_string(getpid()), &holder);
    if (!lock_)
      throw bad_usage(plan.folder + ": another sweep is using this folder (" + holder + ")");
    read_done();
    out_ = std::make_unique<JsonLinesWriter>(records_path());
  }

  SweepOutcome run() {
    double done = 0;
    for (const SweepRun& one : plan_.runs) done += done_.contains(one.hash) ? one.compute : 0;
    progress_ =
        std::make_unique<Progress>("sweep", gigaflops(plan_.compute()), "GFLOPs", gigaflops(done));
    for (size_t i = 0; i < plan_.runs.size() && signal_.received() == 0; ++i) {
      const SweepRun& one = plan_.runs[i];
      label_ = "run " + std::to_string(i + 1) + " of " + std::to_string(plan_.runs.size()) + ": " +
               one.name;
      if (done_.contains(one.hash)) {
        say("finished before");
        continue;
      }
      train(one, done);
      done += one.compute;
    }
    progress_->finish();
    for (const SweepRun& one : plan_.runs) {
      if (const auto at = done_.find(one.hash); at != done_.end())
        outcome_.records.push_back(at->second);
    }
    if (const int signal = signal_.received())
      outcome_.exit_code = 128 + signal;
    else if (!outcome_.failed.empty())
      outcome_.exit_code = kExitStopped;
    return std::move(outcome_);
  }

 private:
  std::string records_path() const { return join_path(plan_.folder, "sweep.jsonl"); }

  void say(const std::string& what) {
    progress_->clear();
    log_line(label_ + ": " + what);
  }

  /// What is there already. A name stands for one config.
  void read_done() {
    const std::string path = records_path();
    const std::string text = exists(path) ? read_text(path) : "";
    std::map<std::string, std::string> hashes;  // by name
    for (const SweepRun& run : plan_.runs) hashes[run.name] = run.hash;
    int64_t number = 1;
    for (size_t begin = 0, end; (end = text.find('\n', begin)) != text.npos;
         begin = end + 1, ++number) {
      try {
        Json record = parse_json(std::string_view(text).substr(begin, end - begin));
        const std::string name = get_string(record, "run"), hash = get_string(record, "hash");
        if (const auto at = hashes.find(name); at != hashes.end() && at->second != hash) {
          throw bad_usage(path + ":" + std::to_string(number) + ": run " + name +
                          " was trained with other settings; remove the line and " +
                          join_path(plan_.folder, name) + ", or name another folder with --out");
        }
        done_.insert_or_assign(hash, std::move(record));
      } catch (const UserError&) {
        throw;
      } catch (const std::runtime_error& error) {
        throw bad_file(path + ":" + std::to_string(number), error.what());
      }
    }
  }

  std::vector<std::string> words_of(const SweepRun& run) const {
    std::vector<std::string> words = plan_.launcher;
    words.insert(words.end(), {options_.program, "train", run.base});
    for (const Setting& setting : run.settings) words.push_back(setting.word());
    words.insert(words.end(), {"--out", folder_of(plan_, run)});
    words.insert(words.end(), options_.arguments.begin(), options_.arguments.end());
    return words;
  }

  void train(const SweepRun& run, double done) {
    const std::string folder = folder_of(plan_, run),
                      log = join_path(plan_.folder, "logs/" + run.name + ".txt");
    const int64_t before = last_step_of(folder);
    say(before > 0 ? "goes on after step " + with_commas(before) + " of " + with_commas(run.steps)
                   : with_commas(run.parameters.total) + " parameters, " + with_commas(run.steps) +
                         " steps");
    ChildProcess child(words_of(run), log);
    const int code = wait_for(child, run, done);
    std::string reason;
    if (code == 0) {
      try {
        const Json record = record_of(plan_, run);
        out_->write(record);
        out_->sync();
        done_.insert_or_assign(run.hash, record);
        const Json& loss = record["validation_loss"];
        say((loss.is_null() ? "train loss " + record["train_loss"].dump()
                            : "validation loss " + loss.dump()) +
            " in " + human_duration(record["seconds"].get<double>()));
        return;
      } catch (const UserError& error) {
        if (error.exit_code() == kExitCannotWrite) throw;
        reason = error.what();
      }
    }
    if (signal_.received() != 0) {
      say("stopped; the same command goes on");
      return;
    }
    if (reason.empty()) reason = last_line(log);
    say("failed with exit code " + std::to_string(code) + ", see " + log);
    outcome_.failed.push_back({run.name, code, reason, log});
  }

  int wait_for(ChildProcess& child, const SweepRun& run, double done) {
    bool told = false;
    auto last_reading = Clock::now();
    while (true) {
      if (const auto code = child.ended()) return *code;
      if (const int signal = signal_.received(); signal != 0 && !told) {
        child.send(signal);
        told = true;
      }
      if (Clock::now() - last_reading >= kBetweenReadings) {
        last_reading = Clock::now();
        const int64_t step = last_step_of(folder_of(plan_, run));
        const double share = static_cast<double>(step) / static_cast<double>(run.steps);
        progress_->update(gigaflops(done + share * run.compute),
                          label_ + ", step " + with_commas(step) + " of " + with_commas(run.steps));
      }
      std::this_thread::sleep_for(kBetweenLooks);
    }
  }

  const SweepPlan& plan_;
  const SweepOptions& options_;
  StopSignal signal_;
  std::unique_ptr<FileLock> lock_;
  std::unique_ptr<JsonLinesWriter> out_;
  std::map<std::string, Json> done_;  // records by hash
  std::unique_ptr<Progress> progress_;
  std::string label_;  // of the run at hand
  SweepOutcome outcome_;
};

}  // namespace

SweepOutcome sweep(const SweepPlan& plan, const SweepOptions& options) {
  return Sweep(plan, options).run();
}

}  // namespace tandem
