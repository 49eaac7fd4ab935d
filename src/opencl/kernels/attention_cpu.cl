// Causal attention with online softmax (Milakov and Gimelshein, arXiv 1805.02867; Dao et al., arXiv
// 2205.14135) on devices of type CPU: one work-item for each kv head (dimension 0) and block of
// query rows (dimension 1). Query heads that share a kv head are rows of one block, so each key is
// read once for all of them: row r is head r % group of token r / group.
// Host: HEAD_DIM, and what cache.cl wants.

#define PADDED ((HEAD_DIM + 7) / 8 * 8)
#define QUERIES 12  // rows of one block; a multiple of 2
#define KEYS 32     // decoded at a time; a multiple of 8

// `count` rows of a cache, from element `at` on, as floats, zeros behind HEAD_DIM and behind the last row.
inline void load_rows(global const CACHE_TYPE* cache, long at, long stride, int count, SHARED float* out) {
  for (int j = 0; j < count; ++j, at += stride, out += PADDED) {
    for (int i = 0; i + 8 <= HEAD_DIM; i += 8) {
      vstore8(cache8(cache, at + i), 0, out + i);
    }
    for (int i = HEAD_DIM / 8 * 8; i < PADDED; ++i) {
      out[i] = i < HEAD_DIM ? CACHE1(cache, at + i) : 0.0f;
    }
  }
  for (int i = 0; i < (KEYS - count) * PADDED; i += 8) {
    vstore8((float8)(0.0f), 0, out + i);
  }
}

