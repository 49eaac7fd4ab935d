// Weights as they lie in GGUF files, decoded a unit at a time. Source of the layouts: the GGUF
// specification and the block structures it refers to (ggml project); gguf/dequantize.cc is what
// every type is compared with.
// Host: exactly one of WEIGHT_F32, WEIGHT_F16, WEIGHT_BF16, WEIGHT_Q4_0, ... WEIGHT_MXFP4.
//
// A unit is two runs of RUN elements of a row, SPLIT apart. In most types of 2 to 6 bits one byte
// holds bits of both, and is so loaded once. Units of a row are numbered so that neighbours lie
// side by side; first_element() says where.
//
// PLANES: the same bytes in another order, made when weights are copied to a device of their own: of
// each row first all numbers, then all scales, so that one work-item can load 16 bytes of numbers at
// once. Unit u has the word u of the row: of four neighbouring blocks first the first words, then the
// second ones, so that the four units of 16 bytes have each block's scale once, and neighbours read
// neighbouring elements of x. For Q4_0 and Q4_1, in rows of a multiple of 256 elements.
//
// A further type needs BLOCK (elements), BLOCK_BYTES, SPLIT, AFFINE, a case in unit_at(), and one in
// block_part() or pair_part() of linear_cpu.cl. Blocks are only aligned to 2 bytes, those of MXFP4
// not at all.

#if CPU_SHAPE
#define RUN 8
typedef float8 Floats;
#define LOAD_FLOATS(p) vload8(0, p)
#define STORE_FLOATS(v, p) vstore8(v, 0, p)
#else
#define RUN 4
typedef float4 Floats;
#define LOAD_FLOATS(p) vload4(0, p)
#define STORE_FLOATS(v, p) vstore4(v, 0, p)
#endif

// AFFINE: what an element is. 0: the number itself, 1: scale * number, 2: scale * number + offset.
// TWO_SCALES: the runs of a unit differ in scale and offset.
#if defined(WEIGHT_F32)
#define BLOCK 1
#define BLOCK_BYTES 4
#define PLAIN(p) LOAD_FLOATS((global const float*)(p))
#define PLAIN1(p) (*(global const float*)(p))
#elif defined(WEIGHT_F16)
#define BLOCK 1
#define BLOCK_BYTES 2
#if CPU_SHAPE
#define PLAIN(p) vload_half8(0, (global const half*)(p))
#else
#define PLAIN(p) vload_half4(0, (global const half*)(p))
#endif
#define PLAIN1(p) vload_half(0, (global const half*)(p))
#elif defined(WEIGHT_BF16)
#define BLOCK 1
#define BLOCK_BYTES 2
#if CPU_SHAPE
#define PLAIN(p) as_float8(convert_uint8(vload8(0, (global const ushort*)(p))) << 16)
#else
#define PLAIN(p) as_float4(convert_uint4(vload4(0, (global const ushort*)(p))) << 16)
#endif
#define PLAIN1(p) as_float((uint)(*(global const ushort*)(p)) << 16)
#elif defined(WEIGHT_Q4_0)
#define BLOCK 32
#define BLOCK_BYTES 18
#define SPLIT 16
#define AFFINE 1
#elif defined(WEIGHT_Q4_1)
#define BLOCK 32
#define BLOCK_BYTES 20
#define SPLIT 16
#define AFFINE 2
#elif defined(WEIGHT_Q5_0)
#define BLOCK 32
#define BLOCK_BYTES 22
#define SPLIT 16
#define AFFINE 1
#elif defined(WEIGHT_Q5_1)
#define BLOCK 32
#define BLOCK_BYTES 24
#define SPLIT 16
#define AFFINE 2
#elif defined(WEIGHT_Q8_0)
#define BLOCK 32
#define BLOCK_BYTES 34
#define AFFINE 1
#elif defined(WEIGHT_Q2_K)
#define BLOCK 256
#define BLOCK_BYTES 84
#define SPLIT 32
#define AFFINE 2
#define TWO_SCALES
#elif defined(WEIGHT_Q3_K)
#define BLOCK 256
#define BLOCK_BYTES 110
#define SPLIT 32
#define AFFINE 1
#define TWO_SCALES
#elif defined(WEIGHT_Q4_K)
#define BLOCK 256
#define BLOCK_BYTES 144
#define SPLIT 32
#define AFFINE 2
#define TWO_SCALES
#elif defined(WEIGHT_Q5_K)
#define BLOCK 256
#define BLOCK_BYTES 176
#define SPLIT 32
#define AFFINE 2
#define TWO_SCALES
#elif defined(WEIGHT_Q6_K)
#define BLOCK 256
#define BLOCK_BYTES 210
#define SPLIT 64
#define AFFINE 1
#define TWO_SCALES
#elif defined(WEIGHT_IQ4_NL)
#define BLOCK 32
#define BLOCK_BYTES 18
#define SPLIT 16
#define AFFINE 1
#elif defined(WEIGHT_IQ4_XS)
#define BLOCK 256
#define BLOCK_BYTES 136
#define SPLIT 16
#define AFFINE 1
#elif defined(WEIGHT_MXFP4)
#define BLOCK 32
#define BLOCK_BYTES 17
#define SPLIT 16
#define AFFINE 1
#endif
#ifndef AFFINE
#define AFFINE 0
#endif
#ifndef SPLIT
#define SPLIT RUN
#endif
#define UNIT (2 * RUN)  // elements
#define UNITS (SPLIT / RUN)  // that fill 2 * SPLIT elements without gaps

