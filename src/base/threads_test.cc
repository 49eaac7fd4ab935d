#include "base/threads.h"

#include <gtest/gtest.h>

#include <atomic>
#include <set>

namespace hetero {
namespace {

TEST(WorkBell, ReturnsOnceForEachPostAndForNothingElse) {
  WorkBell bell;
  std::atomic<int> served = 0;
  constexpr int kPieces = 2000;
  std::thread server([&] {
    for (int i = 0; i < kPieces; ++i) {
      bell.wait();
      ++served;
    }
  });
  const auto pause = [](int polls) { std::this_thread::sleep_for(polls * WorkBell::kPolls); };
  pause(4);  // by now it sleeps, or will have to be woken by the first of these
  for (int i = 0; i < 20; ++i) {
    bell.rouse();
    pause(1);
  }
  EXPECT_EQ(served, 0);
  for (int i = 0; i < kPieces; ++i) {
    bell.post();
    if (i % 100 == 0) {
      pause(i % 300 == 0 ? 1 : 3);  // about when it goes to sleep
    }
    EXPECT_LE(served, i + 1);
  }
  server.join();
  EXPECT_EQ(served, kPieces);
}

// A thread that had lost its core for longer than it polls went to sleep on work that was there already.
TEST(WorkBell, SeesWhatWasPostedBeforeItHadTimeToPoll) {
  WorkBell bell(Nanos{});
  bell.post();
  bell.post();
  bell.wait();
  bell.wait();
  std::thread later([&] { bell.post(); });
  bell.wait();
  later.join();
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
