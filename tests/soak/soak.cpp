#include "tests/soak/soak.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "core/error.h"
#include "core/file.h"
#include "core/json_lines.h"
#include "core/log.h"
#include "tests/paths.h"
#include "tests/soak/faults.h"

// soak PART: proves in numbers that checkpoints survive kills, damage and failing system calls.
// Prints one line of JSON; leaves with 1 where something was found that should never be.

namespace tandem {
namespace {

struct Part {
  const char* name;
  int64_t count;  // of the full soak
  const char* summary;
  void (*run)(const SoakOptions&, SoakReport&);
};
constexpr Part kParts[] = {
    {"kills", 200, "SIGKILLs of `tandem train`, a third of them inside a save", soak_kills},
    {"flips", 100'000, "flipped bits, and a tenth as much other damage", soak_flips},
    {"syscalls", 100'000, "at most so many failing system calls; all there are is fewer",
     soak_syscalls},
    {"disk-full", 61, "sizes of the disk from 0 % to 120 % of a checkpoint", soak_disk_full},
    {"sequences", 10'000, "random sequences of saves, crashes, damage and deletion",
     soak_sequences},
};

/// A new folder in memory where the machine offers that, gone with the program.
class Scratch {
 public:
  explicit Scratch(const std::string& parent)
      : path_(std::filesystem::absolute(parent) / "soak_XXXXXX") {
    if (::mkdtemp(path_.data()) == nullptr) throw cannot_write(path_, "cannot make the folder");
  }
  ~Scratch() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Scratch(const Scratch&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

std::string default_parent() {
  if (::access("/dev/shm", W_OK) == 0) return "/dev/shm";
  return std::filesystem::temp_directory_path();
}

}  // namespace

void SoakReport::violation(const std::string& what) {
  constexpr int64_t kPrinted = 20;
  if (++violations_ <= kPrinted) std::fprintf(stderr, "VIOLATION: %s\n", what.c_str());
}

CheckpointContents contents_at(int64_t step, int64_t rows) {
  const auto numbers = [&](int64_t n, double shift) {
    return (torch::arange(n, torch::kFloat32) + shift) / 7 + static_cast<double>(step);
  };
  CheckpointContents contents;
  contents.step = step;
  contents.weights = {whole_piece("", "matrix", numbers(rows * 17, 0).reshape({rows, 17})),
                      whole_piece("", "vector", numbers(29, 0.5))};
  for (const auto& weight : contents.weights) {
    for (const std::string kind : {"exp_avg", "exp_avg_sq"}) {
      const Tensor moment = numbers(weight.end, kind == "exp_avg" ? 1 : 2);
      contents.optimizer.push_back(
          whole_piece(kind, weight.name, moment.reshape(weight.global_shape)));
    }
  }
  contents.config_yaml = "training: {steps: 1000}\n";
  contents.state = {{"step", step}, {"next_sample", 6 * step}};
  contents.tokenizer_model = "the bytes of a tokenizer";
  return contents;
}

void write_at(int64_t step, const std::string& folder) {
  write_checkpoint(folder, contents_at(step));
}

Files files_of(const std::string& folder) {
  Files files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    std::ifstream in(entry.path(), std::ios::binary);
    files[entry.path().filename()] = {std::istreambuf_iterator<char>(in), {}};
  }
  return files;
}

void write_bytes(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

std::string difference(const Files& expected, const Files& found) {
  for (const auto& [name, bytes] : expected) {
    const auto other = found.find(name);
    if (other == found.end()) return name + " is missing";
    if (other->second != bytes) return name + " differs";
  }
  for (const auto& [name, bytes] : found) {
    if (!expected.contains(name)) return name + " is new";
  }
  return "";
}

const Files& Golden::at(int64_t step) {
  const auto [files, is_new] = files_.try_emplace(step);
  if (is_new) {
    const std::string folder = join_path(folder_, "golden");
    make_directories(folder_);
    write_(step, folder);
    files->second = files_of(folder);
    remove_tree(folder);
  }
  return files->second;
}

int64_t step_found(const std::string& run_folder, Golden& golden) {
  std::string folder;
  try {
    folder = find_checkpoint(run_folder);
  } catch (const UserError&) {
    return 0;
  }
  const int64_t step = Checkpoint(folder).step();
  const std::string where = difference(golden.at(step), files_of(folder));
  if (!where.empty()) throw std::runtime_error(folder + " verifies, but " + where);
  return step;
}

namespace {

int run(int argc, const char* const* argv) {
  CLI::App app("Checkpoints under kills, damage and failing system calls, in numbers", "soak");
  app.require_subcommand(1);
  SoakOptions options;
  options.binary = kTandemProgram;
  std::string out, parent = default_parent();
  for (const Part& part : kParts) {
    CLI::App* command = app.add_subcommand(part.name, part.summary);
    command->add_option("--count", options.count,
                        "How many; default: " + std::to_string(part.count));
    command->add_option("--seed", options.seed, "Of all that is random")->capture_default_str();
    command->add_option("--out", out, "Also append the line to this file");
    command->add_option("--scratch", parent, "Where to write")->capture_default_str();
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitDone : kExitUsage;
  }
  const std::string name = app.get_subcommands().front()->get_name();
  const Part& part = *std::find_if(std::begin(kParts), std::end(kParts),
                                   [&](const Part& one) { return name == one.name; });
  if (options.count == 0) options.count = part.count;

  torch::set_num_threads(1);
  set_log_quiet(true);  // of the many warnings only violations are of interest
  const Scratch scratch(parent);
  options.folder = scratch.path();
  watch_calls_under(scratch.path());
  SoakReport report;
  const auto begin = std::chrono::steady_clock::now();
  part.run(options, report);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;

  nlohmann::ordered_json line = {{"part", name}, {"seed", options.seed}};
  line.update(report.facts);
  line["violations"] = report.violations();
  line["seconds"] = std::round(seconds.count() * 10) / 10;
  std::printf("%s\n", line.dump().c_str());
  if (!out.empty()) JsonLinesWriter(out).write(line);
  return report.violations() == 0 ? 0 : 1;
}

}  // namespace
}  // namespace tandem

int main(int argc, char** argv) {
  try {
    return tandem::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "soak: %s\n", error.what());
    return 1;
  }
}
