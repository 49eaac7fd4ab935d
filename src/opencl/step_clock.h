// Times that a kernel takes for itself: the processor's own counter (the TSC of x86, which runs evenly and is
// the same on all cores), read by the host as well.
#pragma once

#include <cstdint>

#include "processor/processor.h"

namespace hetero {

/// When the work of a ticket ran, on the counter.
struct StepTicks {
  uint64_t begin = 0;
  uint64_t end = 0;
};

/// From the counter to now(). Any thread, but interval() from one at a time.
class StepClock {
 public:
  StepClock() : first_(read()), last_(first_) {}

  /// Whether this machine has such a counter.
  static bool exists();

  /// Moments in the last seconds, by now(). The two clocks are read together, some 100 ns apart, once in some
  /// 10 ms at most: by one reading all moments keep their order.
  Interval interval(const StepTicks& ran);
  /// That many ticks take so long; roughly right after construction.
  uint64_t ticks(Nanos time) const;

 private:
  struct Pair {
    uint64_t ticks = 0;
    Nanos time{};
  };
  static Pair read();
  double nanos_per_tick(const Pair& last) const;

  Pair first_;
  Pair last_;
};

}  // namespace hetero
