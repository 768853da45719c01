#include "eval/nll.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/log.h"
#include "core/progress.h"
#include "data/document_view.h"
#include "data/token_manifest.h"
#include "nn/generate.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kUnigram = "unigram";

struct Total {
  ScoreResult score;
  int64_t bytes = 0;  // of text that the scored tokens stand for; 0 = not known
  double nll() const { return score.nll_sum / score.weight; }
  double bpb() const { return score.nll_sum / std::log(2.0) / static_cast<double>(bytes); }
};

bool trained_with_masks(const ConfigNode& config) {
  const ConfigNode* data = config.find("data");
  const ConfigNode* mask = data ? data->find("mask_documents") : nullptr;
  return mask && mask->scalar == "true";
}

int64_t window_length(const NllConfig& config, const LoadedModel& loaded,
                      const std::string& input) {
  if (!config.context_length && loaded.context_length == 0) {
    throw bad_usage(input +
                    " does not say what context length it was trained with; give --context-length");
  }
  const Packing packing = loaded.model->packing();
  const int64_t wanted = config.context_length.value_or(loaded.context_length);
  if (packing.max_length == 0) return wanted;
  const int64_t longest = longest_to_score(packing);
  if (config.context_length && wanted > longest) {
    const int64_t padding = packing.padding_to_score();
    throw bad_usage(fmt::format("--context-length {}, expected at most {}, the positions of {}{}",
                                wanted, longest, input,
                                padding > 0 ? fmt::format(" but {} of padding", padding) : ""));
  }
  if (wanted <= longest) return wanted;
  log_line(fmt::format(
      "{} is scored in windows of {} tokens, not the {} of its training: it has no more positions",
      input, longest, wanted));
  return longest;
}

bool use_masks(const NllConfig& config, const LoadedModel& loaded, const std::string& input) {
  const bool trained = trained_with_masks(loaded.config);
  const bool wanted = config.mask_documents.value_or(trained);
  const int64_t block_length = loaded.model->packing().multiple;
  if (!wanted || block_length == 1) return wanted;
  const char* const why = "documents that see no other need rows padded to blocks, as in training";
  if (config.mask_documents) {
    throw bad_usage(
        fmt::format("--mask-documents true, but {} is a model of blocks of {} tokens; "
                    "give --mask-documents false: {}",
                    input, block_length, why));
  }
  log_warning(
      fmt::format("{} was trained with document masks and is scored without: {}", input, why));
  return false;
}

NllWindows make_windows(const NllConfig& config, std::shared_ptr<const TokenFile> file,
                        const LoadedModel& loaded, const std::string& input) {
  NllWindows windows{.file = std::move(file), .skip = config.skip};
  windows.length = window_length(config, loaded, input);
  windows.stride = config.stride.value_or(windows.length);
  if (windows.stride > windows.length) {
    throw bad_usage(fmt::format("--stride {}, expected at most the window's {} tokens",
                                windows.stride, windows.length));
  }
  windows.mask_documents = use_masks(config, loaded, input);
  if (windows.mask_documents && config.chunk > 0) {
    throw bad_usage("--chunk needs windows without document masks; give --mask-documents false");
  }
  const int64_t available = windows.file->tokens();
  windows.tokens = 1 + std::min(available - 1, config.max_tokens.value_or(available - 1));
  if (windows.tokens < 2)
    throw bad_file(windows.file->prefix(),
                   fmt::format("holds {} tokens, expected at least 2", available));
  return windows;
}

void check_tokenizer(const TokenFile& file, const LoadedModel& loaded, const std::string& input) {
  if (!loaded.tokenizer) return;
  check_made_by(file, *loaded.tokenizer, "that of " + input,
                "run `tandem data tokenize` again with the model's");
}

/// Where documents have no effect that a setting asked for.
void warn_of_documents(const NllConfig& config, const NllWindows& windows,
                       const std::string& input) {
  if (!windows.mask_documents) {
    if (config.eos_id)
      log_warning("--eos-id has no effect on " + input + ": it is scored without document masks");
    return;
  }
  const std::string why = why_one_document(*windows.file, config.eos_id);
  if (!why.empty())
    log_warning(why + ", so that it is one document: document masks have no effect on " + input);
}

