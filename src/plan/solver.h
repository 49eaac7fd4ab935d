// The plan that a profile predicts to be the best (paper section 4.3), for one pass. A pure
// function: equal inputs give equal plans.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "plan/plan.h"
#include "plan/predict.h"
#include "plan/strategy.h"
#include "profile/profile.h"

namespace hetero {

enum class Objective { kLatency, kEnergy };

struct SolveOptions {
  Objective objective = Objective::kLatency;
  /// A strategy of strategy.h by its rules, or, kTensor, the solver's choice between GPU and NPU (the CPU
  /// takes part for what they cannot do, and see beyond_paper).
  /// nullopt: the best of everything.
  std::optional<Strategy> strategy;
  /// Who may take part, by id; empty: everyone in the profile.
  std::vector<std::string> processors;
  /// Left free for other apps: ids or kinds ("gpu").
  std::vector<std::string> reserve;
  PredictOptions predict;  // position and sync
  /// Bytes of weights that processors may hold copies of (ProfiledProcessor::copies_weights);
  /// -1: any.
  Bytes copy_limit = -1;
  /// Whether processor `id` can run operator `op` (engine: Processor::supports). Empty: whatever
  /// the profile has a time for.
  std::function<bool(const std::string& id, int op)> can_run;
  /// The columns of operator `op` that processor `id` has, or will get, a graph for; where it is
  /// set, such a processor takes exactly those or nothing, so that no plan has to compile. Without
  /// a value: any.
  struct Columns {
    int64_t begin = 0;
    int64_t end = 0;
    auto operator<=>(const Columns&) const = default;
  };
  std::function<std::optional<std::vector<Columns>>(const std::string& id, int op)> compiled;
  /// Bytes of weights that others than the processor with a copy (`compiled`) may read, so that they are in
  /// memory twice; 0: none; -1: any. Fails where more must be.
  Bytes twice_limit = -1;
  double npu_share = 0.5;  // of strategies by rules (strategy.h)
  /// Whether to do what the paper does not: cut a pass into two parts by rows, so that one processor works
  /// on one part while the other has what no columns are cut of (attention, norms) of the other part; cut
  /// such operators by rows; and let kTensor have the CPU for them.
  bool beyond_paper = false;
  /// Whether only the last row of a body's result is wanted (Plan::last_row).
  bool last_row = false;
  /// Whether to fill Solution::operators, and alternatives beyond the single processors.
  bool explain = true;
};

struct Alternative {
  std::string strategy;
  Nanos predicted{};
};

/// Why an operator went where it went. One for each distinct work of the graph, in its order.
struct OperatorChoice {
  std::string op;    // the first operator of this work: "blk.0.ffn_down"
  std::string kind;  // "linear", ...
  int64_t out = 0;   // its weight [out, in]; operators without one: columns and 0
  int64_t in = 0;
  int64_t tokens = 0;
  /// cpu, gpu, npu, padding, pipe, weight-centric, activation-centric, hybrid (both cuts, or a cut of
  /// the weight over padded rows).
  std::string strategy;
  std::vector<std::pair<std::string, double>> share;  // processor, part of its elements
  std::vector<std::string> exchanged;                 // processors that exchange the operands of some of it
  Nanos predicted{};                                  // of the operator, hand-offs included
  std::vector<Alternative> rejected;                  // the best of each other strategy, fastest first
};

struct Solution {
  Plan plan;  // with predicted times
  Nanos predicted{};
  std::optional<double> joules;
  std::vector<OperatorChoice> operators;
  std::vector<Alternative> alternatives;  // whole plans, fastest first; the chosen one among them
  Bytes copied_bytes = 0;                 // of weights, by processors that hold copies
  Bytes twice_bytes = 0;                  // of weights that such a processor has and another one reads
  std::vector<std::string> unmeasured;    // work that the profile knows no time of, counted as nothing
};

/// Plans `tokens` rows of the body or the head. Never predicted to be slower than the best plan with
/// one processor for everything (kTensor: for all that is linear, GPU or NPU), unless options exclude that
/// one. Fails where no processor that may take part can run some operator.
Result<Solution> solve(const Graph& graph, const Profile& profile, bool head, int64_t tokens,
                       const SolveOptions& options = {});

}  // namespace hetero
