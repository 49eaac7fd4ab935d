// Measures the processors of a machine with a model's operators, through the same interface and
// clock by which they are used, so that it measures simulated processors too.
#pragma once

#include <atomic>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "processor/processor.h"
#include "profile/profile.h"

namespace hetero {

/// A way to wait for a submission, as the executor waits in that sync mode.
struct SyncMode {
  std::string name;  // "fast", "driver"
  std::function<Status(Processor&, const Fence&)> wait;
};

struct ProfilerOptions {
  std::vector<int64_t> lengths = {1, 32, 64, 128, 256, 512};  // ascending, from 1
  int64_t context = 1024;                                     // the longest that attention is measured with
  int64_t grid = 32;                                          // for ProfiledProcessor::grid
  Nanos time_limit = std::chrono::seconds(60);
  int rounds = 3;  // passes that count, behind a first one that warms up
  /// Products are measured as the paper's profiler does (its Table 3): each is submitted alone and waited
  /// for in the driver's way, and its time is the control thread's for both and the work between.
  bool alone = false;
  std::vector<SyncMode> sync;         // empty: "driver" by Fence::wait, "fast" by polling
  std::vector<std::string> settings;  // ProfiledProcessor::setting, by processor
  const std::atomic<bool>* cancel = nullptr;
  std::function<void(const std::string&, int, int)> progress;  // what, done, total
  /// Called after each piece with what is there so far, to keep it on disk. An error ends measuring.
  std::function<Status(const Profile&)> save;
};

/// How it measures. Operators run in the model's order, in a few layers (all of them where that is
/// little), so that caches are as full of other weights as they are in use; an operator's time is
/// what its queue takes for it, from the end of the one before (but see ProfilerOptions::alone). A driver
/// that gives no times of its own for each submission is measured in rows of equal work.
///
/// NPUs that can exchange the operands of products (Traits::orders) are measured in the order that is usual
/// for them first, which contention and hand-offs are measured in, and in the other one last. A stand-in has
/// no array that holds an operand still, so it is not measured in the other one.
///
/// The pieces that tell most come first, so that a profile cut short by the time limit, by `cancel`
/// or by an error of `save` is usable: Profile::complete is then false, and measure() with it as
/// `known` goes on where it ended. Only what a processor refuses is left out; an error of a
/// processor while it works is returned.
Result<Profile> measure(const Graph& graph, std::span<Processor* const> processors,
                        const ProfileIdentity& identity, const ProfilerOptions& options,
                        const Profile* known = nullptr);

/// Median and median distance from it, without outliers (beyond five such distances).
struct Summary {
  Nanos median{};
  Nanos spread{};
  int samples = 0;
};
Summary summary_of(std::vector<Nanos> samples);

}  // namespace hetero
