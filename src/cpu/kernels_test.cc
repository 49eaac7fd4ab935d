#include "cpu/kernels.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "base/f16.h"
#include "cpu/levels.h"
#include "gguf/dequantize.h"
#include "gguf/random_blocks.h"

namespace hetero::cpu {
namespace {

constexpr double kUnit = 0x1p-24;

std::vector<float> randoms(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<float> out(static_cast<size_t>(count));
  for (float& x : out) {
    x = static_cast<float>(static_cast<double>(random()) * 0x1p-31 - 1.0);
  }
  return out;
}

/// The smallest multiple of 32 elements that is whole blocks.
int64_t unit_of(DType dtype) {
  return std::max(32, traits(dtype).block_elements);
}

/// Random rows, and what they decode to.
struct Matrix {
  Matrix(DType dtype, int64_t rows, int64_t cols)
      : bytes(random_blocks(dtype, rows * cols, static_cast<uint32_t>(rows * 131 + cols))),
        values(static_cast<size_t>(rows * cols)) {
    // Rows in a file have no alignment beyond their type's.
    const size_t lead = traits(dtype).block_elements > 1 ? 2 : 0;
    bytes.insert(bytes.begin(), lead, std::byte{});
    dequantize(dtype, bytes.data() + lead, rows * cols, values.data());
    weight = {dtype, bytes.data() + lead, row_bytes(dtype, cols), rows};
  }
  std::vector<std::byte> bytes;
  std::vector<float> values;
  WeightRows weight;
};

double norm(const float* x, int64_t count) {
  double sum = 0.0;
  for (int64_t i = 0; i < count; ++i) {
    sum += double{x[i]} * x[i];
  }
  return std::sqrt(sum);
}

/// y = x W^T + bias within the rounding of f32 sums.
void expect_product(const Matrix& w, const std::vector<float>& x, int64_t k, int64_t m, const float* bias,
                    const float* y, int64_t y_stride) {
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t r = 0; r < w.weight.rows; ++r) {
      const float* row = w.values.data() + r * k;
      double sum = bias == nullptr ? 0.0 : bias[r];
      for (int64_t kk = 0; kk < k; ++kk) {
        sum += double{x[static_cast<size_t>(i * k + kk)]} * row[kk];
      }
      const double tolerance =
          (4.0 * std::sqrt(static_cast<double>(k)) + 4.0) * kUnit * norm(x.data() + i * k, k) * norm(row, k) +
          4.0 * kUnit * std::abs(sum);
      ASSERT_NEAR(y[i * y_stride + r], sum, tolerance) << "row " << i << " column " << r;
    }
  }
}

class EachLevel : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    for (const Kernels* k : kernels_for(describe_cpu().flags)) {
      if (k->level == GetParam()) {
        kernels_ = k;
      }
    }
    if (kernels_ == nullptr) {
      GTEST_SKIP() << "this machine does not run " << GetParam();
    }
  }
  const Kernels* kernels_ = nullptr;
};

INSTANTIATE_TEST_SUITE_P(Cpu, EachLevel, testing::Values("scalar", "avx2", "avx512"),
                         [](const auto& level) { return level.param; });

TEST_P(EachLevel, DecodesTheSameNumbersAsTheFormatsDefinition) {
  for (const DType dtype : kWeightTypes) {
    for (const int64_t units : {1, 2, 33}) {
      const int64_t count = units * unit_of(dtype);
      const Matrix w(dtype, 1, count);
      std::vector<float> found(static_cast<size_t>(count));
      kernels_->decode(dtype, w.weight.data, count, 1.0f, found.data());
      EXPECT_EQ(found, w.values) << traits(dtype).name;
    }
  }
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (const int64_t count : {1, 7, 45}) {
      const Matrix w(dtype, 1, count);
      std::vector<float> found(static_cast<size_t>(count) + 1, 7.0f);
      kernels_->decode(dtype, w.weight.data, count, 2.0f, found.data());
      for (int64_t i = 0; i < count; ++i) {
        EXPECT_EQ(found[static_cast<size_t>(i)], 2.0f * w.values[static_cast<size_t>(i)]);
      }
      EXPECT_EQ(found.back(), 7.0f) << "wrote past the end";
    }
  }
}

TEST_P(EachLevel, DecodesEveryHalf) {
  std::vector<uint16_t> halves(65536);
  for (size_t i = 0; i < halves.size(); ++i) {
    halves[i] = static_cast<uint16_t>(i);
  }
  std::vector<float> found(halves.size());
  kernels_->decode(DType::kF16, reinterpret_cast<const std::byte*>(halves.data()), 65536, 1.0f, found.data());
  for (size_t i = 0; i < halves.size(); ++i) {
    const float expected = f32_from_f16(halves[i]);
    if (std::isnan(expected)) {
      EXPECT_TRUE(std::isnan(found[i])) << i;
    } else {
      EXPECT_EQ(found[i], expected) << i;
    }
  }
}

