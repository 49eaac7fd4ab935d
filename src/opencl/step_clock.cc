#include "opencl/step_clock.h"

#if defined(__x86_64__)
#include <x86intrin.h>
#endif

namespace hetero {
namespace {

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
  constexpr uint64_t kFew = 1000000;
  return last.ticks - first_.ticks < kFew ? 0.4
                                          : static_cast<double>((last.time - first_.time).count()) /
                                                static_cast<double>(last.ticks - first_.ticks);
}

Interval StepClock::interval(const StepTicks& ran) const {
  const Pair last = read();
  const double rate = nanos_per_tick(last);
  const auto time = [&](uint64_t ticks) {
    const auto since = static_cast<int64_t>(last.ticks - ticks);
    return last.time - Nanos(static_cast<int64_t>(static_cast<double>(since) * rate));
  };
  return {time(ran.begin), time(ran.end)};
}

uint64_t StepClock::ticks(Nanos time) const {
  return static_cast<uint64_t>(static_cast<double>(time.count()) / nanos_per_tick(read()));
}

}  // namespace hetero
