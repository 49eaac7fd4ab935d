// Every block format as small integers: element = q * scale + offset, with one scale and one offset
// for each 16 elements. Included by kernels_inl.h, under its rules. Layouts: gguf/dequantize.cc,
// the plain truth that these loops are tested against; they are written for the compiler to
// vectorize. The formats with kShift can also be read straight into registers:
// element = scale * (q + shift) + offset, q from read().

struct Unpacked {
  alignas(64) int8_t q[256];
  float scale[16];
  float offset[16];
};

HETERO_KERNEL void set_part(Unpacked& u, int part, float scale, float offset) {
  u.scale[part] = scale;
  u.offset[part] = offset;
}

HETERO_KERNEL void set_parts_32(Unpacked& u, float scale, float offset) {
  set_part(u, 0, scale, offset);
  set_part(u, 1, scale, offset);
}

constexpr int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
constexpr int8_t kMxfp4Values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

// Scales of formats that are read straight into registers.
struct HalfScale {
  static constexpr bool kOffset = false;
  HETERO_KERNEL Reg scale(const std::byte* p) { return V::set_f16(p); }
  HETERO_KERNEL Reg offset(const std::byte*) { return V::zero(); }
};
struct HalfScaleAndOffset {
  static constexpr bool kOffset = true;
  HETERO_KERNEL Reg scale(const std::byte* p) { return V::set_f16(p); }
  HETERO_KERNEL Reg offset(const std::byte* p) { return V::set_f16(p + 2); }
};

struct Q4_0 : HalfScale {
  static constexpr int kElements = 32;
  static constexpr int kBytes = 18;
  static constexpr float kShift = -8.0f;
  HETERO_KERNEL void read(const std::byte* p, Reg* q) { V::q4(p + 2, q); }
  HETERO_KERNEL void unpack(const std::byte* p, Unpacked& u) {
    const float d = V::f16(p);
    V::store_numbers(u.q, V::nibbles(p + 2));
    set_parts_32(u, d, -8.0f * d);
  }
};
struct Q4_1 : HalfScaleAndOffset {
  static constexpr int kElements = 32;
  static constexpr int kBytes = 20;
  static constexpr float kShift = 0.0f;
  HETERO_KERNEL void read(const std::byte* p, Reg* q) { V::q4(p + 4, q); }
  HETERO_KERNEL void unpack(const std::byte* p, Unpacked& u) {
    V::store_numbers(u.q, V::nibbles(p + 4));
    set_parts_32(u, V::f16(p), V::f16(p + 2));
  }
};
struct Q5_0 : HalfScale {
  static constexpr int kElements = 32;
  static constexpr int kBytes = 22;
  static constexpr float kShift = -16.0f;
  HETERO_KERNEL void read(const std::byte* p, Reg* q) { V::to_floats(numbers(p), q); }
  HETERO_KERNEL V::Numbers numbers(const std::byte* p) { return V::add_fifth_bits(V::nibbles(p + 6), p + 2); }
  HETERO_KERNEL void unpack(const std::byte* p, Unpacked& u) {
    const float d = V::f16(p);
    V::store_numbers(u.q, numbers(p));
    set_parts_32(u, d, -16.0f * d);
  }
};
struct Q5_1 : HalfScaleAndOffset {
  static constexpr int kElements = 32;
  static constexpr int kBytes = 24;
  static constexpr float kShift = 0.0f;
  HETERO_KERNEL void read(const std::byte* p, Reg* q) { V::to_floats(numbers(p), q); }
  HETERO_KERNEL V::Numbers numbers(const std::byte* p) { return V::add_fifth_bits(V::nibbles(p + 8), p + 4); }
  HETERO_KERNEL void unpack(const std::byte* p, Unpacked& u) {
    V::store_numbers(u.q, numbers(p));
    set_parts_32(u, V::f16(p), V::f16(p + 2));
  }
};
struct Q8_0 : HalfScale {
  static constexpr int kElements = 32;
  static constexpr int kBytes = 34;
  static constexpr float kShift = 0.0f;
  HETERO_KERNEL void read(const std::byte* p, Reg* q) { V::q8(p + 2, q); }
  HETERO_KERNEL void unpack(const std::byte* p, Unpacked& u) {
    __builtin_memcpy(u.q, p + 2, 32);
    set_parts_32(u, V::f16(p), 0.0f);
  }
};
struct IQ4_NL : HalfScale {
  static constexpr int kElements = 32;
  static constexpr int kBytes = 18;
  static constexpr float kShift = 0.0f;
  HETERO_KERNEL void read(const std::byte* p, Reg* q) { V::to_floats(numbers(p), q); }
  HETERO_KERNEL V::Numbers numbers(const std::byte* p) { return V::look_up(kIq4Values, V::nibbles(p + 2)); }
  HETERO_KERNEL void unpack(const std::byte* p, Unpacked& u) {
    V::store_numbers(u.q, numbers(p));
    set_parts_32(u, V::f16(p), 0.0f);
  }
};
// 2^(exponent - 128): half of the format's scale, as the values are doubled.
HETERO_KERNEL float mxfp4_scale(const std::byte* p) {
  const auto e = static_cast<uint32_t>(p[0]);
  return __builtin_bit_cast(float, e < 2 ? 0x00200000u << e : (e - 1) << 23);
}
struct MXFP4 {
  static constexpr int kElements = 32;
  static constexpr int kBytes = 17;
  static constexpr float kShift = 0.0f;
  static constexpr bool kOffset = false;
  HETERO_KERNEL Reg scale(const std::byte* p) { return V::set(mxfp4_scale(p)); }
  HETERO_KERNEL Reg offset(const std::byte*) { return V::zero(); }
  HETERO_KERNEL void read(const std::byte* p, Reg* q) { V::to_floats(numbers(p), q); }
  HETERO_KERNEL V::Numbers numbers(const std::byte* p) { return V::look_up(kMxfp4Values, V::nibbles(p + 1)); }
  HETERO_KERNEL void unpack(const std::byte* p, Unpacked& u) {
    V::store_numbers(u.q, numbers(p));
    set_parts_32(u, mxfp4_scale(p), 0.0f);
  }
};

