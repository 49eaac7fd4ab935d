// The profiler's tool: runs rows of operators on one processor and tells how long each took.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/memory.h"
#include "processor/processor.h"
#include "profile/profile.h"

namespace hetero {

/// A submission and how long its queue took for it. Where the driver tells only of several together, each has
/// an equal part.
struct OpTime {
  int op = 0;
  Interval interval;
  Nanos time{};
};

/// Memory for all values of a graph, the same for all layers, and the executables on one processor.
/// Layer after layer writes to the same place: results mean nothing, times do.
class BenchPass {
 public:
  /// Rows of activations, and rows of the KV cache.
  static Result<std::unique_ptr<BenchPass>> create(const Graph& graph, Processor& processor, int64_t rows,
                                                   int64_t context);

  static constexpr int64_t kHeadRows = 32;

  /// Compiles what is not compiled yet; the time of each compilation is added to `compile_times`.
  Status prepare(std::span<const OpSlice> slices, int64_t tokens);
  void forget_executables() {
    executables_.clear();
    compiled_weights_ = 0;
  }
  /// Bytes of weights that executables were compiled with, for each number of tokens again.
  Bytes compiled_weights() const { return compiled_weights_; }
  std::vector<CompileTime>& compile_times() { return compile_times_; }

  /// Submits without waiting; prepare() it first.
  Status submit(std::span<const OpSlice> slices, int64_t tokens, int64_t position);
  /// Waits for all of it and returns its times, in order.
  Result<std::vector<OpTime>> collect();
  Fence last() const { return pending_.empty() ? Fence{} : pending_.back().fence; }

  /// Bytes per nanosecond between the host's memory and the processor's own; 0 where it has none.
  Result<double> copy_gbps();

  /// Of the control thread, for each submission so far.
  const std::vector<Nanos>& submit_times() const { return submit_times_; }
  /// Whether the driver gives several submissions one interval.
  bool batched() const { return batched_; }
  Processor& processor() { return processor_; }

 private:
  BenchPass(const Graph& graph, Processor& processor, int64_t rows, int64_t context)
      : graph_(graph), processor_(processor), rows_(rows), context_(context) {}
  Status allocate();
  /// The head's values have fewer rows: its logits are large, and few of them are ever wanted.
  int64_t rows_for(bool head) const { return head ? std::min<int64_t>(rows_, kHeadRows) : rows_; }
  int64_t compiled_for(int op, int64_t tokens) const;

  struct Pending {
    int op;
    Fence fence;
    Nanos submitted;
  };
  struct Place {
    PageMemory memory;
    std::unique_ptr<Buffer> buffer;
  };

  const Graph& graph_;
  Processor& processor_;
  const int64_t rows_;
  const int64_t context_;
  std::vector<Place> places_;
  std::vector<int> place_of_;                                                       // by value
  std::map<std::pair<OpSlice, int64_t>, std::unique_ptr<Executable>> executables_;  // and rows
  Bytes compiled_weights_ = 0;
  std::vector<CompileTime> compile_times_;
  std::vector<Pending> pending_;
  std::vector<Nanos> submit_times_;
  bool batched_ = false;
};

}  // namespace hetero
