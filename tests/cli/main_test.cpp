#include <gmock/gmock.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <string>

#include "core/error.h"
#include "tests/paths.h"

// The program as a user starts it.

namespace tandem {
namespace {

using testing::HasSubstr;

struct Ran {
  int code = -1;
  std::string out;  // with standard error
};

Ran tandem(const std::string& arguments) {
  const std::string command = std::string("'") + kTandemProgram + "' 2>&1 " + arguments;
  FILE* pipe = ::popen(command.c_str(), "r");
  Ran ran;
  std::array<char, 4096> buffer;
  for (size_t n; pipe && (n = std::fread(buffer.data(), 1, buffer.size(), pipe)) > 0;)
    ran.out.append(buffer.data(), n);
  const int status = ::pclose(pipe);
  ran.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return ran;
}

TEST(MainTest, HelpListsEveryCommandOnOneLine) {
  const Ran ran = tandem("--help");
  EXPECT_EQ(ran.code, kExitDone);
  for (const char* command :
       {"train", "sweep", "data", "eval", "generate", "score", "bench", "convert", "config"}) {
    EXPECT_THAT(ran.out, HasSubstr("\n  " + std::string(command) + " "));
  }
  EXPECT_EQ(tandem("").code, kExitUsage);
}

TEST(MainTest, EveryCommandHasHelpOfItsOwn) {
  for (const char* command :
       {"train", "sweep", "data", "eval", "generate", "score", "bench", "convert", "config"}) {
    const Ran ran = tandem(command + std::string(" --help"));
    EXPECT_EQ(ran.code, kExitDone);
    EXPECT_THAT(ran.out, HasSubstr("Usage: tandem " + std::string(command) + " "));
    EXPECT_THAT(ran.out, HasSubstr("Example: tandem " + std::string(command) + " "));
  }
}

TEST(MainTest, VersionNamesTandemAndLibTorch) {
  const Ran ran = tandem("--version");
  EXPECT_EQ(ran.code, kExitDone);
  EXPECT_THAT(ran.out, testing::MatchesRegex("tandem [0-9.]+, LibTorch [0-9.]+.*\n"));
}

TEST(MainTest, AnUnknownCommandGetsTheNearestOne) {
  const Ran ran = tandem("genrate x");
  EXPECT_EQ(ran.code, kExitUsage);
  EXPECT_EQ(ran.out,
            "tandem: unknown command genrate; did you mean generate?; see tandem --help\n");
  EXPECT_EQ(tandem("fly").out, "tandem: unknown command fly; see tandem --help\n");
}

TEST(MainTest, AUserErrorIsOneLineWithItsExitCode) {
  const Ran ran = tandem("score no_such_run --tokens ids.json");
  EXPECT_EQ(ran.code, kExitBadFile);
  EXPECT_EQ(ran.out,
            "tandem: no_such_run: does not exist, expected a checkpoint or a run folder\n");
}

TEST(MainTest, AClosedPipeEndsQuietly) {
  std::array<int, 2> ends;
  ASSERT_EQ(::pipe(ends.data()), 0);
  ASSERT_LT(ends[1], 10);  // sh takes one digit
  ::close(ends[0]);
  const Ran ran = tandem("--help >&" + std::to_string(ends[1]));
  ::close(ends[1]);
  EXPECT_EQ(ran.code, kExitDone);
  EXPECT_EQ(ran.out, "");
}

TEST(MainTest, AFullDiskIsNoSuccess) {
  const Ran ran = tandem("--help > /dev/full");
  EXPECT_EQ(ran.code, kExitCannotWrite);
  EXPECT_EQ(ran.out, "tandem: standard output: No space left on device\n");
}

}  // namespace
}  // namespace tandem
