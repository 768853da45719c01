#include <algorithm>
#include <filesystem>
#include <set>

#include "core/error.h"
#include "core/file.h"
#include "core/progress.h"
#include "tests/soak/faults.h"
#include "tests/soak/soak.h"
#include "train/run_dir.h"

// COUNT random histories of a run folder, ten events each: saves that succeed, fail or are cut off,
// old checkpoints that cannot be removed, damage and deletion from outside, restarts. After each
// event a reader finds the newest undamaged checkpoint, every byte of it, and the last one was
// never removed by the program. What is undamaged is known from the bytes, not from the program's
// word.

namespace tandem {
namespace {

namespace fs = std::filesystem;

constexpr int kEvents = 10;
constexpr int64_t kMostCalls = 150;  // about as many as a save makes

class History {
 public:
  History(std::string path, Golden& golden, RandomStream stream)
      : path_(std::move(path)), golden_(golden), draws_(stream) {
    fs::remove_all(path_);
    config_.keep = 1 + draws_.below(3);
    if (draws_.one_in(3)) config_.keep_every = 2 + draws_.below(4);
    open();
  }

  /// One event, and what must hold after it. Returns the event's name.
  const char* event() {
    before_ = undamaged();
    const char* name = any_event();
    const auto now = undamaged();
    const int64_t expected = now.empty() ? 0 : *now.rbegin();
    if (const int64_t found = step_found(path_, golden_); found != expected)
      fail("step " + std::to_string(found) + " is found, step " + std::to_string(expected) +
           " is the newest undamaged one");
    if (!before_.empty() && now.empty()) fail("no undamaged checkpoint is left");
    return name;
  }
  const std::string& log() const { return log_; }

 private:
  const char* any_event() {
    switch (draws_.below(12)) {
      case 0:
      case 1:
      case 2:
      case 3:
        save();
        return "saves";
      case 4:
        save_under({.kind = draws_.any_of(kFailures), .call = any_call(), .for_good = false});
        return "failing_saves";
      case 5:
        save_under({.kind = draws_.any_of(kFailures), .call = any_call(), .for_good = true});
        return "failing_saves";
      case 6:  // from some call on nothing reaches the disk any more, as when the process ends
               // there
        save_under({.kind = Fault::kIoError, .call = any_call(), .for_good = true});
        restart();
        return "crashes";
      case 7:
        save_under({.kind = Fault::kNoRemoval, .call = 1 + draws_.below(3), .for_good = true});
        return "undeletable";
      case 8:
        damage();
        return "damages";
      case 9:
        remove_by_hand();
        return "deletions";
      case 10:
        restart();
        return "restarts";
      default:
        restart_under(
            {.kind = draws_.any_of(kFailures), .call = any_call(), .for_good = draws_.one_in(2)});
        return "failing_restarts";
    }
  }

  void save() {
    const int64_t step = next_step();
    note("save " + std::to_string(step));
    dir_->save(contents_at(step), config_, protect_);
    expect_newest(step);
    expect_tidy();
  }

  void save_under(const Fault& fault) {
    const int64_t step = next_step();
    note("save " + std::to_string(step) + " under " + text_of(fault));
    bool saved = false;
    try {
      const FaultScope scope(fault);
      dir_->save(contents_at(step), config_, protect_);
      saved = true;
    } catch (const UserError& error) {
      if (error.exit_code() != kExitCannotWrite) fail(error.what());
    }
    const auto now = undamaged();
    if (saved) expect_newest(step);
    // Retention follows a save that succeeded, and only that.
    if (!saved && !std::includes(now.begin(), now.end(), before_.begin(), before_.end()))
      fail("a save that failed removed a checkpoint");
    if (protect_ && before_.contains(*protect_) && !now.contains(*protect_))
      fail("the protected step " + std::to_string(*protect_) + " is gone");
  }

  /// From a bit to a whole file, of any checkpoint.
  void damage() {
    const auto all = steps();
    if (all.empty()) return;
    const int64_t step = draws_.any_of(all);
    const std::string folder = checkpoint_folder(path_, step);
    const Files files = files_of(folder);
    if (files.empty()) return;
    auto file = files.begin();
    std::advance(file, draws_.below(static_cast<int64_t>(files.size())));
    note("damage " + std::to_string(step) + "/" + file->first);
    std::string bytes = file->second;
    const int64_t at = bytes.empty() ? 0 : draws_.below(static_cast<int64_t>(bytes.size()));
    const int64_t kind = draws_.below(3);
    if (kind == 0 || bytes.empty()) {
      fs::remove(folder + "/" + file->first);
    } else if (kind == 1) {
      write_bytes(folder + "/" + file->first, bytes.substr(0, static_cast<size_t>(at)));
    } else {
      auto& byte = bytes[static_cast<size_t>(at)];
      byte = static_cast<char>(byte ^ (1 << draws_.below(8)));
      write_bytes(folder + "/" + file->first, bytes);
    }
    before_.erase(step);
  }

  /// Any folder but the newest undamaged one.
  void remove_by_hand() {
    auto all = steps();
    if (!before_.empty()) std::erase(all, *before_.rbegin());
    if (all.empty()) return;
    const int64_t step = draws_.any_of(all);
    note("remove " + std::to_string(step));
    fs::remove_all(checkpoint_folder(path_, step));
    before_.erase(step);
  }

