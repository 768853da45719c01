#include "data/tokenize.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "core/checksum.h"
#include "data/document_split.h"
#include "data/token_file.h"
#include "tests/data/tokenize_fixture.h"

namespace tandem {
namespace {

std::string crc_of(const std::string& bytes) {
  char text[9];
  std::snprintf(text, sizeof text, "%08x", crc32c(std::as_bytes(std::span(bytes))));
  return text;
}

/// What a token file holds, each document as numbers.
std::vector<std::vector<int64_t>> documents_of(const std::string& prefix) {
  const TokenFile file(prefix);
  std::vector<std::vector<int64_t>> documents;
  for (int64_t d = 0; d < file.documents(); ++d) {
    documents.emplace_back(static_cast<size_t>(file.document_length(d)));
    file.read(file.document_begins()[static_cast<size_t>(d)], documents.back());
  }
  return documents;
}

TEST_F(TokenizeTest, EqualsALoopOverAllDocuments) {
  for (const bool bos : {false, true}) {
    job_.bos = bos ? std::optional<int32_t>(256) : std::nullopt;
    std::vector<std::vector<int64_t>> expected[2];
    const DocumentSplit split(0.2, 3);
    int64_t document = 0, empty[2] = {0, 0};
    const auto counts = for_each_document(job_.input, job_.documents, [&](std::string_view text) {
      const int part = split.chosen(document++);
      if (text.empty()) {
        ++empty[part];
        return;
      }
      auto& ids = expected[part].emplace_back();
      if (bos) ids.push_back(256);
      for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
      ids.push_back(257);
    });
    const auto manifest = tokenize(*bytes_, job_);
    ASSERT_TRUE(manifest);
    EXPECT_EQ(documents_of(job_.output), expected[0]);
    EXPECT_EQ(documents_of(job_.validation_output), expected[1]);
    EXPECT_EQ((*manifest)["documents"], expected[0].size());
    EXPECT_EQ((*manifest)["empty_documents"], empty[0]);
    EXPECT_EQ((*manifest)["input"]["documents"], counts.documents);
    EXPECT_GT(empty[0], 0);
    EXPECT_EQ((*read_token_manifest(job_.validation_output))["empty_documents"], empty[1]);
  }
}

TEST_F(TokenizeTest, AnyNumberOfThreadsGivesTheSameFiles) {
  const Files expected = whole(job_);
  EXPECT_EQ(expected.size(), 6u);
  for (const auto& [threads, block_bytes, commit_bytes] :
       std::vector<std::array<int64_t, 3>>{{1, 1, 1 << 20}, {2, 64, 1 << 20}, {5, 300, 1000}}) {
    job_.threads = threads;
    job_.block_bytes = block_bytes;
    job_.commit_bytes = commit_bytes;
    ASSERT_TRUE(tokenize(*bytes_, job_));
    EXPECT_EQ(outputs(), expected) << threads << " threads, blocks of " << block_bytes;
  }
  job_.validation_output = "";
  const Files one = whole(job_);
  EXPECT_EQ(one.size(), 3u);
  EXPECT_NE(one.at("train.bin"), expected.at("train.bin"));
}

TEST_F(TokenizeTest, ErrorsOfAllThreadsComeOutHere) {
  std::string lines;
  for (int i = 0; i < 300; ++i) lines += json_line(i == 150 ? "bad" : "good" + std::to_string(i));
  write_file(folder_ / "g/a.jsonl", lines);
  const OneTokenTokenizer faulty([](std::string_view text) {
    if (text == "bad") throw std::runtime_error("the tokenizer failed");
  });
  TokenizeJob job{.input = folder_ / "g", .output = folder_ / "out/x", .block_bytes = 64};
  for (const int64_t threads : {1, 4}) {
    job.threads = threads;
    EXPECT_THROW(
        {
          try {
            tokenize(faulty, job);
          } catch (const std::runtime_error& error) {
            EXPECT_STREQ(error.what(), "the tokenizer failed");
            throw;
          }
        },
        std::runtime_error);
    EXPECT_EQ(outputs(), Files()) << "nothing is left";
  }
  write_file(folder_ / "g/a.jsonl", "");
  write_file(folder_ / "g/b.jsonl.gz", gzip_packed(lines).substr(0, 300));
  for (const int64_t threads : {1, 4}) {
    job.threads = threads;
    EXPECT_EQ(error_of([&] { tokenize(*bytes_, job); }),
              folder_ / "g/b.jsonl.gz" + ": gzip data ends in the middle of a member");
  }
}

TEST_F(TokenizeTest, TooManyBadLinesStopItAtOnePlace) {
  std::string lines;
  for (int i = 0; i < 3000; ++i)
    lines += i > 500 && i % 20 == 0 ? "{\"n\": 1}\n" : json_line("some text " + std::to_string(i));
  write_file(folder_ / "h.jsonl", lines);
  TokenizeJob job{.input = folder_ / "h.jsonl", .output = folder_ / "out/x", .block_bytes = 1000};
  std::string expected;
  for (const int64_t threads : {1, 2, 5}) {
    job.threads = threads;
    const std::string message = error_of([&] { tokenize(*bytes_, job); });
    EXPECT_THAT(message, testing::MatchesRegex(".*h.jsonl: [0-9]+ of [0-9]+ lines are bad, more "
                                               "than the share of 0.01 allowed; the first: "
                                               ".*h.jsonl:521: no key \"text\""));
    if (expected.empty()) expected = message;
    EXPECT_EQ(message, expected);
    EXPECT_EQ(outputs(), Files());
  }
  job.max_bad_lines = 0;
  EXPECT_THAT(error_of([&] { tokenize(*bytes_, job); }),
              testing::HasSubstr(", and none is allowed; the first: "));
  // With a larger share it goes on where it was stopped.
  job.commit_bytes = 5000;
  job.max_bad_lines = 0.01;
  error_of([&] { tokenize(*bytes_, job); });
  EXPECT_TRUE(exists(job.output + ".journal.json"));
  EXPECT_EQ(error_of([&] { tokenize(*bytes_, job); }), expected);
  job.max_bad_lines = 0.2;
  const auto manifest = tokenize(*bytes_, job);
  ASSERT_TRUE(manifest);
  EXPECT_EQ((*manifest)["input"]["bad_lines"], 124);
  EXPECT_EQ((*manifest)["input"]["first_errors"].size(), 5u);
}

TEST_F(TokenizeTest, NothingToWriteIsAnError) {
  write_file(folder_ / "none.jsonl", "\n\n");
  write_file(folder_ / "one.txt", "one");
  write_file(folder_ / "empty.txt", "");
  job_.commit_bytes = 1;
  job_.input = folder_ / "none.jsonl";
  EXPECT_EQ(error_of([&] { tokenize(*bytes_, job_); }), job_.input + ": holds no documents");
  EXPECT_EQ(outputs(), Files());
  write_file(folder_ / "bad.jsonl", "{}\n{}\n");
  job_.input = folder_ / "bad.jsonl";
  job_.max_bad_lines = 1;
  EXPECT_EQ(error_of([&] { tokenize(*bytes_, job_); }),
            job_.input + ": holds no documents; bad lines: 2, the first: " + job_.input +
                ":1: no key \"text\"");
  EXPECT_EQ(outputs(), Files());
  job_.input = folder_ / "one.txt";
  job_.validation_fraction = 1e-9;
  EXPECT_EQ(error_of([&] { tokenize(*bytes_, job_); }, kExitUsage),
            job_.validation_output + " would be empty: " + job_.input +
                " holds 1 documents; try --split blank-line or another --validation-fraction");
  EXPECT_EQ(outputs(), Files());
  job_.documents.split = SplitText::kFile;
  job_.input = folder_ / "empty.txt";
  EXPECT_EQ(error_of([&] { tokenize(*bytes_, job_); }),
            job_.input + ": all its documents are empty, 1");
  EXPECT_EQ(outputs(), Files());
}

TEST_F(TokenizeTest, WrongJobsAreRefused) {
  job_.validation_output = folder_ / "out/../out/train.bin";
  EXPECT_EQ(error_of([&] { tokenize(*bytes_, job_); }, kExitUsage),
            "--output and --validation-output are both " + job_.output);
  job_.validation_output = folder_ / "out/valid";
  job_.validation_fraction = 1;
  EXPECT_EQ(error_of([&] { tokenize(*bytes_, job_); }, kExitUsage),
            "--validation-fraction = 1, expected a number above 0 and below 1");
  job_.validation_output = folder_ / "in/e/valid";
  EXPECT_EQ(error_of([&] { tokenize(*bytes_, job_); }, kExitUsage),
            "--validation-output " + job_.validation_output + " lies in the input " + job_.input +
                ", and would be read as text; name another folder");
  const std::string output = job_.output;
  job_.output = folder_ / "out/";
  EXPECT_EQ(error_of([&] { tokenize(*bytes_, job_); }, kExitUsage),
            "--output = " + job_.output + ", expected a prefix of files, such as data/books");
  job_.output = output;
  job_.validation_output = "";
  job_.eos = 258;
  EXPECT_EQ(error_of([&] { tokenize(*bytes_, job_); }, kExitUsage),
            "eos = 258, expected a token of the vocabulary, 0 to 257");
  job_.eos.reset();
  job_.bos = -1;
  EXPECT_EQ(error_of([&] { tokenize(*bytes_, job_); }, kExitUsage),
            "bos = -1, expected a token of the vocabulary, 0 to 257");
  job_.bos.reset();
  job_.threads = 0;
  EXPECT_THROW(tokenize(*bytes_, job_), std::logic_error);
  job_.threads = 1;
  job_.input = folder_ / "nowhere";
  EXPECT_EQ(error_of([&] { tokenize(*bytes_, job_); }),
            job_.input + ": cannot open: No such file or directory");
  job_.input = "/dev/null";
  EXPECT_EQ(error_of([&] { tokenize(*bytes_, job_); }),
            "/dev/null: is not a regular file, which a stopped job could read once more");
  EXPECT_EQ(outputs(), Files());
}

TEST_F(TokenizeTest, WeightsOfOlderTokensAreNotLeftBesideNewOnes) {
  write_file(job_.output + ".weights", "");
  EXPECT_EQ(error_of([&] { tokenize(*bytes_, job_); }, kExitUsage),
            job_.output + ".weights belongs to the tokens that would be replaced; remove it");
}

TEST_F(TokenizeTest, TheShareOfBadLinesIsJudgedAtTheEndHoweverFew) {
  write_file(folder_ / "few.jsonl", json_line("a") + json_line("b") + "{}\n");
  const TokenizeJob job{.input = folder_ / "few.jsonl", .output = folder_ / "out/x"};
  EXPECT_EQ(error_of([&] { tokenize(*bytes_, job); }),
            job.input + ": 1 of 3 lines are bad, more than the share of 0.01 allowed; the first: " +
                job.input + ":3: no key \"text\"");
  EXPECT_EQ(outputs(), Files());
}

TEST_F(TokenizeTest, TheManifestSaysWhatWentIn) {
  const std::string a = "{\"content\": \"ab\"}\nbad\n\n{\"content\": \"c\xFF\"}\n",
                    b = gzip_packed("{\"content\": \"\"}\n");
  write_file(folder_ / "in2/a.jsonl", a);
  write_file(folder_ / "in2/b.jsonl.gz", b);
  TokenizeJob job{.input = folder_ / "in2",
                  .documents = {.json_keys = {"content", "text"}},
                  .output = folder_ / "out/all",
                  .seed = 5,
                  .bos = 256,
                  .max_bad_lines = 0.5};
  const auto manifest = tokenize(*bytes_, job);
  ASSERT_TRUE(manifest);
  const auto sha = [](const std::string& bytes) {
    return sha256_hex(std::as_bytes(std::span(bytes)));
  };
  const nlohmann::ordered_json expected = {
      {"format", "tandem tokens"},
      {"version", 1},
      {"tokenizer", {{"name", "bytes"}, {"sha256", tokenizer_hash(*bytes_)}, {"vocab_size", 258}}},
      {"bos", 256},
      {"eos", nullptr},
      {"special_text", "text"},
      {"part", "all"},
      {"validation_fraction", 0.0},
      {"seed", 5},
      {"documents", 2},
      {"tokens", 8},  // two of BOS, two bytes, one byte and the three of U+FFFD
      {"empty_documents", 1},
      {"bin_crc32c", crc_of(file_bytes(job.output + ".bin"))},
      {"idx_crc32c", crc_of(file_bytes(job.output + ".idx"))},
      {"input",
       {{"path", job.input},
        {"split", "file"},
        {"json_keys", {"content", "text"}},
        {"documents", 3},
        {"bytes", 6},
        {"lines", 4},
        {"bad_lines", 1},
        {"first_errors",
         {job.input + "/a.jsonl:2: byte 1: syntax error while parsing value - invalid literal"}},
        {"repaired", 1},
        {"files",
         {{{"path", job.input + "/a.jsonl"}, {"bytes", a.size()}, {"sha256", sha(a)}},
          {{"path", job.input + "/b.jsonl.gz"}, {"bytes", b.size()}, {"sha256", sha(b)}}}}}}};
  EXPECT_EQ(manifest->dump(2), expected.dump(2));
  EXPECT_EQ(file_bytes(job.output + ".manifest.json"), expected.dump(2) + "\n");
  EXPECT_EQ(read_token_manifest(job.output), expected);
  EXPECT_EQ(read_token_manifest(job.output + ".idx"), expected);
}

TEST_F(TokenizeTest, DamagedManifestsAreRefused) {
  const std::string prefix = folder_ / "x", path = prefix + ".manifest.json";
  EXPECT_EQ(read_token_manifest(prefix), std::nullopt);
  const auto error = [&](const std::string& text) {
    write_file(path, text);
    return error_of([&] { read_token_manifest(prefix); });
  };
  EXPECT_EQ(error("{}"), path + ": format is missing, expected a string");
  EXPECT_EQ(error("[1]"), path + ": found array, expected an object with format");
  EXPECT_EQ(error(R"({"format": "other"})"),
            path + R"(: format = "other", expected "tandem tokens")");
  EXPECT_EQ(error(R"({"format": "tandem tokens", "version": 2})"),
            path + ": version = 2, expected an integer in [1, 1]");
  const std::string begin = R"({"format": "tandem tokens", "version": 1)";
  EXPECT_EQ(error(begin + "}"), path + ": tokenizer is missing, expected an object");
  EXPECT_EQ(error(begin + R"(, "tokenizer": 3})"), path + ": tokenizer is 3, expected an object");
  EXPECT_TRUE(error("{").starts_with(path + ": byte 1: ")) << error("{");
}

TEST_F(TokenizeTest, ProgressEndsAtAllBytes) {
  int64_t total = 0;
  for (const auto& path : text_files(job_.input))
    total += static_cast<int64_t>(file_bytes(path).size());
  std::vector<TokenizeProgress> seen;
  const auto manifest =
      tokenize(*bytes_, job_, [&](const TokenizeProgress& now) { seen.push_back(now); });
  ASSERT_GE(seen.size(), 2u);
  EXPECT_EQ(seen.front().packed_bytes, 0);
  EXPECT_EQ(seen.back().packed_bytes, total);
  EXPECT_EQ(seen.back().packed_total, total);
  EXPECT_EQ(seen.back().documents, (*manifest)["input"]["documents"]);
  EXPECT_EQ(seen.back().tokens,
            TokenFile(job_.output).tokens() + TokenFile(job_.validation_output).tokens());
}

}  // namespace
}  // namespace tandem
