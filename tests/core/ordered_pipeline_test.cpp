#include "core/ordered_pipeline.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <string>

namespace tandem {
namespace {

using Pipeline = OrderedPipeline<int, std::string>;

/// Numbers from 0; at `fails` it throws.
std::function<bool(int&)> numbers(int n, int fails = -1) {
  return [=, next = 0](int& out) mutable {
    if (next == fails) throw std::runtime_error("made badly");
    out = next;
    return next++ < n;
  };
}

std::string slow_text(const int& n) {  // later pieces are often ready first
  std::this_thread::sleep_for(std::chrono::microseconds(n * 7919 % 500));
  return std::to_string(n);
}

size_t one_byte(const int&) { return 1; }

TEST(OrderedPipelineTest, KeepsTheOrder) {
  for (const int threads : {1, 2, 7}) {
    Pipeline pipeline({numbers(203), slow_text, one_byte}, threads, 11);
    for (int i = 0; i < 203; ++i) ASSERT_EQ(pipeline.next(), std::to_string(i));
    EXPECT_EQ(pipeline.next(), std::nullopt);
    EXPECT_EQ(pipeline.next(), std::nullopt);
  }
}

TEST(OrderedPipelineTest, HoldsNoMoreThanAllowed) {
  std::atomic<int> made = 0;
  const auto make = [&](int& out) {
    out = made;
    return made++ < 100;
  };
  Pipeline pipeline({make, slow_text, [](const int&) { return size_t{10}; }}, 3, 40);
  for (int taken = 1; taken <= 100; ++taken) {
    ASSERT_TRUE(pipeline.next());
    EXPECT_LE(made, taken + 4 + 1) << "four that fit, one that waits";
  }
}

TEST(OrderedPipelineTest, APieceBeyondTheLimitGoesAlone) {
  Pipeline pipeline({numbers(5), slow_text, [](const int&) { return size_t{1000}; }}, 2, 10);
  for (int i = 0; i < 5; ++i) ASSERT_EQ(pipeline.next(), std::to_string(i));
  EXPECT_EQ(pipeline.next(), std::nullopt);
}

TEST(OrderedPipelineTest, ErrorsComeInTheirPlace) {
  const auto fails_at_6 = [](const int& n) {
    if (n == 6) throw std::runtime_error("applied badly");
    return slow_text(n);
  };
  const auto error_of_next = [](Pipeline& pipeline) {
    try {
      pipeline.next();
    } catch (const std::runtime_error& error) {
      return std::string(error.what());
    }
    return std::string("none");
  };
  for (const int threads : {1, 3}) {
    Pipeline makes({numbers(20, 5), slow_text, one_byte}, threads, 100);
    for (int i = 0; i < 5; ++i) ASSERT_EQ(makes.next(), std::to_string(i));
    EXPECT_EQ(error_of_next(makes), "made badly");
    EXPECT_EQ(makes.next(), std::nullopt);
    Pipeline applies({numbers(20), fails_at_6, one_byte}, threads, 100);
    for (int i = 0; i < 6; ++i) ASSERT_EQ(applies.next(), std::to_string(i));
    EXPECT_EQ(error_of_next(applies), "applied badly");
    EXPECT_EQ(applies.next(), std::nullopt);
  }
}

TEST(OrderedPipelineTest, AfterAnErrorThereIsNoMoreEvenWhenMoreIsMadeThanFits) {
  const auto fails_at_2 = [](const int& n) {
    if (n == 2) throw std::runtime_error("applied badly");
    return slow_text(n);
  };
  for (const int threads : {1, 3}) {
    Pipeline pipeline({numbers(1000), fails_at_2, one_byte}, threads, 4);
    for (int i = 0; i < 2; ++i) ASSERT_EQ(pipeline.next(), std::to_string(i));
    EXPECT_THROW(pipeline.next(), std::runtime_error);
    for (int i = 0; i < 3; ++i) ASSERT_EQ(pipeline.next(), std::nullopt);
  }
}

TEST(OrderedPipelineTest, SaysWhetherOneHasToWait) {
  std::atomic<bool> go = false;
  const auto waits = [&](const int& n) {
    go.wait(false);
    return std::to_string(n);
  };
  Pipeline pipeline({numbers(1), waits, one_byte}, 1, 4);
  EXPECT_FALSE(pipeline.ready_within(std::chrono::milliseconds(1)));
  go = true;
  go.notify_all();
  EXPECT_EQ(pipeline.next(), "0");
  EXPECT_EQ(pipeline.next(), std::nullopt);
  EXPECT_TRUE(pipeline.ready_within(std::chrono::milliseconds(0))) << "the end needs no waiting";
}

TEST(OrderedPipelineTest, CanBeLeftAtAnyTime) {
  for (int taken = 0; taken < 20; ++taken) {
    Pipeline pipeline({numbers(1000), slow_text, one_byte}, 1 + taken % 4, 8);
    for (int i = 0; i < taken; ++i) ASSERT_TRUE(pipeline.next());
  }
}

}  // namespace
}  // namespace tandem
