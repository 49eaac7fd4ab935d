// The 8-bit products, written once over `I`, the level's vectors of 32-bit numbers, under the rules of
// kernels_inl.h (which is included before, for V and the block formats).
//
// I provides: kLanes, kVectors, kTile, kDecodedBlocks, kSignedZero, Ints, Floats, load(bytes), low(Ints)
// and high(Ints) (the nibbles of each byte), store_ints, zero, subtract(Ints, int32), to_floats, load_f16,
// load_u8, load_i8, load_u4, set, load_floats, mul, fma, store; and
//   broadcast(four bytes)
//   look_up(sixteen values, Ints indices): the value of each byte's index, with kSignedZero added
//   add_bits(numbers, bits, shift, mask): numbers | (bits << shift & mask), byte by byte, to the right
//     for negative shifts
//   dot(Ints sum, w, x): sum plus the products of 4-bit numbers w with signed x, in whatever form
//     total(sum) turns into one number a lane
//   dot_small, dot_signed: the same for numbers of up to 6 bits, and for 8-bit numbers stored with
//     kSignedZero added; sums are one number a lane
//   load_u4(bytes, shift): bits shift to shift + 3 of each byte, as load_u8
//   settle(Ints&): makes the compiler compute it here, not where it is used first (GCC would postpone
//     sums and keep their terms in memory)
//   settle_memory(): keeps `acc` of multiply_decoded in memory, where the compiler would move it between
//     registers and the stack

using Ints = I::Ints;
using Floats = I::Floats;
constexpr int kLanes = I::kLanes;
constexpr int kVectors = I::kVectors;  // of a panel: each broadcast activation meets so many
constexpr int kPanelRows = kVectors * kLanes;
constexpr int64_t kFewInt8Rows = 3;  // up to so many rows, numbers are not worth decoding to memory
constexpr int kInt8Tile = I::kTile;  // rows of activations that one pass over decoded numbers serves

#include "cpu/int8_panels_inl.h"

template <class P>
constexpr int64_t kSuperBytes = P::kHeaderBytes + P::kBlocks*(P::kScaleBytes + kNumberBytes<P>);

#include "cpu/int8_whole_inl.h"

template <class P>
HETERO_KERNEL int64_t panel_bytes_of(int64_t k) {
  return kUnitBytes<P> + k / (32 * P::kBlocks) * kSuperBytes<P>;
}

int64_t int8_panel_bytes(DType dtype, int64_t k) {
  int64_t bytes = 0;
  with_panel(dtype, [&]<class P>() { bytes = panel_bytes_of<P>(k); });
  return bytes;
}

void pack_int8_panel(const WeightRows& w, int64_t k, std::byte* panel) {
  with_panel(w.dtype, [&]<class P>() {
    const std::byte* from[kPanelRows];
    for (int lane = 0; lane < kPanelRows; ++lane) {
      from[lane] = w.data + min_of(lane, w.rows - 1) * w.row_bytes;
    }
    std::byte* const begin = panel;
    panel += kUnitBytes<P>;
    for (int64_t at = 0; at < k; at += P::Source::kElements) {
      for (int lane = 0; lane < kPanelRows; ++lane) {
        P::pack_header(from[lane], lane, panel);
      }
      panel += P::kHeaderBytes;
      for (int part = 0; part < P::kBlocks; ++part) {
        std::byte* numbers = panel + P::kScaleBytes;
        for (int lane = 0; lane < kPanelRows; ++lane) {
          P::pack_scales(from[lane], part, lane, panel);
          for (int j = 0; j < P::kWords; ++j) {
            const uint32_t word = P::word(from[lane], part, j);
            __builtin_memcpy(numbers + (j * kPanelRows + lane) * 4, &word, sizeof(word));
          }
        }
        panel += P::kScaleBytes + kNumberBytes<P>;
      }
      for (int lane = 0; lane < kPanelRows; ++lane) {
        from[lane] += P::Source::kBytes;
      }
    }
    if constexpr (kWhole<P>) {
      make_scales_whole<P>(begin, k / 32);
    }
  });
}

