// Weights as they lie in GGUF files, decoded eight elements at a time. Source of the layouts: the
// GGUF specification and the block structures it refers to (ggml project).
// Host: exactly one of WEIGHT_F32, WEIGHT_F16, WEIGHT_BF16, WEIGHT_Q4_0, WEIGHT_Q4_1, WEIGHT_Q8_0.
//
// A further type needs BLOCK (elements), BLOCK_BYTES and block8(); blocks are only aligned to 2
// bytes (a half leads most of them), so they are read as ushorts.

#if defined(WEIGHT_F32)
#define BLOCK 1
#define BLOCK_BYTES 4
#define PLAIN8(p) vload8(0, (global const float*)(p))
#define PLAIN1(p) (*(global const float*)(p))
#elif defined(WEIGHT_F16)
#define BLOCK 1
#define BLOCK_BYTES 2
#define PLAIN8(p) vload_half8(0, (global const half*)(p))
#define PLAIN1(p) vload_half(0, (global const half*)(p))
#elif defined(WEIGHT_BF16)
#define BLOCK 1
#define BLOCK_BYTES 2
#define PLAIN8(p) as_float8(convert_uint8(vload8(0, (global const ushort*)(p))) << 16)
#define PLAIN1(p) as_float((uint)(*(global const ushort*)(p)) << 16)
#else
#define BLOCK 32
#endif

#if CPU_SHAPE
// A block's scale. A half's bits at the place of a float's are the value times 2^-112, subnormals
// included; scales are neither infinite nor NaN. Some compilers for CPUs call a function for
// vload_half. GPUs have an instruction, and may flush the subnormal floats that this needs.
inline float half_at(global const uchar* p) {
  const uint bits = *(global const ushort*)p;
  return as_float((bits & 0x8000u) << 16 | as_uint(as_float((bits & 0x7fffu) << 13) * 0x1p112f));
}
#else
inline float half_at(global const uchar* p) { return vload_half(0, (global const half*)p); }
#endif
inline uchar8 bytes8(global const uchar* p) { return as_uchar8(vload4(0, (global const ushort*)p)); }

// Elements 8*part .. 8*part+7 of a block.
#if defined(WEIGHT_Q4_0)
#define BLOCK_BYTES 18
inline float8 block8(global const uchar* block, int part) {
  const uchar8 q = bytes8(block + 2 + 8 * (part & 1));
  const float d = half_at(block);
  return mad(convert_float8(part < 2 ? q & (uchar8)15 : q >> (uchar8)4), d, -8.0f * d);
}
#elif defined(WEIGHT_Q4_1)
#define BLOCK_BYTES 20
inline float8 block8(global const uchar* block, int part) {
  const uchar8 q = bytes8(block + 4 + 8 * (part & 1));
  return mad(convert_float8(part < 2 ? q & (uchar8)15 : q >> (uchar8)4), half_at(block), half_at(block + 2));
}
#elif defined(WEIGHT_Q8_0)
#define BLOCK_BYTES 34
inline float8 block8(global const uchar* block, int part) {
  return convert_float8(as_char8(bytes8(block + 2 + 8 * part))) * half_at(block);
}
#endif

// The dot product of a block and 32 floats, as eight partial sums. Types of 4 bits use each load
// for both halves of the block, and scale sums instead of elements.
#if defined(WEIGHT_Q4_0) || defined(WEIGHT_Q4_1)
inline float8 block_dot(global const uchar* block, float8 x0, float8 x1, float8 x2, float8 x3, float8 sum) {
#if defined(WEIGHT_Q4_0)
  const int8 q0 = convert_int8(bytes8(block + 2)), q1 = convert_int8(bytes8(block + 10));
  const float d = half_at(block), m = -8.0f * d;
#else
  const int8 q0 = convert_int8(bytes8(block + 4)), q1 = convert_int8(bytes8(block + 12));
  const float d = half_at(block), m = half_at(block + 2);
#endif
  float8 s = convert_float8(q0 & 15) * x0;
  float8 t = convert_float8(q1 & 15) * x1;
  s = fma(convert_float8(q0 >> 4), x2, s);
  t = fma(convert_float8(q1 >> 4), x3, t);
  return fma((float8)(d), s + t, fma((float8)(m), (x0 + x1) + (x2 + x3), sum));
}
#elif BLOCK == 32
inline float8 block_dot(global const uchar* block, float8 x0, float8 x1, float8 x2, float8 x3, float8 sum) {
  sum = fma(block8(block, 0), x0, sum);
  sum = fma(block8(block, 1), x1, sum);
  sum = fma(block8(block, 2), x2, sum);
  return fma(block8(block, 3), x3, sum);
}
#endif

