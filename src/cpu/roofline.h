// What this machine's CPU can do at most, for comparison with what kernels reach in the same run:
// multiply-adds from registers, and the bandwidth of plain reads.
#pragma once

#include <string>

#include "base/threads.h"

namespace hetero::cpu {

/// All threads of a pool together. A multiply-add counts as two operations, a gigabyte as 1e9 bytes.
struct Roofline {
  double f32_gflops = 0.0;
  double int8_gops = 0.0;    // 8-bit factors; without VNNI sums have 16 bits, which suits 4-bit weights
  double bf16_gflops = 0.0;  // matrix tiles only (AMX)
  double read_gbs = 0.0;     // from memory that no cache holds
};

/// `level`: the instruction set that kernels use, a name of cpu_levels(). Rates for which that level
/// has no instructions are 0. Takes about a second; the best of many short rounds counts, since
/// others can only make a machine slower.
Roofline measure_roofline(const std::string& level, ThreadPool& pool);

}  // namespace hetero::cpu