typedef struct {
  Floats low, high;               // the numbers of the two runs
  float low_scale, high_scale;    // with AFFINE
  float low_offset, high_offset;  // with AFFINE == 2
} Unit;

inline long row_bytes(int cols) { return (long)(cols / BLOCK) * BLOCK_BYTES; }
#if defined(PLANES)
inline uint first_element(uint unit) { return (unit / 16 * 4 + unit % 4) * 32 + unit / 4 % 4 * 4; }
#else
inline uint first_element(uint unit) { return unit / UNITS * (2 * SPLIT) + unit % UNITS * RUN; }
#endif

#if BLOCK == 1

inline Floats plain_at(global const uchar* row, uint i, uint cols) {
  global const uchar* p = row + (ulong)i * BLOCK_BYTES;
  if (i + RUN <= cols) {
    return PLAIN(p);
  }
  float v[RUN];
  for (uint j = 0; j < RUN; ++j) {
    v[j] = i + j < cols ? PLAIN1(p + j * BLOCK_BYTES) : 0.0f;
  }
  return LOAD_FLOATS(v);
}

// Elements behind the last are zeros.
inline Unit unit_at(global const uchar* row, uint unit, uint cols) {
  Unit u;
  u.low = plain_at(row, UNIT * unit, cols);
  u.high = plain_at(row, UNIT * unit + RUN, cols);
  return u;
}

#else

