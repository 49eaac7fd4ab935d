// Several submissions of one token in one kernel (kernels/steps_cpu.cl), on devices of type CPU with one
// compute unit: between two kernels PoCL takes as long as a small product does (docs/performance.md).
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "opencl/opencl_ops.h"

namespace hetero {

/// Holds submissions until many are there or somebody waits. Not thread-safe.
class StepRunner {
 public:
  /// `always`: what is submitted alone runs as a step as well, for tests.
  StepRunner(const OpenClApi& api, KernelMemory& memory, bool always)
      : api_(api), memory_(memory), always_(always) {}

  bool always() const { return always_; }

  /// Builds the kernel for products with such weights in a graph, if it is not built yet; it runs once.
  Status prepare(OpenClContext& context, const Graph& graph, DType weights);

  /// Whether the launch can be a step behind those that are held.
  bool takes(const OpenClExecutable& executable, const Launch& launch) const;
  void hold(const OpenClExecutable& executable, const Launch& launch);
  bool empty() const { return held_.empty(); }
  bool full() const { return held_.size() >= kMaxHeld; }

  /// Enqueues what is held. Nothing is held after.
  Status enqueue(KernelQueue& queue);

  /// Submissions that were run as steps.
  int64_t steps_run() const { return steps_run_; }

 private:
  static constexpr size_t kMaxHeld = 48;  // the device works while the next ones are prepared

  struct Program {
    StepNeeds has;
    cl_kernel kernel = nullptr;
  };
  /// Where steps lie that the device reads, until `read` is done.
  struct Room {
    PageMemory memory;
    std::unique_ptr<OpenClBuffer> buffer;
    ClEvent read;
  };

  const Program* find(const StepNeeds& needs) const;
  Result<Room*> room(Bytes bytes);
  Status run(KernelQueue& queue, const Program& program);

  const OpenClApi& api_;
  KernelMemory& memory_;
  bool always_;
  std::vector<Program> programs_;
  std::vector<HeldLaunch> held_;
  StepNeeds needs_;  // of all that are held
  StepList steps_;
  std::array<Room, 8> rooms_;
  size_t next_room_ = 0;
  int64_t steps_run_ = 0;
};

}  // namespace hetero
