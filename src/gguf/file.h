// A GGUF model file, mapped into memory: metadata, and tensors as views of the mapping.
// Source: the GGUF specification, versions 2 and 3, little-endian.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <variant>
#include <vector>

#include "base/memory.h"
#include "base/status.h"
#include "gguf/dtype.h"

namespace hetero {

struct MetaArray;

/// One metadata value. Integers of every width are widened to 64 bits, floats to double.
/// Strings and the array's strings own their bytes, which need not be UTF-8.
using MetaValue =
    std::variant<uint64_t, int64_t, double, bool, std::string, std::shared_ptr<const MetaArray>>;

/// An array's elements, in the one member that matches its element type.
struct MetaArray {
  std::vector<uint64_t> unsigneds;
  std::vector<int64_t> signeds;
  std::vector<double> floats;
  std::vector<bool> bools;
  std::vector<std::string> strings;
  std::vector<std::shared_ptr<const MetaArray>> arrays;
  uint32_t element_type = 0;  // GGUF metadata value type
  size_t size = 0;
};

/// A tensor of the file. `dims` as in the file: dims[0] is the contiguous dimension (a row's
/// columns), so a matrix [rows, cols] has dims {cols, rows}.
struct Tensor {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> dims;
  const std::byte* data = nullptr;  // into the mapping; 32-byte aligned by default, see the spec
  Bytes bytes = 0;

  int64_t cols() const { return dims.empty() ? 1 : dims[0]; }
  int64_t rows() const;  // product of all other dimensions
};

/// How a file comes into memory.
struct GgufOpen {
  bool map = true;        // false: read it whole, at once
  ReadProgress progress;  // while it is read, for each part of a split file on its own
};

/// Immutable after open(), so any number of threads may read it. Tensor data lives as long as the
/// file object.
class GgufFile {
 public:
  /// Maps the file and checks everything that can be checked without reading tensor data: every
  /// count, length, type, offset and product, name uniqueness, alignment. A tensor of a type that
  /// this engine cannot read is an error naming tensor and type. Any part of a split file
  /// (`-00001-of-000NN.gguf`, keys split.count, split.no, split.tensors.count) opens all of them; a
  /// part that is missing or that belongs to something else is an error naming it.
  static Result<std::shared_ptr<const GgufFile>> open(const std::string& path, const GgufOpen& how = {});

  const std::string& path() const { return path_; }
  uint32_t version() const { return version_; }
  Bytes file_bytes() const;  // of all parts
  /// Of it in this process's memory now; 0 where that is unknown.
  Bytes resident_bytes() const;
  /// Gives back the memory of a part of a tensor that will not be read soon (MappedFile::release).
  void release(const std::byte* begin, Bytes size) const;
  std::vector<std::string> part_paths() const;

  /// Keys in file order.
  const std::vector<std::pair<std::string, MetaValue>>& metadata() const { return metadata_; }
  /// Value type and value of metadata()[i] as they stand in the file, to copy them unchanged.
  std::span<const std::byte> metadata_bytes(size_t i) const { return metadata_bytes_[i]; }
  const std::vector<Tensor>& tensors() const { return tensors_; }
  const Tensor* find_tensor(std::string_view name) const;
  const MetaValue* find(std::string_view key) const;

  /// Typed look-ups. Missing keys and wrong types are errors that name file, key, what was
  /// expected and what was found; the *_or forms give the fallback only where the key is missing.
  Result<int64_t> get_int(std::string_view key) const;
  Result<int64_t> get_int_or(std::string_view key, int64_t fallback) const;
  Result<double> get_float(std::string_view key) const;  // integers convert
  Result<double> get_float_or(std::string_view key, double fallback) const;
  Result<bool> get_bool_or(std::string_view key, bool fallback) const;
  Result<std::string> get_string(std::string_view key) const;
  Result<std::string> get_string_or(std::string_view key, std::string fallback) const;
  Result<const MetaArray*> get_array(std::string_view key) const;

 private:
  friend class GgufParser;

  std::string path_;
  uint32_t version_ = 0;
  std::vector<MappedFile> parts_;
  std::vector<std::pair<std::string, MetaValue>> metadata_;
  std::vector<std::span<const std::byte>> metadata_bytes_;
  std::unordered_map<std::string, size_t> metadata_index_;
  std::vector<Tensor> tensors_;
  std::unordered_map<std::string, size_t> tensor_index_;
};

}  // namespace hetero
