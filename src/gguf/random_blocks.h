// For tests: random weights in any type, also in those that nothing here can encode.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "base/f16.h"
#include "gguf/dequantize.h"
#include "gguf/dtype.h"

namespace hetero {

/// `count` elements (a multiple of the type's block) of magnitude about 1: random bits, with
/// sensible numbers where the format has its scales.
inline std::vector<std::byte> random_blocks(DType dtype, int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  const DTypeTraits& t = traits(dtype);
  std::vector<std::byte> bytes(static_cast<size_t>(row_bytes(dtype, count)));
  const auto uniform = [&](float low, float high) {
    return low + (high - low) * static_cast<float>(static_cast<double>(random()) * 0x1p-32);
  };
  for (std::byte& b : bytes) {
    b = static_cast<std::byte>(random());
  }
  // Where a block's scale and offset are, and how large the scale is for elements of about 1.
  struct Scales {
    int scale;
    int offset;
    float size;
  };
  const Scales at = [&]() -> Scales {
    switch (dtype) {
      case DType::kQ4_0:
        return {0, -1, 1.0f / 8};
      case DType::kQ4_1:
        return {0, 2, 1.0f / 8};
      case DType::kQ5_0:
        return {0, -1, 1.0f / 16};
      case DType::kQ5_1:
        return {0, 2, 1.0f / 16};
      case DType::kQ8_0:
      case DType::kIQ4_NL:
        return {0, -1, 1.0f / 128};
      case DType::kQ2_K:
        return {80, 82, 1.0f / 32};
      case DType::kQ3_K:
        return {108, -1, 1.0f / 128};
      case DType::kQ4_K:
        return {0, 2, 1.0f / 512};
      case DType::kQ5_K:
        return {0, 2, 1.0f / 1024};
      case DType::kQ6_K:
        return {208, -1, 1.0f / 4096};
      case DType::kIQ4_XS:
        return {0, -1, 1.0f / 4096};
      default:
        return {-1, -1, 1.0f};
    }
  }();
  const auto put_half = [](std::byte* p, float value) {
    const uint16_t h = f16_from_f32(value);
    std::memcpy(p, &h, sizeof h);
  };
  for (size_t b = 0; b < bytes.size(); b += static_cast<size_t>(t.block_bytes)) {
    std::byte* block = bytes.data() + b;
    if (dtype == DType::kF32) {
      const float value = uniform(-1, 1);
      std::memcpy(block, &value, sizeof value);
    } else if (dtype == DType::kF16) {
      put_half(block, uniform(-1, 1));
    } else if (dtype == DType::kBF16) {
      const uint16_t h = bf16_from_f32(uniform(-1, 1));
      std::memcpy(block, &h, sizeof h);
    } else if (dtype == DType::kMXFP4) {
      block[0] = static_cast<std::byte>(124 + random() % 3);
    } else {
      // Scales of either sign; an offset of the scale's size times the middle of the range.
      const float scale = uniform(0.5f, 1.0f) * at.size * (random() % 4 == 0 ? -1.0f : 1.0f);
      put_half(block + at.scale, scale);
      if (at.offset >= 0) {
        put_half(block + at.offset, dtype == DType::kQ4_1 || dtype == DType::kQ5_1 ? -8.0f * scale : scale);
      }
    }
  }
  return bytes;
}

/// Every type that weights may have.
inline constexpr DType kWeightTypes[] = {DType::kF32,  DType::kF16,    DType::kBF16,   DType::kQ4_0,
                                         DType::kQ4_1, DType::kQ5_0,   DType::kQ5_1,   DType::kQ8_0,
                                         DType::kQ2_K, DType::kQ3_K,   DType::kQ4_K,   DType::kQ5_K,
                                         DType::kQ6_K, DType::kIQ4_NL, DType::kIQ4_XS, DType::kMXFP4};

}  // namespace hetero
