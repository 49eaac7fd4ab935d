#include "base/clock.h"

#include <time.h>

#include <cerrno>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace hetero {
namespace {

class SystemClock : public Clock {
 public:
  Nanos now() override { return hetero::now(); }

  void sleep_until(Nanos time) override {
    // steady_clock is CLOCK_MONOTONIC on Linux.
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(time);
    const timespec until{static_cast<time_t>(seconds.count()), static_cast<long>((time - seconds).count())};
    while (time > hetero::now() && clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr) == EINTR) {
    }
  }

  void relax() override {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("isb");
#endif
  }
};

}  // namespace

Clock& system_clock() {
  static SystemClock clock;
  return clock;
}

}  // namespace hetero
