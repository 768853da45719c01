#include "nn/checkpoint.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <set>

#include "core/checksum.h"
#include "core/error.h"
#include "core/file.h"
#include "core/json_lines.h"
#include "core/log.h"

// manifest.json:
//   {"format": "tandem checkpoint", "version": 1, "step": 1000,
//    "files": {"config.yaml": {"bytes": 812, "crc32c": "0badcafe"}, ...,
//              "model.safetensors": {"bytes": ..., "crc32c": ..., "tensors": {"NAME": {"crc32c":
//              ...}, ...}}, "optimizer-00001-of-00001.safetensors": {..., "tensors":
//              {"exp_avg.NAME": {"crc32c": ..., "parameter": "NAME",
//                                                       "global_shape": [7, 3], "begin": 0, "end":
//                                                       21}, ...}}},
//    "sha256": "64 hex digits"}
// A file's crc32c is over all its bytes, a tensor's over its data. sha256 is over the bytes of
// manifest.json as they stand, without those 64 digits.

namespace tandem {
namespace {

using nlohmann::ordered_json;

constexpr const char* kFormat = "tandem checkpoint";
constexpr int64_t kVersion = 1;
constexpr const char* kManifest = "manifest.json";
constexpr const char* kConfig = "config.yaml";
constexpr const char* kState = "state.json";
constexpr const char* kTokenizer = "tokenizer.model";
constexpr const char* kModel = "model.safetensors";
constexpr const char* kOptimizer = "optimizer-00001-of-00001.safetensors";
constexpr std::string_view kShaBefore = "\"sha256\": \"", kShaAfter = "\"\n}\n";
constexpr size_t kShaDigits = 64;
constexpr int64_t kMostSteps = int64_t{1} << 53;

std::string hex(uint32_t crc) {
  char text[9];
  std::snprintf(text, sizeof text, "%08x", crc);
  return text;
}

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}
std::span<const std::byte> bytes_of(const Tensor& tensor) {
  return {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()};
}
std::span<std::byte> writable_bytes_of(Tensor& tensor) {
  return {static_cast<std::byte*>(tensor.mutable_data_ptr()), tensor.nbytes()};
}

// ---- writing

/// Writes one small file; returns its entry in the manifest.
ordered_json write_text_file(const std::string& folder, const char* name, std::string_view text) {
  File file = File::create(join_path(folder, name));
  file.write(text);
  file.sync();
  file.close();
  return {{"bytes", text.size()}, {"crc32c", hex(crc32c(bytes_of(text)))}};
}

/// Writes tensors as one safetensors file; returns its entry in the manifest.
ordered_json write_tensor_file(const std::string& folder, const char* name,
                               const std::vector<std::pair<std::string, Tensor>>& tensors) {
  std::vector<TensorEntry> entries;
  std::map<std::string, Tensor> by_name;
  for (const auto& [key, tensor] : tensors) {
    TORCH_CHECK(tensor.device().is_cpu() && tensor.scalar_type() == torch::kFloat32, name, ": ",
                key, " is ", tensor.toString(), ", expected float32 on the CPU");
    TensorEntry entry;
    entry.name = key;
    entry.type = DataType::kF32;
    entry.shape = tensor.sizes().vec();
    entries.push_back(std::move(entry));
    TORCH_CHECK(by_name.emplace(key, tensor.contiguous()).second, name, ": ", key, " comes twice");
  }
  SafetensorsWriter writer(join_path(folder, name), std::move(entries));
  for (const TensorEntry& entry : writer.order()) writer.write(bytes_of(by_name.at(entry.name)));
  writer.finish();

  ordered_json sums = ordered_json::object();
  for (size_t i = 0; i < writer.order().size(); ++i)
    sums[writer.order()[i].name] = {{"crc32c", hex(writer.checksums()[i])}};
  return {{"bytes", writer.file_size()},
          {"crc32c", hex(writer.file_checksum())},
          {"tensors", std::move(sums)}};
}

ordered_json write_optimizer(const std::string& folder, const std::vector<OptimizerPiece>& pieces) {
  std::vector<std::pair<std::string, Tensor>> tensors;
  for (const auto& piece : pieces) {
    TORCH_CHECK(piece.data.dim() == 1 && piece.data.numel() == piece.end - piece.begin, piece.name,
                ": data ", piece.data.sizes(), ", expected [", piece.end - piece.begin, "]");
    tensors.emplace_back(piece.name, piece.data);
  }
  ordered_json entry = write_tensor_file(folder, kOptimizer, tensors);
  for (const auto& piece : pieces) {
    ordered_json& tensor = entry["tensors"][piece.name];
    tensor["parameter"] = piece.parameter;
    tensor["global_shape"] = piece.global_shape;
    tensor["begin"] = piece.begin;
    tensor["end"] = piece.end;
  }
  return entry;
}

void write_files(const std::string& folder, const CheckpointContents& contents) {
  ordered_json files = ordered_json::object();
  files[kConfig] = write_text_file(folder, kConfig, contents.config_yaml);
  files[kState] = write_text_file(folder, kState, contents.state.dump(2) + "\n");
  if (!contents.tokenizer_model.empty())
    files[kTokenizer] = write_text_file(folder, kTokenizer, contents.tokenizer_model);
  files[kModel] = write_tensor_file(folder, kModel, contents.weights);
  if (!contents.optimizer.empty()) files[kOptimizer] = write_optimizer(folder, contents.optimizer);

  ordered_json manifest = {{"format", kFormat}, {"version", kVersion}, {"step", contents.step}};
  manifest["files"] = std::move(files);
  manifest["sha256"] = "";
  std::string text = manifest.dump(2) + "\n";
  text.insert(text.size() - kShaAfter.size(), sha256_hex(bytes_of(text)));
  write_text_file(folder, kManifest, text);
}

// ---- reading

/// Throws unless the manifest's text holds its own SHA-256.
void check_own_sha(const std::string& path, const std::string& text) {
  const size_t tail = kShaBefore.size() + kShaDigits + kShaAfter.size();
  const bool shaped = text.size() > tail && text.ends_with(kShaAfter) &&
                      std::string_view(text).substr(text.size() - tail).starts_with(kShaBefore);
  if (!shaped) throw bad_file(path, "does not end with its sha256, it is damaged or cut short");
  const size_t digits = text.size() - kShaAfter.size() - kShaDigits;
  const std::string recorded = text.substr(digits, kShaDigits);
  const std::string found = sha256_hex(bytes_of(std::string(text).erase(digits, kShaDigits)));
  if (found != recorded)
    throw bad_file(path, "is damaged: its SHA-256 is " + found + ", it records " + recorded);
}

UserError wrong_sum(const std::string& path, const std::string& what, const std::string& found,
                    const std::string& recorded) {
  return bad_file(
      path, what + "is damaged: its CRC32C is " + found + ", manifest.json records " + recorded);
}

/// CRC32C of the bytes [0, size) that `read` gives in pieces.
template <typename Read>
uint32_t checksum_of(uint64_t size, const Read& read) {
  std::vector<std::byte> buffer(std::min<uint64_t>(size, 1 << 20));
  uint32_t crc = 0;
  for (uint64_t done = 0; done < size;) {
    const auto piece = std::span(buffer).first(std::min<uint64_t>(size - done, buffer.size()));
    read(done, piece);
    crc = crc32c(piece, crc);
    done += piece.size();
  }
  return crc;
}

/// Throws unless `found`, the CRC32C of the data of one tensor, is the manifest's.
void check_tensor(const SafetensorsReader& reader, const std::string& name, uint32_t found,
                  const ordered_json& tensors) {
  if (!tensors.contains(name))
    throw bad_file(reader.path(), "tensor " + name + " is not in manifest.json");
  const std::string recorded = get_string(tensors.at(name), "crc32c");
  if (hex(found) != recorded)
    throw wrong_sum(reader.path(), "tensor " + name + " ", hex(found), recorded);
}

/// Throws for the first damaged tensor of a file; a damaged header throws too.
void check_tensors(const SafetensorsReader& reader, const ordered_json& tensors) {
  for (const auto& entry : reader.entries()) {
    const auto read = [&](uint64_t at, std::span<std::byte> out) { reader.read(entry, at, out); };
    check_tensor(reader, entry.name, checksum_of(entry.bytes(), read), tensors);
  }
}

const ordered_json& tensors_of(const ordered_json& manifest, const std::string& file) {
  return manifest.at("files").at(file).at("tensors");
}

/// Reads one whole tensor and checks its CRC32C.
Tensor read_tensor(const SafetensorsReader& reader, const TensorEntry& entry,
                   const ordered_json& tensors) {
  if (entry.type != DataType::kF32)
    throw bad_file(reader.path(),
                   "tensor " + entry.name + " is " + name_of(entry.type) + ", expected F32");
  Tensor tensor = torch::empty(entry.shape, torch::kFloat32);
  reader.read(entry, 0, writable_bytes_of(tensor));
  check_tensor(reader, entry.name, crc32c(bytes_of(tensor)), tensors);
  return tensor;
}

std::string shape_text(c10::IntArrayRef shape) { return c10::str(shape); }  // "[3, 5]"

std::optional<int64_t> step_of_name(const std::string& name) {
  constexpr std::string_view kPrefix = "step-";
  if (!name.starts_with(kPrefix) || name.size() < kPrefix.size() + 8 ||
      name.size() > kPrefix.size() + 18)
    return std::nullopt;
  const std::string digits = name.substr(kPrefix.size());
  if (!std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '9'; }))
    return std::nullopt;
  return std::stoll(digits);
}

}  // namespace

