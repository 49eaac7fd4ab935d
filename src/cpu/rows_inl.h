// Kernels that work row by row, and attention. Included after kernels_inl.h, under the same rules.

// e^x in f32 to about two units in the last place: x = n ln 2 + r, |r| <= ln 2 / 2, and the Taylor
// series of e^r to r^7 (remainder below 2^-27). Saturates outside of [-87, 88]; NaN stays NaN.
HETERO_KERNEL Reg exp_of(Reg x) {
  x = V::min(V::set(88.0f), V::max(V::set(-87.0f), x));
  const Reg n = V::round(V::mul(x, V::set(1.44269504f)));
  // ln 2 in two parts, the first with so few bits that n times it is exact.
  Reg r = V::fma(n, V::set(-0.693359375f), x);
  r = V::fma(n, V::set(2.12194440e-4f), r);
  Reg p = V::set(1.0f / 5040.0f);
  p = V::fma(p, r, V::set(1.0f / 720.0f));
  p = V::fma(p, r, V::set(1.0f / 120.0f));
  p = V::fma(p, r, V::set(1.0f / 24.0f));
  p = V::fma(p, r, V::set(1.0f / 6.0f));
  p = V::fma(p, r, V::set(0.5f));
  p = V::fma(p, r, V::set(1.0f));
  p = V::fma(p, r, V::set(1.0f));
  return V::mul(p, V::exp2_int(n));
}

// x / (1 + e^-y)
HETERO_KERNEL Reg times_sigmoid(Reg x, Reg y) {
  return V::div(x, V::add(V::set(1.0f), exp_of(V::sub(V::zero(), y))));
}

struct Silu {
  HETERO_KERNEL Reg of(Reg x) { return times_sigmoid(x, x); }
};
struct Gelu {
  // The tanh form: 0.5 x (1 + tanh z) = x / (1 + e^-2z), z = sqrt(2 / pi) (x + 0.044715 x^3).
  HETERO_KERNEL Reg of(Reg x) {
    const Reg inner = V::fma(V::mul(V::mul(x, x), x), V::set(0.044715f), x);
    return times_sigmoid(x, V::mul(V::set(1.5957691216f), inner));
  }
};

template <class A>
void gated(const float* gate, const float* up, int64_t count, float* s) {
  int64_t i = 0;
  for (; i + kW <= count; i += kW) {
    V::store(s + i, V::mul(A::of(V::load(gate + i)), V::load(up + i)));
  }
  if (i < count) {
    const int64_t rest = count - i;
    store_part(s + i, rest, V::mul(A::of(load_part(gate + i, rest)), load_part(up + i, rest)));
  }
}

// tanh u = 1 - 2 / (e^2u + 1), exact to an absolute error of a few 2^-24.
HETERO_KERNEL Reg capped(Reg x, float cap) {
  const Reg e = exp_of(V::mul(x, V::set(2.0f / cap)));
  const Reg tanh = V::sub(V::set(1.0f), V::div(V::set(2.0f), V::add(e, V::set(1.0f))));
  return V::mul(V::set(cap), tanh);
}

void soft_cap(const float* x, int64_t count, float cap, float* y) {
  int64_t i = 0;
  for (; i + kW <= count; i += kW) {
    V::store(y + i, capped(V::load(x + i), cap));
  }
  if (i < count) {
    store_part(y + i, count - i, capped(load_part(x + i, count - i), cap));
  }
}

void rms_norm(const float* x, const float* y, const float* w, int64_t cols, float eps, float* h, float* s) {
  Reg squares[4] = {V::zero(), V::zero(), V::zero(), V::zero()};
  int64_t i = 0;
  int lane = 0;
  for (; i + kW <= cols; i += kW, lane = (lane + 1) & 3) {
    Reg v = V::load(x + i);
    if (y != nullptr) {
      v = V::add(v, V::load(y + i));
      V::store(s + i, v);
    }
    squares[lane] = V::fma(v, v, squares[lane]);
  }
  float total = V::sum(V::add(V::add(squares[0], squares[1]), V::add(squares[2], squares[3])));
  for (; i < cols; ++i) {
    const float v = y == nullptr ? x[i] : x[i] + y[i];
    if (y != nullptr) {
      s[i] = v;
    }
    total += v * v;
  }
  const float scale = 1.0f / __builtin_sqrtf(total / static_cast<float>(cols) + eps);
  const float* from = y == nullptr ? x : s;
  for (i = 0; i + kW <= cols; i += kW) {
    V::store(h + i, V::mul(V::mul(V::load(from + i), V::set(scale)), V::load(w + i)));
  }
  for (; i < cols; ++i) {
    h[i] = from[i] * scale * w[i];
  }
}

