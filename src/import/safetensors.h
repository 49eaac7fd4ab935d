// Safetensors files: a JSON header of names, types, shapes and offsets, then the data.
// Format: https://github.com/huggingface/safetensors ("Format"). Little-endian.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/memory.h"
#include "base/status.h"
#include "gguf/dtype.h"

namespace hetero {

struct SafeTensor {
  std::string name;
  DType dtype = DType::kF32;        // F32, F16 or BF16
  std::vector<int64_t> shape;       // outermost dimension first
  const std::byte* data = nullptr;  // into the mapping
  std::string file;

  int64_t elements() const;
};

/// All tensors of a folder: `model.safetensors`, or the shards that `model.safetensors.index.json`
/// names. Immutable; tensor data lives as long as it does.
class SafetensorsFolder {
 public:
  /// Maps the files and checks headers, offsets, sizes and overlaps, and that the index and the shards
  /// agree. Errors name file and tensor.
  static Result<std::unique_ptr<const SafetensorsFolder>> open(const std::string& folder);

  const std::vector<SafeTensor>& tensors() const { return tensors_; }
  const SafeTensor* find(const std::string& name) const;

 private:
  Status add_file(const std::string& path);

  std::vector<MappedFile> files_;
  std::vector<SafeTensor> tensors_;
  std::unordered_map<std::string, size_t> index_;
};

}  // namespace hetero
