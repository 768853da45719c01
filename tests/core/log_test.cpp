#include "core/log.h"

#include <gtest/gtest.h>

#include <cctype>
#include <climits>
#include <cmath>
#include <limits>
#include <sstream>
#include <thread>
#include <vector>

#include "core/file.h"
#include "tests/core/helpers.h"

namespace tandem {
namespace {

class LogTest : public testing::Test {
 protected:
  ~LogTest() override {
    set_log_file("");
    set_log_quiet(false);
  }
  TempFolder folder_;
};

/// `text` with the time taken off each line, which must begin with one: "2024-05-09 08:07:06Z ".
std::string without_times(const std::string& text) {
  const std::string form = "0000-00-00 00:00:00Z ";  // 0 stands for a digit
  std::string rest;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::string time = line.substr(0, form.size());
    for (char& c : time) {
      if (std::isdigit(static_cast<unsigned char>(c))) c = '0';
    }
    EXPECT_EQ(time, form);
    rest += line.substr(time.size()) + "\n";
  }
  return rest;
}

TEST_F(LogTest, LinesGoToStandardErrorAndToTheFileWithTheTime) {
  const auto text = printed([&] {
    log_line("before");
    set_log_file(folder_ / "log.txt");
    log_line("first");
    log_warning("second");
    set_log_file("");
    log_line("after");
  });
  EXPECT_EQ(text, "before\nfirst\nwarning: second\nafter\n");
  EXPECT_EQ(without_times(read_text(folder_ / "log.txt")), "first\nwarning: second\n");
}

TEST_F(LogTest, FilesAreAppendedTo) {
  write_file(folder_ / "log.txt", "of an earlier start\n");
  set_log_file(folder_ / "log.txt");
  set_log_quiet(true);
  EXPECT_EQ(printed([] { log_line("line"); }), "");
  const auto text = read_text(folder_ / "log.txt");
  EXPECT_EQ(text.substr(0, 20), "of an earlier start\n");
  EXPECT_EQ(text.substr(text.size() - 6), " line\n");
}

TEST_F(LogTest, ThreadsDoNotMixTheirLines) {
  set_log_file(folder_ / "log.txt");
  set_log_quiet(true);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([t] {
      for (int i = 0; i < 50; ++i) log_line(std::string(100, static_cast<char>('a' + t)));
    });
  }
  for (auto& thread : threads) thread.join();
  const std::string text = read_text(folder_ / "log.txt");
  std::istringstream lines(without_times(text));
  size_t n = 0;
  for (std::string line; std::getline(lines, line); ++n) {
    EXPECT_EQ(line, std::string(100, line.empty() ? ' ' : line[0]));
  }
  EXPECT_EQ(n, 200u);
}

TEST_F(LogTest, FileThatCannotBeOpened) {
  expect_user_error(
      74, (folder_ / "no/log.txt") + ": cannot open for writing: No such file or directory",
      [&] { set_log_file(folder_ / "no/log.txt"); });
}

TEST_F(LogTest, FullDiskIsToldOnceAndDoesNotEndTheRun) {
  const auto text = printed([] {
    set_log_file("/dev/full");
    log_line("first");
    log_line("second");
  });
  EXPECT_EQ(text,
            "first\nwarning: /dev/full: cannot write: No space left on device; from here on "
            "nothing is logged there\n"
            "second\n");
}

TEST(FormatTest, Commas) {
  EXPECT_EQ(with_commas(0), "0");
  EXPECT_EQ(with_commas(999), "999");
  EXPECT_EQ(with_commas(1000), "1,000");
  EXPECT_EQ(with_commas(1234567), "1,234,567");
  EXPECT_EQ(with_commas(-100), "-100");
  EXPECT_EQ(with_commas(-123456), "-123,456");
  EXPECT_EQ(with_commas(LLONG_MIN), "-9,223,372,036,854,775,808");
}

TEST(FormatTest, Bytes) {
  EXPECT_EQ(human_bytes(0), "0 B");
  EXPECT_EQ(human_bytes(1023), "1023 B");
  EXPECT_EQ(human_bytes(1024), "1.00 KiB");
  EXPECT_EQ(human_bytes(1.02 * 1024 * 1024 * 1024), "1.02 GiB");
  EXPECT_EQ(human_bytes(1024.0 * 1024 - 1), "1.00 MiB");
  EXPECT_EQ(human_bytes(139.8 * 0x1p30), "139.80 GiB");
  EXPECT_EQ(human_bytes(0x1p60), "1024.00 PiB");
}

TEST(FormatTest, Durations) {
  EXPECT_EQ(human_duration(0.4), "0 s");
  EXPECT_EQ(human_duration(12.3), "12 s");
  EXPECT_EQ(human_duration(59.7), "1 min 00 s");
  EXPECT_EQ(human_duration(200), "3 min 20 s");
  EXPECT_EQ(human_duration(2 * 3600 + 5 * 60 + 59), "2 h 05 min");
  EXPECT_EQ(human_duration(3 * 86400 + 4 * 3600), "3 d 04 h");
  EXPECT_EQ(human_duration(-1), "unknown");
  EXPECT_EQ(human_duration(std::nan("")), "unknown");
  EXPECT_EQ(human_duration(std::numeric_limits<double>::infinity()), "unknown");
}

}  // namespace
}  // namespace tandem
