#include "core/child_process.h"

#include <gtest/gtest.h>

#include <csignal>
#include <thread>

#include "core/file.h"
#include "tests/core/helpers.h"

namespace tandem {
namespace {

int wait_for(ChildProcess& child) {
  for (int i = 0; i < 5000; ++i) {
    if (const auto code = child.ended()) return *code;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return -1;
}

class ChildProcessTest : public testing::Test {
 protected:
  int run(const std::string& script) {
    ChildProcess child({"sh", "-c", script}, log_);
    return wait_for(child);
  }
  TempFolder folder_;
  const std::string log_ = folder_ / "log.txt";
};

TEST_F(ChildProcessTest, OutputAndErrorsAreAppendedAndTheCodeComesBack) {
  EXPECT_EQ(run("echo one; echo two >&2; exit 7"), 7);
  EXPECT_EQ(run("read line && echo got $line; echo three"), 0);  // its input is empty
  EXPECT_EQ(read_text(log_), "one\ntwo\nthree\n");
}

TEST_F(ChildProcessTest, ASignalIsItsEndOrItsOwnAffair) {
  ChildProcess killed({"sleep", "30"}, log_);
  EXPECT_FALSE(killed.ended());
  killed.send(SIGTERM);
  EXPECT_EQ(wait_for(killed), 128 + SIGTERM);
  killed.send(SIGTERM);  // nobody is there
  EXPECT_EQ(killed.ended(), 128 + SIGTERM);

  ChildProcess trapping({"sh", "-c", "trap 'exit 5' INT; echo ready; while :; do sleep 0.01; done"},
                        log_);
  while (read_text(log_) != "ready\n") std::this_thread::sleep_for(std::chrono::milliseconds(1));
  trapping.send(SIGINT);
  EXPECT_EQ(wait_for(trapping), 5);
}

TEST_F(ChildProcessTest, SignalsThatWeIgnoreAreNotIgnoredThere) {
  const auto before = std::signal(SIGPIPE, SIG_IGN);
  EXPECT_EQ(run("kill -PIPE $$"), 128 + SIGPIPE);
  std::signal(SIGPIPE, before);
}

TEST_F(ChildProcessTest, TheDestructorLeavesNothingOfItsGroup) {
  {
    ChildProcess child({"sh", "-c", "sleep 30 & echo $!; wait"}, log_);
    while (read_text(log_).find('\n') == std::string::npos)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  const pid_t pid = std::stoi(read_text(log_));
  const auto is_running = [&] {  // its parent is gone: a zombie at most
    const std::string path = "/proc/" + std::to_string(pid) + "/stat";
    return exists(path) && read_text(path).find(") Z ") == std::string::npos;
  };
  for (int i = 0; i < 2000 && is_running(); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_FALSE(is_running());
}

TEST_F(ChildProcessTest, WhatCannotBeStartedIsNamed) {
  expect_user_error(kExitUsage, "cannot start no_such_program: No such file or directory",
                    [&] { ChildProcess child({"no_such_program"}, log_); });
  expect_user_error(
      kExitCannotWrite,
      folder_ / "none/log.txt" + ": cannot open for writing: No such file or directory",
      [&] { ChildProcess child({"true"}, folder_ / "none/log.txt"); });
}

TEST_F(ChildProcessTest, OwnProgramIsThisOne) { EXPECT_TRUE(own_program().ends_with("core_test")); }

}  // namespace
}  // namespace tandem
