// Causal attention with online softmax (Milakov and Gimelshein, arXiv 1805.02867; Dao et al., arXiv
// 2205.14135) on GPUs: one work-group for each kv head (dimension 0) and block of query rows
// (dimension 1). Query heads that share a kv head are rows of one block, so each key is read once
// for all of them: row r is head r % group of token r / group.
// Rows behind the last one repeat it, unstored. Host: HEAD_DIM, what cache.cl wants, QUERIES and
// KEYS so that the tiles fit the local memory.

#define STRIDE (HEAD_DIM + 1)  // odd or not, neighbours' rows start in different banks
#define OWNED ((QUERIES * HEAD_DIM + LANES - 1) / LANES)  // outputs of one work-item

kernel LANE_GROUP void attention(global const float* q, long q_offset, long q_stride,              //
                                 global const CACHE_TYPE* k_cache, long k_offset, long k_stride,  //
                                 global const CACHE_TYPE* v_cache, long v_offset, long v_stride,  //
                                 global float* a, long a_offset, long a_stride,                   //
                                 int group, float scale, float cap, int window, int position, int tokens) {
  local float queries[QUERIES * HEAD_DIM];
  local float rows[KEYS * STRIDE];
  local float scores[QUERIES * KEYS];
  local float top[QUERIES];
  local float keep[QUERIES];
  const int lane = get_local_id(0);
  const int kv_head = get_group_id(0);
  const int first = get_group_id(1) * QUERIES;
  const int count = min(QUERIES, tokens * group - first);
  if (count <= 0) {
    return;
  }
  q += q_offset;
  a += a_offset;
  k_offset += kv_head * HEAD_DIM;
  v_offset += kv_head * HEAD_DIM;
  for (int e = lane; e < QUERIES * HEAD_DIM; e += LANES) {
    const int row = min(first + e / HEAD_DIM, tokens * group - 1);
    queries[e] = scale * q[row / group * q_stride + (kv_head * group + row % group) * HEAD_DIM + e % HEAD_DIM];
  }
  if (lane < QUERIES) {
    top[lane] = LOWEST;
  }
  // The sum of a row's weights is as cheap to make for each output as to share.
  float sums[OWNED];
  float totals[OWNED];
  for (int o = 0; o < OWNED; ++o) {
    sums[o] = 0.0f;
    totals[o] = 0.0f;
  }
  const int seen = position + (first + count - 1) / group + 1;  // by the block's last row
  const int start = window > 0 ? max(0, position + first / group + 1 - window) : 0;  // by the first
  for (int begin = start; begin < seen; begin += KEYS) {
    const int keys = min(KEYS, seen - begin);
    for (int e = lane; e < KEYS * HEAD_DIM; e += LANES) {
      const int j = e / HEAD_DIM;
      const int i = e % HEAD_DIM;
      rows[j * STRIDE + i] = j < keys ? CACHE1(k_cache, k_offset + (begin + j) * k_stride + i) : 0.0f;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int e = lane; e < QUERIES * KEYS; e += LANES) {
      const int r = e / KEYS;
      const int j = e % KEYS;
      float dot_product = 0.0f;
      for (int i = 0; i < HEAD_DIM; ++i) {
        dot_product = fma(queries[r * HEAD_DIM + i], rows[j * STRIDE + i], dot_product);
      }
      if (cap > 0.0f) {
        dot_product = cap * tanh(dot_product / cap);
      }
      // Keys behind this one; a row that sees none yet is rescaled to zero by its first.
      const int behind = position + min(first + r, tokens * group - 1) / group - (begin + j);
      scores[e] = j < keys && behind >= 0 && (window == 0 || behind < window) ? dot_product : LOWEST;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    if (lane < QUERIES) {  // QUERIES <= LANES
      float m = top[lane];
      for (int j = 0; j < KEYS; ++j) {
        m = fmax(m, scores[lane * KEYS + j]);
      }
      keep[lane] = exp(top[lane] - m);
      top[lane] = m;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int e = lane; e < QUERIES * KEYS; e += LANES) {
      scores[e] = exp(scores[e] - top[e / KEYS]);
    }
    for (int e = lane; e < KEYS * HEAD_DIM; e += LANES) {
      const int j = e / HEAD_DIM;
      const int i = e % HEAD_DIM;
      rows[j * STRIDE + i] = j < keys ? CACHE1(v_cache, v_offset + (begin + j) * v_stride + i) : 0.0f;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int o = 0; o < OWNED; ++o) {
      const int e = lane + o * LANES;
      const int r = e / HEAD_DIM;
      if (r < QUERIES) {
        float sum = sums[o] * keep[r];
        float total = totals[o] * keep[r];
        for (int j = 0; j < KEYS; ++j) {
          const float p = scores[r * KEYS + j];
          sum = fma(p, rows[j * STRIDE + e % HEAD_DIM], sum);
          total += p;
        }
        sums[o] = sum;
        totals[o] = total;
      }
    }
    barrier(CLK_LOCAL_MEM_FENCE);
  }
  for (int o = 0; o < OWNED; ++o) {
    const int e = lane + o * LANES;
    const int r = e / HEAD_DIM;
    if (r < count) {
      const int row = first + r;
      a[row / group * a_stride + (kv_head * group + row % group) * HEAD_DIM + e % HEAD_DIM] = sums[o] / totals[o];
    }
  }
}
