// The executor's own form of a plan; see executor.h.
#pragma once

#include <memory>
#include <vector>

#include "plan/plan.h"
#include "processor/processor.h"

namespace hetero {

/// A copy between the host's memory and that of a device with memory of its own.
struct Transfer {
  int processor = 0;
  Buffer* buffer = nullptr;
  Region region;
};

struct LinkedStep {
  int op = 0;
  int processor = 0;
  std::shared_ptr<const Executable> executable;
  int64_t tokens = 0;  // padding included
  int64_t first_row = 0;
  int64_t first_column = 0;
  int64_t columns = 0;  // of each output
  int64_t macs = 0;     // at position 0
  int time = 0;         // in StepTimes
  Nanos predicted{};    // by the plan; zero: not known
  std::vector<Binding> inputs;
  std::vector<Binding> outputs;
  /// Head operators read the body's values from a row that is known only at run time.
  bool moves_with_first_row = false;
  /// Another processor's step waits for this one.
  bool awaited = false;
  /// Another processor has a part of the same operator.
  bool shared = false;
  std::vector<int> waits;           // earlier steps of other processors, at most one for each
  std::vector<Transfer> uploads;    // before the step: what others wrote
  std::vector<Transfer> downloads;  // behind the step: what others or the host read of its results
};

class LinkedPlan {
 public:
  struct External {  // a value written before this plan runs
    ValueId value;
    int processor;  // that reads it
  };
  struct Written {  // a value that outlives the plan
    ValueId value;
    int processor;  // all of it; -1: several, all of it is in host memory
  };

  bool head = false;
  int64_t tokens = 0;
  std::vector<LinkedStep> steps;
  std::vector<std::vector<int>> queues;  // by processor: its steps, in order
  std::vector<External> externals;
  std::vector<Written> written;
};

}  // namespace hetero