void check_ids(const Row& row, int64_t vocab_size, const std::string& prefix) {
  for (const auto& ids : {row.tokens, row.targets}) {
    const int64_t most = *std::max_element(ids.begin(), ids.end());
    if (most >= vocab_size) {
      throw bad_file(prefix, fmt::format("holds token {}, the model's vocabulary ends at {}; was "
                                         "it made with the model's tokenizer?",
                                         most, vocab_size - 1));
    }
  }
}

// 0 without a tokenizer.
int64_t bytes_of_targets(const Row& row, const Tokenizer* tokenizer) {
  int64_t bytes = 0;
  if (!tokenizer) return bytes;
  for (const int64_t target : row.targets) {
    if (target >= 0 && target < tokenizer->vocab_size())
      bytes += tokenizer->byte_length(static_cast<int32_t>(target));
  }
  return bytes;
}

// Buckets of the window's tokens: the columns of a row between the padding in front and behind.
Json by_position(const ScoreResult& score, const NllWindows& windows, const Packing& packing,
                 int64_t buckets) {
  Json list = Json::array();
  const int64_t positions = std::min(windows.length, windows.tokens - 1);
  const int64_t width = (positions + buckets - 1) / buckets;
  for (int64_t begin = 0; begin < positions; begin += width) {
    const int64_t end = std::min(begin + width, positions);
    double nll = 0, n = 0;
    for (int64_t t = begin; t < end; ++t) {
      const auto column = static_cast<size_t>(t + packing.padding_to_score());
      nll += score.nll_by_position[column];
      n += score.count_by_position[column];
    }
    if (n > 0)
      list.push_back({{"begin", begin},
                      {"end", end},
                      {"nll", nll / n},
                      {"tokens_scored", static_cast<int64_t>(n)}});
  }
  return list;
}

// What makes two numbers comparable: all that decides them.
void add_rules(Json& identity, const NllConfig& config, const NllWindows& windows,
               const Packing& packing, const std::string& data_hash) {
  identity["data"] = windows.file->prefix();
  identity["data_hash"] = data_hash;
  identity["tokens"] = windows.tokens;
  identity["window"] = windows.length;
  identity["stride"] = windows.stride;
  identity["bos"] = "none";  // windows are cut out of the stream of documents as it is
  identity["mask_documents"] = windows.mask_documents;
  identity["skip"] = windows.skip;
  identity["padding"] = packing.padding_to_score();  // tokens in front of each window
  // first targets of each window that the model gives no probability
  identity["unscored_prefix"] =
      std::max<int64_t>(0, packing.unscored_prefix - packing.padding_to_score());
  identity["chunk"] = config.chunk;
  identity["cache_dtype"] = config.chunk > 0 ? Json(config.cache_dtype) : Json();
  identity["buckets"] = config.buckets;
}

Json numbers(const NllConfig& config, const NllWindows& windows, const Packing& packing,
             const Total& total) {
  Json json;
  json["tokens_scored"] = static_cast<int64_t>(total.score.weight);
  json["bytes_scored"] = total.bytes > 0 ? Json(total.bytes) : Json();
  json["nll"] = total.nll();
  json["ppl"] = std::exp(total.nll());
  json["bpb"] = total.bytes > 0 ? Json(total.bpb()) : Json();
  json["nll_by_position"] = by_position(total.score, windows, packing, config.buckets);
  if (packing.multiple == 1) return json;
  const ScoreResult slots = by_block_position(total.score, packing.multiple);
  json["nll_by_block_position"] = means(slots);
  json["tokens_scored_by_block_position"] =
      std::vector<int64_t>(slots.count_by_position.begin(), slots.count_by_position.end());
  return json;
}

