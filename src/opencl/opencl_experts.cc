// Mixtures of experts in OpenCL: the operators Route, ExpertLinear and ExpertSum.
#include <fmt/format.h>

#include <algorithm>

#include "opencl/opencl_kernels.h"
#include "opencl/opencl_ops.h"
#include "opencl/opencl_steps.h"

namespace hetero {
namespace {

constexpr int64_t kExpertRows = 8;  // EXPERT_ROWS of experts.cl

class RouteExecutable : public OpenClExecutable {
 public:
  using OpenClExecutable::OpenClExecutable;
  cl_kernel kernel = nullptr;
  Route route;
  int64_t lanes = 1;

  Status enqueue(KernelQueue& queue, const Launch& launch) const override {
    KernelCall call(queue, kernel);
    call.binding(launch.inputs[0]).binding(launch.outputs[0]).number(route.experts).number(route.used);
    call.number(route.normalize ? 1 : 0)
        .number(route.shared ? 1 : 0)
        .value(route.scale)
        .number(launch.tokens);
    return call.run(std::max<int64_t>(1, launch.tokens), 1, lanes);
  }
};

class ExpertLinearExecutable : public OpenClExecutable {
 public:
  using OpenClExecutable::OpenClExecutable;
  struct Part {
    cl_kernel kernel = nullptr;
    std::shared_ptr<OpenClBuffer> weight;
    int64_t column = 0;  // of the first output
    int64_t rows = 0;    // of one expert
  };
  std::vector<Part> parts;
  ExpertLinear experts;
  int64_t k = 0;
  bool own_x = false;
  int64_t lanes = 1;

  Status enqueue(KernelQueue& queue, const Launch& launch) const override {
    for (const Part& part : parts) {
      KernelCall call(queue, part.kernel);
      Binding out = launch.outputs[0];
      out.offset += part.column;
      call.binding(launch.inputs[0]).binding(launch.inputs[1]).binding(out);
      call.memory(*part.weight).offset(part.weight->lead()).number(experts.experts).number(experts.used);
      call.number(part.rows).number(k).number(own_x ? 1 : 0).number(launch.tokens);
      HETERO_RETURN_IF_ERROR(call.run(ceil_div(part.rows, kExpertRows),
                                      std::max<int64_t>(1, launch.tokens) * experts.used, lanes));
    }
    return {};
  }
};

class ExpertSumExecutable : public OpenClExecutable {
 public:
  using OpenClExecutable::OpenClExecutable;
  cl_kernel kernel = nullptr;
  int64_t used = 0;
  bool shared = false;
  int64_t cols = 0;
  int64_t lanes = 1;

  Status enqueue(KernelQueue& queue, const Launch& launch) const override {
    KernelCall call(queue, kernel);
    call.binding(launch.inputs[0]).binding(launch.inputs[1]).binding(launch.inputs[shared ? 2 : 0]);
    const int64_t chunk = row_chunk(lanes, launch.tokens);
    call.binding(launch.outputs[0]).number(used).number(shared ? 1 : 0).number(cols).number(chunk);
    call.number(launch.tokens);
    return call.run(ceil_div(cols, chunk), std::max<int64_t>(1, launch.tokens), lanes);
  }
};

Result<std::unique_ptr<OpenClExecutable>> make_expert_linear(OpenClContext& context, const Graph& graph,
                                                             const Op& op, int64_t tokens) {
  auto made = std::make_unique<ExpertLinearExecutable>(op.name, tokens);
  made->experts = *op.as<ExpertLinear>();
  made->k = graph.weight(op.weights[0]).cols;
  made->own_x = graph.value(op.inputs[0]).cols != made->k;
  made->lanes = context.shape.lanes;
  int64_t column = 0;
  for (const WeightId id : op.weights) {
    const Weight& weight = graph.weight(id);
    ExpertLinearExecutable::Part part;
    HETERO_TRY(OpenClProgram * program,
               kernel_program(context, fmt::format("experts-{}", traits(weight.dtype).name),
                              {opencl_kernels::blocks, opencl_kernels::experts},
                              fmt::format("-DWEIGHT_{}", traits(weight.dtype).name)));
    HETERO_TRY(part.kernel, program->kernel("expert_linear"));
    HETERO_TRY(part.weight, context.memory.weight(weight));
    part.rows = weight.rows / made->experts.experts;
    part.column = column;
    column += made->experts.used * part.rows;
    made->parts.push_back(std::move(part));
  }
  const DType dtype = graph.weight(op.weights[0]).dtype;
  if (context.steps != nullptr && has_one_weight_type(graph, op)) {
    made->step = {StepCode::kExpertLinear, {dtype, 0, {}}};
    HETERO_RETURN_IF_ERROR(context.steps->prepare(context, graph, dtype));
  }
  return std::unique_ptr<OpenClExecutable>(std::move(made));
}

}  // namespace

Result<std::unique_ptr<OpenClExecutable>> make_expert_executable(OpenClContext& context, const Graph& graph,
                                                                 const Op& op, int64_t tokens) {
  if (op.is<ExpertLinear>()) {
    return make_expert_linear(context, graph, op, tokens);
  }
  if (const auto* route = op.as<Route>()) {
    auto made = std::make_unique<RouteExecutable>(op.name, tokens);
    made->step = {StepCode::kRoute, {}};
    HETERO_TRY(made->kernel, row_kernel(context, "route"));
    made->route = *route;
    made->lanes = context.shape.lanes;
    return std::unique_ptr<OpenClExecutable>(std::move(made));
  }
  auto made = std::make_unique<ExpertSumExecutable>(op.name, tokens);
  made->step = {StepCode::kExpertSum, {}};
  HETERO_TRY(made->kernel, row_kernel(context, "expert_sum"));
  made->used = op.as<ExpertSum>()->used;
  made->shared = op.inputs.size() == 3;
  made->cols = graph.value(op.outputs[0]).cols;
  made->lanes = context.shape.lanes;
  return std::unique_ptr<OpenClExecutable>(std::move(made));
}

}  // namespace hetero
