#include "data/tokenize.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/file.h"
#include "core/json_lines.h"
#include "core/log.h"
#include "core/ordered_pipeline.h"
#include "data/document_split.h"
#include "data/token_file_writer.h"
#include "data/token_manifest.h"
#include "data/tokenize_check.h"
#include "data/tokenize_journal.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kBookkeeping = 1024;  // bytes, of a block apart from its text
constexpr auto kBetweenReports = std::chrono::milliseconds(100);

/// A block as ids, and what the writer has to know of it.
struct EncodedBlock {
  std::vector<int32_t> ids = {};
  std::vector<size_t> ends = {};  // of each document in `ids`
  DocumentCounts counts = {};
  int64_t file = 0, packed_bytes = 0;
  std::optional<std::string> sha256 = {};
};

/// `stopped`: nobody takes the block any more, and what is left of it is not encoded.
EncodedBlock encode(const Tokenizer& tokenizer, const TokenizeJob& job, const TextBlock& block,
                    const std::atomic<bool>& stopped) {
  EncodedBlock out{.file = block.file,
                   .packed_bytes = static_cast<int64_t>(block.packed_bytes),
                   .sha256 = block.sha256};
  const auto add = [&](std::string_view text) {
    if (stopped) return;
    const size_t begin = out.ids.size();
    if (job.bos) out.ids.push_back(*job.bos);
    const size_t text_begin = out.ids.size();
    tokenizer.append(text, job.specials, out.ids);
    if (out.ids.size() == text_begin) {
      out.ids.resize(begin);  // a document without tokens gets none
    } else if (job.eos) {
      out.ids.push_back(*job.eos);
    }
    out.ends.push_back(out.ids.size());
  };
  out.counts = for_each_document(block, job.documents, add);
  return out;
}

/// Keeps a second job away from the same output: it would go on from the journal of the first one
/// while that still writes.
class OutputLock {
 public:
  explicit OutputLock(const std::string& prefix) {
    const std::string folder = parent_of(prefix), name = prefix.substr(prefix.rfind('/') + 1);
    make_directories(folder);
    std::string holder;
    // Hidden: no file of the user's has this name.
    lock_ = FileLock::try_lock(join_path(folder, "." + name + ".tokenize.lock"),
                               "process " + std::to_string(::getpid()), &holder);
    if (!lock_) throw bad_usage(prefix + ": " + holder + " is writing it");
    lock_->remove_at_end();
  }

 private:
  std::unique_ptr<FileLock> lock_;
};

/// One job on its way: what the calling thread does with the blocks.
class Tokenization {
 public:
  Tokenization(const Tokenizer& tokenizer, const TokenizeJob& job)
      : tokenizer_(tokenizer),
        job_(job),
        prefixes_(prefixes_of(job)),
        locks_(prefixes_.begin(), prefixes_.end()),
        files_(look_at_files(text_files(job.input))),
        journal_(prefixes_[0] + ".journal.json", fingerprint(tokenizer, job, files_)),
        held_out_(prefixes_.size() > 1 ? job.validation_fraction : 0, job.seed) {
    for (size_t i = 1; i < prefixes_.size(); ++i) {
      claims_.emplace_back(prefixes_[i] + ".journal.json", fingerprint(tokenizer, job, files_));
    }
    for (const auto& prefix : prefixes_) {
      if (!exists(prefix + ".weights")) continue;
      throw bad_usage(prefix + ".weights belongs to the tokens that would be replaced; remove it");
    }
    open_outputs();
  }

  /// False when `stop` said so.
  bool write_all(const std::function<void(const TokenizeProgress&)>& progress,
                 const std::function<bool()>& stop) {
    // The share may be another now.
    check_bad_lines_so_far(job_.input, place_.counts, job_.max_bad_lines);
    report(progress);
    auto reported = std::chrono::steady_clock::now();
    std::atomic<bool> stopped = false;  // outlives the threads that read it
    const auto stops = [&] {
      if (!stop || !stop()) return false;
      stopped = true;
      commit();
      return true;
    };
    OrderedPipeline<TextBlock, EncodedBlock> blocks(stages(stopped), job_.threads, most_bytes());
    int64_t uncommitted = 0;
    while (true) {
      while (!blocks.ready_within(kBetweenReports)) {
        report(progress);
        if (stops()) return false;
      }
      const auto block = blocks.next();
      if (!block) break;
      add(*block);
      check_bad_lines_so_far(job_.input, place_.counts, job_.max_bad_lines);
      uncommitted += block->counts.bytes;
      const auto now = std::chrono::steady_clock::now();
      if (now - reported >= kBetweenReports) {
        report(progress);
        reported = now;
      }
      if (stops()) return false;
      if (uncommitted >= job_.commit_bytes) {
        commit();
        uncommitted = 0;
      }
    }
    report(progress);
    check_bad_lines(job_.input, place_.counts, job_.max_bad_lines);
    return true;
  }

