// Settings, variants by trying, and programs from the cache.
#include <fstream>

#include "opencl/kernel_tuner.h"
#include "opencl/opencl_test.h"

namespace hetero {
namespace {

TEST_F(OpenCl, MalformedVariantIsNamed) {
  const ScopedEnv kernels("HETERO_OPENCL_KERNELS", "gpu");
  const ScopedEnv tile("HETERO_OPENCL_TILE", "128,64");
  const auto processor = open();
  ASSERT_NE(processor, nullptr);
  const Product product(*processor);
  const auto compiled = processor->compile(product.graph, {0, 0, Product::kN}, 64);
  ASSERT_FALSE(compiled.ok());
  EXPECT_NE(compiled.status().message().find("'128,64': expected 7 numbers"), std::string::npos)
      << compiled.status().message();
}

TEST_F(OpenCl, TriesVariantsInEveryMemory) {
  const ScopedEnv kernels("HETERO_OPENCL_KERNELS", "gpu");
  const ScopedEnv tune("HETERO_OPENCL_TUNE", "on");
  for (const std::string mode : {"svm", "host", "copy"}) {
    const auto& features = found_[0].info.features;
    const bool svm = std::find(features.begin(), features.end(), "svm-system") != features.end();
    if ((mode == "svm" && !svm) || (mode == "host" && !found_[0].info.unified_memory)) {
      continue;
    }
    const ScopedEnv memory("HETERO_OPENCL_MEMORY", mode);
    OpenOptions options;
    options.cache_dir = (dir_ / mode).string();
    const auto processor = open(options);
    ASSERT_NE(processor, nullptr);
    const ConformanceReport report = run_conformance(*processor, {"linear Q4_0[37,256]", true});
    EXPECT_GT(report.passed, 0);
    EXPECT_TRUE(report.failures.empty()) << report.failures[0];
    int tuned = 0;
    for (const auto& entry : std::filesystem::directory_iterator(options.cache_dir)) {
      tuned += entry.path().filename().string().starts_with("opencl-tuned-") ? 1 : 0;
    }
    EXPECT_EQ(tuned, 1) << mode;
  }
}

TEST(KernelTuner, FastestVariantIsKeptOnDisk) {
  const auto dir = std::filesystem::temp_directory_path() / ("hetero_tuner_test_" + std::to_string(getpid()));
  const std::string path = (dir / "tuned.txt").string();
  int tried = 0;
  const auto time = [&](const std::string& variant) -> Result<double> {
    ++tried;
    if (variant == "broken") {
      return internal_error("does not compile");
    }
    return variant == "fast" ? 1000.0 : 2000.0;
  };
  const std::vector<std::string> variants = {"slow", "broken", "fast"};
  EXPECT_EQ(KernelTuner("", false).choose("a", "tile", variants, time).value(), "slow");
  EXPECT_EQ(tried, 0);
  EXPECT_EQ(KernelTuner(path, true).choose("a", "tile", variants, time).value(), "fast");
  EXPECT_EQ(tried, 3);
  EXPECT_EQ(KernelTuner(path, true).choose("a", "tile", variants, time).value(), "fast");
  EXPECT_EQ(tried, 3);
  // A choice that is no longer offered is made anew; where nothing works, the reason is given.
  EXPECT_EQ(KernelTuner(path, true).choose("a", "tile", {"slow", "new"}, time).value(), "slow");
  EXPECT_FALSE(KernelTuner(path, true).choose("b", "tile", {"broken", "broken"}, time).ok());
  std::filesystem::remove_all(dir);
}

TEST_F(OpenCl, UnknownSettingIsNamed) {
  const ScopedEnv memory("HETERO_OPENCL_MEMORY", "magic");
  const auto opened = found_[0].open(found_[0].info, {});
  ASSERT_FALSE(opened.ok());
  EXPECT_NE(opened.status().message().find("HETERO_OPENCL_MEMORY=magic"), std::string::npos);
}

TEST_F(OpenCl, SecondStartBuildsNothing) {
  OpenOptions options;
  options.cache_dir = dir_.string();
  const auto first = open(options);
  ASSERT_NE(first, nullptr);
  const Product product(*first);
  EXPECT_GT(first->programs_built(), 0);
  const auto second = open(options);
  ASSERT_NE(second, nullptr);
  const Product again(*second);
  EXPECT_EQ(second->programs_built(), 0);
  EXPECT_GT(second->programs_loaded(), 0);
  const auto fence = again.submit(*second, Product::kTokens);
  ASSERT_TRUE(fence.ok()) << fence.status().message();
  EXPECT_TRUE(fence->wait().ok());
}

TEST_F(OpenCl, BrokenCacheFilesAreBuiltAnew) {
  OpenOptions options;
  options.cache_dir = dir_.string();
  const auto first = open(options);
  ASSERT_NE(first, nullptr);
  const Product product(*first);
  int broken = 0;
  for (const auto& entry : std::filesystem::directory_iterator(dir_)) {
    const auto size = std::filesystem::file_size(entry.path());
    if (broken % 2 == 0) {
      std::filesystem::resize_file(entry.path(), size / 2);
    } else {
      std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
      file.seekp(static_cast<std::streamoff>(size) - 20);
      file << "twenty other bytes!!";
    }
    ++broken;
  }
  ASSERT_GT(broken, 1);
  const auto second = open(options);
  ASSERT_NE(second, nullptr);
  const Product again(*second);
  EXPECT_EQ(second->programs_built(), broken);
  EXPECT_EQ(second->programs_loaded(), 0);
}

}  // namespace
}  // namespace hetero
