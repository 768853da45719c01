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
// A piece of a parameter that tensor parallelism divides also has "split_dim": 1, "split_begin": 0, "split_end": 2: begin and end count the elements of that slice.
// A file's crc32c is over all its bytes, a tensor's over its data. sha256 is over the bytes of manifest.json as they stand, without those 64 digits.

namespace tandem {

/// The files that every checkpoint lists; the last one with its tensors.
inline constexpr const char* kConfigFile = "config.yaml";
inline constexpr const char* kStateFile = "state.json";
inline constexpr const char* kModelFile = "model.safetensors";

/// What manifest.json says of one tensor.
struct ManifestTensor {
  uint32_t crc32c = 0;
  /// Which elements of a parameter a piece holds: [begin, end) of its flattened slice.
  struct Piece {
    std::string parameter;
    std::vector<int64_t> global_shape;
    int64_t begin = 0, end = 0;
    int split_dim = -1;                      // the dimension that was divided; -1: none, the slice is the whole parameter
    int64_t split_begin = 0, split_end = 0;  // the slice's range of it
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
/// the files above, names without folders, checksums of 8 hex digits, slices inside of global_shape, begin <= end <= the elements of the slice.
Manifest parse_manifest(std::string_view text, const std::string& path);
/// One entry of `files` by itself, to be sent to whoever writes the manifest; parse throws std::runtime_error.
std::string manifest_file_text(const ManifestFile& file);
ManifestFile parse_manifest_file(std::string_view text);
/// "0badcafe".
std::string crc32c_text(uint32_t crc);

}  // namespace tandem
