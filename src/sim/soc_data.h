// The files of soc/, built into the program (CMakeLists.txt makes soc_data.cc from them).
#pragma once

#include <span>

namespace hetero {

struct SocData {
  const char* name;
  const char* json;
};

std::span<const SocData> soc_data();

}  // namespace hetero
