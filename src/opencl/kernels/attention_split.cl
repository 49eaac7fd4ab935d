// Causal attention for few rows of queries on GPUs (Flash-Decoding: Dao et al., 2023): the context is
// cut into parts, one work-group for each, so that the whole device works on a long one;
// attention_join puts the parts together. Rows and query heads as in attention_gpu.cl.
// Host: HEAD_DIM, a multiple of 32; what cache.cl wants, ROWS of queries in a work-group, LANES >= 32 * ROWS.
// Rows of the caches are aligned to 16 bytes.

#define STEP_KEYS 32               // keys at a time
#define KEY_LANES (LANES / STEP_KEYS)  // work-items that share a key

// Values: lanes side by side have neighbouring elements, and where there are more lanes than elements,
// V_PARTS sets of lanes share the keys.
#if LANES > HEAD_DIM
#define V_PARTS (LANES / HEAD_DIM)
#else
#define V_PARTS 1
#endif
#define V_LANES (LANES / V_PARTS)                        // used of them: the first HEAD_DIM, or all
#define V_OWNED ((HEAD_DIM + V_LANES - 1) / V_LANES)     // elements of one lane

#define PART_SIZE (HEAD_DIM + 2)  // floats of one row in one part: sums, the largest score, the sum of weights

// Dimension 0: kv heads. Dimension 1: parts of `span` keys, a multiple of STEP_KEYS, for each block of
// ROWS rows: number block * parts + part. With one part, the result goes to `a`; with more, to
// `partial`: [row of all][head][part][PART_SIZE].
kernel LANE_GROUP void attention_part(global const float* q, long q_offset, long q_stride,              //
                                      global const CACHE_TYPE* k_cache, long k_offset, long k_stride,  //
                                      global const CACHE_TYPE* v_cache, long v_offset, long v_stride,  //
                                      global float* a, long a_offset, long a_stride,                   //
                                      global float* partial, int span, int parts, int kv_heads, int group,
                                      float scale, float cap, int window, int position, int tokens) {
  local float4 queries[ROWS * HEAD_DIM / 4];
  local float shares[ROWS * KEY_LANES * STEP_KEYS];
  local float weights[ROWS * STEP_KEYS];
  local float sums_of_parts[V_PARTS > 1 ? V_PARTS * ROWS * HEAD_DIM : 1];
  const int lane = get_local_id(0);
  const int kv_head = get_group_id(0);
  const int part = get_group_id(1) % parts;
  const int first = get_group_id(1) / parts * ROWS;
  const int count = min(ROWS, tokens * group - first);
  if (count <= 0) {
    return;
  }
  q += q_offset;
  k_offset += kv_head * HEAD_DIM;
  v_offset += kv_head * HEAD_DIM;
  for (int e = lane; e < ROWS * HEAD_DIM; e += LANES) {
    const int row = min(first + e / HEAD_DIM, tokens * group - 1);
    ((local float*)queries)[e] =
        scale * q[row / group * q_stride + (kv_head * group + row % group) * HEAD_DIM + e % HEAD_DIM];
  }
  const int seen = position + (first + count - 1) / group + 1;  // by the block's last row
  const int start = window > 0 ? max(0, position + first / group + 1 - window) : 0;  // by the first
  const int part_begin = start + part * span;
  const int part_end = min(part_begin + span, seen);
  // The row whose weights this lane makes, and its largest score and sum of weights so far, the same
  // in all its lanes.
  float top[ROWS];
  float total[ROWS];
  float sums[ROWS][V_OWNED];
#pragma unroll
  for (int r = 0; r < ROWS; ++r) {
    top[r] = LOWEST;
    total[r] = 0.0f;
#pragma unroll
    for (int o = 0; o < V_OWNED; ++o) {
      sums[r][o] = 0.0f;
    }
  }
  const int key = lane / KEY_LANES;
  const int share = lane % KEY_LANES;
  const int v_part = lane / V_LANES;
  const int v_lane = lane % V_LANES;
  barrier(CLK_LOCAL_MEM_FENCE);
  for (int begin = part_begin; begin < part_end; begin += STEP_KEYS) {
    // Keys behind the last repeat it, and weigh nothing.
    const long k_row = k_offset + min(begin + key, seen - 1) * k_stride;
    float values[V_OWNED][STEP_KEYS / V_PARTS];  // on their way while scores are made
#pragma unroll
    for (int o = 0; o < V_OWNED; ++o) {
      const int i = min(v_lane + o * V_LANES, HEAD_DIM - 1);
#pragma unroll
      for (int j = 0; j < STEP_KEYS / V_PARTS; ++j) {
        values[o][j] = CACHE1(v_cache, v_offset + min(begin + j * V_PARTS + v_part, seen - 1) * v_stride + i);
      }
    }
    float dots[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
      dots[r] = 0.0f;
    }
#pragma unroll
    for (int i = 0; i < HEAD_DIM / 8; i += KEY_LANES) {
      if (HEAD_DIM / 8 % KEY_LANES == 0 || i + share < HEAD_DIM / 8) {
        const float8 k = cache8(k_cache, k_row + (i + share) * 8);
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
          const float4 u = queries[r * (HEAD_DIM / 4) + (i + share) * 2];
          const float4 v = queries[r * (HEAD_DIM / 4) + (i + share) * 2 + 1];
          dots[r] += dot(u, k.lo) + dot(v, k.hi);
        }
      }
    }
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
      shares[(r * KEY_LANES + share) * STEP_KEYS + key] = dots[r];
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    // One lane for each key of each row; LANES >= STEP_KEYS * ROWS.
    const int r_mine = lane / STEP_KEYS % ROWS;
    const int j_mine = lane % STEP_KEYS;
    float score = 0.0f;
#pragma unroll
    for (int s = 0; s < KEY_LANES; ++s) {
      score += shares[(r_mine * KEY_LANES + s) * STEP_KEYS + j_mine];
    }
    if (cap > 0.0f) {
      score = cap * tanh(score / cap);
    }
    const int behind = position + min(first + r_mine, tokens * group - 1) / group - (begin + j_mine);
    const bool visible = begin + j_mine < part_end && behind >= 0 && (window == 0 || behind < window);
    weights[r_mine * STEP_KEYS + j_mine] = visible ? score : LOWEST;
    barrier(CLK_LOCAL_MEM_FENCE);
    float keep[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
      float m = top[r];
#pragma unroll
      for (int j = 0; j < STEP_KEYS; ++j) {
        m = fmax(m, weights[r * STEP_KEYS + j]);
      }
      keep[r] = exp(top[r] - m);
      top[r] = m;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    float new_top = top[0];
#pragma unroll
    for (int r = 1; r < ROWS; ++r) {
      new_top = r_mine == r ? top[r] : new_top;
    }
    weights[r_mine * STEP_KEYS + j_mine] = visible ? exp(score - new_top) : 0.0f;
    barrier(CLK_LOCAL_MEM_FENCE);
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
      float sum = 0.0f;
#pragma unroll
      for (int j = 0; j < STEP_KEYS; ++j) {
        sum += weights[r * STEP_KEYS + j];
      }
      total[r] = total[r] * keep[r] + sum;
#pragma unroll
      for (int o = 0; o < V_OWNED; ++o) {
        sums[r][o] *= keep[r];
      }
    }
#pragma unroll
    for (int o = 0; o < V_OWNED; ++o) {
#pragma unroll
      for (int j = 0; j < STEP_KEYS / V_PARTS; ++j) {
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
          sums[r][o] = fma(weights[r * STEP_KEYS + j * V_PARTS + v_part], values[o][j], sums[r][o]);
        }
      }
    }
    barrier(CLK_LOCAL_MEM_FENCE);
  }
