// One token through any number of layers of a Llama in one kernel, for GPUs: norm, qkv, rope, attention, o,
// norm, gate and up, SwiGLU, down. As many work-groups as the device runs at once, each to the end; between
// steps they wait for each other at a counter in memory. What a step leaves to the next lies in `room`. The
// first weights of the next step are on their way to registers meanwhile.
//
// Weights are Q4_0 in PLANES (blocks.cl). A product's 16 rows of W times x, split into X_PARTS bfloat16 as in
// linear_gpu_matrix.cl, are one product of small matrices: x is as many of its eight columns. Of a tile of 16
// rows, each warp has every WARPS-th pair of quads; a quad is 4 blocks, 128 elements, of which lane t of
// linear_gpu_matrix.cl holds 16 bytes. As it is in a word, a number of four bits is a subnormal bfloat16, so
// a mask is all that decoding takes; the 8 that it is too large by goes into what the units add to.
//
// Host: LAYER_LANES, MOST_LAYERS, X_PARTS, HEAD_DIM (64 or 128), QUERIES (query heads of one kv head: 1, 2, 4 or 8),
// EMULATE: 1 to compute the products without units for matrices.

#if EMULATE  // compilers for CPUs take minutes for unrolled loops with barriers around
#define UNROLL
#define UNROLL_4
#else
#define UNROLL _Pragma("unroll")
#define UNROLL_4 _Pragma("unroll 4")
#endif
#define WARPS (LAYER_LANES / 32)
#define QUADS 2  // of a row that a warp works on at once
#if EMULATE
#define SQUARES LAYER_LANES
#define SET_TILES 4  // of 16 rows of W whose parts are in local memory
#define PARTS (4 * WARPS)
#else
#define SQUARES WARPS
#define SET_TILES 16
#define PARTS WARPS
#endif
#define AT_ONCE 8           // elements of x that a work-item asks for
#define PATIENCE (1 << 22)  // turns of waiting for other groups; seconds

#define BLOCK_X (4 * X_PARTS)  // uint4 for a block of x

#define SPAN 512           // keys whose scores are in local memory
#define TOPS 16            // work-items that find a head's largest score
#define PAIR_LANES (HEAD_DIM / 2)
#define V_AHEAD 4          // keys whose v a work-item asks for ahead
#define SUBSETS (LAYER_LANES / PAIR_LANES)  // of keys, each for all elements
#define QUERY_ROW (HEAD_DIM + 4)
#define PART_FLOATS (QUERIES * (HEAD_DIM + 2))
#define MAX_OF(a, b) ((a) > (b) ? (a) : (b))
#define SUM_FLOATS (SUBSETS * QUERIES * (HEAD_DIM + 1))
#define ROOM_FLOATS (QUERIES * QUERY_ROW + QUERIES * TOPS + MAX_OF(QUERIES * SPAN, SUM_FLOATS))
#define PARTS_FLOATS (SET_TILES * 16 * (PARTS + 1))

// Words of `sync`, far apart: arrivals at barriers, whether some group gave up waiting, arrivals of the
// parts of each kv head's attention.
#define SYNC_ARRIVED 0
#define SYNC_LOST 32
#define SYNC_JOIN 64

#if PTX
#define DEVICE_FENCE() __asm__ volatile("fence.acq_rel.gpu;" ::: "memory")
inline void release(global uint* word) {
  __asm__ volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(word) : "memory");
}
inline uint fresh(global uint* word) {
  uint v;
  __asm__ volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(word) : "memory");
  return v;
}
inline uint4 stream4(global const uchar* p) {
  uint4 v;
  __asm__ volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0,%1,%2,%3}, [%4];"
          : "=r"(v.s0), "=r"(v.s1), "=r"(v.s2), "=r"(v.s3) : "l"(p));
  return v;
}
inline void to_l2(global const void* p) { __asm__ volatile("prefetch.global.L2 [%0];" ::"l"(p)); }
inline float quad_sum(float v) {
  float w;
  __asm__ volatile("shfl.sync.bfly.b32 %0, %1, 1, 0x1f, 0xffffffff;" : "=f"(w) : "f"(v));
  v += w;
  __asm__ volatile("shfl.sync.bfly.b32 %0, %1, 2, 0x1f, 0xffffffff;" : "=f"(w) : "f"(v));
  return v + w;
}
inline float from_lane(float v, int other) {  // of the lane whose number differs in the bits of `other`
  float w;
  __asm__ volatile("shfl.sync.bfly.b32 %0, %1, %2, 0x1f, 0xffffffff;" : "=f"(w) : "f"(v), "r"(other));
  return w;
}
inline float warp_sum(float v) {
  float w;
  v = quad_sum(v);
  __asm__ volatile("shfl.sync.bfly.b32 %0, %1, 4, 0x1f, 0xffffffff;" : "=f"(w) : "f"(v));
  v += w;
  __asm__ volatile("shfl.sync.bfly.b32 %0, %1, 8, 0x1f, 0xffffffff;" : "=f"(w) : "f"(v));
  v += w;
  __asm__ volatile("shfl.sync.bfly.b32 %0, %1, 16, 0x1f, 0xffffffff;" : "=f"(w) : "f"(v));
  return v + w;
}
#else
inline uint4 stream4(global const uchar* p) { return *(global const uint4*)p; }
inline void to_l2(global const void* p) {}
#define DEVICE_FENCE() mem_fence(CLK_GLOBAL_MEM_FENCE)
inline void release(global uint* word) {
  mem_fence(CLK_GLOBAL_MEM_FENCE);
  atomic_inc(word);
}
inline uint fresh(global uint* word) {
  const uint v = atomic_add(word, 0u);
  mem_fence(CLK_GLOBAL_MEM_FENCE);
  return v;
}
#endif

