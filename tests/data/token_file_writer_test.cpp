#include "data/token_file_writer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "data/token_file.h"
#include "tests/data/token_parts.h"

namespace tandem {
namespace {

using Documents = std::vector<std::vector<int32_t>>;

class TokenFileWriterTest : public testing::Test {
 protected:
  void write(const std::string& name, int64_t vocab_size, const Documents& documents) {
    TokenFileWriter writer(folder_ / name, vocab_size);
    for (const auto& document : documents) writer.add_document(document);
    writer.publish();
  }
  std::vector<std::string> names() {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder_.path()))
      names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    return names;
  }
  /// Both files hold what the parts of the format say, put together plainly.
  void expect_files(const std::string& name, const Documents& documents) {
    std::vector<uint16_t> tokens;
    IndexParts parts{.lengths = {}, .offsets = {}, .documents = {0}};
    for (const auto& document : documents) {
      parts.offsets.push_back(static_cast<int64_t>(2 * tokens.size()));
      parts.lengths.push_back(static_cast<int32_t>(document.size()));
      parts.documents.push_back(static_cast<int64_t>(parts.lengths.size()));
      tokens.insert(tokens.end(), document.begin(), document.end());
    }
    EXPECT_TRUE(file_bytes(folder_ / name + ".bin") == raw(tokens));
    EXPECT_TRUE(file_bytes(folder_ / name + ".idx") == parts.str());
  }
  std::string relative_error(const std::function<void()>& call, int exit_code = kExitBadFile) {
    return relative(folder_, error_of(call, exit_code));
  }
  TempFolder folder_;
};

TEST_F(TokenFileWriterTest, WritesTheExampleOfTheFormatByteForByte) {
  TokenFileWriter writer(folder_ / "x", 1000);
  writer.add_document(std::vector<int32_t>{5, 6, 999});
  writer.add_document(std::vector<int32_t>{});
  writer.add_document(std::vector<int32_t>{7, 8});
  EXPECT_EQ(names(), (std::vector<std::string>{"x.bin.partial", "x.lengths.partial"}));
  writer.finish();
  EXPECT_EQ(names(),
            (std::vector<std::string>{"x.bin.partial", "x.idx.partial", "x.lengths.partial"}));
  writer.publish();
  EXPECT_EQ(writer.documents(), 2);
  EXPECT_EQ(writer.tokens(), 5);
  EXPECT_EQ(writer.skipped_empty(), 1);
  // The 82 bytes that Megatron's own writer makes of documents of 3 and 2 tokens.
  const std::string expected =
      bytes_of({0x4d, 0x4d, 0x49, 0x44, 0x49, 0x44, 0x58, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 8, 2, 0, 0,
                0,    0,    0,    0,    0,    3,    0,    0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0,
                0,    0,    0,    0,    0,    0,    0,    0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                0,    0,    0,    1,    0,    0,    0,    0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0});
  EXPECT_EQ(file_bytes(folder_ / "x.idx"), expected);
  EXPECT_EQ(file_bytes(folder_ / "x.bin"), bytes_of({5, 0, 6, 0, 0xe7, 3, 7, 0, 8, 0}));
}

TEST_F(TokenFileWriterTest, LeavesNothingElse) {
  write("x", 10, {{1, 2}, {3}});
  EXPECT_EQ(names(), (std::vector<std::string>{"x.bin", "x.idx"}));
  {
    TokenFileWriter given_up(folder_ / "y", 10);
    given_up.add_document(std::vector<int32_t>{1});
    given_up.commit();
    given_up.finish();
  }
  EXPECT_EQ(names(), (std::vector<std::string>{"x.bin", "x.idx"}));
}

