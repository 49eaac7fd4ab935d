// What a profile is made of: the pieces that are measured, in which order, and what each runs.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "graph/graph.h"
#include "processor/processor.h"

namespace hetero {

/// One thing to measure.
struct ProfileTask {
  enum Kind { kBody, kHead, kAttention, kOrder, kHandoff, kTogether } kind = kBody;
  /// Processors, as bits. Of operators they are measured in turns, round by round, so that a busy moment of
  /// the machine strikes all alike and their ratio stays; kTogether: all at once.
  unsigned set = 0;
  size_t from = 0;  // kHandoff
  size_t to = 0;
  int64_t tokens = 1;
  int64_t position = 0;
  int64_t parts = 1;  // kBody: linear operators only, the first 1/parts of their columns
  int op = 0;         // kOrder: this operator and those of equal work, in the less usual order of operands
  int visit = 0;      // kHandoff, kTogether: which of kVisits
};

/// Hand-offs and contention are measured this often, spread over the profile's time, and medians count: a
/// host that gives two of its virtual cores one real one for some seconds makes neighbours of strangers.
constexpr int kVisits = 5;

constexpr int64_t kChunkPosition = 512;             // where a later part of a prompt begins
constexpr Bytes kEnoughWeights = Bytes{256} << 20;  // more than any cache holds

class ProfileTasks {
 public:
  /// `lengths`: ascending, from 1. All are kept by reference.
  ProfileTasks(const Graph& graph, std::span<Processor* const> processors,
               const std::vector<int64_t>& lengths, int64_t context, int64_t grid)
      : graph_(graph), processors_(processors), lengths_(lengths), context_(context), grid_(grid) {}

  /// The most valuable first: decode and a usual prompt, then what working together costs and gains,
  /// then other lengths, then contexts, then narrower slices.
  std::vector<ProfileTask> all() const;

  std::string describe(const ProfileTask& task) const;
  std::vector<size_t> members(unsigned set) const;
  /// What a task runs on a processor.
  std::vector<OpSlice> slices(const ProfileTask& task, size_t processor) const;
  /// Columns of an operator in the order of operands that is usual for so many rows.
  OpSlice slice(size_t processor, int op, int64_t begin, int64_t end, int64_t tokens) const;
  /// Rows of the KV cache that an operator reads; 0 for all but attention.
  int64_t context_of(int op, const ProfileTask& task) const;

 private:
  int64_t head_rows() const;
  bool has_two_orders(size_t processor) const;
  void add_order_tasks(size_t processor, std::span<const int64_t> lengths,
                       std::vector<ProfileTask>& tasks) const;
  int layers_for(int64_t tokens) const;
  int64_t columns_of(int op, int64_t parts) const;

  const Graph& graph_;
  const std::span<Processor* const> processors_;
  const std::vector<int64_t>& lengths_;
  const int64_t context_;
  const int64_t grid_;
};

}  // namespace hetero
