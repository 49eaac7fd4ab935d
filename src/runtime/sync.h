// How the control thread waits for processors.
//
// Fast (paper, section 4.3): an operator takes as long in one layer as in the next, so the time at
// which a step will be done is known in advance. The thread sleeps until shortly before, and then
// looks again and again whether the timeline says so, which costs no call into the driver where the
// timeline is a word in memory. Steps of one processor are enqueued ahead, so that the order of its
// queue does most of the waiting.
//
// Driver: the ordinary way, for comparison. Operator by operator, the driver's blocking call
// (clFinish) and a blocking map and unmap of what was written. Nothing is enqueued ahead, nothing is
// predicted.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "processor/processor.h"

namespace hetero {

enum class Sync { kFast, kDriver };

const char* sync_name(Sync sync);
std::optional<Sync> sync_from_name(const std::string& name);

/// What steps cost, learnt: first from the plan's prediction, then from what was seen. Steps that do
/// the same work on the same processor share what is learnt.
class StepTimes {
 public:
  /// (processor, operator without its layer, columns, rows)
  using Key = std::tuple<int, std::string, int64_t, int64_t>;

  /// The number under which `key` is known from here on. `predicted` counts until something is seen.
  int find(const Key& key, Nanos predicted);

  /// From the start, or from the end of what ran before in the queue, to the end. Zero: not known.
  Nanos expected(int step) const { return entries_[static_cast<size_t>(step)].mean; }
  /// How far off expected() usually is.
  Nanos spread(int step) const { return entries_[static_cast<size_t>(step)].spread; }
  /// Within a pass: one step took so long, as in expected(), at least and at most. The other layers' will as
  /// well, since processors get slower and faster with whatever else goes on.
  void glimpsed(int step, Nanos at_least, Nanos at_most);
  /// `time` as in expected(); `ran`: of it, the processor's own work.
  void saw(int step, Nanos time, Nanos ran);
  /// The same of several steps about which the driver tells only together: each gets the part that
  /// was expected of it. A step may come more than once.
  void saw_together(std::span<const int> steps, Nanos time, Nanos ran);

  /// The processor's own work, usually.
  Nanos ran(int step) const { return entries_[static_cast<size_t>(step)].ran; }
  /// The same, as it was when the step was first known well; zero before. What a plan without
  /// predictions is held against.
  Nanos baseline(int step) const { return entries_[static_cast<size_t>(step)].baseline; }
  void forget_baselines();

  struct Line {
    Key key;
    Nanos predicted{};
    Nanos ran{};
    Nanos expected{};  // from submission, or from the end of what ran before it, to the end
    int64_t seen = 0;
  };
  /// All that was seen at least once.
  std::vector<Line> lines() const;

 private:
  struct Entry {
    Nanos mean{};
    Nanos spread{};
    Nanos predicted{};
    Nanos ran{};
    Nanos baseline{};
    int64_t seen = 0;
    int64_t seen_for_baseline = 0;
  };
  std::map<Key, int> numbers_;
  std::vector<double> parts_;
  std::vector<Entry> entries_;
};

/// Sleeps and polls on a clock. One thread.
class Waiter {
 public:
  explicit Waiter(Clock& clock) : clock_(clock) {}

  /// Before the wait for a thread that shares this one's core, where nothing else is at work: lets it begin
  /// at once, if its end is expected soon. A sleep takes some microseconds until that core is free.
  void give_way(Nanos expected);
  /// Sleeps until a part of the time to `expected` is left, if that is far enough away, and so long before
  /// that work which is done early by `spread`, twice, is seen at once. `waker`: of what is waited for,
  /// something whose timeline wakes(), if there is; the end of that ends any sleep.
  void sleep_towards(Nanos expected, Nanos spread = {}, const Fence& waker = {});
  /// One turn of the polling that follows: short sleeps until the thread must be awake for `expected`, since
  /// work may be done early, or one long sleep with a `waker`. Once `expected` has passed for a while, turns
  /// are short sleeps again: a wrong prediction must not cost a core. Whether the thread was awake for all of
  /// it, since the end is near.
  bool poll(Nanos expected, const Fence& waker = {});

  /// Whether what comes behind a wait is to be done fast: no sleep then lasts long enough for the core to
  /// lose what its caches hold.
  void stay_ready(bool ready) { ready_ = ready; }

  Nanos slept() const { return slept_; }

 private:
  void relax(Nanos limit);
  void sleep_until(Nanos time, const Fence& waker);

  Clock& clock_;
  Nanos late_{};       // by how much sleeps end late here, usually
  Nanos late_more_{};  // and how far that is off
  Nanos slept_{};
  bool ready_ = false;
  int turns_ = 0;          // of polling
  Nanos began_{};          // of this wait
  Nanos early_{};          // how much earlier than expected it may end
  Nanos crowded_until_{};  // until then polling sleeps, since it would not get its core back in time
};

}  // namespace hetero