void rotate(const float* head, const float* table, int64_t head_dim, int64_t rotary, bool halves,
            float* out) {
  const int64_t pairs = rotary / 2;
  const int64_t next = halves ? 1 : 2;        // from one pair to the next
  const int64_t across = halves ? pairs : 1;  // from a pair's first to its second
  for (int64_t i = 0; i < pairs; ++i) {
    const float a = head[i * next];
    const float b = head[i * next + across];
    out[i * next] = a * table[2 * i] - b * table[2 * i + 1];
    out[i * next + across] = a * table[2 * i + 1] + b * table[2 * i];
  }
  for (int64_t i = 2 * pairs; i < head_dim; ++i) {
    out[i] = head[i];
  }
}

void to_f16(const float* src, int64_t count, uint16_t* dst) {
  int64_t i = 0;
  for (; i + kW <= count; i += kW) {
    V::store_f16(dst + i, V::load(src + i));
  }
  if (i < count) {
    uint16_t full[kW];
    V::store_f16(full, load_part(src + i, count - i));
    for (int64_t j = 0; i + j < count; ++j) {
      dst[i + j] = full[j];
    }
  }
}

// ---- Attention -----------------------------------------------------------------------------------
// Online softmax (Milakov and Gimelshein, arXiv 1805.02867) over blocks of the cache: each query
// row keeps its largest score so far, the sum of weights and the weighted sum of v, and rescales
// them when a larger score appears.

constexpr float kNone = -1e30f;  // below every score

struct AttendState {
  float* top;    // [rows]
  float* total;  // [rows]
  float* sum;    // [rows][sum_stride]
  int64_t sum_stride;
};

// Scores of one row against `count` cache rows -> weights, of which the first `seen` count.
HETERO_KERNEL void softmax_row(float* scores, int64_t count, int64_t seen, int64_t row,
                               const AttendState& state) {
  float top = state.top[row];
  int64_t j = 0;
  if (seen >= kW) {
    Reg most = V::load(scores);
    for (j = kW; j + kW <= seen; j += kW) {
      most = V::max(most, V::load(scores + j));
    }
    const float m = V::largest(most);
    top = m > top ? m : top;
  }
  for (; j < seen; ++j) {
    top = scores[j] > top ? scores[j] : top;
  }
  float rescale[kW];
  V::store(rescale, exp_of(V::set(state.top[row] - top)));
  if (top != state.top[row]) {
    float* sum = state.sum + row * state.sum_stride;
    for (int64_t d = 0; d < state.sum_stride; d += kW) {
      V::store(sum + d, V::mul(V::load(sum + d), V::set(rescale[0])));
    }
    state.top[row] = top;
    state.total[row] *= rescale[0];
  }
  Reg total = V::zero();
  for (j = 0; j + kW <= seen; j += kW) {
    const Reg e = exp_of(V::sub(V::load(scores + j), V::set(top)));
    total = V::add(total, e);
    V::store(scores + j, e);
  }
  if (j < seen) {
    float e[kW];
    V::store(e, exp_of(V::sub(load_part(scores + j, seen - j), V::set(top))));
    for (int i = 0; j + i < seen; ++i) {
      scores[j + i] = e[i];
      state.total[row] += e[i];
    }
  }
  for (j = seen; j < count; ++j) {
    scores[j] = 0.0f;
  }
  state.total[row] += V::sum(total);
}

