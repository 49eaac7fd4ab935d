#include "opencl/kernel_memory.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

namespace hetero {
namespace {

// Drivers pin or stage what they copy; a piece at a time keeps that small.
constexpr Bytes kPiece = Bytes{64} << 20;

}  // namespace

OpenClBuffer::~OpenClBuffer() {
  if (mapping_ != nullptr) {
    (void)api_.EnqueueUnmapMemObject(mapped_queue_, mem_.get(), mapping_, 0, nullptr, nullptr);
    (void)api_.Finish(mapped_queue_);
  }
  if (device_bytes_ != nullptr) {
    *device_bytes_ -= size_;
  }
}

Result<ClMem> KernelMemory::create(cl_mem_flags flags, Bytes size, void* host, const std::string& name) {
  if (size > device_.max_buffer_bytes) {
    return resource_exhausted(
        fmt::format("{}: {} has {} bytes, but one buffer of this device holds at most {}", device_.info.name,
                    name, size, device_.max_buffer_bytes));
  }
  cl_int error = CL_SUCCESS;
  ClMem mem(api_.CreateBuffer(context_, flags, static_cast<size_t>(size), host, &error));
  HETERO_RETURN_IF_ERROR(
      cl_status(error, fmt::format("{}: clCreateBuffer of {} bytes for {}", device_.info.name, size, name)));
  return mem;
}

Status KernelMemory::fill(cl_mem mem, Bytes offset, const void* from, Bytes size, const std::string& name) {
  for (Bytes at = 0; at < size; at += kPiece) {
    const Bytes piece = std::min(kPiece, size - at);
    const cl_int error = api_.EnqueueWriteBuffer(
        queue_, mem, CL_TRUE, static_cast<size_t>(offset + at), static_cast<size_t>(piece),
        static_cast<const std::byte*>(from) + at, 0, nullptr, nullptr);
    HETERO_RETURN_IF_ERROR(
        cl_status(error, fmt::format("{}: copying {} to the device", device_.info.name, name)));
  }
  return {};
}

Result<std::unique_ptr<OpenClBuffer>> KernelMemory::import(std::byte* host, Bytes size) {
  auto buffer = std::make_unique<OpenClBuffer>(api_, host, size);
  if (mode_ == MemoryMode::kSvm) {
    return buffer;
  }
  if (mode_ == MemoryMode::kHost) {
    HETERO_TRY(buffer->mem_, create(CL_MEM_READ_WRITE | CL_MEM_USE_HOST_PTR, size, host, "a buffer"));
    cl_int error = CL_SUCCESS;
    buffer->mapping_ = api_.EnqueueMapBuffer(queue_, buffer->mem(), CL_TRUE, CL_MAP_READ | CL_MAP_WRITE, 0,
                                             static_cast<size_t>(size), 0, nullptr, nullptr, &error);
    buffer->mapped_queue_ = queue_;
    if (error == CL_SUCCESS && buffer->mapping_ != host) {
      error = CL_MAP_FAILURE;  // a mapping elsewhere would be a copy
    }
    HETERO_RETURN_IF_ERROR(cl_status(error, fmt::format("{}: clEnqueueMapBuffer", device_.info.name)));
    return buffer;
  }
  HETERO_TRY(buffer->mem_, create(CL_MEM_READ_WRITE, size, nullptr, "a buffer"));
  // The host's contents at import are part of the contract: a KV cache may come filled.
  HETERO_RETURN_IF_ERROR(fill(buffer->mem(), 0, host, size, "a buffer"));
  buffer->device_bytes_ = &device_bytes_;
  device_bytes_ += size;
  return buffer;
}

Result<std::shared_ptr<OpenClBuffer>> KernelMemory::stack(const std::vector<const Weight*>& weights) {
  std::erase_if(weights_, [](const auto& entry) { return entry.second.expired(); });
  const auto bytes_of = [](const Weight& w) { return w.rows * row_bytes(w.dtype, w.cols); };
  std::pair<std::vector<const std::byte*>, Bytes> key;
  for (const Weight* w : weights) {
    key.first.push_back(w->data);
    key.second += bytes_of(*w);
  }
  const auto found = weights_.find(key);
  if (found != weights_.end()) {
    return found->second.lock();
  }
  const Bytes size = key.second;
  const std::string& name = weights[0]->name;
  // OpenCL takes no const pointers; kernels only read weights.
  auto* data = const_cast<std::byte*>(weights[0]->data);
  auto buffer = std::make_shared<OpenClBuffer>(api_, data, size);
  if (mode_ == MemoryMode::kHost) {
    // Whole pages, as drivers want them; what lies around the weight in them is never touched.
    const Bytes page = sysconf(_SC_PAGESIZE);
    buffer->lead_ = static_cast<Bytes>(reinterpret_cast<uintptr_t>(data) % static_cast<uintptr_t>(page));
    const Bytes whole = (buffer->lead_ + size + page - 1) / page * page;
    HETERO_TRY(buffer->mem_,
               create(CL_MEM_READ_ONLY | CL_MEM_USE_HOST_PTR, whole, data - buffer->lead_, name));
  } else if (mode_ == MemoryMode::kCopy) {
    HETERO_TRY(buffer->mem_, create(CL_MEM_READ_ONLY, size, nullptr, name));
    Bytes offset = 0;
    for (const Weight* w : weights) {
      HETERO_RETURN_IF_ERROR(fill(buffer->mem(), offset, w->data, bytes_of(*w), w->name));
      offset += bytes_of(*w);
    }
    buffer->device_bytes_ = &device_bytes_;
    device_bytes_ += size;
  }
  weights_[key] = buffer;
  return buffer;
}

Result<std::shared_ptr<OpenClBuffer>> KernelMemory::constants(std::vector<float> values,
                                                              const std::string& name) {
  const Bytes size = static_cast<Bytes>(values.size() * sizeof(float));
  auto buffer = std::make_shared<OpenClBuffer>(api_, nullptr, size);
  if (mode_ == MemoryMode::kSvm) {
    buffer->constants_ = std::move(values);
    buffer->host_ = reinterpret_cast<std::byte*>(buffer->constants_.data());
    return buffer;
  }
  HETERO_TRY(buffer->mem_, create(CL_MEM_READ_ONLY | CL_MEM_COPY_HOST_PTR, size, values.data(), name));
  buffer->device_bytes_ = &device_bytes_;
  device_bytes_ += size;
  return buffer;
}

}  // namespace hetero
