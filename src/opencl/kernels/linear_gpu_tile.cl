// y = x W^T + b for many rows of x on GPUs: work-groups share tiles in local memory, W decoded into
// them once for each tile; nothing decoded ever reaches global memory. Included once for each size.
// Host: TILE_NAME, the kernel's name; TILE_M rows of x and TILE_N rows of W in a tile, of which one
// work-item computes THREAD_M x THREAD_N outputs, both multiples of 4; TILE_K of k at a time, a
// multiple of 2 * RUN.

#define SIDE_M (TILE_M / THREAD_M)
#define SIDE_N (TILE_N / THREAD_N)
#define TILE_LANES (SIDE_M * SIDE_N)
#define X_EACH (TILE_M * TILE_K / TILE_LANES)         // elements of x that one work-item brings
#define W_EACH (TILE_N * (TILE_K / UNIT) / TILE_LANES)  // and units of W
#define PAD 4  // floats; keeps the transposed stores of neighbours in different banks
#define X_ROW (TILE_M + PAD)
#define W_ROW (TILE_N + PAD)

// Dimension 0: tiles of W's rows. Dimension 1: tiles of x's rows. Of k, a tile holds whole units of
// the weights, in the units' order, which for a sum is as good as any. The next tile is on its way
// to registers while this one is worked on.
__attribute__((reqd_work_group_size(TILE_LANES, 1, 1)))
kernel void TILE_NAME(global const float* x, long x_offset, long x_stride,  //
                      global float* y, long y_offset, long y_stride,        //
                      global const uchar* w, long w_bytes, global const float* bias, int has_bias, int n, int k,
                      int tokens) {
  local float4 xs4[TILE_K][X_ROW / 4];
  local float4 ws4[TILE_K][W_ROW / 4];
  local float* xs = (local float*)xs4;
  local float* ws = (local float*)ws4;
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
  float sums[THREAD_M][THREAD_N];
  for (int i = 0; i < THREAD_M; ++i) {
    for (int j = 0; j < THREAD_N; ++j) {
      sums[i][j] = 0.0f;
    }
  }
  float x_next[X_EACH];
  float4 low_next[W_EACH], high_next[W_EACH];
  const uint units = (k + UNIT - 1) / UNIT;
  // Rows behind the last repeat it, unstored; what lies behind k is zero.
#define BRING(chunk)                                                                        \
  _Pragma("unroll") for (int e = 0; e < W_EACH; ++e) {                                      \
    const int at = lane + e * TILE_LANES;                                                   \
    const uint unit = (chunk) + at / TILE_N;                                                \
    low_next[e] = high_next[e] = 0.0f;                                                      \
    if (unit < units) {                                                                     \
      const Unit u = unit_at(w + min(n_begin + at % TILE_N, n - 1) * row_bytes(k), unit, k); \
      low_next[e] = unit_low(u), high_next[e] = unit_high(u);                               \
    }                                                                                       \
  }                                                                                         \
  _Pragma("unroll") for (int e = 0; e < X_EACH; ++e) {                                      \
    const int at = lane + e * TILE_LANES;                                                   \
    const int j = at % TILE_K;                                                              \
    const int i = first_element((chunk) + j / UNIT) + j % RUN + j % UNIT / RUN * SPLIT;     \
    x_next[e] = i < k ? x[min(t_begin + at / TILE_K, tokens - 1) * x_stride + i] : 0.0f;    \
  }
  BRING(0)
  for (uint chunk = 0; chunk < units; chunk += TILE_K / UNIT) {
#pragma unroll
    for (int e = 0; e < W_EACH; ++e) {
      const int at = lane + e * TILE_LANES;
      local float* to = ws + at / TILE_N * UNIT * W_ROW + at % TILE_N;
      to[0] = low_next[e].s0, to[W_ROW] = low_next[e].s1;
      to[2 * W_ROW] = low_next[e].s2, to[3 * W_ROW] = low_next[e].s3;
      to += RUN * W_ROW;
      to[0] = high_next[e].s0, to[W_ROW] = high_next[e].s1;
      to[2 * W_ROW] = high_next[e].s2, to[3 * W_ROW] = high_next[e].s3;
    }
#pragma unroll
    for (int e = 0; e < X_EACH; ++e) {
      const int at = lane + e * TILE_LANES;
      xs[at % TILE_K * X_ROW + at / TILE_K] = x_next[e];
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    BRING(chunk + TILE_K / UNIT)
#pragma unroll 8
    for (int i = 0; i < TILE_K; ++i) {
      float a[THREAD_M], b[THREAD_N];
#pragma unroll
      for (int p = 0; p < THREAD_M / 4; ++p) {
        vstore4(xs4[i][p * SIDE_M + lane_m], p, a);
      }
#pragma unroll
      for (int q = 0; q < THREAD_N / 4; ++q) {
        vstore4(ws4[i][q * SIDE_N + lane_n], q, b);
      }
#pragma unroll
      for (int p = 0; p < THREAD_M; ++p) {
#pragma unroll
        for (int q = 0; q < THREAD_N; ++q) {
          sums[p][q] = fma(a[p], b[q], sums[p][q]);
        }
      }
    }
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
#undef SIDE_M
#undef SIDE_N
#undef TILE_LANES
#undef X_EACH
#undef W_EACH
#undef PAD
#undef X_ROW
#undef W_ROW
#undef BRING
