// Eight-bit vectors of 64-bit Arm with dot products, as int8_inl.h wants them, under the rules of
// kernels_inl.h.

struct Neon {
  static constexpr int kLanes = 4;
  static constexpr int kVectors = 4;
  static constexpr int kTile = 6;  // 24 sums of the 32 registers
  static constexpr int kDecodedBlocks = 24;
  static constexpr int kSignedZero = 0;
  using Ints = int32x4_t;
  using Floats = float32x4_t;

  HETERO_KERNEL Ints load(const std::byte* p) { return vld1q_s32(reinterpret_cast<const int32_t*>(p)); }
  HETERO_KERNEL Ints low(Ints a) { return vandq_s32(a, vdupq_n_s32(0x0f0f0f0f)); }
  HETERO_KERNEL Ints high(Ints a) { return vreinterpretq_s32_u8(vshrq_n_u8(vreinterpretq_u8_s32(a), 4)); }
  HETERO_KERNEL Ints add_bits(Ints numbers, Ints bits, int shift, uint8_t mask) {
    const uint8x16_t moved = vshlq_u8(vreinterpretq_u8_s32(bits), vdupq_n_s8(static_cast<int8_t>(shift)));
    return vorrq_s32(numbers, vreinterpretq_s32_u8(vandq_u8(moved, vdupq_n_u8(mask))));
  }
  HETERO_KERNEL Ints look_up(const int8_t* values, Ints indices) {
    return vreinterpretq_s32_s8(vqtbl1q_s8(vld1q_s8(values), vreinterpretq_u8_s32(indices)));
  }
  HETERO_KERNEL Ints broadcast(const int8_t* p) { return vld1q_dup_s32(reinterpret_cast<const int32_t*>(p)); }
  HETERO_KERNEL Ints zero() { return vdupq_n_s32(0); }
  HETERO_KERNEL Ints dot(Ints sum, Ints w, Ints x) {
    return vdotq_s32(sum, vreinterpretq_s8_s32(w), vreinterpretq_s8_s32(x));
  }
  HETERO_KERNEL Ints total(Ints sum) { return sum; }
  HETERO_KERNEL Ints dot_small(Ints sum, Ints w, Ints x) { return dot(sum, w, x); }
  HETERO_KERNEL Ints dot_signed(Ints sum, Ints w, Ints x) { return dot(sum, w, x); }
  HETERO_KERNEL Ints subtract(Ints a, int32_t b) { return vsubq_s32(a, vdupq_n_s32(b)); }
  HETERO_KERNEL Floats to_floats(Ints a) { return vcvtq_f32_s32(a); }
  HETERO_KERNEL Floats load_f16(const std::byte* p) {
    return vcvt_f32_f16(vld1_f16(reinterpret_cast<const __fp16*>(p)));
  }
  HETERO_KERNEL uint32x4_t widen(const std::byte* p) {
    uint32_t four;
    __builtin_memcpy(&four, p, sizeof(four));
    const uint8x8_t bytes = vreinterpret_u8_u32(vdup_n_u32(four));
    return vmovl_u16(vget_low_u16(vmovl_u8(bytes)));
  }
  HETERO_KERNEL Floats load_u8(const std::byte* p) { return vcvtq_f32_u32(widen(p)); }
  HETERO_KERNEL Floats load_u4(const std::byte* p, int shift) {
    return vcvtq_f32_u32(vandq_u32(vshlq_u32(widen(p), vdupq_n_s32(-shift)), vdupq_n_u32(15)));
  }
  HETERO_KERNEL Floats load_i8(const std::byte* p) {
    uint32_t four;
    __builtin_memcpy(&four, p, sizeof(four));
    const int8x8_t bytes = vreinterpret_s8_u32(vdup_n_u32(four));
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes))));
  }
  HETERO_KERNEL Floats set(float x) { return vdupq_n_f32(x); }
  HETERO_KERNEL Floats mul(Floats a, Floats b) { return vmulq_f32(a, b); }
  HETERO_KERNEL Floats fma(Floats a, Floats b, Floats c) { return vfmaq_f32(c, a, b); }
  HETERO_KERNEL void settle(Ints& a) { asm("" : "+w"(a)); }
  HETERO_KERNEL void settle_memory() {}
  HETERO_KERNEL Floats load_floats(const float* p) { return vld1q_f32(p); }
  HETERO_KERNEL void store_ints(std::byte* p, Ints a) { vst1q_s32(reinterpret_cast<int32_t*>(p), a); }
  HETERO_KERNEL void store(float* p, Floats a) { vst1q_f32(p, a); }
};
