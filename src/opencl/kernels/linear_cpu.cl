// y = x W^T + b on devices of type CPU. One work-item is one task; x and W both run along k, so
// the inner loops are dot products in explicit vectors, and nothing is transposed.

#ifndef PANEL
#define PANEL 12  // rows of W decoded at a time, a multiple of 3
#endif
#ifndef CHUNK
#define CHUNK (576 / (2 * SPLIT) * (2 * SPLIT))  // of k: PANEL x CHUNK floats stay in the nearest caches
#endif
#ifndef VECTOR_ROWS
#define VECTOR_ROWS 16  // rows of W of one work-item in linear_vector
#endif

#ifndef TILE_ROWS
#define TILE_ROWS 256  // rows of x in one work-item of linear_tile
#endif

// Rows of x (dimension 1: tiles of TILE_ROWS) times PANEL rows of W (dimension 0).
TASK linear_tile(global const float* x, long x_offset, long x_stride,  //
                 global float* y, long y_offset, long y_stride,        //
                 global const uchar* w, long w_bytes, global const float* bias, int has_bias,
                 int n, int k, int tokens AT_GROUP) {
  SHARED float panel[PANEL * CHUNK] __attribute__((aligned(32)));
  const int first = GROUP(0) * PANEL;
  const int t_begin = GROUP(1) * TILE_ROWS;
  const int t_end = min(t_begin + TILE_ROWS, tokens);
  if (t_begin >= t_end) {
    return;
  }
  w += w_bytes;
  x += x_offset;
  y += y_offset;
  const int rows = min(PANEL, n - first);
  for (int chunk = 0; chunk < k; chunk += CHUNK) {
    const int count = min(CHUNK, k - chunk);
    const int whole = count / 8 * 8;
    for (int r = 0; r < PANEL; ++r) {
      // Rows past the end repeat the last one; their sums are not stored.
      global const uchar* row = w + (first + min(r, rows - 1)) * row_bytes(k);
      SHARED float* out = panel + r * CHUNK;
      for (uint unit = 0; unit * UNIT < (uint)count; ++unit) {
        const Unit u = unit_at(row, chunk / UNIT + unit, k);
        vstore8(unit_low(u), 0, out + first_element(unit));
        vstore8(unit_high(u), 0, out + first_element(unit) + SPLIT);
      }
    }
    for (int t = t_begin; t < t_end; t += 4) {
      global const float* x0 = x + t * x_stride + chunk;
      global const float* x1 = x + min(t + 1, t_end - 1) * x_stride + chunk;
      global const float* x2 = x + min(t + 2, t_end - 1) * x_stride + chunk;
      global const float* x3 = x + min(t + 3, t_end - 1) * x_stride + chunk;
      for (int r = 0; r < rows; r += 3) {
        SHARED const float* w0 = panel + r * CHUNK;
        float8 a00 = 0.0f, a01 = 0.0f, a02 = 0.0f, a10 = 0.0f, a11 = 0.0f, a12 = 0.0f;
        float8 a20 = 0.0f, a21 = 0.0f, a22 = 0.0f, a30 = 0.0f, a31 = 0.0f, a32 = 0.0f;
#define TILE_STEP(LOAD)                                             \
  {                                                                \
    const float8 v0 = vload8(0, w0 + i);                           \
    const float8 v1 = vload8(0, w0 + CHUNK + i);                   \
    const float8 v2 = vload8(0, w0 + 2 * CHUNK + i);               \
    float8 u = LOAD(x0);                                           \
    a00 = fma(u, v0, a00), a01 = fma(u, v1, a01), a02 = fma(u, v2, a02); \
    u = LOAD(x1);                                                  \
    a10 = fma(u, v0, a10), a11 = fma(u, v1, a11), a12 = fma(u, v2, a12); \
    u = LOAD(x2);                                                  \
    a20 = fma(u, v0, a20), a21 = fma(u, v1, a21), a22 = fma(u, v2, a22); \
    u = LOAD(x3);                                                  \
    a30 = fma(u, v0, a30), a31 = fma(u, v1, a31), a32 = fma(u, v2, a32); \
  }
#define WHOLE(row) vload8(0, row + i)
#define PART(row) row_floats(row, i, count)
        int i = 0;
        for (; i < whole; i += 8) {
          TILE_STEP(WHOLE)
        }
#if BLOCK == 1
        if (i < count) {
          TILE_STEP(PART)
        }
#endif
        float sums[12] = {sum8(a00), sum8(a01), sum8(a02), sum8(a10), sum8(a11), sum8(a12),
                          sum8(a20), sum8(a21), sum8(a22), sum8(a30), sum8(a31), sum8(a32)};
        const int live_rows = min(3, rows - r);
        const int live_tokens = min(4, t_end - t);
        for (int j = 0; j < live_tokens; ++j) {
          global float* out = y + (t + j) * y_stride + first + r;
          for (int c = 0; c < live_rows; ++c) {
            const float before = chunk > 0 ? out[c] : has_bias ? bias[first + r + c] : 0.0f;
            out[c] = before + sums[3 * j + c];
          }
        }
      }
    }
  }
}

