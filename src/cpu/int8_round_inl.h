// Activations rounded to 8-bit integers. Included by int8_inl.h.

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

// What depends on a group's blocks together, and Int8Whole. `group_scale`: in, of the group before; out, its
// own.
template <class J = I>
HETERO_KERNEL void put_whole(const QuantizedGroup& group, float& group_scale, int64_t blocks,
                             const Int8Rows& to) {
  if constexpr (kHasBlockPairs<J>) {
    group_scale = put_pairs(group, group_scale, blocks, to);
  } else {
    for (int64_t block = 0; block < blocks * to.tile; block += to.tile) {
      to.whole[block] = {};
      if constexpr (kHasWholeScales<J>) {
        to.whole[block].start8 = J::start8(to.q + 32 * block);
      }
    }
  }
}

void quantize_int8_row(const float* x, int64_t k, const Int8Rows& row) {
  float group_scale = 0.0f;
  for_groups(k, row, [&](int64_t blocks, const Int8Rows& to) {
    QuantizedGroup group;
    round_group(x, blocks, to, group);
    x += 32 * blocks;
    put_whole(group, group_scale, blocks, to);
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
    QuantizedGroup group;
    for (int64_t i = 0; i < kGroupBlocks; ++i) {
      group.scale[i / 4][i % 4] = i < blocks ? to.blocks[i * to.tile].scale : 0.0f;
      group.q_sum8[i / 4][i % 4] = i < blocks ? to.blocks[i * to.tile].q_sum8 : 0;
    }
    put_whole(group, group_scale, blocks, to);
  });
  row.blocks->group_scale = group_scale;
}
