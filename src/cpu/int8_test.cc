#include "cpu/int8.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "base/f16.h"
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

INSTANTIATE_TEST_SUITE_P(Cpu, Int8,
                         testing::Values("scalar", "avx2", "avx2-vnni", "avx512-vnni", "dotprod", "i8mm"),
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

/// Memory for rows of activations.
struct RoundedRows {
  explicit RoundedRows(size_t blocks_) : q(32 * blocks_), blocks(blocks_), whole(blocks_) {}
  Int8Rows from(int64_t block, int64_t tile) {
    return Int8Rows{q.data(), blocks.data(), whole.data(), tile}.from(block);
  }
  std::vector<int8_t> q;
  std::vector<Int8Block> blocks;
  std::vector<Int8Whole> whole;
};

/// How much a dot product may differ from that of the rounded row because sums of a group's blocks are
/// rounded once more (int8_block_pairs_inl.h). Rounding to the common scale is off by at most half of one in
/// its last place, and as much comes from the 16 bits of a block's scale.
double rounding_in_groups(DType dtype, const std::byte* weight_row, int64_t k, const Int8Block* blocks,
                          int64_t tile) {
  if (dtype != DType::kQ4_0 && dtype != DType::kQ4_1) {
    return 0.0;
  }
  constexpr int64_t kGroup = 32;
  double sum = 0.0;
  double scale = blocks[0].group_scale;  // of the last group
  for (int64_t b = k / 32; b-- > 0;) {
    const std::byte* block = weight_row + b * traits(dtype).block_bytes;
    const auto half = [&](int at) {
      uint16_t h;
      std::memcpy(&h, block + at, sizeof(h));
      return double{f32_from_f16(h)};
    };
    const double offset = dtype == DType::kQ4_1 ? half(2) / 8 + half(0) : 0.0;
    sum += scale * (std::abs(half(0)) + std::abs(offset));
    if (b % kGroup == 0) {
      scale *= blocks[b * tile].group_scale;
    }
  }
  return sum;
}

TEST_P(Int8, RowsAreRoundedToTheNearestOfTheirBlocksScale) {
  std::vector<float> x = randoms(32 * 7, 1.0f, 1);
  std::fill_n(x.begin() + 32, 32, 0.0f);
  for (int i = 0; i < 32; ++i) {
    x[static_cast<size_t>(64 + i)] *= 1e-9f;
    x[static_cast<size_t>(96 + i)] *= 1e9f;
    x[static_cast<size_t>(128 + i)] = i % 2 == 0 ? 127.0f : -127.0f;
  }
  RoundedRows rows(x.size() / 32);
  kernels_->quantize_row(x.data(), static_cast<int64_t>(x.size()), rows.from(0, 1));
  const auto& [q, blocks, whole] = rows;
  for (size_t b = 0; b < blocks.size(); ++b) {
    int sum = 0;
    int first = 0;
    for (size_t i = 32 * b; i < 32 * (b + 1); ++i) {
      const double tolerance = blocks[b].scale * (0.5 + 127.0 * 4 * kUnit);  // half a step
      EXPECT_LE(std::abs(double{x[i]} - double{blocks[b].scale} * q[i]), tolerance) << i;
      sum += q[i];
      first += i % 32 < 16 ? q[i] : 0;
    }
    EXPECT_EQ(blocks[b].q_sum8, 8 * sum);
    EXPECT_EQ(blocks[b].first_sum8, 8 * first);
    EXPECT_FLOAT_EQ(blocks[b].sum, blocks[b].scale * static_cast<float>(sum));
    EXPECT_FLOAT_EQ(blocks[b].first_sum, blocks[b].scale * static_cast<float>(first));
  }
  EXPECT_EQ(q[128], 127);
  EXPECT_EQ(q[129], -127);
}

TEST_P(Int8, ProductsAreThoseOfTheRoundedRows) {
  for (const DType dtype : kWeightTypes) {
    const int64_t unit = std::max(32, traits(dtype).block_elements);
    if (kernels_->panel_bytes(dtype, unit) == 0) {
      EXPECT_EQ(traits(dtype).block_elements, 1) << traits(dtype).name;
      continue;
    }
    for (const int64_t k :
         {unit, 3 * unit, (26 * 32 + unit - 1) / unit * unit, (70 * 32 + unit - 1) / unit * unit}) {
      for (const int64_t n :
           {int64_t{1}, int64_t{6}, kernels_->lanes - 1, kernels_->lanes, 9 * kernels_->lanes + 2}) {
        const int64_t panels = (n + kernels_->lanes - 1) / kernels_->lanes;
        const int64_t panel_bytes = kernels_->panel_bytes(dtype, k);
        for (const int64_t m : {1, 2, 3, 4, 5, 6, 7, 12, 13, 99}) {
          if (n > kernels_->lanes && m != 1 && m != 7) {
            continue;
          }
          const std::vector<std::byte> bytes = random_blocks(dtype, n * k, static_cast<uint32_t>(n + k));
          std::vector<float> w(static_cast<size_t>(n * k));
          dequantize(dtype, bytes.data(), n * k, w.data());
          std::vector<float> x = randoms(m * k, 1.0f, static_cast<uint32_t>(m));
          constexpr float kSizes[] = {1.0f, 1e-3f, 0.0f, 300.0f, 1e-6f};  // of blocks of a third of the rows
          for (int64_t j = 0; j < m * k; ++j) {
            x[static_cast<size_t>(j)] *= j / k % 3 == 2 ? kSizes[j % k / 32 % 5] : 1.0f;
          }
          const std::vector<float> bias = randoms(n, 1.0f, 7);
          const int64_t tile = std::min(m, kernels_->tile);
          const int64_t row_blocks = k / 32;
          const auto place = [&](int64_t i, int64_t block) {
            return static_cast<size_t>((i / tile * row_blocks + block) * tile + i % tile);
          };
          RoundedRows rows(place(m + tile, 0));
          const auto& [q, blocks, whole] = rows;
          for (int64_t i = 0; i < m; ++i) {
            kernels_->quantize_row(x.data() + i * k, k, rows.from(static_cast<int64_t>(place(i, 0)), tile));
          }
          auto* panel = static_cast<std::byte*>(
              std::aligned_alloc(64, static_cast<size_t>((panels * panel_bytes + 63) / 64 * 64)));
          for (int64_t p = 0; p < panels; ++p) {
            const int64_t row = p * kernels_->lanes;
            kernels_->pack_panel({dtype, bytes.data() + row * row_bytes(dtype, k), row_bytes(dtype, k),
                                  std::min(kernels_->lanes, n - row)},
                                 k, panel + p * panel_bytes);
          }
          std::vector<float> y(static_cast<size_t>(m * (n + 1)), 5.0f);
          kernels_->multiply(dtype, panel, k, rows.from(0, tile), m, n, n % 2 == 0 ? bias.data() : nullptr,
                             nullptr, y.data(), n + 1);
          std::free(panel);
          for (int64_t i = 0; i < m; ++i) {
            for (int64_t c = 0; c < n; ++c) {
              double sum = n % 2 == 0 ? bias[static_cast<size_t>(c)] : 0.0;
              double size = std::abs(sum);
              for (int64_t j = 0; j < k; ++j) {
                const size_t block = place(i, j / 32);
                const double product = double{blocks[block].scale} *
                                       q[block * 32 + static_cast<size_t>(j % 32)] *
                                       w[static_cast<size_t>(c * k + j)];
                sum += product;
                size += std::abs(product);
              }
              // Offsets and products round apart: a format with an offset cancels up to twice its size.
              const double again = rounding_in_groups(dtype, bytes.data() + c * row_bytes(dtype, k), k,
                                                      &blocks[place(i, 0)], tile);
              ASSERT_NEAR(y[static_cast<size_t>(i * (n + 1) + c)], sum, 32.0 * kUnit * size + again + 1e-30)
                  << traits(dtype).name << " k " << k << " row " << i << " column " << c;
            }
            ASSERT_EQ(y[static_cast<size_t>(i * (n + 1) + n)], 5.0f) << "wrote past column " << n;
          }
        }
      }
    }
  }
}

TEST_P(Int8, WhatIsNotANumberIsNotLost) {
  for (const DType dtype : {DType::kQ4_0, DType::kQ4_1, DType::kQ8_0, DType::kQ4_K, DType::kQ6_K}) {
    const int64_t k = 9 * 256;  // several groups, of which the first is spoiled
    const int64_t n = kernels_->lanes;
    const std::vector<std::byte> bytes = random_blocks(dtype, n * k, 3);
    std::vector<std::byte> memory(static_cast<size_t>(kernels_->panel_bytes(dtype, k) + 64));
    std::byte* panel = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64);
    kernels_->pack_panel({dtype, bytes.data(), row_bytes(dtype, k), n}, k, panel);
    for (const float bad : {std::nanf(""), HUGE_VALF, -HUGE_VALF}) {
      std::vector<float> x = randoms(k, 1.0f, 4);
      x[333] = bad;
      RoundedRows rounded(static_cast<size_t>(k / 32));
      kernels_->quantize_row(x.data(), k, rounded.from(0, 1));
      std::vector<float> y(static_cast<size_t>(n));
      kernels_->multiply(dtype, panel, k, rounded.from(0, 1), 1, n, nullptr, nullptr, y.data(), n);
      for (const float f : y) {
        ASSERT_FALSE(std::isfinite(f)) << traits(dtype).name << " with " << bad;
      }
    }
  }
}