TEST_F(TokenFileWriterTest, WhatItWroteIsReadAtAnyPlace) {
  std::vector<int32_t> all;
  Documents documents;
  for (int d = 0; d < 13; ++d) {
    documents.emplace_back(static_cast<size_t>(1 + d * 7 % 11));
    std::iota(documents.back().begin(), documents.back().end(), 69000 - 31 * d);
    all.insert(all.end(), documents.back().begin(), documents.back().end());
  }
  write("deep/x.bin", 70000, documents);
  const TokenFile file(folder_ / "deep/x.idx");
  EXPECT_EQ(file.prefix(), folder_ / "deep/x");
  EXPECT_STREQ(file.dtype(), "int32");
  EXPECT_EQ(file.documents(), 13);
  EXPECT_EQ(file.tokens(), static_cast<int64_t>(all.size()));
  EXPECT_EQ(file.document_length(3), 11);
  EXPECT_EQ(file.document_begins().front(), 0);
  EXPECT_EQ(file.document_begins().back(), file.tokens());
  for (int64_t begin = 0; begin <= file.tokens(); begin += 5) {
    std::vector<int64_t> read(static_cast<size_t>(std::min<int64_t>(17, file.tokens() - begin)));
    file.read(begin, read);
    EXPECT_TRUE(std::equal(read.begin(), read.end(), all.begin() + begin)) << begin;
  }
  std::vector<int64_t> beyond(2);
  EXPECT_THROW(file.read(file.tokens() - 1, beyond), std::logic_error);
  EXPECT_THROW(file.read(-1, beyond), std::logic_error);
}

TEST_F(TokenFileWriterTest, ChoosesMegatronsType) {
  for (const auto& [vocab_size, name] : {std::pair{65499, "uint16"}, std::pair{65500, "int32"}}) {
    write("y", vocab_size, {{vocab_size - 1}});
    const TokenFile file(folder_ / "y");
    EXPECT_STREQ(file.dtype(), name);
    EXPECT_EQ(all_tokens(file), (std::vector<int64_t>{vocab_size - 1}));
  }
}

TEST_F(TokenFileWriterTest, RefusesForeignTokensAndDocumentsBeyondTheFormat) {
  TokenFileWriter writer(folder_ / "x", 300);
  writer.add_document(std::vector<int32_t>{1, 299});
  EXPECT_THROW(writer.add_document(std::vector<int32_t>{2, 300}), std::logic_error);
  EXPECT_THROW(writer.add_document(std::vector<int32_t>{2, -1}), std::logic_error);
  const int32_t token = 1;  // the others are never looked at
  const std::span<const int32_t> huge(&token, size_t{1} << 31);
  EXPECT_EQ(relative_error([&] { writer.add_document(huge); }, kExitCannotWrite),
            "x.bin.partial: a document of 2147483648 tokens; the format holds up to 2147483647");
  writer.add_document(std::vector<int32_t>{7});
  writer.publish();
  EXPECT_THROW(writer.add_document(std::vector<int32_t>{7}), std::logic_error);
  EXPECT_THROW(writer.commit(), std::logic_error);
  expect_files("x", {{1, 299}, {7}});  // nothing of what was refused
}

TEST_F(TokenFileWriterTest, AnEmptySetIsWhole) {
  write("e", 10, {});
  const TokenFile file(folder_ / "e");
  EXPECT_EQ(file.documents(), 0);
  EXPECT_EQ(file.tokens(), 0);
}

TEST_F(TokenFileWriterTest, ReplacesAnOlderFile) {
  for (const int32_t token : {1, 2}) write("x", 10, {{token, token}});
  EXPECT_EQ(all_tokens(TokenFile(folder_ / "x")), (std::vector<int64_t>{2, 2}));
}

