#include "opencl/opencl_timeline.h"

#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>

namespace hetero {
namespace {

struct Waiter {
  std::mutex mutex;
  std::condition_variable finished;
  bool is_finished = false;
};

void CL_CALLBACK finish_waiter(cl_event, cl_int, void* data) {
  auto* waiter = static_cast<Waiter*>(data);
  // Notified under the lock: the waiter is gone as soon as it can be taken.
  const std::lock_guard lock(waiter->mutex);
  waiter->is_finished = true;
  waiter->finished.notify_one();
}

}  // namespace

OpenClTimeline::Entry& OpenClTimeline::next_entry(const std::string& what) {
  Entry& slot = entry(++issued_);
  slot.ticket = issued_;
  slot.first = {};
  slot.last = {};
  last_what_ = what;
  slot.step = false;
  return slot;
}

uint64_t OpenClTimeline::add(ClEvent first, ClEvent last, const std::string& what) {
  const std::lock_guard lock(mutex_);
  Entry& slot = next_entry(what);
  if (step_ticks_ != nullptr) {
    unflagged_ = slot.ticket;
  }
  if (mark_queue_ == nullptr) {
    slot.what = what;
    slot.first = std::move(first);
    slot.last = std::move(last);
  } else if (!batch_first_) {
    batch_first_ = std::move(last);
  }
  return slot.ticket;
}

uint64_t OpenClTimeline::add_transfer(ClEvent event, const std::string& what) {
  const std::lock_guard lock(mutex_);
  next_entry(what);
  mark_by(std::move(event));
  return issued_;
}

uint64_t OpenClTimeline::add_step(const std::string& what) {
  const std::lock_guard lock(mutex_);
  Entry& slot = next_entry(what);
  slot.what = what;
  slot.step = true;
  flagged_ = slot.ticket;
  return slot.ticket;
}

void OpenClTimeline::watch_steps(uint32_t* flag, const StepTicks* ticks) {
  const std::lock_guard lock(mutex_);
  flag_ = flag;
  step_ticks_ = ticks;
}

void OpenClTimeline::serves_steps(ClEvent kernel) {
  const std::lock_guard lock(mutex_);
  step_kernel_ = std::move(kernel);
}

Events OpenClTimeline::wanted_events() const {
  const std::lock_guard lock(mutex_);
  return mark_queue_ == nullptr ? Events::kFirstAndLast : batch_first_ ? Events::kNone : Events::kFirst;
}

void OpenClTimeline::mark() {
  const std::lock_guard lock(mutex_);
  flag_locked();
  mark_locked();
}

void OpenClTimeline::flag_locked() {
  if (flag_kernel_ == nullptr || flagged_ == issued_) {
    return;
  }
  const auto ticket = static_cast<cl_uint>(issued_);
  const size_t one = 1;
  cl_int error = api_.SetKernelArgSVMPointer(flag_kernel_, 0, &own_flag_);
  if (error == CL_SUCCESS) {
    error = api_.SetKernelArg(flag_kernel_, 1, sizeof(ticket), &ticket);
  }
  if (error == CL_SUCCESS) {
    error = api_.EnqueueNDRangeKernel(flag_queue_, flag_kernel_, 1, nullptr, &one, &one, 0, nullptr, nullptr);
  }
  if (error == CL_SUCCESS) {
    flagged_ = issued_;
  } else {
    flag_kernel_ = nullptr;  // events do as well
  }
}

void OpenClTimeline::mark_locked() {
  if (mark_queue_ == nullptr || marked_ == issued_) {
    return;
  }
  cl_event event = nullptr;
  const cl_int error = api_.EnqueueMarkerWithWaitList(mark_queue_, 0, nullptr, &event);
  if (error != CL_SUCCESS) {
    if (error_.ok()) {
      error_ = cl_status(error, fmt::format("{}: clEnqueueMarkerWithWaitList", device_));
      poisoned_ = true;
    }
    return;
  }
  mark_by(ClEvent(event));
}

/// All that was submitted so far is done at the end of `event`.
void OpenClTimeline::mark_by(ClEvent event) {
  Entry& slot = entry(issued_);
  slot.what = last_what_;
  slot.first = std::move(batch_first_);
  batch_first_ = {};
  slot.last = std::move(event);
  marked_ = issued_;
}

Status OpenClTimeline::poison(Status error) {
  const std::lock_guard lock(mutex_);
  if (error_.ok()) {
    error_ = std::move(error);
    poisoned_ = true;
  }
  return error_;
}

Status OpenClTimeline::status() const {
  const std::lock_guard lock(mutex_);
  return error_;
}

ClEvent OpenClTimeline::retained(uint64_t ticket) {
  const std::lock_guard lock(mutex_);
  if (mark_queue_ != nullptr && ticket > marked_) {
    mark_locked();
  }
  // The queue is in order, so a later event stands for one that the ring has dropped, or that never
  // was.
  const uint64_t oldest = issued_ > kKeptIntervals ? issued_ - kKeptIntervals + 1 : 1;
  uint64_t t = std::max(ticket, oldest);
  while (t < issued_ && !entry(t).last) {
    ++t;
  }
  const Entry& slot = entry(t);
  if (!slot.last || api_.RetainEvent(slot.last.get()) != CL_SUCCESS) {
    return {};
  }
  return ClEvent(slot.last.get());
}

Status OpenClTimeline::failure(const Entry& slot, cl_int error) const {
  return device_lost(fmt::format("{}: {} failed: {}", device_, slot.what, cl_error_name(error)));
}

Status OpenClTimeline::check(uint64_t ticket) {
  const std::lock_guard lock(mutex_);
  if (!error_.ok()) {
    return completed_ >= ticket ? Status() : error_;
  }
  const uint64_t oldest = issued_ > kKeptIntervals ? issued_ - kKeptIntervals + 1 : 1;
  for (uint64_t t = std::max(completed_ + 1, oldest); t <= ticket; ++t) {
    cl_int state = CL_COMPLETE;
    const Entry& slot = entry(t);
    if (!slot.last) {
      continue;
    }
    const cl_int error =
        api_.GetEventInfo(slot.last.get(), CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof(state), &state, nullptr);
    if (error != CL_SUCCESS || state < 0) {
      error_ = failure(slot, error != CL_SUCCESS ? error : state);
      poisoned_ = true;
      return error_;
    }
  }
  if (completed_ < ticket) {
    completed_ = ticket;
  }
  return {};
}

cl_int OpenClTimeline::wait_for(cl_event event) {
  if (callback_queue_ == nullptr) {
    return api_.WaitForEvents(1, &event);
  }
  Waiter waiter;
  cl_int error = api_.SetEventCallback(event, CL_COMPLETE, finish_waiter, &waiter);
  if (error == CL_SUCCESS) {
    error = api_.Flush(callback_queue_);
    std::unique_lock lock(waiter.mutex);
    waiter.finished.wait(lock, [&] { return waiter.is_finished; });
  }
  return error;
}

Status OpenClTimeline::wait(uint64_t ticket) {
  if (completed_ >= ticket) {
    return {};
  }
  if (poisoned_) {
    return status();
  }
  if (before_waiting_) {
    before_waiting_();
  }
  if (step_ticks_ != nullptr && is_flagged(ticket)) {
    return wait_for_step(ticket);
  }
  const ClEvent event = retained(ticket);
  if (event) {
    // An error here is looked at in the events themselves, which say which operator it was.
    const cl_int error = wait_for(event.get());
    if (error != CL_SUCCESS && error != CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST) {
      return poison(cl_status(error, fmt::format("{}: waiting", device_)));
    }
  }
  return check(ticket);
}

Status OpenClTimeline::wait_for_step(uint64_t ticket) {
  constexpr int kPolls = 200;
  constexpr Nanos kSleep = std::chrono::microseconds(50);
  for (int turn = 0; !reached(ticket); ++turn) {
    if (turn < kPolls) {
      system_clock().relax();
    } else {
      system_clock().sleep_until(now() + kSleep);
    }
  }
  return completed_ >= ticket ? Status() : status();
}

void OpenClTimeline::check_steps(uint64_t ticket) {
  const std::lock_guard lock(mutex_);
  cl_int state = CL_RUNNING;
  const cl_int error = step_kernel_ ? api_.GetEventInfo(step_kernel_.get(), CL_EVENT_COMMAND_EXECUTION_STATUS,
                                                        sizeof(state), &state, nullptr)
                                    : CL_SUCCESS;
  if (error == CL_SUCCESS && state >= CL_COMPLETE) {
    return;
  }
  if (error_.ok()) {
    error_ = failure(entry(ticket), error != CL_SUCCESS ? error : state);
    poisoned_ = true;
  }
}

bool OpenClTimeline::done(uint64_t ticket) {
  asked_since_ = true;
  return reached(ticket);
}

bool OpenClTimeline::reached(uint64_t ticket) {
  if (completed_ >= ticket || poisoned_) {
    return true;
  }
  if (before_waiting_) {
    before_waiting_();
  }
  if (is_flagged(ticket)) {
    // Tickets of 64 bits, flags of 32: compared as distances.
    const uint32_t flag = std::atomic_ref(*flag_).load(std::memory_order_acquire);
    if (static_cast<int32_t>(flag - static_cast<uint32_t>(ticket)) >= 0) {
      uint64_t before = completed_;
      while (before < ticket && !completed_.compare_exchange_weak(before, ticket)) {
      }
      return true;
    }
    // A queue that failed raises no flag: now and then its events are asked.
    if (asked_.fetch_add(1, std::memory_order_relaxed) % 128 != 127) {
      return false;
    }
    if (step_ticks_ != nullptr) {
      check_steps(ticket);
      return poisoned_;
    }
  }
  const ClEvent event = retained(ticket);
  cl_int state = CL_COMPLETE;
  if (event &&
      api_.GetEventInfo(event.get(), CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof(state), &state, nullptr) ==
          CL_SUCCESS &&
      state > CL_COMPLETE) {
    return false;
  }
  (void)check(ticket);
  return true;
}

Interval OpenClTimeline::interval(uint64_t ticket) {
  if (ticket == 0 || ticket > completed_) {
    return {};
  }
  const std::lock_guard lock(mutex_);
  const Entry& slot = entry(ticket);
  if (slot.ticket == ticket && slot.step) {
    return step_clock_.interval(step_ticks_[ticket % kKeptIntervals]);
  }
  if (slot.ticket != ticket || !slot.last) {
    return {};
  }
  cl_ulong begin = 0;
  cl_ulong end = 0;
  if (ticket <= flagged_ && step_ticks_ == nullptr) {
    // The flag may be a moment ahead of the event.
    cl_event last = slot.last.get();
    (void)api_.WaitForEvents(1, &last);
  }
  const cl_event first = slot.first ? slot.first.get() : slot.last.get();
  if (api_.GetEventProfilingInfo(first, CL_PROFILING_COMMAND_START, sizeof(begin), &begin, nullptr) !=
          CL_SUCCESS ||
      api_.GetEventProfilingInfo(slot.last.get(), CL_PROFILING_COMMAND_END, sizeof(end), &end, nullptr) !=
          CL_SUCCESS) {
    return {};
  }
  return {Nanos(static_cast<int64_t>(begin)) + offset_, Nanos(static_cast<int64_t>(end)) + offset_};
}

}  // namespace hetero
