// The 8-bit products, written once over `I`, the level's vectors of `lanes` 32-bit numbers, under
// the rules of kernels_inl.h (which is included before, for V and the block formats).
//
// I provides: kLanes, Ints, Floats, load(bytes), low(Ints) and high(Ints) (the nibbles of each byte),
// broadcast(four bytes), dot(Ints sum, w, x): sum plus the products of 4-bit numbers w with signed x,
// in whatever form total(sum) turns into one number a lane; dot_signed and total_signed: the same
// for 8-bit numbers stored as signed(q); zero, subtract(Ints, int32), to_floats, load_f16, load_u8,
// set, mul, fma, store.

using Ints = I::Ints;
using Floats = I::Floats;
constexpr int kLanes = I::kLanes;
constexpr int kInt8Tile = I::kTile;  // rows of activations that one pass over a panel serves

// Packed formats. A panel is a sequence of super-blocks: a header, then kBlocks blocks, each with its
// scales and its numbers. The numbers of element 4j + b of lane l: byte (j * lanes + l) * 4 + b;
// nibbles hold element 16 + 4j + b above it.

struct Packed4 {  // numbers of 4 bits
  static constexpr int kNumberBytes = 16 * kLanes;
  static constexpr bool kSigned = false;
  HETERO_KERNEL void pack(const int8_t* q, int lane, std::byte* numbers) {
    for (int i = 0; i < 16; ++i) {
      numbers[(i / 4 * kLanes + lane) * 4 + i % 4] = static_cast<std::byte>(q[i] | q[i + 16] << 4);
    }
  }
  // The numbers that meet elements 4j.. and 16 + 4j.. of the activations.
  HETERO_KERNEL void pair(const std::byte* numbers, int j, Ints& first, Ints& second) {
    const Ints both = I::load(numbers + j * 4 * kLanes);
    first = I::low(both);
    second = I::high(both);
  }
};
struct Packed8 {  // numbers of 8 bits
  static constexpr int kNumberBytes = 32 * kLanes;
  static constexpr bool kSigned = true;
  HETERO_KERNEL void pack(const int8_t* q, int lane, std::byte* numbers) {
    for (int i = 0; i < 32; ++i) {
      numbers[(i / 4 * kLanes + lane) * 4 + i % 4] = I::signed_byte(q[i]);
    }
  }
  HETERO_KERNEL void pair(const std::byte* numbers, int j, Ints& first, Ints& second) {
    first = I::load(numbers + j * 4 * kLanes);
    second = I::load(numbers + (j + 4) * 4 * kLanes);
  }
};

HETERO_KERNEL void copy_half(const std::byte* from, int lane, std::byte* to) {
  __builtin_memcpy(to + 2 * lane, from, 2);
}

