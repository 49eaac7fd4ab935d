// Plans by fixed rules: the paper's strategies with given ratios, without measurement.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "plan/plan.h"
#include "processor/processor.h"

namespace hetero {

enum class Strategy {
  kCpu,         // everything on the CPU
  kGpu,         // everything on the GPU
  kNpuOnline,   // linear operators on the NPU, graphs for exactly the prompt's length (section 2.2.2)
  kNpuPadding,  // ... padded to the next standard length
  kNpuPipe,     // ... as a row of standard lengths, the last one padded
  kLayer,       // prefill: linear operators on the NPU, all others on the GPU; decode: GPU (section 4.1.1)
  kTensor,      // each linear operator cut between GPU and NPU (section 4.1.2)
};

const char* strategy_name(Strategy strategy);
std::optional<Strategy> strategy_from_name(const std::string& name);

/// Whether a strategy uses a GPU, an NPU.
bool uses_gpu(Strategy strategy);
bool uses_npu(Strategy strategy);

/// Who takes part. Empty ids: absent. Which are needed depends on the strategy.
struct Team {
  std::string cpu;
  std::string gpu;
  std::string npu;
  /// Whether processor `id` can run operator `op`. What a GPU cannot is the CPU's, what an NPU
  /// cannot is done as without an NPU. Empty: everyone can run everything, NPUs linear operators.
  std::function<bool(const std::string& id, int op)> can_run;
  OperandOrders npu_orders = OperandOrders::kOne;  // see usually_exchanged()
};

struct StrategyOptions {
  /// Rows for which NPU graphs exist, ascending.
  std::vector<int64_t> lengths = {1, 32, 64, 128, 256, 512};
  /// Weight-centric: the part of each weight's rows that the NPU takes, and the grid that the cut
  /// lies on (the NPU's tiles; also block and cache lines).
  double npu_share = 0.5;
  int64_t alignment = 32;
  bool last_row = false;  // whether only the last row of a body's result is wanted (Plan::last_row)
};

/// The plan of `strategy` for `tokens` rows of the body or the head. Fails where the team lacks a
/// processor, or where tokens exceed the largest standard length that the strategy needs.
Result<Plan> make_plan(const Graph& graph, Strategy strategy, const Team& team, bool head, int64_t tokens,
                       const StrategyOptions& options = {});

}  // namespace hetero