TASK attention(global const float* q, long q_offset, long q_stride,              //
               global const CACHE_TYPE* k_cache, long k_offset, long k_stride,  //
               global const CACHE_TYPE* v_cache, long v_offset, long v_stride,  //
               global float* a, long a_offset, long a_stride,                   //
               int group, float scale, float cap, int window, int position, int tokens AT_GROUP) {
  SHARED float rows[KEYS * PADDED] __attribute__((aligned(32)));
  SHARED float queries[QUERIES * PADDED] __attribute__((aligned(32)));
  SHARED float sums[QUERIES * PADDED] __attribute__((aligned(32)));
  SHARED float scores[QUERIES * KEYS] __attribute__((aligned(32)));
  float top[QUERIES];
  float total[QUERIES];
  const int kv_head = GROUP(0);
  const int first = GROUP(1) * QUERIES;
  const int count = min(QUERIES, tokens * group - first);
  if (count <= 0) {
    return;
  }
  const int even = (count + 1) / 2 * 2;
  q += q_offset;
  a += a_offset;
  k_offset += kv_head * HEAD_DIM;
  v_offset += kv_head * HEAD_DIM;
  for (int r = 0; r < even; ++r) {
    const int row = min(first + r, tokens * group - 1);
    global const float* in = q + row / group * q_stride + (kv_head * group + row % group) * HEAD_DIM;
    for (int i = 0; i < PADDED; ++i) {
      queries[r * PADDED + i] = i < HEAD_DIM ? in[i] * scale : 0.0f;
      sums[r * PADDED + i] = 0.0f;
    }
    top[r] = LOWEST;
    total[r] = 0.0f;
  }
  const int seen = position + (first + count - 1) / group + 1;  // by the block's last row
  const int start = window > 0 ? max(0, position + first / group + 1 - window) : 0;  // by the first
  for (int begin = start; begin < seen; begin += KEYS) {
    const int keys = min(KEYS, seen - begin);
    load_rows(k_cache, k_offset + begin * k_stride, k_stride, keys, rows);
    for (int r = 0; r < even; r += 2) {
      SHARED const float* q0 = queries + r * PADDED;
      for (int j = 0; j < KEYS; j += 4) {
        SHARED const float* k0 = rows + j * PADDED;
        float8 s00 = 0.0f, s01 = 0.0f, s02 = 0.0f, s03 = 0.0f, s10 = 0.0f, s11 = 0.0f, s12 = 0.0f, s13 = 0.0f;
        for (int i = 0; i < PADDED; i += 8) {
          const float8 u0 = vload8(0, q0 + i), u1 = vload8(0, q0 + PADDED + i);
          float8 k = vload8(0, k0 + i);
          s00 = fma(u0, k, s00), s10 = fma(u1, k, s10);
          k = vload8(0, k0 + PADDED + i);
          s01 = fma(u0, k, s01), s11 = fma(u1, k, s11);
          k = vload8(0, k0 + 2 * PADDED + i);
          s02 = fma(u0, k, s02), s12 = fma(u1, k, s12);
          k = vload8(0, k0 + 3 * PADDED + i);
          s03 = fma(u0, k, s03), s13 = fma(u1, k, s13);
        }
        vstore4((float4)(sum8(s00), sum8(s01), sum8(s02), sum8(s03)), 0, scores + r * KEYS + j);
        vstore4((float4)(sum8(s10), sum8(s11), sum8(s12), sum8(s13)), 0, scores + (r + 1) * KEYS + j);
      }
    }
    for (int r = 0; r < even; ++r) {
      // Keys that this row sees within the chunk: hidden .. visible.
      const int last = position + min(first + r, tokens * group - 1) / group + 1 - begin;
      const int visible = min(keys, last);
      const int hidden = window > 0 ? min(KEYS, last - window) : 0;
      SHARED float* s = scores + r * KEYS;
      if (cap > 0.0f) {
        for (int j = 0; j < KEYS; j += 8) {
          vstore8(cap * tanh(vload8(0, s + j) / cap), 0, s + j);
        }
      }
      for (int j = 0; j < hidden; ++j) {
        s[j] = LOWEST;
      }
      for (int j = max(visible, 0); j < KEYS; ++j) {
        s[j] = LOWEST;
      }
      float8 m = vload8(0, s);
      for (int j = 8; j < KEYS; j += 8) {
        m = fmax(m, vload8(0, s + j));
      }
      const float4 m4 = fmax(m.lo, m.hi);
      const float new_top = fmax(top[r], fmax(fmax(m4.x, m4.y), fmax(m4.z, m4.w)));
      float8 sum = 0.0f;
      for (int j = 0; j < KEYS; j += 8) {
        const float8 p = exp(vload8(0, s + j) - new_top);
        vstore8(p, 0, s + j);
        sum += p;
      }
      const float keep = exp(top[r] - new_top);
      top[r] = new_top;
      total[r] = total[r] * keep + sum8(sum);
      if (keep != 1.0f) {
        for (int i = 0; i < PADDED; i += 8) {
          vstore8(vload8(0, sums + r * PADDED + i) * keep, 0, sums + r * PADDED + i);
        }
      }
    }
    load_rows(v_cache, v_offset + begin * v_stride, v_stride, keys, rows);
    for (int r = 0; r < even; r += 2) {
      for (int i = 0; i < PADDED; i += 8) {
        float8 s0 = vload8(0, sums + r * PADDED + i);
        float8 s1 = vload8(0, sums + (r + 1) * PADDED + i);
        for (int j = 0; j < keys; ++j) {
          const float8 v = vload8(0, rows + j * PADDED + i);
          s0 = fma((float8)(scores[r * KEYS + j]), v, s0);
          s1 = fma((float8)(scores[(r + 1) * KEYS + j]), v, s1);
        }
        vstore8(s0, 0, sums + r * PADDED + i);
        vstore8(s1, 0, sums + (r + 1) * PADDED + i);
      }
    }
  }
  for (int r = 0; r < count; ++r) {
    const int row = first + r;
    global float* out = a + row / group * a_stride + (kv_head * group + row % group) * HEAD_DIM;
    const float inverse = 1.0f / total[r];
    for (int i = 0; i < HEAD_DIM; ++i) {
      out[i] = sums[r * PADDED + i] * inverse;
    }
  }
}
