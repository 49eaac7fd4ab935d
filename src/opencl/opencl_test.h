// What the tests of OpenCL processors share.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/threads.h"
#include "opencl/opencl.h"
#include "opencl/opencl_processor.h"
#include "processor/conformance.h"

namespace hetero {

/// Sets an environment variable until it goes out of scope.
class ScopedEnv {
 public:
  ScopedEnv(const char* name, const std::string& value) : name_(name) { setenv(name, value.c_str(), 1); }
  ~ScopedEnv() { unsetenv(name_); }
  ScopedEnv(const ScopedEnv&) = delete;
  ScopedEnv& operator=(const ScopedEnv&) = delete;

 private:
  const char* name_;
};

class OpenCl : public testing::Test {
 protected:
  void SetUp() override {
    found_ = find_opencl();
    if (found_.empty()) {
      GTEST_SKIP() << "no OpenCL device on this machine";
    }
    dir_ = std::filesystem::temp_directory_path() / ("hetero_opencl_test_" + std::to_string(getpid()));
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  std::unique_ptr<OpenClProcessor> open(OpenOptions options = {}) {
    auto opened = found_[0].open(found_[0].info, options);
    EXPECT_TRUE(opened.ok()) << opened.status().message();
    return opened.ok() ? std::unique_ptr<OpenClProcessor>(static_cast<OpenClProcessor*>(opened->release()))
                       : nullptr;
  }

  void expect_conformance(const std::string& only) {
    OpenOptions options;
    options.cache_dir = dir_.string();
    const auto processor = open(options);
    ASSERT_NE(processor, nullptr);
    const ConformanceReport report = run_conformance(*processor, {only, true});
    EXPECT_GT(report.passed, 0);
    for (const std::string& failure : report.failures) {
      ADD_FAILURE() << failure;
    }
    EXPECT_TRUE(report.skipped.empty()) << report.skipped[0];
  }

  std::vector<FoundProcessor> found_;
  std::filesystem::path dir_;
};

/// Of devices of type CPU, confined to one of the host's CPUs.
class OpenClStandIn : public OpenCl {
 protected:
  void SetUp() override {
    OpenCl::SetUp();
    if (!IsSkipped() && !found_[0].info.stand_in) {
      GTEST_SKIP() << found_[0].info.name << " is no stand-in";
    }
  }
  std::unique_ptr<OpenClProcessor> open_on_one_cpu() {
    OpenOptions options;
    options.threads = 1;
    options.cpus = {available_cpus().back()};
    options.cache_dir = dir_.string();
    return open(options);
  }
};

/// y [4,n] = x [4,k] W^T with W all ones, and everything that it takes.
struct Product {
  static constexpr int64_t kTokens = 4;
  static constexpr int64_t kN = 24;
  static constexpr int64_t kK = 32;
  std::vector<float> ones = std::vector<float>(kN * kK, 1.0f);
  Graph graph;
  PageMemory x = PageMemory::allocate(kTokens * kK * 4).value();
  PageMemory y = PageMemory::allocate(kTokens * kN * 4).value();
  std::unique_ptr<Buffer> x_buffer;
  std::unique_ptr<Buffer> y_buffer;
  std::unique_ptr<Executable> executable;

  explicit Product(Processor& processor) {
    graph.weights.push_back({"ones", DType::kF32, kN, kK, reinterpret_cast<const std::byte*>(ones.data())});
    graph.values.push_back({"x", Rows::kTokens, kK, DType::kF32});
    graph.values.push_back({"y", Rows::kTokens, kN, DType::kF32});
    Op op;
    op.name = "product";
    op.params = Linear{};
    op.inputs = {0};
    op.outputs = {1};
    op.weights = {0};
    graph.ops.push_back(op);
    std::fill_n(reinterpret_cast<float*>(x.data()), kTokens * kK, 0.5f);
    x_buffer = processor.import(x.data(), x.size()).value();
    y_buffer = processor.import(y.data(), y.size()).value();
    executable = processor.compile(graph, {0, 0, kN}, kTokens).value();
  }

  Result<Fence> submit(Processor& processor, int64_t tokens) const {
    const Binding in{x_buffer.get(), 0, kK};
    const Binding out{y_buffer.get(), 0, kN};
    return processor.submit(*executable, {tokens, 0, {&in, 1}, {&out, 1}});
  }
  float at(int64_t i) const { return reinterpret_cast<const float*>(y.data())[i]; }
};

}  // namespace hetero
