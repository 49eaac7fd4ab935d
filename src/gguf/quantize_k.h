// Encoders of the super-block formats Q4_K and Q6_K. The formats fix how blocks decode, not how an
// encoder chooses scales; these choose them so that the sum of squared errors is small:
//
//   Q6_K  each part of 16: the scale that fits best among 19 around extreme/32, by least squares;
//         then the 8-bit scales and the f16 super-scale are fixed, and every element takes the level
//         that is nearest under the scale as it will be decoded.
//   Q4_K  each part of 32: scale and minimum that fit best among 21 steps around range/15, by least
//         squares; then the f16 super-scales are fixed, the 6-bit scale and minimum are refined
//         within +-1 by the error as it will be decoded, and every element takes the nearest level.
//
// The ideas (least squares over a few candidate scales) are those of ggml's quantizers.
#pragma once

#include <cstddef>

namespace hetero {

/// Encode 256 finite elements. f16 scales of values beyond f16's range become infinite.
void quantize_q4_k(const float* x, std::byte* block);  // 144 bytes
void quantize_q6_k(const float* x, std::byte* block);  // 210 bytes

}  // namespace hetero
