#include "base/threads.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <cassert>
#include <chrono>

namespace hetero {
namespace {

// Long enough to cover the gap between two operators of one layer, short enough not to be seen as
// load by anyone else on the machine.
constexpr auto kSpin = std::chrono::microseconds(30);

void set_affinity(const std::vector<int>& cpus) {
  if (cpus.empty()) {
    return;
  }
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int cpu : cpus) {
    CPU_SET(static_cast<size_t>(cpu), &set);
  }
  // A refusal (a container that forbids it) costs speed only, so it is no error.
  (void)pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
}

void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

template <class Done>
bool spin_until(Done done) {
  const auto deadline = std::chrono::steady_clock::now() + kSpin;
  while (!done()) {
    for (int i = 0; i < 32; ++i) {
      pause_cpu();
    }
    if (std::chrono::steady_clock::now() > deadline) {
      return done();
    }
  }
  return true;
}

}  // namespace

std::vector<int> available_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cpus;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) {
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(static_cast<size_t>(cpu), &set)) {
        cpus.push_back(cpu);
      }
    }
  }
  if (cpus.empty()) {
    cpus.push_back(0);
  }
  return cpus;
}

ScopedAffinity::ScopedAffinity(const std::vector<int>& cpus) {
  if (!cpus.empty()) {
    previous_ = available_cpus();
    set_affinity(cpus);
  }
}

ScopedAffinity::~ScopedAffinity() {
  set_affinity(previous_);
}

void WorkBell::wait() {
  for (;;) {
    const uint32_t heard = rung_.load();
    const Nanos deadline = now() + polls_;
    // At least once, however late this thread comes to it: what was posted before `heard` does not ring
    // again.
    do {
      if (posted_.load() != taken_) {
        ++taken_;
        return;
      }
      system_clock().relax();
    } while (now() < deadline);
    rung_.wait(heard);
  }
}

ThreadPool::ThreadPool(int threads, std::vector<int> cpus) {
  assert(threads >= 1);
  for (int worker = 1; worker < threads; ++worker) {
    workers_.emplace_back([this, worker, cpus] {
      if (!cpus.empty()) {
        set_affinity({cpus[static_cast<size_t>(worker) % cpus.size()]});
      }
      work(worker);
    });
  }
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (auto& worker : workers_) {
    worker.join();
  }
}

void ThreadPool::work(int worker) {
  uint64_t seen = 0;
  while (true) {
    const auto called = [&] { return stop_.load() || generation_.load() != seen; };
    if (!spin_until(called)) {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, called);
    }
    if (stop_) {
      return;
    }
    seen = generation_.load();
    (*body_)(worker);
    running_.fetch_sub(1);
  }
}

void ThreadPool::run(const std::function<void(int)>& body) {
  if (!workers_.empty()) {
    {
      const std::lock_guard lock(mutex_);
      body_ = &body;
      running_ = static_cast<int>(workers_.size());
      generation_.fetch_add(1);
    }
    wake_.notify_all();
  }
  body(0);
  while (running_.load() != 0) {
    // The others finish at about the same time; yielding keeps an overcommitted machine moving.
    if (!spin_until([&] { return running_.load() == 0; })) {
      std::this_thread::yield();
    }
  }
}

void ThreadPool::parallel_for(int64_t count, int64_t grain,
                              const std::function<void(int64_t, int64_t, int)>& body) {
  assert(grain >= 1);
  const int64_t grains = (count + grain - 1) / grain;
  const int64_t used = std::min<int64_t>(size(), grains);
  if (used <= 1) {
    if (count > 0) {
      body(0, count, 0);
    }
    return;
  }
  run([&](int worker) {
    if (worker >= used) {
      return;
    }
    const int64_t begin = grains * worker / used * grain;
    const int64_t end = std::min(count, grains * (worker + 1) / used * grain);
    if (begin < end) {
      body(begin, end, worker);
    }
  });
}

}  // namespace hetero
