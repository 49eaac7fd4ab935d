#include "profile/profile.h"

#include <gtest/gtest.h>

#include "tiny_graph.h"

namespace hetero {
namespace {

Point point(int64_t tokens, int64_t micros, int64_t context = 0, bool exchanged = false) {
  return {tokens, context, exchanged, std::chrono::microseconds(micros), {}, 5};
}

Work linear(int64_t n) {
  return {"linear", "Q4_0", n, 4096};
}

ProfiledProcessor gpu() {
  ProfiledProcessor p;
  p.id = "gpu0";
  p.kind = "gpu";
  p.series = {{linear(4096), {point(1, 500), point(32, 1000), point(64, 1500)}},
              {linear(1024), {point(1, 200), point(32, 400)}},
              {{"attention", "F16", 4096, 1024},
               {point(1, 10, 1), point(1, 110, 1001), point(64, 300, 64), point(128, 1000, 128)}},
              {{"gated", "", 4096, 1}, {point(32, 20)}}};
  return p;
}

ProfiledProcessor npu() {
  ProfiledProcessor p;
  p.id = "npu0";
  p.kind = "npu";
  p.static_shapes = true;
  p.lengths = {1, 32, 64};
  p.grid = 64;
  p.ratios = 4;
  p.watts = 1.5;
  p.series = {{linear(4096), {point(1, 700), point(32, 600), point(64, 1000), point(1, 90, 0, true)}}};
  p.compile_times = {{linear(4096), 64, std::chrono::milliseconds(20)}};
  return p;
}

Profile sample() {
  Profile profile;
  profile.identity = {"a machine", "llama 2 layers", "2026-11-25", true};
  profile.processors = {gpu(), npu()};
  profile.handoffs = {{"gpu0", "npu0", "fast", Nanos(5000), Nanos(100)},
                      {"gpu0", "npu0", "driver", Nanos(50000), Nanos(100)}};
  profile.together = {
      {{{"gpu0", 40.0, 1.0}}}, {{{"npu0", 30.0, 1.0}}}, {{{"gpu0", 20.0, 1.5}, {"npu0", 30.0, 1.0}}}};
  return profile;
}

double micros(const std::optional<Timing>& t) {
  return t ? t->ns / 1000.0 : -1.0;
}

TEST(Profile, DynamicShapesAreInterpolatedAndStaticOnesGoByStage) {
  EXPECT_DOUBLE_EQ(micros(time_of(gpu(), linear(4096), 32, 0)), 1000);
  EXPECT_DOUBLE_EQ(micros(time_of(gpu(), linear(4096), 48, 0)), 1250);
  EXPECT_DOUBLE_EQ(micros(time_of(gpu(), linear(4096), 128, 0)), 2500);
  const auto staged = time_of(npu(), linear(4096), 33, 0);
  EXPECT_DOUBLE_EQ(micros(staged), 1000);
  EXPECT_EQ(staged->padded, 64);
  EXPECT_FALSE(time_of(npu(), linear(4096), 65, 0));
}

TEST(Profile, TheFasterOrderOfOperandsIsTaken) {
  const auto one = time_of(npu(), linear(4096), 1, 0);
  EXPECT_DOUBLE_EQ(micros(one), 90);
  EXPECT_TRUE(one->exchanged);
  EXPECT_FALSE(time_of(npu(), linear(4096), 32, 0)->exchanged);
}

TEST(Profile, EachOrderOfOperandsIsInterpolatedByItself) {
  ProfiledProcessor p = npu();
  p.series[0].points.push_back(point(32, 300, 0, true));
  p.series.push_back({linear(1024), {point(32, 100), point(32, 200, 0, true)}});
  const WidthCurve curve = WidthCurve::of(p, linear(4096), 32, 0);
  EXPECT_DOUBLE_EQ(micros(curve.at(4096)), 300);
  EXPECT_DOUBLE_EQ(micros(curve.at(1024)), 100);
  EXPECT_DOUBLE_EQ(micros(curve.at(2560, false)), 350);  // of 100 and 600
  EXPECT_DOUBLE_EQ(micros(curve.at(2560, true)), 250);   // of 200 and 300
  EXPECT_TRUE(curve.at(2560)->exchanged);
  EXPECT_FALSE(curve.at(1024)->exchanged);
  // Where one order was not measured, there is the other one's time.
  EXPECT_DOUBLE_EQ(micros(WidthCurve::of(npu(), linear(4096), 32, 0).at(4096, true)), 600);
}

TEST(Profile, SlicesAreInterpolatedBetweenMeasuredWidths) {
  EXPECT_DOUBLE_EQ(micros(time_of(gpu(), linear(2048), 1, 0)), 300);
  EXPECT_DOUBLE_EQ(micros(time_of(gpu(), linear(2048), 32, 0)), 600);
  EXPECT_DOUBLE_EQ(micros(time_of(gpu(), linear(8192), 1, 0)), 900);
  EXPECT_DOUBLE_EQ(micros(time_of(npu(), linear(1024), 32, 0)), 150);  // one width only
  EXPECT_FALSE(time_of(gpu(), {"linear", "Q8_0", 4096, 4096}, 1, 0));
  EXPECT_FALSE(time_of(npu(), {"gated", "", 4096, 1}, 32, 0));
}

TEST(Profile, AttentionGrowsWithContextAndWithPairs) {
  const Work attention{"attention", "F16", 4096, 1024};
  EXPECT_DOUBLE_EQ(micros(time_of(gpu(), attention, 1, 501)), 60);
  const double between = micros(time_of(gpu(), attention, 96, 96));
  const double by_pairs = 300 + 700.0 * (96 * 97 - 64 * 65) / (128 * 129 - 64 * 65);
  EXPECT_NEAR(between, by_pairs, 0.01);
}

TEST(Profile, ContentionSlowsReadingAndComputing) {
  const Profile profile = sample();
  const std::vector<std::string> both = {"gpu0", "npu0"};
  EXPECT_DOUBLE_EQ(contended_ns(profile, "gpu0", both, 1000.0, 40000), 2000.0);  // all of it reads
  EXPECT_DOUBLE_EQ(contended_ns(profile, "gpu0", both, 1000.0, 0), 1500.0);
  EXPECT_DOUBLE_EQ(contended_ns(profile, "npu0", both, 1000.0, 30000), 1000.0);
  EXPECT_DOUBLE_EQ(contended_ns(profile, "gpu0", std::vector<std::string>{"gpu0"}, 1000.0, 40000), 1000.0);
}

TEST(Profile, HandoffsGoByDirectionAndSync) {
  const Profile profile = sample();
  EXPECT_EQ(profile.handoff("gpu0", "npu0", "fast"), Nanos(5000));
  EXPECT_EQ(profile.handoff("gpu0", "npu0", "driver"), Nanos(50000));
  EXPECT_EQ(profile.handoff("npu0", "gpu0", "fast"), Nanos(0));
  EXPECT_EQ(profile.handoff("npu0", "npu0", "fast"), Nanos(0));
}

TEST(Profile, CompileTimeScalesWithTheWeight) {
  EXPECT_EQ(compile_time(npu(), linear(2048), 64), std::chrono::milliseconds(10));
  EXPECT_EQ(compile_time(gpu(), linear(2048), 64), Nanos(0));
}

TEST(Profile, JsonGoesBothWays) {
  const auto json = to_json(sample());
  const auto read = profile_from_json(json);
  ASSERT_TRUE(read.ok()) << read.status().message();
  EXPECT_EQ(to_json(*read), json);
  EXPECT_EQ(read->processors[1].watts, 1.5);
  EXPECT_DOUBLE_EQ(micros(time_of(read->processors[0], linear(4096), 48, 0)), 1250);
}

TEST(Profile, JsonErrorsNameThePlace) {
  const auto error = [](const std::function<void(nlohmann::ordered_json&)>& damage) {
    auto json = to_json(sample());
    damage(json);
    const auto read = profile_from_json(json);
    return read.ok() ? std::string("read it") : read.status().message();
  };
  EXPECT_EQ(error([](auto& j) { j["processors"][0]["series"][1]["points"][0]["median_ns"] = -4; }),
            "profile: processors[0].series[1].points[0].median_ns: expected a whole number from 0 to "
            "1152921504606846976, found -4");
  EXPECT_EQ(error([](auto& j) { j["processors"][1].erase("grid"); }),
            "profile: processors[1].grid is missing");
  EXPECT_EQ(error([](auto& j) { j["handoffs"][0]["to"] = "npu7"; }),
            "profile: handoffs: \"npu7\" is not one of its processors");
  EXPECT_EQ(error([](auto& j) { j["processors"][1]["id"] = "gpu0"; }),
            "profile: processors: \"gpu0\" is there twice");
  EXPECT_EQ(error([](auto& j) { j = nlohmann::ordered_json::array(); }),
            "profile: : expected an object, found []");
  EXPECT_NE(error([](auto& j) { j["together"][2][0]["gbps"] = "fast"; }).find("together[2][0].gbps"),
            std::string::npos);
}

TEST(Work, NamesWhatDecidesTheTime) {
  const TinyGraph tiny(2);
  std::set<std::string> works;
  for (int op = 0; op < static_cast<int>(tiny.graph.ops.size()); ++op) {
    works.insert(to_string(work_of(tiny.graph, op)));
  }
  EXPECT_TRUE(works.contains("linear F32 [64,32]"));   // qkv
  EXPECT_TRUE(works.contains("linear F32 [128,32]"));  // gate and up
  EXPECT_TRUE(works.contains("linear F32 [32,64]"));   // down
  EXPECT_TRUE(works.contains("rms_norm [32,2]"));
  EXPECT_EQ(works.size(), 12u);
  EXPECT_EQ(model_shape_key(TinyGraph(2).graph), model_shape_key(tiny.graph));
  EXPECT_NE(model_shape_key(TinyGraph(3).graph), model_shape_key(tiny.graph));
}

}  // namespace
}  // namespace hetero
