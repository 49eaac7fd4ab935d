#include "opencl/opencl.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/threads.h"
#include "opencl/device.h"
#include "opencl/kernel_tuner.h"
#include "opencl/opencl_processor.h"
#include "processor/conformance.h"

namespace hetero {
namespace {

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

/// RmsNorm of x + r, gate and up of that, and s = silu(gate) * up, for one row and by three submissions;
/// s, and x + r behind it. `wait_after`: bit i to wait after submission i.
std::vector<float> normed_product(Processor& processor, int wait_after, bool in_place = false) {
  constexpr int64_t kN = 40;
  constexpr int64_t kK = 512;
  std::vector<std::byte> blocks(static_cast<size_t>(2 * kN * row_bytes(DType::kQ4_0, kK)));
  for (size_t i = 0; i < blocks.size(); ++i) {
    const size_t at = i % 18;  // a scale of 2^-7, then numbers
    blocks[i] = static_cast<std::byte>(at == 0 ? 0 : at == 1 ? 0x20 : i * 37 % 251);
  }
  std::vector<float> norm(kK);
  for (size_t i = 0; i < norm.size(); ++i) {
    norm[i] = 0.5f + static_cast<float>(i % 7) * 0.25f;
  }
  Graph graph;
  for (const int64_t half : {0, 1}) {
    graph.weights.push_back({half == 0 ? "gate" : "up", DType::kQ4_0, kN, kK,
                             blocks.data() + half * kN * row_bytes(DType::kQ4_0, kK)});
  }
  graph.weights.push_back({"norm", DType::kF32, 1, kK, reinterpret_cast<const std::byte*>(norm.data())});
  const auto value = [](const char* name, int64_t cols) {
    return Value{name, Rows::kTokens, cols, DType::kF32};
  };
  graph.values = {value("x", kK),   value("r", kK),           value("h", kK),
                  value("sum", kK), value("gate_up", 2 * kN), value("s", kN)};
  graph.ops.resize(3);
  graph.ops[0] = {"norm", 0, RmsNorm{1e-5f}, {0, 1}, {2, 3}, {2}, {}};
  graph.ops[1] = {"gate_up", 0, Linear{}, {2}, {4}, {0, 1}, {}};
  graph.ops[2] = {"gated", 0, Gated{Activation::kSilu}, {4}, {5}, {}, {}};
  graph.head_begin = 3;
  constexpr Bytes kPlace = 4096;
  PageMemory memory = PageMemory::allocate(6 * kPlace).value();
  const auto at = [&](int id) { return reinterpret_cast<float*>(memory.data() + id * kPlace); };
  for (int64_t i = 0; i < kK; ++i) {
    at(0)[i] = static_cast<float>(i % 13) * 0.1f - 0.5f;
    at(1)[i] = static_cast<float>(i % 29) * 0.05f - 0.5f;
  }
  std::vector<std::unique_ptr<Buffer>> buffers;
  std::vector<Binding> b;
  for (int id = 0; id < 6; ++id) {
    buffers.push_back(processor.import(memory.data() + id * kPlace, kPlace).value());
    b.push_back({buffers.back().get(), 0, graph.value(id).cols});
  }
  if (in_place) {  // as memory may be shared between values that never live together
    b[5].buffer = b[0].buffer;
  }
  std::vector<std::unique_ptr<Executable>> executables;
  Fence last;
  for (int op = 0; op < 3; ++op) {
    executables.push_back(processor.compile(graph, {op, 0, graph.output_cols(op)}, 1).value());
    std::vector<Binding> in, out;
    for (const ValueId id : graph.op(op).inputs) {
      in.push_back(b[static_cast<size_t>(id)]);
    }
    for (const ValueId id : graph.op(op).outputs) {
      out.push_back(b[static_cast<size_t>(id)]);
    }
    last = processor.submit(*executables.back(), {1, 0, in, out}).value();
    if ((wait_after >> op & 1) != 0) {
      EXPECT_TRUE(last.wait().ok());
    }
  }
  processor.flush();
  EXPECT_TRUE(last.wait().ok());
  const int place = in_place ? 0 : 5;
  for (const int id : {place, 3}) {
    EXPECT_TRUE(
        processor.download(*buffers[static_cast<size_t>(id)], {0, kPlace, kPlace, 1}).value().wait().ok());
  }
  std::vector<float> result(at(place), at(place) + kN);
  result.insert(result.end(), at(3), at(3) + kK);
  return result;
}

TEST_F(OpenCl, NormProductAndGatedAreOneKernelWhereNobodyWaitsBetween) {
  const ScopedEnv kernels("HETERO_OPENCL_KERNELS", "gpu");
  const ScopedEnv memory("HETERO_OPENCL_MEMORY", "copy");
  const ScopedEnv intervals("HETERO_OPENCL_INTERVALS", "batch");
  const auto processor = open();
  ASSERT_NE(processor, nullptr);
  EXPECT_EQ(processor->traits().joined, 2);
  const std::vector<float> apart = normed_product(*processor, 7);
  EXPECT_EQ(processor->enqueued(), 3);
  float largest = 0.0f;
  for (const float v : apart) {
    largest = std::max(largest, std::abs(v));
  }
  EXPECT_GT(largest, 0.0f);
  struct Case {
    int wait_after;
    bool in_place;
    int kernels;
  };
  // Norm and product; product and gated; all; a result where others still read.
  for (const Case c : {Case{0, false, 1}, Case{1, false, 2}, Case{2, false, 2}, Case{0, true, 2}}) {
    const int64_t before = processor->enqueued();
    const std::vector<float> together = normed_product(*processor, c.wait_after, c.in_place);
    EXPECT_EQ(processor->enqueued() - before, c.kernels) << c.wait_after;
    for (size_t i = 0; i < apart.size(); ++i) {
      EXPECT_NEAR(apart[i], together[i], 1e-5f * largest) << i << " " << c.wait_after;
    }
  }
}

/// A few layers of a Llama as LayerRunner takes them, with weights of Q4_0 and caches in F16, and a last
/// norm.
struct SmallLlama {
  static constexpr int64_t kWidth = 256, kFfn = 512, kHeadDim = 64, kContext = 1024;
  static constexpr int kHeads = 4, kKvHeads = 2;
  static constexpr Bytes kPlace = 8192;
  Graph graph;
  std::vector<std::vector<std::byte>> blocks;
  std::vector<float> norm = std::vector<float>(kWidth);
  std::vector<std::unique_ptr<Executable>> executables;
  std::vector<std::unique_ptr<Buffer>> buffers;
  PageMemory memory;
  std::vector<Bytes> places;
  ValueId x = 0, last = 0;
  std::vector<ValueId> caches;

