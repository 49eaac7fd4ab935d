// One kernel launch: arguments in order, then the grid.
#pragma once

#include <array>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "opencl/kernel_memory.h"
#include "opencl/loader.h"
#include "processor/processor.h"

namespace hetero {

/// Which kernels of a submission are given events.
enum class Events { kNone, kFirst, kFirstAndLast };

/// Kernels that are steps in kernels/steps_cpu.cl.
enum class StepCode : uint64_t {
  kNone,
  kEmbed,
  kRopeTable,
  kNorm,
  kLinear,
  kRope,
  kAttention,
  kGated,
  kSoftCap,
  kRoute,
  kExpertLinear,
  kExpertSum,
  kLinearTile,  // Linear of several tokens
  kLeave,       // no operator: the kernel ends
};

/// A launch as kernels/steps_cpu.cl reads it: its code, the work-groups along both dimensions, a ticket (0:
/// none), and the arguments, one word each.
struct StepWords {
  static constexpr size_t kHead = 4;
  static constexpr size_t kWords = 32;
  std::array<uint64_t, kWords> words{};
};

/// Where kernels are enqueued; keeps the events of the first and the last one of a submission.
struct KernelQueue {
  const OpenClApi& api;
  cl_command_queue queue = nullptr;
  Events events = Events::kFirstAndLast;
  ClEvent first;
  ClEvent last;
  std::vector<StepWords>* steps = nullptr;  // where launches are written down instead; codes are left at 0
                                            // but where an operator has several
};

/// The values that a kernel's arguments have, so that they need not be set again: a driver's call takes 0.1
/// to 0.3 us. Not its memory, since a driver may know that by what it is and not by its handle.
using KeptValues = std::vector<std::optional<uint64_t>>;

/// Sets the arguments of `kernel` and enqueues it. `kept`: what this kernel's last call left there; nullptr:
/// unknown. The first error sticks until run() reports it.
class KernelCall {
 public:
  KernelCall(KernelQueue& queue, cl_kernel kernel, KeptValues* kept = nullptr);

  /// As which step, where it is one and the operator has several.
  KernelCall& as_step(StepCode code);
  KernelCall& memory(const OpenClBuffer& buffer);
  /// Base, offset and stride.
  KernelCall& binding(const Binding& binding);
  template <class T>
  requires std::is_arithmetic_v<T> KernelCall& value(T v) {
    static_assert(sizeof(v) <= sizeof(uint64_t));
    uint64_t word = 0;
    std::memcpy(&word, &v, sizeof(v));
    if (queue_.steps != nullptr) {
      write_down(word);
    } else if (is_kept(word)) {
      ++index_;
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
  void write_down(uint64_t word);
  /// Whether the next argument has this value; it is to have it from here on.
  bool is_kept(uint64_t word);

  KernelQueue& queue_;
  cl_kernel kernel_;
  KeptValues* kept_;
  cl_uint index_ = 0;
  cl_int error_ = CL_SUCCESS;
};

}  // namespace hetero
