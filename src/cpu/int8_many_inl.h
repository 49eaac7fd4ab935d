// Many rows of activations times panels, whose numbers are decoded once into a first-level cache. Included by
// int8_inl.h.

constexpr int64_t kDecodedBlocks = I::kDecodedBlocks;
constexpr int64_t kDecodedRows = 258;  // of activations that decoded numbers meet; a multiple of all tiles

// Some blocks of a panel: bytes (8 * block + j) * 4 * kPanelRows.. hold elements 4j.. of every row.
struct DecodedPanel {
  alignas(64) std::byte numbers[kDecodedBlocks * 32 * kPanelRows];
  alignas(64) float scale[kDecodedBlocks * 2 * kPanelRows];   // [block][P::kParts][row]
  alignas(64) float offset[kDecodedBlocks * 2 * kPanelRows];  // the same
};

// Those of a pair of blocks, in place of the first one's scales and offsets.
template <class P>
HETERO_KERNEL void decode_pair_words(const std::byte* panel, int64_t block, int v, DecodedPanel& to) {
  if (block % 2 == 0) {
    const int64_t at = block * kPanelRows + v * kLanes;
    I::store_ints(reinterpret_cast<std::byte*>(to.scale + at), load_pair_words<P>(panel, false, v));
    if (P::kOffset) {
      I::store_ints(reinterpret_cast<std::byte*>(to.offset + at), load_pair_words<P>(panel, true, v));
    }
  }
}

template <class P, bool kInWhole>
HETERO_KERNEL void decode_blocks_of(const std::byte* panel, const float* units, int64_t blocks,
                                    DecodedPanel& to) {
  std::byte* numbers = to.numbers;
  for (int64_t block = 0; block < blocks;) {
    typename P::Header header[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      header[v] = P::header(panel, v);
    }
    panel += P::kHeaderBytes;
    for (int part = 0; part < P::kBlocks; ++part, ++block) {
      for (int v = 0; v < kVectors; ++v) {
        for (int h = 0; h < P::kParts; ++h) {
          const int64_t at = (block * P::kParts + h) * kPanelRows + v * kLanes;
          const Floats offset = P::offset(header[v], panel, h, v);
          if constexpr (kInWhole && kHasBlockPairs<I>) {
            decode_pair_words<P>(panel, block, v, to);
          } else if constexpr (kInWhole) {
            I::store_ints(reinterpret_cast<std::byte*>(to.scale + at), load_scales<P>(panel, v));
            I::store(to.offset + at, offset_in_units<P>(offset, units, v));
          } else {
            I::store(to.scale + at, P::scale(header[v], panel, h, v));
            I::store(to.offset + at, offset);
          }
        }
        for (int j = 0; j < 4; ++j) {
          Ints first;
          Ints second;
          P::pair(panel + P::kScaleBytes, j, v, first, second);
          I::store_ints(numbers + (j * kVectors + v) * 4 * kLanes, first);
          I::store_ints(numbers + ((j + 4) * kVectors + v) * 4 * kLanes, second);
        }
      }
      numbers += 32 * kPanelRows;
      panel += P::kScaleBytes + kNumberBytes<P>;
    }
  }
}

// By what a panel's `units` say of its scales.
template <class P>
HETERO_KERNEL void decode_some(const std::byte* panel, const float* units, int64_t blocks, DecodedPanel& to) {
  if (units == nullptr) {
    decode_blocks_of<P, false>(panel, nullptr, blocks, to);
  } else if constexpr (kWhole<P>) {
    decode_blocks_of<P, true>(panel, units, blocks, to);
  }
}

// The sums of R rows' products with part h of a decoded block.
template <class P, int R, bool kInWhole>
HETERO_KERNEL void add_decoded(const std::byte* numbers, const Int8Rows& at, int h, Ints (*sum)[kVectors]) {
#pragma GCC unroll 8
  for (int jj = 0; jj < 8 / P::kParts; ++jj) {
    const int j = h * 8 / P::kParts + jj;
    Ints wj[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      wj[v] = load_word(numbers, j, v);
    }
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) {
      const Ints x = I::broadcast(at.q + i * 32 + 4 * j);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        sum[i][v] = add_products<P>(jj == 0 ? start_of<P, kInWhole>(at.whole[i]) : sum[i][v], wj[v], x);
        I::settle(sum[i][v]);
      }
    }
  }
}

