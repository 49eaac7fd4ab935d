#include "processor/random_blocks.h"

#include <cstring>

#include "base/f16.h"

namespace hetero {
namespace {

/// Where a block keeps its half-precision factors, and how large they may be for elements of about
/// 1. Source of the layouts: gguf/dequantize.cc.
struct Factors {
  int scale_at = 0;
  float scale = 0.0f;
  int minimum_at = -1;  // no minimum
  float minimum = 0.0f;
};

Factors factors(DType dtype) {
  switch (dtype) {
    case DType::kQ4_0:
      return {0, 0.12f};
    case DType::kQ4_1:
      return {0, 0.12f, 2, 1.0f};
    case DType::kQ5_0:
      return {0, 0.06f};
    case DType::kQ5_1:
      return {0, 0.06f, 2, 1.0f};
    case DType::kQ8_0:
      return {0, 0.008f};
    case DType::kQ2_K:
      return {80, 0.03f, 82, 0.06f};
    case DType::kQ3_K:
      return {108, 0.01f};
    case DType::kQ4_K:
    case DType::kQ5_K:
      return {0, dtype == DType::kQ4_K ? 0.001f : 0.0005f, 2, 0.015f};
    case DType::kQ6_K:
      return {208, 0.0003f};
    case DType::kIQ4_NL:
      return {0, 0.008f};
    case DType::kIQ4_XS:
      return {0, 0.0003f};
    default:
      return {};
  }
}

float uniform(std::mt19937& random) {
  return static_cast<float>(random() >> 8) * 0x1p-24f;
}

void put_half(std::byte* at, float value) {
  const uint16_t bits = f16_from_f32(value);
  std::memcpy(at, &bits, sizeof bits);
}

}  // namespace

void random_blocks(DType dtype, int64_t count, std::mt19937& random, std::byte* dst) {
  const DTypeTraits& t = traits(dtype);
  const Factors f = factors(dtype);
  for (int64_t block = 0; block < count / t.block_elements; ++block, dst += t.block_bytes) {
    const float plain = 2.0f * uniform(random) - 1.0f;
    switch (dtype) {
      case DType::kF32:
        std::memcpy(dst, &plain, sizeof plain);
        continue;
      case DType::kF16:
        put_half(dst, plain);
        continue;
      case DType::kBF16: {
        const uint16_t bits = bf16_from_f32(plain);
        std::memcpy(dst, &bits, sizeof bits);
        continue;
      }
      default:
        break;
    }
    for (int i = 0; i < t.block_bytes; ++i) {
      dst[i] = static_cast<std::byte>(random() >> 24);
    }
    if (dtype == DType::kMXFP4) {
      dst[0] = static_cast<std::byte>(128 - random() % 8);  // 2^-7 to 1, halved
      continue;
    }
    // Of either sign; now and then subnormal.
    const float scale = random() % 16 == 0 ? 0x1p-20f : f.scale * (0.5f + uniform(random));
    put_half(dst + f.scale_at, random() % 4 == 0 ? -scale : scale);
    if (f.minimum_at >= 0) {
      put_half(dst + f.minimum_at, (random() % 4 == 0 ? 1.0f : -1.0f) * f.minimum * uniform(random));
    }
  }
}

}  // namespace hetero
