// Time, behind an interface: the machine's own clock, or the virtual time of a simulation. Whatever
// waits or measures on behalf of processors asks the clock of those processors
// (Processor::clock()), so that the same code runs on real and on simulated ones.
#pragma once

#include <chrono>

namespace hetero {

using Nanos = std::chrono::nanoseconds;

/// Now, on the machine's clock (steady_clock since its epoch).
inline Nanos now() {
  return std::chrono::steady_clock::now().time_since_epoch();
}

/// Called by the control thread only, except now(), which any thread may call.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual Nanos now() = 0;
  /// Returns at `time` or, by the grain of the system's timers, somewhat later; at once if it has
  /// passed. The thread uses no CPU meanwhile.
  virtual void sleep_until(Nanos time) = 0;
  /// One turn of a loop that polls: lets another thread have the core if one waits for it.
  virtual void relax() = 0;
};

/// The machine's clock: now(), clock_nanosleep.
Clock& system_clock();

/// Linux ends what a thread waits for with a limit of time up to 50 us late, to save wake-ups, unless the
/// thread asks for better, which this does. system_clock() does so itself.
void sharpen_timers();

/// CPU time that the calling thread has used.
Nanos thread_cpu_time();

}  // namespace hetero
