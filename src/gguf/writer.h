// Writes GGUF files, version 3, little-endian.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "gguf/dtype.h"

namespace hetero {

/// Collects metadata and tensors, then writes them in the order in which they were added. Keys and
/// names must be unique; that is not checked here but by every reader.
class GgufWriter {
 public:
  void set_uint(const std::string& key, uint32_t value);
  void set_float(const std::string& key, float value);
  void set_bool(const std::string& key, bool value);
  void set_string(const std::string& key, const std::string& value);
  void set_strings(const std::string& key, const std::vector<std::string>& values);
  void set_ints(const std::string& key, const std::vector<int32_t>& values);
  void set_floats(const std::string& key, const std::vector<float>& values);

  /// `dims` with the contiguous dimension first; `data` is copied.
  void add_tensor(const std::string& name, DType dtype, std::vector<int64_t> dims, std::vector<std::byte> data);

  /// The whole file in memory.
  std::string bytes() const;
  Status write(const std::string& path) const;

 private:
  struct Entry {
    std::string name;
    DType dtype;
    std::vector<int64_t> dims;
    std::vector<std::byte> data;
  };
  void begin(const std::string& key, uint32_t type);

  std::string metadata_;
  uint64_t metadata_count_ = 0;
  std::vector<Entry> tensors_;
};

}  // namespace hetero
