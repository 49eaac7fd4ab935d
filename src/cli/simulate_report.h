// The HTML page of `hetero simulate --html`.
#pragma once

#include <vector>

#include "engine/simulator.h"
#include "report/report.h"

namespace hetero {

/// `trace`: of the run, where there was only one.
Report simulate_report(const Simulator& simulator, const std::vector<SimResult>& results, const SimRun& run,
                       const Trace& trace);

}  // namespace hetero
