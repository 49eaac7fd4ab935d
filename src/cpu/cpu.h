// The CPU as a processor: SIMD kernels chosen at run time, on pinned threads.
#pragma once

#include <string>
#include <vector>

#include "processor/processor.h"

namespace hetero {

/// Instruction sets with kernels of their own, from the plainest up. HETERO_CPU=scalar|avx2|...
/// in the environment forces a lower one than the machine's best.
std::vector<std::string> cpu_levels();  // those that this machine can run, ascending

/// The CPU of this machine; always exactly one.
FoundProcessor find_cpu();

}  // namespace hetero
