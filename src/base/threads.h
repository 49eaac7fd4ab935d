// Threads that stay where they are put: a pool for data-parallel loops, and CPU affinity.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/status.h"

namespace hetero {

/// Logical CPUs that this process may run on, ascending.
std::vector<int> available_cpus();

/// Restricts the calling thread to `cpus` until it goes out of scope. Threads that a vendor's
/// runtime starts meanwhile inherit the restriction, which is how a stand-in is confined to its
/// part of the cores. An empty list restricts nothing.
class ScopedAffinity {
 public:
  explicit ScopedAffinity(const std::vector<int>& cpus);
  ~ScopedAffinity();
  ScopedAffinity(const ScopedAffinity&) = delete;
  ScopedAffinity& operator=(const ScopedAffinity&) = delete;

 private:
  std::vector<int> previous_;
};

/// Wakes the one thread that serves a processor's queue.
class WorkBell {
 public:
  /// For so long that thread polls before it sleeps: the gap between two operators that follow each other is
  /// usually shorter. It gives its core away meanwhile, which the control thread may need.
  static constexpr Nanos kPolls = std::chrono::microseconds(50);
  explicit WorkBell(Nanos polls = kPolls) : polls_(polls) {}

  /// There is one more piece of work. Any thread.
  void post() {
    posted_.fetch_add(1);
    rouse();
  }
  /// There will be, in a moment: the thread should be awake. Any thread.
  void rouse() {
    rung_.fetch_add(1);
    rung_.notify_one();
  }
  /// Blocks until work was posted that this has not returned for yet. Only that thread.
  void wait();

 private:
  const Nanos polls_;
  std::atomic<uint32_t> posted_ = 0;
  std::atomic<uint32_t> rung_ = 0;
  uint32_t taken_ = 0;  // only the thread that waits
};

/// A fixed set of threads for one data-parallel loop at a time. The calling thread is worker 0.
/// Workers spin for some microseconds for the next loop and then sleep. run() must not be called
/// from two threads at once, nor from inside a loop.
class ThreadPool {
 public:
  /// `threads` >= 1. With `cpus` given, worker i > 0 is pinned to cpus[i % cpus.size()].
  explicit ThreadPool(int threads, std::vector<int> cpus = {});
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return static_cast<int>(workers_.size()) + 1; }

  /// Calls body(worker) once for each worker in [0, size()) and returns when all are done.
  void run(const std::function<void(int worker)>& body);

  /// Splits [0, count) into one contiguous range for each worker, cut at multiples of `grain`,
  /// and calls body(begin, end, worker) for those that are not empty.
  void parallel_for(int64_t count, int64_t grain,
                    const std::function<void(int64_t begin, int64_t end, int worker)>& body);

 private:
  void work(int worker);

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  const std::function<void(int)>* body_ = nullptr;
  std::atomic<uint64_t> generation_ = 0;
  std::atomic<int> running_ = 0;
  std::atomic<bool> stop_ = false;
};

}  // namespace hetero
