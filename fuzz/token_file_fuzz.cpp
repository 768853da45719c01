// Any bytes as an .idx: accepted with a consistent table of documents, or refused with a UserError.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string_view>

#include "core/error.h"
#include "data/token_index.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tandem;
  try {
    const TokenIndex index = parse_token_index(std::as_bytes(std::span(data, size)), "fuzz.idx");
    const auto& begin = index.document_begin;
    const bool consistent = index.dtype != nullptr && index.dtype->code > 0 && !begin.empty() &&
                            begin.front() == 0 && std::is_sorted(begin.begin(), begin.end());
    if (!consistent) std::abort();
  } catch (const UserError& error) {
    const std::string_view message = error.what();
    if (error.exit_code() != kExitBadFile || !message.starts_with("fuzz.idx: ") ||
        message.find('\n') != message.npos) {
      std::abort();
    }
  }
  return 0;
}
