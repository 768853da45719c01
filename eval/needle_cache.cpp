#include "eval/needle_cache.h"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/file.h"
#include "core/json_lines.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;

constexpr uint64_t kMostBytes = uint64_t{1} << 36;

Json to_json(const NeedleSample& sample, const std::string& hash) {
  const std::vector<int64_t>& positions = sample.token_position_answer;
  Json json;
  json["index"] = sample.index;
  json["input"] = sample.input;
  json["outputs"] = sample.outputs;
  json["length"] = sample.length;
  json["length_w_model_temp"] = sample.length;
  json["answer_prefix"] = sample.answer_prefix;
  json["token_position_answer"] = positions.empty() ? -1 : positions[0];
  json["token_positions"] = positions;
  json["depth"] = sample.depth;
  json["decoys"] = sample.decoys;
  json["set"] = hash;
  return json;
}

const Json& array_of(const Json& json, const char* key) {
  const auto found = json.find(key);
  if (found == json.end() || !found->is_array())
    throw std::runtime_error(std::string(key) + ", expected an array");
  return *found;
}

std::vector<std::string> strings(const Json& json, const char* key) {
  std::vector<std::string> values;
  for (const Json& value : array_of(json, key)) {
    if (!value.is_string()) throw std::runtime_error(std::string(key) + ", expected strings");
    values.push_back(value.get<std::string>());
  }
  return values;
}

double share(const Json& json, const char* key) {
  const auto found = json.find(key);
  if (found == json.end() || !found->is_number() || !(found->get<double>() >= 0) ||
      found->get<double>() > 1) {
    throw std::runtime_error(std::string(key) + ", expected a number in [0, 1]");
  }
  return found->get<double>();
}

NeedleSample from_json(const Json& json, const NeedleSetConfig& config) {
  NeedleSample sample;
  sample.index = get_int(json, "index", 0, config.samples - 1);
  sample.input = get_string(json, "input");
  sample.outputs = strings(json, "outputs");
  sample.length = get_int(json, "length", 1, config.length);
  sample.answer_prefix = get_string(json, "answer_prefix");
  for (const Json& position : array_of(json, "token_positions")) {
    if (!position.is_number_unsigned() || position.get<int64_t>() >= sample.length)
      throw std::runtime_error("token_positions, expected numbers of the prompt's tokens");
    sample.token_position_answer.push_back(position.get<int64_t>());
  }
  sample.depth = share(json, "depth");
  sample.decoys = strings(json, "decoys");
  if (sample.outputs.empty()) throw std::runtime_error("outputs, expected at least one");
  for (const std::string& output : sample.outputs) {
    if ((sample.input.find(output) == std::string::npos) != config.remove_needle) {
      throw std::runtime_error("input " + std::string(config.remove_needle ? "holds" : "lacks") +
                               " the output " + json_string(output, 80));
    }
  }
  return sample;
}

}  // namespace

std::string needle_set_path(const NeedleSetConfig& config, const std::string& hash) {
  const std::string folder =
      fmt::format("{}-{}-{}-{}", config.protocol, config.task, config.length, hash);
  return join_path(join_path(config.cache, folder), "validation.jsonl");
}

void write_needle_set(const std::string& path, const std::string& hash,
                      const std::vector<NeedleSample>& samples) {
  make_directories(parent_of(path));
  const auto now = std::chrono::system_clock::now().time_since_epoch().count();
  const std::string partial = fmt::format("{}.{}-{}.partial", path, ::getpid(), now);
  try {
    File file = File::create(partial);
    for (const NeedleSample& sample : samples) file.write(to_json(sample, hash).dump() + "\n");
    file.sync();
    file.close();
    rename_file(partial, path);
  } catch (const UserError&) {
    try {
      remove_tree(partial);
    } catch (const UserError&) {  // the first error is the one to report
    }
    throw;
  }
  sync_directory(parent_of(path));
}

std::optional<std::vector<NeedleSample>> read_needle_set(const std::string& path,
                                                         const std::string& hash,
                                                         const NeedleSetConfig& config) {
  if (!exists(path)) return std::nullopt;
  const std::string text = read_text(path, kMostBytes);
  std::vector<NeedleSample> samples;
  int64_t line = 1;
  for (size_t begin = 0; begin < text.size(); ++line) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    try {
      if (end == text.size()) throw std::runtime_error("the line does not end");
      const Json json = parse_json(std::string_view(text).substr(begin, end - begin));
      const std::string set = get_string(json, "set");
      if (set != hash) throw std::runtime_error("of set " + one_line(set) + ", expected " + hash);
      samples.push_back(from_json(json, config));
      if (samples.back().index != line - 1)
        throw std::runtime_error(
            fmt::format("index = {}, expected {}", samples.back().index, line - 1));
    } catch (const std::runtime_error& error) {
      throw bad_file(fmt::format("{}:{}", path, line),
                     std::string(error.what()) + "; remove the file to have it made again");
    }
    begin = end + 1;
  }
  if (static_cast<int64_t>(samples.size()) != config.samples) {
    throw bad_file(path, fmt::format("holds {} samples, expected {}; remove the file to have it "
                                     "made again",
                                     samples.size(), config.samples));
  }
  return samples;
}

}  // namespace tandem
