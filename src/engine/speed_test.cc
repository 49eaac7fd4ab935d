#include "engine/speed.h"

#include <gtest/gtest.h>

namespace hetero {
namespace {

TEST(Speed, TestsHaveTheNamesOfLlamaBench) {
  EXPECT_EQ((SpeedTest{512, 0, 0}.name()), "pp512");
  EXPECT_EQ((SpeedTest{0, 32, 0}.name()), "tg32");
  EXPECT_EQ((SpeedTest{0, 32, 1024}.name()), "tg32 @ d1024");
}

TEST(Speed, MeanSpreadAndMedian) {
  const Speed odd = summarize({30.0, 10.0, 80.0});
  EXPECT_DOUBLE_EQ(odd.mean, 40.0);
  EXPECT_DOUBLE_EQ(odd.median, 30.0);
  EXPECT_NEAR(odd.stddev, 36.0555, 1e-4);  // sqrt((10^2 + 30^2 + 40^2) / 2)
  EXPECT_DOUBLE_EQ(summarize({4.0, 1.0, 3.0, 2.0}).median, 2.5);
  EXPECT_DOUBLE_EQ(summarize({7.0}).stddev, 0.0);
  EXPECT_DOUBLE_EQ(summarize({}).median, 0.0);
}

}  // namespace
}  // namespace hetero
