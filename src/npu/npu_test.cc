#include "npu/npu.h"

#include <dirent.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <future>
#include <random>
#include <set>

#include "base/threads.h"
#include "gguf/dequantize.h"
#include "gguf/quantize.h"
#include "npu/blob_cache.h"
#include "npu/npu_processor.h"
#include "npu/provider.h"
#include "npu/repack.h"
#include "processor/conformance.h"
#include "processor/random_blocks.h"

namespace hetero {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A device whose graphs write the number of the run into y, and that fails on request.

struct Script {
  int compiled = 0;
  int alive = 0;  // graphs
  int runs = 0;
  int fail_run = -1;
  bool fail_compile = false;
  bool any_tokens = false;
  std::vector<int64_t> prepared;  // numbers of tokens, in order
  std::shared_future<void> gate;  // runs wait for it
};

class ScriptedGraph : public NpuGraph {
 public:
  explicit ScriptedGraph(Script& script) : script_(script) { ++script_.alive; }
  ~ScriptedGraph() override { --script_.alive; }
  Status run(const NpuRun& run) override {
    if (script_.gate.valid()) {
      script_.gate.wait();
    }
    if (script_.runs == script_.fail_run) {
      return device_lost("the device hung");
    }
    *run.y = static_cast<float>(script_.runs++);
    return {};
  }
  Status prepare(int64_t tokens) override {
    script_.prepared.push_back(tokens);
    return {};
  }

 private:
  Script& script_;
};

class ScriptedDevice : public NpuDevice {
 public:
  explicit ScriptedDevice(Script& script) : script_(script) {}
  bool supports(DType dtype) const override { return dtype == DType::kF32; }
  bool any_tokens() const override { return script_.any_tokens; }
  bool is_cached(const NpuLinear&) override { return false; }
  Result<std::unique_ptr<NpuGraph>> compile(const NpuLinear&) override {
    if (script_.fail_compile) {
      return device_lost("compiler broke");
    }
    ++script_.compiled;
    return std::unique_ptr<NpuGraph>(std::make_unique<ScriptedGraph>(script_));
  }
  Bytes bytes() const override { return 0; }

 private:
  Script& script_;
};

/// Layers of linear operators x [T,k] -> y [T,n], and a norm as the last operator.
struct Layers {
  Graph graph;
  std::vector<std::vector<std::byte>> data;

  Layers(int count, int64_t n, int64_t k, DType dtype = DType::kF32) {
    graph.values = {{"x", Rows::kTokens, k, DType::kF32}, {"y", Rows::kTokens, n, DType::kF32}};
    for (int i = 0; i < count; ++i) {
      std::vector<float> source(static_cast<size_t>(n * k));
      for (size_t j = 0; j < source.size(); ++j) {
        source[j] = static_cast<float>((j * 37 + static_cast<size_t>(i) * 11) % 101) / 50.0f - 1.0f;
      }
      data.emplace_back(static_cast<size_t>(n * row_bytes(dtype, k)));
      EXPECT_TRUE(quantize(dtype, source.data(), n * k, data.back().data()).ok());
      graph.weights.push_back({"blk." + std::to_string(i) + ".w", dtype, n, k, data.back().data()});
      Op op;
      op.name = "blk." + std::to_string(i);
      op.params = Linear{};
      op.inputs = {0};
      op.outputs = {1};
      op.weights = {i};
      graph.ops.push_back(op);
    }
    Op norm;
    norm.name = "norm";
    norm.params = RmsNorm{};
    norm.inputs = {0};
    norm.outputs = {0};
    graph.ops.push_back(norm);
    graph.head_begin = count + 1;
  }
};

/// A processor with one row of x and room for many rows of y.
class Harness {
 public:
  Harness(std::unique_ptr<Processor> processor, int64_t k, int64_t n)
      : processor_(std::move(processor)), k_(k), n_(n) {
    memory_ = std::move(PageMemory::allocate(Bytes{1} << 20)).value();
    buffer_ = std::move(processor_->import(memory_.data(), memory_.size())).value();
  }

