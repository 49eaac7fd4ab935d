#include "plan/solver.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace hetero {
namespace {

/// The processors that may take part, in the profile's order.
std::vector<const ProfiledProcessor*> taking_part(const Profile& profile, const SolveOptions& options) {
  std::vector<const ProfiledProcessor*> out;
  const auto named = [](const std::vector<std::string>& list, const ProfiledProcessor& p) {
    return std::any_of(list.begin(), list.end(),
                       [&](const std::string& name) { return name == p.id || name == p.kind; });
  };
  for (const ProfiledProcessor& p : profile.processors) {
    if ((options.processors.empty() || named(options.processors, p)) && !named(options.reserve, p)) {
      out.push_back(&p);
    }
  }
  return out;
}

}  // namespace

Result<Solution> solve(const Graph& graph, const Profile& profile, bool head, int64_t tokens,
                       const SolveOptions& options) {
  const auto processors = taking_part(profile, options);
  const auto can_run = [&](const std::string& id, int op) {
    const ProfiledProcessor* p = profile.find(id);
    return p != nullptr && time_of(*p, work_of(graph, op), 1, 1).has_value() &&
           (!options.can_run || options.can_run(id, op));
  };
  Team team;
  team.can_run = can_run;
  StrategyOptions rules;
  rules.npu_share = options.npu_share;
  for (const ProfiledProcessor* p : processors) {
    std::string& place = p->kind == "cpu" ? team.cpu : p->kind == "gpu" ? team.gpu : team.npu;
    if (place.empty()) {
      place = p->id;
      if (p->kind == "npu" && !p->lengths.empty()) {
        rules.lengths = p->lengths;
        rules.alignment = p->grid;
      }
    }
  }
  Solution solution;
  bool found = false;
  Status why = unavailable("no processor may take part");
  for (const Strategy strategy : {Strategy::kCpu, Strategy::kGpu, Strategy::kNpuPadding, Strategy::kNpuPipe,
                                  Strategy::kLayer, Strategy::kTensor}) {
    if (options.strategy && *options.strategy != strategy) {
      continue;
    }
    auto plan = make_plan(graph, strategy, team, head, tokens, rules);
    if (!plan.ok()) {
      why = plan.status();
      continue;
    }
    const auto prediction = predict(graph, profile, *plan, options.predict);
    if (!prediction.ok()) {
      why = prediction.status();
      continue;
    }
    solution.alternatives.push_back({strategy_name(strategy), prediction->total});
    if (!found || prediction->total < solution.predicted) {
      found = true;
      solution.plan = std::move(plan).value();
      solution.predicted = prediction->total;
      solution.joules = prediction->joules;
      for (size_t i = 0; i < solution.plan.steps.size(); ++i) {
        solution.plan.steps[i].predicted = prediction->steps[i].end - prediction->steps[i].begin;
      }
    }
  }
  if (!found) {
    return why;
  }
  solution.plan.predicted = solution.predicted;
  std::stable_sort(solution.alternatives.begin(), solution.alternatives.end(),
                   [](const Alternative& a, const Alternative& b) { return a.predicted < b.predicted; });
  return solution;
}

}  // namespace hetero