// Bytes: RUN small numbers. FLOATS(bytes, bias) converts bytes that are less than 128 above bias.
#if CPU_SHAPE
// A block's scale. A half's bits at the place of a float's are the value times 2^-112, subnormals
// included; scales are neither infinite nor NaN. Some compilers for CPUs call a function for
// vload_half. GPUs have an instruction, and may flush the subnormal floats that this needs.
#define HALF_AS_FLOAT 0x8fffe000u  // sign, and the rest three bits below, where copies of the sign were shifted in
inline float half_at(global const uchar* p) {
  const int bits = (int)*(global const short*)p << 16;
  return as_float(bits >> 3 & (int)HALF_AS_FLOAT) * 0x1p112f;
}
typedef uchar8 Bytes;
inline Bytes bytes_at(global const uchar* p) { return as_uchar8(vload4(0, (global const ushort*)p)); }
inline Bytes loose_bytes_at(global const uchar* p) { return vload8(0, p); }
// Bit j of a mask in byte j.
inline Bytes spread(uint mask) { return (uchar8)((uchar)mask) >> (uchar8)(0, 1, 2, 3, 4, 5, 6, 7) & (uchar8)(1); }
#define BITS(bytes, down, mask) ((bytes) >> (uchar8)(down) & (uchar8)(mask))
#define RAISE(bytes, up) ((bytes) << (uchar8)(up))
#define FLOATS(bytes, bias) convert_float8(as_char8((bytes) - (uchar8)(bias)))
#define SIGNED(bytes) convert_float8(as_char8(bytes))
#else
// GPUs have no instructions for bytes, hence one word for four. Conversions are slow on some of
// them; placing a byte in the mantissa of 2^23, where the last bit counts 1, is not.
inline float half_at(global const uchar* p) { return vload_half(0, (global const half*)p); }
typedef uint Bytes;
inline Bytes bytes_at(global const uchar* p) { return as_uint(vload2(0, (global const ushort*)p)); }
inline Bytes loose_bytes_at(global const uchar* p) { return as_uint(vload4(0, p)); }
inline Bytes spread(uint mask) { return (mask & 1u) | (mask & 2u) << 7 | (mask & 4u) << 14 | (mask & 8u) << 21; }
#define BITS(bytes, down, mask) ((bytes) >> (down) & (mask)*0x01010101u)
#define RAISE(bytes, up) ((bytes) << (up))
inline float4 floats_of(uint q, float zero) {
  return as_float4((uint4)(q & 255u, q >> 8 & 255u, q >> 16 & 255u, q >> 24) | 0x4b000000u) - zero;
}
#define FLOATS(bytes, bias) floats_of(bytes, 0x1p23f + (bias))
#define SIGNED(bytes) floats_of((bytes) ^ 0x80808080u, 0x1p23f + 128)  // the other sign bit: 128 more
// (w >> down & 15) - zero, without a shift: four bits in the middle of a mantissa count 1 where the
// exponent is so much smaller. down <= 16; exponent: NIBBLE_EXPONENT(down).
#define NIBBLE_EXPONENT(down) (0x4b000000u - ((uint)(down) << 23))
#define NIBBLE(w, down, exponent, zero) \
  (as_float(((w) & (15u << (down))) | (exponent)) - (float)((1 << (23 - (down))) + (zero)))
#define NIBBLES(w, down, zero)                                               \
  (float4)(NIBBLE(w, down, NIBBLE_EXPONENT(down), zero),                     \
           NIBBLE(w, (down) + 8, NIBBLE_EXPONENT((down) + 8), zero),         \
           NIBBLE((w) >> 16, down, NIBBLE_EXPONENT(down), zero),             \
           NIBBLE((w) >> 16, (down) + 8, NIBBLE_EXPONENT((down) + 8), zero))
#define LOOK_UP(table, q) (float4)(table[q & 255u], table[q >> 8 & 255u], table[q >> 16 & 255u], table[q >> 24])
#endif

#if defined(WEIGHT_IQ4_NL) || defined(WEIGHT_IQ4_XS)
#define NUMBERS -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113
#elif defined(WEIGHT_MXFP4)
#define NUMBERS 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12
#endif
#if defined(NUMBERS)
#if CPU_SHAPE
// The numbers that 16 bytes, 0 .. 15, stand for. Intel's compiler has one instruction for shuffle(), PoCL's a loop.
inline char16 look_up(uchar16 q) {
  const char16 numbers = (char16)(NUMBERS);
#if defined(__SSSE3__) && defined(__has_builtin)
#if __has_builtin(__builtin_ia32_pshufb128)
#define BYTE_SHUFFLE
#endif
#endif
#if defined(BYTE_SHUFFLE)
  return __builtin_ia32_pshufb128(numbers, as_char16(q));
#else
  return shuffle(numbers, q);
#endif
}
#else
constant float kNumbers[16] = {NUMBERS};
#endif
#endif

#if defined(WEIGHT_MXFP4)
// 2^(exponent - 128), of which the two smallest are subnormal: half the format's scale, as its numbers are doubled.
inline float exponent_at(global const uchar* p) {
  const uint exponent = *p;
  return as_float(exponent < 2 ? 0x00200000u << exponent : (exponent - 1) << 23);
}
#endif

// Scale and minimum of part `part` (of 8) in the 12 packed bytes of Q4_K and Q5_K.
inline float2 scale_min(global const uchar* packed, uint part) {
  if (part < 4) {
    return (float2)(packed[part] & 63, packed[part + 4] & 63);
  }
  return (float2)((packed[part + 4] & 15) | (packed[part - 4] >> 6) << 4,
                  packed[part + 4] >> 4 | (packed[part] >> 6) << 4);
}