  Processor& operator*() { return *processor_; }
  Processor* operator->() { return processor_.get(); }
  float* x() { return reinterpret_cast<float*>(memory_.data()); }
  float* y(int64_t row) { return x() + k_ + row * n_; }

  Result<Fence> submit(const Executable& executable, int64_t row, int64_t tokens = 1) {
    const Binding in{buffer_.get(), 0, k_};
    const Binding out{buffer_.get(), k_ + row * n_, n_};
    return processor_->submit(executable, {tokens, 0, {&in, 1}, {&out, 1}});
  }

 private:
  PageMemory memory_;
  std::unique_ptr<Processor> processor_;
  std::unique_ptr<Buffer> buffer_;
  int64_t k_;
  int64_t n_;
};

Harness scripted(Script& script, int64_t k, int64_t n) {
  ProcessorInfo info;
  info.id = "npu0";
  info.provider = "scripted";
  return {std::make_unique<NpuProcessor>(info, 0x1p-11, std::make_unique<ScriptedDevice>(script),
                                         std::vector<int>()),
          k, n};
}

TEST(NpuProcessorTest, LengthsShareOneGraphWhereTheDeviceCan) {
  for (const bool any_tokens : {false, true}) {
    Script script;
    script.any_tokens = any_tokens;
    const Layers layers(2, 8, 4);
    Harness npu = scripted(script, 4, 8);
    std::vector<std::unique_ptr<Executable>> kept;
    for (const int64_t tokens : {1, 16, 17}) {
      kept.push_back(std::move(npu->compile(layers.graph, {0, 0, 8}, tokens)).value());
      kept.push_back(std::move(npu->compile(layers.graph, {0, 0, 8}, tokens)).value());
    }
    EXPECT_EQ(script.compiled, any_tokens ? 1 : 3);
    // Each length is made ready, so that no pass pays for it.
    EXPECT_EQ(std::set<int64_t>(script.prepared.begin(), script.prepared.end()),
              (std::set<int64_t>{1, 16, 17}));
    kept.push_back(std::move(npu->compile(layers.graph, {1, 0, 8}, 1)).value());  // other weights
    kept.push_back(std::move(npu->compile(layers.graph, {0, 2, 8}, 1)).value());
    kept.push_back(std::move(npu->compile(layers.graph, {0, 0, 8, true}, 1)).value());  // the other order
    EXPECT_EQ(script.alive, any_tokens ? 4 : 6);
    // Lengths stay exact: what runs here has to run on devices that know no other.
    EXPECT_FALSE(npu.submit(*kept[0], 0, 2).ok());
    kept.clear();
    EXPECT_EQ(script.alive, 0) << "graphs that nobody uses keep their memory";
  }
}

TEST(NpuProcessorTest, WorkRunsInOrderOfSubmissionAndSubmitDoesNotWait) {
  Script script;
  std::promise<void> open;
  script.gate = open.get_future();
  const Layers layers(2, 1, 4);
  Harness npu = scripted(script, 4, 1);
  const auto a = std::move(npu->compile(layers.graph, {0, 0, 1}, 1)).value();
  const auto b = std::move(npu->compile(layers.graph, {1, 0, 1}, 1)).value();
  std::vector<Fence> fences;
  for (int64_t i = 0; i < 1000; ++i) {  // also the same executable again before it has run
    fences.push_back(std::move(npu.submit(i % 3 == 0 ? *a : *b, i)).value());
  }
  EXPECT_FALSE(fences.front().done());
  open.set_value();
  ASSERT_TRUE(fences.back().wait().ok());
  Nanos previous{};
  for (int64_t i = 0; i < 1000; ++i) {
    const Fence& fence = fences[static_cast<size_t>(i)];
    EXPECT_TRUE(fence.done());
    EXPECT_EQ(*npu.y(i), static_cast<float>(i));
    const Interval interval = npu->timeline().interval(fence.ticket);
    EXPECT_LE(previous, interval.begin);
    EXPECT_LE(interval.begin, interval.end);
    previous = interval.end;
  }
}

TEST(NpuProcessorTest, WorkThatFailsLaterPoisonsAllThatFollows) {
  Script script;
  script.fail_run = 1;
  std::promise<void> open;
  script.gate = open.get_future();
  const Layers layers(3, 1, 4);
  Harness npu = scripted(script, 4, 1);
  std::vector<std::unique_ptr<Executable>> kept;
  std::vector<Fence> fences;
  for (int op = 0; op < 3; ++op) {
    kept.push_back(std::move(npu->compile(layers.graph, {op, 0, 1}, 1)).value());
    fences.push_back(std::move(npu.submit(*kept.back(), op)).value());
  }
  open.set_value();
  const Status last = fences[2].wait();
  EXPECT_TRUE(fences[0].wait().ok());
  EXPECT_EQ(last.code(), Code::kDeviceLost);
  EXPECT_EQ(last.message(), "npu0: blk.1: the device hung");
  EXPECT_EQ(fences[1].wait().message(), last.message());
  EXPECT_EQ(script.runs, 1) << "ran on what the failed work left unwritten";
  EXPECT_EQ(npu.submit(*kept[0], 0).status().message(), last.message());
}

TEST(NpuProcessorTest, AnotherNumberOfTokensIsRefusedAndPoisons) {
  Script script;
  const Layers layers(1, 1, 4);
  Harness npu = scripted(script, 4, 1);
  const auto executable = std::move(npu->compile(layers.graph, {0, 0, 1}, 2)).value();
  const Fence good = std::move(npu.submit(*executable, 0, 2)).value();
  const Status refused = npu.submit(*executable, 0, 3).status();
  EXPECT_THAT(refused.message(), HasSubstr("compiled for 2 tokens, submitted with 3"));
  EXPECT_TRUE(good.wait().ok());
  EXPECT_EQ(npu->timeline().wait(good.ticket + 1).message(), refused.message());
}

TEST(NpuProcessorTest, FailedCompilationNamesTheOperator) {
  Script script;
  const Layers layers(1, 1, 4);
  Harness npu = scripted(script, 4, 1);
  script.fail_compile = true;
  EXPECT_EQ(npu->compile(layers.graph, {0, 0, 1}, 1).status().message(), "npu0: blk.0: compiler broke");
  script.fail_compile = false;
  EXPECT_TRUE(npu->compile(layers.graph, {0, 0, 1}, 1).ok());
  EXPECT_THAT(npu->compile(layers.graph, {0, 0, 1}, 0).status().message(), HasSubstr("for 0 tokens"));
}

TEST(NpuProcessorTest, UnsupportedWorkIsNamed) {
  Script script;
  const Layers layers(1, 8, 32);
  Harness npu = scripted(script, 32, 8);
  EXPECT_TRUE(npu->supports(layers.graph, {0, 0, 8}).ok());
  EXPECT_THAT(npu->supports(layers.graph, {1, 0, 32}).message(), HasSubstr("norm is rms_norm"));
  EXPECT_THAT(npu->supports(layers.graph, {0, 4, 9}).message(), HasSubstr("columns 0..8, asked for 4..9"));
  const Layers quantized(1, 8, 32, DType::kQ8_0);
  EXPECT_THAT(npu->supports(quantized.graph, {0, 0, 8}).message(), HasSubstr("weight blk.0.w is Q8_0"));
}

TEST(RepackTest, ElementsAreWhatDequantizingGives) {
  std::mt19937 random(11);
  for (const DType dtype :
       {DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1, DType::kQ8_0, DType::kQ2_K, DType::kQ3_K,
        DType::kQ4_K, DType::kQ5_K, DType::kQ6_K, DType::kIQ4_NL, DType::kIQ4_XS, DType::kMXFP4}) {
    constexpr int64_t kCount = 256 * 50;
    std::vector<std::byte> blocks(static_cast<size_t>(row_bytes(dtype, kCount)));
    random_blocks(dtype, kCount, random, blocks.data());
    std::vector<float> expected(kCount);
    dequantize(dtype, blocks.data(), kCount, expected.data());

    const PackedForm form = packed_form(dtype);
    std::vector<std::byte> numbers(static_cast<size_t>(kCount * form.bits / 8));
    std::vector<float> scales(static_cast<size_t>(kCount / form.group));
    std::vector<float> offsets(form.offsets ? scales.size() : 0);
    repack(dtype, blocks.data(), kCount, numbers.data(), scales.data(), offsets.data());
    for (size_t i = 0; i < expected.size(); ++i) {
      int number = static_cast<int8_t>(numbers[form.bits == 8 ? i : i / 2]);
      if (form.bits == 4) {
        number = i % 2 == 0 ? number & 15 : number >> 4 & 15;
        number = form.is_signed && number >= 8 ? number - 16 : number;
      }
      const size_t group = i / static_cast<size_t>(form.group);
      const float product = scales[group] * static_cast<float>(number);
      ASSERT_EQ(form.offsets ? product + offsets[group] : product, expected[i])
          << traits(dtype).name << " element " << i;
    }
  }
}

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "npu_test.XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  const std::string& path() const { return path_; }
  std::vector<std::filesystem::path> files() const {
    std::vector<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::directory_iterator(path_)) {
      files.push_back(entry.path());
    }
    return files;
  }

 private:
  std::string path_;
};

