#include "nn/score.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/load_model.h"
#include "cli/output.h"
#include "cli/parse.h"
#include "core/file.h"
#include "core/json_lines.h"
#include "core/safetensors.h"
#include "nn/generate.h"

// `tandem score`: log-probabilities of given ids, for other programs. In: {"tokens": [[5, 6, 7],
// ...]}. Out: {"log_probs": [[null, -1.25, ...], ...]}, entry t is log p(token t | tokens before
// it), null where the model gives none. With --logits also a safetensors file with `logits` [B, T,
// V] float32: row t holds the logits that predict token t + 1, NaN past a sequence's end and where
// the model predicts nothing.

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;
using Sequences = std::vector<std::vector<int64_t>>;

struct Options {
  std::string path, tokens, logits, device = "auto", dtype = "float32", cache_dtype = "same";
  int64_t batch = 8;
};

std::optional<int> parse(Options& o, int argc, const char* const* argv) {
  CLI::App app("Print the log-probabilities of given token ids as JSON", argv[0]);
  app.footer(
      "Example: tandem score runs/yoco --tokens ids.json, where ids.json holds {\"tokens\": [[5, "
      "6, 7], [8, 9]]}");
  app.add_option("model", o.path, "Checkpoint or run folder")->required();
  app.add_option("--tokens", o.tokens, "JSON file: {\"tokens\": [[id, ...], ...]}")->required();
  app.add_option("--logits", o.logits, "Write the logits [B, T, V] to this safetensors file");
  app.add_option("--batch", o.batch, "Sequences of one call")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--device", o.device, "auto, cpu, cuda or cuda:N")->capture_default_str();
  app.add_option("--dtype", o.dtype, "float32, bfloat16 or float64")->capture_default_str();
  app.add_option(
         "--cache-dtype", o.cache_dtype,
         "Of the keys and values that --logits holds: same (as --dtype), float32, bfloat16 or int8")
      ->check(CLI::IsMember(kCacheDtypes))
      ->capture_default_str();
  app.add_flag_callback(
      "--json", [] {}, "The result is JSON with and without this");
  return parse_arguments(app, argc, argv);
}

std::string at(size_t row) { return "tokens[" + std::to_string(row) + "]"; }

Sequences read_sequences(const std::string& path, int64_t vocab_size) {
  const Json json = read_json(path);
  const auto tokens = json.is_object() ? json.find("tokens") : json.end();
  if (!json.is_object() || tokens == json.end() || !tokens->is_array()) {
    throw bad_file(path, "expected {\"tokens\": [[id, ...], ...]}");
  }
  if (tokens->empty()) throw bad_usage(path + ": tokens is empty, expected at least one sequence");
  Sequences sequences;
  for (const Json& row : *tokens) {
    const size_t b = sequences.size();
    if (!row.is_array()) throw bad_file(path, at(b) + " is not a list of ids");
    if (row.empty()) throw bad_usage(path + ": " + at(b) + " is empty, expected at least one id");
    std::vector<int64_t>& ids = sequences.emplace_back();
    for (const Json& id : row) {
      const std::string where = at(b) + "[" + std::to_string(ids.size()) + "]";
      if (!id.is_number_integer()) throw bad_file(path, where + " is not an integer");
      // read as unsigned, what is beyond 63 bits stays out of the vocabulary
      const bool inside =
          id.is_number_unsigned() && id.get<uint64_t>() < static_cast<uint64_t>(vocab_size);
      if (!inside) {
        throw bad_usage(path + ": " + where + " = " + id.dump() +
                        ", expected an id of the vocabulary, 0 to " +
                        std::to_string(vocab_size - 1));
      }
      ids.push_back(id.get<int64_t>());
    }
  }
  return sequences;
}

