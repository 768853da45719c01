#pragma once
#include <memory>
#include <string>

#include "data/tokenizer.h"

namespace tandem {

/// A Hugging Face tokenizer.json of byte-level BPE, as of GPT-2, GPT-NeoX, Pythia, Llama-3 and Qwen2. Ids are those of its library's encode(add_special_tokens=False), but for
/// characters that its Unicode tables know otherwise than utf8proc's (data/unicode.h, and data/normal_form.h for the order of 108 combining marks). A normalizer other than NFC (or
/// none), a pre-tokenizer other than ByteLevel or Split + ByteLevel with a pattern of data/pretokenizer.h, a model other than BPE, dropout, byte fallback, and added tokens that are stripped or single
/// words are refused by name: a guess would give other ids without any error. BOS and EOS are the special tokens called <|endoftext|>, <|begin_of_text|>, <|end_of_text|>, <s>, </s>, where exactly one
/// of the kind is there.
/// Throws bad_file for a missing, damaged or refused one.
std::unique_ptr<Tokenizer> load_hf_tokenizer(const std::string& path);
/// The same of bytes that were read from `path`.
std::unique_ptr<Tokenizer> parse_hf_tokenizer(std::string json, const std::string& path);

}  // namespace tandem
