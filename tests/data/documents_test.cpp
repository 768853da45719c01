#include "data/documents.h"

#include <gtest/gtest.h>
#include <zstd.h>

#include "data/utf8.h"
#include "tests/data/temp_folder.h"

namespace tandem {
namespace {

using Strings = std::vector<std::string>;

class DocumentsTest : public testing::Test {
 protected:
  Strings read(const std::string& name, SplitText split = SplitText::kFile,
               const std::string& key = "text") {
    Strings documents;
    counts_ = for_each_document(folder_ / name, key, split,
                                [&](std::string_view text) { documents.emplace_back(text); });
    return documents;
  }
  static std::string packed(const std::string& text) {
    std::string out(ZSTD_compressBound(text.size()), '\0');
    out.resize(ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 1));
    return out;
  }
  TempFolder folder_;
  DocumentCounts counts_;
};

TEST_F(DocumentsTest, AFileIsADocument) {
  write_file(folder_ / "a.txt", "one\n\n two\r\nthree");
  EXPECT_EQ(read("a.txt"), Strings{"one\n\n two\r\nthree"});
  EXPECT_EQ(counts_.files, 1);
  EXPECT_EQ(counts_.documents, 1);
  EXPECT_EQ(counts_.bytes, 16);
}

TEST_F(DocumentsTest, BlankLinesCut) {
  write_file(folder_ / "a.txt", "\n \t\none\n two\n\n\r\nthree\n  \nfour");
  EXPECT_EQ(read("a.txt", SplitText::kBlankLine), (Strings{"one\n two\n", "three\n", "four"}));
}

TEST_F(DocumentsTest, FoldersAreWalkedInSortedOrder) {
  write_file(folder_ / "d/b.txt", "b");
  write_file(folder_ / "d/a/z.txt", "z");
  write_file(folder_ / "d/c.jsonl", "{\"text\": \"c\"}\n");
  write_file(folder_ / "d/.hidden", "h");
  EXPECT_EQ(read("d"), (Strings{"z", "b", "c"}));
  EXPECT_EQ(counts_.files, 3);
  std::filesystem::create_directory(folder_ / "e");
  EXPECT_EQ(error_of([&] { read("e"); }), folder_ / "e" + ": a folder without files");
  EXPECT_EQ(error_of([&] { read("none"); }),
            folder_ / "none" + ": cannot open: No such file or directory");
}

TEST_F(DocumentsTest, JsonLinesGiveTheTextUnderTheKey) {
  write_file(folder_ / "a.jsonl",
             "\xEF\xBB\xBF{\"text\": \"a\\n\\u00e9\\u0000\", \"x\": 1}\r\n\n{\"text\": "
             "\"\"}\n{\"text\": \"last\"}");
  EXPECT_EQ(read("a.jsonl"), (Strings{std::string("a\n\xC3\xA9\0", 5), "", "last"}));
  write_file(folder_ / "b.jsonl", "{\"content\": \"c\", \"text\": \"t\"}");
  EXPECT_EQ(read("b.jsonl", SplitText::kFile, "content"), Strings{"c"});
}

TEST_F(DocumentsTest, BadLinesAreCountedAndTheNextOneIsRead) {
  write_file(
      folder_ / "a.jsonl",
      "{\"text\": \"a\"}\n[1]\n{\"other\": 1}\n{\"text\": 7}\n{\"text\": \"b\"}\n{\"text\": \n"
      "{\"text\": \"\\ud800\"}\n{\"text\": \"x\", \"text\": \"y\"}\n{\"text\": \"c\"}\n");
  EXPECT_EQ(read("a.jsonl"), (Strings{"a", "b", "c"}));
  EXPECT_EQ(counts_.documents, 3);
  EXPECT_EQ(counts_.bad_lines, 6);
  ASSERT_EQ(counts_.first_errors.size(), 5u);
  const std::string file = folder_ / "a.jsonl";
  EXPECT_EQ(counts_.first_errors[0], file + ":2: expected a JSON object");
  EXPECT_EQ(counts_.first_errors[1], file + ":3: no key \"text\"");
  EXPECT_EQ(counts_.first_errors[2], file + ":4: \"text\" is not a string");
  EXPECT_TRUE(counts_.first_errors[3].starts_with(file + ":6: ")) << counts_.first_errors[3];
  EXPECT_TRUE(counts_.first_errors[4].starts_with(file + ":7: ")) << counts_.first_errors[4];
}

TEST_F(DocumentsTest, ZstdIsUnpacked) {
  std::string lines, text;
  for (int i = 0; i < 30000; ++i) {  // more than one buffer
    const std::string word = "word" + std::to_string(i * 7919 % 30011);
    lines += "{\"text\": \"" + word + "\"}\n";
    text += word + "\n";
  }
  const std::string frame = packed(lines);
  write_file(folder_ / "a.jsonl.zst", frame + packed("{\"text\": \"second frame\"}\n"));
  const Strings documents = read("a.jsonl.zst");
  ASSERT_EQ(documents.size(), 30001u);
  EXPECT_EQ(documents[29999], "word25016");  // 29999 * 7919 mod 30011
  EXPECT_EQ(documents[30000], "second frame");

  write_file(folder_ / "b.txt.zst", packed(text));
  EXPECT_EQ(read("b.txt.zst"), Strings{text});

  for (const size_t size : {size_t{1} << 18, size_t{2} << 18}) {  // buffers that end with the frame
    const std::string exact(size, 'x');
    write_file(folder_ / "exact.txt.zst", packed(exact));
    EXPECT_EQ(read("exact.txt.zst"), Strings{exact}) << size;
    write_file(folder_ / "exact.txt.zst", packed(exact) + packed("y"));
    EXPECT_EQ(read("exact.txt.zst"), Strings{exact + "y"}) << size;
  }

  write_file(folder_ / "c.jsonl.zst", frame.substr(0, frame.size() - 3));
  EXPECT_EQ(error_of([&] { read("c.jsonl.zst"); }),
            folder_ / "c.jsonl.zst" + ": zstd data ends in the middle of a frame");
  write_file(folder_ / "d.jsonl.zst", "not packed at all");
  EXPECT_EQ(error_of([&] { read("d.jsonl.zst"); }),
            folder_ / "d.jsonl.zst" + ": damaged zstd data: Unknown frame descriptor");
  write_file(folder_ / "e.txt.gz", "x");
  EXPECT_EQ(error_of([&] { read("e.txt.gz"); }),
            folder_ / "e.txt.gz" + ": gzip is not read; unpack it or pack it with zstd");
}

TEST_F(DocumentsTest, InvalidUtf8IsReplacedAndCounted) {
  write_file(folder_ / "a.txt",
             "ok \xC3\xA9 \xFF"
             "bad\xE2\x82");
  EXPECT_EQ(read("a.txt"), Strings{"ok \xC3\xA9 \xEF\xBF\xBD"
                                   "bad\xEF\xBF\xBD\xEF\xBF\xBD"});
  EXPECT_EQ(counts_.repaired, 1);
  write_file(folder_ / "a.jsonl", "{\"text\": \"a\xFF\"}\n{\"text\": \"b\"}\n");
  EXPECT_EQ(read("a.jsonl"), (Strings{"a\xEF\xBF\xBD", "b"}));
  EXPECT_EQ(counts_.repaired, 1);
  EXPECT_EQ(counts_.bad_lines, 0);
}

TEST(Utf8Test, AcceptsWhatUnicodeDefinesAndNothingElse) {
  // Every code point's encoding is valid, written here from the definition; surrogates are not
  // characters.
  for (uint32_t c = 0; c <= 0x10FFFF; ++c) {
    std::string s;
    if (c < 0x80) {
      s = {static_cast<char>(c)};
    } else if (c < 0x800) {
      s = {static_cast<char>(0xC0 | c >> 6), static_cast<char>(0x80 | (c & 63))};
    } else if (c < 0x10000) {
      s = {static_cast<char>(0xE0 | c >> 12), static_cast<char>(0x80 | (c >> 6 & 63)),
           static_cast<char>(0x80 | (c & 63))};
    } else {
      s = {static_cast<char>(0xF0 | c >> 18), static_cast<char>(0x80 | (c >> 12 & 63)),
           static_cast<char>(0x80 | (c >> 6 & 63)), static_cast<char>(0x80 | (c & 63))};
    }
    const bool surrogate = c >= 0xD800 && c < 0xE000;
    ASSERT_EQ(utf8_length(s), surrogate ? 0 : s.size()) << c;
    if (s.size() > 1) {
      ASSERT_EQ(utf8_length(s.substr(0, s.size() - 1)), 0u) << c;
    }
  }
  for (const char* bad : {"\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xF0\x8F\xBF\xBF",
                          "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\x80", ""}) {
    EXPECT_EQ(utf8_length(bad), 0u);
  }
}

}  // namespace
}  // namespace tandem
