#include "train/step_facts.h"

#include <gtest/gtest.h>

#include "tests/comm/thread_ranks.h"

namespace tandem {
namespace {

TEST(StepFactsTest, ASignalOfOneRankIsEverybodys) {
  run_ranks(3, [](Communicator& control) {
    StepFacts facts{.step = 4, .next_sample = 24, .loss = 2.5, .grad_norm = 0.125};
    EXPECT_EQ(agree_on(control, facts), 0);
    if (control.rank() == 1) facts.signal = 15;
    EXPECT_EQ(agree_on(control, facts), 15);
    EXPECT_EQ(agree_on_signal(control, facts.signal), 15);
  });
}

TEST(StepFactsTest, ARankThatWentApartIsNamed) {
  std::atomic<int> told = 0;
  run_ranks(4, [&](Communicator& control) {
    StepFacts facts{.step = 4, .next_sample = 24, .loss = 2.5, .grad_norm = 0.125};
    if (control.rank() == 2) facts.loss = 2.75;
    try {
      agree_on(control, facts);
    } catch (const PeerLost& error) {
      ++told;
      EXPECT_STREQ(error.what(),
                   "ranks went apart: rank 2 came to step 4, next sample 24, loss 2.75, grad_norm 0.125, 0 skipped; 3 others to step 4, next sample 24, loss 2.5, "
                   "grad_norm 0.125, 0 skipped");
    }
  });
  EXPECT_EQ(told, 4);
}

TEST(StepFactsTest, NotANumberEqualsItself) {
  run_ranks(2, [](Communicator& control) {
    const StepFacts facts{.step = 1, .loss = std::numeric_limits<double>::quiet_NaN()};
    EXPECT_EQ(agree_on(control, facts), 0);
  });
}

}  // namespace
}  // namespace tandem