// Scores of one query row against cache rows [begin, begin + count) -> weights; zero where the row
// does not look.
HETERO_KERNEL void weights_of(const AttendArgs& a, float* scores, int64_t count, int64_t row, int64_t begin,
                              const AttendState& state) {
  const int64_t end = a.position + row / a.group + 1 - begin;
  const int64_t seen = end < 0 ? 0 : min_of(count, end);
  const int64_t first = a.window == 0 || end < a.window ? 0 : min_of(seen, end - a.window);
  for (int64_t j = 0; j < first; ++j) {
    scores[j] = 0.0f;
  }
  if (a.cap > 0.0f) {
    soft_cap(scores + first, seen - first, a.cap, scores + first);
  }
  softmax_row(scores + first, count - first, seen - first, row, state);
}

// Asks for a row of the cache. Rows of one head lie far apart, which no prefetcher of the machine follows.
HETERO_KERNEL void prefetch_row(const std::byte* row, int64_t bytes) {
  for (int64_t at = 0; at < bytes; at += 64) {
    V::prefetch(row + at);
  }
}

// Scores of G query rows against S cache rows.
template <class T, int G, int S>
HETERO_KERNEL void scores_of(const float* q, const std::byte* k, int64_t k_bytes, int64_t head_dim,
                             float* scores) {
  Reg acc[G][S];
  for (int g = 0; g < G; ++g) {
    for (int s = 0; s < S; ++s) {
      acc[g][s] = V::zero();
    }
  }
  int64_t d = 0;
  for (; d + kW <= head_dim; d += kW) {
    for (int s = 0; s < S; ++s) {
      const Reg ks = T::load(k + s * k_bytes + d * T::kBytes);
      for (int g = 0; g < G; ++g) {
        acc[g][s] = V::fma(ks, V::load(q + g * head_dim + d), acc[g][s]);
      }
    }
  }
  if (d < head_dim) {
    for (int s = 0; s < S; ++s) {
      const Reg ks = load_plain<T>(k + s * k_bytes + d * T::kBytes, head_dim - d);
      for (int g = 0; g < G; ++g) {
        acc[g][s] = V::fma(ks, load_part(q + g * head_dim + d, head_dim - d), acc[g][s]);
      }
    }
  }
  for (int g = 0; g < G; ++g) {
    if constexpr (S == 4) {
      V::sum_of_four(acc[g], scores + g * kAttendBlock);
    } else {
      for (int s = 0; s < S; ++s) {
        scores[g * kAttendBlock + s] = V::sum(acc[g][s]);
      }
    }
  }
}

// sum[g] += weights[g] V over the block, for D vectors of head_dim from d on.
template <class T, int G, int D>
HETERO_KERNEL void weigh_some(const float* weights, const std::byte* v, int64_t v_bytes, int64_t count,
                              int64_t d, int64_t head_dim, float* sum, int64_t sum_stride) {
  Reg acc[G][D];
  for (int g = 0; g < G; ++g) {
    for (int j = 0; j < D; ++j) {
      acc[g][j] = V::load(sum + g * sum_stride + d + j * kW);
    }
  }
  const int64_t some = min_of(kW, head_dim - d);
  for (int64_t s = 0; s < count; ++s) {
    Reg vs[D];
    for (int j = 0; j < D; ++j) {
      const std::byte* from = v + s * v_bytes + (d + j * kW) * T::kBytes;
      vs[j] = D == 1 ? load_plain<T>(from, some) : T::load(from);
    }
    for (int g = 0; g < G; ++g) {
      const Reg w = V::set(weights[g * kAttendBlock + s]);
      for (int j = 0; j < D; ++j) {
        acc[g][j] = V::fma(w, vs[j], acc[g][j]);
      }
    }
  }
  for (int g = 0; g < G; ++g) {
    for (int j = 0; j < D; ++j) {
      V::store(sum + g * sum_stride + d + j * kW, acc[g][j]);
    }
  }
}

// head_dim is walked outside, so that sums stay in registers: as many as hide the latency of sums.
template <class T, int G>
HETERO_KERNEL void weigh_values(const float* weights, const std::byte* v, int64_t v_bytes, int64_t count,
                                int64_t head_dim, float* sum, int64_t sum_stride) {
  constexpr int kTogether = G == 4 ? 2 : 4;
  int64_t d = 0;
  for (; d + kTogether * kW <= head_dim; d += kTogether * kW) {
    weigh_some<T, G, kTogether>(weights, v, v_bytes, count, d, head_dim, sum, sum_stride);
  }
  for (; d < head_dim; d += kW) {
    weigh_some<T, G, 1>(weights, v, v_bytes, count, d, head_dim, sum, sum_stride);
  }
}

