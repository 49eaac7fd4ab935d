#include "opencl/program_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

#include "base/files.h"

namespace hetero {
namespace {

// A cache file: this line, the length of the key, the key, the binary's checksum, the binary.
constexpr std::string_view kMagic = "hetero opencl program 1\n";
constexpr uint64_t kMaxFile = uint64_t{1} << 30;

std::string number_bytes(uint64_t value) {
  std::string s(8, '\0');
  for (char& c : s) {
    c = static_cast<char>(value & 0xffu);
    value >>= 8;
  }
  return s;
}

std::string read_file(const std::string& path) {
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  if (error || size > kMaxFile) {
    return {};
  }
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

std::string header(const std::string& key, std::string_view binary) {
  return std::string(kMagic) + number_bytes(key.size()) + key + number_bytes(text_hash(binary));
}

std::string build_log(const OpenClApi& api, cl_program program, cl_device_id device) {
  size_t size = 0;
  if (api.GetProgramBuildInfo(program, device, CL_PROGRAM_BUILD_LOG, 0, nullptr, &size) != CL_SUCCESS) {
    return {};
  }
  std::string log(size, '\0');
  if (size == 0 || api.GetProgramBuildInfo(program, device, CL_PROGRAM_BUILD_LOG, size, log.data(),
                                           nullptr) != CL_SUCCESS) {
    return {};
  }
  constexpr size_t kShown = 600;  // one line of a message; the rest repeats itself
  log.resize(std::min({log.size(), log.find('\0'), kShown}));
  for (char& c : log) {
    c = c == '\n' ? ' ' : c;
  }
  return log;
}

}  // namespace

Result<cl_kernel> OpenClProgram::kernel(const std::string& name) {
  const auto found = kernels_.find(name);
  if (found != kernels_.end()) {
    return found->second.get();
  }
  cl_int error = CL_SUCCESS;
  ClKernel kernel(api_.CreateKernel(program_.get(), name.c_str(), &error));
  HETERO_RETURN_IF_ERROR(cl_status(error, fmt::format("clCreateKernel of {} in {}", name, name_)));
  cl_kernel handle = kernel.get();
  kernels_.emplace(name, std::move(kernel));
  return handle;
}

ProgramCache::ProgramCache(const OpenClApi& api, cl_context context, cl_device_id device,
                           std::string device_key, std::string dir)
    : api_(api),
      context_(context),
      device_(device),
      device_key_(std::move(device_key)),
      dir_(std::move(dir)) {}

Result<OpenClProgram*> ProgramCache::get(const std::string& name, std::string_view source,
                                         const std::string& options) {
  const auto found = programs_.find(name + " " + options);
  if (found != programs_.end()) {
    return found->second.get();
  }
  const std::string key =
      fmt::format("{}\n{}\n{}\n{:016x} {}", name, options, device_key_, text_hash(source), source.size());
  std::string path;
  ClProgram program;
  if (!dir_.empty()) {
    path = fmt::format("{}/opencl-{}-{:016x}.bin", dir_, name, text_hash(key));
    program = load(path, key, options);
  }
  if (program) {
    ++loaded_;
    path.clear();
  } else {
    HETERO_TRY(program, build(name, source, options));
    ++built_;
  }
  auto& slot = programs_[name + " " + options];
  slot = std::make_unique<OpenClProgram>(api_, std::move(program), name, path, key);
  return slot.get();
}

Status ProgramCache::finish(cl_program program, const std::string& name, const std::string& options) {
  const cl_int error = api_.BuildProgram(program, 1, &device_, options.c_str(), nullptr, nullptr);
  if (error == CL_BUILD_PROGRAM_FAILURE) {
    return internal_error(fmt::format("kernels {} do not compile for this device: {}", name,
                                      build_log(api_, program, device_)));
  }
  return cl_status(error, fmt::format("clBuildProgram of {}", name));
}

Result<ClProgram> ProgramCache::build(const std::string& name, std::string_view source,
                                      const std::string& options) {
  const char* text = source.data();
  const size_t size = source.size();
  cl_int error = CL_SUCCESS;
  ClProgram program(api_.CreateProgramWithSource(context_, 1, &text, &size, &error));
  HETERO_RETURN_IF_ERROR(cl_status(error, fmt::format("clCreateProgramWithSource of {}", name)));
  HETERO_RETURN_IF_ERROR(finish(program.get(), name, options));
  return program;
}

ClProgram ProgramCache::load(const std::string& path, const std::string& key, const std::string& options) {
  const std::string file = read_file(path);
  const size_t header_size = header(key, {}).size();
  if (file.size() <= header_size) {
    return {};
  }
  const std::string_view binary = std::string_view(file).substr(header_size);
  if (file.compare(0, header_size, header(key, binary)) != 0) {
    return {};
  }
  const auto* bytes = reinterpret_cast<const unsigned char*>(binary.data());
  const size_t size = binary.size();
  cl_int status = CL_SUCCESS;
  cl_int error = CL_SUCCESS;
  ClProgram program(api_.CreateProgramWithBinary(context_, 1, &device_, &size, &bytes, &status, &error));
  if (error != CL_SUCCESS || status != CL_SUCCESS || !finish(program.get(), path, options).ok()) {
    return {};
  }
  mark_used(path);
  return program;
}

size_t ProgramCache::kernels() const {
  size_t count = 0;
  for (const auto& [id, program] : programs_) {
    count += program->kernels_.size();
  }
  return count;
}

void ProgramCache::store() {
  for (const auto& [id, program] : programs_) {
    if (program->path_.empty()) {
      continue;
    }
    const std::string path = std::exchange(program->path_, {});
    size_t size = 0;
    if (api_.GetProgramInfo(program->get(), CL_PROGRAM_BINARY_SIZES, sizeof(size), &size, nullptr) !=
            CL_SUCCESS ||
        size == 0) {
      continue;
    }
    std::string binary(size, '\0');
    auto* bytes = reinterpret_cast<unsigned char*>(binary.data());
    if (api_.GetProgramInfo(program->get(), CL_PROGRAM_BINARIES, sizeof(bytes), &bytes, nullptr) !=
        CL_SUCCESS) {
      continue;
    }
    (void)replace_file(path,
                       header(program->key_, binary) + binary);  // without it, the next start builds anew
  }
}

}  // namespace hetero
