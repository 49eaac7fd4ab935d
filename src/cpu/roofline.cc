#include "cpu/roofline.h"

#include <algorithm>
#include <cstring>

#include "base/clock.h"
#include "base/memory.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace hetero::cpu {
namespace {

/// Keeps the compiler from computing a value ahead or dropping it.
template <class T>
inline void keep(T& value) {
  asm volatile("" : "+m"(value) : : "memory");
}

/// Runs `times` rounds of multiply-adds in independent chains.
using Spin = void (*)(int64_t times);
struct Unit {
  Spin spin = nullptr;
  double operations = 0.0;  // of one round
};

constexpr int kChains = 12;  // covers the latency of every core so far, and fits 16 registers

void spin_scalar(int64_t times) {
  float acc[kChains] = {};
  for (int64_t i = 0; i < times; ++i) {
    for (float& a : acc) {
      a = a * 0.999f + 0.999f;
    }
    keep(acc);
  }
}

#if defined(__x86_64__)
#define HETERO_CHAINS(F) F(0) F(1) F(2) F(3) F(4) F(5) F(6) F(7) F(8) F(9) F(10) F(11)

// The operations are written in assembly, so that compilers can neither merge nor reorder chains.
#define HETERO_SPIN(name, isa, type, set, instruction)                                                 \
  __attribute__((target(isa))) void name(int64_t times) {                                              \
    const type x = set(1);                                                                             \
    type a0 = set(0), a1 = a0, a2 = a0, a3 = a0, a4 = a0, a5 = a0, a6 = a0, a7 = a0, a8 = a0, a9 = a0, \
         a10 = a0, a11 = a0;                                                                           \
    for (int64_t i = 0; i < times; ++i) {                                                              \
      HETERO_CHAINS(instruction)                                                                       \
    }                                                                                                  \
  }
#define HETERO_FMA(i) asm volatile("vfmadd231ps %1, %1, %0" : "+x"(a##i) : "x"(x));
#define HETERO_FMA512(i) asm volatile("vfmadd231ps %1, %1, %0" : "+v"(a##i) : "v"(x));
HETERO_SPIN(spin_f32_avx2, "avx2,fma", __m256, _mm256_set1_ps, HETERO_FMA)
HETERO_SPIN(spin_f32_avx512, "avx512f", __m512, _mm512_set1_ps, HETERO_FMA512)

// vpmaddubsw: 32 products, added in pairs to 16-bit numbers; vpaddw adds those up.
#define HETERO_MADDUBS(i)                                     \
  {                                                           \
    __m256i p;                                                \
    asm volatile("vpmaddubsw %1, %1, %0" : "=x"(p) : "x"(x)); \
    asm volatile("vpaddw %1, %0, %0" : "+x"(a##i) : "x"(p));  \
  }
#define HETERO_MADDUBS512(i)                                  \
  {                                                           \
    __m512i p;                                                \
    asm volatile("vpmaddubsw %1, %1, %0" : "=v"(p) : "v"(x)); \
    asm volatile("vpaddw %1, %0, %0" : "+v"(a##i) : "v"(p));  \
  }
HETERO_SPIN(spin_int8_avx2, "avx2", __m256i, _mm256_set1_epi8, HETERO_MADDUBS)
HETERO_SPIN(spin_int8_avx512, "avx512bw", __m512i, _mm512_set1_epi8, HETERO_MADDUBS512)
#define HETERO_DPBUSD(i) asm volatile("%{vex%} vpdpbusd %1, %1, %0" : "+x"(a##i) : "x"(x));
#define HETERO_DPBUSD512(i) asm volatile("vpdpbusd %1, %1, %0" : "+v"(a##i) : "v"(x));
HETERO_SPIN(spin_int8_avx_vnni, "avx2", __m256i, _mm256_set1_epi8, HETERO_DPBUSD)
HETERO_SPIN(spin_int8_avx512_vnni, "avx512f", __m512i, _mm512_set1_epi8, HETERO_DPBUSD512)

// Tiles of 16 rows of 64 bytes: 4 accumulators, 2 and 2 factors.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
#define HETERO_TILES(name, instruction)                                                          \
  void name(int64_t times) {                                                                     \
    const TileConfig config;                                                                     \
    asm volatile("ldtilecfg %0" : : "m"(config));                                                \
    asm volatile(                                                                                \
        "tilezero %%tmm0\ntilezero %%tmm1\ntilezero %%tmm2\ntilezero %%tmm3\n"                   \
        "tilezero %%tmm4\ntilezero %%tmm5\ntilezero %%tmm6\ntilezero %%tmm7"                     \
        :                                                                                        \
        :                                                                                        \
        : "memory");                                                                             \
    for (int64_t i = 0; i < times; ++i) {                                                        \
      asm volatile(instruction " %%tmm6, %%tmm4, %%tmm0\n" instruction                           \
                               " %%tmm7, %%tmm4, %%tmm1\n" instruction                           \
                               " %%tmm6, %%tmm5, %%tmm2\n" instruction " %%tmm7, %%tmm5, %%tmm3" \
                   :                                                                             \
                   :                                                                             \
                   : "memory");                                                                  \
    }                                                                                            \
    asm volatile("tilerelease" : : : "memory");                                                  \
  }
HETERO_TILES(spin_int8_amx, "tdpbssd")
HETERO_TILES(spin_bf16_amx, "tdpbf16ps")

/// Linux gives a process the tiles' registers when it asks.
bool tiles_allowed() {
  constexpr int kRequestPermission = 0x1023;
  constexpr int kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
#endif

struct Units {
  Unit f32{spin_scalar, 2.0 * kChains};
  Unit int8;
  Unit bf16;
};

Units units_of(const std::string& level) {
  Units units;
#if defined(__x86_64__)
  const auto has = [&](const char* part) { return level.find(part) != std::string::npos; };
  if (has("avx2")) {
    units.f32 = {spin_f32_avx2, 2.0 * kChains * 8};
    units.int8 = {has("vnni") ? spin_int8_avx_vnni : spin_int8_avx2, 2.0 * kChains * 32};
  }
  if (has("avx512") || has("amx")) {
    units.f32 = {spin_f32_avx512, 2.0 * kChains * 16};
    units.int8 = {has("vnni") ? spin_int8_avx512_vnni : spin_int8_avx512, 2.0 * kChains * 64};
  }
  if (has("amx") && tiles_allowed()) {
    units.int8 = {spin_int8_amx, 2.0 * 4 * 16 * 16 * 64};
    units.bf16 = {spin_bf16_amx, 2.0 * 4 * 16 * 16 * 32};
  }
#else
  (void)level;
#endif
  return units;
}

double seconds_of(const std::function<void()>& f) {
  const Nanos begin = now();
  f();
  return std::chrono::duration<double>(now() - begin).count();
}

double rate(const Unit& unit, ThreadPool& pool) {
  if (unit.spin == nullptr) {
    return 0.0;
  }
  // Short enough for some rounds to pass undisturbed on a busy machine.
  constexpr int64_t kTimes = 50'000;
  double best = 0.0;
  for (int round = 0; round < 300; ++round) {
    const double s = seconds_of([&] { pool.run([&](int) { unit.spin(kTimes); }); });
    best = std::max(best, unit.operations * static_cast<double>(kTimes) * pool.size() / s / 1e9);
  }
  return best;
}

double read_bandwidth(ThreadPool& pool) {
  const Bytes size = Bytes{256} << 20;
  auto memory = PageMemory::allocate(size);
  if (!memory.ok()) {
    return 0.0;
  }
  std::memset(memory->data(), 1, static_cast<size_t>(size));
  const auto* words = reinterpret_cast<const uint64_t*>(memory->data());
  double best = 0.0;
  for (int round = 0; round < 20; ++round) {
    const double s = seconds_of([&] {
      pool.parallel_for(size / 8, 4096, [&](int64_t begin, int64_t end, int) {
        uint64_t sums[8] = {};
        for (int64_t i = begin; i < end; i += 32) {  // words 32 bytes apart touch every cache line
          for (int j = 0; j < 32; j += 4) {
            sums[j / 4] += words[i + j];
          }
        }
        keep(sums);
      });
    });
    best = std::max(best, static_cast<double>(size) / s / 1e9);
  }
  return best;
}

}  // namespace

Roofline measure_roofline(const std::string& level, ThreadPool& pool) {
  const Units units = units_of(level);
  return {rate(units.f32, pool), rate(units.int8, pool), rate(units.bf16, pool), read_bandwidth(pool)};
}

}  // namespace hetero::cpu
