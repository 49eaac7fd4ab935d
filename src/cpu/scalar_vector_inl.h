// V, four floats, in the vector types of GCC and Clang, which become SSE2 or NEON: for every machine.

struct V {
  static constexpr int kWidth = 4;
  using Reg = float __attribute__((vector_size(16)));
  using Ints = int32_t __attribute__((vector_size(16)));
  using Bytes = uint8_t __attribute__((vector_size(16)));
  struct Numbers {
    Bytes low, high;
  };

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
#if defined(__aarch64__)
  HETERO_KERNEL Reg load_f16(const std::byte* p) {
    return vcvt_f32_f16(vld1_f16(reinterpret_cast<const __fp16*>(p)));
  }
#else
  HETERO_KERNEL Reg load_f16(const std::byte* p) {
    return Reg{f16(p), f16(p + 2), f16(p + 4), f16(p + 6)};
  }
#endif
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
  HETERO_KERNEL void store(float* p, Reg a) {
    __builtin_memcpy(p, &a, sizeof(a));
  }
  HETERO_KERNEL void store_f16(uint16_t* p, Reg a) {
    for (int i = 0; i < 4; ++i) {
      p[i] = to_f16(a[i]);
    }
  }
  HETERO_KERNEL void store_i8(int8_t* p, Reg a) {
    for (int i = 0; i < 4; ++i) {
      p[i] = a[i] == a[i] ? static_cast<int8_t>(a[i]) : int8_t{0};
    }
  }
  HETERO_KERNEL void prefetch(const std::byte* p) {
    __builtin_prefetch(p);
  }
  HETERO_KERNEL Reg add(Reg a, Reg b) {
    return a + b;
  }
  HETERO_KERNEL Reg sub(Reg a, Reg b) {
    return a - b;
  }
  HETERO_KERNEL Reg mul(Reg a, Reg b) {
    return a * b;
  }
  HETERO_KERNEL Reg div(Reg a, Reg b) {
    return a / b;
  }
#if defined(__aarch64__)  // where it is part of the baseline
  HETERO_KERNEL Reg fma(Reg a, Reg b, Reg c) {
    return vfmaq_f32(c, a, b);
  }
#else
  HETERO_KERNEL Reg fma(Reg a, Reg b, Reg c) {
    return a * b + c;
  }
#endif
  HETERO_KERNEL Reg abs(Reg a) {
    return as_floats(reinterpret_cast<Ints>(a) & 0x7fffffff);
  }
  HETERO_KERNEL Reg max(Reg a, Reg b) {
    return choose(a > b, a, b);
  }
  HETERO_KERNEL Reg min(Reg a, Reg b) {
    return choose(a < b, a, b);
  }
  HETERO_KERNEL float sum(Reg a) {
    return (a[0] + a[2]) + (a[1] + a[3]);
  }
  HETERO_KERNEL void sum_of_four(const Reg* a, float* to) {
    for (int i = 0; i < 4; ++i) {
      to[i] = sum(a[i]);
    }
  }
  HETERO_KERNEL float largest(Reg a) {
    const float x = a[0] > a[1] ? a[0] : a[1];
    const float y = a[2] > a[3] ? a[2] : a[3];
    return x > y ? x : y;
  }
  HETERO_KERNEL void largest_of_four(const Reg* a, float* to) {
    for (int i = 0; i < 4; ++i) {
      to[i] = largest(a[i]);
    }
  }
  // Adding 1.5 * 2^23 leaves no room for a fraction: the sum is rounded to the nearest integer.
  HETERO_KERNEL Reg round(Reg a) {
    return (a + 12582912.0f) - 12582912.0f;
  }
  HETERO_KERNEL Reg times_exp2(Reg a, Reg n) {
    // NaN, which no conversion to integers may see, becomes 2^-127.
    const Reg biased = choose(n > set(-127.0f), n + 127.0f, zero());
    return a * as_floats(__builtin_convertvector(biased, Ints) << 23);
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
  HETERO_KERNEL Numbers nibbles(const std::byte* p) {
    Bytes b;
    __builtin_memcpy(&b, p, sizeof(b));
    return {b & 15, b >> 4};
  }
#if defined(__aarch64__)
  HETERO_KERNEL Numbers look_up(const int8_t* values, Numbers indices) {
    const uint8x16_t table = vreinterpretq_u8_s8(vld1q_s8(values));
    return {vqtbl1q_u8(table, indices.low), vqtbl1q_u8(table, indices.high)};
  }
#else
  HETERO_KERNEL Numbers look_up(const int8_t* values, Numbers indices) {
    Numbers found;
    for (int i = 0; i < 16; ++i) {
      found.low[i] = static_cast<uint8_t>(values[indices.low[i]]);
      found.high[i] = static_cast<uint8_t>(values[indices.high[i]]);
    }
    return found;
  }
#endif
  HETERO_KERNEL Numbers add_fifth_bits(Numbers a, const std::byte* bits) {
    return {a.low | fifth_of(bits), a.high | fifth_of(bits + 2)};
  }
  HETERO_KERNEL void store_numbers(int8_t* p, Numbers a) {
    __builtin_memcpy(p, &a, sizeof(a));
  }
  HETERO_KERNEL void to_floats(Numbers a, Reg* q) {
    int8_t numbers[32];
    store_numbers(numbers, a);
    for (int j = 0; j < 8; ++j) {
      q[j] = load_i8(numbers + 4 * j);
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
  // 16 where a bit of two bytes is set.
  HETERO_KERNEL Bytes fifth_of(const std::byte* bits) {
    const Bytes mine = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    uint64_t eights[2];  // each byte eight times
    for (int i = 0; i < 2; ++i) {
      eights[i] = static_cast<uint64_t>(bits[i]) * 0x0101010101010101;
    }
    Bytes b;
    __builtin_memcpy(&b, eights, sizeof(b));
    return reinterpret_cast<Bytes>((b & mine) == mine) & 16;
  }
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
