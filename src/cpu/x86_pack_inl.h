// Panels of 16 weight rows with 256-bit registers, for the levels of x86. Block formats are
// transposed as bytes, before they grow into floats: a panel's 16 columns then are 16 lanes, and
// so are their scales.

// 16 rows of 16 bytes -> 16 columns: column b is the low (b even) or high (b odd) half of lanes of
// out[b / 2]; the low lane holds rows 0..7, the high lane rows 8..15.
HETERO_KERNEL void transpose_bytes(const std::byte* const* row, __m256i* out) {
  __m256i r[8];
  for (int i = 0; i < 8; ++i) {
    const auto at = [&](int j) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(row[j])); };
    r[i] = _mm256_inserti128_si256(_mm256_castsi128_si256(at(i)), at(i + 8), 1);
  }
  __m256i s[8];
  for (int i = 0; i < 4; ++i) {  // pairs (i, i + 4), so that three steps end in order
    s[i] = _mm256_unpacklo_epi8(r[i], r[i + 4]);
    s[i + 4] = _mm256_unpackhi_epi8(r[i], r[i + 4]);
  }
  for (int half = 0; half < 2; ++half) {  // bytes 0..7, then 8..15
    const __m256i* h = s + 4 * half;
    const __m256i even[2] = {_mm256_unpacklo_epi8(h[0], h[2]), _mm256_unpackhi_epi8(h[0], h[2])};
    const __m256i odd[2] = {_mm256_unpacklo_epi8(h[1], h[3]), _mm256_unpackhi_epi8(h[1], h[3])};
    for (int i = 0; i < 2; ++i) {
      out[4 * half + 2 * i] = _mm256_unpacklo_epi8(even[i], odd[i]);
      out[4 * half + 2 * i + 1] = _mm256_unpackhi_epi8(even[i], odd[i]);
    }
  }
}

// The 16 half floats at offset `at` of each row.
HETERO_KERNEL void column_f16(const std::byte* const* row, int at, __m256* out) {
  alignas(32) uint16_t h[16];
  for (int c = 0; c < 16; ++c) {
    h[c] = read_u16(row[c] + at);
  }
  out[0] = _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(h)));
  out[1] = _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(h + 8)));
}

HETERO_KERNEL void store_scaled(float* to, __m256i q, __m256 scale, __m256 offset) {
  _mm256_storeu_ps(to, _mm256_fmadd_ps(_mm256_cvtepi32_ps(q), scale, offset));
}

// kHeader: bytes of scale (and offset) before the 16 bytes of 4-bit numbers.
template <int kHeader>
void pack_q4(const std::byte* const* rows, int64_t count, float* panel, int64_t stride) {
  constexpr int kBytes = kHeader + 16;
  const __m256i low = _mm256_set1_epi32(15);
  const std::byte* row[16];
  const std::byte* nibbles[16];
  for (int c = 0; c < 16; ++c) {
    row[c] = rows[c];
  }
  for (int64_t at = 0; at < count; at += 32) {
    __m256 scale[2];
    __m256 offset[2];
    column_f16(row, 0, scale);
    if (kHeader == 4) {
      column_f16(row, 2, offset);
    } else {  // Q4_0 stores q + 8
      offset[0] = _mm256_mul_ps(scale[0], _mm256_set1_ps(-8.0f));
      offset[1] = _mm256_mul_ps(scale[1], _mm256_set1_ps(-8.0f));
    }
    for (int c = 0; c < 16; ++c) {
      nibbles[c] = row[c] + kHeader;
      row[c] += kBytes;
    }
    __m256i bytes[8];
    transpose_bytes(nibbles, bytes);
    for (int b = 0; b < 16; ++b) {
      for (int lane = 0; lane < 2; ++lane) {
        __m128i x =
            lane == 0 ? _mm256_castsi256_si128(bytes[b / 2]) : _mm256_extracti128_si256(bytes[b / 2], 1);
        x = b % 2 == 0 ? x : _mm_srli_si128(x, 8);
        const __m256i q = _mm256_cvtepu8_epi32(x);
        float* to = panel + (at + b) * stride + 8 * lane;
        store_scaled(to, _mm256_and_si256(q, low), scale[lane], offset[lane]);
        store_scaled(to + 16 * stride, _mm256_srli_epi32(q, 4), scale[lane], offset[lane]);
      }
    }
  }
}