#if defined(WEIGHT_Q4_0)
#define EXCESS 8.0f
#elif defined(WEIGHT_Q5_0)
#define EXCESS 16.0f
#endif

// Blocks are aligned to two bytes.
inline uint word_at(global const uchar* p) { return as_uint(vload2(0, (global const ushort*)p)); }

#if BLOCK == 32 || defined(WEIGHT_IQ4_XS)

// Four vectors of a block's numbers times x, but for the scale, and for what they are too large by (EXCESS), which is
// the same for all rows.
inline float8 block_part(global const uchar* numbers, const float8* x, float8 start) {
#if defined(WEIGHT_Q8_0)
  global const char* q = (global const char*)numbers;
  const float8 q0 = convert_float8(vload8(0, q)), q1 = convert_float8(vload8(1, q));
  const float8 q2 = convert_float8(vload8(2, q)), q3 = convert_float8(vload8(3, q));
#elif defined(NUMBERS)
  const uchar16 q = vload16(0, numbers);
  const char16 low = look_up(q & (uchar16)(15)), high = look_up(q >> (uchar16)(4));
  const float8 q0 = convert_float8(low.lo), q1 = convert_float8(low.hi);
  const float8 q2 = convert_float8(high.lo), q3 = convert_float8(high.hi);
#else
  const uint8 a = convert_uint8(vload8(0, numbers));
  const uint8 b = convert_uint8(vload8(1, numbers));
#if defined(WEIGHT_Q5_0) || defined(WEIGHT_Q5_1)
  // The fifth bits of all numbers are a word in front of them; shifts to where they count 16.
  const uint bits = word_at(numbers - 4);
  const uint8 lanes = (uint8)(0, 1, 2, 3, 4, 5, 6, 7);
#define FIFTH(word) | ((uint8)(word) >> lanes & 16u)
#else
#define FIFTH(word)
#endif
  const float8 q0 = convert_float8(as_int8((a & 15u) FIFTH(bits << 4)));
  const float8 q1 = convert_float8(as_int8((b & 15u) FIFTH(bits >> 4)));
  const float8 q2 = convert_float8(as_int8((a >> 4) FIFTH(bits >> 12)));
  const float8 q3 = convert_float8(as_int8((b >> 4) FIFTH(bits >> 20)));
#endif
#if defined(EXCESS)
  const float8 first = fma(q0, x[0], start);
#else
  const float8 first = q0 * x[0];
#endif
  return fma(q3, x[3], fma(q2, x[2], fma(q1, x[1], first)));
}

#endif

// Rows are too short for what the machine fetches ahead by itself. OpenCL's own prefetch() does nothing on
// these devices; their compilers are all made from clang, which has this. It may be given any address.
#if defined(__has_builtin)
#if !PTX && __has_builtin(__builtin_prefetch)
#define FETCH_AHEAD(p) __builtin_prefetch((const void*)(uintptr_t)(p))
#endif
#endif
#ifndef FETCH_AHEAD
#define FETCH_AHEAD(p)
#endif

#if BLOCK == 32

#if defined(WEIGHT_Q8_0)
#define NUMBER_BYTES 32
#else
#define NUMBER_BYTES 16
#endif

// half_at() of blocks.cl for the upper half of each word.
inline float4 halves_at(int4 heads) { return as_float4(heads >> 3 & (int)HALF_AS_FLOAT) * 0x1p112f; }

