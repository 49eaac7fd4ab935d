// The packed formats of int8_inl.h, which includes this. A panel is a sequence of super-blocks: a header,
// then kBlocks blocks of 32 columns, each with its scales and its words: words of 4 bytes lie in the order
// [kWords][kPanelRows].
//
// Words of a row: of 4-bit numbers, the j-th of the first four holds elements 4j.. in the low nibbles and
// 16 + 4j.. in the high ones; then come further bits, if there are any. Of 8-bit numbers, the j-th of eight
// holds elements 4j...
//
// kZero: the number that stands for 0, taken off in integers. With kOffset, offset * sum is added. kParts:
// how many scales (and offsets) there are in a block, for elements 0..15 and 16..31 if there are two.

enum class Numbers {
  kNibbles,  // 0..15
  kSmall,    // 0..63
  kSigned,   // -128..127, stored with kSignedZero added
};

HETERO_KERNEL uint32_t read_u32(const std::byte* p) {
  uint32_t v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}
HETERO_KERNEL void copy_half(const std::byte* from, int lane, std::byte* to) {
  __builtin_memcpy(to + 2 * lane, from, 2);
}
HETERO_KERNEL Ints load_word(const std::byte* words, int word, int v) {
  return I::load(words + (word * kVectors + v) * 4 * kLanes);
}
// Four bits -> the lowest bits of four bytes.
HETERO_KERNEL uint32_t spread(uint32_t bits) {
  return (bits & 15u) * 0x00204081u & 0x01010101u;
}

// Numbers. pair(): those of vector v that meet elements 4j.. and 16 + 4j.. of the activations.
struct Packed4 {
  static constexpr int kWords = 4;
  static constexpr Numbers kNumbers = Numbers::kNibbles;
  HETERO_KERNEL void pair(const std::byte* words, int j, int v, Ints& first, Ints& second) {
    const Ints both = load_word(words, j, v);
    first = I::low(both);
    second = I::high(both);
  }
};
struct Packed5 {  // bits j and 4 + j of the bytes of the fifth word
  static constexpr int kWords = 5;
  static constexpr Numbers kNumbers = Numbers::kSmall;
  HETERO_KERNEL void pair(const std::byte* words, int j, int v, Ints& first, Ints& second) {
    const Ints both = load_word(words, j, v);
    const Ints fifth = load_word(words, 4, v);
    first = I::add_bits(I::low(both), fifth, 4 - j, 0x10);
    second = I::add_bits(I::high(both), fifth, -j, 0x10);
  }
};
struct Packed6 {  // two bits each: at 4 (j % 2) and 2 + 4 (j % 2) of the bytes of word 4 + j / 2
  static constexpr int kWords = 6;
  static constexpr Numbers kNumbers = Numbers::kSmall;
  HETERO_KERNEL void pair(const std::byte* words, int j, int v, Ints& first, Ints& second) {
    const Ints both = load_word(words, j, v);
    const Ints high = load_word(words, 4 + j / 2, v);
    first = I::add_bits(I::low(both), high, 4 - j % 2 * 4, 0x30);
    second = I::add_bits(I::high(both), high, 2 - j % 2 * 4, 0x30);
  }
};
struct Packed2 {  // two bits each: at 4 (j % 2) and 2 + 4 (j % 2) of the bytes of word j / 2
  static constexpr int kWords = 2;
  static constexpr Numbers kNumbers = Numbers::kNibbles;
  HETERO_KERNEL void pair(const std::byte* words, int j, int v, Ints& first, Ints& second) {
    const Ints both = load_word(words, j / 2, v);
    first = I::add_bits(I::zero(), both, -(j % 2) * 4, 0x03);
    second = I::add_bits(I::zero(), both, -2 - j % 2 * 4, 0x03);
  }
};
struct Packed3 {  // as Packed2, then as the fifth bits of Packed5
  static constexpr int kWords = 3;
  static constexpr Numbers kNumbers = Numbers::kSmall;
  HETERO_KERNEL void pair(const std::byte* words, int j, int v, Ints& first, Ints& second) {
    Packed2::pair(words, j, v, first, second);
    const Ints high = load_word(words, 2, v);
    first = I::add_bits(first, high, 2 - j, 0x04);
    second = I::add_bits(second, high, -2 - j, 0x04);
  }
};
template <const int8_t* kValues>  // of the sixteen nibbles
struct PackedTable {
  static constexpr int kWords = 4;
  static constexpr Numbers kNumbers = Numbers::kSigned;
  HETERO_KERNEL void pair(const std::byte* words, int j, int v, Ints& first, Ints& second) {
    const Ints both = load_word(words, j, v);
    first = I::look_up(kValues, I::low(both));
    second = I::look_up(kValues, I::high(both));
  }
};
struct Packed8 {
  static constexpr int kWords = 8;
  static constexpr Numbers kNumbers = Numbers::kSigned;
  HETERO_KERNEL void pair(const std::byte* words, int j, int v, Ints& first, Ints& second) {
    first = load_word(words, j, v);
    second = load_word(words, j + 4, v);
  }
};

