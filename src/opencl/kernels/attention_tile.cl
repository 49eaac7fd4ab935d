// Causal attention for many rows of queries on GPUs, as attention_gpu.cl has it, with more work for
// each load: a work-item makes 4 x 2 scores, and 4 rows of HEAD_DIM / 16 outputs.
// Host: HEAD_DIM, a multiple of 64; what cache.cl wants. Rows of the caches are aligned to 16 bytes.

#define TILE_QUERIES 32
#define TILE_KEYS 32
#define TILE_LANES 128      // 8 x 16: sets of four queries, sets of two keys or of outputs
#define ROW4 (HEAD_DIM / 4 + 1)  // float4s of a row in local memory
#define OWNED4 (HEAD_DIM / 64)   // float4s of outputs of one work-item, for each query
#define P_ROW (TILE_QUERIES + 4)

// Rows begin .. of a head's cache, which starts at element `at`; rows behind the last repeat it.
inline void bring_rows(global const CACHE_TYPE* cache, long at, long stride, int begin, int last,
                       local float4* rows) {
#pragma unroll
  for (int e = 0; e < TILE_KEYS * HEAD_DIM / 8 / TILE_LANES; ++e) {
    const int mine = get_local_id(0) + e * TILE_LANES;
    const int j = mine / (HEAD_DIM / 8), i = mine % (HEAD_DIM / 8);
    const float8 v = cache8(cache, at + min(begin + j, last) * stride + i * 8);
    rows[j * ROW4 + 2 * i] = v.lo;
    rows[j * ROW4 + 2 * i + 1] = v.hi;
  }
}

// Dimension 0: kv heads. Dimension 1: blocks of query rows, the last ones first, which see most.
__attribute__((reqd_work_group_size(TILE_LANES, 1, 1)))
kernel void attention(global const float* q, long q_offset, long q_stride,              //
                      global const CACHE_TYPE* k_cache, long k_offset, long k_stride,  //
                      global const CACHE_TYPE* v_cache, long v_offset, long v_stride,  //
                      global float* a, long a_offset, long a_stride,                   //
                      int group, float scale, float cap, int window, int position, int tokens) {
  local float4 queries[TILE_QUERIES * ROW4];
  local float4 rows[TILE_KEYS * ROW4];
  local float4 weights4[TILE_KEYS * P_ROW / 4];  // [key][query]
  local float reduced[TILE_QUERIES * 4];
  local float kept[TILE_QUERIES];
  local float* weights = (local float*)weights4;
  const int lane = get_local_id(0);
  const int kv_head = get_group_id(0);
  const int first = (get_num_groups(1) - 1 - get_group_id(1)) * TILE_QUERIES;
  const int count = min(TILE_QUERIES, tokens * group - first);
  if (count <= 0) {
    return;
  }
  q += q_offset;
  a += a_offset;
  k_offset += kv_head * HEAD_DIM;
  v_offset += kv_head * HEAD_DIM;
  for (int e = lane; e < TILE_QUERIES * HEAD_DIM; e += TILE_LANES) {
    const int r = e / HEAD_DIM;
    const int row = min(first + r, tokens * group - 1);
    ((local float*)(queries + r * ROW4))[e % HEAD_DIM] =
        scale * q[row / group * q_stride + (kv_head * group + row % group) * HEAD_DIM + e % HEAD_DIM];
  }
  const int q_set = lane / 16;   // of queries 4 q_set ..
  const int other = lane % 16;   // keys other and other + 16; outputs 4 (other + 16 o) ..
  const int s_row = lane / 4;    // in softmax: the row, and which quarter of its keys
  const int s_part = lane % 4;
  float top = LOWEST, total = 0.0f;  // of s_row; total: of the quarter
  float4 sums[4][OWNED4];
#pragma unroll
  for (int r = 0; r < 4; ++r) {
#pragma unroll
    for (int o = 0; o < OWNED4; ++o) {
      sums[r][o] = 0.0f;
    }
  }
  const int s_position = position + min(first + s_row, tokens * group - 1) / group;
  const int seen = position + (first + count - 1) / group + 1;  // by the block's last row
  const int start = window > 0 ? max(0, position + first / group + 1 - window) : 0;  // by the first
  for (int begin = start; begin < seen; begin += TILE_KEYS) {
    bring_rows(k_cache, k_offset, k_stride, begin, seen - 1, rows);
    barrier(CLK_LOCAL_MEM_FENCE);
    float scores[4][2];
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      scores[r][0] = scores[r][1] = 0.0f;
    }
#pragma unroll 4
    for (int i = 0; i < HEAD_DIM / 4; ++i) {
      const float4 k0 = rows[other * ROW4 + i], k1 = rows[(other + 16) * ROW4 + i];
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        const float4 u = queries[(4 * q_set + r) * ROW4 + i];
        scores[r][0] = fma(u.w, k0.w, fma(u.z, k0.z, fma(u.y, k0.y, fma(u.x, k0.x, scores[r][0]))));
        scores[r][1] = fma(u.w, k1.w, fma(u.z, k1.z, fma(u.y, k1.y, fma(u.x, k1.x, scores[r][1]))));
      }
    }
    weights4[other * (P_ROW / 4) + q_set] = (float4)(scores[0][0], scores[1][0], scores[2][0], scores[3][0]);
    weights4[(other + 16) * (P_ROW / 4) + q_set] =
        (float4)(scores[0][1], scores[1][1], scores[2][1], scores[3][1]);
    barrier(CLK_LOCAL_MEM_FENCE);
    bring_rows(v_cache, v_offset, v_stride, begin, seen - 1, rows);
    float mine[TILE_KEYS / 4];
    float m = LOWEST;
