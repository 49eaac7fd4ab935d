// OpenVINO as an NPU provider: its device NPU (Intel), and its device CPU as a stand-in that runs
// the same graphs. The only file that includes OpenVINO's headers; built as a library of its own.
//
// Weights are constants in the form that repack.h describes, which OpenVINO's compilers keep and
// decode inside of the product: numbers of 4 or 8 bits, converted, times a scale for each group.
// Offsets of groups are not part of that pattern (a zero point in f32 crashes the CPU device of
// OpenVINO 2026.4.1), so they make a second, small product: of each group's sum of x with the offsets.
#include <fmt/format.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>
#include <mutex>
#include <openvino/op/ops.hpp>
#include <openvino/openvino.hpp>
#include <set>
#include <sstream>
#include <type_traits>
#include <utility>

#include "gguf/dequantize.h"
#include "npu/blob_cache.h"
#include "npu/provider.h"
#include "npu/repack.h"

namespace hetero {
namespace {

using NodePtr = std::shared_ptr<ov::Node>;

/// Everything that OpenVINO throws becomes a Status.
template <class F>
auto guarded(const std::string& what, F f) -> decltype(f()) {
  try {
    return f();
  } catch (const std::exception& e) {
    std::string message = e.what();
    std::replace(message.begin(), message.end(), '\n', ' ');
    return device_lost(fmt::format("{}: {}", what, message));
  } catch (...) {
    return device_lost(what + ": unknown error");
  }
}

ov::Shape shape_of(std::initializer_list<int64_t> dims) {
  ov::Shape shape;
  for (const int64_t dim : dims) {
    shape.push_back(static_cast<size_t>(dim));
  }
  return shape;
}

// Nodes of the graph.

NodePtr to_f32(const NodePtr& node) {
  return node->get_element_type() == ov::element::f32
             ? node
             : std::make_shared<ov::op::v0::Convert>(node, ov::element::f32);
}

NodePtr integers(std::vector<int64_t> values) {
  const size_t count = values.size();
  return ov::op::v0::Constant::create(ov::element::i64, {count}, values);
}

NodePtr reshape(const NodePtr& node, std::vector<int64_t> dims) {
  return std::make_shared<ov::op::v1::Reshape>(node, integers(std::move(dims)), false);
}

NodePtr add(const NodePtr& a, const NodePtr& b) {
  return std::make_shared<ov::op::v1::Add>(a, b);
}

/// Segments that follow each other and have one dtype: rows of one constant.
std::vector<std::vector<NpuSegment>> same_types(const std::vector<NpuSegment>& segments) {
  std::vector<std::vector<NpuSegment>> runs;
  for (const NpuSegment& s : segments) {
    if (runs.empty() || runs.back().front().dtype != s.dtype) {
      runs.emplace_back();
    }
    runs.back().push_back(s);
  }
  return runs;
}

ov::element::Type plain_type(DType dtype) {
  return dtype == DType::kF32   ? ov::element::f32
         : dtype == DType::kF16 ? ov::element::f16
                                : ov::element::bf16;
}

/// A graph on its way to the compiler.
class Builder {
 public:
  explicit Builder(const NpuLinear& linear) : linear_(linear) {}

  /// Input: x. Output: y.
  std::shared_ptr<ov::Model> build() {
    const auto tokens = linear_.tokens > 0 ? ov::Dimension(linear_.tokens) : ov::Dimension::dynamic();
    const auto x = std::make_shared<ov::op::v0::Parameter>(
        ov::element::f32, ov::PartialShape{tokens, ov::Dimension(linear_.k)});
    ov::OutputVector parts;
    for (const std::vector<NpuSegment>& run : same_types(linear_.segments)) {
      parts.push_back(product(x, run));
    }
    NodePtr y = parts.size() == 1 ? parts[0].get_node_shared_ptr()
                                  : std::make_shared<ov::op::v0::Concat>(parts, linear_.exchanged ? 0 : 1);
    if (std::any_of(linear_.segments.begin(), linear_.segments.end(),
                    [](const NpuSegment& s) { return s.bias; })) {
      y = add(y, biases());
    }
    if (linear_.exchanged) {
      y = std::make_shared<ov::op::v1::Transpose>(y, integers({1, 0}));
    }
    return std::make_shared<ov::Model>(ov::OutputVector{y}, ov::ParameterVector{x});
  }

  Bytes bytes() const { return bytes_; }

 private:
  /// x w^T; exchanged, its transpose w x^T, which is the layout of all up to the last node.
  NodePtr matmul(const NodePtr& x, const NodePtr& w) const {
    return linear_.exchanged ? std::make_shared<ov::op::v0::MatMul>(w, x, false, true)
                             : std::make_shared<ov::op::v0::MatMul>(x, w, false, true);
  }

