#include "core/manifest.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <span>
#include <stdexcept>

#include "core/checksum.h"
#include "core/error.h"
#include "core/json_lines.h"

namespace tandem {
namespace {

using nlohmann::ordered_json;

constexpr const char* kFormat = "tandem checkpoint";
constexpr int64_t kVersion = 1;
constexpr std::string_view kShaBefore = "\"sha256\": \"", kShaAfter = "\"\n}\n";
constexpr size_t kShaDigits = 64;
constexpr int64_t kMost = int64_t{1} << 53;  // of steps, bytes and elements
constexpr size_t kMostDimensions = 16;

ordered_json json_of(const ManifestFile& file) {
  ordered_json out = {{"bytes", file.bytes}, {"crc32c", crc32c_text(file.crc32c)}};
  if (!file.tensors) return out;
  // Added at the end: operator[] would look each name up among all before it.
  auto& tensors = (out["tensors"] = ordered_json::object()).get_ref<ordered_json::object_t&>();
  for (const auto& [name, tensor] : *file.tensors) {
    ordered_json entry = {{"crc32c", crc32c_text(tensor.crc32c)}};
    if (tensor.piece) {
      entry["parameter"] = tensor.piece->parameter;
      entry["global_shape"] = tensor.piece->global_shape;
      entry["begin"] = tensor.piece->begin;
      entry["end"] = tensor.piece->end;
      if (tensor.piece->split_dim >= 0) {
        entry["split_dim"] = tensor.piece->split_dim;
        entry["split_begin"] = tensor.piece->split_begin;
        entry["split_end"] = tensor.piece->split_end;
      }
    }
    tensors.emplace_back(name, std::move(entry));
  }
  return out;
}

/// Throws unless the text holds its own SHA-256.
void check_own_sha(std::string_view text, const std::string& path) {
  const size_t tail = kShaBefore.size() + kShaDigits + kShaAfter.size();
  const bool shaped = text.size() > tail && text.ends_with(kShaAfter) &&
                      text.substr(text.size() - tail).starts_with(kShaBefore);
  if (!shaped) throw bad_file(path, "does not end with its sha256, it is damaged or cut short");
  const size_t digits = text.size() - kShaAfter.size() - kShaDigits;
  const std::string recorded(text.substr(digits, kShaDigits));
  const std::string found = sha256_hex(std::string(text).erase(digits, kShaDigits));
  if (found != recorded)
    throw bad_file(path,
                   "is damaged: its SHA-256 is " + found + ", it records " + one_line(recorded));
}

// What the rest finds was written by this program, or by somebody who computed the SHA-256 anew.

/// Runs `read`; its errors get `place` in front.
template <typename Read>
auto in(const std::string& place, const Read& read) {
  try {
    return read();
  } catch (const std::runtime_error& error) {
    throw std::runtime_error(place + ": " + error.what());
  }
}

const ordered_json& member(const ordered_json& object, const char* key,
                           bool (ordered_json::*is)() const noexcept, const char* expected) {
  const auto found = object.is_object() ? object.find(key) : object.end();
  if (found == object.end())
    throw std::runtime_error(std::string(key) + " is missing, expected " + expected);
  if (!((*found).*is)())
    throw std::runtime_error(std::string(key) + " is " + found->type_name() + ", expected " +
                             expected);
  return *found;
}

uint32_t get_crc(const ordered_json& object) {
  const std::string text = get_string(object, "crc32c");
  uint32_t crc = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), crc, 16);
  if (text.size() != 8 || error != std::errc() || end != text.data() + 8 ||
      crc32c_text(crc) != text)
    throw std::runtime_error("crc32c = " + json_string(text, 80) +
                             ", expected 8 hex digits (0-9, a-f)");
  return crc;
}

/// Reads which slice it is; returns how many of the `elements` of global_shape that has.
int64_t parse_split(const ordered_json& tensor, int64_t elements, ManifestTensor::Piece& piece) {
  if (elements == 0) throw std::runtime_error("split_dim divides a tensor without elements");
  const auto dimensions = static_cast<int64_t>(piece.global_shape.size());
  piece.split_dim = static_cast<int>(get_int(tensor, "split_dim", 0, dimensions - 1));
  const int64_t size = piece.global_shape[static_cast<size_t>(piece.split_dim)];
  piece.split_begin = get_int(tensor, "split_begin", 0, size - 1);
  piece.split_end = get_int(tensor, "split_end", piece.split_begin + 1, size);
  return elements / size * (piece.split_end - piece.split_begin);
}