#pragma unroll
    for (int j = 0; j < TILE_KEYS / 4; ++j) {
      const int key = 4 * j + s_part;
      float s = weights[key * P_ROW + s_row];
      if (cap > 0.0f) {
        s = cap * tanh(s / cap);
      }
      const int behind = s_position - (begin + key);
      mine[j] = begin + key < seen && behind >= 0 && (window == 0 || behind < window) ? s : LOWEST;
      m = fmax(m, mine[j]);
    }
    reduced[lane] = m;
    barrier(CLK_LOCAL_MEM_FENCE);
    m = fmax(fmax(reduced[4 * s_row], reduced[4 * s_row + 1]), fmax(reduced[4 * s_row + 2], reduced[4 * s_row + 3]));
    m = fmax(m, top);
    const float keep = exp(top - m);  // what a row that sees none yet summed up, its first key makes zero
    top = m;
    total *= keep;
#pragma unroll
    for (int j = 0; j < TILE_KEYS / 4; ++j) {
      const float p = exp(mine[j] - m);
      total += p;
      weights[(4 * j + s_part) * P_ROW + s_row] = p;
    }
    if (s_part == 0) {
      kept[s_row] = keep;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const float factor = kept[4 * q_set + r];
#pragma unroll
      for (int o = 0; o < OWNED4; ++o) {
        sums[r][o] *= factor;
      }
    }
#pragma unroll 4
    for (int j = 0; j < TILE_KEYS; ++j) {
      const float4 p = weights4[j * (P_ROW / 4) + q_set];
#pragma unroll
      for (int o = 0; o < OWNED4; ++o) {
        const float4 v = rows[j * ROW4 + other + 16 * o];
        sums[0][o] = fma((float4)(p.x), v, sums[0][o]);
        sums[1][o] = fma((float4)(p.y), v, sums[1][o]);
        sums[2][o] = fma((float4)(p.z), v, sums[2][o]);
        sums[3][o] = fma((float4)(p.w), v, sums[3][o]);
      }
    }
    barrier(CLK_LOCAL_MEM_FENCE);
  }
  reduced[lane] = total;
  barrier(CLK_LOCAL_MEM_FENCE);
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    const int at = 4 * q_set + r;
    const float inverse =
        1.0f / ((reduced[4 * at] + reduced[4 * at + 1]) + (reduced[4 * at + 2] + reduced[4 * at + 3]));
    const int row = min(first + at, tokens * group - 1);
    global float* out = a + row / group * a_stride + (kv_head * group + row % group) * HEAD_DIM;
#pragma unroll
    for (int o = 0; o < OWNED4; ++o) {
      if (at < count) {
        vstore4(sums[r][o] * inverse, other + 16 * o, out);
      }
    }
  }
}
