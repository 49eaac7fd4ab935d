// The products of tiles.h over tile registers that are plain arrays, so that everything but the four
// instructions is tested on every machine; and over AMX where it is there.
#include "cpu/tiles.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "base/f16.h"
#include "cpu/int8.h"
#include "cpu/kernels.h"
#include "cpu/levels.h"
#include "gguf/dequantize.h"
#include "gguf/random_blocks.h"
#if defined(__aarch64__)
#include <arm_neon.h>
#endif

#define HETERO_KERNEL static inline __attribute__((always_inline))

namespace hetero::cpu {
namespace {

#include "cpu/scalar_vector_inl.h"
#include "cpu/vector_inl.h"
constexpr int kPortableLanes = 16;
// After what they build on.
#include "cpu/int8_portable_inl.h"
// With panels as those of avx512vnni.cc.
struct I : Portable {
  static constexpr bool kBlockPairs = true;
  static void store_pairs(std::byte* p, Reg low, Reg high) {
    for (int l = 0; l < V::kWidth; ++l) {
      const auto word = [](float f) { return static_cast<int16_t>(f); };
      const int16_t pair[] = {word(low[l]), word(high[l])};
      std::memcpy(p + 4 * l, pair, sizeof(pair));
    }
  }
  // Not used by tiles.
  static Ints raise(Ints a) { return a; }
  static Ints join(Ints low, Ints) { return low; }
  static Ints round_by(Ints pairs, int32_t) { return pairs; }
  static Ints multiply_pairs(Ints a, Ints) { return a; }
  static Floats add(Floats a, Floats) { return a; }
};
//
#include "cpu/int8_inl.h"

struct T {
  static inline float sums[32][32];
  static inline int begun = 0;

  static float wide(uint16_t h) { return std::bit_cast<float>(static_cast<uint32_t>(h) << 16); }
  static void begin() { ++begun; }
  static void end() { --begun; }
  static void load(const float* from) { std::memcpy(sums, from, sizeof(sums)); }
  static void store(float* to) { std::memcpy(to, sums, sizeof(sums)); }
  static void step(const uint16_t* x, const uint32_t* w) {
    const auto* pairs = reinterpret_cast<const uint16_t*>(w);
    for (size_t i = 0; i < 32; ++i) {
      for (size_t c = 0; c < 32; ++c) {
        for (size_t p = 0; p < 16; ++p) {
          for (size_t b = 0; b < 2; ++b) {
            sums[i][c] +=
                wide(x[i * 32 + 2 * p + b]) * wide(pairs[((c / 16 * 16 + p) * 16 + c % 16) * 2 + b]);
          }
        }
      }
    }
  }
};
#include "cpu/tiles_inl.h"
//
#include "cpu/table_inl.h"

double rounded(double x) {
  return f32_from_bf16(bf16_from_f32(static_cast<float>(x)));
}

void test_products(const Int8Kernels& panels, const TileKernels& tiles) {
  constexpr double kUnit = 0x1p-24;
  for (const DType dtype : {DType::kQ4_0, DType::kQ4_1, DType::kQ8_0, DType::kQ5_K, DType::kQ6_K,
                            DType::kQ2_K, DType::kQ3_K, DType::kIQ4_NL, DType::kIQ4_XS, DType::kMXFP4}) {
    for (const auto& [k, n, m] :
         {std::tuple<int64_t, int64_t, int64_t>{256, 32, 1}, {1280, 7, 33}, {768, 32, 64}, {256, 31, 550}}) {
      std::vector<std::byte> bytes = random_blocks(dtype, n * k, static_cast<uint32_t>(n + k));
      if (dtype == DType::kQ4_1 && n == 32) {  // with scales of one size, which fit into whole numbers
        for (size_t block = 0; block < bytes.size(); block += 20) {
          const auto scale = static_cast<uint16_t>(0x3000 + block % 1021);
          const auto offset = static_cast<uint16_t>((scale ^ 0x8000) + (block % 3 << 10));
          std::memcpy(&bytes[block], &scale, sizeof(scale));
          std::memcpy(&bytes[block + 2], &offset, sizeof(offset));
        }
      }
      std::vector<float> w(static_cast<size_t>(n * k));
      dequantize(dtype, bytes.data(), n * k, w.data());
      std::mt19937 random(1);
      std::normal_distribution<float> normal;
      std::vector<float> x(static_cast<size_t>(m * k));
      for (float& f : x) {
        f = normal(random);
      }
      const std::vector<float> bias(static_cast<size_t>(n), 2.5f);
      const int64_t groups = (m + tiles.rows - 1) / tiles.rows;
      std::vector<uint16_t> rounded_x(static_cast<size_t>(groups * tiles.rows * k));
      for (int64_t i = 0; i < m; ++i) {
        tiles.round_row(x.data() + i * k, k,
                        rounded_x.data() + i / tiles.rows * tiles.rows * k + i % tiles.rows * 32);
      }
      std::vector<std::byte> panel(static_cast<size_t>(panels.panel_bytes(dtype, k)));
      panels.pack_panel({dtype, bytes.data(), row_bytes(dtype, k), n}, k, panel.data());
      std::vector<float> y(static_cast<size_t>(m * (n + 1)), 5.0f);
      tiles.multiply(dtype, panel.data(), k, rounded_x.data(), m, n, n == 7 ? nullptr : bias.data(), y.data(),
                     n + 1);
      for (int64_t i = 0; i<m; i += m> 100 ? 37 : 1) {
        for (int64_t c = 0; c < n; ++c) {
          double sum = n == 7 ? 0.0 : 2.5;
          double size = sum;
          for (int64_t j = 0; j < k; ++j) {
            const double product =
                rounded(x[static_cast<size_t>(i * k + j)]) * rounded(w[static_cast<size_t>(c * k + j)]);
            sum += product;
            size += std::abs(product);
          }
          // Sums in f32; and a weight near the middle of two bf16 may round the other way than the
          // reference's, for the few of them whose f32 value differs in its last bit.
          ASSERT_NEAR(y[static_cast<size_t>(i * (n + 1) + c)], sum,
                      (static_cast<double>(k) * kUnit + 0x1p-14) * size)
              << traits(dtype).name << " k " << k << " row " << i << " column " << c;
        }
        ASSERT_EQ(y[static_cast<size_t>(i * (n + 1) + n)], 5.0f) << "wrote past column " << n;
      }
    }
  }
}

TEST(Tiles, ProductsAreThoseOfRoundedNumbersInPlainArrays) {
  test_products(HETERO_INT8_TABLE, {kTileRows, round_tile_row, multiply_tiles});
  EXPECT_EQ(T::begun, 0);
}

TEST(Tiles, ProductsAreThoseOfRoundedNumbersInAmx) {
#if defined(__x86_64__)
  for (const Kernels* k : kernels_for(describe_cpu().flags)) {
    if (k->int8->tiles != nullptr) {
      return test_products(*k->int8, *k->int8->tiles);
    }
  }
#endif
  GTEST_SKIP() << "this machine has no AMX";
}

}  // namespace
}  // namespace hetero::cpu