// Super-blocks of 256.
struct Q2_K {
  static constexpr int kElements = 256;
  static constexpr int kBytes = 84;
  HETERO_KERNEL void unpack(const std::byte* p, Unpacked& u) {
    const auto* b = reinterpret_cast<const uint8_t*>(p);
    const float d = V::f16(p + 80);
    const float dmin = V::f16(p + 82);
    for (int i = 0; i < 16; ++i) {
      set_part(u, i, d * static_cast<float>(b[i] & 15), -dmin * static_cast<float>(b[i] >> 4));
    }
    for (int part = 0; part < 8; ++part) {
      const uint8_t* q = b + 16 + part / 4 * 32;
      for (int i = 0; i < 32; ++i) {
        u.q[part * 32 + i] = static_cast<int8_t>((q[i] >> (part % 4 * 2)) & 3);
      }
    }
  }
};
// 6-bit scales, less 32: 4 low bits in bytes 96..103, 2 high bits in 104..107.
HETERO_KERNEL void unpack_q3_scales(const std::byte* p, int8_t* scale) {
  const uint8_t* packed = reinterpret_cast<const uint8_t*>(p) + 96;
  for (int i = 0; i < 16; ++i) {
    const int low = i < 8 ? packed[i] & 15 : packed[i - 8] >> 4;
    const int high = (packed[8 + i % 4] >> (i / 4 * 2)) & 3;
    scale[i] = static_cast<int8_t>((low | high << 4) - 32);
  }
}
struct Q3_K {
  static constexpr int kElements = 256;
  static constexpr int kBytes = 110;
  HETERO_KERNEL void unpack(const std::byte* p, Unpacked& u) {
    const auto* b = reinterpret_cast<const uint8_t*>(p);
    const float d = V::f16(p + 108);
    int8_t scale[16];
    unpack_q3_scales(p, scale);
    for (int i = 0; i < 16; ++i) {
      set_part(u, i, d * static_cast<float>(scale[i]), 0.0f);
    }
    for (int part = 0; part < 8; ++part) {
      const uint8_t* q = b + 32 + part / 4 * 32;
      for (int i = 0; i < 32; ++i) {
        const int high = (b[i] >> part) & 1;  // cleared: 4 less
        u.q[part * 32 + i] = static_cast<int8_t>(((q[i] >> (part % 4 * 2)) & 3) + 4 * high - 4);
      }
    }
  }
};
// Scales and minima of Q4_K and Q5_K, 6 bits each in 12 bytes.
HETERO_KERNEL void unpack_scales(const std::byte* p, uint8_t* scale, uint8_t* min) {
  const auto* b = reinterpret_cast<const uint8_t*>(p);
  for (int i = 0; i < 4; ++i) {
    scale[i] = b[i] & 63;
    min[i] = b[i + 4] & 63;
    scale[i + 4] = static_cast<uint8_t>((b[i + 8] & 15) | (b[i] >> 6) << 4);
    min[i + 4] = static_cast<uint8_t>((b[i + 8] >> 4) | (b[i + 4] >> 6) << 4);
  }
}
HETERO_KERNEL void unpack_k_scales(const std::byte* p, Unpacked& u) {
  const float d = V::f16(p);
  const float dmin = V::f16(p + 2);
  uint8_t scale[8];
  uint8_t min[8];
  unpack_scales(p + 4, scale, min);
  for (int i = 0; i < 16; ++i) {
    set_part(u, i, d * static_cast<float>(scale[i / 2]), -dmin * static_cast<float>(min[i / 2]));
  }
}
struct Q4_K {
  static constexpr int kElements = 256;
  static constexpr int kBytes = 144;
  HETERO_KERNEL void unpack(const std::byte* p, Unpacked& u) {
    unpack_k_scales(p, u);
    const auto* b = reinterpret_cast<const uint8_t*>(p) + 16;
    for (int part = 0; part < 4; ++part) {
      for (int i = 0; i < 32; ++i) {
        u.q[part * 64 + i] = static_cast<int8_t>(b[part * 32 + i] & 15);
        u.q[part * 64 + 32 + i] = static_cast<int8_t>(b[part * 32 + i] >> 4);
      }
    }
  }
};
struct Q5_K {
  static constexpr int kElements = 256;
  static constexpr int kBytes = 176;
  HETERO_KERNEL void unpack(const std::byte* p, Unpacked& u) {
    unpack_k_scales(p, u);
    const auto* high = reinterpret_cast<const uint8_t*>(p) + 16;
    const uint8_t* b = high + 32;
    for (int part = 0; part < 4; ++part) {
      for (int i = 0; i < 32; ++i) {
        const int bits = high[i] >> (2 * part);
        u.q[part * 64 + i] = static_cast<int8_t>((b[part * 32 + i] & 15) | (bits & 1) << 4);
        u.q[part * 64 + 32 + i] = static_cast<int8_t>((b[part * 32 + i] >> 4) | (bits & 2) << 3);
      }
    }
  }
};
struct Q6_K {
  static constexpr int kElements = 256;
  static constexpr int kBytes = 210;
  HETERO_KERNEL void unpack(const std::byte* p, Unpacked& u) {
    const auto* b = reinterpret_cast<const uint8_t*>(p);
    const float d = V::f16(p + 208);
    for (int i = 0; i < 16; ++i) {
      set_part(u, i, d * static_cast<float>(static_cast<int8_t>(b[192 + i])), 0.0f);
    }
    for (int half = 0; half < 2; ++half) {
      const uint8_t* low = b + half * 64;
      const uint8_t* high = b + 128 + half * 32;
      int8_t* q = u.q + half * 128;
      for (int i = 0; i < 32; ++i) {
        q[i] = static_cast<int8_t>(((low[i] & 15) | (high[i] & 3) << 4) - 32);
        q[i + 32] = static_cast<int8_t>(((low[i + 32] & 15) | (high[i] >> 2 & 3) << 4) - 32);
        q[i + 64] = static_cast<int8_t>((low[i] >> 4 | (high[i] >> 4 & 3) << 4) - 32);
        q[i + 96] = static_cast<int8_t>((low[i + 32] >> 4 | (high[i] >> 6) << 4) - 32);
      }
    }
  }
};
// Of one of eight blocks.
HETERO_KERNEL int8_t iq4_scale(const std::byte* p, int part) {
  const int low = static_cast<int>(p[4 + part / 2]) >> (part % 2 * 4) & 15;
  const int high = read_u16(p + 2) >> (2 * part) & 3;
  return static_cast<int8_t>((low | high << 4) - 32);
}
struct IQ4_XS {
  static constexpr int kElements = 256;
  static constexpr int kBytes = 136;
  HETERO_KERNEL void unpack(const std::byte* p, Unpacked& u) {
    const float d = V::f16(p);
    for (int part = 0; part < 8; ++part) {
      const float s = d * static_cast<float>(iq4_scale(p, part));
      set_part(u, 2 * part, s, 0.0f);
      set_part(u, 2 * part + 1, s, 0.0f);
      V::store_numbers(u.q + part * 32, V::look_up(kIq4Values, V::nibbles(p + 8 + part * 16)));
    }
  }
};

