#include "nn/checkpoint.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
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

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}
std::span<const std::byte> bytes_of(const Tensor& tensor) {
  return {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()};
}
std::span<std::byte> writable_bytes_of(Tensor& tensor) {
  return {static_cast<std::byte*>(tensor.mutable_data_ptr()), tensor.nbytes()};
}

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

bool is_tokenizer_file(const std::string& name) {
  return name != kConfigFile && name != kStateFile && name != kManifestFile &&
         !name.ends_with(".safetensors");
}

void verify_file(const std::string& folder, const std::string& name, const ManifestFile& facts) {
  const std::string path = join_path(folder, name);
  const File opened = File::open_read(path);
  const uint32_t found = checksum_of(
      opened.size(), [&](uint64_t at, std::span<std::byte> out) { opened.read_at(at, out); });
  if (found == facts.crc32c) return;
  if (facts.tensors) check_tensors(SafetensorsReader(path), *facts.tensors);  // names the tensor
  throw wrong_sum(path, facts.tensors ? "the header " : "", found, facts.crc32c);
}

Checkpoint::Checkpoint(std::string folder) : folder_(std::move(folder)) {
  const std::string path = join_path(folder_, kManifestFile);
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
  for (const auto& [name, facts] : manifest_.files) verify_file(folder_, name, facts);
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
    if (!is_tokenizer_file(name)) continue;
    if (!found.empty())
      throw bad_file(join_path(folder_, kManifestFile),
                     "lists " + found + " and " + name + ", expected one tokenizer");
    found = name;
  }
  if (found.empty()) return "bytes";
  read_checked(found);
  return join_path(folder_, found);
}

const SafetensorsReader& Checkpoint::reader(const std::string& name) const {
  auto& reader = readers_[name];
  if (!reader) reader = std::make_shared<const SafetensorsReader>(join_path(folder_, name));
  return *reader;
}

/// Reads one whole tensor and checks its CRC32C.
Tensor Checkpoint::read_tensor(const std::string& file, const std::string& name) const {
  const SafetensorsReader& from = reader(file);
  const TensorEntry* entry = from.find(name);
  if (!entry) throw bad_file(from.path(), "has no tensor " + name);
  if (entry->type != DataType::kF32)
    throw bad_file(from.path(),
                   "tensor " + name + " is " + name_of(entry->type) + ", expected F32");
  Tensor tensor = torch::empty(entry->shape, torch::kFloat32);
  from.read(*entry, 0, writable_bytes_of(tensor));
  check_tensor(from, name, crc32c(bytes_of(tensor)), *manifest_.find(file)->tensors);
  return tensor;
}

void Checkpoint::check_weights(const torch::nn::Module& module) const {
  const SafetensorsReader& weights = reader(kModelFile);
  std::set<std::string> unknown;
  for (const auto& entry : weights.entries()) {
    if (!entry.name.starts_with(kUnusedPrefix)) unknown.insert(entry.name);
  }
  for (const auto& info : parameters_info(module)) {
    const TensorEntry* entry = weights.find(info.name);
    if (!entry)
      throw bad_file(weights.path(),
                     "has no tensor " + info.name + ", which the model of this config needs");
    if (entry->shape != info.global_shape) {
      throw bad_file(weights.path(), "tensor " + info.name + " is " + shape_text(entry->shape) +
                                         ", the model of this config needs " +
                                         shape_text(info.global_shape));
    }
    unknown.erase(info.name);
  }
  if (!unknown.empty())
    throw bad_file(weights.path(),
                   "tensor " + *unknown.begin() + " is not in the model of this config");
}

void Checkpoint::load_weights(torch::nn::Module& module) const {
  check_weights(module);
  const torch::NoGradGuard no_grad;
  auto parameters = module.parameters();
  size_t i = 0;
  for (const auto& info : parameters_info(module))
    parameters[i++].copy_(local_part(info, read_tensor(kModelFile, info.name)));
}

Tensor Checkpoint::weight(const std::string& name) const { return read_tensor(kModelFile, name); }

std::vector<std::string> Checkpoint::weight_names() const {
  std::vector<std::string> names;
  for (const auto& entry : reader(kModelFile).entries()) names.push_back(entry.name);
  return names;
}

void Checkpoint::load_part(const std::string& kind, const ParameterInfo& info, int64_t begin,
                           int64_t end, Tensor& out) const {
  TORCH_CHECK(out.device().is_cpu() && out.scalar_type() == torch::kFloat32 &&
                  out.is_contiguous() && out.numel() == end - begin,
              "load_part: out is ", out.toString(), " ", out.sizes(), ", expected [", end - begin,
              "] float32 on the CPU");
  const std::string name = name_of_piece(kind, info.name),
                    manifest = join_path(folder_, kManifestFile);
  const ManifestTensor::Piece wanted = range_of(info, begin, end);
  std::vector<std::pair<int64_t, int64_t>> held;  // of the elements of `out`
  const auto copy_from = [&](const std::string& file, const ManifestTensor::Piece& piece) {
    Tensor data;  // read when anything of it is wanted
    for_each_overlap(wanted, piece, [&](int64_t i, int64_t j, int64_t n) {
      if (!data.defined()) data = read_tensor(file, name);
      if (data.numel() != piece.end - piece.begin)
        throw bad_file(join_path(folder_, file),
                       "tensor " + name + " is not the piece that manifest.json describes");
      std::memcpy(out.mutable_data_ptr<float>() + i, data.const_data_ptr<float>() + j,
                  static_cast<size_t>(n) * sizeof(float));
      if (held.empty() || held.back().second != i) held.emplace_back(i, i);
      held.back().second = i + n;
    });
  };
  const auto check_shape = [&](const std::string& path, const std::vector<int64_t>& shape) {
    if (shape != info.global_shape)
      throw bad_file(path, "tensor " + name + " is " + shape_text(shape) +
                               ", the model of this config needs " + shape_text(info.global_shape));
  };
  if (kind.empty()) {
    const TensorEntry* entry = reader(kModelFile).find(name);
    if (entry) check_shape(reader(kModelFile).path(), entry->shape);
    copy_from(kModelFile, {name, info.global_shape, 0, info.numel()});
  } else {
    for (const auto& [file, facts] : manifest_.files) {
      if (!file.starts_with("optimizer-") || !facts.tensors) continue;
      const auto tensor = facts.tensors->find(name);
      if (tensor == facts.tensors->end()) continue;
      check_shape(manifest, tensor->second.piece->global_shape);
      copy_from(file, *tensor->second.piece);
    }
  }
  const int64_t missing = first_missing(std::move(held), end - begin);
  if (missing != end - begin)
    throw bad_file(manifest, "no piece holds element " +
                                 std::to_string(whole_index(wanted, missing)) + " of " + name);
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
  if (exists(join_path(path, kManifestFile))) return path;
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
