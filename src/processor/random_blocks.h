// Random weights in any type's blocks, for tests: every quant pattern, scales and minimums of all
// magnitudes that files have.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>

#include "gguf/dtype.h"

namespace hetero {

/// Fills `count` elements (a multiple of the type's block) at `dst`. Decoded elements have a
/// magnitude of about 1 or less, but for rare blocks whose scale is a subnormal half.
void random_blocks(DType dtype, int64_t count, std::mt19937& random, std::byte* dst);

}  // namespace hetero