void write_checkpoint(const std::string& folder, const CheckpointContents& contents) {
  write_folder(folder, [&](const std::string& partial) {
    write_files(partial, contents);
    try {
      Checkpoint(partial).verify();
    } catch (const UserError& error) {
      throw cannot_write(folder, std::string("cannot be read back: ") + error.what());
    }
  });
}

Checkpoint::Checkpoint(std::string folder) : folder_(std::move(folder)) {
  const std::string path = join_path(folder_, kManifest);
  const std::string text = read_text(path);
  check_own_sha(path, text);
  // What follows was written by this program, or by somebody who computed the SHA-256 anew.
  try {
    manifest_ = parse_json(text);
    if (get_string(manifest_, "format") != kFormat)
      throw std::runtime_error("format is not \"" + std::string(kFormat) + "\"");
    get_int(manifest_, "version", kVersion, kVersion);
    step_ = get_int(manifest_, "step", 0, kMostSteps);
    for (const char* name : {kConfig, kState, kModel}) {
      if (!manifest_.at("files").contains(name))
        throw std::runtime_error(std::string("lists no ") + name);
    }
    if (!manifest_.at("files").at(kModel).contains("tensors"))
      throw std::runtime_error(std::string("lists no tensors of ") + kModel);
    for (const auto& [name, file] : manifest_.at("files").items()) {
      if (name.find('/') != name.npos)
        throw std::runtime_error("lists \"" + name + "\", expected files of this folder");
      get_int(file, "bytes", 0, kMostSteps);
      get_string(file, "crc32c");
      if (!file.contains("tensors")) continue;
      for (const auto& [key, tensor] : file.at("tensors").items()) {
        get_string(tensor, "crc32c");
        if (!tensor.contains("parameter")) continue;
        const int64_t begin = get_int(tensor, "begin", 0, kMostSteps);
        get_int(tensor, "end", begin, kMostSteps);
      }
    }
  } catch (const std::exception& error) {
    throw bad_file(path, error.what());
  }
  for (const auto& [name, file] : manifest_.at("files").items()) {
    const std::string file_path = join_path(folder_, name);
    const uint64_t found = File::open_read(file_path).size(),
                   recorded = file.at("bytes").get<uint64_t>();
    if (found != recorded) {
      throw bad_file(file_path, "holds " + std::to_string(found) +
                                    " bytes, manifest.json records " + std::to_string(recorded));
    }
  }
}

