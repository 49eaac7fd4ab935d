#include "opencl/opencl_ops.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <optional>

#include "gguf/dequantize.h"
#include "opencl/opencl_kernels.h"

namespace hetero {
namespace {

constexpr int64_t kGatedChunk = 1024;  // GATED_CHUNK of elementwise.cl
constexpr int64_t kTurn = 256;         // TURN of elementwise.cl
// Of linear_cpu.cl and linear_gpu.cl.
constexpr int64_t kCpuPanel = 12;
constexpr int64_t kCpuTileRows = 256;
constexpr int64_t kCpuVectorRows = 16;
constexpr int64_t kGpuVectorRows = 4;
constexpr int64_t kGpuFewTokens = 4;
constexpr int64_t kGpuFewMaxTokens = 8;  // from here on tiles are faster
constexpr int64_t kGpuUnit = 8;          // UNIT of blocks.cl
// Of attention_cpu.cl, and the most for attention_gpu.cl.
constexpr int64_t kCpuAttentionQueries = 12;
constexpr int64_t kGpuAttentionQueries = 16;
constexpr int64_t kGpuAttentionFewQueries = 4;  // with 32 keys, scores for all lanes

int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

bool has_weight_kernels(DType dtype) {
  return dtype != DType::kI32;
}

/// One size of linear_gpu_tile.cl, as a kernel of that name.
std::string tile_source(const std::string& name, const KernelTile& tile) {
  return fmt::format(
      "#define TILE_NAME {}\n#define TILE_M {}\n#define TILE_N {}\n#define TILE_K {}\n#define THREAD_M {}\n"
      "#define THREAD_N {}\n{}",
      name, tile.m, tile.n, tile.k, tile.thread_m, tile.thread_n, opencl_kernels::linear_gpu_tile);
}

/// The kernels of Embed and Linear for weights of one type.
Result<OpenClProgram*> weight_program(OpenClContext& context, DType dtype) {
  const KernelShape& shape = context.shape;
  const std::string name = fmt::format("weights-{}", traits(dtype).name);
  const std::string weight = fmt::format("-DWEIGHT_{} -DVECTOR_LANES={}", traits(dtype).name, shape.lanes);
  if (shape.cpu) {
    return kernel_program(context, name, {opencl_kernels::blocks, opencl_kernels::linear_cpu}, weight);
  }
  return kernel_program(
      context, name,
      {opencl_kernels::blocks, opencl_kernels::linear_gpu, tile_source("linear_tile", shape.tile),
       tile_source("linear_small_tile", shape.small_tile)},
      weight);
}

/// A short vector (a norm's weights, a bias) as floats.
std::vector<float> vector_floats(const Weight& weight) {
  std::vector<float> values(static_cast<size_t>(weight.rows * weight.cols));
  dequantize(weight.dtype, weight.data, weight.rows * weight.cols, values.data());
  return values;
}

class EmbedExecutable : public OpenClExecutable {
 public:
  using OpenClExecutable::OpenClExecutable;
  cl_kernel kernel = nullptr;
  std::shared_ptr<OpenClBuffer> table;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t lanes = 1;
  float scale = 1.0f;

  Status enqueue(KernelQueue& queue, const Launch& launch) const override {
    KernelCall call(queue, kernel);
    call.binding(launch.inputs[0]).binding(launch.outputs[0]).memory(*table).offset(table->lead());
    call.number(rows).number(cols).value(scale).number(launch.tokens);
    const int64_t groups = lanes == 1 ? 1 : ceil_div(cols, kGpuUnit * lanes);
    return call.run(groups, std::max<int64_t>(1, launch.tokens), lanes);
  }
};

class RopeTableExecutable : public OpenClExecutable {
 public:
  using OpenClExecutable::OpenClExecutable;
  cl_kernel kernel = nullptr;
  std::shared_ptr<OpenClBuffer> parts;
  int64_t pairs = 0;
  int64_t lanes = 1;
  float magnitude = 1.0f;

