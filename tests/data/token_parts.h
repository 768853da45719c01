#pragma once
#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "data/token_file.h"
#include "tests/data/temp_folder.h"

// Token files put together byte by byte.

namespace tandem {

inline std::string bytes_of(std::initializer_list<int> values) {
  return std::string(values.begin(), values.end());
}

template <typename T>
std::string raw(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

/// The parts of an index, so that a test can damage one of them.
struct IndexParts {
  std::string magic = bytes_of({'M', 'M', 'I', 'D', 'I', 'D', 'X', 0, 0});
  uint64_t version = 1;
  uint8_t dtype = 8;
  std::vector<int32_t> lengths = {3, 2};
  std::vector<int64_t> offsets = {0, 6};
  std::vector<int64_t> documents = {0, 1, 2};
  std::string tail = "";
  std::string str() const {
    return magic + raw<uint64_t>({version}) + raw<uint8_t>({dtype}) +
           raw<uint64_t>({lengths.size()}) + raw<uint64_t>({documents.size()}) + raw(lengths) +
           raw(offsets) + raw(documents) + tail;
  }
};

/// A packed chunk.
template <typename T>
std::string packed_chunk(uint8_t dtype, const std::vector<T>& tokens) {
  return "LITPKDS" + raw<uint64_t>({1}) + raw<uint8_t>({dtype}) + raw<uint64_t>({tokens.size()}) +
         raw(tokens);
}

/// `message` without the folder's path.
inline std::string relative(const TempFolder& folder, std::string message) {
  const std::string start = folder.path() + "/";
  for (size_t at; (at = message.find(start)) != message.npos;) message.erase(at, start.size());
  return message;
}

inline std::vector<int64_t> all_tokens(const TokenFile& file) {
  std::vector<int64_t> tokens(static_cast<size_t>(file.tokens()));
  file.read(0, tokens);
  return tokens;
}

}  // namespace tandem
