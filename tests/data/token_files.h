#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/packing.h"
#include "data/document_view.h"
#include "data/token_file.h"
#include "data/token_file_writer.h"
#include "tests/data/temp_folder.h"

// Small token files, and rows to compare.

namespace tandem {

/// Tokens of all test files are different, so that a token tells where it stood. Returns them.
inline std::vector<int64_t> write_tokens(const std::string& prefix,
                                         const std::vector<int64_t>& lengths, int32_t first = 100) {
  TokenFileWriter writer(prefix, 1 << 20);
  std::vector<int64_t> all;
  for (const int64_t length : lengths) {
    std::vector<int32_t> document;
    for (int64_t i = 0; i < length; ++i) document.push_back(first++);
    all.insert(all.end(), document.begin(), document.end());
    writer.add_document(document);
  }
  writer.publish();
  return all;
}

/// PREFIX.weights, in which every token weighs a tenth of itself: it tells whose weight it is.
inline void write_weights(const std::string& prefix, const std::vector<int64_t>& tokens) {
  std::string bytes;
  for (const int64_t token : tokens) {
    const float weight = static_cast<float>(token) / 10;
    bytes.append(reinterpret_cast<const char*>(&weight), sizeof weight);
  }
  write_file(prefix + ".weights", bytes);
}

/// Documents of 2 and 3 tokens with an empty one before, between and after them.
inline void write_empty_documents(const std::string& prefix) {
  const auto raw = [](auto... values) {
    std::string out;
    ((out.append(reinterpret_cast<const char*>(&values), sizeof values)), ...);
    return out;
  };
  write_file(prefix + ".idx",
             std::string("MMIDIDX\0\0", 9) + raw(int64_t{1}, uint8_t{8}, int64_t{2}, int64_t{6}, 2,
                                                 3, int64_t{0}, int64_t{4}, int64_t{0}, int64_t{0},
                                                 int64_t{1}, int64_t{1}, int64_t{2}, int64_t{2}));
  write_file(prefix + ".bin", raw(uint16_t{1}, uint16_t{2}, uint16_t{3}, uint16_t{4}, uint16_t{5}));
}

inline DocumentView documents_of(const std::string& prefix, const ViewSpec& spec = {},
                                 TargetWeights weights = TargetWeights::kNone) {
  return DocumentView(std::make_shared<TokenFile>(prefix, weights), spec);
}

/// Row `r` of `rows`; weights where `rows` has them.
inline Row row_at(const RowsView& rows, int64_t r) {
  const auto of_row = [&]<typename T>(const T* values) {
    return std::vector<T>(values + r * rows.length, values + (r + 1) * rows.length);
  };
  Row row = {of_row(rows.tokens), of_row(rows.targets), of_row(rows.segment), rows.samples[r]};
  if (rows.weights) row.weights = of_row(rows.weights);
  return row;
}

/// `row` with weights of 1 for its scored targets where it has none: what rows among weighted ones
/// have.
inline Row with_weights(Row row) {
  if (!row.weights.empty()) return row;
  for (const int64_t target : row.targets) row.weights.push_back(target == kIgnored ? 0.f : 1.f);
  return row;
}

inline void expect_same(const Row& a, const Row& b) {
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.targets, b.targets);
  EXPECT_EQ(a.segment, b.segment);
  EXPECT_EQ(a.weights, b.weights);
  EXPECT_EQ(a.sample, b.sample);
}

}  // namespace tandem
