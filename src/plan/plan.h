// Who does what, as data: for one pass over the model, which processor runs which part of which
// operator, in which order. The runtime executes a plan and decides nothing.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "graph/graph.h"

namespace hetero {

/// Output columns [out_begin, out_end) of operator `op` for rows [token_begin, token_end) of the
/// pass, on one processor.
struct Step {
  int op = 0;
  int processor = 0;  // index into Plan::processors
  int64_t token_begin = 0;
  int64_t token_end = 0;
  int64_t out_begin = 0;
  int64_t out_end = 0;
  /// Rows that are computed, >= token_end - token_begin: a static-shape processor fills its graph
  /// with rows that nobody reads.
  int64_t padded = 0;
  /// The order of the product's operands: OpSlice::exchanged. Of Linear operators only.
  bool exchanged = false;
  /// Steps of other processors whose results this one reads; set by link(). Steps of the same
  /// processor run in the plan's order anyway.
  std::vector<int> after;
  /// By the solver, from the profile; zero where nobody predicted it.
  Nanos predicted{};
};

/// A plan serves every pass of exactly `tokens` rows at any position. The body covers operators
/// before graph.head_begin; a head plan covers the others and its rows are the wanted outputs.
struct Plan {
  std::string strategy;
  bool head = false;
  /// Of a body: whether its result is wanted in the last row only. Then steps of in_last_row() operators
  /// need not cover other rows.
  bool last_row = false;
  int64_t tokens = 0;
  std::vector<std::string> processors;  // ids
  std::vector<Step> steps;
  /// Of the whole pass, and of the best plan with one processor for everything; zero where nobody
  /// predicted them.
  Nanos predicted{};
  Nanos best_single_predicted{};
};

/// Checks that the plan computes every element of every operator's output that is wanted exactly once, in an
/// order in which it is written before it is read, and that padding only runs past the last row.
/// Operators other than Linear can be cut by rows only.
Status validate(const Graph& graph, const Plan& plan);

/// By operator: whether the plan computes it for the last row, where steps may leave out others.
std::vector<bool> for_last_row(const Graph& graph, const Plan& plan);

/// Fills Step::after from the flow of values.
void link(const Graph& graph, Plan& plan);

/// Largest number of rows that any step computes from row 0 on, padding included.
int64_t rows_needed(const Plan& plan);

nlohmann::ordered_json to_json(const Graph& graph, const Plan& plan);
/// Reads what to_json() wrote (or a user edited), validates and links it. Operators go by name.
Result<Plan> plan_from_json(const Graph& graph, const nlohmann::ordered_json& json);

}  // namespace hetero
