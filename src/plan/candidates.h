// The ways in which one operator can be computed by the processors of a profile: the paper's
// strategies for an operator (section 4.1.2), for any number of processors.
#pragma once

#include <functional>
#include <map>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "plan/solver.h"

namespace hetero {

/// A step that is not in a plan yet. `processor` is an index into the processors that take part.
struct Part {
  int processor = 0;
  int64_t token_begin = 0;
  int64_t token_end = 0;
  int64_t out_begin = 0;
  int64_t out_end = 0;
  int64_t padded = 0;
  double ns = 0.0;  // while the other parts run
};

struct Candidate {
  std::vector<Part> parts;
};

/// Who plans: the processors that take part, and the one on which operators stay that nobody cuts.
struct Members {
  std::vector<const ProfiledProcessor*> processors;
  int home = 0;  // the GPU, else the CPU, else the first
};

/// The processors that options let take part, in the profile's order.
Members taking_part(const Profile& profile, const SolveOptions& options);

/// Bytes of the operator's columns [out_begin, out_end) of which another of the members than `id` has copies
/// (SolveOptions::compiled): in memory twice if `id` reads them.
Bytes twice_bytes(const Graph& graph, const Members& members, const SolveOptions& options,
                  const std::string& id, int op, int64_t out_begin, int64_t out_end);

/// cpu, gpu, npu, padding, pipe, weight-centric, activation-centric or hybrid.
std::string classify(const Members& members, std::span<const Part> parts, int64_t tokens, int64_t cols);

/// The paper's T of one operator: its slowest processor's time, and a hand-off back to `home` where
/// another one takes part.
double operator_ns(const Profile& profile, const Members& members, const Candidate& candidate,
                   const std::string& sync);

/// All sensible candidates of an operator, without duplicates, in a fixed order. Cuts lie where the
/// processors' times are equal, and one grid step to either side; where there are few places to cut,
/// everywhere. Empty: nobody can run it.
std::vector<Candidate> candidates(const Graph& graph, const Profile& profile, const Members& members, int op,
                                  int64_t tokens, const SolveOptions& options);

/// candidates() of a pass's operators, found once for equal ones: unless processors have graphs for, or can
/// run, others. The graph, the profile and the members outlive it.
class CandidateLists {
 public:
  CandidateLists(const Graph& graph, const Profile& profile, const Members& members, int64_t tokens,
                 const SolveOptions& options)
      : graph_(&graph), profile_(&profile), members_(&members), tokens_(tokens), options_(options) {}

  const std::vector<Candidate>& of(int op);
  /// For all operators equal to this one.
  void drop(int op, const std::function<bool(const Candidate&)>& unwanted);

 private:
  using Key = std::tuple<Work, int64_t, std::vector<bool>, std::vector<SolveOptions::Columns>>;
  Key key_of(int op) const;

  const Graph* graph_;
  const Profile* profile_;
  const Members* members_;
  int64_t tokens_;
  SolveOptions options_;
  std::map<int, Key> keys_;  // by operator
  std::map<Key, std::vector<Candidate>> lists_;
};

}  // namespace hetero
