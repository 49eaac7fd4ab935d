#include "runtime/slots.h"

#include <algorithm>
#include <limits>

namespace hetero {
namespace {

int64_t value_bytes(const Value& value, const RowCapacity& capacity) {
  const int64_t rows = value.rows == Rows::kContext   ? capacity.context
                       : value.rows == Rows::kOutputs ? capacity.outputs
                                                      : capacity.tokens;
  return row_bytes(value.dtype, rows * value.cols);
}

}  // namespace

SlotAssignment assign_slots(const Graph& graph, const RowCapacity& capacity, int joined) {
  constexpr int kForever = std::numeric_limits<int>::max();
  std::vector<int> last_read(graph.values.size(), -1);
  for (int op = 0; op < static_cast<int>(graph.ops.size()); ++op) {
    for (const ValueId id : graph.op(op).inputs) {
      // The head may run several times over one body's results, so it must not overwrite them.
      const bool from_body = graph.in_head(op) && graph.value(id).rows == Rows::kTokens;
      int& last = last_read[static_cast<size_t>(id)];
      last = from_body ? kForever : std::max(last, op + joined);
    }
  }
  last_read[static_cast<size_t>(graph.logits)] = kForever;
  for (size_t i = 0; i < graph.values.size(); ++i) {
    if (graph.values[i].rows == Rows::kContext) {
      last_read[i] = kForever;
    }
  }

  SlotAssignment result;
  result.slot_of.assign(graph.values.size(), -1);
  std::vector<int> free_after;  // by slot: the operator whose completion frees it
  const auto place = [&](ValueId id, int op) {
    int& slot = result.slot_of[static_cast<size_t>(id)];
    if (slot >= 0) {
      return;
    }
    const int64_t bytes = value_bytes(graph.value(id), capacity);
    int best = -1;
    for (int s = 0; s < static_cast<int>(result.slots.size()); ++s) {
      if (free_after[static_cast<size_t>(s)] >= op) {
        continue;
      }
      const auto size = [&](int i) { return result.slots[static_cast<size_t>(i)].bytes; };
      // The smallest that is large enough; otherwise the largest, which then grows.
      if (best < 0 || (size(s) >= bytes ? size(best) < bytes || size(s) < size(best)
                                        : size(best) < bytes && size(s) > size(best))) {
        best = s;
      }
    }
    if (best < 0 || graph.value(id).rows == Rows::kContext || id == graph.logits) {
      best = static_cast<int>(result.slots.size());
      result.slots.push_back({});
      free_after.push_back(-1);
    }
    slot = best;
    Slot& chosen = result.slots[static_cast<size_t>(best)];
    chosen.bytes = std::max(chosen.bytes, bytes);
    free_after[static_cast<size_t>(best)] = std::max(last_read[static_cast<size_t>(id)], op);
  };
  place(graph.ids, -1);
  for (int op = 0; op < static_cast<int>(graph.ops.size()); ++op) {
    for (const ValueId id : graph.op(op).outputs) {
      place(id, op);
    }
  }
  return result;
}

}  // namespace hetero
