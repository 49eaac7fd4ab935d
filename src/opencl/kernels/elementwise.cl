// Operators that pass over rows: RmsNorm, Rope, RopeTable, Gated, SoftCap, Route, ExpertSum.

// Tests that the device and the host see one memory: y[i] = x[i] + 1, and behind it whether x is at
// `address`, as the host sees it.
kernel LANE_GROUP void probe(global const int* x, global int* y, int count, ulong address) {
  if (get_local_id(0) == 0) {
    y[count] = (ulong)x == address;
  }
  for (int i = get_local_id(0); i < count; i += LANES) {
    y[i] = x[i] + 1;
  }
}

// Weights [.., cols] of 16 bytes of numbers behind `head` bytes of scales in each block of 32, to planes
// (blocks.cl). Dimension 0: blocks of a row. Dimension 1: rows. All are aligned to 2 bytes.
kernel void to_planes(global const ushort* from, global uchar* to, long to_bytes, int cols, int head) {
  const int block = get_global_id(0);
  const int row_bytes = cols / 32 * (head + 16);
  from += (get_global_id(1) * (long)row_bytes + (long)block * (head + 16)) / 2;
  to += to_bytes + get_global_id(1) * (long)row_bytes;
  for (int i = 0; i < head / 2; ++i) {
    ((global ushort*)(to + cols / 2))[block * (head / 2) + i] = from[i];
  }
  from += head / 2;
  for (int word = 0; word < 4; ++word) {
    const uint w = from[2 * word] | (uint)from[2 * word + 1] << 16;
    ((global uint*)to)[block / 4 * 16 + word * 4 + block % 4] = w;
  }
}

// Rows pass in steps: vectors of one work-item for devices of type CPU, and what is left of a row
// singly; single floats of neighbouring lanes for GPUs, which so load whole lines.
#if CPU_SHAPE
#define STEP 8
typedef float8 Step;
#define LOAD(p) vload8(0, p)
#define STORE(v, p) vstore8(v, 0, p)
#define SUM(v) sum8(v)
#define ACTIVATED activated8
#define STEPS_OF_ROW(i, end) for (int i = 0; i + 8 <= (end); i += 8)
#define REST_OF_ROW(i, end) for (int i = (end) / 8 * 8; i < (end); ++i)
#else
#define STEP 1
typedef float Step;
#define LOAD(p) (*(p))
#define STORE(v, p) (*(p) = (v))
#define SUM(v) (v)
#define ACTIVATED activated
// All lanes go round equally often: PoCL 3.1 loses the condition of loops, behind a barrier, that
// some lanes do not enter.
#define STEPS_OF_ROW(i, end) \
  for (int all = 0, i = get_local_id(0); all < (end); all += LANES, i += LANES) if (i < (end))
#define REST_OF_ROW(i, end) for (int i = 0; i < 0; ++i)
#endif

#if CPU_SHAPE
// One work-group for each row. s = x + y (has_residual), h = s / sqrt(mean(s^2) + eps) * w
TASK rms_norm(global const float* x, long x_offset, long x_stride,  //
              global const float* y, long y_offset, long y_stride,  //
              global float* h, long h_offset, long h_stride,        //
              global float* s, long s_offset, long s_stride,        //
              global const float* w, int has_residual, int cols, float eps, int tokens AT_GROUP) {
  SHARED float shared[LANES];
  const int t = GROUP(0);
  if (t >= tokens) {
    return;
  }
  x += x_offset + t * x_stride;
  h += h_offset + t * h_stride;
  Step squares = 0.0f;
  float rest = 0.0f;
  if (has_residual) {
    y += y_offset + t * y_stride;
    s += s_offset + t * s_stride;
    STEPS_OF_ROW(i, cols) {
      const Step v = LOAD(x + i) + LOAD(y + i);
      STORE(v, s + i);
      squares = mad(v, v, squares);
    }
    REST_OF_ROW(i, cols) {
      const float v = x[i] + y[i];
      s[i] = v;
      rest = mad(v, v, rest);
    }
    x = s;  // each lane reads back only what it wrote
  } else {
    STEPS_OF_ROW(i, cols) {
      const Step v = LOAD(x + i);
      squares = mad(v, v, squares);
    }
    REST_OF_ROW(i, cols) { rest = mad(x[i], x[i], rest); }
  }
  const float total = lanes_sum(SUM(squares) + rest, shared);
  const float scale = 1.0f / sqrt(total / (float)cols + eps);
  STEPS_OF_ROW(i, cols) {
    STORE(LOAD(x + i) * scale * LOAD(w + i), h + i);
  }
  REST_OF_ROW(i, cols) { h[i] = x[i] * scale * w[i]; }
}

