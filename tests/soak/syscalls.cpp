#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <optional>

#include "core/error.h"
#include "core/file.h"
#include "core/progress.h"
#include "tests/comm/thread_ranks.h"
#include "tests/soak/faults.h"
#include "tests/soak/soak.h"
#include "train/run_dir.h"

// Every system call of a save and of a recovery fails in turn, in every way, once and for good
// (SQLite's method). After each: the old or the new checkpoint loads, every byte of it; the error
// names the path and the reason; nothing is left that the next save or the next start cannot clear.
// What any program must live with, interrupted calls and short writes, may not show at all.

namespace tandem {
namespace {

constexpr int64_t kOld = 2, kNew = 4, kDamaged = 5, kOfRanks = 6, kLater = 7, kLast = 8;

struct TestRun {
  std::string path;
  std::unique_ptr<RunDir> dir;  // absent in a scenario that has not opened it
};

struct Scenario {
  const char* name;
  std::function<void(TestRun&)> prepare;
  std::function<std::string(TestRun&)> act;  // under the fault; the checkpoint it made or found
  std::vector<int64_t> may_be_found;         // afterwards; the last is what act gives in peace
};

CheckpointConfig keeping_one() {
  CheckpointConfig config;
  config.keep = 1;
  return config;
}

std::string save(TestRun& run, int64_t step) {
  return run.dir->save(contents_at(step), keeping_one(), std::nullopt);
}

/// A checkpoint of one process, or that of kOfRanks by two ranks: half of each tensor by either.
void write(int64_t step, const std::string& folder) {
  if (step != kOfRanks) return write_at(step, folder);
  run_ranks(2, [&](Communicator& group) {
    CheckpointContents part = contents_at(step);
    for (auto* pieces : {&part.weights, &part.optimizer}) {
      for (TensorPiece& piece : *pieces) {
        const int64_t n = piece.end;
        piece.begin = group.rank() * n / 2;
        piece.end = (group.rank() + 1) * n / 2;
        piece.data = piece.data.slice(0, piece.begin, piece.end);
      }
    }
    write_checkpoint(folder, part, group);
  });
}

void damage(const std::string& folder) {
  const std::string path = folder + "/model.safetensors";
  std::string bytes = files_of(folder).at("model.safetensors");
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  write_bytes(path, bytes);
}

std::vector<Scenario> scenarios() {
  const auto with_old = [](TestRun& run) {
    run.dir = std::make_unique<RunDir>(run.path);
    save(run, kOld);
  };
  const auto after_a_crash = [](TestRun& run) {
    for (const int64_t step : {kOld, kNew, kDamaged})
      write_checkpoint(checkpoint_folder(run.path, step), contents_at(step));
    damage(checkpoint_folder(run.path, kDamaged));
    for (const char* name : {"step-00000001.removed", "step-00000006.partial"}) {
      const std::string folder = run.path + "/checkpoints/" + name;
      make_directories(folder);
      write_bytes(folder + "/config.yaml", "half");
    }
  };
  return {
      {"save", with_old, [](TestRun& run) { return save(run, kNew); }, {kOld, kNew}},
      // The step is there already, as after a save that failed at its very end.
      {"save_again",
       [](TestRun& run) {
         run.dir = std::make_unique<RunDir>(run.path);
         save(run, kNew);
       },
       [](TestRun& run) { return save(run, kNew); },
       {kNew}},
      {"write_checkpoint",
       with_old,
       [](TestRun& run) {
         write_checkpoint(checkpoint_folder(run.path, kNew), contents_at(kNew));
         return checkpoint_folder(run.path, kNew);
       },
       {kOld, kNew}},
      // One rank's failing call ends the save of both.
      {"write_checkpoint by two ranks",
       with_old,
       [](TestRun& run) {
         const std::string folder = checkpoint_folder(run.path, kOfRanks);
         write(kOfRanks, folder);
         return folder;
       },
       {kOld, kOfRanks}},
      {"recovery",
       after_a_crash,
       [](TestRun& run) {
         run.dir = std::make_unique<RunDir>(run.path);
         const auto found = run.dir->newest();
         return found ? found->folder() : "nothing, as if the run were new";
       },
       {kOld, kNew}},
  };
}

bool is_recovery(const Scenario& scenario) { return scenario.name == std::string_view("recovery"); }

/// What became of an act.
struct Outcome {
  std::string result;                // when it returned
  std::optional<std::string> error;  // what it threw that a user is meant to see
  std::string bug;                   // anything else
  bool stopped = false;              // the process was
};

class Syscalls {
 public:
  Syscalls(const SoakOptions& options, SoakReport& report)
      : folder_(options.folder), golden_(options.folder + "/golden", write), report_(report) {}

