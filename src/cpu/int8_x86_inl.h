// I for AVX2 (included by files that are compiled for at least that), with or without VNNI.
// HETERO_DPBUSD(sum, w, x), where defined, is the 256-bit VNNI product of unsigned w with signed x.

struct I {
  static constexpr int kLanes = 8;
  static constexpr int kVectors = 2;
  static constexpr int kTile = 6;
  static constexpr int kDecodedBlocks = 24;  // with 16 rows 15 KiB
  using Ints = __m256i;
  using Floats = __m256;

  HETERO_KERNEL Ints load(const std::byte* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  HETERO_KERNEL Ints low(Ints a) { return _mm256_and_si256(a, _mm256_set1_epi8(15)); }
  HETERO_KERNEL Ints high(Ints a) { return _mm256_and_si256(_mm256_srli_epi16(a, 4), _mm256_set1_epi8(15)); }
  HETERO_KERNEL Ints add_bits(Ints numbers, Ints bits, int shift, char mask) {
    bits = shift >= 0 ? _mm256_slli_epi16(bits, shift) : _mm256_srli_epi16(bits, -shift);
    return _mm256_or_si256(numbers, _mm256_and_si256(bits, _mm256_set1_epi8(mask)));
  }
  HETERO_KERNEL Ints broadcast(const int8_t* p) {
    int32_t four;
    __builtin_memcpy(&four, p, sizeof(four));
    return _mm256_set1_epi32(four);
  }
  HETERO_KERNEL Ints zero() { return _mm256_setzero_si256(); }
  HETERO_KERNEL Ints look_up(const int8_t* values, Ints indices) {
    const __m128i table = _mm_loadu_si128(reinterpret_cast<const __m128i*>(values));
    const __m128i zeroed = _mm_xor_si128(table, _mm_set1_epi8(static_cast<char>(kSignedZero)));
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(zeroed), indices);
  }
#if defined(HETERO_DPBUSD)
  static constexpr int kSignedZero = 128;
  HETERO_KERNEL Ints dot(Ints sum, Ints w, Ints x) {
    return HETERO_DPBUSD(sum, w, x);
  }
  HETERO_KERNEL Ints total(Ints sum) {
    return sum;
  }
  HETERO_KERNEL Ints dot_small(Ints sum, Ints w, Ints x) {
    return HETERO_DPBUSD(sum, w, x);
  }
  HETERO_KERNEL Ints dot_signed(Ints sum, Ints w, Ints x) {
    return HETERO_DPBUSD(sum, w, x);
  }
#else
  static constexpr int kSignedZero = 0;
  // Eight sums of two products of at most 15 * 127 each stay within 16 bits.
  HETERO_KERNEL Ints dot(Ints sum, Ints w, Ints x) {
    return _mm256_add_epi16(sum, _mm256_maddubs_epi16(w, x));
  }
  HETERO_KERNEL Ints total(Ints sum) {
    return _mm256_madd_epi16(sum, _mm256_set1_epi16(1));
  }
  static constexpr bool kWholeScales = true;
  HETERO_KERNEL Ints total_scaled(Ints sum, Ints scales) {
    return _mm256_madd_epi16(sum, scales);
  }
  HETERO_KERNEL Ints load_twice(const std::byte* p) {
    const __m256i words = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return _mm256_or_si256(words, _mm256_slli_epi32(words, 16));
  }
  HETERO_KERNEL Floats inverse(Floats a) {
    return _mm256_div_ps(_mm256_set1_ps(1.0f), a);
  }
  HETERO_KERNEL void store_words(std::byte* p, Floats a) {
    const __m256i wide = _mm256_cvtps_epi32(a);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                     _mm_packs_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1)));
  }
  HETERO_KERNEL int32_t start8(const int8_t* q) {
    const __m256i pairs =
        _mm256_maddubs_epi16(_mm256_set1_epi8(8), _mm256_loadu_si256(reinterpret_cast<const __m256i*>(q)));
    __m128i a = _mm_add_epi16(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
    a = _mm_add_epi16(a, _mm_shuffle_epi32(a, 0x4e));
    a = _mm_add_epi16(a, _mm_shuffle_epi32(a, 0xb1));
    return _mm_cvtsi128_si32(_mm_sub_epi16(_mm_setzero_si128(), a));
  }
  HETERO_KERNEL Ints dot_small(Ints sum, Ints w, Ints x) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), _mm256_set1_epi16(1)));
  }
  // 128 * 127 + 128 * 127 still fits 16 bits; a second pair would not.
  HETERO_KERNEL Ints dot_signed(Ints sum, Ints w, Ints x) {
    const __m256i products = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(products, _mm256_set1_epi16(1)));
  }
#endif
  HETERO_KERNEL Ints subtract(Ints a, int32_t b) {
    return _mm256_sub_epi32(a, _mm256_set1_epi32(b));
  }
  HETERO_KERNEL Floats to_floats(Ints a) {
    return _mm256_cvtepi32_ps(a);
  }
  HETERO_KERNEL Floats load_f16(const std::byte* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  HETERO_KERNEL Ints widen(const std::byte* p) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  }
  HETERO_KERNEL Floats load_u8(const std::byte* p) {
    return _mm256_cvtepi32_ps(widen(p));
  }
  HETERO_KERNEL Floats load_u4(const std::byte* p, int shift) {
    return _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srli_epi32(widen(p), shift), _mm256_set1_epi32(15)));
  }
  HETERO_KERNEL Floats load_i8(const std::byte* p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
  }
  HETERO_KERNEL Floats set(float x) {
    return _mm256_set1_ps(x);
  }
  HETERO_KERNEL Floats mul(Floats a, Floats b) {
    return _mm256_mul_ps(a, b);
  }
  HETERO_KERNEL Floats fma(Floats a, Floats b, Floats c) {
    return _mm256_fmadd_ps(a, b, c);
  }
  HETERO_KERNEL void settle(Ints& a) {
    asm("" : "+x"(a));
  }
  HETERO_KERNEL void settle_memory() {
    asm volatile("" : : : "memory");
  }
  HETERO_KERNEL Floats load_floats(const float* p) {
    return _mm256_loadu_ps(p);
  }
  HETERO_KERNEL void store_ints(std::byte* p, Ints a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a);
  }
  HETERO_KERNEL void store(float* p, Floats a) {
    _mm256_storeu_ps(p, a);
  }
};

#include "cpu/int8_inl.h"