using Four = float __attribute__((vector_size(16)));
using FourInts = int32_t __attribute__((vector_size(16)));

// B <= 4 blocks, whose vectors shrink to one number each together.
template <int B>
HETERO_KERNEL void quantize_blocks(const float* x, int64_t tile, int8_t* q, Int8Block* blocks) {
  Reg most[4];
  Reg sums[2][4];  // of the halves' whole numbers: exact
#pragma GCC unroll 4
  for (int b = 0; b < 4; ++b) {
    most[b] = V::zero();
    sums[0][b] = V::zero();
    sums[1][b] = V::zero();
#pragma GCC unroll 8
    for (int j = 0; j < 32 && b < B; j += kW) {
      const Reg r = V::load(x + 32 * b + j);
      most[b] = V::max(most[b], V::max(r, V::sub(V::zero(), r)));
    }
  }
  Four largest;
  V::largest_of_four(most, reinterpret_cast<float*>(&largest));
  const Four scale = largest / 127.0f;
  const Four inverse = 127.0f / (largest > 0x1p-120f ? largest : Four{} + 0x1p-120f);  // finite
#pragma GCC unroll 4
  for (int b = 0; b < B; ++b) {
#pragma GCC unroll 8
    for (int j = 0; j < 32; j += kW) {
      const Reg r = V::round(V::mul(V::load(x + 32 * b + j), V::set(inverse[b])));
      V::store_i8(q + 32 * tile * b + j, r);
      sums[j / 16][b] = V::add(sums[j / 16][b], r);
    }
  }
  Four first;
  Four all;
  V::sum_of_four(sums[0], reinterpret_cast<float*>(&first));
  V::sum_of_four(sums[1], reinterpret_cast<float*>(&all));
  all += first;
  // What is not a number has no sum in integers (0 here), and spoils the result through the scale.
  const auto eightfold = [](Four f) { return __builtin_convertvector(f == f ? f : Four{}, FourInts) * 8; };
  const FourInts all8 = eightfold(all);
  const FourInts first8 = eightfold(first);
  const Four sum = scale * all;
  const Four first_sum = scale * first;
#pragma GCC unroll 4
  for (int b = 0; b < B; ++b) {
    blocks[tile * b] = {scale[b], sum[b],    first_sum[b],
                        all8[b],  first8[b], pairs8_of(q + 32 * tile * b, all8[b])};
  }
}

void quantize_int8_row(const float* x, int64_t k, int64_t tile, int8_t* q, Int8Block* blocks) {
  int64_t at = 0;
  for (; at + 128 <= k; at += 128) {
    quantize_blocks<4>(x + at, tile, q + at * tile, blocks + at / 32 * tile);
  }
  for (; at < k; at += 32) {
    quantize_blocks<1>(x + at, tile, q + at * tile, blocks + at / 32 * tile);
  }
}

// acc += (scale * x.scale) * total + offset * x.sum, of one of P::kParts parts, the same operations wherever
// a block is met.
template <class P>
HETERO_KERNEL Floats add_block(Floats acc, Ints sum, Floats scale, Floats offset, const Int8Block& x,
                               int part) {
  const auto of_part = [&](auto whole, auto first) {
    return P::kParts == 1 ? whole : part == 0 ? first : whole - first;
  };
  Ints total = P::kNumbers == Numbers::kNibbles ? I::total(sum) : sum;
  if (P::kZero != 0) {
    const int32_t q_sum8 = of_part(x.q_sum8, x.first_sum8);
    total = I::subtract(total, P::kZero % 8 == 0 ? P::kZero / 8 * q_sum8 : q_sum8 / 8 * P::kZero);
  }
  acc = I::fma(I::mul(scale, I::set(x.scale)), I::to_floats(total), acc);
  if (P::kOffset) {
    acc = I::fma(offset, I::set(of_part(x.sum, x.first_sum)), acc);
  }
  return acc;
}
template <class P>
HETERO_KERNEL Ints add_products(Ints sum, Ints w, Ints x) {
  if constexpr (P::kNumbers == Numbers::kSigned) {
    return I::dot_signed(sum, w, x);
  } else if constexpr (P::kNumbers == Numbers::kSmall) {
    return I::dot_small(sum, w, x);
  } else {
    return I::dot(sum, w, x);
  }
}

