// y = x W^T + b for one row of x on GPUs, from weights in PLANES (blocks.cl): each work-item loads 16
// bytes of numbers at a time, four units, of each of WIDE_ROWS rows of W. A work-group has WIDE_SETS
// sets of WIDE_LANES work-items, and each set rows of its own.
// Host: WIDE_ROWS, WIDE_LANES, WIDE_SETS; WIDE_ROWS divides WIDE_LANES. WIDE_AHEAD: 1 to have the next
// 16 bytes of each row on their way while these are worked on. x is aligned to 16 bytes. With
// GATED, W is gate and up behind each other, and y = act(gate) * up (Gated in graph.h): half of a set's
// rows are of the one, half of the other. With NORM, x is what RmsNorm makes of x and r (graph.h): each set
// sees the whole row, and so adds up its squares on the way; the scale that follows from them multiplies
// the sums. The first work-group also writes s.

#define WIDE_EACH (WIDE_LANES / WIDE_ROWS)  // work-items that sum up a row's parts, at first
#define WIDE_PARTS (WIDE_SETS * WIDE_ROWS)
#if GATED
#define ROWS_OUT (WIDE_ROWS / 2)  // rows of y for each set
#define ROW_OF(r) (min(first + (r) % ROWS_OUT, n - 1) + (r) / ROWS_OUT * n)
#else
#define ROWS_OUT WIDE_ROWS
#define ROW_OF(r) min(first + (r), n - 1)
#endif

#if defined(WEIGHT_Q4_0)
typedef uint2 Heads;  // scales of the four units' blocks
#define SCALES01(h) halves_of((h).s0)
#define SCALES23(h) halves_of((h).s1)
#else
typedef uint4 Heads;
#endif

// The numbers of a unit times its x, all in one partial sum.
#if defined(WEIGHT_Q4_0)
#define ZERO 8
#else
#define ZERO 0
#endif
inline float word_dot(uint w, uint4 exponents, float4 low, float4 high) {
  const uint v = w >> 16;
#define AT(w, i) NIBBLE(w, 4 * i, exponents.s##i, ZERO)
  const float a = fma(AT(w, 1), high.x, AT(w, 0) * low.x);
  const float b = fma(AT(w, 3), high.y, AT(w, 2) * low.y);
  const float c = fma(AT(v, 1), high.z, fma(AT(v, 0), low.z, a));
  const float d = fma(AT(v, 3), high.w, fma(AT(v, 2), low.w, b));
  return c + d;
}