  /// A tensor that the graph will own.
  ov::Tensor tensor(ov::element::Type type, const ov::Shape& shape) {
    ov::Tensor t(type, shape);
    bytes_ += static_cast<Bytes>(t.get_byte_size());
    return t;
  }

  NodePtr product(const NodePtr& x, const std::vector<NpuSegment>& run) {
    const DType dtype = run.front().dtype;
    const PackedForm form = packed_form(dtype);
    const int64_t k = linear_.k;
    int64_t rows = 0;
    for (const NpuSegment& s : run) {
      rows += s.rows;
    }
    if (form.bits == 0) {
      ov::Tensor weights = tensor(plain_type(dtype), shape_of({rows, k}));
      auto* to = static_cast<std::byte*>(weights.data());
      for (const NpuSegment& s : run) {
        const auto size = static_cast<size_t>(s.rows * row_bytes(dtype, k));
        std::memcpy(to, s.weight, size);
        to += size;
      }
      return matmul(x, to_f32(std::make_shared<ov::op::v0::Constant>(weights)));
    }
    const int64_t groups = k / form.group;
    ov::Tensor numbers = tensor(form.bits == 8   ? ov::element::i8
                                : form.is_signed ? ov::element::i4
                                                 : ov::element::u4,
                                shape_of({rows, groups, form.group}));
    ov::Tensor scales = tensor(ov::element::f32, shape_of({rows, groups, 1}));
    ov::Tensor offsets = form.offsets ? tensor(ov::element::f32, shape_of({rows, groups})) : ov::Tensor();
    auto* numbers_to = static_cast<std::byte*>(numbers.data());
    auto* scales_to = scales.data<float>();
    auto* offsets_to = form.offsets ? offsets.data<float>() : nullptr;
    for (const NpuSegment& s : run) {
      repack(dtype, s.weight, s.rows * k, numbers_to, scales_to, offsets_to);
      numbers_to += s.rows * k * form.bits / 8;
      scales_to += s.rows * groups;
      offsets_to = form.offsets ? offsets_to + s.rows * groups : nullptr;
    }
    const NodePtr decoded =
        std::make_shared<ov::op::v1::Multiply>(to_f32(std::make_shared<ov::op::v0::Constant>(numbers)),
                                               std::make_shared<ov::op::v0::Constant>(scales));
    const NodePtr y = matmul(x, reshape(decoded, {rows, k}));
    if (!form.offsets) {
      return y;
    }
    const NodePtr sums =
        std::make_shared<ov::op::v1::ReduceSum>(reshape(x, {-1, groups, form.group}), integers({2}), false);
    return add(y, matmul(sums, std::make_shared<ov::op::v0::Constant>(offsets)));
  }

  NodePtr biases() {
    int64_t rows = 0;
    for (const NpuSegment& s : linear_.segments) {
      rows += s.rows;
    }
    ov::Tensor biases =
        tensor(ov::element::f32, linear_.exchanged ? shape_of({rows, 1}) : shape_of({1, rows}));
    auto* to = biases.data<float>();
    for (const NpuSegment& s : linear_.segments) {
      if (s.bias == nullptr) {
        std::fill_n(to, s.rows, 0.0f);
      } else {
        dequantize(s.bias_dtype, s.bias, s.rows, to);
      }
      to += s.rows;
    }
    return std::make_shared<ov::op::v0::Constant>(biases);
  }

  const NpuLinear& linear_;
  Bytes bytes_ = 0;
};

class OpenVinoGraph : public NpuGraph {
 public:
  OpenVinoGraph(const ov::CompiledModel& compiled, const NpuLinear& linear, std::string device, Bytes bytes,
                std::shared_ptr<std::atomic<Bytes>> counter)
      : request_(ov::CompiledModel(compiled).create_infer_request()),
        any_tokens_(linear.tokens == 0),
        k_(linear.k),
        device_(std::move(device)),
        bytes_(bytes),
        counter_(std::move(counter)) {
    for (const NpuSegment& s : linear.segments) {
      n_ += s.rows;
    }
    counter_->fetch_add(bytes_);
  }
  ~OpenVinoGraph() override { counter_->fetch_sub(bytes_); }
  OpenVinoGraph(const OpenVinoGraph&) = delete;
  OpenVinoGraph& operator=(const OpenVinoGraph&) = delete;

