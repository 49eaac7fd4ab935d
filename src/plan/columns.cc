#include "plan/columns.h"

#include <algorithm>
#include <limits>
#include <map>
#include <set>

#include "plan/candidates.h"

namespace hetero {
namespace {

using Columns = SolveOptions::Columns;

/// What one processor computes of an operator in a plan; nothing unless that is one range.
std::optional<Columns> columns_in(const Plan& plan, int op, const std::string& processor) {
  std::optional<Columns> found;
  for (const Step& step : plan.steps) {
    if (step.op == op && plan.processors[static_cast<size_t>(step.processor)] == processor) {
      const Columns here{step.out_begin, step.out_end};
      if (found && *found != here) {
        return std::nullopt;
      }
      found = here;
    }
  }
  return found;
}

}  // namespace

std::optional<std::vector<Columns>> CompiledColumns::of(const std::string& processor, int op) const {
  for (const Entry& e : entries) {
    if (e.processor == processor) {
      const Columns& c = e.columns[static_cast<size_t>(op)];
      return c.begin < c.end ? std::vector<Columns>{c} : std::vector<Columns>{};
    }
  }
  return std::nullopt;
}

Result<CompiledColumns> choose_columns(const Graph& graph, const Profile& profile,
                                       std::span<const ExpectedPass> passes, const SolveOptions& options) {
  SolveOptions free = options;
  free.compiled = nullptr;
  free.explain = false;
  CompiledColumns out;
  const auto count = static_cast<int>(graph.ops.size());
  const Members members = taking_part(profile, options);
  for (const ProfiledProcessor* p : members.processors) {
    if (p->copies_weights) {
      out.entries.push_back({p->id, std::vector<Columns>(static_cast<size_t>(count))});
    }
  }
  if (out.entries.empty()) {
    return out;
  }
  // What each pass would like: by processor and kind of work.
  using Key = std::pair<std::string, Work>;
  std::map<Key, std::set<Columns>> wanted;
  for (const ExpectedPass& pass : passes) {
    for (const bool head : {false, true}) {
      HETERO_TRY(const Solution solution, solve(graph, profile, head, head ? 1 : pass.tokens, free));
      for (int op = head ? graph.head_begin : 0; op < (head ? count : graph.head_begin); ++op) {
        for (const auto& e : out.entries) {
          if (const auto columns = columns_in(solution.plan, op, e.processor)) {
            wanted[{e.processor, work_of(graph, op)}].insert(*columns);
          }
        }
      }
    }
  }
  // The one that suits all passes best, for the first operator of each kind of work.
  std::map<Key, Columns> chosen;
  for (int op = 0; op < count; ++op) {
    const Work work = work_of(graph, op);
    for (auto& e : out.entries) {
      const Key key{e.processor, work};
      if (const auto known = chosen.find(key); known != chosen.end()) {
        e.columns[static_cast<size_t>(op)] = known->second;
        continue;
      }
      Columns best{};
      double least = std::numeric_limits<double>::max();
      for (const Columns& columns : wanted[key]) {
        double sum = 0.0;
        for (const ExpectedPass& pass : passes) {
          const int64_t tokens = graph.in_head(op) ? 1 : pass.tokens;
          const auto fastest = [&](const SolveOptions& o) {
            double t = std::numeric_limits<double>::max();
            for (const Candidate& c : candidates(graph, profile, members, op, tokens, o)) {
              t = std::min(t, operator_ns(profile, members, c, o.predict.sync));
            }
            return t;
          };
          SolveOptions bound = free;
          bound.compiled = [&](const std::string& id, int) -> std::optional<std::vector<Columns>> {
            return id == e.processor ? std::optional(std::vector<Columns>{columns}) : std::nullopt;
          };
          sum += pass.weight * fastest(bound) / std::max(1.0, fastest(free));
        }
        if (sum < least) {
          least = sum;
          best = columns;
        }
      }
      chosen[key] = best;
      e.columns[static_cast<size_t>(op)] = best;
    }
  }
  return out;
}

}  // namespace hetero
