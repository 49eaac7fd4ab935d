#include "sim/cost.h"

#include <algorithm>

namespace hetero {
namespace {

double number(int64_t v) {
  return static_cast<double>(v);
}

int64_t tiles(int64_t size, int64_t tile) {
  return (size + tile - 1) / tile;
}

/// Nanoseconds for each 2 n k of a product of `rows` rows.
double rate(const SocProcessor& p, double rows) {
  if (p.curve.empty()) {
    return (rows + p.half_rows) / p.gflops;
  }
  const auto time = [](const SocProcessor::CurvePoint& c) { return c.rows / c.gflops; };
  for (size_t i = 0; i < p.curve.size(); ++i) {
    const auto& c = p.curve[i];
    if (rows <= c.rows) {
      if (i == 0) {
        return time(c) * rows / c.rows;
      }
      const auto& b = p.curve[i - 1];
      return time(b) + (time(c) - time(b)) * (rows - b.rows) / (c.rows - b.rows);
    }
  }
  return rows / p.curve.back().gflops;
}

/// One product on weight-stationary arrays: for each tile column of the held operand, for each run
/// of `stream_rows` rows of the other one, for each tile of the shared dimension: load the held
/// tile, then let the rows stream through. A tile comes from the buffer beside the array if it was
/// there before and the whole column fits.
struct Passes {
  double ns = 0.0;
  double reloaded = 0.0;  // tiles that come from memory more than once
};
Passes systolic(const SocProcessor& p, double element_bytes, int64_t held, int64_t shared, int64_t streamed) {
  const auto tile = static_cast<int64_t>(p.tile);
  const int64_t columns = tiles(held, tile);
  const int64_t depth = tiles(shared, tile);
  const int64_t rows = tiles(streamed, tile) * tile;
  const int64_t runs = tiles(rows, static_cast<int64_t>(p.stream_rows));
  const bool fits = number(depth) * p.tile * p.tile * element_bytes <= p.held_kib * 1024.0;
  const double row_ns = 2.0 * p.tile * p.tile / p.array_gflops;
  const double again = fits ? p.load_ns : p.reload_ns;
  return {number(columns * depth) * (p.reload_ns + number(runs - 1) * again + number(rows) * row_ns),
          fits ? 0.0 : number(columns * depth * (runs - 1))};
}

}  // namespace

Cost product_cost(const Soc& soc, const SocProcessor& p, int64_t n, int64_t k, int64_t m, double weight_bytes,
                  OperandOrder order) {
  const double work = 2.0 * number(n) * number(k);
  const double bytes = weight_bytes + number(m) * number(n + k) * soc.activation_bytes;
  if (p.model == SocModel::kSystolic) {
    // Weights are prepared for the array (unpacked from 4 bits) while it works; that takes as long
    // as some columns of held tiles.
    const Passes one = systolic(p, soc.activation_bytes, 1, k, n);
    const Passes all = order == OperandOrder::kExchanged ? systolic(p, soc.activation_bytes, m, k, n)
                                                         : systolic(p, soc.activation_bytes, n, k, m);
    return {std::max(all.ns, p.least_columns * one.ns),
            bytes + all.reloaded * p.tile * p.tile * soc.activation_bytes};
  }
  const double many = work * rate(p, number(m));
  const double one_by_one = number(m) * weight_bytes / p.gbps;
  if (p.curve.empty() && one_by_one < many) {
    return {work * number(m) / p.gflops, bytes + number(m - 1) * weight_bytes};
  }
  return {many, bytes};
}

Cost cost_of(const Soc& soc, const SocProcessor& p, const Graph& graph, const OpSlice& slice, int64_t tokens,
             int64_t position, OperandOrder order) {
  const Op& op = graph.op(slice.op);
  if (op.is<Linear>()) {
    double weight_bytes = 0.0;
    for (const LinearSegment& s : linear_segments(graph, slice.op, slice.begin, slice.end)) {
      weight_bytes += number(row_bytes(s.weight->dtype, s.weight->cols) * s.rows);
    }
    return product_cost(soc, p, slice.end - slice.begin, graph.weight(op.weights[0]).cols, tokens,
                        weight_bytes, order);
  }
  double bytes = 0.0;
  for (const auto* list : {&op.inputs, &op.outputs}) {
    for (const ValueId id : *list) {
      const Value& value = graph.value(id);
      // A cache is written for the pass's tokens, and read by attention as far as it is filled.
      const int64_t rows = value.rows == Rows::kContext && op.is<Attention>() ? position + tokens : tokens;
      bytes += number(rows * value.cols) * soc.activation_bytes;
    }
  }
  double weights = 0.0;
  for (const WeightId id : op.weights) {
    const Weight& w = graph.weight(id);
    weights += number(row_bytes(w.dtype, w.cols) * (op.is<Embed>() ? std::min(tokens, w.rows) : w.rows));
  }
  double compute = 0.0;
  if (const auto* a = op.as<Attention>()) {
    // Every head of every token is a row of its own.
    const int64_t rows = tokens * a->heads;
    const double flops = 2.0 * number(op_macs(graph, slice.op, slice.begin, slice.end, tokens, position));
    compute = flops * rate(p, number(rows)) / number(rows);
  } else if (const auto* e = op.as<ExpertLinear>()) {
    weights *= number(std::min<int64_t>(e->experts, tokens * e->used)) / number(e->experts);
    compute = 2.0 * number(op_macs(graph, slice.op, slice.begin, slice.end, tokens, position)) *
              rate(p, number(tokens)) / number(tokens);
  }
  return {compute, bytes + weights};
}

double alone_ns(const SocProcessor& p, const Cost& cost) {
  return std::max(cost.compute_ns, cost.bytes / p.gbps);
}

double compile_ns(const SocProcessor& p, int64_t n, int64_t k, int64_t m) {
  return p.compile_ms * 1e6 + p.compile_us_per_element * 1e3 * number(m) * number(n + k);
}

}  // namespace hetero
