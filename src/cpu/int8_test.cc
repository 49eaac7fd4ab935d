#include "cpu/int8.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <random>
#include <vector>

#include "cpu/levels.h"
#include "gguf/dequantize.h"
#include "gguf/random_blocks.h"

namespace hetero::cpu {
namespace {

constexpr double kUnit = 0x1p-24;

class Int8 : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    for (const Kernels* k : kernels_for(describe_cpu().flags)) {
      if (k->level == GetParam()) {
        kernels_ = k->int8;
      }
    }
    if (kernels_ == nullptr) {
      GTEST_SKIP() << "this machine does not run " << GetParam();
    }
  }
  const Int8Kernels* kernels_ = nullptr;
};

INSTANTIATE_TEST_SUITE_P(Cpu, Int8, testing::Values("scalar", "avx2", "avx2-vnni", "avx512-vnni"),
                         [](const auto& level) {
                           std::string name = level.param;
                           std::erase(name, '-');
                           return name;
                         });

std::vector<float> randoms(int64_t count, float size, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, size);
  std::vector<float> out(static_cast<size_t>(count));
  for (float& x : out) {
    x = normal(random);
  }
  return out;
}

TEST_P(Int8, RowsAreRoundedToTheNearestOfTheirBlocksScale) {
  std::vector<float> x = randoms(32 * 7, 1.0f, 1);
  std::fill_n(x.begin() + 32, 32, 0.0f);
  for (int i = 0; i < 32; ++i) {
    x[static_cast<size_t>(64 + i)] *= 1e-9f;  // F16 has no such scale
    x[static_cast<size_t>(96 + i)] *= 1e9f;
    x[static_cast<size_t>(128 + i)] = i % 2 == 0 ? 127.0f : -127.0f;
  }
  std::vector<int8_t> q(x.size());
  std::vector<Int8Block> blocks(x.size() / 32);
  kernels_->quantize_row(x.data(), static_cast<int64_t>(x.size()), q.data(), blocks.data());
  for (size_t b = 0; b < blocks.size(); ++b) {
    int sum = 0;
    for (size_t i = 32 * b; i < 32 * (b + 1); ++i) {
      // Half a step, and what rounding the scale to F16 moves the largest of 127 steps.
      const double tolerance = blocks[b].scale * (0.5 + 127.0 * 0x1p-11 + 1e-3);
      EXPECT_LE(std::abs(double{x[i]} - double{blocks[b].scale} * q[i]), tolerance) << i;
      sum += q[i];
    }
    EXPECT_EQ(blocks[b].q_sum, sum);
    EXPECT_FLOAT_EQ(blocks[b].sum, blocks[b].scale * static_cast<float>(sum));
  }
  EXPECT_EQ(q[128], 127);
  EXPECT_EQ(q[129], -127);
}

TEST_P(Int8, ProductsAreThoseOfTheRoundedRows) {
  int types = 0;
  for (const DType dtype : kWeightTypes) {
    const int64_t unit = std::max(32, traits(dtype).block_elements);
    if (kernels_->panel_bytes(dtype, unit) == 0) {
      continue;
    }
    ++types;
    for (const int64_t k : {unit, 3 * unit, 8 * unit}) {
      for (int64_t n = 1; n <= kernels_->lanes; n += 3) {
        for (const int64_t m : {1, 2, 3, 5, 6, 7, 11, 12, 13, 29}) {
          const std::vector<std::byte> bytes = random_blocks(dtype, n * k, static_cast<uint32_t>(n + k));
          std::vector<float> w(static_cast<size_t>(n * k));
          dequantize(dtype, bytes.data(), n * k, w.data());
          const std::vector<float> x = randoms(m * k, 1.0f, static_cast<uint32_t>(m));
          const std::vector<float> bias = randoms(n, 1.0f, 7);
          std::vector<int8_t> q(x.size());
          std::vector<Int8Block> blocks(x.size() / 32);
          for (int64_t i = 0; i < m; ++i) {
            kernels_->quantize_row(x.data() + i * k, k, q.data() + i * k, blocks.data() + i * (k / 32));
          }
          auto* panel = static_cast<std::byte*>(
              std::aligned_alloc(64, static_cast<size_t>((kernels_->panel_bytes(dtype, k) + 63) / 64 * 64)));
          kernels_->pack_panel({dtype, bytes.data(), row_bytes(dtype, k), n}, k, panel);
          std::vector<float> y(static_cast<size_t>(m * (n + 1)), 5.0f);
          kernels_->multiply(dtype, panel, k, {q.data(), blocks.data()}, m, n,
                             n % 2 == 0 ? bias.data() : nullptr, y.data(), n + 1);
          std::free(panel);
          for (int64_t i = 0; i < m; ++i) {
            for (int64_t c = 0; c < n; ++c) {
              double sum = n % 2 == 0 ? bias[static_cast<size_t>(c)] : 0.0;
              double size = std::abs(sum);
              for (int64_t j = 0; j < k; ++j) {
                const double product = double{blocks[static_cast<size_t>((i * k + j) / 32)].scale} *
                                       q[static_cast<size_t>(i * k + j)] * w[static_cast<size_t>(c * k + j)];
                sum += product;
                size += std::abs(product);
              }
              // Offsets and products round apart: a format with an offset cancels up to twice its size.
              ASSERT_NEAR(y[static_cast<size_t>(i * (n + 1) + c)], sum, 32.0 * kUnit * size + 1e-30)
                  << traits(dtype).name << " k " << k << " row " << i << " column " << c;
            }
            ASSERT_EQ(y[static_cast<size_t>(i * (n + 1) + n)], 5.0f) << "wrote past column " << n;
          }
        }
      }
    }
  }
  EXPECT_GE(types, 4);
}

TEST_P(Int8, ExtremeNumbersDoNotOverflow) {
  // All activations at the ends of their range against the largest weights of each sign.
  for (const DType dtype : {DType::kQ8_0, DType::kQ4_0}) {
    for (const int sign : {1, -1}) {
      std::vector<std::byte> bytes = random_blocks(dtype, 64, 1);
      const auto block = static_cast<size_t>(traits(dtype).block_bytes);
      for (size_t i = 0; i < bytes.size(); ++i) {
        if (i % block >= 2) {
          bytes[i] = dtype == DType::kQ8_0 ? static_cast<std::byte>(sign > 0 ? 127 : -128) : std::byte{0};
        }
      }
      std::vector<float> w(64);
      dequantize(dtype, bytes.data(), 64, w.data());
      std::vector<float> x(64, static_cast<float>(127 * sign));
      std::vector<int8_t> q(64);
      std::vector<Int8Block> blocks(2);
      kernels_->quantize_row(x.data(), 64, q.data(), blocks.data());
      alignas(64) std::byte panel[8192];
      ASSERT_LE(kernels_->panel_bytes(dtype, 64), 8192);
      kernels_->pack_panel({dtype, bytes.data(), row_bytes(dtype, 64), 1}, 64, panel);
      float y = 0.0f;
      kernels_->multiply(dtype, panel, 64, {q.data(), blocks.data()}, 1, 1, nullptr, &y, 1);
      double sum = 0.0;
      for (size_t i = 0; i < 64; ++i) {
        sum += double{w[i]} * x[i];
      }
      EXPECT_NEAR(y, sum, std::abs(sum) * 1e-5) << traits(dtype).name << " sign " << sign;
    }
  }
}

}  // namespace
}  // namespace hetero::cpu