  Status run(const NpuRun& run) override {
    return guarded(fmt::format("OpenVINO on {} failed", device_), [&]() -> Status {
      const std::lock_guard lock(mutex_);
      // The caller's memory where its rows follow each other, else a copy that does.
      const int64_t m = run.tokens;
      const float* x = run.x;
      if (m > 1 && run.x_stride != k_) {
        x_.resize(static_cast<size_t>(m * k_));
        for (int64_t t = 0; t < m; ++t) {
          std::copy_n(run.x + t * run.x_stride, k_, x_.data() + t * k_);
        }
        x = x_.data();
      }
      const bool scatter = m > 1 && run.y_stride != n_;
      if (scatter) {
        y_.resize(static_cast<size_t>(m * n_));
      }
      float* y = scatter ? y_.data() : run.y;
      request_.set_input_tensor(ov::Tensor(ov::element::f32, shape_of({m, k_}), static_cast<const void*>(x)));
      request_.set_output_tensor(ov::Tensor(ov::element::f32, shape_of({m, n_}), static_cast<void*>(y)));
      request_.infer();
      for (int64_t t = 0; scatter && t < m; ++t) {
        std::copy_n(y + t * n_, n_, run.y + t * run.y_stride);
      }
      return {};
    });
  }

  /// The CPU device makes its kernels for a number of rows, and orders the weights, in the first run.
  Status prepare(int64_t tokens) override {
    if (!any_tokens_ || !prepared_.insert(tokens).second) {
      return {};
    }
    const std::vector<float> x(static_cast<size_t>(tokens * k_));
    std::vector<float> y(static_cast<size_t>(tokens * n_));
    return run({tokens, x.data(), k_, y.data(), n_});
  }

 private:
  std::mutex mutex_;  // of runs: prepare() is called by who compiles
  ov::InferRequest request_;
  bool any_tokens_ = false;
  std::set<int64_t> prepared_;  // numbers of tokens
  int64_t k_ = 0;
  int64_t n_ = 0;
  std::string device_;
  std::vector<float> x_;
  std::vector<float> y_;
  Bytes bytes_ = 0;
  std::shared_ptr<std::atomic<Bytes>> counter_;
};

class Device : public NpuDevice {
 public:
  Device(ov::Core core, NpuDeviceInfo info, const NpuOptions& options)
      : core_(std::move(core)), info_(std::move(info)), cache_(options.cache_dir) {
    // Graphs without a fixed shape are known to run on the CPU device only.
    any_tokens_ = info_.stand_in && !options.static_shapes;
    config_ = {ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY)};
    if (info_.stand_in) {
      config_.insert(
          {ov::inference_num_threads(options.threads), ov::num_streams(1),
           ov::hint::enable_cpu_pinning(false),     // threads stay where the caller's affinity puts them
           ov::hint::enable_hyper_threading(true),  // as many threads as were asked for
           ov::hint::inference_precision(ov::element::f32), ov::hint::dynamic_quantization_group_size(0)});
    }
  }

  bool supports(DType dtype) const override { return dtype != DType::kI32; }
  bool any_tokens() const override { return any_tokens_; }
  Bytes bytes() const override { return bytes_->load(); }

  bool is_cached(const NpuLinear& linear) override { return cache_.has(cache_key(linear)); }

  Result<std::unique_ptr<NpuGraph>> compile(const NpuLinear& linear) override {
    return guarded(fmt::format("OpenVINO on {} cannot compile a graph", info_.device),
                   [&]() -> Result<std::unique_ptr<NpuGraph>> {
                     const std::string key = cache_key(linear);
                     Bytes bytes = 0;
                     ov::CompiledModel compiled = load(key, bytes);
                     if (!compiled) {
                       Builder builder(linear);
                       compiled = core_.compile_model(builder.build(), info_.device, config_);
                       bytes = builder.bytes();
                       store(key, compiled);
                     }
                     auto graph =
                         std::make_unique<OpenVinoGraph>(compiled, linear, info_.device, bytes, bytes_);
#if defined(__GLIBC__)
                     malloc_trim(0);  // compiling leaves some 5 MB of freed heap behind each graph
#endif
                     return std::unique_ptr<NpuGraph>(std::move(graph));
                   });
  }

 private:
  std::string cache_key(const NpuLinear& linear) const {
    std::string key = fmt::format("openvino|{}|{}|{}|graph 2|m={} k={}", info_.device, info_.name,
                                  info_.driver, linear.tokens, linear.k);
    for (const NpuSegment& s : linear.segments) {
      const Bytes bias_bytes = s.bias == nullptr ? 0 : s.rows * row_bytes(s.bias_dtype, 1);
      key += fmt::format(" {}:{} {:016x} {:016x}", static_cast<uint32_t>(s.dtype), s.rows,
                         hash_bytes(s.weight, s.rows * row_bytes(s.dtype, linear.k)),
                         hash_bytes(s.bias, bias_bytes));
    }
    key += linear.exchanged ? " exchanged" : "";
    for (const auto& [name, value] : config_) {
      key += fmt::format("|{}={}", name, value.as<std::string>());
    }
    return key;
  }

