// Scales as whole numbers, where I has kWholeScales: sums of 4-bit products then meet their weight's scale in
// the instruction that adds their halves up, which saves a multiplication for each block. Included by
// int8_inl.h.
//
// Such panels (of kWhole types) begin with a unit for each row, a power of two. A block's 16-bit word is its
// scale in units, exactly: 11 significant bits of an f16 fit into 15 unless a row's scales are more than
// about 16 times apart. Where they do not fit in one of the rows, the panel's units are 0 and its scales stay
// f16.
//
// I provides: total_scaled(sum, scales): the two 16-bit halves of each lane times those of scales, added;
// load_twice(words): a 16-bit word a lane, in both halves; subtract_pairs(a, b): of 16-bit halves;
// store_words(to, Floats): whole numbers as 16-bit words; pairs8(q): Int8Block::q_pairs8; inverse(Floats).

template <class J>
constexpr bool kHasWholeScales = requires {
  J::kWholeScales;
};
template <class P>
constexpr bool kWhole = kHasWholeScales<I>&& P::kNumbers == Numbers::kNibbles&& P::kHeaderBytes == 0;
template <class P>
constexpr int64_t kUnitBytes = kWhole<P> ? 4 * kPanelRows : 0;

// A panel's units, or null where its scales are f16.
template <class P>
HETERO_KERNEL const float* units_of(const std::byte* panel) {
  const auto* units = reinterpret_cast<const float*>(panel);
  return kWhole<P> && units[0] != 0.0f ? units : nullptr;
}

template <class J = I>
HETERO_KERNEL int32_t pairs8_of(const int8_t* q) {
  if constexpr (kHasWholeScales<J>) {
    return J::pairs8(q);
  } else {
    return 0;
  }
}
// Takes kZero times the activations off a sum of a block's products.
template <class P, class J = I>
HETERO_KERNEL Ints take_zero_off(Ints sum, const Int8Block& x) {
  static_assert(P::kZero == 0 || P::kZero == 8);
  return P::kZero == 0 ? sum
                       : J::subtract_pairs(sum, J::broadcast(reinterpret_cast<const int8_t*>(&x.q_pairs8)));
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

// Turns the f16 of a packed panel into whole numbers if all of them fit.
template <class P, class J = I>
HETERO_KERNEL void make_scales_whole(std::byte* panel, int64_t blocks) {
  auto* units = reinterpret_cast<float*>(panel);
  std::byte* const scales = panel + kUnitBytes<P>;
  Reg spoiled = V::zero();  // by a scale that is not whole, or not a number
  for (int v = 0; v < kVectors; ++v) {
    Reg largest = V::set(0x1p-24f);  // the smallest f16
    for (int64_t b = 0; b < blocks; ++b) {
      const Reg scale = V::load_f16(scales + b * kSuperBytes<P> + 2 * v * kLanes);
      largest = V::max(largest, V::max(scale, V::sub(V::zero(), scale)));
    }
    float* const of_vector = units + v * kLanes;
    V::store(of_vector, largest);
    for (int lane = 0; lane < kLanes; ++lane) {  // 2^e of the largest, 2^14 units
      uint32_t bits;
      __builtin_memcpy(&bits, of_vector + lane, sizeof(bits));
      bits &= 0x7f800000u;
      __builtin_memcpy(of_vector + lane, &bits, sizeof(bits));
      of_vector[lane] *= 0x1p-14f;
    }
    const Reg per_unit = V::div(V::set(1.0f), V::load(of_vector));
    for (int64_t b = 0; b < blocks; ++b) {
      const Reg scale = V::mul(V::load_f16(scales + b * kSuperBytes<P> + 2 * v * kLanes), per_unit);
      const Reg rest = V::sub(scale, V::round(scale));
      spoiled = V::fma(rest, rest, spoiled);
    }
  }
  if (!(V::sum(spoiled) == 0.0f)) {
    for (int i = 0; i < kPanelRows; ++i) {
      units[i] = 0.0f;
    }
    return;
  }
  for (int v = 0; v < kVectors; ++v) {
    const Reg per_unit = V::div(V::set(1.0f), V::load(units + v * kLanes));
    for (int64_t b = 0; b < blocks; ++b) {
      std::byte* const at = scales + b * kSuperBytes<P> + 2 * v * kLanes;
      J::store_words(at, V::mul(V::load_f16(at), per_unit));
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
