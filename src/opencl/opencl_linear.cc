// Linear in OpenCL: which kernels there are for so many rows of x, and where the weights lie.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <random>

#include "gguf/dequantize.h"
#include "opencl/opencl_kernels.h"
#include "opencl/opencl_ops.h"
#include "opencl/opencl_steps.h"

namespace hetero {
namespace {

// Of linear_cpu.cl and linear_gpu.cl.
constexpr int64_t kCpuPanel = 12;
constexpr int64_t kCpuTileRows = 256;
constexpr int64_t kCpuVectorRows = 16;
constexpr int64_t kGpuVectorRows = 4;
constexpr int64_t kGpuFewTokens = 4;
constexpr int64_t kGpuFewMaxTokens = 8;  // from here on tiles are faster

constexpr int64_t kSplitLanes = 32;  // of split_x in linear_gpu_matrix.cl

constexpr int64_t kTunedTokens = 512;    // rows of x for which tiles are compared
constexpr int64_t kCompared = 1 << 18;   // results that are looked at
constexpr float kSameResults = 0x1p-7f;  // of the largest one; a wrong kernel is wrong by far more

/// One size of linear_gpu_tile.cl, as a kernel of that name.
std::string tile_source(const std::string& name, const KernelTile& tile) {
  return fmt::format(
      "#define TILE_NAME {}\n#define TILE_M {}\n#define TILE_N {}\n#define TILE_K {}\n#define THREAD_M {}\n"
      "#define THREAD_N {}\n#define STAGES {}\n#define TILE_UNROLL {}\n{}",
      name, tile.m, tile.n, tile.k, tile.thread_m, tile.thread_n, tile.stages, tile.unroll,
      opencl_kernels::linear_gpu_tile);
}

/// Numbers with commas between; what tuning files and the environment call a variant.
Result<std::vector<int64_t>> numbers(const std::string& text, size_t count) {
  std::vector<int64_t> values;
  const char* at = text.data();
  const char* end = at + text.size();
  while (at <= end && values.size() < count) {
    int64_t value = 0;
    const auto [next, error] = std::from_chars(at, end, value);
    if (error != std::errc() || value < 1 || value > 4096 || (next != end && *next != ',')) {
      break;
    }
    values.push_back(value);
    at = next + 1;
  }
  if (values.size() != count || at != end + 1) {
    return invalid_argument(fmt::format("'{}': expected {} numbers with commas between", text, count));
  }
  return values;
}

class LinearExecutable : public OpenClExecutable {
 public:
  using OpenClExecutable::OpenClExecutable;
  /// A kernel, and the rows of W and of x in one of its work-groups.
  struct Way {
    cl_kernel kernel = nullptr;
    int64_t max_tokens = 0;
    int64_t rows = 0;
    int64_t tokens = 0;
    int64_t lanes = 1;
    bool wide = false;  // of linear_gpu_wide.cl: x starts at a multiple of 16 bytes
    /// Of linear_gpu_matrix.cl: the kernel that splits x, and where to; nullptr: x is read as it is.
    cl_kernel split = nullptr;
    std::shared_ptr<OpenClBuffer> split_x;
  };
  struct Segment {
    std::vector<Way> ways;  // ascending max_tokens; the first that takes all tokens is used
    std::shared_ptr<OpenClBuffer> weight;
    Bytes weight_bytes = 0;              // offset of the segment's first row
    std::shared_ptr<OpenClBuffer> bias;  // of the segment's rows; nullptr: none
    int64_t out_begin = 0;
    int64_t rows = 0;
  };
  std::vector<Segment> segments;
  int64_t k = 0;
  // For one token, of the only segment, where that has linear_gpu_wide.cl: the kernels that also do the
  // RmsNorm before, the Gated after, and both; kernel nullptr: none.
  Way normed;
  Way gated;
  Way normed_gated;

  bool may_wait(const Launch& launch) const override {
    return gated.kernel != nullptr && launch.tokens == 1 && is_aligned(launch.inputs[0]);
  }

