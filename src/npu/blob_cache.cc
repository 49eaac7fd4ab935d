#include "npu/blob_cache.h"

#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string_view>

namespace hetero {
namespace {

// FNV-1a (Fowler, Noll, Vo), 64 bits.
uint64_t hash(std::string_view text) {
  uint64_t h = 0xcbf29ce484222325u;
  for (const char c : text) {
    h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  }
  return h;
}

/// What precedes the blob in its file. It holds the whole key, since hashes may collide, and a
/// hash of the blob, since vendors' importers do not survive every damaged one.
std::string header(const std::string& key, const std::string& blob) {
  return fmt::format("hetero npu graph 1\n{}\n{} {:016x}\n", key, blob.size(), hash(blob));
}

}  // namespace

std::string BlobCache::path(const std::string& key) const {
  return fmt::format("{}/npu-{:016x}.blob", folder_, hash(key));
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
