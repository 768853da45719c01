#include "data/tokenize.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <thread>

#include "core/checksum.h"
#include "core/file.h"
#include "core/log.h"
#include "data/document_split.h"
#include "data/token_file.h"
#include "tests/data/packed_text.h"
#include "tests/data/temp_folder.h"

namespace tandem {
namespace {

using Files = std::map<std::string, std::string>;  // name and bytes

Files files_in(const std::string& folder) {
  Files files;
  for (const auto& name : list_directory(folder)) files[name] = file_bytes(folder + "/" + name);
  return files;
}

std::string json_line(const std::string& text) {
  return nlohmann::ordered_json({{"text", text}}).dump() + "\n";
}

std::string crc_of(const std::string& bytes) {
  char text[9];
  std::snprintf(text, sizeof text, "%08x", crc32c(std::as_bytes(std::span(bytes))));
  return text;
}

/// Throws at the n-th document that is `bad`.
class FaultyTokenizer : public Tokenizer {
 public:
  void append(std::string_view text, Specials, std::vector<int32_t>& ids) const override {
    if (text == "bad") throw std::runtime_error("the tokenizer failed");
    ids.push_back(static_cast<int32_t>(text.size() % 7));
  }
  std::string decode(std::span<const int32_t>) const override { return ""; }
  int64_t vocab_size() const override { return 7; }
  std::optional<int32_t> bos() const override { return std::nullopt; }
  std::optional<int32_t> eos() const override { return std::nullopt; }
  std::optional<int32_t> special_id(std::string_view) const override { return std::nullopt; }
  int64_t byte_length(int32_t) const override { return 1; }
  std::string model_bytes() const override { return ""; }
  std::string file_name() const override { return ""; }
  std::string name() const override { return "faulty"; }
};

class TokenizeTest : public testing::Test {
 protected:
  TokenizeTest() {
    set_log_quiet(true);
    std::mt19937 random(19);
    std::string a, b, paragraphs;
    for (int i = 0; i < 97; ++i) {
      const std::string text =
          i % 11 == 3
              ? ""
              : std::string(random() % 50, static_cast<char>('a' + i % 26)) + std::to_string(i);
      (i < 60 ? a : b) += i % 31 == 7 ? "no JSON\n" : json_line(text);
      paragraphs += text + (i % 4 == 0 ? "\n\n" : "\n");
    }
    write_file(folder_ / "in/a.jsonl", a);
    write_file(folder_ / "in/b.jsonl.gz", gzip_packed(b));
    write_file(folder_ / "in/c.txt", paragraphs);
    write_file(folder_ / "in/d.txt", "");
    write_file(folder_ / "in/e/f.txt.zst", zstd_packed("last\n\none\xFF\n"));
    write_file(folder_ / "in/e/g.jsonl", "");
    job_ = {.input = folder_ / "in",
            .documents = {.split = SplitText::kBlankLine},
            .output = folder_ / "out/train",
            .validation_output = folder_ / "out/valid",
            .validation_fraction = 0.2,
            .seed = 3,
            .eos = 257,
            .max_bad_lines = 0.5,
            .block_bytes = 100};
  }

  ~TokenizeTest() override { set_log_quiet(false); }

