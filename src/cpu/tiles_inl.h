// The products of tiles.h, written once over T, the tile registers, under the rules of kernels_inl.h.
// Included after int8_inl.h, whose panels have 32 rows here.
//
// T provides: begin() and end() around everything else, load(sums) and store(sums): 32 x 32 sums, rows
// 32 floats apart, and step(x, w): sums += products of 32 rows of 32 numbers, x [2][16][32] and
// w [2][16][16][2]: for 16 weight rows each, pairs of columns.

static_assert(kPanelRows == 32);

constexpr int64_t kTileRows = 32;
constexpr int64_t kTileChunk = 512;  // rows of activations that decoded weights meet

// To the nearest bf16, ties to even; NaN may become infinite, which spoils the result as well.
HETERO_KERNEL uint32_t bf16_of(float f) {
  const uint32_t u = __builtin_bit_cast(uint32_t, f);
  return (u + 0x7fffu + (u >> 16 & 1u)) >> 16;
}

void round_tile_row(const float* x, int64_t k, uint16_t* to) {
  for (int64_t at = 0; at < k; at += 32, to += 32 * kTileRows) {
    for (int64_t i = 0; i < 32; ++i) {
      to[i] = static_cast<uint16_t>(bf16_of(x[at + i]));
    }
  }
}

// Words of pairs of blocks -> scales and offsets of each, exactly those of the file.
template <class P>
HETERO_KERNEL void part_pairs(const float* units, int64_t blocks, DecodedPanel& panel) {
  const auto half = [](float pair, int64_t h) {
    return static_cast<float>(static_cast<int16_t>(__builtin_bit_cast(uint32_t, pair) >> 16 * h & 0xffffu));
  };
  for (int64_t block = 0; block < blocks; block += 2) {
    for (int64_t at = block * kPanelRows; at < (block + 1) * kPanelRows; ++at) {
      const float unit = units[at % kPanelRows];
      const float scales = panel.scale[at];
      const float offsets = panel.offset[at];
      for (int64_t h = 0; h < min_of(int64_t{2}, blocks - block); ++h) {
        const float scale = half(scales, h);
        panel.scale[at + h * kPanelRows] = unit * scale;
        if (P::kOffset) {
          panel.offset[at + h * kPanelRows] = unit * 8.0f * (half(offsets, h) - scale);
        }
      }
    }
  }
}

// Decoded blocks -> [block][2][16 pairs][16 rows][2].
template <class P>
void widen_blocks(const DecodedPanel& from, int64_t blocks, uint32_t* to) {
  for (int64_t block = 0; block < blocks; ++block) {
    for (int v = 0; v < kVectors; ++v) {
      for (int j = 0; j < 8; ++j) {
        const int64_t part = (block * P::kParts + j * P::kParts / 8) * kPanelRows + v * kLanes;
        const float* scale = from.scale + part;
        const float* offset = from.offset + part;
        uint32_t words[kLanes];
        __builtin_memcpy(words, from.numbers + ((block * 8 + j) * kVectors + v) * 4 * kLanes, sizeof(words));
        uint32_t* pairs = to + ((block * kVectors + v) * 16 + 2 * j) * kLanes;
        for (int half = 0; half < 2; ++half) {
          for (int l = 0; l < kLanes; ++l) {
            const uint32_t word = words[l] >> 16 * half;
            const auto number = [&](uint32_t q) {
              const float f = static_cast<float>(static_cast<int32_t>(q) - P::kZero) * scale[l];
              return bf16_of(P::kOffset ? f + offset[l] : f);
            };
            pairs[half * kLanes + l] = number(word & 255u) | number(word >> 8 & 255u) << 16;
          }
        }
      }
    }
  }
}

template <class P>
void multiply_tiles_of(const std::byte* panel, int64_t k, const uint16_t* x, int64_t count, int64_t cols,
                       const float* bias, float* y, int64_t y_stride) {
  const int64_t row_blocks = k / 32;
  DecodedPanel decoded;
  alignas(64) uint32_t wide[kDecodedBlocks * kPanelRows * 16];
  alignas(64) float sums[kTileChunk * kPanelRows];
  for (int64_t first = 0; first < count; first += kTileChunk) {
    const int64_t some = min_of(kTileChunk, count - first);
    const int64_t groups = (some + kTileRows - 1) / kTileRows;
    for (int64_t i = 0; i < groups * kTileRows * kPanelRows; ++i) {
      sums[i] = 0.0f;
    }
    for (int64_t block = 0; block < row_blocks; block += kDecodedBlocks) {
      const int64_t blocks = min_of(kDecodedBlocks, row_blocks - block);
      const std::byte* from = panel + kUnitBytes<P> + block / P::kBlocks * kSuperBytes<P>;
      const float* const units = units_of<P>(panel);
      decode_some<P>(from, units, blocks, decoded);
      if (units != nullptr) {
        part_pairs<P>(units, blocks, decoded);
      }
      widen_blocks<P>(decoded, blocks, wide);
      for (int64_t group = 0; group < groups; ++group) {
        const uint16_t* xg = x + ((first / kTileRows + group) * row_blocks + block) * kTileRows * 32;
        float* to = sums + group * kTileRows * kPanelRows;
        T::load(to);
        for (int64_t b = 0; b < blocks; ++b) {
          T::step(xg + b * kTileRows * 32, wide + b * kPanelRows * 16);
        }
        T::store(to);
      }
    }
    for (int64_t i = 0; i < some; ++i) {
      store_row(sums + i * kPanelRows, nullptr, 1.0f, cols, bias, y + (first + i) * y_stride);
    }
  }
}

void multiply_tiles(DType dtype, const std::byte* panel, int64_t k, const uint16_t* x, int64_t count,
                    int64_t cols, const float* bias, float* y, int64_t y_stride) {
  with_panel(dtype, [&]<class P>() {
    T::begin();
    for (int64_t c = 0; c < cols; c += kPanelRows, panel += panel_bytes_of<P>(k)) {
      multiply_tiles_of<P>(panel, k, x, count, min_of(kPanelRows, cols - c),
                           bias == nullptr ? nullptr : bias + c, y + c, y_stride);
    }
    T::end();
  });
}
