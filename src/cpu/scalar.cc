// Kernels in plain C++, for every machine. Four numbers at a time, which compilers turn into
// whatever the baseline of the architecture has.
#include "cpu/kernels.h"

#define HETERO_KERNEL static inline __attribute__((always_inline))

namespace hetero::cpu {
namespace {

struct V {
  static constexpr int kWidth = 4;
  struct Reg {
    float v[4];
  };

  template <class F>
  HETERO_KERNEL Reg each(F f) {
    return {{f(0), f(1), f(2), f(3)}};
  }
  HETERO_KERNEL float f16(const std::byte* p) {
    uint16_t h;
    __builtin_memcpy(&h, p, sizeof(h));
    const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16;
    const uint32_t rest = h & 0x7fffu;
    // Shifted into place, exponent and fraction of a half are those of a float 2^112 times too
    // small; the product is exact, and makes normal floats of subnormal halves.
    const float magnitude = __builtin_bit_cast(float, rest << 13) * 0x1p112f;
    const uint32_t bits =
        rest >= 0x7c00u ? 0x7f800000u | (rest << 13) : __builtin_bit_cast(uint32_t, magnitude);
    return __builtin_bit_cast(float, bits | sign);
  }
  HETERO_KERNEL uint16_t to_f16(float f) {
    const uint32_t u = __builtin_bit_cast(uint32_t, f);
    const uint32_t sign = (u >> 16) & 0x8000u;
    const uint32_t a = u & 0x7fffffffu;
    uint32_t h;
    if (a > 0x7f800000u) {
      h = 0x7e00u;
    } else if (a >= 0x47800000u) {  // 65536 and above
      h = 0x7c00u;
    } else if (a < 0x38800000u) {  // below the smallest normal half: adding 1/2 rounds to its steps
      h = __builtin_bit_cast(uint32_t, __builtin_bit_cast(float, a) + 0.5f) - 0x3f000000u;
    } else {
      h = (a + 0xfffu + ((a >> 13) & 1u) - 0x38000000u) >> 13;
    }
    return static_cast<uint16_t>(sign | h);
  }

  HETERO_KERNEL Reg zero() { return {}; }
  HETERO_KERNEL Reg set(float x) { return {{x, x, x, x}}; }
  HETERO_KERNEL Reg set_f16(const std::byte* p) { return set(f16(p)); }
  HETERO_KERNEL Reg load(const float* p) { return {{p[0], p[1], p[2], p[3]}}; }
  HETERO_KERNEL Reg load_bytes(const std::byte* p) {
    Reg r;
    __builtin_memcpy(&r, p, sizeof(r));
    return r;
  }
  HETERO_KERNEL Reg load_f16(const std::byte* p) {
    return each([&](int i) { return f16(p + 2 * i); });
  }
  HETERO_KERNEL Reg load_bf16(const std::byte* p) {
    return each([&](int i) {
      uint16_t b;
      __builtin_memcpy(&b, p + 2 * i, sizeof(b));
      return __builtin_bit_cast(float, static_cast<uint32_t>(b) << 16);
    });
  }
  HETERO_KERNEL void store(float* p, Reg a) { __builtin_memcpy(p, a.v, sizeof(a.v)); }
  HETERO_KERNEL void store_f16(uint16_t* p, Reg a) {
    for (int i = 0; i < 4; ++i) {
      p[i] = to_f16(a.v[i]);
    }
  }
  HETERO_KERNEL void prefetch(const std::byte*) {}
  HETERO_KERNEL Reg add(Reg a, Reg b) {
    return each([&](int i) { return a.v[i] + b.v[i]; });
  }
  HETERO_KERNEL Reg sub(Reg a, Reg b) {
    return each([&](int i) { return a.v[i] - b.v[i]; });
  }
  HETERO_KERNEL Reg mul(Reg a, Reg b) {
    return each([&](int i) { return a.v[i] * b.v[i]; });
  }
  HETERO_KERNEL Reg div(Reg a, Reg b) {
    return each([&](int i) { return a.v[i] / b.v[i]; });
  }
  HETERO_KERNEL Reg fma(Reg a, Reg b, Reg c) {
    return each([&](int i) { return a.v[i] * b.v[i] + c.v[i]; });
  }
  HETERO_KERNEL Reg max(Reg a, Reg b) {
    return each([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
  }
  HETERO_KERNEL Reg min(Reg a, Reg b) {
    return each([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
  }
  HETERO_KERNEL float sum(Reg a) { return (a.v[0] + a.v[2]) + (a.v[1] + a.v[3]); }
  HETERO_KERNEL float largest(Reg a) {
    const float x = a.v[0] > a.v[1] ? a.v[0] : a.v[1];
    const float y = a.v[2] > a.v[3] ? a.v[2] : a.v[3];
    return x > y ? x : y;
  }
  HETERO_KERNEL Reg round(Reg a) {
    // Adding 1.5 * 2^23 leaves no room for a fraction: the sum is rounded to the nearest integer.
    return each([&](int i) { return (a.v[i] + 12582912.0f) - 12582912.0f; });
  }
  HETERO_KERNEL Reg exp2_int(Reg n) {
    return each([&](int i) {
      // Written so that NaN, which no conversion to integers may see, becomes 2^-127.
      const float e = n.v[i] > -127.0f ? n.v[i] + 127.0f : 0.0f;
      return __builtin_bit_cast(float, static_cast<uint32_t>(e) << 23);
    });
  }
  HETERO_KERNEL void q4(const std::byte* p, Reg* q) {
    for (int j = 0; j < 4; ++j) {
      q[j] = each([&](int i) { return static_cast<float>(static_cast<int>(p[4 * j + i]) & 15); });
      q[4 + j] = each([&](int i) { return static_cast<float>(static_cast<int>(p[4 * j + i]) >> 4); });
    }
  }
  HETERO_KERNEL void q8(const std::byte* p, Reg* q) {
    for (int j = 0; j < 8; ++j) {
      q[j] = each([&](int i) { return static_cast<float>(static_cast<int8_t>(p[4 * j + i])); });
    }
  }
};

constexpr int64_t kMr = 4;
constexpr int64_t kGemvRows = 4;
constexpr int64_t kFewRows = 8;

#include "cpu/kernels_inl.h"

// Decodes some of each row, then scatters it.
void pack_panel(const WeightRows& w, int64_t k_begin, int64_t count, float* panel) {
  float row[kBlock];
  const int64_t before = bytes_of(w.dtype, k_begin);
  const int64_t step = bytes_of(w.dtype, kBlock);
  for (int64_t c = 0; c < kNr; ++c) {
    const std::byte* src = w.data + (c < w.rows ? c : w.rows - 1) * w.row_bytes + before;
    for (int64_t at = 0; at < count; at += kBlock, src += step) {
      const int64_t some = min_of(kBlock, count - at);
      decode(w.dtype, src, some, 1.0f, row);
      for (int64_t i = 0; i < some; ++i) {
        panel[(at + i) * kNr + c] = row[i];
      }
    }
  }
}

#include "cpu/rows_inl.h"

}  // namespace

#include "cpu/table_inl.h"
const Kernels kScalarKernels = HETERO_KERNEL_TABLE("scalar");

}  // namespace hetero::cpu
