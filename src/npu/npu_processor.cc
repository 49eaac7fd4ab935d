#include "npu/npu_processor.h"

#include <fmt/format.h>

#include <utility>

#include "base/threads.h"

namespace hetero {

struct NpuProcessor::Linked : Executable {
  std::string name;
  int64_t tokens = 0;
  int64_t k = 0;
  int64_t n = 0;
  std::shared_ptr<NpuGraph> graph;
};

NpuProcessor::NpuProcessor(ProcessorInfo info, double unit_roundoff, std::unique_ptr<NpuDevice> device,
                           std::vector<int> cpus)
    : info_(std::move(info)), cpus_(std::move(cpus)), device_(std::move(device)) {
  traits_.static_shapes = true;
  traits_.coherent = true;
  traits_.copies_weights = true;
  traits_.unit_roundoff = unit_roundoff;
  traits_.orders = OperandOrders::kBoth;
  const ScopedAffinity confinement(cpus_);  // the worker inherits it, and the threads that it starts
  worker_ = std::thread([this] { work(); });
}

NpuProcessor::~NpuProcessor() {
  bell_.post();
  worker_.join();
}

Status NpuProcessor::supports(const Graph& graph, const OpSlice& slice) const {
  const Op& op = graph.op(slice.op);
  if (!op.is<Linear>()) {
    return unsupported(
        fmt::format("{}: an NPU runs linear operators only, {} is {}", info_.id, op.name, kind_name(op)));
  }
  const int64_t cols = graph.output_cols(slice.op);
  if (slice.begin < 0 || slice.begin >= slice.end || slice.end > cols) {
    return invalid_argument(fmt::format("{}: {} has columns 0..{}, asked for {}..{}", info_.id, op.name, cols,
                                        slice.begin, slice.end));
  }
  for (const LinearSegment& s : linear_segments(graph, slice.op, slice.begin, slice.end)) {
    if (s.bias != nullptr && hetero::traits(s.bias->dtype).block_elements > 1) {
      return unsupported(fmt::format("{}: bias {} is {}, expected F32, F16 or BF16", info_.id, s.bias->name,
                                     hetero::traits(s.bias->dtype).name));
    }
    if (!device_->supports(s.weight->dtype)) {
      return unsupported(fmt::format("{}: weight {} is {}, which {} cannot read", info_.id, s.weight->name,
                                     hetero::traits(s.weight->dtype).name, info_.provider));
    }
  }
  return {};
}

Result<std::unique_ptr<Buffer>> NpuProcessor::import(std::byte* host, Bytes size) {
  return std::unique_ptr<Buffer>(std::make_unique<HostBuffer>(host, size));
}

NpuLinear NpuProcessor::describe(const Graph& graph, const OpSlice& slice, int64_t tokens) const {
  const int64_t k = graph.value(graph.op(slice.op).inputs[0]).cols;
  NpuLinear linear{device_->any_tokens() ? 0 : tokens, k, {}, slice.exchanged};
  for (const LinearSegment& s : linear_segments(graph, slice.op, slice.begin, slice.end)) {
    NpuSegment segment{s.rows, s.weight->dtype,
                       s.weight->data + s.row_begin * row_bytes(s.weight->dtype, linear.k)};
    if (s.bias != nullptr) {
      segment.bias = s.bias->data + s.row_begin * row_bytes(s.bias->dtype, 1);
      segment.bias_dtype = s.bias->dtype;
    }
    linear.segments.push_back(segment);
  }
  return linear;
}

bool NpuProcessor::is_cached(const Graph& graph, const OpSlice& slice, int64_t tokens) {
  const NpuLinear linear = describe(graph, slice, tokens);
  const std::lock_guard compiling(compile_mutex_);
  const auto found = graphs_.find(linear);
  return (found != graphs_.end() && !found->second.expired()) || device_->is_cached(linear);
}

Result<std::unique_ptr<Executable>> NpuProcessor::compile(const Graph& graph, const OpSlice& slice,
                                                          int64_t tokens) {
  HETERO_RETURN_IF_ERROR(supports(graph, slice));
  const Op& op = graph.op(slice.op);
  if (tokens < 1) {
    return invalid_argument(
        fmt::format("{}: {} for {} tokens, expected 1 or more", info_.id, op.name, tokens));
  }
  const ScopedAffinity confinement(cpus_);
  auto linked = std::make_unique<Linked>();
  linked->name = op.name;
  linked->tokens = tokens;
  linked->k = graph.value(op.inputs[0]).cols;
  linked->n = slice.end - slice.begin;

  const NpuLinear linear = describe(graph, slice, tokens);
  const std::lock_guard compiling(compile_mutex_);
  std::erase_if(graphs_, [](const auto& entry) { return entry.second.expired(); });
  std::weak_ptr<NpuGraph>& shared = graphs_[linear];
  linked->graph = shared.lock();
  if (linked->graph == nullptr) {
    Result<std::unique_ptr<NpuGraph>> compiled = device_->compile(linear);
    if (!compiled.ok()) {
      return compiled.status().with_prefix(fmt::format("{}: {}", info_.id, op.name));
    }
    linked->graph = std::move(*compiled);
    shared = linked->graph;
  }
  HETERO_RETURN_IF_ERROR(
      linked->graph->prepare(tokens).with_prefix(fmt::format("{}: {}", info_.id, op.name)));
  return std::unique_ptr<Executable>(std::move(linked));
}

Result<Fence> NpuProcessor::submit(const Executable& executable, const Launch& launch) {
  const auto& linked = static_cast<const Linked&>(executable);
  Job job;
  if (launch.tokens != linked.tokens) {
    job.refused = invalid_argument(fmt::format("{}: {} was compiled for {} tokens, submitted with {}",
                                               info_.id, linked.name, linked.tokens, launch.tokens));
  } else if (launch.inputs.size() != 1 || launch.outputs.size() != 1) {
    job.refused =
        invalid_argument(fmt::format("{}: {} has one input and one output, submitted with {} and {}",
                                     info_.id, linked.name, launch.inputs.size(), launch.outputs.size()));
  } else if (launch.inputs[0].stride < linked.k || launch.outputs[0].stride < linked.n) {
    job.refused = invalid_argument(
        fmt::format("{}: {} reads rows of {} and writes rows of {}, strides are {} and {}", info_.id,
                    linked.name, linked.k, linked.n, launch.inputs[0].stride, launch.outputs[0].stride));
  } else {
    job.refused = timeline_.status();
  }
  Status refused = job.refused;
  if (refused.ok()) {
    job.linked = &linked;
    job.run = {launch.tokens, host_data<float>(launch.inputs[0]), launch.inputs[0].stride,
               host_data<float>(launch.outputs[0]), launch.outputs[0].stride};
  }
  const Fence fence = enqueue(std::move(job));
  if (!refused.ok()) {
    return refused;
  }
  return fence;
}

Fence NpuProcessor::enqueue(Job job) {
  uint64_t ticket = 0;
  {
    const std::lock_guard lock(mutex_);
    ticket = timeline_.next_ticket();
    queue_.push_back(std::move(job));
  }
  bell_.post();
  return {&timeline_, ticket};
}

void NpuProcessor::work() {
  while (true) {
    bell_.wait();
    Job job;
    {
      const std::lock_guard lock(mutex_);
      if (queue_.empty()) {
        return;
      }
      job = std::move(queue_.front());
      queue_.pop_front();
    }
    const Nanos begin = now();
    Status status = std::move(job.refused);
    // Nothing runs on a poisoned timeline: its inputs may be what the failed work left unwritten.
    if (status.ok() && timeline_.status().ok()) {
      status = job.linked->graph->run(job.run);
      if (!status.ok()) {
        status = status.with_prefix(fmt::format("{}: {}", info_.id, job.linked->name));
      }
    }
    timeline_.finish({begin, now()}, std::move(status));
  }
}

}  // namespace hetero