  /// All files of a job that nothing stopped.
  Files whole(const TokenizeJob& job) {
    TokenizeJob elsewhere = job;
    elsewhere.output = folder_ / "whole/train";
    if (!job.validation_output.empty()) elsewhere.validation_output = folder_ / "whole/valid";
    EXPECT_TRUE(tokenize(*bytes_, elsewhere));
    Files files = files_in(folder_ / "whole");
    std::filesystem::remove_all(folder_ / "whole");
    return files;
  }
  Files outputs() const { return files_in(folder_ / "out"); }
  /// Does the job with a stop behind each so many blocks, with another number of threads each time.
  void expect_the_same_when_stopped_behind_each(int64_t blocks, int64_t commit_bytes) {
    const Files expected = whole(job_);
    job_.commit_bytes = commit_bytes;
    int tries = 0;
    for (bool done = false; !done; ++tries) {
      ASSERT_LT(tries, 100);
      int64_t left = blocks;
      job_.threads = 1 + tries % 5;
      done = tokenize(*bytes_, job_, {}, [&] { return --left == 0; }).has_value();
      EXPECT_EQ(exists(job_.output + ".idx"), done);
      EXPECT_EQ(exists(job_.output + ".journal.json"), !done);
    }
    EXPECT_GE(tries, 3);
    EXPECT_EQ(outputs(), expected) << "stopped behind each " << blocks;
    std::filesystem::remove_all(folder_ / "out");
  }
  /// What a token file holds, each document as numbers.
  static std::vector<std::vector<int64_t>> documents_of(const std::string& prefix) {
    const TokenFile file(prefix);
    std::vector<std::vector<int64_t>> documents;
    for (int64_t d = 0; d < file.documents(); ++d) {
      documents.emplace_back(static_cast<size_t>(file.document_length(d)));
      file.read(file.document_begins()[static_cast<size_t>(d)], documents.back());
    }
    return documents;
  }

