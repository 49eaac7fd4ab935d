// Operators as kernel launches: what a compiled slice of each kind holds, and how it is enqueued.
#pragma once

#include <array>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "opencl/kernel_call.h"
#include "opencl/kernel_memory.h"
#include "opencl/kernel_tuner.h"
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
  int64_t stages = 1;
  int64_t unroll = 8;  // of the loop over k

  int64_t lanes() const { return (m / thread_m) * (n / thread_n); }
};

/// How kernels are shaped for a device; see kernels/common.cl.
struct KernelShape {
  bool cpu = false;        // one work-item is one task
  int64_t lanes = 1;       // work-items that share a row
  int64_t norm_lanes = 1;  // the same in RmsNorm
  KernelTile small_tile;   // GPUs: of Linear, for up to small_tile.m rows of x
  // Variants to choose from by trying them, the ones to use untried first: of linear_gpu_tile.cl for
  // more rows of x, "m,n,k,thread_m,thread_n,stages,unroll", and of linear_gpu_wide.cl,
  // "rows,lanes,sets,stages"; with two stages
  // the next words are on their way.
  std::vector<std::string> tiles;
  std::vector<std::string> wides;
  // Likewise of linear_gpu_matrix.cl, "a_tiles,t_tiles,warps"; empty where the device has no such units.
  std::vector<std::string> matrices;
  bool emulate_matrices = false;  // for tests
  bool join_norms = true;         // RmsNorm waits for the Linear that reads it
  bool subgroups = false;
  bool half_tiles = false;  // linear_gpu_tile.cl computes in fp16
  std::string std_option;   // "-cl-std=CL1.2"
};

KernelShape choose_kernel_shape(const OpenClDevice& device, bool cpu);

/// Columns of one work-group in kernels that pass over rows in chunks: for few tokens small ones, so
/// that all lanes of the device are at work.
int64_t row_chunk(int64_t lanes, int64_t tokens);

class LayerRunner;
class StepRunner;

/// What executables are made of. Not thread-safe.
struct OpenClContext {
  const OpenClApi& api;
  const OpenClDevice& device;
  KernelShape shape;
  cl_command_queue queue;
  KernelMemory& memory;
  ProgramCache& programs;
  KernelTuner& tuner;
  // Several operators in one kernel; nullptr: every operator has kernels of its own.
  LayerRunner* layers = nullptr;  // GPUs
  StepRunner* steps = nullptr;    // devices of type CPU
};

inline int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

class OpenClExecutable;

/// A launch with what it points to.
struct HeldLaunch {
  const OpenClExecutable* executable = nullptr;
  int64_t tokens = 0;
  int64_t position = 0;
  std::array<Binding, 3> inputs = {};
  std::array<Binding, 3> outputs = {};
  size_t input_count = 0;
  size_t output_count = 0;

  HeldLaunch() = default;
  /// The first three inputs and outputs, which is all that operators that are held have.
  HeldLaunch(const OpenClExecutable& held, const Launch& launch);
  Launch launch() const {
    return {tokens, position, {inputs.data(), input_count}, {outputs.data(), output_count}};
  }
};

/// What the kernel of whole layers (opencl_layers.h) is to know of an executable that it can run: one whose
/// results only operators of the layer read, or a table of rope.
struct LayerPart {
  enum class Kind { kNone, kEmbed, kRopeTable, kNorm, kProduct, kRope, kAttention, kGated, kHead };
  Kind kind = Kind::kNone;
  std::shared_ptr<OpenClBuffer>
      weight;  // Q4_0 in planes; of a norm floats; of a table of rope what it is made of
  Bytes weight_at = 0;
  int64_t rows = 0;    // of W
  int64_t cols = 0;    // of W, and of what a norm, Gated or a table of rope makes
  float scale = 1.0f;  // of what Embed or a table of rope makes
  float eps = 0.0f;
  bool residual = false;
  bool gelu = false;
  Rope rope;
  Attention attention;
  cl_kernel kernel = nullptr;  // of attention: the one of whole layers
};

/// What the kernel of steps has to be built for.
struct StepNeeds {
  std::optional<DType> weights;  // nullopt: any
  int64_t head_dim = 0;          // 0: any, with any cache
  DType cache = DType::kF16;
};

/// What StepRunner (opencl_steps.h) is to know of an executable. kNone: it has kernels of its own only.
struct StepPart {
  StepCode code = StepCode::kNone;
  StepNeeds needs;
};

class OpenClExecutable : public Executable {
 public:
  explicit OpenClExecutable(std::string name, int64_t max_tokens)
      : name_(std::move(name)), max_tokens_(max_tokens) {}