__attribute__((reqd_work_group_size(WIDE_LANES * WIDE_SETS, 1, 1)))
kernel void linear_wide(global const float* x, long x_offset, long x_stride, global float* y, long y_offset,
                        long y_stride, global const uchar* w, long w_bytes, global const float* bias,
                        int has_bias, int n, int k, int gelu,
#if NORM
                        global const float* r, long r_offset, global float* s, long s_offset,
                        global const float* factors, float eps, int has_residual,
#endif
                        int tokens) {
#if NORM
  local float squares_of[WIDE_LANES];
  local float squares_few[16];
  float4 squares = 0.0f;
  r += r_offset;
  s += s_offset;
  const bool writes = has_residual && get_group_id(0) == 0 && get_local_id(0) < WIDE_LANES;
#endif
  local float parts[WIDE_PARTS * (WIDE_LANES + 1)];
  local float few[WIDE_PARTS * (WIDE_EACH + 1)];
  const int lane = get_local_id(0) % WIDE_LANES;
  const int set = get_local_id(0) / WIDE_LANES;
  const int first = (get_group_id(0) * WIDE_SETS + set) * ROWS_OUT;
  if (tokens < 1) {
    return;
  }
  x += x_offset;
  w += w_bytes;
  // Never known to the compiler, n >> 31 is 0: with a constant in a register, NVIDIA's takes one
  // instruction for both "and" and "or", with two immediate ones it takes two.
  const uint4 exponents = (uint4)(NIBBLE_EXPONENT(0), NIBBLE_EXPONENT(4), NIBBLE_EXPONENT(8), NIBBLE_EXPONENT(12)) |
                          (uint4)((uint)n >> 31);
  float sums[WIDE_ROWS];
#pragma unroll
  for (int j = 0; j < WIDE_ROWS; ++j) {
    sums[j] = 0.0f;
  }
  global const uchar* rows[WIDE_ROWS];
#pragma unroll
  for (int j = 0; j < WIDE_ROWS; ++j) {
    rows[j] = w + ROW_OF(j) * row_bytes(k);
  }
  uint4 words[WIDE_ROWS];
  Heads heads[WIDE_ROWS];
#define BRING(words, heads, g)                                              \
  _Pragma("unroll") for (int j = 0; j < WIDE_ROWS; ++j) {                   \
    words[j] = ((global const uint4*)rows[j])[g];                           \
    heads[j] = ((global const Heads*)(rows[j] + k / 2))[(g) / 4];           \
  }
#if WIDE_AHEAD
  uint4 words_next[WIDE_ROWS];
  Heads heads_next[WIDE_ROWS];
  BRING(words_next, heads_next, min(lane, k / 32 - 1))
#endif
  for (int g = lane; g < k / 32; g += WIDE_LANES) {
#if WIDE_AHEAD
#pragma unroll
    for (int j = 0; j < WIDE_ROWS; ++j) {
      words[j] = words_next[j];
      heads[j] = heads_next[j];
    }
    BRING(words_next, heads_next, min(g + WIDE_LANES, k / 32 - 1))
#else
    BRING(words, heads, g)
#endif
    const int at = g / 4 * 128 + g % 4 * 4;
    global const float4* in = (global const float4*)(x + at);
#if NORM
    float4 low0 = in[0], high0 = in[4], low1 = in[8], high1 = in[12];
    float4 low2 = in[16], high2 = in[20], low3 = in[24], high3 = in[28];
    global const float4* by = (global const float4*)(factors + at);
#define NORMED(v, i)                          \
  squares = fma(v, v, squares);               \
  if (writes) {                               \
    ((global float4*)(s + at))[i] = v;        \
  }                                           \
  v *= by[i];
    if (has_residual) {
      global const float4* more = (global const float4*)(r + at);
      low0 += more[0], high0 += more[4], low1 += more[8], high1 += more[12];
      low2 += more[16], high2 += more[20], low3 += more[24], high3 += more[28];
    }
    NORMED(low0, 0) NORMED(high0, 4) NORMED(low1, 8) NORMED(high1, 12)
    NORMED(low2, 16) NORMED(high2, 20) NORMED(low3, 24) NORMED(high3, 28)
#else
    const float4 low0 = in[0], high0 = in[4], low1 = in[8], high1 = in[12];
    const float4 low2 = in[16], high2 = in[20], low3 = in[24], high3 = in[28];
#endif
#if defined(WEIGHT_Q4_1)
    const float4 both0 = low0 + high0, both1 = low1 + high1, both2 = low2 + high2, both3 = low3 + high3;
    const float x0 = (both0.x + both0.y) + (both0.z + both0.w), x1 = (both1.x + both1.y) + (both1.z + both1.w);
    const float x2 = (both2.x + both2.y) + (both2.z + both2.w), x3 = (both3.x + both3.y) + (both3.z + both3.w);
#endif
#pragma unroll
    for (int j = 0; j < WIDE_ROWS; ++j) {
      const float d0 = word_dot(words[j].s0, exponents, low0, high0), d1 = word_dot(words[j].s1, exponents, low1, high1);
      const float d2 = word_dot(words[j].s2, exponents, low2, high2), d3 = word_dot(words[j].s3, exponents, low3, high3);
#if defined(WEIGHT_Q4_0)
      const float2 s01 = SCALES01(heads[j]), s23 = SCALES23(heads[j]);
      sums[j] = fma(s23.y, d3, fma(s23.x, d2, fma(s01.y, d1, fma(s01.x, d0, sums[j]))));
#else
      const float2 h0 = halves_of(heads[j].s0), h1 = halves_of(heads[j].s1);
      const float2 h2 = halves_of(heads[j].s2), h3 = halves_of(heads[j].s3);
      sums[j] = fma(h3.x, d3, fma(h2.x, d2, fma(h1.x, d1, fma(h0.x, d0, sums[j]))));
      sums[j] = fma(h3.y, x3, fma(h2.y, x2, fma(h1.y, x1, fma(h0.y, x0, sums[j]))));
#endif
    }
  }
#pragma unroll
  for (int j = 0; j < WIDE_ROWS; ++j) {
    parts[(set * WIDE_ROWS + j) * (WIDE_LANES + 1) + lane] = sums[j];
  }
#if NORM
  if (set == 0) {
    squares_of[lane] = (squares.x + squares.y) + (squares.z + squares.w);
  }
#endif
  barrier(CLK_LOCAL_MEM_FENCE);
#if NORM
  float few_squares = 0.0f;
#pragma unroll
  for (int i = 0; i < WIDE_LANES; i += 16) {
    few_squares += squares_of[i + get_local_id(0) % 16];
  }
  if (get_local_id(0) < 16) {
    squares_few[get_local_id(0)] = few_squares;
  }
#endif
  // WIDE_EACH work-items for each output, then one. All go round all loops (see common.cl).
  const int out = get_local_id(0) / WIDE_EACH;
  const int part = get_local_id(0) % WIDE_EACH;
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < WIDE_ROWS; ++i) {
    sum += parts[out * (WIDE_LANES + 1) + part + i * WIDE_EACH];
  }
  few[out * (WIDE_EACH + 1) + part] = sum;
  barrier(CLK_LOCAL_MEM_FENCE);
  const int mine = min((int)get_local_id(0), WIDE_SETS * ROWS_OUT - 1);
  const int row = get_group_id(0) * WIDE_SETS * ROWS_OUT + mine;
#if GATED
  const int gate = mine / ROWS_OUT * WIDE_ROWS + mine % ROWS_OUT;
  const int up = gate + ROWS_OUT;
#else
  const int gate = mine;
#endif
#if NORM
  float total = 0.0f;
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    total += squares_few[i];
  }
  const float scale = 1.0f / sqrt(total / (float)k + eps);
#else
  const float scale = 1.0f;
#endif
  sum = 0.0f;
#pragma unroll
  for (int i = 0; i < WIDE_EACH; ++i) {
    sum += few[gate * (WIDE_EACH + 1) + i];
  }
  sum = sum * scale + (has_bias ? bias[min(row, n - 1)] : 0.0f);
#if GATED
  float factor = 0.0f;
#pragma unroll
  for (int i = 0; i < WIDE_EACH; ++i) {
    factor += few[up * (WIDE_EACH + 1) + i];
  }
  factor = factor * scale + (has_bias ? bias[n + min(row, n - 1)] : 0.0f);
  sum = activated(sum, gelu) * factor;
#endif
  if (get_local_id(0) < WIDE_SETS * ROWS_OUT && row < n) {
    y[y_offset + row] = sum;
  }
}
