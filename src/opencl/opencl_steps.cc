#include "opencl/opencl_steps.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "opencl/opencl_kernels.h"

namespace hetero {
namespace {

/// What both need together; nullopt: they contradict each other.
std::optional<StepNeeds> both(const StepNeeds& a, const StepNeeds& b) {
  const bool weights = !a.weights || !b.weights || *a.weights == *b.weights;
  const bool heads = a.head_dim == 0 || b.head_dim == 0 || (a.head_dim == b.head_dim && a.cache == b.cache);
  if (!weights || !heads) {
    return std::nullopt;
  }
  StepNeeds all = a.head_dim == 0 ? b : a;
  all.weights = a.weights ? a.weights : b.weights;
  return all;
}

}  // namespace

const StepRunner::Program* StepRunner::find(const StepNeeds& needs) const {
  const auto fits = [&](const Program& p) { return both(p.has, needs).has_value(); };
  const auto found = std::find_if(programs_.begin(), programs_.end(), fits);
  return found == programs_.end() ? nullptr : &*found;
}

Status StepRunner::prepare(OpenClContext& context, const Graph& graph, DType weights) {
  StepNeeds has{weights, 64, DType::kF16};
  const auto attends = [](const Op& op) { return op.is<Attention>(); };
  const auto first = std::find_if(graph.ops.begin(), graph.ops.end(), attends);
  if (first != graph.ops.end()) {
    has.head_dim = first->as<Attention>()->head_dim;
    has.cache = graph.value(first->inputs[1]).dtype;
  } else if (!always_) {
    return {};  // not a model: nobody decodes with it
  }
  if (find(has) != nullptr) {
    return {};
  }
  HETERO_TRY(OpenClProgram * program,
             kernel_program(context, fmt::format("steps-{}", traits(weights).name),
                            {opencl_kernels::elementwise, opencl_kernels::cache,
                             opencl_kernels::attention_cpu, opencl_kernels::blocks,
                             opencl_kernels::linear_cpu, opencl_kernels::experts, opencl_kernels::steps_cpu},
                            fmt::format("-DSTEPS=1 {} {}", weight_define(context, weights, false),
                                        attention_define(has.head_dim, has.cache))));
  HETERO_TRY(cl_kernel kernel, program->kernel("run_steps"));
  programs_.push_back({has, kernel});
  KernelQueue queue{api_, context.queue, Events::kFirstAndLast, {}, {}};
  steps_ = {};
  HETERO_RETURN_IF_ERROR(run(queue, programs_.back()));
  return cl_status(api_.Finish(context.queue), "clFinish");
}

bool StepRunner::takes(const OpenClExecutable& executable, const Launch& launch) const {
  if (executable.step.code == StepCode::kNone || launch.tokens != 1) {
    return false;
  }
  const auto needs = both(needs_, executable.step.needs);
  return needs && find(*needs) != nullptr;
}

void StepRunner::hold(const OpenClExecutable& executable, const Launch& launch) {
  needs_ = *both(needs_, executable.step.needs);
  held_.emplace_back(executable, launch);
}

Status StepRunner::enqueue(KernelQueue& queue) {
  const Program* program = find(needs_);
  needs_ = {};
  if (held_.size() == 1 && !always_) {
    const HeldLaunch only = held_[0];
    held_.clear();
    return only.executable->enqueue(queue, only.launch()).with_prefix(only.executable->name());
  }
  steps_.words.clear();
  steps_.count = 0;
  Status status;
  KernelQueue record{api_, nullptr, Events::kNone, {}, {}};
  record.steps = &steps_;
  for (const HeldLaunch& held : held_) {
    steps_.code = static_cast<uint64_t>(held.executable->step.code);
    status = held.executable->enqueue(record, held.launch()).with_prefix(held.executable->name());
    if (!status.ok()) {
      break;
    }
  }
  steps_run_ += static_cast<int64_t>(held_.size());
  held_.clear();
  return status.ok() ? run(queue, *program) : status;
}

Status StepRunner::run(KernelQueue& queue, const Program& program) {
  const auto bytes = static_cast<Bytes>(steps_.words.size() * sizeof(uint64_t));
  HETERO_TRY(Room* const free, room(std::max<Bytes>(bytes, 1)));
  std::memcpy(free->memory.data(), steps_.words.data(), static_cast<size_t>(bytes));
  KernelCall call(queue, program.kernel);
  call.memory(*free->buffer).number(steps_.count);
  HETERO_RETURN_IF_ERROR(call.run(1, 1, 1));
  if (!queue.last || api_.RetainEvent(queue.last.get()) != CL_SUCCESS) {
    return internal_error("steps without an event");
  }
  free->read = ClEvent(queue.last.get());
  return {};
}

Result<StepRunner::Room*> StepRunner::room(Bytes bytes) {
  Room& next = rooms_[next_room_];
  next_room_ = (next_room_ + 1) % rooms_.size();
  if (next.read) {
    const cl_event read = next.read.get();
    const cl_int error = api_.WaitForEvents(1, &read);
    HETERO_RETURN_IF_ERROR(cl_status(error, "clWaitForEvents"));
    next.read = {};
  }
  if (next.buffer == nullptr || next.buffer->size() < bytes) {
    constexpr Bytes kPiece = 16384;
    next.buffer.reset();
    HETERO_TRY(next.memory, PageMemory::allocate(ceil_div(bytes, kPiece) * kPiece));
    HETERO_TRY(next.buffer, memory_.import(next.memory.data(), next.memory.size()));
  }
  return &next;
}

}  // namespace hetero
