#include "gguf/quantize.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/f16.h"

namespace hetero {
namespace {

void put_half(std::byte* p, float value) {
  const uint16_t h = f16_from_f32(value);
  std::memcpy(p, &h, sizeof h);
}

void put_nibbles(std::byte* p, const int (&q)[32]) {
  for (int i = 0; i < 16; ++i) {
    p[i] = static_cast<std::byte>(q[i] | q[i + 16] << 4);
  }
}

/// The element of largest magnitude becomes -8.
void q4_0(const float* x, std::byte* b) {
  float extreme = 0.0f;
  for (int i = 0; i < 32; ++i) {
    extreme = std::abs(x[i]) > std::abs(extreme) ? x[i] : extreme;
  }
  const float d = extreme / -8.0f;
  const float inverse = d != 0.0f ? 1.0f / d : 0.0f;
  int q[32];
  for (int i = 0; i < 32; ++i) {
    q[i] = std::clamp(static_cast<int>(x[i] * inverse + 8.5f), 0, 15);
  }
  put_half(b, d);
  put_nibbles(b + 2, q);
}

void q4_1(const float* x, std::byte* b) {
  const auto [low, high] = std::minmax_element(x, x + 32);
  const float d = (*high - *low) / 15.0f;
  const float inverse = d != 0.0f ? 1.0f / d : 0.0f;
  int q[32];
  for (int i = 0; i < 32; ++i) {
    q[i] = std::clamp(static_cast<int>((x[i] - *low) * inverse + 0.5f), 0, 15);
  }
  put_half(b, d);
  put_half(b + 2, *low);
  put_nibbles(b + 4, q);
}

void q8_0(const float* x, std::byte* b) {
  float largest = 0.0f;
  for (int i = 0; i < 32; ++i) {
    largest = std::max(largest, std::abs(x[i]));
  }
  const float d = largest / 127.0f;
  const float inverse = d != 0.0f ? 1.0f / d : 0.0f;
  put_half(b, d);
  for (int i = 0; i < 32; ++i) {
    b[2 + i] = static_cast<std::byte>(static_cast<int8_t>(std::lround(x[i] * inverse)));
  }
}

}  // namespace

Status quantize(DType dtype, const float* src, int64_t count, std::byte* dst) {
  const DTypeTraits& t = traits(dtype);
  for (int64_t i = 0; i < count; i += t.block_elements, src += t.block_elements, dst += t.block_bytes) {
    switch (dtype) {
      case DType::kF32:
        std::memcpy(dst, src, sizeof(float));
        break;
      case DType::kF16:
        put_half(dst, *src);
        break;
      case DType::kBF16: {
        const uint16_t b = bf16_from_f32(*src);
        std::memcpy(dst, &b, sizeof b);
        break;
      }
      case DType::kQ4_0:
        q4_0(src, dst);
        break;
      case DType::kQ4_1:
        q4_1(src, dst);
        break;
      case DType::kQ8_0:
        q8_0(src, dst);
        break;
      default:
        return unsupported("quantizing to " + std::string(t.name) + " is not implemented");
    }
  }
  return {};
}

}  // namespace hetero