std::vector<std::string> table_row(const Json& record) {
  const bool is_model = record.contains("step");
  return {record["model"],
          is_model ? with_commas(record["step"].get<int64_t>()) : "-",
          with_commas(record["window"].get<int64_t>()),
          with_commas(record["stride"].get<int64_t>()),
          with_commas(record["tokens_scored"].get<int64_t>()),
          fmt::format("{:.4f}", record["nll"].get<double>()),
          fmt::format("{:.2f}", record["ppl"].get<double>()),
          record["bpb"].is_null() ? "n/a" : fmt::format("{:.4f}", record["bpb"].get<double>())};
}

// Rows in groups of `batch`, with a progress bar.
template <typename Function>
void for_each_group(const NllWindows& windows, const Packing& packing, int64_t batch,
                    const std::string& label, const Function& f) {
  Progress progress(label, windows.count(), "windows");
  for (int64_t begin = 0; begin < windows.count(); begin += batch) {
    const int64_t end = std::min(begin + batch, windows.count());
    std::vector<Row> rows;
    for (int64_t k = begin; k < end; ++k) rows.push_back(windows.row(k, packing));
    f(rows);
    progress.update(end);
  }
}

Total score_model(const NllConfig& config, const EvalArgs& args, const NllWindows& windows,
                  const LoadedModel& loaded, const std::string& input) {
  Total total;
  for_each_group(windows, loaded.model->packing(), args.batch, "nll of " + input,
                 [&](const std::vector<Row>& rows) {
                   for (const Row& row : rows) {
                     check_ids(row, loaded.model->vocab_size(), windows.file->prefix());
                     total.bytes += bytes_of_targets(row, loaded.tokenizer.get());
                   }
                   total.score += score_rows(*loaded.model, rows, args.device, args.batch,
                                             config.chunk, cache_dtype_of(config.cache_dtype));
                 });
  if (total.score.weight == 0)
    throw bad_usage("nothing to score: --skip and the model's unscored prefix leave no target");
  return total;
}

Total score_unigram(const NllConfig& config, const EvalArgs& args, const NllWindows& windows,
                    const LoadedModel& loaded, const std::string& input) {
  const TokenFile file(TokenFileSpec{.path = config.unigram, .dtype = config.data_dtype});
  check_tokenizer(file, loaded, input);
  const auto nll = unigram_nll(file, loaded.model->vocab_size());
  Total total;
  for_each_group(windows, loaded.model->packing(), args.batch, "nll unigram",
                 [&](const std::vector<Row>& rows) {
                   for (const Row& row : rows) {
                     total.score.nll_by_position.resize(
                         std::max(total.score.nll_by_position.size(), row.targets.size()));
                     total.score.count_by_position.resize(total.score.nll_by_position.size());
                     total.bytes += bytes_of_targets(row, loaded.tokenizer.get());
                     for (size_t t = 0; t < row.targets.size(); ++t) {
                       if (row.targets[t] == kIgnored) continue;
                       const double value = nll[static_cast<size_t>(row.targets[t])];
                       total.score.nll_by_position[t] += value;
                       total.score.count_by_position[t] += 1;
                       total.score.nll_sum += value;
                       total.score.weight += 1;
                     }
                   }
                 });
  return total;
}

}  // namespace

int64_t NllWindows::count() const {
  const int64_t after_first = std::max<int64_t>(0, tokens - 1 - length);
  return 1 + (after_first + stride - 1) / stride;
}

Row NllWindows::row(int64_t k, const Packing& packing) const {
  const int64_t begin = k * stride;
  std::vector<int64_t> ids(static_cast<size_t>(std::min(length + 1, tokens - begin)));
  file->read(begin, ids);
  const int64_t scored_before = k == 0 ? 0 : length - stride;
  Row row = row_of_sequence(ids, packing, std::max(skip, scored_before));
  row.sample = k;
  if (!mask_documents) return row;
  TORCH_CHECK(packing.multiple == 1, "NllWindows: document masks with blocks of ", packing.multiple,
              " tokens, expected none");

  const auto& begins = file->document_begins();
  auto next =
      std::upper_bound(begins.begin(), begins.end(), begin);  // where the next document begins
  int32_t segment = 0;
  for (size_t t = 0; t + 1 < ids.size(); ++t) {
    const int64_t target_at = begin + static_cast<int64_t>(t) + 1;
    row.segment[t] = segment;
    while (next != begins.end() && *next < target_at) ++next;
    if (next == begins.end() || *next != target_at) continue;
    row.targets[t] = kIgnored;  // the first token of a document has nothing before it
    ++segment;
  }
  return row;
}

