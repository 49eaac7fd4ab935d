// What a vendor's NPU library must give: devices, graphs compiled for one static shape with the
// weights left open, and runs of them on user memory. The NPU processor adds the queue, the
// timeline, and the sharing of graphs; a provider has no threads or queues of its own.
//
// A run blocks: one thread of the processor owns all runs, binds and starts the next the moment
// the last has ended, and needs no callbacks from threads of the vendor's.
//
// Providers are shared libraries that the engine loads on first use, so that a vendor's runtime
// costs nothing where no NPU is asked for. They report errors as Status and never throw.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/memory.h"
#include "base/status.h"
#include "gguf/dtype.h"

namespace hetero {

/// `rows` consecutive rows of one weight.
struct NpuSegment {
  int64_t rows = 0;
  DType dtype = DType::kF32;
  bool bias = false;

  auto operator<=>(const NpuSegment&) const = default;
};

/// All that a graph is compiled for: y [tokens, sum of rows] = x [tokens, k] W^T + b, with the
/// segments' rows stacked in W. Layers with equal shapes share one graph.
struct NpuShape {
  int64_t tokens = 0;
  int64_t k = 0;
  std::vector<NpuSegment> segments;

  auto operator<=>(const NpuShape&) const = default;
};

/// A segment's first row, in blocks of its dtype as in the file, and its biases (nullptr: none).
/// Both outlive the NpuWeights that are made from them.
struct NpuOperand {
  const std::byte* weight = nullptr;
  const float* bias = nullptr;
};

/// Weights in the form in which a graph's runs take them: views of the file, or copies.
class NpuWeights {
 public:
  virtual ~NpuWeights() = default;
};

/// Row-major f32 matrices of a run; strides in elements, from one row to the next.
struct NpuRun {
  const float* x = nullptr;
  int64_t x_stride = 0;
  float* y = nullptr;
  int64_t y_stride = 0;
};

/// A compiled graph. Outlives the weights bound to it.
class NpuGraph {
 public:
  virtual ~NpuGraph() = default;
  /// `operands` follow the shape's segments.
  virtual Result<std::unique_ptr<NpuWeights>> bind(std::span<const NpuOperand> operands) = 0;
  /// Computes and returns when y is written. Calls never overlap, also not with those on other
  /// graphs of the device, but may overlap with compile() and bind().
  virtual Status run(const NpuWeights& weights, const NpuRun& run) = 0;
};

/// An open device. Outlives its graphs.
class NpuDevice {
 public:
  virtual ~NpuDevice() = default;
  virtual bool supports(DType dtype) const = 0;
  virtual Result<std::unique_ptr<NpuGraph>> compile(const NpuShape& shape) = 0;
  /// Memory held for graphs and for copies of weights, as far as the provider knows it.
  virtual Bytes bytes() const = 0;
};

struct NpuDeviceInfo {
  std::string device;  // the vendor's short name for it: "NPU", "CPU"
  std::string name;
  std::string driver;
  bool stand_in = false;
  double unit_roundoff = 0x1p-11;
  std::vector<std::string> features;
};

struct NpuOptions {
  int threads = 1;        // of a stand-in
  std::string cache_dir;  // for compiled graphs; empty: none
  /// Give the device copies of weights and activations without gaps, where it could also take
  /// views with strides.
  bool dense = false;
};

class NpuProvider {
 public:
  virtual ~NpuProvider() = default;
  virtual const char* name() const = 0;
  virtual std::vector<NpuDeviceInfo> devices() = 0;
  virtual Result<std::unique_ptr<NpuDevice>> open(const NpuDeviceInfo& info, const NpuOptions& options) = 0;
};

/// Changes with this header: a provider built from another version of it is not used.
inline constexpr int kNpuProviderVersion = 1;

/// What a provider's library exports as "hetero_npu_provider": the provider, which lives as long
/// as the library, or nullptr if it was built for another version or cannot start.
using NpuProviderFactory = NpuProvider*(int version);

/// The provider in a library beside the executable, or else where the loader looks; nullptr if
/// there is none. Libraries stay loaded until the process ends, since vendors' runtimes keep
/// threads.
NpuProvider* load_npu_provider(const char* library);

}  // namespace hetero
