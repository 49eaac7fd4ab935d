// y = x W^T + b for many rows of x on GPUs with units for products of small matrices of bfloat16
// (NVIDIA from compute capability 8.0 on), as exact as in float32: the numbers of Q4_0 are integers,
// which bfloat16 holds; x is split into three bfloat16 whose sum it is; the units add up in float32,
// over one block of 32, whose scale then multiplies the sum. From weights in PLANES (blocks.cl).
//
// The product of the units is PTX's mma.m16n8k16 (PTX ISA, "Matrix fragments for mma.m16n8k16"): with
// g = lane / 4, t = lane % 4, a lane holds of A [16,16] rows g and g + 8, of B [16,8] column g, of both
// k = 2t, 2t+1, 2t+8, 2t+9, and of C rows g and g + 8, columns 2t and 2t + 1. A is W, B is x. Which
// element is which k is free, as long as A and B agree: here lane t has elements 4t .. 4t+3 of the
// first product of a block and 16+4t .. of the second, in the order 0, 2 | 1, 3, which is what masks
// make of a word of numbers.
//
// Host: A_TILES of 16 rows of W and T_TILES of 8 rows of x for each warp, WARPS side by side along W;
// EMULATE: 1 to compute the products without such units, for tests.

#define TILE_T (8 * T_TILES)
#define WARP_N (16 * A_TILES)
#define GROUP_LANES (32 * WARPS)
#define PIECES 12  // uint4 of a row of x in one block: [bfloat16 1..3][t]
#define X_EACH ((TILE_T * PIECES + GROUP_LANES - 1) / GROUP_LANES)

// The upper half: v as bfloat16, rounded to nearest.
inline uint bfloat_bits(float v) {
  const uint bits = as_uint(v);
  return (bits + 0x7fffu + (bits >> 16 & 1u)) & 0xffff0000u;
}

// x [tokens,k] -> [block][row][PIECES] for rows up to a multiple of TILE_T, zeros behind the last.
// Dimension 0: 4 work-items for each block. Dimension 1: rows.
kernel void split_x(global const float* x, long x_offset, long x_stride, global uint4* split, int k, int rows,
                    int tokens) {
  const int block = get_global_id(0) / 4;
  const int t = get_global_id(0) % 4;
  const int row = get_global_id(1);
  if (block >= k / 32 || row >= rows) {
    return;
  }
  x += x_offset + min(row, tokens - 1) * x_stride + block * 32 + 4 * t;
  float v[8];
  for (int i = 0; i < 8; ++i) {
    v[i] = row < tokens ? x[i % 4 + i / 4 * 16] : 0.0f;
  }
  for (int part = 0; part < 3; ++part) {
    uint bits[8];
    for (int i = 0; i < 8; ++i) {
      bits[i] = bfloat_bits(v[i]);
      v[i] -= as_float(bits[i]);
    }
    split[((long)block * rows + row) * PIECES + part * 4 + t] =
        (uint4)(bits[0] >> 16 | bits[2], bits[1] >> 16 | bits[3], bits[4] >> 16 | bits[6], bits[5] >> 16 | bits[7]);
  }
}

// Two numbers of four bits, at bits 0 and 16, less 8, as bfloat16: 0x4300 is 128, where the last bit
// counts 1; 0xc308 is -136.
inline uint pair_at(uint w) {
  const uint raised = (w & 0x000f000fu) | 0x43004300u;
#if EMULATE
  const float low = as_float(raised << 16) - 136.0f, high = as_float(raised & 0xffff0000u) - 136.0f;
  return bfloat_bits(low) >> 16 | bfloat_bits(high);
#else
  uint pair;
  __asm__("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(pair) : "r"(raised), "r"(0x3f803f80u), "r"(0xc308c308u));
  return pair;
#endif
}

// c += A B
#if EMULATE
#define MULTIPLY(c, a, b0, b1) multiply(c, a, b0, b1, exchange + get_local_id(0) / 32 * 32 * 6)
inline float half_of(uint pair, int i) { return as_float(i == 0 ? pair << 16 : pair & 0xffff0000u); }
inline void multiply(float* c, const uint* a, uint b0, uint b1, local uint* exchange) {
  const int lane = get_local_id(0) % 32;
  const int g = lane / 4, t = lane % 4;
  barrier(CLK_LOCAL_MEM_FENCE);
  for (int i = 0; i < 4; ++i) {
    exchange[lane * 6 + i] = a[i];
  }
  exchange[lane * 6 + 4] = b0;
  exchange[lane * 6 + 5] = b1;
  barrier(CLK_LOCAL_MEM_FENCE);
  for (int i = 0; i < 4; ++i) {
    for (int k = 0; k < 16; ++k) {
      const float u = half_of(exchange[(g * 4 + k % 8 / 2) * 6 + i / 2 + k / 8 * 2], k % 2);
      const float v = half_of(exchange[((2 * t + i % 2) * 4 + k % 8 / 2) * 6 + 4 + k / 8], k % 2);
      c[i] = fma(u, v, c[i]);
    }
  }
}
#else
#define MULTIPLY(c, a, b0, b1)                                                                              \
  __asm__("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "  \
          "{%0,%1,%2,%3};"                                                                                  \
          : "+f"((c)[0]), "+f"((c)[1]), "+f"((c)[2]), "+f"((c)[3])                                          \
          : "r"((a)[0]), "r"((a)[1]), "r"((a)[2]), "r"((a)[3]), "r"(b0), "r"(b1))
#endif

// Dimension 0: rows of x, dimension 1: rows of W, so that groups that run together share weights.
__attribute__((reqd_work_group_size(GROUP_LANES, 1, 1)))
kernel void linear_matrix(global const uint4* x, int x_rows, global float* y, long y_offset, long y_stride,
                          global const uchar* w, long w_bytes, global const float* bias, int has_bias, int n,
                          int k, int tokens) {
  local uint4 xs[2][TILE_T * PIECES];
#if EMULATE
  local uint exchange[GROUP_LANES * 6];
#endif
  const int lane = get_local_id(0) % 32;
  const int g = lane / 4, t = lane % 4;
  const int n_begin = (get_group_id(1) * WARPS + get_local_id(0) / 32) * WARP_N;
  const int t_begin = get_group_id(0) * TILE_T;
  if (t_begin >= tokens) {
    return;
  }
  w += w_bytes;
  x += t_begin * PIECES;
  float sums[A_TILES][T_TILES][4];
#pragma unroll
  for (int a = 0; a < A_TILES; ++a) {
#pragma unroll
    for (int b = 0; b < T_TILES; ++b) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        sums[a][b][i] = 0.0f;
      }
    }
  }
  // The next block of x is on its way to registers while one is worked on, and the next four blocks of W.
  uint4 x_next[X_EACH];
