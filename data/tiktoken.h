#pragma once
#include <memory>
#include <string>
#include <vector>

#include "data/tokenizer.h"

namespace tandem {

/// Names that .tiktoken files are known by: gpt2, r50k_base, p50k_base, cl100k_base, yoco_cl100k_base, llama3 (special tokens of Llama 3.2), qwen (NFC first). Each says the pattern, the special tokens,
/// by how much ids are shifted, and the ranks: a file that has more, fewer or others is refused. Vocabularies of one's own, of any size, are gpt2_ranks or cl100k_ranks: the pattern
/// of that name, and <|endoftext|> right behind the highest rank.
std::vector<std::string> tiktoken_names();

/// A file of lines `base64(bytes) SPACE rank` as the tokenizer `name`, one of the above. yoco_cl100k_base is cl100k_base with ids 0 <s>, 1 <pad>, 2 </s>, 3 <unk>, every rank shifted by 4, special tokens to 100285
/// and a vocabulary of 100288 (YOCO, official code). Throws bad_file for a missing or damaged file or the ranks of another tokenizer, bad_usage for an unknown name, naming those that are known.
std::unique_ptr<Tokenizer> load_tiktoken(const std::string& path, const std::string& name);
/// The same of bytes that were read from `path`.
std::unique_ptr<Tokenizer> parse_tiktoken(std::string model, const std::string& path, const std::string& name);

}  // namespace tandem
