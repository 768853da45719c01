#include "data/unpacked_file.h"

#include <gtest/gtest.h>

#include <random>

#include "core/checksum.h"
#include "tests/data/packed_text.h"
#include "tests/data/temp_folder.h"

namespace tandem {
namespace {

std::string text_of_bytes(size_t n) {  // of some entropy, so that packing leaves several buffers
  std::mt19937 random(7);
  std::string text;
  while (text.size() < n)
    text += "word" + std::to_string(random() % 100003) + (random() % 9 ? " " : "\n");
  text.resize(n);
  return text;
}

class UnpackedFileTest : public testing::Test {
 protected:
  std::string read(const std::string& name, const std::string& bytes) {
    const std::string path = folder_ / name;
    write_file(path, bytes);
    UnpackedFile file(path);
    std::string text;
    uint64_t before = 0;
    for (std::string_view piece = file.next(); !piece.empty(); piece = file.next()) {
      text += piece;
      EXPECT_GE(file.packed_bytes_read(), before);
      before = file.packed_bytes_read();
    }
    EXPECT_EQ(file.next(), "") << "the end stays the end";
    EXPECT_EQ(file.packed_bytes_read(), bytes.size());
    EXPECT_EQ(file.sha256(), sha256_hex(std::as_bytes(std::span(bytes))));
    return text;
  }
  std::string error(const std::string& name, const std::string& bytes) {
    const std::string message = error_of([&] { read(name, bytes); });
    EXPECT_TRUE(message.starts_with(folder_ / name + ": ")) << message;
    return message.substr(std::min(message.size(), (folder_ / name).size() + 2));
  }
  TempFolder folder_;
};

TEST_F(UnpackedFileTest, GivesTheTextAndTheHashOfWhatLiesOnDisk) {
  for (const size_t n :
       {size_t{0}, size_t{1}, size_t{100003}, size_t{1} << 18, (size_t{1} << 20) + 77}) {
    const std::string text = text_of_bytes(n);
    EXPECT_EQ(read("a.txt", text), text) << n;
    EXPECT_EQ(read("a.txt.zst", zstd_packed(text)), text) << n;
    EXPECT_EQ(read("a.txt.gz", gzip_packed(text)), text) << n;
  }
}

TEST_F(UnpackedFileTest, ZerosBehindAGzipMemberAreNoDamage) {
  const std::string text = text_of_bytes(1009), packed = gzip_packed(text);
  EXPECT_EQ(read("a.txt.gz", packed + std::string(300007, '\0')), text);
  EXPECT_EQ(error("a.txt.gz", ""), "gzip data ends in the middle of a member");
}

TEST_F(UnpackedFileTest, AWindowOfTwoGigabytesIsRefused) {
  // A frame as RFC 8878, sec. 3.1.1: magic, no flags, window 2^(10 + 21), one last raw block of 3.
  const std::string packed(
      "\x28\xB5\x2F\xFD\x00\xA8\x19\x00\x00"
      "abc",
      12);
  EXPECT_EQ(error("a.txt.zst", packed),
            "zstd data with a window of more than 128 MiB; pack it again without --long");
}

TEST_F(UnpackedFileTest, FramesAndMembersBackToBackAreJoined) {
  const std::string a = text_of_bytes(300007), b(size_t{1} << 18, 'x');
  EXPECT_EQ(read("a.zst", zstd_packed(a) + zstd_packed(b) + zstd_packed("")), a + b);
  EXPECT_EQ(read("a.gz", gzip_packed(a) + gzip_packed(b) + gzip_packed("")), a + b);
  EXPECT_EQ(read("b.gz", gzip_packed("") + gzip_packed(b) + gzip_packed(a)), b + a);
  std::string many, text;
  for (int i = 0; i < 997; ++i) {  // members end at all places of the buffers
    const std::string piece = text_of_bytes(static_cast<size_t>(i * 13));
    many += gzip_packed(piece);
    text += piece;
  }
  EXPECT_EQ(read("c.gz", many), text);
}

TEST_F(UnpackedFileTest, AMemberKeepsItsName) {
  // printf 'hello\n' > h.txt; gzip -c h.txt: the header holds the file's name.
  const std::string named(
      "\x1f\x8b\x08\x08\0\0\0\0\0\x03h."
      "txt\0\xcb\x48\xcd\xc9\xc9\xe7\x02\0\x20\x30\x3a\x36\x06\0\0\0",
      32);
  EXPECT_EQ(read("h.gz", named), "hello\n");
}

TEST_F(UnpackedFileTest, DamageIsNamed) {
  const std::string text = text_of_bytes(200003), gz = gzip_packed(text), zst = zstd_packed(text);
  constexpr const char* kCutGzip = "gzip data ends in the middle of a member";
  for (const size_t n :
       {size_t{0}, size_t{1}, size_t{9}, size_t{5000}, gz.size() - 9, gz.size() - 1}) {
    EXPECT_EQ(error("a.gz", gz.substr(0, n)), kCutGzip) << n;
  }
  EXPECT_EQ(error("b.gz", gz + gz.substr(0, 11)), kCutGzip);
  EXPECT_EQ(error("c.gz", "not packed at all"), "damaged gzip data: incorrect header check");
  EXPECT_EQ(error("d.gz", gz + "behind"), "damaged gzip data: incorrect header check");
  std::string wrong = gz;
  wrong[wrong.size() - 6] ^= 1;  // of the CRC
  EXPECT_EQ(error("e.gz", wrong), "damaged gzip data: incorrect data check");

  constexpr const char* kCutZstd = "zstd data ends in the middle of a frame";
  for (const size_t n : {size_t{5}, size_t{5000}, zst.size() - 3}) {
    EXPECT_EQ(error("a.zst", zst.substr(0, n)), kCutZstd) << n;
  }
  EXPECT_EQ(error("b.zst", "not packed at all"), "damaged zstd data: Unknown frame descriptor");
  EXPECT_EQ(error_of([&] { UnpackedFile(folder_ / "none.gz"); }),
            folder_ / "none.gz" + ": cannot open: No such file or directory");
}

TEST_F(UnpackedFileTest, AnyFlippedBitOfAGzipBodyIsFound) {
  const std::string gz = gzip_packed(text_of_bytes(3001));
  constexpr size_t kHeader = 10;
  for (size_t i = 0; i < 8 * (gz.size() - kHeader); i += 37) {
    std::string wrong = gz;
    wrong[kHeader + i / 8] ^= static_cast<char>(1 << i % 8);
    const std::string message = error("a.gz", wrong);
    EXPECT_TRUE(message.starts_with("damaged gzip data: ") ||
                message == "gzip data ends in the middle of a member")
        << message;
  }
}

TEST(UnpackedNameTest, LosesTheEnding) {
  EXPECT_EQ(unpacked_name("a/b.jsonl.gz"), "a/b.jsonl");
  EXPECT_EQ(unpacked_name("a/b.txt.zst"), "a/b.txt");
  EXPECT_EQ(unpacked_name("a.gz/b.jsonl"), "a.gz/b.jsonl");
}

}  // namespace
}  // namespace tandem