  bool takes(std::span<const HeldLaunch> held, const Launch& launch) const override {
    if (held.size() != 1 || normed.kernel == nullptr || launch.tokens != 1) {
      return false;
    }
    const auto* norm = dynamic_cast<const RmsNormExecutable*>(held[0].executable);
    if (norm == nullptr || held[0].tokens != 1 || !same(held[0].outputs[0], launch.inputs[0])) {
      return false;
    }
    // The result may take the place of what RmsNorm read, which other work-groups still need.
    for (size_t i = 0; i < held[0].input_count; ++i) {
      if (held[0].inputs[i].buffer == launch.outputs[0].buffer || !is_aligned(held[0].inputs[i])) {
        return false;
      }
    }
    return is_aligned(held[0].outputs[held[0].output_count - 1]);
  }

  Status enqueue_with(KernelQueue& queue, std::span<const HeldLaunch> held,
                      const Launch& launch) const override {
    if (held.empty()) {
      return enqueue(queue, launch);
    }
    Binding out = launch.outputs[0];
    return run_wide(queue, launch, segments[0], normed, segments[0].rows, false, out, &held[0]);
  }

  bool takes_gated(std::span<const HeldLaunch> held, const Launch& last) const {
    const HeldLaunch& own = held.back();
    if (last.tokens != 1 || !same(own.outputs[0], last.inputs[0])) {
      return false;
    }
    for (const HeldLaunch& h : held) {
      for (size_t i = 0; i < h.input_count; ++i) {
        if (h.inputs[i].buffer == last.outputs[0].buffer) {
          return false;
        }
      }
    }
    return true;
  }

  Status enqueue_gated(KernelQueue& queue, std::span<const HeldLaunch> held, Activation activation,
                       const Binding& out) const {
    const bool has_norm = held.size() > 1;
    return run_wide(queue, held.back().launch(), segments[0], has_norm ? normed_gated : gated,
                    segments[0].rows / 2, activation == Activation::kGeluTanh, out,
                    has_norm ? &held[0] : nullptr);
  }

  Status enqueue(KernelQueue& queue, const Launch& launch) const override {
    const bool warm_up = launch.tokens == 0;
    if (warm_up) {
      HETERO_RETURN_IF_ERROR(warm_up_joined(queue, launch));
    }
    for (const Segment& segment : segments) {
      for (const Way& way : segment.ways) {
        const bool chosen =
            launch.tokens <= way.max_tokens && (!way.wide || launch.inputs[0].offset % 4 == 0);
        if (chosen || warm_up) {
          HETERO_RETURN_IF_ERROR(run(queue, launch, segment, way));
        }
        if (chosen && !warm_up) {
          break;
        }
      }
    }
    return {};
  }

  Status run(KernelQueue& queue, const Launch& launch, const Segment& segment, const Way& way) const {
    if (way.split != nullptr) {
      return run_matrix(queue, launch, segment, way);
    }
    Binding out = launch.outputs[0];
    out.offset += segment.out_begin;
    if (way.wide) {
      return run_wide(queue, launch, segment, way, segment.rows, false, out);
    }
    KernelCall call(queue, way.kernel);
    call.as_step(way.max_tokens == 1 ? StepCode::kLinear : StepCode::kLinearTile);
    call.binding(launch.inputs[0]).binding(out).memory(*segment.weight).offset(segment.weight_bytes);
    // A kernel without a bias is given some memory all the same: null arguments are not for SVM.
    call.memory(segment.bias ? *segment.bias : *segment.weight).number(segment.bias ? 1 : 0);
    call.number(segment.rows).number(k).number(launch.tokens);
    return call.run(ceil_div(segment.rows, way.rows),
                    ceil_div(std::max<int64_t>(1, launch.tokens), way.tokens), way.lanes);
  }

 private:
  static bool is_aligned(const Binding& binding) { return binding.offset % 4 == 0; }
  static bool same(const Binding& a, const Binding& b) {
    return a.buffer == b.buffer && a.offset == b.offset;
  }

  /// rows: of y. norm: what RmsNorm was to do, for ways with it.
  Status run_wide(KernelQueue& queue, const Launch& launch, const Segment& segment, const Way& way,
                  int64_t rows, bool gelu, const Binding& out, const HeldLaunch* norm = nullptr) const {
    KernelCall call(queue, way.kernel);
    call.binding(norm != nullptr ? norm->inputs[0] : launch.inputs[0]).binding(out);
    call.memory(*segment.weight).offset(segment.weight_bytes);
    call.memory(segment.bias ? *segment.bias : *segment.weight).number(segment.bias ? 1 : 0);
    call.number(rows).number(k).number(gelu ? 1 : 0);
    if (norm != nullptr) {
      const auto& of = static_cast<const RmsNormExecutable&>(*norm->executable);
      const Binding& r = norm->inputs[norm->input_count - 1];
      const Binding& s = norm->outputs[norm->output_count - 1];
      call.memory(*static_cast<const OpenClBuffer*>(r.buffer)).offset(r.offset);
      call.memory(*static_cast<const OpenClBuffer*>(s.buffer)).offset(s.offset);
      call.memory(*of.weight).value(of.eps).number(of.residual ? 1 : 0);
    }
    call.number(launch.tokens);
    return call.run(ceil_div(rows, way.rows), 1, way.lanes);
  }

