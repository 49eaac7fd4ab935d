#include "cpu/levels.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "cpu/int8.h"

namespace hetero::cpu {

CpuDescription describe_cpu() {
  CpuDescription description;
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line) && !line.empty();) {  // up to the second CPU
    const size_t colon = line.find(':');
    if (colon == std::string::npos) {
      continue;
    }
    const std::string key = line.substr(0, line.find_last_not_of(" \t", colon - 1) + 1);
    std::istringstream value(line.substr(colon + 1));
    if (key == "model name" || key == "Model") {
      value >> std::ws;
      std::getline(value, description.name);
    } else if (key == "flags" || key == "Features") {
      for (std::string flag; value >> flag;) {
        description.flags.push_back(flag);
      }
    }
  }
  if (description.name.empty()) {
    description.name = "CPU";
  }
  return description;
}

#if defined(__x86_64__)
namespace {

/// A level that only adds 8-bit products to another.
Kernels with_int8(const Kernels& base, const char* level, const Int8Kernels& int8) {
  Kernels kernels = base;
  kernels.level = level;
  kernels.int8 = &int8;
  return kernels;
}

}  // namespace
#endif

std::vector<const Kernels*> kernels_for(const std::vector<std::string>& flags) {
  std::vector<const Kernels*> kernels = {&kScalarKernels};
#if defined(__x86_64__)
  const auto has = [&](std::initializer_list<const char*> needed) {
    return std::all_of(needed.begin(), needed.end(), [&](const char* flag) {
      return std::find(flags.begin(), flags.end(), flag) != flags.end();
    });
  };
  if (has({"avx2", "fma", "f16c", "bmi1", "bmi2"})) {
    kernels.push_back(&kAvx2Kernels);
    static const Kernels kAvx2Vnni = with_int8(kAvx2Kernels, "avx2-vnni", kAvxVnniInt8Kernels);
    if (has({"avx_vnni"})) {
      kernels.push_back(&kAvx2Vnni);
    }
    if (has({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"})) {
      kernels.push_back(&kAvx512Kernels);
      static const Kernels kAvx512Vnni = with_int8(kAvx512Kernels, "avx512-vnni", kAvx512VnniInt8Kernels);
      if (has({"avx512_vnni"})) {
        kernels.push_back(&kAvx512Vnni);
      }
    }
  }
#else
  (void)flags;
#endif
  return kernels;
}

Result<const Kernels*> choose_kernels(const std::vector<const Kernels*>& kernels, const char* wanted) {
  if (wanted == nullptr || *wanted == '\0') {
    return kernels.back();
  }
  std::string available;
  for (const Kernels* k : kernels) {
    if (std::string_view(k->level) == wanted) {
      return k;
    }
    available += fmt::format("{}{}", available.empty() ? "" : ", ", k->level);
  }
  return invalid_argument(
      fmt::format("HETERO_CPU: '{}' is not a level of this machine; available: {}", wanted, available));
}

}  // namespace hetero::cpu