// Scales: one f16 for a block, or with an offset two. Where I has kWholeScales: see int8_whole_inl.h.
template <bool kWithOffset>
struct HalfScales {
  static constexpr int kBlocks = 1;
  static constexpr int kParts = 1;
  static constexpr int kHeaderBytes = 0;
  static constexpr int kScaleBytes = (kWithOffset ? 4 : 2) * kPanelRows;
  static constexpr bool kOffset = kWithOffset;
  struct Header {};
  HETERO_KERNEL void pack_header(const std::byte*, int, std::byte*) {}
  HETERO_KERNEL void pack_scales(const std::byte* block, int, int lane, std::byte* to) {
    copy_half(block, lane, to);
    if (kWithOffset) {
      copy_half(block + 2, lane, to + 2 * kPanelRows);
    }
  }
  HETERO_KERNEL Header header(const std::byte*, int) { return {}; }
  HETERO_KERNEL Floats scale(const Header&, const std::byte* scales, int, int v) {
    return I::load_f16(scales + 2 * v * kLanes);
  }
  HETERO_KERNEL Floats offset(const Header&, const std::byte* scales, int, int v) {
    return kWithOffset ? I::load_f16(scales + 2 * kPanelRows + 2 * v * kLanes) : I::set(0.0f);
  }
};
// Eight blocks share two f16, at kHalves of the source: for their scales and for their minima.
template <int kHalves>
struct ScalesAndMinima {
  static constexpr int kBlocks = 8;
  static constexpr int kHeaderBytes = 4 * kPanelRows;
  static constexpr int kScaleBytes = 2 * kPanelRows;
  static constexpr int kZero = 0;
  static constexpr bool kOffset = true;
  struct Header {
    Floats d;
    Floats minus_dmin;
  };
  HETERO_KERNEL void pack_header(const std::byte* block, int lane, std::byte* to) {
    copy_half(block + kHalves, lane, to);
    copy_half(block + kHalves + 2, lane, to + 2 * kPanelRows);
  }
  HETERO_KERNEL Header header(const std::byte* p, int v) {
    return {I::load_f16(p + 2 * v * kLanes),
            I::mul(I::load_f16(p + 2 * kPanelRows + 2 * v * kLanes), I::set(-1.0f))};
  }
};
// A scale and a minimum of 6 bits for each block, here in a byte each.
struct SuperScales : ScalesAndMinima<0> {
  static constexpr int kParts = 1;
  HETERO_KERNEL void pack_scales(const std::byte* block, int part, int lane, std::byte* to) {
    uint8_t scale[8];
    uint8_t min[8];
    unpack_scales(block + 4, scale, min);
    to[lane] = static_cast<std::byte>(scale[part]);
    to[kPanelRows + lane] = static_cast<std::byte>(min[part]);
  }
  HETERO_KERNEL Floats scale(const Header& h, const std::byte* scales, int, int v) {
    return I::mul(h.d, I::load_u8(scales + v * kLanes));
  }
  HETERO_KERNEL Floats offset(const Header& h, const std::byte* scales, int, int v) {
    return I::mul(h.minus_dmin, I::load_u8(scales + kPanelRows + v * kLanes));
  }
};

