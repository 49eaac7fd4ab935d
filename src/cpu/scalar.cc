// Kernels without instruction sets beyond the architecture's baseline, for every machine: four
// numbers at a time in the vector types of GCC and Clang, which become SSE2 or NEON.
#include "cpu/int8.h"
#include "cpu/kernels.h"

#define HETERO_KERNEL static inline __attribute__((always_inline))

namespace hetero::cpu {
namespace {

struct V {
  static constexpr int kWidth = 4;
  using Reg = float __attribute__((vector_size(16)));
  using Ints = int32_t __attribute__((vector_size(16)));

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

  HETERO_KERNEL Reg zero() { return Reg{}; }
  HETERO_KERNEL Reg set(float x) { return Reg{x, x, x, x}; }
  HETERO_KERNEL Reg set_f16(const std::byte* p) { return set(f16(p)); }
  HETERO_KERNEL Reg load_bytes(const std::byte* p) {
    Reg r;
    __builtin_memcpy(&r, p, sizeof(r));
    return r;
  }
  HETERO_KERNEL Reg load(const float* p) { return load_bytes(reinterpret_cast<const std::byte*>(p)); }
  HETERO_KERNEL Reg load_f16(const std::byte* p) { return Reg{f16(p), f16(p + 2), f16(p + 4), f16(p + 6)}; }
  HETERO_KERNEL Reg load_i8(const int8_t* p) {
    return Reg{static_cast<float>(p[0]), static_cast<float>(p[1]), static_cast<float>(p[2]),
               static_cast<float>(p[3])};
  }
  HETERO_KERNEL Reg load_bf16(const std::byte* p) {
    uint16_t b[4];
    __builtin_memcpy(b, p, sizeof(b));
    Ints bits;
    for (int i = 0; i < 4; ++i) {
      bits[i] = static_cast<int32_t>(static_cast<uint32_t>(b[i]) << 16);
    }
    return as_floats(bits);
  }
  HETERO_KERNEL void store(float* p, Reg a) { __builtin_memcpy(p, &a, sizeof(a)); }
  HETERO_KERNEL void store_f16(uint16_t* p, Reg a) {
    for (int i = 0; i < 4; ++i) {
      p[i] = to_f16(a[i]);
    }
  }
  HETERO_KERNEL void store_i8(int8_t* p, Reg a) {
    for (int i = 0; i < 4; ++i) {
      p[i] = static_cast<int8_t>(a[i]);
    }
  }
  HETERO_KERNEL void prefetch(const std::byte* p) { __builtin_prefetch(p); }
  HETERO_KERNEL Reg add(Reg a, Reg b) { return a + b; }
  HETERO_KERNEL Reg sub(Reg a, Reg b) { return a - b; }
  HETERO_KERNEL Reg mul(Reg a, Reg b) { return a * b; }
  HETERO_KERNEL Reg div(Reg a, Reg b) { return a / b; }
  HETERO_KERNEL Reg fma(Reg a, Reg b, Reg c) { return a * b + c; }
  HETERO_KERNEL Reg max(Reg a, Reg b) { return choose(a > b, a, b); }
  HETERO_KERNEL Reg min(Reg a, Reg b) { return choose(a < b, a, b); }
  HETERO_KERNEL float sum(Reg a) { return (a[0] + a[2]) + (a[1] + a[3]); }
  HETERO_KERNEL float largest(Reg a) {
    const float x = a[0] > a[1] ? a[0] : a[1];
    const float y = a[2] > a[3] ? a[2] : a[3];
    return x > y ? x : y;
  }
  // Adding 1.5 * 2^23 leaves no room for a fraction: the sum is rounded to the nearest integer.
  HETERO_KERNEL Reg round(Reg a) { return (a + 12582912.0f) - 12582912.0f; }
  HETERO_KERNEL Reg exp2_int(Reg n) {
    // NaN, which no conversion to integers may see, becomes 2^-127.
    const Reg biased = choose(n > set(-127.0f), n + 127.0f, zero());
    return as_floats(__builtin_convertvector(biased, Ints) << 23);
  }
  HETERO_KERNEL void q4(const std::byte* p, Reg* q) {
    for (int j = 0; j < 4; ++j) {
      Ints b;
      for (int i = 0; i < 4; ++i) {
        b[i] = static_cast<int32_t>(p[4 * j + i]);
      }
      q[j] = __builtin_convertvector(b & 15, Reg);
      q[4 + j] = __builtin_convertvector(b >> 4, Reg);
    }
  }
  HETERO_KERNEL void q8(const std::byte* p, Reg* q) {
    for (int j = 0; j < 8; ++j) {
      Ints b;
      for (int i = 0; i < 4; ++i) {
        b[i] = static_cast<int8_t>(p[4 * j + i]);
      }
      q[j] = __builtin_convertvector(b, Reg);
    }
  }

