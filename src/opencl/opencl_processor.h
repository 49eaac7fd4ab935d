// One OpenCL device as a processor.
//
// For tests and for drivers that claim too much, the environment may decide what the device's own
// answers otherwise do:
//   HETERO_OPENCL_MEMORY=svm|host|copy  how kernels see memory (see MemoryMode)
//   HETERO_OPENCL_KERNELS=cpu|gpu       which shape of kernels to use
//   HETERO_OPENCL_TUNE=on|off           whether to try variants of kernels (see KernelTuner), by
//                                       default on GPUs only
//   HETERO_OPENCL_WIDE, _TILE, _PRODUCT the variants to use, untried (see KernelShape); _PRODUCT is
//                                       a tile or a matrix one, for types that have both
//   HETERO_OPENCL_ARITHMETIC=f32|f16    of products with many rows in kernels for GPUs; by default f16
//                                       on GPUs that have it
//   HETERO_OPENCL_JOIN=none|gated|all|layers|steps
//                                       which submissions of one token become one kernel: products with
//                                       the SwiGLU after them, or also with the norm before, or also
//                                       whole layers (opencl_layers.h); by default the last where there
//                                       are units for matrices, otherwise all. On devices of type CPU
//                                       with one compute unit operators are steps of one kernel
//                                       (opencl_steps.h) unless it is none; steps: elsewhere as well, and
//                                       operators that are submitted alone
//   HETERO_OPENCL_MATRICES=emulate|off  without the units that linear_gpu_matrix.cl wants
//   HETERO_OPENCL_INTERVALS=each|batch  intervals of submissions, or of all up to a flush (see
//                                       OpenClTimeline::mark_batches)
//   HETERO_OPENCL_DONE=flag|event       how the host sees that a submission is done, where it can be both
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <mutex>

#include "opencl/device.h"
#include "opencl/kernel_memory.h"
#include "opencl/opencl_layers.h"
#include "opencl/opencl_ops.h"
#include "opencl/opencl_steps.h"
#include "opencl/opencl_timeline.h"
#include "opencl/program_cache.h"
#include "processor/processor.h"

namespace hetero {

class OpenClProcessor : public Processor {
 public:
  static Result<std::unique_ptr<Processor>> open(const OpenClDevice& device, const ProcessorInfo& info,
                                                 const OpenOptions& options);
  ~OpenClProcessor() override;

  const ProcessorInfo& info() const override { return device_.info; }
  const Traits& traits() const override { return traits_; }
  Status supports(const Graph& graph, const OpSlice& slice) const override;
  Result<std::unique_ptr<Buffer>> import(std::byte* host, Bytes size) override;
  Result<std::unique_ptr<Executable>> compile(const Graph& graph, const OpSlice& slice,
                                              int64_t tokens) override;
  Result<Fence> submit(const Executable& executable, const Launch& launch) override;
  void flush() override;
  void rouse() override;
  Result<Fence> upload(Buffer& buffer, const Region& region) override;
  Result<Fence> download(Buffer& buffer, const Region& region) override;
  void expect_copies(Buffer& buffer) override;
  Status finish() override;
  Status remap(Buffer& buffer, Bytes offset, Bytes size) override;
  Timeline& timeline() override { return timeline_; }
  Bytes device_bytes() const override { return memory_ ? memory_->device_bytes() : 0; }

  /// Programs built from source, and taken from the cache's files, since open().
  int programs_built() const { return programs_->built(); }
  int programs_loaded() const { return programs_->loaded(); }
  /// Submissions that led to kernels of their own, since open().
  int64_t enqueued() const { return enqueued_ + (steps_ ? steps_->kernels() : 0); }
  /// Layers that were run as parts of one kernel, since open().
  int64_t layers_run() const { return layers_ ? layers_->layers_run() : 0; }
  /// Submissions that were run as steps of one kernel, since open().
  int64_t steps_run() const { return steps_ ? steps_->steps_run() : 0; }
  MemoryMode memory_mode() const { return memory_->mode(); }

 private:
  OpenClProcessor(const OpenClApi& api, OpenClDevice device, OpenOptions options);

  Status start();
  /// Runs a first kernel: whether host and kernels see each other's writes, as traits_ says, and
  /// the difference of their clocks.
  Status probe();
  Status warm_up(const OpenClExecutable& executable);
  /// Enqueues one launch, or has it wait for the next one.
  Status enqueue(KernelQueue& queue, const OpenClExecutable& executable, const Launch& launch);
  /// Whether the launch becomes a step. Who waits by finish() has kernels in the ordinary way.
  bool takes_step(const OpenClExecutable& executable);
  Status leave_steps();
  /// Enqueues the layers that are held, and what was begun of one.
  Status enqueue_layers(KernelQueue& queue);
  /// Enqueues the launches that wait for the next one: those in held_, or the layers as well.
  Status enqueue_waiting(KernelQueue& queue);
  Status enqueue_held();
  Result<Fence> transfer(Buffer& buffer, const Region& region, bool upload);

  const OpenClApi& api_;
  OpenClDevice device_;
  OpenOptions options_;
  Traits traits_;
  OpenClTimeline timeline_;
  // Declared in the order in which they need each other.
  ClSubDevice sub_device_;
  ClContext context_;
  ClQueue queue_;
  std::mutex mutex_;  // over what compiling and submitting share: kernels and their arguments, memory_
  std::unique_ptr<KernelMemory> memory_;
  std::unique_ptr<ProgramCache> programs_;
  std::unique_ptr<KernelTuner> tuner_;
  std::unique_ptr<LayerRunner> layers_;  // nullptr: layers are not run in one kernel
  std::unique_ptr<StepRunner> steps_;    // nullptr: operators are not steps of one kernel
  std::unique_ptr<OpenClContext> kernels_;
  /// Launches that wait for the next one (see OpenClExecutable::may_wait): a RmsNorm, a Linear or both.
  /// They have tickets, but no events: batches have none but their first and last.
  /// Under mutex_, but for holds_: whether there are any.
  std::array<HeldLaunch, 2> held_;
  size_t held_count_ = 0;
  std::atomic<bool> holds_ = false;
  bool may_wait_ = false;
  bool finished_ = false;        // finish() was called, and no step was asked for since
  bool same_addresses_ = false;  // kernels see memory at the host's addresses
  int64_t enqueued_ = 0;
  int64_t flushed_ = 0;  // of these
  PageMemory scratch_;   // what warm-ups are bound to
  std::unique_ptr<OpenClBuffer> scratch_buffer_;
};

}  // namespace hetero
