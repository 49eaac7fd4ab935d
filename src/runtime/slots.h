// Which values share memory. The paper's buffer pool (section 4.3): a few host-visible buffers,
// mapped once into all processors and reused by every layer.
#pragma once

#include <cstdint>
#include <vector>

#include "graph/graph.h"

namespace hetero {

struct Slot {
  int64_t bytes = 0;
};

/// Rows of memory for each kind of value.
struct RowCapacity {
  int64_t tokens = 0;   // padding included
  int64_t outputs = 0;  // likewise
  int64_t context = 0;
};

struct SlotAssignment {
  std::vector<int> slot_of;  // by ValueId
  std::vector<Slot> slots;
};

/// Gives every value a slot such that two values share one only if the first is never read once
/// the second is written. KV caches and what the output head reads from the body keep a slot of
/// their own, and so do the logits, whose memory drivers of some GPUs pin. Best fit, in the order of the
/// operators. `joined`: a value is taken as read until so many operators after its last reader, for
/// processors that run some in one piece (Traits::joined).
SlotAssignment assign_slots(const Graph& graph, const RowCapacity& capacity, int joined = 0);

}  // namespace hetero
