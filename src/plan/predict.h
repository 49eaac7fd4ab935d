// How long a plan will take, by a profile: the executor's own way of working (one control thread
// that waits and submits in the plan's order, one queue for each processor), replayed with measured
// times.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "plan/plan.h"
#include "profile/profile.h"

namespace hetero {

struct PredictOptions {
  int64_t position = 0;       // tokens that the KV cache holds before the pass
  std::string sync = "fast";  // which hand-off costs count: "fast" or "driver"
};

/// From the start of the pass.
struct PredictedStep {
  Nanos begin{};
  Nanos end{};
};

struct Prediction {
  Nanos total{};  // until the control thread has seen the end of all work
  std::vector<PredictedStep> steps;
  std::vector<Nanos> busy;  // by Plan::processors
  /// Joules above idle; nullopt unless the power of every processor in the plan is known.
  std::optional<double> joules;
};

/// Steps that are parts of one operator slow each other down (Profile::together); others are taken
/// not to overlap for long. Fails where the profile lacks a processor or has nothing like a step's
/// work, and says which.
Result<Prediction> predict(const Graph& graph, const Profile& profile, const Plan& plan,
                           const PredictOptions& options = {});

/// Whether the profile has a time for an operator on none of its processors. Such work counts as
/// nothing, and stays on one processor: profiles of a few operators can be planned by.
bool is_unmeasured(const Graph& graph, const Profile& profile, int op);

/// Time of one step, in its order of operands, as if alone in its operator but for `set`, the processors that
/// share it. nullopt where the profile has nothing like it.
std::optional<double> step_ns(const Graph& graph, const Profile& profile, const ProfiledProcessor& processor,
                              std::span<const std::string> set, const Step& step, int64_t position);

/// The same in the faster order of operands, whichever the step has.
std::optional<double> fastest_step_ns(const Graph& graph, const Profile& profile,
                                      const ProfiledProcessor& processor, std::span<const std::string> set,
                                      const Step& step, int64_t position);

/// Gives every step the order of operands that is faster by the profile; the default one where it knows of no
/// other.
void choose_orders(const Graph& graph, const Profile& profile, Plan& plan);

/// What it costs a step on `to` to get what a step on `from` wrote: the hand-off, and copies of `bytes`
/// where one of the two has memory of its own. Negative: it cannot, since the value is the KV cache
/// (`cache`), which is not copied during a pass.
double handoff_ns(const Profile& profile, const ProfiledProcessor& from, const ProfiledProcessor& to,
                  const std::string& sync, Bytes bytes, bool cache);

/// By processor: the number of its lane, from 0. Processors of one lane work one after the other, since
/// together they do no more than one alone (Profile::together): a CPU and a stand-in on the same core.
/// Usually each has its own.
std::vector<size_t> lanes(const Profile& profile, std::span<const ProfiledProcessor* const> processors);

/// The control thread and the queues at one moment of a pass, in nanoseconds from its start.
struct QueueTimes {
  /// Whether the control thread, while it waits for one submission's inputs, makes no other
  /// (sync "driver"); otherwise each queue is fed as soon as its next step can be.
  bool blocking = false;
  double control = 0.0;
  std::vector<double> free;  // by lane: when its queues run empty

  /// A result that a submission waits for: when it is there, and what the hand-off costs.
  struct Wait {
    double finish = 0.0;
    double handoff = 0.0;
  };
  /// Submits `ns` of work to a processor of the lane and returns when it begins. A result that has long
  /// been there costs nothing.
  double submit(size_t lane, double submit_ns, double ns, std::span<const Wait> waits);
};

}  // namespace hetero
