#include <cstdio>
#include <exception>

#include "core/error.h"
#include "tests/comm/ranks.h"

namespace tandem {
namespace {

// Not a test of its own: what the processes of Ranks run.
TEST(RankBody, Runs) {
  const char* name = std::getenv("TANDEM_RANK_BODY");
  if (!name) GTEST_SKIP() << "started by Ranks only";
  int code = 1;
  try {
    code = rank_bodies().at(name)();
  } catch (const UserError& error) {
    std::fprintf(stderr, "%s\n", error.what());
    code = error.exit_code();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", name, error.what());
  }
  std::fflush(nullptr);
  _exit(code);
}

}  // namespace
}  // namespace tandem
