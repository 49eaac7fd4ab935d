#include "cpu/ops.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <random>
#include <string>

#include "cpu/int8.h"
#include "cpu/levels.h"
#include "ffn_graph.h"
#include "gguf/random_blocks.h"

namespace hetero::cpu {
namespace {

constexpr int64_t kTokens = 193;

/// An FFN: gate and up, Gated, down, each ready to run with rounded activations.
class Ffn {
 public:
  Ffn(DType dtype, int64_t d, int64_t f, int64_t n, const Kernels& kernels, ThreadPool& pool)
      : kernels_(kernels), pool_(pool) {
    for (const auto& [rows, cols] : {std::pair{f, d}, {f, d}, {n, f}}) {
      weights_.push_back(random_blocks(dtype, rows * cols, static_cast<uint32_t>(weights_.size() + 1)));
    }
    graph = ffn_graph(dtype, d, f, n, {weights_[0].data(), weights_[1].data(), weights_[2].data()});
    for (const Value& value : graph.values) {
      memory.emplace_back(static_cast<size_t>(kTokens * value.cols), 7.0f);
    }
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    for (float& x : memory[0]) {
      x = normal(random);
    }
  }

  /// The three operators, of `down` columns [0, down_cols).
  void prepare_all(int64_t tokens, int64_t down_cols) {
    works.clear();
    executables_.clear();
    for (int op = 0; op < 3; ++op) {
      const OpSlice slice{op, 0, op == 2 ? down_cols : graph.output_cols(op)};
      executables_.push_back(prepare(graph, slice, kTokens, kernels_, pool_.size(), &packed_));
      for (const PackedSegment& segment : executables_.back()->packed) {
        ASSERT_TRUE(pack(*segment.rows, *kernels_.int8, pool_).ok());
      }
      auto scratch = PageMemory::allocate(std::max<Bytes>(64, 4 * executables_.back()->scratch_floats));
      ASSERT_TRUE(scratch.ok());
      Work work;
      work.executable = executables_.back().get();
      work.scratch = std::make_shared<PageMemory>(std::move(*scratch));
      work.tokens = tokens;
      work.in[0] = view(graph.op(op).inputs[0]);
      work.out[0] = view(graph.op(op).outputs[0]);
      works.push_back(std::move(work));
    }
  }

  /// What comes out where the first `count` run together and the others apart.
  std::vector<float> run_some_together(size_t count) {
    for (size_t value = 1; value < memory.size(); ++value) {
      std::fill(memory[value].begin(), memory[value].end(), 7.0f);
    }
    if (count > 1) {
      run_together(std::span(works).first(count), kernels_, pool_);
    }
    for (size_t i = count > 1 ? count : 0; i < works.size(); ++i) {
      EXPECT_TRUE(run(works[i], kernels_, pool_).ok());
    }
    return memory[3];
  }

  View view(ValueId id) {
    return {reinterpret_cast<std::byte*>(memory[static_cast<size_t>(id)].data()), graph.value(id).cols};
  }

  Graph graph;
  std::vector<std::vector<float>> memory;  // of each value
  std::vector<Work> works;

 private:
  const Kernels& kernels_;
  ThreadPool& pool_;
  std::vector<std::vector<std::byte>> weights_;
  PackedWeights packed_;
  std::vector<std::unique_ptr<CpuExecutable>> executables_;
};

TEST(Together, GivesTheSameNumbersAsOneAfterTheOther) {
  for (const Kernels* kernels : kernels_for(describe_cpu().flags)) {
    // With more threads rows are cut as well: 192 and 1.
    for (const auto& [threads, f] : {std::pair{1, 1280}, {3, 1280}, {8, 256}}) {
      ThreadPool pool(threads, {});
      for (const DType dtype : {DType::kQ4_0, DType::kQ4_1, DType::kQ8_0, DType::kQ4_K}) {
        Ffn ffn(dtype, 512, f, 70, *kernels, pool);
        for (const int64_t tokens : {int64_t{1}, int64_t{32}, int64_t{97}, kTokens}) {
          const std::string what = fmt::format("{} {}, {} tokens, {} threads", kernels->level,
                                               traits(dtype).name, tokens, threads);
          ffn.prepare_all(tokens, 70);
          const std::vector<float> expected = ffn.run_some_together(1);
          const size_t most = together(ffn.works, *kernels);
          const bool gates = gates_tokens(*kernels->int8, tokens);
          EXPECT_EQ(gates, tokens > 1 && kernels->int8->tiles == nullptr);
          ASSERT_EQ(most, !gates ? 1u : rounds_gated(*kernels->int8) ? 3u : 2u) << what;
          for (size_t count = 2; count <= most; ++count) {
            ASSERT_EQ(ffn.run_some_together(count), expected) << what << ", " << count << " together";
          }
        }
      }
    }
  }
}

TEST(Together, LeavesAloneWhatOthersReadOrComputeInPart) {
  const Kernels& kernels = *kernels_for(describe_cpu().flags).back();
  ThreadPool pool(1, {});
  if (!gates_tokens(*kernels.int8, kTokens)) {
    GTEST_SKIP() << "nothing runs together with tiles";
  }
  const size_t most = rounds_gated(*kernels.int8) ? 3 : 2;
  Ffn ffn(DType::kQ4_0, 512, 1280, 70, kernels, pool);
  ffn.prepare_all(kTokens, 70);
  EXPECT_EQ(together(ffn.works, kernels), most);
  EXPECT_EQ(together(std::span(ffn.works).first(2), kernels), 2u);
  EXPECT_EQ(together(std::span(ffn.works).first(1), kernels), 1u);
  EXPECT_EQ(together(std::span(ffn.works).last(2), kernels), 1u);
  ffn.works[1].tokens = 4;
  EXPECT_EQ(together(ffn.works, kernels), 1u) << "other tokens";
  ffn.prepare_all(kTokens, 70);
  ffn.works[1].in[0] = ffn.view(2);
  EXPECT_EQ(together(ffn.works, kernels), 1u) << "other memory";
  ffn.prepare_all(kTokens, 64);
  EXPECT_EQ(together(ffn.works, kernels), 2u) << "another processor has some columns of down";

  const Op again = ffn.graph.ops[1];
  ffn.graph.ops.push_back(again);
  ffn.prepare_all(kTokens, 70);
  EXPECT_EQ(together(ffn.works, kernels), 1u) << "two read gate and up";
  ffn.graph.ops.back() = ffn.graph.ops[2];
  ffn.prepare_all(kTokens, 70);
  EXPECT_EQ(together(ffn.works, kernels), 2u) << "two read the gated numbers";
}

}  // namespace
}  // namespace hetero::cpu