// All work-items; what the group wrote before is seen by all groups behind their wait.
inline void arrive(global uint* sync) {
  barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
  if (get_local_id(0) == 0) {
    release(sync + SYNC_ARRIVED);
  }
}

// Until `target` arrivals. False if they do not come: then all groups leave, or fail where they can.
inline bool await(global uint* sync, uint target, local int* lost, bool trial) {
  if (get_local_id(0) == 0) {
    int turns = 0;
    while ((int)(fresh(sync + SYNC_ARRIVED) - target) < 0 && turns < PATIENCE) {
      turns = turns % 1024 == 1023 && fresh(sync + SYNC_LOST) != 0 ? PATIENCE : turns + 1;
    }
    *lost = turns == PATIENCE;
    if (turns == PATIENCE) {
      atomic_or(sync + SYNC_LOST, 1u);
#if PTX
      if (!trial) {
        __asm__ volatile("trap;");
      }
#endif
    }
  }
  barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
  return *lost == 0;
}

// The upper half: v as bfloat16, rounded to nearest.
inline uint bfloat_bits(float v) {
  const uint bits = as_uint(v);
  return (bits + 0x7fffu + (bits >> 16 & 1u)) & 0xffff0000u;
}

// What x is multiplied by, so that subnormal numbers times it are not subnormal in float.
#define X_SCALE 0x1p92f
#if EMULATE
#define SUM_SCALE 1.0f
#else
#define SUM_SCALE 0x1p41f  // 2^133 / X_SCALE
#endif

// Element e of x, as linear_gpu_matrix.cl has it: [block][bfloat16 1..X_PARTS][t] of 8. The second half of a block
// meets numbers that are 16 times too large.
inline void put_split(global ushort* split, int e, float v) {
  const int i = e % 4;
  global ushort* to = split + (e / 32 * BLOCK_X + e % 16 / 4) * 8 + (e % 32 / 16 * 2 + i % 2) * 2 + i / 2;
  v *= e % 32 < 16 ? X_SCALE : X_SCALE / 16.0f;
  UNROLL
  for (int part = 0; part < X_PARTS; ++part) {
    const uint bits = bfloat_bits(v);
    to[part * 32] = (ushort)(bits >> 16);
    v -= as_float(bits);
  }
}

typedef struct {
  global const uchar* w;
  global const uint4* x;  // split
  int k;
  int tiles;
  int up;  // rows from one of gate to that of up; 0: there are no such pairs
} Product;

// QUADS of rows g and g + 8 of a tile, on their way.
typedef struct {
  uint4 words[2][QUADS];
  uint4 scales[2];
} Stage;

inline int tiles_of(Product p) {  // of this group
  return (p.tiles - (int)get_group_id(0) + (int)get_num_groups(0) - 1) / (int)get_num_groups(0);
}

// Tile number i of the group. Behind the last quads, those again.
inline void bring(Stage* stage, Product p, int i, int chunk) {
  const int lane = get_local_id(0);
  const int quad = min((chunk * WARPS + lane / 32) * QUADS, p.k / 128 - QUADS);
  const long bytes = row_bytes(p.k);
  const int tile = get_group_id(0) + i * get_num_groups(0);
  const int row = (p.up > 0 ? tile * 8 : tile * 16) + lane % 32 / 4;
  global const uchar* a = p.w + row * bytes;
  global const uchar* b = a + (p.up > 0 ? p.up : 8) * bytes;
  const int at = quad * 64 + lane % 4 * 16;
  UNROLL
  for (int q = 0; q < QUADS; ++q) {
    stage->words[0][q] = stream4(a + at + q * 64);
    stage->words[1][q] = stream4(b + at + q * 64);
  }
  stage->scales[0] = stream4(a + p.k / 2 + quad * 8);
  stage->scales[1] = stream4(b + p.k / 2 + quad * 8);
}

