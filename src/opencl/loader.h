// The OpenCL API as a table of function pointers from the ICD loader, so that a machine without
// OpenCL runs the same binary and finds no device. The one header that includes the vendor's; used
// inside src/opencl only.
#pragma once

#define CL_TARGET_OPENCL_VERSION 210
#define CL_USE_DEPRECATED_OPENCL_1_2_APIS
#include <CL/cl.h>

#include <string>

#include "base/status.h"

namespace hetero {

// Functions of OpenCL 1.2, which a loader must have, and of 2.0, which it may have.
#define HETERO_OPENCL_FUNCTIONS(X) \
  X(GetPlatformIDs)                \
  X(GetPlatformInfo)               \
  X(GetDeviceIDs)                  \
  X(GetDeviceInfo)                 \
  X(CreateSubDevices)              \
  X(ReleaseDevice)                 \
  X(CreateContext)                 \
  X(ReleaseContext)                \
  X(CreateCommandQueue)            \
  X(ReleaseCommandQueue)           \
  X(CreateBuffer)                  \
  X(ReleaseMemObject)              \
  X(CreateProgramWithSource)       \
  X(CreateProgramWithBinary)       \
  X(BuildProgram)                  \
  X(GetProgramInfo)                \
  X(GetProgramBuildInfo)           \
  X(ReleaseProgram)                \
  X(CreateKernel)                  \
  X(ReleaseKernel)                 \
  X(SetKernelArg)                  \
  X(EnqueueNDRangeKernel)          \
  X(EnqueueReadBuffer)             \
  X(EnqueueWriteBuffer)            \
  X(EnqueueReadBufferRect)         \
  X(EnqueueWriteBufferRect)        \
  X(EnqueueFillBuffer)             \
  X(EnqueueMapBuffer)              \
  X(EnqueueUnmapMemObject)         \
  X(EnqueueMarkerWithWaitList)     \
  X(WaitForEvents)                 \
  X(GetEventInfo)                  \
  X(GetEventProfilingInfo)         \
  X(SetEventCallback)              \
  X(RetainEvent)                   \
  X(ReleaseEvent)                  \
  X(Flush)                         \
  X(Finish)
#define HETERO_OPENCL_OPTIONAL_FUNCTIONS(X) X(SetKernelArgSVMPointer)

struct OpenClApi {
#define HETERO_DECLARE(name) decltype(&::cl##name) name = nullptr;
  HETERO_OPENCL_FUNCTIONS(HETERO_DECLARE)
  HETERO_OPENCL_OPTIONAL_FUNCTIONS(HETERO_DECLARE)
#undef HETERO_DECLARE
};

/// The table, loaded at the first call and kept for good; nullptr where there is no ICD loader.
const OpenClApi* opencl_api();

/// "CL_OUT_OF_RESOURCES", or "error -9999" for a vendor's own.
std::string cl_error_name(cl_int error);

/// Ok, or an error of the code that fits: "<what>: CL_...".
Status cl_status(cl_int error, const std::string& what);

/// Owns one OpenCL object; movable.
template <class T, auto Release>
class ClHandle {
 public:
  ClHandle() = default;
  explicit ClHandle(T handle) : handle_(handle) {}
  ClHandle(ClHandle&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  ClHandle& operator=(ClHandle&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~ClHandle() {
    if (handle_ != nullptr) {
      (opencl_api()->*Release)(handle_);
    }
  }
  T get() const { return handle_; }
  explicit operator bool() const { return handle_ != nullptr; }

 private:
  T handle_ = nullptr;
};

using ClContext = ClHandle<cl_context, &OpenClApi::ReleaseContext>;
using ClQueue = ClHandle<cl_command_queue, &OpenClApi::ReleaseCommandQueue>;
using ClMem = ClHandle<cl_mem, &OpenClApi::ReleaseMemObject>;
using ClProgram = ClHandle<cl_program, &OpenClApi::ReleaseProgram>;
using ClKernel = ClHandle<cl_kernel, &OpenClApi::ReleaseKernel>;
using ClEvent = ClHandle<cl_event, &OpenClApi::ReleaseEvent>;
using ClSubDevice = ClHandle<cl_device_id, &OpenClApi::ReleaseDevice>;

}  // namespace hetero