std::vector<double> unigram_nll(const TokenFile& file, int64_t vocab_size) {
  constexpr int64_t kPiece = 1 << 16;
  std::vector<double> counts(static_cast<size_t>(vocab_size), 1.0);
  std::vector<int64_t> ids;
  for (int64_t begin = 0; begin < file.tokens(); begin += kPiece) {
    ids.resize(static_cast<size_t>(std::min(kPiece, file.tokens() - begin)));
    file.read(begin, ids);
    for (const int64_t id : ids) {
      if (id >= vocab_size) {
        throw bad_file(
            file.prefix(),
            fmt::format("holds token {}, the model's vocabulary ends at {}", id, vocab_size - 1));
      }
      ++counts[static_cast<size_t>(id)];
    }
  }
  const double total = static_cast<double>(file.tokens() + vocab_size);
  for (double& count : counts) count = -std::log(count / total);
  return counts;
}

const char* const kNllHelp =
    R"(Windows of --context-length tokens (absent: what the model was trained with) are cut from the documents' stream every --stride tokens (absent: the
window). Every token but the first is scored once; with a smaller stride it has at least window - stride tokens before it. --skip leaves out the first
targets of each window, --max-tokens scores the beginning of the data only, --chunk scores long windows in pieces (keys and values are held in --cache-dtype: same
as --dtype, float32 or bfloat16), --buckets sets how finely the loss by
position is kept, --mask-documents says whether tokens see their own document only (absent: as trained, but false for a model of blocks), --unigram adds the
baseline of token frequencies. --data-dtype (uint16 or uint32) says that --data and --unigram are headerless files, --eos-id which token ends the documents of
headerless files and packed chunks. A model of blocks that was trained without padding does not score the first block of a window; --skip makes others comparable with it.
Example: tandem eval nll runs/yoco runs/transformer --data data/valid --unigram data/train --out nll.jsonl)";

EvalTable run_nll(const NllConfig& config, const EvalArgs& args) {
  if (config.data.empty()) throw bad_usage("eval nll needs a token file to score, --data PREFIX");
  if (cache_dtype_of(config.cache_dtype) && config.chunk == 0) {
    throw bad_usage("--cache-dtype " + config.cache_dtype +
                    " has no effect without --chunk: whole windows hold no keys and values");
  }
  const auto file = std::make_shared<const TokenFile>(
      TokenFileSpec{.path = config.data, .dtype = config.data_dtype, .eos_id = config.eos_id});
  const std::string data_hash = file->content_hash();
  EvalTable table = {
      {"model", "step", "window", "stride", "tokens scored", "nll", "ppl", "bits/byte"}};
  bool with_unigram = !config.unigram.empty();
  for (const std::string& input : args.inputs) {
    const LoadedModel loaded = args.load(input);
    check_tokenizer(*file, loaded, input);
    const NllWindows windows = make_windows(config, file, loaded, input);
    warn_of_documents(config, windows, input);
    const Packing packing = loaded.model->packing();
    std::vector<Cell> cells;
    const auto add = [&](Json identity, auto score) {
      add_rules(identity, config, windows, packing, data_hash);
      cells.push_back({std::move(identity), [&, score] {
                         return numbers(config, windows, packing,
                                        score(config, args, windows, loaded, input));
                       }});
    };
    // Once, over the first model's vocabulary and windows.
    if (std::exchange(with_unigram, false)) {
      add({{"evaluation", "nll"}, {"model", kUnigram}, {"counts_from", config.unigram}},
          score_unigram);
    }
    add(about("nll", args, input, loaded), score_model);
    for (const Json& record : args.cells->run("nll " + input, cells))
      table.push_back(table_row(record));
  }
  return table;
}

}  // namespace tandem
