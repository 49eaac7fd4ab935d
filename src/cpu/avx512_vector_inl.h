// V, sixteen floats, for AVX-512 (x86-64-v4: F, BW, CD, DQ, VL), for the levels that build on it.

#include "cpu/x86_numbers_inl.h"

struct V : X86Numbers {
  static constexpr int kWidth = 16;
  using Reg = __m512;

  HETERO_KERNEL Reg zero() { return _mm512_setzero_ps(); }
  HETERO_KERNEL Reg set(float x) { return _mm512_set1_ps(x); }
  HETERO_KERNEL Reg set_f16(const std::byte* p) {
    short h;
    __builtin_memcpy(&h, p, sizeof(h));
    return _mm512_cvtph_ps(_mm256_set1_epi16(h));
  }
  HETERO_KERNEL Reg load(const float* p) { return _mm512_loadu_ps(p); }
  HETERO_KERNEL Reg load_bytes(const std::byte* p) { return _mm512_loadu_ps(p); }
  HETERO_KERNEL Reg load_f16(const std::byte* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  HETERO_KERNEL float f16(const std::byte* p) {
    uint16_t h;
    __builtin_memcpy(&h, p, sizeof(h));
    return _cvtsh_ss(h);
  }
  HETERO_KERNEL Reg load_i8(const int8_t* p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  }
  HETERO_KERNEL Reg load_bf16(const std::byte* p) {
    const __m256i h = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
  }
  HETERO_KERNEL void store(float* p, Reg a) { _mm512_storeu_ps(p, a); }
  HETERO_KERNEL void store_f16(uint16_t* p, Reg a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
  }
  HETERO_KERNEL void store_i8(int8_t* p, Reg a) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(a)));
  }
  HETERO_KERNEL void prefetch(const std::byte* p) {
    _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0);
  }
  HETERO_KERNEL Reg add(Reg a, Reg b) { return _mm512_add_ps(a, b); }
  HETERO_KERNEL Reg sub(Reg a, Reg b) { return _mm512_sub_ps(a, b); }
  HETERO_KERNEL Reg mul(Reg a, Reg b) { return _mm512_mul_ps(a, b); }
  HETERO_KERNEL Reg div(Reg a, Reg b) { return _mm512_div_ps(a, b); }
  HETERO_KERNEL Reg fma(Reg a, Reg b, Reg c) { return _mm512_fmadd_ps(a, b, c); }
  HETERO_KERNEL Reg abs(Reg a) { return _mm512_abs_ps(a); }
  HETERO_KERNEL Reg max(Reg a, Reg b) { return _mm512_max_ps(a, b); }
  HETERO_KERNEL Reg min(Reg a, Reg b) { return _mm512_min_ps(a, b); }
  HETERO_KERNEL float sum(Reg a) { return _mm512_reduce_add_ps(a); }
  // Halves of 256 bits first, then pairs of neighbours of four vectors at once.
  template <class Add>
  HETERO_KERNEL __m128 across_four(const Reg* a, const Add& add) {
    __m256 x[4];
    for (int i = 0; i < 4; ++i) {
      x[i] = add(_mm512_castps512_ps256(a[i]), _mm512_extractf32x8_ps(a[i], 1));
    }
    const __m256 first = add(_mm256_unpacklo_ps(x[0], x[1]), _mm256_unpackhi_ps(x[0], x[1]));
    const __m256 second = add(_mm256_unpacklo_ps(x[2], x[3]), _mm256_unpackhi_ps(x[2], x[3]));
    const __m256 all = add(_mm256_shuffle_ps(first, second, 0x44), _mm256_shuffle_ps(first, second, 0xee));
    return _mm256_castps256_ps128(add(all, _mm256_castps128_ps256(_mm256_extractf128_ps(all, 1))));
  }
  HETERO_KERNEL void sum_of_four(const Reg* a, float* to) {
    _mm_storeu_ps(to, across_four(a, [](__m256 x, __m256 y) { return _mm256_add_ps(x, y); }));
  }
  HETERO_KERNEL void largest_of_four(const Reg* a, float* to) {
    _mm_storeu_ps(to, across_four(a, [](__m256 x, __m256 y) { return _mm256_max_ps(x, y); }));
  }
  HETERO_KERNEL float largest(Reg a) { return _mm512_reduce_max_ps(a); }
  HETERO_KERNEL Reg round(Reg a) {
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  HETERO_KERNEL Reg times_exp2(Reg a, Reg n) { return _mm512_scalef_ps(a, n); }
  HETERO_KERNEL void q4(const std::byte* p, Reg* q) {
    const __m512i b = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    q[0] = _mm512_cvtepi32_ps(_mm512_and_si512(b, _mm512_set1_epi32(15)));
    q[1] = _mm512_cvtepi32_ps(_mm512_srli_epi32(b, 4));
  }
  HETERO_KERNEL Numbers add_fifth_bits(Numbers a, const std::byte* bits) {
    uint32_t word;
    __builtin_memcpy(&word, bits, sizeof(word));
    return _mm256_or_si256(a, _mm256_maskz_set1_epi8(word, 16));
  }
  HETERO_KERNEL void to_floats(Numbers a, Reg* q) {
    q[0] = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm256_castsi256_si128(a)));
    q[1] = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm256_extracti128_si256(a, 1)));
  }
  HETERO_KERNEL void q8(const std::byte* p, Reg* q) {
    for (int j = 0; j < 2; ++j) {
      q[j] = _mm512_cvtepi32_ps(
          _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 16 * j))));
    }
  }
};
