// Memory as kernels see it, in one of three ways.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/memory.h"
#include "opencl/device.h"
#include "opencl/loader.h"
#include "processor/processor.h"

namespace hetero {

enum class MemoryMode {
  kSvm,   // kernels take host pointers: fine-grained system SVM
  kHost,  // buffers over host memory, mapped once and for good: unified memory
  kCopy,  // buffers of the device's own: discrete GPUs
};

/// A range of memory that kernels can be given.
class OpenClBuffer : public Buffer {
 public:
  OpenClBuffer(const OpenClApi& api, std::byte* host, Bytes size) : api_(api), host_(host), size_(size) {}
  ~OpenClBuffer() override;

  std::byte* host() const { return host_; }
  Bytes size() const { return size_; }
  cl_mem mem() const { return mem_.get(); }  // nullptr in mode kSvm: kernels take host()
  /// Where the first byte lies in mem(), for a view that starts within a page.
  Bytes lead() const { return lead_; }
  /// Where the host has what mem() begins with.
  uint64_t address() const {
    return static_cast<uint64_t>(reinterpret_cast<uintptr_t>(host_)) - static_cast<uint64_t>(lead_);
  }

  /// Where kernels found mem(); 0: nobody has asked yet.
  uint64_t device_address() const { return device_address_; }
  void set_device_address(uint64_t address) { device_address_ = address; }

 private:
  friend class KernelMemory;

  const OpenClApi& api_;
  std::byte* host_;
  Bytes size_;
  Bytes lead_ = 0;
  uint64_t device_address_ = 0;
  ClMem mem_;
  bool asked_to_pin_ = false;
  ClMem pinned_;  // in mode kCopy, what makes the driver pin host(), so that copies need no staging
  cl_command_queue mapped_queue_ = nullptr;  // where mem_, or else pinned_, is mapped, to unmap it
  void* mapping_ = nullptr;
  std::vector<float> constants_;   // what host_ points to, for constants in modes without copies of them
  Bytes* device_bytes_ = nullptr;  // counted there, for copies
};

/// Makes buffers. Not thread-safe; outlives its buffers.
class KernelMemory {
 public:
  KernelMemory(const OpenClApi& api, const OpenClDevice& device, cl_context context, cl_command_queue queue,
               MemoryMode mode)
      : api_(api), device_(device), context_(context), queue_(queue), mode_(mode) {}

  MemoryMode mode() const { return mode_; }

  /// Page-aligned host memory, or in mode kCopy a copy of it on the device.
  Result<std::unique_ptr<OpenClBuffer>> import(std::byte* host, Bytes size);

  /// In mode kCopy: has the driver pin the host memory of an imported buffer, unless it is large. Otherwise
  /// drivers copy by way of memory of their own: on an H100, the logits of a token were there 0.1 ms after
  /// the device had sent them. Waits for the queue, and nothing may use the host memory meanwhile.
  void pin(OpenClBuffer& buffer);

  /// A whole weight as it lies in the file; in mode kCopy one copy for all executables that hold it.
  Result<std::shared_ptr<OpenClBuffer>> weight(const Weight& weight) { return stack({&weight}); }
  /// Likewise, several weights of one dtype and width, one behind the other. More than one only in
  /// mode kCopy. With `to_planes`, the kernel of that name, they are reordered on the device.
  Result<std::shared_ptr<OpenClBuffer>> stack(const std::vector<const Weight*>& weights,
                                              cl_kernel to_planes = nullptr);

  /// Memory of the device's own, of no known contents.
  Result<std::shared_ptr<OpenClBuffer>> allocate(Bytes size);

  /// Copies numbers to and from the start of a buffer, and waits for that.
  Status write(OpenClBuffer& buffer, const std::vector<float>& values);
  Status read(OpenClBuffer& buffer, std::vector<float>& values);

  /// Memory for what kernels of one submission leave to each other. All who ask share one, since the
  /// queue is in order, as long as any of them lives.
  Result<std::shared_ptr<OpenClBuffer>> scratch(Bytes size);

  /// Enqueues a write to enough memory that no cache holds anything else, for measuring.
  Status sweep();

  /// Some numbers of our own.
  Result<std::shared_ptr<OpenClBuffer>> constants(std::vector<float> values, const std::string& name);

  Bytes device_bytes() const { return device_bytes_; }

 private:
  /// Maps memory over the buffer's host memory for as long as the buffer lives.
  Status map(OpenClBuffer& buffer, cl_mem mem);
  Result<ClMem> create(cl_mem_flags flags, Bytes size, void* host, const std::string& name);
  Status reorder(cl_mem mem, Bytes offset, const Weight& weight, cl_kernel to_planes);
  Status fill(cl_mem mem, Bytes offset, const void* from, Bytes size, const std::string& name);

  const OpenClApi& api_;
  const OpenClDevice& device_;
  cl_context context_;
  cl_command_queue queue_;
  MemoryMode mode_;
  Bytes device_bytes_ = 0;
  // Weak: a weight lives as long as an executable that uses it, since the graph behind it does too.
  std::map<std::pair<std::vector<const std::byte*>, Bytes>, std::weak_ptr<OpenClBuffer>> weights_;
  std::weak_ptr<OpenClBuffer> scratch_;
  ClMem swept_;
};

}  // namespace hetero