TEST_P(Int8, OneRowAndManyGiveTheSameNumbers) {
  // Whether a token is read alone or in a prompt must not change what it computes.
  for (const DType dtype :
       {DType::kQ4_0, DType::kQ4_1, DType::kQ5_1, DType::kQ8_0, DType::kQ4_K, DType::kQ6_K, DType::kQ2_K,
        DType::kQ3_K, DType::kIQ4_NL, DType::kIQ4_XS, DType::kMXFP4}) {
    const int64_t k = 7 * 256;
    const int64_t m = kernels_->tile;
    const int64_t n = kernels_->lanes;
    const std::vector<std::byte> bytes = random_blocks(dtype, n * k, 3);
    const std::vector<float> x = randoms(k, 1.0f, 4);
    auto* panel = static_cast<std::byte*>(
        std::aligned_alloc(64, static_cast<size_t>((kernels_->panel_bytes(dtype, k) + 63) / 64 * 64)));
    kernels_->pack_panel({dtype, bytes.data(), row_bytes(dtype, k), n}, k, panel);
    std::vector<float> y[2];
    for (const int64_t rows : {int64_t{1}, m}) {
      RoundedRows rounded(static_cast<size_t>(rows * k / 32));
      for (int64_t i = 0; i < rows; ++i) {
        kernels_->quantize_row(x.data(), k, rounded.from(i, rows));
      }
      std::vector<float>& to = y[rows == 1 ? 0 : 1];
      to.resize(static_cast<size_t>(rows * n));
      kernels_->multiply(dtype, panel, k, rounded.from(0, rows), rows, n, nullptr, nullptr, to.data(), n);
    }
    std::free(panel);
    for (size_t i = 0; i < y[1].size(); ++i) {
      ASSERT_EQ(y[0][i % static_cast<size_t>(n)], y[1][i]) << traits(dtype).name;
    }
  }
}