  /// How many calls of a scenario in peace this kind of fault can happen to.
  int64_t calls_of(const Scenario& scenario, Fault::Kind kind) {
    TestRun run = fresh(scenario);
    const FaultScope scope({.kind = kind, .call = INT64_MAX});
    scenario.act(run);
    return scope.calls();
  }

  void check(const Scenario& scenario, const Fault& fault) {
    where_ = std::string(scenario.name) + ", " + std::string(name_of(fault.kind)) +
             (fault.for_good ? " from call " : " at call ") + std::to_string(fault.call) + ": ";
    try {
      TestRun run = fresh(scenario);
      const Outcome outcome = fault.kind == Fault::kStop ? act_in_a_child(scenario, run, fault)
                                                         : act(scenario, run, fault);
      judge(outcome, scenario, run, fault);
      expect_one_of(run, scenario.may_be_found);
      if (!fault.for_good && fault.kind != Fault::kStop && outcome.error && !is_recovery(scenario))
        expect_no_leftover(run, ".partial");
      expect_life_goes_on(run, fault.call % 2 == 0 && fault.kind != Fault::kStop,
                          scenario.may_be_found);
    } catch (const std::exception& error) {
      violation(std::string("afterwards: ") + error.what());
    }
  }

 private:
  TestRun fresh(const Scenario& scenario) {
    const std::string path = folder_ + "/run";
    std::filesystem::remove_all(path);
    TestRun run{path, nullptr};
    scenario.prepare(run);
    return run;
  }

  static Outcome act(const Scenario& scenario, TestRun& run, const Fault& fault) {
    Outcome outcome;
    const FaultScope scope(fault);
    try {
      outcome.result = scenario.act(run);
    } catch (const UserError& error) {
      outcome.error = error.what();
      const bool reading = is_recovery(scenario) && error.exit_code() == kExitBadFile;
      if (!reading && error.exit_code() != kExitCannotWrite)
        outcome.bug = "exit code " + std::to_string(error.exit_code()) + ": " + error.what();
    } catch (const std::exception& error) {
      outcome.bug = error.what();
    }
    if (!scope.struck()) outcome.bug += "the fault never came";
    return outcome;
  }

  /// The child may be stopped by the fault. This process has one thread, so the child has all of
  /// it.
  static Outcome act_in_a_child(const Scenario& scenario, TestRun& run, const Fault& fault) {
    Outcome outcome;
    const pid_t pid = ::fork();
    if (pid == 0) {
      // LibTorch makes its thread pool anew in a forked process, and only one thread may ask for
      // that: not two ranks at once.
      torch::set_num_threads(1);
      act(scenario, run, fault);
      ::_exit(0);
    }
    int status = 0;
    if (pid < 0 || ::waitpid(pid, &status, 0) != pid) throw std::runtime_error("cannot fork");
    outcome.stopped = WIFEXITED(status) && WEXITSTATUS(status) == kStoppedByFault;
    if (!outcome.stopped) outcome.bug = "the child ended with status " + std::to_string(status);
    run.dir.reset();  // a stopped process holds no lock
    return outcome;
  }

  void judge(const Outcome& outcome, const Scenario& scenario, const TestRun& run,
             const Fault& fault) {
    if (!outcome.bug.empty()) return violation(outcome.bug);
    if (outcome.stopped) return;
    if (outcome.error) {
      if (fault.kind == Fault::kInterrupted || fault.kind == Fault::kShort)
        return violation("failed: " + *outcome.error);
      if (outcome.error->find(run.path) == std::string::npos)
        violation("the error names no path: " + *outcome.error);
      // Where all checkpoints were looked at in vain, each has a warning with its reason.
      const std::string reason = std::generic_category().message(errno_of(fault.kind));
      if (!is_recovery(scenario) && outcome.error->find(reason) == std::string::npos)
        violation("the error gives no reason: " + *outcome.error);
      return;
    }
    const auto named = [&](int64_t step) {
      return outcome.result == checkpoint_folder(run.path, step);
    };
    // A newest checkpoint that cannot be read counts as damaged: a recovery may fall back by one.
    const bool may_fall_back =
        is_recovery(scenario) && fault.kind != Fault::kInterrupted && fault.kind != Fault::kShort;
    if (!named(scenario.may_be_found.back()) && !(may_fall_back && named(kOld)))
      violation("gave " + outcome.result);
    else if (!is_recovery(scenario) &&
             step_found(run.path, golden_) != scenario.may_be_found.back())
      violation("said it had saved, but did not");
  }

