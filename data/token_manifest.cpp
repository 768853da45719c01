#include "data/token_manifest.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "core/checksum.h"
#include "core/error.h"
#include "core/file.h"
#include "core/json_lines.h"
#include "data/utf8.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kFormat = "tandem tokens";
constexpr int64_t kVersion = 1;

std::string crc32c_of_file(const std::string& path) {
  File file = File::open_read(path);
  std::vector<std::byte> buffer(size_t{1} << 20);
  uint32_t crc = 0;
  while (const size_t n = file.read_next(buffer)) crc = crc32c(std::span(buffer).first(n), crc);
  char text[9];
  std::snprintf(text, sizeof text, "%08x", crc);
  return text;
}

/// Names and messages may hold bytes that JSON cannot.
Json strings(const std::vector<std::string>& texts) {
  Json list = Json::array();
  for (const auto& text : texts) list.push_back(valid_utf8(text));
  return list;
}

Json input_of(const TokenizeJob& job, const std::vector<SourceFile>& files,
              const TokenizePlace& place) {
  Json list = Json::array();
  for (size_t i = 0; i < files.size(); ++i) {
    list.push_back({{"path", valid_utf8(files[i].path)},
                    {"bytes", place.sources[i].bytes},
                    {"sha256", place.sources[i].sha256}});
  }
  return {{"path", valid_utf8(job.input)},
          {"split", job.documents.split == SplitText::kFile ? "file" : "blank-line"},
          {"json_keys", strings(job.documents.json_keys)},
          {"documents", place.counts.documents},
          {"bytes", place.counts.bytes},
          {"lines", place.counts.lines},
          {"bad_lines", place.counts.bad_lines},
          {"first_errors", strings(place.counts.first_errors)},
          {"repaired", place.counts.repaired},
          {"files", list}};
}

}  // namespace

Json token_manifest(const Tokenizer& tokenizer, const TokenizeJob& job,
                    const std::vector<SourceFile>& files, const TokenizePlace& place,
                    const TokenFileWriter& writer, const std::string& part) {
  const auto id = [](std::optional<int32_t> token) { return token ? Json(*token) : Json(); };
  const Json named = {{"name", valid_utf8(tokenizer.name())},
                      {"sha256", tokenizer_hash(tokenizer)},
                      {"vocab_size", tokenizer.vocab_size()}};
  return {{"format", kFormat},
          {"version", kVersion},
          {"tokenizer", named},
          {"bos", id(job.bos)},
          {"eos", id(job.eos)},
          {"special_text", job.specials == Specials::kAsText ? "text" : "ids"},
          {"part", part},
          {"validation_fraction", part == "all" ? 0.0 : job.validation_fraction},
          {"seed", job.seed},
          {"documents", writer.documents()},
          {"tokens", writer.tokens()},
          {"empty_documents", writer.skipped_empty()},
          {"bin_crc32c", crc32c_of_file(writer.prefix() + ".bin.partial")},
          {"idx_crc32c", crc32c_of_file(writer.prefix() + ".idx.partial")},
          {"input", input_of(job, files, place)}};
}

namespace {

std::string manifest_path(const std::string& prefix) {
  return token_prefix(prefix) + ".manifest.json";
}

/// A manifest of this version, whatever else it holds.
std::optional<Json> read_any_manifest(const std::string& prefix) {
  const std::string path = manifest_path(prefix);
  if (!exists(path)) return std::nullopt;
  Json manifest = read_json(path);
  try {
    if (get_string(manifest, "format") != kFormat) {
      throw std::runtime_error("format = " + json_string(get_string(manifest, "format"), 40) +
                               ", expected \"" + kFormat + "\"");
    }
    get_int(manifest, "version", kVersion, kVersion);
  } catch (const std::runtime_error& error) {
    throw bad_file(path, error.what());
  }
  return manifest;
}

const Json& object_of(const Json& manifest, const char* key) {
  const auto found = manifest.find(key);
  if (found == manifest.end() || !found->is_object()) {
    throw std::runtime_error(
        std::string(key) +
        (found == manifest.end() ? " is missing" : " is " + one_line(found->dump())) +
        ", expected an object");
  }
  return *found;
}

void check_checksum(const Json& manifest, const char* key) {
  const std::string text = get_string(manifest, key);
  if (text.size() == 8 && text.find_first_not_of("0123456789abcdef") == text.npos) return;
  throw std::runtime_error(std::string(key) + " = " + json_string(text, 40) +
                           ", expected 8 hex digits");
}

/// The keys that others rely on. Throws std::runtime_error naming the first that is not as it was
/// written.
void check_keys(const Json& manifest) {
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  const auto& made_by = object_of(manifest, "tokenizer");
  get_string(made_by, "name");
  get_string(made_by, "sha256");
  const int64_t vocab_size = get_int(made_by, "vocab_size", 1, kMost);
  for (const char* key : {"bos", "eos"}) {
    const auto found = manifest.find(key);
    if (found == manifest.end() || !found->is_null()) get_int(manifest, key, 0, vocab_size - 1);
  }
  for (const char* key : {"documents", "tokens", "empty_documents"})
    get_int(manifest, key, 0, kMost);
  for (const char* key : {"bin_crc32c", "idx_crc32c"}) check_checksum(manifest, key);
  get_string(object_of(manifest, "input"), "path");
}

}  // namespace

std::optional<Json> read_token_manifest(const std::string& prefix) {
  auto manifest = read_any_manifest(prefix);
  if (!manifest) return std::nullopt;
  try {
    check_keys(*manifest);
  } catch (const std::runtime_error& error) {
    throw bad_file(manifest_path(prefix), error.what());
  }
  return manifest;
}

void check_made_by(const TokenFile& file, const Tokenizer& tokenizer, const std::string& whose,
                   const std::string& advice) {
  const auto manifest = read_any_manifest(file.prefix());
  if (!manifest) return;
  std::string name, hash;
  try {
    const auto made_with = manifest->value("tokenizer", Json::object());
    name = get_string(made_with, "name");
    hash = get_string(made_with, "sha256");
  } catch (const std::runtime_error& error) {
    throw bad_file(file.prefix() + ".manifest.json", std::string("tokenizer: ") + error.what());
  }
  if (hash == tokenizer_hash(tokenizer)) return;
  throw bad_usage(file.path() + ": was made with the tokenizer " + one_line(name) + ", " + whose +
                  " is " + tokenizer.name() +
                  (name == tokenizer.name() ? " with other contents" : "") + "; " + advice);
}

}  // namespace tandem
