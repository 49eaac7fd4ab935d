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

constexpr int64_t kTurn = 256;       // TURN of angles.cl
constexpr int64_t kGpuUnit = 8;      // UNIT of blocks.cl
constexpr int64_t kNormLanes = 512;  // at most; with NORM_KEPT 16, rows of 8192 are read once

bool has_weight_kernels(DType dtype) {
  return dtype != DType::kI32;
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

class RopeExecutable : public OpenClExecutable {
 public:
  using OpenClExecutable::OpenClExecutable;
  cl_kernel kernel = nullptr;
  Rope rope;
  std::shared_ptr<OpenClBuffer> norms;  // of q and k; nullptr: none
  DType cache = DType::kF16;
  int64_t lanes = 1;

  Status enqueue(KernelQueue& queue, const Launch& launch) const override {
    KernelCall call(queue, kernel);
    call.binding(launch.inputs[0]).binding(launch.inputs[1]);
    call.binding(launch.outputs[0]).binding(launch.outputs[1]).binding(launch.outputs[2]);
    call.memory(norms ? *norms : static_cast<const OpenClBuffer&>(*launch.inputs[1].buffer));
    call.number(norms ? 1 : 0).value(rope.norm_eps);
    call.number(rope.heads).number(rope.kv_heads).number(rope.head_dim).number(rope.rotary_dims);
    const int cache_type = cache == DType::kF32 ? 0 : cache == DType::kF16 ? 1 : 2;  // of elementwise.cl
    call.number(rope.pairs == RopePairs::kHalves ? 1 : 0).number(cache_type);
    call.number(launch.position).number(launch.tokens);
    return call.run(rope.heads + 2 * rope.kv_heads, std::max<int64_t>(1, launch.tokens), lanes);
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
    const int64_t chunk = row_chunk(lanes, launch.tokens);
    call.number(activation == Activation::kGeluTanh ? 1 : 0).number(chunk).number(launch.tokens);
    return call.run(ceil_div(cols, chunk), std::max<int64_t>(1, launch.tokens), lanes);
  }

  bool takes(std::span<const HeldLaunch> held, const Launch& launch) const override {
    return !held.empty() && linear_takes_gated(held, launch);
  }
  Status enqueue_with(KernelQueue& queue, std::span<const HeldLaunch> held,
                      const Launch& launch) const override {
    return held.empty() ? enqueue(queue, launch)
                        : enqueue_linear_gated(queue, held, activation, launch.outputs[0]);
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
    call.binding(launch.inputs[0]).binding(launch.outputs[0]).number(cols).value(cap);
    const int64_t chunk = row_chunk(lanes, launch.tokens);
    call.number(chunk).number(launch.tokens);
    return call.run(ceil_div(cols, chunk), std::max<int64_t>(1, launch.tokens), lanes);
  }
};

/// The tables of angles.cl: for digit d of the position in base kTurn (the lowest
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

}  // namespace

HeldLaunch::HeldLaunch(const OpenClExecutable& held, const Launch& launch)
    : executable(&held),
      tokens(launch.tokens),
      position(launch.position),
      input_count(std::min(launch.inputs.size(), inputs.size())),
      output_count(std::min(launch.outputs.size(), outputs.size())) {
  std::copy_n(launch.inputs.begin(), input_count, inputs.begin());
  std::copy_n(launch.outputs.begin(), output_count, outputs.begin());
}

Status RmsNormExecutable::enqueue(KernelQueue& queue, const Launch& launch) const {
  KernelCall call(queue, kernel);
  call.binding(launch.inputs[0]).binding(launch.inputs[residual ? 1 : 0]);
  call.binding(launch.outputs[0]).binding(launch.outputs[residual ? 1 : 0]);
  call.memory(*weight).number(residual ? 1 : 0).number(cols).value(eps).number(launch.tokens);
  return call.run(std::max<int64_t>(1, launch.tokens), 1, lanes);
}

int64_t row_chunk(int64_t lanes, int64_t tokens) {
  return lanes == 1 || tokens > 4 ? 1024 : 2 * lanes;
}

