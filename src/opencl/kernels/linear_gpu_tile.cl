// y = x W^T + b for many rows of x on GPUs: work-groups share tiles in local memory, W decoded into
// them once for each tile; nothing decoded ever reaches global memory. Included once for each size.
// Host: TILE_NAME, the kernel's name; TILE_M rows of x and TILE_N rows of W in a tile, of which one
// work-item computes THREAD_M x THREAD_N outputs, both multiples of 4; TILE_K of k at a time, a
// multiple of 2 * RUN; STAGES: with 2, the next tile has a place of its own and is put there while
// others still work on this one. With HALF_TILES, tiles are in fp16, and so are sums over HALF_STEPS of
// k, which are then added up in float.

#if HALF_TILES
#pragma OPENCL EXTENSION cl_khr_fp16 : enable
#define TILE1 half
#define TILE4 half4
#define TO_TILE4(v) convert_half4(v)
#define HALF_STEPS 4  // divides TILE_K
#else
#define TILE1 float
#define TILE4 float4
#define TO_TILE4(v) (v)
#endif
#define SIDE_M (TILE_M / THREAD_M)
#define SIDE_N (TILE_N / THREAD_N)
#define TILE_LANES (SIDE_M * SIDE_N)
#define X_EACH (TILE_M * (TILE_K / 4) / TILE_LANES)     // vectors of x that one work-item brings
#define W_EACH (TILE_N * (TILE_K / UNIT) / TILE_LANES)  // and units of W
#define PAD 4  // floats; keeps the transposed stores of neighbours in different banks
#define X_ROW (TILE_M + PAD)
#define W_ROW (TILE_N + PAD)

