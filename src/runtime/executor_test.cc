#include "runtime/executor.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "plan/strategy.h"
#include "processor/fake.h"
#include "tiny_graph.h"

namespace hetero {
namespace {

const Team kTeam{"cpu", "gpu0", "npu0", {}};
const RowCapacity kCapacity{64, 32, 128};
const StrategyOptions kOptions{{1, 8, 16, 32, 64}, 0.5, 8};

/// A CPU, a GPU and an NPU, all scripted, and an executor over a tiny model.
struct Machine {
  explicit Machine(FakeScript gpu_script = {}, FakeScript npu_script = {}, DType cache = DType::kF32)
      : tiny(2, cache), cpu("cpu", "cpu") {
    npu_script.traits.static_shapes = true;
    gpu = std::make_unique<FakeProcessor>("gpu0", "gpu", gpu_script);
    npu = std::make_unique<FakeProcessor>("npu0", "npu", npu_script);
    auto created = Executor::create(tiny.graph, {&cpu, gpu.get(), npu.get()}, kCapacity);
    EXPECT_TRUE(created.ok()) << created.status().message();
    executor = std::move(created).value();
  }

  Result<const LinkedPlan*> prepare(Strategy strategy, bool head, int64_t tokens,
                                    const StrategyOptions& options = kOptions) {
    HETERO_TRY(const Plan plan, make_plan(tiny.graph, strategy, kTeam, head, tokens, options));
    return executor->prepare(plan);
  }

  /// Body and head of one token.
  Result<std::pair<const LinkedPlan*, const LinkedPlan*>> token_on_gpu() {
    HETERO_TRY(const LinkedPlan* const body, prepare(Strategy::kGpu, false, 1));
    HETERO_TRY(const LinkedPlan* const head, prepare(Strategy::kGpu, true, 1));
    return std::pair(body, head);
  }

  Status body(Strategy strategy, const std::vector<int32_t>& ids, int64_t position,
              const StrategyOptions& options = kOptions) {
    HETERO_TRY(const LinkedPlan* const plan,
               prepare(strategy, false, static_cast<int64_t>(ids.size()), options));
    std::copy(ids.begin(), ids.end(), executor->ids().begin());
    return executor->run(*plan, position);
  }

  /// Logits of rows [first, first + rows) of the last body pass.
  Result<std::vector<float>> head(Strategy strategy, int64_t first, int64_t rows) {
    HETERO_TRY(const LinkedPlan* const plan, prepare(strategy, true, rows));
    HETERO_RETURN_IF_ERROR(executor->run(*plan, 0, first));
    return std::vector<float>(executor->logits(), executor->logits() + rows * tiny.graph.shape.vocabulary);
  }