KernelShape choose_kernel_shape(const OpenClDevice& device, bool cpu) {
  KernelShape shape;
  shape.cpu = cpu;
  shape.std_option = "-cl-std=CL1.2";
  if (cpu) {
    return shape;
  }
  shape.lanes = device.max_work_group >= 128 ? 128 : 32;
  shape.norm_lanes = shape.lanes;
  while (shape.norm_lanes < kNormLanes &&
         2 * shape.norm_lanes <= static_cast<int64_t>(device.max_work_group)) {
    shape.norm_lanes *= 2;
  }
  shape.wides = {"8,64,1,1", "8,128,1,1", "16,64,1,1", "2,64,2,1",
                 "2,32,4,1", "4,64,2,1",  "8,32,2,1",  "2,64,1,2"};
  if (device.max_work_group < 128) {
    shape.small_tile = {32, 32, 32};
    shape.wides = {"4,32,1,1"};
    shape.tiles = {"32,32,32,4,4,1,8"};
  } else {
    shape.small_tile = {32, 64, 64};
    shape.tiles = {"32,64,64,4,4,1,8"};
  }
  if (device.is_cpu) {  // takes seconds to compile large ones
    shape.wides = {"4,32,4,1", "2,32,2,2"};
    shape.tiles = {"32,64,64,4,4,1,8", "32,32,32,4,4,2,8"};
  } else if (device.max_work_group >= 256) {
    shape.tiles = {"128,128,16,8,8,2,8", "64,128,16,8,8,2,8", "128,64,16,8,8,2,8", "64,64,16,8,8,2,8",
                   "256,128,16,16,8,1,8"};
  }
  if (device.bfloat16_matrices) {
    shape.matrices = {"4,4,4", "2,4,8", "2,8,8"};
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
  const std::string options = fmt::format(
      "{} -cl-mad-enable -DCPU_SHAPE={} -DLANES={} -DNORM_LANES={} -DSUBGROUPS={} -DHALF_TILES={} -DPTX={}",
      shape.std_option, shape.cpu ? 1 : 0, shape.lanes, shape.norm_lanes, shape.subgroups ? 1 : 0,
      shape.half_tiles ? 1 : 0, context.device.ptx ? 1 : 0);
  return context.programs.get(name, text, defines.empty() ? options : options + " " + defines);
}

Result<cl_kernel> row_kernel(OpenClContext& context, const std::string& name) {
  HETERO_TRY(OpenClProgram * program,
             kernel_program(context, "rows", {opencl_kernels::angles, opencl_kernels::elementwise}, ""));
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
    if (!attention_fits(context, attention->head_dim)) {
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
    made->step = {StepCode::kEmbed, {table.dtype, 0, {}}};
    HETERO_TRY(OpenClProgram * program, weight_program(context, table.dtype, table.cols));
    HETERO_TRY(made->kernel, program->kernel("embed"));
    HETERO_TRY(made->table, weight_buffer(context, {&table}));
    made->rows = table.rows;
    made->cols = table.cols;
    made->lanes = lanes;
    made->scale = embed->scale;
    const std::vector<const Op*> readers = readers_of(graph, op.outputs[0]);
    const bool of_layer =
        std::all_of(readers.begin(), readers.end(), [](const Op* reader) { return reader->is<RmsNorm>(); });
    if (table.dtype == DType::kQ4_0 && in_planes(context, table.dtype, table.cols) && of_layer &&
        op.outputs[0] != graph.logits && only_reader(graph, op.inputs[0]) != nullptr) {
      made->layer_part.kind = LayerPart::Kind::kEmbed;
      made->layer_part.weight = made->table;
      made->layer_part.weight_at = made->table->lead();
      made->layer_part.rows = table.rows;
      made->layer_part.cols = table.cols;
      made->layer_part.scale = embed->scale;
    }
    return std::unique_ptr<OpenClExecutable>(std::move(made));
  }
  if (const auto* table = op.as<RopeTable>()) {
    auto made = std::make_unique<RopeTableExecutable>(op.name, tokens);
    made->step = {StepCode::kRopeTable, {}};
    HETERO_TRY(made->kernel, row_kernel(context, "rope_table"));
    HETERO_TRY(made->parts, context.memory.constants(turn_tables(*table), op.name));
    made->pairs = static_cast<int64_t>(table->inv_freq.size());
    made->lanes = lanes;
    made->magnitude = table->magnitude;
    made->layer_part.kind = LayerPart::Kind::kRopeTable;
    made->layer_part.weight = made->parts;
    made->layer_part.cols = 2 * made->pairs;
    made->layer_part.scale = made->magnitude;
    return std::unique_ptr<OpenClExecutable>(std::move(made));
  }
  if (const auto* norm = op.as<RmsNorm>()) {
    auto made = std::make_unique<RmsNormExecutable>(op.name, tokens);
    made->step = {StepCode::kNorm, {}};
    const Weight& weight = graph.weight(op.weights[0]);
    HETERO_TRY(made->kernel, row_kernel(context, "rms_norm"));
    HETERO_TRY(made->weight, context.memory.constants(vector_floats(weight), weight.name));
    made->residual = op.inputs.size() == 2;
    const Op* reader = only_reader(graph, op.outputs[0]);
    made->before_linear = context.shape.join_norms && reader != nullptr && reader->is<Linear>();
    made->cols = weight.cols;
    made->lanes = context.shape.norm_lanes;
    made->eps = norm->eps;
    const bool sum_alone =
        !made->residual || (readers_of(graph, op.outputs[1]).size() <= 1 && op.outputs[1] != graph.logits);
    if (context.layers != nullptr && reader != nullptr && reader->is<Linear>() && sum_alone) {
      made->layer_part.kind = LayerPart::Kind::kNorm;
      made->layer_part.weight = made->weight;
      made->layer_part.cols = weight.cols;
      made->layer_part.eps = norm->eps;
      made->layer_part.residual = made->residual;
    }
    return std::unique_ptr<OpenClExecutable>(std::move(made));
  }
  if (const auto* rope = op.as<Rope>()) {
    auto made = std::make_unique<RopeExecutable>(op.name, tokens);
    made->step = {StepCode::kRope, {}};
    HETERO_TRY(made->kernel, row_kernel(context, "rope"));
    made->rope = *rope;
    if (!op.weights.empty()) {
      std::vector<float> norms = vector_floats(graph.weight(op.weights[0]));
      const std::vector<float> of_k = vector_floats(graph.weight(op.weights[1]));
      norms.insert(norms.end(), of_k.begin(), of_k.end());
      HETERO_TRY(made->norms, context.memory.constants(std::move(norms), op.name));
    }
    made->cache = graph.value(op.outputs[1]).dtype;
    if (made->cache == DType::kF16 && made->norms == nullptr &&
        only_reader(graph, op.outputs[0]) != nullptr) {
      made->layer_part.kind = LayerPart::Kind::kRope;
      made->layer_part.rope = *rope;
    }
    made->lanes = lanes;
    return std::unique_ptr<OpenClExecutable>(std::move(made));
  }
  if (op.is<Route>() || op.is<ExpertLinear>() || op.is<ExpertSum>()) {
    return make_expert_executable(context, graph, op, tokens);
  }
  if (const auto* cap = op.as<SoftCap>()) {
    auto made = std::make_unique<SoftCapExecutable>(op.name, tokens);
    made->step = {StepCode::kSoftCap, {}};
    HETERO_TRY(made->kernel, row_kernel(context, "soft_cap"));
    made->cap = cap->cap;
    made->cols = graph.output_cols(slice.op);
    made->lanes = lanes;
    return std::unique_ptr<OpenClExecutable>(std::move(made));
  }
  auto made = std::make_unique<GatedExecutable>(op.name, tokens);
  made->step = {StepCode::kGated, {}};
  HETERO_TRY(made->kernel, row_kernel(context, "gated"));
  made->activation = op.as<Gated>()->activation;
  made->cols = graph.output_cols(slice.op);
  if (only_reader(graph, op.outputs[0]) != nullptr) {
    made->layer_part.kind = LayerPart::Kind::kGated;
    made->layer_part.cols = made->cols;
    made->layer_part.gelu = made->activation == Activation::kGeluTanh;
  }
  made->lanes = lanes;
  return std::unique_ptr<OpenClExecutable>(std::move(made));
}

}  // namespace hetero