TEST(BlobCacheTest, DamagedAndForeignFilesAreNotThere) {
  const TemporaryFolder folder;
  const BlobCache cache(folder.path() + "/made/when/needed");
  const std::string blob("a\nb\0c\n", 6);
  EXPECT_EQ(cache.load("key"), std::nullopt);
  cache.store("key", blob);
  EXPECT_EQ(cache.load("key"), blob);
  EXPECT_EQ(cache.load("other"), std::nullopt);

  std::ifstream in(cache.path("key"), std::ios::binary);
  const std::string whole{std::istreambuf_iterator<char>(in), {}};
  for (size_t i = 0; i < whole.size(); ++i) {
    std::string damaged = whole;
    damaged[i] = static_cast<char>(damaged[i] ^ 4);
    std::ofstream(cache.path("key"), std::ios::binary) << damaged;
    EXPECT_EQ(cache.load("key"), std::nullopt) << "byte " << i;
    std::ofstream(cache.path("key"), std::ios::binary) << whole.substr(0, i);
    EXPECT_EQ(cache.load("key"), std::nullopt) << "cut to " << i;
  }
  std::filesystem::rename(cache.path("key"), cache.path("other"));
  EXPECT_EQ(cache.load("other"), std::nullopt) << "a collision of hashes";
}

