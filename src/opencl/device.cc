#include "opencl/device.h"

#include <dirent.h>
#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <map>
#include <mutex>
#include <set>

namespace hetero {
namespace {

std::string text(const OpenClApi& api, cl_device_id id, cl_device_info what) {
  size_t size = 0;
  if (api.GetDeviceInfo(id, what, 0, nullptr, &size) != CL_SUCCESS || size == 0) {
    return {};
  }
  std::string s(size, '\0');
  if (api.GetDeviceInfo(id, what, size, s.data(), nullptr) != CL_SUCCESS) {
    return {};
  }
  s.resize(std::min(s.size(), s.find('\0')));
  const size_t first = s.find_first_not_of(' ');  // some vendors pad their names
  const size_t last = s.find_last_not_of(' ');
  return first == std::string::npos ? std::string() : s.substr(first, last - first + 1);
}

template <class T>
T number(const OpenClApi& api, cl_device_id id, cl_device_info what) {
  T value{};
  return api.GetDeviceInfo(id, what, sizeof(value), &value, nullptr) == CL_SUCCESS ? value : T{};
}

std::string platform_text(const OpenClApi& api, cl_platform_id id, cl_platform_info what) {
  char buffer[256] = {};
  return api.GetPlatformInfo(id, what, sizeof(buffer) - 1, buffer, nullptr) == CL_SUCCESS ? buffer : "";
}

bool has_word(const std::string& list, const std::string& word) {
  return (" " + list + " ").find(" " + word + " ") != std::string::npos;
}

bool divisible_by_counts(const OpenClApi& api, cl_device_id id) {
  cl_device_partition_property kinds[16] = {};
  size_t size = 0;
  if (api.GetDeviceInfo(id, CL_DEVICE_PARTITION_PROPERTIES, sizeof(kinds), kinds, &size) != CL_SUCCESS) {
    return false;
  }
  cl_device_partition_property* end = kinds + size / sizeof(kinds[0]);
  return std::find(kinds + 0, end, CL_DEVICE_PARTITION_BY_COUNTS) != end;
}

OpenClDevice describe(const OpenClApi& api, cl_platform_id platform, cl_device_id id) {
  OpenClDevice d;
  d.platform = platform;
  d.id = id;
  d.is_cpu = (number<cl_device_type>(api, id, CL_DEVICE_TYPE) & CL_DEVICE_TYPE_CPU) != 0;
  d.version = text(api, id, CL_DEVICE_VERSION);
  d.host_unified = number<cl_bool>(api, id, CL_DEVICE_HOST_UNIFIED_MEMORY) == CL_TRUE;
  d.little_endian = number<cl_bool>(api, id, CL_DEVICE_ENDIAN_LITTLE) == CL_TRUE;
  d.compute_units = std::max(1u, number<cl_uint>(api, id, CL_DEVICE_MAX_COMPUTE_UNITS));
  d.max_work_group = number<size_t>(api, id, CL_DEVICE_MAX_WORK_GROUP_SIZE);
  d.local_bytes = static_cast<Bytes>(number<cl_ulong>(api, id, CL_DEVICE_LOCAL_MEM_SIZE));
  d.max_buffer_bytes = static_cast<Bytes>(number<cl_ulong>(api, id, CL_DEVICE_MAX_MEM_ALLOC_SIZE));
  d.divisible = divisible_by_counts(api, id);

  const std::string extensions = text(api, id, CL_DEVICE_EXTENSIONS);
  // "OpenCL <major>.<minor> ..." by the specification
  const bool version_2 = d.version.size() > 7 && d.version[7] >= '2';
  const auto svm = version_2 ? number<cl_device_svm_capabilities>(api, id, CL_DEVICE_SVM_CAPABILITIES) : 0;
  d.svm_system = (svm & CL_DEVICE_SVM_FINE_GRAIN_SYSTEM) != 0 && api.SetKernelArgSVMPointer != nullptr;
  d.subgroups = has_word(extensions, "cl_khr_subgroups") || has_word(extensions, "cl_intel_subgroups");

  constexpr cl_device_info kNvidiaMajor = 0x4000;  // CL_DEVICE_COMPUTE_CAPABILITY_MAJOR_NV
  d.ptx = has_word(extensions, "cl_nv_device_attribute_query");
  d.bfloat16_matrices = d.ptx && number<cl_uint>(api, id, kNvidiaMajor) >= 8;

  std::vector<std::string>& features = d.info.features;
  features.push_back(
      "opencl-" + d.version.substr(0, d.version.find(' ', 7)).substr(std::min<size_t>(7, d.version.size())));
  const auto add = [&](bool present, const char* name) {
    if (present) {
      features.emplace_back(name);
    }
  };
  d.half = has_word(extensions, "cl_khr_fp16");
  add(d.half, "fp16");
  add(has_word(extensions, "cl_khr_fp64"), "fp64");
  add(d.subgroups, "subgroups");
  add(has_word(extensions, "cl_khr_integer_dot_product"), "int-dot");
  add(d.bfloat16_matrices, "bf16-matrices");
  add((svm & CL_DEVICE_SVM_COARSE_GRAIN_BUFFER) != 0, "svm-coarse");
  add((svm & CL_DEVICE_SVM_FINE_GRAIN_BUFFER) != 0, "svm-fine");
  add((svm & CL_DEVICE_SVM_FINE_GRAIN_SYSTEM) != 0, "svm-system");

  d.info.kind = "gpu";
  d.info.name = text(api, id, CL_DEVICE_NAME);
  d.info.provider = "opencl";
  d.info.driver =
      fmt::format("{} {}", platform_text(api, platform, CL_PLATFORM_NAME), text(api, id, CL_DRIVER_VERSION));
  d.info.stand_in = d.is_cpu;
  d.info.memory_bytes = static_cast<Bytes>(number<cl_ulong>(api, id, CL_DEVICE_GLOBAL_MEM_SIZE));
  d.info.unified_memory = d.host_unified || d.is_cpu;
  return d;
}

bool usable(const OpenClApi& api, const OpenClDevice& d) {
  return d.little_endian && number<cl_bool>(api, d.id, CL_DEVICE_AVAILABLE) == CL_TRUE &&
         number<cl_bool>(api, d.id, CL_DEVICE_COMPILER_AVAILABLE) == CL_TRUE;
}

}  // namespace

std::vector<OpenClDevice> discover_opencl(const OpenClApi& api) {
  cl_uint count = 0;
  // The loader answers -1001 where no vendor is registered: no device, and no error.
  if (api.GetPlatformIDs(0, nullptr, &count) != CL_SUCCESS || count == 0) {
    return {};
  }
  std::vector<cl_platform_id> platforms(count);
  if (api.GetPlatformIDs(count, platforms.data(), nullptr) != CL_SUCCESS) {
    return {};
  }
  std::vector<OpenClDevice> devices;
  for (cl_platform_id platform : platforms) {
    const DriverThreads started(platform);
    if (api.GetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, 0, nullptr, &count) != CL_SUCCESS || count == 0) {
      continue;
    }
    std::vector<cl_device_id> ids(count);
    if (api.GetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, count, ids.data(), nullptr) != CL_SUCCESS) {
      continue;
    }
    for (cl_device_id id : ids) {
      OpenClDevice device = describe(api, platform, id);
      if (usable(api, device)) {
        devices.push_back(std::move(device));
      }
    }
  }
  std::stable_partition(devices.begin(), devices.end(), [](const OpenClDevice& d) { return !d.is_cpu; });
  return devices;
}

