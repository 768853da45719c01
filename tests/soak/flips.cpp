#include <unistd.h>

#include <algorithm>
#include <optional>

#include "core/error.h"
#include "core/file.h"
#include "core/progress.h"
#include "tests/soak/soak.h"

// Damage to a checkpoint: COUNT single flipped bits over all of its files, and a tenth as many of
// each other kind. Verifying must name the damaged file, and reading everything, as loading does,
// must do so too or give what was saved (a flip in what nobody reads, such as a safetensors
// comment).

namespace tandem {
namespace {

/// Throws UserError for damage it sees, std::runtime_error for wrong contents it did not see.
void load_everything(const std::string& folder, const CheckpointContents& expected) {
  const auto require = [](bool same, const std::string& what) {
    if (!same) throw std::runtime_error(what + " was loaded and is not what was saved");
  };
  const Checkpoint checkpoint(folder);
  require(checkpoint.config_yaml() == expected.config_yaml, "config.yaml");
  require(checkpoint.state() == expected.state, "state.json");
  require(read_text(checkpoint.tokenizer()) == expected.tokenizer_model, "the tokenizer");
  require(checkpoint.weight_names().size() == expected.weights.size(), "the list of weights");
  for (const auto& piece : expected.weights)
    require(checkpoint.weight(piece.name).flatten().equal(piece.data), piece.name);
  for (const auto& piece : expected.optimizer) {
    Tensor found = torch::empty_like(piece.data);
    ParameterInfo info;
    info.name = piece.parameter;
    info.global_shape = piece.global_shape;
    checkpoint.load_part(piece.name.substr(0, piece.name.find('.')), info, piece.begin, piece.end,
                         found);
    require(found.equal(piece.data), piece.name);
  }
  require(checkpoint.step() == expected.step, "the step");
}

class Flips {
 public:
  Flips(const SoakOptions& options, SoakReport& report)
      : report_(report), draws_(RandomStream(options.seed).fork("flips")) {
    folder_ = options.folder + "/step-00000012";
    write_checkpoint(folder_, expected_);
    good_ = files_of(folder_);
    write_checkpoint(options.folder + "/step-00000013", contents_at(13));
    other_ = files_of(options.folder + "/step-00000013");
    for (const auto& [name, bytes] : good_) {
      names_.push_back(name);
      size_ += static_cast<int64_t>(bytes.size());
    }
    load_everything(folder_, expected_);  // undamaged it must load
  }

  void flip() {
    const auto [name, byte] = any_byte();
    std::string bytes = good_.at(name);
    bytes[byte] = static_cast<char>(bytes[byte] ^ (1 << draws_.below(8)));
    damage("flip in byte " + std::to_string(byte), {{name, bytes}});
  }
  /// A run of 1 to 64 bytes becomes random ones, the first of them another one.
  void scribble() {
    const auto [name, begin] = any_byte();
    std::string bytes = good_.at(name);
    const size_t end = std::min(bytes.size(), begin + 1 + static_cast<size_t>(draws_.below(64)));
    bytes[begin] = static_cast<char>(bytes[begin] + 1 + draws_.below(255));
    for (size_t i = begin + 1; i < end; ++i) bytes[i] = static_cast<char>(draws_.below(256));
    damage("bytes " + std::to_string(begin) + " to " + std::to_string(end), {{name, bytes}});
  }
  void cut() {
    const auto [name, size] = any_byte();
    damage("cut to " + std::to_string(size), {{name, good_.at(name).substr(0, size)}});
  }
  void append() {
    const std::string& name = draws_.any_of(names_);
    damage("longer",
           {{name, good_.at(name) + std::string(static_cast<size_t>(1 + draws_.below(64)), ' ')}});
  }
  void swap() {
    const std::string &one = draws_.any_of(names_), &two = draws_.any_of(names_);
    if (one == two) return append();
    damage("swapped", {{one, good_.at(two)}, {two, good_.at(one)}});
  }
  void remove() { damage("missing", {{draws_.any_of(names_), std::nullopt}}); }
  /// A file of the next step, which may blame the files beside it where it is the manifest.
  void replace() {
    const std::string& name = draws_.any_of(names_);
    if (other_.at(name) == good_.at(name)) return remove();
    damage("of another step", {{name, other_.at(name)}}, /*any_file=*/name == "manifest.json");
  }

