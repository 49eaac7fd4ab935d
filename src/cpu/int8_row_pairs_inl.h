// Decoded blocks times many rows with an instruction for 2 x 2 sums of eight products each: where I has
// kRowPairs. Included by int8_inl.h. I provides, of four 32-bit words: matrix(sum, w, x): sum[2 a + b] +=
// the dot product of words 2a, 2a + 1 of w with words 2b, 2b + 1 of x; two_rows(p, q): eight bytes of each;
// even_odd_low and -_high(a, b): a0 b0 a1 b1 and a2 b2 a3 b3; evens and odds(a, b): a0 a2 b0 b2, a1 a3 b1 b3.

template <class J>
constexpr bool kRowPairs = requires {
  J::kRowPairs;
};

// Words j and j + 1 of four weight rows -> both words of rows 0 and 1, then those of rows 2 and 3.
template <class J = I>
HETERO_KERNEL void pair_rows(int64_t blocks, DecodedPanel& panel) {
  for (int64_t at = 0; at < blocks * 8; at += 2) {
    for (int v = 0; v < kVectors; ++v) {
      std::byte* first = panel.numbers + (at * kVectors + v) * 4 * kLanes;
      std::byte* second = first + kVectors * 4 * kLanes;
      const Ints a = J::load(first);
      const Ints b = J::load(second);
      J::store_ints(first, J::even_odd_low(a, b));
      J::store_ints(second, J::even_odd_high(a, b));
    }
  }
}

// As multiply_decoded(), over what pair_rows() left. The last of an odd number of rows is its own neighbour.
template <class P, int R, class J = I>
void multiply_pairs(const DecodedPanel& w, int64_t count, const Int8Rows& rows, float* acc) {
  Int8Rows at = rows;
  constexpr int kPairs = (R + 1) / 2;
  const std::byte* numbers = w.numbers;
  const float* scale = w.scale;
  const float* offset = w.offset;
  for (int64_t block = 0; block < count; ++block) {
#pragma GCC unroll 2
    for (int h = 0; h < P::kParts; ++h) {
      Ints sum[kPairs][kVectors][2];
#pragma GCC unroll 4
      for (int jj = 0; jj < 8 / P::kParts; jj += 2) {
        const int j = h * 8 / P::kParts + jj;
        Ints x[kPairs];
#pragma GCC unroll 8
        for (int p = 0; p < kPairs; ++p) {
          const int8_t* row = at.q + 2 * p * 32 + 4 * j;
          x[p] = J::two_rows(row, 2 * p + 1 < R ? row + 32 : row);
        }
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) {
#pragma GCC unroll 2
          for (int half = 0; half < 2; ++half) {
            const Ints weights = load_word(numbers, j + half, v);
#pragma GCC unroll 8
            for (int p = 0; p < kPairs; ++p) {
              sum[p][v][half] = J::matrix(jj == 0 ? J::zero() : sum[p][v][half], weights, x[p]);
              J::settle(sum[p][v][half]);
            }
          }
        }
      }
#pragma GCC unroll 16
      for (int i = 0; i < R; ++i) {
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) {
          const Ints* both = sum[i / 2][v];
          const Ints total = i % 2 == 0 ? J::evens(both[0], both[1]) : J::odds(both[0], both[1]);
          float* to = acc + i * kPanelRows + v * kLanes;
          J::store(to, add_block<P>(J::load_floats(to), total, J::load_floats(scale + v * kLanes),
                                    J::load_floats(offset + v * kLanes), at.blocks[i], h));
        }
      }
      scale += kPanelRows;
      offset += kPanelRows;
    }
    numbers += 32 * kPanelRows;
    at = at.from(rows.tile);
  }
}
