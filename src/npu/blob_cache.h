// Compiled graphs on disk, so that the second start of a model does not compile them again.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/memory.h"

namespace hetero {

/// A hash that any change of 8 bytes changes. Guards against mix-ups and damage, not against an
/// attacker, who could write the files anyway.
uint64_t hash_bytes(const void* data, Bytes size);

/// A folder of blobs by key. A cache is never needed: what cannot be written is not kept, and what
/// cannot be read, or is damaged, is not there. Safe with other processes on the same folder. What is loaded
/// is marked as used (base/files.h).
class BlobCache {
 public:
  /// An empty `folder` keeps nothing.
  explicit BlobCache(std::string folder) : folder_(std::move(folder)) {}

  bool keeps() const { return !folder_.empty(); }
  /// Whether there is a file for this key; load() may still find it damaged.
  bool has(const std::string& key) const;
  std::optional<std::string> load(const std::string& key) const;
  void store(const std::string& key, const std::string& blob) const;
  /// The file that holds, or would hold, a key's blob.
  std::string path(const std::string& key) const;

 private:
  std::string folder_;
};

}  // namespace hetero
