// Scales as whole numbers, for types with one or two f16 for each block of 4-bit numbers: they are met in
// instructions that multiply and add up integers, either the halves of one block's sum (I::kWholeScales) or
// the sums of two blocks (I::kBlockPairs: int8_block_pairs_inl.h). Included by int8_inl.h.
//
// Such panels (of kWhole types) begin with a unit for each row, a power of two. A block's 16-bit word is its
// scale in units, exactly: 11 significant bits of an f16 fit into 15 unless a row's scales are more than
// about 16 times apart. Pairs of blocks have pairs of words; and a pair of offsets, in eight units, to
// numbers from -8 to 7, around which offsets lie. Where they do not fit in one of the rows, the panel's units
// are 0 and its scales stay f16.
//
// With kWholeScales, I provides start8(q): Int8Whole::start8; inverse(Floats); total_scaled(sum, scales): the
// two 16-bit halves of each lane times those of scales, added; load_twice(words): a 16-bit word a lane, in
// both halves; store_words(to, Reg): whole numbers as 16-bit words.

template <class J>
constexpr bool kHasWholeScales = requires {
  J::kWholeScales;
};
template <class J>
constexpr bool kHasBlockPairs = requires {
  J::kBlockPairs;
};
template <class P>
constexpr bool kWhole = (kHasWholeScales<I> || kHasBlockPairs<I>)&&P::kNumbers
                        == Numbers::kNibbles&& P::kHeaderBytes == 0;
template <class P>
constexpr int64_t kUnitBytes = kWhole<P> ? 4 * kPanelRows : 0;

// A panel's units, or null where its scales are f16.
template <class P>
HETERO_KERNEL const float* units_of(const std::byte* panel) {
  const auto* units = reinterpret_cast<const float*>(panel);
  return kWhole<P> && units[0] != 0.0f ? units : nullptr;
}

// What a sum of a block's products starts with: what takes the number that stands for 0, 8, times the
// activations off.
template <class P, bool kInWhole, class J = I>
HETERO_KERNEL Ints start_of(const Int8Whole& x) {
  if constexpr (kInWhole && (P::kZero != 0 || kHasBlockPairs<J>)) {
    static_assert(P::kZero == 0 || P::kZero == 8);
    return J::broadcast(reinterpret_cast<const int8_t*>(&x.start8));
  } else {
    return J::zero();
  }
}

template <class P, class J = I>
HETERO_KERNEL Ints load_scales(const std::byte* scales, int v) {
  return J::load_twice(scales + 2 * v * kLanes);
}
// Offsets are added to sums in units. A power of two has an exact inverse.
template <class P, class J = I>
HETERO_KERNEL Floats offset_in_units(Floats offset, const float* units, int v) {
  if constexpr (kWhole<P> && P::kOffset) {
    return J::mul(offset, J::inverse(J::load_floats(units + v * kLanes)));
  } else {
    return offset;
  }
}

// Words of pairs of blocks, 4 bytes a row, first of scales, then of offsets, where the f16 of both blocks
// were: how far from the first block's scales the words of a row are.
template <class P>
HETERO_KERNEL int64_t pair_words(bool offsets, int row) {
  const int at = 4 * ((offsets ? kPanelRows : 0) + row);
  return at / P::kScaleBytes * kSuperBytes<P> + at % P::kScaleBytes;
}

// Scales and offsets of a block as they are in the panel, kW rows at a time.
HETERO_KERNEL Reg packed_scale(const std::byte* scales, int v) {
  return V::load_f16(scales + 2 * v * kW);
}
HETERO_KERNEL Reg packed_offset(const std::byte* scales, int v) {  // in eighths, to numbers from -8 to 7
  const Reg offset = V::load_f16(scales + 2 * kPanelRows + 2 * v * kW);
  return V::fma(offset, V::set(0.125f), packed_scale(scales, v));
}

