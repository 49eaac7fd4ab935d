// Simulated chips as processors of an engine (--soc): they compute real values with this machine's
// CPU, and take the time that the chip would.
#pragma once

#include <string>
#include <vector>

#include "processor/processor.h"

namespace hetero {

/// The processors of the chip `name_or_path`, the CPU first. All live in one virtual time, their clock().
Result<std::vector<FoundProcessor>> find_simulated(const std::string& name_or_path);

}  // namespace hetero
