#include "processor/host_timeline.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/threads.h"

namespace hetero {

Result<Fence> Processor::upload(Buffer&, const Region&) {
  return internal_error(fmt::format("{}: upload on a processor that shares memory", info().id));
}

Result<Fence> Processor::download(Buffer&, const Region&) {
  return internal_error(fmt::format("{}: download on a processor that shares memory", info().id));
}

std::vector<int> control_cpus(const std::vector<Processor*>& processors) {
  std::vector<int> cpus = available_cpus();
  const size_t all = cpus.size();
  for (const Processor* p : processors) {
    const std::vector<int>& busy = p->traits().polls_on;
    std::erase_if(cpus, [&](int cpu) { return std::find(busy.begin(), busy.end(), cpu) != busy.end(); });
  }
  return cpus.size() < all ? cpus : std::vector<int>();
}

void HostTimeline::finish(Interval interval, Status status) {
  bool awaited = false;
  {
    const std::lock_guard lock(mutex_);
    const uint64_t ticket = completed_.load() + 1;
    intervals_[ticket % kKeptIntervals] = interval;
    if (!status.ok() && error_.ok()) {
      error_ = std::move(status);
      poisoned_ = true;
    }
    if (error_.ok()) {
      completed_ = ticket;
    }
    awaited = ticket >= awaited_ || !error_.ok();
    if (awaited) {
      awaited_ = kNone;
    }
  }
  if (awaited) {
    finished_.notify_all();
  }
}

Status HostTimeline::status() const {
  const std::lock_guard lock(mutex_);
  return error_;
}

Status HostTimeline::wait(uint64_t ticket) {
  std::unique_lock lock(mutex_);
  while (completed_.load() < ticket && error_.ok()) {
    awaited_ = std::min(awaited_, ticket);
    finished_.wait(lock);
  }
  return completed_.load() >= ticket ? Status() : error_;
}

void HostTimeline::wait_until(uint64_t ticket, Nanos time) {
  sharpen_timers();
  const std::chrono::steady_clock::time_point until{time};
  std::unique_lock lock(mutex_);
  while (completed_.load() < ticket && error_.ok()) {
    awaited_ = std::min(awaited_, ticket);
    if (finished_.wait_until(lock, until) == std::cv_status::timeout) {
      return;
    }
  }
}

bool HostTimeline::done(uint64_t ticket) {
  return completed_.load() >= ticket || poisoned_.load();
}

Interval HostTimeline::interval(uint64_t ticket) {
  const std::lock_guard lock(mutex_);
  const uint64_t completed = completed_.load();
  if (ticket == 0 || ticket > completed || completed - ticket >= kKeptIntervals) {
    return {};
  }
  return intervals_[ticket % kKeptIntervals];
}

}  // namespace hetero
