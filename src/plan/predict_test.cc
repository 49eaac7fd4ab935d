#include "plan/predict.h"

#include <gtest/gtest.h>

#include "plan/solver.h"
#include "tiny_graph.h"

namespace hetero {
namespace {

/// Every operator of the tiny graph takes `micros` on a processor, whatever its rows.
ProfiledProcessor flat(const Graph& graph, const std::string& id, const std::string& kind, int64_t micros) {
  ProfiledProcessor p;
  p.id = id;
  p.kind = kind;
  p.static_shapes = kind == "npu";
  p.lengths = {1, 32, 64};
  for (int op = 0; op < static_cast<int>(graph.ops.size()); ++op) {
    Series s{work_of(graph, op), {}};
    for (const int64_t tokens : {1, 32, 64}) {
      s.points.push_back({tokens,
                          graph.op(op).is<Attention>() ? tokens : 0,
                          false,
                          std::chrono::microseconds(micros),
                          {},
                          1});
    }
    if (kind != "npu" || graph.op(op).is<Linear>()) {
      p.series.push_back(std::move(s));
    }
  }
  return p;
}

Profile profile_of(const Graph& graph) {
  Profile profile;
  profile.processors = {flat(graph, "cpu", "cpu", 50), flat(graph, "gpu0", "gpu", 10),
                        flat(graph, "npu0", "npu", 4)};
  for (const char* from : {"cpu", "gpu0", "npu0"}) {
    for (const char* to : {"cpu", "gpu0", "npu0"}) {
      profile.handoffs.push_back({from, to, "fast", std::chrono::microseconds(1), {}});
      profile.handoffs.push_back({from, to, "driver", std::chrono::microseconds(100), {}});
    }
  }
  return profile;
}

TEST(Predict, OneProcessorTakesTheSumOfItsSteps) {
  const TinyGraph tiny(1);
  const Profile profile = profile_of(tiny.graph);
  const auto plan = make_plan(tiny.graph, Strategy::kGpu, {"cpu", "gpu0", "npu0", {}}, false, 32);
  const auto prediction = predict(tiny.graph, profile, *plan);
  ASSERT_TRUE(prediction.ok()) << prediction.status().message();
  EXPECT_EQ(prediction->total, std::chrono::microseconds(10) * static_cast<int>(plan->steps.size()));
  EXPECT_EQ(prediction->busy, std::vector<Nanos>{prediction->total});
  EXPECT_FALSE(prediction->joules);
}

TEST(Predict, EveryChangeOfProcessorCostsAHandoff) {
  const TinyGraph tiny(1);
  const Profile profile = profile_of(tiny.graph);
  const auto plan = make_plan(tiny.graph, Strategy::kLayer, {"cpu", "gpu0", "npu0", {}}, false, 32);
  // One layer: 4 linear operators on the NPU, each between two hand-offs, but for the last, which
  // nobody reads; 7 others on the GPU.
  const auto fast = predict(tiny.graph, profile, *plan);
  const auto driver = predict(tiny.graph, profile, *plan, {0, "driver"});
  ASSERT_TRUE(fast.ok() && driver.ok());
  EXPECT_EQ(fast->total, std::chrono::microseconds(7 * 10 + 4 * 4 + 7));
  EXPECT_EQ(driver->total, std::chrono::microseconds(7 * 10 + 4 * 4 + 700));
}

TEST(Predict, PartsOfOneOperatorRunTogetherAndSlowEachOtherDown) {
  const TinyGraph tiny(1);
  Profile profile = profile_of(tiny.graph);
  const auto plan = make_plan(tiny.graph, Strategy::kTensor, {"cpu", "gpu0", "npu0", {}}, false, 32);
  const auto alone = predict(tiny.graph, profile, *plan);
  profile.together = {{{{"gpu0", 0.0, 2.0}, {"npu0", 0.0, 1.0}}}};
  const auto contended = predict(tiny.graph, profile, *plan);
  ASSERT_TRUE(alone.ok() && contended.ok());
  EXPECT_LT(alone->total, alone->busy[0] + alone->busy[1]);
  EXPECT_GT(contended->total, alone->total);
}

TEST(Predict, MemoryOfItsOwnIsPaidForByTheByteAndKeepsTheCache) {
  const TinyGraph tiny(1);
  Profile profile = profile_of(tiny.graph);
  const auto layer = make_plan(tiny.graph, Strategy::kLayer, {"cpu", "gpu0", "npu0", {}}, false, 32);
  const Nanos shared = predict(tiny.graph, profile, *layer)->total;
  profile.processors[1].copy_gbps = 1.0;
  // To the NPU and back: h, qkv, a, o, h, gate and up, gated; the last result nobody reads.
  const int64_t cols = 32 + 64 + 32 + 32 + 32 + 128 + 64;
  EXPECT_EQ(predict(tiny.graph, profile, *layer)->total - shared, Nanos(cols * 32 * 4));
  Plan mixed = *make_plan(tiny.graph, Strategy::kGpu, {"cpu", "gpu0", "npu0", {}}, false, 32);
  mixed.processors.push_back("cpu");
  for (Step& s : mixed.steps) {
    s.processor = tiny.graph.op(s.op).is<Attention>() ? 1 : 0;
  }
  EXPECT_EQ(predict(tiny.graph, profile, mixed).status().message(),
            "blk.0.attention: the KV cache is written by gpu0, and they do not share memory");
  const auto solved = solve(tiny.graph, profile, false, 32);
  ASSERT_TRUE(solved.ok()) << solved.status().message();
}

TEST(Predict, WhatTheProfileLacksIsNamed) {
  const TinyGraph tiny(1);
  Profile profile = profile_of(tiny.graph);
  std::erase_if(profile.processors[1].series, [](const Series& s) { return s.work.kind == "gated"; });
  const auto plan = make_plan(tiny.graph, Strategy::kGpu, {"cpu", "gpu0", "npu0", {}}, false, 32);
  const auto prediction = predict(tiny.graph, profile, *plan);
  ASSERT_FALSE(prediction.ok());
  EXPECT_EQ(prediction.status().message(), "the profile has no time for gated [64,1] of 32 rows on gpu0");
}

TEST(Solve, TakesTheFastestAndTellsTheOthers) {
  const TinyGraph tiny(1);
  const Profile profile = profile_of(tiny.graph);
  const auto solved = solve(tiny.graph, profile, false, 32);
  ASSERT_TRUE(solved.ok()) << solved.status().message();
  EXPECT_EQ(solved->predicted, solved->alternatives.front().predicted);
  EXPECT_EQ(solved->plan.predicted, solved->predicted);
  EXPECT_GT(solved->plan.steps.front().predicted, Nanos{});
  SolveOptions options;
  options.strategy = Strategy::kCpu;
  const auto cpu = solve(tiny.graph, profile, false, 32, options);
  ASSERT_TRUE(cpu.ok());
  EXPECT_EQ(cpu->plan.processors, std::vector<std::string>{"cpu"});
  EXPECT_GE(cpu->predicted, solved->predicted);
}

TEST(Solve, PredictedTimesGoThroughJson) {
  const TinyGraph tiny(1);
  const auto solved = solve(tiny.graph, profile_of(tiny.graph), false, 32);
  ASSERT_TRUE(solved.ok());
  const auto read = plan_from_json(tiny.graph, to_json(tiny.graph, solved->plan));
  ASSERT_TRUE(read.ok()) << read.status().message();
  EXPECT_EQ(read->predicted, solved->plan.predicted);
  EXPECT_EQ(read->steps[3].predicted, solved->plan.steps[3].predicted);
}

}  // namespace
}  // namespace hetero