// R rows times decoded blocks, added to acc [R][kPanelRows], which stays in memory: registers are for
// the integer sums. kInWhole: scales are whole numbers.
template <class P, int R, bool kInWhole>
void multiply_decoded(const DecodedPanel& w, int64_t count, const Int8Rows& x, float* acc) {
  Int8Rows at = x;
  const std::byte* numbers = w.numbers;
  const float* scale = w.scale;
  const float* offset = w.offset;
  for (int64_t block = 0; block < count; ++block) {
#pragma GCC unroll 2
    for (int h = 0; h < P::kParts; ++h) {
      Ints sum[R][kVectors];
      add_decoded<P, R, kInWhole>(numbers, at, h, sum);
      I::settle_memory();
#pragma GCC unroll 16
      for (int i = 0; i < R; ++i) {
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) {
          float* to = acc + i * kPanelRows + v * kLanes;
          const Floats by = I::load_floats(offset + v * kLanes);
          if constexpr (kInWhole) {
            const auto* whole = reinterpret_cast<const std::byte*>(scale + v * kLanes);
            I::store(to, add_whole<P>(I::load_floats(to), sum[i][v], I::load(whole), by, at.blocks[i]));
          } else {
            const Floats scales = I::load_floats(scale + v * kLanes);
            I::store(to, add_block<P>(I::load_floats(to), sum[i][v], scales, by, at.blocks[i], h));
          }
        }
      }
      I::settle_memory();
      scale += kPanelRows;
      offset += kPanelRows;
    }
    numbers += 32 * kPanelRows;
    at = at.from(x.tile);
  }
}

// As multiply_decoded(), of one group, in whose scale sums are added up: to nothing at the row's first block.
// Words of a pair lie with its first block's, in place of scales and offsets.
template <class P, int R, class J = I>
void multiply_decoded_pairs(const DecodedPanel& w, int64_t count, bool first, const Int8Rows& x, float* acc) {
  alignas(64) static constexpr float kNothing[R * kPanelRows] = {};
  const float* before = first ? kNothing : acc;
  Int8Rows at = x;
  at.tile = R == kInt8Tile ? kInt8Tile : x.tile;  // the same, but known here
  const std::byte* numbers = w.numbers;
  const auto* scales = reinterpret_cast<const std::byte*>(w.scale);
  const auto* offsets = reinterpret_cast<const std::byte*>(w.offset);
  for (int64_t block = 0; block < count; block += 2) {
    Ints high[R][kVectors];
    if (block + 1 < count) {
      add_decoded<P, R, true>(numbers + 32 * kPanelRows, at.from(at.tile), 0, high);
    } else {
      for (int i = 0; i < R * kVectors; ++i) {
        high[i / kVectors][i % kVectors] = J::zero();
      }
    }
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        high[i][v] = J::raise(high[i][v]);
        J::settle(high[i][v]);
      }
    }
    Ints low[R][kVectors];
    add_decoded<P, R, true>(numbers, at, 0, low);
    J::settle_memory();
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        const int64_t to = i * kPanelRows + v * kLanes;
        J::store(acc + to, add_pair<P>(J::load_floats(before + to), low[i][v], high[i][v],
                                       J::load(scales + 4 * v * kLanes), J::load(offsets + 4 * v * kLanes),
                                       at.whole[i]));
      }
    }
    J::settle_memory();
    before = acc;
    scales += 2 * 4 * kPanelRows;
    offsets += 2 * 4 * kPanelRows;
    numbers += 2 * 32 * kPanelRows;
    at = at.from(2 * at.tile);
  }
}

#include "cpu/int8_row_pairs_inl.h"

template <class P, bool kInWhole, int R = kInt8Tile>
HETERO_KERNEL void multiply_decoded_rows(int64_t rows, const DecodedPanel& w, int64_t count, int64_t block,
                                         const Int8Rows& x, float* acc) {
  if constexpr (R > 1) {
    if (rows < R) {
      return multiply_decoded_rows<P, kInWhole, R - 1>(rows, w, count, block, x, acc);
    }
  }
  if constexpr (kHasBlockPairs<I> && kInWhole) {
    if (block > 0 && block % kGroupBlocks == 0) {
      for (int i = 0; i < R; ++i) {
        const Floats by = I::set(x.blocks[i].group_scale);
        for (int v = 0; v < kVectors; ++v) {
          float* to = acc + i * kPanelRows + v * kLanes;
          I::store(to, I::mul(I::load_floats(to), by));
        }
      }
    }
    multiply_decoded_pairs<P, R>(w, count, block == 0, x, acc);
  } else if constexpr (kRowPairs<I> && !kInWhole) {
    multiply_pairs<P, R>(w, count, x, acc);
  } else {
    multiply_decoded<P, R, kInWhole>(w, count, x, acc);
  }
}

