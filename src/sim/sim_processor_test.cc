#include "sim/sim_processor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "cpu/cpu.h"
#include "graph/shapes.h"
#include "processor/conformance.h"
#include "tiny_graph.h"

namespace hetero {
namespace {

using ::testing::IsEmpty;

std::shared_ptr<World> phone() {
  return std::make_shared<World>(soc_from_json(soc_json("snapdragon-8-gen-3").value()).value());
}

std::shared_ptr<Processor> cpu() {
  FoundProcessor found = find_cpu();
  OpenOptions options;
  options.threads = 1;
  return std::shared_ptr<Processor>(found.open(found.info, options).value());
}

TEST(SimProcessor, ComputesWhatTheCpuComputes) {
  const auto world = phone();
  for (const size_t i : {1, 2}) {  // GPU and NPU
    const auto p = make_sim_processor(world, i, sim_info(world->soc(), i), cpu());
    const ConformanceReport report = run_conformance(*p, {.only = "", .quick = true});
    EXPECT_THAT(report.failures, IsEmpty()) << p->info().id;
    EXPECT_GT(report.passed, 50) << p->info().id;
  }
}

class TinyProduct : public ::testing::Test {
 protected:
  TinyProduct() : world_(phone()) {
    const auto found = std::find_if(tiny_.graph.ops.begin(), tiny_.graph.ops.end(),
                                    [](const Op& op) { return op.is<Linear>(); });
    op_ = static_cast<int>(found - tiny_.graph.ops.begin());
  }
  const Op& op() const { return tiny_.graph.op(op_); }
  OpSlice slice() const { return {op_, 0, tiny_.graph.output_cols(op_)}; }
  size_t index(const std::string& id) const {
    const auto& list = world_->soc().processors;
    return static_cast<size_t>(
        std::find_if(list.begin(), list.end(), [&](const auto& p) { return p.id == id; }) - list.begin());
  }

  TinyGraph tiny_{1};
  std::shared_ptr<World> world_;
  int op_ = 0;
};

TEST_F(TinyProduct, WhoDoesNotWaitReadsWhatWasThereBefore) {
  const size_t gpu = index("gpu0");
  const auto p = make_sim_processor(world_, gpu, sim_info(world_->soc(), gpu), cpu());
  PageMemory x = PageMemory::allocate(4096).value();
  PageMemory y = PageMemory::allocate(4096).value();
  std::fill_n(reinterpret_cast<float*>(x.data()), 32, 1.0f);
  const auto bx = p->import(x.data(), x.size()).value();
  const auto by = p->import(y.data(), y.size()).value();
  const auto executable = p->compile(tiny_.graph, slice(), 1).value();
  const Binding in{bx.get(), 0, 32};
  const Binding out{by.get(), 0, 64};
  const Fence fence = p->submit(*executable, {1, 0, {&in, 1}, {&out, 1}}).value();
  const auto* result = reinterpret_cast<const float*>(y.data());
  EXPECT_FALSE(fence.done());
  EXPECT_EQ(result[0], 0.0f);
  const Nanos before = world_->now();
  ASSERT_TRUE(fence.wait().ok());
  EXPECT_NE(result[0], 0.0f);
  // The driver's blocking wait costs what clFinish costs, once.
  EXPECT_GE(world_->now() - before, std::chrono::microseconds(400));
  const Nanos after = world_->now();
  ASSERT_TRUE(fence.wait().ok());
  EXPECT_EQ(world_->now(), after);
  EXPECT_EQ(p->timeline().interval(fence.ticket).end < after, true);
}

TEST_F(TinyProduct, PollingCostsPollsOnly) {
  const size_t gpu = index("gpu0");
  const auto p = make_sim_processor(world_, gpu, sim_info(world_->soc(), gpu), nullptr);
  const auto executable = p->compile(tiny_.graph, slice(), 1).value();
  const Fence fence = p->submit(*executable, {1, 0, {}, {}}).value();
  const Nanos before = world_->now();
  while (!fence.done()) {
    world_->relax();
  }
  ASSERT_TRUE(fence.wait().ok());
  EXPECT_LT(world_->now() - before, std::chrono::microseconds(50));
}

TEST_F(TinyProduct, AGraphOfOneShapeIsCompiledOnce) {
  const size_t npu = index("npu0");
  const auto p = make_sim_processor(world_, npu, sim_info(world_->soc(), npu), nullptr);
  const Nanos start = world_->now();
  ASSERT_TRUE(p->compile(tiny_.graph, slice(), 32).ok());
  const Nanos first = world_->now() - start;
  EXPECT_GT(first, std::chrono::milliseconds(10));
  ASSERT_TRUE(p->compile(tiny_.graph, slice(), 32).ok());
  EXPECT_EQ(world_->now() - start, first);
  ASSERT_TRUE(p->compile(tiny_.graph, slice(), 64).ok());
  EXPECT_GT(world_->now() - start, first);
}

TEST_F(TinyProduct, TheNpuTakesOperandsInTheOrderThatItIsTold) {
  const Graph graph = graph_of_shape("llama-3-8b").value();
  const auto found =
      std::find_if(graph.ops.begin(), graph.ops.end(), [](const Op& op) { return op.is<Linear>(); });
  OpSlice slice{static_cast<int>(found - graph.ops.begin()), 0, 4096};
  const auto time = [&](const char* id, bool exchanged) {
    const size_t i = index(id);
    const auto p = make_sim_processor(world_, i, sim_info(world_->soc(), i), nullptr);
    EXPECT_EQ(p->traits().orders == OperandOrders::kSmallerStays, std::string(id) == "npu0");
    slice.exchanged = exchanged;
    const auto executable = p->compile(graph, slice, 128).value();
    const Fence fence = p->submit(*executable, {128, 0, {}, {}}).value();
    EXPECT_TRUE(fence.wait().ok());
    const Interval ran = p->timeline().interval(fence.ticket);
    return ran.end - ran.begin;
  };
  EXPECT_GT(time("npu0", false), 3 * time("npu0", true));
  EXPECT_EQ(time("gpu0", false), time("gpu0", true));
}

TEST_F(TinyProduct, StaticShapesTakeExactlyTheirLength) {
  const size_t npu = index("npu0");
  const auto p = make_sim_processor(world_, npu, sim_info(world_->soc(), npu), nullptr);
  const auto executable = p->compile(tiny_.graph, slice(), 32).value();
  EXPECT_EQ(p->submit(*executable, {31, 0, {}, {}}).status().code(), Code::kInternal);
  EXPECT_EQ(p->supports(tiny_.graph, {0, 0, 1}).code(), Code::kUnsupported);  // an Embed
}

}  // namespace
}  // namespace hetero
