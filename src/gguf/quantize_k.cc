#include "gguf/quantize_k.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "base/f16.h"

namespace hetero {
namespace {

/// Rounds to f16, stores it, and gives back what a decoder will read.
float put_half(std::byte* p, float value) {
  const uint16_t h = f16_from_f32(value);
  std::memcpy(p, &h, sizeof h);
  return f32_from_f16(h);
}

int nearest(float value, int low, int high) {
  const float clamped = std::clamp(value, static_cast<float>(low), static_cast<float>(high));
  return static_cast<int>(std::floor(clamped + 0.5f));
}

/// Scale s that makes the squared error of s * q small, q in [-32, 31], over 16 elements.
float best_symmetric_scale(const float* x) {
  float extreme = 0.0f;
  for (int i = 0; i < 16; ++i) {
    extreme = std::abs(x[i]) > std::abs(extreme) ? x[i] : extreme;
  }
  if (std::abs(extreme) < 1e-30f) {
    return 0.0f;
  }
  float best = 0.0f;
  float best_gain = -1.0f;
  for (int step = -9; step <= 9; ++step) {
    const float inverse = -(32.0f + 0.1f * static_cast<float>(step)) / extreme;
    float xq = 0.0f;
    float qq = 0.0f;
    for (int i = 0; i < 16; ++i) {
      const auto q = static_cast<float>(nearest(x[i] * inverse, -32, 31));
      xq += x[i] * q;
      qq += q * q;
    }
    // With s = xq / qq the squared error is sum(x^2) - xq^2 / qq.
    if (qq > 0.0f && xq * xq / qq > best_gain) {
      best_gain = xq * xq / qq;
      best = xq / qq;
    }
  }
  return best;
}

struct Affine {
  float scale = 0.0f;  // of q in [0, 15]
  float min = 0.0f;    // subtracted, not negative
};

float squared_error(const float* x, const Affine& a, const int* q) {
  float error = 0.0f;
  for (int i = 0; i < 32; ++i) {
    const float d = a.scale * static_cast<float>(q[i]) - a.min - x[i];
    error += d * d;
  }
  return error;
}

void choose_levels(const float* x, const Affine& a, int* q) {
  const float inverse = a.scale > 0.0f ? 1.0f / a.scale : 0.0f;
  for (int i = 0; i < 32; ++i) {
    q[i] = nearest((x[i] + a.min) * inverse, 0, 15);
  }
}

/// Scale and minimum that make the squared error over 32 elements small.
Affine best_affine(const float* x) {
  const auto [lowest, highest] = std::minmax_element(x, x + 32);
  const float low = std::min(*lowest, 0.0f);  // the format cannot add, only subtract
  const float range = *highest - low;
  if (range < 1e-30f) {
    return {0.0f, -low};
  }
  Affine best;
  float best_error = INFINITY;
  for (int step = -10; step <= 10; ++step) {
    const Affine guess = {range / (15.0f + 0.1f * static_cast<float>(step)), -low};
    int q[32];
    choose_levels(x, guess, q);
    float sum_q = 0.0f, sum_qq = 0.0f, sum_x = 0.0f, sum_xq = 0.0f;
    for (int i = 0; i < 32; ++i) {
      const auto level = static_cast<float>(q[i]);
      sum_q += level;
      sum_qq += level * level;
      sum_x += x[i];
      sum_xq += x[i] * level;
    }
    const float determinant = 32.0f * sum_qq - sum_q * sum_q;
    Affine fit = guess;
    if (determinant > 0.0f) {
      fit.scale = (32.0f * sum_xq - sum_x * sum_q) / determinant;
      fit.min = -(sum_qq * sum_x - sum_q * sum_xq) / determinant;
      if (fit.min < 0.0f) {  // the best fit with no minimum at all
        fit.min = 0.0f;
        fit.scale = sum_xq / sum_qq;
      }
    }
    for (const Affine& candidate : {guess, fit}) {
      choose_levels(x, candidate, q);
      if (const float error = squared_error(x, candidate, q); candidate.scale > 0.0f && error < best_error) {
        best_error = error;
        best = candidate;
      }
    }
  }
  return best;
}

}  // namespace

void quantize_q6_k(const float* x, std::byte* block) {
  std::array<float, 16> scales{};
  float largest = 0.0f;  // in magnitude
  for (int part = 0; part < 16; ++part) {
    scales[part] = best_symmetric_scale(x + 16 * part);
    largest = std::abs(scales[part]) > std::abs(largest) ? scales[part] : largest;
  }
  std::memset(block, 0, 210);
  const float d = put_half(block + 208, largest / -128.0f);
  for (int part = 0; part < 16; ++part) {
    const int scale = d != 0.0f && std::isfinite(d) ? nearest(scales[part] / d, -128, 127) : 0;
    block[192 + part] = static_cast<std::byte>(scale);
    const float step = d * static_cast<float>(scale);
    for (int j = 0; j < 16; ++j) {
      const int i = 16 * part + j;
      const int q = (step != 0.0f ? nearest(x[i] / step, -32, 31) : 0) + 32;
      const int half = i / 128;
      const int quarter = i % 128 / 32;
      std::byte& low = block[half * 64 + quarter % 2 * 32 + i % 32];
      std::byte& high = block[128 + half * 32 + i % 32];
      low |= static_cast<std::byte>((q & 15) << (quarter / 2 * 4));
      high |= static_cast<std::byte>((q >> 4) << (quarter * 2));
    }
  }
}

void quantize_q4_k(const float* x, std::byte* block) {
  std::array<Affine, 8> wanted;
  float largest_scale = 0.0f;
  float largest_min = 0.0f;
  for (int part = 0; part < 8; ++part) {
    wanted[part] = best_affine(x + 32 * part);
    largest_scale = std::max(largest_scale, wanted[part].scale);
    largest_min = std::max(largest_min, wanted[part].min);
  }
  std::memset(block, 0, 144);
  const float d = put_half(block, largest_scale / 63.0f);
  const float dmin = put_half(block + 2, largest_min / 63.0f);
  std::byte* packed = block + 4;
  for (int part = 0; part < 8; ++part) {
    const float* values = x + 32 * part;
    const int around_scale = d > 0.0f && std::isfinite(d) ? nearest(wanted[part].scale / d, 0, 63) : 0;
    const int around_min = dmin > 0.0f && std::isfinite(dmin) ? nearest(wanted[part].min / dmin, 0, 63) : 0;
    int scale = around_scale;
    int min = around_min;
    int q[32];
    float best_error = INFINITY;
    for (int s = std::max(0, around_scale - 1); s <= std::min(63, around_scale + 1); ++s) {
      for (int m = std::max(0, around_min - 1); m <= std::min(63, around_min + 1); ++m) {
        const Affine tried = {d * static_cast<float>(s), dmin * static_cast<float>(m)};
        choose_levels(values, tried, q);
        if (const float error = squared_error(values, tried, q); error < best_error) {
          best_error = error;
          scale = s;
          min = m;
        }
      }
    }
    choose_levels(values, {d * static_cast<float>(scale), dmin * static_cast<float>(min)}, q);
    if (part < 4) {
      packed[part] |= static_cast<std::byte>(scale);
      packed[part + 4] |= static_cast<std::byte>(min);
    } else {
      packed[part + 4] |= static_cast<std::byte>((scale & 15) | (min & 15) << 4);
      packed[part - 4] |= static_cast<std::byte>((scale >> 4) << 6);
      packed[part] |= static_cast<std::byte>((min >> 4) << 6);
    }
    for (int i = 0; i < 32; ++i) {
      block[16 + part / 2 * 32 + i] |= static_cast<std::byte>(q[i] << (part % 2 * 4));
    }
  }
}

}  // namespace hetero
