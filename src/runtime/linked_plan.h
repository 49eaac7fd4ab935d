// The executor's own form of a plan; see executor.h.
#pragma once

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
  const Executable* executable = nullptr;
  int64_t tokens = 0;  // padding included
  int64_t macs = 0;    // at position 0
  std::vector<Binding> inputs;
  std::vector<Binding> outputs;
  /// Head operators read the body's values from a row that is known only at run time.
  bool moves_with_first_row = false;
  std::vector<int> waits;           // earlier steps, at most one for each other processor
  std::vector<Transfer> downloads;  // before the waits: results that only a device has so far
  std::vector<Transfer> uploads;    // after the waits
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
  std::vector<External> externals;
  std::vector<Written> written;
  std::vector<Transfer> final_downloads;  // what the host reads in the end
};

}  // namespace hetero
