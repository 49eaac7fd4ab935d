#include "gguf/quantize.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/f16.h"
#include "gguf/quantize_k.h"

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

/// Four bits of each level as in Q4_0; the fifth ones in 32 bits in front.
void put_five_bits(std::byte* p, const int (&q)[32]) {
  uint32_t fifth = 0;
  int low[32];
  for (int i = 0; i < 32; ++i) {
    fifth |= static_cast<uint32_t>(q[i] >> 4) << i;
    low[i] = q[i] & 15;
  }
  std::memcpy(p, &fifth, sizeof fifth);
  put_nibbles(p + 4, low);
}

/// The element of largest magnitude becomes -16.
void q5_0(const float* x, std::byte* b) {
  float extreme = 0.0f;
  for (int i = 0; i < 32; ++i) {
    extreme = std::abs(x[i]) > std::abs(extreme) ? x[i] : extreme;
  }
  const float d = extreme / -16.0f;
  const float inverse = d != 0.0f ? 1.0f / d : 0.0f;
  int q[32];
  for (int i = 0; i < 32; ++i) {
    q[i] = std::clamp(static_cast<int>(x[i] * inverse + 16.5f), 0, 31);
  }
  put_half(b, d);
  put_five_bits(b + 2, q);
}

void q5_1(const float* x, std::byte* b) {
  const auto [low, high] = std::minmax_element(x, x + 32);
  const float d = (*high - *low) / 31.0f;
  const float inverse = d != 0.0f ? 1.0f / d : 0.0f;
  int q[32];
  for (int i = 0; i < 32; ++i) {
    q[i] = std::clamp(static_cast<int>((x[i] - *low) * inverse + 0.5f), 0, 31);
  }
  put_half(b, d);
  put_half(b + 2, *low);
  put_five_bits(b + 4, q);
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

/// Largest magnitude whose scale f16 can hold; the plain types take what their format takes.
float largest_value(DType dtype) {
  constexpr float kHalf = 65504.0f;
  switch (dtype) {
    case DType::kF16:
    case DType::kQ4_1:  // the minimum is stored as it is
    case DType::kQ5_1:
      return kHalf;
    case DType::kQ4_0:
      return 8.0f * kHalf;
    case DType::kQ5_0:
      return 16.0f * kHalf;
    case DType::kQ8_0:
      return 127.0f * kHalf;
    case DType::kQ4_K:  // the minimum: 63 * f16
    case DType::kQ6_K:
      return 63.0f * kHalf;
    default:
      return std::numeric_limits<float>::max();
  }
}

Status check_values(DType dtype, const float* src, int64_t count) {
  const float limit = largest_value(dtype);
  const float* bad = std::find_if(src, src + count, [&](float x) { return !(std::abs(x) <= limit); });
  if (bad == src + count) {
    return {};
  }
  return malformed(fmt::format("element {} is {}, expected a value from {} to {} for {}", bad - src, *bad,
                               -limit, limit, traits(dtype).name));
}

}  // namespace

Status quantize(DType dtype, const float* src, int64_t count, std::byte* dst) {
  if (dtype != DType::kF32) {  // which stays as it is
    HETERO_RETURN_IF_ERROR(check_values(dtype, src, count));
  }
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
      case DType::kQ5_0:
        q5_0(src, dst);
        break;
      case DType::kQ5_1:
        q5_1(src, dst);
        break;
      case DType::kQ8_0:
        q8_0(src, dst);
        break;
      case DType::kQ4_K:
        quantize_q4_k(src, dst);
        break;
      case DType::kQ6_K:
        quantize_q6_k(src, dst);
        break;
      default:
        return unsupported("quantizing to " + std::string(t.name) + " is not implemented");
    }
  }
  return {};
}

}  // namespace hetero
