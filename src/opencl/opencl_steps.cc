#include "opencl/opencl_steps.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <new>

#include "opencl/opencl_kernels.h"

namespace hetero {
namespace {

constexpr size_t kFewOps = 16;

bool fits(const StepNeeds& has, const StepNeeds& needs) {
  return (!needs.weights || needs.weights == has.weights) &&
         (needs.head_dim == 0 || (needs.head_dim == has.head_dim && needs.cache == has.cache));
}

/// StepMemory as steps_cpu.cl has to know it.
std::string memory_define() {
  return fmt::format(
      "-DSTEP_WORDS={} -DSTEP_HEAD={} -DSTEP_ROOM={} -DSTEP_TIMES={} -DSTATE_AT={} -DPOSITION_AT={} "
      "-DFLAG_AT={} -DTIMES_AT={} -DSTEPS_AT={}",
      StepWords::kWords, StepWords::kHead, StepMemory::kRoom, Timeline::kKeptIntervals,
      offsetof(StepMemory, state), offsetof(StepMemory, position), offsetof(StepMemory, flag),
      offsetof(StepMemory, ticks), offsetof(StepMemory, steps));
}

}  // namespace

const StepRunner::Program* StepRunner::find(const StepNeeds& needs) const {
  const auto found =
      std::find_if(programs_.begin(), programs_.end(), [&](const Program& p) { return fits(p.has, needs); });
  return found == programs_.end() ? nullptr : &*found;
}

Status StepRunner::prepare() {
  HETERO_TRY(pages_, PageMemory::allocate(sizeof(StepMemory)));
  shared_ = new (pages_.data()) StepMemory;
  HETERO_TRY(buffer_, memory_.import(pages_.data(), pages_.size()));
  timeline_.watch_steps(&shared_->flag, shared_->ticks.data());
  return {};
}

Status StepRunner::prepare(OpenClContext& context, const Graph& graph, DType weights) {
  StepNeeds has{weights, 64, DType::kF16};
  const auto attends = [](const Op& op) { return op.is<Attention>(); };
  const auto first = std::find_if(graph.ops.begin(), graph.ops.end(), attends);
  if (first != graph.ops.end()) {
    has.head_dim = first->as<Attention>()->head_dim;
    has.cache = graph.value(first->inputs[1]).dtype;
  } else if (!always_ && graph.ops.size() < kFewOps) {
    return {};  // not a model: nobody decodes with it
  }
  if (find(has) != nullptr) {
    return {};
  }
  HETERO_TRY(OpenClProgram * program,
             kernel_program(
                 context, fmt::format("steps-{}", traits(weights).name),
                 {opencl_kernels::angles, opencl_kernels::elementwise, opencl_kernels::cache, opencl_kernels::attention_cpu,
                  opencl_kernels::blocks, opencl_kernels::linear_cpu, opencl_kernels::experts,
                  opencl_kernels::steps_cpu},
                 fmt::format("-DSTEPS=1 {} {} {}", memory_define(), weight_define(context, weights, false),
                             attention_define(has.head_dim, has.cache))));
  HETERO_TRY(cl_kernel kernel, program->kernel("run_steps"));
  HETERO_RETURN_IF_ERROR(leave(context.queue));
  programs_.push_back({has, kernel});
  HETERO_RETURN_IF_ERROR(enqueue(context.queue, programs_.back(), Nanos{}));
  return cl_status(api_.Finish(context.queue), "clFinish");
}

bool StepRunner::takes(const OpenClExecutable& executable) const {
  return executable.step.code != StepCode::kNone && find(executable.step.needs) != nullptr;
}

Status StepRunner::add(cl_command_queue queue, const OpenClExecutable& executable, const Launch& launch,
                       uint64_t ticket) {
  if (!fits(programs_[program_].has, executable.step.needs)) {
    HETERO_RETURN_IF_ERROR(leave(queue));
    program_ = static_cast<size_t>(find(executable.step.needs) - programs_.data());
  }
  written_.clear();
  KernelQueue record{api_, nullptr, Events::kNone, {}, {}};
  record.steps = &written_;
  HETERO_RETURN_IF_ERROR(executable.enqueue(record, launch));
  for (StepWords& step : written_) {
    if (step.words[0] == 0) {
      step.words[0] = static_cast<uint64_t>(executable.step.code);
    }
    step.words[3] = &step == &written_.back() ? ticket : 0;
    HETERO_RETURN_IF_ERROR(publish(queue, step));
  }
  ++steps_run_;
  return pending_ >= kManyPending ? serve(queue) : Status();
}

Status StepRunner::publish(cl_command_queue queue, const StepWords& step) {
  const std::atomic_ref<uint32_t> state(shared_->state);
  const std::atomic_ref<uint32_t> position(shared_->position);
  const uint32_t at = state.load() / StepMemory::kOne;
  const auto room = [&] {
    return (at - position.load()) * StepMemory::kOne / StepMemory::kOne < StepMemory::kRoom;
  };
  if (!room()) {
    HETERO_RETURN_IF_ERROR(serve(queue));
    while (!room()) {
      HETERO_RETURN_IF_ERROR(timeline_.status());
      system_clock().relax();
    }
  }
  shared_->steps[at % StepMemory::kRoom] = step;
  if (step.words[0] != static_cast<uint64_t>(StepCode::kLeave)) {
    const uint32_t before = state.fetch_add(StepMemory::kOne);
    pending_ += (before & StepMemory::kServes) == 0 ? 1 : 0;
    return {};
  }
  // Only for a kernel that has not left by itself.
  uint32_t before = state.load();
  while ((before & StepMemory::kServes) != 0 &&
         !state.compare_exchange_weak(before, (before + StepMemory::kOne) & ~StepMemory::kServes)) {
  }
  return {};
}

Status StepRunner::serve(cl_command_queue queue) {
  return pending_ == 0 ? Status() : enqueue(queue, programs_[program_], patience_);
}

Status StepRunner::rouse(cl_command_queue queue) {
  const bool polls = steps_run_ > 0 && patience_ > Nanos{};
  return !polls || serves() ? Status() : enqueue(queue, programs_[program_], patience_);
}

Status StepRunner::leave(cl_command_queue queue) {
  HETERO_RETURN_IF_ERROR(serve(queue));
  if (!serves()) {
    return {};
  }
  StepWords leave;
  leave.words[0] = static_cast<uint64_t>(StepCode::kLeave);
  return publish(queue, leave);
}

Status StepRunner::enqueue(cl_command_queue queue, const Program& program, Nanos patience) {
  pending_ = 0;
  ++kernels_;
  std::atomic_ref<uint32_t>(shared_->state).fetch_or(StepMemory::kServes);
  KernelQueue kernels{api_, queue, Events::kFirstAndLast, {}, {}};
  KernelCall call(kernels, program.kernel);
  call.memory(*buffer_).value<cl_ulong>(timeline_.step_clock().ticks(patience));
  HETERO_RETURN_IF_ERROR(call.run(1, 1, 1));
  timeline_.serves_steps(std::move(kernels.last));
  return cl_status(api_.Flush(queue), "clFlush");
}

}  // namespace hetero
