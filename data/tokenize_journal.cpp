#include "data/tokenize_journal.h"

#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <span>
#include <stdexcept>
#include <system_error>

#include "core/checksum.h"
#include "core/error.h"
#include "core/file.h"
#include "core/json_lines.h"
#include "core/log.h"
#include "data/utf8.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;

int64_t count_of(const Json& object, const char* key) {
  return get_int(object, key, 0, std::numeric_limits<int64_t>::max());
}

constexpr const char* kFormat = "tandem tokenize journal";

Json counts_to_json(const DocumentCounts& counts) {
  Json errors = Json::array();
  for (const auto& error : counts.first_errors) errors.push_back(valid_utf8(error));
  return {{"files", counts.files}, {"documents", counts.documents}, {"bytes", counts.bytes},
          {"lines", counts.lines}, {"bad_lines", counts.bad_lines}, {"repaired", counts.repaired},
          {"first_errors", errors}};
}

DocumentCounts counts_from_json(const Json& json) {
  DocumentCounts counts{.files = count_of(json, "files"),
                        .documents = count_of(json, "documents"),
                        .bytes = count_of(json, "bytes"),
                        .lines = count_of(json, "lines"),
                        .bad_lines = count_of(json, "bad_lines"),
                        .repaired = count_of(json, "repaired")};
  for (const auto& error : json.at("first_errors")) {
    counts.first_errors.push_back(error.get<std::string>());
  }
  return counts;
}

TokenizePlace place_from_json(const Json& json) {
  TokenizePlace place{.file = count_of(json, "file"),
                      .blocks = count_of(json, "blocks"),
                      .counts = counts_from_json(json.at("counts"))};
  for (const auto& source : json.at("sources")) {
    place.sources.push_back({count_of(source, "bytes"), get_string(source, "sha256")});
  }
  if (std::ssize(place.sources) != place.file) throw std::runtime_error("sources and file differ");
  for (const auto& output : json.at("outputs")) {
    place.outputs.push_back(
        {count_of(output, "documents"), count_of(output, "tokens"), count_of(output, "empty")});
  }
  return place;
}

}  // namespace

std::vector<SourceFile> look_at_files(const std::vector<std::string>& paths) {
  std::vector<SourceFile> files;
  for (const auto& path : paths) {
    std::error_code error;
    const bool regular = std::filesystem::is_regular_file(path, error);
    if (!error && !regular) {
      throw bad_file(path, "is not a regular file, which a stopped job could read once more");
    }
    SourceFile file{.path = path};
    if (!error) file.bytes = static_cast<int64_t>(std::filesystem::file_size(path, error));
    if (!error) {
      const auto changed = std::filesystem::last_write_time(path, error);
      file.changed_ns = std::chrono::nanoseconds(changed.time_since_epoch()).count();
    }
    if (error) throw bad_file(path, "cannot look at it: " + error.message());
    files.push_back(std::move(file));
  }
  return files;
}

std::string fingerprint(const Tokenizer& tokenizer, const TokenizeJob& job,
                        const std::vector<SourceFile>& files) {
  Json list = Json::array();
  for (const auto& file : files) list.push_back({file.path, file.bytes, file.changed_ns});
  const auto id = [](std::optional<int32_t> token) { return token ? Json(*token) : Json(); };
  const Json all = {{"block_bytes", job.block_bytes},  // a place is a number of blocks
                    {"tokenizer", tokenizer.name()},
                    {"tokenizer_sha256", tokenizer_hash(tokenizer)},
                    {"vocab_size", tokenizer.vocab_size()},
                    {"input", job.input},
                    {"json_keys", job.documents.json_keys},
                    {"split", static_cast<int>(job.documents.split)},
                    {"longest_line", job.documents.longest_line},
                    {"largest_document", job.documents.largest_document},
                    {"output", job.output},
                    {"validation_output", job.validation_output},
                    {"validation_fraction", job.validation_fraction},
                    {"seed", job.seed},
                    {"bos", id(job.bos)},
                    {"eos", id(job.eos)},
                    {"specials", static_cast<int>(job.specials)},
                    {"files", list}};
  const std::string text = all.dump(-1, ' ', false, Json::error_handler_t::replace);
  return sha256_hex(text);
}

std::optional<TokenizePlace> TokenizeJournal::read() const {
  if (!exists(path_)) return std::nullopt;
  const auto anew = [&](const std::string& why) {
    log_line(path_ + ": " + why + "; beginning anew");
    return std::nullopt;
  };
  try {
    const Json json = read_json(path_);
    if (get_string(json, "format") != kFormat || count_of(json, "version") != 1) {
      return anew("not a journal of this version");
    }
    if (get_string(json, "fingerprint") != fingerprint_) {
      return anew("left by a job with other settings, tokenizer or files");
    }
    return place_from_json(json);
  } catch (const std::exception& error) {  // also of nlohmann
    return anew(std::string("damaged (") + error.what() + ")");
  }
}

void TokenizeJournal::write(const TokenizePlace& place) const {
  Json sources = Json::array(), outputs = Json::array();
  for (const auto& source : place.sources) {
    sources.push_back({{"bytes", source.bytes}, {"sha256", source.sha256}});
  }
  for (const auto& output : place.outputs) {
    outputs.push_back(
        {{"documents", output.documents}, {"tokens", output.tokens}, {"empty", output.empty}});
  }
  const Json json = {{"format", kFormat},           {"version", 1},
                     {"fingerprint", fingerprint_}, {"file", place.file},
                     {"blocks", place.blocks},      {"counts", counts_to_json(place.counts)},
                     {"outputs", outputs},          {"sources", sources}};
  write_atomically(path_, json.dump(1) + "\n");
}

void TokenizeJournal::write_claim() const {
  const Json json = {{"format", kFormat}, {"version", 1}, {"fingerprint", fingerprint_}};
  write_atomically(path_, json.dump(1) + "\n");
}

bool TokenizeJournal::claimed() const {
  try {
    return exists(path_) && get_string(read_json(path_), "fingerprint") == fingerprint_;
  } catch (const std::exception&) {  // damaged: nobody's
    return false;
  }
}

void TokenizeJournal::remove() const {
  if (!exists(path_)) return;
  remove_tree(path_);
  sync_directory(parent_of(path_));
}

}  // namespace tandem
