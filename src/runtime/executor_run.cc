// The executor's loop: submit, wait, transfer. Nothing here allocates or compiles, and nothing waits
// but through the processors' clock and timelines.
#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <utility>

#include "base/threads.h"
#include "runtime/executor.h"
#include "runtime/linked_plan.h"

namespace hetero {

/// Makes rows [0, rows) of a value visible to a processor, wherever they are now.
Status Executor::make_current(ValueId id, int processor, int64_t rows) {
  Home& home = homes_[static_cast<size_t>(id)];
  const bool coherent = processors_[static_cast<size_t>(processor)]->traits().coherent;
  if (rows == 0 || (coherent ? home.host : home.copies[static_cast<size_t>(processor)])) {
    return {};
  }
  const int slot = slots_.slot_of[static_cast<size_t>(id)];
  const Region all = region(id, 0, rows, 0, graph_.value(id).cols);
  if (!home.host) {
    const auto holder =
        static_cast<int>(std::find(home.copies.begin(), home.copies.end(), true) - home.copies.begin());
    HETERO_TRY(Buffer* const b, buffer(slot, holder));
    const auto fence = processors_[static_cast<size_t>(holder)]->download(*b, all);
    HETERO_RETURN_IF_ERROR(blame(holder, fence.status()));
    HETERO_RETURN_IF_ERROR(wait(holder, *fence, clock_.now()));
    home.host = true;
  }
  if (!coherent) {
    HETERO_TRY(Buffer* const b, buffer(slot, processor));
    const auto fence = processors_[static_cast<size_t>(processor)]->upload(*b, all);
    HETERO_RETURN_IF_ERROR(blame(processor, fence.status()));
    last_[static_cast<size_t>(processor)] = *fence;
    home.copies[static_cast<size_t>(processor)] = true;
  }
  return {};
}

Status Executor::bring_home(const LinkedPlan& plan, int64_t position) {
  for (const LinkedPlan::External& e : plan.externals) {
    const Rows rows = graph_.value(e.value).rows;
    HETERO_RETURN_IF_ERROR(make_current(e.value, e.processor,
                                        rows == Rows::kContext ? position
                                        : plan.head            ? capacity_.tokens
                                                               : plan.tokens));
  }
  return {};
}

void Executor::flush() {
  for (size_t p = 0; p < processors_.size(); ++p) {
    if (unflushed_[p]) {
      processors_[p]->flush();
      unflushed_[p] = false;
    }
  }
}

Status Executor::wait(int processor, const Fence& fence, Nanos expected) {
  if (sync_ == Sync::kFast && !fence.done()) {
    flush();
    waiter_.sleep_towards(expected, {}, fence);
    while (!fence.done()) {
      waiter_.poll(expected, fence);
    }
  }
  return blame(processor, fence.wait());
}

Status Executor::drain() {
  Status first;
  flush();
  for (size_t p = 0; p < processors_.size(); ++p) {
    if (sync_ == Sync::kDriver && last_[p].timeline != nullptr) {
      (void)processors_[p]->finish();  // an error is also the timeline's
    }
    const Status status = wait(static_cast<int>(p), last_[p], tail_[p]);
    if (first.ok()) {
      first = status;
    }
    last_[p] = {};  // a failure is reported once; a pass without this processor is not concerned
  }
  return first;
}

Status Executor::submit(const LinkedPlan& plan, int index, int64_t position, int64_t first_row) {
  return blame(plan.steps[static_cast<size_t>(index)].processor, enqueue(plan, index, position, first_row));
}

Status Executor::enqueue(const LinkedPlan& plan, int index, int64_t position, int64_t first_row) {
  const LinkedStep& step = plan.steps[static_cast<size_t>(index)];
  Flight& flight = flights(plan)[static_cast<size_t>(index)];
  const auto p = static_cast<size_t>(step.processor);
  Processor& processor = *processors_[p];
  for (const Transfer& t : step.uploads) {
    HETERO_TRY(last_[p], processor.upload(*t.buffer, t.region));
  }
  std::span<const Binding> inputs = step.inputs;
  if (step.moves_with_first_row) {
    moved_inputs_.assign(step.inputs.begin(), step.inputs.end());
    const Op& op = graph_.op(step.op);
    for (size_t k = 0; k < moved_inputs_.size(); ++k) {
      if (graph_.value(op.inputs[k]).rows == Rows::kTokens) {
        moved_inputs_[k].offset += first_row * moved_inputs_[k].stride;
      }
    }
    inputs = moved_inputs_;
  }
  HETERO_TRY(flight.ran, processor.submit(*step.executable,
                                          {step.tokens, position + step.first_row, inputs, step.outputs}));
  last_[p] = flight.ran;
  for (const Transfer& t : step.downloads) {
    HETERO_TRY(last_[p], processor.download(*t.buffer, t.region));
  }
  flight.visible = last_[p];
  flight.submitted = clock_.now();
  flight.looked = flight.submitted;
  flight.expected = std::max(flight.submitted, tail_[p]) + times_.expected(step.time);
  flight.done = false;
  // Otherwise its time would include what is left of others'.
  flight.alone = next_[p] == 0 || flights(plan)[static_cast<size_t>(plan.queues[p][next_[p] - 1])].done;
  tail_[p] = flight.expected;
  unflushed_[p] = true;
  ++next_[p];
  if (step.awaited) {
    // Now, since what a driver reports as done at a later flush may include what follows.
    processor.flush();
    unflushed_[p] = false;
  }
  return {};
}

Result<bool> Executor::is_ready(const LinkedPlan& plan, int index) {
  for (const int w : plan.steps[static_cast<size_t>(index)].waits) {
    Flight& flight = flights(plan)[static_cast<size_t>(w)];
    const auto p = static_cast<size_t>(plan.steps[static_cast<size_t>(w)].processor);
    // Step w is submitted once it is among the first next_ of its queue.
    const std::vector<int>& queue = plan.queues[p];
    if (next_[p] == 0 || queue[next_[p] - 1] < w) {
      return false;
    }
    if (flight.done) {
      continue;
    }
    if (!flight.visible.done()) {
      flight.looked = clock_.now();
      return false;
    }
    HETERO_RETURN_IF_ERROR(blame(static_cast<int>(p), flight.visible.wait()));
    flight.done = true;
    // It ended since it was looked for last. What is still in that queue comes earlier or later by as much.
    const Nanos seen = clock_.now();
    if (flight.alone) {
      times_.glimpsed(plan.steps[static_cast<size_t>(w)].time, flight.looked - flight.submitted,
                      seen - flight.submitted);
    }
    const Nanos off = std::clamp(flight.expected, flight.looked, seen) - flight.expected;
    tail_[p] += off;
    for (size_t k = next_[p]; k-- > 0 && queue[k] != w;) {
      flights(plan)[static_cast<size_t>(queue[k])].expected += off;
    }
  }
  return true;
}

/// Of what the next step of a queue waits for, something whose end wakes this thread, if there is.
Fence Executor::waker(const LinkedPlan& plan, size_t processor) {
  for (const int w : plan.steps[static_cast<size_t>(plan.queues[processor][next_[processor]])].waits) {
    const Fence& fence = flights(plan)[static_cast<size_t>(w)].visible;
    if (fence.wakes() && !fence.done()) {
      return fence;
    }
  }
  return {};
}

/// Whether nothing else is known to be at work.
bool Executor::is_alone(const LinkedPlan& plan, const Fence& fence) {
  for (size_t p = 0; p < processors_.size(); ++p) {
    if (next_[p] > 0) {
      const Flight& last = flights(plan)[static_cast<size_t>(plan.queues[p][next_[p] - 1])];
      if (!last.done && last.visible.timeline != fence.timeline) {
        return false;
      }
    }
  }
  return true;
}

Status Executor::wait_for_any(const LinkedPlan& plan, const std::atomic<bool>* cancel) {
  flush();
  // A queue goes on when the last of what its next step waits for is done.
  Nanos expected = Nanos::max();
  Nanos spread{};
  size_t next = processors_.size();  // whose queue it is
  for (size_t p = 0; p < processors_.size(); ++p) {
    if (next_[p] == plan.queues[p].size()) {
      continue;
    }
    Nanos ready{};
    Nanos of_last{};
    bool submitted = true;
    for (const int w : plan.steps[static_cast<size_t>(plan.queues[p][next_[p]])].waits) {
      const Flight& flight = flights(plan)[static_cast<size_t>(w)];
      const auto from = static_cast<size_t>(plan.steps[static_cast<size_t>(w)].processor);
      submitted = submitted && next_[from] > 0 && plan.queues[from][next_[from] - 1] >= w;
      if (!flight.done && flight.expected > ready) {
        ready = flight.expected;
        of_last = times_.spread(plan.steps[static_cast<size_t>(w)].time);
      }
    }
    if (submitted && ready < expected) {
      expected = ready;
      spread = of_last;
      next = p;
    }
  }
  // The plan's first step that is not submitted waits for submitted ones only.
  assert(next < processors_.size());
  const Fence thread = waker(plan, next);
  const bool alone = thread.wakes() && !control_cpus_.empty() && is_alone(plan, thread);
  if (alone) {
    waiter_.give_way(expected);
  }
  if (!alone || !thread.done()) {
    waiter_.sleep_towards(expected, spread, thread);
    processors_[next]->rouse();
  }
  for (;;) {
    for (size_t p = 0; p < processors_.size(); ++p) {
      if (next_[p] < plan.queues[p].size()) {
        HETERO_TRY(const bool ready, is_ready(plan, plan.queues[p][next_[p]]));
        if (ready) {
          return {};
        }
      }
    }
    if (cancel != nullptr && cancel->load(std::memory_order_relaxed)) {
      return {};
    }
    if (waiter_.poll(expected, waker(plan, next))) {
      processors_[next]->rouse();
    }
  }
}

/// Each processor's steps in its order, the next one as soon as others have written what it reads.
/// In prefill the slower NPU so leads: the GPU's next kernel is submitted when the NPU is done. In
/// decode the slower GPU does: its next kernel is enqueued behind the running one as soon as the NPU
/// is done, and queue order does the rest.
Status Executor::run_fast(const LinkedPlan& plan, int64_t position, int64_t first_row,
                          const std::atomic<bool>* cancel) {
  size_t left = plan.steps.size();
  while (left > 0) {
    if (cancel != nullptr && cancel->load(std::memory_order_relaxed)) {
      return cancelled("stopped");
    }
    const size_t before = left;
    for (size_t p = 0; p < processors_.size(); ++p) {
      if (next_[p] == plan.queues[p].size()) {
        continue;
      }
      const int step = plan.queues[p][next_[p]];
      HETERO_TRY(const bool ready, is_ready(plan, step));
      if (ready) {
        HETERO_RETURN_IF_ERROR(submit(plan, step, position, first_row));
        --left;
      }
    }
    if (left == before) {
      HETERO_RETURN_IF_ERROR(wait_for_any(plan, cancel));
    }
  }
  return {};
}

Status Executor::run_by_driver(const LinkedPlan& plan, int64_t position, int64_t first_row,
                               const std::atomic<bool>* cancel) {
  for (size_t begin = 0; begin < plan.steps.size();) {
    if (cancel != nullptr && cancel->load(std::memory_order_relaxed)) {
      return cancelled("stopped");
    }
    size_t end = begin;
    for (; end < plan.steps.size() && plan.steps[end].op == plan.steps[begin].op; ++end) {
      HETERO_RETURN_IF_ERROR(submit(plan, static_cast<int>(end), position, first_row));
    }
    flush();
    for (; begin < end; ++begin) {
      const LinkedStep& step = plan.steps[begin];
      Processor& processor = *processors_[static_cast<size_t>(step.processor)];
      HETERO_RETURN_IF_ERROR(blame(step.processor, processor.finish()));
      HETERO_RETURN_IF_ERROR(blame(step.processor, flights(plan)[begin].visible.wait()));
      // What nobody else reads stays where it is.
      for (size_t k = 0; (step.awaited || plan.head) && k < step.outputs.size(); ++k) {
        const Binding& output = step.outputs[k];
        const Value& value = graph_.value(graph_.op(step.op).outputs[k]);
        const int64_t row = value.rows == Rows::kContext ? position + step.first_row : 0;
        const Bytes element = traits(value.dtype).block_bytes;
        HETERO_RETURN_IF_ERROR(processor.remap(*output.buffer,
                                               (output.offset + row * output.stride) * element,
                                               ((step.tokens - 1) * output.stride + step.columns) * element));
      }
    }
  }
  return {};
}

/// Whether the head may be queued behind the body at once: one processor has all of it, and wrote all that
/// it reads of the body's.
bool Executor::follows_in_queue(const LinkedPlan& body, const LinkedPlan& head) const {
  if (sync_ != Sync::kFast || head.steps.empty()) {
    return false;
  }
  const int p = head.steps.front().processor;
  const auto alone = [&](const LinkedStep& step) { return step.processor == p; };
  const auto written = [&](const LinkedPlan::External& e) {
    return std::any_of(body.written.begin(), body.written.end(),
                       [&](const LinkedPlan::Written& w) { return w.value == e.value && w.processor == p; });
  };
  return std::all_of(head.steps.begin(), head.steps.end(), alone) &&
         std::all_of(head.externals.begin(), head.externals.end(), written);
}

Status Executor::run(const LinkedPlan& plan, int64_t position, int64_t first_row,
                     const std::atomic<bool>* cancel) {
  return run({&plan, nullptr}, position, first_row, cancel);
}

Status Executor::run_with_head(const LinkedPlan& body, int64_t position, const LinkedPlan& head,
                               int64_t first_row, const std::atomic<bool>* cancel) {
  if (!follows_in_queue(body, head)) {
    HETERO_RETURN_IF_ERROR(run({&body, nullptr}, position, 0, cancel));
    return run({&head, nullptr}, 0, first_row, nullptr);
  }
  return run({&body, &head}, position, first_row, cancel);
}

/// A plan, and another behind it in the queue of a processor.
Status Executor::run(const std::array<const LinkedPlan*, 2>& plans, int64_t position, int64_t first_row,
                     const std::atomic<bool>* cancel) {
  const ScopedAffinity affinity(control_cpus_);
  const LinkedPlan& plan = *plans[0];
  if (!plan.head && position + plan.tokens > capacity_.context) {
    return resource_exhausted(fmt::format("the context is full: {} tokens at position {}, but it holds {}",
                                          plan.tokens, position, capacity_.context));
  }
  const Nanos begin = clock_.now();
  turn_ = unsettled_ ? 1 - unsettled_->turn : turn_;
  bool later = false;
  for (const LinkedPlan* p : plans) {
    later = later || (p != nullptr && has_own_memory(*p));
  }
  waiter_.stay_ready(later);
  failed_ = -1;
  std::fill(next_.begin(), next_.end(), 0);
  std::fill(tail_.begin(), tail_.end(), Nanos{});
  HETERO_RETURN_IF_ERROR(bring_home(plan, position));
  Status status = sync_ == Sync::kFast ? run_fast(plan, position, first_row, cancel)
                                       : run_by_driver(plan, position, first_row, cancel);
  if (status.ok() && plans[1] != nullptr) {
    const auto own = static_cast<size_t>(plans[1]->steps.front().processor);
    if (!processors_[own]->traits().joins_head) {
      flush();
    }
    for (size_t p = 0; p < processors_.size() && status.ok(); ++p) {
      // Others may still use memory that the head takes over.
      status = p == own ? Status() : wait(static_cast<int>(p), last_[p], tail_[p]);
    }
    std::fill(next_.begin(), next_.end(), 0);
    status = status.ok() ? run_fast(*plans[1], 0, first_row, nullptr) : status;
  }
  if (unsettled_ && status.ok() && sync_ == Sync::kFast) {
    // Shortly before the next pass, which needs the same memory: after a sleep no cache has it.
    flush();
    const auto last = static_cast<size_t>(std::max_element(tail_.begin(), tail_.end()) - tail_.begin());
    waiter_.sleep_towards(tail_[last], {}, last_[last]);
  }
  settle();
  const Status drained = drain();
  if (!status.ok()) {
    return status;
  }
  HETERO_RETURN_IF_ERROR(drained);
  for (const LinkedPlan* ran : plans) {
    if (ran != nullptr) {
      note_written(*ran);
    }
  }
  unsettled_ = Pass{plans, position, clock_.now() - begin, turn_};
  if (!later) {
    settle();
  }
  return {};
}

/// Whether a device has memory of its own. Such devices are fast, and idle between two passes: so what there
/// is to learn from one is looked at while the next one runs.
bool Executor::has_own_memory(const LinkedPlan& plan) const {
  for (size_t p = 0; p < plan.queues.size(); ++p) {
    if (!plan.queues[p].empty() && !processors_[p]->traits().coherent) {
      return true;
    }
  }
  return false;
}

void Executor::settle() {
  if (!unsettled_) {
    return;
  }
  const Pass pass = *std::exchange(unsettled_, std::nullopt);
  const size_t turn = std::exchange(turn_, pass.turn);
  std::fill(busy_.begin(), busy_.end(), Nanos{});
  std::fill(pace_.begin(), pace_.end(), Pace{});
  for (const LinkedPlan* ran : pass.plans) {
    if (ran != nullptr) {
      count(*ran, ran->head ? 0 : pass.position);  // the trace's predictions must not know the outcome
    }
  }
  learn(pass.plans);
  for (size_t p = 0; p < busy_.size(); ++p) {
    use_[p].busy += busy_[p];
    use_[p].wait += std::max(Nanos{}, pass.time - busy_[p]);
  }
  turn_ = turn;
}

void Executor::note_written(const LinkedPlan& plan) {
  for (const LinkedPlan::Written& w : plan.written) {
    Home& home = homes_[static_cast<size_t>(w.value)];
    home.copies.assign(processors_.size(), false);
    home.host = w.processor < 0 || processors_[static_cast<size_t>(w.processor)]->traits().coherent;
    if (!home.host) {
      home.copies[static_cast<size_t>(w.processor)] = true;
    }
  }
}

/// When a step ran; where its queue has timestamps for several submissions at a time, when these did, in the
/// last one of them, which may be the step's download.
Interval Executor::interval(const Flight& flight) {
  const Interval ran = flight.ran.timeline->interval(flight.ran.ticket);
  const bool known = ran.end > Nanos{} || flight.visible.ticket == flight.ran.ticket;
  return known ? ran : flight.visible.timeline->interval(flight.visible.ticket);
}

void Executor::learn(const std::array<const LinkedPlan*, 2>& plans) {
  for (size_t p = 0; p < processors_.size(); ++p) {
    Nanos free{};       // when the queue had done what is learnt from so far
    Nanos submitted{};  // the first of the steps since then, which are in together_
    Nanos predicted{};  // of these
    bool known = true;  // whether all of these are predicted
    together_.clear();
    for (const LinkedPlan* plan : plans) {
      for (size_t k = 0; plan != nullptr && k < plan->queues[p].size(); ++k) {
        const auto index = static_cast<size_t>(plan->queues[p][k]);
        const LinkedStep& step = plan->steps[index];
        const Flight& flight = flights(*plan)[index];
        submitted = together_.empty() ? flight.submitted : submitted;
        together_.push_back(step.time);
        const Nanos should = step.predicted > Nanos{} ? step.predicted : times_.baseline(step.time);
        predicted += should;
        known = known && should > Nanos{};
        const Interval at = interval(flight);
        if (at.end == Nanos{}) {
          continue;
        }
        const Nanos ran = at.end - at.begin;
        if (known) {
          pace_[p].busy += ran;
          pace_[p].predicted += predicted;
        }
        times_.saw_together(together_, std::max(Nanos{}, at.end - std::max(free, submitted)), ran);
        together_.clear();
        free = at.end;
        predicted = {};
        known = true;
      }
    }
  }
}

void Executor::count(const LinkedPlan& plan, int64_t position) {
  const std::vector<Flight>& flown = flights(plan);
  for (size_t i = 0; i < plan.steps.size(); ++i) {
    const LinkedStep& step = plan.steps[i];
    const auto p = static_cast<size_t>(step.processor);
    const Interval at = interval(flown[i]);
    busy_[p] += at.end - at.begin;
    use_[p].steps += 1;
    use_[p].macs +=
        graph_.op(step.op).is<Attention>()
            ? op_macs(graph_, step.op, 0, graph_.output_cols(step.op), step.tokens, position + step.first_row)
            : step.macs;
    if (trace_ != nullptr && at.end > at.begin) {
      trace_->add(processors_[p]->info().id, graph_.op(step.op).name, at, step.tokens,
                  step.predicted > Nanos{} ? step.predicted : times_.ran(step.time));
    }
  }
}

}  // namespace hetero