// Scale of part `part` (of 16) of Q3_K, whose 12 packed bytes hold the 4 low bits of each in bytes
// 0..7 and the 2 high bits in bytes 8..11.
inline float scale6(global const uchar* packed, uint part) {
  const int low = part < 8 ? packed[part] & 15 : packed[part - 8] >> 4;
  const int top = packed[8 + part % 4] >> (part / 4 * 2) & 3;
  return (float)((low | top << 4) - 32);
}

#if !CPU_SHAPE && (defined(WEIGHT_Q4_0) || defined(WEIGHT_Q4_1))
#define RAW_UNITS
#define HEAD_BYTES (BLOCK_BYTES - 16)

// A unit before it is decoded: its word of numbers, and the halves of its block's scales.
typedef struct {
  uint numbers, scales;
} Raw;

inline Raw raw_at(global const uchar* row, uint unit, uint cols) {
  Raw raw;
#if defined(PLANES)
  global const uchar* head = row + cols / 2 + (unit / 16 * 4 + unit % 4) * HEAD_BYTES;
  raw.numbers = ((global const uint*)row)[unit];
#else
  global const uchar* head = row + (ulong)(unit / 4) * BLOCK_BYTES;
  raw.numbers = bytes_at(head + HEAD_BYTES + unit % 4 * 4);
#endif
  raw.scales = *(global const ushort*)head;
#if defined(WEIGHT_Q4_1)
  raw.scales |= (uint)(*(global const ushort*)(head + 2)) << 16;
#endif
  return raw;
}

inline Unit unit_of(Raw raw) {
  Unit u;
  const float2 scales = halves_of(raw.scales);
#if defined(WEIGHT_Q4_0)
  u.low = NIBBLES(raw.numbers, 0, 8);
  u.high = NIBBLES(raw.numbers, 4, 8);
#else
  u.low = NIBBLES(raw.numbers, 0, 0);
  u.high = NIBBLES(raw.numbers, 4, 0);
  u.low_offset = u.high_offset = scales.y;
#endif
  u.low_scale = u.high_scale = scales.x;
  return u;
}

inline Unit unit_at(global const uchar* row, uint unit, uint cols) { return unit_of(raw_at(row, unit, cols)); }

#else