// Has tile number i on its way to the second-level cache.
inline void warm(Product p, int i) {
  if (i < tiles_of(p)) {
    const long bytes = row_bytes(p.k);
    const int tile = get_group_id(0) + i * get_num_groups(0);
    global const uchar* a = p.w + (p.up > 0 ? tile * 8 : tile * 16) * bytes;
    global const uchar* b = a + (p.up > 0 ? p.up : 8) * bytes;
    for (int at = get_local_id(0) * 128; at < 8 * bytes; at += LAYER_LANES * 128) {
      to_l2(a + at);
      to_l2(b + at);
    }
  }
}

#if EMULATE
inline float2 pair_of(uint u) { return (float2)(as_float(u << 16), as_float(u & 0xffff0000u)); }
// Block j of the quad: what the columns of x add up to.
inline void multiply_block(float* sums, uint word0, uint word1, global const uint4* x, float scale0, float scale1) {
  float a = 0.0f, b = 0.0f;
  for (int part = X_PARTS - 1; part >= 0; --part) {
    const uint4 v = x[part * 4];
    const float2 x0 = pair_of(v.s0) / X_SCALE, x1 = pair_of(v.s1) / X_SCALE;
    const float2 x2 = pair_of(v.s2) / X_SCALE * 16.0f, x3 = pair_of(v.s3) / X_SCALE * 16.0f;
#define NUMBER(w, down) ((float)((int)((w) >> (down) & 15u) - 8))
#define EIGHT(w)                                                                                                    \
  (NUMBER(w, 0) * x0.x + NUMBER(w, 16) * x0.y + NUMBER(w, 8) * x1.x + NUMBER(w, 24) * x1.y + NUMBER(w, 4) * x2.x + \
   NUMBER(w, 20) * x2.y + NUMBER(w, 12) * x3.x + NUMBER(w, 28) * x3.y)
    a += EIGHT(word0);
    b += EIGHT(word1);
  }
  sums[0] = fma(scale0, a, sums[0]);
  sums[1] = fma(scale1, b, sums[1]);
}
#else
// A number of four bits, as it is in the low bits of a bfloat16, is that number times 2^-133, subnormal or
// not, and 4 bits further up times 2^-129.
#define LOW 0x000f000fu
#define HIGH 0x00f000f0u
#define MULTIPLY(c, a0, a1, a2, a3, b0, b1)                                                                 \
  __asm__("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "  \
          "{%0,%1,%2,%3};"                                                                                  \
          : "+f"((c)[0]), "+f"((c)[1]), "+f"((c)[2]), "+f"((c)[3])                                          \
          : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1))
