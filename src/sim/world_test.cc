#include "sim/world.h"

#include <gtest/gtest.h>

namespace hetero {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

/// Two processors of 40 GB/s each on a memory of 50.
Soc two() {
  Soc soc;
  soc.name = "two";
  soc.dram_gbps = 50.0;
  soc.activation_bytes = 2.0;
  soc.sleep_grain_us = 90.0;
  soc.poll_us = 1.0;
  soc.base_watts = 1.0;
  soc.dram_pj_per_byte = 1000.0;
  for (const char* id : {"gpu0", "npu0"}) {
    SocProcessor p;
    p.id = id;
    p.kind = std::string(id).substr(0, 3);
    p.gbps = 40.0;
    p.gflops = 1000.0;
    p.watts = 3.0;
    p.stall_watts = 1.0;
    soc.processors.push_back(p);
  }
  soc.game = {60.0, 4.0, 4.0, 4.0, 5.0};
  return soc;
}

Nanos length(const World& world, size_t processor, uint64_t ticket) {
  const Interval i = world.interval(processor, ticket);
  return i.end - i.begin;
}

TEST(World, AloneAProcessorIsBoundByItsOwnSpeeds) {
  World world(two());
  const uint64_t memory = world.enqueue(0, {0.0, 40e6}, {});
  const uint64_t compute = world.enqueue(0, {2e6, 40e6}, {});
  ASSERT_TRUE(world.run_until_done(0, compute).ok());
  EXPECT_EQ(length(world, 0, memory), milliseconds(1));
  EXPECT_EQ(length(world, 0, compute), milliseconds(2));
  EXPECT_EQ(world.interval(0, compute).begin, world.interval(0, memory).end);  // one queue, in order
}

TEST(World, MemoryIsSharedFairlyWhileSeveralRun) {
  World world(two());
  // Both bound by memory: 25 each, and 40 for the one that is left.
  const uint64_t a = world.enqueue(0, {0.0, 65e6}, {});
  const uint64_t b = world.enqueue(1, {0.0, 25e6}, {});
  ASSERT_TRUE(world.run_until_done(0, a).ok());
  EXPECT_EQ(length(world, 1, b), milliseconds(1));
  EXPECT_EQ(length(world, 0, a), milliseconds(2));
}

TEST(World, WhatOneDoesNotNeedTheOtherGets) {
  World world(two());
  const uint64_t a = world.enqueue(0, {0.0, 40e6}, {});
  const uint64_t b = world.enqueue(1, {1e6, 10e6}, {});  // computes for 1 ms, and needs 10 GB/s
  ASSERT_TRUE(world.run_until_done(0, a).ok());
  EXPECT_EQ(length(world, 0, a), milliseconds(1));
  EXPECT_EQ(length(world, 1, b), milliseconds(1));
}

TEST(World, SleepsAreCoarseAndPollsAreNot) {
  World world(two());
  world.sleep_until(microseconds(100));
  EXPECT_EQ(world.now(), microseconds(180));
  world.sleep_until(microseconds(100));
  EXPECT_EQ(world.now(), microseconds(180));
  world.relax();
  EXPECT_EQ(world.now(), microseconds(181));
}

TEST(World, ResultsAppearWhenTheWorkEnds) {
  World world(two());
  bool computed = false;
  const uint64_t ticket = world.enqueue(0, {1e6, 0.0}, [&] {
    computed = true;
    return Status();
  });
  world.work(microseconds(999));
  EXPECT_FALSE(computed);
  EXPECT_FALSE(world.done(0, ticket));
  world.work(microseconds(1));
  EXPECT_TRUE(computed);
  EXPECT_TRUE(world.done(0, ticket));
}

TEST(World, AFailureStopsTheQueueForGood) {
  World world(two());
  int ran = 0;
  (void)world.enqueue(0, {1e3, 0.0}, [] { return device_lost("gone"); });
  const uint64_t after = world.enqueue(0, {1e3, 0.0}, [&] {
    ++ran;
    return Status();
  });
  EXPECT_EQ(world.run_until_done(0, after).code(), Code::kDeviceLost);
  world.work(milliseconds(1));
  EXPECT_EQ(ran, 0);
}

TEST(World, EnergyIsPowerTimesTime) {
  World world(two());
  const uint64_t ticket = world.enqueue(0, {1e6, 20e6}, {});
  ASSERT_TRUE(world.run_until_done(0, ticket).ok());
  EXPECT_NEAR(world.energy().processors[0], 3e-3, 1e-9);
  EXPECT_NEAR(world.energy().dram, 20e-3, 1e-9);
  EXPECT_NEAR(world.energy().base, 1e-3, 1e-9);
  const uint64_t stalled = world.enqueue(1, {0.0, 40e6}, {});
  ASSERT_TRUE(world.run_until_done(1, stalled).ok());
  EXPECT_NEAR(world.energy().processors[1], 1e-3, 1e-8);
}

TEST(World, AGameKeepsItsPaceOnAnIdleGpuAndLosesFramesBehindLongKernels) {
  World world(two());
  ASSERT_TRUE(world.start_game().ok());
  world.work(milliseconds(500));
  EXPECT_NEAR(world.take_game().fps(), 60.0, 2.0);
  uint64_t last = 0;
  for (int i = 0; i < 50; ++i) {
    last = world.enqueue(0, {20e6, 0.0}, {});  // 20 ms each
  }
  ASSERT_TRUE(world.run_until_done(0, last).ok());
  const auto seen = world.take_game();
  EXPECT_LT(seen.fps(), 20.0);
  EXPECT_GT(seen.dropped, 10);
  EXPECT_GT(seen.time, milliseconds(1000));  // the model lost time to the game as well
}

TEST(World, WaitingForNothingIsAnError) {
  World world(two());
  EXPECT_EQ(world.run_until_done(0, 1).code(), Code::kInternal);
}

}  // namespace
}  // namespace hetero