  ValueId value(const std::string& name, int64_t cols, Rows rows = Rows::kTokens, DType dtype = DType::kF32) {
    graph.values.push_back({name, rows, cols, dtype});
    return static_cast<ValueId>(graph.values.size()) - 1;
  }
  WeightId weight(int64_t rows, int64_t cols) {
    blocks.emplace_back(static_cast<size_t>(rows * row_bytes(DType::kQ4_0, cols)));
    std::minstd_rand random(static_cast<unsigned>(blocks.size()));
    for (size_t i = 0; i < blocks.back().size(); ++i) {
      const size_t at = i % 18;  // a scale of 2^-6 or -2^-6, then numbers
      const auto r = static_cast<unsigned>(random() >> 8);
      blocks.back()[i] = static_cast<std::byte>(at == 0 ? 0 : at == 1 ? 0x24 | (r & 0x80) : r & 0xff);
    }
    graph.weights.push_back(
        {"w" + std::to_string(blocks.size()), DType::kQ4_0, rows, cols, blocks.back().data()});
    return static_cast<WeightId>(graph.weights.size()) - 1;
  }
  void add(const std::string& name, OpParams params, std::vector<ValueId> in, std::vector<ValueId> out,
           std::vector<WeightId> weights = {}) {
    graph.ops.push_back({name, 0, std::move(params), std::move(in), std::move(out), std::move(weights), {}});
  }