// Dimension 0: tiles of W's rows. Dimension 1: tiles of x's rows. Of k, a tile holds
// whole units of the weights, in the units' order, which for a sum is as good as any. The next tile is
// on its way to registers, still undecoded, while this one is worked on.
__attribute__((reqd_work_group_size(TILE_LANES, 1, 1)))
kernel void TILE_NAME(global const float* x, long x_offset, long x_stride,  //
                      global float* y, long y_offset, long y_stride,        //
                      global const uchar* w, long w_bytes, global const float* bias, int has_bias, int n, int k,
                      int tokens) {
  local TILE4 xs4[STAGES][TILE_K][X_ROW / 4];
  local TILE4 ws4[STAGES][TILE_K][W_ROW / 4];
  const int lane = get_local_id(0);
  const int lane_n = lane % SIDE_N;
  const int lane_m = lane / SIDE_N;
  const int n_begin = get_group_id(0) * TILE_N;
  const int t_begin = get_group_id(1) * TILE_M;
  if (t_begin >= tokens) {
    return;
  }
  x += x_offset;
  w += w_bytes;
  const bool aligned = (((ulong)x | (ulong)(x_stride * 4)) & 15) == 0;
  float sums[THREAD_M][THREAD_N];
#pragma unroll
  for (int i = 0; i < THREAD_M; ++i) {
#pragma unroll
    for (int j = 0; j < THREAD_N; ++j) {
      sums[i][j] = 0.0f;
    }
  }
  float4 x_next[X_EACH];
  Raw w_next[W_EACH];
  const uint units = (k + UNIT - 1) / UNIT;
  // Rows behind the last repeat it, unstored. Behind k, x is zero and W some other unit.
#define BRING(chunk)                                                                                 \
  _Pragma("unroll") for (int e = 0; e < W_EACH; ++e) {                                               \
    const int at = lane + e * TILE_LANES;                                                            \
    w_next[e] = raw_at(w + min(n_begin + at % TILE_N, n - 1) * row_bytes(k),                         \
                       min((uint)((chunk) + at / TILE_N), units - 1), k);                            \
  }                                                                                                  \
  _Pragma("unroll") for (int e = 0; e < X_EACH; ++e) {                                               \
    const int at = lane + e * TILE_LANES;                                                            \
    const int j = at % (TILE_K / 4);                                                                 \
    const uint unit = (chunk) + j / (UNIT / 4);                                                      \
    const uint i = first_element(unit) + (j % (UNIT / 4)) * SPLIT;                                   \
    global const float* in = x + min(t_begin + at / (TILE_K / 4), tokens - 1) * x_stride;            \
    x_next[e] = unit >= units                  ? (float4)(0.0f)                                      \
                : aligned && i + 4 <= (uint)k ? *(global const float4*)(in + i)                      \
                                               : row_floats(in, i, k);                               \
  }
#define PUT(stage)                                                                                   \
  _Pragma("unroll") for (int e = 0; e < W_EACH; ++e) {                                               \
    const int at = lane + e * TILE_LANES;                                                            \
    const Unit u = unit_of(w_next[e]);                                                               \
    const TILE4 low = TO_TILE4(unit_low(u)), high = TO_TILE4(unit_high(u));                         \
    local TILE1* to = (local TILE1*)ws4[stage] + at / TILE_N * UNIT * W_ROW + at % TILE_N;           \
    to[0] = low.s0, to[W_ROW] = low.s1, to[2 * W_ROW] = low.s2, to[3 * W_ROW] = low.s3;              \
    to += RUN * W_ROW;                                                                               \
    to[0] = high.s0, to[W_ROW] = high.s1, to[2 * W_ROW] = high.s2, to[3 * W_ROW] = high.s3;          \
  }                                                                                                  \
  _Pragma("unroll") for (int e = 0; e < X_EACH; ++e) {                                               \
    const int at = lane + e * TILE_LANES;                                                            \
    const TILE4 v = TO_TILE4(x_next[e]);                                                             \
    local TILE1* to = (local TILE1*)xs4[stage] + at % (TILE_K / 4) * 4 * X_ROW + at / (TILE_K / 4);  \
    to[0] = v.s0, to[X_ROW] = v.s1, to[2 * X_ROW] = v.s2, to[3 * X_ROW] = v.s3;                      \
  }
  // sums += what step i of the tile adds
#define PRODUCTS(sums)                                                 \
  TILE1 a[THREAD_M], b[THREAD_N];                                      \
  _Pragma("unroll") for (int p = 0; p < THREAD_M / 4; ++p) {           \
    vstore4(xs4[stage][i][p * SIDE_M + lane_m], p, a);                 \
  }                                                                    \
  _Pragma("unroll") for (int q = 0; q < THREAD_N / 4; ++q) {           \
    vstore4(ws4[stage][i][q * SIDE_N + lane_n], q, b);                 \
  }                                                                    \
  _Pragma("unroll") for (int p = 0; p < THREAD_M; ++p) {               \
    _Pragma("unroll") for (int q = 0; q < THREAD_N; ++q) {             \
      sums[p][q] = fma(a[p], b[q], sums[p][q]);                        \
    }                                                                  \
  }
  BRING(0)
  PUT(0)
  barrier(CLK_LOCAL_MEM_FENCE);
  int stage = 0;
  for (uint chunk = 0; chunk < units; chunk += TILE_K / UNIT) {
    BRING(chunk + TILE_K / UNIT)
#if HALF_TILES
    for (int begin = 0; begin < TILE_K; begin += HALF_STEPS) {
      half parts[THREAD_M][THREAD_N];
#pragma unroll
      for (int p = 0; p < THREAD_M; ++p) {
#pragma unroll
        for (int q = 0; q < THREAD_N; ++q) {
          parts[p][q] = 0.0f;
        }
      }
#pragma unroll
      for (int i = begin; i < begin + HALF_STEPS; ++i) {
        PRODUCTS(parts)
      }
#pragma unroll
      for (int p = 0; p < THREAD_M; ++p) {
#pragma unroll
        for (int q = 0; q < THREAD_N; ++q) {
          sums[p][q] += convert_float(parts[p][q]);
        }
      }
    }
#else
#pragma unroll TILE_UNROLL
    for (int i = 0; i < TILE_K; ++i) {
      PRODUCTS(sums)
    }
#endif
    if (STAGES == 1) {
      barrier(CLK_LOCAL_MEM_FENCE);
    } else {
      stage ^= 1;
    }
    PUT(stage)
    barrier(CLK_LOCAL_MEM_FENCE);
  }
  y += y_offset;
#pragma unroll
  for (int p = 0; p < THREAD_M; ++p) {
    const int t = t_begin + (p / 4 * SIDE_M + lane_m) * 4 + p % 4;
#pragma unroll
    for (int q = 0; q < THREAD_N; ++q) {
      const int row = n_begin + (q / 4 * SIDE_N + lane_n) * 4 + q % 4;
      if (t < tokens && row < n) {
        y[t * y_stride + row] = sums[p][q] + (has_bias ? bias[row] : 0.0f);
      }
    }
  }
}

#undef TILE_NAME
#undef TILE_M
#undef TILE_N
#undef TILE_K
#undef THREAD_M
#undef THREAD_N
#undef STAGES
#undef TILE_UNROLL
#undef SIDE_M
#undef SIDE_N
#undef TILE_LANES
#undef X_EACH
#undef W_EACH
#undef PAD
#undef X_ROW
#undef W_ROW
#undef BRING
#undef PUT
#undef PRODUCTS
#undef TILE1
#undef TILE4
#undef TO_TILE4
