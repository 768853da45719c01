#pragma once
// Megatron's indexed dataset, all little endian and unaligned:
//   .idx  9 bytes "MMIDIDX\0\0", u64 version 1, u8 dtype code (1 u8, 2 i8, 3 i16, 4 i32, 5 i64, 8 u16; GPT-NeoX gives these codes the same meaning), u64 S sequences,
//         u64 D document entries, i32[S] lengths, i64[S] byte offsets into .bin, i64[D] document index (0 ... S)
//   .bin  the tokens, back to back
// One document is one sequence in files written here; files of others may split documents into several sequences.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tandem {

/// A type that tokens are stored in.
struct TokenDtype {
  int code;  // in indices and packed chunks; 0 for uint32, which only headerless files hold
  int64_t bytes;
  const char* name;  // "uint16"
};
const TokenDtype* find_token_dtype(int code);               ///< nullptr for a code that does not stand for tokens (6 and 7 are floats, one way round in Megatron, the other in GPT-NeoX)
const TokenDtype* find_token_dtype(std::string_view name);  ///< nullptr for an unknown name
/// The type of a code that stands in the file `path`. Throws bad_file for one that does not stand for tokens.
const TokenDtype& token_dtype_of(int code, const std::string& path);

/// What an .idx file says, every rule of the format checked; `path` is for messages.
struct TokenIndex {
  const TokenDtype* dtype = nullptr;
  std::vector<int64_t> document_begin;  // first token of each document, and the number of tokens at the end
};
TokenIndex parse_token_index(std::span<const std::byte> idx, const std::string& path);

/// The 34 bytes that an .idx of so many documents, each one sequence, begins with.
std::vector<std::byte> token_index_header(const TokenDtype& dtype, int64_t documents);

/// "books" of "books", "books.bin" and "books.idx".
std::string token_prefix(const std::string& name);

}  // namespace tandem