// `units`: what the sums are multiplied by, or null.
HETERO_KERNEL void store_row(const float* acc, const float* units, int64_t cols, const float* bias,
                             float* y) {
  const auto at = [&](int v) {
    const Floats sums = I::load_floats(acc + v * kLanes);
    return units == nullptr ? sums : I::mul(sums, I::load_floats(units + v * kLanes));
  };
  if (cols == kPanelRows && bias == nullptr) {
    for (int v = 0; v < kVectors; ++v) {
      I::store(y + v * kLanes, at(v));
    }
    return;
  }
  float whole[kPanelRows];
  for (int v = 0; v < kVectors; ++v) {
    I::store(whole + v * kLanes, at(v));
  }
  for (int64_t c = 0; c < cols; ++c) {
    y[c] = whole[c] + (bias == nullptr ? 0.0f : bias[c]);
  }
}

// ---- Few rows: numbers stream by once, decoded in registers --------------------------------------

template <class P, int R, bool kInWhole>
void multiply_few(const std::byte* panel, int64_t k, const Int8Rows& x, int64_t cols, const float* bias,
                  float* y, int64_t y_stride) {
  const int64_t row_blocks = k / 32;
  const int8_t* q = x.q;
  const Int8Block* blocks = x.blocks;
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
      for (int line = 0; line < P::kScaleBytes + kNumberBytes<P>; line += 64) {
        V::prefetch(panel + 4096 + line);
      }
      Ints sum[P::kParts][R][kVectors];
      for (int h = 0; h < P::kParts; ++h) {
        for (int i = 0; i < R; ++i) {
          for (int v = 0; v < kVectors; ++v) {
            sum[h][i][v] = start_of<P, kInWhole>(blocks[i]);
          }
        }
      }
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
            Ints& first_sum = sum[0][i][v];
            Ints& second_sum = sum[P::kParts - 1][i][v];
            first_sum = add_products<P>(first_sum, first, I::broadcast(xi));
            second_sum = add_products<P>(second_sum, second, I::broadcast(xi + 16));
          }
        }
      }
      for (int v = 0; v < kVectors; ++v) {
        for (int h = 0; h < P::kParts; ++h) {
          const Floats offset = P::offset(header[v], panel, h, v);
          if constexpr (kInWhole) {
            const Ints scale = load_scales<P>(panel, v);
            for (int i = 0; i < R; ++i) {
              acc[i][v] = add_whole<P>(acc[i][v], sum[h][i][v], scale, offset_in_units<P>(offset, units, v),
                                       blocks[i]);
            }
            continue;
          }
          const Floats scale = P::scale(header[v], panel, h, v);
          for (int i = 0; i < R; ++i) {
            acc[i][v] = add_block<P>(acc[i][v], sum[h][i][v], scale, offset, blocks[i], h);
          }
        }
      }
      panel += P::kScaleBytes + kNumberBytes<P>;
      q += 32 * x.tile;
      blocks += x.tile;
    }
  }
  for (int i = 0; i < R; ++i) {
    alignas(64) float whole[kPanelRows];
    for (int v = 0; v < kVectors; ++v) {
      I::store(whole + v * kLanes, acc[i][v]);
    }
    store_row(whole, units, cols, bias, y + i * y_stride);
  }
}

// ---- Many rows: numbers decoded once into a first-level cache ------------------------------------

constexpr int64_t kDecodedBlocks = I::kDecodedBlocks;
constexpr int64_t kDecodedRows = 192;  // of activations that decoded numbers meet; a multiple of all tiles

