// y = x W^T + b for few rows of x on GPUs: a work-group has VECTOR_ROWS rows of W, and its lanes share
// out their units. For many rows: linear_gpu_tile.cl.
// Host: VECTOR_LANES.

#define VECTOR_ROWS 4
#define FEW_TOKENS 4  // rows of x in one work-group of linear_few

// The sum over the lanes of each of `count` numbers, in lane i for number i.
inline float sum_lanes(const float* numbers, int count, local float* shared) {
  const int lane = get_local_id(0);
  float sum = 0.0f;
#if SUBGROUPS
  const int groups = get_num_sub_groups();
  for (int i = 0; i < count; ++i) {
    const float part = sub_group_reduce_add(numbers[i]);
    if (get_sub_group_local_id() == 0) {
      shared[i * groups + get_sub_group_id()] = part;
    }
  }
  barrier(CLK_LOCAL_MEM_FENCE);
  for (int j = 0; lane < count && j < groups; ++j) {
    sum += shared[lane * groups + j];
  }
#else
  for (int i = 0; i < count; ++i) {
    shared[i * VECTOR_LANES + lane] = numbers[i];
  }
  barrier(CLK_LOCAL_MEM_FENCE);
  // First `each` lanes for each number, then one.
  const int each = VECTOR_LANES / count;
  const int i = lane / each, first = lane % each;
  for (int j = first; j < VECTOR_LANES; j += each) {
    sum += shared[i * VECTOR_LANES + j];
  }
  barrier(CLK_LOCAL_MEM_FENCE);
  shared[i * (each + 1) + first] = sum;
  barrier(CLK_LOCAL_MEM_FENCE);
  sum = 0.0f;
  for (int j = 0; lane < count && j < each; ++j) {
    sum += shared[lane * (each + 1) + j];
  }
#endif
  return sum;
}

#if BLOCK == 1
#define ALIGNED_FLOATS(row, i, cols) row_floats(row, i, cols)
#else
#define ALIGNED_FLOATS(row, i, cols) (*(global const float4*)((row) + (i)))
#endif

// The body of the kernels below, for TOKENS rows of x of which `live` exist. The others repeat the
// last one, unstored, as rows of W behind the last do.
#define VECTOR_BODY(TOKENS, FLOATS_AT)                                                             \
  float4 sums[VECTOR_ROWS * TOKENS];                                                               \
  for (int i = 0; i < VECTOR_ROWS * TOKENS; ++i) {                                                 \
    sums[i] = 0.0f;                                                                                \
  }                                                                                                \
  for (uint unit = lane; unit * UNIT < (uint)k; unit += VECTOR_LANES) {                            \
    const uint i = first_element(unit);                                                            \
    Unit rows[VECTOR_ROWS];                                                                        \
    _Pragma("unroll") for (int r = 0; r < VECTOR_ROWS; ++r) {                                      \
      rows[r] = unit_at(w + min(first + r, n - 1) * row_bytes(k), unit, k);                        \
    }                                                                                              \
    _Pragma("unroll") for (int t = 0; t < TOKENS; ++t) {                                           \
      global const float* in = x + min(t, live - 1) * x_stride;                                    \
      const float4 low = FLOATS_AT(in, i, (uint)k), high = FLOATS_AT(in, i + SPLIT, (uint)k);      \
      _Pragma("unroll") for (int r = 0; r < VECTOR_ROWS; ++r) {                                    \
        sums[t * VECTOR_ROWS + r] = unit_dot(rows[r], low, high, sums[t * VECTOR_ROWS + r]);       \
      }                                                                                            \
    }                                                                                              \
  }                                                                                                \
  _Pragma("unroll") for (int i = 0; i < VECTOR_ROWS * TOKENS; ++i) {                               \
    totals[i] = (sums[i].x + sums[i].y) + (sums[i].z + sums[i].w);                                 \
  }

#define VECTOR_KERNEL(NAME, TOKENS)                                                                         \
  __attribute__((reqd_work_group_size(VECTOR_LANES, 1, 1)))                                                 \
  kernel void NAME(global const float* x, long x_offset, long x_stride, global float* y, long y_offset,     \
                   long y_stride, global const uchar* w, long w_bytes, global const float* bias,            \
                   int has_bias, int n, int k, int tokens) {                                                \
    local float shared[VECTOR_ROWS * TOKENS * (VECTOR_LANES + 1)];                                          \
    const int lane = get_local_id(0);                                                                       \
    const int first = get_group_id(0) * VECTOR_ROWS;                                                        \
    const int t_begin = get_group_id(1) * TOKENS;                                                           \
    const int live = tokens - t_begin;                                                                      \
    if (live <= 0) {                                                                                        \
      return;                                                                                               \
    }                                                                                                       \
    x += x_offset + t_begin * x_stride;                                                                     \
    w += w_bytes;                                                                                           \
    float totals[VECTOR_ROWS * TOKENS];                                                                     \
    if ((((ulong)x | (ulong)(x_stride * 4)) & 15) == 0) {                                                   \
      VECTOR_BODY(TOKENS, ALIGNED_FLOATS)                                                                   \
    } else {                                                                                                \
      VECTOR_BODY(TOKENS, row_floats)                                                                       \
    }                                                                                                       \
    const float total = sum_lanes(totals, VECTOR_ROWS * TOKENS, shared);                                    \
    const int r = first + lane % VECTOR_ROWS;                                                               \
    const int t = lane / VECTOR_ROWS;                                                                       \
    if (lane < VECTOR_ROWS * TOKENS && r < n && t < live) {                                                 \
      y[y_offset + (t_begin + t) * y_stride + r] = total + (has_bias ? bias[r] : 0.0f);                     \
    }                                                                                                       \
  }

VECTOR_KERNEL(linear_vector, 1)
VECTOR_KERNEL(linear_few, FEW_TOKENS)
