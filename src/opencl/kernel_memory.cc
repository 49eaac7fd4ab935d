#include "opencl/kernel_memory.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

namespace hetero {
namespace {

// Drivers pin or stage what they copy; a piece at a time keeps that small.
constexpr Bytes kPiece = Bytes{64} << 20;

// Pinned are buffers of at most this size, which all that moves at every pass has.
constexpr Bytes kPinned = Bytes{64} << 20;

constexpr Bytes kSwept = Bytes{128} << 20;  // more than the caches of today's GPUs

}  // namespace

OpenClBuffer::~OpenClBuffer() {
  if (mapping_ != nullptr) {
    const cl_mem mapped = pinned_ ? pinned_.get() : mem_.get();
    (void)api_.EnqueueUnmapMemObject(mapped_queue_, mapped, mapping_, 0, nullptr, nullptr);
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
    HETERO_RETURN_IF_ERROR(map(*buffer, buffer->mem()));
    return buffer;
  }
  HETERO_TRY(buffer->mem_, create(CL_MEM_READ_WRITE, size, nullptr, "a buffer"));
  // The host's contents at import are part of the contract: a KV cache may come filled.
  HETERO_RETURN_IF_ERROR(fill(buffer->mem(), 0, host, size, "a buffer"));
  buffer->device_bytes_ = &device_bytes_;
  device_bytes_ += size;
  return buffer;
}

void KernelMemory::pin(OpenClBuffer& buffer) {
  if (mode_ != MemoryMode::kCopy || buffer.asked_to_pin_ || buffer.size() > kPinned) {
    return;
  }
  buffer.asked_to_pin_ = true;
  auto pinned = create(CL_MEM_READ_WRITE | CL_MEM_USE_HOST_PTR, buffer.size(), buffer.host(), "a buffer");
  if (pinned.ok() && map(buffer, pinned->get()).ok()) {
    buffer.pinned_ = std::move(*pinned);
  }
}

Status KernelMemory::map(OpenClBuffer& buffer, cl_mem mem) {
  cl_int error = CL_SUCCESS;
  void* const mapping =
      api_.EnqueueMapBuffer(queue_, mem, CL_TRUE, CL_MAP_READ | CL_MAP_WRITE, 0,
                            static_cast<size_t>(buffer.size()), 0, nullptr, nullptr, &error);
  if (error == CL_SUCCESS && mapping != buffer.host()) {
    (void)api_.EnqueueUnmapMemObject(queue_, mem, mapping, 0, nullptr, nullptr);
    error = CL_MAP_FAILURE;  // a mapping elsewhere would be a copy
  }
  HETERO_RETURN_IF_ERROR(cl_status(error, fmt::format("{}: clEnqueueMapBuffer", device_.info.name)));
  buffer.mapping_ = mapping;
  buffer.mapped_queue_ = queue_;
  return {};
}

Status KernelMemory::reorder(cl_mem mem, Bytes offset, const Weight& weight, cl_kernel to_planes) {
  const Bytes row = row_bytes(weight.dtype, weight.cols);
  const int64_t rows = std::min(weight.rows, std::max<int64_t>(1, kPiece / row));
  HETERO_TRY(const ClMem staged, create(CL_MEM_READ_ONLY, rows * row, nullptr, weight.name));
  for (int64_t first = 0; first < weight.rows; first += rows) {
    const int64_t count = std::min(rows, weight.rows - first);
    HETERO_RETURN_IF_ERROR(fill(staged.get(), 0, weight.data + first * row, count * row, weight.name));
    cl_mem from = staged.get();
    const cl_long to = offset + first * row;
    const auto cols = static_cast<cl_int>(weight.cols);
    const auto head = static_cast<cl_int>(row / (weight.cols / 32) - 16);
    cl_int error = api_.SetKernelArg(to_planes, 0, sizeof(from), &from);
    error = error != CL_SUCCESS ? error : api_.SetKernelArg(to_planes, 1, sizeof(mem), &mem);
    error = error != CL_SUCCESS ? error : api_.SetKernelArg(to_planes, 2, sizeof(to), &to);
    error = error != CL_SUCCESS ? error : api_.SetKernelArg(to_planes, 3, sizeof(cols), &cols);
    error = error != CL_SUCCESS ? error : api_.SetKernelArg(to_planes, 4, sizeof(head), &head);
    const size_t global[2] = {static_cast<size_t>(weight.cols / 32), static_cast<size_t>(count)};
    error = error != CL_SUCCESS ? error
                                : api_.EnqueueNDRangeKernel(queue_, to_planes, 2, nullptr, global, nullptr, 0,
                                                            nullptr, nullptr);
    error = error != CL_SUCCESS ? error : api_.Finish(queue_);
    HETERO_RETURN_IF_ERROR(
        cl_status(error, fmt::format("{}: reordering {}", device_.info.name, weight.name)));
  }
  return {};
}

Result<std::shared_ptr<OpenClBuffer>> KernelMemory::stack(const std::vector<const Weight*>& weights,
                                                          cl_kernel to_planes) {
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
      HETERO_RETURN_IF_ERROR(to_planes != nullptr
                                 ? reorder(buffer->mem(), offset, *w, to_planes)
                                 : fill(buffer->mem(), offset, w->data, bytes_of(*w), w->name));
      offset += bytes_of(*w);
    }
    buffer->device_bytes_ = &device_bytes_;
    device_bytes_ += size;
  }
  weights_[key] = buffer;
  return buffer;
}