// Some blocks of a panel: bytes (8 * block + j) * 4 * kPanelRows.. hold elements 4j.. of every row.
struct DecodedPanel {
  alignas(64) std::byte numbers[kDecodedBlocks * 32 * kPanelRows];
  alignas(64) float scale[kDecodedBlocks * 2 * kPanelRows];   // [block][P::kParts][row]
  alignas(64) float offset[kDecodedBlocks * 2 * kPanelRows];  // the same
};

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
          if constexpr (kInWhole) {
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

// R rows times decoded blocks, added to acc [R][kPanelRows], which stays in memory: registers are for
// the integer sums. kInWhole: scales are whole numbers.
template <class P, int R, bool kInWhole>
void multiply_decoded(const DecodedPanel& w, int64_t count, int64_t tile, const int8_t* q,
                      const Int8Block* blocks, float* acc) {
  const std::byte* numbers = w.numbers;
  const float* scale = w.scale;
  const float* offset = w.offset;
  for (int64_t block = 0; block < count; ++block) {
#pragma GCC unroll 2
    for (int h = 0; h < P::kParts; ++h) {
      Ints sum[R][kVectors];
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
          const Ints x = I::broadcast(q + i * 32 + 4 * j);
#pragma GCC unroll 4
          for (int v = 0; v < kVectors; ++v) {
            sum[i][v] = add_products<P>(jj == 0 ? start_of<P, kInWhole>(blocks[i]) : sum[i][v], wj[v], x);
            I::settle(sum[i][v]);
          }
        }
      }
      I::settle_memory();
#pragma GCC unroll 16
      for (int i = 0; i < R; ++i) {
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) {
          float* to = acc + i * kPanelRows + v * kLanes;
          const Floats by = I::load_floats(offset + v * kLanes);
          if constexpr (kInWhole) {
            const auto* whole = reinterpret_cast<const std::byte*>(scale + v * kLanes);
            I::store(to, add_whole<P>(I::load_floats(to), sum[i][v], I::load(whole), by, blocks[i]));
          } else {
            const Floats scales = I::load_floats(scale + v * kLanes);
            I::store(to, add_block<P>(I::load_floats(to), sum[i][v], scales, by, blocks[i], h));
          }
        }
      }
      I::settle_memory();
      scale += kPanelRows;
      offset += kPanelRows;
    }
    numbers += 32 * kPanelRows;
    q += 32 * tile;
    blocks += tile;
  }
}

#include "cpu/int8_pairs_inl.h"

template <class P, bool kInWhole, int R = kInt8Tile>
HETERO_KERNEL void multiply_decoded_rows(int64_t rows, const DecodedPanel& w, int64_t count, int64_t tile,
                                         const int8_t* q, const Int8Block* blocks, float* acc) {
  if constexpr (R > 1) {
    if (rows < R) {
      return multiply_decoded_rows<P, kInWhole, R - 1>(rows, w, count, tile, q, blocks, acc);
    }
  }
  if constexpr (kRowPairs<I> && !kInWhole) {
    multiply_pairs<P, R>(w, count, tile, q, blocks, acc);
  } else {
    multiply_decoded<P, R, kInWhole>(w, count, tile, q, blocks, acc);
  }
}

