// 8-bit products for AVX2 with AVX-VNNI (Alder Lake and later clients).
#include <immintrin.h>

#include "cpu/int8.h"

#define HETERO_KERNEL static inline __attribute__((always_inline))
#define HETERO_DPBUSD _mm256_dpbusd_avx_epi32

namespace hetero::cpu {
namespace {

#include "cpu/avx2_vector_inl.h"
#include "cpu/vector_inl.h"
// After what it builds on.
#include "cpu/int8_x86_inl.h"

}  // namespace

#include "cpu/table_inl.h"
const Int8Kernels kAvxVnniInt8Kernels = HETERO_INT8_TABLE;

}  // namespace hetero::cpu
