// The processors of this machine, and which of them a strategy takes.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "plan/strategy.h"
#include "processor/processor.h"

namespace hetero {

/// Which kinds to look for. Looking for GPUs and NPUs loads vendors' libraries, which costs time
/// and memory, so that only what may be used is looked for.
struct Discovery {
  bool gpu = true;
  bool npu = true;
};

/// Every processor found, with ids: "cpu", "gpu0", "gpu1", ..., "npu0", ...; real ones before
/// stand-ins.
std::vector<FoundProcessor> find_processors(const Discovery& discovery = {});

/// What the user asked for.
struct Request {
  std::optional<Strategy> strategy;     // nullopt: auto
  std::vector<std::string> processors;  // ids; empty: auto
  /// Whether the CPU rounds activations to 8 bits in products. nullopt: where auto chose the CPU
  /// alone; with a strategy that was named, processors are to compute the same.
  std::optional<bool> int8_activations;
  int threads = 0;  // CPUs to use in all; 0: every one that this process may run on
};

/// What to look for to serve a request.
Discovery needed(const Request& request);

struct Member {
  const FoundProcessor* found = nullptr;
  OpenOptions options;
};

struct Selection {
  Strategy strategy = Strategy::kCpu;
  std::vector<Member> members;  // cpu first, as far as it takes part
  Team team;                    // without can_run
  bool int8_activations = false;
  std::vector<std::string> notices;  // what the user must be told: stand-ins in use
};

/// Decides who takes part. Auto never takes a stand-in; a strategy that needs a GPU or an NPU takes
/// the stand-in where no real one exists, and then confines stand-ins to different CPUs. Ids that
/// do not exist and strategies that nobody can serve are errors.
Result<Selection> select(const std::vector<FoundProcessor>& found, const Request& request);

/// The processors of these ids, or, without ids, all but stand-ins; as far as they run on the CPU's
/// cores, each confined to its part of the first `threads` (0: all) of them. An id that does not
/// exist is an error.
Result<std::vector<Member>> members_of(const std::vector<FoundProcessor>& found,
                                       const std::vector<std::string>& ids, int threads);

}  // namespace hetero
