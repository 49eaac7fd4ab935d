// One suite that every processor passes: each kind of operator, over dtypes, odd sizes, strided
// buffers, slices, positions and head layouts, against the reference. Tolerances follow from the
// processor's unit roundoff and the norms of the operands (Higham, Accuracy and Stability of
// Numerical Algorithms, section 3.1), not from what a kernel happens to reach.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "processor/processor.h"

namespace hetero {

struct ConformanceReport {
  int passed = 0;
  std::vector<std::string> skipped;   // "case: why the processor does not support it"
  std::vector<std::string> failures;  // "case: what was expected and what was found"
};

struct ConformanceOptions {
  std::string only;  // cases whose name contains this; empty: all
  bool quick = false;  // a subset for slow builds (sanitizers)
};

/// Runs the suite. Cases that the processor does not support are listed as skipped.
ConformanceReport run_conformance(Processor& processor, const ConformanceOptions& options = {});

}  // namespace hetero
