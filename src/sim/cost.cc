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

/// A line through (x0, y0) and (x1, y1) at x.
double line(double x0, double y0, double x1, double y1, double x) {
  return x1 > x0 ? y0 + (y1 - y0) * (x - x0) / (x1 - x0) : y0;
}

using Times = std::vector<SocProcessor::Measured::Time>;

/// Of so many rows, each with the fewest tokens in the cache that was measured: linear between measured
/// numbers of rows; static shapes take as long as the next one.
double at_rows(const Times& times, double rows, bool static_shapes) {
  const SocProcessor::Measured::Time* before = nullptr;
  const SocProcessor::Measured::Time* last = nullptr;
  for (const auto& t : times) {
    if (last != nullptr && t.rows == last->rows) {
      continue;  // another context
    }
    before = last;
    last = &t;
    if (t.rows >= rows) {
      break;
    }
  }
  if (last->rows == rows || before == nullptr || (static_shapes && last->rows > rows)) {
    return last->us * 1e3;
  }
  return std::max(0.0, line(before->rows, before->us, last->rows, last->us, rows)) * 1e3;
}

/// Nanoseconds by what was measured of operators of this kind; negative: nothing was.
double measured_ns(const SocProcessor& p, const Graph& graph, const OpSlice& slice, int64_t tokens,
                   int64_t position) {
  const Op& op = graph.op(slice.op);
  const int64_t out = slice.end - slice.begin;
  const int64_t in = op.is<Linear>() ? graph.weight(op.weights[0]).cols : 0;
  const SocProcessor::Measured* narrower = nullptr;
  const SocProcessor::Measured* wider = nullptr;
  for (const SocProcessor::Measured& m : p.operators) {
    if (m.op != kind_name(op) || (in > 0 && m.in != in)) {
      continue;
    }
    if (m.out <= out && (narrower == nullptr || m.out > narrower->out)) {
      narrower = &m;
    }
    if (m.out >= out && (wider == nullptr || m.out < wider->out)) {
      wider = &m;
    }
  }
  const auto time = [&](const SocProcessor::Measured& m) {
    return at_rows(m.times, number(tokens), p.static_shapes);
  };
  if (narrower == nullptr || wider == nullptr) {
    // Wider or narrower than anything measured: in proportion.
    const SocProcessor::Measured* const only = narrower != nullptr ? narrower : wider;
    return only == nullptr || in == 0 ? -1.0
                                      : time(*only) * number(out) / number(std::max<int64_t>(1, only->out));
  }
  double ns = line(number(narrower->out), time(*narrower), number(wider->out), time(*wider), number(out));
  if (op.is<Attention>()) {
    // More tokens in the cache: by the longest context measured with so many rows, or in proportion.
    const auto macs = [&](double context) {
      return number(op_macs(graph, slice.op, slice.begin, slice.end, tokens,
                            std::max<int64_t>(0, static_cast<int64_t>(context) - tokens)));
    };
    const double here = macs(number(position + tokens));
    const SocProcessor::Measured::Time* longest = nullptr;
    for (const auto& t : narrower->times) {
      longest = t.rows == number(tokens) && t.context > number(tokens) ? &t : longest;
    }
    const double first = macs(number(tokens));
    ns = longest != nullptr ? std::max(ns, line(first, ns, macs(longest->context), longest->us * 1e3, here))
                            : ns * here / std::max(1.0, first);
  }
  return ns;
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

double stored_bytes(const Soc& soc, DType dtype, int64_t rows, int64_t cols) {
  if (dtype == DType::kQ4_0 && soc.w4_bits > 0.0) {
    return number(rows) * number(cols) * soc.w4_bits / 8.0;
  }
  return number(rows * row_bytes(dtype, cols));
}

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
             int64_t position) {
  const Op& op = graph.op(slice.op);
  const double measured = measured_ns(p, graph, slice, tokens, position);
  if (op.is<Linear>()) {
    double weight_bytes = 0.0;
    for (const LinearSegment& s : linear_segments(graph, slice.op, slice.begin, slice.end)) {
      weight_bytes += stored_bytes(soc, s.weight->dtype, s.rows, s.weight->cols);
    }
    Cost cost = product_cost(soc, p, slice.end - slice.begin, graph.weight(op.weights[0]).cols, tokens,
                             weight_bytes, slice.exchanged ? OperandOrder::kExchanged : OperandOrder::kGiven);
    cost.compute_ns = measured >= 0.0 ? measured : cost.compute_ns;
    return cost;
  }
  double bytes = 0.0;
  for (const auto* list : {&op.inputs, &op.outputs}) {
    for (const ValueId id : *list) {
      const Value& value = graph.value(id);
      // A cache is written for the pass's tokens, and read by attention as far as it is filled.
      const int64_t rows = value.rows == Rows::kContext && op.is<Attention>() ? position + tokens : tokens;
      bytes += value.dtype == DType::kQ8_0 ? number(rows * row_bytes(value.dtype, value.cols))
                                           : number(rows * value.cols) * soc.activation_bytes;
    }
  }
  double weights = 0.0;
  for (const WeightId id : op.weights) {
    const Weight& w = graph.weight(id);
    weights += stored_bytes(soc, w.dtype, op.is<Embed>() ? std::min(tokens, w.rows) : w.rows, w.cols);
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
  return {measured >= 0.0 ? measured : compute, bytes + weights};
}

double alone_ns(const SocProcessor& p, const Cost& cost) {
  return std::max(cost.compute_ns, cost.bytes / p.gbps);
}

double compile_ns(const SocProcessor& p, int64_t n, int64_t k, int64_t m) {
  return p.compile_ms * 1e6 + p.compile_us_per_element * 1e3 * number(m) * number(n + k);
}

}  // namespace hetero
