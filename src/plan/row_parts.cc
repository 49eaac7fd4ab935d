#include "plan/row_parts.h"

#include <algorithm>
#include <array>

namespace hetero {
namespace {

constexpr int kBisections = 12;

/// Of home, and of the others.
std::array<double, 2> loads(const Members& members, const Candidate& c) {
  std::array<double, 2> load{};
  for (const Part& part : c.parts) {
    load[part.processor == members.home ? 0 : 1] += part.ns;
  }
  return load;
}

/// `price` of home's time; 1 - price of the others'.
const Candidate& cheapest(const Members& members, const std::vector<Candidate>& list, double price) {
  return *std::min_element(list.begin(), list.end(), [&](const Candidate& a, const Candidate& b) {
    const auto cost = [&](const Candidate& c) {
      const auto load = loads(members, c);
      return price * load[0] + (1.0 - price) * load[1];
    };
    return cost(a) < cost(b);
  });
}

/// `joined`: where a processor takes any number of rows, it computes those of both parts of a linear
/// operator at once, behind the others' (products of many rows are faster for each row).
Plan assemble(const Graph& graph, const Members& members, std::vector<CandidateLists>& lists, int64_t tokens,
              int64_t rows, double price, bool joined) {
  Plan plan;
  plan.tokens = tokens;
  for (const ProfiledProcessor* p : members.processors) {
    plan.processors.push_back(p->id);
  }
  for (int op = 0; op < graph.head_begin; ++op) {
    const auto first = static_cast<int64_t>(plan.steps.size());
    for (CandidateLists& list : lists) {
      const int64_t before = &list == &lists.front() ? 0 : rows;
      for (const Part& part : cheapest(members, list.of(op), price).parts) {
        Step step;
        step.op = op;
        step.processor = part.processor;
        step.token_begin = before + part.token_begin;
        step.token_end = before + part.token_end;
        step.out_begin = part.out_begin;
        step.out_end = part.out_end;
        step.padded = part.padded;
        const auto same = std::find_if(plan.steps.begin() + first, plan.steps.end(), [&](const Step& s) {
          return s.processor == step.processor && s.out_begin == step.out_begin &&
                 s.out_end == step.out_end && s.token_end == step.token_begin;
        });
        if (joined && graph.op(op).is<Linear>() && same != plan.steps.end() &&
            !members.processors[static_cast<size_t>(part.processor)]->static_shapes) {
          step.token_begin = same->token_begin;
          step.padded += same->padded;
          plan.steps.erase(same);
        }
        plan.steps.push_back(std::move(step));
      }
    }
  }
  return plan;
}

/// `with_cpu`: for operators other than linear ones.
std::vector<Plan> balanced(const Graph& graph, const Profile& profile, const Members& members, int64_t tokens,
                           int64_t rows, const SolveOptions& options, bool with_cpu) {
  std::vector<CandidateLists> lists;
  for (const int64_t part : {rows, tokens - rows}) {
    const bool first = lists.empty();
    SolveOptions of_part = options;
    of_part.predict.position += first ? 0 : rows;
    CandidateLists& list = lists.emplace_back(graph, profile, members, part, of_part);
    for (int op = 0; op < graph.head_begin; ++op) {
      list.drop(op, [&](const Candidate& c) {
        return std::any_of(c.parts.begin(), c.parts.end(), [&](const Part& p) {
          // Padding of the first part would lie where the second one is.
          const bool in_the_way = first && p.padded > p.token_end - p.token_begin;
          const bool cpu = with_cpu && members.processors[static_cast<size_t>(p.processor)]->kind == "cpu";
          return in_the_way || (!graph.op(op).is<Linear>() &&
                                (c.parts.size() > 1 || (p.processor != members.home && !cpu)));
        });
      });
      if (list.of(op).empty()) {
        return {};
      }
    }
  }
  double low = 0.0;  // home has more to do than the others
  double high = 1.0;
  for (int i = 0; i < kBisections; ++i) {
    const double price = (low + high) / 2;
    std::array<double, 2> load{};
    for (CandidateLists& list : lists) {
      for (int op = 0; op < graph.head_begin; ++op) {
        const auto more = loads(members, cheapest(members, list.of(op), price));
        load[0] += more[0];
        load[1] += more[1];
      }
    }
    (load[0] > load[1] ? low : high) = price;
  }
  std::vector<Plan> plans;
  for (const double price : {low, high}) {
    for (const bool joined : {false, true}) {
      plans.push_back(assemble(graph, members, lists, tokens, rows, price, joined));
    }
  }
  return plans;
}

}  // namespace

std::vector<Plan> plans_in_row_parts(const Graph& graph, const Profile& profile, const Members& members,
                                     int64_t tokens, int64_t rows, const SolveOptions& options) {
  std::vector<Plan> plans = balanced(graph, profile, members, tokens, rows, options, false);
  const bool cpu = std::any_of(members.processors.begin(), members.processors.end(),
                               [](const ProfiledProcessor* p) { return p->kind == "cpu"; });
  if (cpu && members.processors[static_cast<size_t>(members.home)]->kind != "cpu") {
    auto more = balanced(graph, profile, members, tokens, rows, options, true);
    std::move(more.begin(), more.end(), std::back_inserter(plans));
  }
  return plans;
}

}  // namespace hetero
