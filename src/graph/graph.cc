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
      segments.push_back({&weight, bias < 0 ? nullptr : &graph.weight(bias), lo - first, hi - lo, lo - begin});
    }
    first += weight.rows;
  }
  return segments;
}

int64_t op_macs(const Graph& graph, int index, int64_t begin, int64_t end, int64_t tokens, int64_t position) {
  const Op& op = graph.op(index);
  if (op.is<Linear>()) {
    return (end - begin) * graph.weight(op.weights[0]).cols * tokens;
  }
  if (const auto* a = op.as<Attention>()) {
    const int64_t scores = tokens * position + tokens * (tokens + 1) / 2;  // causal
    return 2 * scores * a->heads * a->head_dim;
  }
  return 0;
}

}  // namespace hetero
