#include "eval/haystack.h"

#include <fmt/format.h>

#include <functional>
#include <map>

#include "core/checksum.h"
#include "core/error.h"
#include "core/file.h"
#include "data/documents.h"
#include "data/token_file.h"
#include "data/token_manifest.h"
#include "data/utf8.h"

namespace tandem {
namespace {

bool is_space(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }
bool ends_sentence(char c) { return c == '.' || c == '!' || c == '?'; }
bool closes(char c) { return c == '"' || c == '\'' || c == ')' || c == ']'; }

// Where a sentence that begins at `begin` ends for being too long.
size_t forced_end(std::string_view text, size_t begin, size_t longest) {
  const size_t limit = begin + longest;
  for (size_t end = limit; end > begin + longest / 2; --end) {
    if (is_space(text[end]) && !is_space(text[end - 1])) return end;
  }
  size_t end = limit;
  while (end > begin + 1 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
  return end;
}

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

std::string hash_of(const std::vector<std::string>& documents) {
  Sha256 sha;
  for (const std::string& document : documents) {
    const auto size = static_cast<uint64_t>(document.size());
    sha.update(std::as_bytes(std::span(&size, 1)));
    sha.update(bytes_of(document));
  }
  return sha.hex();
}

bool is_blank(std::string_view text) {
  return text.find_first_not_of(" \t\r\n") == std::string_view::npos;
}

void keep(std::string_view document, std::vector<std::string>& documents) {
  if (!is_blank(document)) documents.push_back("\n" + std::string(document));
}

std::vector<std::string> read_documents(const std::string& path) {
  std::vector<std::string> documents;
  int64_t bytes = 0;
  const DocumentOptions options;
  BlockReader reader(text_files(path), options);
  for (TextBlock block; bytes < kMostHaystackBytes && reader.next(block);) {
    const auto each = [&](std::string_view document) {
      bytes += static_cast<int64_t>(document.size());
      keep(document, documents);
    };
    const DocumentCounts counts = for_each_document(block, options, each);
    check_bad_lines(path, counts, 0);
  }
  if (documents.empty()) throw bad_file(path, "holds no text to hide a needle in");
  return documents;
}

/// The tokens at the front of a token file.
class FrontTokens {
 public:
  FrontTokens(const std::string& path, const Tokenizer& tokenizer) : file_(path) {
    check_made_by(file_, tokenizer, "the model's", "a haystack needs the model's tokens or text");
    while (documents_ < file_.documents() &&
           file_.document_begins()[static_cast<size_t>(documents_)] < kMostHaystackTokens) {
      ++documents_;
    }
  }
  std::string hash(const Tokenizer& tokenizer) const {
    Sha256 sha;
    for (int64_t i = 0; i < documents_; ++i) {
      const std::vector<int64_t> ids = read(i);
      const auto size = static_cast<uint64_t>(ids.size());
      sha.update(std::as_bytes(std::span(&size, 1)));
      sha.update(std::as_bytes(std::span(ids)));
    }
    sha.update(bytes_of(tokenizer_hash(tokenizer)));
    return sha.hex();
  }
  std::vector<std::string> texts(const Tokenizer& tokenizer) const {
    std::vector<std::string> documents;
    for (int64_t i = 0; i < documents_; ++i) {
      const std::vector<int64_t> ids = read(i);
      // Beyond its vocabulary, decode() gives U+FFFD.
      std::vector<int32_t> narrow;
      narrow.reserve(ids.size());
      for (const int64_t id : ids) {
        if (id >= tokenizer.vocab_size()) {
          throw bad_file(file_.path(), fmt::format("holds token {}, the tokenizer's vocabulary "
                                                   "ends at {}",
                                                   id, tokenizer.vocab_size() - 1));
        }
        narrow.push_back(static_cast<int32_t>(id));
      }
      keep(valid_utf8(tokenizer.decode(narrow)), documents);
    }
    if (documents.empty()) throw bad_file(file_.path(), "holds no text to hide a needle in");
    return documents;
  }

 private:
  std::vector<int64_t> read(int64_t document) const {
    std::vector<int64_t> ids(static_cast<size_t>(file_.document_length(document)));
    file_.read(file_.document_begins()[static_cast<size_t>(document)], ids);
    return ids;
  }
  TokenFile file_;
  int64_t documents_ = 0;
};

bool is_text(const std::string& name) {
  if (!exists(name) && !exists(name + ".bin") && !exists(name + ".idx") &&
      !exists(name + "_0000000000.bin")) {
    throw bad_file(name,
                   "not there; a haystack is a file or folder of text, the prefix of a token "
                   "file, or \"noise\"");
  }
  if (is_directory(name)) {  // a folder of packed chunks or of essays
    for (const std::string& entry : list_directory(name)) {
      if (entry.ends_with(".bin")) return false;
    }
    return true;
  }
  return exists(name) && !name.ends_with(".bin") && !name.ends_with(".idx");
}

std::vector<std::string> noise() { return {"\n" + std::string(kNoiseLine)}; }

// By content and tokenizer, which decides the counts.
std::shared_ptr<const Haystack> kept(const std::string& hash, const Tokenizer& tokenizer,
                                     const std::function<std::vector<std::string>()>& documents) {
  static std::mutex mutex;
  static std::map<std::string, std::shared_ptr<const Haystack>> all;
  const std::string key = hash + tokenizer_hash(tokenizer);
  const std::lock_guard lock(mutex);
  auto& haystack = all[key];
  if (!haystack) haystack = std::make_shared<const Haystack>(documents(), hash);
  return haystack;
}

// Tokens of the sentences by where they end, from one pass over the whole document; empty where the
// tokens' bytes are not those of the text.
std::vector<int64_t> counts_in_context(const std::string& text, std::span<const Sentence> sentences,
                                       const Tokenizer& tokenizer) {
  const std::vector<int32_t> ids = tokenizer.encode(text);
  int64_t bytes = -static_cast<int64_t>(text.size());
  for (const int32_t id : ids) bytes += tokenizer.byte_length(id);
  if (bytes != 0 && bytes != 1) return {};
  int64_t at = -bytes;  // one more is a space in front, which some tokenizers put there
  size_t next = 0;
  std::vector<int64_t> counts;
  int64_t end = 0;
  for (const Sentence& sentence : sentences) {
    end += static_cast<int64_t>(sentence.text.size());
    const size_t first = next;
    while (next < ids.size() && at < end) at += tokenizer.byte_length(ids[next++]);
    counts.push_back(static_cast<int64_t>(next - first));
  }
  return counts;
}

}  // namespace

std::vector<std::string_view> cut_sentences(std::string_view text, size_t longest) {
  std::vector<std::string_view> sentences;
  size_t begin = 0;
  const auto cut = [&](size_t end) {
    if (is_blank(text.substr(begin, end - begin)) && end < text.size()) return;
    sentences.push_back(text.substr(begin, end - begin));
    begin = end;
  };
  for (size_t i = 0; i < text.size(); ++i) {
    if (i - begin >= longest) {
      const size_t end = forced_end(text, begin, longest);
      sentences.push_back(text.substr(begin, end - begin));
      begin = end;
    }
    if (!is_space(text[i]) || i == begin || is_space(text[i - 1])) continue;
    size_t last = i - 1;  // what stands in front of this white space
    while (last > begin && closes(text[last])) --last;
    const bool paragraph =
        text.substr(i).starts_with("\n\n") || text.substr(i).starts_with("\r\n\r");
    if (ends_sentence(text[last]) || paragraph) cut(i);
  }
  if (begin < text.size()) cut(text.size());
  return sentences;
}

Haystack::Haystack(std::vector<std::string> documents, std::string content_hash)
    : documents_(std::move(documents)),
      content_hash_(std::move(content_hash)),
      sentences_(documents_.size()) {}

std::span<const Sentence> Haystack::sentences(int64_t document, const Tokenizer& tokenizer) const {
  const std::lock_guard lock(mutex_);
  const std::string& text = documents_.at(static_cast<size_t>(document));
  std::vector<Sentence>& sentences = sentences_[static_cast<size_t>(document)];
  if (!sentences.empty()) return sentences;
  for (const std::string_view sentence : cut_sentences(text)) sentences.push_back({sentence, 0});
  const std::vector<int64_t> counts = counts_in_context(text, sentences, tokenizer);
  for (size_t i = 0; i < sentences.size(); ++i) {
    sentences[i].tokens = counts.empty()
                              ? static_cast<int64_t>(tokenizer.encode(sentences[i].text).size())
                              : counts[i];
  }
  return sentences;
}

std::string haystack_hash(const std::string& name, const Tokenizer& tokenizer) {
  if (name == "noise") return hash_of(noise());
  if (is_text(name)) return hash_of(read_documents(name));
  return FrontTokens(name, tokenizer).hash(tokenizer);
}

std::shared_ptr<const Haystack> load_haystack(const std::string& name, const Tokenizer& tokenizer) {
  if (name == "noise") return kept(hash_of(noise()), tokenizer, noise);
  if (is_text(name)) {
    std::vector<std::string> documents = read_documents(name);
    return kept(hash_of(documents), tokenizer, [&] { return std::move(documents); });
  }
  const FrontTokens tokens(name, tokenizer);
  return kept(tokens.hash(tokenizer), tokenizer, [&] { return tokens.texts(tokenizer); });
}

HaystackSource::HaystackSource(std::shared_ptr<const Haystack> haystack, const Tokenizer& tokenizer,
                               RandomStream stream)
    : haystack_(std::move(haystack)),
      tokenizer_(tokenizer),
      order_(static_cast<uint64_t>(haystack_->documents()), stream.fork("order")) {
  if (haystack_->content_hash() == hash_of(noise())) return;
  const auto first = static_cast<int64_t>(order_(0));
  const size_t sentences = haystack_->sentences(first, tokenizer_).size();
  sentence_ = static_cast<size_t>(stream.fork("begin").below(0, sentences));
}

Sentence HaystackSource::next() {
  std::span<const Sentence> sentences;
  for (;;) {
    const auto document = static_cast<int64_t>(order_(static_cast<uint64_t>(document_)));
    sentences = haystack_->sentences(document, tokenizer_);
    if (sentence_ < sentences.size()) return sentences[sentence_++];
    document_ = (document_ + 1) % haystack_->documents();
    sentence_ = 0;
  }
}

}  // namespace tandem
