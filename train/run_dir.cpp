#include "train/run_dir.h"

#include <unistd.h>

#include <ctime>
#include <functional>

#include "comm/agreement.h"
#include "core/error.h"
#include "core/json_lines.h"
#include "core/log.h"

namespace tandem {
namespace {

using nlohmann::ordered_json;

// What stands behind the names of folders that are no checkpoints.
constexpr const char* kPartial = ".partial";  // not yet one
constexpr const char* kNext = ".next";        // whole, and takes the place of another of its step
constexpr const char* kRemoved = ".removed";  // no longer one, whatever is left of it
constexpr const char* kDamaged = ".damaged";

void remove_or_warn(const std::string& folder) {
  try {
    remove_tree(folder);
  } catch (const UserError& error) {  // costs space, not the run
    log_warning(error.what());
  }
}

/// Takes a checkpoint away, at once and then from the disk.
void remove_checkpoint(const std::string& folder) {
  remove_or_warn(folder + kRemoved);  // of an earlier time
  rename_file(folder, folder + kRemoved);
  remove_or_warn(folder + kRemoved);
}

/// Lets the next checkpoint of a step have its place, when that is free; else it is not needed.
void settle_next(const std::string& folder) {
  if (!exists(folder + kNext)) return;
  if (exists(folder)) {
    remove_or_warn(folder + kNext);
  } else {
    rename_file(folder + kNext, folder);
  }
}

std::string who_am_i() {
  char host[256] = "localhost", time[32];
  gethostname(host, sizeof host - 1);
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  std::strftime(time, sizeof time, "%Y-%m-%d %H:%M:%SZ", &parts);
  return "process " + std::to_string(getpid()) + " on " + host + " since " + time;
}

/// Calls `each` with every whole line of a metrics file, its text without the newline and its
/// object.
void for_each_metric(const std::string& path,
                     const std::function<void(std::string_view, const ordered_json&)>& each) {
  if (!exists(path)) return;
  const std::string text = read_text(path);
  int64_t number = 1;
  for (size_t begin = 0, end; (end = text.find('\n', begin)) != text.npos;
       begin = end + 1, ++number) {
    const std::string_view line = std::string_view(text).substr(begin, end - begin);
    try {
      each(line, parse_json(line));
    } catch (const UserError&) {
      throw;
    } catch (const std::runtime_error& error) {  // as a power cut may leave them
      log_warning(path + ":" + std::to_string(number) + ": " + error.what() +
                  "; the line is left out");
    }
  }
}

}  // namespace

RunDir::RunDir(std::string path, Communicator& control, Communicator& save)
    : path_(std::move(path)), control_(&control), save_(&save) {
  open();
}

RunDir::RunDir(std::string path)
    : path_(std::move(path)),
      alone_(make_single_communicator("control")),
      control_(alone_.get()),
      save_(alone_.get()) {
  open();
}

void RunDir::open() {
  on_first(*control_, [&] {
    make_directories(file("checkpoints"));
    std::string holder;
    lock_ = FileLock::try_lock(file("lock"), who_am_i(), &holder);
    if (!lock_) throw bad_usage(path_ + ": another run is using this folder (" + holder + ")");
    tidy();
  });
}

/// Ends what a killed or failed save or removal left half done.
void RunDir::tidy() {
  for (const auto& name : list_directory(file("checkpoints"))) {
    const std::string path = join_path(file("checkpoints"), name);
    if (name.ends_with(kNext)) settle_next(path.substr(0, path.rfind('.')));
    if (name.ends_with(kPartial) || name.ends_with(kRemoved)) remove_or_warn(path);
  }
}

std::optional<Checkpoint> RunDir::newest() {
  std::optional<Checkpoint> found;
  const std::string folder = text_of_first(*control_, [&] {
    found = find_newest();
    return found ? found->folder() : "";
  });
  on_all_ranks(*control_, [&] {
    if (!found && !folder.empty()) found.emplace(folder);
  });
  return found;
}

std::optional<Checkpoint> RunDir::find_newest() const {
  const auto steps = checkpoint_steps(path_);
  if (steps.empty()) return std::nullopt;
  Checkpoint found(find_checkpoint(path_));  // warns of each damaged one
  for (const int64_t step : steps) {
    if (step <= found.step()) continue;
    // Out of the way of the checkpoint that this step will have again, and kept for whoever wants
    // to know what happened.
    const std::string folder = checkpoint_folder(path_, step);
    remove_tree(folder + kDamaged);
    rename_file(folder, folder + kDamaged);
    log_warning(folder + " was renamed to " + folder + kDamaged);
  }
  return found;
}

std::string RunDir::save(const CheckpointContents& contents, const CheckpointConfig& config,
                         std::optional<int64_t> protect) {
  const std::string folder = checkpoint_folder(path_, contents.step);
  try {
    const std::string written = text_of_first(*save_, [&] {
      settle_next(folder);
      if (!exists(folder)) return folder;
      remove_tree(folder + kNext);  // what an earlier removal left
      return folder + kNext;        // as after a save that failed at its very end
    });
    write_checkpoint(written, contents, *save_);
    on_first(*save_, [&] {
      if (written == folder) return;
      exchange_files(written, folder);  // where it is one call, at no moment is there neither
      sync_directory(parent_of(folder));
      remove_or_warn(written);
    });
  } catch (const UserError& error) {
    if (error.exit_code() == kExitCannotWrite || error.exit_code() == kExitPeerLost) throw;
    throw cannot_write(folder, error.what());  // not even what there is could be read
  }
  if (save_->rank() != 0) return folder;
  try {
    tidy();
    remove_old(config, protect, contents.step);
  } catch (const UserError& error) {
    log_warning(std::string("old checkpoints stay: ") + error.what());
  }
  return folder;
}

/// An older one goes only when a newer one, that of step `saved`, is known to be good.
void RunDir::remove_old(const CheckpointConfig& config, std::optional<int64_t> protect,
                        int64_t saved) {
  for (const int64_t step : steps_to_remove(checkpoint_steps(path_), config, protect)) {
    if (step != saved) remove_checkpoint(checkpoint_folder(path_, step));
  }
}

void RunDir::remove_after(int64_t step) {
  on_first(*control_, [&] {
    const auto steps = checkpoint_steps(path_);
    for (auto later = steps.rbegin(); later != steps.rend() && *later > step; ++later)
      remove_checkpoint(checkpoint_folder(path_, *later));
    sync_directory(file("checkpoints"));  // or a power cut brings them back
  });
}

std::vector<int64_t> steps_to_remove(const std::vector<int64_t>& steps,
                                     const CheckpointConfig& config,
                                     std::optional<int64_t> protect) {
  std::vector<int64_t> removed;
  for (size_t i = 0; i + static_cast<size_t>(config.keep) < steps.size(); ++i) {
    const bool stays =
        steps[i] == protect || (config.keep_every && steps[i] % *config.keep_every == 0);
    if (!stays) removed.push_back(steps[i]);
  }
  return removed;
}

void RunDir::cut_metrics(int64_t step) {
  on_first(*control_, [&] {
    const std::string path = file("metrics.jsonl");
    std::string kept;
    for_each_metric(path, [&](std::string_view line, const ordered_json& object) {
      if (get_int(object, "step", 0, INT64_MAX) <= step) kept.append(line).push_back('\n');
    });
    write_atomically(path, kept);
  });
}

bool RunDir::has_metric(int64_t step, const char* key) const {
  const std::string found = text_of_first(*control_, [&] {
    std::string answer = "no";
    for_each_metric(file("metrics.jsonl"), [&](std::string_view, const ordered_json& object) {
      if (object.contains(key) && get_int(object, "step", 0, INT64_MAX) == step) answer = "yes";
    });
    return answer;
  });
  return found == "yes";
}

ordered_json RunDir::last_start() const {
  const std::string text = text_of_first(*control_, [&]() -> std::string {
    if (!exists(file("run.json"))) return "null";
    const ordered_json run = read_json(file("run.json"));
    const auto starts = run.find("starts");
    const bool any = starts != run.end() && starts->is_array() && !starts->empty();
    return any ? starts->back().dump() : "null";
  });
  return parse_json(text);
}

void RunDir::record_start(const std::string& config_yaml, const ordered_json& facts,
                          const ordered_json& start) {
  on_first(*control_, [&] {
    const std::string path = file("run.json");
    ordered_json run = facts;
    run["starts"] = ordered_json::array();
    if (exists(path)) {
      const ordered_json before = read_json(path);
      if (before.contains("starts")) run["starts"] = before.at("starts");
    }
    run["starts"].push_back(start);
    write_atomically(path, run.dump(2) + "\n");
    write_atomically(file("config.yaml"), config_yaml);
  });
}

}  // namespace tandem
