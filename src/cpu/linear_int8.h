// Linear operators with activations rounded to 8 bits (int8.h), over threads.
#pragma once

#include <map>
#include <memory>
#include <tuple>

#include "base/memory.h"
#include "base/threads.h"
#include "cpu/int8.h"
#include "graph/graph.h"

namespace hetero::cpu {

/// Rows of a weight, to be packed for the level's kernels.
struct PackedRows {
  WeightRows source;
  int64_t k = 0;
  PageMemory panels;  // ceil(source.rows / lanes) of them; empty until packed
};

/// Packed rows shared between the executables that use them (prefill and decode, mostly).
class PackedWeights {
 public:
  /// The packed rows of a segment, k columns wide, or nullptr where there is no 8-bit kernel for its
  /// type. Packs nothing yet.
  std::shared_ptr<PackedRows> find(const LinearSegment& segment, int64_t k, const Int8Kernels& kernels);

  /// Of all packed rows that are in use.
  Bytes bytes() const;

 private:
  std::map<std::tuple<const std::byte*, int64_t>, std::weak_ptr<PackedRows>> rows_;
};

/// Packs the rows if they are not packed yet, and gives the pages of their mapped original back.
Status pack(PackedRows& rows, const Int8Kernels& kernels, ThreadPool& pool);

struct PackedSegment {
  std::shared_ptr<PackedRows> rows;
  int64_t out_begin = 0;  // column of the slice
};

/// Floats of scratch that multiply_packed() needs.
int64_t packed_scratch(int64_t tokens, int64_t k, const Int8Kernels& kernels);

/// y[t, out_begin + c] for all segments. x and y are rows x_stride and y_stride floats apart; `bias`,
/// of all the slice's columns, may be null. All segments are packed.
void multiply_packed(const std::vector<PackedSegment>& segments, const Int8Kernels& kernels, const float* x,
                     int64_t x_stride, int64_t tokens, int64_t k, const float* bias, float* y,
                     int64_t y_stride, float* scratch, ThreadPool& pool);

/// Whether the segments are gate and up as multiply_gated() takes them, of `rows` rows each.
bool can_gate(const std::vector<PackedSegment>& segments, int64_t rows);

/// Whether multiply_gated() takes so many tokens; whether it takes a `down`.
bool gates_tokens(const Int8Kernels& kernels, int64_t tokens);
bool rounds_gated(const Int8Kernels& kernels);

/// A product that reads what a gated one makes.
struct PackedDown {
  const std::vector<PackedSegment>* segments = nullptr;
  const float* bias = nullptr;
};

/// y = act(gate) * up, or with `down` its product with that, whose columns are then those of y. Needs
/// scratch for both products, and gives the same numbers as one after the other.
void multiply_gated(const std::vector<PackedSegment>& segments, const Int8Kernels& kernels, const float* x,
                    int64_t x_stride, int64_t tokens, int64_t k, GatedKernel act, const PackedDown* down,
                    float* y, int64_t y_stride, float* scratch, ThreadPool& pool);

}  // namespace hetero::cpu
