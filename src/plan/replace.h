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

}  // namespace hetero
