#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <ostream>
#include <set>
#include <string>
#include <vector>

#include "core/config.h"
#include "core/error.h"
#include "core/file.h"
#include "core/mapped_file.h"
#include "core/json_lines.h"
#include "core/manifest.h"
#include "core/safetensors.h"
#include "data/documents.h"
#include "data/token_file.h"
#include "data/token_index.h"
#include "data/tokenize.h"
#include "data/tokenizer.h"
#include "tests/paths.h"

// Every damaged file of tests/evil (made by its make.py) is refused by its reader with the exit
// code and the whole message that expected.json holds.

namespace tandem {
namespace {

/// One entry of expected.json.
struct Evil {
  std::string file, reader, message;
  int exit_code = 0;
  nlohmann::ordered_json options;
  std::string folder() const { return parent_of(path()); }
  std::string path() const { return std::string(kSourceDir) + "/tests/evil/" + file; }
  /// `text` with the places filled in.
  std::string filled(std::string text) const {
    for (const auto& [word, value] : {std::pair{"{path}", path()}, {"{folder}", folder()}}) {
      for (size_t at; (at = text.find(word)) != text.npos;)
        text.replace(at, std::string_view(word).size(), value);
    }
    return text;
  }
  /// What the reader is given.
  std::string opened() const { return filled(options.value("open", "{path}")); }
};
std::ostream& operator<<(std::ostream& out, const Evil& evil) { return out << evil.file; }

std::vector<Evil> all() {
  std::vector<Evil> cases;
  for (const auto& entry : read_json(std::string(kSourceDir) + "/tests/evil/expected.json")) {
    cases.push_back(
        {entry.at("file"), entry.at("reader"), entry.at("message"), entry.at("exit_code"), entry});
  }
  return cases;
}

/// A config that make.py tells of.
struct SmallConfig {
  int64_t threads = 1;
  double rate = 0.5;
  std::string kind = "linear";
  std::vector<int64_t> sizes;
  template <typename Visitor>
  void fields(Visitor& visit) {
    visit.value("threads", threads, in_range(1, 64));
    visit.value("rate", rate, above(0));
    visit.one_of("kind", kind, {"linear", "cosine"});
    visit.value("sizes", sizes, at_least(1));
  }
};

void read_tokens(const Evil& evil) {
  TokenFileSpec spec{.path = evil.opened()};
  if (const auto dtype = evil.options.find("dtype");
      dtype != evil.options.end() && !dtype->is_null())
    spec.dtype = *dtype;
  if (evil.options.contains("eos_id")) spec.eos_id = evil.options.at("eos_id");
  if (evil.options.contains("weights")) spec.weights = TargetWeights::kRead;
  const TokenFile file(spec);
  std::vector<int64_t> tokens(static_cast<size_t>(file.tokens()));
  file.read(0, tokens);
  std::vector<float> weights(tokens.size());
  if (file.has_weights()) file.read_weights(0, weights);
}

/// Readers by the name they have in expected.json.
const std::map<std::string, std::function<void(const Evil&)>> kReaders = {
    {"token_index",
     [](const Evil& evil) { parse_token_index(MappedFile(evil.path()).bytes(), evil.path()); }},
    {"token_file", read_tokens},
    {"documents",
     [](const Evil& evil) {
       check_bad_lines(evil.path(), for_each_document(evil.path(), {}, [](std::string_view) {}),
                       /*share=*/0);
     }},
    {"tokenizer", [](const Evil& evil) { load_tokenizer(evil.opened()); }},
    {"safetensors", [](const Evil& evil) { SafetensorsReader(evil.path()); }},
    {"manifest", [](const Evil& evil) { parse_manifest(read_text(evil.path()), evil.path()); }},
    {"yaml", [](const Evil& evil) { parse_yaml_file(evil.path()); }},
    {"config",
     [](const Evil& evil) {
       SmallConfig config;
       read_config(parse_yaml_file(evil.path()), config);
     }},
    {"token_manifest",
     [](const Evil& evil) {
       constexpr std::string_view kEnd = ".manifest.json";
       read_token_manifest(evil.path().substr(0, evil.path().size() - kEnd.size()));
     }},
};

class EvilTest : public testing::TestWithParam<Evil> {};

TEST_P(EvilTest, IsRefusedWithItsMessage) {
  const Evil& evil = GetParam();
  try {
    kReaders.at(evil.reader)(evil);
    FAIL() << "no error, expected: " << evil.filled(evil.message);
  } catch (const UserError& error) {
    EXPECT_EQ(error.what(), evil.filled(evil.message));
    EXPECT_EQ(error.exit_code(), evil.exit_code);
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
  }
}

INSTANTIATE_TEST_SUITE_P(Files, EvilTest, testing::ValuesIn(all()), [](const auto& test) {
  std::string name = test.param.file;
  for (char& c : name) {
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  }
  return name;
});

TEST(EvilSetTest, CoversEveryReader) {
  std::set<std::string> folders, readers;
  const auto cases = all();
  for (const Evil& evil : cases) {
    folders.insert(evil.file.substr(0, evil.file.find('/')));
    readers.insert(evil.reader);
  }
  EXPECT_GE(cases.size(), 250u);
  EXPECT_EQ(readers.size(), kReaders.size());
  for (const char* folder :
       {"documents", "headerless", "manifest", "packed", "safetensors", "sentencepiece", "tiktoken",
        "token_file", "token_index", "token_manifest", "tokenizer_json", "weights", "yaml"}) {
    EXPECT_EQ(folders.count(folder), 1u) << folder;
  }
}

}  // namespace
}  // namespace tandem
