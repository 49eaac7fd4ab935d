#include "runtime/sync.h"

#include <algorithm>

namespace hetero {
namespace {

// What is seen moves a mean by this part.
constexpr int kWeight = 8;
// What is seen within a pass, by this part.
constexpr int kGlimpse = 4;
// Outliers count as at most this many times the mean.
constexpr int kClip = 2;
// So often must a step have been seen to be known well.
constexpr int64_t kBaseline = 32;
// Sleeps shorter than this cost about as much as they save.
constexpr Nanos kShortestSleep = std::chrono::microseconds(20);
constexpr Nanos kLongestSlice = std::chrono::milliseconds(1);
// Work that is expected to take long may be done early by a part of that: one in so many.
constexpr int kEarly = 8;
// For less time than this it is not worth looking whether it is.
constexpr Nanos kWorthLooking = std::chrono::microseconds(100);
// A turn of polling gives the core to others (Clock::relax). Where all cores have work, the scheduler may let
// those have it for several milliseconds, while a sleep ends in time: then sleeps are turns, for a while, in
// waits so long that what sleeps end too late is little beside them. Sleeps that short take a quarter of the
// core from whom it is shared with, so that they are longer where something wakes the thread.
constexpr Nanos kLongWait = std::chrono::milliseconds(1);
constexpr Nanos kLongToBeWoken = std::chrono::microseconds(250);
constexpr Nanos kCrowded = std::chrono::microseconds(200);
constexpr Nanos kStaysCrowded = std::chrono::seconds(1);
// A turn that gives the core to another thread which polls as well takes some microseconds, so one in so many
// does.
constexpr int kTurns = 16;
// A core that sleeps for longer wakes up slow: on the H100's machine submitting a token's kernels took twice
// as long after sleeps of 2 ms as after sleeps of 0.2 (or none).
constexpr Nanos kStaysReady = std::chrono::microseconds(200);
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
    Entry entry;
    entry.mean = predicted;
    entry.spread = predicted / kWeight;
    entry.predicted = predicted;
    entries_.push_back(entry);
  } else if (Entry& known = entries_[static_cast<size_t>(it->second)]; predicted > Nanos{}) {
    known.predicted = predicted;  // by the newest plan; an earlier one may have had none
  }
  return it->second;
}

void StepTimes::glimpsed(int step, Nanos at_least, Nanos at_most) {
  Entry& e = entries_[static_cast<size_t>(step)];
  const Nanos time = std::clamp(e.mean, at_least, at_most);
  if (e.mean == Nanos{}) {
    e.mean = at_most;
  } else if (e.seen == 0) {
    e.spread = time > e.mean ? time - e.mean : e.mean - time;
    e.mean += (time - e.mean) / 2;
  } else {
    e.mean += (std::min(time, kClip * e.mean) - e.mean) / kGlimpse;
  }
}

void StepTimes::saw(int step, Nanos time, Nanos ran) {
  Entry& e = entries_[static_cast<size_t>(step)];
  // A single outlier (a page fault, another process) moves little.
  const auto clipped = [&](Nanos mean, Nanos sample) {
    return e.seen > 3 ? std::min(sample, kClip * mean + std::chrono::microseconds(1)) : sample;
  };
  const Nanos sample = clipped(e.mean, time);
  const Nanos sample_ran = clipped(e.ran, ran);
  if (e.seen == 0) {
    e.mean = time;
    e.spread = time / kWeight;
    e.ran = ran;
  } else {
    follow(e.spread, sample > e.mean ? sample - e.mean : e.mean - sample);
    if (e.seen <= 3) {  // the first are often slow (caches, clocks)
      e.mean = std::min(e.mean, sample);
      e.ran = std::min(e.ran, sample_ran);
    } else {
      follow(e.mean, sample);
      follow(e.ran, sample_ran);
    }
  }
  ++e.seen;
  if (++e.seen_for_baseline == kBaseline) {
    e.baseline = e.ran;
  }
}

