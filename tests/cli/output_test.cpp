#include "cli/output.h"

#include <gtest/gtest.h>

namespace tandem {
namespace {

TEST(FormatTableTest, AlignsByCharacters) {
  EXPECT_EQ(
      format_table(
          {{"model", "ms (min – max)", "n"}, {"a", "1.5", "1,000"}, {"longer name", "20", ""}}),
      "model        ms (min – max)      n\n"
      "───────────  ──────────────  ─────\n"
      "a                       1.5  1,000\n"
      "longer name              20\n");
  EXPECT_EQ(format_table({}), "");
}

}  // namespace
}  // namespace tandem
