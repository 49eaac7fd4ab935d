// The kernels, written once over a vector type. Each level's .cc defines `V` (and, where the
// instruction set has something better, its own packing) in an anonymous namespace and includes
// this file inside of it. Nothing here may be inline with external linkage, nor instantiate
// templates of the standard library: the linker would keep one copy for all levels, and a machine
// without AVX2 could run the one compiled for AVX2.
//
// V provides: Reg, kWidth, zero, set, load, store, load_f16, store_f16, load_bf16, add, sub, mul,
// div, fma(a, b, c) = a * b + c, min and max (the second operand where one is NaN), sum, largest,
// sum_of_four, largest_of_four, times_exp2(a, n) = a * 2^n for integral n, round, f16(bytes) and
// load_i8(bytes) to floats, and, for block formats, q4(bytes, Reg[32 / kWidth]), q8(bytes, ...) giving the
// stored integers of 32 elements, and Numbers, 32 integers of 8 bits: nibbles(bytes), the low ones of 16
// bytes, then the high ones; look_up(sixteen values, Numbers), add_fifth_bits(Numbers, 4 bytes),
// store_numbers(int8_t[32], Numbers) and to_floats(Numbers, Reg[32 / kWidth]).

#include "cpu/vector_inl.h"

constexpr int kNr = 2 * kW;

// Part of a vector: the rest reads as zero and is not written.
HETERO_KERNEL Reg load_part(const float* p, int64_t count) {
  float full[kW] = {};
  for (int64_t i = 0; i < count; ++i) {
    full[i] = p[i];
  }
  return V::load(full);
}
HETERO_KERNEL void store_part(float* p, int64_t count, Reg r) {
  float full[kW];
  V::store(full, r);
  for (int64_t i = 0; i < count; ++i) {
    p[i] = full[i];
  }
}

// Plain types: load W elements, or fewer.
struct F32 {
  static constexpr int kBytes = 4;
  HETERO_KERNEL Reg load(const std::byte* p) { return V::load_bytes(p); }
};
struct F16 {
  static constexpr int kBytes = 2;
  HETERO_KERNEL Reg load(const std::byte* p) { return V::load_f16(p); }
};
struct BF16 {
  static constexpr int kBytes = 2;
  HETERO_KERNEL Reg load(const std::byte* p) { return V::load_bf16(p); }
};
template <class T>
HETERO_KERNEL Reg load_plain(const std::byte* p, int64_t count) {
  if (count >= kW) {
    return T::load(p);
  }
  alignas(64) std::byte full[kW * T::kBytes] = {};
  __builtin_memcpy(full, p, static_cast<size_t>(count * T::kBytes));
  return T::load(full);
}

// Bytes of `count` elements; a multiple of the block for block formats.
HETERO_KERNEL int64_t bytes_of(DType dtype, int64_t count) {
  switch (dtype) {
    case DType::kF32:
      return count * F32::kBytes;
    case DType::kF16:
    case DType::kBF16:
      return count * F16::kBytes;
    default: {
      int64_t bytes = 0;  // 0: refused by Processor::supports()
      with_format(dtype, [&]<class B>() { bytes = count / B::kElements * B::kBytes; });
      return bytes;
    }
  }
}

template <class B>
void decode_blocks(const std::byte* src, int64_t count, float scale, float* dst) {
  Unpacked u;
  for (int64_t at = 0; at < count; at += B::kElements, src += B::kBytes) {
    B::unpack(src, u);
    for (int i = 0; i < B::kElements; i += kW) {
      const Reg w = V::fma(V::load_i8(u.q + i), V::set(u.scale[i / 16]), V::set(u.offset[i / 16]));
      V::store(dst + at + i, V::mul(w, V::set(scale)));
    }
  }
}
template <class T>
void decode_plain(const std::byte* src, int64_t count, float scale, float* dst) {
  for (int64_t at = 0; at < count; at += kW) {
    const int64_t some = min_of(kW, count - at);
    const Reg w = V::mul(load_plain<T>(src + at * T::kBytes, some), V::set(scale));
    some == kW ? V::store(dst + at, w) : store_part(dst + at, some, w);
  }
}