void pack_q8(const std::byte* const* rows, int64_t count, float* panel, int64_t stride) {
  const std::byte* row[16];
  const std::byte* numbers[16];
  for (int c = 0; c < 16; ++c) {
    row[c] = rows[c];
  }
  for (int64_t at = 0; at < count; at += 32) {
    __m256 scale[2];
    column_f16(row, 0, scale);
    for (int half = 0; half < 2; ++half) {
      for (int c = 0; c < 16; ++c) {
        numbers[c] = row[c] + 2 + 16 * half;
      }
      __m256i bytes[8];
      transpose_bytes(numbers, bytes);
      for (int b = 0; b < 16; ++b) {
        for (int lane = 0; lane < 2; ++lane) {
          __m128i x =
              lane == 0 ? _mm256_castsi256_si128(bytes[b / 2]) : _mm256_extracti128_si256(bytes[b / 2], 1);
          x = b % 2 == 0 ? x : _mm_srli_si128(x, 8);
          store_scaled(panel + (at + 16 * half + b) * stride + 8 * lane, _mm256_cvtepi8_epi32(x), scale[lane],
                       _mm256_setzero_ps());
        }
      }
    }
    for (int c = 0; c < 16; ++c) {
      row[c] += 34;
    }
  }
}

HETERO_KERNEL __m256 load_eight(const std::byte* p, DType dtype) {
  if (dtype == DType::kF32) {
    return _mm256_loadu_ps(reinterpret_cast<const float*>(p));
  }
  const __m128i h = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return dtype == DType::kF16 ? _mm256_cvtph_ps(h)
                              : _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

// Plain types: eight rows by eight elements at a time, transposed as floats.
template <DType kType>
void pack_plain(const std::byte* const* rows, int64_t count, float* panel, int64_t stride) {
  constexpr int kBytes = kType == DType::kF32 ? 4 : 2;
  for (int64_t at = 0; at + 8 <= count; at += 8) {
    for (int half = 0; half < 2; ++half) {
      __m256 r[8];
      for (int c = 0; c < 8; ++c) {
        r[c] = load_eight(rows[8 * half + c] + at * kBytes, kType);
      }
      __m256 s[8];
      for (int c = 0; c < 8; c += 2) {
        s[c] = _mm256_unpacklo_ps(r[c], r[c + 1]);
        s[c + 1] = _mm256_unpackhi_ps(r[c], r[c + 1]);
      }
      for (int c = 0; c < 8; c += 4) {
        r[c] = _mm256_shuffle_ps(s[c], s[c + 2], 0x44);
        r[c + 1] = _mm256_shuffle_ps(s[c], s[c + 2], 0xee);
        r[c + 2] = _mm256_shuffle_ps(s[c + 1], s[c + 3], 0x44);
        r[c + 3] = _mm256_shuffle_ps(s[c + 1], s[c + 3], 0xee);
      }
      for (int i = 0; i < 4; ++i) {
        float* to = panel + (at + i) * stride + 8 * half;
        _mm256_storeu_ps(to, _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
        _mm256_storeu_ps(to + 4 * stride, _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
      }
    }
  }
  const int64_t done = count / 8 * 8;
  for (int c = 0; c < 16 && done < count; ++c) {
    float rest[8];
    decode(kType, rows[c] + done * kBytes, count - done, 1.0f, rest);
    for (int64_t i = done; i < count; ++i) {
      panel[i * stride + c] = rest[i - done];
    }
  }
}

void pack_panel(const WeightRows& w, int64_t k_begin, int64_t count, float* panel) {
  const int64_t before = bytes_of(w.dtype, k_begin);
  for (int64_t first = 0; first < kNr; first += 16, panel += 16) {
    const std::byte* rows[16];
    for (int64_t c = 0; c < 16; ++c) {
      rows[c] = w.data + min_of(first + c, w.rows - 1) * w.row_bytes + before;
    }
    switch (w.dtype) {
      case DType::kF32:
        pack_plain<DType::kF32>(rows, count, panel, kNr);
        break;
      case DType::kF16:
        pack_plain<DType::kF16>(rows, count, panel, kNr);
        break;
      case DType::kBF16:
        pack_plain<DType::kBF16>(rows, count, panel, kNr);
        break;
      case DType::kQ4_0:
        pack_q4<2>(rows, count, panel, kNr);
        break;
      case DType::kQ4_1:
        pack_q4<4>(rows, count, panel, kNr);
        break;
      case DType::kQ8_0:
        pack_q8(rows, count, panel, kNr);
        break;
      default: {  // through decoded rows, whole blocks of every format at a time
        constexpr int64_t kSome = 256;
        alignas(64) float decoded[16][kSome];
        const std::byte* decoded_rows[16];
        for (int64_t at = 0; at < count; at += kSome) {
          const int64_t some = min_of(kSome, count - at);
          for (int c = 0; c < 16; ++c) {
            decode(w.dtype, rows[c] + bytes_of(w.dtype, at), some, 1.0f, decoded[c]);
            decoded_rows[c] = reinterpret_cast<const std::byte*>(decoded[c]);
          }
          pack_plain<DType::kF32>(decoded_rows, some, panel + at * kNr, kNr);
        }
      }
    }
  }
}
