// What AVX2 and AVX-512 share of V: 32 integers of 8 bits in a register (kernels_inl.h).

struct X86Numbers {
  using Numbers = __m256i;

  HETERO_KERNEL Numbers nibbles(const std::byte* p) {
    const __m128i b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    const __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(b), _mm_srli_epi16(b, 4), 1);
    return _mm256_and_si256(both, _mm256_set1_epi8(15));
  }
  HETERO_KERNEL Numbers look_up(const int8_t* values, Numbers indices) {
    const __m128i table = _mm_loadu_si128(reinterpret_cast<const __m128i*>(values));
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), indices);
  }
  HETERO_KERNEL void store_numbers(int8_t* p, Numbers a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a);
  }
};
