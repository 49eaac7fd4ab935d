// Plans changed without making them anew.
#pragma once

#include <functional>
#include <string>

#include "plan/plan.h"

namespace hetero {

/// `plan`, with every operator that has a step which `keeps` refuses given to processor `to(op)` as a
/// whole. For work whose processor is not ready for it yet, or lost.
Plan replace_operators(const Graph& graph, const Plan& plan, const std::function<bool(const Step&)>& keeps,
                       const std::function<std::string(int op)>& to);

/// `plan` for its last row alone (Plan::last_row): steps that compute other rows of in_last_row() operators
/// leave these out. Those of processors that `is_static` compute as many rows as before, for which they have
/// graphs. Heads and plans for one row stay as they are.
Plan keep_last_row(const Graph& graph, const Plan& plan,
                   const std::function<bool(const std::string& processor)>& is_static);

/// Such a plan with all rows again, by the same processors; others stay as they are but for predictions.
Plan with_all_rows(const Graph& graph, const Plan& plan);

}  // namespace hetero