Result<std::shared_ptr<OpenClBuffer>> KernelMemory::allocate(Bytes size) {
  auto buffer = std::make_shared<OpenClBuffer>(api_, nullptr, size);
  if (mode_ == MemoryMode::kSvm) {
    buffer->constants_.resize(static_cast<size_t>((size + 3) / 4));
    buffer->host_ = reinterpret_cast<std::byte*>(buffer->constants_.data());
  } else {
    HETERO_TRY(buffer->mem_, create(CL_MEM_READ_WRITE, size, nullptr, "scratch memory"));
    buffer->device_bytes_ = &device_bytes_;
    device_bytes_ += size;
  }
  return buffer;
}

Status KernelMemory::write(OpenClBuffer& buffer, const std::vector<float>& values) {
  const size_t size = values.size() * sizeof(float);
  if (buffer.mem() != nullptr) {
    return fill(buffer.mem(), 0, values.data(), static_cast<Bytes>(size), "numbers");
  }
  HETERO_RETURN_IF_ERROR(cl_status(api_.Finish(queue_), "clFinish"));
  std::memcpy(buffer.host(), values.data(), size);
  return {};
}

Status KernelMemory::read(OpenClBuffer& buffer, std::vector<float>& values) {
  const size_t size = values.size() * sizeof(float);
  if (buffer.mem() != nullptr) {
    return cl_status(
        api_.EnqueueReadBuffer(queue_, buffer.mem(), CL_TRUE, 0, size, values.data(), 0, nullptr, nullptr),
        fmt::format("{}: clEnqueueReadBuffer", device_.info.name));
  }
  HETERO_RETURN_IF_ERROR(cl_status(api_.Finish(queue_), "clFinish"));
  std::memcpy(values.data(), buffer.host(), size);
  return {};
}

Result<std::shared_ptr<OpenClBuffer>> KernelMemory::scratch(Bytes size) {
  auto buffer = scratch_.lock();
  if (buffer == nullptr || buffer->size() < size) {
    HETERO_TRY(buffer, allocate(size));
    scratch_ = buffer;
  }
  return buffer;
}

Status KernelMemory::sweep() {
  if (!swept_) {
    HETERO_TRY(swept_, create(CL_MEM_READ_WRITE, kSwept, nullptr, "scratch memory"));
  }
  const cl_int zero = 0;
  return cl_status(api_.EnqueueFillBuffer(queue_, swept_.get(), &zero, sizeof(zero), 0,
                                          static_cast<size_t>(kSwept), 0, nullptr, nullptr),
                   fmt::format("{}: clEnqueueFillBuffer", device_.info.name));
}

Result<std::shared_ptr<OpenClBuffer>> KernelMemory::constants(std::vector<float> values,
                                                              const std::string& name) {
  const Bytes size = static_cast<Bytes>(values.size() * sizeof(float));
  auto buffer = std::make_shared<OpenClBuffer>(api_, nullptr, size);
  const bool over_host = mode_ == MemoryMode::kHost && device_.is_cpu;
  if (mode_ == MemoryMode::kSvm || over_host) {
    buffer->constants_ = std::move(values);
    buffer->host_ = reinterpret_cast<std::byte*>(buffer->constants_.data());
    if (over_host) {
      HETERO_TRY(buffer->mem_,
                 create(CL_MEM_READ_ONLY | CL_MEM_USE_HOST_PTR, size, buffer->constants_.data(), name));
    }
    return buffer;
  }
  HETERO_TRY(buffer->mem_, create(CL_MEM_READ_ONLY | CL_MEM_COPY_HOST_PTR, size, values.data(), name));
  buffer->device_bytes_ = &device_bytes_;
  device_bytes_ += size;
  return buffer;
}

}  // namespace hetero
