// Every OpenCL device of this machine as a GPU processor. A device of type CPU is a stand-in.
#pragma once

#include <vector>

#include "processor/processor.h"

namespace hetero {

/// Real GPUs first, then stand-ins; empty where no OpenCL is installed. Loads the ICD loader.
/// OpenOptions::threads is the number of compute units to use (a sub-device), where the device
/// can be divided; cpus confines the threads of a stand-in.
std::vector<FoundProcessor> find_opencl();

}  // namespace hetero
