#include "eval/needle_set.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "core/checksum.h"
#include "core/error.h"
#include "eval/haystack.h"
#include "eval/needle_cache.h"
#include "eval/needle_protocols.h"
#include "eval/needle_sample.h"

namespace tandem {
namespace {

constexpr int kGeneration = 1;  // one more where the same config comes to mean other samples

bool plants_several(const NeedleSetConfig& config) {
  return config.protocol == "yoco" && config.task != "single";
}

void check(const NeedleSetConfig& config) {
  needle_task(config);
  const auto wrong = [](const char* key, const std::string& value, const char* expected) {
    return bad_usage(fmt::format("{} = {}, expected {}", key, value, expected));
  };
  if (config.length < 1) throw wrong("length", std::to_string(config.length), "at least 1 token");
  if (!(config.depth >= 0 && config.depth <= 1))
    throw wrong("depth", fmt::format("{}", config.depth), "a number in [0, 1]");
  if (config.samples < 1) throw wrong("samples", std::to_string(config.samples), "at least 1");
  const int64_t n = config.needles;
  if (plants_several(config) && n != 1 && n != 2 && n != 4 && n != 8)
    throw wrong("needles", std::to_string(n), "1, 2, 4 or 8");
  if (!plants_several(config) && n != 1)
    throw wrong("needles", std::to_string(n),
                "1: only yoco's multi and multi_dot leave their number open");
}

}  // namespace

std::string needle_filler(const NeedleSetConfig& config) {
  switch (needle_task(config).text) {
    case NeedleText::kNoise:
      return "noise";
    case NeedleText::kLines:
      return "lines";
    case NeedleText::kHaystack:
      break;
  }
  return config.haystack;
}

std::string needle_set_hash(const NeedleSetConfig& config, const Tokenizer& tokenizer) {
  check(config);
  const std::string filler = needle_filler(config);
  nlohmann::json all;  // keys sorted
  all["generation"] = kGeneration;
  all["protocol"] = config.protocol;
  all["task"] = config.task;
  all["length"] = config.length;
  all["depth"] = config.depth + 0.0;
  all["samples"] = config.samples;
  all["needles"] = config.needles;
  all["seed"] = config.seed;
  all["haystack"] = filler == "lines" ? filler : haystack_hash(filler, tokenizer);
  all["remove_needle"] = config.remove_needle;
  all["tokenizer"] = tokenizer_hash(tokenizer);
  const NeedleTask& task = needle_task(config);
  if (task.one_line) all["white_space"] = "folded";
  if (task.text == NeedleText::kNoise) all["lines"] = "whole";
  const std::string text = all.dump();
  return sha256_hex(text).substr(0, 16);
}

std::vector<NeedleSample> needle_set(const NeedleSetConfig& config, const Tokenizer& tokenizer) {
  check(config);
  const std::string hash = config.cache.empty() ? "" : needle_set_hash(config, tokenizer);
  const std::string path = config.cache.empty() ? "" : needle_set_path(config, hash);
  if (!path.empty()) {
    if (auto kept = read_needle_set(path, hash, config)) return std::move(*kept);
  }
  const NeedleSampler sampler(config, tokenizer);
  std::vector<NeedleSample> samples;
  for (int64_t i = 0; i < config.samples; ++i) samples.push_back(sampler.sample(i));
  if (!path.empty()) write_needle_set(path, hash, samples);
  return samples;
}

std::vector<int64_t> needle_prompt(const NeedleSample& sample, const NeedleProtocol& protocol,
                                   const Tokenizer& tokenizer) {
  std::vector<int64_t> ids;
  if (protocol.bos && tokenizer.bos()) ids.push_back(*tokenizer.bos());
  const std::vector<int32_t> text = tokenizer.encode(sample.input + sample.answer_prefix);
  ids.insert(ids.end(), text.begin(), text.end());
  return ids;
}

}  // namespace tandem
