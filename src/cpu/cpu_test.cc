#include "cpu/cpu.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <random>

#include "base/f16.h"
#include "base/threads.h"
#include "cpu/loops.h"
#include "ffn_graph.h"
#include "gguf/quantize.h"
#include "graph/reference.h"
#include "processor/conformance.h"

namespace hetero {
namespace {

std::unique_ptr<Processor> open_cpu(const std::string& level, int threads, std::vector<int> cpus = {},
                                    bool int8_activations = false) {
  ::setenv("HETERO_CPU", level.c_str(), 1);
  FoundProcessor found = find_cpu();
  found.info.id = "cpu";
  auto opened = found.open(
      found.info,
      {.threads = threads, .cpus = std::move(cpus), .int8_activations = int8_activations, .cache_dir = ""});
  ::unsetenv("HETERO_CPU");
  EXPECT_TRUE(opened.ok()) << opened.status().message();
  return opened.ok() ? std::move(opened).value() : nullptr;
}

// The reference is slow; sanitizers make it slower.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

class Conforms : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Cpu, Conforms, testing::Values("scalar", "avx2", "avx512"),
                         [](const auto& level) { return level.param; });

TEST_P(Conforms, WithAnyNumberOfThreads) {
  const auto levels = cpu_levels();
  if (std::find(levels.begin(), levels.end(), GetParam()) == levels.end()) {
    GTEST_SKIP() << "this machine does not run " << GetParam();
  }
  for (const int threads : {1, 3}) {
    const auto processor = open_cpu(GetParam(), threads);
    const ConformanceReport report =
        run_conformance(*processor, {.only = "", .quick = kSanitized || threads != 1});
    EXPECT_GT(report.passed, 100);
    EXPECT_TRUE(report.skipped.empty()) << report.skipped.front();
    for (const std::string& failure : report.failures) {
      ADD_FAILURE() << threads << " threads: " << failure;
    }
  }
}

/// One operator over random inputs, run on a processor.
class Scene {
 public:
  explicit Scene(Graph graph, int64_t context = 0) : graph_(std::move(graph)), context_(context) {
    std::mt19937 random(11);
    for (const Value& value : graph_.values) {
      const int64_t count = (value.rows == Rows::kContext ? context : kRows) * value.cols;
      auto memory = PageMemory::allocate(count * 4);
      EXPECT_TRUE(memory.ok());
      for (int64_t i = 0; i < count; ++i) {
        const auto x = static_cast<float>(static_cast<double>(random()) * 0x1p-31 - 1.0);
        if (value.dtype == DType::kF16) {
          reinterpret_cast<uint16_t*>(memory->data())[i] = f16_from_f32(x);
        } else {
          reinterpret_cast<float*>(memory->data())[i] = x;
        }
      }
      memory_.push_back(std::move(*memory));
    }
  }

  /// Runs the operators, submitted all at once or (`one_by_one`) each when the one before is done. Returns
  /// the last one's first output.
  Result<std::vector<float>> run(Processor& p, int64_t tokens, int64_t position = 0,
                                 bool one_by_one = false) {
    std::vector<std::unique_ptr<Buffer>> buffers;
    std::vector<std::unique_ptr<Executable>> executables;
    const auto bind = [&](const std::vector<ValueId>& values) {
      std::vector<Binding> bindings;
      for (const ValueId id : values) {
        auto& memory = memory_[static_cast<size_t>(id)];
        buffers.push_back(std::move(p.import(memory.data(), memory.size())).value());
        bindings.push_back({buffers.back().get(), 0, graph_.value(id).cols});
      }
      return bindings;
    };
    const int count = static_cast<int>(graph_.ops.size());
    for (int op = 0; op < count; ++op) {
      HETERO_TRY(auto executable, p.compile(graph_, {op, 0, graph_.output_cols(op)}, tokens));
      executables.push_back(std::move(executable));
    }
    Fence fence;
    for (int op = 0; op < count; ++op) {
      const std::vector<Binding> inputs = bind(graph_.op(op).inputs);
      const std::vector<Binding> outputs = bind(graph_.op(op).outputs);
      HETERO_TRY(fence, p.submit(*executables[static_cast<size_t>(op)], {tokens, position, inputs, outputs}));
      if (one_by_one) {
        HETERO_RETURN_IF_ERROR(fence.wait());
      }
    }
    HETERO_RETURN_IF_ERROR(fence.wait());
    const auto* out = floats(graph_.op(count - 1).outputs[0]);
    return std::vector<float>(out, out + tokens * graph_.output_cols(count - 1));
  }