// kZero: the number that stands for 0, taken off in integers. With kOffset, offset * sum is added.
struct Panel4_0 : Packed4 {
  using Source = Q4_0;
  static constexpr int kBlocks = 1;
  static constexpr int kHeaderBytes = 0;
  static constexpr int kScaleBytes = 2 * kLanes;
  static constexpr int kZero = 8;
  static constexpr bool kOffset = false;
  struct Header {};
  HETERO_KERNEL void pack_header(const std::byte*, int, std::byte*) {}
  HETERO_KERNEL void pack_scales(const std::byte* block, int, int lane, std::byte* to) {
    copy_half(block, lane, to);
  }
  HETERO_KERNEL Header header(const std::byte*) { return {}; }
  HETERO_KERNEL Floats scale(const Header&, const std::byte* scales) { return I::load_f16(scales); }
  HETERO_KERNEL Floats offset(const Header&, const std::byte*) { return I::set(0.0f); }
};
struct Panel4_1 : Packed4 {
  using Source = Q4_1;
  static constexpr int kBlocks = 1;
  static constexpr int kHeaderBytes = 0;
  static constexpr int kScaleBytes = 4 * kLanes;
  static constexpr int kZero = 0;
  static constexpr bool kOffset = true;
  struct Header {};
  HETERO_KERNEL void pack_header(const std::byte*, int, std::byte*) {}
  HETERO_KERNEL void pack_scales(const std::byte* block, int, int lane, std::byte* to) {
    copy_half(block, lane, to);
    copy_half(block + 2, lane, to + 2 * kLanes);
  }
  HETERO_KERNEL Header header(const std::byte*) { return {}; }
  HETERO_KERNEL Floats scale(const Header&, const std::byte* scales) { return I::load_f16(scales); }
  HETERO_KERNEL Floats offset(const Header&, const std::byte* scales) {
    return I::load_f16(scales + 2 * kLanes);
  }
};
struct Panel8_0 : Packed8 {
  using Source = Q8_0;
  static constexpr int kBlocks = 1;
  static constexpr int kHeaderBytes = 0;
  static constexpr int kScaleBytes = 2 * kLanes;
  static constexpr int kZero = I::kSignedZero;
  static constexpr bool kOffset = false;
  struct Header {};
  HETERO_KERNEL void pack_header(const std::byte*, int, std::byte*) {}
  HETERO_KERNEL void pack_scales(const std::byte* block, int, int lane, std::byte* to) {
    copy_half(block, lane, to);
  }
  HETERO_KERNEL Header header(const std::byte*) { return {}; }
  HETERO_KERNEL Floats scale(const Header&, const std::byte* scales) { return I::load_f16(scales); }
  HETERO_KERNEL Floats offset(const Header&, const std::byte*) { return I::set(0.0f); }
};
struct Panel4_K : Packed4 {
  using Source = Q4_K;
  static constexpr int kBlocks = 8;
  static constexpr int kHeaderBytes = 4 * kLanes;
  static constexpr int kScaleBytes = 2 * kLanes;
  static constexpr int kZero = 0;
  static constexpr bool kOffset = true;
  struct Header {
    Floats d;
    Floats minus_dmin;
  };
  HETERO_KERNEL void pack_header(const std::byte* block, int lane, std::byte* to) {
    copy_half(block, lane, to);
    copy_half(block + 2, lane, to + 2 * kLanes);
  }
  HETERO_KERNEL void pack_scales(const std::byte* block, int part, int lane, std::byte* to) {
    uint8_t scale[8];
    uint8_t min[8];
    unpack_scales(block + 4, scale, min);
    to[lane] = static_cast<std::byte>(scale[part]);
    to[kLanes + lane] = static_cast<std::byte>(min[part]);
  }
  HETERO_KERNEL Header header(const std::byte* p) {
    return {I::load_f16(p), I::mul(I::load_f16(p + 2 * kLanes), I::set(-1.0f))};
  }
  HETERO_KERNEL Floats scale(const Header& h, const std::byte* scales) {
    return I::mul(h.d, I::load_u8(scales));
  }
  HETERO_KERNEL Floats offset(const Header& h, const std::byte* scales) {
    return I::mul(h.minus_dmin, I::load_u8(scales + kLanes));
  }
};

/// Calls visit.template operator()<P>() for the packed form of dtype; does nothing for other types.
template <class Visit>
HETERO_KERNEL void with_panel(DType dtype, const Visit& visit) {
  switch (dtype) {
    case DType::kQ4_0:
      return visit.template operator()<Panel4_0>();
    case DType::kQ4_1:
      return visit.template operator()<Panel4_1>();
    case DType::kQ8_0:
      return visit.template operator()<Panel8_0>();
    case DType::kQ4_K:
      return visit.template operator()<Panel4_K>();
    default:
      return;
  }
}

template <class P>
constexpr int64_t kSuperBytes = P::kHeaderBytes + P::kBlocks*(P::kScaleBytes + P::kNumberBytes);

int64_t int8_panel_bytes(DType dtype, int64_t k) {
  int64_t bytes = 0;
  with_panel(dtype, [&]<class P>() { bytes = k / (32 * P::kBlocks) * kSuperBytes<P>; });
  return bytes;
}

void pack_int8_panel(const WeightRows& w, int64_t k, std::byte* panel) {
  with_panel(w.dtype, [&]<class P>() {
    Unpacked u;
    for (int lane = 0; lane < kLanes; ++lane) {
      const std::byte* from = w.data + min_of(lane, w.rows - 1) * w.row_bytes;
      std::byte* to = panel;
      for (int64_t at = 0; at < k; at += P::Source::kElements, from += P::Source::kBytes) {
        P::Source::unpack(from, u);
        P::pack_header(from, lane, to);
        to += P::kHeaderBytes;
        for (int part = 0; part < P::kBlocks; ++part, to += P::kScaleBytes + P::kNumberBytes) {
          P::pack_scales(from, part, lane, to);
          P::pack(u.q + 32 * part, lane, to + P::kScaleBytes);
        }
      }
    }
  });
}

