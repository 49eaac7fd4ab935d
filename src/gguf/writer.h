// Writes GGUF files, version 3, little-endian.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/memory.h"
#include "base/status.h"
#include "gguf/dtype.h"

namespace hetero {

/// Fills a tensor's bytes when they are written, so that a large file is never in memory as a whole.
using TensorSource = std::function<Status(std::span<std::byte>)>;

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
  void set_bools(const std::string& key, const std::vector<bool>& values);
  /// Value type and value as another file has them (GgufFile::metadata_bytes).
  void set_raw(const std::string& key, std::span<const std::byte> value);

  /// `dims` with the contiguous dimension first; `data` is copied.
  void add_tensor(const std::string& name, DType dtype, std::vector<int64_t> dims,
                  std::vector<std::byte> data);
  /// The same, with bytes that are asked for when they are written, once, in the order of adding.
  void add_tensor(const std::string& name, DType dtype, std::vector<int64_t> dims, TensorSource source);

  /// The file without the tensors' data; asks no source.
  std::string header_bytes() const;

  /// The whole file in memory; every source must succeed.
  Result<std::string> bytes() const;

  /// Writes to a temporary file beside `path` and renames it when all is well, so that `path` is
  /// never half a file. `progress(name, i, count)` before each tensor.
  using Progress = std::function<void(const std::string& name, int i, int count)>;
  Status write(const std::string& path, const Progress& progress = {}) const;

 private:
  struct Entry {
    std::string name;
    DType dtype;
    std::vector<int64_t> dims;
    Bytes bytes;
    TensorSource source;
  };
  void begin(const std::string& key, uint32_t type);
  Status emit(const std::function<Status(std::span<const std::byte>)>& sink, const Progress& progress) const;

  std::string metadata_;
  uint64_t metadata_count_ = 0;
  std::vector<Entry> tensors_;
};

}  // namespace hetero
