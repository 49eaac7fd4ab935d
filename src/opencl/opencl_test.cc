// Conformance, transfers, timelines, weights and stand-ins.
#include "opencl/opencl_test.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/threads.h"
#include "opencl/device.h"

namespace hetero {
namespace {

TEST_F(OpenCl, DevicesAreDescribedAndStandInsComeLast) {
  for (size_t i = 0; i < found_.size(); ++i) {
    const ProcessorInfo& info = found_[i].info;
    EXPECT_EQ(info.kind, "gpu");
    EXPECT_EQ(info.provider, "opencl");
    EXPECT_FALSE(info.name.empty());
    EXPECT_FALSE(info.driver.empty());
    EXPECT_GT(info.memory_bytes, 0);
    EXPECT_FALSE(info.features.empty());
    EXPECT_TRUE(i == 0 || found_[i - 1].info.stand_in <= info.stand_in);
  }
}

TEST_F(OpenCl, ConformsInTheDevicesOwnWay) {
  expect_conformance("");
}

TEST_F(OpenCl, ConformsWithBuffersOfItsOwn) {
  const ScopedEnv memory("HETERO_OPENCL_MEMORY", "copy");
  expect_conformance("stacked");
  expect_conformance("hd=24");
}

TEST_F(OpenCl, ConformsWithBuffersOverHostMemory) {
  if (!found_[0].info.unified_memory) {
    GTEST_SKIP() << found_[0].info.name << " does not share memory with the host";
  }
  const ScopedEnv memory("HETERO_OPENCL_MEMORY", "host");
  expect_conformance("stacked");
  expect_conformance("hd=24");
}

TEST_F(OpenCl, ConformsWithTheOtherShapeOfKernels) {
  const ScopedEnv kernels("HETERO_OPENCL_KERNELS", found_[0].info.stand_in ? "gpu" : "cpu");
  expect_conformance("");
}

TEST_F(OpenCl, ConformsWithWeightsInPlanes) {
  const ScopedEnv kernels("HETERO_OPENCL_KERNELS", "gpu");
  const ScopedEnv memory("HETERO_OPENCL_MEMORY", "copy");
  expect_conformance("linear Q4_0");
  expect_conformance("linear Q4_1");
  expect_conformance("embed Q4_0");
  expect_conformance("embed Q4_1");
}

TEST_F(OpenCl, ConformsWithProductsOfSmallMatrices) {
  if (found_[0].info.driver.starts_with("Portable")) {
    GTEST_SKIP() << "PoCL takes minutes to compile the kernel with its products emulated";
  }
  const ScopedEnv kernels("HETERO_OPENCL_KERNELS", "gpu");
  const ScopedEnv memory("HETERO_OPENCL_MEMORY", "copy");
  const ScopedEnv matrices("HETERO_OPENCL_MATRICES", "emulate");
  expect_conformance("linear Q4_0[37,256]");
  expect_conformance("linear Q4_0[40,512]");
}

TEST_F(OpenCl, ConformsWithProductsInHalf) {
  const auto& features = found_[0].info.features;
  if (std::find(features.begin(), features.end(), "fp16") == features.end()) {
    GTEST_SKIP() << found_[0].info.name << " has no arithmetic in fp16";
  }
  const ScopedEnv kernels("HETERO_OPENCL_KERNELS", "gpu");
  const ScopedEnv arithmetic("HETERO_OPENCL_ARITHMETIC", "f16");
  const auto processor = open();
  ASSERT_NE(processor, nullptr);
  EXPECT_EQ(processor->traits().unit_roundoff, 0x1p-11);
  expect_conformance("linear Q4_0");
  expect_conformance("linear F32");
}

TEST_F(OpenCl, ConformsWithAnyVariant) {
  const ScopedEnv kernels("HETERO_OPENCL_KERNELS", "gpu");
  const ScopedEnv memory("HETERO_OPENCL_MEMORY", "copy");
  {
    const ScopedEnv wide("HETERO_OPENCL_WIDE", "2,64,2,1");
    const ScopedEnv tile("HETERO_OPENCL_TILE", "128,64,16,8,8,2,8");
    expect_conformance("linear Q4_0[37");
  }
  const ScopedEnv wide("HETERO_OPENCL_WIDE", "1,128,1,2");
  const ScopedEnv tile("HETERO_OPENCL_TILE", "64,128,32,8,8,1,8");
  expect_conformance("linear Q4_1[37");
}

TEST_F(OpenCl, TransferMovesTheRegionAndNothingElse) {
  const ScopedEnv memory("HETERO_OPENCL_MEMORY", "copy");
  const auto processor = open();
  ASSERT_NE(processor, nullptr);
  ASSERT_FALSE(processor->traits().coherent);
  constexpr Bytes kSize = 4096;
  const PageMemory host = PageMemory::allocate(kSize).value();
  std::memset(host.data(), 1, kSize);
  const auto buffer = processor->import(host.data(), kSize).value();
  // On the device: 2 in the region, 1 elsewhere. On the host: 3, but for what comes back.
  const Region up{100, 24, 64, 5};
  for (int64_t row = 0; row < up.rows; ++row) {
    std::memset(host.data() + up.offset + row * up.stride, 2, static_cast<size_t>(up.row_bytes));
  }
  ASSERT_TRUE(processor->upload(*buffer, up).value().wait().ok());
  std::memset(host.data(), 3, kSize);
  const Region down{90, 40, 64, 6};
  ASSERT_TRUE(processor->download(*buffer, down).value().wait().ok());
  const auto inside = [](const Region& r, Bytes i) {
    const Bytes at = i - r.offset;
    return at >= 0 && at / r.stride < r.rows && at % r.stride < r.row_bytes;
  };
  for (Bytes i = 0; i < kSize; ++i) {
    const int expected = !inside(down, i) ? 3 : inside(up, i) ? 2 : 1;
    ASSERT_EQ(static_cast<int>(host.data()[i]), expected) << "byte " << i;
  }
}

TEST_F(OpenCl, TransferPastTheBufferIsAnError) {
  const ScopedEnv memory("HETERO_OPENCL_MEMORY", "copy");
  const auto processor = open();
  ASSERT_NE(processor, nullptr);
  const PageMemory host = PageMemory::allocate(4096).value();
  const auto buffer = processor->import(host.data(), 4096).value();
  EXPECT_FALSE(processor->upload(*buffer, {4000, 64, 64, 2}).ok());
}

TEST_F(OpenCl, FailureStaysForAllLaterTickets) {
  const auto processor = open();
  ASSERT_NE(processor, nullptr);
  const Product product(*processor);
  const auto good = product.submit(*processor, Product::kTokens);
  ASSERT_TRUE(good.ok()) << good.status().message();
  ASSERT_TRUE(good->wait().ok());
  const auto bad = product.submit(*processor, Product::kTokens + 1);
  ASSERT_FALSE(bad.ok());
  EXPECT_NE(bad.status().message().find("product"), std::string::npos);
  const auto later = product.submit(*processor, 1);
  ASSERT_FALSE(later.ok());
  EXPECT_EQ(later.status().message(), bad.status().message());
  EXPECT_TRUE(good->wait().ok());
  EXPECT_TRUE(processor->timeline().done(good->ticket + 1));
  EXPECT_EQ(processor->timeline().wait(good->ticket + 1).message(), bad.status().message());
}

TEST_F(OpenCl, TicketsOlderThanTheRingAreDone) {
  const auto processor = open();
  ASSERT_NE(processor, nullptr);
  const Product product(*processor);
  Fence first;
  Fence last;
  for (uint64_t i = 0; i < Timeline::kKeptIntervals + 10; ++i) {
    const auto fence = product.submit(*processor, 1);
    ASSERT_TRUE(fence.ok()) << fence.status().message();
    (i == 0 ? first : last) = *fence;
  }
  processor->flush();
  EXPECT_TRUE(first.wait().ok());
  EXPECT_TRUE(last.wait().ok());
  EXPECT_TRUE(last.done());
  EXPECT_EQ(processor->timeline().interval(first.ticket).end.count(), 0);
  EXPECT_NE(processor->timeline().interval(last.ticket).end.count(), 0);
}

TEST_F(OpenCl, IntervalsLieOnTheHostsClock) {
  const auto processor = open();
  ASSERT_NE(processor, nullptr);
  const Product product(*processor);
  const Nanos before = now();
  const auto fence = product.submit(*processor, Product::kTokens);
  ASSERT_TRUE(fence.ok()) << fence.status().message();
  ASSERT_TRUE(fence->wait().ok());
  const Nanos after = now();
  const Interval interval = processor->timeline().interval(fence->ticket);
  // The clocks are only related by when a completion was heard of: allow for that delay.
  constexpr Nanos kSlack = std::chrono::milliseconds(20);
  EXPECT_LE(interval.begin, interval.end);
  EXPECT_GT(interval.begin, before - kSlack);
  EXPECT_LT(interval.end, after + kSlack);
}

TEST_F(OpenCl, WeightOfAnotherTypeIsNamed) {
  const auto processor = open();
  ASSERT_NE(processor, nullptr);
  Product product(*processor);
  product.graph.weights[0].dtype = DType::kI32;
  const Status status = processor->supports(product.graph, {0, 0, Product::kN});
  EXPECT_EQ(status.code(), Code::kUnsupported);
  EXPECT_NE(status.message().find("ones of type I32"), std::string::npos) << status.message();
}

TEST_F(OpenCl, WeightLargerThanABufferIsNamed) {
  const ScopedEnv memory("HETERO_OPENCL_MEMORY", "copy");
  const auto processor = open();
  ASSERT_NE(processor, nullptr);
  Product product(*processor);
  product.graph.weights[0].rows = product.graph.values[1].cols = int64_t{1} << 30;
  product.graph.weights[0].cols = product.graph.values[0].cols = int64_t{1} << 20;
  const Status status = processor->supports(product.graph, {0, 0, 8});
  EXPECT_EQ(status.code(), Code::kUnsupported);
  EXPECT_NE(status.message().find("ones has 4503599627370496 bytes"), std::string::npos) << status.message();
}

TEST_F(OpenCl, WeightsOfTheDeviceGoWithTheirLastExecutable) {
  const ScopedEnv memory("HETERO_OPENCL_MEMORY", "copy");
  const auto processor = open();
  ASSERT_NE(processor, nullptr);
  const Bytes before = processor->device_bytes();
  {
    Product product(*processor);
    const Bytes weights = Product::kN * Product::kK * 4;
    const Bytes buffers = product.x.size() + product.y.size();
    EXPECT_EQ(processor->device_bytes(), before + weights + buffers);
    const auto second = processor->compile(product.graph, {0, 3, 9}, 1);
    ASSERT_TRUE(second.ok());
    EXPECT_EQ(processor->device_bytes(), before + weights + buffers);  // one copy for both
  }
  EXPECT_EQ(processor->device_bytes(), before);
}

TEST_F(OpenClStandIn, StaysOnItsCpus) {
  const auto processor = open_on_one_cpu();
  ASSERT_NE(processor, nullptr);
  const Product product(*processor);
  ASSERT_TRUE(product.submit(*processor, Product::kTokens).value().wait().ok());
  EXPECT_EQ(product.at(0), 16.0f);
  for (const int thread : process_threads()) {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (thread == getpid() || sched_getaffinity(thread, sizeof(set), &set) != 0) {
      continue;
    }
    EXPECT_EQ(CPU_COUNT(&set), 1) << "thread " << thread;
    EXPECT_TRUE(CPU_ISSET(static_cast<size_t>(available_cpus().back()), &set)) << "thread " << thread;
  }
}

}  // namespace
}  // namespace hetero