TEST_P(Int8, ScalesNearOneAnotherAndFarApartGiveTheSameNumbers) {
  // Kernels may turn a panel's scales into whole numbers, where those of each row are near enough to one
  // another: those of the first panel are, of the third are not, of the second may be.
  constexpr int kPowersApart[] = {0, 3, 12};
  for (const DType dtype : {DType::kQ4_0, DType::kQ4_1}) {
    const int64_t k = 27 * 32;
    const int64_t lanes = kernels_->lanes;
    const int64_t n = 3 * lanes;
    const int64_t bytes_of_row = row_bytes(dtype, k);
    std::vector<std::byte> bytes = random_blocks(dtype, n * k, 5);
    std::mt19937 random(6);
    for (int64_t at = 0; at < n * bytes_of_row; at += traits(dtype).block_bytes) {
      const int apart = kPowersApart[at / bytes_of_row / lanes];
      const int exponent = 14 - static_cast<int>(random() % 13) % (apart + 1);
      const auto scale = static_cast<uint16_t>(static_cast<int>(random() % 2) << 15 | exponent << 10 |
                                               static_cast<int>(random() % 1024));
      std::memcpy(&bytes[static_cast<size_t>(at)], &scale, sizeof(scale));
      if (dtype == DType::kQ4_1) {  // the smallest number's, some steps below zero, as files have them
        const auto offset = static_cast<uint16_t>((scale ^ 1u << 15) + ((2u + random() % 2) << 10));
        std::memcpy(&bytes[static_cast<size_t>(at + 2)], &offset, sizeof(offset));
      }
    }
    std::vector<float> w(static_cast<size_t>(n * k));
    dequantize(dtype, bytes.data(), n * k, w.data());
    const int64_t panel_bytes = kernels_->panel_bytes(dtype, k);
    std::vector<std::byte> memory(static_cast<size_t>(3 * panel_bytes + 64));
    std::byte* panels = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64);
    for (int64_t p = 0; p < 3; ++p) {
      kernels_->pack_panel({dtype, bytes.data() + p * lanes * bytes_of_row, bytes_of_row, lanes}, k,
                           panels + p * panel_bytes);
    }
    const std::vector<float> x = randoms(k, 1.0f, 4);
    std::vector<float> one;
    for (const int64_t rows : {int64_t{1}, kernels_->tile}) {
      RoundedRows rounded(static_cast<size_t>(rows * k / 32));
      for (int64_t i = 0; i < rows; ++i) {
        kernels_->quantize_row(x.data(), k, rounded.from(i, rows));
      }
      std::vector<float> y(static_cast<size_t>(rows * n));
      kernels_->multiply(dtype, panels, k, rounded.from(0, rows), rows, n, nullptr, nullptr, y.data(), n);
      if (rows > 1) {
        for (size_t i = 0; i < y.size(); ++i) {
          ASSERT_EQ(y[i], one[i % static_cast<size_t>(n)]) << traits(dtype).name << " at " << i;
        }
        continue;
      }
      for (int64_t c = 0; c < n; ++c) {
        double sum = 0.0;
        double size = 0.0;
        for (int64_t j = 0; j < k; ++j) {
          const double product = double{rounded.blocks[static_cast<size_t>(j / 32)].scale} *
                                 rounded.q[static_cast<size_t>(j)] * w[static_cast<size_t>(c * k + j)];
          sum += product;
          size += std::abs(product);
        }
        const double again = c / lanes == 2 ? 0.0
                                            : rounding_in_groups(dtype, bytes.data() + c * bytes_of_row, k,
                                                                 rounded.blocks.data(), 1);
        ASSERT_NEAR(y[static_cast<size_t>(c)], sum, 32.0 * kUnit * size + again)
            << traits(dtype).name << " column " << c;
      }
      one = std::move(y);
    }
  }
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
      RoundedRows rounded(2);
      kernels_->quantize_row(x.data(), 64, rounded.from(0, 1));
      alignas(64) std::byte panel[8192];
      ASSERT_LE(kernels_->panel_bytes(dtype, 64), 8192);
      kernels_->pack_panel({dtype, bytes.data(), row_bytes(dtype, 64), 1}, 64, panel);
      float y = 0.0f;
      kernels_->multiply(dtype, panel, 64, rounded.from(0, 1), 1, 1, nullptr, nullptr, &y, 1);
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
