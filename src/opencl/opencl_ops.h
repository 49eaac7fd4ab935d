// Operators as kernel launches: what a compiled slice of each kind holds, and how it is enqueued.
#pragma once

#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>

#include "opencl/kernel_call.h"
#include "opencl/kernel_memory.h"
#include "opencl/program_cache.h"
#include "processor/processor.h"

namespace hetero {

/// A size of linear_gpu_tile.cl.
struct KernelTile {
  int64_t m = 0;         // rows of x
  int64_t n = 0;         // rows of W
  int64_t k = 0;         // elements of both at a time
  int64_t thread_m = 4;  // outputs of one work-item
  int64_t thread_n = 4;

  int64_t lanes() const { return (m / thread_m) * (n / thread_n); }
};

/// How kernels are shaped for a device; see kernels/common.cl.
struct KernelShape {
  bool cpu = false;       // one work-item is one task
  int lanes = 1;          // work-items that share a row
  KernelTile tile;        // GPUs: of Linear, for many rows of x
  KernelTile small_tile;  // and for up to small_tile.m
  bool subgroups = false;
  std::string std_option;  // "-cl-std=CL1.2"
};

KernelShape choose_kernel_shape(const OpenClDevice& device, bool cpu);

/// What executables are made of. Not thread-safe.
struct OpenClContext {
  const OpenClApi& api;
  const OpenClDevice& device;
  KernelShape shape;
  KernelMemory& memory;
  ProgramCache& programs;
};

class OpenClExecutable : public Executable {
 public:
  explicit OpenClExecutable(std::string name, int64_t max_tokens)
      : name_(std::move(name)), max_tokens_(max_tokens) {}

  const std::string& name() const { return name_; }
  int64_t max_tokens() const { return max_tokens_; }

  /// Enqueues the kernels. With launch.tokens == 0 every kernel that the executable may ever use
  /// runs once and writes nothing: a warm-up, after which submitting compiles nothing.
  virtual Status enqueue(KernelQueue& queue, const Launch& launch) const = 0;

 private:
  std::string name_;
  int64_t max_tokens_;
};

/// Ok, or why these kernels cannot run the slice.
Status opencl_supports(const OpenClContext& context, const Graph& graph, const OpSlice& slice);

/// Builds what is missing of the kernels. The slice is a supported one.
Result<std::unique_ptr<OpenClExecutable>> make_opencl_executable(OpenClContext& context, const Graph& graph,
                                                                 const OpSlice& slice, int64_t tokens);

/// The same for Route, ExpertLinear and ExpertSum (opencl_experts.cc).
Result<std::unique_ptr<OpenClExecutable>> make_expert_executable(OpenClContext& context, const Graph& graph,
                                                                 const Op& op, int64_t tokens);

/// The program of common.cl and `sources`, with `defines` beside the ones that all have. Programs of
/// one name differ in their defines only.
Result<OpenClProgram*> kernel_program(OpenClContext& context, const std::string& name,
                                      std::initializer_list<std::string_view> sources,
                                      const std::string& defines);

/// The kernel `name` of the kernels that pass over rows.
Result<cl_kernel> row_kernel(OpenClContext& context, const std::string& name);

}  // namespace hetero