inline Unit unit_at(global const uchar* row, uint unit, uint cols) {
  const uint first = first_element(unit);
  global const uchar* block = row + (ulong)(first / BLOCK) * BLOCK_BYTES;
  const uint e = first % BLOCK;  // of the low run, in the block
  Unit u;
#if defined(WEIGHT_Q4_0)
  const Bytes q = bytes_at(block + 2 + e);
  u.low = FLOATS(BITS(q, 0, 15), 8);
  u.high = FLOATS(BITS(q, 4, 15), 8);
  u.low_scale = half_at(block);
#elif defined(WEIGHT_Q4_1)
  const Bytes q = bytes_at(block + 4 + e);
  u.low = FLOATS(BITS(q, 0, 15), 0);
  u.high = FLOATS(BITS(q, 4, 15), 0);
  u.low_scale = half_at(block);
  u.low_offset = half_at(block + 2);
#elif defined(WEIGHT_Q5_0)
  const Bytes q = bytes_at(block + 6 + e);
  u.low = FLOATS(BITS(q, 0, 15) | RAISE(spread(block[2 + e / 8] >> e % 8), 4), 16);
  u.high = FLOATS(BITS(q, 4, 15) | RAISE(spread(block[4 + e / 8] >> e % 8), 4), 16);
  u.low_scale = half_at(block);
#elif defined(WEIGHT_Q5_1)
  const Bytes q = bytes_at(block + 8 + e);
  u.low = FLOATS(BITS(q, 0, 15) | RAISE(spread(block[4 + e / 8] >> e % 8), 4), 0);
  u.high = FLOATS(BITS(q, 4, 15) | RAISE(spread(block[6 + e / 8] >> e % 8), 4), 0);
  u.low_scale = half_at(block);
  u.low_offset = half_at(block + 2);
#elif defined(WEIGHT_Q8_0)
  u.low = SIGNED(bytes_at(block + 2 + e));
  u.high = SIGNED(bytes_at(block + 2 + e + SPLIT));
  u.low_scale = half_at(block);
#elif defined(WEIGHT_Q2_K)
  // Of each half of 128, element i has its two bits in byte i % 32, at 2 * (i / 32).
  const uint down = e % 128 / 32 * 2;
  const Bytes q = bytes_at(block + 16 + e / 128 * 32 + e % 32);
  u.low = FLOATS(BITS(q, down, 3), 0);
  u.high = FLOATS(BITS(q, down + 2, 3), 0);
  const float d = half_at(block + 80), m = -half_at(block + 82);
  const uchar s = block[e / 16], t = block[e / 16 + 2];
  u.low_scale = d * (float)(s & 15), u.high_scale = d * (float)(t & 15);
  u.low_offset = m * (float)(s >> 4), u.high_offset = m * (float)(t >> 4);
#elif defined(WEIGHT_Q3_K)
  // Likewise, and a third bit for element i of the block in byte i % 32, at i / 32.
  const uint down = e % 128 / 32 * 2;
  const Bytes q = bytes_at(block + 32 + e / 128 * 32 + e % 32);
  const Bytes h = bytes_at(block + e % 32);
  u.low = FLOATS(BITS(q, down, 3) | RAISE(BITS(h, e / 32, 1), 2), 4);
  u.high = FLOATS(BITS(q, down + 2, 3) | RAISE(BITS(h, e / 32 + 1, 1), 2), 4);
  const float d = half_at(block + 108);
  u.low_scale = d * scale6(block + 96, e / 16), u.high_scale = d * scale6(block + 96, e / 16 + 2);
#elif defined(WEIGHT_Q4_K) || defined(WEIGHT_Q5_K)
  const Bytes q = bytes_at(block + (BLOCK_BYTES - 128) + e / 64 * 32 + e % 32);
#if defined(WEIGHT_Q4_K)
  u.low = FLOATS(BITS(q, 0, 15), 0);
  u.high = FLOATS(BITS(q, 4, 15), 0);
#else
  const Bytes h = bytes_at(block + 16 + e % 32);
  u.low = FLOATS(BITS(q, 0, 15) | RAISE(BITS(h, e / 32, 1), 4), 0);
  u.high = FLOATS(BITS(q, 4, 15) | RAISE(BITS(h, e / 32 + 1, 1), 4), 0);
#endif
  const float d = half_at(block), m = -half_at(block + 2);
  const float2 s = scale_min(block + 4, e / 32), t = scale_min(block + 4, e / 32 + 1);
  u.low_scale = d * s.x, u.high_scale = d * t.x;
  u.low_offset = m * s.y, u.high_offset = m * t.y;
#elif defined(WEIGHT_Q6_K)
  // Of each half of 128: elements 0..63 in the low four bits of 64 bytes, 64..127 in the high four;
  // their two high bits in 32 bytes, from the lowest bits for 0..31 to the highest for 96..127.
  const Bytes q = bytes_at(block + e / 128 * 64 + e % 64);
  const Bytes h = bytes_at(block + 128 + e / 128 * 32 + e % 32);
  const uint down = e % 128 / 32 * 2;
  u.low = FLOATS(BITS(q, 0, 15) | RAISE(BITS(h, down, 3), 4), 32);
  u.high = FLOATS(BITS(q, 4, 15) | RAISE(BITS(h, down + 4, 3), 4), 32);
  const float d = half_at(block + 208);
  global const char* scales = (global const char*)block + 192 + e / 16;
  u.low_scale = d * (float)scales[0], u.high_scale = d * (float)scales[4];
#elif defined(WEIGHT_IQ4_NL) || defined(WEIGHT_IQ4_XS) || defined(WEIGHT_MXFP4)
#if defined(WEIGHT_IQ4_NL)
  const Bytes q = bytes_at(block + 2 + e);
  u.low_scale = half_at(block);
#elif defined(WEIGHT_IQ4_XS)
  const Bytes q = bytes_at(block + 8 + e / 32 * 16 + e % 32);
  const uint low_bits = block[4 + e / 64] >> (e / 32 % 2 * 4) & 15;
  const uint top_bits = *(global const ushort*)(block + 2) >> (e / 32 * 2) & 3;
  u.low_scale = half_at(block) * (float)((int)(low_bits | top_bits << 4) - 32);
#else
  const Bytes q = loose_bytes_at(block + 1 + e);
  u.low_scale = exponent_at(block);
#endif
  const Bytes low = BITS(q, 0, 15), high = BITS(q, 4, 15);
#if CPU_SHAPE
  const char16 numbers = look_up((uchar16)(low, high));
  u.low = convert_float8(numbers.lo);
  u.high = convert_float8(numbers.hi);
#else
  u.low = LOOK_UP(kNumbers, low);
  u.high = LOOK_UP(kNumbers, high);
#endif
#endif
#if !defined(TWO_SCALES)
  u.high_scale = u.low_scale;
#if AFFINE == 2
  u.high_offset = u.low_offset;
#endif
#endif
  return u;
}