template <class T, int G>
void attend_group(const AttendArgs& a, const float* q, float* scores, int64_t row, int64_t begin,
                  int64_t count, const AttendState& state) {
  const int64_t k_bytes = a.k_stride * T::kBytes;
  const int64_t v_bytes = a.v_stride * T::kBytes;
  const std::byte* k = a.k + begin * k_bytes;
  constexpr int kTogether = G <= 3 ? 4 : 2;
  int64_t s = 0;
  const std::byte* v = a.v + begin * v_bytes;
  const int64_t head_bytes = a.head_dim * T::kBytes;
  for (; s + kTogether <= count; s += kTogether) {
    for (int64_t j = s; j < s + kTogether; ++j) {
      prefetch_row(v + j * v_bytes, head_bytes);
    }
    scores_of<T, G, kTogether>(q, k + s * k_bytes, k_bytes, a.head_dim, scores + s);
  }
  for (; s < count; ++s) {
    scores_of<T, G, 1>(q, k + s * k_bytes, k_bytes, a.head_dim, scores + s);
  }
  const int64_t next = min_of(kAttendBlock, a.cache_end - begin - count);
  for (int64_t j = 0; j < next; ++j) {
    prefetch_row(k + (count + j) * k_bytes, head_bytes);
  }
  for (int g = 0; g < G; ++g) {
    weights_of(a, scores + g * kAttendBlock, count, row + g, begin, state);
  }
  weigh_values<T, G>(scores, v, v_bytes, count, a.head_dim, state.sum + row * state.sum_stride,
                     state.sum_stride);
}

// A few query rows: cache rows are converted in registers.
template <class T>
void attend_few(const AttendArgs& a, int64_t rows, const float* q, float* scores, int64_t begin,
                int64_t count, const AttendState& state) {
  for (int64_t row = 0; row < rows; row += 4) {
    const float* qr = q + row * a.head_dim;
    switch (min_of(4, rows - row)) {
      case 1:
        attend_group<T, 1>(a, qr, scores, row, begin, count, state);
        break;
      case 2:
        attend_group<T, 2>(a, qr, scores, row, begin, count, state);
        break;
      case 3:
        attend_group<T, 3>(a, qr, scores, row, begin, count, state);
        break;
      default:
        attend_group<T, 4>(a, qr, scores, row, begin, count, state);
    }
  }
}

// Many query rows: scores = Q K^T and sum += P V as tiles over panels of the cache block.
template <class T>
void attend_many(const AttendArgs& a, int64_t rows, const float* q, float* scores, float* panel,
                 int64_t begin, int64_t count, const AttendState& state) {
  const int64_t k_bytes = a.k_stride * T::kBytes;
  const int64_t v_bytes = a.v_stride * T::kBytes;
  WeightRows keys{a.f16 ? DType::kF16 : DType::kF32, nullptr, k_bytes, 0};
  for (int64_t s = 0; s < count; s += kNr) {
    keys.data = a.k + (begin + s) * k_bytes;
    keys.rows = min_of(kNr, count - s);
    pack_panel(keys, 0, a.head_dim, panel);
    for (int64_t row = 0; row < rows; row += kMr) {
      tile_rows<1>(min_of(kMr, rows - row), q + row * a.head_dim, a.head_dim, panel, a.head_dim, keys.rows,
                   false, nullptr, scores + row * kAttendBlock + s, kAttendBlock);
    }
  }
  for (int64_t row = 0; row < rows; ++row) {
    weights_of(a, scores + row * kAttendBlock, count, row, begin, state);
  }
  for (int64_t d = 0; d < a.head_dim; d += kNr) {
    for (int64_t s = 0; s < count; ++s) {
      const std::byte* v = a.v + (begin + s) * v_bytes + d * T::kBytes;
      for (int64_t j = 0; j < kNr; j += kW) {
        const int64_t some = min_of(kW, a.head_dim - d - j);
        V::store(panel + s * kNr + j, some > 0 ? load_plain<T>(v + j * T::kBytes, some) : V::zero());
      }
    }
    for (int64_t row = 0; row < rows; row += kMr) {
      tile_rows<1>(min_of(kMr, rows - row), scores + row * kAttendBlock, kAttendBlock, panel, count, kNr,
                   true, nullptr, state.sum + row * state.sum_stride + d, state.sum_stride);
    }
  }
}

