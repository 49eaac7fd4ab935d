#include "gguf/dequantize.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <vector>

#include "cases.h"
#include "gguf/quantize.h"

namespace hetero {
namespace {

std::vector<char> contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

TEST(Dequantize, EveryTypeIsBitExact) {
  HETERO_NEED_CASES("dequant");
  for (const char* name : {"BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K",
                           "IQ4_NL", "IQ4_XS", "MXFP4"}) {
    const std::string base = cases_dir() + "/dequant/" + name;
    const std::vector<char> blocks = contents(base + ".bin");
    const std::vector<char> expected = contents(base + ".f32");
    ASSERT_FALSE(blocks.empty()) << base;
    const DType dtype = dtype_from_name(name).value();
    std::vector<float> found(expected.size() / sizeof(float));
    ASSERT_EQ(row_bytes(dtype, static_cast<int64_t>(found.size())), static_cast<int64_t>(blocks.size()));
    dequantize(dtype, reinterpret_cast<const std::byte*>(blocks.data()), static_cast<int64_t>(found.size()),
               found.data());
    EXPECT_EQ(std::memcmp(found.data(), expected.data(), expected.size()), 0) << name;
  }
}

std::vector<float> wave(size_t count) {
  std::vector<float> x(count);
  for (size_t i = 0; i < count; ++i) {
    x[i] = std::sin(static_cast<float>(i) * 0.7f) * (1.0f + static_cast<float>(i % 7));
  }
  return x;
}

TEST(Quantize, RoundTripsWithinHalfAStep) {
  const std::vector<float> x = wave(256);
  struct Case {
    DType dtype;
    float steps;  // of the largest magnitude in a block, for half a step (a whole one at Q4_0's far end)
  };
  for (const Case& c : {Case{DType::kQ4_0, 8.0f}, {DType::kQ4_1, 14.0f}, {DType::kQ8_0, 250.0f}}) {
    std::vector<std::byte> blocks(static_cast<size_t>(row_bytes(c.dtype, 256)));
    ASSERT_TRUE(quantize(c.dtype, x.data(), 256, blocks.data()).ok());
    std::vector<float> y(256);
    dequantize(c.dtype, blocks.data(), 256, y.data());
    for (size_t i = 0; i < 256; ++i) {
      float largest = 0.0f;
      for (size_t j = i / 32 * 32; j < i / 32 * 32 + 32; ++j) {
        largest = std::max(largest, std::abs(x[j]));
      }
      const float range = c.dtype == DType::kQ4_1 ? 2.0f * largest : largest;
      EXPECT_NEAR(y[i], x[i], range / c.steps) << traits(c.dtype).name << " " << i;
    }
  }
}

TEST(Quantize, BlocksDerivedByHand) {
  std::vector<float> x(32, 0.0f);
  x[0] = -8.0f;  // the extreme: scale 1, stored as 0
  x[1] = 3.0f;   // stored as 11
  x[17] = 7.0f;  // stored as 15, in the high nibble of byte 1
  std::vector<std::byte> q4(18);
  ASSERT_TRUE(quantize(DType::kQ4_0, x.data(), 32, q4.data()).ok());
  EXPECT_EQ(q4[0], std::byte{0x00});  // 1.0 as a half is 0x3c00
  EXPECT_EQ(q4[1], std::byte{0x3c});
  EXPECT_EQ(q4[2], std::byte{0x80});
  EXPECT_EQ(q4[3], std::byte{0xfb});
  EXPECT_EQ(q4[4], std::byte{0x88});

  std::vector<float> zeros(32, 0.0f);
  std::vector<std::byte> q8(34, std::byte{9});
  ASSERT_TRUE(quantize(DType::kQ8_0, zeros.data(), 32, q8.data()).ok());
  EXPECT_EQ(q8, std::vector<std::byte>(34));
}

TEST(Quantize, ATypeWithoutAnEncoderIsNamed) {
  const std::vector<float> x(256);
  std::vector<std::byte> blocks(512);
  EXPECT_NE(quantize(DType::kQ2_K, x.data(), 256, blocks.data()).message().find("Q2_K"), std::string::npos);
}

TEST(DTypeNames, UnknownNumbersHaveADescription) {
  EXPECT_EQ(gguf_type_name(16), "IQ2_XXS");
  EXPECT_EQ(gguf_type_name(1000), "type 1000");
  EXPECT_EQ(find_dtype(16), nullptr);
  EXPECT_EQ(dtype_from_name("Q4_K"), DType::kQ4_K);
}

}  // namespace
}  // namespace hetero
