#include "cli/bench_tokenizer.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <span>
#include <stdexcept>
#include <vector>

#include "cli/data_commands.h"
#include "core/checksum.h"
#include "core/error.h"
#include "core/version.h"
#include "data/tokenizer.h"
#include "nn/device_info.h"

namespace tandem {
namespace {

using Ids = std::vector<std::vector<int32_t>>;  // of each document

struct Pass {
  Ids ids;
  double seconds = 0;
};

/// Encodes all documents, each thread taking the next one that nobody has.
Pass encode_all(const Tokenizer& tokenizer, const std::vector<std::string>& documents,
                int64_t threads) {
  Pass pass;
  pass.ids.resize(documents.size());
  std::atomic<size_t> next = 0;
  const auto work = [&] {
    for (size_t i; (i = next++) < documents.size();) pass.ids[i] = tokenizer.encode(documents[i]);
  };
  const auto begin = std::chrono::steady_clock::now();
  std::vector<std::future<void>> others;
  for (int64_t i = 1; i < threads; ++i) others.push_back(std::async(std::launch::async, work));
  work();
  for (auto& other : others) other.get();
  pass.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return pass;
}

std::string sha256_of(const Ids& ids) {
  Sha256 sha256;
  for (const auto& document : ids) sha256.update(std::as_bytes(std::span(document)));
  return sha256.hex();
}

struct TokenizerBench {
  InputOptions input;
  std::string tokenizer;
  int64_t threads = 1, repeats = 5;
  bool json = false;

  void add_to(CLI::App& command) {
    command.footer(
        "MB are 1,000,000 bytes of text. The first pass finds the tokenizer as it was loaded, the\n"
        "others what it kept of words it has seen. ids_sha256 is of the ids of all documents as\n"
        "little-endian int32, one document behind the other.\n"
        "Example: tandem bench tokenizer --tokenizer gpt2.tiktoken --input books.jsonl");
    command.add_option("--tokenizer", tokenizer, "As for tandem data tokenize")->required();
    input.add_to(command);
    command.add_option("--threads", threads, "Threads that encode")
        ->check(CLI::Range(1, 1024))
        ->capture_default_str();
    command.add_option("--repeats", repeats, "Passes after the first")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    command.add_flag("--json", json, "Print the result as JSON");
  }

  std::vector<std::string> read_documents() const {
    std::vector<std::string> documents;
    const DocumentCounts counts = for_each_document(
        input.path, input.documents, [&](std::string_view text) { documents.emplace_back(text); });
    report_counts(counts);
    check_bad_lines(input.path, counts, input.max_bad_lines);
    if (counts.bytes == 0) throw bad_file(input.path, "holds no text");
    return documents;
  }

  int run() const {
    const auto text_to_ids = load_tokenizer(tokenizer);
    const auto documents = read_documents();
    int64_t bytes = 0, tokens = 0;
    for (const auto& document : documents) bytes += static_cast<int64_t>(document.size());
    const auto speed = [&](const Pass& pass) {
      return static_cast<double>(bytes) / 1e6 / pass.seconds;
    };
    const Pass first = encode_all(*text_to_ids, documents, threads);
    for (const auto& ids : first.ids) tokens += static_cast<int64_t>(ids.size());
    std::vector<double> speeds;
    for (int64_t i = 0; i < repeats; ++i) {
      const Pass pass = encode_all(*text_to_ids, documents, threads);
      if (pass.ids != first.ids)
        throw std::logic_error(tokenizer + " gave the same text other ids than before");
      speeds.push_back(speed(pass));
    }
    auto sorted = speeds;
    std::sort(sorted.begin(), sorted.end());
    const size_t n = sorted.size();
    print_result({{"benchmark", "tokenizer"},
                  {"version", kTandemVersion},
                  {"cpu", device_name(torch::kCPU)},
                  {"tokenizer", tokenizer},
                  {"tokenizer_sha256", tokenizer_hash(*text_to_ids)},
                  {"vocab_size", text_to_ids->vocab_size()},
                  {"input", input.path},
                  {"documents", documents.size()},
                  {"bytes", bytes},
                  {"tokens", tokens},
                  {"ids_sha256", sha256_of(first.ids)},
                  {"threads", threads},
                  {"repeats", repeats},
                  {"first_mb_per_s", speed(first)},
                  {"mb_per_s", (sorted[(n - 1) / 2] + sorted[n / 2]) / 2},  // median
                  {"smallest_mb_per_s", sorted.front()},
                  {"largest_mb_per_s", sorted.back()},
                  {"each_mb_per_s", speeds}},
                 json);
    return kExitDone;
  }
};

}  // namespace

std::function<int()> add_tokenizer_bench(CLI::App& app) {
  const auto bench = std::make_shared<TokenizerBench>();
  bench->add_to(*app.add_subcommand("tokenizer", "MB of text that a tokenizer encodes a second"));
  return [bench] { return bench->run(); };
}

}  // namespace tandem