template <int kNibbles>  // offset of the nibbles in a block
HETERO_KERNEL uint32_t nibble_word(const std::byte* block, int j) {
  return read_u32(block + kNibbles + 4 * j);
}
template <int kBits, int kNibbles>  // and of the fifth bits
HETERO_KERNEL uint32_t fifth_word(const std::byte* block, int j) {
  if (j < 4) {
    return nibble_word<kNibbles>(block, j);
  }
  const uint32_t bits = read_u32(block + kBits);
  uint32_t word = 0;
  for (int i = 0; i < 8; ++i) {  // elements 4i..
    word |= spread(bits >> 4 * i) << i;
  }
  return word;
}
// 32 bytes hold two parts of 32 elements: one in the low nibbles, one in the high ones.
HETERO_KERNEL uint32_t shared_nibbles(const std::byte* both, int shift, int j) {
  both += 4 * j;
  return (read_u32(both) >> shift & 0x0f0f0f0fu) | (read_u32(both + 16) >> shift & 0x0f0f0f0fu) << 4;
}

struct Panel4_0 : Packed4, HalfScales<false> {
  using Source = Q4_0;
  static constexpr int kZero = 8;
  HETERO_KERNEL uint32_t word(const std::byte* block, int, int j) { return nibble_word<2>(block, j); }
};
struct Panel4_1 : Packed4, HalfScales<true> {
  using Source = Q4_1;
  static constexpr int kZero = 0;
  HETERO_KERNEL uint32_t word(const std::byte* block, int, int j) { return nibble_word<4>(block, j); }
};
struct Panel5_0 : Packed5, HalfScales<false> {
  using Source = Q5_0;
  static constexpr int kZero = 16;
  HETERO_KERNEL uint32_t word(const std::byte* block, int, int j) { return fifth_word<2, 6>(block, j); }
};
struct Panel5_1 : Packed5, HalfScales<true> {
  using Source = Q5_1;
  static constexpr int kZero = 0;
  HETERO_KERNEL uint32_t word(const std::byte* block, int, int j) { return fifth_word<4, 8>(block, j); }
};
struct Panel8_0 : Packed8, HalfScales<false> {
  using Source = Q8_0;
  static constexpr int kZero = I::kSignedZero;
  HETERO_KERNEL uint32_t word(const std::byte* block, int, int j) {
    return read_u32(block + 2 + 4 * j) ^ (I::kSignedZero == 128 ? 0x80808080u : 0u);
  }
};
struct Panel4_K : Packed4, SuperScales {
  using Source = Q4_K;
  HETERO_KERNEL uint32_t word(const std::byte* block, int part, int j) {
    return shared_nibbles(block + 16 + part / 2 * 32, part % 2 * 4, j);
  }
};
struct Panel5_K : Packed5, SuperScales {
  using Source = Q5_K;
  HETERO_KERNEL uint32_t word(const std::byte* block, int part, int j) {
    if (j < 4) {
      return shared_nibbles(block + 48 + part / 2 * 32, part % 2 * 4, j);
    }
    uint32_t word = 0;
    for (int i = 0; i < 8; ++i) {  // bit `part` of the bytes of elements 4i..
      word |= (read_u32(block + 16 + 4 * i) >> part & 0x01010101u) << i;
    }
    return word;
  }
};
// Eight blocks share one f16; each has kParts scales of 8 bits, signed.
template <int kPartsOfBlock>
struct SignedScales {
  static constexpr int kBlocks = 8;
  static constexpr int kParts = kPartsOfBlock;
  static constexpr int kHeaderBytes = 2 * kPanelRows;
  static constexpr int kScaleBytes = kParts * kPanelRows;
  static constexpr bool kOffset = false;
  struct Header {
    Floats d;
  };
  HETERO_KERNEL Header header(const std::byte* p, int v) { return {I::load_f16(p + 2 * v * kLanes)}; }
  HETERO_KERNEL Floats scale(const Header& h, const std::byte* scales, int part, int v) {
    return I::mul(h.d, I::load_i8(scales + part * kPanelRows + v * kLanes));
  }
  HETERO_KERNEL Floats offset(const Header&, const std::byte*, int, int) { return I::set(0.0f); }
};
// Pairs of bits at `shift` of the bytes of elements 0..3, 16..19, 4..7 and 20..23 from `bytes` on, side by
// side.
HETERO_KERNEL uint32_t shared_pairs(const std::byte* bytes, int shift) {
  const auto pairs = [&](int at) { return read_u32(bytes + at) >> shift & 0x03030303u; };
  return pairs(0) | pairs(16) << 2 | pairs(4) << 4 | pairs(20) << 6;
}
struct Panel6_K : Packed6, SignedScales<2> {
  using Source = Q6_K;
  static constexpr int kZero = 32;
  // Of 128 elements, 32 bytes of high bits hold four parts of 32, two bits each.
  HETERO_KERNEL uint32_t word(const std::byte* block, int part, int j) {
    if (j < 4) {
      return shared_nibbles(block + part / 4 * 64 + part % 2 * 32, part % 4 / 2 * 4, j);
    }
    return shared_pairs(block + 128 + part / 4 * 32 + (j - 4) * 8, part % 4 * 2);
  }
  HETERO_KERNEL void pack_header(const std::byte* block, int lane, std::byte* to) {
    copy_half(block + 208, lane, to);
  }
  HETERO_KERNEL void pack_scales(const std::byte* block, int part, int lane, std::byte* to) {
    to[lane] = block[192 + 2 * part];
    to[kPanelRows + lane] = block[192 + 2 * part + 1];
  }
};
struct Panel2_K : Packed2, ScalesAndMinima<80> {
  using Source = Q2_K;
  static constexpr int kParts = 2;
  HETERO_KERNEL uint32_t word(const std::byte* block, int part, int j) {
    return shared_pairs(block + 16 + part / 4 * 32 + j * 8, part % 4 * 2);
  }
  // As they lie: the scale in the low nibble of a byte, the minimum in the high one.
  HETERO_KERNEL void pack_scales(const std::byte* block, int part, int lane, std::byte* to) {
    to[lane] = block[2 * part];
    to[kPanelRows + lane] = block[2 * part + 1];
  }
  HETERO_KERNEL Floats scale(const Header& h, const std::byte* scales, int part, int v) {
    return I::mul(h.d, I::load_u4(scales + part * kPanelRows + v * kLanes, 0));
  }
  HETERO_KERNEL Floats offset(const Header& h, const std::byte* scales, int part, int v) {
    return I::mul(h.minus_dmin, I::load_u4(scales + part * kPanelRows + v * kLanes, 4));
  }
};
struct Panel3_K : Packed3, SignedScales<2> {
  using Source = Q3_K;
  static constexpr int kZero = 4;
  HETERO_KERNEL uint32_t word(const std::byte* block, int part, int j) {
    uint32_t word = 0;
    if (j == 2) {
      for (int i = 0; i < 8; ++i) {  // bit `part` of the bytes of elements 4i..
        word |= (read_u32(block + 4 * i) >> part & 0x01010101u) << i;
      }
      return word;
    }
    return shared_pairs(block + 32 + part / 4 * 32 + j * 8, part % 4 * 2);
  }
  HETERO_KERNEL void pack_header(const std::byte* block, int lane, std::byte* to) {
    copy_half(block + 108, lane, to);
  }
  HETERO_KERNEL void pack_scales(const std::byte* block, int part, int lane, std::byte* to) {
    int8_t scale[16];
    unpack_q3_scales(block, scale);
    to[lane] = static_cast<std::byte>(scale[2 * part]);
    to[kPanelRows + lane] = static_cast<std::byte>(scale[2 * part + 1]);
  }
};
struct Panel4_NL : PackedTable<kIq4Values>, HalfScales<false> {
  using Source = IQ4_NL;
  static constexpr int kZero = I::kSignedZero;
  HETERO_KERNEL uint32_t word(const std::byte* block, int, int j) { return nibble_word<2>(block, j); }
};
struct Panel4_XS : PackedTable<kIq4Values>, SignedScales<1> {
  using Source = IQ4_XS;
  static constexpr int kZero = I::kSignedZero;
  HETERO_KERNEL uint32_t word(const std::byte* block, int part, int j) {
    return nibble_word<8>(block + 16 * part, j);
  }
  HETERO_KERNEL void pack_header(const std::byte* block, int lane, std::byte* to) {
    copy_half(block, lane, to);
  }
  HETERO_KERNEL void pack_scales(const std::byte* block, int part, int lane, std::byte* to) {
    to[lane] = static_cast<std::byte>(iq4_scale(block, part));
  }
};
struct PanelMXFP4 : PackedTable<kMxfp4Values> {
  using Source = MXFP4;
  static constexpr int kBlocks = 1;
  static constexpr int kParts = 1;
  static constexpr int kHeaderBytes = 0;
  static constexpr int kScaleBytes = 4 * kPanelRows;  // powers of two beyond the range of f16
  static constexpr bool kOffset = false;
  static constexpr int kZero = I::kSignedZero;
  struct Header {};
  HETERO_KERNEL uint32_t word(const std::byte* block, int, int j) { return nibble_word<1>(block, j); }
  HETERO_KERNEL void pack_header(const std::byte*, int, std::byte*) {}
  HETERO_KERNEL void pack_scales(const std::byte* block, int, int lane, std::byte* to) {
    const float scale = mxfp4_scale(block);
    __builtin_memcpy(to + 4 * lane, &scale, sizeof(scale));
  }
  HETERO_KERNEL Header header(const std::byte*, int) { return {}; }
  HETERO_KERNEL Floats scale(const Header&, const std::byte* scales, int, int v) {
    return I::load_floats(reinterpret_cast<const float*>(scales) + v * kLanes);
  }
  HETERO_KERNEL Floats offset(const Header&, const std::byte*, int, int) { return I::set(0.0f); }
};

