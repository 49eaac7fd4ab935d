// The report of a characterization: a summary in plain words, the plots, the numbers.
#pragma once

#include <string>
#include <vector>

#include "profile/characterize.h"
#include "report/report.h"

namespace hetero {

/// What the chip is good at, what limits decoding and prefill, and which strategy will win.
std::vector<std::string> summary_of(const Characterization& c);

Report characterize_report(const Characterization& c);

}  // namespace hetero
