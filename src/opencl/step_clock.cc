#include "opencl/step_clock.h"

#if defined(__x86_64__)
#include <x86intrin.h>
#endif

namespace hetero {
namespace {

constexpr uint64_t kFew = 1000000;    // ticks: too few to tell the rate
constexpr uint64_t kLong = 25000000;  // some 10 ms

uint64_t counter() {
#if defined(__x86_64__)
  return __rdtsc();
#else
  return 0;
#endif
}

}  // namespace

bool StepClock::exists() {
#if defined(__x86_64__)
  return true;
#else
  return false;
#endif
}

StepClock::Pair StepClock::read() {
  // The closest of a few: between the two, this thread may lose its core.
  Pair best;
  Nanos least = Nanos::max();
  for (int i = 0; i < 4 && least > Nanos(200); ++i) {
    const Nanos before = now();
    const uint64_t ticks = counter();
    const Nanos after = now();
    if (after - before < least) {
      least = after - before;
      best = {ticks, before + (after - before) / 2};
    }
  }
  return best;
}

double StepClock::nanos_per_tick(const Pair& last) const {
  return last.ticks - first_.ticks < kFew ? 0.4
                                          : static_cast<double>((last.time - first_.time).count()) /
                                                static_cast<double>(last.ticks - first_.ticks);
}

Interval StepClock::interval(const StepTicks& ran) {
  // While it is young beside the time in which the rate was found, a reading's error does not grow.
  const uint64_t known = last_.ticks - first_.ticks;
  if (const uint64_t age = counter() - last_.ticks; known < kFew || age > known / 4 || age > kLong) {
    last_ = read();
  }
  const double rate = nanos_per_tick(last_);
  const auto time = [&](uint64_t ticks) {
    const auto since = static_cast<int64_t>(last_.ticks - ticks);
    return last_.time - Nanos(static_cast<int64_t>(static_cast<double>(since) * rate));
  };
  return {time(ran.begin), time(ran.end)};
}

uint64_t StepClock::ticks(Nanos time) const {
  return static_cast<uint64_t>(static_cast<double>(time.count()) / nanos_per_tick(read()));
}

}  // namespace hetero
