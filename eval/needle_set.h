#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/config.h"
#include "data/tokenizer.h"

// Needle sets: questions about a long text in which facts ("needles") were hidden. A set depends on its NeedleSetConfig, the tokenizer and the haystack alone; it is generated once, verified, and kept
// as JSON lines in RULER's shape. Nothing here knows a model.

namespace tandem {

/// One question: the prompt is `input` + `answer_prefix`, and the answer should contain `outputs`.
struct NeedleSample {
  int64_t index = 0;
  std::string input;                  // instruction, text with the needles, question
  std::string answer_prefix;          // how the answer begins; not part of `input`
  std::vector<std::string> outputs;   // what must be found in the answer: "4213", or several
  std::vector<std::string> decoys;    // wrong answers of the same form: other needles' values first, then fresh ones; none is among `outputs`
  int64_t length = 0;                 // tokens of input + answer_prefix, BOS included where the protocol has one
  double depth = 0;                   // where the needle asked for stands, 0 = start, 1 = end
  std::vector<int64_t> token_position_answer;  // first token of each output within input
};

/// What makes a set. One set is one cell of a heat map: one length, one depth.
struct NeedleSetConfig {
  std::string protocol = "yoco";      // yoco | ruler | block-transformer | lwm | gkamradt | phonebook
  std::string task = "single";        // of the protocol: yoco single, multi; ruler niah_single_1 ...; block-transformer verbatim, gemini_original, gemini_simplified
  int64_t length = 4096;              // tokens of a sample at most
  double depth = 0.5;                 // of the needle asked for; protocols that spread depths over samples say so
  int64_t samples = 10;
  int64_t needles = 1;                // yoco multi: 1, 2, 4, 8; other tasks fix it
  uint64_t seed = 0;
  std::string haystack = "noise";     // a folder or file of essays, the prefix of a token file, or "noise" (RULER's sentences)
  bool remove_needle = false;         // the control: the needle asked for is left out, the question stays
  std::string cache;                  // folder that keeps sets; empty: none is kept
};

/// The set, read from `config.cache` or generated, verified and kept there. Verified means: every needle is in the prompt's tokens, values are unique and stand nowhere else in the text, no
/// sample is longer than config.length. Throws UserError naming the sample and the rule otherwise; bad_usage for a protocol or task that is not known, and for a length too short for its parts.
std::vector<NeedleSample> needle_set(const NeedleSetConfig& config, const Tokenizer& tokenizer);

/// Hash of all that the set depends on (config without `cache`, tokenizer, haystack's content): 16 hex digits.
std::string needle_set_hash(const NeedleSetConfig& config, const Tokenizer& tokenizer);

/// How a protocol's answer is read.
struct NeedleProtocol {
  std::string name;
  std::vector<std::string> tasks;
  int64_t max_new_tokens = 20;        // generated greedily
  bool bos = true;                    // in front of the prompt, where the tokenizer has one
  bool all_outputs = false;           // RULER: score is the share of outputs found; else 1 when the one is found
};
/// By name; throws bad_usage listing those there are.
const NeedleProtocol& needle_protocol(const std::string& name);

/// The ids of a sample's prompt.
std::vector<int64_t> needle_prompt(const NeedleSample& sample, const NeedleProtocol& protocol, const Tokenizer& tokenizer);

}  // namespace tandem
