// Portable, an I: kPortableLanes rows side by side, one number at a time, for every machine, and for tests of
// what builds on other levels' panels.

struct Portable {
  static constexpr int kLanes = kPortableLanes;
  static constexpr int kVectors = 2;
  static constexpr int kTile = 4;
  static constexpr int kDecodedBlocks = 16;
  static constexpr int kSignedZero = 128;
  struct Ints {
    uint8_t bytes[4 * kLanes];  // as loaded
    int32_t sums[kLanes];
  };
  struct Floats {
    float lanes[kLanes];
  };

  HETERO_KERNEL Ints load(const std::byte* p) {
    Ints a = {};
    __builtin_memcpy(a.bytes, p, sizeof(a.bytes));
    return a;
  }
  HETERO_KERNEL Ints low(Ints a) {
    for (uint8_t& b : a.bytes) {
      b = b & 15;
    }
    return a;
  }
  HETERO_KERNEL Ints high(Ints a) {
    for (uint8_t& b : a.bytes) {
      b = static_cast<uint8_t>(b >> 4);
    }
    return a;
  }
  HETERO_KERNEL Ints add_bits(Ints numbers, const Ints& bits, int shift, int mask) {
    for (int i = 0; i < 4 * kLanes; ++i) {
      const int moved = shift >= 0 ? bits.bytes[i] << shift : bits.bytes[i] >> -shift;
      numbers.bytes[i] = static_cast<uint8_t>(numbers.bytes[i] | (moved & mask));
    }
    return numbers;
  }
  HETERO_KERNEL Ints look_up(const int8_t* values, Ints indices) {
    for (uint8_t& b : indices.bytes) {
      b = static_cast<uint8_t>(values[b] + kSignedZero);
    }
    return indices;
  }
  HETERO_KERNEL Ints broadcast(const int8_t* p) {
    Ints a = {};
    for (int i = 0; i < 4 * kLanes; ++i) {
      a.bytes[i] = static_cast<uint8_t>(p[i % 4]);
    }
    return a;
  }
  HETERO_KERNEL Ints zero() { return {}; }
  HETERO_KERNEL Ints dot(Ints sum, const Ints& w, const Ints& x) {
    for (int i = 0; i < 4 * kLanes; ++i) {
      sum.sums[i / 4] += w.bytes[i] * static_cast<int8_t>(x.bytes[i]);
    }
    return sum;
  }
  HETERO_KERNEL Ints total(Ints sum) { return sum; }
  HETERO_KERNEL Ints dot_small(Ints sum, const Ints& w, const Ints& x) { return dot(sum, w, x); }
  HETERO_KERNEL Ints dot_signed(Ints sum, const Ints& w, const Ints& x) { return dot(sum, w, x); }
  HETERO_KERNEL Ints subtract(Ints a, int32_t b) {
    for (int32_t& s : a.sums) {
      s -= b;
    }
    return a;
  }
  template <class F>
  HETERO_KERNEL Floats each(const F& f) {
    Floats r;
    for (int l = 0; l < kLanes; ++l) {
      r.lanes[l] = f(l);
    }
    return r;
  }
  HETERO_KERNEL Floats to_floats(const Ints& a) {
    return each([&](int l) { return static_cast<float>(a.sums[l]); });
  }
  HETERO_KERNEL Floats load_f16(const std::byte* p) {
    return each([&](int l) { return V::f16(p + 2 * l); });
  }
  HETERO_KERNEL Floats load_u8(const std::byte* p) {
    return each([&](int l) { return static_cast<float>(p[l]); });
  }
  HETERO_KERNEL Floats load_u4(const std::byte* p, int shift) {
    return each([&](int l) { return static_cast<float>(static_cast<int>(p[l]) >> shift & 15); });
  }
  HETERO_KERNEL Floats load_i8(const std::byte* p) {
    return each([&](int l) { return static_cast<float>(static_cast<int8_t>(p[l])); });
  }
  HETERO_KERNEL Floats set(float x) {
    return each([&](int) { return x; });
  }
  HETERO_KERNEL Floats mul(const Floats& a, const Floats& b) {
    return each([&](int l) { return a.lanes[l] * b.lanes[l]; });
  }
  HETERO_KERNEL Floats fma(const Floats& a, const Floats& b, const Floats& c) {
    return each([&](int l) { return a.lanes[l] * b.lanes[l] + c.lanes[l]; });
  }
  HETERO_KERNEL void settle(Ints&) {}
  HETERO_KERNEL void settle_memory() {}
  HETERO_KERNEL Floats load_floats(const float* p) {
    return each([&](int l) { return p[l]; });
  }
  HETERO_KERNEL void store_ints(std::byte* p, const Ints& a) {
    __builtin_memcpy(p, a.bytes, sizeof(a.bytes));
  }
  HETERO_KERNEL void store(float* p, const Floats& a) { __builtin_memcpy(p, a.lanes, sizeof(a.lanes)); }
};