// Turns the f16 of a packed panel into whole numbers if all of them fit.
template <class P, class J = I>
HETERO_KERNEL void make_scales_whole(std::byte* panel, int64_t blocks) {
  constexpr int kRegs = kPanelRows / kW;
  constexpr int kStep = kHasBlockPairs<J> ? 2 : 1;
  constexpr bool kOffsets = kHasBlockPairs<J> && P::kOffset;
  auto* units = reinterpret_cast<float*>(panel);
  std::byte* const scales = panel + kUnitBytes<P>;
  Reg spoiled = V::zero();  // by a scale that is not whole, or not a number
  const auto spoil = [&](Reg r) {
    const Reg rest = V::sub(r, V::round(r));
    spoiled = V::fma(rest, rest, spoiled);
  };
  for (int v = 0; v < kRegs; ++v) {
    Reg largest = V::set(0x1p-24f);  // the smallest f16
    for (int64_t b = 0; b < blocks; ++b) {
      const std::byte* const at = scales + b * kSuperBytes<P>;
      largest = V::max(largest, V::abs(packed_scale(at, v)));
      if constexpr (kOffsets) {
        largest = V::max(largest, V::abs(packed_offset(at, v)));
      }
    }
    float* const of_vector = units + v * kW;
    V::store(of_vector, largest);
    for (int lane = 0; lane < kW; ++lane) {  // 2^e of the largest, 2^14 units
      uint32_t bits;
      __builtin_memcpy(&bits, of_vector + lane, sizeof(bits));
      bits &= 0x7f800000u;
      __builtin_memcpy(of_vector + lane, &bits, sizeof(bits));
      of_vector[lane] *= 0x1p-14f;
    }
    const Reg per_unit = V::div(V::set(1.0f), V::load(of_vector));
    for (int64_t b = 0; b < blocks; ++b) {
      const std::byte* const at = scales + b * kSuperBytes<P>;
      spoil(V::mul(packed_scale(at, v), per_unit));
      if constexpr (kOffsets) {
        spoil(V::mul(packed_offset(at, v), per_unit));
      }
    }
  }
  if (!(V::sum(spoiled) == 0.0f)) {
    for (int i = 0; i < kPanelRows; ++i) {
      units[i] = 0.0f;
    }
    return;
  }
  for (int64_t b = 0; b < blocks; b += kStep) {
    std::byte* const at = scales + b * kSuperBytes<P>;
    Reg scale[2][kRegs];
    Reg offset[2][kRegs];
    for (int v = 0; v < kRegs; ++v) {
      const Reg per_unit = V::div(V::set(1.0f), V::load(units + v * kW));
      for (int h = 0; h < kStep; ++h) {
        const bool there = b + h < blocks;
        const std::byte* const from = at + h * kSuperBytes<P>;
        scale[h][v] = there ? V::mul(packed_scale(from, v), per_unit) : V::zero();
        offset[h][v] = there && kOffsets ? V::mul(packed_offset(from, v), per_unit) : V::zero();
      }
    }
    for (int v = 0; v < kRegs; ++v) {
      if constexpr (kHasBlockPairs<J>) {
        J::store_pairs(at + pair_words<P>(false, v * kW), scale[0][v], scale[1][v]);
        if constexpr (kOffsets) {
          J::store_pairs(at + pair_words<P>(true, v * kW), offset[0][v], offset[1][v]);
        }
      } else {
        J::store_words(at + 2 * v * kW, scale[0][v]);
      }
    }
  }
}

// acc += x.scale * (scale * sum) + offset * x.sum, in units, the same operations wherever a block is met. At
// most 2 * (15 * 127 * 16) * 32752 < 2^31.
template <class P, class J = I>
HETERO_KERNEL Floats add_whole(Floats acc, Ints sum, Ints scale, Floats offset, const Int8Block& x) {
  acc = J::fma(J::set(x.scale), J::to_floats(J::total_scaled(sum, scale)), acc);
  return P::kOffset ? J::fma(offset, J::set(x.sum), acc) : acc;
}