// Columns of activations stay in the second-level cache while a group of panels passes by; sums of all of
// them lie there as well, and go out as long runs of each row. With a gate, half of a group are its panels.
template <class P>
void multiply_many(const std::byte* panel, int64_t k, const Int8Rows& x, int64_t rows, int64_t cols,
                   const float* bias, const Int8Gate* gate, float* y, int64_t y_stride) {
  constexpr int64_t kGroup = 8;
  const int64_t row_blocks = k / 32;
  const int64_t panel_bytes = panel_bytes_of<P>(k);
  const int64_t parts = (row_blocks + kDecodedBlocks - 1) / kDecodedBlocks;
  static_assert(!kHasBlockPairs<I> || kGroupBlocks % kDecodedBlocks == 0);
  constexpr int64_t kStep = kHasBlockPairs<I> && kWhole<P> ? kDecodedBlocks : P::kBlocks;
  const int64_t each = ((row_blocks + parts - 1) / parts + kStep - 1) / kStep * kStep;
  const int64_t chunk = each / P::kBlocks * kSuperBytes<P>;
  const int64_t group_cols = (gate == nullptr ? kGroup : kGroup / 2) * kPanelRows;
  DecodedPanel decoded;
  alignas(64) float acc[kGroup][kDecodedRows * kPanelRows];
  for (int64_t first = 0; first < rows; first += kDecodedRows) {
    const int64_t some = min_of(kDecodedRows, rows - first);
    for (int64_t column = 0; column < cols; column += group_cols) {
      const int64_t of_one = (min_of(group_cols, cols - column) + kPanelRows - 1) / kPanelRows;
      const int64_t panels = gate == nullptr ? of_one : 2 * of_one;
      const auto panel_at = [&](int64_t p) {
        return (p < of_one ? panel : gate->up) + (column / kPanelRows + p % of_one) * panel_bytes;
      };
      for (int64_t p = 0; p < panels; ++p) {
        if (!kHasBlockPairs<I> || units_of<P>(panel_at(p)) == nullptr) {
          for (int64_t i = 0; i < some * kVectors; ++i) {
            I::store(acc[p] + i * kLanes, I::set(0.0f));
          }
        }
      }
      for (int64_t block = 0; block < row_blocks; block += each) {
        const int64_t count = min_of(each, row_blocks - block);
        const int64_t offset = kUnitBytes<P> + block / P::kBlocks * kSuperBytes<P>;
        for (int64_t p = 0; p < panels; ++p) {
          const float* const units = units_of<P>(panel_at(p));
          decode_some<P>(panel_at(p) + offset, units, count, decoded);
          if constexpr (kRowPairs<I>) {
            pair_rows(count, decoded);
          }
          // What is decoded next comes from far: the next panel, or the group's further columns.
          const std::byte* next = p + 1 < panels              ? panel_at(p + 1) + offset
                                  : block + each < row_blocks ? panel_at(0) + offset + chunk
                                                              : panel_at(of_one - 1) + panel_bytes;
          const int64_t tiles = (some + x.tile - 1) / x.tile;
          const int64_t lines = (chunk / 64 + tiles - 1) / tiles;
          for (int64_t i = 0; i < some; i += x.tile) {
            for (int64_t line = 0; line < lines; ++line, next += 64) {
              V::prefetch(next);
            }
            const Int8Rows at = x.from((first + i) * row_blocks + block * x.tile);
            const int64_t in_tile = min_of(x.tile, some - i);
            float* const to = acc[p] + i * kPanelRows;
            if (units == nullptr) {
              multiply_decoded_rows<P, false>(in_tile, decoded, count, block, at, to);
            } else if constexpr (kWhole<P>) {
              multiply_decoded_rows<P, true>(in_tile, decoded, count, block, at, to);
            }
          }
        }
      }
      for (int64_t i = 0; i < some; ++i) {
        const float group_scale = x.at(first + i, 0, row_blocks).blocks->group_scale;
        float* const to = y + (first + i) * y_stride + column;
        alignas(64) float gated[kGroup * kPanelRows];
        for (int64_t p = 0; p < panels; ++p) {
          const int64_t c = p * kPanelRows;
          const float* const plus = bias == nullptr ? nullptr : bias + column + c;
          store_row(acc[p] + i * kPanelRows, units_of<P>(panel_at(p)), group_scale,
                    gate == nullptr ? min_of(kPanelRows, cols - column - c) : kPanelRows, plus,
                    (gate == nullptr ? to : gated) + c);
        }
        if (gate != nullptr) {
          put_gated(*gate, gated, gated + of_one * kPanelRows, min_of(group_cols, cols - column), first + i,
                    column, to);
        }
      }
    }
  }
}
