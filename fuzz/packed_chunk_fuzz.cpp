// Any bytes as a packed chunk: accepted when its tokens fill it, or refused with a UserError.
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string_view>

#include "core/error.h"
#include "data/packed_chunks.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tandem;
  try {
    const auto header = parse_packed_chunk(std::as_bytes(std::span(data, size)), "fuzz.bin");
    const auto held = static_cast<int64_t>(size) - kPackedChunkHeaderBytes;
    const bool filled = header.dtype != nullptr && header.dtype->code > 0 && header.tokens >= 0 &&
                        held == header.tokens * header.dtype->bytes;
    if (!filled) std::abort();
  } catch (const UserError& error) {
    const std::string_view message = error.what();
    if (error.exit_code() != kExitBadFile || !message.starts_with("fuzz.bin: ") ||
        message.find('\n') != message.npos) {
      std::abort();
    }
  }
  return 0;
}