TEST_P(EachLevel, RoundsToHalfToNearestEven) {
  std::vector<float> source = randoms(1000, 5);
  for (size_t i = 0; i < source.size(); ++i) {
    source[i] *= std::ldexp(1.0f, static_cast<int>(i % 45) - 28);
  }
  for (const float special : {0.0f, -0.0f, 65504.0f, 65519.9f, 65520.0f, 1e9f, -1e9f, 0x1p-24f, 0x1p-25f,
                              0x1.8p-25f, 2049.0f, 2051.0f, std::numeric_limits<float>::infinity()}) {
    source.push_back(special);
  }
  std::vector<uint16_t> found(source.size());
  kernels_->to_f16(source.data(), static_cast<int64_t>(source.size()), found.data());
  for (size_t i = 0; i < source.size(); ++i) {
    EXPECT_EQ(found[i], f16_from_f32(source[i])) << source[i];
  }
}

TEST_P(EachLevel, StoresBlocksOfEightBits) {
  std::vector<float> source = randoms(64 * 32, 6);
  for (size_t i = 0; i < source.size(); ++i) {
    source[i] *= std::ldexp(1.0f, static_cast<int>(i / 32 % 40) - 30);  // a size for each block
  }
  std::fill_n(source.begin() + 32, 32, 0.0f);
  std::fill_n(source.begin() + 64, 32, 1e-38f);  // too small for any scale
  std::vector<std::byte> blocks(64 * 34);
  kernels_->to_q8_0(source.data(), static_cast<int64_t>(source.size()), blocks.data());
  std::vector<float> found(source.size());
  dequantize(DType::kQ8_0, blocks.data(), static_cast<int64_t>(found.size()), found.data());
  for (size_t i = 0; i < source.size(); ++i) {
    float most = 0.0f;
    for (size_t j = i / 32 * 32; j < i / 32 * 32 + 32; ++j) {
      most = std::max(most, std::abs(source[j]));
    }
    EXPECT_NEAR(found[i], source[i], most * (0.5 / 127.0 + 0x1p-11 + 0x1p-20) + 127.0 * 0x1p-25) << i;
  }
  // The same bytes by every level.
  std::vector<std::byte> plain(blocks.size());
  kScalarKernels.to_q8_0(source.data(), static_cast<int64_t>(source.size()), plain.data());
  EXPECT_EQ(blocks, plain);
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    std::fill_n(source.begin(), 32, 1.0f);
    source[5] = -bad;
    kernels_->to_q8_0(source.data(), 32, blocks.data());
    dequantize(DType::kQ8_0, blocks.data(), 32, found.data());
    EXPECT_TRUE(std::all_of(found.begin(), found.begin() + 32, [](float x) { return std::isnan(x); })) << bad;
  }
}

TEST_P(EachLevel, GemvMatchesSums) {
  for (const DType dtype : kWeightTypes) {
    for (const int64_t units : {1, 3, 24}) {
      const int64_t k = units * unit_of(dtype);
      for (const int64_t n : {1, 2, 3, 7, 16, 21}) {
        const Matrix w(dtype, n, k);
        const std::vector<float> bias = randoms(n, 9);
        for (int64_t m = 1; m <= kernels_->gemv_rows; ++m) {
          const std::vector<float> x = randoms(m * k, 3);
          std::vector<float> y(static_cast<size_t>(m * (n + 3)));
          const float* b = m % 2 == 0 ? bias.data() : nullptr;
          kernels_->gemv(w.weight, k, x.data(), k, m, b, y.data(), n + 3);
          expect_product(w, x, k, m, b, y.data(), n + 3);
        }
      }
    }
  }
}

TEST_P(EachLevel, PanelsHoldDecodedColumns) {
  for (const DType dtype : kWeightTypes) {
    const bool plain = traits(dtype).block_elements == 1;
    const int64_t unit = unit_of(dtype);
    const int64_t k = plain ? 77 : 3 * unit;
    for (int64_t rows = 1; rows <= kernels_->tile_cols; rows += 5) {
      const Matrix w(dtype, rows, k);
      for (const int64_t begin : {int64_t{0}, unit, 2 * unit}) {
        std::vector<float> panel(static_cast<size_t>((k - begin) * kernels_->tile_cols));
        kernels_->pack_panel(w.weight, begin, k - begin, panel.data());
        for (int64_t kk = begin; kk < k; ++kk) {
          for (int64_t c = 0; c < rows; ++c) {
            const float expected = w.values[static_cast<size_t>(c * k + kk)];
            // A fused q * scale + offset rounds once where the definition rounds twice.
            ASSERT_NEAR(panel[static_cast<size_t>((kk - begin) * kernels_->tile_cols + c)], expected,
                        16 * kUnit)
                << traits(dtype).name << " k " << kk << " column " << c;
          }
        }
      }
    }
  }
}