/// Calls visit.template operator()<B>() for the format B of dtype; false for plain types.
template <class Visit>
HETERO_KERNEL bool with_format(DType dtype, const Visit& visit) {
  switch (dtype) {
    case DType::kQ4_0:
      return visit.template operator()<Q4_0>(), true;
    case DType::kQ4_1:
      return visit.template operator()<Q4_1>(), true;
    case DType::kQ5_0:
      return visit.template operator()<Q5_0>(), true;
    case DType::kQ5_1:
      return visit.template operator()<Q5_1>(), true;
    case DType::kQ8_0:
      return visit.template operator()<Q8_0>(), true;
    case DType::kQ2_K:
      return visit.template operator()<Q2_K>(), true;
    case DType::kQ3_K:
      return visit.template operator()<Q3_K>(), true;
    case DType::kQ4_K:
      return visit.template operator()<Q4_K>(), true;
    case DType::kQ5_K:
      return visit.template operator()<Q5_K>(), true;
    case DType::kQ6_K:
      return visit.template operator()<Q6_K>(), true;
    case DType::kIQ4_NL:
      return visit.template operator()<IQ4_NL>(), true;
    case DType::kIQ4_XS:
      return visit.template operator()<IQ4_XS>(), true;
    case DType::kMXFP4:
      return visit.template operator()<MXFP4>(), true;
    default:
      return false;
  }
}