// Rows of W first .. end - 1 times one row of x, four at a time. Where there are offsets, those and the scales of
// four rows are decoded at once; of scales alone both compilers make slower code so.
inline void vector_rows(global const float* x, global float* y, global const uchar* w, global const float* bias,
                        int has_bias, int first, int end, int k) {
  // The next four rows, or if they are long what is ahead in each.
  const long ahead = 4 * row_bytes(k) <= 12 * 1024 ? 4 * row_bytes(k) : 1024;
  for (int r = first; r < end; r += 4) {
    // Rows past the end repeat the last one, unstored.
    global const uchar* row0 = w + r * row_bytes(k);
    global const uchar* row1 = w + min(r + 1, end - 1) * row_bytes(k);
    global const uchar* row2 = w + min(r + 2, end - 1) * row_bytes(k);
    global const uchar* row3 = w + min(r + 3, end - 1) * row_bytes(k);
    float8 s0 = 0.0f, s1 = 0.0f, s2 = 0.0f, s3 = 0.0f;
    for (long i = 0, at = 0; i < k; i += 32, at += BLOCK_BYTES) {
      const float8 xs[4] = {vload8(0, x + i), vload8(1, x + i), vload8(2, x + i), vload8(3, x + i)};
      const float8 x_sum = (xs[0] + xs[1]) + (xs[2] + xs[3]);
#if defined(EXCESS)
      const float8 start = -EXCESS * x_sum;
#else
      const float8 start = 0.0f;
#endif
#if AFFINE == 1
#if defined(WEIGHT_MXFP4)
#define SCALE(j) exponent_at(row##j + at)
#else
#define SCALE(j) half_at(row##j + at)
#endif
#define ADD_OFFSET(j)
#else
      const int4 heads = as_int4((uint4)(word_at(row0 + at), word_at(row1 + at), word_at(row2 + at), word_at(row3 + at)));
      const float4 scales = halves_at(heads << 16);
      const float4 offsets = halves_at(heads);
#define SCALE(j) scales.s##j
#define ADD_OFFSET(j) s##j = fma((float8)(offsets.s##j), x_sum, s##j);
#endif
#define ADD_BLOCK(j)                                                                \
  {                                                                                 \
    global const uchar* block = row##j + at;                                        \
    FETCH_AHEAD(block + ahead);                                                     \
    const float8 part = block_part(block + (BLOCK_BYTES - NUMBER_BYTES), xs, start); \
    s##j = fma((float8)(SCALE(j)), part, s##j);                                     \
    ADD_OFFSET(j)                                                                   \
  }
      ADD_BLOCK(0)
      ADD_BLOCK(1)
      ADD_BLOCK(2)
      ADD_BLOCK(3)
    }
    const float sums[4] = {sum8(s0), sum8(s1), sum8(s2), sum8(s3)};
    for (int j = 0; j < 4 && r + j < end; ++j) {
      y[r + j] = sums[j] + (has_bias ? bias[r + j] : 0.0f);
    }
  }
}

#elif BLOCK == 256

#if defined(WEIGHT_Q4_K) || defined(WEIGHT_Q5_K) || defined(WEIGHT_IQ4_XS)
#define PART_SIZE 32  // elements that share a scale
#else
#define PART_SIZE 16
#endif
#define PARTS (BLOCK / PART_SIZE)

