#include "npu/blob_cache.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "base/files.h"

namespace hetero {

// As FNV-1a (Fowler, Noll, Vo), of words in place of bytes: weights of gigabytes are hashed. Each
// step is a bijection of the state, so two inputs that differ in one word differ in the end.
uint64_t hash_bytes(const void* data, Bytes size) {
  const auto* p = static_cast<const char*>(data);
  uint64_t h = 0xcbf29ce484222325u ^ static_cast<uint64_t>(size);
  for (; size > 0; size -= 8, p += 8) {
    uint64_t word = 0;
    std::memcpy(&word, p, static_cast<size_t>(std::min<Bytes>(size, 8)));
    h = (h ^ word) * 0x100000001b3u;
    h ^= h >> 29;
  }
  return h;
}

namespace {

uint64_t hash(const std::string& text) {
  return hash_bytes(text.data(), static_cast<Bytes>(text.size()));
}

/// What precedes the blob in its file. It holds the whole key, since hashes may collide, and a
/// hash of the blob, since vendors' importers do not survive every damaged one.
std::string header(const std::string& key, const std::string& blob) {
  return fmt::format("hetero npu graph 2\n{}\n{} {:016x}\n", key, blob.size(), hash(blob));
}

}  // namespace

std::string BlobCache::path(const std::string& key) const {
  return fmt::format("{}/npu-{:016x}.blob", folder_, hash(key));
}

bool BlobCache::has(const std::string& key) const {
  std::error_code error;
  return !folder_.empty() && std::filesystem::exists(path(key), error);
}

std::optional<std::string> BlobCache::load(const std::string& key) const {
  if (folder_.empty()) {
    return std::nullopt;
  }
  std::ifstream file(path(key), std::ios::binary);
  std::string line;
  std::string stored_key;
  std::string what;
  if (!std::getline(file, line) || !std::getline(file, stored_key) || stored_key != key ||
      !std::getline(file, what)) {
    return std::nullopt;
  }
  std::string blob{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (fmt::format("{}\n{}\n{}\n", line, stored_key, what) != header(key, blob)) {
    return std::nullopt;
  }
  mark_used(path(key));
  return blob;
}

void BlobCache::store(const std::string& key, const std::string& blob) const {
  if (folder_.empty()) {
    return;
  }
  std::error_code error;
  std::filesystem::create_directories(folder_, error);
  // Renamed into place when complete, so that nobody reads half a file.
  static std::atomic<int> serial = 0;
  const std::string temporary = fmt::format("{}.{}.{}", path(key), getpid(), serial.fetch_add(1));
  std::ofstream file(temporary, std::ios::binary);
  file << header(key, blob) << blob;
  file.close();
  if (file) {
    std::filesystem::rename(temporary, path(key), error);
  }
  if (!file || error) {
    std::filesystem::remove(temporary, error);
  }
}

}  // namespace hetero