void Checkpoint::verify() const {
  for (const auto& [name, file] : manifest_.at("files").items()) {
    const std::string path = join_path(folder_, name);
    const File opened = File::open_read(path);
    const auto found = hex(checksum_of(
        opened.size(), [&](uint64_t at, std::span<std::byte> out) { opened.read_at(at, out); }));
    const std::string recorded = get_string(file, "crc32c");
    if (found == recorded) continue;
    if (file.contains("tensors"))
      check_tensors(SafetensorsReader(path), file.at("tensors"));  // names the tensor
    throw wrong_sum(path, file.contains("tensors") ? "the header " : "", found, recorded);
  }
}

/// The text of one file, when its CRC32C is the manifest's.
std::string Checkpoint::read_checked(const std::string& name) const {
  const std::string path = join_path(folder_, name);
  std::string text = read_text(path);
  const std::string found = hex(crc32c(bytes_of(text))),
                    recorded = get_string(manifest_.at("files").at(name), "crc32c");
  if (found != recorded) throw wrong_sum(path, "", found, recorded);
  return text;
}

std::string Checkpoint::config_yaml() const { return read_checked(kConfig); }

ordered_json Checkpoint::state() const {
  const std::string text = read_checked(kState);
  try {
    return parse_json(text);
  } catch (const std::runtime_error& error) {
    throw bad_file(join_path(folder_, kState), error.what());
  }
}

std::string Checkpoint::tokenizer() const {
  if (!manifest_.at("files").contains(kTokenizer)) return "bytes";
  read_checked(kTokenizer);
  return join_path(folder_, kTokenizer);
}

void Checkpoint::load_weights(torch::nn::Module& module) const {
  const torch::NoGradGuard no_grad;
  const SafetensorsReader reader(join_path(folder_, kModel));
  const ordered_json& tensors = tensors_of(manifest_, kModel);
  std::set<std::string> unknown;
  for (const auto& entry : reader.entries()) {
    if (!entry.name.starts_with(kUnusedPrefix)) unknown.insert(entry.name);
  }
  for (auto& parameter : module.named_parameters()) {
    const TensorEntry* entry = reader.find(parameter.key());
    if (!entry)
      throw bad_file(reader.path(),
                     "has no tensor " + parameter.key() + ", which the model of this config needs");
    if (entry->shape != parameter.value().sizes().vec()) {
      throw bad_file(reader.path(), "tensor " + parameter.key() + " is " +
                                        shape_text(entry->shape) +
                                        ", the model of this config needs " +
                                        shape_text(parameter.value().sizes()));
    }
    unknown.erase(parameter.key());
  }
  if (!unknown.empty())
    throw bad_file(reader.path(),
                   "tensor " + *unknown.begin() + " is not in the model of this config");
  for (auto& parameter : module.named_parameters()) {
    parameter.value().copy_(read_tensor(reader, *reader.find(parameter.key()), tensors));
  }
}

