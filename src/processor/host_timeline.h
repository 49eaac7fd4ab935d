// A timeline for processors whose work is finished by a host thread: CPU, NPU, fake.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <mutex>

#include "processor/processor.h"

namespace hetero {

/// Thread-safe. Tickets are finished in order.
class HostTimeline : public Timeline {
 public:
  /// The next ticket, for a submission about to be queued.
  uint64_t next_ticket() { return ++issued_; }
  /// The latest ticket. Only the submitting thread.
  uint64_t issued() const { return issued_; }
  /// Marks the oldest unfinished ticket as done, or as failed if `status` is an error, which also
  /// fails all that follow.
  void finish(Interval interval, Status status = {});
  /// The error that poisoned the timeline, or ok.
  Status status() const;

  Status wait(uint64_t ticket) override;
  bool done(uint64_t ticket) override;
  bool wakes() const override { return true; }
  void wait_until(uint64_t ticket, Nanos time) override;
  Interval interval(uint64_t ticket) override;

 private:
  mutable std::mutex mutex_;
  std::condition_variable finished_;
  std::atomic<uint64_t> completed_ = 0;
  std::atomic<bool> poisoned_ = false;
  uint64_t issued_ = 0;  // only the submitting thread
  static constexpr uint64_t kNone = ~uint64_t{0};
  uint64_t awaited_ = kNone;  // the first ticket that a thread sleeps for: others wake nobody
  Status error_;
  std::array<Interval, kKeptIntervals> intervals_{};
};

/// The buffer of a processor that reads host memory as it is.
class HostBuffer : public Buffer {
 public:
  HostBuffer(std::byte* data, Bytes size) : data_(data), size_(size) {}
  std::byte* data() const { return data_; }
  Bytes size() const { return size_; }

 private:
  std::byte* data_;
  Bytes size_;
};

/// Address of a binding's row 0, for elements of type T, in a HostBuffer.
template <class T>
T* host_data(const Binding& binding) {
  auto* base = static_cast<const HostBuffer*>(binding.buffer)->data();
  return reinterpret_cast<T*>(base) + binding.offset;
}

}  // namespace hetero