  TinyGraph tiny;
  FakeProcessor cpu;
  std::unique_ptr<FakeProcessor> gpu;
  std::unique_ptr<FakeProcessor> npu;
  std::unique_ptr<Executor> executor;
};

std::vector<int32_t> some_ids(size_t count) {
  std::vector<int32_t> ids;
  for (size_t i = 0; i < count; ++i) {
    ids.push_back(static_cast<int32_t>((i * 29 + 3) % 48));
  }
  return ids;
}

/// Prefill in two passes and one decode step must give the reference's numbers, to the bit: the
/// fakes compute by the reference, so any difference is a wrong row, column or order.
void expect_reference(Machine& machine, Strategy prefill, Strategy decode) {
  Reference reference(machine.tiny.graph, kCapacity.context);
  const int64_t vocabulary = machine.tiny.graph.shape.vocabulary;
  const std::vector<int32_t> ids = some_ids(60);
  const std::vector<float> truth = reference.forward(ids, 0);
  int64_t position = 0;
  for (const int64_t length : {37, 5, 17, 1}) {
    const std::vector<int32_t> part(ids.begin() + position, ids.begin() + position + length);
    const Strategy strategy = length == 1 ? decode : prefill;
    ASSERT_TRUE(machine.body(strategy, part, position).ok());
    for (const int64_t first : {int64_t{0}, length / 2, length - 1}) {
      const int64_t rows = std::min<int64_t>(3, length - first);
      const auto logits = machine.head(strategy, first, rows);
      ASSERT_TRUE(logits.ok()) << logits.status().message();
      const auto from = truth.begin() + (position + first) * vocabulary;
      EXPECT_EQ(*logits, std::vector<float>(from, from + rows * vocabulary))
          << strategy_name(strategy) << " position " << position << " row " << first;
    }
    position += length;
  }
}

constexpr Strategy kAll[] = {Strategy::kCpu,        Strategy::kGpu,     Strategy::kNpuOnline,
                             Strategy::kNpuPadding, Strategy::kNpuPipe, Strategy::kLayer,
                             Strategy::kTensor};

TEST(Executor, EveryStrategyGivesTheReferenceLogits) {
  for (const Strategy strategy : kAll) {
    Machine machine;
    expect_reference(machine, strategy, strategy);
  }
}

TEST(Executor, PlansForTheLastRowGiveItsLogits) {
  StrategyOptions options = kOptions;
  options.last_row = true;
  for (const Strategy strategy : kAll) {
    for (const auto& [sync, coherent] : {std::pair(Sync::kFast, true), std::pair(Sync::kDriver, true),
                                         std::pair(Sync::kFast, false), std::pair(Sync::kDriver, false)}) {
      FakeScript gpu;
      gpu.traits.coherent = coherent;
      Machine machine(gpu);
      machine.executor->set_sync(sync);
      const std::vector<int32_t> ids = some_ids(60);
      const std::vector<float> truth = Reference(machine.tiny.graph, kCapacity.context).forward(ids, 0);
      int64_t position = 0;
      for (const int64_t length : {37, 2, 21}) {
        const std::vector<int32_t> part(ids.begin() + position, ids.begin() + position + length);
        const Status ran = machine.body(strategy, part, position, options);
        ASSERT_TRUE(ran.ok()) << ran.message();
        position += length;
        const auto logits = machine.head(strategy, length - 1, 1);
        ASSERT_TRUE(logits.ok()) << logits.status().message();
        const int64_t vocabulary = machine.tiny.graph.shape.vocabulary;
        const auto from = truth.begin() + (position - 1) * vocabulary;
        EXPECT_EQ(*logits, std::vector<float>(from, from + vocabulary))
            << strategy_name(strategy) << " position " << position;
      }
    }
  }
}

TEST(Executor, OneRowOfManyTellsNothingOfShares) {
  FakeScript script;
  script.delay = std::chrono::milliseconds(2);  // of each step, whatever it computes
  Machine machine(script, script);
  const std::vector<int32_t> ids = some_ids(32);
  for (const bool last_row : {false, true}) {
    StrategyOptions options = kOptions;
    options.last_row = last_row;
    const auto linked = machine.prepare(Strategy::kTensor, false, 32, options);
    ASSERT_TRUE(linked.ok()) << linked.status().message();
    std::copy(ids.begin(), ids.end(), machine.executor->ids().begin());
    ASSERT_TRUE(machine.executor->run(**linked, 0).ok());
    const std::optional<double> share = machine.executor->measured_share(**linked, 2);
    ASSERT_TRUE(share.has_value());
    EXPECT_NEAR(*share, 0.5, 0.06) << last_row;  // 0.6 with the GPU's few rows of the last layer
  }
}

/// GPU and NPU by columns; all rows in two parts, [0, rows) and the others, but for the GPU's share of
/// linear operators.
Plan in_parts_of_rows(const Graph& graph, int64_t tokens, int64_t rows) {
  Plan plan;
  plan.strategy = "tensor";
  plan.tokens = tokens;
  plan.processors = {"gpu0", "npu0"};
  for (int op = 0; op < graph.head_begin; ++op) {
    const int64_t cols = graph.output_cols(op);
    const int64_t cut = cols / 2;
    const bool linear = graph.op(op).is<Linear>();
    for (const auto& [begin, end] : {std::pair(int64_t{0}, rows), std::pair(rows, tokens)}) {
      plan.steps.push_back({op, linear ? 1 : 0, begin, end, 0, linear ? cut : cols, end - begin, {}, {}});
    }
    if (linear) {
      plan.steps.push_back({op, 0, 0, tokens, cut, cols, tokens, {}, {}});
    }
  }
  return plan;
}

TEST(Executor, PlansInPartsOfRowsGiveTheReferenceLogits) {
  FakeScript slow;
  slow.delay = std::chrono::microseconds(300);
  for (const auto& [gpu, npu] : {std::pair(FakeScript(), slow), std::pair(slow, FakeScript())}) {
    for (const Sync sync : {Sync::kFast, Sync::kDriver}) {
      Machine machine(gpu, npu);
      machine.executor->set_sync(sync);
      Reference reference(machine.tiny.graph, kCapacity.context);
      const std::vector<int32_t> ids = some_ids(50);
      const std::vector<float> truth = reference.forward(ids, 0);
      int64_t position = 0;
      for (const int64_t length : {29, 21}) {
        const auto linked = machine.executor->prepare(in_parts_of_rows(machine.tiny.graph, length, 16));
        ASSERT_TRUE(linked.ok()) << linked.status().message();
        std::copy(ids.begin() + position, ids.begin() + position + length, machine.executor->ids().begin());
        ASSERT_TRUE(machine.executor->run(**linked, position).ok());
        const auto logits = machine.head(Strategy::kCpu, 0, length);
        ASSERT_TRUE(logits.ok()) << logits.status().message();
        const auto from = truth.begin() + position * machine.tiny.graph.shape.vocabulary;
        EXPECT_EQ(*logits, std::vector<float>(from, from + length * machine.tiny.graph.shape.vocabulary))
            << sync_name(sync) << " position " << position;
        position += length;
      }
    }
  }
}

TEST(Executor, SlowProcessorsAreWaitedFor) {
  FakeScript slow;
  slow.delay = std::chrono::milliseconds(1);
  Machine slow_gpu(slow, {});
  expect_reference(slow_gpu, Strategy::kTensor, Strategy::kTensor);
  Machine slow_npu({}, slow);
  expect_reference(slow_npu, Strategy::kTensor, Strategy::kLayer);
  EXPECT_GT(slow_npu.gpu->roused(), 0) << "it goes on with the NPU's results";
}

TEST(Executor, TheDriversWayGivesTheSameAndFinishesEveryStep) {
  FakeScript discrete;
  discrete.traits.coherent = false;
  for (const FakeScript& gpu : {FakeScript(), discrete}) {
    for (const Strategy strategy : kAll) {
      Machine machine(gpu, {});
      machine.executor->set_sync(Sync::kDriver);
      expect_reference(machine, strategy, strategy);
      EXPECT_EQ(machine.npu->finishes() > 0, uses_npu(strategy));
      EXPECT_GE(machine.gpu->finishes() + machine.npu->finishes() + machine.cpu.finishes(),
                machine.gpu->submitted() + machine.npu->submitted() + machine.cpu.submitted());
      // The parts of one operator may be two on one processor (and their transfers).
      EXPECT_LE(machine.gpu->most_in_flight(), gpu.traits.coherent ? 2u : 8u);
    }
  }
}

TEST(Executor, QueueOrderDoesTheWaitingWhereItCan) {
  FakeScript slow;
  slow.delay = std::chrono::milliseconds(2);
  Machine machine(slow, {});
  ASSERT_TRUE(machine.body(Strategy::kGpu, some_ids(16), 0).ok());
  EXPECT_GT(machine.gpu->most_in_flight(), 8u) << "one processor: all of it is enqueued ahead";
  Machine both(slow, {});
  ASSERT_TRUE(both.body(Strategy::kTensor, some_ids(16), 0).ok());
  EXPECT_GT(both.gpu->most_in_flight(), 1u) << "the slower one gets its next step while it still runs";
  EXPECT_EQ(both.npu->most_in_flight(), 1u);
}

/// Linear operators by columns between NPU and GPU, what writes or reads the cache on the CPU, all other
/// operators by rows between CPU and GPU, each cut elsewhere.
Plan with_cpu_for_rows(const Graph& graph, int64_t tokens) {
  Plan plan;
  plan.strategy = "tensor";
  plan.tokens = tokens;
  plan.processors = {"cpu", "gpu0", "npu0"};
  for (int op = 0; op < graph.head_begin; ++op) {
    const int64_t cols = graph.output_cols(op);
    if (graph.op(op).is<Linear>()) {
      plan.steps.push_back({op, 2, 0, tokens, 0, cols / 2, tokens, {}, {}});
      plan.steps.push_back({op, 1, 0, tokens, cols / 2, cols, tokens, {}, {}});
    } else if (graph.op(op).is<Rope>() || graph.op(op).is<Attention>()) {
      plan.steps.push_back({op, 0, 0, tokens, 0, cols, tokens, {}, {}});
    } else {
      const int64_t cut = 1 + op * 5 % (tokens - 1);
      const int first = op % 2;
      plan.steps.push_back({op, first, 0, cut, 0, cols, cut, {}, {}});
      plan.steps.push_back({op, 1 - first, cut, tokens, 0, cols, tokens - cut, {}, {}});
    }
  }
  return plan;
}

TEST(Executor, RowsMoveBetweenMemoriesWithAllThatAnOperatorWrote) {
  FakeScript discrete;
  discrete.traits.coherent = false;
  for (const FakeScript& gpu : {FakeScript(), discrete}) {
    for (const Sync sync : {Sync::kFast, Sync::kDriver}) {
      Machine machine(gpu, {});
      machine.executor->set_sync(sync);
      Reference reference(machine.tiny.graph, kCapacity.context);
      const std::vector<int32_t> ids = some_ids(29);
      const std::vector<float> truth = reference.forward(ids, 0);
      const auto linked = machine.executor->prepare(with_cpu_for_rows(machine.tiny.graph, 29));
      ASSERT_TRUE(linked.ok()) << linked.status().message();
      std::copy(ids.begin(), ids.end(), machine.executor->ids().begin());
      ASSERT_TRUE(machine.executor->run(**linked, 0).ok());
      const auto logits = machine.head(Strategy::kCpu, 0, 29);
      ASSERT_TRUE(logits.ok()) << logits.status().message();
      EXPECT_EQ(*logits, truth) << sync_name(sync);
    }
  }
}

/// As expect_reference, with the logits behind each pass from run_with_head.
void expect_reference_behind(Machine& machine, Strategy prefill, Strategy decode) {
  Reference reference(machine.tiny.graph, kCapacity.context);
  const int64_t vocabulary = machine.tiny.graph.shape.vocabulary;
  const std::vector<int32_t> ids = some_ids(40);
  const std::vector<float> truth = reference.forward(ids, 0);
  int64_t position = 0;
  for (const int64_t length : {17, 1, 1, 20, 1}) {
    const Strategy strategy = length == 1 ? decode : prefill;
    const auto body = machine.prepare(strategy, false, length);
    const auto head = machine.prepare(strategy, true, 1);
    ASSERT_TRUE(body.ok() && head.ok());
    std::copy_n(ids.begin() + position, length, machine.executor->ids().begin());
    ASSERT_TRUE(machine.executor->run_with_head(**body, position, **head, length - 1).ok());
    position += length;
    const float* logits = machine.executor->logits();
    const auto from = truth.begin() + (position - 1) * vocabulary;
    EXPECT_EQ(std::vector<float>(logits, logits + vocabulary), std::vector<float>(from, from + vocabulary))
        << strategy_name(strategy) << " position " << position;
  }
}

TEST(Executor, BodyAndHeadTogetherGiveTheReferenceLogits) {
  FakeScript discrete;
  discrete.traits.coherent = false;
  FakeScript slow;
  slow.delay = std::chrono::microseconds(300);
  for (const auto& [gpu, npu] : {std::pair{FakeScript(), FakeScript()},
                                 {discrete, FakeScript()},
                                 {discrete, discrete},
                                 {slow, FakeScript()},
                                 {FakeScript(), slow}}) {
    for (const Strategy strategy : kAll) {
      Machine machine(gpu, npu);
      expect_reference_behind(machine, strategy, strategy);
      expect_reference_behind(machine, strategy, Strategy::kGpu);
    }
    Machine by_driver(gpu, npu);
    by_driver.executor->set_sync(Sync::kDriver);
    expect_reference_behind(by_driver, Strategy::kTensor, Strategy::kGpu);
  }
}

TEST(Executor, TheHeadIsQueuedBehindTheBodyWhereOneProcessorHasBoth) {
  FakeScript slow;
  slow.delay = std::chrono::milliseconds(20);
  Machine machine(slow, {});
  const auto token = machine.token_on_gpu();
  ASSERT_TRUE(token.ok());
  const auto [body, head] = *token;
  machine.executor->ids()[0] = 3;
  machine.gpu->set_delay({});
  ASSERT_TRUE(machine.executor->run(*body, 0).ok());
  const int of_body = machine.gpu->submitted();
  machine.gpu->set_delay(slow.delay);
  machine.executor->ids()[0] = 3;
  machine.executor->clear_use();
  ASSERT_TRUE(machine.executor->run_with_head(*body, 0, *head, 0).ok());
  EXPECT_GT(machine.gpu->most_in_flight(), static_cast<uint64_t>(of_body));
  EXPECT_EQ(machine.executor->use()[1].steps, machine.gpu->submitted() - of_body);
}

TEST(Executor, WhatIsLearntOfAHeadDoesNotCountTheBodyBeforeIt) {
  FakeScript slow;
  slow.delay = std::chrono::milliseconds(2);
  Machine machine(slow, {});
  const auto token = machine.token_on_gpu();
  ASSERT_TRUE(token.ok());
  const auto [body, head] = *token;
  ASSERT_TRUE(machine.executor->run_with_head(*body, 0, *head, 0).ok());
  Nanos whole{};
  Nanos largest{};
  for (const Executor::StepReport& step : machine.executor->report()) {
    whole += step.expected * step.times;
    largest = std::max(largest, step.expected);
  }
  EXPECT_LT(largest, whole / 2) << "a step waits for what was queued before it, which is not its own time";
}

TEST(Executor, AFailureOfTheHeadBehindABodyIsReported) {
  FakeScript script;
  Machine counting;
  const auto counted = counting.prepare(Strategy::kGpu, false, 1);
  ASSERT_TRUE(counted.ok());
  ASSERT_TRUE(counting.executor->run(**counted, 0).ok());
  script.fail_at = static_cast<uint64_t>(counting.gpu->submitted()) + 1;  // the head's first
  Machine machine(script, {});
  const auto token = machine.token_on_gpu();
  ASSERT_TRUE(token.ok());
  const auto [body, head] = *token;
  const Status status = machine.executor->run_with_head(*body, 0, *head, 0);
  EXPECT_EQ(status.code(), Code::kDeviceLost);
  EXPECT_EQ(machine.executor->failed(), 1);
}

TEST(Executor, DevicesWithMemoryOfTheirOwnGetExactlyWhatTheyRead) {
  FakeScript discrete;
  discrete.traits.coherent = false;
  for (const Strategy strategy : kAll) {
    Machine machine(discrete, {});
    expect_reference(machine, strategy, strategy);
    Machine both(discrete, discrete);
    expect_reference(both, strategy, strategy);
  }
}

TEST(Executor, TheCacheFollowsWhenDecodeMovesToAnotherProcessor) {
  FakeScript discrete;
  discrete.traits.coherent = false;
  for (const auto& [prefill, decode] : {std::pair{Strategy::kGpu, Strategy::kCpu},
                                        {Strategy::kCpu, Strategy::kGpu},
                                        {Strategy::kNpuPadding, Strategy::kLayer},
                                        {Strategy::kTensor, Strategy::kCpu}}) {
    Machine machine(discrete, {});
    expect_reference(machine, prefill, decode);
  }
}

TEST(Executor, CachesInBlocksFollowToo) {
  FakeScript discrete;
  discrete.traits.coherent = false;
  for (const auto& [prefill, decode] : {std::pair{Strategy::kGpu, Strategy::kCpu},
                                        {Strategy::kCpu, Strategy::kGpu},
                                        {Strategy::kTensor, Strategy::kCpu}}) {
    Machine machine(discrete, {}, DType::kQ8_0);
    expect_reference(machine, prefill, decode);
  }
}

TEST(Executor, AloneOnADeviceNothingMovesBetweenLayers) {
  FakeScript discrete;
  discrete.traits.coherent = false;
  Machine machine(discrete, {});
  ASSERT_TRUE(machine.body(Strategy::kGpu, some_ids(16), 0).ok());
  ASSERT_TRUE(machine.head(Strategy::kGpu, 15, 1).ok());
  EXPECT_EQ(machine.gpu->transfers(), 2);  // token ids in, logits out
  EXPECT_EQ(machine.gpu->unexpected_transfers(), 0);
}

TEST(Executor, APassOfADeviceWithMemoryOfItsOwnIsLearntFromInTheNextOneOrWhenAsked) {
  FakeScript discrete;
  discrete.traits.coherent = false;
  Machine machine(discrete, {});
  Trace trace;
  machine.executor->set_trace(&trace);
  ASSERT_TRUE(machine.body(Strategy::kGpu, some_ids(16), 0).ok());
  EXPECT_EQ(trace.size(), 0u);
  const auto first = static_cast<size_t>(machine.gpu->submitted());
  ASSERT_TRUE(machine.body(Strategy::kGpu, some_ids(1), 16).ok());
  EXPECT_EQ(trace.size(), first);
  EXPECT_EQ(machine.executor->use()[1].steps, machine.gpu->submitted());
  EXPECT_EQ(trace.size(), static_cast<size_t>(machine.gpu->submitted()));
  ASSERT_TRUE(machine.body(Strategy::kGpu, some_ids(1), 17).ok());
  machine.executor->set_trace(nullptr);
  EXPECT_EQ(trace.size(), static_cast<size_t>(machine.gpu->submitted()));
  EXPECT_FALSE(machine.executor->report().empty());
}

TEST(Executor, CompilesASliceOnceForAllLengthsOfADynamicProcessor) {
  Machine machine;
  ASSERT_TRUE(machine.prepare(Strategy::kGpu, false, 5).ok());
  const int compiled = machine.gpu->compiled();
  ASSERT_TRUE(machine.prepare(Strategy::kGpu, false, 9).ok());
  EXPECT_EQ(machine.gpu->compiled(), compiled);
}

TEST(Executor, PassesTheOrderOfOperandsOnToThoseThatHaveTwo) {
  for (const OperandOrders orders : {OperandOrders::kOne, OperandOrders::kBoth}) {
    FakeScript npu;
    npu.traits.orders = orders;
    Machine machine({}, npu);
    auto plan = make_plan(machine.tiny.graph, Strategy::kTensor, kTeam, false, 16, kOptions);
    ASSERT_TRUE(plan.ok());
    int asked = 0;  // for the NPU
    for (Step& s : plan->steps) {
      s.exchanged = machine.tiny.graph.op(s.op).is<Linear>();
      asked += plan->processors[static_cast<size_t>(s.processor)] == "npu0" ? 1 : 0;
    }
    const bool both = orders == OperandOrders::kBoth;
    EXPECT_EQ(machine.executor->missing(*plan).size(), static_cast<size_t>(asked));
    EXPECT_EQ(machine.executor->missing(*plan)[0].exchanged, both);
    ASSERT_TRUE(machine.executor->prepare(*plan).ok());
    EXPECT_TRUE(machine.executor->missing(*plan).empty());
    EXPECT_EQ(machine.npu->compiled(), asked);
    EXPECT_EQ(machine.npu->exchanged(), both ? asked : 0);
    EXPECT_EQ(machine.gpu->exchanged(), 0);
    // The other order is another graph, unless there is none.
    for (Step& s : plan->steps) {
      s.exchanged = false;
    }
    EXPECT_EQ(machine.executor->missing(*plan).size(), both ? static_cast<size_t>(asked) : 0u);
  }
}

TEST(Executor, AFailingProcessorIsAnErrorWithItsMessageAndNoHang) {
  for (const uint64_t step : {1u, 7u, 12u}) {
    FakeScript script;
    script.fail_at = step;
    Machine machine(script, {});
    const Status status = machine.body(Strategy::kTensor, some_ids(20), 0);
    EXPECT_EQ(status.code(), Code::kDeviceLost);
    EXPECT_NE(status.message().find("gpu0: scripted failure"), std::string::npos) << status.message();
    EXPECT_FALSE(machine.body(Strategy::kTensor, some_ids(20), 0).ok());
    EXPECT_TRUE(machine.body(Strategy::kCpu, some_ids(20), 0).ok()) << "others must still work";
  }
}

TEST(Executor, AFailureToCompileNamesProcessorAndOperator) {
  FakeScript script;
  script.fail_compile = true;
  Machine machine({}, script);
  const auto plan = machine.prepare(Strategy::kLayer, false, 20);
  ASSERT_FALSE(plan.ok());
  EXPECT_EQ(plan.status().message(), "npu0: blk.0.attn_qkv: npu0: scripted failure to compile");
}

TEST(Executor, AFullContextIsAnErrorThatSaysHowMuchItHolds) {
  Machine machine;
  const Status status = machine.body(Strategy::kCpu, some_ids(20), 120);
  EXPECT_EQ(status.code(), Code::kResourceExhausted);
  EXPECT_NE(status.message().find("20 tokens at position 120, but it holds 128"), std::string::npos);
}

TEST(Executor, CancelStopsBetweenStepsAndTheNextPassIsRight) {
  Machine machine;
  const auto plan = machine.prepare(Strategy::kTensor, false, 20);
  ASSERT_TRUE(plan.ok());
  const std::atomic<bool> cancel = true;
  EXPECT_EQ(machine.executor->run(**plan, 0, 0, &cancel).code(), Code::kCancelled);
  expect_reference(machine, Strategy::kTensor, Strategy::kTensor);
}

TEST(Executor, CountsWhatEachProcessorDid) {
  Machine machine;
  ASSERT_TRUE(machine.body(Strategy::kTensor, some_ids(32), 0).ok());
  const auto& use = machine.executor->use();
  EXPECT_EQ(use[0].steps, 0);
  EXPECT_GT(use[1].steps, use[2].steps);
  EXPECT_GT(use[2].busy.count(), 0);
  int64_t linear = 0;
  int64_t all = 0;
  for (int op = 0; op < machine.tiny.graph.head_begin; ++op) {
    const int64_t macs = op_macs(machine.tiny.graph, op, 0, machine.tiny.graph.output_cols(op), 32, 0);
    all += macs;
    linear += machine.tiny.graph.op(op).is<Linear>() ? macs : 0;
  }
  EXPECT_EQ(use[1].macs + use[2].macs, all);
  EXPECT_EQ(use[2].macs, linear / 2);  // a share of one half
}

TEST(Trace, WritesOneEventForEachSubmission) {
  Machine machine;
  Trace trace;
  machine.executor->set_trace(&trace);
  ASSERT_TRUE(machine.body(Strategy::kTensor, some_ids(32), 0).ok());
  const std::string path = testing::TempDir() + "trace_" + std::to_string(getpid()) + ".json";
  ASSERT_TRUE(trace.write(path).ok());
  std::ifstream file(path);
  const auto json = nlohmann::json::parse(file);
  size_t events = 0;
  for (const auto& e : json.at("traceEvents")) {
    events += e.at("ph") == "X";
    EXPECT_GE(e.value("dur", 0.0), 0.0);
  }
  EXPECT_EQ(events, trace.size());
  EXPECT_FALSE(trace.write("/nonexistent/trace.json").ok());
}

TEST(Executor, SlotsOfTheIdsAreNotTakenOverWhileTheyAreStillRead) {
  // The GPU lacks the embedding, so the CPU makes it, slowly, while the GPU makes the rope table,
  // which may lie where the ids were.
  FakeScript gpu_script;
  gpu_script.refuses = {"embed"};
  TinyGraph tiny;
  FakeScript slow;
  slow.delay = std::chrono::milliseconds(20);
  FakeProcessor cpu("cpu", "cpu", slow);
  FakeProcessor gpu("gpu0", "gpu", gpu_script);
  auto executor = Executor::create(tiny.graph, {&cpu, &gpu}, kCapacity);
  ASSERT_TRUE(executor.ok());
  Team team{"cpu", "gpu0", "",
            [&](const std::string& id, int op) { return id == "cpu" || !tiny.graph.op(op).is<Embed>(); }};
  const auto plan = make_plan(tiny.graph, Strategy::kGpu, team, false, 1, kOptions);
  ASSERT_TRUE(plan.ok()) << plan.status().message();
  const auto head_plan = make_plan(tiny.graph, Strategy::kGpu, team, true, 1, kOptions);
  const auto body = (*executor)->prepare(*plan);
  const auto head = (*executor)->prepare(*head_plan);
  ASSERT_TRUE(body.ok() && head.ok());
  (*executor)->ids()[0] = 17;
  ASSERT_TRUE((*executor)->run(**body, 0).ok());
  ASSERT_TRUE((*executor)->run(**head, 0).ok());
  Reference reference(tiny.graph, kCapacity.context);
  const std::vector<float> expected = reference.forward(std::vector<int32_t>{17}, 0);
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_NEAR((*executor)->logits()[i], expected[i], 1e-5);
  }
}

}  // namespace
}  // namespace hetero
