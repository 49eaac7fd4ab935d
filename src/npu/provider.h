// What a vendor's NPU library must give: graphs compiled for a linear operator with its weights in
// them, and runs of them on user memory. The NPU processor adds the queue and the timeline; a
// provider has no threads or queues of its own.
//
// Weights are constants of a graph, since compilers for NPUs then keep them in 4 or 8 bits in the
// device's own order. Bound at run time they would have to be decoded by the graph itself: with
// OpenVINO on a CPU, one token through 1536 x 576 weights of 4 bits took eight to ten times as long
// (docs/devices.md).
//
// A run blocks: one thread of the processor owns all runs, starts the next the moment the last has
// ended, and needs no callbacks from threads of the vendor's.
//
// Providers are shared libraries that the engine loads on first use, so that a vendor's runtime
// costs nothing where no NPU is asked for. They report errors as Status and never throw.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/memory.h"
#include "base/status.h"
#include "gguf/dtype.h"

namespace hetero {

/// `rows` consecutive rows of one weight, in blocks of its dtype as in the file, and a bias for each
/// row (nullptr: none).
struct NpuSegment {
  int64_t rows = 0;
  DType dtype = DType::kF32;
  const std::byte* weight = nullptr;
  const std::byte* bias = nullptr;
  DType bias_dtype = DType::kF32;  // F32, F16 or BF16

  auto operator<=>(const NpuSegment&) const = default;
};

/// All that a graph is compiled for: y [tokens, sum of rows] = x [tokens, k] W^T + b, with the
/// segments' rows stacked in W. Exchanged, the graph computes y^T = W x^T, and transposes that: arrays that
/// hold one operand still then hold the other one (OpSlice::exchanged). x and y are the same.
struct NpuLinear {
  int64_t tokens = 0;  // 0, where the device can: any number
  int64_t k = 0;
  std::vector<NpuSegment> segments;
  bool exchanged = false;

  auto operator<=>(const NpuLinear&) const = default;
};

/// Row-major f32 matrices of a run; strides in elements, from one row to the next.
struct NpuRun {
  int64_t tokens = 0;
  const float* x = nullptr;
  int64_t x_stride = 0;
  float* y = nullptr;
  int64_t y_stride = 0;
};

/// A compiled graph.
class NpuGraph {
 public:
  virtual ~NpuGraph() = default;
  /// Computes and returns when y is written. Calls never overlap, also not with those on other
  /// graphs of the device, but may overlap with compile().
  virtual Status run(const NpuRun& run) = 0;
  /// Does now what the device would otherwise do in the first run of so many tokens, which then takes
  /// many times as long as later ones. May overlap with run(). Nothing to do for static shapes.
  virtual Status prepare(int64_t /*tokens*/) { return {}; }
};

/// An open device. Outlives its graphs.
class NpuDevice {
 public:
  virtual ~NpuDevice() = default;
  virtual bool supports(DType dtype) const = 0;
  /// Graphs take any number of tokens (NpuLinear::tokens is 0), so that one holds the weights for
  /// all lengths.
  virtual bool any_tokens() const = 0;
  /// Whether compile() finds the graph in the cache on disk. Like it, called by one thread at a time.
  virtual bool is_cached(const NpuLinear& linear) = 0;
  /// Copies what it needs of weights and biases.
  virtual Result<std::unique_ptr<NpuGraph>> compile(const NpuLinear& linear) = 0;
  /// Memory held for graphs, as far as the provider knows it.
  virtual Bytes bytes() const = 0;
};

struct NpuDeviceInfo {
  std::string device;  // the vendor's short name for it: "NPU", "CPU"
  std::string name;
  std::string driver;
  bool stand_in = false;
  Bytes memory_bytes = 0;  // 0: the machine's
  double unit_roundoff = 0x1p-11;
  std::vector<std::string> features;
};

struct NpuOptions {
  int threads = 1;        // of a stand-in
  std::string cache_dir;  // for compiled graphs; empty: none
  /// Compile for exact numbers of tokens, where the device could also take any.
  bool static_shapes = false;
};

class NpuProvider {
 public:
  virtual ~NpuProvider() = default;
  virtual const char* name() const = 0;
  virtual std::vector<NpuDeviceInfo> devices() = 0;
  virtual Result<std::unique_ptr<NpuDevice>> open(const NpuDeviceInfo& info, const NpuOptions& options) = 0;
};

/// Changes with this header: a provider built from another version of it is not used.
inline constexpr int kNpuProviderVersion = 5;

/// What a provider's library exports as "hetero_npu_provider": the provider, which lives as long
/// as the library, or nullptr if it was built for another version or cannot start.
using NpuProviderFactory = NpuProvider*(int version);

/// The provider in a library beside the executable, or else where the loader looks; nullptr if
/// there is none. Libraries stay loaded until the process ends, since vendors' runtimes keep
/// threads.
NpuProvider* load_npu_provider(const char* library);

}  // namespace hetero
