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
  std::string version;        // "OpenCL 3.0 ..."
  bool is_cpu = false;        // CL_DEVICE_TYPE_CPU: a stand-in
  bool host_unified = false;  // shares memory with the host
  bool svm_system = false;    // kernels may use any host pointer
  bool subgroups = false;     // with sub_group_reduce_add in OpenCL C
  bool little_endian = true;
  cl_uint compute_units = 1;
  size_t max_work_group = 1;
  Bytes local_bytes = 0;
  Bytes max_buffer_bytes = 0;       // CL_DEVICE_MAX_MEM_ALLOC_SIZE
  bool divisible = false;           // clCreateSubDevices by counts
  std::vector<int> driver_threads;  // ids of threads that the driver started while it was asked for devices
};

/// All usable devices of all platforms: GPUs and accelerators, then devices of type CPU, each in
/// the order of the loader. Devices without a compiler or with big-endian memory are left out.
std::vector<OpenClDevice> discover_opencl(const OpenClApi& api);

/// Ids of this process's threads, ascending.
std::vector<int> process_threads();

/// Moves threads of this process to `cpus`. PoCL starts its workers while it is asked for devices,
/// before anybody can say where they belong, so inheriting the affinity does not reach them.
void move_threads(const std::vector<int>& threads, const std::vector<int>& cpus);

}  // namespace hetero
