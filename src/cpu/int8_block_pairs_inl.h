// Products whose whole scales (int8_whole_inl.h) meet the sums of two neighbouring blocks in one instruction:
// where I has kBlockPairs. Included by int8_inl.h.
//
// A multiplication for each sum and scale would cost as much as one of its eight instructions of products. So
// the scales of up to kGroupBlocks blocks of activations become 16-bit parts of their largest; sums, which
// fit into 16 bits as well, are brought to that common scale two at a time, rounded to whole numbers (as the
// activations were, many of which make up such a sum), and only then meet the weights' scales. Sums are
// added up as floats, since integers of 32 bits would overflow, in the group's scale: from one group to the
// next they are multiplied by how far these are apart. More blocks in a group would round sums of those
// coarsely that are small beside the largest.
//
// I provides raise(Ints): each lane's low half in its high one; join(low, high): the low half of one and the
// high half of the other; round_by(pairs, b): halves times those of the number b / 2^15, rounded to the
// nearest; multiply_pairs(a, b): products of halves, added; add(Floats, Floats); store_pairs(to, Reg, Reg):
// whole numbers as 16-bit words side by side.

constexpr int64_t kGroupBlocks = kHasBlockPairs<I> ? 32 : 16;  // that are rounded together

template <class P>
HETERO_KERNEL Ints load_pair_words(const std::byte* scales, bool offsets, int v) {
  return I::load(scales + pair_words<P>(offsets, v * kLanes));
}

// acc + the products of a pair of blocks, in units and in the group's scale. `low` are sums of the first
// block, `high` raised ones of the second. At most 2 * (8 * 127 * 32) * 32752 < 2^31.
template <class P, class J = I>
HETERO_KERNEL Floats add_pair(Floats acc, Ints low, Ints high, Ints scales, Ints offsets,
                              const Int8Whole& x) {
  const Ints sums = J::round_by(J::join(low, high), x.pair_scales);
  acc = J::add(acc, J::to_floats(J::multiply_pairs(sums, scales)));
  if constexpr (P::kOffset) {
    const Ints of_x = J::broadcast(reinterpret_cast<const int8_t*>(&x.pair_sums8));
    acc = J::add(acc, J::to_floats(J::multiply_pairs(of_x, offsets)));
  }
  return acc;
}
