// Operators of the graph on the CPU: what compile() prepares, and the loops over threads that run
// it with one level's kernels.
#pragma once

#include <array>
#include <memory>
#include <span>
#include <vector>

#include "base/memory.h"
#include "base/threads.h"
#include "cpu/kernels.h"
#include "cpu/linear_int8.h"
#include "graph/graph.h"
#include "processor/processor.h"

namespace hetero::cpu {

/// Ok, or why the CPU cannot run the slice.
Status supports(const Graph& graph, const OpSlice& slice);

/// Consecutive weight rows that one panel decodes; never of two weights.
struct Panel {
  WeightRows weight;
  int64_t out_begin = 0;  // column of the slice
};

struct CpuExecutable : Executable {
  const Graph* graph = nullptr;
  OpSlice slice;
  int64_t tokens = 0;
  std::vector<LinearSegment> segments;  // Linear: what is multiplied in f32
  std::vector<Panel> panels;            // Linear: the same rows
  std::vector<PackedSegment> packed;    // Linear: what is multiplied in 8 bits
  /// Linear: bias of the slice's columns or empty; RmsNorm: weight; Rope: norms of q and k or empty
  std::vector<float> vector;
  int only_reader = -1;  // operator that alone reads the first output
  int64_t scratch_floats = 0;

  const Op& op() const { return graph->op(slice.op); }
};

/// Everything that does not depend on the launch. The slice is one that supports() accepts. With
/// `packed`, activations are rounded to 8 bits for all weights that have such kernels.
std::unique_ptr<CpuExecutable> prepare(const Graph& graph, const OpSlice& slice, int64_t tokens,
                                       const Kernels& kernels, int threads, PackedWeights* packed);

/// A binding resolved to memory.
struct View {
  std::byte* data = nullptr;
  int64_t stride = 0;  // elements

  template <class T>
  T* row(int64_t t) const {
    return reinterpret_cast<T*>(data) + t * stride;
  }
};

struct Work {
  const CpuExecutable* executable = nullptr;
  std::shared_ptr<PageMemory> scratch;  // at least executable->scratch_floats
  int64_t tokens = 0;
  int64_t position = 0;
  std::array<View, 3> in;
  std::array<View, 3> out;
};

/// Runs on the calling thread and the pool's. Allocates nothing.
Status run(const Work& work, const Kernels& kernels, ThreadPool& pool);

/// How many works at the front of a queue run_together() may run: an FFN's first product, its Gated and its
/// second product, where activations are rounded and each alone reads what the one before makes; two of
/// those; or 1, for run().
constexpr size_t kMostTogether = 3;
size_t together(std::span<const Work> queue, const Kernels& kernels);

/// As run() of one after the other, with the same numbers; but what lies in between, several times as much as
/// what goes in, is not written to memory. Allocates nothing.
void run_together(std::span<const Work> works, const Kernels& kernels, ThreadPool& pool);

}  // namespace hetero::cpu
