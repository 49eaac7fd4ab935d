#include "plan/replace.h"

#include <algorithm>

namespace hetero {

Plan replace_operators(const Graph& graph, const Plan& plan, const std::function<bool(const Step&)>& keeps,
                       const std::function<std::string(int op)>& to) {
  Plan result = plan;
  result.steps.clear();
  result.predicted = {};  // of another plan
  result.best_single_predicted = {};
  for (size_t begin = 0; begin < plan.steps.size();) {
    size_t end = begin;
    bool whole = true;  // all steps of the operator stay
    for (; end < plan.steps.size() && plan.steps[end].op == plan.steps[begin].op; ++end) {
      whole = whole && keeps(plan.steps[end]);
    }
    if (whole) {
      result.steps.insert(result.steps.end(), plan.steps.begin() + static_cast<int64_t>(begin),
                          plan.steps.begin() + static_cast<int64_t>(end));
    } else {
      Step step;
      step.op = plan.steps[begin].op;
      const std::string id = to(step.op);
      const auto found = std::find(result.processors.begin(), result.processors.end(), id);
      step.processor = static_cast<int>(found - result.processors.begin());
      if (found == result.processors.end()) {
        result.processors.push_back(id);
      }
      step.token_end = plan.tokens;
      step.padded = plan.tokens;
      step.out_end = graph.output_cols(step.op);
      result.steps.push_back(step);
    }
    begin = end;
  }
  link(graph, result);
  return result;
}

Plan keep_last_row(const Graph& graph, const Plan& plan,
                   const std::function<bool(const std::string& processor)>& is_static) {
  if (plan.head || plan.tokens == 1) {
    return plan;
  }
  const std::vector<bool> narrow = in_last_row(graph);
  Plan result = plan;
  result.last_row = true;
  result.steps.clear();
  for (Step step : plan.steps) {
    if (narrow[static_cast<size_t>(step.op)]) {
      if (step.token_end < plan.tokens) {
        continue;
      }
      if (!is_static(plan.processors[static_cast<size_t>(step.processor)])) {
        step.token_begin = plan.tokens - 1;
        step.padded = 1;
      }
    }
    result.steps.push_back(std::move(step));
  }
  link(graph, result);
  return result;
}

Plan with_all_rows(const Graph& graph, const Plan& plan) {
  const std::vector<bool> narrow = for_last_row(graph, plan);
  Plan result = plan;
  result.last_row = false;
  result.predicted = {};
  result.best_single_predicted = {};
  for (Step& step : result.steps) {
    if (narrow[static_cast<size_t>(step.op)] && step.token_begin > 0) {
      step.token_begin = 0;
      step.padded = plan.tokens;
      step.predicted = {};
    }
  }
  link(graph, result);
  return result;
}

}  // namespace hetero