  void restart() {
    note("restart");
    open();
    for (const auto& entry : fs::directory_iterator(path_ + "/checkpoints")) {
      const std::string name = entry.path().filename();
      if (!name.starts_with("step-") ||
          (name.find('.') != name.npos && !name.ends_with(".damaged")))
        fail("a restart leaves " + name);
    }
    start_from_newest();
  }

  void restart_under(const Fault& fault) {
    note("restart under " + text_of(fault));
    dir_.reset();
    try {
      const FaultScope scope(fault);
      dir_ = std::make_unique<RunDir>(path_);
      const auto found = dir_->newest();
      if (!found && !before_.empty()) fail("a restart starts anew");
      if (found && !before_.contains(found->step()))
        fail("a restart goes on from step " + std::to_string(found->step()));
    } catch (const UserError&) {
      // The next one comes when the disk works again.
    }
    open();
    start_from_newest();
  }

  void open() {
    dir_.reset();
    dir_ = std::make_unique<RunDir>(path_);
  }

  /// What the trainer does: on from the newest checkpoint that verifies, and not at all where there
  /// are only damaged ones (then this history goes on as if somebody had moved those away).
  void start_from_newest() {
    const auto good = undamaged();
    std::optional<Checkpoint> found;
    try {
      found = dir_->newest();
    } catch (const UserError& error) {
      if (!good.empty()) fail(error.what());
      for (const int64_t step : steps()) fs::remove_all(checkpoint_folder(path_, step));
    }
    if ((found ? found->step() : 0) != (good.empty() ? 0 : *good.rbegin()))
      fail("a restart goes on from step " + std::to_string(found ? found->step() : 0));
    step_ = found ? found->step() : 0;
    protect_ = found && draws_.one_in(2) ? std::optional(found->step()) : std::nullopt;
  }

  /// Mostly a later one, sometimes the same again.
  int64_t next_step() {
    if (step_ == 0 || !draws_.one_in(8)) step_ += 1 + draws_.below(3);
    return step_;
  }
  int64_t any_call() { return 1 + draws_.below(kMostCalls); }

  void expect_newest(int64_t step) {
    const auto now = undamaged();
    if (now.empty() || *now.rbegin() != step)
      fail("step " + std::to_string(step) + " was saved and is not there");
  }

  /// After a save in peace nothing stays that the config does not keep.
  void expect_tidy() {
    const auto all = steps();
    for (size_t i = 0; i + static_cast<size_t>(config_.keep) < all.size(); ++i) {
      const bool multiple = config_.keep_every && all[i] % *config_.keep_every == 0;
      if (!multiple && all[i] != protect_) fail("step " + std::to_string(all[i]) + " was kept");
    }
    if (protect_ && before_.contains(*protect_) && !undamaged().contains(*protect_))
      fail("the protected step " + std::to_string(*protect_) + " is gone");
  }

  /// Ascending, from the names.
  std::vector<int64_t> steps() const {
    std::vector<int64_t> all;
    for (const auto& entry : fs::directory_iterator(path_ + "/checkpoints")) {
      const std::string name = entry.path().filename();
      if (name.size() == 13 && name.starts_with("step-")) all.push_back(std::stoll(name.substr(5)));
    }
    std::sort(all.begin(), all.end());
    return all;
  }
  std::set<int64_t> undamaged() {
    std::set<int64_t> good;
    for (const int64_t step : steps()) {
      if (files_of(checkpoint_folder(path_, step)) == golden_.at(step)) good.insert(step);
    }
    return good;
  }

  static std::string text_of(const Fault& fault) {
    return std::string(name_of(fault.kind)) + (fault.for_good ? " from call " : " at call ") +
           std::to_string(fault.call);
  }
  void note(const std::string& what) { log_ += (log_.empty() ? "" : "; ") + what; }
  [[noreturn]] static void fail(const std::string& what) { throw std::runtime_error(what); }

  static constexpr std::array kFailures = {Fault::kIoError, Fault::kNoSpace, Fault::kNoAccess,
                                           Fault::kInterrupted, Fault::kShort};
  std::string path_, log_;
  Golden& golden_;
  Draws draws_;
  CheckpointConfig config_;
  std::optional<int64_t> protect_;
  std::unique_ptr<RunDir> dir_;
  int64_t step_ = 0;
  std::set<int64_t> before_;  // undamaged before the event, but for what the event itself spoils
};

}  // namespace

void soak_sequences(const SoakOptions& options, SoakReport& report) {
  const RandomStream random = RandomStream(options.seed).fork("sequences");
  Golden golden(options.folder + "/golden");
  std::map<std::string, int64_t> events;
  Progress progress("sequences", options.count, "sequences");
  for (int64_t i = 0; i < options.count; ++i) {
    std::optional<History> history;
    try {
      history.emplace(options.folder + "/run", golden, random.fork(static_cast<uint64_t>(i)));
      for (int event = 0; event < kEvents; ++event) ++events[history->event()];
    } catch (const std::exception& error) {
      report.violation("sequence " + std::to_string(i) + ": " + (history ? history->log() : "") +
                       ": " + error.what());
    }
    progress.update(i + 1);
  }
  progress.finish();
  report.facts["sequences"] = options.count;
  report.facts["events"] = events;
}

}  // namespace tandem
