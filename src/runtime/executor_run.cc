// The executor's loop: submit, wait, transfer. Nothing here allocates or compiles.
#include <fmt/format.h>

#include <algorithm>

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
    HETERO_TRY(const Fence fence, processors_[static_cast<size_t>(holder)]->download(*b, all));
    HETERO_RETURN_IF_ERROR(fence.wait());
    home.host = true;
  }
  if (!coherent) {
    HETERO_TRY(Buffer* const b, buffer(slot, processor));
    HETERO_TRY(last_[static_cast<size_t>(processor)],
               processors_[static_cast<size_t>(processor)]->upload(*b, all));
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

Status Executor::drain() {
  Status first;
  for (size_t p = 0; p < processors_.size(); ++p) {
    processors_[p]->flush();
  }
  for (Fence& fence : last_) {
    const Status status = fence.wait();
    if (first.ok()) {
      first = status;
    }
    fence = {};  // a failure is reported once; a pass without this processor is not concerned
  }
  return first;
}

Status Executor::run_steps(const LinkedPlan& plan, int64_t position, int64_t first_row,
                           const std::atomic<bool>* cancel) {
  for (size_t i = 0; i < plan.steps.size(); ++i) {
    if (cancel != nullptr && cancel->load(std::memory_order_relaxed)) {
      return cancelled("stopped");
    }
    const LinkedStep& step = plan.steps[i];
    Processor& processor = *processors_[static_cast<size_t>(step.processor)];
    for (const Transfer& t : step.downloads) {
      HETERO_TRY(last_[static_cast<size_t>(t.processor)],
                 processors_[static_cast<size_t>(t.processor)]->download(*t.buffer, t.region));
    }
    bool flushed = false;
    const auto wait = [&](const Fence& fence) -> Status {
      if (!fence.done() && !flushed) {
        for (Processor* p : processors_) {
          p->flush();
        }
        flushed = true;
      }
      return fence.wait();
    };
    for (const Transfer& t : step.downloads) {
      HETERO_RETURN_IF_ERROR(wait(last_[static_cast<size_t>(t.processor)]));
    }
    for (const int w : step.waits) {
      HETERO_RETURN_IF_ERROR(wait(fences_[static_cast<size_t>(w)]));
    }
    for (const Transfer& t : step.uploads) {
      HETERO_TRY(last_[static_cast<size_t>(t.processor)], processor.upload(*t.buffer, t.region));
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
    HETERO_TRY(fences_[i], processor.submit(*step.executable, {step.tokens, position, inputs, step.outputs}));
    last_[static_cast<size_t>(step.processor)] = fences_[i];
  }
  for (const Transfer& t : plan.final_downloads) {
    HETERO_TRY(last_[static_cast<size_t>(t.processor)],
               processors_[static_cast<size_t>(t.processor)]->download(*t.buffer, t.region));
  }
  return {};
}

Status Executor::run(const LinkedPlan& plan, int64_t position, int64_t first_row,
                     const std::atomic<bool>* cancel) {
  if (!plan.head && position + plan.tokens > capacity_.context) {
    return resource_exhausted(fmt::format("the context is full: {} tokens at position {}, but it holds {}",
                                          plan.tokens, position, capacity_.context));
  }
  const Nanos begin = now();
  HETERO_RETURN_IF_ERROR(bring_home(plan, position));
  const Status status = run_steps(plan, position, first_row, cancel);
  const Status drained = drain();
  if (!status.ok()) {
    return status;
  }
  HETERO_RETURN_IF_ERROR(drained);
  for (const LinkedPlan::Written& w : plan.written) {
    Home& home = homes_[static_cast<size_t>(w.value)];
    home.copies.assign(processors_.size(), false);
    home.host = w.processor < 0 || processors_[static_cast<size_t>(w.processor)]->traits().coherent;
    if (!home.host) {
      home.copies[static_cast<size_t>(w.processor)] = true;
    }
  }
  count(plan, position, begin, now());
  return {};
}

void Executor::count(const LinkedPlan& plan, int64_t position, Nanos begin, Nanos end) {
  std::fill(busy_.begin(), busy_.end(), Nanos{});
  for (size_t i = 0; i < plan.steps.size(); ++i) {
    const LinkedStep& step = plan.steps[i];
    const auto p = static_cast<size_t>(step.processor);
    const Interval interval = fences_[i].timeline->interval(fences_[i].ticket);
    busy_[p] += interval.end - interval.begin;
    use_[p].steps += 1;
    use_[p].macs += graph_.op(step.op).is<Attention>()
                        ? op_macs(graph_, step.op, 0, graph_.output_cols(step.op), plan.tokens, position)
                        : step.macs;
    if (trace_ != nullptr && interval.end > interval.begin) {
      trace_->add(processors_[p]->info().id, graph_.op(step.op).name, interval, step.tokens);
    }
  }
  for (size_t p = 0; p < busy_.size(); ++p) {
    use_[p].busy += busy_[p];
    use_[p].wait += std::max(Nanos{}, end - begin - busy_[p]);
  }
}

}  // namespace hetero