void quantize_int8_row(const float* x, int64_t k, int8_t* q, Int8Block* blocks) {
  for (int64_t at = 0; at < k; at += 32, ++blocks) {
    Reg largest = V::zero();
    for (int j = 0; j < 32; j += kW) {
      const Reg r = V::load(x + at + j);
      largest = V::max(largest, V::max(r, V::sub(V::zero(), r)));
    }
    const float most = V::largest(largest);
    float scale = most / 127.0f;
    const float inverse = most > 0.0f ? 127.0f / most : 0.0f;
    if (scale >= 0x1p-14f && scale <= 65504.0f) {  // where F16 has all its bits
      uint16_t halves[kW];
      V::store_f16(halves, V::set(scale));
      scale = V::f16(reinterpret_cast<const std::byte*>(halves));
    }
    int32_t sum = 0;
    for (int j = 0; j < 32; j += kW) {
      V::store_i8(q + at + j, V::round(V::mul(V::load(x + at + j), V::set(inverse))));
    }
    for (int j = 0; j < 32; ++j) {
      sum += q[at + j];
    }
    *blocks = {scale, scale * static_cast<float>(sum), sum};
  }
}

template <class P, int R>
void multiply_tile(const std::byte* panel, int64_t k, const int8_t* q, const Int8Block* blocks, int64_t cols,
                   const float* bias, float* y, int64_t y_stride) {
  const int64_t row_blocks = k / 32;
  Floats acc[R];
  for (int i = 0; i < R; ++i) {
    acc[i] = I::set(0.0f);
  }
  for (int64_t block = 0; block < row_blocks;) {
    const auto header = P::header(panel);
    panel += P::kHeaderBytes;
    for (int part = 0; part < P::kBlocks;
         ++part, ++block, q += 32, panel += P::kScaleBytes + P::kNumberBytes) {
      const std::byte* numbers = panel + P::kScaleBytes;
      Ints sum[R];
#pragma GCC unroll 16
      for (int i = 0; i < R; ++i) {
        sum[i] = I::zero();
      }
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        Ints first;
        Ints second;
        P::pair(numbers, j, first, second);
#pragma GCC unroll 16
        for (int i = 0; i < R; ++i) {
          const int8_t* x = q + i * k + 4 * j;
          if constexpr (P::kSigned) {
            sum[i] =
                I::dot_signed(I::dot_signed(sum[i], first, I::broadcast(x)), second, I::broadcast(x + 16));
          } else {
            sum[i] = I::dot(I::dot(sum[i], first, I::broadcast(x)), second, I::broadcast(x + 16));
          }
        }
      }
      const Floats scale = P::scale(header, panel);
      const Floats offset = P::offset(header, panel);
#pragma GCC unroll 16
      for (int i = 0; i < R; ++i) {
        const Int8Block& b = blocks[i * row_blocks + block];
        Ints total = P::kSigned ? I::total_signed(sum[i]) : I::total(sum[i]);
        if (P::kZero != 0) {
          total = I::subtract(total, P::kZero * b.q_sum);
        }
        acc[i] = I::fma(I::mul(scale, I::set(b.scale)), I::to_floats(total), acc[i]);
        if (P::kOffset) {
          acc[i] = I::fma(offset, I::set(b.sum), acc[i]);
        }
      }
    }
  }
  for (int i = 0; i < R; ++i, y += y_stride) {
    alignas(64) float whole[kLanes];
    I::store(whole, acc[i]);
    for (int64_t c = 0; c < cols; ++c) {
      y[c] = whole[c] + (bias == nullptr ? 0.0f : bias[c]);
    }
  }
}

template <class P, int R = kInt8Tile>
HETERO_KERNEL void multiply_rows(int64_t rows, const std::byte* panel, int64_t k, const int8_t* q,
                                 const Int8Block* blocks, int64_t cols, const float* bias, float* y,
                                 int64_t y_stride) {
  if constexpr (R > 1) {
    if (rows < R) {
      return multiply_rows<P, R - 1>(rows, panel, k, q, blocks, cols, bias, y, y_stride);
    }
  }
  multiply_tile<P, R>(panel, k, q, blocks, cols, bias, y, y_stride);
}

void multiply_int8(DType dtype, const std::byte* panel, int64_t k, const Int8Rows& x, int64_t rows,
                   int64_t cols, const float* bias, float* y, int64_t y_stride) {
  with_panel(dtype, [&]<class P>() {
    for (int64_t i = 0; i < rows; i += kInt8Tile) {
      multiply_rows<P>(min_of(kInt8Tile, rows - i), panel, k, x.q + i * k, x.blocks + i * (k / 32), cols,
                       bias, y + i * y_stride, y_stride);
    }
  });
}
