// NPUs: processors that run graphs compiled for one static shape, through vendors' providers.
#pragma once

#include <vector>

#include "processor/processor.h"

namespace hetero {

/// Real NPUs first, then stand-ins; empty where no provider's library is installed.
std::vector<FoundProcessor> find_npu();

}  // namespace hetero
