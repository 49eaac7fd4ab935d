#include "runtime/adapt.h"

#include <gtest/gtest.h>

namespace hetero {
namespace {

using std::chrono::milliseconds;

/// Feeds passes of 10 ms predicted time for `time`, each `slower` times as long.
Nanos feed(Adaptation& a, int processor, double slower, Nanos from, Nanos time) {
  for (const Nanos end = from + time; from < end; from += milliseconds(10)) {
    a.saw(processor, Nanos(static_cast<int64_t>(slower * 10e6)), milliseconds(10), from);
  }
  return from;
}

TEST(Adaptation, ReportsWhatIsSlowerForOverASecond) {
  Adaptation a;
  const Nanos now = feed(a, 1, 1.5, Nanos{}, milliseconds(1100));
  const auto change = a.take(now);
  ASSERT_TRUE(change.has_value());
  EXPECT_EQ(change->processor, 1);
  EXPECT_NEAR(change->slower, 1.5, 0.01);
  EXPECT_FALSE(a.take(now).has_value()) << "once";
}

TEST(Adaptation, LeavesShortOrSmallDifferencesAlone) {
  Adaptation a;
  EXPECT_FALSE(a.take(feed(a, 0, 3.0, Nanos{}, milliseconds(900))).has_value());
  Adaptation b;
  EXPECT_FALSE(b.take(feed(b, 0, 1.15, Nanos{}, milliseconds(5000))).has_value());
  Adaptation c;  // as predicted in between
  Nanos now{};
  for (int i = 0; i < 10; ++i) {
    now = feed(c, 0, 2.0, now, milliseconds(500));
    now = feed(c, 0, 1.0, now, milliseconds(20));
    EXPECT_FALSE(c.take(now).has_value());
  }
}

TEST(Adaptation, ReportsWhatIsFasterAgain) {
  Adaptation a;
  const auto change = a.take(feed(a, 0, 0.5, Nanos{}, milliseconds(1200)));
  ASSERT_TRUE(change.has_value());
  EXPECT_NEAR(change->slower, 0.5, 0.01);
}

TEST(Adaptation, WhatWasNotPredictedIsNotJudged) {
  Adaptation a;
  for (int i = 0; i < 200; ++i) {
    a.saw(0, milliseconds(10), Nanos{}, i * milliseconds(10));
  }
  EXPECT_FALSE(a.take(milliseconds(2000)).has_value());
}

}  // namespace
}  // namespace hetero
