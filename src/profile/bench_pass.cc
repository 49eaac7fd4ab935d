#include "profile/bench_pass.h"

#include <algorithm>

namespace hetero {
namespace {

/// Which values can share memory: those that the same place of another layer writes.
std::string role(const Graph& graph, const Value& value) {
  const size_t dot = value.name.starts_with("blk.") ? value.name.find('.', 4) : std::string::npos;
  return (dot == std::string::npos ? value.name : value.name.substr(dot)) + " " + std::to_string(value.cols) +
         " " + std::to_string(static_cast<int>(value.rows)) + (&value == &graph.values[0] ? " first" : "");
}

}  // namespace

Result<std::unique_ptr<BenchPass>> BenchPass::create(const Graph& graph, Processor& processor, int64_t rows,
                                                     int64_t context) {
  std::unique_ptr<BenchPass> pass(new BenchPass(graph, processor, rows, context));
  HETERO_RETURN_IF_ERROR(pass->allocate());
  return pass;
}

Status BenchPass::allocate() {
  std::map<std::string, int> of_role;
  for (const Value& value : graph_.values) {
    const auto [found, added] = of_role.try_emplace(role(graph_, value), static_cast<int>(places_.size()));
    place_of_.push_back(found->second);
    if (!added) {
      continue;
    }
    const int64_t rows = value.rows == Rows::kContext ? context_ : rows_for(value.rows == Rows::kOutputs);
    constexpr Bytes kPage = 4096;
    const Bytes bytes = (rows * row_bytes(value.dtype, value.cols) + kPage - 1) / kPage * kPage;
    Place place;
    HETERO_TRY(place.memory, PageMemory::allocate(bytes));
    HETERO_TRY(place.buffer, processor_.import(place.memory.data(), bytes));
    if (!processor_.traits().coherent) {  // token ids must be ids
      HETERO_TRY(const Fence fence, processor_.upload(*place.buffer, {0, bytes, bytes, 1}));
      processor_.flush();
      HETERO_RETURN_IF_ERROR(fence.wait());
    }
    places_.push_back(std::move(place));
  }
  return {};
}

int64_t BenchPass::compiled_for(int op, int64_t tokens) const {
  return processor_.traits().static_shapes ? tokens : rows_for(graph_.in_head(op));
}

Status BenchPass::prepare(std::span<const OpSlice> slices, int64_t tokens) {
  for (const OpSlice& s : slices) {
    const int64_t compiled_for = this->compiled_for(s.op, tokens);
    auto& executable = executables_[{s, compiled_for}];
    if (executable != nullptr) {
      continue;
    }
    const Nanos begin = processor_.clock().now();
    auto compiled = processor_.compile(graph_, s, compiled_for);
    if (!compiled.ok()) {
      return compiled.status().with_prefix(processor_.info().id + ": " + graph_.op(s.op).name);
    }
    executable = std::move(compiled).value();
    compiled_weights_ += graph_.op(s.op).is<Linear>() ? weight_bytes(graph_, s.op, s.begin, s.end) : 0;
    compile_times_.push_back(
        {work_of(graph_, s.op, s.begin, s.end), compiled_for, processor_.clock().now() - begin});
  }
  return {};
}

Status BenchPass::submit(std::span<const OpSlice> slices, int64_t tokens, int64_t position) {
  std::vector<Binding> inputs;
  std::vector<Binding> outputs;
  const auto bind = [&](ValueId id, int64_t column) {
    return Binding{places_[static_cast<size_t>(place_of_[static_cast<size_t>(id)])].buffer.get(), column,
                   graph_.value(id).cols};
  };
  for (const OpSlice& s : slices) {
    const Op& op = graph_.op(s.op);
    inputs.clear();
    outputs.clear();
    for (const ValueId id : op.inputs) {
      inputs.push_back(bind(id, 0));
    }
    for (const ValueId id : op.outputs) {
      outputs.push_back(bind(id, op.is<Linear>() ? s.begin : 0));
    }
    const Executable& executable = *executables_.at({s, compiled_for(s.op, tokens)});
    const Nanos before = processor_.clock().now();
    HETERO_TRY(const Fence fence, processor_.submit(executable, {tokens, position, inputs, outputs}));
    const Nanos after = processor_.clock().now();
    submit_times_.push_back(after - before);
    pending_.push_back({s.op, fence, after});
  }
  processor_.flush();
  return {};
}

Result<double> BenchPass::copy_gbps() {
  if (processor_.traits().coherent) {
    return 0.0;
  }
  const auto largest = std::max_element(places_.begin(), places_.end(), [](const Place& a, const Place& b) {
    return a.memory.size() < b.memory.size();
  });
  const Bytes bytes = std::min<Bytes>(largest->memory.size(), Bytes{16} << 20);
  const Region region{0, bytes, bytes, 1};
  Nanos best = Nanos::max();
  for (int round = 0; round < 6; ++round) {
    const Nanos begin = processor_.clock().now();
    HETERO_TRY(const Fence up, processor_.upload(*largest->buffer, region));
    HETERO_TRY(const Fence down, processor_.download(*largest->buffer, region));
    processor_.flush();
    HETERO_RETURN_IF_ERROR(up.wait());
    HETERO_RETURN_IF_ERROR(down.wait());
    best = std::min(best, std::max(Nanos{1}, processor_.clock().now() - begin));
  }
  return 2.0 * static_cast<double>(bytes) / static_cast<double>(best.count());
}

Result<std::vector<OpTime>> BenchPass::collect() {
  std::vector<OpTime> times;
  if (pending_.empty()) {
    return times;
  }
  HETERO_RETURN_IF_ERROR(pending_.back().fence.wait());
  Nanos last_end{};
  size_t batch = 0;  // submissions since the last one with an interval
  for (const Pending& last : pending_) {
    ++batch;
    const Interval all = last.fence.timeline->interval(last.fence.ticket);
    if (all.end == Nanos{}) {
      batched_ = true;  // done without one: the last of its batch has that of all
      continue;
    }
    const Nanos each = (all.end - all.begin) / static_cast<int64_t>(batch);
    for (size_t i = 0; i < batch; ++i) {
      const Pending& p = pending_[times.size()];
      const Nanos begin = all.begin + static_cast<int64_t>(i) * each;
      const Interval interval{begin, i + 1 == batch ? all.end : begin + each};
      // What its queue was held up for: since the one before, or, where the control thread came late,
      // since the submission.
      const Nanos start =
          batched_ ? interval.begin : std::max(last_end, std::min(interval.begin, p.submitted));
      times.push_back({p.op, interval, std::max(Nanos{}, interval.end - start)});
      last_end = interval.end;
    }
    batch = 0;
  }
  pending_.clear();
  return times;
}

}  // namespace hetero
