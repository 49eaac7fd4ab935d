// Calendar dates, for what is written to files.
#pragma once

#include <string>

namespace hetero {

/// Of UTC: "2026-11-25".
std::string today();

}  // namespace hetero