  Status warm_up_joined(KernelQueue& queue, const Launch& launch) const {
    RmsNormExecutable norm("", 1);
    norm.weight = segments[0].weight;  // any memory
    HeldLaunch held(norm, launch);
    held.input_count = held.output_count = 1;
    for (const Way* way : {&normed, &gated, &normed_gated}) {
      if (way->kernel != nullptr) {
        HETERO_RETURN_IF_ERROR(run_wide(queue, launch, segments[0], *way, 1, false, launch.outputs[0],
                                        way == &gated ? nullptr : &held));
      }
    }
    return {};
  }

  Status run_matrix(KernelQueue& queue, const Launch& launch, const Segment& segment, const Way& way) const {
    const int64_t tiles = ceil_div(std::max<int64_t>(1, launch.tokens), way.tokens);
    const int64_t rows = tiles * way.tokens;
    KernelCall split(queue, way.split);
    split.binding(launch.inputs[0]).memory(*way.split_x).number(k).number(rows).number(launch.tokens);
    HETERO_RETURN_IF_ERROR(
        split.run(ceil_div(k / 32 * 4, kSplitLanes), launch.tokens == 0 ? 1 : rows, kSplitLanes));
    KernelCall call(queue, way.kernel);
    Binding out = launch.outputs[0];
    out.offset += segment.out_begin;
    call.memory(*way.split_x).number(rows).binding(out).memory(*segment.weight).offset(segment.weight_bytes);
    call.memory(segment.bias ? *segment.bias : *segment.weight).number(segment.bias ? 1 : 0);
    call.number(segment.rows).number(k).number(launch.tokens);
    return call.run(tiles, ceil_div(segment.rows, way.rows), way.lanes);
  }
};

using Way = LinearExecutable::Way;

/// linear_wide of "rows,lanes,sets,stages", with RmsNorm before it and Gated after it or without.
Result<Way> wide_way(OpenClContext& context, DType dtype, const std::string& variant, bool gated = false,
                     bool norm = false) {
  HETERO_TRY(std::vector<int64_t> v, numbers(variant, 4));
  v[0] = gated ? std::max<int64_t>(2, v[0]) : v[0];
  HETERO_TRY(
      OpenClProgram * program,
      kernel_program(
          context, fmt::format("wide-{}", traits(dtype).name),
          {opencl_kernels::blocks, opencl_kernels::linear_gpu_wide},
          fmt::format("{} -DWIDE_ROWS={} -DWIDE_LANES={} -DWIDE_SETS={} -DWIDE_AHEAD={} -DGATED={} -DNORM={}",
                      weight_define(context, dtype, true), v[0], v[1], v[2], v[3] > 1 ? 1 : 0, gated ? 1 : 0,
                      norm ? 1 : 0)));
  HETERO_TRY(cl_kernel kernel, program->kernel("linear_wide"));
  return Way{kernel, 1, v[0] * v[2] / (gated ? 2 : 1), 1, v[1] * v[2], true};
}

/// linear_tile of "m,n,k,thread_m,thread_n,stages,unroll".
Result<Way> tile_way(OpenClContext& context, DType dtype, bool planes, const std::string& variant) {
  HETERO_TRY(const std::vector<int64_t> v, numbers(variant, 7));
  const KernelTile tile{v[0], v[1], v[2], v[3], v[4], v[5], v[6]};
  const std::string source = tile_source("linear_tile", tile);
  HETERO_TRY(OpenClProgram * program,
             kernel_program(context, fmt::format("tile-{}-{}x{}", traits(dtype).name, tile.m, tile.n),
                            {opencl_kernels::blocks, source}, weight_define(context, dtype, planes)));
  HETERO_TRY(cl_kernel kernel, program->kernel("linear_tile"));
  return Way{kernel, std::numeric_limits<int64_t>::max(), tile.n, tile.m, tile.lanes()};
}

bool has_matrix_kernels(const OpenClContext& context, DType dtype, bool planes) {
  return planes && dtype == DType::kQ4_0 && !context.shape.matrices.empty();
}

/// linear_matrix of "a_tiles,t_tiles,warps", for up to so many rows of x.
Result<Way> matrix_way(OpenClContext& context, DType dtype, int64_t k, int64_t tokens,
                       const std::string& variant) {
  HETERO_TRY(const std::vector<int64_t> v, numbers(variant, 3));
  HETERO_TRY(OpenClProgram * program,
             kernel_program(context, fmt::format("matrix-{}", traits(dtype).name),
                            {opencl_kernels::blocks, opencl_kernels::linear_gpu_matrix},
                            fmt::format("{} -DA_TILES={} -DT_TILES={} -DWARPS={} -DEMULATE={}",
                                        weight_define(context, dtype, true), v[0], v[1], v[2],
                                        context.shape.emulate_matrices ? 1 : 0)));
  HETERO_TRY(cl_kernel kernel, program->kernel("linear_matrix"));
  Way way{kernel, std::numeric_limits<int64_t>::max(), 16 * v[0] * v[2], 8 * v[1], 32 * v[2]};
  HETERO_TRY(way.split, program->kernel("split_x"));
  HETERO_TRY(way.split_x, context.memory.scratch(ceil_div(tokens, way.tokens) * way.tokens * k * 6));
  return way;
}

/// Runs ways of one segment, to compare results and times. Before each timed run the caches are
/// cleared of the weights.
class Trial {
 public:
  static Result<std::unique_ptr<Trial>> make(OpenClContext& context, const LinearExecutable& linear,
                                             const LinearExecutable::Segment& segment, int64_t tokens) {
    auto trial = std::make_unique<Trial>(context, linear, segment, tokens);
    HETERO_TRY(trial->x_, context.memory.allocate(tokens * linear.k * 4));
    HETERO_TRY(trial->y_, context.memory.allocate(tokens * segment.rows * 4));
    std::vector<float> x(static_cast<size_t>(tokens * linear.k));
    std::minstd_rand random(1);
    for (float& v : x) {
      v = static_cast<float>(random() % 2048) / 1024.0f - 1.0f;
    }
    HETERO_RETURN_IF_ERROR(context.memory.write(*trial->x_, x));
    return trial;
  }
  Trial(OpenClContext& context, const LinearExecutable& linear, const LinearExecutable::Segment& segment,
        int64_t tokens)
      : context_(context), linear_(linear), segment_(segment), tokens_(tokens) {}