#define BRING_X(block)                                                                                     \
  _Pragma("unroll") for (int e = 0; e < X_EACH; ++e) {                                                     \
    const int at = min((int)get_local_id(0) + e * GROUP_LANES, TILE_T * PIECES - 1);                       \
    x_next[e] = x[(long)min((block), k / 32 - 1) * x_rows * PIECES + at];                                  \
  }
#define PUT_X(stage)                                                                                       \
  _Pragma("unroll") for (int e = 0; e < X_EACH; ++e) {                                                     \
    const int at = get_local_id(0) + e * GROUP_LANES;                                                      \
    if (TILE_T * PIECES % GROUP_LANES == 0 || at < TILE_T * PIECES) {                                      \
      xs[stage][at] = x_next[e];                                                                           \
    }                                                                                                      \
  }
  uint4 words_next[A_TILES][2];
  uint2 scales_next[A_TILES][2];
#define BRING_W(quad)                                                                                      \
  _Pragma("unroll") for (int a = 0; a < A_TILES; ++a) {                                                    \
    _Pragma("unroll") for (int h = 0; h < 2; ++h) {                                                        \
      global const uchar* row = w + min(n_begin + a * 16 + h * 8 + g, n - 1) * row_bytes(k);               \
      const int at = min((quad), k / 128 - 1);                                                             \
      words_next[a][h] = ((global const uint4*)row)[at * 4 + t];                                           \
      scales_next[a][h] = ((global const uint2*)(row + k / 2))[at];                                        \
    }                                                                                                      \
  }
  BRING_X(0)
  BRING_W(0)
  PUT_X(0)
  barrier(CLK_LOCAL_MEM_FENCE);
  for (int quad = 0; quad < k / 128; ++quad) {
    uint words[A_TILES][2][4];
    float scales[A_TILES][2][4];
#pragma unroll
    for (int a = 0; a < A_TILES; ++a) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        vstore4(words_next[a][h], 0, words[a][h]);
        vstore2(halves_of(scales_next[a][h].s0), 0, scales[a][h]);
        vstore2(halves_of(scales_next[a][h].s1), 1, scales[a][h]);
      }
    }
    BRING_W(quad + 1)
#pragma unroll
    for (int block = 0; block < 4; ++block) {
      const int stage = block % 2;
      BRING_X(quad * 4 + block + 1)
      uint first[A_TILES][4], second[A_TILES][4];  // of the block's two products
#pragma unroll
      for (int a = 0; a < A_TILES; ++a) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const uint word = words[a][h][block];
          first[a][h] = pair_at(word), first[a][2 + h] = pair_at(word >> 8);
          second[a][h] = pair_at(word >> 4), second[a][2 + h] = pair_at(word >> 12);
        }
      }
#pragma unroll
      for (int b = 0; b < T_TILES; ++b) {
        float products[A_TILES][4];
#pragma unroll
        for (int a = 0; a < A_TILES; ++a) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            products[a][i] = 0.0f;
          }
        }
#pragma unroll
        for (int part = 2; part >= 0; --part) {  // the smallest first
          const uint4 v = xs[stage][(b * 8 + g) * PIECES + part * 4 + t];
#pragma unroll
          for (int a = 0; a < A_TILES; ++a) {
            MULTIPLY(products[a], first[a], v.s0, v.s1);
          }
#pragma unroll
          for (int a = 0; a < A_TILES; ++a) {
            MULTIPLY(products[a], second[a], v.s2, v.s3);
          }
        }
#pragma unroll
        for (int a = 0; a < A_TILES; ++a) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            sums[a][b][i] = fma(scales[a][i / 2][block], products[a][i], sums[a][b][i]);
          }
        }
      }
      PUT_X(1 - stage)
      barrier(CLK_LOCAL_MEM_FENCE);
    }
  }
  y += y_offset;
#pragma unroll
  for (int a = 0; a < A_TILES; ++a) {
#pragma unroll
    for (int b = 0; b < T_TILES; ++b) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int row = n_begin + a * 16 + i / 2 * 8 + g;
        const int token = t_begin + b * 8 + 2 * t + i % 2;
        if (row < n && token < tokens) {
          y[token * y_stride + row] = sums[a][b][i] + (has_bias ? bias[row] : 0.0f);
        }
      }
    }
  }
}
