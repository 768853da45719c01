#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace tandem {

/// CRC-32C (Castagnoli), as iSCSI and TensorBoard use it; crc32c("123456789") = e3069283. Continues from `crc`.
/// Uses the SSE4.2 instruction where the CPU has it.
uint32_t crc32c(std::span<const std::byte> data, uint32_t crc = 0);
/// The same by tables, for CPUs without the instruction.
uint32_t crc32c_portable(std::span<const std::byte> data, uint32_t crc = 0);

/// SHA-256 (FIPS 180-4) as 64 hex digits. Uses the SHA instructions where the CPU has them.
std::string sha256_hex(std::span<const std::byte> data);
inline std::string sha256_hex(std::string_view text) {
  return sha256_hex(std::as_bytes(std::span(text)));
}
/// The same without them.
std::string sha256_hex_portable(std::span<const std::byte> data);

/// SHA-256 of data that comes in pieces.
class Sha256 {
 public:
  Sha256();
  void update(std::span<const std::byte> data);
  std::string hex();  ///< finishes; call once

 private:
  using Block = void (*)(uint32_t* state, const std::byte* block);
  explicit Sha256(Block block);
  friend std::string sha256_hex_portable(std::span<const std::byte> data);
  Block block_;  // takes 64 bytes into the state
  uint32_t h_[8];
  uint64_t length_ = 0;
  std::byte buffer_[64];
};

}  // namespace tandem
