#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <random>
#include <set>
#include <thread>

#include "tests/data/tokenize_fixture.h"

// Jobs that are stopped or killed, and the next call that goes on.

namespace tandem {
namespace {

class TokenizeResumeTest : public TokenizeTest {
 protected:
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
};

TEST_F(TokenizeResumeTest, StoppedAnywhereItGoesOnToTheSameFiles) {
  expect_the_same_when_stopped_behind_each(9, 1 << 20);
  expect_the_same_when_stopped_behind_each(17, 1500);
}

TEST_F(TokenizeResumeTest, StoppedItLeavesBlocksUnfinished) {
  std::string lines;
  for (int i = 0; i < 5000; ++i) lines += json_line(std::to_string(i));
  write_file(folder_ / "long.jsonl", lines);
  std::atomic<int> begun = 0;
  const OneTokenTokenizer slow([&](std::string_view) {
    ++begun;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  });
  const TokenizeJob job{
      .input = folder_ / "long.jsonl", .output = folder_ / "out/x", .threads = 2};  // one block
  EXPECT_FALSE(tokenize(slow, job, {}, [] { return true; }));
  EXPECT_LT(begun, 5000);
}

TEST_F(TokenizeResumeTest, WhatWasWrittenBehindTheLastCommitIsCutOff) {
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

TEST_F(TokenizeResumeTest, AKillWhileTheFilesGetTheirNamesIsMended) {
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

TEST_F(TokenizeResumeTest, AnotherJobBeginsAnew) {
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

TEST_F(TokenizeResumeTest, ASecondJobMayNotWriteTheSameFiles) {
  make_directories(folder_ / "out");
  std::string holder;
  auto lock = FileLock::try_lock(folder_ / "out/.valid.tokenize.lock", "process 77", &holder);
  ASSERT_TRUE(lock);
  EXPECT_EQ(error_of([&] { tokenize(*bytes_, job_); }, kExitUsage),
            job_.validation_output + ": process 77 is writing it");
  lock.reset();
  EXPECT_TRUE(tokenize(*bytes_, job_));
}

TEST_F(TokenizeResumeTest, PartialFilesOfAnotherJobAreNotAdopted) {
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

class TokenizeResumeSlowTest : public TokenizeResumeTest {};

TEST_F(TokenizeResumeSlowTest, StoppedBehindEachBlockItGoesOnToTheSameFiles) {
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
  if (folder == nullptr) GTEST_SKIP() << "only TokenizeResumeSlowTest starts it";
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

TEST_F(TokenizeResumeSlowTest, KilledAtAnyMomentItGoesOnToTheSameFiles) {
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
