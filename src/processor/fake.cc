#include "processor/fake.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/f16.h"
#include "gguf/dequantize.h"
#include "gguf/quantize.h"

namespace hetero {
namespace {

struct FakeExecutable : Executable {
  const Graph* graph = nullptr;
  OpSlice slice;
  int64_t tokens = 0;
};

/// Without coherent memory: `copy` is the device's own, `host` what it mirrors.
struct FakeBuffer : HostBuffer {
  FakeBuffer(std::byte* data, Bytes size, PageMemory own, std::byte* mirrored)
      : HostBuffer(data, size), copy(std::move(own)), host(mirrored) {}
  PageMemory copy;
  std::byte* host;
};

std::byte* address(const Binding& binding, DType dtype, int64_t index) {
  return static_cast<const HostBuffer*>(binding.buffer)->data() + row_bytes(dtype, binding.offset + index);
}

/// `count` elements from `index` on; with blocks, whole ones.
void load(const Binding& binding, DType dtype, int64_t index, int64_t count, float* to) {
  const std::byte* from = address(binding, dtype, index);
  if (dtype == DType::kI32) {
    std::copy_n(reinterpret_cast<const int32_t*>(from), count, to);
  } else {
    dequantize(dtype, from, count, to);
  }
}

void store(const Binding& binding, DType dtype, int64_t index, int64_t count, const float* from) {
  std::byte* to = address(binding, dtype, index);
  if (dtype == DType::kF16) {
    std::transform(from, from + count, reinterpret_cast<uint16_t*>(to), f16_from_f32);
  } else if (dtype == DType::kF32) {
    std::copy_n(from, count, reinterpret_cast<float*>(to));
  } else if (!quantize(dtype, from, count, to).ok()) {
    std::memset(to, 0xff, static_cast<size_t>(row_bytes(dtype, count)));  // scales that are no numbers
  }
}

void compute(const FakeExecutable& executable, int64_t tokens, int64_t position,
             const std::vector<Binding>& inputs, const std::vector<Binding>& outputs, float error) {
  const Graph& graph = *executable.graph;
  const Op& op = graph.op(executable.slice.op);
  // A graph of this operator alone, so that the reference allocates for nothing else.
  Graph single;
  single.values.resize(graph.values.size());
  for (const auto* ids : {&op.inputs, &op.outputs}) {
    for (const ValueId id : *ids) {
      single.values[static_cast<size_t>(id)] = graph.value(id);
    }
  }
  single.weights = graph.weights;
  single.ops = {op};
  Reference reference(single, position + tokens);
  const auto rows = [&](ValueId id) {
    return graph.value(id).rows == Rows::kContext ? position + tokens : tokens;
  };
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Value& value = graph.value(op.inputs[i]);
    std::vector<float>& to = reference.value(op.inputs[i]);
    to.resize(static_cast<size_t>(rows(op.inputs[i]) * value.cols));
    for (int64_t row = 0; row < rows(op.inputs[i]); ++row) {
      load(inputs[i], value.dtype, row * inputs[i].stride, value.cols, to.data() + row * value.cols);
    }
  }
  reference.run(0, tokens, position);
  for (size_t i = 0; i < outputs.size(); ++i) {
    const Value& value = graph.value(op.outputs[i]);
    const bool cache = value.rows == Rows::kContext;
    const int64_t begin = op.is<Linear>() ? executable.slice.begin : 0;
    const int64_t end = op.is<Linear>() ? executable.slice.end : value.cols;
    for (int64_t t = cache ? position : 0; t < rows(op.outputs[i]); ++t) {
      float* row = reference.value(op.outputs[i]).data() + t * value.cols + begin;
      std::transform(row, row + end - begin, row, [&](float x) { return (1.0f + error) * x; });
      store(outputs[i], value.dtype, t * outputs[i].stride, end - begin, row);
    }
  }
}

}  // namespace

FakeProcessor::FakeProcessor(std::string id, std::string kind, FakeScript script)
    : script_(std::move(script)), delay_(script_.delay) {
  info_.id = std::move(id);
  info_.kind = std::move(kind);
  info_.name = "scripted " + info_.kind;
  info_.provider = "fake";
  info_.unified_memory = script_.traits.coherent;
  thread_ = std::thread([this] { work(); });
}

FakeProcessor::~FakeProcessor() {
  bell_.post();
  thread_.join();
}

void FakeProcessor::work() {
  for (;;) {
    bell_.wait();
    std::function<Status()> job;
    {
      const std::lock_guard lock(mutex_);
      if (queue_.empty()) {
        return;
      }
      job = std::move(queue_.front());
      queue_.pop_front();
    }
    const Nanos begin = now();
    Status status = timeline_.status();
    if (status.ok()) {
      status = job();
    }
    timeline_.finish({begin, now()}, std::move(status));
  }
}

