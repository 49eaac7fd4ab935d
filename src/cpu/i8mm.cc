// 8-bit products for 64-bit Arm with the matrix products of Armv8.6 (i8mm): as dotprod.cc, and for many rows
// two weight rows times two rows of activations in one instruction, which does twice as many products.
#include <arm_neon.h>

#include "cpu/int8.h"

#define HETERO_KERNEL static inline __attribute__((always_inline))

namespace hetero::cpu {
namespace {

#include "cpu/scalar_vector_inl.h"
// After what it builds on.
#include "cpu/vector_inl.h"
//
#include "cpu/neon_int8_inl.h"

struct I : Neon {
  static constexpr bool kRowPairs = true;

  HETERO_KERNEL Ints even_odd_low(Ints a, Ints b) { return vzip1q_s32(a, b); }
  HETERO_KERNEL Ints even_odd_high(Ints a, Ints b) { return vzip2q_s32(a, b); }
  HETERO_KERNEL Ints evens(Ints a, Ints b) { return vuzp1q_s32(a, b); }
  HETERO_KERNEL Ints odds(Ints a, Ints b) { return vuzp2q_s32(a, b); }
  HETERO_KERNEL Ints two_rows(const int8_t* first, const int8_t* second) {
    return vreinterpretq_s32_s8(vcombine_s8(vld1_s8(first), vld1_s8(second)));
  }
  HETERO_KERNEL Ints matrix(Ints sum, Ints w, Ints x) {
    return vmmlaq_s32(sum, vreinterpretq_s8_s32(w), vreinterpretq_s8_s32(x));
  }
};

#include "cpu/int8_inl.h"

}  // namespace

#include "cpu/table_inl.h"
const Int8Kernels kI8mmInt8Kernels = HETERO_INT8_TABLE;

}  // namespace hetero::cpu
