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

namespace tandem {
namespace {

using nlohmann::ordered_json;

constexpr const char* kManifest = "manifest.json";
constexpr const char* kOptimizer = "optimizer-00001-of-00001.safetensors";

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
ManifestFile write_text_file(const std::string& folder, const std::string& name,
                             std::string_view text) {
  File file = File::create(join_path(folder, name));
  file.write(text);
  file.sync();
  file.close();
  return {.bytes = text.size(), .crc32c = crc32c(bytes_of(text))};
}

/// Writes tensors as one safetensors file; returns its entry in the manifest.
ManifestFile write_tensor_file(const std::string& folder, const char* name,
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

  ManifestFile file{.bytes = writer.file_size(), .crc32c = writer.file_checksum()};
  file.tensors.emplace();
  for (size_t i = 0; i < writer.order().size(); ++i)
    (*file.tensors)[writer.order()[i].name].crc32c = writer.checksums()[i];
  return file;
}

ManifestFile write_optimizer(const std::string& folder, const std::vector<OptimizerPiece>& pieces) {
  std::vector<std::pair<std::string, Tensor>> tensors;
  for (const auto& piece : pieces) {
    TORCH_CHECK(piece.data.dim() == 1 && piece.data.numel() == piece.end - piece.begin, piece.name,
                ": data ", piece.data.sizes(), ", expected [", piece.end - piece.begin, "]");
    tensors.emplace_back(piece.name, piece.data);
  }
  ManifestFile file = write_tensor_file(folder, kOptimizer, tensors);
  for (const auto& piece : pieces)
    file.tensors->at(piece.name).piece = {piece.parameter, piece.global_shape, piece.begin,
                                          piece.end};
  return file;
}

/// Whether a file of a checkpoint is the tokenizer's model: it is none of the others.
bool is_tokenizer(const std::string& name) {
  return name != kConfigFile && name != kStateFile && name != kManifest &&
         !name.ends_with(".safetensors");
}

void write_files(const std::string& folder, const CheckpointContents& contents) {
  Manifest manifest;
  manifest.step = contents.step;
  const auto add_text = [&](const std::string& name, std::string_view text) {
    manifest.files.emplace_back(name, write_text_file(folder, name, text));
  };
  add_text(kConfigFile, contents.config_yaml);
  add_text(kStateFile, contents.state.dump(2) + "\n");
  if (!contents.tokenizer_model.empty()) {
    TORCH_CHECK(is_tokenizer(contents.tokenizer_file), "write_checkpoint: a tokenizer called ",
                contents.tokenizer_file);
    add_text(contents.tokenizer_file, contents.tokenizer_model);
  }
  manifest.files.emplace_back(kModelFile, write_tensor_file(folder, kModelFile, contents.weights));
  if (!contents.optimizer.empty())
    manifest.files.emplace_back(kOptimizer, write_optimizer(folder, contents.optimizer));
  write_text_file(folder, kManifest, manifest_text(manifest));
}

// ---- reading

UserError wrong_sum(const std::string& path, const std::string& what, uint32_t found,
                    uint32_t recorded) {
  return bad_file(path, what + "is damaged: its CRC32C is " + crc32c_text(found) +
                            ", manifest.json records " + crc32c_text(recorded));
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

using TensorSums = std::map<std::string, ManifestTensor>;

/// Throws unless `found`, the CRC32C of the data of one tensor, is the manifest's.
void check_tensor(const SafetensorsReader& reader, const std::string& name, uint32_t found,
                  const TensorSums& tensors) {
  const auto recorded = tensors.find(name);
  if (recorded == tensors.end())
    throw bad_file(reader.path(), "tensor " + name + " is not in manifest.json");
  if (found != recorded->second.crc32c)
    throw wrong_sum(reader.path(), "tensor " + name + " ", found, recorded->second.crc32c);
}

/// Throws for the first damaged tensor of a file; a damaged header throws too.
void check_tensors(const SafetensorsReader& reader, const TensorSums& tensors) {
  for (const auto& entry : reader.entries()) {
    const auto read = [&](uint64_t at, std::span<std::byte> out) { reader.read(entry, at, out); };
    check_tensor(reader, entry.name, checksum_of(entry.bytes(), read), tensors);
  }
}

const TensorSums& weight_sums(const Manifest& manifest) {
  return *manifest.find(kModelFile)->tensors;
}

/// Reads one whole tensor and checks its CRC32C.
Tensor read_tensor(const SafetensorsReader& reader, const TensorEntry& entry,
                   const TensorSums& tensors) {
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
  manifest_ = parse_manifest(read_text(path), path);
  for (const auto& [name, file] : manifest_.files) {
    const std::string file_path = join_path(folder_, name);
    const uint64_t found = File::open_read(file_path).size();
    if (found != file.bytes) {
      throw bad_file(file_path, "holds " + std::to_string(found) +
                                    " bytes, manifest.json records " + std::to_string(file.bytes));
    }
  }
}

void Checkpoint::verify() const {
  for (const auto& [name, file] : manifest_.files) {
    const std::string path = join_path(folder_, name);
    const File opened = File::open_read(path);
    const uint32_t found = checksum_of(
        opened.size(), [&](uint64_t at, std::span<std::byte> out) { opened.read_at(at, out); });
    if (found == file.crc32c) continue;
    if (file.tensors) check_tensors(SafetensorsReader(path), *file.tensors);  // names the tensor
    throw wrong_sum(path, file.tensors ? "the header " : "", found, file.crc32c);
  }
}

/// The text of one file, when its CRC32C is the manifest's.
std::string Checkpoint::read_checked(const std::string& name) const {
  const std::string path = join_path(folder_, name);
  std::string text = read_text(path);
  const uint32_t found = crc32c(bytes_of(text)), recorded = manifest_.find(name)->crc32c;
  if (found != recorded) throw wrong_sum(path, "", found, recorded);
  return text;
}

std::string Checkpoint::config_yaml() const { return read_checked(kConfigFile); }

ordered_json Checkpoint::state() const {
  const std::string text = read_checked(kStateFile);
  try {
    return parse_json(text);
  } catch (const std::runtime_error& error) {
    throw bad_file(join_path(folder_, kStateFile), error.what());
  }
}

std::string Checkpoint::tokenizer() const {
  std::string found;
  for (const auto& [name, file] : manifest_.files) {
    if (!is_tokenizer(name)) continue;
    if (!found.empty())
      throw bad_file(join_path(folder_, kManifest),
                     "lists " + found + " and " + name + ", expected one tokenizer");
    found = name;
  }
  if (found.empty()) return "bytes";
  read_checked(found);
  return join_path(folder_, found);
}

void Checkpoint::load_weights(torch::nn::Module& module) const {
  const torch::NoGradGuard no_grad;
  const SafetensorsReader reader(join_path(folder_, kModelFile));
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
    parameter.value().copy_(
        read_tensor(reader, *reader.find(parameter.key()), weight_sums(manifest_)));
  }
}

Tensor Checkpoint::weight(const std::string& name) const {
  const SafetensorsReader reader(join_path(folder_, kModelFile));
  const TensorEntry* entry = reader.find(name);
  if (!entry) throw bad_file(reader.path(), "has no tensor " + name);
  return read_tensor(reader, *entry, weight_sums(manifest_));
}

std::vector<std::string> Checkpoint::weight_names() const {
  std::vector<std::string> names;
  const SafetensorsReader reader(join_path(folder_, kModelFile));
  for (const auto& entry : reader.entries()) names.push_back(entry.name);
  return names;
}

void Checkpoint::load_optimizer(const std::string& name, int64_t begin, Tensor& out) const {
  TORCH_CHECK(out.device().is_cpu() && out.scalar_type() == torch::kFloat32 && out.dim() == 1,
              "load_optimizer: out is ", out.toString(), " ", out.sizes(),
              ", expected [n] float32 on the CPU");
  const int64_t end = begin + out.numel();
  std::vector<std::pair<int64_t, int64_t>> held;
  for (const auto& [file, facts] : manifest_.files) {
    if (!file.starts_with("optimizer-") || !facts.tensors) continue;
    const auto tensor = facts.tensors->find(name);
    if (tensor == facts.tensors->end()) continue;
    const auto& piece = *tensor->second.piece;
    const int64_t from = std::max(begin, piece.begin), to = std::min(end, piece.end);
    if (from >= to) continue;
    const SafetensorsReader reader(join_path(folder_, file));
    const TensorEntry* entry = reader.find(name);
    if (!entry || entry->shape != std::vector<int64_t>{piece.end - piece.begin}) {
      throw bad_file(reader.path(),
                     "tensor " + name + " is not the piece that manifest.json describes");
    }
    const Tensor data = read_tensor(reader, *entry, *facts.tensors);
    out.slice(0, from - begin, to - begin)
        .copy_(data.slice(0, from - piece.begin, to - piece.begin));
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
  return std::any_of(manifest_.files.begin(), manifest_.files.end(),
                     [](const auto& file) { return file.first.starts_with("optimizer-"); });
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
