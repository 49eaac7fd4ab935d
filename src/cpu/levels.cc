#include "cpu/levels.h"

#include <fmt/format.h>
#if defined(__aarch64__)
#include <sys/auxv.h>
#endif

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
#if defined(__aarch64__)
  // An emulator may show another machine's /proc/cpuinfo.
  description.flags.clear();
  const unsigned long has = getauxval(AT_HWCAP);
  for (const auto& [bit, name] : {std::pair{HWCAP_ASIMD, "asimd"},
                                  {HWCAP_ASIMDHP, "asimdhp"},
                                  {HWCAP_ASIMDDP, "asimddp"},
                                  {HWCAP_SVE, "sve"}}) {
    if ((has & static_cast<unsigned long>(bit)) != 0) {
      description.flags.emplace_back(name);
    }
  }
  const unsigned long has2 = getauxval(AT_HWCAP2);
  for (const auto& [bit, name] :
       {std::pair{HWCAP2_I8MM, "i8mm"}, {HWCAP2_BF16, "bf16"}, {HWCAP2_SVE2, "sve2"}}) {
    if ((has2 & static_cast<unsigned long>(bit)) != 0) {
      description.flags.emplace_back(name);
    }
  }
#endif
  if (description.name.empty()) {
    description.name = "CPU";
  }
  return description;
}

#if defined(__x86_64__) || defined(__aarch64__)
namespace {

/// A level that only adds 8-bit products to another.
Kernels with_int8(const Kernels& base, const char* level, const Int8Kernels& int8) {
  Kernels kernels = base;
  kernels.level = level;
  kernels.int8 = &int8;
  return kernels;
}

#if defined(__x86_64__)
Int8Kernels with_tiles(const Int8Kernels& base, const TileKernels& tiles) {
  Int8Kernels kernels = base;
  kernels.tiles = &tiles;
  return kernels;
}
#endif

}  // namespace
#endif

std::vector<const Kernels*> kernels_for(const std::vector<std::string>& flags) {
  std::vector<const Kernels*> kernels = {&kScalarKernels};
#if defined(__x86_64__) || defined(__aarch64__)
  const auto has = [&](std::initializer_list<const char*> needed) {
    return std::all_of(needed.begin(), needed.end(), [&](const char* flag) {
      return std::find(flags.begin(), flags.end(), flag) != flags.end();
    });
  };
#endif
#if defined(__x86_64__)
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
      static const Int8Kernels kAmxInt8 = with_tiles(kAvx512VnniInt8Kernels, kAmxTileKernels);
      static const Kernels kAmx = with_int8(kAvx512Kernels, "amx", kAmxInt8);
      if (has({"avx512_vnni", "amx_tile", "amx_bf16"}) && request_amx()) {
        kernels.push_back(&kAmx);
      }
    }
  }
#elif defined(__aarch64__)
  static const Kernels kDotProduct = with_int8(kScalarKernels, "dotprod", kDotProductInt8Kernels);
  if (has({"asimddp"})) {
    kernels.push_back(&kDotProduct);
    static const Kernels kI8mm = with_int8(kScalarKernels, "i8mm", kI8mmInt8Kernels);
    if (has({"i8mm"})) {
      kernels.push_back(&kI8mm);
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
