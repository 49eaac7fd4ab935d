#include "cpu/roofline.h"

#include <gtest/gtest.h>

#include <cmath>

#include "cpu/cpu.h"

namespace hetero::cpu {
namespace {

TEST(Roofline, EveryLevelHasRatesForTheInstructionsThatItHas) {
  ThreadPool pool(1);
  for (const std::string& level : cpu_levels()) {
    const Roofline r = measure_roofline(level, pool);
    EXPECT_GT(r.f32_gflops, 0.0) << level;
    EXPECT_GT(r.read_gbs, 0.0) << level;
    EXPECT_EQ(r.int8_gops > 0.0, level != "scalar") << level;
    EXPECT_EQ(r.bf16_gflops > 0.0, level.find("amx") != std::string::npos) << level;
    EXPECT_TRUE(std::isfinite(r.f32_gflops + r.int8_gops + r.bf16_gflops + r.read_gbs)) << level;
  }
}

}  // namespace
}  // namespace hetero::cpu
