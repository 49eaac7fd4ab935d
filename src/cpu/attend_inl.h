// Attention, written over V as kernels_inl.h describes, after kernels_inl.h and rows_inl.h. Online softmax
// (Milakov and Gimelshein, arXiv 1805.02867) over blocks of the cache: each query row keeps its largest score
// so far, the sum of weights and the weighted sum of v, and rescales them when a larger score appears.

constexpr float kNone = -1e30f;  // below every score
// Scores are kept times log2 e, so that weights are powers of two: queries take over the factor with the
// scale, unless a cap is between.
constexpr float kLog2E = 1.44269504f;

// 2^x in f32 to about two units in the last place, for x that is not far above 0: 2^x = 2^n 2^r, |r| <= 1/2,
// and the polynomial 1 + r p(r) of degree 6 whose relative error is least (2^-28). Saturates below -126; NaN
// stays NaN.
HETERO_KERNEL Reg exp2_of(Reg x) {
  x = V::max(V::set(-126.0f), x);
  const Reg n = V::round(x);
  const Reg r = V::sub(x, n);
  Reg p = V::set(0x1.470b4ap-13f);
  p = V::fma(p, r, V::set(0x1.5f7276p-10f));
  p = V::fma(p, r, V::set(0x1.3b270ep-7f));
  p = V::fma(p, r, V::set(0x1.c6ae72p-5f));
  p = V::fma(p, r, V::set(0x1.ebfbe2p-3f));
  p = V::fma(p, r, V::set(0x1.62e432p-1f));
  p = V::fma(p, r, V::set(1.0f));
  return V::times_exp2(p, n);
}

// Caches of plain types are read as F32 and F16 (kernels_inl.h) have it, caches in blocks as Q8_0.
template <class T>
constexpr bool kInBlocks = requires {
  T::kElements;
};

// Numbers of blocks, without their scale.
struct Numbers8 {
  static constexpr int kBytes = 1;
  HETERO_KERNEL Reg load(const std::byte* p) { return V::load_i8(reinterpret_cast<const int8_t*>(p)); }
};

// Bytes of the first `count` elements of a row; with blocks, a multiple of theirs.
template <class T>
HETERO_KERNEL int64_t row_part_bytes(int64_t count) {
  return kInBlocks<T> ? count / 32 * T::kBytes : count * T::kBytes;
}

// Elements d .. of a row; `some`, where there are fewer than kW of them. kW divides a block.
template <class T>
HETERO_KERNEL Reg load_of_row(const std::byte* row, int64_t d, int64_t some) {
  if constexpr (kInBlocks<T>) {
    const std::byte* block = row + d / 32 * T::kBytes;
    return V::mul(T::scale(block), Numbers8::load(block + 2 + d % 32));
  } else {
    return load_plain<T>(row + d * T::kBytes, some);
  }
}

struct AttendState {
  float* top;    // [rows]
  float* total;  // [rows]
  float* token;  // [rows]: which token the row is of
  float* sum;    // [rows][sum_stride]
  int64_t sum_stride;
};

// Rows [begin, end) of a block of the cache.
struct Keys {
  int64_t begin, end;
};

// What any of the query rows first .. last sees of a block.
HETERO_KERNEL Keys seen_by_any(const AttendArgs& a, const AttendState& state, int64_t first, int64_t last,
                               int64_t begin, int64_t count) {
  const int64_t next = a.position + 1 - begin;
  const int64_t end = max_of(0, min_of(count, next + static_cast<int64_t>(state.token[last])));
  const int64_t start = a.window == 0 ? 0 : next + static_cast<int64_t>(state.token[first]) - a.window;
  return {max_of(0, min_of(start, end)), end};
}

// The score that a product stands for.
HETERO_KERNEL Reg score_of(const AttendArgs& a, Reg product) {
  return a.cap > 0.0f ? V::mul(capped(product, a.cap), V::set(kLog2E)) : product;
}

// kNone for lanes of the vector at j that are not in [first, seen), infinite for the others.
HETERO_KERNEL Reg bound_of(int64_t j, int64_t first, int64_t seen) {
  struct Bounds {
    float lanes[3 * kW];
  };
  static constexpr Bounds kBounds = [] {
    Bounds bounds{};
    for (int i = 0; i < 3 * kW; ++i) {
      bounds.lanes[i] = i / kW == 1 ? __builtin_inff() : kNone;
    }
    return bounds;
  }();
  const float* inside = kBounds.lanes + kW;
  const Reg begin = V::load(inside - (first > j ? min_of(kW, first - j) : 0));
  return V::min(begin, V::load(inside + kW - min_of(kW, seen - j)));
}

