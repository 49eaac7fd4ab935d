#include "runtime/sync.h"

#include <gtest/gtest.h>

namespace hetero {
namespace {

using std::chrono::microseconds;

/// Time that passes only while somebody waits; sleeps end `late`.
class ScriptedClock : public Clock {
 public:
  Nanos now() override { return now_; }
  void sleep_until(Nanos time) override {
    ++sleeps;
    now_ = std::max(now_, time) + late;
  }
  void relax() override {
    ++turns;
    now_ += turn;
  }

  void pass_until(Nanos time) { now_ = std::max(now_, time); }

  Nanos late{};
  Nanos turn = microseconds(1);
  int sleeps = 0;
  int turns = 0;

 private:
  Nanos now_ = std::chrono::seconds(1);
};

/// Work that ends at a time of that clock and wakes who waits for it.
class ScriptedTimeline : public Timeline {
 public:
  ScriptedTimeline(ScriptedClock& clock, Nanos end) : clock_(clock), end_(end) {}
  Status wait(uint64_t) override { return {}; }
  bool done(uint64_t) override { return clock_.now() >= end_; }
  Interval interval(uint64_t) override { return {}; }
  bool wakes() const override { return true; }
  void wait_until(uint64_t, Nanos time) override {
    ++waits;
    clock_.pass_until(std::min(time, end_));
  }

  int waits = 0;