#if V_PARTS > 1
  if (v_lane < HEAD_DIM) {
    for (int r = 0; r < ROWS; ++r) {
      sums_of_parts[(v_part * ROWS + r) * HEAD_DIM + v_lane] = sums[r][0];
    }
  }
  barrier(CLK_LOCAL_MEM_FENCE);
#pragma unroll
  for (int r = 0; r < ROWS; ++r) {
    sums[r][0] = 0.0f;
#pragma unroll
    for (int s = 0; s < V_PARTS; ++s) {
      sums[r][0] += sums_of_parts[(s * ROWS + r) * HEAD_DIM + min(v_lane, HEAD_DIM - 1)];
    }
  }
#endif
#pragma unroll
  for (int r = 0; r < ROWS; ++r) {
    const int row = first + r;
    const int head = kv_head * group + row % group;
    global float* out = parts == 1
                            ? a + a_offset + row / group * a_stride + head * HEAD_DIM
                            : partial + (((long)(row / group) * kv_heads * group + head) * parts + part) * PART_SIZE;
    const float factor = parts == 1 ? 1.0f / total[r] : 1.0f;
#pragma unroll
    for (int o = 0; o < V_OWNED; ++o) {
      const int i = v_lane + o * V_LANES;
      if (r < count && v_part == 0 && i < HEAD_DIM) {
        out[i] = sums[r][o] * factor;
      }
    }
    if (r < count && parts > 1 && lane == 0) {
      out[HEAD_DIM] = top[r];
      out[HEAD_DIM + 1] = total[r];
    }
  }
}

// Dimension 0: heads. Dimension 1: tokens.
kernel LANE_GROUP void attention_join(global const float* partial, global float* a, long a_offset, long a_stride,
                                      int parts, int heads, int tokens) {
  const int t = get_group_id(1);
  if (t >= tokens) {
    return;
  }
  const int head = get_group_id(0);
  partial += ((long)t * heads + head) * parts * PART_SIZE;
  a += a_offset + t * a_stride + head * HEAD_DIM;
  float top = LOWEST;
  for (int p = 0; p < parts; ++p) {
    top = fmax(top, partial[p * PART_SIZE + HEAD_DIM]);
  }
  for (int i = get_local_id(0); i < HEAD_DIM; i += LANES) {
    float sum = 0.0f, total = 0.0f;
#pragma unroll 4
    for (int p = 0; p < parts; ++p) {
      global const float* from = partial + p * PART_SIZE;
      const float weight = exp(from[HEAD_DIM] - top);
      sum = fma(weight, from[i], sum);
      total = fma(weight, from[HEAD_DIM + 1], total);
    }
    a[i] = sum / total;
  }
}
