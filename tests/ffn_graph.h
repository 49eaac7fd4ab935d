// The FFN of a layer alone: gate and up, Gated, down.
#pragma once

#include <array>
#include <cstddef>

#include "graph/graph.h"

namespace hetero {

/// {x [T, d]} -> {y [T, n]}. `weights`: gate and up [f, d], down [n, f], which the caller keeps.
inline Graph ffn_graph(DType dtype, int64_t d, int64_t f, int64_t n,
                       const std::array<const std::byte*, 3>& weights) {
  Graph graph;
  graph.values = {{"x", Rows::kTokens, d, DType::kF32},
                  {"gate_up", Rows::kTokens, 2 * f, DType::kF32},
                  {"s", Rows::kTokens, f, DType::kF32},
                  {"y", Rows::kTokens, n, DType::kF32}};
  graph.weights = {
      {"gate", dtype, f, d, weights[0]}, {"up", dtype, f, d, weights[1]}, {"down", dtype, n, f, weights[2]}};
  graph.ops = {{"gate_up", 0, Linear{}, {0}, {1}, {0, 1}, {}},
               {"gated", 0, Gated{}, {1}, {2}, {}, {}},
               {"down", 0, Linear{}, {2}, {3}, {2}, {}}};
  return graph;
}

}  // namespace hetero