TEST(BlobCacheTest, FolderThatCannotBeWrittenIsNoCache) {
  const TemporaryFolder folder;
  std::ofstream(folder.path() + "/file") << "not a folder";
  const BlobCache cache(folder.path() + "/file");
  cache.store("key", "blob");
  EXPECT_EQ(cache.load("key"), std::nullopt);
  const BlobCache none("");
  none.store("key", "blob");
  EXPECT_EQ(none.load("key"), std::nullopt);
}

// OpenVINO on the CPU, where it is installed.

class StandInTest : public ::testing::Test {
 protected:
  void SetUp() override {
    provider_ = load_npu_provider("libhetero_openvino.so");
    if (provider_ == nullptr) {
      GTEST_SKIP() << "built or running without OpenVINO";
    }
  }

  std::unique_ptr<NpuDevice> open_device(const NpuOptions& options) {
    for (const NpuDeviceInfo& info : provider_->devices()) {
      if (info.stand_in) {
        return std::move(provider_->open(info, options)).value();
      }
    }
    return nullptr;
  }
  std::unique_ptr<Processor> open(const NpuOptions& options, std::vector<int> cpus = {}) {
    ProcessorInfo info;
    info.id = "npu0";
    const ScopedAffinity confinement(cpus);
    return std::make_unique<NpuProcessor>(info, 0x1p-24, open_device(options), std::move(cpus));
  }

