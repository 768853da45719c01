#include "data/tokenizer_trainer.h"

#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <stdexcept>
#include <unordered_map>
#include <vector>

#include "core/error.h"
#include "core/file.h"
#include "core/random.h"
#include "data/sentencepiece_tokenizer.h"

namespace tandem {
namespace {

constexpr size_t kMaxSentenceBytes = 4096;  // BPE training holds positions in 16 bits

/// Lines for training, each with its newline so that newlines are learned too; a uniform sample
/// when there are too many.
class Sentences {
 public:
  explicit Sentences(int64_t most) : most_(most), stream_(RandomStream(0).fork("sentences")) {}

  void add_document(std::string_view text) {
    while (!text.empty()) {
      const size_t length = line_length(text);
      add(text.substr(0, length));
      text.remove_prefix(length);
    }
  }
  const std::vector<std::string>& taken() const { return taken_; }

 private:
  /// Up to and with the newline; long lines are cut before a space where they have one, else
  /// between characters.
  static size_t line_length(std::string_view text) {
    const std::string_view window = text.substr(0, kMaxSentenceBytes);
    const size_t newline = window.find('\n');
    if (newline != window.npos) return newline + 1;
    if (window.size() == text.size()) return text.size();
    const size_t space = window.rfind(' ');
    if (space != window.npos && space > 0) return space;
    size_t length = window.size();
    while (length > 1 && (static_cast<unsigned char>(text[length]) & 0xC0) == 0x80) --length;
    return length;
  }

  void add(std::string_view line) {  // Vitter's algorithm R with counted random numbers
    const auto seen = static_cast<uint64_t>(seen_++);
    if (seen_ <= most_) {
      taken_.emplace_back(line);
    } else if (const auto at = stream_.below(seen, seen + 1); at < taken_.size()) {
      taken_[at] = line;
    }
  }

  int64_t most_, seen_ = 0;
  RandomStream stream_;
  std::vector<std::string> taken_;
};

/// reason_of() without the hint at an option of the library.
std::string reason_without_hint(const sentencepiece::util::Status& status) {
  const std::string reason = reason_of(status);
  return reason.substr(0, reason.find(" Increase vocab_size"));
}

}  // namespace

DocumentCounts train_tokenizer(const std::string& path, const DocumentOptions& documents,
                               const TokenizerTraining& options, double max_bad_lines,
                               const std::string& output) {
  if (options.model != "bpe" && options.model != "unigram") {
    throw bad_usage("tokenizer model = " + options.model + ", expected bpe or unigram");
  }
  if (options.vocab_size < 260 || options.vocab_size > 1'000'000) {  // unk, bos, eos and 256 bytes
    throw bad_usage("vocab_size = " + std::to_string(options.vocab_size) +
                    ", expected an integer in [260, 1000000]");
  }
  if (options.max_sentences < 1) {
    throw bad_usage("max_sentences = " + std::to_string(options.max_sentences) +
                    ", expected an integer >= 1");
  }
  if (options.threads < 1 || options.threads > 1024) {
    throw bad_usage("threads = " + std::to_string(options.threads) +
                    ", expected an integer in [1, 1024]");
  }
  Sentences sentences(options.max_sentences);
  DocumentCounts counts = for_each_document(
      path, documents, [&](std::string_view text) { sentences.add_document(text); });
  check_bad_lines(path, counts, max_bad_lines);
  if (sentences.taken().empty()) throw bad_file(path, "no text to learn a vocabulary from");

  // data/model_check tells the models that are made here by these.
  const std::unordered_map<std::string, std::string> settings = {
      {"model_type", options.model},
      {"vocab_size", std::to_string(options.vocab_size)},
      {"hard_vocab_limit", "false"},  // so that the largest vocabulary that fits is known below
      {"num_threads", std::to_string(options.threads)},
      {"byte_fallback", "true"},
      {"split_digits", "true"},
      {"allow_whitespace_only_pieces", "true"},
      {"normalization_rule_name", "identity"},
      {"add_dummy_prefix", "false"},
      {"remove_extra_whitespaces", "false"},
      {"max_sentence_length", std::to_string(kMaxSentenceBytes)},
      {"unk_id", "0"},
      {"bos_id", "1"},
      {"eos_id", "2"},
      {"pad_id", "-1"},
      {"minloglevel", "3"},
  };
  std::string model;
  const auto status =
      sentencepiece::SentencePieceTrainer::Train(settings, sentences.taken(), &model);
  if (!status.ok()) {
    throw bad_usage(path + ": cannot learn " + std::to_string(options.vocab_size) +
                    " pieces: " + reason_without_hint(status));
  }
  sentencepiece::SentencePieceProcessor learned;
  if (!learned.LoadFromSerializedProto(model).ok()) {
    throw std::logic_error("sentencepiece made a model that it does not load");
  }
  if (learned.GetPieceSize() < options.vocab_size) {
    throw bad_usage(path +
                    ": too little text for vocab_size = " + std::to_string(options.vocab_size) +
                    "; the largest that fits is " + std::to_string(learned.GetPieceSize()));
  }
  write_atomically(output, model);
  return counts;
}

}  // namespace tandem