  SmallLlama(Processor& processor, int layers, RopePairs pairs) {
    for (size_t i = 0; i < norm.size(); ++i) {
      norm[i] = 0.5f + static_cast<float>(i % 7) * 0.25f;
    }
    blocks.reserve(64);
    graph.weights.push_back(
        {"norm", DType::kF32, 1, kWidth, reinterpret_cast<const std::byte*>(norm.data())});
    RopeTable angles;
    for (int64_t i = 0; i < kHeadDim / 2; ++i) {
      angles.inv_freq.push_back(std::pow(10000.0, -2.0 * static_cast<double>(i) / kHeadDim));
    }
    x = value("x", kWidth);
    const ValueId table = value("table", kHeadDim);
    add("table", angles, {}, {table});
    ValueId sum = x, y = -1;
    for (int l = 0; l <= layers; ++l) {
      const bool residual = y >= 0;
      const ValueId h = value("h", kWidth);
      const ValueId s = residual ? value("s", kWidth) : sum;
      add("norm", RmsNorm{1e-5f}, residual ? std::vector<ValueId>{sum, y} : std::vector<ValueId>{sum},
          residual ? std::vector<ValueId>{h, s} : std::vector<ValueId>{h}, {0});
      if (l == layers) {
        last = h;
        break;
      }
      const int64_t kv = kKvHeads * kHeadDim, q = kHeads * kHeadDim;
      const ValueId qkv = value("qkv", q + 2 * kv), queries = value("q", q), a = value("a", q),
                    o = value("o", kWidth);
      caches.push_back(value("k", kv, Rows::kContext, DType::kF16));
      caches.push_back(value("v", kv, Rows::kContext, DType::kF16));
      const ValueId k = caches[caches.size() - 2], v = caches.back();
      const ValueId h2 = value("h2", kWidth), s2 = value("s2", kWidth), both = value("both", 2 * kFfn);
      const ValueId gated = value("gated", kFfn), down = value("down", kWidth);
      add("qkv", Linear{}, {h}, {qkv}, {weight(q + 2 * kv, kWidth)});
      add("rope", Rope{kHeads, kKvHeads, kHeadDim, kHeadDim, pairs, 0.0f}, {qkv, table}, {queries, k, v});
      add("attention", Attention{kHeads, kKvHeads, kHeadDim, 0.125f, 0.0f, 0}, {queries, k, v}, {a});
      add("o", Linear{}, {a}, {o}, {weight(kWidth, q)});
      add("norm2", RmsNorm{1e-5f}, {s, o}, {h2, s2}, {0});
      add("gate_up", Linear{}, {h2}, {both}, {weight(2 * kFfn, kWidth)});
      add("gated", Gated{Activation::kSilu}, {both}, {gated});
      add("down", Linear{}, {gated}, {down}, {weight(kWidth, kFfn)});
      sum = s2, y = down;
    }
    graph.logits = last;
    graph.head_begin = static_cast<int>(graph.ops.size());
    Bytes size = 0;
    for (const Value& v : graph.values) {
      places.push_back(size);
      size += v.rows == Rows::kContext ? kContext * v.cols * 2 : kPlace;
    }
    memory = PageMemory::allocate(size).value();
    for (size_t i = 0; i < places.size(); ++i) {
      const Bytes end = i + 1 < places.size() ? places[i + 1] : size;
      buffers.push_back(processor.import(memory.data() + places[i], end - places[i]).value());
    }
    for (int op = 0; op < static_cast<int>(graph.ops.size()); ++op) {
      executables.push_back(processor.compile(graph, {op, 0, graph.output_cols(op)}, 1).value());
    }
    for (const ValueId id : caches) {
      auto* halves = reinterpret_cast<uint16_t*>(memory.data() + places[static_cast<size_t>(id)]);
      std::minstd_rand random(static_cast<unsigned>(id));
      for (int64_t i = 0; i < kContext * kKvHeads * kHeadDim; ++i) {
        const auto r = static_cast<unsigned>(random() >> 8);
        halves[i] = static_cast<uint16_t>(0x3000u + (r & 0x87ffu));  // 0.125 to 0.5, of both signs
      }
      EXPECT_TRUE(processor.traits().coherent || move(processor, id, true));
    }
  }
  bool move(Processor& processor, ValueId id, bool up) {
    Buffer& buffer = *buffers[static_cast<size_t>(id)];
    const Value& v = graph.value(id);
    const Bytes bytes = v.rows == Rows::kContext ? kContext * v.cols * 2 : v.cols * 4;
    const Region all{0, bytes, bytes, 1};
    return (up ? processor.upload(buffer, all) : processor.download(buffer, all)).value().wait().ok();
  }
  /// The last norm of a token there. wait_after: the operator behind which to wait; -1: none.
  std::vector<float> token(Processor& processor, int64_t position, int wait_after = -1) {
    auto* in = reinterpret_cast<float*>(memory.data() + places[static_cast<size_t>(x)]);
    for (int64_t i = 0; i < kWidth; ++i) {
      in[i] = static_cast<float>((i * 31 + position) % 17) * 0.1f - 0.8f;
    }
    EXPECT_TRUE(processor.traits().coherent || move(processor, x, true));
    Fence fence;
    for (size_t op = 0; op < graph.ops.size(); ++op) {
      std::vector<Binding> in_b, out_b;
      for (const ValueId id : graph.ops[op].inputs) {
        in_b.push_back({buffers[static_cast<size_t>(id)].get(), 0, graph.value(id).cols});
      }
      for (const ValueId id : graph.ops[op].outputs) {
        out_b.push_back({buffers[static_cast<size_t>(id)].get(), 0, graph.value(id).cols});
      }
      fence = processor.submit(*executables[op], {1, position, in_b, out_b}).value();
      if (static_cast<int>(op) == wait_after) {
        EXPECT_TRUE(fence.wait().ok());
      }
    }
    processor.flush();
    EXPECT_TRUE(fence.wait().ok());
    EXPECT_TRUE(processor.traits().coherent || move(processor, last, false));
    const auto* out = reinterpret_cast<const float*>(memory.data() + places[static_cast<size_t>(last)]);
    return {out, out + kWidth};
  }
};

/// Two ways to round: in places caches differ by a unit of F16.
void expect_same_token(const std::vector<float>& expected, const std::vector<float>& found,
                       int64_t position) {
  float largest = 0.0f;
  for (const float v : expected) {
    largest = std::max(largest, std::abs(v));
  }
  EXPECT_GT(largest, 0.1f);
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_NEAR(expected[i], found[i], 2e-3f * largest) << position << " " << i;
  }
}

TEST_F(OpenCl, LayersAreOneKernelAndComputeTheSame) {
  const ScopedEnv kernels("HETERO_OPENCL_KERNELS", "gpu");
  const ScopedEnv memory("HETERO_OPENCL_MEMORY", "copy");
  const ScopedEnv intervals("HETERO_OPENCL_INTERVALS", "batch");
  const auto open_with = [&](const char* join) {
    const ScopedEnv env("HETERO_OPENCL_JOIN", join);
    return open();
  };
  const auto apart = open_with("none");
  const auto together = open_with("layers");
  ASSERT_TRUE(apart != nullptr && together != nullptr);
  constexpr int kLayers = 6;  // more than one kernel takes
  for (const RopePairs pairs : {RopePairs::kAdjacent, RopePairs::kHalves}) {
    SmallLlama expected(*apart, kLayers, pairs);
    SmallLlama found(*together, kLayers, pairs);
    struct Case {
      int64_t position;
      int wait_after;
      int layers;  // run as parts of a kernel of layers
    };
    // The first token; with a few keys; with more than a part's; in parts; with a wait within a layer,
    // behind a layer, and behind the first operator.
    for (const Case c : {Case{0, -1, 6}, Case{5, -1, 6}, Case{200, -1, 6}, Case{1000, -1, 6},
                         Case{1001, 22, 5}, Case{1002, 18, 6}, Case{1003, 1, 5}}) {
      if (pairs == RopePairs::kHalves && c.position > 5) {
        break;
      }
      const int64_t before = together->layers_run();
      const std::vector<float> a = expected.token(*apart, c.position, c.wait_after);
      const std::vector<float> b = found.token(*together, c.position, c.wait_after);
      EXPECT_EQ(together->layers_run() - before, c.layers) << c.position;
      ASSERT_NO_FATAL_FAILURE(expect_same_token(a, b, c.position));
    }
  }
  EXPECT_EQ(apart->layers_run(), 0);
}

TEST_F(OpenCl, StepsOfOneKernelConform) {
  if (!found_[0].info.stand_in) {
    GTEST_SKIP() << found_[0].info.name << " is no device of type CPU";
  }
  const ScopedEnv join("HETERO_OPENCL_JOIN", "steps");  // also of operators that are submitted alone
  for (const char* only : {"linear Q4_1[37", "expert products Q4_0", "expert_sum", "route", "rms_norm",
                           "hd=64", "gated", "soft_cap", "rope_table", "embed F32"}) {
    expect_conformance(only);
  }
}

TEST_F(OpenCl, OperatorsOfATokenAreStepsOfFewKernels) {
  if (!found_[0].info.stand_in) {
    GTEST_SKIP() << found_[0].info.name << " is no device of type CPU";
  }
  OpenOptions options;
  options.threads = 1;
  options.cpus = {available_cpus().back()};
  options.cache_dir = dir_.string();
  const auto open_with = [&](const char* join) {
    const ScopedEnv env("HETERO_OPENCL_JOIN", join);
    return open(options);
  };
  const auto apart = open_with("none");
  const auto together = open_with("");
  ASSERT_TRUE(apart != nullptr && together != nullptr);
  constexpr int kLayers = 6;
  SmallLlama expected(*apart, kLayers, RopePairs::kHalves);
  SmallLlama found(*together, kLayers, RopePairs::kHalves);
  const auto ops = static_cast<int64_t>(found.graph.ops.size());
  ASSERT_EQ(ops, 2 + 9 * kLayers);
  struct Case {
    int64_t position;
    int wait_after;
    int steps;
    int kernels;
  };
  // A full kernel and the rest; with a wait between; with one operator alone, which is no step.
  const int all = static_cast<int>(ops);
  for (const Case c :
       {Case{0, -1, all, 2}, Case{1, -1, all, 2}, Case{700, 20, all, 2}, Case{701, 0, all - 1, 3}}) {
    const int64_t steps = together->steps_run();
    const int64_t kernels = together->enqueued();
    const std::vector<float> a = expected.token(*apart, c.position, c.wait_after);
    const std::vector<float> b = found.token(*together, c.position, c.wait_after);
    EXPECT_EQ(together->steps_run() - steps, c.steps) << c.position;
    EXPECT_EQ(together->enqueued() - kernels, c.kernels) << c.position;
    ASSERT_NO_FATAL_FAILURE(expect_same_token(a, b, c.position));
  }
  EXPECT_EQ(apart->steps_run(), 0);
}

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

TEST_F(OpenCl, StandInStaysOnItsCpus) {
  if (!found_[0].info.stand_in) {
    GTEST_SKIP() << found_[0].info.name << " is no stand-in";
  }
  OpenOptions options;
  options.threads = 1;
  options.cpus = {available_cpus().back()};
  const auto processor = open(options);
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
    EXPECT_TRUE(CPU_ISSET(static_cast<size_t>(options.cpus[0]), &set)) << "thread " << thread;
  }
}

}  // namespace
}  // namespace hetero
