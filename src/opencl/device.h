// What OpenCL devices there are, and what each can do.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "opencl/loader.h"
#include "processor/processor.h"

namespace hetero {

struct OpenClDevice {
  cl_platform_id platform = nullptr;
  cl_device_id id = nullptr;
  ProcessorInfo info;
  std::string version;             // "OpenCL 3.0 ..."
  bool is_cpu = false;             // CL_DEVICE_TYPE_CPU: a stand-in
  bool host_unified = false;       // shares memory with the host
  bool svm_system = false;         // kernels may use any host pointer
  bool subgroups = false;          // with sub_group_reduce_add in OpenCL C
  bool half = false;               // arithmetic in fp16
  bool ptx = false;                // PTX inline: NVIDIA
  bool bfloat16_matrices = false;  // PTX's mma of bfloat16, inline: NVIDIA, compute capability 8.0
  bool little_endian = true;
  cl_uint compute_units = 1;
  size_t max_work_group = 1;
  Bytes local_bytes = 0;
  Bytes max_buffer_bytes = 0;  // CL_DEVICE_MAX_MEM_ALLOC_SIZE
  bool divisible = false;      // clCreateSubDevices by counts
};

/// All usable devices of all platforms: GPUs and accelerators, then devices of type CPU, each in
/// the order of the loader. Devices without a compiler or with big-endian memory are left out.
std::vector<OpenClDevice> discover_opencl(const OpenClApi& api);

/// Ids of this process's threads, ascending.
std::vector<int> process_threads();

/// Takes the threads that appear in this process during its life for those of the platform's
/// driver, which cannot be asked for them. Drivers start threads while they are asked for devices
/// (PoCL), or with the first work (Intel), and keep them for all that is opened later.
class DriverThreads {
 public:
  explicit DriverThreads(cl_platform_id platform) : platform_(platform), before_(process_threads()) {}
  ~DriverThreads();
  DriverThreads(const DriverThreads&) = delete;
  DriverThreads& operator=(const DriverThreads&) = delete;

  /// Moves all that are known so far to `cpus`; an empty list moves nothing.
  static void move(cl_platform_id platform, const std::vector<int>& cpus);

 private:
  cl_platform_id platform_;
  std::vector<int> before_;
};

}  // namespace hetero
