// The inner loops of the CPU processor: one table of functions for each instruction set level.
// Kernels work on plain pointers, on one thread, and allocate nothing; ops.h spreads them over
// threads.
//
// Every output element is computed by the same sequence of operations wherever a range is cut
// into calls, so results do not depend on the number of threads.
#pragma once

#include <cstddef>
#include <cstdint>

#include "gguf/dtype.h"

namespace hetero::cpu {

/// Rows of a weight matrix as they lie in the file.
struct WeightRows {
  DType dtype = DType::kF32;
  const std::byte* data = nullptr;  // of the first row
  int64_t row_bytes = 0;
  int64_t rows = 0;
};

/// Elements of a row that packing and products advance by: the largest block of the formats
/// below. Inner dimensions are cut into ranges at multiples of it.
constexpr int64_t kBlock = 32;

/// Query heads that share one kv head, for a run of tokens, over a range of the cache.
struct AttendArgs {
  const float* q = nullptr;  // [tokens, group * head_dim], rows q_stride apart
  int64_t q_stride = 0;
  int64_t tokens = 0;
  int64_t group = 0;
  int64_t head_dim = 0;
  float scale = 1.0f;
  const std::byte* k = nullptr;  // [positions, head_dim] of the kv head, rows k_bytes bytes apart
  int64_t k_bytes = 0;
  const std::byte* v = nullptr;
  int64_t v_bytes = 0;
  DType cache = DType::kF16;  // of k and v: F32, F16, or Q8_0 with head_dim a multiple of 32
  float cap = 0.0f;           // of the scores, 0: none; see Attention
  int64_t position = 0;       // of the first token: token t sees cache rows 0..position + t,
  int64_t window = 0;         // or, if not 0, the last so many of them
  int64_t cache_begin = 0;    // the part of the cache to look at
  int64_t cache_end = 0;
  float* out = nullptr;  // [tokens, group * head_dim], rows out_stride apart
  int64_t out_stride = 0;
  /// If set, unnormalized results go here instead of to out: [tokens * group, head_dim + 2], each
  /// row the weighted sum of v, the score whose weight is 1, times log2 e, and the sum of the weights.
  float* partial = nullptr;
  float* scratch = nullptr;  // attend_scratch() floats
};

struct Int8Kernels;

/// s = act(gate) * up
using GatedKernel = void (*)(const float* gate, const float* up, int64_t count, float* s);

struct Kernels {
  const char* level;
  const Int8Kernels* int8;
  int64_t tile_rows;  // MR: rows of activations that one register tile covers
  int64_t tile_cols;  // NR: output columns of one panel
  int64_t gemv_rows;  // up to so many activation rows, gemv() is faster than packing and tiles

  /// Decodes `count` elements, times `scale`.
  void (*decode)(DType dtype, const std::byte* src, int64_t count, float scale, float* dst);

  /// y[i, r] = dot(x row i, weight row r) + bias[r] for m rows of x, m <= gemv_rows. `bias` may be
  /// null. Reads the weights once, straight from their blocks.
  void (*gemv)(const WeightRows& w, int64_t k, const float* x, int64_t x_stride, int64_t m, const float* bias,
               float* y, int64_t y_stride);

  /// Copies rows <= MR rows of x into a tile [k][MR].
  void (*pack_tile)(const float* x, int64_t x_stride, int64_t rows, int64_t k, float* tile);

  /// Decodes elements [k_begin, k_begin + count) of w.rows <= NR rows into a panel [count][NR].
  /// Columns past w.rows hold anything finite rows hold. k_begin is a multiple of kBlock, and so
  /// is count, for block formats.
  void (*pack_panel)(const WeightRows& w, int64_t k_begin, int64_t count, float* panel);

  /// y[i, c] (+)= dot over `count` of tile rows and panel columns, for `rows` rows and `cols` <= NR
  /// columns. The first tile starts at `tiles`, the next ones tile_stride floats apart. With `add`
  /// y is added to, without it y is set, to the product plus bias[c] if bias is not null.
  void (*tiles)(const float* tiles, int64_t tile_stride, const float* panel, int64_t count, int64_t rows,
                int64_t cols, bool add, const float* bias, float* y, int64_t y_stride);

  /// Softmax attention without a score for more than one block of the cache at a time.
  void (*attend)(const AttendArgs& args);

  /// Merges `parts` partial results, part_stride floats apart, of one row into out[head_dim].
  void (*merge_partials)(const float* partial, int64_t parts, int64_t part_stride, int64_t head_dim,
                         float* out);

  /// s = x + y (x alone, and nothing stored, without y); h = s / sqrt(mean(s^2) + eps) * w.
  void (*rms_norm)(const float* x, const float* y, const float* w, int64_t cols, float eps, float* h,
                   float* s);

  GatedKernel silu_gated;
  GatedKernel gelu_gated;

  /// y = cap * tanh(x / cap), in place or not
  void (*soft_cap)(const float* x, int64_t count, float cap, float* y);

  /// One head: pairs of the first `rotary` elements rotate by table[2i], table[2i + 1] (cosine and
  /// sine); pair i is (i, i + rotary / 2) with `halves`, otherwise (2i, 2i + 1).
  void (*rotate)(const float* head, const float* table, int64_t head_dim, int64_t rotary, bool halves,
                 float* out);

  void (*to_f16)(const float* src, int64_t count, uint16_t* dst);

  /// `count`, a multiple of 32, elements into blocks of Q8_0.
  void (*to_q8_0)(const float* src, int64_t count, std::byte* dst);
};

/// Most query rows (tokens * group) that one call of attend() takes, and floats of scratch that it
/// needs.
constexpr int64_t kAttendRows = 64;
constexpr int64_t kAttendBlock = 64;  // cache rows looked at together
int64_t attend_scratch(int64_t head_dim);

extern const Kernels kScalarKernels;
#if defined(__x86_64__)
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
#endif

}  // namespace hetero::cpu
