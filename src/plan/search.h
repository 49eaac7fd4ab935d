// The best choice of candidates for a whole row of operators: a dynamic program over the operators
// in their order, which knows where every live value is and when, and so counts hand-offs and lets
// independent work overlap exactly as predict() does.
#pragma once

#include <vector>

#include "plan/candidates.h"

namespace hetero {

struct SearchResult {
  std::vector<int> choices;  // by operator of `ops`: index into its candidates; empty: impossible
  double ns = 0.0;
  double joules = 0.0;
};

/// `ops` in the graph's order, `choices[i]` the candidates of ops[i], none of them empty. Values from
/// operators outside of `ops` are there from the start. Keeps at most `width` partial plans for each
/// operator: the best ones that no other beats in every respect. Exact where that suffices.
SearchResult search(const Graph& graph, const Profile& profile, const Members& members,
                    const std::vector<int>& ops, const std::vector<std::vector<Candidate>>& candidates,
                    const SolveOptions& options, size_t width = 64);

}  // namespace hetero
