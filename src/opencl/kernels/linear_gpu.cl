// y = x W^T + b on GPUs: work-groups of LANES work-items share tiles in local memory, W decoded
// into them once for each tile; nothing decoded ever reaches global memory.

#ifndef TILE_M
#define TILE_M 64  // rows of x
#endif
#ifndef TILE_N
#define TILE_N 64  // rows of W
#endif
#define TILE_K 32
#define THREAD_M 4  // outputs of one work-item
#define THREAD_N 4
#define TILE_LANES ((TILE_M / THREAD_M) * (TILE_N / THREAD_N))
#define PAD 4  // floats; keeps the transposed stores of neighbours in different banks

// Dimension 0: tiles of W's rows. Dimension 1: tiles of x's rows.
__attribute__((reqd_work_group_size(TILE_LANES, 1, 1)))
kernel void linear_tile(global const float* x, long x_offset, long x_stride,  //
                        global float* y, long y_offset, long y_stride,        //
                        global const uchar* w, long w_bytes, global const float* bias, int has_bias, int n, int k,
                        int tile_rows, int tokens) {
  local float xs[TILE_K][TILE_M + PAD];
  local float ws[TILE_K][TILE_N + PAD];
  const int lane = get_local_id(0);
  const int lane_n = lane % (TILE_N / THREAD_N);
  const int lane_m = lane / (TILE_N / THREAD_N);
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
  for (int chunk = 0; chunk < k; chunk += TILE_K) {
    for (int e = lane; e < TILE_N * TILE_K / 8; e += TILE_LANES) {
      const int row = e / (TILE_K / 8);
      const int i = 8 * (e % (TILE_K / 8));
      float8 v = 0.0f;
      if (n_begin + row < n && chunk + i < k) {
        v = weight8(w + (n_begin + row) * row_bytes(k), chunk + i, k);
      }
      ws[i][row] = v.s0, ws[i + 1][row] = v.s1, ws[i + 2][row] = v.s2, ws[i + 3][row] = v.s3;
      ws[i + 4][row] = v.s4, ws[i + 5][row] = v.s5, ws[i + 6][row] = v.s6, ws[i + 7][row] = v.s7;
    }
    for (int e = lane; e < TILE_M * TILE_K; e += TILE_LANES) {
      const int row = e / TILE_K;
      const int i = e % TILE_K;
      const bool inside = t_begin + row < tokens && chunk + i < k;
      xs[i][row] = inside ? x[(t_begin + row) * x_stride + chunk + i] : 0.0f;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int i = 0; i < TILE_K; ++i) {
      const float4 a = vload4(0, &xs[i][lane_m * THREAD_M]);
      const float4 b = vload4(0, &ws[i][lane_n * THREAD_N]);
      const float av[4] = {a.x, a.y, a.z, a.w};
      const float bv[4] = {b.x, b.y, b.z, b.w};
      for (int p = 0; p < THREAD_M; ++p) {
        for (int q = 0; q < THREAD_N; ++q) {
          sums[p][q] = fma(av[p], bv[q], sums[p][q]);
        }
      }
    }
    barrier(CLK_LOCAL_MEM_FENCE);
  }
  y += y_offset;
  for (int p = 0; p < THREAD_M; ++p) {
    const int t = t_begin + lane_m * THREAD_M + p;
    for (int q = 0; q < THREAD_N; ++q) {
      const int row = n_begin + lane_n * THREAD_N + q;
      if (t < tokens && row < n) {
        y[t * y_stride + row] = sums[p][q] + (has_bias ? bias[row] : 0.0f);
      }
    }
  }
}

// Few rows of x (dimension 1: groups of VECTOR_TOKENS). Each row of W is shared by the lanes of one
// team: a sub-group where the device has them, otherwise TEAM lanes of the work-group.
#define TEAM 32
#define VECTOR_ROWS 4  // rows of W for each work-group
#define VECTOR_TOKENS 4

inline void vector_sums(global const float* x, long x_stride, int tokens, global const uchar* row, int k, int lane,
                        int team, float* sums) {
  for (int i = 8 * lane; i < k; i += 8 * team) {
    const float8 v = weight8(row, i, k);
    for (int t = 0; t < VECTOR_TOKENS; ++t) {
      if (t < tokens) {
#if BLOCK == 1
        const float8 u = v * floats8(x + t * x_stride, i, k);
#else
        const float8 u = v * vload8(0, x + t * x_stride + i);
#endif
        sums[t] += sum8(u);
      }
    }
  }
}

__attribute__((reqd_work_group_size(TEAM * VECTOR_ROWS, 1, 1)))
kernel void linear_vector(global const float* x, long x_offset, long x_stride,  //
                          global float* y, long y_offset, long y_stride,        //
                          global const uchar* w, long w_bytes, global const float* bias, int has_bias, int n, int k,
                          int tokens) {
  const int t_begin = get_group_id(1) * VECTOR_TOKENS;
  const int live = tokens - t_begin;
  if (live <= 0) {
    return;
  }
  x += x_offset + t_begin * x_stride;
  y += y_offset + t_begin * y_stride;
  w += w_bytes;
  const int first = get_group_id(0) * VECTOR_ROWS;
  const int end = min(first + VECTOR_ROWS, n);
#if SUBGROUPS
  for (int r = first + (int)get_sub_group_id(); r < end; r += (int)get_num_sub_groups()) {
    float sums[VECTOR_TOKENS] = {0};
    vector_sums(x, x_stride, live, w + r * row_bytes(k), k, get_sub_group_local_id(), get_sub_group_size(), sums);
    for (int t = 0; t < VECTOR_TOKENS; ++t) {
      const float sum = sub_group_reduce_add(sums[t]);
      if (get_sub_group_local_id() == 0 && t < live) {
        y[t * y_stride + r] = sum + (has_bias ? bias[r] : 0.0f);
      }
    }
  }
#else
  local float shared[VECTOR_TOKENS][VECTOR_ROWS][TEAM];
  const int lane = get_local_id(0) % TEAM;
  const int team = get_local_id(0) / TEAM;
  const int r = first + team;
  float sums[VECTOR_TOKENS] = {0};
  if (r < end) {
    vector_sums(x, x_stride, live, w + r * row_bytes(k), k, lane, TEAM, sums);
  }
  for (int t = 0; t < VECTOR_TOKENS; ++t) {
    shared[t][team][lane] = sums[t];
  }
  for (int half_team = TEAM / 2; half_team > 0; half_team /= 2) {
    barrier(CLK_LOCAL_MEM_FENCE);
    if (lane < half_team) {
      for (int t = 0; t < VECTOR_TOKENS; ++t) {
        shared[t][team][lane] += shared[t][team][lane + half_team];
      }
    }
  }
  if (lane == 0 && r < end) {
    for (int t = 0; t < VECTOR_TOKENS; ++t) {
      if (t < live) {
        y[t * y_stride + r] = shared[t][team][0] + (has_bias ? bias[r] : 0.0f);
      }
    }
  }
#endif
}
