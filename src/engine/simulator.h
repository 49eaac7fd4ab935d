// A model on a simulated chip: the real profiler, solver, executor and synchronization, in virtual
// time. Weights have no data, so a model of any size needs no file, and what is computed is time only.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "graph/graph.h"
#include "plan/solver.h"
#include "plan/strategy.h"
#include "profile/profile.h"
#include "runtime/executor.h"
#include "sim/sim_processor.h"
#include "sim/soc.h"

namespace hetero {

struct SimRun {
  int64_t prompt = 256;
  int64_t decode = 32;               // tokens after the prompt
  std::optional<Strategy> strategy;  // nullopt: the best of all by the solver
  Sync sync = Sync::kFast;
  /// Whose hand-off costs the solver counts; nullopt: those of `sync`. Otherwise a way of synchronizing
  /// is compared with another under one plan.
  std::optional<Sync> planned_for;
  /// kGiven: no plan exchanges operands (a step of the paper's ablation).
  OperandOrder order = OperandOrder::kExchanged;
  /// Strategy tensor without cuts of weights: whole operators on the NPU, and the rows beyond the
  /// largest standard length on the GPU at the same time (a step of the paper's ablation).
  bool activation_centric_only = false;
  bool game = false;
  double game_frame_ms = 0.0;  // 0: as the chip's file says
  Trace* trace = nullptr;
};

struct SimPhase {
  int64_t tokens = 0;
  Nanos time{};
  Nanos compiling{};  // of it
  double joules = 0.0;
  double bytes = 0.0;  // to and from memory
  std::optional<World::GameSeen> game;
  std::vector<ProcessorUse> use;  // by processor of the chip
  double tps() const;
  double gbps() const;
  double watts() const;
};

struct SimResult {
  std::string strategy;
  SimPhase prefill;  // until the first token
  SimPhase decode;
  Nanos predicted_prefill{};  // by the plan; zero: it made no prediction
};

/// One chip and one model. One thread.
class Simulator {
 public:
  /// The graph's weights must have no data (graph_of_shape), or it is dropped. `processors`: ids that
  /// may take part; empty: all but the CPU, which is the control plane, unless there is nothing else.
  static Result<std::unique_ptr<Simulator>> create(Soc soc, Graph graph,
                                                   std::vector<std::string> processors = {});

  const Soc& soc() const { return soc_; }
  const Graph& graph() const { return graph_; }

  Result<SimResult> run(const SimRun& run);

  /// What the profiler measures of the chip's processors with this model; kGiven: without exchanged operands.
  Result<const Profile*> profile(OperandOrder order = OperandOrder::kExchanged);

 private:
  Simulator(Soc soc, Graph graph) : soc_(std::move(soc)), graph_(std::move(graph)) {}
  struct Chip {
    std::shared_ptr<World> world;
    std::vector<std::unique_ptr<Processor>> processors;
    std::vector<Processor*> list;
  };
  Chip chip(bool with_cpu) const;
  Team team(bool with_cpu) const;
  Result<Plan> plan(const SimRun& run, bool head, int64_t tokens, int64_t position);

  Soc soc_;
  Graph graph_;
  std::vector<std::string> allowed_;  // ids
  /// For which NPU graphs exist; the last is the longest pass: longer prompts are fed in several.
  std::vector<int64_t> lengths_;
  std::map<OperandOrder, Profile> profiles_;
};

}  // namespace hetero
