#include "runtime/sync.h"

#include <algorithm>

namespace hetero {
namespace {

// What is seen moves a mean by this part.
constexpr int kWeight = 8;
// A single outlier (a page fault, another process) counts as at most this many times the mean.
constexpr int kClip = 2;
// Sleeps shorter than this cost about as much as they save.
constexpr Nanos kShortestSleep = std::chrono::microseconds(20);
constexpr Nanos kLongestSlice = std::chrono::milliseconds(1);
// How long to poll beyond the predicted end before turns become sleeps.
constexpr Nanos kPatience = std::chrono::microseconds(100);

void follow(Nanos& mean, Nanos sample) {
  mean += (sample - mean) / kWeight;
}

}  // namespace

const char* sync_name(Sync sync) {
  return sync == Sync::kFast ? "fast" : "driver";
}

std::optional<Sync> sync_from_name(const std::string& name) {
  for (const Sync sync : {Sync::kFast, Sync::kDriver}) {
    if (name == sync_name(sync)) {
      return sync;
    }
  }
  return std::nullopt;
}

int StepTimes::find(const Key& key, Nanos predicted) {
  const auto [it, added] = numbers_.try_emplace(key, static_cast<int>(entries_.size()));
  if (added) {
    entries_.push_back({predicted, predicted / kWeight, 0});
  }
  return it->second;
}

void StepTimes::saw(int step, Nanos time) {
  Entry& e = entries_[static_cast<size_t>(step)];
  ++e.seen;
  if (e.seen == 1) {
    e.mean = time;
    e.spread = time / kWeight;
    return;
  }
  // The first is often slow (caches, clocks): what follows may replace it quickly.
  const Nanos sample = e.seen > 3 ? std::min(time, kClip * e.mean + std::chrono::microseconds(1)) : time;
  follow(e.spread, sample > e.mean ? sample - e.mean : e.mean - sample);
  e.mean = e.seen <= 3 ? std::min(e.mean, sample) : e.mean + (sample - e.mean) / kWeight;
}

void Waiter::sleep_until(Nanos time) {
  const Nanos begin = clock_.now();
  clock_.sleep_until(time);
  const Nanos end = clock_.now();
  slept_ += end - begin;
  const Nanos late = std::clamp(end - time, Nanos{}, Nanos{kLongestSlice});
  follow(late_more_, late > late_ ? late - late_ : late_ - late);
  follow(late_, late);
}

void Waiter::sleep_towards(Nanos expected) {
  const Nanos until = expected - late_ - 2 * late_more_;
  if (until - clock_.now() >= kShortestSleep) {
    sleep_until(until);
  }
}

void Waiter::poll(Nanos expected) {
  const Nanos now = clock_.now();
  if (now - expected < kPatience) {
    clock_.relax();
    return;
  }
  // In proportion to the delay, so that a wait for something unknown ends a few percent late.
  sleep_until(now + std::clamp((now - expected) / kWeight, kShortestSleep, kLongestSlice));
}

}  // namespace hetero
