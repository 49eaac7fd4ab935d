// Plans of a body in two parts by rows, so that one processor works on one part while the other has what
// nobody cuts (attention, norms) of the other part. Weights stay cut by columns: a processor works on its
// columns of both parts, so nothing is held twice.
#pragma once

#include <vector>

#include "plan/candidates.h"
#include "plan/plan.h"

namespace hetero {

/// Rows [0, rows) and rows [rows, tokens). Operators other than linear ones stay on members.home or, in
/// further plans, go to the CPU as well. It is not each operator's own time that counts here, but what each
/// processor has to do in all: of each operator's candidates the one is taken with which home and the others
/// are done at about the same time. Which of the plans is best, predict() says. Empty where some operator
/// cannot be cut like this.
std::vector<Plan> plans_in_row_parts(const Graph& graph, const Profile& profile, const Members& members,
                                     int64_t tokens, int64_t rows, const SolveOptions& options);

}  // namespace hetero
