// f32 to block formats, by the formats' reference rounding.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/status.h"
#include "gguf/dtype.h"

namespace hetero {

/// Encodes `count` elements (a multiple of the type's block) into `dst`. Q4_0, Q4_1, Q5_0, Q5_1 and
/// Q8_0 give the bytes of the formats' reference; Q4_K and Q6_K are described in quantize_k.h. A value
/// that is not finite, or too large for the type's f16 scales, is an error that says which. Types
/// without an encoder here give Code::kUnsupported.
Status quantize(DType dtype, const float* src, int64_t count, std::byte* dst);

}  // namespace hetero
