// The slow truth: each operator in plain f32 and double loops, one file, no cleverness. Kernels,
// processors and whole models are tested against it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "graph/graph.h"

namespace hetero {

/// All values of a graph as f32 matrices (token ids too, exactly), and the operators over them.
/// KV caches of dtype F16 and Q8_0 round what is written to them. Not thread-safe.
class Reference {
 public:
  /// `context`: rows of the KV caches. The graph must outlive the reference.
  Reference(const Graph& graph, int64_t context);

  /// Runs operator `op` for `tokens` rows at `position`. Rows of inputs and outputs start at
  /// `row` (used by the output head to work on some rows only).
  void run(int op, int64_t tokens, int64_t position, int64_t row = 0);

  /// Runs the whole graph over ids at `position` and returns the logits of every row
  /// [ids.size(), vocabulary].
  const std::vector<float>& forward(std::span<const int32_t> ids, int64_t position);

  /// The contents of a value, [rows, cols]; resized as needed by run().
  std::vector<float>& value(ValueId id) { return values_[static_cast<size_t>(id)]; }

 private:
  std::vector<float> weight_rows(const Weight& weight, int64_t begin, int64_t rows) const;

  const Graph& graph_;
  std::vector<std::vector<float>> values_;
};

}  // namespace hetero
