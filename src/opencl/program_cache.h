// Kernel programs, built once and kept: in memory for the processor's life, as binaries on disk for
// the next start.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "opencl/loader.h"

namespace hetero {

/// One built program and its kernels, created on first use.
class OpenClProgram {
 public:
  OpenClProgram(const OpenClApi& api, ClProgram program, std::string name, std::string path, std::string key)
      : api_(api),
        program_(std::move(program)),
        name_(std::move(name)),
        path_(std::move(path)),
        key_(std::move(key)) {}

  /// The kernel of that name; owned by the program.
  Result<cl_kernel> kernel(const std::string& name);
  cl_program get() const { return program_.get(); }

 private:
  friend class ProgramCache;

  const OpenClApi& api_;
  ClProgram program_;
  std::string name_;
  std::string path_;  // of the file to store the binary in; empty: stored already, or no cache
  std::string key_;
  std::map<std::string, ClKernel> kernels_;
};

/// Not thread-safe. A file in the cache that is corrupt, stale or unreadable is as good as none;
/// files are written to a temporary name and renamed, so any number of processes may share a folder.
class ProgramCache {
 public:
  /// `device_key` names device and driver, whose binaries differ. `dir` empty: no disk.
  ProgramCache(const OpenClApi& api, cl_context context, cl_device_id device, std::string device_key,
               std::string dir);

  /// The program of `source` with `options`; `name` is for messages and file names.
  Result<OpenClProgram*> get(const std::string& name, std::string_view source, const std::string& options);

  /// Writes the programs that were built from source since the last call. Some drivers finish
  /// compiling a kernel when it first runs, so this comes after a first run. Failing to write costs
  /// the next start some time, and is no error.
  void store();

  /// Programs compiled from source, and taken from files, since the start.
  int built() const { return built_; }
  int loaded() const { return loaded_; }
  /// Kernels that have been created so far.
  size_t kernels() const;

 private:
  Result<ClProgram> build(const std::string& name, std::string_view source, const std::string& options);
  ClProgram load(const std::string& path, const std::string& key, const std::string& options);
  Status finish(cl_program program, const std::string& name, const std::string& options);

  const OpenClApi& api_;
  cl_context context_;
  cl_device_id device_;
  std::string device_key_;
  std::string dir_;
  std::map<std::string, std::unique_ptr<OpenClProgram>> programs_;
  int built_ = 0;
  int loaded_ = 0;
};

}  // namespace hetero
