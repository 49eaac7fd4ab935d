#include "profile/profiler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "processor/fake.h"
#include "profile/profile_tasks.h"
#include "sim/sim_processor.h"
#include "tiny_graph.h"

namespace hetero {
namespace {

using ::testing::HasSubstr;

FakeScript script(bool is_static) {
  FakeScript s;
  s.traits.static_shapes = is_static;
  s.traits.copies_weights = is_static;
  if (is_static) {
    s.refuses = {"embed", "rope_table", "rms_norm", "rope", "attention", "gated"};
  }
  return s;
}

struct Machine {
  TinyGraph tiny{2};
  FakeProcessor gpu{"gpu0", "gpu", script(false)};
  FakeProcessor npu{"npu0", "npu", script(true)};
  std::vector<Processor*> list{&gpu, &npu};
  ProfilerOptions options;

  Machine() {
    tiny.graph.shape.context = 128;
    options.lengths = {1, 32, 64};
    options.context = 100;
    options.rounds = 1;
    options.settings = {"a", "b"};
  }
};

TEST(Profiler, MeasuresEveryWorkThatAProcessorCanDo) {
  Machine m;
  const auto profile = measure(m.tiny.graph, m.list, {"machine", "model", "2026-11-25", false}, m.options);
  ASSERT_TRUE(profile.ok()) << profile.status().message();
  EXPECT_TRUE(profile->complete);
  const ProfiledProcessor& gpu = *profile->find("gpu0");
  const ProfiledProcessor& npu = *profile->find("npu0");
  for (int op = 0; op < static_cast<int>(m.tiny.graph.ops.size()); ++op) {
    const Work work = work_of(m.tiny.graph, op);
    for (const int64_t tokens : m.options.lengths) {
      const bool head = m.tiny.graph.in_head(op);
      EXPECT_TRUE(time_of(gpu, work, tokens, tokens)) << to_string(work);
      EXPECT_EQ(time_of(npu, work, head ? 1 : tokens, tokens).has_value(), work.kind == "linear")
          << to_string(work);
    }
  }
  EXPECT_TRUE(npu.static_shapes && npu.copies_weights);
  EXPECT_EQ(npu.setting, "b");
  EXPECT_FALSE(npu.compile_times.empty());
  for (const auto& [from, to] :
       {std::pair("gpu0", "npu0"), std::pair("npu0", "gpu0"), std::pair("gpu0", "host")}) {
    EXPECT_TRUE(std::any_of(profile->handoffs.begin(), profile->handoffs.end(),
                            [&, f = from, t = to](const Handoff& h) { return h.from == f && h.to == t; }));
  }
  EXPECT_EQ(profile->together.size(), 3u);  // each alone, and both
  for (const Handoff& h : profile->handoffs) {
    EXPECT_EQ(h.visits, kVisits) << h.from << " " << h.to;
  }
  for (const Together& t : profile->together) {
    EXPECT_EQ(t.processors[0].visits, kVisits);
  }
  const std::vector<std::string> both = {"gpu0", "npu0"};
  ASSERT_NE(profile->share("npu0", both), nullptr);
  EXPECT_GT(profile->share("npu0", both)->gbps, 0.0);
  // Slices have times of their own.
  Work half = work_of(m.tiny.graph, 2 + 1);  // attn_qkv
  half.n = 32;
  EXPECT_TRUE(
      std::any_of(gpu.series.begin(), gpu.series.end(), [&](const Series& s) { return s.work == half; }));
}

/// How many points there are in the default order of operands, and in the exchanged one.
std::pair<int, int> points_by_order(const ProfiledProcessor& p) {
  std::pair<int, int> count;
  for (const Series& s : p.series) {
    for (const Point& point : s.points) {
      ++(point.exchanged ? count.second : count.first);
    }
  }
  return count;
}

TEST(Profiler, MeasuresBothOrdersOfOperandsOfAnNpuThatHasThem) {
  for (const OperandOrders orders :
       {OperandOrders::kOne, OperandOrders::kBoth, OperandOrders::kSmallerStays}) {
    Machine m;
    FakeScript s = script(true);
    s.traits.orders = orders;
    FakeProcessor npu("npu0", "npu", s);
    m.list = {&m.gpu, &npu};
    const auto profile = measure(m.tiny.graph, m.list, {"machine", "model", "2026-11-25", false}, m.options);
    ASSERT_TRUE(profile.ok()) << profile.status().message();
    const auto [plain, exchanged] = points_by_order(*profile->find("npu0"));
    EXPECT_GT(plain, 0);
    EXPECT_EQ(exchanged, orders == OperandOrders::kOne ? 0 : plain);
    EXPECT_EQ(points_by_order(*profile->find("gpu0")).second, 0);
    EXPECT_EQ(npu.exchanged() > 0, orders != OperandOrders::kOne);
    const auto again =
        measure(m.tiny.graph, m.list, {"machine", "model", "2026-11-25", false}, m.options, &*profile);
    ASSERT_TRUE(again.ok());
    EXPECT_EQ(to_json(*again), to_json(*profile));  // nothing was left to do
  }
}

TEST(Profiler, TheUsualOrderOfOperandsComesFirst) {
  for (const OperandOrders orders : {OperandOrders::kBoth, OperandOrders::kSmallerStays}) {
    Machine m;
    FakeScript s = script(true);
    s.traits.orders = orders;
    FakeProcessor npu("npu0", "npu", s);
    m.list = {&npu};
    std::atomic<bool> cancel = false;
    m.options.cancel = &cancel;
    m.options.save = [&](const Profile&) {
      cancel = true;
      return Status();
    };
    const auto first = measure(m.tiny.graph, m.list, {"machine", "model", "2026-11-25", false}, m.options);
    ASSERT_TRUE(first.ok());
    // One row: fewer than any weight has columns.
    const auto [plain, exchanged] = points_by_order(*first->find("npu0"));
    EXPECT_EQ(plain > 0, orders == OperandOrders::kBoth);
    EXPECT_EQ(exchanged > 0, orders == OperandOrders::kSmallerStays);
  }
}

TEST(Profiler, ProductsMeasuredAloneContainTheDriversSubmissionAndWait) {
  const Soc soc = load_soc("snapdragon-8-gen-3").value();
  TinyGraph tiny{2};
  tiny.graph.shape.context = 128;
  for (Weight& w : tiny.graph.weights) {
    w.data = nullptr;
  }
  const auto profile = [&](bool alone) {
    const auto world = std::make_shared<World>(soc);
    const auto gpu = make_sim_processor(world, 1, sim_info(soc, 1), nullptr);
    Processor* const list[] = {gpu.get()};
    ProfilerOptions options;
    options.lengths = {1, 32};
    options.rounds = 1;
    options.time_limit = std::chrono::hours(1);
    options.alone = alone;
    return measure(tiny.graph, list, {"machine", "model", "2026-11-26", true}, options).value();
  };
  const Profile in_queue = profile(false);
  const Profile alone = profile(true);
  const SocProcessor& chip = soc.processors[1];
  for (int op = 0; op < static_cast<int>(tiny.graph.ops.size()); ++op) {
    const Work work = work_of(tiny.graph, op);
    const double queue = time_of(in_queue.processors[0], work, 1, 1)->ns;
    const double single = time_of(alone.processors[0], work, 1, 1)->ns;
    if (work.kind == "linear") {
      EXPECT_GE(single, (chip.idle_submit_us + chip.finish_us) * 1e3) << to_string(work);
      EXPECT_LT(queue, 1e5) << to_string(work);
    } else {
      EXPECT_LT(single, 1e5) << to_string(work);
    }
  }
}

TEST(Profiler, GoesOnWhereItWasCutOff) {
  Machine m;
  std::atomic<bool> cancel = false;
  int saved = 0;
  std::optional<Profile> kept;
  m.options.cancel = &cancel;
  m.options.save = [&](const Profile& so_far) {
    kept = so_far;
    cancel = ++saved == 4;
    return Status();
  };
  const auto part = measure(m.tiny.graph, m.list, {"machine", "model", "2026-11-25", false}, m.options);
  ASSERT_TRUE(part.ok()) << part.status().message();
  EXPECT_FALSE(part->complete);
  EXPECT_EQ(saved, 4);
  EXPECT_EQ(to_json(*part)["processors"], to_json(*kept)["processors"]);
  cancel = false;
  const auto whole =
      measure(m.tiny.graph, m.list, {"machine", "model", "2026-11-25", false}, m.options, &*part);
  ASSERT_TRUE(whole.ok()) << whole.status().message();
  EXPECT_TRUE(whole->complete);
  // What was there was not measured again.
  const auto& before = part->processors[0].series[0];
  const auto after = std::find_if(whole->processors[0].series.begin(), whole->processors[0].series.end(),
                                  [&](const Series& s) { return s.work == before.work; });
  EXPECT_EQ(after->points[0].median, before.points[0].median);
  const int so_far = saved;
  ASSERT_TRUE(
      measure(m.tiny.graph, m.list, {"machine", "model", "2026-11-25", false}, m.options, &*whole).ok());
  EXPECT_EQ(saved, so_far);  // nothing left to do
}

TEST(Profiler, VisitsOfAnEarlierCallCount) {
  Machine m;
  const ProfileIdentity who = {"machine", "model", "2026-11-26", false};
  Profile known = measure(m.tiny.graph, m.list, who, m.options).value();
  Share& share = known.together[0].processors[0];
  share.gbps = 1e6;  // three visits of this, two that find something else
  share.visits = 3;
  for (Handoff& h : known.handoffs) {
    h.median = std::chrono::seconds(9);
    h.visits = 2;
  }
  const Profile again = measure(m.tiny.graph, m.list, who, m.options, &known).value();
  EXPECT_EQ(again.together[0].processors[0].visits, kVisits);
  EXPECT_EQ(again.together[0].processors[0].gbps, 1e6);
  EXPECT_EQ(again.handoffs[0].visits, kVisits);
  EXPECT_LT(again.handoffs[0].median, std::chrono::seconds(9));
}

TEST(Profiler, StopsAtTheTimeLimit) {
  Machine m;
  m.options.time_limit = Nanos(1);
  const auto profile = measure(m.tiny.graph, m.list, {"machine", "model", "2026-11-25", false}, m.options);
  ASSERT_TRUE(profile.ok());
  EXPECT_FALSE(profile->complete);
  EXPECT_TRUE(profile->find("gpu0")->series.empty());
}

TEST(Profiler, AFailingProcessorIsAnError) {
  Machine m;
  FakeScript failing = script(false);
  failing.fail_at = 10;
  FakeProcessor broken("gpu1", "gpu", failing);
  m.list = {&broken};
  const auto profile = measure(m.tiny.graph, m.list, {"machine", "model", "2026-11-25", false}, m.options);
  ASSERT_FALSE(profile.ok());
  EXPECT_THAT(profile.status().message(), HasSubstr("profiling gpu1"));
}

TEST(Summary, DropsOutliers) {
  std::vector<Nanos> samples;
  for (int i = 0; i < 20; ++i) {
    samples.push_back(Nanos(1000 + i));
  }
  samples.push_back(Nanos(50000));
  samples.push_back(Nanos(90000));
  const Summary s = summary_of(samples);
  EXPECT_NEAR(static_cast<double>(s.median.count()), 1010, 2);
  EXPECT_LE(s.spread, Nanos(6));
  EXPECT_EQ(s.samples, 20);
  EXPECT_EQ(summary_of({}).samples, 0);
}

}  // namespace
}  // namespace hetero
