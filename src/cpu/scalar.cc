// Kernels without instruction sets beyond the architecture's baseline, for every machine: four
// numbers at a time in the vector types of GCC and Clang, which become SSE2 or NEON.
#if defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "cpu/int8.h"
#include "cpu/kernels.h"

#define HETERO_KERNEL static inline __attribute__((always_inline))

namespace hetero::cpu {
namespace {

#include "cpu/scalar_vector_inl.h"

#if defined(__aarch64__)
constexpr int64_t kMr = 8;  // 8 x 8: 16 accumulators of the 32 registers
#else
constexpr int64_t kMr = 4;
#endif
constexpr int64_t kGemvRows = 4;
constexpr int64_t kFewRows = 8;

#include "cpu/kernels_inl.h"

// Decodes some of each row, then scatters it.
void pack_panel(const WeightRows& w, int64_t k_begin, int64_t count, float* panel) {
  constexpr int64_t kSome = 256;  // whole blocks of every format
  float row[kSome];
  const int64_t before = bytes_of(w.dtype, k_begin);
  for (int64_t c = 0; c < kNr; ++c) {
    const std::byte* src = w.data + (c < w.rows ? c : w.rows - 1) * w.row_bytes + before;
    for (int64_t at = 0; at < count; at += kSome) {
      const int64_t some = min_of(kSome, count - at);
      decode(w.dtype, src + bytes_of(w.dtype, at), some, 1.0f, row);
      for (int64_t i = 0; i < some; ++i) {
        panel[(at + i) * kNr + c] = row[i];
      }
    }
  }
}

#include "cpu/rows_inl.h"
// After what it builds on.
#include "cpu/attend_inl.h"

constexpr int kPortableLanes = 4;
#include "cpu/int8_portable_inl.h"
using I = Portable;
// After what it builds on.
#include "cpu/int8_inl.h"

}  // namespace

#include "cpu/table_inl.h"
const Int8Kernels kScalarInt8Kernels = HETERO_INT8_TABLE;
const Kernels kScalarKernels = HETERO_KERNEL_TABLE("scalar", &kScalarInt8Kernels);

}  // namespace hetero::cpu