// Columns of activations stay in the second-level cache while a group of panels passes by; sums of all of
// them lie there as well, and go out as long runs of each row.
template <class P>
void multiply_many(const std::byte* panel, int64_t k, const Int8Rows& x, int64_t rows, int64_t cols,
                   const float* bias, float* y, int64_t y_stride) {
  constexpr int64_t kGroup = 8;
  constexpr int64_t kGroupCols = kGroup * kPanelRows;
  const int64_t row_blocks = k / 32;
  const int64_t panel_bytes = panel_bytes_of<P>(k);
  const int64_t parts = (row_blocks + kDecodedBlocks - 1) / kDecodedBlocks;
  const int64_t each = ((row_blocks + parts - 1) / parts + P::kBlocks - 1) / P::kBlocks * P::kBlocks;
  const int64_t chunk = each / P::kBlocks * kSuperBytes<P>;
  DecodedPanel decoded;
  alignas(64) float acc[kGroup][kDecodedRows * kPanelRows];
  for (int64_t first = 0; first < rows; first += kDecodedRows) {
    const int64_t some = min_of(kDecodedRows, rows - first);
    for (int64_t column = 0; column < cols; column += kGroupCols) {
      const std::byte* group = panel + column / kPanelRows * panel_bytes;
      const int64_t panels = (min_of(kGroupCols, cols - column) + kPanelRows - 1) / kPanelRows;
      for (int64_t p = 0; p < panels; ++p) {
        __builtin_memset(acc[p], 0, static_cast<size_t>(some * kPanelRows) * sizeof(float));
      }
      for (int64_t block = 0; block < row_blocks; block += each) {
        const int64_t count = min_of(each, row_blocks - block);
        const int64_t offset = kUnitBytes<P> + block / P::kBlocks * kSuperBytes<P>;
        for (int64_t p = 0; p < panels; ++p) {
          const std::byte* const some_blocks = group + p * panel_bytes + offset;
          const float* const units = units_of<P>(group + p * panel_bytes);
          decode_some<P>(some_blocks, units, count, decoded);
          if constexpr (kRowPairs<I>) {
            pair_rows(count, decoded);
          }
          // What is decoded next comes from far: the next panel, or the group's further columns.
          const std::byte* next = p + 1 < panels              ? group + (p + 1) * panel_bytes + offset
                                  : block + each < row_blocks ? group + offset + chunk
                                                              : group + panels * panel_bytes;
          for (int64_t i = 0; i < some; i += x.tile) {
            for (int64_t line = i * chunk / some / 64 * 64; line < (i + x.tile) * chunk / some; line += 64) {
              V::prefetch(next + line);
            }
            const int64_t at = (first + i) * row_blocks + block * x.tile;
            const int64_t in_tile = min_of(x.tile, some - i);
            float* const to = acc[p] + i * kPanelRows;
            if (units == nullptr) {
              multiply_decoded_rows<P, false>(in_tile, decoded, count, x.tile, x.q + 32 * at, x.blocks + at,
                                              to);
            } else if constexpr (kWhole<P>) {
              multiply_decoded_rows<P, true>(in_tile, decoded, count, x.tile, x.q + 32 * at, x.blocks + at,
                                             to);
            }
          }
        }
      }
      for (int64_t i = 0; i < some; ++i) {
        for (int64_t p = 0; p < panels; ++p) {
          const int64_t c = column + p * kPanelRows;
          store_row(acc[p] + i * kPanelRows, units_of<P>(group + p * panel_bytes),
                    min_of(kPanelRows, cols - c), bias == nullptr ? nullptr : bias + c,
                    y + (first + i) * y_stride + c);
        }
      }
    }
  }
}

void multiply_int8(DType dtype, const std::byte* panel, int64_t k, const Int8Rows& x, int64_t rows,
                   int64_t cols, const float* bias, float* y, int64_t y_stride) {
  with_panel(dtype, [&]<class P>() {
    if (rows > kFewInt8Rows) {
      return multiply_many<P>(panel, k, x, rows, cols, bias, y, y_stride);
    }
    constexpr bool W = kWhole<P>;
    const auto of = [rows](auto one, auto two, auto three) {
      return rows == 1 ? one : rows == 2 ? two : three;
    };
    const auto in_halves =
        of(multiply_few<P, 1, false>, multiply_few<P, 2, false>, multiply_few<P, 3, false>);
    const auto in_whole = of(multiply_few<P, 1, W>, multiply_few<P, 2, W>, multiply_few<P, 3, W>);
    for (int64_t c = 0; c < cols; c += kPanelRows, panel += panel_bytes_of<P>(k)) {
      const auto multiply = units_of<P>(panel) == nullptr ? in_halves : in_whole;
      multiply(panel, k, x, min_of(kPanelRows, cols - c), bias == nullptr ? nullptr : bias + c, y + c,
               y_stride);
    }
  });
}
