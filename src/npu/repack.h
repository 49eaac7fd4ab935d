// Blocks of GGUF files in the form in which NPU compilers take quantized weights: all numbers of a
// matrix together, in order, and beside them a scale, and in some types an offset, for each group of
// neighbours. Nothing is lost:
//
//   element = scale * number + offset
//
// holds exactly, with rounding at the same places as in gguf/dequantize.h. Numbers are integers of 4
// or 8 bits; scales and offsets are f32, which hold a half times a 6- or 8-bit integer exactly.
//
//   type                     number            group   offset
//   Q4_0                     i4, -8..7         32
//   Q4_1, Q4_K               u4, 0..15         32      yes
//   Q2_K                     u4, 0..3          16      yes
//   Q3_K                     i4, -4..3         16
//   Q5_0, Q8_0               i8                32
//   Q5_1, Q5_K               i8, 0..31         32      yes
//   Q6_K                     i8, -32..31       16
//   IQ4_NL, IQ4_XS, MXFP4    i8, table values  32
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "gguf/dtype.h"

namespace hetero {

struct PackedForm {
  int bits = 0;  // 4 or 8; 0: a plain type, which needs no repacking
  bool is_signed = true;
  int64_t group = 0;
  bool offsets = false;
};

PackedForm packed_form(DType dtype);

/// Writes `count` elements (whole blocks) in the form of packed_form(dtype), which is not a plain
/// one. Of two numbers of 4 bits that share a byte, the first is in the low half.
void repack(DType dtype, const std::byte* blocks, int64_t count, std::byte* numbers, float* scales,
            float* offsets);

}  // namespace hetero
