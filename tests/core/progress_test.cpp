#include "core/progress.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

#include <string>

#include "tests/core/helpers.h"

namespace tandem {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::MatchesRegex;
using testing::Not;

/// Standard error is a terminal while it lives.
class TerminalForStderr {
 public:
  TerminalForStderr() : master_(::posix_openpt(O_RDWR | O_NOCTTY)), saved_(::dup(STDERR_FILENO)) {
    if (master_ < 0 || ::grantpt(master_) != 0 || ::unlockpt(master_) != 0) return;
    const char* name = ::ptsname(master_);
    slave_ = name == nullptr ? -1 : ::open(name, O_RDWR | O_NOCTTY);
    if (slave_ >= 0) ::dup2(slave_, STDERR_FILENO);
  }
  ~TerminalForStderr() {
    ::dup2(saved_, STDERR_FILENO);
    for (const int fd : {master_, slave_, saved_}) ::close(fd);
  }
  bool works() const { return slave_ >= 0; }
  /// What was printed since the last call.
  std::string seen() const {
    ::fcntl(master_, F_SETFL, O_NONBLOCK);
    std::string text(65536, '\0');
    const ssize_t n = ::read(master_, text.data(), text.size());
    text.resize(n > 0 ? static_cast<size_t>(n) : 0);
    return text;
  }

 private:
  int master_, saved_, slave_ = -1;
};

TEST(ProgressTest, WithoutATerminalOnlyTheLastLineOfShortWork) {
  const auto text = printed([] {
    Progress progress("train", 1000, "steps");
    for (int i = 1; i <= 1000; ++i) progress.update(i, "loss 3.21");
    progress.clear();
    progress.finish();
    progress.update(1001);
    progress.finish();
  });
  EXPECT_THAT(text, MatchesRegex("train: 1,000 steps in [0-9]+ s, loss 3\\.21\n"));
}

TEST(ProgressTest, WithoutATerminalTheDestructorEndsTheWork) {
  EXPECT_THAT(printed([] { Progress("read", 0, "tokens").update(12345); }),
              MatchesRegex("read: 12,345 tokens in [0-9]+ s\n"));
}

TEST(ProgressTest, WorkThatStopsEarlySaysHowFarItCame) {
  EXPECT_THAT(printed([] { Progress("train", 1000, "steps", 400).update(450); }),
              MatchesRegex("train: 450 / 1,000 steps in [0-9]+ s\n"));
}

TEST(ProgressTest, OnATerminalABarThatIsErased) {
  TerminalForStderr terminal;
  if (!terminal.works()) GTEST_SKIP() << "no pseudo-terminals here";
  Progress progress("train", 1000, "steps", 200);
  progress.update(500, "loss 3.21");
  EXPECT_THAT(terminal.seen(),
              MatchesRegex("\r\033\\[K"
                           "train: \\[############\\.\\.\\.\\.\\.\\.\\.\\.\\.\\.\\.\\.\\] "
                           "50% 500 / 1,000 steps, [0-9]+ s left, loss 3\\.21"));
  progress.clear();
  EXPECT_EQ(terminal.seen(), "\r\033[K");
  progress.clear();  // nothing is there
  EXPECT_EQ(terminal.seen(), "");
  progress.update(
      1000, std::string(500, 'x'));  // drawn at once after clear(), cut to one line of the terminal
  const auto bar = terminal.seen();
  EXPECT_EQ(bar.size(), std::string("\r\033[K").size() + 79);
  EXPECT_THAT(bar, Not(HasSubstr("\n")));
  progress.update(1000, "done");
  progress.finish();
  EXPECT_THAT(terminal.seen(),
              MatchesRegex(".*\r\033\\[Ktrain: 1,000 steps in [0-9]+ s, done\r\n"));
}

TEST(ProgressTest, OnATerminalMoreThanTheTotalIsAFullBar) {
  TerminalForStderr terminal;
  if (!terminal.works()) GTEST_SKIP() << "no pseudo-terminals here";
  Progress progress("read", 10, "files");
  progress.update(12);
  EXPECT_THAT(terminal.seen(), EndsWith("[########################] 100% 12 / 10 files"));
}

}  // namespace
}  // namespace tandem
