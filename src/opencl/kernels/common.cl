// What all kernels share. Every matrix argument is a base pointer, the offset of row 0 and the
// stride between rows, both in elements. `tokens` may be 0 (a warm-up): nothing is written then.
//
// Defined by the host:
//   CPU_SHAPE  1: one work-item is one task with explicit vectors, for devices of type CPU, whose
//              work-groups run one after the other on a core. 0: work-groups share a task, for GPUs.
//   LANES      work-items that share a row; 1 with CPU_SHAPE
//   SUBGROUPS  1: sub_group_reduce_add may be used

#if SUBGROUPS && __OPENCL_C_VERSION__ < 300
#pragma OPENCL EXTENSION cl_khr_subgroups : enable
#endif

#define LANE_GROUP __attribute__((reqd_work_group_size(LANES, 1, 1)))

inline float sum8(float8 v) {
  const float4 a = v.lo + v.hi;
  const float2 b = a.lo + a.hi;
  return b.x + b.y;
}

// The sum over the work-group's lanes, in every lane. `shared` has room for LANES floats.
inline float lanes_sum(float v, local float* shared) {
#if LANES == 1
  return v;
#else
  const int lane = get_local_id(0);
  shared[lane] = v;
  barrier(CLK_LOCAL_MEM_FENCE);
  for (int half_lanes = LANES / 2; half_lanes > 0; half_lanes /= 2) {
    if (lane < half_lanes) {
      shared[lane] += shared[lane + half_lanes];
    }
    barrier(CLK_LOCAL_MEM_FENCE);
  }
  const float sum = shared[0];
  barrier(CLK_LOCAL_MEM_FENCE);
  return sum;
#endif
}