void decode(DType dtype, const std::byte* src, int64_t count, float scale, float* dst) {
  switch (dtype) {
    case DType::kF32:
      return decode_plain<F32>(src, count, scale, dst);
    case DType::kF16:
      return decode_plain<F16>(src, count, scale, dst);
    case DType::kBF16:
      return decode_plain<BF16>(src, count, scale, dst);
    default:
      with_format(dtype, [&]<class B>() { decode_blocks<B>(src, count, scale, dst); });
  }
}

// ---- Few rows: weights stream by once, decoded in registers ------------------------------------

// R weight rows times M activation rows. Within a block, sum(q * x) starts at shift * sum(x), so
// that a format's constant shift costs nothing per weight row.
template <class B, int M, int R>
HETERO_KERNEL void dot_blocks(const std::byte* w, int64_t row_bytes, int64_t k, const float* x,
                              int64_t x_stride, const float* bias, float* y, int64_t y_stride) {
  Reg acc[R][M];
  for (int r = 0; r < R; ++r) {
    for (int i = 0; i < M; ++i) {
      acc[r][i] = V::zero();
    }
  }
  // The next R rows, which a prefetcher of the machine would find too late if rows are short; in long rows
  // what is ahead in each.
  const int64_t ahead = R * row_bytes <= 12 * 1024 ? R * row_bytes : 1024;
  for (int64_t at = 0; at < k; at += 32, w += B::kBytes) {
    Reg start[M];
    Reg sums[M];
    for (int i = 0; i < M; ++i) {
      start[i] = V::zero();
      sums[i] = V::zero();
      if (B::kShift != 0.0f || B::kOffset) {
        const float* xi = x + i * x_stride + at;
        sums[i] = V::load(xi);
        for (int j = 1; j < kPieces; ++j) {
          sums[i] = V::add(sums[i], V::load(xi + j * kW));
        }
        start[i] = V::mul(V::set(B::kShift), sums[i]);
      }
    }
    for (int r = 0; r < R; ++r) {
      const std::byte* block = w + r * row_bytes;
      V::prefetch(block + ahead);
      Reg q[kPieces];
      B::read(block, q);
      const Reg scale = B::scale(block);
      for (int i = 0; i < M; ++i) {
        const float* xi = x + i * x_stride + at;
        Reg t = B::kShift != 0.0f ? V::fma(q[0], V::load(xi), start[i]) : V::mul(q[0], V::load(xi));
        for (int j = 1; j < kPieces; ++j) {
          t = V::fma(q[j], V::load(xi + j * kW), t);
        }
        acc[r][i] = V::fma(scale, t, acc[r][i]);
        if (B::kOffset) {
          acc[r][i] = V::fma(B::offset(block), sums[i], acc[r][i]);
        }
      }
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int i = 0; i < M; ++i) {
      y[i * y_stride + r] = V::sum(acc[r][i]) + (bias == nullptr ? 0.0f : bias[r]);
    }
  }
}

// The same for formats that are unpacked through memory first, one weight row at a time.
template <class B, int M>
void dot_unpacked(const std::byte* w, int64_t k, const float* x, int64_t x_stride, const float* bias,
                  float* y, int64_t y_stride) {
  // Two sums of each, as an addition would wait for the one before; as many for every M, so that a row's
  // result does not depend on its company.
  Reg acc[M][2];
  for (int i = 0; i < M; ++i) {
    acc[i][0] = V::zero();
    acc[i][1] = V::zero();
  }
  Unpacked u;
  for (int64_t at = 0; at < k; at += B::kElements, w += B::kBytes) {
    V::prefetch(w + 1024);
    B::unpack(w, u);
    for (int pair = 0; pair < B::kElements; pair += 2 * kW) {
      for (int c = 0; c < 2; ++c) {
        const int j = pair + c * kW;
        const Reg q = V::fma(V::load_i8(u.q + j), V::set(u.scale[j / 16]), V::set(u.offset[j / 16]));
        for (int i = 0; i < M; ++i) {
          acc[i][c] = V::fma(q, V::load(x + i * x_stride + at + j), acc[i][c]);
        }
      }
    }
  }
  for (int i = 0; i < M; ++i) {
    y[i * y_stride] = V::sum(V::add(acc[i][0], acc[i][1])) + (bias == nullptr ? 0.0f : *bias);
  }
}

