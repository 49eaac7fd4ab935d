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
  return V::times_exp2(p, n);
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

// `next`: from one pair to the next; `across`: from a pair's first to its second.
HETERO_KERNEL void rotate_pairs(const float* __restrict head, const float* __restrict table, int64_t pairs,
                                int64_t next, int64_t across, float* __restrict out) {
  for (int64_t i = 0; i < pairs; ++i) {
    const float a = head[i * next];
    const float b = head[i * next + across];
    out[i * next] = a * table[2 * i] - b * table[2 * i + 1];
    out[i * next + across] = a * table[2 * i + 1] + b * table[2 * i];
  }
}

void rotate(const float* head, const float* table, int64_t head_dim, int64_t rotary, bool halves,
            float* out) {
  const int64_t pairs = rotary / 2;
  // Strides that the compiler knows, so that it works on whole vectors.
  halves ? rotate_pairs(head, table, pairs, 1, pairs, out) : rotate_pairs(head, table, pairs, 2, 1, out);
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

// Blocks of Q8_0: a scale in F16, the largest magnitude over 127, and 32 numbers of 8 bits. What is not a
// number, or not finite, makes a block of NaN, as plain types would pass it on.
void to_q8_0(const float* src, int64_t count, std::byte* dst) {
  for (int64_t at = 0; at < count; at += 32, dst += Q8_0::kBytes) {
    Reg largest = V::zero();
    Reg spoiled = V::zero();  // 0 or NaN
    for (int j = 0; j < 32; j += kW) {
      const Reg r = V::load(src + at + j);
      largest = V::max(largest, V::abs(r));
      spoiled = V::fma(r, V::zero(), spoiled);
    }
    const float most = V::largest(largest);
    const float inverse = most > 0x1p-100f ? 127.0f / most : 0.0f;
    uint16_t scale[kW];
    V::store_f16(scale, V::set(most / 127.0f + V::sum(spoiled)));
    __builtin_memcpy(dst, scale, sizeof(scale[0]));
    int8_t numbers[32];
    for (int j = 0; j < 32; j += kW) {
      const Reg r = V::round(V::mul(V::load(src + at + j), V::set(inverse)));
      V::store_i8(numbers + j, V::min(r, V::set(127.0f)));  // of NaN and 127, 127
    }
    __builtin_memcpy(dst + 2, numbers, sizeof(numbers));
  }
}