  /// The first of the results.
  Result<std::vector<float>> results(const Way& way) {
    const Binding in{x_.get(), 0, linear_.k};
    const Binding out{y_.get(), 0, segment_.rows};
    KernelQueue queue{context_.api, context_.queue, Events::kNone, {}, {}};
    HETERO_RETURN_IF_ERROR(linear_.run(queue, {tokens_, 0, {&in, 1}, {&out, 1}}, segment_, way));
    std::vector<float> y(static_cast<size_t>(std::min<int64_t>(tokens_ * segment_.rows, kCompared)));
    HETERO_RETURN_IF_ERROR(context_.memory.read(*y_, y));
    return y;
  }

  /// The fastest of a few runs, in nanoseconds.
  Result<double> time(const Way& way) {
    const Binding in{x_.get(), 0, linear_.k};
    const Binding out{y_.get(), 0, segment_.rows};
    double best = std::numeric_limits<double>::max();
    for (int run = 0; run < 4; ++run) {
      KernelQueue queue{context_.api, context_.queue, Events::kFirstAndLast, {}, {}};
      HETERO_RETURN_IF_ERROR(context_.memory.sweep());
      HETERO_RETURN_IF_ERROR(linear_.run(queue, {tokens_, 0, {&in, 1}, {&out, 1}}, segment_, way));
      HETERO_RETURN_IF_ERROR(cl_status(context_.api.Finish(context_.queue), "clFinish"));
      cl_ulong begin = 0, end = 0;
      const cl_event event = queue.last.get();
      HETERO_RETURN_IF_ERROR(cl_status(context_.api.GetEventProfilingInfo(event, CL_PROFILING_COMMAND_START,
                                                                          sizeof(begin), &begin, nullptr),
                                       "clGetEventProfilingInfo"));
      HETERO_RETURN_IF_ERROR(cl_status(
          context_.api.GetEventProfilingInfo(event, CL_PROFILING_COMMAND_END, sizeof(end), &end, nullptr),
          "clGetEventProfilingInfo"));
      if (run > 0) {  // the first one loads the program
        best = std::min(best, static_cast<double>(end - begin));
      }
    }
    return best;
  }

