#include "graph/graph.h"

#include <algorithm>

namespace hetero {

const char* kind_name(const Op& op) {
  struct Visitor {
    const char* operator()(const Embed&) const { return "embed"; }
    const char* operator()(const RopeTable&) const { return "rope_table"; }
    const char* operator()(const RmsNorm&) const { return "rms_norm"; }
    const char* operator()(const Linear&) const { return "linear"; }
    const char* operator()(const Rope&) const { return "rope"; }
    const char* operator()(const Attention&) const { return "attention"; }
    const char* operator()(const Gated&) const { return "gated"; }
    const char* operator()(const SoftCap&) const { return "soft_cap"; }
    const char* operator()(const Route&) const { return "route"; }
    const char* operator()(const ExpertLinear&) const { return "expert_linear"; }
    const char* operator()(const ExpertSum&) const { return "expert_sum"; }
  };
  return std::visit(Visitor{}, op.params);
}

std::vector<LinearSegment> linear_segments(const Graph& graph, int index, int64_t begin, int64_t end) {
  const Op& op = graph.op(index);
  std::vector<LinearSegment> segments;
  int64_t first = 0;  // output column of the weight's row 0
  for (size_t i = 0; i < op.weights.size(); ++i) {
    const Weight& weight = graph.weight(op.weights[i]);
    const int64_t lo = std::max(begin, first);
    const int64_t hi = std::min(end, first + weight.rows);
    if (lo < hi) {
      const WeightId bias = op.biases.empty() ? -1 : op.biases[i];
      segments.push_back(
          {&weight, bias < 0 ? nullptr : &graph.weight(bias), lo - first, hi - lo, lo - begin});
    }
    first += weight.rows;
  }
  return segments;
}

std::vector<bool> in_last_row(const Graph& graph) {
  std::vector<bool> all_rows(graph.values.size());  // of a value are read
  std::vector<bool> result(static_cast<size_t>(graph.head_begin));
  for (int i = graph.head_begin; i-- > 0;) {
    const Op& op = graph.op(i);
    const bool every = std::any_of(op.outputs.begin(), op.outputs.end(), [&](ValueId id) {
      return graph.value(id).rows == Rows::kContext || all_rows[static_cast<size_t>(id)];
    });
    result[static_cast<size_t>(i)] = !every;
    for (const ValueId id : op.inputs) {
      all_rows[static_cast<size_t>(id)] = all_rows[static_cast<size_t>(id)] || every;
    }
  }
  return result;
}

std::vector<const Op*> readers_of(const Graph& graph, ValueId value) {
  std::vector<const Op*> readers;
  for (const Op& op : graph.ops) {
    readers.insert(readers.end(), static_cast<size_t>(std::count(op.inputs.begin(), op.inputs.end(), value)),
                   &op);
  }
  return readers;
}

const Op* only_reader(const Graph& graph, ValueId value) {
  const std::vector<const Op*> readers = readers_of(graph, value);
  return readers.size() == 1 && value != graph.logits ? readers[0] : nullptr;
}

int64_t op_macs(const Graph& graph, int index, int64_t begin, int64_t end, int64_t tokens, int64_t position) {
  const Op& op = graph.op(index);
  if (op.is<Linear>() || op.is<ExpertLinear>()) {
    return (end - begin) * graph.weight(op.weights[0]).cols * tokens;
  }
  if (const auto* a = op.as<Attention>()) {
    // Causal: token t sees position + t + 1 rows, of which a window keeps the last.
    int64_t scores = tokens * position + tokens * (tokens + 1) / 2;
    if (a->window > 0) {
      const int64_t full = std::clamp<int64_t>(a->window - position, 0, tokens);  // tokens that see all
      scores = full * position + full * (full + 1) / 2 + (tokens - full) * a->window;
    }
    return 2 * scores * a->heads * a->head_dim;
  }
  return 0;
}

}  // namespace hetero
