// Which kernels this machine can run, and what it says about itself.
#pragma once

#include <string>
#include <vector>

#include "base/status.h"
#include "cpu/kernels.h"

namespace hetero::cpu {

/// What /proc/cpuinfo says of the first CPU. The kernel lists only what it lets programs use.
struct CpuDescription {
  std::string name;
  std::vector<std::string> flags;
};
CpuDescription describe_cpu();

/// Kernels for instruction sets among `flags`, ascending. The first is always "scalar".
std::vector<const Kernels*> kernels_for(const std::vector<std::string>& flags);

/// The best of `kernels`, or the one that the environment variable HETERO_CPU names (`wanted`;
/// null or empty: not set).
Result<const Kernels*> choose_kernels(const std::vector<const Kernels*>& kernels, const char* wanted);

}  // namespace hetero::cpu
