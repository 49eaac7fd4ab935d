// Causal attention with online softmax (Milakov and Gimelshein, arXiv 1805.02867; Dao et al., arXiv
// 2205.14135) on GPUs: one work-group for each kv head (dimension 0) and block of query rows
// (dimension 1). Query heads that share a kv head are rows of one block, so each key is read once
// for all of them: row r is head r % group of token r / group.
// Host: HEAD_DIM, CACHE_F16, QUERIES and KEYS so that the tiles fit the local memory.

#define STRIDE (HEAD_DIM + 1)  // odd or not, neighbours' rows start in different banks
#define OWNED ((QUERIES * HEAD_DIM + LANES - 1) / LANES)  // outputs of one work-item

#ifdef CACHE_F16
#define CACHE_TYPE half
#define CACHE1(p) vload_half(0, p)
#else
#define CACHE_TYPE float
#define CACHE1(p) (*(p))
#endif

kernel LANE_GROUP void attention(global const float* q, long q_offset, long q_stride,              //
                                 global const CACHE_TYPE* k_cache, long k_offset, long k_stride,  //
                                 global const CACHE_TYPE* v_cache, long v_offset, long v_stride,  //
                                 global float* a, long a_offset, long a_stride,                   //
                                 int group, float scale, int position, int tokens) {
  local float queries[QUERIES * HEAD_DIM];
  local float rows[KEYS * STRIDE];
  local float scores[QUERIES * KEYS];
  local float top[QUERIES];
  local float total[QUERIES];
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
  k_cache += k_offset + kv_head * HEAD_DIM;
  v_cache += v_offset + kv_head * HEAD_DIM;
  for (int e = lane; e < QUERIES * HEAD_DIM; e += LANES) {
    const int row = min(first + e / HEAD_DIM, tokens * group - 1);
    queries[e] = scale * q[row / group * q_stride + (kv_head * group + row % group) * HEAD_DIM + e % HEAD_DIM];
  }
  for (int r = lane; r < QUERIES; r += LANES) {
    top[r] = -INFINITY;
    total[r] = 0.0f;
  }
  float sums[OWNED];
  for (int o = 0; o < OWNED; ++o) {
    sums[o] = 0.0f;
  }
  const int seen = position + (first + count - 1) / group + 1;  // by the block's last row
  for (int begin = 0; begin < seen; begin += KEYS) {
    const int keys = min(KEYS, seen - begin);
    for (int e = lane; e < KEYS * HEAD_DIM; e += LANES) {
      const int j = e / HEAD_DIM;
      const int i = e % HEAD_DIM;
      rows[j * STRIDE + i] = j < keys ? CACHE1(k_cache + (begin + j) * k_stride + i) : 0.0f;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int e = lane; e < count * KEYS; e += LANES) {
      const int r = e / KEYS;
      const int j = e % KEYS;
      float dot_product = 0.0f;
      for (int i = 0; i < HEAD_DIM; ++i) {
        dot_product = fma(queries[r * HEAD_DIM + i], rows[j * STRIDE + i], dot_product);
      }
      scores[e] = j < keys && begin + j <= position + (first + r) / group ? dot_product : -INFINITY;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int r = lane; r < count; r += LANES) {
      float m = top[r];
      for (int j = 0; j < KEYS; ++j) {
        m = fmax(m, scores[r * KEYS + j]);
      }
      float sum = 0.0f;
      for (int j = 0; j < KEYS; ++j) {
        const float p = exp(scores[r * KEYS + j] - m);
        scores[r * KEYS + j] = p;
        sum += p;
      }
      keep[r] = exp(top[r] - m);
      total[r] = total[r] * keep[r] + sum;
      top[r] = m;
    }
    for (int e = lane; e < KEYS * HEAD_DIM; e += LANES) {
      const int j = e / HEAD_DIM;
      const int i = e % HEAD_DIM;
      rows[j * STRIDE + i] = j < keys ? CACHE1(v_cache + (begin + j) * v_stride + i) : 0.0f;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int o = 0; o < OWNED; ++o) {
      const int e = lane + o * LANES;
      const int r = e / HEAD_DIM;
      if (r < count) {
        float sum = sums[o] * keep[r];
        for (int j = 0; j < KEYS; ++j) {
          sum = fma(scores[r * KEYS + j], rows[j * STRIDE + e % HEAD_DIM], sum);
        }
        sums[o] = sum;
      }
    }
    barrier(CLK_LOCAL_MEM_FENCE);
  }
  for (int o = 0; o < OWNED; ++o) {
    const int e = lane + o * LANES;
    const int r = e / HEAD_DIM;
    if (r < count) {
      const int row = first + r;
      a[row / group * a_stride + (kv_head * group + row % group) * HEAD_DIM + e % HEAD_DIM] = sums[o] / total[r];
    }
  }
}
