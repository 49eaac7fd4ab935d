// The progress of an in-order OpenCL queue, through the events of its commands.
#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <mutex>
#include <string>

#include "opencl/kernel_call.h"
#include "opencl/loader.h"
#include "opencl/step_clock.h"
#include "processor/processor.h"

namespace hetero {

/// Keeps the first and the last event of the last kKeptIntervals submissions. wait() and done() from
/// any thread.
class OpenClTimeline : public Timeline {
 public:
  OpenClTimeline(const OpenClApi& api, std::string device) : api_(api), device_(std::move(device)) {}

  /// Takes over the events of one submission (the same event twice is given with `first` empty), as
  /// many as wanted_events() said, and gives its ticket. `what` must outlive the timeline's last message: an
  /// operator's name is copied.
  uint64_t add(ClEvent first, ClEvent last, const std::string& what);

  /// The same for a copy, whose end marks the end of what was submitted so far.
  uint64_t add_transfer(ClEvent event, const std::string& what);

  /// The ticket of a submission that a kernel does as a step (opencl_steps.h): that kernel says in memory, in
  /// `flag` and `ticks` (of kKeptIntervals tickets), when the work ran. `what` as above.
  uint64_t add_step(const std::string& what);
  void watch_steps(uint32_t* flag, const StepTicks* ticks);
  /// The kernel that does the steps from here on.
  void serves_steps(ClEvent kernel);
  const StepClock& step_clock() const { return step_clock_; }
  /// Whether done() was called since this was: then work is not waited for by the driver's calls alone.
  bool was_asked() { return asked_since_.exchange(false); }

  /// From here on only the first kernel after a mark has an event, and the mark itself: drivers of
  /// GPUs charge for events with timestamps (docs/devices.md). All submissions between two marks are
  /// then done at the second one, and the last of them has the interval of all. Copies are marks by
  /// themselves.
  void mark_batches(cl_command_queue queue) { mark_queue_ = queue; }
  /// Marks the end of what was submitted so far, if that is not marked yet.
  void mark();
  /// From here on mark() also has the device store the number of the last ticket in a word of memory
  /// that the host sees at once (fine-grained SVM), so that done() needs no call into the driver.
  /// `kernel`: "flag" of kernels/flag.cl.
  void raise_flags(cl_command_queue queue, cl_kernel kernel) {
    flag_queue_ = queue;
    flag_kernel_ = kernel;
  }
  /// Which kernels of the next submission need events.
  Events wanted_events() const;

  /// Called before waiting or asking for a ticket: enqueues what was put off.
  void before_waiting(std::function<void()> enqueue) { before_waiting_ = std::move(enqueue); }

  /// Fails this and all later tickets; the first error stays. Gives the error that stays.
  Status poison(Status error);
  Status status() const;

  /// Makes wait() sleep until the driver calls back, instead of clWaitForEvents, which in some
  /// drivers for CPUs lends the waiting thread to the device: Intel's would so run a stand-in that
  /// is confined to some cores on the waiting thread's core as well.
  void wait_by_callback(cl_command_queue queue) { callback_queue_ = queue; }

  /// Host clock minus device clock, for interval().
  void set_clock_offset(Nanos offset) { offset_ = offset; }

  Status wait(uint64_t ticket) override;
  bool done(uint64_t ticket) override;
  Interval interval(uint64_t ticket) override;

 private:
  struct Entry {
    uint64_t ticket = 0;
    ClEvent first;
    ClEvent last;
    std::string what;
    bool step = false;
  };

  void mark_locked();
  void mark_by(ClEvent event);
  void flag_locked();
  Entry& entry(uint64_t ticket) { return ring_[ticket % kKeptIntervals]; }
  /// A reference to the last event of `ticket`, or of the oldest one kept if that is later.
  ClEvent retained(uint64_t ticket);
  /// done().
  bool reached(uint64_t ticket);
  /// Whether its end raises the flag.
  bool is_flagged(uint64_t ticket) const { return ticket <= flagged_ && ticket > unflagged_; }
  /// Issues a ticket, whose entry has no events yet.
  Entry& next_entry(const std::string& what);
  Status wait_for_step(uint64_t ticket);
  /// Poisons the timeline if the kernel that does the steps has failed.
  void check_steps(uint64_t ticket);
  /// Marks everything up to `ticket` as complete, or poisons the timeline if something failed.
  Status check(uint64_t ticket);
  cl_int wait_for(cl_event event);
  Status failure(const Entry& entry, cl_int error) const;

  const OpenClApi& api_;
  std::string device_;
  mutable std::mutex mutex_;
  Status error_;
  std::atomic<bool> poisoned_ = false;
  uint64_t issued_ = 0;
  std::atomic<uint64_t> completed_ = 0;
  Nanos offset_{};
  std::function<void()> before_waiting_;
  cl_command_queue callback_queue_ = nullptr;
  cl_command_queue mark_queue_ = nullptr;  // nullptr: every submission has its events
  uint64_t marked_ = 0;                    // with mark_queue_: the last ticket that has an event
  ClEvent batch_first_;                    // of the first kernel after it
  std::string last_what_;                  // of the last ticket; entries without events need none
  cl_command_queue flag_queue_ = nullptr;
  cl_kernel flag_kernel_ = nullptr;
  StepClock step_clock_;
  const StepTicks* step_ticks_ = nullptr;
  ClEvent step_kernel_;
  std::atomic<bool> asked_since_ = false;
  std::atomic<uint64_t> unflagged_ = 0;  // with steps: the last ticket that has an event instead
  std::atomic<uint64_t> flagged_ = 0;    // the last ticket whose end raises the flag
  std::atomic<uint32_t> asked_ = 0;      // calls of done() that found the flag down
  alignas(64) uint32_t own_flag_ = 0;    // the low bits of a ticket; written by the device
  uint32_t* flag_ = &own_flag_;
  std::array<Entry, kKeptIntervals> ring_;
};

}  // namespace hetero