// Elements i .. i+7 of a row; i is a multiple of 8. Plain types may end within the eight: zeros.
inline float8 weight8(global const uchar* row, int i, int cols) {
#if BLOCK == 1
  global const uchar* p = row + (long)i * BLOCK_BYTES;
  if (i + 8 <= cols) {
    return PLAIN8(p);
  }
  float8 v = 0.0f;
  v.s0 = PLAIN1(p);
  v.s1 = i + 1 < cols ? PLAIN1(p + BLOCK_BYTES) : 0.0f;
  v.s2 = i + 2 < cols ? PLAIN1(p + 2 * BLOCK_BYTES) : 0.0f;
  v.s3 = i + 3 < cols ? PLAIN1(p + 3 * BLOCK_BYTES) : 0.0f;
  v.s4 = i + 4 < cols ? PLAIN1(p + 4 * BLOCK_BYTES) : 0.0f;
  v.s5 = i + 5 < cols ? PLAIN1(p + 5 * BLOCK_BYTES) : 0.0f;
  v.s6 = i + 6 < cols ? PLAIN1(p + 6 * BLOCK_BYTES) : 0.0f;
  return v;
#else
  return block8(row + (long)(i / BLOCK) * BLOCK_BYTES, i % BLOCK / 8);
#endif
}

inline long row_bytes(int cols) { return (long)(cols / BLOCK) * BLOCK_BYTES; }

// Elements i .. i+7 of a row of floats, with zeros from cols on.
inline float8 floats8(global const float* row, int i, int cols) {
  if (i + 8 <= cols) {
    return vload8(0, row + i);
  }
  float8 v = 0.0f;
  v.s0 = row[i];
  v.s1 = i + 1 < cols ? row[i + 1] : 0.0f;
  v.s2 = i + 2 < cols ? row[i + 2] : 0.0f;
  v.s3 = i + 3 < cols ? row[i + 3] : 0.0f;
  v.s4 = i + 4 < cols ? row[i + 4] : 0.0f;
  v.s5 = i + 5 < cols ? row[i + 5] : 0.0f;
  v.s6 = i + 6 < cols ? row[i + 6] : 0.0f;
  return v;
}

// x = scale * table[id]. Groups along dimension 0 share a row, dimension 1 is the token.
kernel LANE_GROUP void embed(global const int* ids, long ids_offset, long ids_stride,  //
                             global float* x, long x_offset, long x_stride,            //
                             global const uchar* table, long table_bytes, int rows, int cols, float scale,
                             int tokens) {
  const int t = get_group_id(1);
  if (t >= tokens) {
    return;
  }
  const int id = clamp(ids[ids_offset + t * ids_stride], 0, rows - 1);
  table += table_bytes + id * row_bytes(cols);
  x += x_offset + t * x_stride;
  for (int i = 8 * (int)get_global_id(0); i < cols; i += 8 * (int)get_global_size(0)) {
    const float8 v = scale * weight8(table, i, cols);
    if (i + 8 <= cols) {
      vstore8(v, 0, x + i);
    } else {
      float rest[8];
      vstore8(v, 0, rest);
      for (int j = 0; i + j < cols; ++j) {
        x[i + j] = rest[j];
      }
    }
  }
}
