// Kernels for AVX-512 (x86-64-v4: F, BW, CD, DQ, VL).
#include <immintrin.h>

#include "cpu/int8.h"
#include "cpu/kernels.h"

#define HETERO_KERNEL static inline __attribute__((always_inline))

namespace hetero::cpu {
namespace {

#include "cpu/avx512_vector_inl.h"

constexpr int64_t kMr = 12;  // 12 x 32: 24 accumulators of the 32 registers
constexpr int64_t kGemvRows = 8;
constexpr int64_t kFewRows = 8;

#include "cpu/kernels_inl.h"
#include "cpu/rows_inl.h"
// After what it builds on.
#include "cpu/attend_inl.h"
#include "cpu/x86_pack_inl.h"

}  // namespace

#include "cpu/table_inl.h"
// Without VNNI, AVX-512 has no 8-bit products that are worth a panel of its own.
const Kernels kAvx512Kernels = HETERO_KERNEL_TABLE("avx512", &kAvx2Int8Kernels);

}  // namespace hetero::cpu
