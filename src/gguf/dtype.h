// Element types of tensors, with the numbers that GGUF files give them.
// Source: the GGUF specification (ggml project, docs/gguf.md), enum ggml_type.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace hetero {

enum class DType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kIQ4_NL = 20,
  kIQ4_XS = 23,
  kI32 = 26,
  kBF16 = 30,
  kMXFP4 = 39,
};

struct DTypeTraits {
  DType dtype;
  std::string_view name;  // as the format writes it: "Q4_0"
  int block_elements;     // consecutive elements of a row that share one block; 1 for plain types
  int block_bytes;
};

/// Traits of a type that this engine can read; nullptr for any other number in a file.
const DTypeTraits* find_dtype(uint32_t gguf_type);
const DTypeTraits& traits(DType dtype);
std::optional<DType> dtype_from_name(std::string_view name);
/// The name that the format gives to a type number, also for types that are not read ("IQ1_S");
/// "type 99" for numbers that no version defines.
std::string gguf_type_name(uint32_t gguf_type);

/// Bytes of one row of `cols` elements; cols is a multiple of the block.
inline int64_t row_bytes(DType dtype, int64_t cols) {
  const DTypeTraits& t = traits(dtype);
  return cols / t.block_elements * t.block_bytes;
}

}  // namespace hetero
