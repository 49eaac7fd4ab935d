#include "opencl/kernel_call.h"

#include <algorithm>
#include <utility>

namespace hetero {

KernelCall::KernelCall(KernelQueue& queue, cl_kernel kernel, KeptValues* kept)
    : queue_(queue), kernel_(kernel), kept_(kept) {
  if (queue_.steps != nullptr) {
    queue_.steps->emplace_back();
  }
}

void KernelCall::write_down(uint64_t word) {
  const size_t at = StepWords::kHead + index_++;
  if (at >= StepWords::kWords) {
    error_ = CL_INVALID_ARG_INDEX;
    return;
  }
  queue_.steps->back().words[at] = word;
}

bool KernelCall::is_kept(uint64_t word) {
  if (kept_ == nullptr) {
    return false;
  }
  kept_->resize(std::max<size_t>(kept_->size(), index_ + 1));
  return std::exchange((*kept_)[index_], word) == word;
}

KernelCall& KernelCall::as_step(StepCode code) {
  if (queue_.steps != nullptr) {
    queue_.steps->back().words[0] = static_cast<uint64_t>(code);
  }
  return *this;
}

KernelCall& KernelCall::memory(const OpenClBuffer& buffer) {
  if (queue_.steps != nullptr) {
    error_ = buffer.host() == nullptr ? CL_INVALID_HOST_PTR : error_;
    write_down(buffer.address());
    return *this;
  }
  if (buffer.mem() == nullptr) {
    set(queue_.api.SetKernelArgSVMPointer(kernel_, index_, buffer.host()));
  } else {
    cl_mem mem = buffer.mem();
    set(queue_.api.SetKernelArg(kernel_, index_, sizeof(mem), &mem));
  }
  return *this;
}

KernelCall& KernelCall::binding(const Binding& binding) {
  memory(*static_cast<const OpenClBuffer*>(binding.buffer));
  return offset(binding.offset).offset(binding.stride);
}

Status KernelCall::run(int64_t groups, int64_t rows, int64_t lanes) {
  HETERO_RETURN_IF_ERROR(cl_status(error_, "clSetKernelArg"));
  if (queue_.steps != nullptr) {
    queue_.steps->back().words[1] = static_cast<uint64_t>(groups);
    queue_.steps->back().words[2] = static_cast<uint64_t>(rows);
    return {};
  }
  const size_t global[2] = {static_cast<size_t>(groups * lanes), static_cast<size_t>(rows)};
  const size_t local[2] = {static_cast<size_t>(lanes), 1};
  const bool wanted =
      queue_.events == Events::kFirstAndLast || (queue_.events == Events::kFirst && !queue_.last);
  cl_event event = nullptr;
  const cl_int error = queue_.api.EnqueueNDRangeKernel(queue_.queue, kernel_, 2, nullptr, global, local, 0,
                                                       nullptr, wanted ? &event : nullptr);
  HETERO_RETURN_IF_ERROR(cl_status(error, "clEnqueueNDRangeKernel"));
  if (!wanted) {
    return {};
  }
  if (!queue_.last) {
    queue_.last = ClEvent(event);
  } else {
    if (!queue_.first) {
      queue_.first = std::move(queue_.last);
    }
    queue_.last = ClEvent(event);
  }
  return {};
}

}  // namespace hetero