std::vector<int> process_threads() {
  std::vector<int> threads;
  if (DIR* dir = opendir("/proc/self/task")) {
    while (const dirent* entry = readdir(dir)) {
      if (const int id = std::atoi(entry->d_name); id > 0) {
        threads.push_back(id);
      }
    }
    closedir(dir);
  }
  std::sort(threads.begin(), threads.end());
  return threads;
}

namespace {

struct KnownThreads {
  std::mutex mutex;
  std::map<cl_platform_id, std::set<int>> of_platform;
};

KnownThreads& known_threads() {
  static KnownThreads threads;
  return threads;
}

}  // namespace

DriverThreads::~DriverThreads() {
  const std::vector<int> after = process_threads();
  KnownThreads& known = known_threads();
  const std::lock_guard lock(known.mutex);
  std::set<int>& ours = known.of_platform[platform_];
  std::set_difference(after.begin(), after.end(), before_.begin(), before_.end(),
                      std::inserter(ours, ours.end()));
}

void DriverThreads::move(cl_platform_id platform, const std::vector<int>& cpus) {
  if (cpus.empty()) {
    return;
  }
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int cpu : cpus) {
    CPU_SET(static_cast<size_t>(cpu), &set);
  }
  KnownThreads& known = known_threads();
  const std::lock_guard lock(known.mutex);
  for (const int thread : known.of_platform[platform]) {
    // A thread that is gone, or a container that forbids it: costs speed only.
    (void)sched_setaffinity(thread, sizeof(set), &set);
  }
}

}  // namespace hetero
