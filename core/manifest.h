#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

// manifest.json of a checkpoint:
//   {"format": "tandem checkpoint", "version": 1, "step": 1000,
//    "files": {"config.yaml": {"bytes": 812, "crc32c": "0badcafe"}, ...,
//              "model.safetensors": {"bytes": ..., "crc32c": ..., "tensors": {"NAME": {"crc32c": ...}, ...}},
//              "optimizer-00001-of-00001.safetensors": {..., "tensors": {"exp_avg.NAME": {"crc32c": ..., "parameter": "NAME", "global_shape": [7, 3], "begin": 0, "end": 21}, ...}}},
//    "sha256": "64 hex digits"}
// A file's crc32c is over all its bytes, a tensor's over its data. sha256 is over the bytes of manifest.json as they stand, without those 64 digits.

namespace tandem {

/// The files that every checkpoint lists; the last one with its tensors.
inline constexpr const char* kConfigFile = "config.yaml";
inline constexpr const char* kStateFile = "state.json";
inline constexpr const char* kModelFile = "model.safetensors";

/// What manifest.json says of one tensor.
struct ManifestTensor {
  uint32_t crc32c = 0;
  /// Which elements of the flattened global parameter a piece of the optimizer holds.
  struct Piece {
    std::string parameter;
    std::vector<int64_t> global_shape;
    int64_t begin = 0, end = 0;
  };
  std::optional<Piece> piece = {};
};
struct ManifestFile {
  uint64_t bytes = 0;
  uint32_t crc32c = 0;
  std::optional<std::map<std::string, ManifestTensor>> tensors = {};  // of safetensors files
};
struct Manifest {
  int64_t step = 0;
  std::vector<std::pair<std::string, ManifestFile>> files;  // by name, all of the checkpoint's own folder, in the order they are listed
  const ManifestFile* find(std::string_view name) const;    ///< nullptr for a file that is not listed
};

/// The text of manifest.json, its own SHA-256 included.
std::string manifest_text(const Manifest& manifest);
/// Back again; `path` is for messages. Throws bad_file unless the text holds its own SHA-256 and every rule is met, named when it is not:
/// the files above, names without folders, checksums of 8 hex digits, begin <= end <= the product of global_shape.
Manifest parse_manifest(std::string_view text, const std::string& path);
/// "0badcafe".
std::string crc32c_text(uint32_t crc);

}  // namespace tandem