void StepTimes::saw_together(std::span<const int> steps, Nanos time, Nanos ran) {
  // All parts before the first is learnt from: with parts of numbers that already follow this very
  // interval, a difference of a tenth would grow with every layer.
  Nanos sum{};
  for (const int step : steps) {
    sum += expected(step);
  }
  parts_.clear();
  for (const int step : steps) {
    parts_.push_back(sum == Nanos{}
                         ? 1.0 / static_cast<double>(steps.size())
                         : static_cast<double>(expected(step).count()) / static_cast<double>(sum.count()));
  }
  for (size_t i = 0; i < steps.size(); ++i) {
    const auto part = [&](Nanos all) {
      return Nanos(static_cast<int64_t>(parts_[i] * static_cast<double>(all.count())));
    };
    saw(steps[i], part(time), part(ran));
  }
}

void StepTimes::forget_baselines() {
  for (Entry& e : entries_) {
    e.baseline = {};
    e.seen_for_baseline = 0;
  }
}

std::vector<StepTimes::Line> StepTimes::lines() const {
  std::vector<Line> lines(entries_.size());
  for (const auto& [key, number] : numbers_) {
    const Entry& e = entries_[static_cast<size_t>(number)];
    lines[static_cast<size_t>(number)] = {key, e.predicted, e.ran, e.mean, e.seen};
  }
  std::erase_if(lines, [](const Line& line) { return line.seen == 0; });
  return lines;
}

void Waiter::sleep_until(Nanos time, const Fence& waker) {
  const Nanos begin = clock_.now();
  if (waker.wakes()) {
    waker.timeline->wait_until(waker.ticket, time);
  } else {
    for (Nanos now = begin; ready_ && time - now > kStaysReady; now = clock_.now()) {
      clock_.sleep_until(now + kStaysReady);
    }
    clock_.sleep_until(time);
  }
  const Nanos end = clock_.now();
  slept_ += end - begin;
  if (end < time) {
    return;  // woken
  }
  const Nanos late = std::clamp(end - time, Nanos{}, Nanos{kLongestSlice});
  follow(late_more_, late > late_ ? late - late_ : late_ - late);
  follow(late_, late);
}

void Waiter::relax(Nanos limit) {
  clock_.relax();
  if (const Nanos after = clock_.now(); after > limit) {
    crowded_until_ = after + kStaysCrowded;
  }
}

void Waiter::give_way(Nanos expected) {
  const Nanos now = clock_.now();
  if (const Nanos left = expected - now; now >= crowded_until_ && left < kLongToBeWoken) {
    relax(now + std::max(Nanos{}, left) + kLongWait);
  }
}

void Waiter::sleep_towards(Nanos expected, Nanos spread, const Fence& waker) {
  turns_ = 0;
  early_ = 2 * spread;
  const Nanos until = expected - early_ - late_ - 2 * late_more_;
  began_ = clock_.now();
  const Nanos left = until - began_;
  if (left >= kShortestSleep) {
    sleep_until(left / kEarly >= kWorthLooking && !waker.wakes() ? until - left / kEarly : until, waker);
  }
}

bool Waiter::poll(Nanos expected, const Fence& waker) {
  const Nanos now = clock_.now();
  if (const Nanos left = expected - early_ - late_ - 2 * late_more_ - now; left >= kWorthLooking / 2) {
    sleep_until(now + (waker.wakes() ? left : std::max(left / 4, kWorthLooking / 2)), waker);
    return false;
  }
  if (now - expected < kPatience) {
    if (now < crowded_until_ && expected - began_ >= (waker.wakes() ? kLongToBeWoken : kLongWait)) {
      sleep_until(waker.wakes() ? expected + kPatience : now + kShortestSleep, waker);
      return false;
    }
    if (turns_++ % kTurns == 0) {
      relax(now + kCrowded);
    }
    return true;
  }
  // In proportion to the delay, so that a wait for something unknown ends a few percent late.
  sleep_until(now + (waker.wakes() ? kLongestSlice
                                   : std::clamp((now - expected) / kWeight, kShortestSleep, kLongestSlice)),
              waker);
  return false;
}

}  // namespace hetero