  TempFolder folder_;
  std::unique_ptr<Tokenizer> bytes_ = load_tokenizer("bytes");
  TokenizeJob job_;
};

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

TEST_F(TokenizeTest, StoppedAnywhereItGoesOnToTheSameFiles) {
  expect_the_same_when_stopped_behind_each(9, 1 << 20);
  expect_the_same_when_stopped_behind_each(17, 1500);
}

TEST_F(TokenizeTest, WhatWasWrittenBehindTheLastCommitIsCutOff) {
  const Files expected = whole(job_);
  for (const int64_t commit_bytes : {700, 100000}) {
    std::filesystem::remove_all(folder_ / "out");
    job_.commit_bytes = commit_bytes;
    job_.threads = 2;
    for (int die_at = 3; die_at < 200;
         die_at += 9) {  // ever later, as nothing may be committed before
      int left = die_at;
      const auto die = [&]() -> bool {
        return --left == 0 ? throw std::runtime_error("killed") : false;
      };
      try {
        tokenize(*bytes_, job_, {}, die);
        break;
      } catch (const std::runtime_error& error) {
        ASSERT_STREQ(error.what(), "killed");
      }
    }
    EXPECT_EQ(outputs(), expected) << commit_bytes;
  }
}

TEST_F(TokenizeTest, AKillWhileTheFilesGetTheirNamesIsMended) {
  const Files expected = whole(job_);
  for (const int steps : {0, 1, 2, 3}) {  // names that were given before the kill
    std::filesystem::remove_all(folder_ / "out");
    write_file(folder_ / "out/train.bin/in_the_way", "");
    write_file(folder_ / "out/train.idx", "older");
    EXPECT_THROW(tokenize(*bytes_, job_), UserError);
    EXPECT_FALSE(exists(job_.output + ".idx"));
    std::filesystem::remove_all(folder_ / "out/train.bin");
    const std::vector<std::string> names = {"train.bin", "train.idx", "valid.bin", "valid.idx"};
    for (int i = 0; i < steps; ++i) {
      if (i == 2)
        write_file(folder_ / "out/valid.manifest.json", expected.at("valid.manifest.json"));
      rename_file(folder_ / "out/" + names[i] + ".partial", folder_ / "out/" + names[i]);
    }
    std::set<int64_t> documents;  // that were done
    const auto note = [&](const TokenizeProgress& now) { documents.insert(now.documents); };
    ASSERT_TRUE(tokenize(*bytes_, job_, note));
    EXPECT_EQ(documents.size(), 1u) << "nothing is tokenized a second time";
    EXPECT_EQ(outputs(), expected) << steps;
  }
}

TEST_F(TokenizeTest, AnotherJobBeginsAnew) {
  set_log_quiet(false);
  const auto stop_early = [&] {
    int left = 9;
    EXPECT_FALSE(tokenize(*bytes_, job_, {}, [&] { return --left == 0; }));
  };
  const auto log_of_next = [&] {
    testing::internal::CaptureStderr();
    EXPECT_TRUE(tokenize(*bytes_, job_));
    return testing::internal::GetCapturedStderr();
  };
  const std::string journal = job_.output + ".journal.json";
  const std::string other =
      journal + ": left by a job with other settings, tokenizer or files; beginning anew\n";
  stop_early();
  EXPECT_THAT(log_of_next(),
              testing::MatchesRegex(".*journal.json: going on behind [0-9]+ documents\n"));
  stop_early();
  job_.eos.reset();
  EXPECT_EQ(log_of_next(), other);
  EXPECT_EQ(outputs(), whole(job_));
  stop_early();
  write_file(folder_ / "in/e/f.txt.zst", zstd_packed("last\n\ntwo\n"));
  EXPECT_EQ(log_of_next(), other);
  EXPECT_EQ(outputs(), whole(job_));
  stop_early();
  std::filesystem::last_write_time(
      folder_ / "in/a.jsonl",
      std::filesystem::file_time_type::clock::now() - std::chrono::hours(1));
  EXPECT_EQ(log_of_next(), other);
  stop_early();
  std::filesystem::resize_file(job_.output + ".bin.partial", 3);
  EXPECT_THAT(log_of_next(),
              testing::MatchesRegex(
                  ".*journal.json: cannot go on \\(.*train.bin.partial: .*\\); beginning anew\n"));
  EXPECT_EQ(outputs(), whole(job_));
  stop_early();
  write_file(journal, "{");
  EXPECT_THAT(log_of_next(),
              testing::MatchesRegex(".*journal.json: damaged \\(.*\\); beginning anew\n"));
  EXPECT_EQ(outputs(), whole(job_));
  EXPECT_EQ(log_of_next(), "") << "a job that was done is done again";
}

TEST_F(TokenizeTest, ErrorsOfAllThreadsComeOutHere) {
  std::string lines;
  for (int i = 0; i < 300; ++i) lines += json_line(i == 150 ? "bad" : "good" + std::to_string(i));
  write_file(folder_ / "g/a.jsonl", lines);
  const FaultyTokenizer faulty;
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

TEST_F(TokenizeTest, ASecondJobMayNotWriteTheSameFiles) {
  make_directories(folder_ / "out");
  std::string holder;
  auto lock = FileLock::try_lock(folder_ / "out/.valid.tokenize.lock", "process 77", &holder);
  ASSERT_TRUE(lock);
  EXPECT_EQ(error_of([&] { tokenize(*bytes_, job_); }, kExitUsage),
            job_.validation_output + ": process 77 is writing it");
  lock.reset();
  EXPECT_TRUE(tokenize(*bytes_, job_));
}

TEST_F(TokenizeTest, WeightsOfOlderTokensAreNotLeftBesideNewOnes) {
  write_file(job_.output + ".weights", "");
  EXPECT_EQ(error_of([&] { tokenize(*bytes_, job_); }, kExitUsage),
            job_.output + ".weights belongs to the tokens that would be replaced; remove it");
}

TEST_F(TokenizeTest, PartialFilesOfAnotherJobAreNotAdopted) {
  const Files expected = whole(job_);
  TokenizeJob other = job_;  // writes what is the validation output here, other ids
  other.output = job_.validation_output;
  other.validation_output = "";
  other.eos.reset();
  const auto stop_after = [&](const TokenizeJob& job, int blocks) {
    EXPECT_FALSE(tokenize(*bytes_, job, {}, [&] { return --blocks == 0; }));
  };
  stop_after(job_, 9);
  stop_after(other, 15);
  ASSERT_TRUE(tokenize(*bytes_, job_));
  EXPECT_EQ(outputs(), expected);
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

class TokenizeSlowTest : public TokenizeTest {};

TEST_F(TokenizeSlowTest, StoppedBehindEachBlockItGoesOnToTheSameFiles) {
  expect_the_same_when_stopped_behind_each(1, 1);
  expect_the_same_when_stopped_behind_each(2, 1 << 20);
  expect_the_same_when_stopped_behind_each(7, 150);
}

// Really killed: this program runs itself as a child that does the job, and kills it.
constexpr const char* kChildFolder = "TANDEM_TOKENIZE_CHILD";  // where the child works
constexpr const char* kChildBlocks =
    "TANDEM_TOKENIZE_CHILD_DIES";  // blocks after which it kills itself

TokenizeJob job_in(const std::string& folder) {
  return {.input = folder + "/in",
          .output = folder + "/out/train",
          .validation_output = folder + "/out/valid",
          .eos = 257,
          .threads = 2,
          .block_bytes = 5000,
          .commit_bytes = 40000};
}

TEST(TokenizeChild, DISABLED_DoesTheJob) {
  const char* folder = std::getenv(kChildFolder);
  if (folder == nullptr) GTEST_SKIP() << "only TokenizeSlowTest starts it";
  const char* blocks = std::getenv(kChildBlocks);
  int left = blocks == nullptr ? -1 : std::atoi(blocks);
  const auto die = [&] { return --left == 0 && std::raise(SIGKILL) != 0; };
  EXPECT_TRUE(tokenize(*load_tokenizer("bytes"), job_in(folder), {}, die));
}

/// Kills the child after `ms`, if it still runs. True when it ended by itself, the job done.
bool child_does_the_job(const std::string& folder, int dies_after_blocks, std::optional<int> ms) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::setenv(kChildFolder, folder.c_str(), 1);
    if (dies_after_blocks > 0) ::setenv(kChildBlocks, std::to_string(dies_after_blocks).c_str(), 1);
    const int null = ::open("/dev/null", O_WRONLY);
    ::dup2(null, STDOUT_FILENO);
    ::dup2(null, STDERR_FILENO);
    ::execl("/proc/self/exe", "child", "--gtest_also_run_disabled_tests",
            "--gtest_filter=TokenizeChild.DISABLED_DoesTheJob", nullptr);
    ::_exit(127);
  }
  if (ms) {
    std::this_thread::sleep_for(std::chrono::milliseconds(*ms));
    ::kill(child, SIGKILL);
  }
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL : WEXITSTATUS(status) == 0)
      << status;
  return WIFEXITED(status);
}

TEST_F(TokenizeSlowTest, KilledAtAnyMomentItGoesOnToTheSameFiles) {
  const TempFolder folder;
  std::mt19937 random(23);
  for (const char* name : {"a.jsonl", "b.jsonl.gz", "c.jsonl", "d.jsonl"}) {
    std::string lines;
    while (lines.size() < 300'000)
      lines += json_line(std::string(random() % 700, static_cast<char>('a' + random() % 26)));
    write_file(folder / "in/" + name,
               std::string(name).ends_with(".gz") ? gzip_packed(lines) : lines);
  }
  const std::string out = folder / "out";
  ASSERT_TRUE(child_does_the_job(folder.path(), 0, std::nullopt));
  const Files expected = files_in(out);
  ASSERT_EQ(expected.size(), 6u);

  int kills = 0;
  for (const bool by_time : {false, true}) {
    std::filesystem::remove_all(out);
    bool done = false;
    for (int i = 0; i < 60 && !done; ++i) {
      done = by_time ? child_does_the_job(folder.path(), 0, 5 + static_cast<int>(random() % 60))
                     : child_does_the_job(folder.path(), 11 + i, std::nullopt);
      kills += !done;
      for (const std::string part :
           {"/train", "/valid"}) {  // an index lies beside its tokens and manifest or not at all
        if (!exists(out + part + ".idx")) continue;
        for (const char* end : {".bin", ".idx", ".manifest.json"})
          EXPECT_EQ(file_bytes(out + part + end), expected.at(part.substr(1) + end));
      }
    }
    if (!done) {
      ASSERT_TRUE(child_does_the_job(folder.path(), 0, std::nullopt));
    }
    EXPECT_EQ(files_in(out), expected) << (by_time ? "killed by time" : "killed behind blocks");
  }
  EXPECT_GE(kills, 10);
}

}  // namespace
}  // namespace tandem
