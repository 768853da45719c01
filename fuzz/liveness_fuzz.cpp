// Any bytes from a connection of comm/liveness, in pieces: the same messages however they are cut,
// each written again as it came, each loss in one line.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "comm/liveness_message.h"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

struct Messages {
  std::string written;
  bool malformed = false;  // what comes after them
  bool operator==(const Messages&) const = default;
};

/// The messages of `bytes`, which arrive `piece` at a time.
Messages read(std::string_view bytes, size_t piece) {
  tandem::MessageReader reader;
  Messages messages;
  try {
    for (; !bytes.empty(); bytes.remove_prefix(std::min(piece, bytes.size()))) {
      reader.add(bytes.substr(0, piece));
      while (const auto message = reader.next()) {
        messages.written += tandem::encode(*message);
        if (const auto* loss = std::get_if<tandem::LostRank>(&*message))
          require(loss->line().find('\n') == std::string::npos);
      }
    }
  } catch (const tandem::MalformedMessage&) {
    messages.malformed = true;
  }
  return messages;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const Messages whole = read(bytes, size);
  require(whole == read(bytes, 1) && whole == read(bytes, 7));
  require(bytes.starts_with(whole.written));
  return 0;
}