  Json publish() {
    check_not_empty();
    // From here on a killed job begins its next try at the end of all files: the outputs are
    // finished and named once more, even when one of them had its final names already.
    commit();
    finish_writers();
    std::vector<Json> manifests;
    for (size_t i = 0; i < writers_.size(); ++i) {
      const char* part = writers_.size() == 1 ? "all" : i == 0 ? "train" : "validation";
      manifests.push_back(token_manifest(tokenizer_, job_, files_, place_, *writers_[i], part));
    }
    for (size_t i = 0; i < writers_.size(); ++i) {
      // An index never lies beside a manifest or tokens of another job.
      const std::string& prefix = prefixes_[i];
      remove_tree(prefix + ".idx");
      sync_directory(parent_of(prefix));
      write_atomically(prefix + ".manifest.json", manifests[i].dump(2) + "\n");
      writers_[i]->publish();
    }
    remove_journals();
    return manifests[0];
  }

  /// The partial files stay where the journal says how to go on with them.
  void keep() {
    if (!committed_) return;
    for (auto& writer : writers_) writer->keep();
  }

 private:
  static std::vector<std::string> prefixes_of(const TokenizeJob& job) {
    std::vector<std::string> prefixes = {token_prefix(job.output)};
    if (!job.validation_output.empty()) prefixes.push_back(token_prefix(job.validation_output));
    return prefixes;
  }

  void open_outputs() {
    if (auto place = journal_.read(); place && go_on(*place)) return;
    remove_journals();
    for (const auto& prefix : prefixes_) {
      writers_.push_back(std::make_unique<TokenFileWriter>(prefix, tokenizer_.vocab_size()));
    }
  }

  bool go_on(TokenizePlace& place) {
    try {
      for (const auto& claim : claims_) {
        if (!claim.claimed()) throw bad_file(claim.path(), "another job wrote there since");
      }
      for (size_t i = 0; i < prefixes_.size(); ++i) {
        writers_.push_back(std::make_unique<TokenFileWriter>(prefixes_[i], tokenizer_.vocab_size(),
                                                             place.outputs.at(i)));
        writers_.back()->keep();
      }
    } catch (const std::exception& error) {
      log_line(journal_.path() + ": cannot go on (" + error.what() + "); beginning anew");
      writers_.clear();
      return false;
    }
    place_ = std::move(place);
    committed_ = true;
    log_line(journal_.path() + ": going on behind " + with_commas(place_.counts.documents) +
             " documents");
    return true;
  }

  /// `stopped` ends the reading and the encoding early.
  OrderedPipeline<TextBlock, EncodedBlock>::Stages stages(const std::atomic<bool>& stopped) const {
    std::vector<std::string> paths;
    for (const auto& file : files_) paths.push_back(file.path);
    const auto reader = std::make_shared<BlockReader>(std::move(paths), job_.documents,
                                                      static_cast<size_t>(job_.block_bytes));
    reader->skip_to(place_.file);
    // The blocks that were written already are read again all the same: the file's hash needs them.
    const auto make = [reader, &stopped, written = place_.blocks](TextBlock& block) mutable {
      for (; written > 0; --written) {
        if (stopped || !reader->next(block)) return false;
      }
      return reader->next(block);
    };
    const auto apply = [this, &stopped](const TextBlock& block) {
      return encode(tokenizer_, job_, block, stopped);
    };
    const auto bytes = [](const TextBlock& block) { return block.bytes.size() + kBookkeeping; };
    return {make, apply, bytes};
  }

  /// Of text that is read and not yet written: some for each thread, few enough to forget.
  size_t most_bytes() const {
    return static_cast<size_t>(job_.threads + 2) *
           (static_cast<size_t>(job_.block_bytes) + kBookkeeping);
  }

