// Submissions of one token as steps of one kernel (kernels/steps_cpu.cl), on devices of type CPU with one
// compute unit: between two kernels PoCL takes as long as a small product does, and to wake its thread for
// one as long again (docs/performance.md). The kernel reads steps from memory as they are published, and
// polls for more before it leaves.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <vector>

#include "opencl/opencl_ops.h"
#include "opencl/opencl_timeline.h"

namespace hetero {

/// What host and kernel share. The kernel is told where things lie when it is built.
struct StepMemory {
  static constexpr uint32_t kRoom = 512;  // steps
  static constexpr uint32_t kServes = 1;  // bit of `state`
  static constexpr uint32_t kOne = 2;     // what one more step adds to `state`

  alignas(64) uint32_t state = 0;  // how many steps are published, times 2, and kServes while a kernel serves
  alignas(64) uint32_t position = 0;  // how many are done; written by the kernel
  alignas(64) uint32_t flag = 0;      // the low bits of the ticket that was done last; written by the kernel
  alignas(
      4096) std::array<StepTicks, Timeline::kKeptIntervals> ticks{};  // of a ticket; written by the kernel
  std::array<StepWords, kRoom> steps{};
};

/// Publishes steps, and sees to it that a kernel serves them. Not thread-safe.
class StepRunner {
 public:
  /// `patience`: for how long the kernel polls when it has nothing to do. `always`: everything is a step, for
  /// tests.
  StepRunner(const OpenClApi& api, KernelMemory& memory, OpenClTimeline& timeline, Nanos patience,
             bool always)
      : api_(api), memory_(memory), timeline_(timeline), patience_(patience), always_(always) {}

  bool always() const { return always_; }

  /// Makes the memory that it shares with its kernels; before anything else.
  Status prepare();
  /// Builds the kernel for products with such weights in a graph, if it is not built yet; it runs once.
  Status prepare(OpenClContext& context, const Graph& graph, DType weights);

  /// Whether its launches can be steps.
  bool takes(const OpenClExecutable& executable) const;
  /// Publishes the launch, which has this ticket of the timeline. Waits for the device where there is no
  /// room.
  Status add(cl_command_queue queue, const OpenClExecutable& executable, const Launch& launch,
             uint64_t ticket);
  /// Whether there are steps that no kernel serves.
  bool pending() const { return pending_ > 0; }
  /// Sees to it that a kernel polls for steps, where one has done so before.
  Status rouse(cl_command_queue queue);
  /// Enqueues a kernel that does.
  Status serve(cl_command_queue queue);
  /// The kernel leaves behind what was published: what is enqueued from here on follows it.
  Status leave(cl_command_queue queue);

  /// Submissions that were run as steps, and kernels that were enqueued for them.
  int64_t steps_run() const { return steps_run_; }
  int64_t kernels() const { return kernels_; }

 private:
  static constexpr int kManyPending = 48;  // the device works while the next ones are prepared

  struct Program {
    StepNeeds has;
    cl_kernel kernel = nullptr;
  };

  const Program* find(const StepNeeds& needs) const;
  Status publish(cl_command_queue queue, const StepWords& step);
  bool serves() const {
    return (std::atomic_ref<uint32_t>(shared_->state).load() & StepMemory::kServes) != 0;
  }
  Status enqueue(cl_command_queue queue, const Program& program, Nanos patience);

  const OpenClApi& api_;
  KernelMemory& memory_;
  OpenClTimeline& timeline_;
  Nanos patience_;
  bool always_;
  std::vector<Program> programs_;
  size_t program_ = 0;  // of the kernel that serves, and of what is pending
  PageMemory pages_;
  StepMemory* shared_ = nullptr;
  std::unique_ptr<OpenClBuffer> buffer_;
  std::vector<StepWords> written_;  // of one launch
  int pending_ = 0;
  int64_t steps_run_ = 0;
  int64_t kernels_ = 0;
};

}  // namespace hetero
