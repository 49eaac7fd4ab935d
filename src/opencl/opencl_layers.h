// Whole layers of one token in one kernel (kernels/layers_gpu.cl): which submissions make up a layer, and
// how they are enqueued together. Norm, qkv, rope, attention, o, norm, gate and up, SwiGLU, down, as Llama
// has them, each result read by the next ones only, with weights of Q4_0 in planes.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "opencl/opencl_ops.h"

namespace hetero {

/// Holds submissions as long as they make up layers. Not thread-safe.
///
/// The kernel's work-groups wait for each other, so all of them must run at once: as many as the device has
/// compute units, which is tried when the kernel is built. A wait that is in vain all the same ends after
/// seconds; on NVIDIA's devices with an error, so that the queue fails instead of giving anything wrong.
class LayerRunner {
 public:
  LayerRunner(const OpenClApi& api, const OpenClDevice& device, cl_command_queue queue, KernelMemory& memory)
      : api_(api), device_(device), queue_(queue), memory_(memory) {}

  /// The kernel for such attention, tried; nullptr: it does not build, or its groups do not run at once.
  Result<cl_kernel> kernel(OpenClContext& context, int64_t head_dim, int64_t queries);

  /// Whether the launch goes on with the layers that are held, or begins one.
  bool takes(const OpenClExecutable& executable, const Launch& launch) const;
  void hold(const OpenClExecutable& executable, const Launch& launch);
  bool empty() const { return held_.empty(); }
  /// As many whole layers as one kernel does.
  bool full() const;

  /// Enqueues the whole layers that are held, and gives the launches behind them. Nothing is held after.
  Result<std::vector<HeldLaunch>> enqueue(KernelQueue& queue);

  int64_t layers_run() const { return layers_run_; }

 private:
  Status enqueue_layers(KernelQueue& queue, int64_t layers);
  /// Layers from `held` on, or with nullptr only so many barriers, as a trial.
  Status run(KernelQueue& queue, cl_kernel kernel, const HeldLaunch* held, int64_t layers);
  Status try_groups(cl_kernel kernel, bool* together);

  const OpenClApi& api_;
  const OpenClDevice& device_;
  cl_command_queue queue_;
  KernelMemory& memory_;
  int64_t groups_ = 1;
  bool emulated_ = false;  // no units for matrices, for tests
  std::vector<std::pair<cl_kernel, bool>> tried_;
  std::vector<HeldLaunch> held_;
  std::shared_ptr<OpenClBuffer> sync_;
  std::shared_ptr<OpenClBuffer> room_;
  uint32_t arrived_ = 0;  // at barriers so far, as the device counts
  int64_t layers_run_ = 0;
};

}  // namespace hetero
