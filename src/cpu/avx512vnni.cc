// 8-bit products for AVX-512 with VNNI, and products in AMX tiles of bf16 (Sapphire Rapids and later), which
// read the same panels. The compiler uses tile registers nowhere but where it is told to.
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cpu/int8.h"
#include "cpu/tiles.h"

#define HETERO_KERNEL static inline __attribute__((always_inline))

namespace hetero::cpu {
namespace {

#include "cpu/avx512_vector_inl.h"
#include "cpu/vector_inl.h"

struct I {
  static constexpr int kLanes = 16;
  static constexpr int kVectors = 2;
  static constexpr int kTile = 6;
  static constexpr int kDecodedBlocks = 16;  // with 32 rows 20 KiB
  static constexpr int kSignedZero = 128;
  using Ints = __m512i;
  using Floats = __m512;

  HETERO_KERNEL Ints load(const std::byte* p) { return _mm512_loadu_si512(p); }
  HETERO_KERNEL Ints low(Ints a) { return _mm512_and_si512(a, _mm512_set1_epi8(15)); }
  HETERO_KERNEL Ints high(Ints a) { return _mm512_and_si512(_mm512_srli_epi16(a, 4), _mm512_set1_epi8(15)); }
  HETERO_KERNEL Ints add_bits(Ints numbers, Ints bits, int shift, char mask) {
    bits = shift >= 0 ? _mm512_slli_epi16(bits, static_cast<unsigned>(shift))
                      : _mm512_srli_epi16(bits, static_cast<unsigned>(-shift));
    return _mm512_or_si512(numbers, _mm512_and_si512(bits, _mm512_set1_epi8(mask)));
  }
  HETERO_KERNEL Ints look_up(const int8_t* values, Ints indices) {
    const __m128i table = _mm_loadu_si128(reinterpret_cast<const __m128i*>(values));
    const __m128i zeroed = _mm_xor_si128(table, _mm_set1_epi8(static_cast<char>(kSignedZero)));
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(zeroed), indices);
  }
  HETERO_KERNEL Ints broadcast(const int8_t* p) {
    int32_t four;
    __builtin_memcpy(&four, p, sizeof(four));
    return _mm512_set1_epi32(four);
  }
  HETERO_KERNEL Ints zero() { return _mm512_setzero_si512(); }
  HETERO_KERNEL Ints dot(Ints sum, Ints w, Ints x) { return _mm512_dpbusd_epi32(sum, w, x); }
  HETERO_KERNEL Ints total(Ints sum) { return sum; }
  HETERO_KERNEL Ints dot_small(Ints sum, Ints w, Ints x) { return _mm512_dpbusd_epi32(sum, w, x); }
  HETERO_KERNEL Ints dot_signed(Ints sum, Ints w, Ints x) { return _mm512_dpbusd_epi32(sum, w, x); }
  static constexpr bool kBlockPairs = true;
  HETERO_KERNEL Ints raise(Ints a) { return _mm512_slli_epi32(a, 16); }
  HETERO_KERNEL Ints join(Ints low, Ints high) {
    constexpr int kSelect = 0xe4;  // bits of `low` where the third one has any
    return _mm512_ternarylogic_epi32(low, high, _mm512_set1_epi32(0xffff), kSelect);
  }
  HETERO_KERNEL Ints round_by(Ints pairs, int32_t b) {
    return _mm512_mulhrs_epi16(pairs, _mm512_set1_epi32(b));
  }
  HETERO_KERNEL Ints multiply_pairs(Ints a, Ints b) { return _mm512_madd_epi16(a, b); }
  HETERO_KERNEL void store_pairs(std::byte* p, Floats low, Floats high) {
    store_ints(p, join(_mm512_cvtps_epi32(low), raise(_mm512_cvtps_epi32(high))));
  }
  HETERO_KERNEL Ints subtract(Ints a, int32_t b) { return _mm512_sub_epi32(a, _mm512_set1_epi32(b)); }
  HETERO_KERNEL Floats to_floats(Ints a) { return _mm512_cvtepi32_ps(a); }
  HETERO_KERNEL Floats load_f16(const std::byte* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  HETERO_KERNEL Ints widen(const std::byte* p) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  HETERO_KERNEL Floats load_u8(const std::byte* p) { return _mm512_cvtepi32_ps(widen(p)); }
  HETERO_KERNEL Floats load_u4(const std::byte* p, int shift) {
    const Ints shifted = _mm512_srli_epi32(widen(p), static_cast<unsigned>(shift));
    return _mm512_cvtepi32_ps(_mm512_and_si512(shifted, _mm512_set1_epi32(15)));
  }
  HETERO_KERNEL Floats load_i8(const std::byte* p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  }
  HETERO_KERNEL Floats set(float x) { return _mm512_set1_ps(x); }
  HETERO_KERNEL Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
  HETERO_KERNEL Floats mul(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
  HETERO_KERNEL Floats fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
  HETERO_KERNEL void settle(Ints& a) { asm("" : "+v"(a)); }
  HETERO_KERNEL void settle_memory() { asm volatile("" : : : "memory"); }
  HETERO_KERNEL Floats load_floats(const float* p) { return _mm512_loadu_ps(p); }
  HETERO_KERNEL void store_ints(std::byte* p, Ints a) { _mm512_storeu_si512(p, a); }
  HETERO_KERNEL void store(float* p, Floats a) { _mm512_storeu_ps(p, a); }
};

#include "cpu/int8_inl.h"

// Tiles 0..3: sums, rows 0..15 with weights 0..15, with weights 16..31, rows 16..31 the same.
// 4, 5: activations. 6, 7: weights. All of 16 rows of 64 bytes.
struct T {
  HETERO_KERNEL void begin() {
    struct alignas(64) {
      uint8_t palette = 1;
      uint8_t start_row = 0;
      uint8_t reserved[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } config;
    static_assert(sizeof(config) == 64);
    _tile_loadconfig(&config);
  }
  HETERO_KERNEL void end() { _tile_release(); }
  HETERO_KERNEL void load(const float* sums) {
    _tile_loadd(0, sums, 128);
    _tile_loadd(1, sums + 16, 128);
    _tile_loadd(2, sums + 16 * 32, 128);
    _tile_loadd(3, sums + 16 * 32 + 16, 128);
  }
  HETERO_KERNEL void store(float* sums) {
    _tile_stored(0, sums, 128);
    _tile_stored(1, sums + 16, 128);
    _tile_stored(2, sums + 16 * 32, 128);
    _tile_stored(3, sums + 16 * 32 + 16, 128);
  }
  HETERO_KERNEL void step(const uint16_t* x, const uint32_t* w) {
    _tile_loadd(4, x, 64);
    _tile_loadd(6, w, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, w + 16 * 16, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, x + 16 * 32, 64);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
};

#include "cpu/tiles_inl.h"

}  // namespace

#include "cpu/table_inl.h"
const Int8Kernels kAvx512VnniInt8Kernels = HETERO_INT8_TABLE;

const TileKernels kAmxTileKernels = {kTileRows, round_tile_row, multiply_tiles};

bool request_amx() {
  constexpr int kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr int kTileData = 18;               // XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

}  // namespace hetero::cpu