// Scales and with AFFINE == 2 offsets of all parts of a block. They go through memory, which elements are broadcast
// from faster than from a vector.
inline void part_scales(global const uchar* block, float* scales, float* offsets) {
#if defined(WEIGHT_Q2_K)
  const uchar16 s = vload16(0, block);
  vstore16(half_at(block + 80) * convert_float16(s & (uchar16)(15)), 0, scales);
  vstore16(-half_at(block + 82) * convert_float16(s >> (uchar16)(4)), 0, offsets);
#elif defined(WEIGHT_Q3_K)  // scale6() of blocks.cl
  const uint a = word_at(block + 96), b = word_at(block + 100), c = word_at(block + 104);
  const uint4 low = (uint4)(a, b, a >> 4, b >> 4) & 0x0f0f0f0fu;
  const uint4 top = (uint4)(c, c >> 2, c >> 4, c >> 6) & 0x03030303u;
  const char16 s = as_char16(low | top << 4) - (char16)(32);
  vstore16(half_at(block + 108) * convert_float16(s), 0, scales);
#elif defined(WEIGHT_Q6_K)
  vstore16(half_at(block + 208) * convert_float16(vload16(0, (global const char*)block + 192)), 0, scales);
#elif defined(WEIGHT_IQ4_XS)
  const uint8 lanes = (uint8)(0, 1, 2, 3, 4, 5, 6, 7);
  const uint8 low = (uint8)(word_at(block + 4)) >> 4 * lanes & 15u;
  const uint8 top = (uint8)(*(global const ushort*)(block + 2)) >> 2 * lanes & 3u;
  vstore8(half_at(block) * convert_float8(as_int8(low | top << 4) - 32), 0, scales);
#else  // scale_min() of blocks.cl
  const uint a = word_at(block + 4), b = word_at(block + 8), c = word_at(block + 12);
  const uint2 s = (uint2)(a & 0x3f3f3f3fu, (c & 0x0f0f0f0fu) | (a >> 6 & 0x03030303u) << 4);
  const uint2 m = (uint2)(b & 0x3f3f3f3fu, (c >> 4 & 0x0f0f0f0fu) | (b >> 6 & 0x03030303u) << 4);
  vstore8(half_at(block) * convert_float8(convert_int8(as_uchar8(s))), 0, scales);
  vstore8(-half_at(block + 2) * convert_float8(convert_int8(as_uchar8(m))), 0, offsets);
#endif
}

// 64 numbers of a block times x: 32 bytes, or with IQ4_XS twice 16, with their scales and offsets behind the sums.
#if defined(WEIGHT_IQ4_XS)

inline float8 pair_part(global const uchar* block, int pair, global const float* x, const float* scales,
                        const float* offsets, float8 sum) {
#pragma unroll
  for (int part = 2 * pair; part < 2 * pair + 2; ++part) {
    global const float* from = x + part * 32;
    const float8 xs[4] = {vload8(0, from), vload8(1, from), vload8(2, from), vload8(3, from)};
    sum = fma((float8)(scales[part]), block_part(block + 8 + part * 16, xs, 0.0f), sum);
  }
  return sum;
}

#else

inline float8 pair_part(global const uchar* block, int pair, global const float* x, const float* scales,
                        const float* offsets, float8 sum) {
  const int at = pair / (SPLIT / 32) * (2 * SPLIT) + pair % (SPLIT / 32) * 32;  // of the first number
#if defined(WEIGHT_Q2_K)
  global const uchar* q = block + 16 + pair / 2 * 32;
#elif defined(WEIGHT_Q3_K)
  global const uchar* q = block + 32 + pair / 2 * 32;
#elif defined(WEIGHT_Q6_K)
  global const uchar* q = block + pair * 32;
#else
  global const uchar* q = block + (BLOCK_BYTES - 128) + pair * 32;
#endif
#pragma unroll
  for (int part = 0; part < 32 / PART_SIZE; ++part) {
    float8 low = 0.0f, low_sum = 0.0f, high = 0.0f, high_sum = 0.0f;
#pragma unroll
    for (int c = part * (PART_SIZE / 8); c < (part + 1) * (PART_SIZE / 8); ++c) {
      const float8 u = vload8(c, x + at), v = vload8(c, x + at + SPLIT);
      const uint8 a = convert_uint8(vload8(c, q));
#if defined(WEIGHT_Q2_K)
      const uint8 both = a >> (uint8)(pair % 2 * 4);
      const uint8 low_q = both & 3u, high_q = both >> 2 & 3u;
#elif defined(WEIGHT_Q3_K)
      const uint8 both = a >> (uint8)(pair % 2 * 4);
      const uint8 less = ~convert_uint8(vload8(c, block)) >> (uint8)(2 * pair);  // 4 less if a bit is not set
      const uint8 low_q = (both & 3u) - ((less & 1u) << 2), high_q = (both >> 2 & 3u) - ((less & 2u) << 1);
#elif defined(WEIGHT_Q4_K)
      const uint8 low_q = a & 15u, high_q = a >> 4;
#elif defined(WEIGHT_Q5_K)
      const uint8 h = convert_uint8(vload8(c, block + 16)) >> (uint8)(2 * pair);
      const uint8 low_q = (a & 15u) | (h & 1u) << 4, high_q = a >> 4 | (h & 2u) << 3;
#else
      const uint8 h = convert_uint8(vload8(c, block + 128 + pair / 2 * 32)) >> (uint8)(pair % 2 * 2);
      const uint8 low_q = ((a & 15u) | (h & 3u) << 4) - 32u, high_q = (a >> 4 | (h & 0x30u)) - 32u;
#endif
      low = fma(convert_float8(as_int8(low_q)), u, low);
      high = fma(convert_float8(as_int8(high_q)), v, high);
      low_sum += u;
      high_sum += v;
    }
    const int i = at / PART_SIZE + part, j = i + SPLIT / PART_SIZE;
#if AFFINE == 2
    sum = fma((float8)(offsets[i]), low_sum, sum);
    sum = fma((float8)(offsets[j]), high_sum, sum);
#endif
    sum = fma((float8)(scales[i]), low, sum);
    sum = fma((float8)(scales[j]), high, sum);
  }
  return sum;
}