// A row of scoring holds all ids but the last, one of logits all of them; padding takes positions
// of the model too.
void check_lengths(const std::string& path, const Sequences& sequences, const Packing& packing,
                   bool with_logits) {
  if (packing.max_length == 0) return;
  const int64_t most = longest_to_score(packing) + (with_logits ? 0 : 1);
  for (size_t b = 0; b < sequences.size(); ++b) {
    if (static_cast<int64_t>(sequences[b].size()) <= most) continue;
    throw bad_usage(path + ": " + at(b) + " holds " + std::to_string(sequences[b].size()) +
                    " ids, expected at most " + std::to_string(most) +
                    ", the positions of the model");
  }
}

void write_floats(SafetensorsWriter& writer, const Tensor& values) {
  writer.write(std::as_bytes(
      std::span(values.const_data_ptr<float>(), static_cast<size_t>(values.numel()))));
}

// One sequence after the other, in pieces, so that no more than a piece of logits is held.
void write_logits(const std::string& path, LanguageModel& model, const Sequences& sequences,
                  torch::Device device, std::optional<torch::Dtype> cache_dtype) {
  constexpr int64_t kPiece = 256;
  const torch::NoGradGuard no_grad;
  const auto longest = static_cast<int64_t>(
      std::max_element(sequences.begin(), sequences.end(), [](const auto& a, const auto& b) {
        return a.size() < b.size();
      })->size());
  const auto batch = static_cast<int64_t>(sequences.size());
  const int64_t padding = model.packing().padding_to_score();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  TensorEntry entry;
  entry.name = "logits";
  entry.shape = {batch, longest, model.vocab_size()};
  SafetensorsWriter writer(path + ".partial", {entry});
  for (const auto& sequence : sequences) {
    std::vector<int64_t> ids(static_cast<size_t>(padding), kPadding);
    ids.insert(ids.end(), sequence.begin(), sequence.end());
    const auto n = static_cast<int64_t>(ids.size());
    const Tensor tokens = torch::tensor(ids, torch::kInt64).unsqueeze(0).to(device);
    const auto state = inference_state(model, 1, n, cache_dtype);
    for (int64_t begin = 0; begin < n; begin += kPiece) {
      const int64_t length = std::min(kPiece, n - begin);
      const Tensor logits = model.extend(tokens.narrow(1, begin, length), {}, *state, Want::kAll);
      const int64_t drop = std::clamp<int64_t>(padding - begin, 0, length);
      const Tensor values = logits[0].narrow(0, drop, length - drop);  // [T, V]
      write_floats(writer, values.to(torch::kCPU, torch::kFloat32).contiguous());
    }
    const Tensor past_end = torch::full({1, model.vocab_size()}, nan);
    for (int64_t t = n - padding; t < longest; ++t) write_floats(writer, past_end);
  }
  writer.finish();
  rename_file(path + ".partial", path);
}

Json to_json(const std::vector<std::vector<double>>& log_probs) {
  Json rows = Json::array();
  for (const auto& sequence : log_probs) {
    Json row = Json::array();
    for (const double value : sequence) row.push_back(std::isnan(value) ? Json() : Json(value));
    rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace

int run_score(int argc, const char* const* argv) {
  Options o;
  if (const auto code = parse(o, argc, argv)) return *code;
  const auto cache_dtype = cache_dtype_of(o.cache_dtype);
  if (cache_dtype && o.logits.empty()) {
    throw bad_usage("--cache-dtype " + o.cache_dtype +
                    " has no effect without --logits: log-probabilities take whole sequences");
  }
  const torch::Device device = parse_device(o.device);
  const LoadedModel loaded = load_model(o.path, device, parse_dtype(o.dtype));
  const Sequences sequences = read_sequences(o.tokens, loaded.model->vocab_size());
  check_lengths(o.tokens, sequences, loaded.model->packing(), !o.logits.empty());
  const Json result = {
      {"log_probs", to_json(log_probs(*loaded.model, sequences, device, o.batch))}};
  if (!o.logits.empty()) write_logits(o.logits, *loaded.model, sequences, device, cache_dtype);
  print(result.dump() + "\n");
  return kExitDone;
}

}  // namespace tandem
