#include "sim/soc.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <regex>
#include <set>

#include "sim/calibration.h"

namespace hetero {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::ordered_json;

Json phone() {
  return soc_json("snapdragon-8-gen-3").value();
}

TEST(Soc, EveryChipThatComesWithTheProgramIsReadAndSaysWhereItsNumbersAreFrom) {
  EXPECT_THAT(soc_names(), ::testing::ElementsAre("snapdragon-8-gen-3", "snapdragon-8-elite",
                                                  "dimensity-9300", "apple-a18"));
  const std::set<std::string> bases = {"published", "fitted", "scaled", "assumed"};
  for (const std::string& name : soc_names()) {
    const Json json = soc_json(name).value();
    const auto soc = soc_from_json(json);
    ASSERT_TRUE(soc.ok()) << name << ": " << soc.status().message();
    EXPECT_EQ(soc->name, name);
    EXPECT_THAT(soc->title, HasSubstr("simulated"));
    const auto sources = soc_sources(json);
    EXPECT_GT(sources.size(), 30u);
    for (const SocSource& s : sources) {
      EXPECT_TRUE(bases.contains(s.basis)) << name << " " << s.path << ": " << s.basis;
      EXPECT_GT(s.source.size(), 5u) << name << " " << s.path;
      EXPECT_FALSE(s.unit.empty()) << name << " " << s.path;
    }
  }
}

TEST(Soc, NoNumberOfTheCalibratedChipDependsOnAValidationFigure) {
  // The tags of section 1 of the paper facts, Table 3, and the design's granularity of usleep and
  // width of activations.
  const std::set<std::string> calibration = {
      "GPU-1",    "GPU-2",       "NPU-1",   "NPU-2",  "NPU-3",
      "Memory-1", "NPU compute", "Table 3", "design", "NPU static graphs"};
  for (const SocSource& s : soc_sources(phone())) {
    if (s.basis == "fitted" || s.basis == "published") {
      EXPECT_TRUE(calibration.contains(s.tag)) << s.path << ": " << s.tag;
    } else {
      EXPECT_EQ(s.basis, "assumed") << s.path;
      EXPECT_TRUE(s.tag.empty()) << s.path;
    }
  }
}

TEST(Soc, RefittingGivesTheNumbersOfTheFile) {
  const Soc soc = soc_from_json(phone()).value();
  const Calibration c = calibrate(soc);
  size_t fitted = 0;
  for (const SocSource& s : soc_sources(phone())) {
    fitted += s.basis == "fitted" && s.value > 0.0 ? 1 : 0;
  }
  EXPECT_EQ(c.numbers.size(), fitted);
  for (const FittedNumber& n : c.numbers) {
    EXPECT_NEAR(n.in_file / n.fitted, 1.0, 0.002) << n.path;
  }
}

TEST(Soc, CalibrationFiguresOutsideOfTheFitAreMetToo) {
  for (const CalibrationFigure& f : calibration_figures(soc_from_json(phone()).value())) {
    if (f.id.find("bandwidth") == 0 || f.id.find("npu_order") == 0 || f.id.find("graphs") == 0) {
      EXPECT_NEAR(f.simulated / f.paper, 1.0, 0.1) << f.id;
    }
  }
}

TEST(Soc, NumbersCanBeSet) {
  Json json = phone();
  ASSERT_TRUE(soc_set(json, "npu.tflops=34").ok());
  ASSERT_TRUE(soc_set(json, "dram.gbps=77").ok());
  const Soc soc = soc_from_json(json).value();
  EXPECT_EQ(soc.find("npu0")->array_gflops, 34000.0);
  EXPECT_EQ(soc.dram_gbps, 77.0);
  // A curve keeps its form.
  const double before = soc_from_json(phone()).value().find("gpu0")->curve[0].gflops;
  const double last = soc_from_json(phone()).value().find("gpu0")->curve.back().gflops;
  ASSERT_TRUE(soc_set(json, "gpu.tflops=2").ok());
  EXPECT_NEAR(soc_from_json(json)->find("gpu0")->curve[0].gflops, before * 2000.0 / last, 1e-6);
  EXPECT_NEAR(soc_from_json(json)->find("gpu0")->curve.back().gflops, 2000.0, 1e-6);
  for (const char* wrong :
       {"npu", "npu.tflops", "npu.tflops=", "npu.tflops=fast", "npu.wheels=4", "moon.gbps=1"}) {
    const Status status = soc_set(json, wrong);
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << wrong;
    EXPECT_THAT(status.message(), HasSubstr(wrong));
  }
}

TEST(Soc, ErrorsNameThePlace) {
  const auto error = [](const std::function<void(Json&)>& spoil) {
    Json json = phone();
    spoil(json);
    const auto soc = soc_from_json(json);
    return soc.ok() ? std::string() : soc.status().message();
  };
  EXPECT_THAT(error([](Json& j) { j["processors"][2]["tile"]["value"] = 0; }), HasSubstr("npu0.tile"));
  EXPECT_THAT(error([](Json& j) { j["processors"][1].erase("gbps"); }), HasSubstr("gpu0.gbps"));
  EXPECT_THAT(error([](Json& j) { j["processors"][1]["kind"] = "tpu"; }), HasSubstr("processors[1].kind"));
  EXPECT_THAT(error([](Json& j) { j["processors"] = Json::array(); }), HasSubstr("processors"));
  EXPECT_THAT(error([](Json& j) { j["processors"][2]["id"] = "gpu0"; }), HasSubstr("twice"));
  EXPECT_THAT(error([](Json& j) { j["dram"] = 5; }), HasSubstr("dram.gbps"));
  EXPECT_THAT(error([](Json& j) { j["processors"][1]["curve"] = Json::array({1}); }),
              HasSubstr("curve[0].rows"));
  EXPECT_THAT(error([](Json& j) {
                j["processors"][2]["lengths"] = Json::array({32, 1});
              }),
              HasSubstr("npu0.lengths"));
  EXPECT_THAT(error([](Json& j) { j["processors"][1]["operators"] = Json::parse(R"([{"op":"linear"}])"); }),
              HasSubstr("gpu0.operators[0]"));
  EXPECT_THAT(error([](Json& j) {
                j["processors"][1]["operators"] =
                    Json::parse(R"([{"op":"linear","out":8,"in":8,"times":[[1,0,-5]]}])");
              }),
              HasSubstr("[1,0,-5]"));
  EXPECT_THAT(error([](Json& j) { j = Json::array(); }), HasSubstr("object"));
  EXPECT_EQ(soc_json("no-such-chip").status().code(), Code::kNotFound);
  EXPECT_THAT(soc_json("no-such-chip").status().message(), HasSubstr("snapdragon-8-gen-3"));
}

}  // namespace
}  // namespace hetero
