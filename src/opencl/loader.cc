#include "opencl/loader.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <optional>

namespace hetero {
namespace {

std::optional<OpenClApi> load() {
  // Never closed: the loader and the vendors' libraries behind it keep threads of their own.
  void* library = dlopen("libOpenCL.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    library = dlopen("libOpenCL.so", RTLD_NOW | RTLD_LOCAL);  // Android has no versioned name
  }
  if (library == nullptr) {
    return std::nullopt;
  }
  OpenClApi api;
#define HETERO_LOAD(name) api.name = reinterpret_cast<decltype(api.name)>(dlsym(library, "cl" #name));
#define HETERO_LOAD_REQUIRED(name) \
  HETERO_LOAD(name)                \
  if (api.name == nullptr) {       \
    return std::nullopt;           \
  }
  HETERO_OPENCL_FUNCTIONS(HETERO_LOAD_REQUIRED)
  HETERO_OPENCL_OPTIONAL_FUNCTIONS(HETERO_LOAD)
#undef HETERO_LOAD_REQUIRED
#undef HETERO_LOAD
  return api;
}

}  // namespace

const OpenClApi* opencl_api() {
  static const std::optional<OpenClApi> api = load();
  return api ? &*api : nullptr;
}

std::string cl_error_name(cl_int error) {
  switch (error) {
#define HETERO_NAME(name) \
  case name:              \
    return #name;
    HETERO_NAME(CL_DEVICE_NOT_FOUND)
    HETERO_NAME(CL_DEVICE_NOT_AVAILABLE)
    HETERO_NAME(CL_COMPILER_NOT_AVAILABLE)
    HETERO_NAME(CL_MEM_OBJECT_ALLOCATION_FAILURE)
    HETERO_NAME(CL_OUT_OF_RESOURCES)
    HETERO_NAME(CL_OUT_OF_HOST_MEMORY)
    HETERO_NAME(CL_PROFILING_INFO_NOT_AVAILABLE)
    HETERO_NAME(CL_BUILD_PROGRAM_FAILURE)
    HETERO_NAME(CL_MAP_FAILURE)
    HETERO_NAME(CL_MISALIGNED_SUB_BUFFER_OFFSET)
    HETERO_NAME(CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST)
    HETERO_NAME(CL_DEVICE_PARTITION_FAILED)
    HETERO_NAME(CL_INVALID_VALUE)
    HETERO_NAME(CL_INVALID_PLATFORM)
    HETERO_NAME(CL_INVALID_DEVICE)
    HETERO_NAME(CL_INVALID_CONTEXT)
    HETERO_NAME(CL_INVALID_QUEUE_PROPERTIES)
    HETERO_NAME(CL_INVALID_COMMAND_QUEUE)
    HETERO_NAME(CL_INVALID_HOST_PTR)
    HETERO_NAME(CL_INVALID_MEM_OBJECT)
    HETERO_NAME(CL_INVALID_BINARY)
    HETERO_NAME(CL_INVALID_BUILD_OPTIONS)
    HETERO_NAME(CL_INVALID_PROGRAM)
    HETERO_NAME(CL_INVALID_PROGRAM_EXECUTABLE)
    HETERO_NAME(CL_INVALID_KERNEL_NAME)
    HETERO_NAME(CL_INVALID_KERNEL_DEFINITION)
    HETERO_NAME(CL_INVALID_KERNEL)
    HETERO_NAME(CL_INVALID_ARG_INDEX)
    HETERO_NAME(CL_INVALID_ARG_VALUE)
    HETERO_NAME(CL_INVALID_ARG_SIZE)
    HETERO_NAME(CL_INVALID_KERNEL_ARGS)
    HETERO_NAME(CL_INVALID_WORK_DIMENSION)
    HETERO_NAME(CL_INVALID_WORK_GROUP_SIZE)
    HETERO_NAME(CL_INVALID_WORK_ITEM_SIZE)
    HETERO_NAME(CL_INVALID_GLOBAL_OFFSET)
    HETERO_NAME(CL_INVALID_EVENT_WAIT_LIST)
    HETERO_NAME(CL_INVALID_EVENT)
    HETERO_NAME(CL_INVALID_OPERATION)
    HETERO_NAME(CL_INVALID_BUFFER_SIZE)
    HETERO_NAME(CL_INVALID_GLOBAL_WORK_SIZE)
    HETERO_NAME(CL_INVALID_PROPERTY)
    HETERO_NAME(CL_INVALID_DEVICE_PARTITION_COUNT)
#undef HETERO_NAME
    default:
      return fmt::format("error {}", error);
  }
}

Status cl_status(cl_int error, const std::string& what) {
  if (error == CL_SUCCESS) {
    return {};
  }
  std::string message = fmt::format("{}: {}", what, cl_error_name(error));
  switch (error) {
    case CL_OUT_OF_HOST_MEMORY:
    case CL_MEM_OBJECT_ALLOCATION_FAILURE:
    case CL_INVALID_BUFFER_SIZE:
      return resource_exhausted(std::move(message));
    default:
      return device_lost(std::move(message));
  }
}

}  // namespace hetero