  Status enqueue(KernelQueue& queue, const Launch& launch) const override {
    KernelCall call(queue, kernel);
    call.binding(launch.outputs[0]).memory(*parts).number(pairs).value(magnitude);
    call.number(launch.position).number(launch.tokens);
    return call.run(std::max<int64_t>(1, launch.tokens), 1, lanes);
  }
};

class RmsNormExecutable : public OpenClExecutable {
 public:
  using OpenClExecutable::OpenClExecutable;
  cl_kernel kernel = nullptr;
  std::shared_ptr<OpenClBuffer> weight;
  bool residual = false;
  int64_t cols = 0;
  int64_t lanes = 1;
  float eps = 0.0f;

  Status enqueue(KernelQueue& queue, const Launch& launch) const override {
    KernelCall call(queue, kernel);
    call.binding(launch.inputs[0]).binding(launch.inputs[residual ? 1 : 0]);
    call.binding(launch.outputs[0]).binding(launch.outputs[residual ? 1 : 0]);
    call.memory(*weight).number(residual ? 1 : 0).number(cols).value(eps).number(launch.tokens);
    return call.run(std::max<int64_t>(1, launch.tokens), 1, lanes);
  }
};

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

  Status enqueue(KernelQueue& queue, const Launch& launch) const override {
    const bool warm_up = launch.tokens == 0;
    for (const Segment& segment : segments) {
      for (const Way& way : segment.ways) {
        const bool chosen = launch.tokens <= way.max_tokens;
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

 private:
  void operands(KernelCall& call, const Launch& launch, const Segment& segment) const {
    Binding out = launch.outputs[0];
    out.offset += segment.out_begin;
    call.binding(launch.inputs[0]).binding(out).memory(*segment.weight).offset(segment.weight_bytes);
    // A kernel without a bias is given some memory all the same: null arguments are not for SVM.
    call.memory(segment.bias ? *segment.bias : *segment.weight).number(segment.bias ? 1 : 0);
    call.number(segment.rows).number(k);
  }

  Status run(KernelQueue& queue, const Launch& launch, const Segment& segment, const Way& way) const {
    KernelCall call(queue, way.kernel);
    operands(call, launch, segment);
    call.number(launch.tokens);
    return call.run(ceil_div(segment.rows, way.rows),
                    ceil_div(std::max<int64_t>(1, launch.tokens), way.tokens), way.lanes);
  }
};

class RopeExecutable : public OpenClExecutable {
 public:
  using OpenClExecutable::OpenClExecutable;
  cl_kernel kernel = nullptr;
  Rope rope;
  std::shared_ptr<OpenClBuffer> norms;  // of q and k; nullptr: none
  bool cache_f16 = false;
  int64_t lanes = 1;

  Status enqueue(KernelQueue& queue, const Launch& launch) const override {
    KernelCall call(queue, kernel);
    call.binding(launch.inputs[0]).binding(launch.inputs[1]);
    call.binding(launch.outputs[0]).binding(launch.outputs[1]).binding(launch.outputs[2]);
    call.memory(norms ? *norms : static_cast<const OpenClBuffer&>(*launch.inputs[1].buffer));
    call.number(norms ? 1 : 0).value(rope.norm_eps);
    call.number(rope.heads).number(rope.kv_heads).number(rope.head_dim).number(rope.rotary_dims);
    call.number(rope.pairs == RopePairs::kHalves ? 1 : 0).number(cache_f16 ? 1 : 0);
    call.number(launch.position).number(launch.tokens);
    return call.run(rope.heads + 2 * rope.kv_heads, std::max<int64_t>(1, launch.tokens), lanes);
  }
};

class AttentionExecutable : public OpenClExecutable {
 public:
  using OpenClExecutable::OpenClExecutable;
  /// A kernel for blocks of so many query rows.
  struct Block {
    cl_kernel kernel = nullptr;
    int64_t queries = 1;
  };
  std::vector<Block> blocks;  // ascending; the first that takes all rows is used, or the last
  Attention attention;
  int64_t lanes = 1;

  Status enqueue(KernelQueue& queue, const Launch& launch) const override {
    const bool warm_up = launch.tokens == 0;
    const int64_t rows = launch.tokens * (attention.heads / attention.kv_heads);
    for (const Block& block : blocks) {
      const bool chosen = rows <= block.queries || &block == &blocks.back();
      if (warm_up || chosen) {
        HETERO_RETURN_IF_ERROR(run(queue, launch, block));
      }
      if (!warm_up && chosen) {
        break;
      }
    }
    return {};
  }

 private:
  Status run(KernelQueue& queue, const Launch& launch, const Block& block) const {
    const int64_t group = attention.heads / attention.kv_heads;
    KernelCall call(queue, block.kernel);
    call.binding(launch.inputs[0])
        .binding(launch.inputs[1])
        .binding(launch.inputs[2])
        .binding(launch.outputs[0]);
    call.number(group)
        .value(attention.scale)
        .value(attention.cap)
        .number(attention.window)
        .number(launch.position)
        .number(launch.tokens);
    return call.run(attention.kv_heads, ceil_div(std::max<int64_t>(1, launch.tokens) * group, block.queries),
                    lanes);
  }
};

class GatedExecutable : public OpenClExecutable {
 public:
  using OpenClExecutable::OpenClExecutable;
  cl_kernel kernel = nullptr;
  Activation activation = Activation::kSilu;
  int64_t cols = 0;
  int64_t lanes = 1;

  Status enqueue(KernelQueue& queue, const Launch& launch) const override {
    KernelCall call(queue, kernel);
    call.binding(launch.inputs[0]).binding(launch.outputs[0]).number(cols);
    call.number(activation == Activation::kGeluTanh ? 1 : 0).number(launch.tokens);
    return call.run(ceil_div(cols, kGatedChunk), std::max<int64_t>(1, launch.tokens), lanes);
  }
};

class SoftCapExecutable : public OpenClExecutable {
 public:
  using OpenClExecutable::OpenClExecutable;
  cl_kernel kernel = nullptr;
  float cap = 1.0f;
  int64_t cols = 0;
  int64_t lanes = 1;

  Status enqueue(KernelQueue& queue, const Launch& launch) const override {
    KernelCall call(queue, kernel);
    call.binding(launch.inputs[0]).binding(launch.outputs[0]).number(cols).value(cap).number(launch.tokens);
    return call.run(ceil_div(cols, kGatedChunk), std::max<int64_t>(1, launch.tokens), lanes);
  }
};

/// The tables of rope_table in elementwise.cl: for digit d of the position in base kTurn (the lowest
/// first) and each of its values, every pair's cos and sin as sums of two floats.
std::vector<float> turn_tables(const RopeTable& table) {
  std::vector<float> parts;
  parts.reserve(static_cast<size_t>(3 * kTurn) * table.inv_freq.size() * 4);
  const auto push = [&](double value) {
    const float high = static_cast<float>(value);
    parts.push_back(high);
    parts.push_back(static_cast<float>(value - high));
  };
  for (int64_t weight = 1; weight <= kTurn * kTurn; weight *= kTurn) {
    for (int64_t digit = 0; digit < kTurn; ++digit) {
      for (const double frequency : table.inv_freq) {
        const double angle = static_cast<double>(digit * weight) * frequency;
        push(std::cos(angle));
        push(std::sin(angle));
      }
    }
  }
  return parts;
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

/// The kernels of one weight type, from the one for the fewest tokens up.
Result<std::vector<LinearExecutable::Way>> linear_ways(OpenClContext& context, DType dtype) {
  HETERO_TRY(OpenClProgram * program, weight_program(context, dtype));
  std::vector<LinearExecutable::Way> ways;
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
  const KernelTile& small = shape.small_tile;
  HETERO_RETURN_IF_ERROR(add("linear_vector", 1, kGpuVectorRows, 1, shape.lanes));
  HETERO_RETURN_IF_ERROR(add("linear_few", kGpuFewMaxTokens, kGpuVectorRows, kGpuFewTokens, shape.lanes));
  HETERO_RETURN_IF_ERROR(add("linear_small_tile", small.m, small.n, small.m, small.lanes()));
  HETERO_RETURN_IF_ERROR(add("linear_tile", kAny, shape.tile.n, shape.tile.m, shape.tile.lanes()));
  return ways;
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
    HETERO_TRY(segment.ways, linear_ways(context, weights[0]->dtype));
    HETERO_TRY(segment.weight, context.memory.stack(weights));
    segment.weight_bytes = segment.weight->lead() + (begin - first) * row_bytes(weights[0]->dtype, made->k);
    segment.out_begin = begin - slice.begin;
    segment.rows = end - begin;
    bool biased = false;
    std::vector<float> biases(static_cast<size_t>(segment.rows), 0.0f);
    for (const LinearSegment& s : linear_segments(graph, slice.op, begin, end)) {
      if (s.bias != nullptr) {
        const std::vector<float> all = vector_floats(*s.bias);
        std::copy_n(all.begin() + s.row_begin, s.rows, biases.begin() + s.out_begin);
        biased = true;
      }
    }
    if (biased) {
      HETERO_TRY(segment.bias, context.memory.constants(std::move(biases), op.name));
    }
    made->segments.push_back(std::move(segment));
  }
  return std::unique_ptr<OpenClExecutable>(std::move(made));
}

/// Rows of queries and keys in one tile of attention_gpu.cl, as far as the local memory goes.
struct AttentionTile {
  int64_t queries = 16;
  int64_t keys = 32;
};

std::optional<AttentionTile> attention_tile(const OpenClDevice& device, int64_t head_dim, int64_t queries) {
  AttentionTile tile{queries, 32};
  const auto bytes = [&] {
    return 4 * (tile.queries * head_dim + tile.keys * (head_dim + 1) + tile.queries * (tile.keys + 2));
  };
  while (bytes() > device.local_bytes) {
    if (tile.keys > 4) {
      tile.keys /= 2;
    } else if (tile.queries > 1) {
      tile.queries /= 2;
    } else {
      return std::nullopt;
    }
  }
  return tile;
}

Result<std::unique_ptr<OpenClExecutable>> make_attention(OpenClContext& context, const Graph& graph,
                                                         const Op& op, int64_t tokens) {
  const Attention& attention = *op.as<Attention>();
  auto made = std::make_unique<AttentionExecutable>(op.name, tokens);
  made->attention = attention;
  made->lanes = context.shape.lanes;
  const auto add = [&](const std::string& name, std::string_view kernels, int64_t queries,
                       const std::string& defines) -> Status {
    HETERO_TRY(
        OpenClProgram * program,
        kernel_program(
            context, name, {kernels},
            fmt::format("-DHEAD_DIM={}{}{}", attention.head_dim,
                        graph.value(op.inputs[1]).dtype == DType::kF16 ? " -DCACHE_F16" : "", defines)));
    HETERO_TRY(cl_kernel kernel, program->kernel("attention"));
    made->blocks.push_back({kernel, queries});
    return {};
  };
  if (context.shape.cpu) {
    HETERO_RETURN_IF_ERROR(add("attention", opencl_kernels::attention_cpu, kCpuAttentionQueries, ""));
    return std::unique_ptr<OpenClExecutable>(std::move(made));
  }
  // For one token, a block of just its query heads; for many, as large as pays.
  const auto group = static_cast<uint64_t>(attention.heads / attention.kv_heads);
  const auto few = std::clamp<int64_t>(static_cast<int64_t>(std::bit_ceil(group)), kGpuAttentionFewQueries,
                                       kGpuAttentionQueries);
  for (const int64_t queries : {few, kGpuAttentionQueries}) {
    const AttentionTile tile = *attention_tile(context.device, attention.head_dim, queries);
    if (made->blocks.empty() || tile.queries > made->blocks.back().queries) {
      HETERO_RETURN_IF_ERROR(add(fmt::format("attention-{}", tile.queries), opencl_kernels::attention_gpu,
                                 tile.queries,
                                 fmt::format(" -DQUERIES={} -DKEYS={}", tile.queries, tile.keys)));
    }
  }
  return std::unique_ptr<OpenClExecutable>(std::move(made));
}

}  // namespace

KernelShape choose_kernel_shape(const OpenClDevice& device, bool cpu) {
  KernelShape shape;
  shape.cpu = cpu;
  shape.std_option = "-cl-std=CL1.2";
  if (cpu) {
    return shape;
  }
  shape.lanes = device.max_work_group >= 128 ? 128 : 32;
  shape.small_tile = device.max_work_group >= 128 ? KernelTile{32, 64, 64} : KernelTile{32, 32, 32};
  if (device.max_work_group < 256) {
    shape.tile = shape.small_tile;
  } else {
    shape.tile = {128, 128, 16, 8, 8};
  }
  // OpenCL C knows sub-groups from 2.0 on. "OpenCL <major>..." by the specification.
  const char major = device.version.size() > 7 ? device.version[7] : '1';
  if (device.subgroups && major >= '2') {
    shape.subgroups = true;
    shape.std_option = major >= '3' ? "-cl-std=CL3.0" : "-cl-std=CL2.0";
  }
  return shape;
}

Result<OpenClProgram*> kernel_program(OpenClContext& context, const std::string& name,
                                      std::initializer_list<std::string_view> sources,
                                      const std::string& defines) {
  std::string text(opencl_kernels::common);
  for (const std::string_view source : sources) {
    text += source;
  }
  const KernelShape& shape = context.shape;
  return context.programs.get(name, text,
                              fmt::format("{} -cl-mad-enable -DCPU_SHAPE={} -DLANES={} -DSUBGROUPS={}{}{}",
                                          shape.std_option, shape.cpu ? 1 : 0, shape.lanes,
                                          shape.subgroups ? 1 : 0, defines.empty() ? "" : " ", defines));
}

Result<cl_kernel> row_kernel(OpenClContext& context, const std::string& name) {
  HETERO_TRY(OpenClProgram * program, kernel_program(context, "rows", {opencl_kernels::elementwise}, ""));
  return program->kernel(name);
}

Status opencl_supports(const OpenClContext& context, const Graph& graph, const OpSlice& slice) {
  const Op& op = graph.op(slice.op);
  const std::string& device = context.device.info.name;
  const int64_t cols = graph.output_cols(slice.op);
  if (slice.begin < 0 || slice.begin >= slice.end || slice.end > cols) {
    return invalid_argument(
        fmt::format("{}: columns [{}, {}) of {} asked for", op.name, slice.begin, slice.end, cols));
  }
  if (!op.is<Linear>() && (slice.begin != 0 || slice.end != cols)) {
    return unsupported(fmt::format("{}: {} cannot be cut into columns", op.name, kind_name(op)));
  }
  for (const WeightId id : op.weights) {
    const Weight& weight = graph.weight(id);
    if (!op.is<RmsNorm>() && !has_weight_kernels(weight.dtype)) {
      return unsupported(fmt::format("{}: {} of type {}: OpenCL kernels take no such weights", device,
                                     weight.name, traits(weight.dtype).name));
    }
    if (weight.rows > std::numeric_limits<int32_t>::max() ||
        weight.cols > std::numeric_limits<int32_t>::max()) {
      return unsupported(fmt::format("{}: {} has more than 2^31 rows or columns", device, weight.name));
    }
    const Bytes bytes = weight.rows * row_bytes(weight.dtype, weight.cols);
    if (context.memory.mode() != MemoryMode::kSvm && bytes > context.device.max_buffer_bytes) {
      return unsupported(fmt::format("{}: {} has {} bytes, but one buffer of this device holds at most {}",
                                     device, weight.name, bytes, context.device.max_buffer_bytes));
    }
  }
  if (const auto* attention = op.as<Attention>()) {
    if (!context.shape.cpu && !attention_tile(context.device, attention->head_dim, 1)) {
      return unsupported(fmt::format("{}: {}: heads of {} do not fit the local memory of {} bytes", device,
                                     op.name, attention->head_dim, context.device.local_bytes));
    }
  }
  return {};
}

Result<std::unique_ptr<OpenClExecutable>> make_opencl_executable(OpenClContext& context, const Graph& graph,
                                                                 const OpSlice& slice, int64_t tokens) {
  const Op& op = graph.op(slice.op);
  const int64_t lanes = context.shape.lanes;
  if (op.is<Linear>()) {
    return make_linear(context, graph, slice, tokens);
  }
  if (op.is<Attention>()) {
    return make_attention(context, graph, op, tokens);
  }
  if (const auto* embed = op.as<Embed>()) {
    const Weight& table = graph.weight(op.weights[0]);
    auto made = std::make_unique<EmbedExecutable>(op.name, tokens);
    HETERO_TRY(OpenClProgram * program, weight_program(context, table.dtype));
    HETERO_TRY(made->kernel, program->kernel("embed"));
    HETERO_TRY(made->table, context.memory.weight(table));
    made->rows = table.rows;
    made->cols = table.cols;
    made->lanes = lanes;
    made->scale = embed->scale;
    return std::unique_ptr<OpenClExecutable>(std::move(made));
  }
  if (const auto* table = op.as<RopeTable>()) {
    auto made = std::make_unique<RopeTableExecutable>(op.name, tokens);
    HETERO_TRY(made->kernel, row_kernel(context, "rope_table"));
    HETERO_TRY(made->parts, context.memory.constants(turn_tables(*table), op.name));
    made->pairs = static_cast<int64_t>(table->inv_freq.size());
    made->lanes = lanes;
    made->magnitude = table->magnitude;
    return std::unique_ptr<OpenClExecutable>(std::move(made));
  }
  if (const auto* norm = op.as<RmsNorm>()) {
    auto made = std::make_unique<RmsNormExecutable>(op.name, tokens);
    const Weight& weight = graph.weight(op.weights[0]);
    HETERO_TRY(made->kernel, row_kernel(context, "rms_norm"));
    HETERO_TRY(made->weight, context.memory.constants(vector_floats(weight), weight.name));
    made->residual = op.inputs.size() == 2;
    made->cols = weight.cols;
    made->lanes = lanes;
    made->eps = norm->eps;
    return std::unique_ptr<OpenClExecutable>(std::move(made));
  }
  if (const auto* rope = op.as<Rope>()) {
    auto made = std::make_unique<RopeExecutable>(op.name, tokens);
    HETERO_TRY(made->kernel, row_kernel(context, "rope"));
    made->rope = *rope;
    if (!op.weights.empty()) {
      std::vector<float> norms = vector_floats(graph.weight(op.weights[0]));
      const std::vector<float> of_k = vector_floats(graph.weight(op.weights[1]));
      norms.insert(norms.end(), of_k.begin(), of_k.end());
      HETERO_TRY(made->norms, context.memory.constants(std::move(norms), op.name));
    }
    made->cache_f16 = graph.value(op.outputs[1]).dtype == DType::kF16;
    made->lanes = lanes;
    return std::unique_ptr<OpenClExecutable>(std::move(made));
  }
  if (op.is<Route>() || op.is<ExpertLinear>() || op.is<ExpertSum>()) {
    return make_expert_executable(context, graph, op, tokens);
  }
  if (const auto* cap = op.as<SoftCap>()) {
    auto made = std::make_unique<SoftCapExecutable>(op.name, tokens);
    HETERO_TRY(made->kernel, row_kernel(context, "soft_cap"));
    made->cap = cap->cap;
    made->cols = graph.output_cols(slice.op);
    made->lanes = lanes;
    return std::unique_ptr<OpenClExecutable>(std::move(made));
  }
  auto made = std::make_unique<GatedExecutable>(op.name, tokens);
  HETERO_TRY(made->kernel, row_kernel(context, "gated"));
  made->activation = op.as<Gated>()->activation;
  made->cols = graph.output_cols(slice.op);
  made->lanes = lanes;
  return std::unique_ptr<OpenClExecutable>(std::move(made));
}

}  // namespace hetero
