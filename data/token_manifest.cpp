#include "data/token_manifest.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
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

std::optional<Json> read_token_manifest(const std::string& prefix) {
  const std::string path = token_prefix(prefix) + ".manifest.json";
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

}  // namespace tandem
