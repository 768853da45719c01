#include <algorithm>
#include <numeric>
#include <stdexcept>

#include "core/checksum.h"
#include "core/error.h"
#include "core/file.h"
#include "core/random.h"
#include "data/token_file_writer.h"
#include "tests/ledger/ledger.h"

namespace tandem {

const std::vector<LedgerConfiguration>& ledger_configurations() {
  // Rows of 36 tokens are whole blocks of 4; the other lengths divide nothing.
  static const std::vector<LedgerConfiguration> configurations = {
      {"masked", "windows", true, 37, 7, {}, {{211, 1, 190, 0.7}, {97, 2, 240, 0.3}}},
      {"padded",
       "windows",
       true,
       36,
       11,
       {.multiple = 4, .unscored_prefix = 4, .pad_documents = true},
       {{173, 1, 150, 0.45}, {61, 3, 333, 0.35}, {89, 1, 90, 0.2}}},
      {"views",
       "windows",
       false,
       41,
       13,
       {},
       {{149, 1, 260, 0.6, {.min_length = 20, .upsample_from = 120, .upsample_times = 3}},
        {131, 1, 300, 0.4, {.max_length = 170}}}},
      {"documents",
       "documents",
       true,
       36,
       7,
       {.multiple = 4, .unscored_prefix = 4, .pad_documents = true},
       {{157, 1, 140, 0.55, {.upsample_from = 80, .upsample_times = 2}}, {83, 1, 230, 0.45}}},
      {"packed",
       "windows",
       true,
       39,
       7,
       {},
       {{.documents = 181,
         .shortest = 1,
         .longest = 210,
         .weight = 0.6,
         .format = LedgerFormat::kPacked},
        {.documents = 103,
         .shortest = 1,
         .longest = 230,
         .weight = 0.4,
         .format = LedgerFormat::kWeighted}}},
  };
  return configurations;
}

const LedgerConfiguration& ledger_configuration(const std::string& name) {
  for (const auto& configuration : ledger_configurations()) {
    if (configuration.name == name) return configuration;
  }
  throw bad_usage("no configuration is named " + name);
}

int64_t LedgerData::tokens() const {
  return std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
}

std::vector<LedgerData> make_ledger_data(const LedgerConfiguration& configuration, uint64_t seed,
                                         int64_t scale) {
  std::vector<LedgerData> sources;
  int64_t first_token = kLedgerEos + 1;
  for (const LedgerSource& source : configuration.sources) {
    const auto stream = RandomStream(seed).fork("ledger documents").fork(sources.size());
    LedgerData& data = sources.emplace_back();
    data.first_token = first_token;
    for (int64_t d = 0; d < source.documents * scale; ++d) {
      const double u = stream.uniform(static_cast<uint64_t>(d));
      const auto spread = static_cast<double>(source.longest - source.shortest + 1);
      data.lengths.push_back(source.shortest + static_cast<int64_t>(u * u * spread));
    }
    first_token += data.tokens();
  }
  return sources;
}

namespace {

std::string source_path(const std::string& folder, size_t source) {
  return folder + "/source" + std::to_string(source);
}

void write_indexed(const LedgerData& data, const std::string& prefix) {
  auto token = static_cast<int32_t>(data.first_token);
  TokenFileWriter writer(prefix, token + data.tokens());
  for (const int64_t length : data.lengths) {
    std::vector<int32_t> document(static_cast<size_t>(length));
    std::iota(document.begin(), document.end(), token);
    token += static_cast<int32_t>(length);
    writer.add_document(document);
  }
  writer.publish();
}

void write_weights(const LedgerData& data, const std::string& prefix) {
  std::vector<float> weights(static_cast<size_t>(data.tokens()));
  for (size_t i = 0; i < weights.size(); ++i)
    weights[i] = ledger_weight(data.first_token + static_cast<int64_t>(i));
  File::create(prefix + ".weights").write(std::as_bytes(std::span(weights)));
}

/// Chunks that end anywhere, also inside documents (data/packed_chunks.h).
template <typename Token>
void write_packed(const LedgerData& data, const std::string& prefix, char dtype_code) {
  constexpr size_t kChunk = 1009;
  std::vector<Token> tokens(static_cast<size_t>(data.tokens()));
  std::iota(tokens.begin(), tokens.end(), static_cast<Token>(data.first_token));
  size_t end = 0;
  for (const int64_t length : data.lengths)
    tokens[(end += static_cast<size_t>(length)) - 1] = static_cast<Token>(kLedgerEos);
  for (size_t begin = 0, chunk = 0; begin < tokens.size(); begin += kChunk, ++chunk) {
    const std::string number = std::to_string(chunk);
    File file = File::create(prefix + "_" + std::string(10 - number.size(), '0') + number + ".bin");
    const auto part = std::span(tokens).subspan(begin, std::min(kChunk, tokens.size() - begin));
    const uint64_t version = 1, size = part.size();
    file.write("LITPKDS");
    file.write(std::as_bytes(std::span(&version, 1)));
    file.write(std::string_view(&dtype_code, 1));
    file.write(std::as_bytes(std::span(&size, 1)));
    file.write(std::as_bytes(part));
  }
}

}  // namespace

float ledger_weight(int64_t token) { return 0.25f * static_cast<float>(token % 7); }

void write_ledger_data(const LedgerConfiguration& configuration,
                       const std::vector<LedgerData>& sources, const std::string& folder) {
  make_directories(folder);
  for (size_t i = 0; i < sources.size(); ++i) {
    const LedgerFormat format = configuration.sources[i].format;
    const std::string prefix = source_path(folder, i);
    if (format == LedgerFormat::kPacked) {
      const bool fits = sources[i].first_token + sources[i].tokens() <= 65536;
      fits ? write_packed<uint16_t>(sources[i], prefix, 8)
           : write_packed<int32_t>(sources[i], prefix, 4);
      continue;
    }
    write_indexed(sources[i], prefix);
    if (format == LedgerFormat::kWeighted) write_weights(sources[i], prefix);
  }
}

Sampler ledger_sampler(const LedgerPlan& plan, const std::string& shuffle) {
  const LedgerConfiguration& configuration = *plan.configuration;
  std::vector<SourceSpec> specs;
  for (const LedgerSource& source : configuration.sources) {
    TokenFileSpec file = {.path = source_path(plan.data, specs.size())};
    if (source.format == LedgerFormat::kPacked) file.eos_id = kLedgerEos;
    if (source.format == LedgerFormat::kWeighted) file.weights = TargetWeights::kRead;
    specs.push_back({.file = file, .weight = source.weight, .view = source.view});
  }
  return Sampler(specs, configuration.context_length, shuffle, configuration.mask_documents,
                 plan.seed, configuration.packing);
}

Mixture ledger_mixture(const LedgerConfiguration& configuration) {
  std::vector<double> weights;
  for (const LedgerSource& source : configuration.sources) weights.push_back(source.weight);
  return Mixture(weights);
}

int64_t ledger_steps(const LedgerPlan& plan, int64_t epochs) {
  const Sampler sampler = ledger_sampler(plan, plan.configuration->shuffle);
  const Mixture mixture = ledger_mixture(*plan.configuration);
  std::vector<int64_t> missing;
  for (size_t i = 0; i < plan.configuration->sources.size(); ++i)
    missing.push_back(epochs * sampler.view(static_cast<int64_t>(i)).windows());
  int64_t samples = 0;
  for (; *std::max_element(missing.begin(), missing.end()) > 0; ++samples)
    --missing[static_cast<size_t>(mixture.pick(samples).source)];
  return (samples + plan.configuration->rows - 1) / plan.configuration->rows;
}

uint32_t ledger_crc(std::span<const int64_t> tokens, std::span<const int64_t> targets,
                    std::span<const int32_t> segment, std::span<const float> weights) {
  std::vector<float> ones;
  if (weights.empty()) {
    for (const int64_t target : targets) ones.push_back(target == kIgnored ? 0.0f : 1.0f);
    weights = ones;
  }
  uint32_t crc = crc32c(std::as_bytes(targets), crc32c(std::as_bytes(tokens)));
  crc = crc32c(std::as_bytes(segment), crc);
  return crc32c(std::as_bytes(weights), crc);
}

uint32_t ledger_crc(const Row& row) {
  return ledger_crc(row.tokens, row.targets, row.segment, row.weights);
}

std::string LedgerPlan::part(int64_t attempt, int64_t rank) const {
  return run + "/attempt-" + std::to_string(attempt) + "-rank-" + std::to_string(rank) + ".jsonl";
}

}  // namespace tandem
