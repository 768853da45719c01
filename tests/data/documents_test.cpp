#include "data/documents.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "core/checksum.h"
#include "data/unpacked_file.h"
#include "tests/data/packed_text.h"
#include "tests/data/temp_folder.h"

namespace tandem {
namespace {

using Strings = std::vector<std::string>;

class DocumentsTest : public testing::Test {
 protected:
  Strings read(const std::string& name) {
    Strings documents;
    counts_ = for_each_document(folder_ / name, options_,
                                [&](std::string_view text) { documents.emplace_back(text); });
    return documents;
  }
  Strings read_in_blocks(const std::string& name, size_t block_bytes) {
    Strings documents;
    counts_ = {};
    BlockReader reader(text_files(folder_ / name), options_, block_bytes);
    for (TextBlock block; reader.next(block);) {
      counts_ += for_each_document(block, options_,
                                   [&](std::string_view text) { documents.emplace_back(text); });
    }
    return documents;
  }
  TempFolder folder_;
  DocumentOptions options_;
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
  options_.split = SplitText::kBlankLine;
  write_file(folder_ / "a.txt", "\n \t\none\n two\n\n\r\nthree\n  \nfour");
  EXPECT_EQ(read("a.txt"), (Strings{"one\n two\n", "three\n", "four"}));
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
  options_.json_keys = {"content", "text"};
  EXPECT_EQ(read("b.jsonl"), Strings{"c"});
  EXPECT_EQ(read("a.jsonl").size(), 3u);
}

TEST_F(DocumentsTest, BadLinesAreCountedAndTheNextOneIsRead) {
  write_file(
      folder_ / "a.jsonl",
      "{\"text\": \"a\"}\n[1]\n{\"other\": 1}\n{\"text\": 7}\n{\"text\": \"b\"}\n{\"text\": \n"
      "{\"text\": \"\\ud800\"}\n{\"text\": \"x\", \"text\": \"y\"}\n{\"text\": \"c\"}\n");
  EXPECT_EQ(read("a.jsonl"), (Strings{"a", "b", "c"}));
  EXPECT_EQ(counts_.documents, 3);
  EXPECT_EQ(counts_.lines, 9);
  EXPECT_EQ(counts_.bad_lines, 6);
  ASSERT_EQ(counts_.first_errors.size(), 5u);
  const std::string file = folder_ / "a.jsonl";
  EXPECT_EQ(counts_.first_errors[0], file + ":2: expected a JSON object");
  EXPECT_EQ(counts_.first_errors[1], file + ":3: no key \"text\"");
  EXPECT_EQ(counts_.first_errors[2], file + ":4: \"text\" is not a string");
  EXPECT_TRUE(counts_.first_errors[3].starts_with(file + ":6: ")) << counts_.first_errors[3];
  EXPECT_TRUE(counts_.first_errors[4].starts_with(file + ":7: ")) << counts_.first_errors[4];
}

TEST_F(DocumentsTest, PackedFilesAreUnpacked) {
  std::string lines, text;
  for (int i = 0; i < 30000; ++i) {  // more than one buffer
    const std::string word = "word" + std::to_string(i * 7919 % 30011);
    lines += "{\"text\": \"" + word + "\"}\n";
    text += word + "\n";
  }
  const std::string more = "{\"text\": \"second\"}\n";
  write_file(folder_ / "a.jsonl.zst", zstd_packed(lines) + zstd_packed(more));
  write_file(folder_ / "b.jsonl.gz", gzip_packed(lines) + gzip_packed(more));
  for (const char* name : {"a.jsonl.zst", "b.jsonl.gz"}) {
    const Strings documents = read(name);
    ASSERT_EQ(documents.size(), 30001u);
    EXPECT_EQ(documents[29999], "word25016");  // 29999 * 7919 mod 30011
    EXPECT_EQ(documents[30000], "second");
  }
  write_file(folder_ / "c.txt.zst", zstd_packed(text));
  write_file(folder_ / "d.txt.gz", gzip_packed(text));
  EXPECT_EQ(read("c.txt.zst"), Strings{text});
  EXPECT_EQ(read("d.txt.gz"), Strings{text});

  write_file(folder_ / "e.jsonl.gz", gzip_packed(lines).substr(0, 5000));
  EXPECT_EQ(error_of([&] { read("e.jsonl.gz"); }),
            folder_ / "e.jsonl.gz" + ": gzip data ends in the middle of a member");
}

TEST_F(DocumentsTest, InvalidUtf8IsReplacedAndCounted) {
  write_file(folder_ / "a.txt",
             "ok \xC3\xA9 \xFF"
             "bad\xE2\x82");
  EXPECT_EQ(read("a.txt"), Strings{"ok \xC3\xA9 \xEF\xBF\xBD"
                                   "bad\xEF\xBF\xBD"});
  EXPECT_EQ(counts_.repaired, 1);
  write_file(folder_ / "a.jsonl", "{\"text\": \"a\xFF\"}\n{\"text\": \"b\"}\n");
  EXPECT_EQ(read("a.jsonl"), (Strings{"a\xEF\xBF\xBD", "b"}));
  EXPECT_EQ(counts_.repaired, 1);
  EXPECT_EQ(counts_.bad_lines, 0);
}

TEST_F(DocumentsTest, BlocksOfAnySizeGiveTheSameDocumentsAndCounts) {
  std::mt19937 random(3);
  const Strings pieces = {"\n",
                          "\n",
                          "\r\n",
                          " \t\n",
                          "{\"text\": \"a b\"}\n",
                          "{\"text\": \"caf\xC3\xA9 \\u00e9\"}\r\n",
                          "word ",
                          "{\"x\": 1}\n",
                          "a line\n",
                          "\xFF\n",
                          "\xE2\x82",
                          std::string(97, 'y') + "\n",
                          "{\"text\": \"" + std::string(70, 'z') + "\"}\n"};
  for (int round = 0; round < 40; ++round) {
    std::string text = round % 3 == 0 ? "\xEF\xBB\xBF" : "";
    for (size_t n = random() % 60; n > 0; --n) text += pieces[random() % pieces.size()];
    for (const char* name : {"a.jsonl", "a.txt", "a.jsonl.gz", "a.txt.zst"}) {
      const bool gz = unpacked_name(name) + ".gz" == name,
                 zst = unpacked_name(name) + ".zst" == name;
      write_file(folder_ / name, gz ? gzip_packed(text) : zst ? zstd_packed(text) : text);
      for (const SplitText split : {SplitText::kFile, SplitText::kBlankLine}) {
        options_ = {.split = split, .longest_line = 80};
        const Strings expected = read(name);
        const DocumentCounts counts = counts_;
        for (const size_t block_bytes : {size_t{1}, size_t{7}, size_t{64}, size_t{1} << 20}) {
          ASSERT_EQ(read_in_blocks(name, block_bytes), expected)
              << name << ", blocks of " << block_bytes << ":\n"
              << text;
          EXPECT_EQ(counts_.files, 1);
          EXPECT_EQ(counts_.documents, counts.documents);
          EXPECT_EQ(counts_.bytes, counts.bytes);
          EXPECT_EQ(counts_.lines, counts.lines);
          EXPECT_EQ(counts_.bad_lines, counts.bad_lines);
          EXPECT_EQ(counts_.repaired, counts.repaired);
          EXPECT_EQ(counts_.first_errors, counts.first_errors);
        }
      }
    }
  }
}

TEST_F(DocumentsTest, BlocksEndAtTheFirstBorderBehindTheirSize) {
  write_file(folder_ / "d/a.jsonl", "{\"n\": 1}\n\n{\"n\": 2}\n{\"n\": 3}");
  write_file(folder_ / "d/b.txt", "one\ntwo\n\nthree\n\n\nfour\n");
  write_file(folder_ / "d/c.txt", "");
  options_.split = SplitText::kBlankLine;
  BlockReader reader(text_files(folder_ / "d"), options_, 10);
  const auto next = [&] {
    TextBlock block;
    if (!reader.next(block)) return std::string("end");
    std::string shown = block.path.substr(folder_.path().size() + 3) + ":" +
                        std::to_string(block.first_line) + " " + block.bytes;
    std::replace(shown.begin(), shown.end(), '\n', '|');
    return shown + (block.sha256 ? " last" : "");
  };
  EXPECT_EQ(next(), "a.jsonl:1 {\"n\": 1}||");  // nine bytes are not yet ten
  EXPECT_EQ(next(), "a.jsonl:3 {\"n\": 2}|{\"n\": 3} last");
  EXPECT_EQ(next(), "b.txt:1 one|two||three||");
  EXPECT_EQ(next(), "b.txt:6 |four| last");
  EXPECT_EQ(next(), "c.txt:1  last");
  EXPECT_EQ(next(), "end");
  EXPECT_EQ(next(), "end");
}

TEST_F(DocumentsTest, TheLastBlockHasTheHashAndTheBytesOfTheFile) {
  const std::string line = "{\"text\": \"abc\"}\n", three = line + line + line;
  const std::string packed = gzip_packed(line + line);
  write_file(folder_ / "d/a.jsonl", three);
  write_file(folder_ / "d/b.jsonl.gz", packed);
  BlockReader reader(text_files(folder_ / "d"), {}, line.size());
  TextBlock block;
  for (const bool last : {false, false, true}) {
    ASSERT_TRUE(reader.next(block));
    EXPECT_EQ(block.bytes, line);
    EXPECT_EQ(block.file, 0);
    EXPECT_EQ(block.sha256.has_value(), last);
  }
  EXPECT_EQ(block.sha256, sha256_hex(std::as_bytes(std::span(three))));
  EXPECT_EQ(block.packed_bytes, three.size());
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(reader.next(block));
  EXPECT_EQ(block.file, 1);
  EXPECT_EQ(block.sha256, sha256_hex(std::as_bytes(std::span(packed))));
  EXPECT_EQ(block.packed_bytes, packed.size());
  EXPECT_THROW(reader.skip_to(3), std::logic_error);

  BlockReader second(text_files(folder_ / "d"), {}, 1000);
  second.skip_to(1);
  ASSERT_TRUE(second.next(block));
  EXPECT_EQ(block.file, 1);
  EXPECT_EQ(block.bytes, line + line);
  EXPECT_FALSE(second.next(block));
  EXPECT_THROW(second.skip_to(-1), std::logic_error);
}

TEST_F(DocumentsTest, TooLongLinesAreBadAndTakeNoMemory) {
  options_.longest_line = 20;
  const std::string longer = "{\"text\": \"" + std::string(1 << 20, 'x') + "\"}\n";
  write_file(folder_ / "a.jsonl", longer + "{\"text\": \"b\"}\n" + longer + longer +
                                      "\n{\"text\": \"12345678\"}\n{\"text\": \"123456789\"}\n" +
                                      longer);
  EXPECT_EQ(read("a.jsonl"), (Strings{"b"}));  // 21 and 22 bytes with the newline
  const std::string file = folder_ / "a.jsonl", rule = ": longer than 20 bytes";
  EXPECT_EQ(counts_.first_errors,
            (Strings{file + ":1" + rule, file + ":3" + rule, file + ":4" + rule, file + ":6" + rule,
                     file + ":7" + rule}));
  EXPECT_EQ(counts_.lines, 7);
  EXPECT_EQ(counts_.bad_lines, 6);
  BlockReader reader({file}, options_, size_t{1} << 24);
  TextBlock block;
  ASSERT_TRUE(reader.next(block));
  EXPECT_EQ(block.bytes, "{\"text\": \"b\"}\n\n");
  EXPECT_LT(block.bytes.capacity(), size_t{1} << 12);
  EXPECT_FALSE(reader.next(block));
}

TEST_F(DocumentsTest, TooLargeDocumentsAreRefused) {
  options_ = {.split = SplitText::kBlankLine, .largest_document = 2048};
  const std::string paragraph(2046, 'x');
  write_file(folder_ / "a.txt", paragraph + "\n\n" + paragraph + "\n");
  EXPECT_EQ(read("a.txt").size(), 2u);
  write_file(folder_ / "b.txt", paragraph + "\n\n" + paragraph + "\ny\n");
  const std::string message = ": a document of more than 2.00 KiB; ";
  EXPECT_EQ(error_of([&] { read("b.txt"); }),
            folder_ / "b.txt" + message + "split it with blank lines");
  options_.split = SplitText::kFile;
  EXPECT_EQ(error_of([&] { read("a.txt"); }),
            folder_ / "a.txt" + message + "--split blank-line cuts the file into documents");
  options_.largest_document = 4095;
  EXPECT_EQ(read("a.txt").size(), 1u);
}

TEST_F(DocumentsTest, WhatIsNeitherTextNorJsonLinesIsRefused) {
  for (const char* name : {"a.json", "a.NdJson", "a.json.gz"}) {
    write_file(folder_ / name, "{}");
    EXPECT_THAT(error_of([&] { read(name); }),
                testing::EndsWith("rename it to .jsonl if each line is a JSON object"));
  }
  for (const char* name : {"x/a.bz2", "x/a.tar.gz", "x/a.ZIP"}) {
    write_file(folder_ / name, "text");
    EXPECT_THAT(
        error_of([&] { read("x"); }),
        testing::EndsWith(" file, expected text or JSON lines (.jsonl), plain, .gz or .zst"));
    std::filesystem::remove(folder_ / name);
  }
  write_file(folder_ / "b.txt", std::string("a\0b", 3));
  EXPECT_EQ(error_of([&] { read("b.txt"); }),
            folder_ / "b.txt" + ": binary, expected text in UTF-8");
  write_file(folder_ / "c.JSONL", "{\"text\": \"c\"}\n");
  EXPECT_EQ(read("c.JSONL"), (Strings{"c"}));
}

TEST_F(DocumentsTest, TheShareOfBadLinesIsChecked) {
  DocumentCounts counts{
      .lines = 200, .bad_lines = 2, .first_errors = {"a.jsonl:7: no key \"text\""}};
  EXPECT_NO_THROW(check_bad_lines("in", counts, 0.01));
  EXPECT_NO_THROW(check_bad_lines("in", counts, 1));
  EXPECT_EQ(error_of([&] { check_bad_lines("in", counts, 0.009); }),
            "in: 2 of 200 lines are bad, more than the share of 0.009 allowed; the first: "
            "a.jsonl:7: no key \"text\"");
  EXPECT_EQ(
      error_of([&] { check_bad_lines("in", counts, 0); }),
      "in: 2 of 200 lines are bad, and none is allowed; the first: a.jsonl:7: no key \"text\"");
  EXPECT_THROW(check_bad_lines_so_far("in", counts, 0.009), UserError);
  counts.lines = 99;  // too few to judge by a share, but at the end
  EXPECT_NO_THROW(check_bad_lines_so_far("in", counts, 0.001));
  EXPECT_THROW(check_bad_lines_so_far("in", counts, 0), UserError);
  EXPECT_THROW(check_bad_lines("in", counts, 0.001), UserError);
  counts.bad_lines = 0;
  EXPECT_NO_THROW(check_bad_lines("in", counts, 0));
}

TEST(DocumentCountsTest, AddUp) {
  DocumentCounts sum{.files = 1,
                     .documents = 2,
                     .bytes = 3,
                     .lines = 4,
                     .bad_lines = 3,
                     .repaired = 6,
                     .first_errors = {"a", "b", "c"}};
  sum += {.files = 10,
          .documents = 20,
          .bytes = 30,
          .lines = 40,
          .bad_lines = 50,
          .repaired = 60,
          .first_errors = {"d", "e", "f"}};
  EXPECT_EQ(sum.files, 11);
  EXPECT_EQ(sum.documents, 22);
  EXPECT_EQ(sum.bytes, 33);
  EXPECT_EQ(sum.lines, 44);
  EXPECT_EQ(sum.bad_lines, 53);
  EXPECT_EQ(sum.repaired, 66);
  EXPECT_EQ(sum.first_errors, (Strings{"a", "b", "c", "d", "e"}));
}

}  // namespace
}  // namespace tandem