template <class T, int M, int R>
HETERO_KERNEL void dot_plain(const std::byte* w, int64_t row_bytes, int64_t k, const float* x,
                             int64_t x_stride, const float* bias, float* y, int64_t y_stride) {
  Reg acc[R][M];
  for (int r = 0; r < R; ++r) {
    for (int i = 0; i < M; ++i) {
      acc[r][i] = V::zero();
    }
  }
  int64_t at = 0;
  for (; at + kW <= k; at += kW) {
    for (int r = 0; r < R; ++r) {
      const Reg q = T::load(w + r * row_bytes + at * T::kBytes);
      for (int i = 0; i < M; ++i) {
        acc[r][i] = V::fma(q, V::load(x + i * x_stride + at), acc[r][i]);
      }
    }
  }
  if (at < k) {
    for (int r = 0; r < R; ++r) {
      const Reg q = load_plain<T>(w + r * row_bytes + at * T::kBytes, k - at);
      for (int i = 0; i < M; ++i) {
        acc[r][i] = V::fma(q, load_part(x + i * x_stride + at, k - at), acc[r][i]);
      }
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int i = 0; i < M; ++i) {
      y[i * y_stride + r] = V::sum(acc[r][i]) + (bias == nullptr ? 0.0f : bias[r]);
    }
  }
}

template <class B, int M, int R>
HETERO_KERNEL void dots(const std::byte* w, int64_t row_bytes, int64_t k, const float* x, int64_t x_stride,
                        const float* bias, float* y, int64_t y_stride) {
  if constexpr (requires { B::kShift; }) {
    dot_blocks<B, M, R>(w, row_bytes, k, x, x_stride, bias, y, y_stride);
  } else if constexpr (requires { B::kElements; }) {
    for (int r = 0; r < R; ++r) {
      dot_unpacked<B, M>(w + r * row_bytes, k, x, x_stride, bias == nullptr ? nullptr : bias + r, y + r,
                         y_stride);
    }
  } else {
    dot_plain<B, M, R>(w, row_bytes, k, x, x_stride, bias, y, y_stride);
  }
}

template <class B, int M>
void gemv_rows(const WeightRows& w, int64_t k, const float* x, int64_t x_stride, const float* bias, float* y,
               int64_t y_stride) {
  constexpr int kRows = M <= 2 ? 4 : 2;
  const std::byte* row = w.data;
  int64_t r = 0;
  const auto bias_at = [&] { return bias == nullptr ? nullptr : bias + r; };
  for (; r + kRows <= w.rows; r += kRows, row += kRows * w.row_bytes) {
    dots<B, M, kRows>(row, w.row_bytes, k, x, x_stride, bias_at(), y + r, y_stride);
  }
  for (; r < w.rows; ++r, row += w.row_bytes) {
    dots<B, M, 1>(row, w.row_bytes, k, x, x_stride, bias_at(), y + r, y_stride);
  }
}

template <class B>
void gemv_of(const WeightRows& w, int64_t k, const float* x, int64_t x_stride, int64_t m, const float* bias,
             float* y, int64_t y_stride) {
  // Rows of x in groups of up to four; a few weight rows at a time, so that the second group finds
  // them in the first-level cache.
  constexpr int64_t kStrip = 8;
  WeightRows strip = w;
  for (int64_t r = 0; r < w.rows; r += strip.rows) {
    strip.data = w.data + r * w.row_bytes;
    strip.rows = m <= 4 ? w.rows : min_of(kStrip, w.rows - r);
    const float* b = bias == nullptr ? nullptr : bias + r;
    for (int64_t i = 0; i < m; i += 4) {
      const float* xi = x + i * x_stride;
      float* yi = y + i * y_stride + r;
      switch (min_of(4, m - i)) {
        case 1:
          gemv_rows<B, 1>(strip, k, xi, x_stride, b, yi, y_stride);
          break;
        case 2:
          gemv_rows<B, 2>(strip, k, xi, x_stride, b, yi, y_stride);
          break;
        case 3:
          gemv_rows<B, 3>(strip, k, xi, x_stride, b, yi, y_stride);
          break;
        default:
          gemv_rows<B, 4>(strip, k, xi, x_stride, b, yi, y_stride);
      }
    }
  }
}

