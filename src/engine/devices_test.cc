#include "engine/devices.h"

#include <gtest/gtest.h>

#include "base/threads.h"

namespace hetero {
namespace {

FoundProcessor made(const std::string& id, const std::string& kind, bool stand_in) {
  FoundProcessor p;
  p.info.id = id;
  p.info.kind = kind;
  p.info.name = "a " + kind;
  p.info.stand_in = stand_in;
  return p;
}

const std::vector<FoundProcessor> kLaptop = {made("cpu", "cpu", false), made("gpu0", "gpu", false),
                                             made("gpu1", "gpu", true), made("npu0", "npu", false)};
const std::vector<FoundProcessor> kServer = {made("cpu", "cpu", false), made("gpu0", "gpu", true),
                                             made("npu0", "npu", true)};

std::vector<std::string> members(const Selection& s) {
  std::vector<std::string> ids;
  for (const Member& m : s.members) {
    ids.push_back(m.found->info.id);
  }
  return ids;
}

using Ids = std::vector<std::string>;

TEST(Select, AutoNeverTakesAStandIn) {
  const auto s = select(kServer, {});
  ASSERT_TRUE(s.ok());
  EXPECT_EQ(s->strategy, Strategy::kCpu);
  EXPECT_EQ(members(*s), Ids{"cpu"});
  EXPECT_TRUE(s->notices.empty());
}

TEST(Select, AutoTakesRealProcessorsTogether) {
  const auto s = select(kLaptop, {});
  ASSERT_TRUE(s.ok());
  EXPECT_EQ(s->strategy, Strategy::kTensor);
  EXPECT_EQ(members(*s), (Ids{"cpu", "gpu0", "npu0"}));
}

TEST(Select, AutoTakesTheCpuBesideAGpuForTheSolverToChoose) {
  const std::vector<FoundProcessor> found = {made("cpu", "cpu", false), made("gpu0", "gpu", false)};
  const auto s = select(found, {});
  ASSERT_TRUE(s.ok());
  EXPECT_EQ(s->strategy, Strategy::kGpu);  // what is done without a profile
  EXPECT_EQ(members(*s), (Ids{"cpu", "gpu0"}));
  EXPECT_FALSE(s->int8_activations);
  EXPECT_EQ(members(*select(found, {Strategy::kGpu, {}, 0})), Ids{"gpu0"});
}

TEST(Select, AStrategyThatNeedsAGpuTakesTheStandInAndSaysSo) {
  const auto s = select(kServer, {Strategy::kTensor, {}, 0});
  ASSERT_TRUE(s.ok());
  EXPECT_EQ(members(*s), (Ids{"cpu", "gpu0", "npu0"}));
  EXPECT_EQ(members(*select(kServer, {Strategy::kTensor, {"gpu0", "npu0"}, 0})), (Ids{"gpu0", "npu0"}));
  EXPECT_EQ(members(*select(kServer, {Strategy::kLayer, {}, 0})), (Ids{"gpu0", "npu0"}));
  ASSERT_EQ(s->notices.size(), 2u);
  EXPECT_NE(s->notices[0].find("gpu0 is a stand-in"), std::string::npos);
}

TEST(Select, StandInsAreConfinedToDifferentCpus) {
  if (available_cpus().size() < 2) {
    GTEST_SKIP() << "one CPU only";
  }
  const auto s = select(kServer, {Strategy::kTensor, {}, 0});
  ASSERT_TRUE(s.ok());
  const auto& gpu = s->members[1].options.cpus;
  const auto& npu = s->members[2].options.cpus;
  EXPECT_EQ(s->members[0].options.cpus, npu) << "the CPU works beside the NPU that it waits for anyway";
  EXPECT_EQ(gpu.size() + npu.size(), available_cpus().size());
  for (const int cpu : gpu) {
    EXPECT_EQ(std::count(npu.begin(), npu.end(), cpu), 0);
  }
}

TEST(Select, RealDevicesLeaveTheCpusToTheStandIn) {
  const std::vector<FoundProcessor> found = {made("cpu", "cpu", false), made("gpu0", "gpu", false),
                                             made("npu0", "npu", true)};
  const auto s = select(found, {Strategy::kLayer, {}, 0});
  ASSERT_TRUE(s.ok());
  EXPECT_TRUE(s->members[0].options.cpus.empty());
  EXPECT_EQ(s->members[1].options.cpus, available_cpus());
}

TEST(Select, NamedStandInsAreTakenByAuto) {
  const auto s = select(kServer, {std::nullopt, {"gpu0", "npu0"}, 0});
  ASSERT_TRUE(s.ok());
  EXPECT_EQ(s->strategy, Strategy::kTensor);
}

TEST(Select, NpuStrategiesKeepTheRestOnTheCpuOrOnTheNamedGpu) {
  const auto with_cpu = select(kServer, {Strategy::kNpuPadding, {}, 0});
  ASSERT_TRUE(with_cpu.ok());
  EXPECT_EQ(members(*with_cpu), (Ids{"cpu", "npu0"}));
  const auto with_gpu = select(kServer, {Strategy::kNpuPadding, {"gpu0", "npu0"}, 0});
  ASSERT_TRUE(with_gpu.ok());
  EXPECT_EQ(members(*with_gpu), (Ids{"gpu0", "npu0"}));
}

TEST(Select, SaysWhatIsMissing) {
  const std::vector<FoundProcessor> bare = {made("cpu", "cpu", false)};
  EXPECT_NE(select(bare, {Strategy::kTensor, {}, 0}).status().message().find("strategy tensor needs a GPU"),
            std::string::npos);
  EXPECT_NE(
      select(kServer, {Strategy::kGpu, {"npu0"}, 0}).status().message().find("--processors npu0 names none"),
      std::string::npos);
  EXPECT_EQ(select(bare, {std::nullopt, {"gpu7"}, 0}).status().message(),
            "--processors: \"gpu7\" is not a processor of this machine (found: cpu)");
}

TEST(Discovery, TheCpuStrategyLoadsNoVendorLibrary) {
  EXPECT_FALSE(needed({Strategy::kCpu, {}, 0}).gpu);
  EXPECT_FALSE(needed({Strategy::kCpu, {}, 0}).npu);
  EXPECT_TRUE(needed({Strategy::kTensor, {}, 0}).npu);
  EXPECT_FALSE(needed({Strategy::kGpu, {}, 0}).npu);
  EXPECT_FALSE(needed({std::nullopt, {"cpu"}, 0}).gpu);
}

}  // namespace
}  // namespace hetero