#endif

// Rows of W first .. end - 1 times one row of x, one at a time.
inline void vector_rows(global const float* x, global float* y, global const uchar* w, global const float* bias,
                        int has_bias, int first, int end, int k) {
  const long ahead = min(row_bytes(k), 1024L);
  for (int r = first; r < end; ++r) {
    global const uchar* block = w + r * row_bytes(k);
    float8 sum = 0.0f;
    for (long i = 0; i < k; i += BLOCK, block += BLOCK_BYTES) {
      float scales[PARTS], offsets[PARTS];
      part_scales(block, scales, offsets);
#pragma unroll 1
      for (int pair = 0; pair < 4; ++pair) {
        FETCH_AHEAD(block + pair * (BLOCK_BYTES / 4) + ahead);
        sum = pair_part(block, pair, x + i, scales, offsets, sum);
      }
    }
    y[r] = sum8(sum) + (has_bias ? bias[r] : 0.0f);
  }
}

#else

// Rows of W first .. end - 1 times one row of x, two at a time.
inline void vector_rows(global const float* x, global float* y, global const uchar* w, global const float* bias,
                        int has_bias, int first, int end, int k) {
  for (int r = first; r < end; r += 2) {
    global const uchar* row0 = w + r * row_bytes(k);
    global const uchar* row1 = r + 1 < end ? row0 + row_bytes(k) : row0;
    float8 a = 0.0f, b = 0.0f;
    uint unit = 0;
    for (; (unit + 1) * UNIT <= (uint)k; ++unit) {
      const float8 low = vload8(0, x + unit * UNIT), high = vload8(0, x + unit * UNIT + RUN);
      a = unit_dot(unit_at(row0, unit, k), low, high, a);
      b = unit_dot(unit_at(row1, unit, k), low, high, b);
    }
    if (unit * UNIT < (uint)k) {
      const float8 low = row_floats(x, unit * UNIT, k), high = row_floats(x, unit * UNIT + RUN, k);
      a = unit_dot(unit_at(row0, unit, k), low, high, a);
      b = unit_dot(unit_at(row1, unit, k), low, high, b);
    }
    y[r] = sum8(a) + (has_bias ? bias[r] : 0.0f);
    if (r + 1 < end) {
      y[r + 1] = sum8(b) + (has_bias ? bias[r + 1] : 0.0f);
    }
  }
}

#endif

// One row of x (dimension 1) times VECTOR_ROWS rows of W (dimension 0).
TASK linear_vector(global const float* x, long x_offset, long x_stride,  //
                   global float* y, long y_offset, long y_stride,        //
                   global const uchar* w, long w_bytes, global const float* bias, int has_bias,
                   int n, int k, int tokens AT_GROUP) {
  const int first = GROUP(0) * VECTOR_ROWS;
  const int end = min(first + VECTOR_ROWS, n);
  const int t = GROUP(1);
  if (t >= tokens) {
    return;
  }
  x += x_offset + t * x_stride;
  y += y_offset + t * y_stride;
  w += w_bytes;
  vector_rows(x, y, w, bias, has_bias, first, end, k);
}