 private:
  HETERO_KERNEL Reg as_floats(Ints bits) {
    Reg r;
    __builtin_memcpy(&r, &bits, sizeof(r));
    return r;
  }
  HETERO_KERNEL Reg choose(Ints mask, Reg yes, Reg no) {
    Ints a;
    Ints b;
    __builtin_memcpy(&a, &yes, sizeof(a));
    __builtin_memcpy(&b, &no, sizeof(b));
    return as_floats((a & mask) | (b & ~mask));
  }
};

constexpr int64_t kMr = 4;
constexpr int64_t kGemvRows = 4;
constexpr int64_t kFewRows = 8;

#include "cpu/kernels_inl.h"

// Decodes some of each row, then scatters it.
void pack_panel(const WeightRows& w, int64_t k_begin, int64_t count, float* panel) {
  constexpr int64_t kSome = 256;  // whole blocks of every format
  float row[kSome];
  const int64_t before = bytes_of(w.dtype, k_begin);
  for (int64_t c = 0; c < kNr; ++c) {
    const std::byte* src = w.data + (c < w.rows ? c : w.rows - 1) * w.row_bytes + before;
    for (int64_t at = 0; at < count; at += kSome) {
      const int64_t some = min_of(kSome, count - at);
      decode(w.dtype, src + bytes_of(w.dtype, at), some, 1.0f, row);
      for (int64_t i = 0; i < some; ++i) {
        panel[(at + i) * kNr + c] = row[i];
      }
    }
  }
}

#include "cpu/rows_inl.h"

// Four rows side by side, one number at a time.
struct I {
  static constexpr int kLanes = 4;
  static constexpr int kTile = 4;
  static constexpr int kSignedZero = 0;
  struct Ints {
    int8_t bytes[16];  // as loaded
    int32_t sums[4];
  };
  using Floats = V::Reg;

  HETERO_KERNEL Ints load(const std::byte* p) {
    Ints a = {};
    __builtin_memcpy(a.bytes, p, sizeof(a.bytes));
    return a;
  }
  HETERO_KERNEL Ints low(Ints a) {
    for (int8_t& b : a.bytes) {
      b = static_cast<int8_t>(b & 15);
    }
    return a;
  }
  HETERO_KERNEL Ints high(Ints a) {
    for (int8_t& b : a.bytes) {
      b = static_cast<int8_t>(static_cast<uint8_t>(b) >> 4);
    }
    return a;
  }
  HETERO_KERNEL Ints broadcast(const int8_t* p) {
    Ints a = {};
    for (int i = 0; i < 16; ++i) {
      a.bytes[i] = p[i % 4];
    }
    return a;
  }
  HETERO_KERNEL Ints zero() { return {}; }
  HETERO_KERNEL std::byte signed_byte(int8_t q) { return static_cast<std::byte>(q); }
  HETERO_KERNEL Ints dot(Ints sum, const Ints& w, const Ints& x) {
    for (int i = 0; i < 16; ++i) {
      sum.sums[i / 4] += w.bytes[i] * x.bytes[i];
    }
    return sum;
  }
  HETERO_KERNEL Ints total(Ints sum) { return sum; }
  HETERO_KERNEL Ints dot_signed(Ints sum, const Ints& w, const Ints& x) { return dot(sum, w, x); }
  HETERO_KERNEL Ints total_signed(Ints sum) { return sum; }
  HETERO_KERNEL Ints subtract(Ints a, int32_t b) {
    for (int32_t& s : a.sums) {
      s -= b;
    }
    return a;
  }
  HETERO_KERNEL Floats to_floats(const Ints& a) {
    return Floats{static_cast<float>(a.sums[0]), static_cast<float>(a.sums[1]), static_cast<float>(a.sums[2]),
                  static_cast<float>(a.sums[3])};
  }
  HETERO_KERNEL Floats load_f16(const std::byte* p) { return V::load_f16(p); }
  HETERO_KERNEL Floats load_u8(const std::byte* p) {
    return Floats{static_cast<float>(p[0]), static_cast<float>(p[1]), static_cast<float>(p[2]),
                  static_cast<float>(p[3])};
  }
  HETERO_KERNEL Floats set(float x) { return V::set(x); }
  HETERO_KERNEL Floats mul(Floats a, Floats b) { return a * b; }
  HETERO_KERNEL Floats fma(Floats a, Floats b, Floats c) { return a * b + c; }
  HETERO_KERNEL void store(float* p, Floats a) { V::store(p, a); }
};
#include "cpu/int8_inl.h"

}  // namespace

#include "cpu/table_inl.h"
const Int8Kernels kScalarInt8Kernels = HETERO_INT8_TABLE;
const Kernels kScalarKernels = HETERO_KERNEL_TABLE("scalar", &kScalarInt8Kernels);

}  // namespace hetero::cpu
