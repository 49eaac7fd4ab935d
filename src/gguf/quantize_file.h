// A model file in F32, F16 or BF16, written again in a smaller type.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "base/status.h"
#include "gguf/file.h"
#include "gguf/writer.h"

namespace hetero {

/// The type that a tensor gets when its model is quantized to `type`:
/// - vectors, norms and the router of experts: F32, they are small and sensitive;
/// - the output matrix (token_embd where a model has no other): at least Q6_K, as users of K-quants
///   expect, since every logit passes through it;
/// - other matrices: `type`, or where their rows are no multiple of its block, the next one that
///   fits: Q4_K -> Q5_0, Q6_K -> Q8_0, any -> F16.
DType quantized_type(const Tensor& tensor, DType type, bool is_output);

/// general.file_type of a file that is mostly of one of the types below; nothing for others.
std::optional<uint32_t> quantized_file_type(DType type);

struct QuantizeSummary {
  std::map<std::string, int> types;  // tensors of each type in the new file
  int fallbacks = 0;                 // matrices whose rows do not fit the type's blocks
  Bytes bytes_before = 0;
  Bytes bytes_after = 0;  // of tensor data
};

/// Writes `out` (through a temporary file) with the metadata of `in` and its tensors as
/// quantized_type() says; `type` is F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K or Q6_K. Fails before
/// anything is written where `out` is (a part of) `in`, or where a tensor would have to change from
/// one quantized type to another. Uses `threads` threads.
Result<QuantizeSummary> quantize_file(const GgufFile& in, const std::string& out, DType type, int threads,
                                      const GgufWriter::Progress& progress = {});

}  // namespace hetero