void attend(const AttendArgs& a) {
  const int64_t rows = a.tokens * a.group;
  // Scratch: Q [rows, head_dim], scores [rows, block], sums [rows, padded head_dim], a panel.
  float* q = a.scratch;
  float* scores = q + kAttendRows * a.head_dim;
  AttendState state{};
  state.sum_stride = (a.head_dim + kNr - 1) / kNr * kNr;
  state.top = scores + kAttendRows * kAttendBlock;
  state.total = state.top + kAttendRows;
  state.sum = state.total + kAttendRows;
  float* panel = state.sum + kAttendRows * state.sum_stride;
  const int64_t element = a.f16 ? F16::kBytes : F32::kBytes;
  for (int64_t s = 0; rows <= kFewRows && s < min_of(kAttendBlock, a.cache_end - a.cache_begin); ++s) {
    prefetch_row(a.k + (a.cache_begin + s) * a.k_stride * element, a.head_dim * element);
  }
  for (int64_t row = 0; row < rows; ++row) {
    const float* from = a.q + row / a.group * a.q_stride + row % a.group * a.head_dim;
    for (int64_t d = 0; d < a.head_dim; ++d) {
      q[row * a.head_dim + d] = from[d] * a.scale;
    }
    state.top[row] = kNone;
    state.total[row] = 0.0f;
    for (int64_t d = 0; d < state.sum_stride; ++d) {
      state.sum[row * state.sum_stride + d] = 0.0f;
    }
  }
  for (int64_t begin = a.cache_begin; begin < a.cache_end; begin += kAttendBlock) {
    const int64_t count = min_of(kAttendBlock, a.cache_end - begin);
    if (rows <= kFewRows) {
      a.f16 ? attend_few<F16>(a, rows, q, scores, begin, count, state)
            : attend_few<F32>(a, rows, q, scores, begin, count, state);
    } else {
      a.f16 ? attend_many<F16>(a, rows, q, scores, panel, begin, count, state)
            : attend_many<F32>(a, rows, q, scores, panel, begin, count, state);
    }
  }
  for (int64_t row = 0; row < rows; ++row) {
    const float* sum = state.sum + row * state.sum_stride;
    if (a.partial != nullptr) {
      float* to = a.partial + row * (a.head_dim + 2);
      __builtin_memcpy(to, sum, static_cast<size_t>(a.head_dim) * sizeof(float));
      to[a.head_dim] = state.top[row];
      to[a.head_dim + 1] = state.total[row];
    } else {
      float* to = a.out + row / a.group * a.out_stride + row % a.group * a.head_dim;
      const float scale = 1.0f / state.total[row];
      for (int64_t d = 0; d < a.head_dim; ++d) {
        to[d] = sum[d] * scale;
      }
    }
  }
}

void merge_partials(const float* partial, int64_t parts, int64_t part_stride, int64_t head_dim, float* out) {
  float top = kNone;
  for (int64_t p = 0; p < parts; ++p) {
    const float t = partial[p * part_stride + head_dim];
    top = t > top ? t : top;
  }
  float total = 0.0f;
  for (int64_t d = 0; d < head_dim; ++d) {
    out[d] = 0.0f;
  }
  for (int64_t p = 0; p < parts; ++p) {
    const float* part = partial + p * part_stride;
    float weight[kW];
    V::store(weight, exp_of(V::set(part[head_dim] - top)));
    total += weight[0] * part[head_dim + 1];
    for (int64_t d = 0; d < head_dim; ++d) {
      out[d] += weight[0] * part[d];
    }
  }
  const float scale = 1.0f / total;
  for (int64_t d = 0; d < head_dim; ++d) {
    out[d] *= scale;
  }
}