 private:
  OpenClContext& context_;
  const LinearExecutable& linear_;
  const LinearExecutable::Segment& segment_;
  int64_t tokens_;
  std::shared_ptr<OpenClBuffer> x_;
  std::shared_ptr<OpenClBuffer> y_;
};

bool same(const std::vector<float>& found, const std::vector<float>& expected) {
  float largest = 0.0f;
  for (const float v : expected) {
    largest = std::max(largest, std::abs(v));
  }
  for (size_t i = 0; i < found.size(); ++i) {
    if (!(std::abs(found[i] - expected[i]) <= kSameResults * largest)) {
      return false;
    }
  }
  return true;
}

/// The kernels of one segment, from the one for the fewest tokens up; `wide`: the variant of
/// linear_gpu_wide.cl, if that is among them.
Result<std::vector<Way>> linear_ways(OpenClContext& context, DType dtype, const LinearExecutable& linear,
                                     const LinearExecutable::Segment& segment, int64_t tokens,
                                     std::string* wide) {
  const bool planes = in_planes(context, dtype, linear.k);
  HETERO_TRY(OpenClProgram * program, weight_program(context, dtype, linear.k));
  std::vector<Way> ways;
  const auto add = [&](const char* name, int64_t max_tokens, int64_t rows, int64_t rows_of_x,
                       int64_t lanes) -> Status {
    HETERO_TRY(cl_kernel kernel, program->kernel(name));
    ways.push_back({kernel, max_tokens, rows, rows_of_x, lanes});
    return {};
  };
  const KernelShape& shape = context.shape;
  constexpr int64_t kAny = std::numeric_limits<int64_t>::max();
  if (shape.cpu) {
    HETERO_RETURN_IF_ERROR(add("linear_vector", 1, kCpuVectorRows, 1, 1));
    HETERO_RETURN_IF_ERROR(add("linear_tile", kAny, kCpuPanel, kCpuTileRows, 1));
    return ways;
  }
  const auto choose = [&](const char* kind, const std::vector<std::string>& variants, int64_t trial_tokens,
                          const auto& way_of) -> Status {
    std::unique_ptr<Trial> trial;
    std::vector<float> expected;
    const auto time = [&](const std::string& variant) -> Result<double> {
      if (!trial) {
        HETERO_TRY(trial, Trial::make(context, linear, segment, trial_tokens));
        HETERO_TRY(const Way plain, way_of(variants.back()));
        HETERO_TRY(expected, trial->results(plain));
      }
      HETERO_TRY(const Way way, way_of(variant));
      HETERO_TRY(const std::vector<float> found, trial->results(way));
      if (!same(found, expected)) {
        return internal_error(fmt::format("{} {} computes something else", kind, variant));
      }
      return trial->time(way);
    };
    HETERO_TRY(const std::string variant,
               context.tuner.choose(fmt::format("{} {}{} n={} k={}", kind, traits(dtype).name,
                                                planes ? " planes" : "", segment.rows, linear.k),
                                    kind, variants, time));
    HETERO_TRY(const Way way, way_of(variant));
    ways.push_back(way);
    if (way.wide) {
      *wide = variant;
    }
    return {};
  };
  if (planes) {
    HETERO_RETURN_IF_ERROR(choose("wide", shape.wides, 1, [&](const std::string& variant) {
      return wide_way(context, dtype, variant);
    }));
  }
  HETERO_RETURN_IF_ERROR(add("linear_vector", 1, kGpuVectorRows, 1, shape.lanes));
  if (tokens == 1) {
    return ways;
  }
  HETERO_RETURN_IF_ERROR(add("linear_few", kGpuFewMaxTokens, kGpuVectorRows, kGpuFewTokens, shape.lanes));
  const KernelTile& small = shape.small_tile;
  HETERO_RETURN_IF_ERROR(add("linear_small_tile", small.m, small.n, small.m, small.lanes()));
  if (tokens > small.m && has_matrix_kernels(context, dtype, planes)) {
    std::vector<std::string> variants = shape.matrices;
    variants.push_back(shape.tiles[0]);  // far slower, but to compare results with
    HETERO_RETURN_IF_ERROR(
        choose("product", variants, kTunedTokens, [&](const std::string& variant) -> Result<Way> {
          return std::count(variant.begin(), variant.end(), ',') == 2
                     ? matrix_way(context, dtype, linear.k, std::max(tokens, kTunedTokens), variant)
                     : tile_way(context, dtype, planes, variant);
        }));
  } else if (tokens > small.m) {
    HETERO_RETURN_IF_ERROR(choose("tile", shape.tiles, kTunedTokens, [&](const std::string& variant) {
      return tile_way(context, dtype, planes, variant);
    }));
  }
  return ways;
}

/// Weights of a Linear that one kernel can take together: consecutive ones of one dtype, which in
/// mode kCopy lie one behind the other on the device. Elsewhere each is where the file has it.
std::vector<std::vector<size_t>> stacks(const OpenClContext& context, const Graph& graph, const Op& op) {
  std::vector<std::vector<size_t>> stacks;
  Bytes bytes = 0;
  for (size_t i = 0; i < op.weights.size(); ++i) {
    const Weight& w = graph.weight(op.weights[i]);
    const Bytes size = w.rows * row_bytes(w.dtype, w.cols);
    const bool joins = i > 0 && context.memory.mode() == MemoryMode::kCopy &&
                       graph.weight(op.weights[i - 1]).dtype == w.dtype &&
                       bytes + size <= context.device.max_buffer_bytes;
    if (!joins) {
      stacks.emplace_back();
      bytes = 0;
    }
    bytes += size;
    stacks.back().push_back(i);
  }
  return stacks;
}

/// Whether `value` is the first output of a RmsNorm that only one operator reads.
bool normed_alone(const Graph& graph, ValueId value) {
  const auto makes = [&](const Op& op) { return op.is<RmsNorm>() && op.outputs[0] == value; };
  return std::any_of(graph.ops.begin(), graph.ops.end(), makes) && only_reader(graph, value) != nullptr;
}

}  // namespace

bool linear_takes_gated(std::span<const HeldLaunch> held, const Launch& gated) {
  const auto* linear = dynamic_cast<const LinearExecutable*>(held.back().executable);
  return linear != nullptr && linear->takes_gated(held, gated);
}

Status enqueue_linear_gated(KernelQueue& queue, std::span<const HeldLaunch> held, Activation activation,
                            const Binding& out) {
  return static_cast<const LinearExecutable&>(*held.back().executable)
      .enqueue_gated(queue, held, activation, out);
}

bool has_one_weight_type(const Graph& graph, const Op& op) {
  const DType first = graph.weight(op.weights[0]).dtype;
  return std::all_of(op.weights.begin(), op.weights.end(),
                     [&](WeightId id) { return graph.weight(id).dtype == first; });
}

std::string weight_define(const OpenClContext& context, DType dtype, bool planes) {
  return fmt::format("-DWEIGHT_{} -DVECTOR_LANES={}{}", traits(dtype).name, context.shape.lanes,
                     planes ? " -DPLANES" : "");
}

bool in_planes(const OpenClContext& context, DType dtype, int64_t cols) {
  return !context.shape.cpu && context.memory.mode() == MemoryMode::kCopy && cols % 256 == 0 &&
         (dtype == DType::kQ4_0 || dtype == DType::kQ4_1);
}

Result<OpenClProgram*> weight_program(OpenClContext& context, DType dtype, int64_t cols) {
  const KernelShape& shape = context.shape;
  const std::string name = fmt::format("weights-{}", traits(dtype).name);
  const std::string define = weight_define(context, dtype, in_planes(context, dtype, cols));
  if (shape.cpu) {
    return kernel_program(context, name, {opencl_kernels::blocks, opencl_kernels::linear_cpu}, define);
  }
  return kernel_program(context, name,
                        {opencl_kernels::blocks, opencl_kernels::linear_gpu,
                         tile_source("linear_small_tile", shape.small_tile)},
                        define);
}

Result<std::shared_ptr<OpenClBuffer>> weight_buffer(OpenClContext& context,
                                                    const std::vector<const Weight*>& weights) {
  cl_kernel to_planes = nullptr;
  if (in_planes(context, weights[0]->dtype, weights[0]->cols)) {
    HETERO_TRY(to_planes, row_kernel(context, "to_planes"));
  }
  return context.memory.stack(weights, to_planes);
}

Result<std::unique_ptr<OpenClExecutable>> make_linear(OpenClContext& context, const Graph& graph,
                                                      const OpSlice& slice, int64_t tokens) {
  const Op& op = graph.op(slice.op);
  auto made = std::make_unique<LinearExecutable>(op.name, tokens);
  made->k = graph.weight(op.weights[0]).cols;
  int64_t next = 0;  // the next stack's first output column
  for (const std::vector<size_t>& stack : stacks(context, graph, op)) {
    const int64_t first = next;
    std::vector<const Weight*> weights;
    for (const size_t i : stack) {
      weights.push_back(&graph.weight(op.weights[i]));
      next += weights.back()->rows;
    }
    const int64_t begin = std::max(slice.begin, first);
    const int64_t end = std::min(slice.end, next);
    if (begin >= end) {
      continue;
    }
    LinearExecutable::Segment segment;
    HETERO_TRY(segment.weight, weight_buffer(context, weights));
    segment.weight_bytes = segment.weight->lead() + (begin - first) * row_bytes(weights[0]->dtype, made->k);
    segment.out_begin = begin - slice.begin;
    segment.rows = end - begin;
    std::string wide;
    HETERO_TRY(segment.ways, linear_ways(context, weights[0]->dtype, *made, segment, tokens, &wide));
    if (!wide.empty() && segment.rows == graph.output_cols(slice.op)) {
      const Op* after = only_reader(graph, op.outputs[0]);
      const bool gated = after != nullptr && after->is<Gated>();
      const bool norm = normed_alone(graph, op.inputs[0]);
      const DType dtype = weights[0]->dtype;
      if (norm) {
        HETERO_TRY(made->normed, wide_way(context, dtype, wide, false, true));
      }
      if (gated) {
        HETERO_TRY(made->gated, wide_way(context, dtype, wide, true, false));
      }
      if (norm && gated) {
        HETERO_TRY(made->normed_gated, wide_way(context, dtype, wide, true, true));
      }
    }
    bool biased = false;
    std::vector<float> biases(static_cast<size_t>(segment.rows), 0.0f);
    for (const LinearSegment& s : linear_segments(graph, slice.op, begin, end)) {
      if (s.bias != nullptr) {
        std::vector<float> all(static_cast<size_t>(s.bias->rows * s.bias->cols));
        dequantize(s.bias->dtype, s.bias->data, s.bias->rows * s.bias->cols, all.data());
        std::copy_n(all.begin() + s.row_begin, s.rows, biases.begin() + s.out_begin);
        biased = true;
      }
    }
    if (biased) {
      HETERO_TRY(segment.bias, context.memory.constants(std::move(biases), op.name));
    }
    made->segments.push_back(std::move(segment));
  }
  const LinearExecutable::Segment& first = made->segments[0];
  const DType dtype = graph.weight(op.weights[0]).dtype;
  if (context.steps != nullptr && has_one_weight_type(graph, op)) {
    made->step = {StepCode::kLinear, {dtype, 0, {}}};
    if (slice.op < graph.head_begin || graph.head_begin == 0) {  // nothing follows a head
      HETERO_RETURN_IF_ERROR(context.steps->prepare(context, graph, dtype));
    }
  }
  if (made->segments.size() == 1 && first.bias == nullptr && first.rows == graph.output_cols(slice.op) &&
      first.rows % 16 == 0 && dtype == DType::kQ4_0 && in_planes(context, dtype, made->k) &&
      (only_reader(graph, op.outputs[0]) != nullptr || op.outputs[0] == graph.logits)) {
    made->layer_part.kind =
        op.outputs[0] == graph.logits ? LayerPart::Kind::kHead : LayerPart::Kind::kProduct;
    made->layer_part.weight = first.weight;
    made->layer_part.weight_at = first.weight_bytes;
    made->layer_part.rows = first.rows;
    made->layer_part.cols = made->k;
  }
  return std::unique_ptr<OpenClExecutable>(std::move(made));
}

}  // namespace hetero
