#include "opencl/step_clock.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>

#if defined(__x86_64__)
#include <x86intrin.h>

namespace hetero {
namespace {

TEST(StepClock, TellsTheTimeOfTheCounter) {
  ASSERT_TRUE(StepClock::exists());
  StepClock clock;
  const Nanos begin = now();
  while (now() - begin < std::chrono::milliseconds(5)) {  // to know how fast it counts
  }
  Nanos least = Nanos::max();
  for (int i = 0; i < 1000; ++i) {  // this thread may lose its core in between
    const Nanos time = now();
    const uint64_t ticks = __rdtsc();
    const Nanos told = clock.interval({ticks, ticks}).begin;
    least = std::min(least, std::max(time - told, told - time));
  }
  EXPECT_LT(least, std::chrono::microseconds(2));
  const uint64_t first = __rdtsc();
  const Interval some = clock.interval({first, first + 10000});
  EXPECT_LT(some.begin, some.end);
  const uint64_t second = clock.ticks(std::chrono::seconds(1));
  EXPECT_GT(second, 200000000u);
  EXPECT_LT(second, 10000000000u);
}

}  // namespace
}  // namespace hetero
#endif