  LayerPart layer_part;
  StepPart step;

  const std::string& name() const { return name_; }
  int64_t max_tokens() const { return max_tokens_; }

  /// Enqueues the kernels. With launch.tokens == 0 every kernel that the executable may ever use
  /// runs once and writes nothing: a warm-up, after which submitting compiles nothing.
  virtual Status enqueue(KernelQueue& queue, const Launch& launch) const = 0;

  // Submissions in one kernel: some are held until the next one, which may take them over if nobody else
  // reads what they write.

  /// Whether the launch may be held.
  virtual bool may_wait(const Launch&) const { return false; }
  /// Whether this launch and those held before it can be one kernel.
  virtual bool takes(std::span<const HeldLaunch> /*held*/, const Launch&) const { return false; }
  /// Enqueues what takes() said it can, or without any `held` just this.
  virtual Status enqueue_with(KernelQueue& queue, std::span<const HeldLaunch> /*held*/,
                              const Launch& launch) const {
    return enqueue(queue, launch);
  }

 private:
  std::string name_;
  int64_t max_tokens_;
};

/// RmsNorm. For one token it waits for a Linear that is the only one to read its first output.
class RmsNormExecutable : public OpenClExecutable {
 public:
  using OpenClExecutable::OpenClExecutable;
  cl_kernel kernel = nullptr;
  std::shared_ptr<OpenClBuffer> weight;
  bool residual = false;
  bool before_linear = false;
  int64_t cols = 0;
  int64_t lanes = 1;
  float eps = 0.0f;

  bool may_wait(const Launch& launch) const override { return before_linear && launch.tokens == 1; }
  Status enqueue(KernelQueue& queue, const Launch& launch) const override;
};

/// Of the Linear that was held last, perhaps with a RmsNorm before it: whether it can do a Gated as well, and
/// do so (opencl_linear.cc).
bool linear_takes_gated(std::span<const HeldLaunch> held, const Launch& gated);
Status enqueue_linear_gated(KernelQueue& queue, std::span<const HeldLaunch> held, Activation activation,
                            const Binding& out);

/// Ok, or why these kernels cannot run the slice.
Status opencl_supports(const OpenClContext& context, const Graph& graph, const OpSlice& slice);

/// Builds what is missing of the kernels. The slice is a supported one.
Result<std::unique_ptr<OpenClExecutable>> make_opencl_executable(OpenClContext& context, const Graph& graph,
                                                                 const OpSlice& slice, int64_t tokens);

/// The same for Linear (opencl_linear.cc) and Attention (opencl_attention.cc).
Result<std::unique_ptr<OpenClExecutable>> make_linear(OpenClContext& context, const Graph& graph,
                                                      const OpSlice& slice, int64_t tokens);
Result<std::unique_ptr<OpenClExecutable>> make_attention(OpenClContext& context, const Graph& graph,
                                                         const Op& op, int64_t tokens);
bool attention_fits(const OpenClContext& context, int64_t head_dim);

/// The same for Route, ExpertLinear and ExpertSum (opencl_experts.cc).
Result<std::unique_ptr<OpenClExecutable>> make_expert_executable(OpenClContext& context, const Graph& graph,
                                                                 const Op& op, int64_t tokens);

/// Of the kernels of attention in attention_cpu.cl and others.
std::string attention_define(int64_t head_dim, DType cache);

/// Whether all matrices of an operator that has some are of the same type.
bool has_one_weight_type(const Graph& graph, const Op& op);

/// Of the kernels of blocks.cl. planes: see in_planes().
std::string weight_define(const OpenClContext& context, DType dtype, bool planes);

/// Whether weights of this type and width lie in planes on the device (kernels/blocks.cl).
bool in_planes(const OpenClContext& context, DType dtype, int64_t cols);

/// The kernels of Embed and Linear for such weights, and the weights as those want them: one, or
/// several of one type and width behind each other.
Result<OpenClProgram*> weight_program(OpenClContext& context, DType dtype, int64_t cols);
Result<std::shared_ptr<OpenClBuffer>> weight_buffer(OpenClContext& context,
                                                    const std::vector<const Weight*>& weights);

/// The program of common.cl and `sources`, with `defines` beside the ones that all have. Programs of
/// one name differ in their defines only.
Result<OpenClProgram*> kernel_program(OpenClContext& context, const std::string& name,
                                      std::initializer_list<std::string_view> sources,
                                      const std::string& defines);

/// The kernel `name` of the kernels that pass over rows.
Result<cl_kernel> row_kernel(OpenClContext& context, const std::string& name);

}  // namespace hetero
