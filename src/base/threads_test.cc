#include "base/threads.h"

#include <gtest/gtest.h>

#include <atomic>
#include <set>

namespace hetero {
namespace {

TEST(YieldUntil, EndsWhenItIsDoneOrHasTakenTooLong) {
  int asked = 0;
  yield_until([&] { return ++asked == 1; });
  EXPECT_EQ(asked, 1);
  const Nanos begin = now();
  yield_until([] { return false; });
  EXPECT_GE(now() - begin, Nanos(std::chrono::microseconds(50)));
}

TEST(ThreadPool, EachIndexIsVisitedOnceOverManyLoops) {
  for (const int threads : {1, 2, 3, 5}) {
    ThreadPool pool(threads);
    for (const int64_t count : {0, 1, 2, 7, 64, 1001}) {
      for (const int64_t grain : {1, 4, 100}) {
        std::vector<std::atomic<int>> visits(static_cast<size_t>(count));
        pool.parallel_for(count, grain, [&](int64_t begin, int64_t end, int worker) {
          EXPECT_GE(worker, 0);
          EXPECT_LT(worker, threads);
          EXPECT_EQ(begin % grain, 0);
          for (int64_t i = begin; i < end; ++i) {
            visits[static_cast<size_t>(i)]++;
          }
        });
        for (const auto& v : visits) {
          ASSERT_EQ(v.load(), 1);
        }
      }
    }
  }
}

TEST(ThreadPool, RunCallsEveryWorkerAlsoAfterSleeping) {
  ThreadPool pool(3);
  for (int round = 0; round < 5; ++round) {
    std::atomic<int> calls = 0;
    pool.run([&](int worker) { calls += 1 << (8 * worker); });
    EXPECT_EQ(calls.load(), 0x010101);
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

TEST(ScopedAffinity, RestrictsAndRestores) {
  const std::vector<int> all = available_cpus();
  ASSERT_FALSE(all.empty());
  {
    const ScopedAffinity only({all.back()});
    EXPECT_EQ(available_cpus(), std::vector<int>{all.back()});
  }
  EXPECT_EQ(available_cpus(), all);
}

}  // namespace
}  // namespace hetero
