// A few rows of activations times a panel: numbers stream by once, decoded in registers. Included by
// int8_inl.h.

// sums += a block's products with R rows, of elements 0..15 and of 16..31.
template <class P, int R>
HETERO_KERNEL void add_few(const std::byte* numbers, const int8_t* q, Ints (*first_sum)[kVectors],
                           Ints (*second_sum)[kVectors]) {
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      Ints first;
      Ints second;
      P::pair(numbers, j, v, first, second);
#pragma GCC unroll 4
      for (int i = 0; i < R; ++i) {
        const int8_t* xi = q + i * 32 + 4 * j;
        first_sum[i][v] = add_products<P>(first_sum[i][v], first, I::broadcast(xi));
        second_sum[i][v] = add_products<P>(second_sum[i][v], second, I::broadcast(xi + 16));
      }
    }
  }
}

template <class P>
HETERO_KERNEL void prefetch_few(const std::byte* panel) {
  for (int line = 0; line < P::kScaleBytes + kNumberBytes<P>; line += 64) {
    V::prefetch(panel + 4096 + line);
  }
}

template <class P, int R>
HETERO_KERNEL void store_few(const Floats (*acc)[kVectors], const float* units, int64_t cols,
                             const Int8Block* rows, const float* bias, float* y, int64_t y_stride) {
  for (int i = 0; i < R; ++i) {
    alignas(64) float whole[kPanelRows];
    for (int v = 0; v < kVectors; ++v) {
      I::store(whole + v * kLanes, acc[i][v]);
    }
    store_row(whole, units, rows[i].group_scale, cols, bias, y + i * y_stride);
  }
}

template <class P, int R, bool kInWhole>
void multiply_few(const std::byte* panel, int64_t k, const Int8Rows& x, int64_t cols, const float* bias,
                  float* y, int64_t y_stride) {
  const int64_t row_blocks = k / 32;
  Int8Rows at = x;
  const float* units = kInWhole ? reinterpret_cast<const float*>(panel) : nullptr;
  panel += kUnitBytes<P>;
  Floats acc[R][kVectors];
  for (int i = 0; i < R; ++i) {
    for (int v = 0; v < kVectors; ++v) {
      acc[i][v] = I::set(0.0f);
    }
  }
  for (int64_t block = 0; block < row_blocks;) {
    typename P::Header header[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      header[v] = P::header(panel, v);
    }
    panel += P::kHeaderBytes;
    for (int part = 0; part < P::kBlocks; ++part, ++block) {
      const std::byte* numbers = panel + P::kScaleBytes;
      prefetch_few<P>(panel);
      Ints sum[P::kParts][R][kVectors];
      for (int h = 0; h < P::kParts; ++h) {
        for (int i = 0; i < R; ++i) {
          for (int v = 0; v < kVectors; ++v) {
            sum[h][i][v] = start_of<P, kInWhole>(at.whole[i]);
          }
        }
      }
      add_few<P, R>(numbers, at.q, sum[0], sum[P::kParts - 1]);
      for (int v = 0; v < kVectors; ++v) {
        for (int h = 0; h < P::kParts; ++h) {
          const Floats offset = P::offset(header[v], panel, h, v);
          if constexpr (kInWhole) {
            const Ints scale = load_scales<P>(panel, v);
            for (int i = 0; i < R; ++i) {
              acc[i][v] = add_whole<P>(acc[i][v], sum[h][i][v], scale, offset_in_units<P>(offset, units, v),
                                       at.blocks[i]);
            }
            continue;
          }
          const Floats scale = P::scale(header[v], panel, h, v);
          for (int i = 0; i < R; ++i) {
            acc[i][v] = add_block<P>(acc[i][v], sum[h][i][v], scale, offset, at.blocks[i], h);
          }
        }
      }
      panel += P::kScaleBytes + kNumberBytes<P>;
      at = at.from(x.tile);
    }
  }
  store_few<P, R>(acc, units, cols, x.blocks, bias, y, y_stride);
}

// As multiply_few().
template <class P, int R, class J = I>
void multiply_few_pairs(const std::byte* panel, int64_t k, const Int8Rows& x, int64_t cols, const float* bias,
                        float* y, int64_t y_stride) {
  const int64_t row_blocks = k / 32;
  Int8Rows at = x;
  const auto* units = reinterpret_cast<const float*>(panel);
  panel += kUnitBytes<P>;
  Floats acc[R][kVectors];
  for (int i = 0; i < R; ++i) {
    for (int v = 0; v < kVectors; ++v) {
      acc[i][v] = J::set(0.0f);
    }
  }
  for (int64_t block = 0; block < row_blocks; block += 2) {
    if (block > 0 && block % kGroupBlocks == 0) {
      for (int i = 0; i < R; ++i) {
        const Floats by = J::set(at.blocks[i].group_scale);
        for (int v = 0; v < kVectors; ++v) {
          acc[i][v] = J::mul(acc[i][v], by);
        }
      }
    }
    const std::byte* const scales = panel;
    const Int8Whole* const pair = at.whole;
    const int64_t there = min_of(int64_t{2}, row_blocks - block);
    Ints sum[2][R][kVectors];
    for (int h = 0; h < 2; ++h) {
      for (int i = 0; i < R; ++i) {
        for (int v = 0; v < kVectors; ++v) {
          sum[h][i][v] = h < there ? start_of<P, true>(at.whole[i]) : J::zero();
        }
      }
      if (h == there) {
        break;
      }
      prefetch_few<P>(panel);
      add_few<P, R>(panel + P::kScaleBytes, at.q, sum[h], sum[h]);
      panel += kSuperBytes<P>;
      at = at.from(x.tile);
    }
    for (int v = 0; v < kVectors; ++v) {
      const Ints offsets = P::kOffset ? load_pair_words<P>(scales, true, v) : J::zero();
      for (int i = 0; i < R; ++i) {
        acc[i][v] = add_pair<P>(acc[i][v], sum[0][i][v], J::raise(sum[1][i][v]),
                                load_pair_words<P>(scales, false, v), offsets, pair[i]);
      }
    }
  }
  store_few<P, R>(acc, units, cols, x.blocks, bias, y, y_stride);
}

// For panels whose scales are whole numbers where their type's may be.
template <class P, int R>
constexpr auto few_in_whole() {
  if constexpr (kWhole<P> && kHasBlockPairs<I>) {
    return multiply_few_pairs<P, R>;
  } else {
    return multiply_few<P, R, kWhole<P>>;
  }
}
