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

#include "cpu/int8_round_inl.h"

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
  const Int8Rows to = gate.rounded->at(row, column / 32, gate.row_blocks);
  // Where the row behind those of the tile goes is in no cache yet.
  const Int8Rows next = to.from(gate.row_blocks * to.tile);
  for (int64_t block = 0; block < some / 32 * to.tile; block += to.tile) {
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
