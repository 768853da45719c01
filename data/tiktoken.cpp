#include "data/tiktoken.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <stdexcept>
#include <utility>

#include "core/error.h"
#include "core/file.h"
#include "data/byte_level_tokenizer.h"

namespace tandem {
namespace {

struct SpecialToken {
  std::string text;
  int32_t rank;  // its id before the shift
};
using SpecialTokens = std::vector<SpecialToken>;

SpecialTokens gpt2_specials() { return {{"<|endoftext|>", 50256}}; }

SpecialTokens cl100k_specials() {
  return {{"<|endoftext|>", 100257},
          {"<|fim_prefix|>", 100258},
          {"<|fim_middle|>", 100259},
          {"<|fim_suffix|>", 100260},
          {"<|endofprompt|>", 100276}};
}

// The official code gives two texts the rank 100276.
SpecialTokens yoco_specials() {
  SpecialTokens specials = cl100k_specials();
  int32_t rank = 100264;
  for (const char* text :
       {"<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>", "<reponame>", "<filename>",
        "<gh_stars>", "<issue_start>", "<issue_comment>", "<issue_closed>", "<jupyter_start>",
        "<jupyter_text>", "<jupyter_code>", "<jupyter_output>", "<empty_output>", "<commit_before>",
        "<commit_msg>", "<commit_after>"}) {
    specials.push_back({text, rank++});
  }
  return specials;
}

SpecialTokens numbered(std::vector<std::string> names, const std::string& stem, int from, int n,
                       int32_t first_rank) {
  for (int i = 0; i < n; ++i) names.push_back(stem + std::to_string(from + i) + "|>");
  SpecialTokens specials;
  for (const std::string& name : names) specials.push_back({name, first_rank++});
  return specials;
}

SpecialTokens llama3_specials() {  // as of Llama 3.2
  return numbered({"<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>",
                   "<|reserved_special_token_1|>", "<|finetune_right_pad_id|>", "<|step_id|>",
                   "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>",
                   "<|python_tag|>", "<|image|>"},
                  "<|reserved_special_token_", 2, 244, 128000);
}

SpecialTokens qwen_specials() {
  return numbered({"<|endoftext|>", "<|im_start|>", "<|im_end|>"}, "<|extra_", 0, 205, 151643);
}

struct Encoding {
  const char* name;
  SplitPattern pattern;
  int32_t n_ranks;              // as many, and the highest of them; 0, 0: any, the only special
  int32_t highest_rank;         // token being behind the highest
  SpecialTokens (*specials)();  // null with these
  const char *bos, *eos;
  bool nfc = false;
  std::vector<std::string> before_ranks = {};  // special ids below the ranks, never matched in text
  int64_t vocab_multiple = 1;
};

const std::vector<Encoding>& encodings() {
  static const char* const end = "<|endoftext|>";
  static const std::vector<Encoding> all = {
      {"gpt2", SplitPattern::kGpt2, 50256, 50255, gpt2_specials, end, end},
      {"r50k_base", SplitPattern::kGpt2, 50256, 50255, gpt2_specials, end, end},
      // There the special token has a rank in the middle, 50256, and spaces those above it.
      {"p50k_base", SplitPattern::kGpt2, 50280, 50280, gpt2_specials, end, end},
      {"cl100k_base", SplitPattern::kCl100k, 100256, 100255, cl100k_specials, end, end},
      {"yoco_cl100k_base",
       SplitPattern::kCl100k,
       100256,
       100255,
       yoco_specials,
       "<s>",
       "</s>",
       false,
       {"<s>", "<pad>", "</s>", "<unk>"},
       8},
      {"llama3", SplitPattern::kCl100k, 128000, 127999, llama3_specials, "<|begin_of_text|>",
       "<|end_of_text|>"},
      {"qwen", SplitPattern::kQwen, 151643, 151642, qwen_specials, end, end, true},
      {"gpt2_ranks", SplitPattern::kGpt2, 0, 0, nullptr, end, end},
      {"cl100k_ranks", SplitPattern::kCl100k, 0, 0, nullptr, end, end},
  };
  return all;
}

/// The bytes that `text` spells in base64 (RFC 4648, with padding); empty when it does not.
std::string from_base64(std::string_view text) {
  static const std::array<int, 256> values = [] {
    std::array<int, 256> table;
    table.fill(-1);
    const std::string_view digits =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < digits.size(); ++i) {
      table[static_cast<unsigned char>(digits[i])] = static_cast<int>(i);
    }
    return table;
  }();
  if (text.size() % 4 != 0) return "";
  for (int padding = 0; padding < 2 && text.ends_with('='); ++padding) text.remove_suffix(1);
  std::string bytes;
  uint32_t bits = 0;
  int n_bits = 0;
  for (const char c : text) {
    const int value = values[static_cast<unsigned char>(c)];
    if (value < 0) return "";
    bits = bits << 6 | static_cast<uint32_t>(value);
    n_bits += 6;
    if (n_bits < 8) continue;
    n_bits -= 8;
    bytes.push_back(static_cast<char>(bits >> n_bits & 0xFF));
  }
  if ((bits & ((1u << n_bits) - 1)) != 0) return "";  // left over bits are zeros
  return bytes;
}

/// The bytes of each id; empty where there is none.
std::vector<std::string> read_ranks(std::string_view text, int32_t shift) {
  std::vector<std::string> tokens;
  for (int64_t line_number = 1; !text.empty(); ++line_number) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    if (line.empty()) continue;
    const auto fail = [&](const std::string& what) {
      return std::runtime_error("line " + std::to_string(line_number) + ": " + what);
    };
    const size_t space = line.find(' ');
    const std::string bytes = from_base64(line.substr(0, space));
    int32_t rank = -1;
    if (space != line.npos) {
      const auto [end, error] =
          std::from_chars(line.data() + space + 1, line.data() + line.size(), rank);
      if (error != std::errc() || end != line.data() + line.size()) rank = -1;
    }
    if (bytes.empty() || rank < 0) throw fail("found " + one_line(line) + ", expected BASE64 RANK");
    if (rank >= kMaxTokenId - shift) {
      throw fail("rank " + std::to_string(rank) + ", expected at most " +
                 std::to_string(kMaxTokenId - shift - 1));
    }
    if (bytes.size() > kMaxTokenBytes) {
      throw fail("a token of " + std::to_string(bytes.size()) + " bytes, expected at most " +
                 std::to_string(kMaxTokenBytes));
    }
    const auto id = static_cast<size_t>(rank + shift);
    if (id >= tokens.size()) tokens.resize(id + 1);
    if (!tokens[id].empty()) throw fail("rank " + std::to_string(rank) + " is there twice");
    tokens[id] = bytes;
  }
  if (tokens.empty()) throw std::runtime_error("empty, expected lines of BASE64 RANK");
  return tokens;
}