ManifestTensor::Piece parse_piece(const ordered_json& tensor) {
  ManifestTensor::Piece piece;
  piece.parameter = get_string(tensor, "parameter");
  int64_t elements = 1;
  for (const ordered_json& size :
       member(tensor, "global_shape", &ordered_json::is_array, "an array")) {
    const int64_t n = get_int({{"global_shape", size}}, "global_shape", 0, kMost);
    if (n > 0 && elements > kMost / n)
      throw std::runtime_error("global_shape holds more than 2^53 elements");
    elements *= n;
    piece.global_shape.push_back(n);
  }
  if (piece.global_shape.size() > kMostDimensions)
    throw std::runtime_error("global_shape has " + std::to_string(piece.global_shape.size()) +
                             " dimensions, expected at most " + std::to_string(kMostDimensions));
  if (tensor.contains("split_dim") || tensor.contains("split_begin") ||
      tensor.contains("split_end"))
    elements = parse_split(tensor, elements, piece);
  piece.begin = get_int(tensor, "begin", 0, elements);
  piece.end = get_int(tensor, "end", piece.begin, elements);
  return piece;
}

/// `pieces`: each tensor must say which piece it is, as those of the optimizer do.
ManifestFile parse_file(const ordered_json& object, bool pieces) {
  ManifestFile file;
  file.bytes = static_cast<uint64_t>(get_int(object, "bytes", 0, kMost));
  file.crc32c = get_crc(object);
  if (!object.contains("tensors")) return file;
  file.tensors.emplace();
  for (const auto& [name, tensor] :
       member(object, "tensors", &ordered_json::is_object, "an object").items()) {
    in("tensor " + one_line(name), [&] {
      ManifestTensor& entry = (*file.tensors)[name];
      entry.crc32c = get_crc(tensor);
      if (pieces || tensor.contains("parameter")) entry.piece = parse_piece(tensor);
    });
  }
  return file;
}

/// A file of the checkpoint's own folder, by its name alone.
bool is_file_name(const std::string& name) {
  const auto special = [](char c) { return c == '/' || static_cast<unsigned char>(c) < 0x20; };
  return !name.empty() && name != "." && name != ".." &&
         std::none_of(name.begin(), name.end(), special);
}

Manifest parse_object(const ordered_json& object) {
  if (get_string(object, "format") != kFormat)
    throw std::runtime_error("format is not \"" + std::string(kFormat) + "\"");
  get_int(object, "version", kVersion, kVersion);
  Manifest manifest;
  manifest.step = get_int(object, "step", 0, kMost);
  for (const auto& [name, file] :
       member(object, "files", &ordered_json::is_object, "an object").items()) {
    if (!is_file_name(name))
      throw std::runtime_error("lists " + json_string(name, 80) +
                               ", expected files of this folder");
    manifest.files.emplace_back(
        name, in(one_line(name), [&] { return parse_file(file, name.starts_with("optimizer-")); }));
  }
  for (const char* name : {kConfigFile, kStateFile, kModelFile}) {
    if (!manifest.find(name)) throw std::runtime_error(std::string("lists no ") + name);
  }
  if (!manifest.find(kModelFile)->tensors)
    throw std::runtime_error(std::string("lists no tensors of ") + kModelFile);
  return manifest;
}

}  // namespace

const ManifestFile* Manifest::find(std::string_view name) const {
  const auto found = std::find_if(files.begin(), files.end(),
                                  [&](const auto& file) { return file.first == name; });
  return found == files.end() ? nullptr : &found->second;
}

std::string manifest_text(const Manifest& manifest) {
  ordered_json files = ordered_json::object();
  for (const auto& [name, file] : manifest.files) files[name] = json_of(file);
  const ordered_json object = {{"format", kFormat},
                               {"version", kVersion},
                               {"step", manifest.step},
                               {"files", std::move(files)},
                               {"sha256", ""}};
  std::string text = object.dump(2) + "\n";
  return text.insert(text.size() - kShaAfter.size(), sha256_hex(text));
}

Manifest parse_manifest(std::string_view text, const std::string& path) {
  check_own_sha(text, path);
  try {
    return parse_object(parse_json(text));
  } catch (const std::runtime_error& error) {
    throw bad_file(path, error.what());
  }
}

std::string manifest_file_text(const ManifestFile& file) { return json_of(file).dump(); }

ManifestFile parse_manifest_file(std::string_view text) {
  return parse_file(parse_json(text), /*pieces=*/false);
}

std::string crc32c_text(uint32_t crc) {
  char text[9];
  std::snprintf(text, sizeof text, "%08x", crc);
  return text;
}

}  // namespace tandem
