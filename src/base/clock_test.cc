#include "base/clock.h"

#include <gtest/gtest.h>

namespace hetero {
namespace {

TEST(SystemClock, SleepsNoShorterThanAsked) {
  Clock& clock = system_clock();
  const Nanos until = clock.now() + std::chrono::microseconds(200);
  clock.sleep_until(until);
  EXPECT_GE(clock.now(), until);
  clock.sleep_until(until - std::chrono::seconds(1));  // in the past: at once
}

}  // namespace
}  // namespace hetero
