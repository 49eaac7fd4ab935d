// What a piece of work takes on a simulated processor, before others compete for the memory. The
// formulas are derived in docs/simulation.md.
#pragma once

#include <cstdint>

#include "graph/graph.h"
#include "processor/processor.h"
#include "sim/soc.h"

namespace hetero {

struct Cost {
  double compute_ns = 0.0;  // with memory as fast as one likes
  double bytes = 0.0;       // to and from memory, meanwhile
};

/// Which operand of a product a systolic array holds (NPU-2).
enum class OperandOrder {
  kExchanged,  // the activations, usually smaller: [M,N]x[N,K] = ([K,N]x[N,M])^T (paper, section 4.1.1)
  kGiven,      // the weights, as the model's graph has them
};

/// Output columns [slice.begin, slice.end) of an operator for `tokens` rows at `position`, in the slice's
/// order of operands.
Cost cost_of(const Soc& soc, const SocProcessor& processor, const Graph& graph, const OpSlice& slice,
             int64_t tokens, int64_t position);

/// A product of `m` rows with weights [n, k] of `weight_bytes`.
Cost product_cost(const Soc& soc, const SocProcessor& processor, int64_t n, int64_t k, int64_t m,
                  double weight_bytes, OperandOrder order = OperandOrder::kExchanged);

/// Of `rows` rows of a weight, as the chip holds it.
double stored_bytes(const Soc& soc, DType dtype, int64_t rows, int64_t cols);

/// What a cost takes with the memory to itself.
double alone_ns(const SocProcessor& processor, const Cost& cost);

/// Compiling a graph of a product (processors with static shapes).
double compile_ns(const SocProcessor& processor, int64_t n, int64_t k, int64_t m);

}  // namespace hetero
