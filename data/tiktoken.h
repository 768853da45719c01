#pragma once
#include <memory>
#include <string>
#include <vector>

#include "data/tokenizer.h"

namespace tandem {

/// Names that .tiktoken files are known by: gpt2, r50k_base, p50k_base, cl100k_base, yoco_cl100k_base, llama3 (special tokens of Llama 3.2), qwen (NFC first). Each says the pattern, the special tokens
/// and by how much ids are shifted.
std::vector<std::string> tiktoken_names();

/// A file of lines `base64(bytes) SPACE rank` as the tokenizer `name`, one of the above. yoco_cl100k_base is cl100k_base with ids 0 <s>, 1 <pad>, 2 </s>, 3 <unk>, every rank shifted by 4, special tokens to 100285
/// and a vocabulary of 100288 (YOCO, official code). Throws bad_file for a missing or damaged file, bad_usage for an unknown name, naming those that are known.
std::unique_ptr<Tokenizer> load_tiktoken(const std::string& path, const std::string& name);
/// The same of bytes that were read from `path`.
std::unique_ptr<Tokenizer> parse_tiktoken(std::string model, const std::string& path, const std::string& name);

}  // namespace tandem
