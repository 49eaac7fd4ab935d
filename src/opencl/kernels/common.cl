// What all kernels share. Every matrix argument is a base pointer, the offset of row 0 and the
// stride between rows, both in elements. `tokens` may be 0 (a warm-up): nothing is written then.
//
// Defined by the host:
//   CPU_SHAPE  1: one work-item is one task with explicit vectors, for devices of type CPU, whose
//              work-groups run one after the other on a core. 0: work-groups share a task, for GPUs.
//   LANES      work-items that share a row; 1 with CPU_SHAPE
//   NORM_LANES the same in rms_norm, which has no other work-groups to hide its waiting behind
//   PTX        1: the compiler takes PTX in between, NVIDIA's
//   SUBGROUPS  1: sub_group_reduce_add may be used
//   STEPS      1: tasks are functions that steps_cpu.cl calls instead of kernels; with CPU_SHAPE

#if SUBGROUPS && __OPENCL_C_VERSION__ < 300
#pragma OPENCL EXTENSION cl_khr_subgroups : enable
#endif

#define LANE_GROUP __attribute__((reqd_work_group_size(LANES, 1, 1)))

// A kernel, or with STEPS a function that is told its work-group. SHARED: memory of a work-group.
#if STEPS
#define TASK static inline void
#define AT_GROUP , const int group0, const int group1
#define GROUP(dimension) group##dimension
#define SHARED
#else
#define TASK kernel LANE_GROUP void
#define AT_GROUP
#define GROUP(dimension) get_group_id(dimension)
#define SHARED local
#endif

inline float sum8(float8 v) {
  const float4 a = v.lo + v.hi;
  const float2 b = a.lo + a.hi;
  return b.x + b.y;
}

// The sum over the `lanes` work-items of the work-group, a multiple of 16 or 1, in every one. `shared`
// has room for one float each. All lanes go round all loops: PoCL 3.1 loses the condition of loops,
// behind a barrier, that some lanes do not enter.
inline float group_sum(float v, SHARED float* shared, int lanes) {
  if (lanes == 1) {
    return v;
  }
  const int lane = get_local_id(0);
  shared[lane] = v;
  barrier(CLK_LOCAL_MEM_FENCE);
  v = 0.0f;
  for (int i = 0; i < lanes; i += 16) {
    v += shared[i + lane % 16];
  }
  barrier(CLK_LOCAL_MEM_FENCE);
  shared[lane] = v;
  barrier(CLK_LOCAL_MEM_FENCE);
  float sum = 0.0f;
  for (int i = 0; i < 16; ++i) {
    sum += shared[i];
  }
  barrier(CLK_LOCAL_MEM_FENCE);
  return sum;
}

inline float lanes_sum(float v, SHARED float* shared) { return group_sum(v, shared, LANES); }

// SiLU, or the tanh form of GELU (Hendrycks and Gimpel, arXiv 1606.08415), by tanh(u) = 1 - 2 / (e^2u + 1)
#define ACTIVATION(NAME, FLOATS)                                             \
  inline FLOATS NAME(FLOATS g, int gelu) {                                   \
    if (gelu) {                                                              \
      const FLOATS u = 0.7978845608028654f * mad(0.044715f * g * g, g, g);   \
      return g - g / (exp(2.0f * u) + 1.0f);                                 \
    }                                                                        \
    return g / (1.0f + exp(-g));                                             \
  }
ACTIVATION(activated, float)
ACTIVATION(activated8, float8)

// The two halves of a word as floats.
#if !CPU_SHAPE
inline float2 halves_of(uint w) {
#if PTX
  float2 halves;
  __asm__("{ .reg .b16 low, high; mov.b32 {low, high}, %2; cvt.f32.f16 %0, low; cvt.f32.f16 %1, high; }"
          : "=f"(halves.x), "=f"(halves.y)
          : "r"(w));
  return halves;
#else
  return vload_half2(0, (const half*)&w);
#endif
}
#endif
