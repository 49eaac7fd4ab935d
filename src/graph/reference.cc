#include "graph/reference.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

#include "base/f16.h"
#include "gguf/dequantize.h"
#include "gguf/quantize.h"

namespace hetero {

Reference::Reference(const Graph& graph, int64_t context) : graph_(graph), values_(graph.values.size()) {
  for (size_t i = 0; i < graph.values.size(); ++i) {
    if (graph.values[i].rows == Rows::kContext) {
      values_[i].assign(static_cast<size_t>(context * graph.values[i].cols), 0.0f);
    }
  }
}

std::vector<float> Reference::weight_rows(const Weight& weight, int64_t begin, int64_t rows) const {
  std::vector<float> out(static_cast<size_t>(rows * weight.cols));
  dequantize(weight.dtype, weight.data + begin * row_bytes(weight.dtype, weight.cols), rows * weight.cols,
             out.data());
  return out;
}

namespace {

/// Writes a head as the KV cache of this dtype stores it: rounded.
void store(const float* head, int64_t head_dim, DType dtype, float* to) {
  std::copy_n(head, head_dim, to);
  if (dtype == DType::kF16) {
    std::transform(to, to + head_dim, to, [](float x) { return f32_from_f16(f16_from_f32(x)); });
  } else if (dtype == DType::kQ8_0) {
    std::vector<std::byte> blocks(static_cast<size_t>(row_bytes(dtype, head_dim)));
    if (quantize(dtype, head, head_dim, blocks.data()).ok()) {
      dequantize(dtype, blocks.data(), head_dim, to);
    } else {  // not finite, or too large for the scales
      std::fill_n(to, head_dim, std::numeric_limits<float>::quiet_NaN());
    }
  }
}

float activate(Activation activation, float x) {
  if (activation == Activation::kSilu) {
    return x / (1.0f + std::exp(-x));
  }
  // The tanh form of GELU (Hendrycks and Gimpel, arXiv 1606.08415).
  const double inner = std::sqrt(2.0 / M_PI) * (x + 0.044715 * double{x} * x * x);
  return static_cast<float>(0.5 * x * (1.0 + std::tanh(inner)));
}

/// x / sqrt(mean(x^2) + eps) * w
std::vector<float> rms_normed(std::vector<float> x, const std::vector<float>& w, float eps) {
  double squares = 0.0;
  for (const float v : x) {
    squares += double{v} * v;
  }
  const double scale = 1.0 / std::sqrt(squares / static_cast<double>(x.size()) + eps);
  for (size_t i = 0; i < x.size(); ++i) {
    x[i] = static_cast<float>(x[i] * scale * w[i]);
  }
  return x;
}

/// A head after its norm, where there are weights, and its rotation.
std::vector<float> rotated(const Rope& rope, const float* in, const std::vector<float>& norm,
                           const float* table) {
  std::vector<float> x(in, in + rope.head_dim);
  if (!norm.empty()) {
    x = rms_normed(std::move(x), norm, rope.norm_eps);
  }
  std::vector<float> out = x;
  const int pairs = rope.rotary_dims / 2;
  for (int i = 0; i < pairs; ++i) {
    const auto a = static_cast<size_t>(rope.pairs == RopePairs::kAdjacent ? 2 * i : i);
    const auto b = static_cast<size_t>(rope.pairs == RopePairs::kAdjacent ? 2 * i + 1 : i + pairs);
    const float c = table[2 * i];
    const float s = table[2 * i + 1];
    out[a] = x[a] * c - x[b] * s;
    out[b] = x[a] * s + x[b] * c;
  }
  return out;
}

double capped(double x, double cap) {
  return cap > 0.0 ? cap * std::tanh(x / cap) : x;
}

/// One token's routes; see Route.
void route(const Route& r, const float* logits, float* routes) {
  double top = -HUGE_VAL;
  for (int e = 0; e < r.experts; ++e) {
    top = std::max(top, double{logits[e]});
  }
  double total = 0.0;
  for (int e = 0; e < r.experts; ++e) {
    total += std::exp(logits[e] - top);
  }
  std::vector<bool> taken(static_cast<size_t>(r.experts));
  double chosen = 0.0;
  std::vector<double> weights;
  for (int j = 0; j < r.used; ++j) {
    int best = -1;
    for (int e = 0; e < r.experts; ++e) {
      if (!taken[static_cast<size_t>(e)] && (best < 0 || logits[e] > logits[best])) {
        best = e;
      }
    }
    taken[static_cast<size_t>(best)] = true;
    routes[j] = static_cast<float>(best);
    weights.push_back(std::exp(logits[best] - top) / total);
    chosen += weights.back();
  }
  for (int j = 0; j < r.used; ++j) {
    const double w = r.normalize ? weights[static_cast<size_t>(j)] / chosen : weights[static_cast<size_t>(j)];
    routes[r.used + j] = static_cast<float>(r.scale * w);
  }
  if (r.shared) {
    routes[2 * r.used] = static_cast<float>(1.0 / (1.0 + std::exp(-double{logits[r.experts]})));
  }
}

}  // namespace

void Reference::run(int index, int64_t tokens, int64_t position, int64_t row) {
  const Op& op = graph_.op(index);
  // Address of row `row + t` of a value.
  const auto at = [&](ValueId id, int64_t t) { return value(id).data() + (row + t) * graph_.value(id).cols; };
  for (const ValueId id : op.outputs) {
    const size_t needed = static_cast<size_t>((row + tokens) * graph_.value(id).cols);
    if (graph_.value(id).rows != Rows::kContext && value(id).size() < needed) {
      value(id).resize(needed);
    }
  }

  if (const auto* embed = op.as<Embed>()) {
    const Weight& table = graph_.weight(op.weights[0]);
    for (int64_t t = 0; t < tokens; ++t) {
      const std::vector<float> x = weight_rows(table, static_cast<int64_t>(*at(op.inputs[0], t)), 1);
      std::transform(x.begin(), x.end(), at(op.outputs[0], t), [&](float v) { return embed->scale * v; });
    }
  } else if (const auto* rope_table = op.as<RopeTable>()) {
    for (int64_t t = 0; t < tokens; ++t) {
      float* out = at(op.outputs[0], t);
      for (const double frequency : rope_table->inv_freq) {
        const double angle = static_cast<double>(position + t) * frequency;
        *out++ = static_cast<float>(rope_table->magnitude * std::cos(angle));
        *out++ = static_cast<float>(rope_table->magnitude * std::sin(angle));
      }
    }
  } else if (const auto* norm = op.as<RmsNorm>()) {
    const int64_t cols = graph_.value(op.inputs[0]).cols;
    const std::vector<float> w = weight_rows(graph_.weight(op.weights[0]), 0, 1);
    for (int64_t t = 0; t < tokens; ++t) {
      std::vector<float> s(at(op.inputs[0], t), at(op.inputs[0], t) + cols);
      if (op.inputs.size() == 2) {
        const float* y = at(op.inputs[1], t);
        float* sum = at(op.outputs[1], t);
        for (int64_t i = 0; i < cols; ++i) {
          sum[i] = s[static_cast<size_t>(i)] += y[i];
        }
      }
      const std::vector<float> h = rms_normed(s, w, norm->eps);
      std::copy(h.begin(), h.end(), at(op.outputs[0], t));
    }
  } else if (op.is<Linear>()) {
    const int64_t k = graph_.value(op.inputs[0]).cols;
    for (const LinearSegment& segment : linear_segments(graph_, index, 0, graph_.output_cols(index))) {
      for (int64_t r = 0; r < segment.rows; ++r) {
        const std::vector<float> w = weight_rows(*segment.weight, segment.row_begin + r, 1);
        float bias = 0.0f;
        if (segment.bias != nullptr) {
          bias = weight_rows(*segment.bias, 0, 1)[static_cast<size_t>(segment.row_begin + r)];
        }
        for (int64_t t = 0; t < tokens; ++t) {
          const float* x = at(op.inputs[0], t);
          double sum = bias;
          for (int64_t i = 0; i < k; ++i) {
            sum += double{x[i]} * w[static_cast<size_t>(i)];
          }
          at(op.outputs[0], t)[segment.out_begin + r] = static_cast<float>(sum);
        }
      }
    }
  } else if (const auto* rope = op.as<Rope>()) {
    const int64_t hd = rope->head_dim;
    const ValueId cache[2] = {op.outputs[1], op.outputs[2]};
    const int64_t kv_cols = rope->kv_heads * hd;
    const DType stored_as = graph_.value(cache[0]).dtype;
    std::vector<float> norms[2];
    for (size_t i = 0; i < op.weights.size(); ++i) {
      norms[i] = weight_rows(graph_.weight(op.weights[i]), 0, 1);
    }
    for (int64_t t = 0; t < tokens; ++t) {
      const float* table = at(op.inputs[1], t);
      const float* q = at(op.inputs[0], t);
      const float* k = q + rope->heads * hd;
      const float* v = k + kv_cols;
      for (int h = 0; h < rope->heads; ++h) {
        const std::vector<float> head = rotated(*rope, q + h * hd, norms[0], table);
        std::copy(head.begin(), head.end(), at(op.outputs[0], t) + h * hd);
      }
      float* k_out = value(cache[0]).data() + (position + t) * kv_cols;
      float* v_out = value(cache[1]).data() + (position + t) * kv_cols;
      for (int h = 0; h < rope->kv_heads; ++h) {
        const std::vector<float> head = rotated(*rope, k + h * hd, norms[1], table);
        store(head.data(), hd, stored_as, k_out + h * hd);
        store(v + h * hd, hd, stored_as, v_out + h * hd);
      }
    }
  } else if (const auto* attention = op.as<Attention>()) {
    const int64_t hd = attention->head_dim;
    const int64_t kv_cols = attention->kv_heads * hd;
    const int group = attention->heads / attention->kv_heads;
    for (int64_t t = 0; t < tokens; ++t) {
      const int64_t end = position + t + 1;
      const int64_t first = attention->window > 0 ? std::max<int64_t>(0, end - attention->window) : 0;
      const int64_t seen = end - first;
      for (int h = 0; h < attention->heads; ++h) {
        const float* q = at(op.inputs[0], t) + h * hd;
        const float* k = value(op.inputs[1]).data() + first * kv_cols + (h / group) * hd;
        const float* v = value(op.inputs[2]).data() + first * kv_cols + (h / group) * hd;
        std::vector<double> p(static_cast<size_t>(seen));
        for (int64_t s = 0; s < seen; ++s) {
          double dot = 0.0;
          for (int64_t i = 0; i < hd; ++i) {
            dot += double{q[i]} * k[s * kv_cols + i];
          }
          p[static_cast<size_t>(s)] = capped(dot * attention->scale, attention->cap);
        }
        const double top = *std::max_element(p.begin(), p.end());
        double total = 0.0;
        for (double& x : p) {
          total += x = std::exp(x - top);
        }
        for (int64_t i = 0; i < hd; ++i) {
          double sum = 0.0;
          for (int64_t s = 0; s < seen; ++s) {
            sum += p[static_cast<size_t>(s)] * v[s * kv_cols + i];
          }
          at(op.outputs[0], t)[h * hd + i] = static_cast<float>(sum / total);
        }
      }
    }
  } else if (const auto* gated = op.as<Gated>()) {
    const int64_t f = graph_.value(op.outputs[0]).cols;
    for (int64_t t = 0; t < tokens; ++t) {
      const float* gate = at(op.inputs[0], t);
      for (int64_t i = 0; i < f; ++i) {
        at(op.outputs[0], t)[i] = activate(gated->activation, gate[i]) * gate[f + i];
      }
    }
  } else if (const auto* cap = op.as<SoftCap>()) {
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t i = 0; i < graph_.value(op.outputs[0]).cols; ++i) {
        at(op.outputs[0], t)[i] = static_cast<float>(capped(at(op.inputs[0], t)[i], cap->cap));
      }
    }
  } else if (const auto* r = op.as<Route>()) {
    for (int64_t t = 0; t < tokens; ++t) {
      route(*r, at(op.inputs[0], t), at(op.outputs[0], t));
    }
  } else if (const auto* experts = op.as<ExpertLinear>()) {
    for (int64_t t = 0; t < tokens; ++t) {
      float* y = at(op.outputs[0], t);
      for (const WeightId id : op.weights) {
        const Weight& weight = graph_.weight(id);
        const int64_t n = weight.rows / experts->experts;
        for (int j = 0; j < experts->used; ++j, y += n) {
          const auto expert = static_cast<int64_t>(at(op.inputs[1], t)[j]);
          const bool same = graph_.value(op.inputs[0]).cols == weight.cols;
          const float* x = at(op.inputs[0], t) + (same ? 0 : j * weight.cols);
          const std::vector<float> w = weight_rows(weight, expert * n, n);
          for (int64_t i = 0; i < n; ++i) {
            y[i] = static_cast<float>(std::inner_product(x, x + weight.cols, w.begin() + i * weight.cols, 0.0,
                                                         std::plus<>(),
                                                         [](double a, float b) { return a * b; }));
          }
        }
      }
    }
  } else if (const auto* sum = op.as<ExpertSum>()) {
    const int64_t n = graph_.value(op.outputs[0]).cols;
    for (int64_t t = 0; t < tokens; ++t) {
      const float* weights = at(op.inputs[1], t) + sum->used;
      for (int64_t i = 0; i < n; ++i) {
        double total = op.inputs.size() == 3 ? double{weights[sum->used]} * at(op.inputs[2], t)[i] : 0.0;
        for (int j = 0; j < sum->used; ++j) {
          total += double{weights[j]} * at(op.inputs[0], t)[j * n + i];
        }
        at(op.outputs[0], t)[i] = static_cast<float>(total);
      }
    }
  }
}

const std::vector<float>& Reference::forward(std::span<const int32_t> ids, int64_t position) {
  value(graph_.ids).assign(ids.begin(), ids.end());
  for (size_t op = 0; op < graph_.ops.size(); ++op) {
    run(static_cast<int>(op), static_cast<int64_t>(ids.size()), position);
  }
  std::vector<float>& logits = value(graph_.logits);
  logits.resize(ids.size() * static_cast<size_t>(graph_.value(graph_.logits).cols));
  return logits;
}

}  // namespace hetero
