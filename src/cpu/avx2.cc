// Kernels for AVX2 with FMA and F16C (x86-64-v3). Only this file and avx512.cc are compiled for
// more than the baseline; see kernels_inl.h for what that forbids.
#include <immintrin.h>

#include "cpu/int8.h"
#include "cpu/kernels.h"

#define HETERO_KERNEL static inline __attribute__((always_inline))

namespace hetero::cpu {
namespace {

#include "cpu/avx2_vector_inl.h"

constexpr int64_t kMr = 6;        // 6 x 16: 12 accumulators of the 16 registers
constexpr int64_t kGemvRows = 4;  // one tile of six rows beats two passes over the blocks
constexpr int64_t kFewRows = 8;

#include "cpu/kernels_inl.h"
#include "cpu/rows_inl.h"
// After what it builds on.
#include "cpu/attend_inl.h"
#include "cpu/x86_pack_inl.h"
// After what it builds on.
#include "cpu/int8_x86_inl.h"

}  // namespace

#include "cpu/table_inl.h"
const Int8Kernels kAvx2Int8Kernels = HETERO_INT8_TABLE;
const Kernels kAvx2Kernels = HETERO_KERNEL_TABLE("avx2", &kAvx2Int8Kernels);

}  // namespace hetero::cpu