// zero: less eight times what the block's x adds up to, in this lane's columns.
inline void multiply_block(float* sums, uint word0, uint word1, uint4 x, float2 zero, float scale0, float scale1) {
  float c[4] = {zero.x, zero.y, zero.x, zero.y};
  const uint next0 = word0 >> 8, next1 = word1 >> 8;
  MULTIPLY(c, word0 & LOW, word1 & LOW, next0 & LOW, next1 & LOW, x.s0, x.s1);
  MULTIPLY(c, word0 & HIGH, word1 & HIGH, next0 & HIGH, next1 & HIGH, x.s2, x.s3);
  sums[0] = fma(scale0, c[0] + c[1], sums[0]);
  sums[1] = fma(scale1, c[2] + c[3], sums[1]);
}
inline float2 zero_of(uint4 x) {
  float c[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  MULTIPLY(c, 0x80088008u, 0x80088008u, 0x80088008u, 0x80088008u, x.s0, x.s1);
  MULTIPLY(c, 0x80808080u, 0x80808080u, 0x80808080u, 0x80808080u, x.s2, x.s3);
  return (float2)(c[0], c[1]);
}
#endif

// The warp's share of rows g and g + 8 of a chunk.
inline void multiply(float* sums, const Stage* stage, const Product* p, int chunk) {
  const int lane = get_local_id(0) % 32;
  UNROLL
  for (int q = 0; q < QUADS; ++q) {
    const int quad = (chunk * WARPS + get_local_id(0) / 32) * QUADS + q;
    if (quad < p->k / 128) {
      global const uint4* x = p->x + quad * 4 * BLOCK_X + lane % 4;
#if EMULATE
#define BLOCK_OF(j) x + j * BLOCK_X,
#else
      uint4 xs[4];
      float2 zeros[4];
      UNROLL
      for (int j = 0; j < 4; ++j) {
        xs[j] = (uint4)(0u);
        if (lane < BLOCK_X) {
          xs[j] = x[j * BLOCK_X + lane / 4 * 4];
        }
      }
      UNROLL
      for (int j = 0; j < 4; ++j) {
        zeros[j] = zero_of(xs[j]);
      }
#define BLOCK_OF(j) xs[j], zeros[j],
#endif
      const uint2 scale0 = q == 0 ? stage->scales[0].lo : stage->scales[0].hi;
      const uint2 scale1 = q == 0 ? stage->scales[1].lo : stage->scales[1].hi;
      const uint4 word0 = stage->words[0][q], word1 = stage->words[1][q];
      const float2 s0 = halves_of(scale0.s0), s1 = halves_of(scale0.s1);
      const float2 t0 = halves_of(scale1.s0), t1 = halves_of(scale1.s1);
      multiply_block(sums, word0.s0, word1.s0, BLOCK_OF(0) s0.x, t0.x);
      multiply_block(sums, word0.s1, word1.s1, BLOCK_OF(1) s0.y, t0.y);
      multiply_block(sums, word0.s2, word1.s2, BLOCK_OF(2) s1.x, t1.x);
      multiply_block(sums, word0.s3, word1.s3, BLOCK_OF(3) s1.y, t1.y);
    }
  }
}

// Element e of a head of q or k, rotated.
inline float roped(global const float* head, global const float* table, int e, int rotary_dims, int halves) {
  const int pairs = rotary_dims / 2;
  const int at = min(e, rotary_dims - 1);  // no branches, so that loads of several calls are on their way at once
  const int pair = halves ? at % pairs : at / 2;
  const int second = halves ? at >= pairs : at & 1;
  const float a = head[halves ? pair : 2 * pair], b = head[halves ? pair + pairs : 2 * pair + 1];
  const float c = table[2 * pair], s = table[2 * pair + 1];
  const float rotated = second ? mad(a, s, b * c) : mad(a, c, -(b * s));
  return e < rotary_dims ? rotated : head[e];
}

inline float8 eight_of(uint4 raw) {
  return (float8)(halves_of(raw.s0), halves_of(raw.s1), halves_of(raw.s2), halves_of(raw.s3));
}

// All query heads of kv head `kv` over keys [begin, end) of `seen`; the last of them is the token's own,
// whose part writes it to the caches. The result goes to `split`, or with several parts through `partial`,
// which the last group to come puts together.
inline void attend(global const float* qkv, global const float* table, global half* k_cache, global half* v_cache,
                   int stride, global ushort* split, global float* partial, global uint* joined, int kv, int kv_heads,
                   int part, int parts, int begin, int end, int seen, float scale, int rotary_dims, int halves,
                   local float* room, local int* last) {
  const int lane = get_local_id(0);
  local float* queries = room;
  local float* tops = queries + QUERIES * QUERY_ROW;
  local float* scores = tops + QUERIES * TOPS;
  local float* subset_sums = scores;
  global const float* k_head = qkv + (kv_heads * QUERIES + kv) * HEAD_DIM;
  const float own_k = roped(k_head, table, lane % HEAD_DIM, rotary_dims, halves);
  const float own_v = k_head[kv_heads * HEAD_DIM + lane % HEAD_DIM];
  UNROLL
  for (int i = 0; i < (QUERIES * HEAD_DIM + LAYER_LANES - 1) / LAYER_LANES; ++i) {
    const int e = min(lane + i * LAYER_LANES, QUERIES * HEAD_DIM - 1);  // the last one again and again
    queries[e / HEAD_DIM * QUERY_ROW + e % HEAD_DIM] =
        scale * roped(qkv + (kv * QUERIES + e / HEAD_DIM) * HEAD_DIM, table, e % HEAD_DIM, rotary_dims, halves);
  }
  if (end == seen && lane < HEAD_DIM) {
    vstore_half(own_k, 0, k_cache + (long)(seen - 1) * stride + lane);
    vstore_half(own_v, 0, v_cache + (long)(seen - 1) * stride + lane);
  }
  float top[QUERIES], total[QUERIES], sums[QUERIES][2];
  UNROLL
  for (int h = 0; h < QUERIES; ++h) {
    top[h] = -1e30f;
    total[h] = sums[h][0] = sums[h][1] = 0.0f;
  }
  barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
  for (int first = begin; first < end; first += SPAN) {
    const int count = min(SPAN, end - first);
    const int h_mine = lane % QUERIES;
    // What is needed first of v is on its way while scores are computed.
    const int subset = lane / PAIR_LANES;
    global const uint* v = (global const uint*)(v_cache + (long)first * stride) + lane % PAIR_LANES;
    uint ahead[V_AHEAD];
    UNROLL
    for (int i = 0; i < V_AHEAD; ++i) {
      ahead[i] = v[(long)min(i * SUBSETS + subset, count - 1) * stride / 2];
    }
    for (int i = 0; i < (count * QUERIES + LAYER_LANES - 1) / LAYER_LANES; ++i) {
      const int key = min((lane + i * LAYER_LANES) / QUERIES, count - 1);  // the last one again and again
      global const half* k = k_cache + (long)(first + key) * stride;
      float score = 0.0f;
#if EMULATE
      local const float4* q = (local const float4*)(queries + h_mine * QUERY_ROW);
      for (int j = 0; j < HEAD_DIM / 8; ++j) {
        const float8 eight = eight_of(*(global const uint4*)(k + j * 8));
        score += dot(q[2 * j], eight.lo) + dot(q[2 * j + 1], eight.hi);
      }
#else
      // Of a key, each of QUERIES lanes has every QUERIES-th eight elements, for all heads.
      uint4 eights[HEAD_DIM / 8 / QUERIES];
      float dots[QUERIES];
      UNROLL
      for (int j = 0; j < HEAD_DIM / 8 / QUERIES; ++j) {
        eights[j] = *(global const uint4*)(k + (j * QUERIES + h_mine) * 8);
      }
      UNROLL
      for (int h = 0; h < QUERIES; ++h) {
        dots[h] = 0.0f;
        UNROLL
        for (int j = 0; j < HEAD_DIM / 8 / QUERIES; ++j) {
          local const float4* q = (local const float4*)(queries + h * QUERY_ROW + (j * QUERIES + h_mine) * 8);
          const float8 eight = eight_of(eights[j]);
          dots[h] += dot(q[0], eight.lo) + dot(q[1], eight.hi);
        }
        UNROLL
        for (int other = 1; other < QUERIES; other *= 2) {
          dots[h] += from_lane(dots[h], other);
        }
        score = h == h_mine ? dots[h] : score;
      }
#endif
      scores[h_mine * SPAN + key] = score;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    if (lane < QUERIES * TOPS) {
      float m = -1e30f;
      for (int key = lane % TOPS; key < count; key += TOPS) {
        m = fmax(m, scores[lane / TOPS * SPAN + key]);
      }
      tops[lane] = m;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    float top_mine = 0.0f;
    UNROLL
    for (int h = 0; h < QUERIES; ++h) {
      float m = top[h];
      UNROLL
      for (int j = 0; j < TOPS; ++j) {
        m = fmax(m, tops[h * TOPS + j]);
      }
      const float keep = exp(top[h] - m);
      top[h] = m;
      total[h] *= keep, sums[h][0] *= keep, sums[h][1] *= keep;
      top_mine = h == h_mine ? m : top_mine;
    }
    for (int i = 0; i < (count * QUERIES + LAYER_LANES - 1) / LAYER_LANES; ++i) {
      const int key = (lane + i * LAYER_LANES) / QUERIES;
      if (key < count) {
        scores[h_mine * SPAN + key] = exp(scores[h_mine * SPAN + key] - top_mine);
      }
    }
    barrier(CLK_LOCAL_MEM_FENCE);
#define ADD_UP(i, pair)                                                 \
  {                                                                     \
    const int key = min((i) * SUBSETS + subset, count - 1);             \
    const float2 values = halves_of(pair);                              \
    const float counts = (i) * SUBSETS + subset < count ? 1.0f : 0.0f;  \
    UNROLL                                                              \
    for (int h = 0; h < QUERIES; ++h) {                                 \
      const float weight = scores[h * SPAN + key] * counts;             \
      total[h] += weight;                                               \
      sums[h][0] = fma(weight, values.x, sums[h][0]);                   \
      sums[h][1] = fma(weight, values.y, sums[h][1]);                   \
    }                                                                   \
  }
    UNROLL
    for (int i = 0; i < V_AHEAD; ++i) {
      ADD_UP(i, ahead[i])
    }
    UNROLL_4
    for (int i = V_AHEAD; i < (count + SUBSETS - 1) / SUBSETS; ++i) {
      ADD_UP(i, v[(long)min(i * SUBSETS + subset, count - 1) * stride / 2])
    }
    barrier(CLK_LOCAL_MEM_FENCE);
  }
  UNROLL
  for (int h = 0; h < QUERIES; ++h) {
    local float* to = subset_sums + (lane / PAIR_LANES * QUERIES + h) * (HEAD_DIM + 1);
    to[lane % PAIR_LANES * 2] = sums[h][0];
    to[lane % PAIR_LANES * 2 + 1] = sums[h][1];
    if (lane % PAIR_LANES == 0) {
      to[HEAD_DIM] = total[h];
    }
  }
  barrier(CLK_LOCAL_MEM_FENCE);
  partial += (long)kv * parts * PART_FLOATS;
  for (int i = 0; i < (QUERIES * HEAD_DIM + LAYER_LANES - 1) / LAYER_LANES; ++i) {
    const int e = lane + i * LAYER_LANES;
    if (e < QUERIES * HEAD_DIM) {
      const int h = e / HEAD_DIM;
      float sum = 0.0f, weights = 0.0f;
      UNROLL
      for (int s = 0; s < SUBSETS; ++s) {
        local const float* from = subset_sums + (s * QUERIES + h) * (HEAD_DIM + 1);
        sum += from[e % HEAD_DIM];
        weights += from[HEAD_DIM];
      }
      if (parts == 1) {
        put_split(split, kv * QUERIES * HEAD_DIM + e, sum / weights);
      } else {
        global float* to = partial + part * PART_FLOATS;
        to[e] = sum;
        if (e % HEAD_DIM == 0) {
          float m = top[0];
          UNROLL
          for (int j = 1; j < QUERIES; ++j) {
            m = j == h ? top[j] : m;
          }
          to[QUERIES * HEAD_DIM + 2 * h] = m;
          to[QUERIES * HEAD_DIM + 2 * h + 1] = weights;
        }
      }
    }
  }
  if (parts > 1) {
    barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
    if (lane == 0) {
      DEVICE_FENCE();
      *last = atomic_inc(joined + kv) == (uint)parts - 1;
      DEVICE_FENCE();
      if (*last) {
        joined[kv] = 0;
      }
    }
    barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
    if (*last) {
      for (int i = 0; i < (QUERIES * HEAD_DIM + LAYER_LANES - 1) / LAYER_LANES; ++i) {
        const int e = min(lane + i * LAYER_LANES, QUERIES * HEAD_DIM - 1);
        global const float* of_head = partial + QUERIES * HEAD_DIM + e / HEAD_DIM * 2;
        float m = -1e30f;
        for (int j = 0; j < parts; ++j) {
          m = fmax(m, of_head[j * PART_FLOATS]);
        }
        float sum = 0.0f, weights = 0.0f;
        UNROLL_4
        for (int j = 0; j < parts; ++j) {
          const float weight = exp(of_head[j * PART_FLOATS] - m);
          sum = fma(weight, partial[j * PART_FLOATS + e], sum);
          weights = fma(weight, of_head[j * PART_FLOATS + 1], weights);
        }
        put_split(split, kv * QUERIES * HEAD_DIM + e, sum / weights);
      }
    }
  }
  barrier(CLK_LOCAL_MEM_FENCE);
}

// Element e of a row of Q4_0 in PLANES.
inline float embedded(global const uchar* row, int e, int cols) {
  const int block = e / 32, of_half = e % 16;
  const uint word = ((global const uint*)row)[block / 4 * 16 + of_half / 4 * 4 + block % 4];
  const int number = (int)(word >> (of_half % 4 * 8 + e % 32 / 16 * 4) & 15u) - 8;
  return (float)number * half_at(row + cols / 2 + block * 2);
}

// Where a layer's memory lies, offsets included: numbers of a table, since a kernel with all of it as arguments takes
// the host a third of a microsecond for each.
#define ADDRESSES 8
#define OF_LAYER(l, what) TABLE_ENTRY(l, what)
#define TABLE_ENTRY(l, type, index) ((global type*)(layer_at[(l) * ADDRESSES + index]))
#define NORM const float, 0
#define QKV const uchar, 1
#define K_CACHE half, 2
#define V_CACHE half, 3
#define O const uchar, 4
#define MIDDLE const float, 5
#define GATE_UP const uchar, 6
#define DOWN const uchar, 7

// Where `memory` lies, for tables of layers.
kernel void address_of(global const uchar* memory, global ulong* address) { *address = (ulong)memory; }

// token: whose embedding is x, a row of Q4_0 in PLANES times embed_scale; -1: x is given. turns: what `table` is to be
// made of (angles.cl), if makes_table. head_rows: of a product behind the last layer, whose norm and weights are those of
// one layer more; 0: none, but s and y, the last layer's second norm's sum and what down makes of it.
// Caches are f16, with rows of kv_heads * HEAD_DIM in `stride`. tokens: 0 does nothing; 2 only tries `layers` barriers.
__attribute__((reqd_work_group_size(LAYER_LANES, 1, 1)))
kernel void layers_of_token(global const float* x, long x_at, global const float* r, long r_at, int has_residual,
                            global float* table, long table_at, global float* s, long s_at, global float* y,
                            long y_at, global const ulong* addresses, global float* room, global uint* sync,
                            uint arrived, int layers, int width, int ffn, int kv_heads, int stride, int span, int parts,
                            float scale, int rotary_dims, int halves, float eps, float middle_eps, int gelu,
                            int position, int tokens, int token, global const uchar* embeddings, long embeddings_at,
                            float embed_scale, int makes_table, global const float* turns, float magnitude, int head_rows,
                            global float* logits, long logits_at) {
  local float shared[MAX_OF(PARTS_FLOATS, ROOM_FLOATS)] __attribute__((aligned(16)));
  local float squares[SQUARES];
  local ulong layer_at[MOST_LAYERS * ADDRESSES];
  local int flag;
  const int lane = get_local_id(0);
  const int warp = lane / 32;
  const uint groups = get_num_groups(0);
  if (tokens == 0) {
    return;
  }
  if (tokens == 2) {
    for (int i = 0; i < layers; ++i) {
      arrive(sync);
      arrived += groups;
      if (!await(sync, arrived, &flag, tokens == 2)) {
        return;
      }
    }
    return;
  }
  const int q_width = kv_heads * QUERIES * HEAD_DIM;
  const int qkv_width = q_width + 2 * kv_heads * HEAD_DIM;
  global float* qkv_room = room;
  global float* sum_room = qkv_room + qkv_width;
  global ushort* normed = (global ushort*)(sum_room + width);  // sums times the next norm's weights
  global ushort* attended = normed + X_PARTS * width;
  global ushort* gated = attended + X_PARTS * q_width;
  global float* partial = (global float*)(gated + X_PARTS * ffn);
  table += table_at;

#define PRODUCT_OF(step, l)                                                                                 \
  (step) == 0   ? (Product){OF_LAYER(l, QKV), (global const uint4*)normed, width,                           \
                            ((l) == layers ? head_rows : qkv_width) / 16, 0}                                \
  : (step) == 1 ? (Product){OF_LAYER(l, O), (global const uint4*)attended, q_width, width / 16, 0}          \
  : (step) == 2 ? (Product){OF_LAYER(l, GATE_UP), (global const uint4*)normed, width, ffn / 8, ffn}         \
                : (Product){OF_LAYER(l, DOWN), (global const uint4*)gated, ffn, width / 16, 0}

  for (int i = lane; i < layers * ADDRESSES + (head_rows > 0 ? 2 : 0); i += LAYER_LANES) {
    layer_at[i] = addresses[i];
  }
  barrier(CLK_LOCAL_MEM_FENCE);
  Stage stage;
  Product next = PRODUCT_OF(0, 0);
  if (tiles_of(next) > 0) {
    bring(&stage, next, 0, 0);
  }
  if (makes_table && get_group_id(0) == 0) {
    for (int i = lane; i < rotary_dims / 2; i += LAYER_LANES) {
      vstore2(magnitude * cos_sin(turns, rotary_dims / 2, i, position), i, table);
    }
  }
  // Every group makes the same of x and r.
  x += x_at;
  r += r_at;
  embeddings += embeddings_at + max(token, 0) * row_bytes(width);
  for (int begin = lane; begin < width; begin += AT_ONCE * LAYER_LANES) {
    float sums[AT_ONCE], weights[AT_ONCE];
    UNROLL
    for (int i = 0; i < AT_ONCE; ++i) {  // all are on their way before the first is written
      const int e = min(begin + i * LAYER_LANES, width - 1);
      sums[i] = token < 0 ? x[e] + (has_residual ? r[e] : 0.0f) : embed_scale * embedded(embeddings, e, width);
      weights[i] = OF_LAYER(0, NORM)[e];
    }
    UNROLL
    for (int i = 0; i < AT_ONCE; ++i) {
      const int e = begin + i * LAYER_LANES;
      if (e < width) {
        sum_room[e] = sums[i];
        put_split(normed, e, sums[i] * weights[i]);
      }
    }
  }
  barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);

  const int products = 4 * layers + (head_rows > 0 ? 1 : 0);
  for (int at = 0; at < products; ++at) {
    const int l = at / 4, step = at % 4;
    const Product now = next;
    const bool final = at == products - 1;
    if (!final) {
      next = PRODUCT_OF((step + 1) % 4, (at + 1) / 4);
    } else {
      next.tiles = 0;
    }
    const bool normalizes = step == 0 || step == 2;
    const int tiles = tiles_of(now), next_tiles = tiles_of(next);
    const int chunks = (now.k / 128 + WARPS * QUADS - 1) / (WARPS * QUADS);
    float factor = SUM_SCALE;
    if (!normalizes && !final && lane < 2 * tiles) {  // which would wait behind the next step's weights
      to_l2((step == 1 ? OF_LAYER(l, MIDDLE) : OF_LAYER(l + 1, NORM)) +
            (get_group_id(0) + lane / 2 * groups) * 16 + lane % 2 * 8);
    }
    if (normalizes) {
      float4 sum = 0.0f;
      for (int begin = 4 * lane; begin < width; begin += 8 * LAYER_LANES) {
        const int second = begin + 4 * LAYER_LANES;
        const float4 v = *(global const float4*)(sum_room + begin);
        const float4 w = second < width ? *(global const float4*)(sum_room + second) : (float4)(0.0f);
        sum = fma(w, w, fma(v, v, sum));
      }
#if EMULATE
      squares[lane] = (sum.x + sum.y) + (sum.z + sum.w);
#else
      const float of_warp = warp_sum((sum.x + sum.y) + (sum.z + sum.w));
      if (lane % 32 == 0) {
        squares[warp] = of_warp;
      }
#endif
    }
    for (int set = 0; set < tiles; set += SET_TILES) {
      for (int i = set; i < min(set + SET_TILES, tiles); ++i) {
        float sums[2] = {0.0f, 0.0f};
        for (int chunk = 0; chunk < chunks; ++chunk) {
          multiply(sums, &stage, &now, chunk);
          const bool same_tile = chunk + 1 < chunks, last = !same_tile && i + 1 == tiles;
          if (!last || next_tiles > 0) {
            const Product from = last ? next : now;
            bring(&stage, from, last ? 0 : same_tile ? i : i + 1, same_tile ? chunk + 1 : 0);
          }
        }
        local float* to = shared + ((i - set) * 16 + lane % 32 / 4) * (PARTS + 1);
#if EMULATE
        to[warp * 4 + lane % 4] = sums[0];
        to[8 * (PARTS + 1) + warp * 4 + lane % 4] = sums[1];
#else
        const float a = quad_sum(sums[0]), b = quad_sum(sums[1]);
        if (lane % 4 == 0) {
          to[warp] = a;
          to[8 * (PARTS + 1) + warp] = b;
        }
#endif
      }
      barrier(CLK_LOCAL_MEM_FENCE);
      if (normalizes && set == 0) {
        float all = 0.0f;
        UNROLL
        for (int i = 0; i < SQUARES; ++i) {
          all += squares[i];
        }
        factor = SUM_SCALE / sqrt(all / (float)width + (step == 0 ? eps : middle_eps));
      }
      const int out = min(lane, 16 * SET_TILES - 1);
      const int tile = get_group_id(0) + (set + out / 16) * groups;
      float sum = 0.0f, up = 0.0f;
      UNROLL
      for (int i = 0; i < PARTS; ++i) {
        sum += shared[out * (PARTS + 1) + i];
        up += shared[min(out + 8, 16 * SET_TILES - 1) * (PARTS + 1) + i];
      }
      sum *= factor;
      up *= factor;
      if (lane == out && set + out / 16 < tiles) {
        const int row = tile * 16 + out % 16;
        if (step == 0) {
          *(final ? logits + logits_at + row : qkv_room + row) = sum;
        } else if (step == 2) {
          if (out % 16 < 8) {
            put_split(gated, tile * 8 + out % 8, activated(sum, gelu) * up);
          }
        } else if (final) {
          s[s_at + row] = sum_room[row];
          y[y_at + row] = sum;
        } else {
          const float v = sum_room[row] + sum;
          sum_room[row] = v;
          put_split(normed, row, v * (step == 1 ? OF_LAYER(l, MIDDLE)[row] : OF_LAYER(l + 1, NORM)[row]));
        }
      }
      if (set + SET_TILES < tiles) {
        barrier(CLK_LOCAL_MEM_FENCE);
      }
    }
    if (tiles == 0 && next_tiles > 0) {
      bring(&stage, next, 0, 0);
    }
    if (final) {
      return;
    }
    arrive(sync);
    if (step == 0) {  // what attention and the product behind it will read
      warm(next, 1);
      for (int task = get_group_id(0); task < kv_heads * parts; task += groups) {
        const int kv = task % kv_heads, first = task / kv_heads * span;
        for (int key = first + lane / 4; key < min(first + span, position); key += LAYER_LANES / 4) {
          global const half* cache = lane & 2 ? OF_LAYER(l, K_CACHE) : OF_LAYER(l, V_CACHE);
          to_l2(cache + kv * HEAD_DIM + (long)key * stride + lane % 2 * (HEAD_DIM / 2));
        }
      }
    }
    arrived += groups;
    if (!await(sync, arrived, &flag, tokens == 2)) {
      return;
    }
    if (step == 0) {
      for (int task = get_group_id(0); task < kv_heads * parts; task += groups) {
        const int kv = task % kv_heads, part = task / kv_heads;
        attend(qkv_room, table, OF_LAYER(l, K_CACHE) + kv * HEAD_DIM, OF_LAYER(l, V_CACHE) + kv * HEAD_DIM, stride,
               attended, partial, sync + SYNC_JOIN, kv, kv_heads, part, parts, part * span,
               min(part * span + span, position + 1), position + 1, scale, rotary_dims, halves, shared, &flag);
      }
      arrive(sync);
      arrived += groups;
      if (!await(sync, arrived, &flag, tokens == 2)) {
        return;
      }
    }
  }
}
