// Block formats to f32, bit-exact with the formats' definition: the slow, plain truth that every
// faster kernel is tested against.
#pragma once

#include <cstddef>
#include <cstdint>

#include "gguf/dtype.h"

namespace hetero {

/// Decodes `count` elements (a multiple of the type's block) of `dtype` from `src` into `dst`.
/// Does not allocate; src and dst must not overlap; src needs no alignment.
void dequantize(DType dtype, const std::byte* src, int64_t count, float* dst);

}  // namespace hetero
