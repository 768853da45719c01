// Any bytes as an .idx: accepted with a consistent table of documents, or refused with a UserError.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "core/error.h"
#include "data/token_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tandem;
  try {
    const TokenIndex index = parse_token_index(std::as_bytes(std::span(data, size)), "fuzz.idx");
    const auto& begin = index.document_begin;
    const bool consistent = token_dtype_name(index.dtype_code) != nullptr && !begin.empty() &&
                            begin.front() == 0 && std::is_sorted(begin.begin(), begin.end());
    if (!consistent) std::abort();
  } catch (const UserError& error) {
    if (error.exit_code() != kExitBadFile) std::abort();
  }
  return 0;
}
