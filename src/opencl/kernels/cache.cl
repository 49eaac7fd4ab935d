// What attention's kernels read of the KV cache, as floats: elements by their index, `at`. Host: CACHE_F16
// or CACHE_Q8_0, otherwise F32.

// A score below all others; what rows summed up before their first key is rescaled to zero by it. Not
// -INFINITY: some compilers take infinities for granted never to occur.
#define LOWEST -1e30f

#if defined(CACHE_F16)
#define CACHE_TYPE half
#define CACHE1(cache, at) vload_half(at, cache)
#elif defined(CACHE_Q8_0)
#define CACHE_TYPE char
#define CACHE1(cache, at) cache1(cache, at)
// Blocks of a scale in F16 and 32 numbers.
inline global const char* cache_block(global const char* cache, long at) {
  return cache + (at >> 5) * 34;
}
inline float block_scale(global const char* block) {
  return vload_half(0, (global const half*)block);
}
inline float cache1(global const char* cache, long at) {
  global const char* block = cache_block(cache, at);
  return block_scale(block) * (float)block[2 + (at & 31)];
}
#else
#define CACHE_TYPE float
#define CACHE1(cache, at) ((cache)[at])
#endif

// Eight elements from a multiple of eight on; plain types at a multiple of 16 bytes, but on CPUs.
inline float8 cache8(global const CACHE_TYPE* cache, long at) {
#if defined(CACHE_Q8_0)
  global const char* block = cache_block(cache, at);
  return block_scale(block) * convert_float8(vload8(0, block + 2 + (at & 31)));
#elif CPU_SHAPE && defined(CACHE_F16)
  return vload_half8(0, cache + at);
#elif CPU_SHAPE
  return vload8(0, cache + at);
#elif defined(CACHE_F16)
  const uint4 raw = *(global const uint4*)(cache + at);
  return (float8)(halves_of(raw.s0), halves_of(raw.s1), halves_of(raw.s2), halves_of(raw.s3));
#else
  global const float4* v = (global const float4*)(cache + at);
  return (float8)(v[0], v[1]);
#endif
}