Result<Fence> FakeProcessor::enqueue(std::function<Status()> job) {
  HETERO_RETURN_IF_ERROR(timeline_.status());
  const uint64_t ticket = timeline_.next_ticket();
  while (done_ + 1 < ticket && timeline_.done(done_ + 1)) {
    ++done_;
  }
  most_in_flight_ = std::max(most_in_flight_, ticket - done_);
  {
    const std::lock_guard lock(mutex_);
    queue_.push_back(std::move(job));
  }
  bell_.post();
  return Fence{&timeline_, ticket};
}

Status FakeProcessor::supports(const Graph& graph, const OpSlice& slice) const {
  const std::string kind = kind_name(graph.op(slice.op));
  if (std::find(script_.refuses.begin(), script_.refuses.end(), kind) != script_.refuses.end()) {
    return unsupported(fmt::format("{} does not run {} operators", info_.id, kind));
  }
  return {};
}

Result<std::unique_ptr<Buffer>> FakeProcessor::import(std::byte* host, Bytes size) {
  if (script_.traits.coherent) {
    return std::unique_ptr<Buffer>(std::make_unique<FakeBuffer>(host, size, PageMemory(), host));
  }
  HETERO_TRY(PageMemory copy, PageMemory::allocate(size));
  std::byte* data = copy.data();
  return std::unique_ptr<Buffer>(std::make_unique<FakeBuffer>(data, size, std::move(copy), host));
}

Result<std::unique_ptr<Executable>> FakeProcessor::compile(const Graph& graph, const OpSlice& slice,
                                                           int64_t tokens) {
  HETERO_RETURN_IF_ERROR(supports(graph, slice));
  if (script_.fail_compile) {
    return resource_exhausted(info_.id + ": scripted failure to compile");
  }
  std::this_thread::sleep_for(script_.compile_delay);
  ++compiled_;
  exchanged_ += slice.exchanged ? 1 : 0;
  auto executable = std::make_unique<FakeExecutable>();
  executable->graph = &graph;
  executable->slice = slice;
  executable->tokens = tokens;
  return std::unique_ptr<Executable>(std::move(executable));
}

bool FakeProcessor::is_cached(const Graph&, const OpSlice&, int64_t) {
  return script_.compile_delay == Nanos{};
}

Result<Fence> FakeProcessor::submit(const Executable& executable, const Launch& launch) {
  const auto& fake = static_cast<const FakeExecutable&>(executable);
  if (script_.traits.static_shapes ? launch.tokens != fake.tokens : launch.tokens > fake.tokens) {
    return internal_error(
        fmt::format("{}: {} tokens submitted to an executable for {}", info_.id, launch.tokens, fake.tokens));
  }
  const auto number = static_cast<uint64_t>(++submitted_);
  return enqueue([this, &fake, number, tokens = launch.tokens, position = launch.position,
                  inputs = std::vector(launch.inputs.begin(), launch.inputs.end()),
                  outputs = std::vector(launch.outputs.begin(), launch.outputs.end())]() -> Status {
    std::this_thread::sleep_for(delay_.load());
    if (number == script_.fail_at) {
      return device_lost(fmt::format("{}: scripted failure of submission {}", info_.id, number));
    }
    compute(fake, tokens, position, inputs, outputs, script_.error);
    return {};
  });
}

Status FakeProcessor::finish() {
  ++finishes_;
  return timeline_.wait(timeline_.issued());
}

Status FakeProcessor::remap(Buffer& buffer, Bytes offset, Bytes size) {
  ++remaps_;
  const Bytes held = static_cast<HostBuffer&>(buffer).size();
  return offset >= 0 && size > 0 && offset + size <= held
             ? Status()
             : internal_error(
                   fmt::format("{}: {} bytes at {} of a buffer of {}", info_.id, size, offset, held));
}

Result<Fence> FakeProcessor::upload(Buffer& buffer, const Region& region) {
  ++transfers_;
  unexpected_transfers_ += expected_.contains(&buffer) ? 0 : 1;
  return enqueue([&buffer, region] {
    const auto& b = static_cast<FakeBuffer&>(buffer);
    for (int64_t r = 0; r < region.rows; ++r) {
      const Bytes at = region.offset + r * region.stride;
      std::memcpy(b.data() + at, b.host + at, static_cast<size_t>(region.row_bytes));
    }
    return Status();
  });
}

Result<Fence> FakeProcessor::download(Buffer& buffer, const Region& region) {
  ++transfers_;
  unexpected_transfers_ += expected_.contains(&buffer) ? 0 : 1;
  return enqueue([&buffer, region] {
    const auto& b = static_cast<FakeBuffer&>(buffer);
    for (int64_t r = 0; r < region.rows; ++r) {
      const Bytes at = region.offset + r * region.stride;
      std::memcpy(b.host + at, b.data() + at, static_cast<size_t>(region.row_bytes));
    }
    return Status();
  });
}

}  // namespace hetero
