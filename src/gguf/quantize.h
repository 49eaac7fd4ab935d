// f32 to block formats, by the formats' reference rounding.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/status.h"
#include "gguf/dtype.h"

namespace hetero {

/// Encodes `count` elements (a multiple of the type's block) into `dst`. Types without an encoder
/// here give Code::kUnsupported.
Status quantize(DType dtype, const float* src, int64_t count, std::byte* dst);

}  // namespace hetero
