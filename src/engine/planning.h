// Which plans a session runs: the user's own, the solver's where there is a profile of these
// processors and this model, else those of fixed rules.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/devices.h"
#include "plan/columns.h"
#include "plan/solver.h"
#include "profile/profiler.h"

namespace hetero {

struct PlanningOptions {
  std::string profile_file;  // --profile; empty: the cached one, if there is one
  std::string plan_file;     // --plan; empty: none
  std::string cache_dir;     // empty: neither looks for a cached profile nor keeps one
  /// Where there is no profile, and the strategy is the solver's, measures one first, within this time,
  /// and keeps it; zero: does not.
  Nanos measure_within{};
  std::string sync = "fast";
  Objective objective = Objective::kLatency;
  std::vector<std::string> reserve;
  Bytes copy_limit = -1;
  /// Weights in memory over the model's, at most, once a prompt is read: what some processor has a copy of
  /// need not stay as the file has it, unless decoding reads it. 1: once; 0: as much as a quarter of the time
  /// of decoding is worth. Copies count as in the file; a processor's own form may take more.
  double memory_ratio = 0.0;
  double npu_share = 0.5;  // by fixed rules
  int64_t longest_pass = 512;
  const std::atomic<bool>* cancel = nullptr;
  std::function<void(const std::string&, int, int)> progress;
};

/// A processor that is open, and how.
struct OpenProcessor {
  Processor* processor = nullptr;
  OpenOptions options;
};

class Planning {
 public:
  /// Reads or measures what the options ask for. `notices`: what the user must be told. The graph and
  /// the processors outlive it.
  static Result<std::unique_ptr<Planning>> create(const Graph& graph, const Selection& selection,
                                                  bool automatic, std::span<const OpenProcessor> processors,
                                                  const PlanningOptions& options,
                                                  std::vector<std::string>& notices);

  /// The plan of a pass of `tokens` rows, by `selection` as it is now: processors that are no longer in its
  /// team are left out. `all_rows`: whether the logits of all rows of a body are wanted, not just of the
  /// last.
  Result<Plan> plan(const Selection& selection, bool head, int64_t tokens, bool all_rows);

  /// A processor takes `factor` times as long as the profile says, in decoding or in passes of many
  /// rows: plans to come count on that.
  Status rescale(const Selection& selection, const std::string& id, bool decode, double factor);

  /// Whether a profile would be planned by, but there is none, not even a part of one.
  bool lacks_profile() const { return lacks_profile_; }
  /// Measures one quickly and keeps it in the cache, for the next time.
  Status measure_once(std::span<const OpenProcessor> processors, Nanos within,
                      const std::atomic<bool>* cancel);

  /// nullptr: plans are by fixed rules.
  const Profile* profile() const { return profile_ ? &*profile_ : nullptr; }

 private:
  Planning(const Graph& graph, bool automatic, const PlanningOptions& options)
      : graph_(graph), automatic_(automatic), options_(options) {}
  Status read_plans(std::span<const OpenProcessor> processors);
  /// `file`: where the choice is kept; empty: not.
  Status choose_compiled(const Selection& selection, const std::string& file);
  SolveOptions solve_options(const Selection& selection) const;
  /// An error where plans of usual passes need more than memory_ratio.
  Status check_memory(const Selection& selection, std::span<const OpenProcessor> processors);

  const Graph& graph_;
  const bool automatic_;
  PlanningOptions options_;
  std::optional<Profile> profile_;
  bool lacks_profile_ = false;
  std::optional<CompiledColumns> columns_;
  std::map<std::pair<bool, int64_t>, Plan> given_;  // --plan
};

/// Measures the open processors with the model, going on from `known` where that is given, and saves
/// to `file` (unless empty) after every piece.
Result<Profile> measure_profile(const Graph& graph, std::span<const OpenProcessor> processors,
                                const ProfilerOptions& options, const std::string& file,
                                const Profile* known);

/// Where the profile of these processors and this model's shape is kept; empty without a cache.
std::string profile_cache_file(const Graph& graph, std::span<const OpenProcessor> processors,
                               const std::string& cache_dir);

/// Under the same name, the columns that were chosen by it, with a hash of all that the choice follows from.
std::string columns_cache_file(const Graph& graph, std::span<const OpenProcessor> processors,
                               const std::string& cache_dir);

/// Ok, or why plans of these processors, as they are open now, and this model cannot go by the profile.
Status profile_fits(const Profile& profile, const Graph& graph, std::span<const OpenProcessor> processors);

Result<Profile> read_profile(const std::string& file);
/// By a temporary file beside it, so that it is never half written.
Status write_profile(const Profile& profile, const std::string& file);

}  // namespace hetero