  float* floats(ValueId id) { return reinterpret_cast<float*>(memory_[static_cast<size_t>(id)].data()); }
  const uint16_t* halves(ValueId id) {
    return reinterpret_cast<const uint16_t*>(memory_[static_cast<size_t>(id)].data());
  }
  const Graph& graph() const { return graph_; }
  int64_t context() const { return context_; }

  static constexpr int64_t kRows = 900;

 private:
  Graph graph_;
  int64_t context_;
  std::vector<PageMemory> memory_;
};

Graph attention_graph(int heads, int kv_heads, int head_dim) {
  Graph g;
  const int64_t q_cols = int64_t{heads} * head_dim;
  const int64_t kv_cols = int64_t{kv_heads} * head_dim;
  g.values = {{"q", Rows::kTokens, q_cols, DType::kF32},
              {"k", Rows::kContext, kv_cols, DType::kF16},
              {"v", Rows::kContext, kv_cols, DType::kF16},
              {"a", Rows::kTokens, q_cols, DType::kF32}};
  g.ops = {{"attention", 0, Attention{heads, kv_heads, head_dim, 0.2f}, {0, 1, 2}, {3}, {}, {}}};
  return g;
}

struct LinearData {
  explicit LinearData(DType dtype, int64_t n, int64_t k)
      : bytes(static_cast<size_t>(n * row_bytes(dtype, k))) {
    std::mt19937 random(5);
    std::vector<float> source(static_cast<size_t>(n * k));
    for (float& x : source) {
      x = static_cast<float>(static_cast<double>(random()) * 0x1p-31 - 1.0);
    }
    EXPECT_TRUE(quantize(dtype, source.data(), n * k, bytes.data()).ok());
    graph.values = {{"x", Rows::kTokens, k, DType::kF32}, {"y", Rows::kTokens, n, DType::kF32}};
    graph.weights = {{"w", dtype, n, k, bytes.data()}};
    graph.ops = {{"linear", 0, Linear{}, {0}, {1}, {0}, {}}};
  }
  std::vector<std::byte> bytes;
  Graph graph;
};

TEST(Loops, RangesMakeUpEachPartOnce) {
  for (const int threads : {1, 3}) {
    ThreadPool pool(threads);
    for (const int64_t count : {1, 5, 64, 1000}) {
      for (const int64_t least : {1, 4, 7}) {
        constexpr int64_t kParts = 3;
        constexpr int64_t kMost = 14;
        std::vector<std::atomic<int>> seen(static_cast<size_t>(kParts * count));
        std::atomic<int> wrong = 0;
        cpu::for_ranges(pool, kParts, count, least, kMost,
                        [&](int64_t part, int64_t begin, int64_t end, int worker) {
                          wrong += end <= begin || end - begin > kMost || worker >= threads ||
                                   (end < count && (end - begin) % least != 0);
                          for (int64_t i = begin; i < end; ++i) {
                            seen[static_cast<size_t>(part * count + i)] += 1;
                          }
                        });
        EXPECT_EQ(wrong, 0) << threads << " threads, " << count << " by " << least;
        EXPECT_TRUE(std::all_of(seen.begin(), seen.end(), [](const auto& n) { return n == 1; }))
            << threads << " threads, " << count << " by " << least;
      }
    }
  }
}

TEST(Cpu, ResultsDoNotDependOnTheNumberOfThreads) {
  const std::string level = cpu_levels().back();
  const auto one = open_cpu(level, 1);
  const auto many = open_cpu(level, 5);
  for (const int64_t n : {40, 333}) {
    const LinearData data(DType::kQ4_0, n, 544);
    Scene scene(data.graph);
    for (const int64_t m : {1, 5, 40, 400, 900}) {
      const auto expected = scene.run(*one, m);
      const auto found = scene.run(*many, m);
      ASSERT_TRUE(expected.ok() && found.ok());
      EXPECT_EQ(*expected, *found) << "n " << n << " m " << m;
    }
  }
  Scene scene(attention_graph(6, 2, 32), 2000);
  for (const auto& [m, position] : {std::pair{1, 1900}, {3, 700}, {100, 500}}) {
    const auto expected = scene.run(*one, m, position);
    const auto found = scene.run(*many, m, position);
    ASSERT_TRUE(expected.ok() && found.ok());
    EXPECT_EQ(*expected, *found) << "attention " << m << " at " << position;
  }
}

TEST(Cpu, LongContextsAndWideGroupsMatchTheReference) {
  struct Spec {
    int heads, kv_heads, head_dim;
    int64_t tokens, position;
  };
  // One token over a split cache; a group of heads that no block holds; both; many tokens.
  for (const Spec s : {Spec{4, 2, 32, 1, 1500}, Spec{71, 1, 16, 3, 20}, Spec{71, 1, 16, 2, 1100},
                       Spec{4, 4, 16, 130, 900}}) {
    Scene scene(attention_graph(s.heads, s.kv_heads, s.head_dim), s.position + s.tokens);
    Reference reference(scene.graph(), scene.context());
    const auto copy = [&](ValueId id, int64_t count) {
      auto& to = reference.value(id);
      to.resize(static_cast<size_t>(count));
      for (int64_t i = 0; i < count; ++i) {
        to[static_cast<size_t>(i)] = id == 0 ? scene.floats(0)[i] : f32_from_f16(scene.halves(id)[i]);
      }
    };
    copy(0, s.tokens * scene.graph().value(0).cols);
    copy(1, scene.context() * scene.graph().value(1).cols);
    copy(2, scene.context() * scene.graph().value(2).cols);
    reference.run(0, s.tokens, s.position);
    for (const std::string& level : cpu_levels()) {
      const auto processor = open_cpu(level, 2);
      const auto found = scene.run(*processor, s.tokens, s.position);
      ASSERT_TRUE(found.ok()) << found.status().message();
      for (size_t i = 0; i < found->size(); ++i) {
        // |v| <= 1; scores below 0.2 * head_dim; sums of weights over the whole context.
        const double tolerance =
            (2.0 * 0.2 * s.head_dim * 8 + 16.0 + 2.0 * std::sqrt(static_cast<double>(s.position) + 1.0)) *
            0x1p-24;
        ASSERT_NEAR((*found)[i], reference.value(3)[i], tolerance)
            << level << " heads " << s.heads << " m " << s.tokens << " position " << s.position << " element "
            << i;
      }
    }
  }
}

TEST(Cpu, AnIdOutsideOfTheVocabularyFailsTheTimelineInsteadOfReadingPastTheTable) {
  for (const int32_t id : {-1, 50, 2147483647}) {
    const auto processor = open_cpu("scalar", 1);
    LinearData data(DType::kF32, 50, 8);
    data.graph.values = {{"ids", Rows::kTokens, 1, DType::kI32}, {"x", Rows::kTokens, 8, DType::kF32}};
    data.graph.ops = {{"embed", -1, Embed{}, {0}, {1}, {0}, {}}};
    Scene scene(data.graph);
    std::fill_n(reinterpret_cast<int32_t*>(scene.floats(0)), 3, 7);
    ASSERT_TRUE(scene.run(*processor, 3).ok());
    reinterpret_cast<int32_t*>(scene.floats(0))[2] = id;
    const auto failed = scene.run(*processor, 3);
    ASSERT_FALSE(failed.ok());
    EXPECT_EQ(failed.status().message(),
              "cpu: embed: token id " + std::to_string(id) + " at row 2 is not one of the 50 of w");
    // The failure stays: later work gets the same error.
    EXPECT_EQ(scene.run(*processor, 1).status().message(), failed.status().message());
  }
}

TEST(Cpu, RefusesBindingsThatReachPastTheirBuffer) {
  const auto processor = open_cpu("scalar", 1);
  const LinearData data(DType::kF32, 8, 8);
  const auto executable = std::move(processor->compile(data.graph, {0, 0, 8}, 4)).value();
  auto memory = std::move(PageMemory::allocate(4096)).value();
  const auto buffer = std::move(processor->import(memory.data(), 4096)).value();
  const Binding good{buffer.get(), 0, 8};
  const Binding bad{buffer.get(), 1000, 8};
  const auto accepted = processor->submit(*executable, {4, 0, {&good, 1}, {&good, 1}});
  ASSERT_TRUE(accepted.ok());
  EXPECT_TRUE(accepted->wait().ok());
  const auto refused = processor->submit(*executable, {4, 0, {&good, 1}, {&bad, 1}});
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.status().message().find("value y [4, 8] at offset 1000"), std::string::npos)
      << refused.status().message();
  EXPECT_FALSE(processor->submit(*executable, {5, 0, {&good, 1}, {&good, 1}}).ok());
  EXPECT_FALSE(processor->submit(*executable, {4, 0, {}, {&good, 1}}).ok());
}

