#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <optional>

#include "core/error.h"
#include "core/file.h"
#include "core/progress.h"
#include "tests/soak/faults.h"
#include "tests/soak/soak.h"
#include "train/async_save.h"

// A disk with room for an old checkpoint and 0 % to 120 % of a new one, in COUNT sizes: a tmpfs of
// that size in a mount namespace of our own, or a budget of bytes where none may be mounted. Where
// the new one does not fit, the old one stays and loads, nothing of the new one is left, and once
// there is room again a save succeeds: of the next process (policy: stop), or of the same (warn).

namespace tandem {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kPage = 4096;
constexpr int64_t kRows = 7001;  // 1.4 MB, so that 2 % are seven pages
constexpr double kMost = 1.2;    // of a checkpoint
constexpr int64_t kOld = 2, kNew = 4, kNext = 6;

void put(const char* path, const std::string& text) { std::ofstream(path) << text; }

/// May this process mount? As root, or in a user namespace of its own.
bool enter_own_namespace() {
  const auto user = ::geteuid(), group = ::getegid();
  if (::unshare(CLONE_NEWNS) != 0) {
    if (::unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return false;
    put("/proc/self/setgroups", "deny");
    put("/proc/self/uid_map", "0 " + std::to_string(user) + " 1");
    put("/proc/self/gid_map", "0 " + std::to_string(group) + " 1");
  }
  return ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
}

/// A small disk at one folder.
class SmallDisk {
 public:
  explicit SmallDisk(std::string folder) : folder_(std::move(folder)) {
    fs::create_directories(folder_);
    mounts_ = enter_own_namespace() && mount(1 << 20, 0);
    if (mounts_) ::umount(folder_.c_str());
  }
  ~SmallDisk() { clear(); }
  SmallDisk(const SmallDisk&) = delete;
  bool mounts() const { return mounts_; }
  /// What a file of this size takes: whole pages of a tmpfs (its folders cost nothing).
  int64_t room_for(int64_t bytes) const {
    return mounts_ ? (bytes + kPage - 1) / kPage * kPage : bytes;
  }

  /// An empty disk without a limit that matters.
  void start() {
    clear();
    if (mounts_ && !mount(1 << 30, 0)) throw std::runtime_error("cannot mount a tmpfs");
  }
  /// Leaves room for `bytes` more than there are on it.
  void leave(int64_t bytes) {
    if (mounts_) {
      resize(std::max(kPage, (used() + bytes) / kPage * kPage));  // a size of 0 is no limit
    } else {
      budget_.emplace(bytes);
    }
  }
  void leave_plenty() {
    budget_.reset();
    if (mounts_) resize(1 << 30);
  }

 private:
  bool mount(int64_t bytes, unsigned long flags) {
    const std::string size = "size=" + std::to_string(bytes);
    return ::mount("tmpfs", folder_.c_str(), "tmpfs", flags, size.c_str()) == 0;
  }
  void resize(int64_t bytes) {
    if (!mount(bytes, MS_REMOUNT)) throw std::runtime_error("cannot resize a tmpfs");
  }
  int64_t used() const {
    int64_t bytes = 0;
    for (const auto& entry : fs::recursive_directory_iterator(folder_)) {
      if (entry.is_regular_file()) bytes += room_for(static_cast<int64_t>(entry.file_size()));
    }
    return bytes;
  }
  void clear() {
    budget_.reset();
    if (mounts_) ::umount(folder_.c_str());
    for (const auto& entry : fs::directory_iterator(folder_)) fs::remove_all(entry.path());
  }

  std::string folder_;
  bool mounts_ = false;
  std::optional<WriteBudget> budget_;
};

struct Policy {
  const char* on_error;
  bool async;
};

CheckpointConfig config_of(const Policy& policy) {
  CheckpointConfig config;
  config.keep = 1;
  config.async = policy.async;
  config.on_error = policy.on_error;
  return config;
}

CheckpointContents large(int64_t step) { return contents_at(step, kRows); }

class FullDisk {
 public:
  FullDisk(const SoakOptions& options, SoakReport& report)
      : disk_(options.folder + "/disk"), run_(options.folder + "/disk/run"), report_(report) {
    const std::string folder = options.folder + "/golden";
    for (const int64_t step : {kOld, kNew, kNext}) {
      write_checkpoint(folder, large(step));
      golden_[step] = files_of(folder);
      remove_tree(folder);
    }
    for (const auto& [name, bytes] : golden_[kNew])
      bytes_ += disk_.room_for(static_cast<int64_t>(bytes.size()));
  }

  void check(double share, const Policy& policy) {
    where_ = std::to_string(share * 100) + " %, " + policy.on_error +
             (policy.async ? ", async: " : ": ");
    try {
      run(share, policy);
    } catch (const std::exception& error) {
      violation(error.what());
    }
  }
  bool mounts() const { return disk_.mounts(); }
  int64_t bytes() const { return bytes_; }
  int64_t failed() const { return failed_; }

 private:
  void run(double share, const Policy& policy) {
    disk_.start();
    std::optional<RunDir> dir(run_);
    std::optional<Saver> saver(std::in_place, *dir, policy.async);
    const CheckpointConfig config = config_of(policy);
    saver->save(large(kOld), config, std::nullopt);
    saver->wait();

    disk_.leave(static_cast<int64_t>(share * static_cast<double>(bytes_)));
    const bool saved = save(*saver, config);
    expect_on_disk(saved ? kNew : kOld);
    if (saved != (share >= 1)) violation(saved ? "was saved" : "was not saved");
    if (!saved) ++failed_;

    const bool stops = std::string(policy.on_error) == "stop";
    if (stops) {  // the process leaves, somebody makes room, the next one starts
      saver.reset();
      dir.reset();
      disk_.leave_plenty();
      dir.emplace(run_);
      const auto found = dir->newest();
      if (!found || found->step() != (saved ? kNew : kOld)) violation("is not where it was");
      saver.emplace(*dir, policy.async);
    } else {
      disk_.leave_plenty();
    }
    saver->save(large(kNext), config, std::nullopt);
    saver->wait();
    expect_on_disk(kNext);
  }

  bool save(Saver& saver, const CheckpointConfig& config) {
    try {
      saver.save(large(kNew), config, std::nullopt);
      saver.wait();
      return true;
    } catch (const UserError& error) {
      const std::string message = error.what();
      if (error.exit_code() != kExitCannotWrite || message.find(run_) == message.npos ||
          message.find("No space left on device") == message.npos)
        violation("exit code " + std::to_string(error.exit_code()) + ": " + message);
      return false;
    }
  }

  /// This checkpoint and nothing else, every byte of it.
  void expect_on_disk(int64_t step) {
    const std::string folder = checkpoint_folder(run_, step);
    for (const auto& entry : fs::directory_iterator(run_ + "/checkpoints")) {
      if (entry.path() != folder) violation("there is " + entry.path().filename().string());
    }
    if (find_checkpoint(run_) != folder) violation(folder + " is not found");
    if (const auto where = difference(golden_.at(step), files_of(folder)); !where.empty())
      violation(folder + ": " + where);
  }

  void violation(const std::string& what) { report_.violation(where_ + what); }

  SmallDisk disk_;
  std::string run_, where_;
  SoakReport& report_;
  std::map<int64_t, Files> golden_;
  int64_t bytes_ = 0, failed_ = 0;
};

}  // namespace

void soak_disk_full(const SoakOptions& options, SoakReport& report) {
  constexpr Policy kPolicies[] = {{"stop", false}, {"stop", true}, {"warn", false}, {"warn", true}};
  FullDisk full(options, report);
  Progress progress("disk-full", options.count, "sizes");
  for (int64_t i = 0; i < options.count; ++i) {
    const double share = options.count == 1 ? 0.5
                                            : kMost * static_cast<double>(i) /
                                                  static_cast<double>(options.count - 1);
    for (const Policy& policy : kPolicies) full.check(share, policy);
    progress.update(i + 1);
  }
  progress.finish();
  report.facts["sizes"] = options.count;
  report.facts["policies"] = std::size(kPolicies);
  report.facts["disk"] = full.mounts() ? "tmpfs" : "byte budget";
  report.facts["checkpoint_bytes"] = full.bytes();
  report.facts["saves_refused"] = full.failed();
}

}  // namespace tandem
