#include "profile/characterize.h"

#include <gtest/gtest.h>

#include <regex>

#include "processor/fake.h"
#include "profile/characterize_report.h"
#include "profile/soc_file.h"

namespace hetero {
namespace {

using std::chrono::milliseconds;

/// A model of one layer with one product.
struct Scene {
  Scene() {
    graph.shape.layers = 1;
    graph.shape.name = "one product";
    graph.values = {{"x", Rows::kTokens, 256, DType::kF32}, {"y", Rows::kTokens, 64, DType::kF32}};
    graph.weights = {{"w", DType::kF32, 64, 256, reinterpret_cast<const std::byte*>(weights.data())}};
    graph.ops.push_back({"linear", 0, Linear{}, {0}, {1}, {0}, {}});
    graph.head_begin = 1;
    options.width = 256;
    options.rows = 8;
    options.dtype = DType::kF32;
    options.profiler.lengths = {1, 32};
    options.profiler.rounds = 1;
    // Sanitizers take minutes; how long it took is not the question.
    options.products_budget = options.profile_budget = std::chrono::hours(1);
    options.peaks["gpu0"] = {1000.0, 100.0, "given"};
  }
  Result<Characterization> run(std::vector<Processor*> processors) {
    return characterize(graph, processors, {"a machine", "a model", "2026-11-25", false}, options);
  }
  std::vector<float> weights = std::vector<float>(64 * 256, 0.5f);
  Graph graph;
  CharacterizeOptions options;
};

TEST(Characterize, FillsEverySeriesOfEveryProcessor) {
  Scene scene;
  FakeProcessor gpu("gpu0", "gpu");
  FakeScript script;
  script.traits.static_shapes = true;
  FakeProcessor npu("npu0", "npu", script);
  const auto c = scene.run({&gpu, &npu});
  ASSERT_TRUE(c.ok()) << c.status().message();
  EXPECT_TRUE(c->complete);
  ASSERT_EQ(c->products.size(), 2u);
  for (const ProductSpeeds& p : c->products) {
    ASSERT_EQ(p.by_rows.size(), 4u) << p.id;  // 1, 2, 4, 8
    EXPECT_EQ(p.by_rows[3].product.m, 8);
    EXPECT_FALSE(p.by_shape.empty());
    EXPECT_EQ(p.by_order.size(), 3u);
    for (const ProductTime& t : p.by_rows) {
      EXPECT_GT(t.gflops(), 0.0);
      EXPECT_LE(t.gflops_low(), t.gflops());
      EXPECT_GE(t.gflops_high(), t.gflops());
      EXPECT_GE(t.samples, 1);
    }
    const auto& [given, exchanged] = p.by_order.front();
    EXPECT_EQ(given.product.m, exchanged.product.n);
    EXPECT_EQ(given.product.n, exchanged.product.m);
  }
  EXPECT_EQ(c->profile.together.size(), 3u);  // each alone, and both
  const auto json = to_json(*c);
  EXPECT_GT(json["products"][0]["by_rows"][0]["of_peak"].get<double>(), 0.0);
  EXPECT_FALSE(json["products"][1]["by_rows"][0].contains("of_peak"));  // its peak is not known
}

TEST(Characterize, NotesWhatAProcessorRefuses) {
  Scene scene;
  FakeProcessor gpu("gpu0", "gpu");
  FakeScript script;
  script.refuses = {"linear"};
  FakeProcessor npu("npu0", "npu", script);
  const auto c = scene.run({&gpu, &npu});
  ASSERT_TRUE(c.ok()) << c.status().message();
  EXPECT_TRUE(c->products[1].by_rows.empty());
  EXPECT_FALSE(c->products[1].refused.empty());
}

TEST(Characterize, StopsWhenItsTimeIsOverAndWhenCancelled) {
  Scene scene;
  FakeProcessor gpu("gpu0", "gpu");
  scene.options.products_budget = Nanos(0);
  auto c = scene.run({&gpu});
  ASSERT_TRUE(c.ok()) << c.status().message();
  EXPECT_FALSE(c->complete);
  EXPECT_TRUE(c->products[0].by_rows.empty());
  const std::atomic<bool> stop = true;
  scene.options.cancel = &stop;
  c = scene.run({&gpu});
  ASSERT_TRUE(c.ok()) << c.status().message();
  EXPECT_FALSE(c->complete);
}

TEST(Characterize, AnErrorOfAProcessorComesBack) {
  Scene scene;
  FakeScript script;
  script.fail_at = 2;
  FakeProcessor gpu("gpu0", "gpu", script);
  EXPECT_EQ(scene.run({&gpu}).status().code(), Code::kDeviceLost);
}

/// Made up, so that the words are known.
Characterization example() {
  Characterization c;
  c.model = "a model";
  c.dtype = "Q4_0";
  c.profile.identity = {"a machine", "", "2026-11-25", false};
  for (const char* id : {"gpu0", "npu0"}) {
    ProfiledProcessor p;
    p.id = id;
    p.name = "test";
    p.kind = std::string(id).substr(0, 3);
    p.submit = Nanos(3000);
    c.profile.processors.push_back(p);
    ProductSpeeds s;
    s.id = id;
    const int64_t gflops = p.kind == "gpu" ? 10 : 30;
    for (const int64_t m : {1, 32, 64}) {  // 32 rows reach the best
      const double reached = m == 1 ? 0.1 : 1.0;
      ProductTime t;
      t.product = {m, 1000, 1000};
      t.median =
          Nanos(static_cast<int64_t>(2e6 * static_cast<double>(m) / (reached * static_cast<double>(gflops))));
      t.samples = 5;
      s.by_rows.push_back(t);
    }
    c.products.push_back(s);
  }
  c.products[0].peak = {20.0, 0.0, "given"};
  c.profile.together = {
      {{{"gpu0", 10.0, 1.0}}}, {{{"npu0", 8.0, 1.0}}}, {{{"gpu0", 7.0, 1.0}, {"npu0", 8.0, 1.0}}}};
  c.profile.handoffs = {{"gpu0", "host", "driver", Nanos(50000), Nanos(5000)},
                        {"gpu0", "npu0", "fast", Nanos(9000), Nanos(1000)}};
  c.predictions = {
      {256, {{"tensor", milliseconds(100), "gpu0 25%, npu0 75%"}, {"npu-padding", milliseconds(150), ""}}}};
  return c;
}

TEST(CharacterizeReport, SaysInPlainWordsWhatTheNumbersMean) {
  const std::vector<std::string> s = summary_of(example());
  ASSERT_EQ(s.size(), 5u);
  EXPECT_EQ(s[0],
            "gpu0 (test) computes products at up to 10 GFLOPS, 50% of its peak, nine tenths of that from 32 "
            "rows on.");
  EXPECT_NE(s[2].find("gpu0 alone reads 10.0 GB/s, gpu0 + npu0 together 15.0 GB/s, 1.50 times as much"),
            std::string::npos)
      << s[2];
  EXPECT_NE(s[3].find("npu0 is the fastest; all at once would be 1.33 times"), std::string::npos) << s[3];
  EXPECT_NE(
      s[4].find("tensor to win with 2560.0 tokens/s (gpu0 25%, npu0 75%), 1.50 times as fast as npu-padding"),
      std::string::npos)
      << s[4];
}

TEST(CharacterizeReport, IsOnePageWithEveryPlot) {
  const std::string html = characterize_report(example()).html();
  for (const char* text : {"Speed of a product by its rows", "Reading weights in decode", "Handing over",
                           "Submitting", "What the solver expects"}) {
    EXPECT_NE(html.find(text), std::string::npos) << text;
  }
  EXPECT_EQ(html.find("http://"), html.find("http://www.w3.org"));  // nothing from the network
  EXPECT_EQ(html.find("<script"), std::string::npos);
}

TEST(SocFile, HoldsWhatWasMeasured) {
  const auto json = soc_file(example(), {Nanos(60000), Nanos(500)});
  EXPECT_EQ(json["dram"]["gbps"]["value"], 15.0);
  EXPECT_EQ(json["control"]["sleep_grain_us"]["value"], 60.0);
  ASSERT_EQ(json["processors"].size(), 2u);
  const auto& gpu = json["processors"][0];
  EXPECT_EQ(gpu["gbps"]["value"], 10.0);
  EXPECT_EQ(gpu["finish_us"]["value"], 50.0);
  EXPECT_EQ(gpu["curve"].size(), 3u);
  EXPECT_EQ(gpu["curve"][1]["rows"]["value"], 32.0);
  EXPECT_NEAR(gpu["curve"][1]["gflops"]["value"].get<double>(), 10.0, 0.01);
  EXPECT_EQ(gpu["curve"][1]["gflops"]["basis"], "measured");
}

}  // namespace
}  // namespace hetero
