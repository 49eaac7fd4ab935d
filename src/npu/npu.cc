#include "npu/npu.h"

#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <utility>

#include "base/threads.h"
#include "npu/npu_processor.h"
#include "npu/provider.h"

namespace hetero {

NpuProvider* load_npu_provider(const char* library) {
  std::error_code error;
  const std::filesystem::path executable = std::filesystem::read_symlink("/proc/self/exe", error);
  void* handle = nullptr;
  if (!error) {
    handle = dlopen((executable.parent_path() / library).c_str(), RTLD_NOW | RTLD_LOCAL);
  }
  if (handle == nullptr) {
    handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
  }
  if (handle == nullptr) {
    return nullptr;
  }
  auto* factory = reinterpret_cast<NpuProviderFactory*>(dlsym(handle, "hetero_npu_provider"));
  return factory == nullptr ? nullptr : factory(kNpuProviderVersion);
}

namespace {

/// One thread of a stand-in for each CPU that it may use; where it may use all, one: it plays a
/// device beside the others, not a second CPU.
int stand_in_threads(const OpenOptions& options) {
  return options.threads > 0 ? options.threads : std::max(1, static_cast<int>(options.cpus.size()));
}

}  // namespace

std::vector<FoundProcessor> find_npu() {
  std::vector<FoundProcessor> found;
  for (const char* library : {"libhetero_openvino.so"}) {
    NpuProvider* provider = load_npu_provider(library);
    if (provider == nullptr) {
      continue;
    }
    for (const NpuDeviceInfo& device : provider->devices()) {
      FoundProcessor f;
      f.info.kind = "npu";
      f.info.name = device.name;
      f.info.provider = provider->name();
      f.info.driver = device.driver;
      f.info.stand_in = device.stand_in;
      // What is on the chip works in the machine's memory.
      f.info.memory_bytes = device.memory_bytes > 0
                                ? device.memory_bytes
                                : Bytes{sysconf(_SC_PHYS_PAGES)} * Bytes{sysconf(_SC_PAGESIZE)};
      f.info.unified_memory = true;
      f.info.features = device.features;
      f.open = [provider, device](const ProcessorInfo& info,
                                  const OpenOptions& options) -> Result<std::unique_ptr<Processor>> {
        const ScopedAffinity confinement(options.cpus);
        NpuOptions npu;
        npu.threads = stand_in_threads(options);
        npu.cache_dir = options.cache_dir;
        HETERO_TRY(std::unique_ptr<NpuDevice> opened, provider->open(device, npu));
        return std::unique_ptr<Processor>(
            std::make_unique<NpuProcessor>(info, device.unit_roundoff, std::move(opened), options.cpus));
      };
      found.push_back(std::move(f));
    }
  }
  std::stable_partition(found.begin(), found.end(), [](const FoundProcessor& f) { return !f.info.stand_in; });
  return found;
}

}  // namespace hetero
