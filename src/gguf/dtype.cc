#include "gguf/dtype.h"

#include <array>

namespace hetero {
namespace {

constexpr DTypeTraits kTypes[] = {
    {DType::kF32, "F32", 1, 4},         {DType::kF16, "F16", 1, 2},         {DType::kQ4_0, "Q4_0", 32, 18},
    {DType::kQ4_1, "Q4_1", 32, 20},     {DType::kQ5_0, "Q5_0", 32, 22},     {DType::kQ5_1, "Q5_1", 32, 24},
    {DType::kQ8_0, "Q8_0", 32, 34},     {DType::kQ2_K, "Q2_K", 256, 84},    {DType::kQ3_K, "Q3_K", 256, 110},
    {DType::kQ4_K, "Q4_K", 256, 144},   {DType::kQ5_K, "Q5_K", 256, 176},   {DType::kQ6_K, "Q6_K", 256, 210},
    {DType::kIQ4_NL, "IQ4_NL", 32, 18}, {DType::kIQ4_XS, "IQ4_XS", 256, 136}, {DType::kI32, "I32", 1, 4},
    {DType::kBF16, "BF16", 1, 2},       {DType::kMXFP4, "MXFP4", 32, 17},
};

// By number, for messages about types that are not read.
constexpr std::array<std::string_view, 40> kNames = {
    "F32",   "F16",    "Q4_0",   "Q4_1",   "Q4_2",   "Q4_3",     "Q5_0",     "Q5_1",     "Q8_0",   "Q8_1",
    "Q2_K",  "Q3_K",   "Q4_K",   "Q5_K",   "Q6_K",   "Q8_K",     "IQ2_XXS",  "IQ2_XS",   "IQ3_XXS", "IQ1_S",
    "IQ4_NL", "IQ3_S", "IQ2_S",  "IQ4_XS", "I8",     "I16",      "I32",      "I64",      "F64",    "IQ1_M",
    "BF16",  "Q4_0_4_4", "Q4_0_4_8", "Q4_0_8_8", "TQ1_0", "TQ2_0", "IQ4_NL_4_4", "IQ4_NL_4_8", "IQ4_NL_8_8", "MXFP4"};

}  // namespace

const DTypeTraits* find_dtype(uint32_t gguf_type) {
  for (const DTypeTraits& t : kTypes) {
    if (static_cast<uint32_t>(t.dtype) == gguf_type) {
      return &t;
    }
  }
  return nullptr;
}

const DTypeTraits& traits(DType dtype) { return *find_dtype(static_cast<uint32_t>(dtype)); }

std::optional<DType> dtype_from_name(std::string_view name) {
  for (const DTypeTraits& t : kTypes) {
    if (t.name == name) {
      return t.dtype;
    }
  }
  return std::nullopt;
}

std::string gguf_type_name(uint32_t gguf_type) {
  return gguf_type < kNames.size() ? std::string(kNames[gguf_type]) : "type " + std::to_string(gguf_type);
}

}  // namespace hetero
