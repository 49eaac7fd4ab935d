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
// After what it builds on.
#include "cpu/int8_block_pairs_inl.h"

template <class P>
HETERO_KERNEL int64_t panel_bytes_of(int64_t k) {
  const int64_t behind = kWhole<P> && kHasBlockPairs<I> && k % 64 != 0 ? P::kScaleBytes : 0;
  return kUnitBytes<P> + k / (32 * P::kBlocks) * kSuperBytes<P> + behind;
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

// What is computed of up to kGroupBlocks blocks together, so that no step waits for the one before.
template <class T>
using OfBlocks = T[kGroupBlocks / 4];
struct QuantizedGroup {
  OfBlocks<Four> largest;  // magnitudes
  OfBlocks<Four> first;    // sums of whole numbers, of the first halves: exact
  OfBlocks<Four> rest;     // and of the others
  OfBlocks<Four> scale;    // as in Int8Block; so is what follows
  OfBlocks<Four> sum;
  OfBlocks<Four> first_sum;
  OfBlocks<FourInts> q_sum8;
  OfBlocks<FourInts> first_sum8;
};
template <class T>
HETERO_KERNEL auto of_block(const OfBlocks<T>& values, int64_t b) {
  return values[b / 4][b % 4];
}

// For levels that meet blocks in pairs (int8_block_pairs_inl.h). Returns the group's scale; `before`: that of
// the group before.
HETERO_KERNEL float put_pairs(const QuantizedGroup& group, float before, int64_t blocks, const Int8Rows& to) {
  Four most = {};
  Four spoiled = {};  // by what is not a number, or infinite
  for (const Four& scale : group.scale) {
    most = scale > most ? scale : most;
    spoiled += scale * 0.0f;
  }
  // Sums must not grow out of range on their way from one group's scale to the next one's.
  float largest = before * 0x1p-10f > 0x1p-100f ? before * 0x1p-10f : 0x1p-100f;
  for (int i = 0; i < 4; ++i) {
    largest = most[i] > largest ? most[i] : largest;
  }
  const float spoilt = spoiled[0] + spoiled[1] + spoiled[2] + spoiled[3];
  const float group_scale = largest * (32768.0f / 32767.0f) + spoilt;
  to.blocks->group_scale = before / group_scale;
  const float parts = spoilt == 0.0f ? 32767.0f / largest : 0.0f;
  OfBlocks<FourInts> scales;
  OfBlocks<FourInts> sums8;
  for (int64_t i = 0; i < kGroupBlocks / 4; ++i) {
    const Four scale = parts == 0.0f ? Four{} : group.scale[i] * parts + 0.5f;
    scales[i] = __builtin_convertvector(scale, FourInts);
    sums8[i] = (group.q_sum8[i] * scales[i] + 0x4000) >> 15;
  }
  // Behind the last block are zeros.
  for (int64_t b = 0; b < blocks; b += 2) {
    const auto pair = [&](const OfBlocks<FourInts>& of) {
      return static_cast<int32_t>((static_cast<uint32_t>(of_block(of, b)) & 0xffffu) |
                                  static_cast<uint32_t>(of_block(of, b + 1)) << 16);
    };
    to.whole[b * to.tile] = {-of_block(group.q_sum8, b), pair(scales), pair(sums8)};
    if (b + 1 < blocks) {
      to.whole[(b + 1) * to.tile].start8 = -of_block(group.q_sum8, b + 1);
    }
  }
  return group_scale;
}

// B <= 4 blocks, whose vectors shrink to one number each together.
template <int B>
HETERO_KERNEL void find_largest(const float* x, Four& largest) {
  Reg most[4];
#pragma GCC unroll 4
  for (int b = 0; b < 4; ++b) {
    most[b] = V::zero();
#pragma GCC unroll 8
    for (int j = 0; j < 32 && b < B; j += kW) {
      const Reg r = V::abs(V::load(x + 32 * b + j));
      most[b] = j == 0 ? r : V::max(most[b], r);
    }
  }
  V::largest_of_four(most, reinterpret_cast<float*>(&largest));
}
template <int B>
HETERO_KERNEL void round_blocks(const float* x, Four inverse, int8_t* q, int64_t tile, Four& first,
                                Four& rest) {
  Reg sums[2][4];
#pragma GCC unroll 4
  for (int b = 0; b < 4; ++b) {
    sums[0][b] = V::zero();
    sums[1][b] = V::zero();
#pragma GCC unroll 8
    for (int j = 0; j < 32 && b < B; j += kW) {
      const Reg r = V::round(V::mul(V::load(x + 32 * b + j), V::set(inverse[b])));
      V::store_i8(q + 32 * tile * b + j, r);
      sums[j / 16][b] = j % 16 == 0 ? r : V::add(sums[j / 16][b], r);
    }
  }
  V::sum_of_four(sums[0], reinterpret_cast<float*>(&first));
  V::sum_of_four(sums[1], reinterpret_cast<float*>(&rest));
}

// Calls visit.operator()<B>(block) for parts of B <= 4 blocks of `blocks`.
template <class Visit>
HETERO_KERNEL void for_parts(int64_t blocks, const Visit& visit) {
  int64_t b = 0;
  for (; b + 4 <= blocks; b += 4) {
    visit.template operator()<4>(b);
  }
  switch (blocks - b) {
    case 1:
      return visit.template operator()<1>(b);
    case 2:
      return visit.template operator()<2>(b);
    case 3:
      return visit.template operator()<3>(b);
    default:
      return;
  }
}

// Up to kGroupBlocks blocks. Those that there are not are zeros.
HETERO_KERNEL void round_group(const float* x, int64_t blocks, const Int8Rows& to, QuantizedGroup& group) {
  if (blocks < kGroupBlocks) {
    group = {};
  }
  for_parts(blocks, [&]<int B>(int64_t b) { find_largest<B>(x + 32 * b, group.largest[b / 4]); });
  for_parts(blocks, [&]<int B>(int64_t b) {
    const Four largest = group.largest[b / 4];
    const Four inverse = 127.0f / (largest > 0x1p-120f ? largest : Four{} + 0x1p-120f);  // finite
    round_blocks<B>(x + 32 * b, inverse, to.q + 32 * to.tile * b, to.tile, group.first[b / 4],
                    group.rest[b / 4]);
  });
  for (int64_t i = 0; i < (blocks + 3) / 4; ++i) {
    const Four first = group.first[i];
    const Four all = first + group.rest[i];
    // What is not a number has no sum in integers (0 here), and spoils the result through the scale.
    const auto eightfold = [](Four f) { return __builtin_convertvector(f == f ? f : Four{}, FourInts) * 8; };
    group.scale[i] = group.largest[i] / 127.0f + all * 0.0f;
    group.sum[i] = group.scale[i] * all;
    group.first_sum[i] = group.scale[i] * first;
    group.q_sum8[i] = eightfold(all);
    group.first_sum8[i] = eightfold(first);
  }
  for (int64_t b = 0; b < blocks; ++b) {
    to.blocks[b * to.tile] = {of_block(group.scale, b),      of_block(group.sum, b),
                              of_block(group.first_sum, b),  of_block(group.q_sum8, b),
                              of_block(group.first_sum8, b), 0.0f};
  }
}

// Calls visit(blocks, to) for each group of a row.
template <class Visit>
HETERO_KERNEL void for_groups(int64_t k, const Int8Rows& row, const Visit& visit) {
  for (int64_t at = 0; at < k / 32; at += kGroupBlocks) {
    visit(min_of(kGroupBlocks, k / 32 - at), row.from(at * row.tile));
  }
}

template <class J = I>
HETERO_KERNEL void put_starts8(int64_t blocks, const Int8Rows& to) {
  for (int64_t block = 0; block < blocks * to.tile; block += to.tile) {
    to.whole[block] = {};
    if constexpr (kHasWholeScales<J>) {
      to.whole[block].start8 = J::start8(to.q + 32 * block);
    }
  }
}

void quantize_int8_row(const float* x, int64_t k, const Int8Rows& row) {
  float group_scale = 0.0f;
  for_groups(k, row, [&](int64_t blocks, const Int8Rows& to) {
    QuantizedGroup group;
    round_group(x, blocks, to, group);
    x += 32 * blocks;
    if constexpr (kHasBlockPairs<I>) {
      group_scale = put_pairs(group, group_scale, blocks, to);
    } else {
      put_starts8(blocks, to);
    }
  });
  row.blocks->group_scale = group_scale;
}

// x of rows that finish_int8_row() finishes. Inlined into the products it would cost these registers.
__attribute__((noinline)) void round_int8_part(const float* x, int64_t k, const Int8Rows& row) {
  for_groups(k, row, [&](int64_t blocks, const Int8Rows& to) {
    QuantizedGroup group;
    round_group(x, blocks, to, group);
    x += 32 * blocks;
  });
}

void finish_int8_row(int64_t k, const Int8Rows& row) {
  float group_scale = 0.0f;
  for_groups(k, row, [&](int64_t blocks, const Int8Rows& to) {
    if constexpr (kHasBlockPairs<I>) {
      QuantizedGroup group;
      for (int64_t i = 0; i < kGroupBlocks; ++i) {
        group.scale[i / 4][i % 4] = i < blocks ? to.blocks[i * to.tile].scale : 0.0f;
        group.q_sum8[i / 4][i % 4] = i < blocks ? to.blocks[i * to.tile].q_sum8 : 0;
      }
      group_scale = put_pairs(group, group_scale, blocks, to);
    } else {
      put_starts8(blocks, to);
    }
  });
  row.blocks->group_scale = group_scale;
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

// `units`: what the sums are multiplied by, or null; and by the scale of the row's last group where there
// are groups.
HETERO_KERNEL void store_row(const float* acc, const float* units, float group_scale, int64_t cols,
                             const float* bias, float* y) {
  const auto at = [&](int v) {
    const Floats sums = I::load_floats(acc + v * kLanes);
    if (units == nullptr) {
      return sums;
    }
    Floats by = I::load_floats(units + v * kLanes);
    if constexpr (kHasBlockPairs<I>) {
      by = I::mul(by, I::set(group_scale));
    }
    return I::mul(sums, by);
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

// `some` results of row `row` from column `column` on; `gated` and `up` are lost.
HETERO_KERNEL void put_gated(const Int8Gate& gate, float* gated, const float* up, int64_t some, int64_t row,
                             int64_t column, float* y) {
  if (gate.rounded == nullptr) {
    return gate.act(gated, up, some, y);
  }
  gate.act(gated, up, some, gated);
  const Int8Rows& all = *gate.rounded;
  const Int8Rows to = all.from((row / all.tile * gate.row_blocks + column / 32) * all.tile + row % all.tile);
  // Where the row behind those of the tile goes is in no cache yet.
  const Int8Rows next = to.from(gate.row_blocks * all.tile);
  for (int64_t block = 0; block < some / 32 * all.tile; block += all.tile) {
    V::prefetch(reinterpret_cast<const std::byte*>(next.q + 32 * block));
    V::prefetch(reinterpret_cast<const std::byte*>(next.blocks + block));
  }
  round_int8_part(gated, some, to);
}

#include "cpu/int8_few_inl.h"
// After what it builds on.
#include "cpu/int8_many_inl.h"

void multiply_int8(DType dtype, const std::byte* panel, int64_t k, const Int8Rows& x, int64_t rows,
                   int64_t cols, const float* bias, const Int8Gate* gate, float* y, int64_t y_stride) {
  with_panel(dtype, [&]<class P>() {
    if (rows > kFewInt8Rows) {
      return multiply_many<P>(panel, k, x, rows, cols, bias, gate, y, y_stride);
    }
    const auto of = [rows](auto one, auto two, auto three) {
      return rows == 1 ? one : rows == 2 ? two : three;
    };
    const auto in_halves =
        of(multiply_few<P, 1, false>, multiply_few<P, 2, false>, multiply_few<P, 3, false>);
    const auto in_whole = of(few_in_whole<P, 1>(), few_in_whole<P, 2>(), few_in_whole<P, 3>());
    const auto multiply = [&](const std::byte* from, int64_t some, const float* plus, float* to,
                              int64_t stride) {
      (units_of<P>(from) == nullptr ? in_halves : in_whole)(from, k, x, some, plus, to, stride);
    };
    for (int64_t c = 0; c < cols; c += kPanelRows) {
      const int64_t at = c / kPanelRows * panel_bytes_of<P>(k);
      const int64_t some = min_of(kPanelRows, cols - c);
      if (gate == nullptr) {
        multiply(panel + at, some, bias == nullptr ? nullptr : bias + c, y + c, y_stride);
        continue;
      }
      float products[2][kFewInt8Rows][kPanelRows];
      multiply(panel + at, some, nullptr, products[0][0], kPanelRows);
      multiply(gate->up + at, some, nullptr, products[1][0], kPanelRows);
      for (int64_t i = 0; i < rows; ++i) {
        put_gated(*gate, products[0][i], products[1][i], some, i, c, y + i * y_stride + c);
      }
    }
  });
}
