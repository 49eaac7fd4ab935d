#include "cpu/experts.h"

#include <cmath>

#include "cpu/loops.h"

namespace hetero::cpu {
namespace {

/// Weight rows of one unit: enough to be worth a thread, and few enough that activations, which
/// every unit collects for itself, are small beside them.
int64_t rows_of_unit(int64_t k) {
  return round_up(std::max<int64_t>(32, kElementsPerUnit / k), 8);
}

int32_t expert_of(float number, int experts) {
  return number >= 0.0f && number < static_cast<float>(experts) ? static_cast<int32_t>(number) : 0;
}

}  // namespace

void route(const Route& op, const Work& work, ThreadPool& pool) {
  for_rows(pool, work.tokens, int64_t{op.experts} * (op.used + 8), [&](int64_t t, int) {
    const float* logits = work.in[0].row<float>(t);
    float* routes = work.out[0].row<float>(t);
    // The j-th largest is the largest of what comes after the one before, by value, then by number.
    float last = HUGE_VALF;
    int last_expert = -1;
    for (int j = 0; j < op.used; ++j) {
      int best = -1;
      for (int e = 0; e < op.experts; ++e) {
        const bool left = logits[e] < last || (logits[e] == last && e > last_expert);
        if (left && (best < 0 || logits[e] > logits[best])) {
          best = e;
        }
      }
      last_expert = std::max(best, 0);  // none is left where logits are not numbers
      last = logits[last_expert];
      routes[j] = static_cast<float>(last_expert);
    }
    const float top = logits[static_cast<int>(routes[0])];
    float total = 0.0f;
    for (int e = 0; e < op.experts; ++e) {
      total += std::exp(logits[e] - top);
    }
    if (op.normalize) {
      total = 0.0f;
      for (int j = 0; j < op.used; ++j) {
        total += std::exp(logits[static_cast<int>(routes[j])] - top);
      }
    }
    for (int j = 0; j < op.used; ++j) {
      routes[op.used + j] = op.scale * std::exp(logits[static_cast<int>(routes[j])] - top) / total;
    }
    if (op.shared) {
      routes[2 * op.used] = 1.0f / (1.0f + std::exp(-logits[op.experts]));
    }
  });
}

int64_t expert_scratch(const Graph& graph, const Op& op, int64_t tokens, const Kernels& kernels,
                       int threads) {
  const auto& e = *op.as<ExpertLinear>();
  const int64_t k = graph.weight(op.weights[0]).cols;
  return round_up(2 * e.experts + 1 + tokens * e.used, 16) +
         threads * kernels.gemv_rows * (k + rows_of_unit(k));
}

void expert_linear(const ExpertLinear& op, const Work& work, const Kernels& kernels, ThreadPool& pool) {
  const Graph& graph = *work.executable->graph;
  const Op& node = work.executable->op();
  const int64_t k = graph.weight(node.weights[0]).cols;
  const bool shared_x = graph.value(node.inputs[0]).cols == k;
  const int64_t unit_rows = rows_of_unit(k);

  // entries[starts[e] .. starts[e + 1]): token * used + choice of all who chose expert e.
  auto* starts = reinterpret_cast<int32_t*>(work.scratch->data());
  int32_t* active = starts + op.experts + 1;
  int32_t* entries = active + op.experts;
  float* buffers = reinterpret_cast<float*>(work.scratch->data()) +
                   round_up(2 * op.experts + 1 + work.tokens * op.used, 16);
  std::fill_n(starts, op.experts + 1, 0);
  const auto chosen = [&](int64_t t, int j) { return expert_of(work.in[1].row<float>(t)[j], op.experts); };
  for (int64_t t = 0; t < work.tokens; ++t) {
    for (int j = 0; j < op.used; ++j) {
      ++starts[chosen(t, j) + 1];
    }
  }
  int64_t active_count = 0;
  for (int e = 0; e < op.experts; ++e) {
    if (starts[e + 1] > 0) {
      active[active_count++] = e;
    }
    starts[e + 1] += starts[e];
  }
  for (int64_t t = work.tokens; t-- > 0;) {
    for (int j = op.used; j-- > 0;) {
      entries[--starts[chosen(t, j) + 1]] = static_cast<int32_t>(t * op.used + j);
    }
  }
  // Now starts[e + 1] is where e begins: shift back.
  const auto begin_of = [&](int e) { return starts[e + 1]; };
  const auto end_of = [&](int e) {
    return e + 1 < op.experts ? starts[e + 2] : static_cast<int32_t>(work.tokens * op.used);
  };

  int64_t blocks = 0;
  for (const WeightId id : node.weights) {
    blocks += ceil_div(graph.weight(id).rows / op.experts, unit_rows);
  }
  for_units(pool, active_count * blocks, [&](int64_t unit, int worker) {
    float* x = buffers + worker * kernels.gemv_rows * (k + unit_rows);
    float* y = x + kernels.gemv_rows * k;
    const int expert = active[unit / blocks];
    int64_t block = unit % blocks;
    int64_t column = 0;  // of the weight's first output
    const Weight* weight = nullptr;
    int64_t n = 0;
    for (const WeightId id : node.weights) {
      weight = &graph.weight(id);
      n = weight->rows / op.experts;
      if (block < ceil_div(n, unit_rows)) {
        break;
      }
      block -= ceil_div(n, unit_rows);
      column += op.used * n;
    }
    const int64_t row = block * unit_rows;
    const int64_t rows = std::min(unit_rows, n - row);
    const int64_t bytes = row_bytes(weight->dtype, k);
    const WeightRows w{weight->dtype, weight->data + (expert * n + row) * bytes, bytes, rows};
    for (int32_t at = begin_of(expert); at < end_of(expert); at += static_cast<int32_t>(kernels.gemv_rows)) {
      const int64_t some = std::min<int64_t>(kernels.gemv_rows, end_of(expert) - at);
      for (int64_t i = 0; i < some; ++i) {
        const int32_t entry = entries[at + i];
        const float* from = work.in[0].row<float>(entry / op.used) + (shared_x ? 0 : entry % op.used * k);
        std::copy_n(from, k, x + i * k);
      }
      kernels.gemv(w, k, x, k, some, nullptr, y, unit_rows);
      for (int64_t i = 0; i < some; ++i) {
        const int32_t entry = entries[at + i];
        std::copy_n(y + i * unit_rows, rows,
                    work.out[0].row<float>(entry / op.used) + column + entry % op.used * n + row);
      }
    }
  });
}

void expert_sum(const ExpertSum& op, const Work& work, ThreadPool& pool) {
  const Op& node = work.executable->op();
  const int64_t n = work.executable->graph->value(node.outputs[0]).cols;
  const bool shared = node.inputs.size() == 3;
  for_rows(pool, work.tokens, n * (op.used + 1), [&](int64_t t, int) {
    const float* weights = work.in[1].row<float>(t) + op.used;
    float* sum = work.out[0].row<float>(t);
    for (int64_t i = 0; i < n; ++i) {
      sum[i] = shared ? weights[op.used] * work.in[2].row<float>(t)[i] : 0.0f;
    }
    for (int j = 0; j < op.used; ++j) {
      const float* y = work.in[0].row<float>(t) + j * n;
      for (int64_t i = 0; i < n; ++i) {
        sum[i] += weights[j] * y[i];
      }
    }
  });
}

}  // namespace hetero::cpu