TEST_P(EachLevel, TilesMatchSums) {
  const int64_t mr = kernels_->tile_rows;
  const int64_t nr = kernels_->tile_cols;
  for (const DType dtype : kWeightTypes) {
    const int64_t unit = unit_of(dtype);
    for (const int64_t k : {unit, 5 * unit}) {
      for (int64_t n = 1; n <= nr; n += 3) {
        for (const int64_t m : {int64_t{1}, mr - 1, mr, mr + 1, 3 * mr - 1}) {
          const Matrix w(dtype, n, k);
          const std::vector<float> x = randoms(m * k, 3);
          const std::vector<float> bias = randoms(n, 9);
          const int64_t tiles = (m + mr - 1) / mr;
          std::vector<float> packed(static_cast<size_t>(tiles * mr * k));
          for (int64_t t = 0; t < tiles; ++t) {
            kernels_->pack_tile(x.data() + t * mr * k, k, std::min(mr, m - t * mr), k,
                                packed.data() + t * mr * k);
          }
          std::vector<float> panel(static_cast<size_t>(k * nr));
          std::vector<float> y(static_cast<size_t>(m * (n + 1)), 5.0f);
          for (int64_t at = 0; at < k; at += unit) {
            kernels_->pack_panel(w.weight, at, unit, panel.data());
            kernels_->tiles(packed.data() + at * mr, mr * k, panel.data(), unit, m, n, at > 0, bias.data(),
                            y.data(), n + 1);
          }
          expect_product(w, x, k, m, bias.data(), y.data(), n + 1);
          for (int64_t i = 0; i < m; ++i) {
            ASSERT_EQ(y[static_cast<size_t>(i * (n + 1) + n)], 5.0f) << "wrote past column " << n;
          }
        }
      }
    }
  }
}

TEST_P(EachLevel, ActivationsStayFiniteAndExactOverTheWholeRange) {
  std::vector<float> gate;
  for (float x = -120.0f; x < 120.0f; x += 0.173f) {
    gate.push_back(x);
  }
  gate.insert(gate.end(), {0.0f, -0.0f, 1e-20f, -1e-20f, 1e4f, -1e4f});
  const std::vector<float> up(gate.size(), 1.0f);
  const auto count = static_cast<int64_t>(gate.size());
  std::vector<float> silu(gate.size());
  std::vector<float> gelu(gate.size());
  kernels_->silu_gated(gate.data(), up.data(), count, silu.data());
  kernels_->gelu_gated(gate.data(), up.data(), count, gelu.data());
  for (size_t i = 0; i < gate.size(); ++i) {
    const double x = gate[i];
    const double tolerance = (16.0 + 4.0 * std::abs(x)) * kUnit * std::abs(x) + 1e-30;
    EXPECT_NEAR(silu[i], x / (1.0 + std::exp(-x)), tolerance) << x;
    const double z = std::sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x);
    EXPECT_NEAR(gelu[i], 0.5 * x * (1.0 + std::tanh(z)), tolerance) << x;
  }
}

TEST_P(EachLevel, NanActivationsStayNan) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> gate(9, nan);
  const std::vector<float> up(9, 1.0f);
  std::vector<float> s(9);
  kernels_->silu_gated(gate.data(), up.data(), 9, s.data());
  for (const float x : s) {
    EXPECT_TRUE(std::isnan(x));
  }
}

TEST(Levels, ScalarIsAlwaysThereAndAvx512NeedsAvx2) {
  EXPECT_EQ(kernels_for({}).size(), 1u);
  EXPECT_EQ(kernels_for({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}).size(), 1u);
  EXPECT_STREQ(kernels_for({}).front()->level, "scalar");
}

TEST(Levels, AnUnknownLevelNamesTheVariableAndWhatThereIs) {
  const auto kernels = kernels_for({});
  EXPECT_STREQ((*choose_kernels(kernels, "scalar"))->level, "scalar");
  EXPECT_STREQ((*choose_kernels(kernels, ""))->level, "scalar");
  const auto chosen = choose_kernels(kernels, "avx9");
  ASSERT_FALSE(chosen.ok());
  EXPECT_EQ(chosen.status().message(),
            "HETERO_CPU: 'avx9' is not a level of this machine; available: scalar");
}

}  // namespace
}  // namespace hetero::cpu