  void expect_one_of(const TestRun& run, const std::vector<int64_t>& steps) {
    const int64_t found = step_found(run.path, golden_);
    if (std::find(steps.begin(), steps.end(), found) == steps.end())
      violation("step " + std::to_string(found) + " is found");
  }

  void expect_no_leftover(const TestRun& run, std::string_view ending) {
    for (const auto& entry : std::filesystem::directory_iterator(run.path + "/checkpoints")) {
      const std::string name = entry.path().filename();
      if (name.ends_with(ending)) violation("leaves " + name);
    }
  }

  /// A later save succeeds, of the same process where `same_process`, and of the next one always.
  void expect_life_goes_on(TestRun& run, bool same_process, std::vector<int64_t> may_be_found) {
    if (same_process && run.dir) {
      save(run, kLater);
      expect_one_of(run, {kLater});
      may_be_found = {kLater};
    }
    run.dir.reset();
    run.dir = std::make_unique<RunDir>(run.path);
    expect_no_leftover(run, ".partial");
    expect_no_leftover(run, ".removed");
    const auto found = run.dir->newest();
    if (!found ||
        std::find(may_be_found.begin(), may_be_found.end(), found->step()) == may_be_found.end())
      violation("the next start finds " + (found ? found->folder() : "nothing"));
    save(run, kNew);  // again, or at last
    save(run, kLast);
    expect_one_of(run, {kLast});
  }

  void violation(const std::string& what) { report_.violation(where_ + what); }

  std::string folder_, where_;
  Golden golden_;
  SoakReport& report_;
};

/// fork() copies only the thread that calls it.
void expect_one_thread() {
  const std::filesystem::directory_iterator threads("/proc/self/task");
  if (std::distance(begin(threads), end(threads)) != 1)
    throw std::runtime_error("this process has several threads, it cannot be forked");
}

}  // namespace

void soak_syscalls(const SoakOptions& options, SoakReport& report) {
  Syscalls syscalls(options, report);
  struct Case {
    const Scenario* scenario;
    Fault fault;
  };
  std::vector<Case> cases;
  const std::vector<Scenario> all = scenarios();
  for (const Scenario& scenario : all) {
    for (const Fault::Kind kind :
         {Fault::kIoError, Fault::kNoSpace, Fault::kQuota, Fault::kNoAccess, Fault::kInterrupted,
          Fault::kShort, Fault::kStop}) {
      const int64_t calls = syscalls.calls_of(scenario, kind);
      if (kind == Fault::kIoError) report.facts["calls"][scenario.name] = calls;
      for (int64_t call = 1; call <= calls; ++call) {
        cases.push_back({&scenario, {.kind = kind, .call = call}});
        if (kind != Fault::kStop)
          cases.push_back({&scenario, {.kind = kind, .call = call, .for_good = true}});
      }
    }
  }
  expect_one_thread();
  const auto n = static_cast<int64_t>(cases.size());
  const int64_t stride = (n + options.count - 1) / options.count;
  Progress progress("syscalls", n / stride, "cases");
  std::map<std::string, int64_t> done;
  int64_t in_all = 0;
  for (int64_t i = static_cast<int64_t>(options.seed) % stride; i < n; i += stride) {
    const Case& one = cases[static_cast<size_t>(i)];
    syscalls.check(*one.scenario, one.fault);
    ++done[std::string(name_of(one.fault.kind))];
    progress.update(++in_all);
  }
  progress.finish();
  report.facts["cases"] = in_all;
  report.facts["of_all"] = n;
  report.facts["by_fault"] = done;
}

}  // namespace tandem
