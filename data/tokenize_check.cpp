#include "data/tokenize_check.h"

#include <filesystem>
#include <stdexcept>
#include <string>

#include "core/error.h"
#include "core/file.h"
#include "core/json_lines.h"
#include "data/token_index.h"

namespace tandem {
namespace {

void check_id(const Tokenizer& tokenizer, const char* name, std::optional<int32_t> id) {
  if (id && (*id < 0 || *id >= tokenizer.vocab_size())) {
    throw bad_value(
        {}, name, std::to_string(*id),
        "a token of the vocabulary, 0 to " + std::to_string(tokenizer.vocab_size() - 1));
  }
}

/// Throws bad_usage where `prefix` names no file, or one that would itself be read as text by the
/// next job over the input.
void check_output(const char* flag, const std::string& prefix, const std::string& input) {
  const std::string stem = token_prefix(prefix);
  if (stem.empty() || stem.ends_with('/')) {
    throw bad_value({}, flag, prefix, "a prefix of files, such as data/books");
  }
  if (!is_directory(input)) return;
  const auto folder = std::filesystem::weakly_canonical(input);
  const auto inside =
      std::filesystem::weakly_canonical(std::filesystem::absolute(stem)).lexically_relative(folder);
  if (!inside.empty() && *inside.begin() != "..") {
    throw bad_usage(std::string(flag) + " " + prefix + " lies in the input " + input +
                    ", and would be read as text; name another folder");
  }
}

}  // namespace

void check_job(const Tokenizer& tokenizer, const TokenizeJob& job) {
  if (job.threads < 1 || job.block_bytes < 1 || job.commit_bytes < 1 ||
      job.documents.json_keys.empty()) {
    throw std::logic_error("tokenize: threads = " + std::to_string(job.threads) +
                           ", block_bytes = " + std::to_string(job.block_bytes) +
                           ", commit_bytes = " + std::to_string(job.commit_bytes) + ", " +
                           std::to_string(job.documents.json_keys.size()) +
                           " keys, expected at least 1 of each");
  }
  check_output("--output", job.output, job.input);
  if (!job.validation_output.empty()) {
    check_output("--validation-output", job.validation_output, job.input);
    if (!(job.validation_fraction > 0 && job.validation_fraction < 1)) {
      throw bad_value({}, "--validation-fraction", json_number(job.validation_fraction),
                      "a number above 0 and below 1");
    }
  }
  const auto place = [](const std::string& prefix) {
    return std::filesystem::absolute(token_prefix(prefix)).lexically_normal();
  };
  if (!job.validation_output.empty() && place(job.output) == place(job.validation_output)) {
    throw bad_usage("--output and --validation-output are both " + job.output);
  }
  check_id(tokenizer, "bos", job.bos);
  check_id(tokenizer, "eos", job.eos);
}

}  // namespace tandem