#else

// The same. What a lane can keep of the row it reads once, and all at once.
#define NORM_KEPT 16

__attribute__((reqd_work_group_size(NORM_LANES, 1, 1)))
kernel void rms_norm(global const float* x, long x_offset, long x_stride,  //
                     global const float* y, long y_offset, long y_stride,  //
                     global float* h, long h_offset, long h_stride,        //
                     global float* s, long s_offset, long s_stride,        //
                     global const float* w, int has_residual, int cols, float eps, int tokens) {
  local float shared[NORM_LANES];
  const int lane = get_local_id(0);
  const int t = get_group_id(0);
  if (t >= tokens) {
    return;
  }
  x += x_offset + t * x_stride;
  y += y_offset + t * y_stride;
  h += h_offset + t * h_stride;
  s += s_offset + t * s_stride;
  float kept[NORM_KEPT];
  float factors[NORM_KEPT];  // w, which is on its way while squares are summed up
#pragma unroll
  for (int j = 0; j < NORM_KEPT; ++j) {
    const int i = lane + j * NORM_LANES;
    kept[j] = i < cols ? x[i] : 0.0f;
    factors[j] = i < cols ? w[i] : 0.0f;
  }
  if (has_residual) {
#pragma unroll
    for (int j = 0; j < NORM_KEPT; ++j) {
      const int i = lane + j * NORM_LANES;
      kept[j] += i < cols ? y[i] : 0.0f;
    }
#pragma unroll
    for (int j = 0; j < NORM_KEPT; ++j) {
      const int i = lane + j * NORM_LANES;
      if (i < cols) {
        s[i] = kept[j];
      }
    }
  }
  float squares = 0.0f;
#pragma unroll
  for (int j = 0; j < NORM_KEPT; ++j) {
    squares = mad(kept[j], kept[j], squares);
  }
  for (int i = lane + NORM_KEPT * NORM_LANES; i < cols; i += NORM_LANES) {
    float v = x[i];
    if (has_residual) {
      v += y[i];
      s[i] = v;
    }
    squares = mad(v, v, squares);
  }
  const float total = group_sum(squares, shared, NORM_LANES);
  const float scale = 1.0f / sqrt(total / (float)cols + eps);
#pragma unroll
  for (int j = 0; j < NORM_KEPT; ++j) {
    const int i = lane + j * NORM_LANES;
    if (i < cols) {
      h[i] = kept[j] * scale * factors[j];
    }
  }
  global const float* from = has_residual ? s : x;  // each lane reads back only what it wrote
  for (int all = NORM_KEPT * NORM_LANES; all < cols; all += NORM_LANES) {
    const int i = all + lane;
    if (i < cols) {
      h[i] = from[i] * scale * w[i];
    }
  }
}

#endif

// Groups along dimension 0 share a row, one chunk of columns each.
TASK gated(global const float* x, long x_offset, long x_stride,  //
           global float* y, long y_offset, long y_stride,        //
           int cols, int gelu, int chunk, int tokens AT_GROUP) {
  const int t = GROUP(1);
  if (t >= tokens) {
    return;
  }
  const int first = GROUP(0) * chunk;
  const int count = min(chunk, cols - first);
  x += x_offset + t * x_stride + first;
  y += y_offset + t * y_stride + first;
  STEPS_OF_ROW(i, count) {
    STORE(ACTIVATED(LOAD(x + i), gelu) * LOAD(x + cols + i), y + i);
  }
  REST_OF_ROW(i, count) {
    y[i] = activated(x[i], gelu) * x[cols + i];
  }
}

TASK rope_table(global float* y, long y_offset, long y_stride, global const float* parts,
                int pairs, float magnitude, int position, int tokens AT_GROUP) {
  const int t = GROUP(0);
  if (t >= tokens) {
    return;
  }
  y += y_offset + t * y_stride;
  for (int i = get_local_id(0); i < pairs; i += LANES) {
    vstore2(magnitude * cos_sin(parts, pairs, i, position + t), i, y);
  }
}

// Types of KV caches.
#define INTO_F32 0
#define INTO_F16 1
#define INTO_Q8_0 2  // blocks of a scale in F16 and 32 numbers