 private:
  ScriptedClock& clock_;
  Nanos end_;
};

TEST(Waiter, SleepsUntilWhatIsExpectedAndNotBeyond) {
  ScriptedClock clock;
  Waiter waiter(clock);
  const Nanos expected = clock.now() + microseconds(500);
  waiter.sleep_towards(expected);
  EXPECT_EQ(clock.now(), expected);
  EXPECT_EQ(clock.sleeps, 1);
  EXPECT_EQ(waiter.slept(), Nanos(microseconds(500)));
}

TEST(Waiter, LearnsHowLateSleepsEnd) {
  ScriptedClock clock;
  clock.late = microseconds(70);
  Waiter waiter(clock);
  for (int i = 0; i < 50; ++i) {
    waiter.sleep_towards(clock.now() + microseconds(700));
  }
  const Nanos expected = clock.now() + microseconds(700);
  waiter.sleep_towards(expected);
  EXPECT_LE(clock.now(), expected);
  EXPECT_GE(clock.now(), expected - microseconds(20));
}

// A prediction that is twice too long must not hold up all layers of the first pass.
TEST(StepTimes, FollowWhatIsGlimpsedWithinAPass) {
  StepTimes times;
  const int predicted = times.find({0, "ffn_down", 64, 8}, microseconds(2000));
  const int unknown = times.find({0, "ffn_up", 64, 8}, Nanos{});
  const auto glimpse = [&](int step, int us) { times.glimpsed(step, microseconds(us), microseconds(us)); };
  glimpse(unknown, 700);
  EXPECT_EQ(times.expected(unknown), Nanos(microseconds(700)));
  for (int layer = 0; layer < 6; ++layer) {
    glimpse(predicted, 1000);
  }
  EXPECT_LT(times.expected(predicted), Nanos(microseconds(1020)));
  EXPECT_LT(times.spread(predicted), Nanos(microseconds(40)));
  // Once it is learnt a single layer counts for less, and one that was held up for no more than that.
  times.saw(predicted, microseconds(1000), microseconds(900));
  glimpse(predicted, 5000);
  EXPECT_EQ(times.expected(predicted), Nanos(microseconds(1250)));
  for (int layer = 0; layer < 12; ++layer) {
    glimpse(predicted, 800);
  }
  EXPECT_LT(times.expected(predicted), Nanos(microseconds(820)));
  EXPECT_EQ(times.ran(predicted), Nanos(microseconds(900)));
}

// An end that is seen late says nothing about when it was.
TEST(StepTimes, DoNotTakeTheTimeOfLookingForTheEnd) {
  StepTimes times;
  const int step = times.find({0, "ffn_down", 64, 8}, microseconds(1000));
  times.glimpsed(step, microseconds(300), microseconds(9000));
  EXPECT_EQ(times.expected(step), Nanos(microseconds(1000)));
  times.glimpsed(step, microseconds(1100), microseconds(9000));
  EXPECT_EQ(times.expected(step), Nanos(microseconds(1050)));
  times.glimpsed(step, Nanos{}, microseconds(650));
  EXPECT_EQ(times.expected(step), Nanos(microseconds(850)));
}

// What usually ends up to 60 us off, early or late, is looked for from 120 us before on.
TEST(Waiter, IsAwakeAsMuchEarlierAsTheWorkMayEnd) {
  ScriptedClock clock;
  Waiter waiter(clock);
  const Nanos expected = clock.now() + microseconds(500);
  waiter.sleep_towards(expected, microseconds(60));
  EXPECT_EQ(expected - clock.now(), Nanos(microseconds(120)));
  waiter.poll(expected);
  EXPECT_EQ(clock.turns, 1);
  EXPECT_EQ(clock.sleeps, 1);
}

// Steps of 8 ms that took 7 were seen to be done after 8: the next processor stood still for that time.
TEST(Waiter, LooksNowAndThenWhetherLongWorkIsDoneEarly) {
  ScriptedClock clock;
  clock.late = microseconds(10);
  Waiter waiter(clock);
  const Nanos begin = clock.now();
  const Nanos expected = begin + microseconds(8000);
  waiter.sleep_towards(expected);
  EXPECT_LE(clock.now() - begin, Nanos(microseconds(7100)));
  Nanos before = clock.now();
  while (clock.now() < expected) {
    waiter.poll(expected);
    EXPECT_LE(clock.now() - before, Nanos(microseconds(300)));
    before = clock.now();
  }
  EXPECT_LE(clock.sleeps, 16);
  EXPECT_LE(clock.turns, 120);
}

// A prediction that is too long costs nothing where the end of the work wakes the thread.
TEST(Waiter, IsWokenByTheEndOfWhatItWaitsFor) {
  ScriptedClock clock;
  Waiter waiter(clock);
  const Nanos begin = clock.now();
  const Nanos end = begin + microseconds(3000);
  ScriptedTimeline timeline(clock, end);
  waiter.sleep_towards(begin + microseconds(8000), {}, {&timeline, 1});
  EXPECT_EQ(clock.now(), end);
  EXPECT_EQ(timeline.waits, 1);
  EXPECT_EQ(clock.sleeps, 0);
  // That was no sleep that ended at the wrong time.
  const Nanos next = clock.now() + microseconds(500);
  waiter.sleep_towards(next);
  EXPECT_EQ(clock.now(), next);
}

// Many short sleeps took a quarter of the core from the NPU that was on it.
TEST(Waiter, LeavesTheCoreToTheWorkThatWillWakeIt) {
  ScriptedClock clock;
  clock.turn = std::chrono::milliseconds(4);
  Waiter waiter(clock);
  waiter.poll(clock.now());  // the core comes back late
  EXPECT_EQ(clock.turns, 1);
  const Nanos expected = clock.now() + microseconds(500);
  const Nanos end = expected + microseconds(90);
  ScriptedTimeline timeline(clock, end);
  const Fence waker{&timeline, 1};
  waiter.sleep_towards(expected, microseconds(150), waker);
  while (!waker.done()) {
    waiter.poll(expected, waker);
  }
  EXPECT_EQ(clock.now(), end);
  EXPECT_EQ(timeline.waits, 2);
  EXPECT_EQ(clock.turns, 1);
  EXPECT_EQ(clock.sleeps, 0);
}

// On two cores with a stand-in on each, turns that yield the core came back up to 8 ms later.
TEST(Waiter, SleepsInsteadOfYieldingWhereTheCoreDoesNotComeBack) {
  ScriptedClock clock;
  clock.late = microseconds(60);
  clock.turn = std::chrono::milliseconds(4);
  Waiter waiter(clock);
  for (int i = 0; i < 100; ++i) {
    const Nanos expected = clock.now() + microseconds(3000);
    waiter.sleep_towards(expected);
    while (clock.now() < expected + microseconds(50)) {
      waiter.poll(expected);
    }
  }
  EXPECT_EQ(clock.turns, 1);
  clock.turn = microseconds(1);
  clock.sleep_until(clock.now() + std::chrono::seconds(2));
  const int sleeps = clock.sleeps;
  waiter.poll(clock.now());
  EXPECT_EQ(clock.turns, 2) << "it looks again whether that is still so";
  EXPECT_EQ(clock.sleeps, sleeps);
}

// Between two threads that poll, giving the core to each other takes longer than many looks.
TEST(Waiter, GivesTheCoreAwayInOneTurnOfMany) {
  ScriptedClock clock;
  Waiter waiter(clock);
  for (int i = 0; i < 64; ++i) {
    EXPECT_TRUE(waiter.poll(clock.now()));
  }
  EXPECT_GE(clock.turns, 2);
  EXPECT_LE(clock.turns, 8);
  EXPECT_EQ(clock.sleeps, 0);
}

TEST(Waiter, GivesWayToAThreadThatIsSoonDone) {
  ScriptedClock clock;
  Waiter waiter(clock);
  waiter.give_way(clock.now() + std::chrono::milliseconds(5));
  EXPECT_EQ(clock.turns, 0) << "a sleep does as well";
  waiter.give_way(clock.now() + microseconds(100));
  EXPECT_EQ(clock.turns, 1);
  clock.turn = microseconds(150);  // it had the core until it was done
  waiter.give_way(clock.now() + microseconds(100));
  waiter.give_way(clock.now() + microseconds(100));
  EXPECT_EQ(clock.turns, 3);
  clock.turn = std::chrono::milliseconds(4);  // somebody else had it
  waiter.give_way(clock.now() + microseconds(100));
  waiter.give_way(clock.now() + microseconds(100));
  EXPECT_EQ(clock.turns, 4);
  EXPECT_EQ(clock.sleeps, 0);
}

TEST(Waiter, DoesNotSleepWhereThatIsTooShortToBeWorthIt) {
  ScriptedClock clock;
  Waiter waiter(clock);
  waiter.sleep_towards(clock.now() + microseconds(5));
  waiter.sleep_towards(clock.now() - microseconds(5));
  waiter.sleep_towards(Nanos{});
  EXPECT_EQ(clock.sleeps, 0);
}

TEST(Waiter, AWrongPredictionCostsLittleCpu) {
  ScriptedClock clock;
  Waiter waiter(clock);
  const Nanos expected = clock.now();
  while (clock.now() < expected + std::chrono::seconds(1)) {
    waiter.poll(expected);
  }
  EXPECT_LE(clock.turns, 101) << "turns of a microsecond that use the core, in a second";
  EXPECT_LE(clock.sleeps, 1100);
}

TEST(StepTimes, StartsFromThePredictionAndFollowsWhatIsSeen) {
  StepTimes times;
  const int a = times.find({0, "ffn_down", 576, 1}, microseconds(50));
  EXPECT_EQ(times.find({0, "ffn_down", 576, 1}, microseconds(99)), a);
  EXPECT_NE(times.find({1, "ffn_down", 576, 1}, {}), a);
  EXPECT_EQ(times.expected(a), Nanos(microseconds(50)));
  times.saw(a, microseconds(90), microseconds(90));
  EXPECT_EQ(times.expected(a), Nanos(microseconds(90)));
  for (int i = 0; i < 60; ++i) {
    times.saw(a, microseconds(120), microseconds(120));
  }
  EXPECT_NEAR(static_cast<double>(times.expected(a).count()), 120e3, 2e3);
  EXPECT_LT(times.spread(a), Nanos(microseconds(5)));
}

TEST(StepTimes, OneOutlierMovesLittle) {
  StepTimes times;
  const int a = times.find({0, "attention", 576, 1}, {});
  for (int i = 0; i < 20; ++i) {
    times.saw(a, microseconds(100), microseconds(100));
  }
  times.saw(a, std::chrono::milliseconds(50), std::chrono::milliseconds(50));
  EXPECT_LT(times.expected(a), Nanos(microseconds(115)));
}

// Decoding on a GPU that tells only when all of a token's layers were done slept up to eight times too
// long: each layer was learnt from with parts of what the layers before had just changed.
TEST(StepTimes, LayersSeenTogetherDoNotAddUpToMoreThanTheyTook) {
  StepTimes times;
  std::vector<int> steps;
  const int a = times.find({0, "qkv", 0, 1}, std::chrono::microseconds(30));
  const int b = times.find({0, "down", 0, 1}, std::chrono::microseconds(70));
  for (int layer = 0; layer < 32; ++layer) {
    steps.push_back(a);
    steps.push_back(b);
  }
  for (int64_t micros : {3200, 3200, 3200, 3200, 3200, 3500, 3500, 4800, 2400, 3200, 3200}) {
    times.saw_together(steps, std::chrono::microseconds(micros), std::chrono::microseconds(micros));
    const Nanos sum = 32 * (times.expected(a) + times.expected(b));
    EXPECT_GE(sum, std::chrono::microseconds(2300)) << micros;
    EXPECT_LE(sum, std::chrono::microseconds(4850)) << micros;
  }
  const Nanos sum = 32 * (times.expected(a) + times.expected(b));
  EXPECT_NEAR(static_cast<double>(sum.count()), 3.2e6, 0.1e6);
}

TEST(StepTimes, TheBaselineStaysWhenAProcessorBecomesSlower) {
  StepTimes times;
  const int a = times.find({0, "ffn_down", 576, 1}, {});
  for (int i = 0; i < 100; ++i) {
    times.saw(a, microseconds(60), microseconds(50));
  }
  for (int i = 0; i < 100; ++i) {
    times.saw(a, microseconds(90), microseconds(80));
  }
  EXPECT_EQ(times.baseline(a), Nanos(microseconds(50)));
  EXPECT_NEAR(static_cast<double>(times.ran(a).count()), 80e3, 1e3);
  times.forget_baselines();
  EXPECT_EQ(times.baseline(a), Nanos{});
}

TEST(Sync, NamesGoBothWays) {
  EXPECT_EQ(sync_from_name("fast"), Sync::kFast);
  EXPECT_EQ(sync_from_name(sync_name(Sync::kDriver)), Sync::kDriver);
  EXPECT_FALSE(sync_from_name("slow").has_value());
}

}  // namespace
}  // namespace hetero
