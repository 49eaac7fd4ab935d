// The conformance suite on every processor of this machine. HETERO_CONFORMANCE=cpu|gpu|npu
// chooses the kind.
#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>

#include "cpu/cpu.h"
#include "npu/npu.h"
#include "opencl/opencl.h"
#include "processor/conformance.h"

namespace hetero {
namespace {

bool chosen(const std::string& kind) {
  const char* env = std::getenv("HETERO_CONFORMANCE");
  return env == nullptr || kind == env;
}

void conform(const FoundProcessor& found, const std::string& what, int least) {
  SCOPED_TRACE(what + " " + found.info.name);
  OpenOptions options;
  options.threads = 2;
  auto processor = found.open(found.info, options);
  ASSERT_TRUE(processor.ok()) << processor.status().message();
  const ConformanceReport report = run_conformance(**processor, {.only = "", .quick = HETERO_SANITIZED});
  for (const std::string& failure : report.failures) {
    ADD_FAILURE() << failure;
  }
  EXPECT_GT(report.passed, HETERO_SANITIZED ? least / 2 : least);  // a quick run has fewer sizes of everything
  std::cout << what << " " << found.info.name << ": " << report.passed << " passed, " << report.skipped.size()
            << " not supported, " << report.failures.size() << " failed\n";
}

TEST(Conformance, CpuAtEveryLevel) {
  if (!chosen("cpu")) {
    GTEST_SKIP() << "not chosen";
  }
  for (const std::string& level : cpu_levels()) {
    setenv("HETERO_CPU", level.c_str(), 1);
    conform(find_cpu(), level, 200);
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
  for (const FoundProcessor& p : found) {
    conform(p, "default memory", 200);
    setenv("HETERO_OPENCL_MEMORY", "copy", 1);
    conform(p, "memory of its own", 200);
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
    conform(p, "npu", 100);
  }
}

}  // namespace
}  // namespace hetero