  void add(const EncodedBlock& block) {
    size_t begin = 0;
    for (size_t i = 0; i < block.ends.size(); ++i) {
      const int64_t document = place_.counts.documents + static_cast<int64_t>(i);
      const auto ids = std::span(block.ids).subspan(begin, block.ends[i] - begin);
      writers_[held_out_.chosen(document) ? 1 : 0]->add_document(ids);
      begin = block.ends[i];
    }
    place_.counts += block.counts;
    packed_ = block.packed_bytes;
    ++place_.blocks;
    if (!block.sha256) return;
    const SourceFile& file = files_[static_cast<size_t>(block.file)];
    if (block.packed_bytes != file.bytes) throw bad_file(file.path, "changed while it was read");
    place_.sources.push_back({block.packed_bytes, *block.sha256});
    ++place_.file;
    place_.blocks = 0;
    packed_ = 0;
  }

  void commit() {
    place_.outputs.clear();
    for (auto& writer : writers_) place_.outputs.push_back(writer->commit());
    if (!committed_) {
      for (const auto& claim : claims_) claim.write_claim();
    }
    journal_.write(place_);
    committed_ = true;
  }

  void finish_writers() {
    try {
      for (auto& writer : writers_) writer->finish();
    } catch (const UserError& error) {
      if (error.exit_code() == kExitBadFile) forget();  // the partial files are damaged
      throw;
    }
  }

  /// The claims first: a journal without them is begun anew.
  void remove_journals() const {
    for (const auto& claim : claims_) claim.remove();
    journal_.remove();
  }

  /// The next job begins anew.
  void forget() {
    remove_journals();
    committed_ = false;
    for (auto& writer : writers_) writer->keep(false);
  }

  void report(const std::function<void(const TokenizeProgress&)>& progress) const {
    if (!progress) return;
    TokenizeProgress now{.packed_bytes = packed_, .documents = place_.counts.documents};
    for (const auto& source : place_.sources) now.packed_bytes += source.bytes;
    for (const auto& file : files_) now.packed_total += file.bytes;
    for (const auto& writer : writers_) now.tokens += writer->tokens();
    progress(now);
  }

  void check_not_empty() {
    try {
      const DocumentCounts& counts = place_.counts;
      if (counts.documents == 0) {
        throw bad_file(job_.input, "holds no documents" +
                                       (counts.bad_lines == 0
                                            ? ""
                                            : "; bad lines: " + with_commas(counts.bad_lines) +
                                                  ", the first: " + counts.first_errors.at(0)));
      }
      const auto has_documents = [](const auto& writer) { return writer->documents() > 0; };
      if (std::none_of(writers_.begin(), writers_.end(), has_documents)) {
        throw bad_file(job_.input, "all its documents are empty, " + with_commas(counts.documents));
      }
      for (size_t i = 0; i < writers_.size(); ++i) {
        if (writers_[i]->documents() > 0) continue;
        throw bad_usage((i == 0 ? job_.output : job_.validation_output) + " would be empty: " +
                        job_.input + " holds " + with_commas(counts.documents) +
                        " documents; try --split blank-line or another --validation-fraction");
      }
    } catch (const UserError&) {
      forget();  // going on would come to the same
      throw;
    }
  }

  const Tokenizer& tokenizer_;
  const TokenizeJob& job_;
  std::vector<std::string>
      prefixes_;  // of the output and, where there is one, the validation output
  std::vector<OutputLock> locks_;
  std::vector<SourceFile> files_;
  TokenizeJournal journal_;
  std::vector<TokenizeJournal> claims_;  // of the outputs behind the first
  DocumentSplit held_out_;
  TokenizePlace place_;
  int64_t packed_ = 0;                                     // bytes of the file that is being read
  std::vector<std::unique_ptr<TokenFileWriter>> writers_;  // of prefixes_
  bool committed_ = false;                                 // the journal names these partial files
};

}  // namespace

std::optional<Json> tokenize(const Tokenizer& tokenizer, const TokenizeJob& job,
                             const std::function<void(const TokenizeProgress&)>& progress,
                             const std::function<bool()>& stop) {
  check_job(tokenizer, job);
  Tokenization work(tokenizer, job);
  try {
    if (work.write_all(progress, stop)) return work.publish();
    work.keep();
    return std::nullopt;
  } catch (...) {
    work.keep();
    throw;
  }
}

}  // namespace tandem
