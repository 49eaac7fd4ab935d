// Block layouts from the GGUF specification and ggml's block definitions. Each decoder does the
// operations in the definition's order, since bit-exact results depend on it.
#include "gguf/dequantize.h"

#include <bit>
#include <cassert>
#include <cmath>
#include <cstring>

#include "base/f16.h"

namespace hetero {
namespace {

uint8_t u8(const std::byte* p, int64_t i) { return static_cast<uint8_t>(p[i]); }
int i8(const std::byte* p, int64_t i) { return static_cast<int8_t>(p[i]); }

uint16_t u16(const std::byte* p) {
  uint16_t v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

uint32_t u32(const std::byte* p) {
  uint32_t v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

float half(const std::byte* p) { return f32_from_f16(u16(p)); }

// Blocks of 32: the low nibbles are the first 16 elements, the high ones the rest.

void q4_0(const std::byte* b, float* y) {
  const float d = half(b);
  for (int i = 0; i < 16; ++i) {
    y[i] = static_cast<float>((u8(b, 2 + i) & 15) - 8) * d;
    y[i + 16] = static_cast<float>((u8(b, 2 + i) >> 4) - 8) * d;
  }
}

void q4_1(const std::byte* b, float* y) {
  const float d = half(b);
  const float m = half(b + 2);
  for (int i = 0; i < 16; ++i) {
    y[i] = static_cast<float>(u8(b, 4 + i) & 15) * d + m;
    y[i + 16] = static_cast<float>(u8(b, 4 + i) >> 4) * d + m;
  }
}

/// Element i of a 5-bit block: nibble, and bit i of the mask that follows the scales.
int five_bits(uint32_t high, const std::byte* nibbles, int i) {
  const int low = i < 16 ? u8(nibbles, i) & 15 : u8(nibbles, i - 16) >> 4;
  return low | static_cast<int>((high >> i) & 1u) << 4;
}

void q5_0(const std::byte* b, float* y) {
  const float d = half(b);
  for (int i = 0; i < 32; ++i) {
    y[i] = static_cast<float>(five_bits(u32(b + 2), b + 6, i) - 16) * d;
  }
}

void q5_1(const std::byte* b, float* y) {
  const float d = half(b);
  const float m = half(b + 2);
  for (int i = 0; i < 32; ++i) {
    y[i] = static_cast<float>(five_bits(u32(b + 4), b + 8, i)) * d + m;
  }
}

void q8_0(const std::byte* b, float* y) {
  const float d = half(b);
  for (int i = 0; i < 32; ++i) {
    y[i] = static_cast<float>(i8(b, 2 + i)) * d;
  }
}

// Super-blocks of 256, cut into parts that have small integer scales.

void q2_k(const std::byte* b, float* y) {
  const std::byte* scales = b;
  const std::byte* q = b + 16;
  const float d = half(b + 80);
  const float dmin = half(b + 82);
  for (int part = 0; part < 16; ++part) {  // 16 elements each
    const float scale = d * static_cast<float>(u8(scales, part) & 15);
    const float min = dmin * static_cast<float>(u8(scales, part) >> 4);
    const int first = part / 8 * 32 + part % 2 * 16;
    const int shift = part % 8 / 2 * 2;
    for (int i = 0; i < 16; ++i) {
      *y++ = scale * static_cast<float>((u8(q, first + i) >> shift) & 3) - min;
    }
  }
}

void q3_k(const std::byte* b, float* y) {
  const std::byte* high = b;
  const std::byte* q = b + 32;
  const std::byte* packed = b + 96;
  const float d = half(b + 108);
  for (int part = 0; part < 16; ++part) {
    // 6-bit scales: 4 low bits in bytes 0..7, 2 high bits in bytes 8..11
    const int low = part < 8 ? u8(packed, part) & 15 : u8(packed, part - 8) >> 4;
    const int top = (u8(packed, 8 + part % 4) >> (part / 4 * 2)) & 3;
    const float scale = d * static_cast<float>((low | top << 4) - 32);
    const int first = part / 8 * 32 + part % 2 * 16;
    const int shift = part % 8 / 2 * 2;
    const int bit = part / 2;
    for (int i = 0; i < 16; ++i) {
      const int minus = (u8(high, part % 2 * 16 + i) >> bit) & 1 ? 0 : 4;
      *y++ = scale * static_cast<float>(((u8(q, first + i) >> shift) & 3) - minus);
    }
  }
}

/// Scale and minimum of part `part` (of 8) in the 12 packed bytes of Q4_K and Q5_K.
void scale_min(const std::byte* packed, int part, int& scale, int& min) {
  if (part < 4) {
    scale = u8(packed, part) & 63;
    min = u8(packed, part + 4) & 63;
  } else {
    scale = (u8(packed, part + 4) & 15) | (u8(packed, part - 4) >> 6) << 4;
    min = (u8(packed, part + 4) >> 4) | (u8(packed, part) >> 6) << 4;
  }
}

void q4_k(const std::byte* b, float* y) {
  const float d = half(b);
  const float dmin = half(b + 2);
  const std::byte* q = b + 16;
  for (int part = 0; part < 8; ++part) {
    int scale = 0;
    int min = 0;
    scale_min(b + 4, part, scale, min);
    const float s = d * static_cast<float>(scale);
    const float m = dmin * static_cast<float>(min);
    for (int i = 0; i < 32; ++i) {
      const int byte = u8(q, part / 2 * 32 + i);
      *y++ = s * static_cast<float>(part % 2 == 0 ? byte & 15 : byte >> 4) - m;
    }
  }
}

void q5_k(const std::byte* b, float* y) {
  const float d = half(b);
  const float dmin = half(b + 2);
  const std::byte* high = b + 16;
  const std::byte* q = b + 48;
  for (int part = 0; part < 8; ++part) {
    int scale = 0;
    int min = 0;
    scale_min(b + 4, part, scale, min);
    const float s = d * static_cast<float>(scale);
    const float m = dmin * static_cast<float>(min);
    for (int i = 0; i < 32; ++i) {
      const int byte = u8(q, part / 2 * 32 + i);
      const int value = (part % 2 == 0 ? byte & 15 : byte >> 4) + ((u8(high, i) >> part) & 1 ? 16 : 0);
      *y++ = s * static_cast<float>(value) - m;
    }
  }
}

void q6_k(const std::byte* b, float* y) {
  const std::byte* low = b;
  const std::byte* high = b + 128;
  const std::byte* scales = b + 192;
  const float d = half(b + 208);
  for (int i = 0; i < 256; ++i) {
    const int h = i / 128;       // half of the super-block
    const int part = i % 128 / 32;  // of that half
    const int j = i % 32;
    const int nibbles = u8(low, h * 64 + part % 2 * 32 + j);
    const int bits = (part < 2 ? nibbles & 15 : nibbles >> 4) | ((u8(high, h * 32 + j) >> (part * 2)) & 3) << 4;
    y[i] = d * static_cast<float>(i8(scales, i / 16)) * static_cast<float>(bits - 32);
  }
}

// Non-linear 4-bit values of IQ4_NL and IQ4_XS.
constexpr float kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

void iq4_nl(const std::byte* b, float* y) {
  const float d = half(b);
  for (int i = 0; i < 16; ++i) {
    y[i] = d * kIq4Values[u8(b, 2 + i) & 15];
    y[i + 16] = d * kIq4Values[u8(b, 2 + i) >> 4];
  }
}

void iq4_xs(const std::byte* b, float* y) {
  const float d = half(b);
  const int high = u16(b + 2);
  const std::byte* low = b + 4;
  const std::byte* q = b + 8;
  for (int part = 0; part < 8; ++part) {
    const int scale = ((u8(low, part / 2) >> (part % 2 * 4)) & 15) | ((high >> (2 * part)) & 3) << 4;
    const float dl = d * static_cast<float>(scale - 32);
    for (int i = 0; i < 16; ++i) {
      y[i] = dl * kIq4Values[u8(q, part * 16 + i) & 15];
      y[i + 16] = dl * kIq4Values[u8(q, part * 16 + i) >> 4];
    }
    y += 32;
  }
}

// E2M1 values of the OCP microscaling formats (MX 1.0, table 5), doubled, with a scale of half.
constexpr float kMxfp4Values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

void mxfp4(const std::byte* b, float* y) {
  const int exponent = u8(b, 0);
  // 2^(exponent - 128); the two smallest are subnormal in f32
  const float d = exponent < 2 ? std::bit_cast<float>(0x00200000u << exponent)
                               : std::bit_cast<float>(static_cast<uint32_t>(exponent - 1) << 23);
  for (int i = 0; i < 16; ++i) {
    y[i] = kMxfp4Values[u8(b, 1 + i) & 15] * d;
    y[i + 16] = kMxfp4Values[u8(b, 1 + i) >> 4] * d;
  }
}

template <void (*Decode)(const std::byte*, float*)>
void blocks(DType dtype, const std::byte* src, int64_t count, float* dst) {
  const DTypeTraits& t = traits(dtype);
  assert(count % t.block_elements == 0);
  for (; count > 0; count -= t.block_elements, src += t.block_bytes, dst += t.block_elements) {
    Decode(src, dst);
  }
}

}  // namespace

void dequantize(DType dtype, const std::byte* src, int64_t count, float* dst) {
  switch (dtype) {
    case DType::kF32:
      std::memcpy(dst, src, static_cast<size_t>(count) * sizeof(float));
      return;
    case DType::kF16:
      for (int64_t i = 0; i < count; ++i) {
        dst[i] = half(src + 2 * i);
      }
      return;
    case DType::kBF16:
      for (int64_t i = 0; i < count; ++i) {
        dst[i] = f32_from_bf16(u16(src + 2 * i));
      }
      return;
    case DType::kI32:
      for (int64_t i = 0; i < count; ++i) {
        dst[i] = static_cast<float>(static_cast<int32_t>(u32(src + 4 * i)));
      }
      return;
    case DType::kQ4_0:
      return blocks<q4_0>(dtype, src, count, dst);
    case DType::kQ4_1:
      return blocks<q4_1>(dtype, src, count, dst);
    case DType::kQ5_0:
      return blocks<q5_0>(dtype, src, count, dst);
    case DType::kQ5_1:
      return blocks<q5_1>(dtype, src, count, dst);
    case DType::kQ8_0:
      return blocks<q8_0>(dtype, src, count, dst);
    case DType::kQ2_K:
      return blocks<q2_k>(dtype, src, count, dst);
    case DType::kQ3_K:
      return blocks<q3_k>(dtype, src, count, dst);
    case DType::kQ4_K:
      return blocks<q4_k>(dtype, src, count, dst);
    case DType::kQ5_K:
      return blocks<q5_k>(dtype, src, count, dst);
    case DType::kQ6_K:
      return blocks<q6_k>(dtype, src, count, dst);
    case DType::kIQ4_NL:
      return blocks<iq4_nl>(dtype, src, count, dst);
    case DType::kIQ4_XS:
      return blocks<iq4_xs>(dtype, src, count, dst);
    case DType::kMXFP4:
      return blocks<mxfp4>(dtype, src, count, dst);
  }
}

}  // namespace hetero