// Element `index` of a KV cache of a plain type.
inline void store_cache(float value, global uchar* cache, long index, int type) {
  if (type == INTO_F16) {
    vstore_half_rte(value, index, (global half*)cache);
  } else {
    ((global float*)cache)[index] = value;
  }
}

// One number of a block whose largest magnitude is `most`.
inline void store_number(float value, float most, global char* block, int i) {
  block[2 + i] = convert_char_sat_rte(most > 0x1p-100f ? value * (127.0f / most) : 0.0f);
}

// Element i of a head, after its norm if there is one.
inline float normed(global const float* head, int i, int has_norm, float scale, global const float* norm) {
  return has_norm ? head[i] * scale * norm[i] : head[i];
}

// Element i of a head after norm and rotation.
inline float rotated(global const float* head, global const float* table, int i, int rotary_dims, int halves,
                     int has_norm, float scale, global const float* norm) {
  if (i >= rotary_dims) {
    return normed(head, i, has_norm, scale, norm);
  }
  const int pairs = rotary_dims / 2;
  const int pair = halves ? i % pairs : i / 2;
  const int second = halves ? i >= pairs : i & 1;
  const float a = normed(head, halves ? pair : 2 * pair, has_norm, scale, norm);
  const float b = normed(head, halves ? pair + pairs : 2 * pair + 1, has_norm, scale, norm);
  const float c = table[2 * pair];
  const float s = table[2 * pair + 1];
  return second ? mad(a, s, b * c) : mad(a, c, -(b * s));
}

// One work-group for each head of q, k and v (dimension 0) of each token (dimension 1). norms: of q,
// then of k, read with has_norm only.
TASK rope(global const float* qkv, long qkv_offset, long qkv_stride,        //
          global const float* table, long table_offset, long table_stride,  //
          global float* q, long q_offset, long q_stride,                    //
          global uchar* k_cache, long k_offset, long k_stride,              //
          global uchar* v_cache, long v_offset, long v_stride,              //
          global const float* norms, int has_norm, float eps,               //
          int heads, int kv_heads, int head_dim, int rotary_dims, int halves, int cache_type,
          int position, int tokens AT_GROUP) {
  SHARED float shared[LANES];
  const int h = GROUP(0);
  const int t = GROUP(1);
  if (t >= tokens) {
    return;
  }
  global const float* head = qkv + qkv_offset + t * qkv_stride + h * head_dim;
  table += table_offset + t * table_stride;
  float scale = 1.0f;
  if (has_norm && h < heads + kv_heads) {
    float squares = 0.0f;
    for (int i = get_local_id(0); i < head_dim; i += LANES) {
      squares = mad(head[i], head[i], squares);
    }
    scale = 1.0f / sqrt(lanes_sum(squares, shared) / (float)head_dim + eps);
  }
  if (h < heads) {
    q += q_offset + t * q_stride + h * head_dim;
    for (int i = get_local_id(0); i < head_dim; i += LANES) {
      q[i] = rotated(head, table, i, rotary_dims, halves, has_norm, scale, norms);
    }
    return;
  }
  // A head of k, or one of v, which passes as it is.
  const int of_k = h < heads + kv_heads;
  global uchar* cache = of_k ? k_cache : v_cache;
  const long first = of_k ? k_offset + (position + t) * k_stride + (h - heads) * head_dim
                          : v_offset + (position + t) * v_stride + (h - heads - kv_heads) * head_dim;
  const int rotary = of_k ? rotary_dims : 0;
  has_norm = of_k && has_norm;
  norms += head_dim;
  if (cache_type != INTO_Q8_0) {
    for (int i = get_local_id(0); i < head_dim; i += LANES) {
      store_cache(rotated(head, table, i, rotary, halves, has_norm, scale, norms), cache, first + i, cache_type);
    }
    return;
  }
#if LANES >= 32
  for (int begin = 0; begin < head_dim; begin += LANES) {  // LANES is a multiple of 32
    const int i = begin + get_local_id(0);
    const float x = i < head_dim ? rotated(head, table, i, rotary, halves, has_norm, scale, norms) : 0.0f;
    shared[get_local_id(0)] = x;
    barrier(CLK_LOCAL_MEM_FENCE);
    float most = 0.0f;
    for (int j = 0; j < 32; ++j) {
      most = fmax(most, fabs(shared[get_local_id(0) / 32 * 32 + j]));
    }
    if (i < head_dim) {
      global char* block = (global char*)cache + (first + i) / 32 * 34;
      store_number(x, most, block, i % 32);
      if (i % 32 == 0) {
        vstore_half_rte(most / 127.0f, 0, (global half*)block);
      }
    }
    barrier(CLK_LOCAL_MEM_FENCE);
  }
#else
  for (int begin = 32 * get_local_id(0); begin < head_dim; begin += 32 * LANES) {
    global char* block = (global char*)cache + (first + begin) / 32 * 34;
    float x[32];
    float most = 0.0f;
    for (int j = 0; j < 32; ++j) {
      x[j] = rotated(head, table, begin + j, rotary, halves, has_norm, scale, norms);
      most = fmax(most, fabs(x[j]));
    }
    for (int j = 0; j < 32; ++j) {
      store_number(x[j], most, block, j);
    }
    vstore_half_rte(most / 127.0f, 0, (global half*)block);
  }
#endif
}