Tensor Checkpoint::weight(const std::string& name) const {
  const SafetensorsReader reader(join_path(folder_, kModel));
  const TensorEntry* entry = reader.find(name);
  if (!entry) throw bad_file(reader.path(), "has no tensor " + name);
  return read_tensor(reader, *entry, tensors_of(manifest_, kModel));
}

std::vector<std::string> Checkpoint::weight_names() const {
  std::vector<std::string> names;
  const SafetensorsReader reader(join_path(folder_, kModel));
  for (const auto& entry : reader.entries()) names.push_back(entry.name);
  return names;
}

void Checkpoint::load_optimizer(const std::string& name, int64_t begin, Tensor& out) const {
  TORCH_CHECK(out.device().is_cpu() && out.scalar_type() == torch::kFloat32 && out.dim() == 1,
              "load_optimizer: out is ", out.toString(), " ", out.sizes(),
              ", expected [n] float32 on the CPU");
  const int64_t end = begin + out.numel();
  std::vector<std::pair<int64_t, int64_t>> held;
  for (const auto& [file, facts] : manifest_.at("files").items()) {
    if (!file.starts_with("optimizer-") || !facts.contains("tensors") ||
        !facts.at("tensors").contains(name))
      continue;
    const ordered_json& piece = facts.at("tensors").at(name);
    const int64_t piece_begin = get_int(piece, "begin", 0, kMostSteps),
                  piece_end = get_int(piece, "end", piece_begin, kMostSteps);
    const int64_t from = std::max(begin, piece_begin), to = std::min(end, piece_end);
    if (from >= to) continue;
    const SafetensorsReader reader(join_path(folder_, file));
    const TensorEntry* entry = reader.find(name);
    if (!entry || entry->shape != std::vector<int64_t>{piece_end - piece_begin}) {
      throw bad_file(reader.path(),
                     "tensor " + name + " is not the piece that manifest.json describes");
    }
    const Tensor data = read_tensor(reader, *entry, facts.at("tensors"));
    out.slice(0, from - begin, to - begin)
        .copy_(data.slice(0, from - piece_begin, to - piece_begin));
    held.emplace_back(from, to);
  }
  std::sort(held.begin(), held.end());
  int64_t covered = begin;
  for (const auto& [from, to] : held) {
    if (from != covered) break;
    covered = to;
  }
  if (covered != end) {
    throw bad_file(join_path(folder_, kManifest),
                   "no piece holds element " + std::to_string(covered) + " of " + name);
  }
}

bool Checkpoint::has_optimizer() const {
  const auto& files = manifest_.at("files");
  return std::any_of(files.items().begin(), files.items().end(),
                     [](const auto& file) { return file.key().starts_with("optimizer-"); });
}

std::vector<int64_t> checkpoint_steps(const std::string& run_folder) {
  const std::string folder = join_path(run_folder, "checkpoints");
  std::vector<int64_t> steps;
  if (!is_directory(folder)) return steps;
  for (const auto& name : list_directory(folder)) {
    if (const auto step = step_of_name(name); step && is_directory(join_path(folder, name)))
      steps.push_back(*step);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

std::string checkpoint_folder(const std::string& run_folder, int64_t step) {
  char name[32];
  std::snprintf(name, sizeof name, "step-%08lld", static_cast<long long>(step));
  return join_path(join_path(run_folder, "checkpoints"), name);
}

std::string find_checkpoint(const std::string& path) {
  if (!exists(path)) throw bad_file(path, "does not exist, expected a checkpoint or a run folder");
  if (exists(join_path(path, kManifest))) return path;
  const auto steps = checkpoint_steps(path);
  if (steps.empty()) throw bad_file(path, "holds no checkpoint");
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
    const std::string folder = checkpoint_folder(path, *step);
    try {
      const Checkpoint checkpoint(folder);
      if (checkpoint.step() != *step)
        throw bad_file(folder, "holds step " + std::to_string(checkpoint.step()));
      checkpoint.verify();
      return folder;
    } catch (const UserError& error) {
      log_warning(error.what());
    }
  }
  throw bad_file(path, "none of its " + std::to_string(steps.size()) + " checkpoints verifies");
}

}  // namespace tandem