  NpuProvider* provider_ = nullptr;
};

/// The threads of this process, and the CPUs that each may run on.
std::map<int, std::string> threads() {
  std::map<int, std::string> threads;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream status(task.path() / "status");
    for (std::string line; std::getline(status, line);) {
      if (line.starts_with("Cpus_allowed_list:")) {
        threads[std::stoi(task.path().filename())] = line.substr(line.find_last_of(" \t") + 1);
      }
    }
  }
  return threads;
}

// First of the tests on OpenVINO: the CPUs of its threads are settled when its plugin is loaded.
TEST_F(StandInTest, WorkStaysOnTheGivenCpus) {
  const std::vector<int> all = available_cpus();
  if (all.size() < 2) {
    GTEST_SKIP() << "needs two CPUs";
  }
  // Another thread that is not confined, as the engine has them.
  std::promise<void> end;
  std::thread bystander([wait = end.get_future()] { wait.wait(); });
  const std::map<int, std::string> before = threads();
  NpuOptions options;
  options.threads = 2;
  const Layers layers(1, 512, 1024, DType::kQ4_0);
  Harness npu(open(options, {all.back()}), 1024, 512);
  const auto executable = std::move(npu->compile(layers.graph, {0, 0, 512}, 1)).value();
  std::set<std::string> seen;
  for (int i = 0; i < 50; ++i) {
    const Fence fence = std::move(npu.submit(*executable, 0)).value();
    while (!fence.done()) {
      for (const auto& [id, cpus] : threads()) {
        if (!before.contains(id)) {
          seen.insert(cpus);
        }
      }
    }
    ASSERT_TRUE(fence.wait().ok());
  }
  end.set_value();
  bystander.join();
  EXPECT_THAT(seen, ElementsAre(std::to_string(all.back())));
  EXPECT_EQ(available_cpus(), all) << "the calling thread stayed confined";
}

TEST_F(StandInTest, FindNpuOpensIt) {
  const std::vector<FoundProcessor> found = find_npu();
  ASSERT_FALSE(found.empty());
  const FoundProcessor& f = found.back();
  EXPECT_TRUE(f.info.stand_in);
  EXPECT_EQ(f.info.kind, "npu");
  EXPECT_EQ(f.info.provider, "openvino");
  EXPECT_THAT(f.info.driver, HasSubstr("OpenVINO 2"));
  EXPECT_GT(f.info.memory_bytes, 0);
  ProcessorInfo info = f.info;
  info.id = "npu7";
  const auto opened = f.open(info, {});
  ASSERT_TRUE(opened.ok()) << opened.status().message();
  EXPECT_TRUE((*opened)->traits().static_shapes);
  EXPECT_EQ((*opened)->info().id, "npu7");
}

TEST_F(StandInTest, ComputesWhatTheReferenceDoes) {
  const auto run = [&](bool static_shapes, const std::string& only) {
    NpuOptions options;
    options.static_shapes = static_shapes;
    const auto npu = open(options);
    ConformanceOptions quick;
    quick.only = only;
    quick.quick = true;
    const ConformanceReport report = run_conformance(*npu, quick);
    EXPECT_THAT(report.failures, ElementsAre()) << (static_shapes ? "static" : "any tokens");
    EXPECT_THAT(report.skipped, ElementsAre());  // of linear operators
    return report.passed;
  };
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // compiling takes minutes there
  EXPECT_GT(run(false, "linear"), 50);
#endif
  EXPECT_GT(run(false, "stacked, "), 10);
  EXPECT_GT(run(true, "stacked, "), 10);
  EXPECT_GT(run(true, "mixed"), 2);
}