/// Calls visit.template operator()<P>() for the packed form of dtype; does nothing for other types.
template <class Visit>
HETERO_KERNEL void with_panel(DType dtype, const Visit& visit) {
  switch (dtype) {
    case DType::kQ4_0:
      return visit.template operator()<Panel4_0>();
    case DType::kQ4_1:
      return visit.template operator()<Panel4_1>();
    case DType::kQ5_0:
      return visit.template operator()<Panel5_0>();
    case DType::kQ5_1:
      return visit.template operator()<Panel5_1>();
    case DType::kQ8_0:
      return visit.template operator()<Panel8_0>();
    case DType::kQ4_K:
      return visit.template operator()<Panel4_K>();
    case DType::kQ5_K:
      return visit.template operator()<Panel5_K>();
    case DType::kQ6_K:
      return visit.template operator()<Panel6_K>();
    case DType::kQ2_K:
      return visit.template operator()<Panel2_K>();
    case DType::kQ3_K:
      return visit.template operator()<Panel3_K>();
    case DType::kIQ4_NL:
      return visit.template operator()<Panel4_NL>();
    case DType::kIQ4_XS:
      return visit.template operator()<Panel4_XS>();
    case DType::kMXFP4:
      return visit.template operator()<PanelMXFP4>();
    default:
      return;
  }
}

template <class P>
constexpr int kNumberBytes = P::kWords * 4 * kPanelRows;
