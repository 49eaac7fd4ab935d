// Products in two-dimensional tile registers (AMX), for prompts: the same packed weights as the 8-bit
// products of AVX-512 read (int8.h), decoded to bf16, times activations rounded to bf16, summed in f32.
//
// Why not in 8-bit tiles, which do twice as many products an instruction: weights have a scale for each
// 32 columns, so every half-filled 8-bit tile would have to leave the tile registers to be scaled. bf16
// keeps as many bits of an activation (8) as the 8-bit products do.
#pragma once

#include <cstddef>
#include <cstdint>

#include "gguf/dtype.h"

namespace hetero::cpu {

struct TileKernels {
  int64_t rows;  // of activations in a group

  /// One row of x into every rows-th line of 32 numbers, from `to` on. A group of rows of k columns
  /// is [k / 32][rows][32].
  void (*round_row)(const float* x, int64_t k, uint16_t* to);

  /// y[i, c] = dot(x row i, weight row c) + bias[c] for `count` rows of x, in whole groups from `x` on
  /// (lines past the last row hold anything finite), and `cols` weight rows: of the panel, and of those
  /// behind it. `bias` may be null.
  void (*multiply)(DType dtype, const std::byte* panel, int64_t k, const uint16_t* x, int64_t count,
                   int64_t cols, const float* bias, float* y, int64_t y_stride);
};

#if defined(__x86_64__)
extern const TileKernels kAmxTileKernels;

/// Asks the operating system for the tile registers, for all threads of this process. False: refused.
bool request_amx();
#endif

}  // namespace hetero::cpu