TEST(Cpu, AWeightThatIsNotANumberOfAModelIsNamed) {
  const auto processor = open_cpu("scalar", 1);
  Graph graph;
  graph.values = {{"x", Rows::kTokens, 256, DType::kF32}, {"y", Rows::kTokens, 4, DType::kF32}};
  graph.weights = {{"blk.0.ffn_up.weight", DType::kI32, 4, 256, nullptr}};
  graph.ops = {{"blk.0.ffn_up", 0, Linear{}, {0}, {1}, {0}, {}}};
  const Status status = processor->supports(graph, {0, 0, 4});
  EXPECT_EQ(status.code(), Code::kUnsupported);
  EXPECT_NE(status.message().find("blk.0.ffn_up.weight is I32"), std::string::npos) << status.message();
}

TEST(Cpu, OpenRefusesWhatTheMachineDoesNotHave) {
  FoundProcessor found = find_cpu();
  EXPECT_EQ(found.info.kind, "cpu");
  EXPECT_GT(found.info.memory_bytes, 0);
  EXPECT_FALSE(found.info.name.empty());
  EXPECT_FALSE(found.open(found.info, {.threads = -1, .cpus = {}, .cache_dir = ""}).ok());
  EXPECT_FALSE(found.open(found.info, {.threads = 0, .cpus = {1 << 20}, .cache_dir = ""}).ok());
  ::setenv("HETERO_CPU", "mmx", 1);
  const auto opened = found.open(found.info, {});
  ::unsetenv("HETERO_CPU");
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(
      opened.status().message().find("HETERO_CPU: 'mmx' is not a level of this machine; available: scalar"),
      0u);
}

