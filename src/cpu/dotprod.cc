// 8-bit products for 64-bit Arm with dot products (Armv8.2 and later).
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
using I = Neon;
//
#include "cpu/int8_inl.h"

}  // namespace

#include "cpu/table_inl.h"
const Int8Kernels kDotProductInt8Kernels = HETERO_INT8_TABLE;

}  // namespace hetero::cpu
