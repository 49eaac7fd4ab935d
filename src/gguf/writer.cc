#include "gguf/writer.h"

#include <fmt/format.h>

#include <fstream>

namespace hetero {
namespace {

constexpr size_t kAlignment = 32;  // the format's default
constexpr uint32_t kU32 = 4, kI32 = 5, kF32 = 6, kBool = 7, kString = 8, kArray = 9;

template <class T>
void put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void put_string(std::string& out, const std::string& s) {
  put(out, static_cast<uint64_t>(s.size()));
  out += s;
}

void pad(std::string& out) { out.resize((out.size() + kAlignment - 1) / kAlignment * kAlignment); }

}  // namespace

void GgufWriter::begin(const std::string& key, uint32_t type) {
  put_string(metadata_, key);
  put(metadata_, type);
  ++metadata_count_;
}

void GgufWriter::set_uint(const std::string& key, uint32_t value) {
  begin(key, kU32);
  put(metadata_, value);
}

void GgufWriter::set_float(const std::string& key, float value) {
  begin(key, kF32);
  put(metadata_, value);
}

void GgufWriter::set_bool(const std::string& key, bool value) {
  begin(key, kBool);
  put(metadata_, static_cast<uint8_t>(value));
}

void GgufWriter::set_string(const std::string& key, const std::string& value) {
  begin(key, kString);
  put_string(metadata_, value);
}

void GgufWriter::set_strings(const std::string& key, const std::vector<std::string>& values) {
  begin(key, kArray);
  put(metadata_, kString);
  put(metadata_, static_cast<uint64_t>(values.size()));
  for (const std::string& v : values) {
    put_string(metadata_, v);
  }
}

void GgufWriter::set_ints(const std::string& key, const std::vector<int32_t>& values) {
  begin(key, kArray);
  put(metadata_, kI32);
  put(metadata_, static_cast<uint64_t>(values.size()));
  for (const int32_t v : values) {
    put(metadata_, v);
  }
}

void GgufWriter::set_floats(const std::string& key, const std::vector<float>& values) {
  begin(key, kArray);
  put(metadata_, kF32);
  put(metadata_, static_cast<uint64_t>(values.size()));
  for (const float v : values) {
    put(metadata_, v);
  }
}

void GgufWriter::add_tensor(const std::string& name, DType dtype, std::vector<int64_t> dims,
                            std::vector<std::byte> data) {
  tensors_.push_back({name, dtype, std::move(dims), std::move(data)});
}

std::string GgufWriter::bytes() const {
  std::string out = "GGUF";
  put(out, uint32_t{3});
  put(out, static_cast<uint64_t>(tensors_.size()));
  put(out, metadata_count_);
  out += metadata_;
  uint64_t offset = 0;
  for (const Entry& t : tensors_) {
    put_string(out, t.name);
    put(out, static_cast<uint32_t>(t.dims.size()));
    for (const int64_t d : t.dims) {
      put(out, static_cast<uint64_t>(d));
    }
    put(out, static_cast<uint32_t>(t.dtype));
    put(out, offset);
    offset += (t.data.size() + kAlignment - 1) / kAlignment * kAlignment;
  }
  pad(out);
  for (const Entry& t : tensors_) {
    out.append(reinterpret_cast<const char*>(t.data.data()), t.data.size());
    pad(out);
  }
  return out;
}

Status GgufWriter::write(const std::string& path) const {
  std::ofstream file(path, std::ios::binary);
  const std::string out = bytes();
  file.write(out.data(), static_cast<std::streamsize>(out.size()));
  file.close();
  if (!file) {
    return io_error(fmt::format("{}: cannot be written", path));
  }
  return {};
}

}  // namespace hetero