// Scores of one query row against cache rows [begin, begin + count) -> weights; zero where the row
// does not look. Vectors may end past `count`, not past the block.
HETERO_KERNEL void weights_of(const AttendArgs& a, float* scores, int64_t count, int64_t row, int64_t begin,
                              const AttendState& state) {
  const auto [first, seen] = seen_by_any(a, state, row, row, begin, count);
  const auto partly = [&](int64_t j) { return j < first || j + kW > seen; };
  const float before = state.top[row];
  Reg most = V::set(before);
  for (int64_t j = 0; j < seen; j += kW) {
    Reg s = V::load(scores + j);
    if (a.cap > 0.0f || partly(j)) {
      s = score_of(a, s);
      s = partly(j) ? V::min(s, bound_of(j, first, seen)) : s;
      V::store(scores + j, s);
    }
    most = V::max(most, s);
  }
  const float top = V::largest(most);
  if (top != before) {
    float rescale[kW];
    V::store(rescale, exp2_of(V::set(before - top)));
    float* sum = state.sum + row * state.sum_stride;
    for (int64_t d = 0; d < state.sum_stride; d += kW) {
      V::store(sum + d, V::mul(V::load(sum + d), V::set(rescale[0])));
    }
    state.top[row] = top;
    state.total[row] *= rescale[0];
  }
  Reg total = V::zero();
  int64_t j = 0;
  for (; j < seen; j += kW) {
    Reg e = exp2_of(V::sub(V::load(scores + j), V::set(top)));
    if (partly(j)) {
      e = V::min(e, V::max(V::zero(), bound_of(j, first, seen)));
    }
    total = V::add(total, e);
    V::store(scores + j, e);
  }
  for (; j < count; ++j) {
    scores[j] = 0.0f;
  }
  state.total[row] += V::sum(total);
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
  if constexpr (kInBlocks<T>) {
    for (int64_t d = 0; d < head_dim; d += 32, k += T::kBytes) {
      for (int s = 0; s < S; ++s) {
        const std::byte* block = k + s * k_bytes;
        const Reg scale = T::scale(block);
        for (int j = 0; j < 32; j += kW) {
          const Reg ks = V::mul(scale, Numbers8::load(block + 2 + j));
          for (int g = 0; g < G; ++g) {
            acc[g][s] = V::fma(ks, V::load(q + g * head_dim + d + j), acc[g][s]);
          }
        }
      }
    }
  } else {
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

// The same for blocks, one column of blocks after the other: the weights take over the blocks' scales.
template <class T, int G>
HETERO_KERNEL void weigh_blocks(const float* weights, const std::byte* v, int64_t v_bytes, int64_t count,
                                int64_t head_dim, float* sum, int64_t sum_stride) {
  constexpr int kMost = G == 4 ? 2 : 4;
  constexpr int kTogether = kMost < kPieces ? kMost : kPieces;
  float scales[kAttendBlock] = {};
  float scaled[G * kAttendBlock];
  for (int64_t d = 0; d < head_dim; d += 32, v += T::kBytes, sum += 32) {
    for (int64_t s = 0; s < count; ++s) {
      scales[s] = V::f16(v + s * v_bytes);
    }
    for (int g = 0; g < G; ++g) {
      for (int64_t s = 0; s < count; s += kW) {
        float* to = scaled + g * kAttendBlock + s;
        V::store(to, V::mul(V::load(weights + g * kAttendBlock + s), V::load(scales + s)));
      }
    }
    for (int64_t j = 0; j < 32; j += kTogether * kW) {
      weigh_some<Numbers8, G, kTogether>(scaled, v + 2, v_bytes, count, j, 32, sum, sum_stride);
    }
  }
}

// head_dim is walked outside, so that sums stay in registers: as many as hide the latency of sums.
template <class T, int G>
HETERO_KERNEL void weigh_values(const float* weights, const std::byte* v, int64_t v_bytes, int64_t count,
                                int64_t head_dim, float* sum, int64_t sum_stride) {
  if constexpr (kInBlocks<T>) {
    weigh_blocks<T, G>(weights, v, v_bytes, count, head_dim, sum, sum_stride);
  } else {
    constexpr int kTogether = G == 4 ? 2 : 4;
    int64_t d = 0;
    for (; d + kTogether * kW <= head_dim; d += kTogether * kW) {
      weigh_some<T, G, kTogether>(weights, v, v_bytes, count, d, head_dim, sum, sum_stride);
    }
    for (; d < head_dim; d += kW) {
      weigh_some<T, G, 1>(weights, v, v_bytes, count, d, head_dim, sum, sum_stride);
    }
  }
}

template <class T, int G>
void attend_group(const AttendArgs& a, const float* q, float* scores, int64_t row, int64_t begin,
                  int64_t count, const AttendState& state) {
  const int64_t k_bytes = a.k_bytes;
  const int64_t v_bytes = a.v_bytes;
  const std::byte* k = a.k + begin * k_bytes;
  constexpr int kTogether = G <= 3 ? 4 : 2;
  int64_t s = 0;
  const std::byte* v = a.v + begin * v_bytes;
  const int64_t head_bytes = row_part_bytes<T>(a.head_dim);
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

// Scores of kW query rows, from `row` on, in lanes: [key][kAttendRows] -> weights; zero where a row does not
// look. Sums are rescaled only when a score is that far above the largest before, in powers of two, which
// weights in floating point bear as well as 1: so that exponentials seldom wait for the largest score.
constexpr float kRise = 16.0f;

HETERO_KERNEL void weights_of_lanes(const AttendArgs& a, float* scores, int64_t count, int64_t row,
                                    int64_t begin, const AttendState& state) {
  const int64_t last = row + kW - 1;
  const Keys any = seen_by_any(a, state, row, last, begin, count);
  const Keys all = {seen_by_any(a, state, last, last, begin, count).begin,
                    seen_by_any(a, state, row, row, begin, count).end};
  const auto partly = [&](int64_t key) { return key < all.begin || key >= all.end; };
  // -infinity for lanes that do not see the key, infinity for the others.
  const auto bound = [&](int64_t key) {
    const float from_first = static_cast<float>(a.position + 1 - begin - key) - 0.5f;  // never 0
    Reg inside = V::add(V::load(state.token + row), V::set(from_first));
    if (a.window > 0) {
      inside = V::min(inside, V::sub(V::set(static_cast<float>(a.window)), inside));
    }
    return V::mul(inside, V::set(__builtin_inff()));
  };
  const Reg before = V::load(state.top + row);
  Reg most = before;
  for (int64_t key = any.begin; key < any.end; ++key) {
    float* const at = scores + key * kAttendRows;
    Reg s = V::load(at);
    if (a.cap > 0.0f || partly(key)) {
      s = score_of(a, s);
      s = partly(key) ? V::min(s, bound(key)) : s;
      V::store(at, s);
    }
    most = V::max(s, most);
  }
  if (V::largest(V::sub(most, before)) > kRise) {
    float rescale[kW];
    V::store(rescale, exp2_of(V::sub(before, most)));
    for (int i = 0; i < kW; ++i) {
      state.total[row + i] *= rescale[i];
      float* sum = state.sum + (row + i) * state.sum_stride;
      for (int64_t d = 0; d < state.sum_stride; d += kW) {
        V::store(sum + d, V::mul(V::load(sum + d), V::set(rescale[i])));
      }
    }
    V::store(state.top + row, most);
  }
  const Reg top = V::load(state.top + row);
  Reg total = V::load(state.total + row);
  for (int64_t key = 0; key < any.begin; ++key) {
    V::store(scores + key * kAttendRows, V::zero());
  }
  for (int64_t key = any.begin; key < any.end; ++key) {
    float* const at = scores + key * kAttendRows;
    Reg e = exp2_of(V::sub(V::load(at), top));
    if (partly(key)) {
      e = V::min(e, V::max(V::zero(), bound(key)));
    }
    total = V::add(total, e);
    V::store(at, e);
  }
  for (int64_t key = any.end; key < count; ++key) {
    V::store(scores + key * kAttendRows, V::zero());
  }
  V::store(state.total + row, total);
}

// `count` rows of a cache as floats: element d of row s goes to s * to_row + d / kNr * to_panel + d % kNr.
template <class T>
HETERO_KERNEL void widen(const std::byte* rows, int64_t row_bytes, int64_t count, int64_t head_dim, float* to,
                         int64_t to_row, int64_t to_panel) {
  for (int64_t s = 0; s < count; ++s, rows += row_bytes) {
    float* panel = to + s * to_row;
    int64_t d = 0;
    for (; d + kNr <= head_dim; d += kNr, panel += to_panel) {
      V::store(panel, load_of_row<T>(rows, d, kW));
      V::store(panel + kW, load_of_row<T>(rows, d + kW, kW));
    }
    for (; d < head_dim; d += kNr) {
      const int64_t some = head_dim - d;
      V::store(panel, load_of_row<T>(rows, d, min_of(kW, some)));
      V::store(panel + kW, some > kW ? load_of_row<T>(rows, d + kW, some - kW) : V::zero());
    }
  }
}

// Calls f(row, token, head of the group) for the query rows.
template <class F>
HETERO_KERNEL void each_row(const AttendArgs& a, const F& f) {
  int64_t row = 0;
  for (int64_t token = 0; token < a.tokens; ++token) {
    for (int64_t head = 0; head < a.group; ++head, ++row) {
      f(row, token, head);
    }
  }
}

// Where the result of a query row goes.
HETERO_KERNEL float* out_of(const AttendArgs& a, const AttendState& state, int64_t row) {
  const auto token = static_cast<int64_t>(state.token[row]);
  return a.out + token * a.out_stride + (row - token * a.group) * a.head_dim;
}

// tile_rows() for the first half of a panel's columns, where that holds more than a few query rows.
template <int R = kMr>
HETERO_KERNEL void half_tile_rows(int64_t rows, const float* a, int64_t lda, const float* b, int64_t count,
                                  float* y, int64_t y_stride) {
  if constexpr (R > 1) {
    if (rows < R) {
      return half_tile_rows<R - 1>(rows, a, lda, b, count, y, y_stride);
    }
  }
  Reg acc[R];
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i) {
    acc[i] = V::zero();
  }
  for (int64_t kk = 0; kk < count; ++kk) {
    const Reg bk = V::load(b + kk * kNr);
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) {
      acc[i] = V::fma(V::set(a[i * lda + kk]), bk, acc[i]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i) {
    V::store(y + i * y_stride, acc[i]);
  }
}

// Many query rows, as tiles over the cache block in floats. Scores are K Q^T, query rows in lanes: Q is
// packed once for all blocks, and softmax goes from lane to lane nowhere.
template <class T>
void attend_many(const AttendArgs& a, int64_t rows, const float* q, float* scores, float* wide, int64_t begin,
                 int64_t count, const AttendState& state) {
  const int64_t padded = state.sum_stride;
  widen<T>(a.k + begin * a.k_bytes, a.k_bytes, count, a.head_dim, wide, padded, kNr);
  for (int64_t row = 0; row < rows; row += kNr) {
    const Keys keys = seen_by_any(a, state, row, row + kNr - 1, begin, count);
    for (int64_t s = keys.begin; s < keys.end; s += kMr) {
      if constexpr (kW > kFewRows) {
        if (rows - row <= kW) {
          half_tile_rows(min_of(kMr, keys.end - s), wide + s * padded, padded, q + row * a.head_dim,
                         a.head_dim, scores + s * kAttendRows + row, kAttendRows);
          continue;
        }
      }
      tile_rows<1>(min_of(kMr, keys.end - s), wide + s * padded, padded, q + row * a.head_dim, a.head_dim,
                   kNr, false, nullptr, scores + s * kAttendRows + row, kAttendRows);
    }
    for (int64_t r = row; r < min_of(rows, row + kNr); r += kW) {
      weights_of_lanes(a, scores + r, count, r, begin, state);
    }
  }
  widen<T>(a.v + begin * a.v_bytes, a.v_bytes, count, a.head_dim, wide, kNr, count * kNr);
  for (int64_t d = 0; d < a.head_dim; d += kNr) {
    for (int64_t row = 0; row < rows; row += kMr) {
      const int64_t some = min_of(kMr, rows - row);
      for (int64_t r = row; begin + count == a.cache_end && a.partial == nullptr && r < row + some; ++r) {
        prefetch_row(reinterpret_cast<const std::byte*>(out_of(a, state, r) + d),
                     min_of(kNr, a.head_dim - d) * F32::kBytes);
      }
      const Keys keys = seen_by_any(a, state, row, row + some - 1, begin, count);
      tile_rows<kAttendRows>(some, scores + keys.begin * kAttendRows + row, 0,
                             wide + d * count + keys.begin * kNr, keys.end - keys.begin, kNr, true, nullptr,
                             state.sum + row * padded + d, padded);
    }
  }
}

template <class T>
void attend_to(const AttendArgs& a) {
  const int64_t rows = a.tokens * a.group;
  const bool few = rows <= kFewRows;
  // Scratch: Q [rows, head_dim], for many rows in panels; scores of a block, sums [rows, padded head_dim],
  // and for many rows a block of K or V.
  float* q = a.scratch;
  float* scores = q + kAttendRows * a.head_dim;
  AttendState state{};
  state.sum_stride = (a.head_dim + kNr - 1) / kNr * kNr;
  state.top = scores + kAttendRows * kAttendBlock;
  state.total = state.top + kAttendRows;
  state.token = state.total + kAttendRows;
  state.sum = state.token + kAttendRows;
  float* wide = state.sum + kAttendRows * state.sum_stride;
  float* q_rows = few ? q : wide;
  const float q_scale = a.cap > 0.0f ? a.scale : a.scale * kLog2E;
  for (int64_t s = 0; few && s < min_of(kAttendBlock, a.cache_end - a.cache_begin); ++s) {
    prefetch_row(a.k + (a.cache_begin + s) * a.k_bytes, row_part_bytes<T>(a.head_dim));
  }
  each_row(a, [&](int64_t row, int64_t token, int64_t head) {
    const float* from = a.q + token * a.q_stride + head * a.head_dim;
    for (int64_t d = 0; d < a.head_dim; ++d) {
      q_rows[row * a.head_dim + d] = from[d] * q_scale;
    }
    state.token[row] = static_cast<float>(token);
  });
  const int64_t lanes = few ? rows : (rows + kNr - 1) / kNr * kNr;  // those past `rows` repeat the last token
  for (int64_t row = 0; row < lanes; ++row) {
    state.top[row] = kNone;
    state.total[row] = 0.0f;
    state.token[row] = state.token[min_of(row, rows - 1)];
    for (int64_t d = 0; d < state.sum_stride; d += kW) {
      V::store(state.sum + row * state.sum_stride + d, V::zero());
    }
  }
  for (int64_t row = 0; !few && row < rows; row += kNr) {
    const auto* from = reinterpret_cast<const std::byte*>(q_rows + row * a.head_dim);
    pack_panel({DType::kF32, from, a.head_dim * F32::kBytes, min_of(kNr, rows - row)}, 0, a.head_dim,
               q + row * a.head_dim);
  }
  for (int64_t begin = a.cache_begin; begin < a.cache_end; begin += kAttendBlock) {
    const int64_t count = min_of(kAttendBlock, a.cache_end - begin);
    few ? attend_few<T>(a, rows, q, scores, begin, count, state)
        : attend_many<T>(a, rows, q, scores, wide, begin, count, state);
  }
  each_row(a, [&](int64_t row, int64_t token, int64_t head) {
    const float* sum = state.sum + row * state.sum_stride;
    if (a.partial != nullptr) {
      float* to = a.partial + row * (a.head_dim + 2);
      __builtin_memcpy(to, sum, static_cast<size_t>(a.head_dim) * sizeof(float));
      to[a.head_dim] = state.top[row];
      to[a.head_dim + 1] = state.total[row];
    } else {
      float* to = a.out + token * a.out_stride + head * a.head_dim;
      const float scale = 1.0f / state.total[row];
      for (int64_t d = 0; d < a.head_dim; ++d) {
        to[d] = sum[d] * scale;
      }
    }
  });
}

void attend(const AttendArgs& a) {
  switch (a.cache) {
    case DType::kF32:
      return attend_to<F32>(a);
    case DType::kQ8_0:
      return attend_to<Q8_0>(a);
    default:
      attend_to<F16>(a);
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
    V::store(weight, exp2_of(V::set(part[head_dim] - top)));
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
