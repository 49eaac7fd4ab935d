// What everything that is written over V shares. Included by kernels_inl.h and by levels that only add
// 8-bit products, under the rules of kernels_inl.h.

constexpr int kW = V::kWidth;
constexpr int kPieces = 32 / kW;  // vectors in a block of 32 elements
using Reg = V::Reg;

HETERO_KERNEL int64_t min_of(int64_t a, int64_t b) {
  return a < b ? a : b;
}

HETERO_KERNEL int64_t max_of(int64_t a, int64_t b) {
  return a > b ? a : b;
}

HETERO_KERNEL uint16_t read_u16(const std::byte* p) {
  uint16_t v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}

#include "cpu/blocks_inl.h"
