// Source of the layouts: the GGUF specification's block formats; gguf/dequantize.cc is what every
// type is compared with.
#include "npu/repack.h"

#include <bit>
#include <cassert>
#include <cstring>

#include "base/f16.h"

namespace hetero {
namespace {

uint8_t u8(const std::byte* p, int i) {
  return static_cast<uint8_t>(p[i]);
}

uint16_t u16(const std::byte* p) {
  uint16_t v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

float half(const std::byte* p) {
  return f32_from_f16(u16(p));
}

/// One block: its numbers in order, and scales and offsets of its groups.
struct Block {
  int8_t numbers[256];
  float scales[16];
  float offsets[16];
};

/// 32 numbers of 4 bits: the low halves of 16 bytes, then the high ones.
void nibbles(const std::byte* q, int8_t* numbers) {
  for (int i = 0; i < 16; ++i) {
    numbers[i] = static_cast<int8_t>(u8(q, i) & 15);
    numbers[i + 16] = static_cast<int8_t>(u8(q, i) >> 4);
  }
}

void add_fifth_bits(const std::byte* mask, int8_t* numbers) {
  for (int i = 0; i < 32; ++i) {
    numbers[i] = static_cast<int8_t>(numbers[i] | (u8(mask, i / 8) >> (i % 8) & 1) << 4);
  }
}

void shift(int8_t* numbers, int count, int by) {
  for (int i = 0; i < count; ++i) {
    numbers[i] = static_cast<int8_t>(numbers[i] + by);
  }
}

void look_up(const int8_t (&table)[16], int8_t* numbers, int count) {
  for (int i = 0; i < count; ++i) {
    numbers[i] = table[numbers[i]];
  }
}

constexpr int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
constexpr int8_t kMxfp4Values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/// Byte `first + i` of a half of 128 in which element i has `bits` bits of byte i % 32.
int two_bits(const std::byte* q, int i) {
  return u8(q, i / 128 * 32 + i % 32) >> (i % 128 / 32 * 2) & 3;
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

void unpack(DType dtype, const std::byte* b, Block& out) {
  int8_t* q = out.numbers;
  switch (dtype) {
    case DType::kQ4_0:
      out.scales[0] = half(b);
      nibbles(b + 2, q);
      return shift(q, 32, -8);
    case DType::kQ4_1:
      out.scales[0] = half(b);
      out.offsets[0] = half(b + 2);
      return nibbles(b + 4, q);
    case DType::kQ5_0:
      out.scales[0] = half(b);
      nibbles(b + 6, q);
      add_fifth_bits(b + 2, q);
      return shift(q, 32, -16);
    case DType::kQ5_1:
      out.scales[0] = half(b);
      out.offsets[0] = half(b + 2);
      nibbles(b + 8, q);
      return add_fifth_bits(b + 4, q);
    case DType::kQ8_0:
      out.scales[0] = half(b);
      std::memcpy(q, b + 2, 32);
      return;
    case DType::kQ2_K:
      for (int i = 0; i < 256; ++i) {
        q[i] = static_cast<int8_t>(two_bits(b + 16, i));
      }
      for (int part = 0; part < 16; ++part) {
        out.scales[part] = half(b + 80) * static_cast<float>(u8(b, part) & 15);
        out.offsets[part] = -(half(b + 82) * static_cast<float>(u8(b, part) >> 4));
      }
      return;
    case DType::kQ3_K:
      for (int i = 0; i < 256; ++i) {
        q[i] = static_cast<int8_t>((two_bits(b + 32, i) | (u8(b, i % 32) >> (i / 32) & 1) << 2) - 4);
      }
      for (int part = 0; part < 16; ++part) {
        const std::byte* packed = b + 96;
        const int low = part < 8 ? u8(packed, part) & 15 : u8(packed, part - 8) >> 4;
        const int top = u8(packed, 8 + part % 4) >> (part / 4 * 2) & 3;
        out.scales[part] = half(b + 108) * static_cast<float>((low | top << 4) - 32);
      }
      return;
    case DType::kQ4_K:
    case DType::kQ5_K:
      for (int part = 0; part < 8; ++part) {
        int scale = 0;
        int min = 0;
        scale_min(b + 4, part, scale, min);
        out.scales[part] = half(b) * static_cast<float>(scale);
        out.offsets[part] = -(half(b + 2) * static_cast<float>(min));
        const std::byte* bytes = b + (dtype == DType::kQ4_K ? 16 : 48) + part / 2 * 32;
        for (int i = 0; i < 32; ++i) {
          const int low = part % 2 == 0 ? u8(bytes, i) & 15 : u8(bytes, i) >> 4;
          const int high = dtype == DType::kQ5_K ? u8(b, 16 + i) >> part & 1 : 0;
          q[32 * part + i] = static_cast<int8_t>(low | high << 4);
        }
      }
      return;
    case DType::kQ6_K:
      for (int i = 0; i < 256; ++i) {
        const int byte = u8(b, i / 128 * 64 + i % 64);
        const int low = i % 128 < 64 ? byte & 15 : byte >> 4;
        const int high = u8(b, 128 + i / 128 * 32 + i % 32) >> (i % 128 / 32 * 2) & 3;
        q[i] = static_cast<int8_t>((low | high << 4) - 32);
      }
      for (int part = 0; part < 16; ++part) {
        out.scales[part] = half(b + 208) * static_cast<float>(static_cast<int8_t>(b[192 + part]));
      }
      return;
    case DType::kIQ4_NL:
      out.scales[0] = half(b);
      nibbles(b + 2, q);
      return look_up(kIq4Values, q, 32);
    case DType::kIQ4_XS:
      for (int part = 0; part < 8; ++part) {
        const int low = u8(b, 4 + part / 2) >> (part % 2 * 4) & 15;
        const int high = u16(b + 2) >> (2 * part) & 3;
        out.scales[part] = half(b) * static_cast<float>((low | high << 4) - 32);
        nibbles(b + 8 + 16 * part, q + 32 * part);
      }
      return look_up(kIq4Values, q, 256);
    case DType::kMXFP4: {
      const uint32_t e = u8(b, 0);  // 2^(e - 128), of which the two smallest are subnormal
      out.scales[0] = std::bit_cast<float>(e < 2 ? 0x00200000u << e : (e - 1) << 23);
      nibbles(b + 1, q);
      return look_up(kMxfp4Values, q, 32);
    }
    default:
      assert(false && "a plain type");
  }
}

}  // namespace

PackedForm packed_form(DType dtype) {
  switch (dtype) {
    case DType::kQ4_0:
      return {4, true, 32, false};
    case DType::kQ4_1:
    case DType::kQ4_K:
      return {4, false, 32, true};
    case DType::kQ2_K:
      return {4, false, 16, true};
    case DType::kQ3_K:
      return {4, true, 16, false};
    case DType::kQ5_0:
    case DType::kQ8_0:
    case DType::kIQ4_NL:
    case DType::kIQ4_XS:
    case DType::kMXFP4:
      return {8, true, 32, false};
    case DType::kQ5_1:
    case DType::kQ5_K:
      return {8, true, 32, true};
    case DType::kQ6_K:
      return {8, true, 16, false};
    default:
      return {};
  }
}

void repack(DType dtype, const std::byte* blocks, int64_t count, std::byte* numbers, float* scales,
            float* offsets) {
  const DTypeTraits& t = traits(dtype);
  const PackedForm form = packed_form(dtype);
  const auto groups = static_cast<size_t>(t.block_elements / form.group);
  Block block;
  for (; count > 0; count -= t.block_elements, blocks += t.block_bytes) {
    unpack(dtype, blocks, block);
    std::memcpy(scales, block.scales, groups * sizeof(float));
    scales += groups;
    if (form.offsets) {
      std::memcpy(offsets, block.offsets, groups * sizeof(float));
      offsets += groups;
    }
    if (form.bits == 8) {
      std::memcpy(numbers, block.numbers, static_cast<size_t>(t.block_elements));
      numbers += t.block_elements;
      continue;
    }
    for (int i = 0; i < t.block_elements; i += 2) {
      *numbers++ = static_cast<std::byte>((block.numbers[i] & 15) | (block.numbers[i + 1] & 15) << 4);
    }
  }
}

}  // namespace hetero
