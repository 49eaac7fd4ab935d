// The conformance suite on every processor of this machine. HETERO_CONFORMANCE=cpu|gpu|npu|fake
// chooses the kind, HETERO_CONFORMANCE_CASES=text the cases whose name contains the text.
#include "processor/conformance.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>

#include "cpu/cpu.h"
#include "npu/npu.h"
#include "opencl/opencl.h"
#include "processor/fake.h"

namespace hetero {
namespace {

bool chosen(const std::string& kind) {
  const char* env = std::getenv("HETERO_CONFORMANCE");
  return env == nullptr || kind == env;
}

/// `refused`: kinds of operators that the processor may refuse; it runs all cases of the others.
void conform(Processor& processor, const std::string& what, const std::vector<std::string>& refused) {
  const char* only = std::getenv("HETERO_CONFORMANCE_CASES");
  const ConformanceReport report =
      run_conformance(processor, {.only = only == nullptr ? "" : only, .quick = HETERO_SANITIZED});
  for (const std::string& failure : report.failures) {
    ADD_FAILURE() << failure;
  }
  for (const std::string& skipped : report.skipped) {
    EXPECT_TRUE(std::any_of(refused.begin(), refused.end(),
                            [&](const std::string& kind) { return skipped.starts_with(kind + " "); }))
        << "not run: " << skipped;
  }
  EXPECT_GT(report.passed, 0);
  std::cout << what << " " << processor.info().name << " (" << processor.info().driver
            << "): " << report.passed << " passed, " << report.skipped.size() << " not supported, "
            << report.failures.size() << " failed\n";
}

void conform(const FoundProcessor& found, const std::string& what,
             const std::vector<std::string>& refused = {}) {
  SCOPED_TRACE(what + " " + found.info.name);
  OpenOptions options;
  options.threads = 2;
  auto processor = found.open(found.info, options);
  ASSERT_TRUE(processor.ok()) << processor.status().message();
  conform(**processor, what, refused);
}

TEST(Conformance, CpuAtEveryLevel) {
  if (!chosen("cpu")) {
    GTEST_SKIP() << "not chosen";
  }
  for (const std::string& level : cpu_levels()) {
    setenv("HETERO_CPU", level.c_str(), 1);
    conform(find_cpu(), level);
  }
  unsetenv("HETERO_CPU");
}

TEST(Conformance, EveryOpenClDeviceInEveryMemoryMode) {
  if (!chosen("gpu")) {
    GTEST_SKIP() << "not chosen";
  }
  const std::vector<FoundProcessor> found = find_opencl();
  if (found.empty()) {
    GTEST_SKIP() << "no OpenCL device";
  }
  // Trying variants of kernels on every size of matrix takes minutes; opencl_test has the variants.
  setenv("HETERO_OPENCL_TUNE", "off", 0);
  for (const FoundProcessor& p : found) {
    conform(p, "default memory");
    if (!p.info.unified_memory) {
      continue;  // that was memory of its own
    }
    setenv("HETERO_OPENCL_MEMORY", "copy", 1);
    conform(p, "memory of its own");
    unsetenv("HETERO_OPENCL_MEMORY");
  }
}

TEST(Conformance, EveryNpu) {
  if (!chosen("npu")) {
    GTEST_SKIP() << "not chosen";
  }
  const std::vector<FoundProcessor> found = find_npu();
  if (found.empty()) {
    GTEST_SKIP() << "no NPU and no stand-in";
  }
  for (const FoundProcessor& p : found) {
    conform(p, "npu",
            {"embed", "rms_norm", "rope", "rope_table", "attention", "gated", "expert", "expert_sum", "route",
             "soft_cap"});
  }
}

TEST(Conformance, ScriptedFake) {
  if (!chosen("fake")) {
    GTEST_SKIP() << "not chosen";
  }
  FakeProcessor fake("fake", "gpu");
  conform(fake, "fake", {});
}

}  // namespace
}  // namespace hetero
