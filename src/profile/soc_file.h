// A chip's file (sim/soc.h) from what was measured of a machine, so that the simulator can predict it.
#pragma once

#include <nlohmann/json.hpp>

#include "profile/characterize.h"

namespace hetero {

/// What only the caller can measure.
struct ControlThread {
  Nanos sleep_grain{};  // by which a sleep ends late
  Nanos poll{};         // one look at a flag
};

/// Every number's basis is "measured". Power is left out: nothing here measures it.
nlohmann::ordered_json soc_file(const Characterization& c, const ControlThread& control);

}  // namespace hetero