/// More than the buffers hold, in tokens and in documents.
Documents many_documents() {
  std::mt19937 random(7);
  Documents documents(300'000, std::vector<int32_t>(1));
  documents[1000].resize(900'001);
  for (auto& document : documents) {
    for (int32_t& token : document) token = static_cast<int32_t>(random() % 65499);
  }
  return documents;
}

TEST_F(TokenFileWriterTest, WritesMoreThanItHolds) {
  const Documents documents = many_documents();
  write("x", 65499, documents);
  expect_files("x", documents);
}

TEST_F(TokenFileWriterTest, GoesOnFromItsLastCommit) {
  // Killed again and again, each time with something behind the last commit, some of which reached
  // the files.
  const Documents documents = many_documents();
  TokenFileWriter::Place place;
  {
    TokenFileWriter writer(folder_ / "x", 65499);
    place = writer.commit();
    writer.add_document(documents.back());
    writer.keep();
  }
  std::mt19937 random(8);
  size_t next = 0;
  while (next < documents.size()) {
    TokenFileWriter writer(folder_ / "x", 65499, place);
    writer.keep();
    EXPECT_EQ(writer.documents(), static_cast<int64_t>(next));
    for (size_t n = random() % 100'000; n > 0 && next < documents.size(); --n)
      writer.add_document(documents[next++]);
    writer.add_document({});
    place = writer.commit();
    for (size_t i = 0; i < 3 && next + i < documents.size(); ++i)
      writer.add_document(documents[next + i]);
    writer.add_document(documents[1000]);
  }
  TokenFileWriter writer(folder_ / "x", 65499, place);
  EXPECT_EQ(writer.tokens(), 1'200'000);
  EXPECT_GT(writer.skipped_empty(), 2);
  writer.publish();
  expect_files("x", documents);
}

TEST_F(TokenFileWriterTest, GoesOnWhereverPublishingWasStopped) {
  const Documents documents = {{1, 2, 3}, {4}, {5, 6}};
  for (int renamed = 0; renamed <= 2; ++renamed) {
    write("x", 10, {{9, 9, 9, 9}});  // of an earlier job
    TokenFileWriter::Place place;
    {
      TokenFileWriter writer(folder_ / "x", 10);
      writer.add_document(documents[0]);
      writer.add_document(documents[1]);
      place = writer.commit();
      writer.add_document(documents[2]);
      writer.finish();
      writer.keep();
    }
    std::filesystem::remove(folder_ / "x.idx");  // publish() stopped in the middle, by hand
    if (renamed > 0) std::filesystem::rename(folder_ / "x.bin.partial", folder_ / "x.bin");
    if (renamed > 1) std::filesystem::rename(folder_ / "x.idx.partial", folder_ / "x.idx");
    TokenFileWriter writer(folder_ / "x", 10, place);
    EXPECT_FALSE(std::filesystem::exists(folder_ / "x.idx"));
    writer.add_document(documents[2]);
    writer.publish();
    expect_files("x", documents);
  }
}

TEST_F(TokenFileWriterTest, PartialFilesThatHoldLessThanWasCommittedAreNamed) {
  TokenFileWriter::Place place;
  {
    TokenFileWriter writer(folder_ / "x", 10);
    writer.add_document(std::vector<int32_t>{1, 2, 3});
    place = writer.commit();
    writer.keep();
  }
  const auto refusal = [&] {
    return relative_error([&] { TokenFileWriter(folder_ / "x", 10, place); });
  };
  std::filesystem::resize_file(folder_ / "x.lengths.partial", 3);
  EXPECT_EQ(refusal(), "x.lengths.partial: has 3 bytes, 4 were committed");
  std::filesystem::resize_file(folder_ / "x.bin.partial", 5);
  EXPECT_EQ(refusal(), "x.bin.partial: has 5 bytes, 6 were committed");
  std::filesystem::remove(folder_ / "x.bin.partial");
  EXPECT_EQ(refusal(), "x.bin.partial: cannot open: No such file or directory");
  write("x", 10, {{1, 2, 3}});  // of another job: not taken for its own
  EXPECT_EQ(refusal(), "x.bin.partial: cannot open: No such file or directory");
  EXPECT_EQ(all_tokens(TokenFile(folder_ / "x")), (std::vector<int64_t>{1, 2, 3}));
}

TEST_F(TokenFileWriterTest, AnIndexThatWouldNotFitIsNeverWritten) {
  const auto damage = [&](const std::string& name, uint64_t size) {
    return relative_error(
        [&] {
          TokenFileWriter writer(folder_ / "x", 10);
          writer.add_document(std::vector<int32_t>{1, 2, 3});
          writer.commit();
          std::filesystem::resize_file(folder_ / name, size);
          writer.finish();
        },
        kExitCannotWrite);
  };
  EXPECT_EQ(damage("x.bin.partial", 4), "x.bin.partial: holds 4 bytes, 6 were written");
  EXPECT_EQ(damage("x.lengths.partial", 8), "x.lengths.partial: holds 8 bytes, 4 were written");
  TokenFileWriter writer(folder_ / "x", 10);
  writer.add_document(std::vector<int32_t>{1, 2, 3});
  writer.commit();
  write_file(folder_ / "x.lengths.partial", raw<int32_t>({2}));
  EXPECT_EQ(relative_error([&] { writer.publish(); }),
            "x.lengths.partial: its documents have 2 tokens, 3 were written");
  EXPECT_FALSE(std::filesystem::exists(folder_ / "x.idx"));
}

}  // namespace
}  // namespace tandem