// y = cap * tanh(x / cap). Groups along dimension 0 share a row, one chunk of columns each.
TASK soft_cap(global const float* x, long x_offset, long x_stride,  //
              global float* y, long y_offset, long y_stride,        //
              int cols, float cap, int chunk, int tokens AT_GROUP) {
  const int t = GROUP(1);
  if (t >= tokens) {
    return;
  }
  x += x_offset + t * x_stride;
  y += y_offset + t * y_stride;
  const int begin = GROUP(0) * chunk;
  const int end = min(begin + chunk, cols);
  for (int i = begin + (int)get_local_id(0); i < end; i += LANES) {
    y[i] = cap * tanh(x[i] / cap);
  }
}

// One work-group for each token, of which one work-item works: experts are few. The j-th largest
// logit is the largest of what comes after the one before, by value, then by number.
TASK route(global const float* x, long x_offset, long x_stride,  //
           global float* y, long y_offset, long y_stride,        //
           int experts, int used, int normalize_weights, int shared_expert, float scale, int tokens AT_GROUP) {
  const int t = GROUP(0);
  if (t >= tokens || get_local_id(0) > 0) {
    return;
  }
  x += x_offset + t * x_stride;
  y += y_offset + t * y_stride;
  float last = 0.0f;
  int last_expert = -1;
  float top = 0.0f;
  float chosen = 0.0f;
  for (int j = 0; j < used; ++j) {
    int best = -1;
    for (int e = 0; e < experts; ++e) {
      const int left = j == 0 || x[e] < last || (x[e] == last && e > last_expert);
      if (left && (best < 0 || x[e] > x[best])) {
        best = e;
      }
    }
    last_expert = max(best, 0);  // none is left where logits are not numbers
    last = x[last_expert];
    top = j == 0 ? last : top;
    const float weight = exp(last - top);
    chosen += weight;
    y[j] = last_expert;
    y[used + j] = weight;
  }
  float total = 0.0f;
  for (int e = 0; e < experts; ++e) {
    total += exp(x[e] - top);
  }
  for (int j = 0; j < used; ++j) {
    y[used + j] *= scale / (normalize_weights ? chosen : total);
  }
  if (shared_expert) {
    y[2 * used] = 1.0f / (1.0f + exp(-x[experts]));
  }
}

// The weighted sum of a token's experts. Groups along dimension 0 share a row, one chunk of
// columns each. `z`, the shared expert's result, is read with has_shared only.
TASK expert_sum(global const float* x, long x_offset, long x_stride,                 //
                global const float* routes, long routes_offset, long routes_stride,  //
                global const float* z, long z_offset, long z_stride,                 //
                global float* y, long y_offset, long y_stride,                       //
                int used, int has_shared, int cols, int chunk, int tokens AT_GROUP) {
  const int t = GROUP(1);
  if (t >= tokens) {
    return;
  }
  x += x_offset + t * x_stride;
  y += y_offset + t * y_stride;
  z += z_offset + t * z_stride;
  global const float* weights = routes + routes_offset + t * routes_stride + used;
  const int begin = GROUP(0) * chunk;
  const int end = min(begin + chunk, cols);
  for (int i = begin + (int)get_local_id(0); i < end; i += LANES) {
    float sum = 0.0f;
    for (int j = 0; j < used; ++j) {
      sum = mad(weights[j], x[(long)j * cols + i], sum);
    }
    y[i] = has_shared ? mad(weights[used], z[i], sum) : sum;
  }
}
