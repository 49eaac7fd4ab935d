#include "gguf/writer.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

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

size_t padded(size_t size) {
  return (size + kAlignment - 1) / kAlignment * kAlignment;
}

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

void GgufWriter::set_bools(const std::string& key, const std::vector<bool>& values) {
  begin(key, kArray);
  put(metadata_, kBool);
  put(metadata_, static_cast<uint64_t>(values.size()));
  for (const bool v : values) {
    put(metadata_, static_cast<uint8_t>(v));
  }
}

void GgufWriter::set_raw(const std::string& key, std::span<const std::byte> value) {
  put_string(metadata_, key);
  metadata_.append(reinterpret_cast<const char*>(value.data()), value.size());
  ++metadata_count_;
}

void GgufWriter::add_tensor(const std::string& name, DType dtype, std::vector<int64_t> dims,
                            std::vector<std::byte> data) {
  const auto size = static_cast<Bytes>(data.size());
  tensors_.push_back({name, dtype, std::move(dims), size, [data = std::move(data)](std::span<std::byte> out) {
                        std::memcpy(out.data(), data.data(), data.size());
                        return Status();
                      }});
}

void GgufWriter::add_tensor(const std::string& name, DType dtype, std::vector<int64_t> dims,
                            TensorSource source) {
  Bytes size = row_bytes(dtype, dims[0]);
  for (size_t i = 1; i < dims.size(); ++i) {
    size *= dims[i];
  }
  tensors_.push_back({name, dtype, std::move(dims), size, std::move(source)});
}

std::string GgufWriter::header_bytes() const {
  std::string head = "GGUF";
  put(head, uint32_t{3});
  put(head, static_cast<uint64_t>(tensors_.size()));
  put(head, metadata_count_);
  head += metadata_;
  uint64_t offset = 0;
  for (const Entry& t : tensors_) {
    put_string(head, t.name);
    put(head, static_cast<uint32_t>(t.dims.size()));
    for (const int64_t d : t.dims) {
      put(head, static_cast<uint64_t>(d));
    }
    put(head, static_cast<uint32_t>(t.dtype));
    put(head, offset);
    offset += padded(static_cast<size_t>(t.bytes));
  }
  head.resize(padded(head.size()));
  return head;
}

Status GgufWriter::emit(const std::function<Status(std::span<const std::byte>)>& sink,
                        const Progress& progress) const {
  const std::string head = header_bytes();
  HETERO_RETURN_IF_ERROR(sink(std::as_bytes(std::span(head))));
  std::vector<std::byte> data;
  for (size_t i = 0; i < tensors_.size(); ++i) {
    const Entry& t = tensors_[i];
    if (progress) {
      progress(t.name, static_cast<int>(i), static_cast<int>(tensors_.size()));
    }
    data.assign(padded(static_cast<size_t>(t.bytes)), std::byte{0});
    HETERO_RETURN_IF_ERROR(
        t.source(std::span(data).first(static_cast<size_t>(t.bytes))).with_prefix("tensor " + t.name));
    HETERO_RETURN_IF_ERROR(sink(data));
  }
  return {};
}

Result<std::string> GgufWriter::bytes() const {
  std::string out;
  HETERO_RETURN_IF_ERROR(emit(
      [&](std::span<const std::byte> data) {
        out.append(reinterpret_cast<const char*>(data.data()), data.size());
        return Status();
      },
      {}));
  return out;
}

Status GgufWriter::write(const std::string& path, const Progress& progress) const {
  const std::string temporary = fmt::format("{}.{}.tmp", path, getpid());
  std::FILE* file = std::fopen(temporary.c_str(), "wbx");
  if (file == nullptr) {
    return io_error(fmt::format("{}: cannot be created: {}", temporary, std::strerror(errno)));
  }
  const auto failed = [&] {
    return io_error(fmt::format("{}: cannot write: {}", temporary, std::strerror(errno)));
  };
  Status status = emit(
      [&](std::span<const std::byte> data) {
        return std::fwrite(data.data(), 1, data.size(), file) == data.size() ? Status() : failed();
      },
      progress);
  if (std::fclose(file) != 0 && status.ok()) {
    status = failed();
  }
  if (status.ok() && std::rename(temporary.c_str(), path.c_str()) != 0) {
    status = io_error(fmt::format("{}: cannot be replaced: {}", path, std::strerror(errno)));
  }
  if (!status.ok()) {
    std::remove(temporary.c_str());
  }
  return status;
}

}  // namespace hetero
