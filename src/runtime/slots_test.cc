#include "runtime/slots.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tiny_graph.h"

namespace hetero {
namespace {

TEST(Slots, LayersReuseTheSameFewBuffers) {
  const TinyGraph two(2);
  const TinyGraph ten(10);
  const RowCapacity capacity{64, 4, 128};
  const auto temporary = [&](const TinyGraph& tiny) {
    const size_t caches = 2 * static_cast<size_t>(tiny.graph.shape.layers);
    return assign_slots(tiny.graph, capacity).slots.size() - caches;
  };
  EXPECT_EQ(temporary(two), temporary(ten));
  EXPECT_LE(temporary(ten), 9u);
}

TEST(Slots, NoValueIsOverwrittenBeforeItsLastReader) {
  const TinyGraph tiny(3);
  const SlotAssignment a = assign_slots(tiny.graph, {64, 4, 128});
  // Walks the operators with a table of which value each slot holds.
  std::vector<int> holds(a.slots.size(), -1);
  const auto slot = [&](ValueId id) { return static_cast<size_t>(a.slot_of[static_cast<size_t>(id)]); };
  holds[slot(tiny.graph.ids)] = tiny.graph.ids;
  for (int pass = 0; pass < 2; ++pass) {  // the head twice over one body
    for (int op = pass == 0 ? 0 : tiny.graph.head_begin; op < static_cast<int>(tiny.graph.ops.size()); ++op) {
      for (const ValueId id : tiny.graph.op(op).inputs) {
        if (tiny.graph.value(id).rows != Rows::kContext) {
          EXPECT_EQ(holds[slot(id)], id) << tiny.graph.op(op).name << " reads " << tiny.graph.value(id).name;
        }
      }
      for (const ValueId id : tiny.graph.op(op).outputs) {
        for (const ValueId input : tiny.graph.op(op).inputs) {
          EXPECT_NE(slot(id), slot(input)) << tiny.graph.op(op).name << " would work in place";
        }
        holds[slot(id)] = id;
      }
    }
  }
}

TEST(Slots, LogitsHaveMemoryThatNothingElseUses) {
  const TinyGraph tiny(3);
  const SlotAssignment a = assign_slots(tiny.graph, {64, 4, 128});
  const int slot = a.slot_of[static_cast<size_t>(tiny.graph.logits)];
  EXPECT_EQ(std::count(a.slot_of.begin(), a.slot_of.end(), slot), 1);
}

TEST(Slots, EveryValueFits) {
  const TinyGraph tiny(3);
  const RowCapacity capacity{64, 4, 128};
  const SlotAssignment a = assign_slots(tiny.graph, capacity);
  for (size_t i = 0; i < tiny.graph.values.size(); ++i) {
    const Value& v = tiny.graph.values[i];
    const int64_t rows = v.rows == Rows::kContext ? 128 : v.rows == Rows::kOutputs ? 4 : 64;
    EXPECT_GE(a.slots[static_cast<size_t>(a.slot_of[i])].bytes, rows * v.cols * 4) << v.name;
  }
}

TEST(Slots, CachesInBlocksTakeAboutHalfOfThoseInHalfPrecision) {
  const auto cache_bytes = [](DType dtype) {
    const TinyGraph tiny(1, DType::kQ8_0);
    Graph graph = tiny.graph;
    for (Value& value : graph.values) {
      value.dtype = value.rows == Rows::kContext ? dtype : value.dtype;
    }
    const SlotAssignment a = assign_slots(graph, {64, 4, 128});
    int64_t bytes = 0;
    for (size_t i = 0; i < graph.values.size(); ++i) {
      if (graph.values[i].rows == Rows::kContext) {
        bytes += a.slots[static_cast<size_t>(a.slot_of[i])].bytes;
      }
    }
    return bytes;
  };
  EXPECT_EQ(cache_bytes(DType::kF16), 2 * 128 * 64 * 2);
  EXPECT_EQ(cache_bytes(DType::kQ8_0), 2 * 128 * 64 * 34 / 32);
}

TEST(Slots, OutputsOfJoinedOperatorsLieApartFromTheirInputs) {
  const TinyGraph tiny(3);
  const SlotAssignment a = assign_slots(tiny.graph, {64, 4, 128}, 2);
  for (int op = 0; op < static_cast<int>(tiny.graph.ops.size()); ++op) {
    for (int later = op; later < std::min(op + 3, static_cast<int>(tiny.graph.ops.size())); ++later) {
      for (const ValueId in : tiny.graph.op(op).inputs) {
        for (const ValueId out : tiny.graph.op(later).outputs) {
          EXPECT_TRUE(in == out || a.slot_of[static_cast<size_t>(in)] != a.slot_of[static_cast<size_t>(out)])
              << tiny.graph.op(op).name << ", " << tiny.graph.op(later).name;
        }
      }
    }
  }
}

}  // namespace
}  // namespace hetero
