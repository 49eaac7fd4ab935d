// Operators that are one kernel: norm, product and SwiGLU; whole layers; steps.
#include <algorithm>
#include <cmath>
#include <random>
#include <thread>

#include "base/threads.h"
#include "opencl/opencl_test.h"
#include "plan/strategy.h"
#include "runtime/executor.h"

namespace hetero {
namespace {

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

/// A small Llama as LayerRunner takes it, with weights of Q4_0 and caches in F16.
struct SmallLlama {
  static constexpr int64_t kWidth = 256, kFfn = 512, kHeadDim = 64, kContext = 1024;
  static constexpr int kHeads = 4, kKvHeads = 2, kVocabulary = 48;
  static constexpr Bytes kPlace = 8192;
  Graph graph;
  std::vector<std::vector<std::byte>> blocks;
  std::vector<float> norm = std::vector<float>(kWidth);
  std::vector<std::unique_ptr<Executable>> executables;
  PageMemory memory;
  std::vector<std::unique_ptr<Buffer>> buffers;
  std::vector<Bytes> places;
  ValueId ids = 0, last = 0;
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
    ids = value("ids", 1, Rows::kTokens, DType::kI32);
    const ValueId x = value("x", kWidth);
    add("embed", Embed{2.0f}, {ids}, {x}, {weight(kVocabulary, kWidth)});
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
        last = value("logits", kVocabulary);
        add("head", Linear{}, {h}, {last}, {weight(kVocabulary, kWidth)});
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
  /// The logits of a token there. wait_after: the operator behind which to wait; -1: none.
  std::vector<float> token(Processor& processor, int64_t position, int wait_after = -1) {
    const Fence fence = submit(processor, position, wait_after);
    processor.flush();
    EXPECT_TRUE(fence.wait().ok());
    EXPECT_TRUE(processor.traits().coherent || move(processor, last, false));
    return result();
  }
  std::vector<float> result() const {
    const auto* out = reinterpret_cast<const float*>(memory.data() + places[static_cast<size_t>(last)]);
    return {out, out + kVocabulary};
  }
  Fence submit(Processor& processor, int64_t position, int wait_after = -1) {
    auto* in = reinterpret_cast<int32_t*>(memory.data() + places[static_cast<size_t>(ids)]);
    *in = static_cast<int32_t>(position % kVocabulary);
    EXPECT_TRUE(processor.traits().coherent ||
                processor.upload(*buffers[static_cast<size_t>(ids)], {0, 4, 4, 1}).ok());
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
    return fence;
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
      int layers;   // run as parts of a kernel of layers
      int kernels;  // in all; -1: by how products were tuned
    };
    // The first token; with a few keys; with more than a part's; in parts; with a wait within a layer,
    // behind a layer, behind the first norm, the table of rope, the embedding and the last
    // layer.
    for (const Case c : {Case{0, -1, 6, 2}, Case{5, -1, 6, 2}, Case{200, -1, 6, 2}, Case{1000, -1, 6, 2},
                         Case{1001, 23, 5, -1}, Case{1002, 28, 6, 4}, Case{1003, 2, 5, -1},
                         Case{1004, 1, 6, 4}, Case{1005, 0, 6, 3}, Case{1006, 55, 6, -1}}) {
      if (pairs == RopePairs::kHalves && c.position > 5) {
        break;
      }
      const int64_t before = together->layers_run();
      const int64_t enqueued = together->enqueued();
      const std::vector<float> a = expected.token(*apart, c.position, c.wait_after);
      const std::vector<float> b = found.token(*together, c.position, c.wait_after);
      EXPECT_EQ(together->layers_run() - before, c.layers) << c.position;
      if (c.kernels >= 0) {
        EXPECT_EQ(together->enqueued() - enqueued, c.kernels) << c.position;
      }
      ASSERT_NO_FATAL_FAILURE(expect_same_token(a, b, c.position));
    }
  }
  EXPECT_EQ(apart->layers_run(), 0);
}

/// As an engine runs tokens: by an executor, whose body and head are plans of their own.
TEST_F(OpenCl, BodyAndHeadOfATokenAreSubmittedTogether) {
  const ScopedEnv kernels("HETERO_OPENCL_KERNELS", "gpu");
  const ScopedEnv memory("HETERO_OPENCL_MEMORY", "copy");
  const ScopedEnv intervals("HETERO_OPENCL_INTERVALS", "batch");
  constexpr int kLayers = 3, kTokens = 4;
  found_[0].info.id = "gpu0";  // plans name processors
  const auto logits = [&](const char* join, bool together) {
    const ScopedEnv env("HETERO_OPENCL_JOIN", join);
    std::vector<std::vector<float>> found;
    const auto processor = open();
    if (processor == nullptr) {
      return found;
    }
    SmallLlama llama(*processor, kLayers, RopePairs::kAdjacent);
    Graph& graph = llama.graph;
    graph.ids = llama.ids;
    graph.shape.vocabulary = SmallLlama::kVocabulary;
    graph.head_begin = static_cast<int>(graph.ops.size()) - 2;
    for (size_t i = static_cast<size_t>(graph.head_begin); i < graph.ops.size(); ++i) {
      for (const ValueId id : graph.ops[i].outputs) {
        graph.values[static_cast<size_t>(id)].rows = Rows::kOutputs;
      }
    }
    auto executor = Executor::create(graph, {processor.get()}, {8, 1, 32});
    EXPECT_TRUE(executor.ok()) << executor.status().message();
    const Team team{"", "gpu0", "", {}};
    const auto prepare = [&](bool head) -> Result<const LinkedPlan*> {
      HETERO_TRY(const Plan plan, make_plan(graph, Strategy::kGpu, team, head, 1));
      return (*executor)->prepare(plan);
    };
    const auto body = prepare(false);
    const auto head = prepare(true);
    if (!body.ok() || !head.ok()) {
      ADD_FAILURE() << body.status().message() << head.status().message();
      return found;
    }
    for (int64_t position = 0; position < kTokens; ++position) {
      (*executor)->ids()[0] = static_cast<int32_t>(7 * position + 3);
      const int64_t before = processor->enqueued();
      Status ran;
      if (together) {
        ran = (*executor)->run_with_head(**body, position, **head, 0);
        // Layers in two parts, the head in the last.
        EXPECT_EQ(processor->enqueued() - before, 2) << position;
      } else {
        ran = (*executor)->run(**body, position);
        ran = ran.ok() ? (*executor)->run(**head, 0, 0) : ran;
      }
      EXPECT_TRUE(ran.ok()) << ran.message();
      found.emplace_back((*executor)->logits(), (*executor)->logits() + SmallLlama::kVocabulary);
    }
    EXPECT_EQ(processor->layers_run(), together ? kTokens * kLayers : 0);
    return found;
  };
  const auto expected = logits("none", false);
  const auto found = logits("layers", true);
  ASSERT_EQ(expected.size(), static_cast<size_t>(kTokens));
  ASSERT_EQ(found.size(), expected.size());
  for (int64_t position = 0; position < kTokens; ++position) {
    expect_same_token(expected[static_cast<size_t>(position)], found[static_cast<size_t>(position)],
                      position);
  }
}

TEST_F(OpenClStandIn, StepsOfOneKernelConform) {
  const ScopedEnv join("HETERO_OPENCL_JOIN", "steps");  // also of operators that are submitted alone
  for (const char* only : {"linear Q4_1[37", "expert products Q4_0", "expert_sum", "route", "rms_norm",
                           "hd=64", "gated", "soft_cap", "rope_table", "embed F32"}) {
    expect_conformance(only);
  }
}

TEST_F(OpenClStandIn, OperatorsOfATokenAreStepsOfFewKernels) {
  const auto open_with = [&](const char* join) {
    const ScopedEnv env("HETERO_OPENCL_JOIN", join);
    return open_on_one_cpu();
  };
  const auto apart = open_with("none");
  const auto together = open_with("");
  ASSERT_TRUE(apart != nullptr && together != nullptr);
  constexpr int kLayers = 6;
  SmallLlama expected(*apart, kLayers, RopePairs::kHalves);
  SmallLlama found(*together, kLayers, RopePairs::kHalves);
  const auto ops = static_cast<int64_t>(found.graph.ops.size());
  ASSERT_EQ(ops, 4 + 9 * kLayers);
  struct Case {
    int64_t position;
    int wait_after;
    int most_kernels;
  };
  // One for the first 48, and one for the rest if that has left meanwhile; with a wait between.
  for (const Case c : {Case{0, -1, 2}, Case{1, -1, 2}, Case{700, 20, 3}, Case{701, 0, 3}}) {
    const int64_t steps = together->steps_run();
    const int64_t kernels = together->enqueued();
    const std::vector<float> a = expected.token(*apart, c.position, c.wait_after);
    const std::vector<float> b = found.token(*together, c.position, c.wait_after);
    EXPECT_EQ(together->steps_run() - steps, ops) << c.position;
    EXPECT_LE(together->enqueued() - kernels, c.most_kernels) << c.position;
    ASSERT_NO_FATAL_FAILURE(expect_same_token(a, b, c.position));
  }
  EXPECT_EQ(apart->steps_run(), 0);
}

// Kernels that leave by themselves, that are told to, that are still polling; more steps than there is room
// for; and kernels in the ordinary way between them, whose results steps read.
TEST_F(OpenClStandIn, StepsKeepTheOrderOfTheQueue) {
  const auto processor = open_on_one_cpu();
  ASSERT_NE(processor, nullptr);
  constexpr int kLayers = 2;
  SmallLlama model(*processor, kLayers, RopePairs::kHalves);
  const auto ops = static_cast<int>(model.graph.ops.size());
  const std::vector<float> expected = model.token(*processor, 3);
  ASSERT_EQ(processor->steps_run(), ops);
  std::minstd_rand random(11);
  for (int i = 0; i < 150; ++i) {
    const auto choice = (random() >> 8) % 5;
    if (choice == 0) {
      ASSERT_TRUE(processor->finish().ok());  // from here on, ordinary kernels
    } else if (choice == 1) {
      std::this_thread::sleep_for(std::chrono::microseconds((random() >> 8) % 2000));
    } else if (choice == 4) {
      processor->rouse();
    } else {
      (void)processor->timeline().done(1);  // steps again
    }
    const int wait_after = choice == 3 ? static_cast<int>((random() >> 8) % static_cast<unsigned>(ops)) : -1;
    ASSERT_EQ(model.token(*processor, 3, wait_after), expected) << i;
  }
  EXPECT_GT(processor->steps_run(), 2 * ops);
  EXPECT_LT(processor->steps_run(), 151 * ops);

  (void)processor->timeline().done(1);
  const int64_t before = processor->steps_run();
  Fence last;
  for (int i = 0; i < 40; ++i) {
    last = model.submit(*processor, 3);
  }
  EXPECT_EQ(processor->steps_run() - before, 40 * ops);  // over 512
  ASSERT_TRUE(last.wait().ok());
  const Interval ran = processor->timeline().interval(last.ticket);
  EXPECT_LT(ran.begin, ran.end);
  EXPECT_LE(ran.end, now());
  EXPECT_LE(processor->timeline().interval(last.ticket - 1).end, ran.begin);
  EXPECT_EQ(model.result(), expected);

  if (available_cpus().size() == 1) {
    return;  // then no kernel polls, since it would keep the host from working
  }
  // Once the kernel has left there is another one, unless the host waits by the driver's calls.
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const int64_t kernels = processor->enqueued();
  processor->rouse();
  EXPECT_EQ(processor->enqueued(), kernels + 1);
  ASSERT_TRUE(processor->finish().ok());
  processor->rouse();
  EXPECT_EQ(processor->enqueued(), kernels + 1);
}

}  // namespace
}  // namespace hetero
