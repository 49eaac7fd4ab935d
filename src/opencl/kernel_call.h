// One kernel launch: arguments in order, then the grid.
#pragma once

#include <array>
#include <cstring>
#include <string>
#include <vector>

#include "opencl/kernel_memory.h"
#include "opencl/loader.h"
#include "processor/processor.h"

namespace hetero {

/// Which kernels of a submission are given events.
enum class Events { kNone, kFirst, kFirstAndLast };

/// Launches as kernels/steps_cpu.cl reads them.
struct StepList {
  uint64_t code = 0;  // of the next ones
  int64_t count = 0;
  std::vector<uint64_t> words;
};

/// Where kernels are enqueued; keeps the events of the first and the last one of a submission.
struct KernelQueue {
  const OpenClApi& api;
  cl_command_queue queue = nullptr;
  Events events = Events::kFirstAndLast;
  ClEvent first;
  ClEvent last;
  StepList* steps = nullptr;  // where launches are written down instead
};

/// Sets the arguments of `kernel` and enqueues it. The first error sticks until run() reports it.
class KernelCall {
 public:
  KernelCall(KernelQueue& queue, cl_kernel kernel);

  KernelCall& memory(const OpenClBuffer& buffer);
  /// Base, offset and stride.
  KernelCall& binding(const Binding& binding);
  template <class T>
  requires std::is_arithmetic_v<T> KernelCall& value(T v) {
    static_assert(sizeof(v) <= sizeof(uint64_t));
    if (queue_.steps != nullptr) {
      uint64_t word = 0;
      std::memcpy(&word, &v, sizeof(v));
      queue_.steps->words.push_back(word);
    } else {
      set(queue_.api.SetKernelArg(kernel_, index_, sizeof(v), &v));
    }
    return *this;
  }
  KernelCall& number(int64_t v) { return value(static_cast<cl_int>(v)); }
  KernelCall& offset(int64_t v) { return value(static_cast<cl_long>(v)); }

  /// `groups` work-groups of `lanes` work-items along dimension 0, `rows` along dimension 1.
  Status run(int64_t groups, int64_t rows, int64_t lanes);

 private:
  void set(cl_int error) {
    error_ = error_ == CL_SUCCESS ? error : error_;
    ++index_;
  }

  KernelQueue& queue_;
  cl_kernel kernel_;
  cl_uint index_ = 0;
  cl_int error_ = CL_SUCCESS;
  size_t first_word_ = 0;  // of a step
};

}  // namespace hetero