/// Throws unless there are as many ranks as the name says up to the highest that it says: another
/// tokenizer's would give wrong ids without any error.
void check_ranks(const Encoding& encoding, const std::vector<std::string>& tokens, int32_t shift) {
  if (encoding.specials == nullptr) return;
  const auto n = std::count_if(tokens.begin(), tokens.end(),
                               [](const std::string& bytes) { return !bytes.empty(); });
  const auto highest = static_cast<int64_t>(tokens.size()) - 1 - shift;
  if (n == encoding.n_ranks && highest == encoding.highest_rank) return;
  throw std::runtime_error(std::to_string(n) + " ranks up to " + std::to_string(highest) +
                           ", expected the " + std::to_string(encoding.n_ranks) + " up to " +
                           std::to_string(encoding.highest_rank) + " of " + encoding.name +
                           "; these are another tokenizer's or damaged");
}

std::unique_ptr<Tokenizer> make(const Encoding& encoding, std::string model,
                                const std::string& name) {
  const auto shift = static_cast<int32_t>(encoding.before_ranks.size());
  auto tokens = read_ranks(model, shift);
  check_ranks(encoding, tokens, shift);
  std::vector<AddedToken> added;
  for (int32_t id = 0; id < shift; ++id) {
    added.push_back(
        {.content = encoding.before_ranks[id], .id = id, .special = true, .written = false});
  }
  auto size = static_cast<int64_t>(tokens.size());
  const SpecialTokens specials = encoding.specials != nullptr
                                     ? encoding.specials()
                                     : SpecialTokens{{encoding.eos, static_cast<int32_t>(size)}};
  for (const auto& [text, rank] : specials) {
    const int32_t id = rank + shift;
    if (static_cast<size_t>(id) < tokens.size() && !tokens[id].empty()) {
      throw std::runtime_error("rank " + std::to_string(rank) + " is " + text + " in " +
                               encoding.name + "; these are another tokenizer's ranks");
    }
    // The original looks for them in the text that is in normal form already.
    added.push_back({.content = text, .id = id, .special = true, .normalized = encoding.nfc});
    size = std::max<int64_t>(size, id + 1);
  }
  const auto id_of = [&](std::string_view text) {
    return std::find_if(added.begin(), added.end(),
                        [&](const AddedToken& token) { return token.content == text; })
        ->id;
  };
  const int32_t bos = id_of(encoding.bos), eos = id_of(encoding.eos);
  const int64_t multiple = encoding.vocab_multiple;
  return make_byte_level_tokenizer({.bpe = ByteBpe::from_ranks(std::move(tokens)),
                                    .pattern = encoding.pattern,
                                    .nfc = encoding.nfc,
                                    .added = std::move(added),
                                    .vocab_size = (size + multiple - 1) / multiple * multiple,
                                    .bos = bos,
                                    .eos = eos,
                                    .model_bytes = std::move(model),
                                    .file_name = std::string(encoding.name) + ".tiktoken",
                                    .name = name});
}

const Encoding& encoding_of(const std::string& name, const std::string& path) {
  std::string known;
  for (const Encoding& each : encodings()) {
    if (each.name == name) return each;
    known += (known.empty() ? "" : ", ") + std::string(each.name);
  }
  throw bad_usage(path + ": unknown tokenizer name " + one_line(name) + "; known are " + known);
}

}  // namespace

std::vector<std::string> tiktoken_names() {
  std::vector<std::string> names;
  for (const Encoding& encoding : encodings()) names.push_back(encoding.name);
  return names;
}

std::unique_ptr<Tokenizer> parse_tiktoken(std::string model, const std::string& path,
                                          const std::string& name) {
  const Encoding& encoding = encoding_of(name, path);
  const bool named_by_file = ("/" + path).ends_with("/" + name + ".tiktoken");
  try {
    return make(encoding, std::move(model), named_by_file ? path : name + ":" + path);
  } catch (const std::runtime_error& error) {
    throw bad_file(path, error.what());
  }
}

std::unique_ptr<Tokenizer> load_tiktoken(const std::string& path, const std::string& name) {
  encoding_of(name, path);
  return parse_tiktoken(read_text(path, kMaxVocabularyFileBytes), path, name);
}

}  // namespace tandem