void gemv(const WeightRows& w, int64_t k, const float* x, int64_t x_stride, int64_t m, const float* bias,
          float* y, int64_t y_stride) {
  switch (w.dtype) {
    case DType::kF32:
      return gemv_of<F32>(w, k, x, x_stride, m, bias, y, y_stride);
    case DType::kF16:
      return gemv_of<F16>(w, k, x, x_stride, m, bias, y, y_stride);
    case DType::kBF16:
      return gemv_of<BF16>(w, k, x, x_stride, m, bias, y, y_stride);
    default:
      with_format(w.dtype, [&]<class B>() { gemv_of<B>(w, k, x, x_stride, m, bias, y, y_stride); });
  }
}

// ---- Many rows: register tiles over packed panels ----------------------------------------------

void pack_tile(const float* x, int64_t x_stride, int64_t rows, int64_t k, float* tile) {
  for (int64_t i = 0; i < kMr; ++i) {
    // Rows past the last repeat it: their products are computed and thrown away.
    const float* row = x + (i < rows ? i : rows - 1) * x_stride;
    for (int64_t kk = 0; kk < k; ++kk) {
      tile[kk * kMr + i] = row[kk];
    }
  }
}

// Each level has its own.
void pack_panel(const WeightRows& w, int64_t k_begin, int64_t count, float* panel);

// R rows times one panel. Activations are a packed tile (kStep = MR floats from one k to the next)
// or rows lda apart (kStep = 1).
template <int R, int kStep>
HETERO_KERNEL void tile(const float* a, int64_t lda, const float* b, int64_t count, int64_t cols, bool add,
                        const float* bias, float* y, int64_t y_stride) {
  Reg acc[R][2];
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i) {
    acc[i][0] = V::zero();
    acc[i][1] = V::zero();
    V::prefetch(reinterpret_cast<const std::byte*>(y + i * y_stride));
  }
  for (int64_t kk = 0; kk < count; ++kk) {
    const Reg b0 = V::load(b + kk * kNr);
    const Reg b1 = V::load(b + kk * kNr + kW);
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) {
      const Reg ai = V::set(kStep == 1 ? a[i * lda + kk] : a[kk * kStep + i]);
      acc[i][0] = V::fma(ai, b0, acc[i][0]);
      acc[i][1] = V::fma(ai, b1, acc[i][1]);
    }
  }
  if (cols == kNr) {
    if (!add && bias != nullptr) {
      const Reg bias0 = V::load(bias);
      const Reg bias1 = V::load(bias + kW);
#pragma GCC unroll 16
      for (int i = 0; i < R; ++i) {
        acc[i][0] = V::add(bias0, acc[i][0]);
        acc[i][1] = V::add(bias1, acc[i][1]);
      }
    } else if (add) {
#pragma GCC unroll 16
      for (int i = 0; i < R; ++i) {
        acc[i][0] = V::add(V::load(y + i * y_stride), acc[i][0]);
        acc[i][1] = V::add(V::load(y + i * y_stride + kW), acc[i][1]);
      }
    }
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) {
      V::store(y + i * y_stride, acc[i][0]);
      V::store(y + i * y_stride + kW, acc[i][1]);
    }
    return;
  }
  float whole[R * kNr];
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i) {
    V::store(whole + i * kNr, acc[i][0]);
    V::store(whole + i * kNr + kW, acc[i][1]);
  }
  for (int i = 0; i < R; ++i) {
    for (int64_t c = 0; c < cols; ++c) {
      const float before = add ? y[i * y_stride + c] : bias == nullptr ? 0.0f : bias[c];
      y[i * y_stride + c] = before + whole[i * kNr + c];
    }
  }
}

// Calls tile<R, kStep> for R = rows in [1, kMr].
template <int kStep, int R = kMr>
HETERO_KERNEL void tile_rows(int64_t rows, const float* a, int64_t lda, const float* b, int64_t count,
                             int64_t cols, bool add, const float* bias, float* y, int64_t y_stride) {
  if constexpr (R > 1) {
    if (rows < R) {
      return tile_rows<kStep, R - 1>(rows, a, lda, b, count, cols, add, bias, y, y_stride);
    }
  }
  tile<R, kStep>(a, lda, b, count, cols, add, bias, y, y_stride);
}

void tiles(const float* a, int64_t tile_stride, const float* panel, int64_t count, int64_t rows, int64_t cols,
           bool add, const float* bias, float* y, int64_t y_stride) {
  for (int64_t i = 0; i < rows; i += kMr, a += tile_stride, y += kMr * y_stride) {
    tile_rows<kMr>(min_of(kMr, rows - i), a, 0, panel, count, cols, add, bias, y, y_stride);
  }
}
