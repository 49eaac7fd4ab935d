#include "base/f16.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace hetero {
namespace {

TEST(F16, EveryBitPatternSurvivesTheRoundTrip) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto h = static_cast<uint16_t>(bits);
    const float f = f32_from_f16(h);
    if (std::isnan(f)) {
      EXPECT_TRUE(std::isnan(f32_from_f16(f16_from_f32(f))));
    } else {
      ASSERT_EQ(f16_from_f32(f), h) << f;
    }
  }
}

TEST(F16, RoundsToNearestEvenAndOverflowsToInfinity) {
  EXPECT_EQ(f16_from_f32(1.0f + 0x1p-11f), 0x3c00);      // tie, even below
  EXPECT_EQ(f16_from_f32(1.0f + 0x1.8p-10f), 0x3c02);    // tie, even above
  EXPECT_EQ(f16_from_f32(1.0f + 0x1.002p-11f), 0x3c01);  // just above the tie
  EXPECT_EQ(f16_from_f32(65504.0f), 0x7bff);
  EXPECT_EQ(f16_from_f32(65519.0f), 0x7bff);
  EXPECT_EQ(f16_from_f32(65520.0f), 0x7c00);
  EXPECT_EQ(f16_from_f32(-1e9f), 0xfc00);
  EXPECT_EQ(f16_from_f32(0x1p-24f), 0x0001);
  EXPECT_EQ(f16_from_f32(0x1p-25f), 0x0000);
  EXPECT_EQ(f16_from_f32(0x1.8p-25f), 0x0001);
  EXPECT_TRUE(std::isnan(f32_from_f16(f16_from_f32(std::numeric_limits<float>::quiet_NaN()))));
}

TEST(BF16, RoundsToNearestEven) {
  EXPECT_EQ(bf16_from_f32(1.0f), 0x3f80);
  EXPECT_EQ(bf16_from_f32(1.0f + 0x1p-8f), 0x3f80);
  EXPECT_EQ(bf16_from_f32(1.0f + 0x1.8p-7f), 0x3f82);
  EXPECT_EQ(f32_from_bf16(0xc000), -2.0f);
  EXPECT_TRUE(std::isnan(f32_from_bf16(bf16_from_f32(std::numeric_limits<float>::quiet_NaN()))));
}

}  // namespace
}  // namespace hetero