TEST(Cpu, ManySubmissionsFinishInOrderOnTheCpusThatWereGiven) {
  const auto processor = open_cpu(cpu_levels().back(), 2, {available_cpus().front()});
  const LinearData data(DType::kQ8_0, 64, 64);
  Scene scene(data.graph);
  const auto expected = scene.run(*processor, 2);
  ASSERT_TRUE(expected.ok());
  const auto executable = std::move(processor->compile(data.graph, {0, 0, 64}, 2)).value();
  auto x = std::move(processor->import(reinterpret_cast<std::byte*>(scene.floats(0)), 4096)).value();
  auto y = std::move(processor->import(reinterpret_cast<std::byte*>(scene.floats(1)), 4096)).value();
  const Binding in{x.get(), 0, 64};
  const Binding out{y.get(), 0, 64};
  Fence last;
  for (int i = 0; i < 1000; ++i) {
    last = std::move(processor->submit(*executable, {2, 0, {&in, 1}, {&out, 1}})).value();
  }
  ASSERT_TRUE(last.wait().ok());
  EXPECT_TRUE(last.done());
  const Interval a = processor->timeline().interval(last.ticket - 1);
  const Interval b = processor->timeline().interval(last.ticket);
  EXPECT_LE(a.end, b.begin);
  EXPECT_TRUE(std::equal(expected->begin(), expected->end(), scene.floats(1)));
}

TEST(Cpu, WhatWaitsInTheQueueTogetherGivesTheSameNumbersAndFinishesOneByOne) {
  const LinearData up(DType::kQ4_0, 1280, 256);
  const LinearData down(DType::kQ4_0, 64, 640);
  const std::byte* const gate = up.bytes.data();
  const Graph graph = ffn_graph(DType::kQ4_0, 256, 640, 64,
                                {gate, gate + 640 * row_bytes(DType::kQ4_0, 256), down.bytes.data()});
  for (const std::string& level : cpu_levels()) {
    const auto processor = open_cpu(level, 2, {}, true);
    Scene scene(graph);
    const auto expected = scene.run(*processor, 100, 0, true);
    ASSERT_TRUE(expected.ok()) << expected.status().message();
    for (int i = 0; i < 20; ++i) {
      const auto found = scene.run(*processor, 100);
      ASSERT_TRUE(found.ok()) << found.status().message();
      ASSERT_EQ(*found, *expected) << level;
    }
    const auto last = static_cast<uint64_t>(3 + 20 * 3);
    for (uint64_t ticket = last - 2; ticket < last; ++ticket) {
      EXPECT_LE(processor->timeline().interval(ticket).end, processor->timeline().interval(ticket + 1).begin);
    }
  }
}

}  // namespace
}  // namespace hetero