  /// Empty where the cache has nothing that this device takes.
  ov::CompiledModel load(const std::string& key, Bytes& bytes) {
    if (const std::optional<std::string> blob = cache_.load(key)) {
      try {
        std::istringstream stream(*blob);
        bytes = static_cast<Bytes>(blob->size());  // little but weights
        return core_.import_model(stream, info_.device, config_);
      } catch (const std::exception&) {
        // A blob that this device no longer takes is as good as none.
      }
    }
    return {};
  }

  void store(const std::string& key, ov::CompiledModel& compiled) {
    if (!cache_.keeps()) {
      return;
    }
    try {
      std::ostringstream stream;
      compiled.export_model(stream);
      cache_.store(key, std::move(stream).str());
    } catch (const std::exception&) {
      // Not every device can export.
    }
  }

  ov::Core core_;
  NpuDeviceInfo info_;
  BlobCache cache_;
  ov::AnyMap config_;
  bool any_tokens_ = false;
  std::shared_ptr<std::atomic<Bytes>> bytes_ = std::make_shared<std::atomic<Bytes>>(0);
};

/// As OpenVINO calls its CPU device.
std::string cpu_name() {
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    if (line.starts_with("model name")) {
      const size_t begin = line.find_first_not_of(" \t", line.find(':') + 1);
      return begin == std::string::npos ? "CPU" : line.substr(begin);
    }
  }
  return "CPU";
}

/// Loads the plugin of the CPU device so that its threads stay where the caller confines them.
/// Its oneTBB would undo that in two ways. It starts its threads on the CPUs that the process had
/// when it was loaded, so the first caller must be confined already. And it moves all that enter
/// a run to all CPUs of their NUMA node, unless hwloc, through which it does so, is told that it
/// describes another machine; then hwloc binds nothing. Throws.
///
/// Its oneDNN keeps the code of the last 1024 kernels, of graphs long gone too: each engine that cuts weights
/// anew would add megabytes. 128 are more than one model's graphs have.
void load_cpu_plugin(ov::Core& core) {
  setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128", 0);
  constexpr const char* kVariable = "HWLOC_THISSYSTEM";
  const bool ours = std::getenv(kVariable) == nullptr && setenv(kVariable, "0", 1) == 0;
  try {
    (void)core.get_property("CPU", ov::device::full_name);
  } catch (...) {
    if (ours) {
      unsetenv(kVariable);
    }
    throw;
  }
  if (ours) {
    unsetenv(kVariable);
  }
}

class OpenVino : public NpuProvider {
 public:
  const char* name() const override { return "openvino"; }

  std::vector<NpuDeviceInfo> devices() override {
    std::vector<NpuDeviceInfo> devices;
    const std::string version = fmt::format("OpenVINO {}", ov::get_openvino_version().buildNumber);
    // By name: asking for all devices would load every plugin, GPU drivers included.
    try {
      if (!core_.get_property("NPU", ov::available_devices).empty()) {
        NpuDeviceInfo info;
        info.device = "NPU";
        info.name = core_.get_property("NPU", ov::device::full_name);
        info.driver = fmt::format("{}, NPU driver {}", version,
                                  core_.get_property("NPU", "NPU_DRIVER_VERSION").as<std::string>());
        info.memory_bytes =
            static_cast<Bytes>(core_.get_property("NPU", "NPU_DEVICE_TOTAL_MEM_SIZE").as<uint64_t>());
        info.features = {"fp16"};
        devices.push_back(std::move(info));
      }
    } catch (const std::exception&) {
      // None on this machine.
    }
    NpuDeviceInfo stand_in;
    stand_in.device = "CPU";
    stand_in.name = cpu_name();  // not asked of the device, whose plugin is loaded by open()
    stand_in.driver = version;
    stand_in.stand_in = true;
    stand_in.unit_roundoff = 0x1p-24;
    stand_in.features = {"fp32"};
    devices.push_back(std::move(stand_in));
    return devices;
  }

  Result<std::unique_ptr<NpuDevice>> open(const NpuDeviceInfo& info, const NpuOptions& options) override {
    return guarded("OpenVINO cannot open " + info.device, [&]() -> Result<std::unique_ptr<NpuDevice>> {
      if (info.stand_in) {
        load_cpu_plugin(core_);
      }
      return std::unique_ptr<NpuDevice>(std::make_unique<Device>(core_, info, options));
    });
  }

 private:
  ov::Core core_;
};

}  // namespace
}  // namespace hetero

extern "C" __attribute__((visibility("default"))) hetero::NpuProvider* hetero_npu_provider(int version) {
  if (version != hetero::kNpuProviderVersion) {
    return nullptr;
  }
  try {
    // Never destroyed: at exit the vendor's threads may go before or after our statics.
    static auto* const provider = new hetero::OpenVino;
    return provider;
  } catch (const std::exception&) {
    return nullptr;  // the libraries are there, their plugins are not
  }
}
