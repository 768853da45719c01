#include <algorithm>
#include <memory>

#include "cli/data_commands.h"
#include "core/checksum.h"
#include "core/error.h"
#include "core/file.h"
#include "core/manifest.h"
#include "core/mapped_file.h"
#include "core/progress.h"
#include "data/tokenize.h"
#include "data/tokenizer.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;
constexpr int64_t kChunk = 1 << 16;

/// What every token must be, from the manifest and from --tokenizer.
struct Rules {
  std::optional<int64_t> vocab_size;
  std::string vocab_of;  // whose vocabulary, for the message
  std::optional<int64_t> bos, eos;
};

/// Checks tokens that come in the order of the file.
class TokenChecks {
 public:
  TokenChecks(const TokenFile& file, Rules rules) : file_(file), rules_(std::move(rules)) {}

  void operator()(int64_t begin, std::span<const int64_t> tokens) {
    for (size_t i = 0; i < tokens.size(); ++i) one(begin + static_cast<int64_t>(i), tokens[i]);
  }
  int64_t largest() const { return largest_; }

 private:
  void one(int64_t at, int64_t token) {
    largest_ = std::max(largest_, token);
    if (rules_.vocab_size && token >= *rules_.vocab_size) {
      throw bad_file(file_.prefix(), "token " + std::to_string(at) + " is " +
                                         std::to_string(token) + ", the vocabulary of " +
                                         rules_.vocab_of + " has " +
                                         std::to_string(*rules_.vocab_size));
    }
    const auto& begins = file_.document_begins();
    while (begins[document_ + 1] <= at) ++document_;
    if (at == begins[document_]) expect("begins", token, rules_.bos, "BOS");
    if (at + 1 == begins[document_ + 1]) expect("ends", token, rules_.eos, "EOS");
  }

  void expect(const char* verb, int64_t token, const std::optional<int64_t>& id,
              const char* what) const {
    if (!id || token == *id) return;
    throw bad_file(file_.prefix(), "document " + std::to_string(document_) + " " + verb +
                                       " with token " + std::to_string(token) +
                                       ", the manifest promises " + what + ", " +
                                       std::to_string(*id));
  }

  const TokenFile& file_;
  Rules rules_;
  size_t document_ = 0;
  int64_t largest_ = -1;
};

struct Verify {
  TokenFileOptions file;
  std::string tokenizer;
  bool json = false;

  void add_to(CLI::App& command) {
    command.footer(
        "Checked are the format's every rule, each token, and what lies beside: the manifest of "
        "`tandem data tokenize`\n(counts, checksums, BOS and EOS of each document) and "
        "PREFIX.weights.\n"
        "Example: tandem data verify data/books --tokenizer tokenizer.model");
    file.add_to(command);
    command.add_option("--tokenizer", tokenizer, "Check that its vocabulary holds every token");
    command.add_flag("--json", json, "Print as JSON");
  }

  int run() {
    const TokenFile tokens = file.open();  // checks all of the format
    const auto manifest = read_token_manifest(tokens.prefix());
    if (manifest) check_manifest(tokens, *manifest);
    TokenChecks check(tokens, rules_of(manifest));
    Progress progress("verify", tokens.tokens(), "tokens");
    std::vector<int64_t> chunk;
    for (int64_t begin = 0; begin < tokens.tokens(); begin += kChunk) {
      chunk.resize(static_cast<size_t>(std::min(kChunk, tokens.tokens() - begin)));
      tokens.read(begin, chunk);  // refuses negative tokens
      check(begin, chunk);
      progress.update(begin + static_cast<int64_t>(chunk.size()));
    }
    progress.finish();
    Json result = {{"path", tokens.prefix()},
                   {"format", tokens.format()},
                   {"documents", tokens.documents()},
                   {"tokens", tokens.tokens()},
                   {"largest_token", check.largest()},
                   {"manifest", manifest ? "agrees" : "none"},
                   {"content_hash", tokens.content_hash()}};
    if (exists(tokens.prefix() + ".weights")) add_weights(result);
    print_result(result, json);
    return kExitDone;
  }

  Rules rules_of(const std::optional<Json>& manifest) const {
    Rules rules;
    if (manifest) {
      const auto& made_by = manifest->at("tokenizer");
      rules.vocab_size = made_by.at("vocab_size").get<int64_t>();
      rules.vocab_of = made_by.at("name").get<std::string>();
      if (!manifest->at("bos").is_null()) rules.bos = manifest->at("bos").get<int64_t>();
      if (!manifest->at("eos").is_null()) rules.eos = manifest->at("eos").get<int64_t>();
    }
    if (!tokenizer.empty()) {
      const auto given = load_tokenizer(tokenizer);
      rules.vocab_size = given->vocab_size();
      rules.vocab_of = tokenizer;
      if (manifest && tokenizer_hash(*given) != manifest->at("tokenizer").at("sha256")) {
        throw bad_file(file.spec.path, "was made by the tokenizer " +
                                           manifest->at("tokenizer").at("name").get<std::string>() +
                                           ", which is not " + tokenizer);
      }
    }
    return rules;
  }

  static void check_manifest(const TokenFile& tokens, const Json& manifest) {
    const std::string path = tokens.prefix() + ".manifest.json";
    const auto agree = [&](const char* key, const Json& found) {
      if (manifest.at(key) == found) return;
      throw bad_file(path, std::string("records ") + key + " " + manifest.at(key).dump() +
                               ", the token file has " + found.dump());
    };
    agree("documents", tokens.documents());
    agree("tokens", tokens.tokens());
    for (const char* part : {"bin", "idx"}) {
      const MappedFile file(tokens.prefix() + "." + part);
      agree((std::string(part) + "_crc32c").c_str(), crc32c_text(crc32c(file.bytes())));
    }
  }

  void add_weights(Json& result) const {
    TokenFileSpec spec = file.spec;
    spec.weights = TargetWeights::kRead;
    const TokenFile tokens(spec);
    int64_t weighed = 0;
    double sum = 0;
    std::vector<float> weights;
    for (int64_t begin = 0; begin < tokens.tokens(); begin += kChunk) {
      weights.resize(static_cast<size_t>(std::min(kChunk, tokens.tokens() - begin)));
      tokens.read_weights(begin, weights);  // refuses what is not finite and >= 0
      for (const float weight : weights) {
        weighed += weight > 0;
        sum += static_cast<double>(weight);
      }
    }
    result["tokens_with_weight"] = weighed;
    result["weight"] = sum;
    result["content_hash_with_weights"] = tokens.content_hash();
  }
};

}  // namespace

DataCommand add_verify(CLI::App& app) {
  const auto command = std::make_shared<Verify>();
  command->add_to(
      *app.add_subcommand("verify", "Check a token file from end to end; exit code 66 on damage"));
  return [command] { return command->run(); };
}

}  // namespace tandem
