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
  int64_t first_token = 1;  // 0 is what padding has
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

}  // namespace

void write_ledger_data(const std::vector<LedgerData>& sources, const std::string& folder) {
  make_directories(folder);
  for (size_t i = 0; i < sources.size(); ++i) {
    auto token = static_cast<int32_t>(sources[i].first_token);
    TokenFileWriter writer(source_path(folder, i), token + sources[i].tokens());
    for (const int64_t length : sources[i].lengths) {
      std::vector<int32_t> document(static_cast<size_t>(length));
      std::iota(document.begin(), document.end(), token);
      token += static_cast<int32_t>(length);
      writer.add_document(document);
    }
    writer.publish();
  }
}

Sampler ledger_sampler(const LedgerPlan& plan, const std::string& shuffle) {
  const LedgerConfiguration& configuration = *plan.configuration;
  std::vector<SourceSpec> specs;
  for (const LedgerSource& source : configuration.sources) {
    specs.push_back({.file = {.path = source_path(plan.data, specs.size())},
                     .weight = source.weight,
                     .view = source.view});
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
                    std::span<const int32_t> segment) {
  const uint32_t crc = crc32c(std::as_bytes(targets), crc32c(std::as_bytes(tokens)));
  return crc32c(std::as_bytes(segment), crc);
}

std::string LedgerPlan::part(int64_t attempt, int64_t rank) const {
  return run + "/attempt-" + std::to_string(attempt) + "-rank-" + std::to_string(rank) + ".jsonl";
}

}  // namespace tandem