#endif  // RAW_UNITS
#endif  // BLOCK

#ifndef RAW_UNITS
typedef Unit Raw;
inline Raw raw_at(global const uchar* row, uint unit, uint cols) { return unit_at(row, unit, cols); }
inline Unit unit_of(Raw raw) { return raw; }
#endif

// The elements of a unit's runs.
#if AFFINE == 0
inline Floats unit_low(Unit u) { return u.low; }
inline Floats unit_high(Unit u) { return u.high; }
#elif AFFINE == 1
inline Floats unit_low(Unit u) { return u.low * u.low_scale; }
inline Floats unit_high(Unit u) { return u.high * u.high_scale; }
#else
inline Floats unit_low(Unit u) { return mad(u.low, (Floats)(u.low_scale), (Floats)(u.low_offset)); }
inline Floats unit_high(Unit u) { return mad(u.high, (Floats)(u.high_scale), (Floats)(u.high_offset)); }
#endif

// sum + a unit times the floats x (of the first run) and z (of the second), in partial sums.
// Scales multiply sums instead of elements.
inline Floats unit_dot(Unit u, Floats x, Floats z, Floats sum) {
#if AFFINE == 0
  return fma(u.high, z, fma(u.low, x, sum));
#else
#if defined(TWO_SCALES)
#if AFFINE == 2
  sum = fma((Floats)(u.high_offset), z, fma((Floats)(u.low_offset), x, sum));
#endif
  return fma((Floats)(u.high_scale), u.high * z, fma((Floats)(u.low_scale), u.low * x, sum));
#else
#if AFFINE == 2
  sum = fma((Floats)(u.low_offset), x + z, sum);
#endif
  return fma((Floats)(u.low_scale), fma(u.high, z, u.low * x), sum);
#endif
#endif
}

#if CPU_SHAPE
inline float sum_floats(Floats v) { return sum8(v); }
#else
inline float sum_floats(Floats v) { return (v.x + v.y) + (v.z + v.w); }
#endif

// Elements i .. i+RUN-1 of a row of floats; only rows of plain weights may end within them, and have
// zeros from cols on.
inline Floats row_floats(global const float* row, uint i, uint cols) {
#if BLOCK == 1
  if (i + RUN > cols) {
    float v[RUN];
    for (uint j = 0; j < RUN; ++j) {
      v[j] = i + j < cols ? row[i + j] : 0.0f;
    }
    return LOAD_FLOATS(v);
  }
#endif
  return LOAD_FLOATS(row + i);
}

// x = scale * table[id]. Groups along dimension 0 share a row, dimension 1 is the token.
TASK embed(global const int* ids, long ids_offset, long ids_stride,  //
           global float* x, long x_offset, long x_stride,            //
           global const uchar* table, long table_bytes, int rows, int cols, float scale,
           int tokens AT_GROUP) {
  const int t = GROUP(1);
  if (t >= tokens) {
    return;
  }
  const int id = clamp(ids[ids_offset + t * ids_stride], 0, rows - 1);
  table += table_bytes + id * row_bytes(cols);
  x += x_offset + t * x_stride;
  for (uint unit = get_global_id(0); unit * UNIT < (uint)cols; unit += get_global_size(0)) {
    const Unit u = unit_at(table, unit, cols);
    float both[UNIT];
    STORE_FLOATS(scale * unit_low(u), both);
    STORE_FLOATS(scale * unit_high(u), both + RUN);
    const uint first = first_element(unit);
    for (uint j = 0; j < UNIT; ++j) {
      const uint i = first + j % RUN + j / RUN * SPLIT;
      if (i < (uint)cols) {
        x[i] = both[j];
      }
    }
  }
}