TEST_F(StandInTest, LengthsShareTheWeightsAndGoWithTheLast) {
  const Layers layers(1, 512, 1024, DType::kQ4_0);
  const Bytes numbers = 512 * 1024 / 2;
  const Bytes scales = 512 * 1024 / 32 * 4;
  for (const bool static_shapes : {false, true}) {
    NpuOptions options;
    options.static_shapes = static_shapes;
    Harness npu(open(options), 1024, 512);
    std::vector<std::unique_ptr<Executable>> kept;
    for (const int64_t tokens : {1, 32, 64}) {
      kept.push_back(std::move(npu->compile(layers.graph, {0, 0, 512}, tokens)).value());
    }
    EXPECT_EQ(npu->device_bytes(), (static_shapes ? 3 : 1) * (numbers + scales));
    kept.clear();
    EXPECT_EQ(npu->device_bytes(), 0);
  }
}

TEST_F(StandInTest, SecondStartTakesGraphsFromTheCache) {
  const TemporaryFolder folder;
  NpuOptions options;
  options.cache_dir = folder.path();
  Layers layers(1, 40, 64, DType::kQ4_0);
  const auto result = [&](bool exchanged = false) {
    Harness npu(open(options), 64, 40);
    std::fill_n(npu.x(), 64, 0.5f);
    const OpSlice slice{0, 0, 40, exchanged};
    const auto executable = std::move(npu->compile(layers.graph, slice, 1)).value();

    const Fence fence = std::move(npu.submit(*executable, 0)).value();
    EXPECT_TRUE(fence.wait().ok());
    return std::vector<float>(npu.y(0), npu.y(1));
  };
  const std::vector<float> expected = result();
  ASSERT_EQ(folder.files().size(), 1u);
  const std::filesystem::path file = folder.files()[0];

  // Other weights are another graph.
  layers.data[0][100] ^= std::byte{1};
  EXPECT_NE(result(), expected);
  EXPECT_EQ(folder.files().size(), 2u);
  layers.data[0][100] ^= std::byte{1};
  for (const auto& each : folder.files()) {
    if (each != file) {
      std::filesystem::remove(each);
    }
  }

  // So is the other order of operands, and it gives the same.
  const std::vector<float> turned = result(true);
  EXPECT_EQ(folder.files().size(), 2u);
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_NEAR(turned[i], expected[i], 1e-3f) << i;
  }
  for (const auto& each : folder.files()) {
    if (each != file) {
      std::filesystem::remove(each);
    }
  }

  // Only a miss writes another file in its place, a hit marks it as used.
  const auto inode = [&] {
    struct stat s {};
    EXPECT_EQ(stat(file.c_str(), &s), 0);
    return s.st_ino;
  };
  const auto written = inode();
  const auto long_ago = std::filesystem::last_write_time(file) - std::chrono::hours(24);
  std::filesystem::last_write_time(file, long_ago);
  EXPECT_EQ(result(), expected);
  EXPECT_EQ(inode(), written);
  EXPECT_GT(std::filesystem::last_write_time(file), long_ago + std::chrono::hours(23));

  // A blob that OpenVINO refuses is compiled anew and replaced.
  std::ifstream in(file, std::ios::binary);
  std::string key;
  std::getline(in, key);
  std::getline(in, key);
  const BlobCache cache(folder.path());
  ASSERT_EQ(cache.path(key), file);
  const std::optional<std::string> good = cache.load(key);
  cache.store(key, "from another version");
  EXPECT_EQ(result(), expected);
  ASSERT_TRUE(good.has_value() && cache.load(key).has_value());
  // Not equal to the first: OpenVINO numbers a graph's nodes through the whole process.
  EXPECT_GT(2 * cache.load(key)->size(), good->size());
  EXPECT_EQ(folder.files().size(), 1u) << "temporary files stay";
  // What took the place of the refused one is used from then on.
  const auto replaced = inode();
  EXPECT_EQ(result(), expected);
  EXPECT_EQ(inode(), replaced);
}

}  // namespace
}  // namespace hetero