  int64_t silent() const { return silent_; }
  int64_t bytes() const { return size_; }
  int64_t harmless() const { return harmless_; }

 private:
  using Damage = std::map<std::string, std::optional<std::string>>;  // new bytes; none: removed

  /// A byte of all files, each as likely.
  std::pair<std::string, size_t> any_byte() {
    int64_t at = draws_.below(size_);
    for (const auto& [name, bytes] : good_) {
      if (at < static_cast<int64_t>(bytes.size())) return {name, static_cast<size_t>(at)};
      at -= static_cast<int64_t>(bytes.size());
    }
    throw std::logic_error("any_byte");
  }

  void damage(const std::string& what, const Damage& files, bool any_file = false) {
    for (const auto& [name, bytes] : files) {
      const std::string path = join_path(folder_, name);
      if (bytes) {
        write_bytes(path, *bytes);
      } else {
        ::unlink(path.c_str());
      }
    }
    const std::string where = files.begin()->first + ", " + what + ": ";
    expect_seen(where + "verify: ", files, any_file, /*may_pass=*/false,
                [&] { Checkpoint(folder_).verify(); });
    expect_seen(where + "load: ", files, any_file, /*may_pass=*/true,
                [&] { load_everything(folder_, expected_); });
    for (const auto& [name, bytes] : files) write_bytes(join_path(folder_, name), good_.at(name));
  }

  template <typename Call>
  void expect_seen(const std::string& where, const Damage& files, bool any_file, bool may_pass,
                   Call call) {
    try {
      call();
    } catch (const UserError& error) {
      const std::string message = error.what();
      const bool named = std::any_of(names_.begin(), names_.end(), [&](const std::string& name) {
        return (any_file || files.contains(name)) &&
               message.starts_with(join_path(folder_, name) + ": ");
      });
      if (!named) report_.violation(where + "does not name the file: " + message);
      if (error.exit_code() != kExitBadFile)
        report_.violation(where + "exit code " + std::to_string(error.exit_code()));
      return;
    } catch (const std::exception& error) {
      ++silent_;
      report_.violation(where + error.what());
      return;
    }
    if (may_pass) {
      ++harmless_;
      return;
    }
    ++silent_;
    report_.violation(where + "not seen");
  }

  SoakReport& report_;
  Draws draws_;
  const CheckpointContents expected_ = contents_at(12);
  std::string folder_;
  Files good_, other_;
  std::vector<std::string> names_;
  int64_t size_ = 0, silent_ = 0, harmless_ = 0;
};

}  // namespace

void soak_flips(const SoakOptions& options, SoakReport& report) {
  using Kind = std::pair<const char*, void (Flips::*)()>;
  const std::vector<Kind> others = {
      {"scribbled_runs", &Flips::scribble}, {"truncations", &Flips::cut},
      {"extensions", &Flips::append},       {"swapped_files", &Flips::swap},
      {"missing_files", &Flips::remove},    {"files_of_another_step", &Flips::replace}};
  Flips flips(options, report);
  Progress progress("flips", options.count, "flips");
  for (int64_t i = 0; i < options.count; ++i) {
    flips.flip();
    if (i % 10 == 0) {
      for (const auto& [name, kind] : others) (flips.*kind)();
    }
    progress.update(i + 1);
  }
  progress.finish();
  report.facts["checkpoint_bytes"] = flips.bytes();
  report.facts["flips"] = options.count;
  for (const auto& [name, kind] : others) report.facts[name] = (options.count + 9) / 10;
  report.facts["silent"] = flips.silent();
  report.facts["loaded_unharmed"] = flips.harmless();
}

}  // namespace tandem
