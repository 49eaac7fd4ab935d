// 8-bit products for AVX-512 with VNNI.
#include <immintrin.h>

#include "cpu/int8.h"

#define HETERO_KERNEL static inline __attribute__((always_inline))

namespace hetero::cpu {
namespace {

#include "cpu/avx512_vector_inl.h"
#include "cpu/vector_inl.h"

struct I {
  static constexpr int kLanes = 16;
  static constexpr int kTile = 12;
  static constexpr int kSignedZero = 128;
  using Ints = __m512i;
  using Floats = __m512;

  HETERO_KERNEL Ints load(const std::byte* p) { return _mm512_loadu_si512(p); }
  HETERO_KERNEL Ints low(Ints a) { return _mm512_and_si512(a, _mm512_set1_epi8(15)); }
  HETERO_KERNEL Ints high(Ints a) { return _mm512_and_si512(_mm512_srli_epi16(a, 4), _mm512_set1_epi8(15)); }
  HETERO_KERNEL Ints broadcast(const int8_t* p) {
    int32_t four;
    __builtin_memcpy(&four, p, sizeof(four));
    return _mm512_set1_epi32(four);
  }
  HETERO_KERNEL Ints zero() { return _mm512_setzero_si512(); }
  HETERO_KERNEL std::byte signed_byte(int8_t q) { return static_cast<std::byte>(q + 128); }
  HETERO_KERNEL Ints dot(Ints sum, Ints w, Ints x) { return _mm512_dpbusd_epi32(sum, w, x); }
  HETERO_KERNEL Ints total(Ints sum) { return sum; }
  HETERO_KERNEL Ints dot_signed(Ints sum, Ints w, Ints x) { return _mm512_dpbusd_epi32(sum, w, x); }
  HETERO_KERNEL Ints total_signed(Ints sum) { return sum; }
  HETERO_KERNEL Ints subtract(Ints a, int32_t b) { return _mm512_sub_epi32(a, _mm512_set1_epi32(b)); }
  HETERO_KERNEL Floats to_floats(Ints a) { return _mm512_cvtepi32_ps(a); }
  HETERO_KERNEL Floats load_f16(const std::byte* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  HETERO_KERNEL Floats load_u8(const std::byte* p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  }
  HETERO_KERNEL Floats set(float x) { return _mm512_set1_ps(x); }
  HETERO_KERNEL Floats mul(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
  HETERO_KERNEL Floats fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
  HETERO_KERNEL void store(float* p, Floats a) { _mm512_storeu_ps(p, a); }
};

#include "cpu/int8_inl.h"

}  // namespace

#include "cpu/table_inl.h"
const Int8Kernels kAvx512VnniInt8Kernels = HETERO_INT8_TABLE;

}  // namespace hetero::cpu
