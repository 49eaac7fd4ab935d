// One cut of each operator for all passes. A processor that holds copies of its weights in compiled
// graphs would otherwise need a copy, and seconds of compiling, for every other cut; with one cut,
// any length can be planned at run time and finds its graphs.
#pragma once

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "plan/solver.h"

namespace hetero {

/// A pass that will be run, and how much its time counts.
struct ExpectedPass {
  int64_t tokens = 1;
  double weight = 1.0;
};

/// Those of a run whose longest pass is of so many tokens: decoding and prompts of a few hundred count most.
std::vector<ExpectedPass> usual_passes(int64_t longest);

/// For each operator of the graph and each processor that copies weights: the columns to compile.
/// Chosen from what solve() would choose for each pass alone: those with which the passes, each
/// relative to its best, take the least time in the weighted mean. Empty columns: none.
struct CompiledColumns {
  struct Entry {
    std::string processor;
    std::vector<SolveOptions::Columns> columns;  // by operator; begin == end: none
  };
  std::vector<Entry> entries;

  /// For SolveOptions::compiled: nullopt for processors that do not copy weights.
  std::optional<std::vector<SolveOptions::Columns>> of(const std::string& processor, int op) const;
};

/// Pure and deterministic, as solve(). `options.compiled` is not looked at.
Result<CompiledColumns> choose_columns(const Graph& graph, const Profile& profile,
                                       std::span<const ExpectedPass> passes, const SolveOptions& options);

/// Of all weights of a graph; one that several operators use counts once.
Bytes all_weight_bytes(const Graph& graph);

/// SolveOptions::twice_limit of one decoding pass, of the body or the head, with which all weights in memory
/// are at most `ratio` times the model's: each of the two may have its part of the rest.
Bytes twice_limit(const Graph& graph, bool head, double ratio);

/// Weights in memory over the model's, if these plans run: all copies that they need of processors for which
/// `copies` holds, and of the model's own what others read in the plans of one token; the rest is given back.
/// Bytes as in the file. Graphs for several lengths count once.
double weight_ratio(const Graph& graph, std::span<const Plan> plans,
                    const std::function<bool(const std::string& id)>& copies);

/// To be raised whenever choose_columns() would choose differently from the same: results are kept on disk.
inline constexpr int kColumnsVersion = 2;

/// All that choose_columns() goes by: equal texts, equal results.
std::string columns_key(const Graph& graph, const Profile& profile, std::span<const ExpectedPass> passes,
                        const SolveOptions& options);

nlohmann::ordered_json to_json(const CompiledColumns& columns);
/// Fails where the text is not one of this graph's.
Result<CompiledColumns> columns_from_json(const Graph& graph, const nlohmann::ordered_json& json);

}  // namespace hetero
