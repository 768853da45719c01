#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "data/tokenizer.h"

// Needle sets: questions about a long text in which facts ("needles") were hidden. A set depends on
// its NeedleSetConfig, the tokenizer and the haystack alone; it is generated once, verified, and
// kept as JSON lines in RULER's shape. Nothing here knows a model.
//
//   yoco               single           a city's number, 1 to 50000
//                      multi            `needles` of them, asked for the last before the depth
//                      multi_dot        the same in the words of single, "... is 417 . "
//   ruler              niah_single_1    a word's 7-digit number, in noise
//                      niah_single_2    the same in the haystack
//                      niah_single_3    a word's uuid
//                      niah_multikey_1  4 words' numbers, asked for one
//                      niah_multikey_2  a text of nothing else, asked for one
//                      niah_multikey_3  the same with uuids as keys and values
//                      niah_multivalue  4 numbers of one word, asked for all
//                      niah_multiquery  4 words' numbers, asked for all
//   block-transformer  verbatim, gemini_original, gemini_simplified, which are the prompt's ending:
//                                       a city's 7-digit number between any two tokens, 10 more or
//                                       fewer than the depth says
//   lwm                single, 1_of_4, 2_of_4, 4_of_4, asked for of planted: 7-digit numbers
//   gkamradt           single           a city's 7-digit number; the published needle, a thing to
//                                       do in San Francisco, needs a model to judge the answer
//   phonebook          single           a name's 10-digit number among others, two of them examples
//
// Needles stand behind sentences, the last one before their depth, or at lines where the text has
// some of its own (RULER's noise and needles, the phone book). RULER's "essay" is the haystack,
// whatever that is.

namespace tandem {

/// One question: the prompt is `input` + `answer_prefix`, and the answer should contain `outputs`.
struct NeedleSample {
  int64_t index = 0;
  std::string input;                 // instruction, text with the needles, question
  std::string answer_prefix;         // how the answer begins; not part of `input`
  std::vector<std::string> outputs;  // what must be found in the answer: "4213", or several
  // At least 9 wrong answers of the same form: other needles' values first (9 of them where the
  // whole text is needles), then fresh ones, which stand nowhere in the text. None is part of an
  // output, nor an output of it.
  std::vector<std::string> decoys;
  int64_t length = 0;  // tokens of input + answer_prefix, BOS included where the protocol has one
  double depth = 0;    // share of the filler's tokens in front of the (first) needle asked for
  // Where each output begins: number of its first token in needle_prompt(); empty where
  // remove_needle.
  std::vector<int64_t> token_position_answer;
};

/// What makes a set. One set is one cell of a heat map: one length, one depth.
struct NeedleSetConfig {
  std::string protocol = "yoco";  // see above
  std::string task = "single";
  int64_t length =
      4096;  // tokens of a sample at most, with NeedleProtocol::max_new_tokens for the answer
  double depth = 0.5;  // of the needle asked for; where several are, of the first, and the others
                       // stand anywhere
  int64_t samples = 10;
  int64_t needles = 1;  // yoco multi and multi_dot: 1, 2, 4, 8; the other tasks fix it
  uint64_t seed = 0;
  // A folder or file of essays, the prefix of a token file (what comes first of it, about 2^26
  // tokens), or "noise" (RULER's sentences). Documents come in random order, and again when the
  // text is longer than they are.
  std::string haystack = "noise";
  bool remove_needle =
      false;  // the control: the needles asked for are left out, the question and the rest stay
  std::string cache = {};  // folder that keeps sets; empty: none is kept
};

/// The set, read from `config.cache` or generated, verified and kept there. Verified means: every
/// needle is in the prompt's tokens; values stand once in the text, and nowhere where
/// remove_needle; no sample is longer than config.length. A filler that holds a value or a needle's
/// key by chance gets another needle. Sample k depends on neither `samples` nor the machine. Throws
/// UserError naming the sample and the rule otherwise; bad_usage for a protocol or task that is not
/// known, for values out of range and for a length too short for its parts; bad_file for a damaged
/// cache or haystack.
std::vector<NeedleSample> needle_set(const NeedleSetConfig& config, const Tokenizer& tokenizer);

/// Hash of all that the set depends on (config without `cache`, tokenizer, haystack's content): 16
/// hex digits.
std::string needle_set_hash(const NeedleSetConfig& config, const Tokenizer& tokenizer);

/// What the text around the needles is made of: config.haystack, or "noise" or "lines" for tasks
/// that set it themselves, on which config.haystack has no effect.
std::string needle_filler(const NeedleSetConfig& config);

/// How a protocol's answer is read.
struct NeedleProtocol {
  std::string name;
  std::vector<std::string> tasks;
  int64_t max_new_tokens = 20;  // generated greedily
  bool bos = true;              // in front of the prompt, where the tokenizer has one
  bool all_outputs =
      false;  // ruler, lwm: score is the share of outputs found; else 1 when the one is found
};
/// By name; throws bad_usage listing those there are.
const NeedleProtocol& needle_protocol(const std::string& name);

/// The ids of a sample's prompt.
std::vector<int64_t> needle_prompt(const NeedleSample& sample, const NeedleProtocol& protocol,
                                   const Tokenizer& tokenizer);

}  // namespace tandem
