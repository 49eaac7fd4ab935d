#include "gguf/file.h"

#include <fmt/format.h>

#include <limits>

namespace hetero {
namespace {

std::string kind_of(const MetaValue& value) {
  constexpr const char* kKinds[] = {"an unsigned integer", "a signed integer", "a float",
                                    "a boolean",           "a string",         "an array"};
  return kKinds[value.index()];
}

Status wrong_type(const GgufFile& file, std::string_view key, const MetaValue& found, const char* expected) {
  return malformed(fmt::format("{}: {} is {}, expected {}", file.path(), key, kind_of(found), expected));
}

Status missing(const GgufFile& file, std::string_view key) {
  return malformed(fmt::format("{}: metadata key {} is missing", file.path(), key));
}

}  // namespace

int64_t Tensor::rows() const {
  int64_t rows = 1;
  for (size_t i = 1; i < dims.size(); ++i) {
    rows *= dims[i];
  }
  return rows;
}

Bytes GgufFile::file_bytes() const {
  Bytes bytes = 0;
  for (const MappedFile& part : parts_) {
    bytes += part.size();
  }
  return bytes;
}

Bytes GgufFile::resident_bytes() const {
  Bytes bytes = 0;
  for (const MappedFile& part : parts_) {
    bytes += part.resident();
  }
  return bytes;
}

void GgufFile::release(const std::byte* begin, Bytes size) const {
  for (const MappedFile& part : parts_) {
    if (begin >= part.data() && begin + size <= part.data() + part.size()) {
      part.release(begin, size);
    }
  }
}

std::vector<std::string> GgufFile::part_paths() const {
  std::vector<std::string> paths;
  for (const MappedFile& part : parts_) {
    paths.push_back(part.path());
  }
  return paths;
}

const Tensor* GgufFile::find_tensor(std::string_view name) const {
  const auto found = tensor_index_.find(std::string(name));
  return found == tensor_index_.end() ? nullptr : &tensors_[found->second];
}

const MetaValue* GgufFile::find(std::string_view key) const {
  const auto found = metadata_index_.find(std::string(key));
  return found == metadata_index_.end() ? nullptr : &metadata_[found->second].second;
}

Result<int64_t> GgufFile::get_int(std::string_view key) const {
  const MetaValue* value = find(key);
  if (value == nullptr) {
    return missing(*this, key);
  }
  if (const auto* u = std::get_if<uint64_t>(value)) {
    if (*u > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return malformed(fmt::format("{}: {} is {}, which is too large", path_, key, *u));
    }
    return static_cast<int64_t>(*u);
  }
  if (const auto* s = std::get_if<int64_t>(value)) {
    return *s;
  }
  return wrong_type(*this, key, *value, "an integer");
}

Result<double> GgufFile::get_float(std::string_view key) const {
  const MetaValue* value = find(key);
  if (value == nullptr) {
    return missing(*this, key);
  }
  if (const auto* f = std::get_if<double>(value)) {
    return *f;
  }
  if (const auto* u = std::get_if<uint64_t>(value)) {
    return static_cast<double>(*u);
  }
  if (const auto* s = std::get_if<int64_t>(value)) {
    return static_cast<double>(*s);
  }
  return wrong_type(*this, key, *value, "a number");
}

Result<std::string> GgufFile::get_string(std::string_view key) const {
  const MetaValue* value = find(key);
  if (value == nullptr) {
    return missing(*this, key);
  }
  if (const auto* s = std::get_if<std::string>(value)) {
    return *s;
  }
  return wrong_type(*this, key, *value, "a string");
}

Result<const MetaArray*> GgufFile::get_array(std::string_view key) const {
  const MetaValue* value = find(key);
  if (value == nullptr) {
    return missing(*this, key);
  }
  if (const auto* a = std::get_if<std::shared_ptr<const MetaArray>>(value)) {
    return a->get();
  }
  return wrong_type(*this, key, *value, "an array");
}

Result<int64_t> GgufFile::get_int_or(std::string_view key, int64_t fallback) const {
  return find(key) == nullptr ? Result<int64_t>(fallback) : get_int(key);
}

Result<double> GgufFile::get_float_or(std::string_view key, double fallback) const {
  return find(key) == nullptr ? Result<double>(fallback) : get_float(key);
}

Result<std::string> GgufFile::get_string_or(std::string_view key, std::string fallback) const {
  return find(key) == nullptr ? Result<std::string>(std::move(fallback)) : get_string(key);
}

Result<bool> GgufFile::get_bool_or(std::string_view key, bool fallback) const {
  const MetaValue* value = find(key);
  if (value == nullptr) {
    return fallback;
  }
  if (const auto* b = std::get_if<bool>(value)) {
    return *b;
  }
  return wrong_type(*this, key, *value, "a boolean");
}

}  // namespace hetero
