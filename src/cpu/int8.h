// Products of weights with activations that are rounded to 8-bit integers, in blocks of 32 elements
// with one scale each: twice to four times the speed of f32 products, for an error of about 1/254 of
// each block's largest element. Used only where it was asked for (OpenOptions::activations).
//
// Weights are packed once: panels of `lanes` rows whose numbers lie side by side, so that one vector
// holds the same four columns of every row. The same functions serve one row and many.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/kernels.h"
#include "cpu/tiles.h"

namespace hetero::cpu {

/// What belongs to 32 activations: x[i] = scale * q[i].
struct Int8Block {
  float scale;
  float sum;           // scale * (q[0] + ... + q[31])
  float first_sum;     // scale * (q[0] + ... + q[15])
  int32_t q_sum8;      // 8 * (q[0] + ... + q[31])
  int32_t first_sum8;  // 8 * (q[0] + ... + q[15])
  // For levels that have groups (int8_block_pairs_inl.h): in a row's first block, the scale of its last
  // group; in the first one of each further group, how many times its group's scale that of the group before
  // is.
  float group_scale;
};

/// And what products with whole-number scales (int8_whole_inl.h) read besides; apart, since large prompts
/// stream by. Numbers of a level that has none are 0.
struct Int8Whole {
  // Where sums of products of 0..15 that stand for -8..7 start, by level: -q_sum8; or two numbers of 16 bits,
  // -8 * those of q[0], q[1], q[4], q[5], ..., and -8 * the others.
  int32_t start8;
  // In even blocks, 16 bits for this one and for the next: their scales in group_scale / 2^15, and their
  // q_sum8 in group_scale.
  int32_t pair_scales;
  int32_t pair_sums8;
};

/// Rows of activations, quantized, in groups of `tile` rows that lie interleaved: block b of row i is
/// the ((i / tile * (k / 32) + b) * tile + i % tile)-th. k is a multiple of 32.
struct Int8Rows {
  int8_t* q = nullptr;  // 32 for each block
  Int8Block* blocks = nullptr;
  Int8Whole* whole = nullptr;
  int64_t tile = 1;

  Int8Rows from(int64_t block) const { return {q + 32 * block, blocks + block, whole + block, tile}; }

  /// From block `block` of row `row` on, of rows of `row_blocks` blocks.
  Int8Rows at(int64_t row, int64_t block, int64_t row_blocks) const {
    return from((row / tile * row_blocks + block) * tile + row % tile);
  }
};

/// What products of a layer's first two FFN weights become, in place of both.
struct Int8Gate {
  GatedKernel act = nullptr;
  const std::byte* up = nullptr;  // panels as the others, whose products are `gate`: as many rows, one type
  /// If not null, rows of `row_blocks` blocks: results are rounded into their first ones, up to finish_row(),
  /// and y is not written. Only with a multiple of 32 lanes.
  const Int8Rows* rounded = nullptr;
  int64_t row_blocks = 0;
};

struct Int8Kernels {
  int64_t lanes;  // weight rows in a panel
  int64_t tile;   // largest Int8Rows::tile; with more rows than that, the tile must be this

  /// Bytes of a panel of rows of k elements; 0 where there is no kernel for the type.
  int64_t (*panel_bytes)(DType dtype, int64_t k);

  /// Packs w.rows <= lanes rows; lanes past the last repeat it. The panel is 64-byte aligned.
  void (*pack_panel)(const WeightRows& w, int64_t k, std::byte* panel);

  /// One row, rounded to the nearest of 255 steps of each block (as GGUF's Q8_1 does, but with an exact
  /// scale), into every tile-th block of `to`.
  void (*quantize_row)(const float* x, int64_t k, const Int8Rows& to);

  /// What quantize_row() does last: what depends on a row's blocks together, which were rounded apart.
  void (*finish_row)(int64_t k, const Int8Rows& row);

  /// y[i, c] = dot(x row i, weight row c) + bias[c] for `rows` rows of x and `cols` weight rows: of the
  /// panel, and of those behind it. `bias` may be null. With `gate`, y[i, c] = act(that) * the product with
  /// weight row c of gate->up; `bias` is null then.
  void (*multiply)(DType dtype, const std::byte* panel, int64_t k, const Int8Rows& x, int64_t rows,
                   int64_t cols, const float* bias, const Int8Gate* gate, float* y, int64_t y_stride);

  /// For many rows, over the same panels, or nullptr.
  const TileKernels* tiles;
};

extern const Int8Kernels kScalarInt8Kernels;
#if defined(__x86_64__)
extern const Int8Kernels kAvx2Int8Kernels;
extern const Int8Kernels kAvxVnniInt8Kernels;  // AVX2 with the VEX form of VNNI
extern const Int8Kernels kAvx512VnniInt8Kernels;
#elif defined(__aarch64__)
extern const Int8Kernels kDotProductInt8Kernels;
extern const Int8Kernels kI8mmInt8Kernels;
#endif

}  // namespace hetero::cpu
