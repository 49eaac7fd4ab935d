// V, eight floats, for AVX2 with FMA and F16C (x86-64-v3), for the levels that build on it.

#include "cpu/x86_numbers_inl.h"

struct V : X86Numbers {
  static constexpr int kWidth = 8;
  using Reg = __m256;

  HETERO_KERNEL Reg zero() { return _mm256_setzero_ps(); }
  HETERO_KERNEL Reg set(float x) { return _mm256_set1_ps(x); }
  HETERO_KERNEL Reg set_f16(const std::byte* p) {
    short h;
    __builtin_memcpy(&h, p, sizeof(h));
    return _mm256_cvtph_ps(_mm_set1_epi16(h));
  }
  HETERO_KERNEL Reg load(const float* p) { return _mm256_loadu_ps(p); }
  HETERO_KERNEL Reg load_bytes(const std::byte* p) {
    return _mm256_loadu_ps(reinterpret_cast<const float*>(p));
  }
  HETERO_KERNEL Reg load_f16(const std::byte* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  HETERO_KERNEL float f16(const std::byte* p) {
    uint16_t h;
    __builtin_memcpy(&h, p, sizeof(h));
    return _cvtsh_ss(h);
  }
  HETERO_KERNEL Reg load_i8(const int8_t* p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
  }
  HETERO_KERNEL Reg load_bf16(const std::byte* p) {
    const __m128i h = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
  }
  HETERO_KERNEL void store(float* p, Reg a) { _mm256_storeu_ps(p, a); }
  HETERO_KERNEL void store_f16(uint16_t* p, Reg a) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
  }
  HETERO_KERNEL void store_i8(int8_t* p, Reg a) {
    const __m256i wide = _mm256_cvtps_epi32(a);
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(words, words));
  }
  HETERO_KERNEL void prefetch(const std::byte* p) {
    _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0);
  }
  HETERO_KERNEL Reg add(Reg a, Reg b) { return _mm256_add_ps(a, b); }
  HETERO_KERNEL Reg sub(Reg a, Reg b) { return _mm256_sub_ps(a, b); }
  HETERO_KERNEL Reg mul(Reg a, Reg b) { return _mm256_mul_ps(a, b); }
  HETERO_KERNEL Reg div(Reg a, Reg b) { return _mm256_div_ps(a, b); }
  HETERO_KERNEL Reg fma(Reg a, Reg b, Reg c) { return _mm256_fmadd_ps(a, b, c); }
  HETERO_KERNEL Reg abs(Reg a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
  HETERO_KERNEL Reg max(Reg a, Reg b) { return _mm256_max_ps(a, b); }
  HETERO_KERNEL Reg min(Reg a, Reg b) { return _mm256_min_ps(a, b); }
  HETERO_KERNEL float sum(Reg a) {
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
  }
  // sum(a[i]) for four vectors at once, in the same order of additions.
  template <class Add>
  HETERO_KERNEL __m128 across_four(const Reg* a, const Add& add) {
    __m128 x[4];
    for (int i = 0; i < 4; ++i) {
      x[i] = add(_mm256_castps256_ps128(a[i]), _mm256_extractf128_ps(a[i], 1));
    }
    const __m128 first = add(_mm_movelh_ps(x[0], x[1]), _mm_movehl_ps(x[1], x[0]));
    const __m128 second = add(_mm_movelh_ps(x[2], x[3]), _mm_movehl_ps(x[3], x[2]));
    return add(_mm_shuffle_ps(first, second, 0x88), _mm_shuffle_ps(first, second, 0xdd));
  }
  HETERO_KERNEL void sum_of_four(const Reg* a, float* to) {
    _mm_storeu_ps(to, across_four(a, [](__m128 x, __m128 y) { return _mm_add_ps(x, y); }));
  }
  HETERO_KERNEL void largest_of_four(const Reg* a, float* to) {
    _mm_storeu_ps(to, across_four(a, [](__m128 x, __m128 y) { return _mm_max_ps(x, y); }));
  }
  HETERO_KERNEL float largest(Reg a) {
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
  }
  HETERO_KERNEL Reg round(Reg a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  HETERO_KERNEL Reg times_exp2(Reg a, Reg n) {
    const __m256i e = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32(e, 23)));
  }
  HETERO_KERNEL void q4(const std::byte* p, Reg* q) {
    const __m256i low = _mm256_set1_epi32(15);
    const __m256i a = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
    const __m256i b = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + 8)));
    q[0] = _mm256_cvtepi32_ps(_mm256_and_si256(a, low));
    q[1] = _mm256_cvtepi32_ps(_mm256_and_si256(b, low));
    q[2] = _mm256_cvtepi32_ps(_mm256_srli_epi32(a, 4));
    q[3] = _mm256_cvtepi32_ps(_mm256_srli_epi32(b, 4));
  }
  HETERO_KERNEL Numbers add_fifth_bits(Numbers a, const std::byte* bits) {
    int word;
    __builtin_memcpy(&word, bits, sizeof(word));
    // Each of four bytes eight times, each time for another of its bits.
    const __m256i eights = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i mine = _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201));
    const __m256i bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(word), eights);
    const __m256i has = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, mine), mine);
    return _mm256_or_si256(a, _mm256_and_si256(has, _mm256_set1_epi8(16)));
  }
  HETERO_KERNEL void to_floats(Numbers a, Reg* q) {
    const __m128i half[2] = {_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1)};
    for (int j = 0; j < 2; ++j) {
      q[2 * j] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(half[j]));
      q[2 * j + 1] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(half[j], 8)));
    }
  }
  HETERO_KERNEL void q8(const std::byte* p, Reg* q) {
    for (int j = 0; j < 4; ++j) {
      q[j] = _mm256_cvtepi32_ps(
          _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + 8 * j))));
    }
  }
};
