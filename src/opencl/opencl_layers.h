// Whole layers of one token in one kernel (kernels/layers_gpu.cl): which submissions make up a layer, and
// how they are enqueued together. Norm, qkv, rope, attention, o, norm, gate and up, SwiGLU, down, as Llama
// has them, each result read by the next ones only, with weights of Q4_0 in planes.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "opencl/opencl_ops.h"

namespace hetero {

/// Holds submissions as long as they make up layers. Not thread-safe.
///
/// What the kernel reads and writes of a layer, it finds by a table of addresses, and not as arguments.
/// OpenCL promises such addresses for shared virtual memory only. But where this runs, buffers of a context
/// stay in the device's memory at the addresses that kernels were given before, and they live as long as the
/// executables and bindings of the launches.
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

  /// Holds the upload of one token's id, if nothing is held: the kernel is given the id itself.
  bool take_upload(OpenClBuffer& buffer, const Region& region);
  /// Holds the launch if it goes on with what is held, or begins a pass or a layer.
  bool take(const OpenClExecutable& executable, const Launch& launch);
  bool empty() const { return held_.empty() && start_.empty(); }
  /// Whether it is time to enqueue.
  bool full() const;

  /// Enqueues the whole layers that are held and what comes before them, and gives the launches behind.
  /// Nothing is held after.
  Result<std::vector<HeldLaunch>> enqueue(KernelQueue& queue);

  int64_t layers_run() const { return layers_run_; }
  int64_t kernels() const { return kernels_; }  // enqueued so far

 private:
  /// What comes before the first layer of a pass.
  struct Start {
    OpenClBuffer* ids = nullptr;  // with one id that is still to be uploaded
    Bytes ids_at = 0;
    std::optional<HeldLaunch> embed;  // of that id
    std::optional<HeldLaunch> table;
    bool empty() const { return ids == nullptr && !table; }
  };

  bool take_start(const OpenClExecutable& executable, const Launch& launch);
  /// Whether `next`, the launch number `step` of a layer, goes on with what is held.
  bool follows(const HeldLaunch* layer, size_t step, const HeldLaunch& next) const;
  /// What comes before layers by itself, since none are held.
  Status enqueue_start(KernelQueue& queue);
  Status enqueue_layers(KernelQueue& queue, int64_t layers);
  /// The layers that are held, or without a table only so many barriers, as a trial.
  Status run(KernelQueue& queue, cl_kernel kernel, const OpenClBuffer* table, int64_t layers);
  /// Where kernels find a buffer. Waits for the device when it is asked for the first time.
  Result<uint64_t> address(OpenClBuffer& buffer);
  /// Addresses of all that the held layers read and write, on the device.
  Result<const OpenClBuffer*> table_of(int64_t layers);
  Status try_groups(cl_kernel kernel, bool* together);

  struct Table {
    std::vector<uint64_t> addresses;
    std::shared_ptr<OpenClBuffer> buffer;
  };

  const OpenClApi& api_;
  const OpenClDevice& device_;
  cl_command_queue queue_;
  KernelMemory& memory_;
  int64_t groups_ = 1;
  bool emulated_ = false;  // no units for matrices, for tests
  std::vector<std::pair<cl_kernel, bool>> tried_;
  std::map<cl_kernel, KeptValues> kept_;
  Start start_;
  std::vector<HeldLaunch> held_;
  bool begun_ = false;  // the first layers of a pass are enqueued
  cl_kernel address_of_ = nullptr;
  std::shared_ptr<OpenClBuffer> answer_;  // of that
  std::vector<Table> tables_;             // the newest first
  std::vector<uint64_t> addresses_;       // of the table that is looked for
  std::shared_ptr<OpenClBuffer> sync_;
  std::shared_ptr<OpenClBuffer> room_;
  uint32_t arrived_ = 0;  // at barriers so far, as the device counts
  int64_t layers_run_ = 0;
  int64_t kernels_ = 0;
};

}  // namespace hetero
