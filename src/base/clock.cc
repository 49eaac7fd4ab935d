#include "base/clock.h"

#include <sched.h>
#include <sys/prctl.h>
#include <time.h>

#include <cerrno>

namespace hetero {
namespace {

class SystemClock : public Clock {
 public:
  Nanos now() override { return hetero::now(); }

  void sleep_until(Nanos time) override {
    sharpen_timers();
    // steady_clock is CLOCK_MONOTONIC on Linux.
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(time);
    const timespec until{static_cast<time_t>(seconds.count()), static_cast<long>((time - seconds).count())};
    while (time > hetero::now() &&
           clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr) == EINTR) {
    }
  }

  // Where every core has work, whoever polls would otherwise take one from those who are polled for.
  void relax() override { sched_yield(); }
};

}  // namespace

void sharpen_timers() {
  [[maybe_unused]] thread_local const int sharp = prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
}

Clock& system_clock() {
  static SystemClock clock;
  return clock;
}

Nanos thread_cpu_time() {
  timespec time{};
  (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return std::chrono::seconds(time.tv_sec) + Nanos(time.tv_nsec);
}

}  // namespace hetero
