#include "core/checksum.h"

#include <gtest/gtest.h>

#include <vector>

#include "core/random.h"
#include "tests/core/helpers.h"

namespace tandem {
namespace {

std::vector<std::byte> random_bytes(size_t n, uint64_t seed) {
  std::vector<std::byte> bytes(n);
  const RandomStream stream(seed);
  for (size_t i = 0; i < n; ++i) bytes[i] = static_cast<std::byte>(stream.below(i, 256));
  return bytes;
}

TEST(Crc32cTest,
     KnownAnswers) {  // RFC 3720, appendix B.4, and the check value of the CRC catalogue
  for (const auto crc : {crc32c, crc32c_portable}) {
    EXPECT_EQ(crc(bytes_of("123456789"), 0), 0xe3069283u);
    EXPECT_EQ(crc({}, 0), 0u);
    EXPECT_EQ(crc(std::vector<std::byte>(32), 0), 0x8a9136aau);
    EXPECT_EQ(crc(std::vector<std::byte>(32, std::byte{0xff}), 0), 0x62a8ab43u);
    std::vector<std::byte> rising(32);
    for (size_t i = 0; i < 32; ++i) rising[i] = static_cast<std::byte>(i);
    EXPECT_EQ(crc(rising, 0), 0x46dd794eu);
  }
}

TEST(Crc32cTest, InstructionAndTablesAgreeAtEveryLengthAndAlignment) {
  const auto bytes = random_bytes(1100, 3);
  for (size_t begin = 0; begin < 9; ++begin) {
    for (size_t n = 0; n < 70; ++n) {
      const auto piece = std::span(bytes).subspan(begin, n);
      ASSERT_EQ(crc32c(piece, 0x12345678), crc32c_portable(piece, 0x12345678))
          << begin << ", " << n;
    }
  }
  EXPECT_EQ(crc32c(bytes), crc32c_portable(bytes));
}

TEST(Crc32cTest, ContinuesFromPieces) {
  const auto bytes = random_bytes(100, 4);
  for (size_t cut = 0; cut <= bytes.size(); cut += 7) {
    const uint32_t first = crc32c(std::span(bytes).first(cut));
    EXPECT_EQ(crc32c(std::span(bytes).subspan(cut), first), crc32c(bytes));
  }
}

TEST(Sha256Test, KnownAnswers) {  // FIPS 180-4 examples of NIST
  EXPECT_EQ(sha256_hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_hex("abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_hex(bytes_of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(sha256_hex(bytes_of(std::string(1'000'000, 'a'))),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256Test, EveryLengthUpTo131InPiecesOf37) {  // every way the padding can fall
  std::vector<std::byte> bytes(131);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i);
  std::string all;
  for (size_t n = 0; n <= bytes.size(); ++n) {
    const auto data = std::span(bytes).first(n);
    Sha256 sha;
    for (size_t begin = 0; begin < n; begin += 37) {
      sha.update(data.subspan(begin, std::min<size_t>(37, n - begin)));
    }
    all += sha.hex();
    EXPECT_EQ(all.substr(64 * n), sha256_hex(data));
    EXPECT_EQ(all.substr(64 * n), sha256_hex_portable(data));
  }
  // The sum of all these sums as text, from Python's hashlib.
  EXPECT_EQ(sha256_hex(bytes_of(all)),
            "9a64b3a7da91eb5df5008ce96ba47f6e06ed91eaa8b989983470360849ceaa7d");
}

}  // namespace
}  // namespace tandem
