// What attention's kernels read of the KV cache, as floats. Host: CACHE_F16.

// A score below all others; what rows summed up before their first key is rescaled to zero by it. Not
// -INFINITY: some compilers take infinities for granted never to occur.
#define LOWEST -1e30f

#ifdef CACHE_F16
#define CACHE_TYPE half
#define CACHE1(p) vload_half(0, p)
#else
#define CACHE_TYPE float
#define CACHE1(p) (*(p))
#endif

// Eight elements at a multiple of 16 bytes.
#if !CPU_SHAPE
inline float8 cache8(global const CACHE_TYPE* p) {
#ifdef CACHE_F16
  const uint4 raw = *(global const uint4*)p;
  return (float8)(halves_of(raw.s0), halves_of(raw.s1), halves_of(raw.s2), halves_of(raw.s3));
#else
  global const float4* v = (global const float4*)p;
  return (float8)(v[0], v[1]);
#endif
}
#endif
