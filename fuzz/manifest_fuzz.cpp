// Any bytes as a manifest.json: a UserError in one line, or a manifest that is written and read
// again as it was. Every second input gets the SHA-256 that it should have, since no other would
// reach what lies behind that check.
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>

#include "core/checksum.h"
#include "core/error.h"
#include "core/manifest.h"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

/// The same text with the SHA-256 it should have at its end.
std::string signed_text(std::string text) {
  constexpr std::string_view kBefore = "\"sha256\": \"", kAfter = "\"\n}\n";
  const size_t at = text.rfind(kBefore);
  text = (at == text.npos ? text : text.substr(0, at)).append(kBefore);
  const std::string without_digits = text + std::string(kAfter);
  return text.append(tandem::sha256_hex(without_digits)).append(kAfter);
}

/// Readers compute with these: every element of the piece must lie in its slice, and that in the
/// parameter.
void check(const tandem::ManifestTensor::Piece& piece) {
  int64_t elements = 1;
  for (size_t d = 0; d < piece.global_shape.size(); ++d) {
    const bool split = static_cast<int>(d) == piece.split_dim;
    if (split)
      require(0 <= piece.split_begin && piece.split_begin < piece.split_end &&
              piece.split_end <= piece.global_shape[d]);
    elements *= split ? piece.split_end - piece.split_begin : piece.global_shape[d];
  }
  require(piece.split_dim >= -1 && piece.split_dim < static_cast<int>(piece.global_shape.size()));
  require(0 <= piece.begin && piece.begin <= piece.end && piece.end <= elements);
}

void read(const std::string& text) {
  using namespace tandem;
  Manifest manifest;
  try {
    manifest = parse_manifest(text, "manifest.json");
  } catch (const UserError& error) {
    const std::string_view message = error.what();
    require(error.exit_code() == kExitBadFile && message.starts_with("manifest.json: "));
    require(message.find('\n') == message.npos);
    return;
  }
  for (const auto& [name, file] : manifest.files) {
    require(!name.empty() && name.find('/') == name.npos && name != ".." &&
            file.bytes <= uint64_t{1} << 53);
    if (!file.tensors) continue;
    for (const auto& [key, tensor] : *file.tensors) {
      if (tensor.piece) check(*tensor.piece);
    }
  }
  const std::string written = manifest_text(manifest);
  require(manifest_text(parse_manifest(written, "written")) == written);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const bool sign = size > 0 && (data[size / 2] ^ size) % 2 == 0;
  read(sign ? signed_text(text) : text);
  return 0;
}
