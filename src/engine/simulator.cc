#include "engine/simulator.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "profile/profiler.h"

namespace hetero {
namespace {

/// Lengths for which NPU graphs exist, where the chip does not say. 64 is not among them: Table 3 pads 193 to
/// 255 rows to 256 (1884 us), where 128 and 64 of them one behind the other (912 and 693 us) would have been
/// faster.
const std::vector<int64_t> kLengths = {1, 32, 128, 256, 512, 1024};

double seconds(Nanos t) {
  return static_cast<double>(t.count()) * 1e-9;
}

std::vector<ProcessorUse> difference(std::vector<ProcessorUse> all, const std::vector<ProcessorUse>& before) {
  for (size_t i = 0; i < all.size(); ++i) {
    all[i].busy -= before[i].busy;
    all[i].wait -= before[i].wait;
    all[i].steps -= before[i].steps;
    all[i].macs -= before[i].macs;
  }
  return all;
}

}  // namespace

double SimPhase::tps() const {
  return time.count() > 0 ? static_cast<double>(tokens) / seconds(time) : 0.0;
}
double SimPhase::gbps() const {
  return time.count() > 0 ? bytes * 1e-9 / seconds(time) : 0.0;
}
double SimPhase::watts() const {
  return time.count() > 0 ? joules / seconds(time) : 0.0;
}

Result<std::unique_ptr<Simulator>> Simulator::create(Soc soc, Graph graph,
                                                     std::vector<std::string> processors) {
  for (Weight& w : graph.weights) {
    w.data = nullptr;
  }
  std::unique_ptr<Simulator> simulator(new Simulator(std::move(soc), std::move(graph)));
  const Soc& s = simulator->soc_;
  for (const std::string& id : processors) {
    if (s.find(id) == nullptr) {
      std::vector<std::string> known;
      for (const SocProcessor& p : s.processors) {
        known.push_back(p.id);
      }
      return not_found(
          fmt::format("--processors: {} has no \"{}\", it has {}", s.name, id, fmt::join(known, ", ")));
    }
  }
  if (processors.empty()) {
    for (const SocProcessor& p : s.processors) {
      if (p.kind != "cpu" || s.processors.size() == 1) {
        processors.push_back(p.id);
      }
    }
  }
  simulator->allowed_ = std::move(processors);
  simulator->lengths_ = kLengths;
  for (const SocProcessor& p : s.processors) {
    if (!p.lengths.empty()) {
      simulator->lengths_ = p.lengths;
    }
  }
  return simulator;
}

Simulator::Chip Simulator::chip(bool with_cpu) const {
  Chip chip;
  chip.world = std::make_shared<World>(soc_);
  for (size_t i = 0; i < soc_.processors.size(); ++i) {
    const SocProcessor& p = soc_.processors[i];
    const bool allowed = std::find(allowed_.begin(), allowed_.end(), p.id) != allowed_.end();
    if (allowed || (with_cpu && p.kind == "cpu")) {
      chip.processors.push_back(make_sim_processor(chip.world, i, sim_info(soc_, i), nullptr));
      chip.list.push_back(chip.processors.back().get());
    }
  }
  return chip;
}

Team Simulator::team(bool with_cpu) const {
  Team team;
  for (const SocProcessor& p : soc_.processors) {
    const bool allowed = std::find(allowed_.begin(), allowed_.end(), p.id) != allowed_.end();
    std::string& place = p.kind == "cpu" ? team.cpu : p.kind == "gpu" ? team.gpu : team.npu;
    if (place.empty() && (allowed || (with_cpu && p.kind == "cpu"))) {
      place = p.id;
    }
  }
  return team;
}

Result<const Profile*> Simulator::profile(OperandOrder order) {
  const auto found = profiles_.find(order);
  if (found != profiles_.end()) {
    return &found->second;
  }
  const Chip chip = this->chip(false);
  ProfilerOptions options;
  options.lengths = lengths_;
  options.context = 2048;
  options.rounds = 1;  // virtual time has no spread
  options.alone = soc_.profile_alone > 0.0;
  options.time_limit = std::chrono::hours(24);  // of virtual time
  const ProfileIdentity identity{soc_.title, model_shape_key(graph_), "", true};
  HETERO_TRY(Profile measured, measure(graph_, chip.list, identity, options));
  for (ProfiledProcessor& p : measured.processors) {
    p.watts = soc_.find(p.id)->watts;
    p.ratios = soc_.find(p.id)->ratios;
    for (Series& s : p.series) {
      std::erase_if(s.points, [&](const Point& at) { return at.exchanged && order == OperandOrder::kGiven; });
    }
  }
  return &profiles_.emplace(order, std::move(measured)).first->second;
}

Result<Plan> Simulator::plan(const SimRun& run, bool head, int64_t tokens, int64_t position) {
  Team team = this->team(run.strategy == Strategy::kCpu);
  if (run.order == OperandOrder::kExchanged) {
    team.npu_orders = OperandOrders::kSmallerStays;
  }
  StrategyOptions fixed;
  fixed.lengths = lengths_;
  if (run.activation_centric_only && tokens > 1 && !head) {
    fixed.npu_share = 1.0;
    return make_plan(graph_, Strategy::kTensor, team, head, tokens, fixed);
  }
  if (run.strategy && *run.strategy != Strategy::kTensor) {
    return make_plan(graph_, *run.strategy, team, head, tokens, fixed);
  }
  HETERO_TRY(const Profile* const profile, this->profile(run.order));
  SolveOptions options;
  options.strategy = run.strategy;
  options.predict.position = position;
  options.predict.sync = sync_name(run.planned_for.value_or(run.sync));
  options.explain = false;
  HETERO_TRY(Solution solution, solve(graph_, *profile, head, tokens, options));
  return std::move(solution.plan);
}

Result<SimResult> Simulator::run(const SimRun& run) {
  const int64_t context = run.prompt + run.decode;
  if (run.prompt < 1 || run.decode < 0 || context > graph_.shape.context) {
    return invalid_argument(fmt::format("{} tokens of prompt and {} to decode: {} holds {}", run.prompt,
                                        run.decode, graph_.shape.name, graph_.shape.context));
  }
  Chip chip = this->chip(run.strategy == Strategy::kCpu);
  World& world = *chip.world;
  const int64_t longest = std::min(lengths_.back(), std::max(run.prompt, lengths_.front()));
  const int64_t rows = *std::lower_bound(lengths_.begin(), lengths_.end(), longest);
  HETERO_TRY(const auto executor, Executor::create(graph_, chip.list, {rows, 32, context}));
  executor->set_sync(run.sync);

  SimResult result;
  std::map<std::pair<bool, int64_t>, const LinkedPlan*> plans;
  const auto linked = [&](bool head, int64_t tokens) -> Result<const LinkedPlan*> {
    const LinkedPlan*& known = plans[{head, tokens}];
    if (known == nullptr) {
      HETERO_TRY(const Plan plan, this->plan(run, head, tokens, tokens == 1 ? run.prompt : 0));
      if (result.strategy.empty() && !head) {
        result.strategy = plan.strategy;
      }
      const Nanos begin = world.now();
      HETERO_TRY(known, executor->prepare(plan));
      result.prefill.compiling += world.now() - begin;
    }
    return known;
  };
  const auto pass = [&](int64_t tokens, int64_t position) -> Status {
    HETERO_TRY(const LinkedPlan* const body, linked(false, tokens));
    return executor->run(*body, position);
  };
  const auto output = [&](int64_t row) -> Status {
    HETERO_TRY(const LinkedPlan* const head, linked(true, 1));
    return executor->run(*head, 0, row);
  };
  const auto prefill = [&]() -> Status {
    int64_t last = 0;
    for (int64_t done = 0; done < run.prompt; done += last) {
      last = std::min(lengths_.back(), run.prompt - done);
      HETERO_RETURN_IF_ERROR(pass(last, done));
    }
    return output(last - 1);
  };

  // Graphs are made ahead, and a first prompt teaches the executor what steps take, except where
  // making graphs for each prompt is the strategy.
  const bool online = run.strategy == Strategy::kNpuOnline;
  if (!online) {
    HETERO_RETURN_IF_ERROR(prefill());
    if (run.decode > 0) {
      HETERO_RETURN_IF_ERROR(pass(1, run.prompt));
    }
  }
  executor->set_trace(run.trace);
  result.prefill.compiling = {};
  if (run.game) {
    HETERO_RETURN_IF_ERROR(world.start_game(run.game_frame_ms));
  }

  const auto measured = [&](SimPhase& phase, int64_t tokens, const std::function<Status()>& work) -> Status {
    const std::vector<ProcessorUse> use = executor->use();
    const double joules = world.energy().total();
    const double bytes = world.bytes();
    const Nanos begin = world.now();
    (void)world.take_game();
    HETERO_RETURN_IF_ERROR(work());
    phase.tokens = tokens;
    phase.time = world.now() - begin;
    phase.joules = world.energy().total() - joules;
    phase.bytes = world.bytes() - bytes;
    phase.use = difference(executor->use(), use);
    if (run.game) {
      phase.game = world.take_game();
    }
    return {};
  };
  HETERO_RETURN_IF_ERROR(measured(result.prefill, run.prompt, prefill));
  const auto decode = [&]() -> Status {
    for (int64_t t = 0; t < run.decode; ++t) {
      HETERO_RETURN_IF_ERROR(pass(1, run.prompt + t));
      HETERO_RETURN_IF_ERROR(output(0));
    }
    return {};
  };
  HETERO_RETURN_IF_ERROR(measured(result.decode, run.decode, decode));
  return result;
}

}  // namespace hetero
