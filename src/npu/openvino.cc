// OpenVINO as an NPU provider: its device NPU (Intel), and its device CPU as a stand-in that runs
// the same graphs. The only file that includes OpenVINO's headers; built as a library of its own.
//
// A graph takes the blocks of GGUF files as inputs and decodes them itself, so that weights are
// bound, never compiled in. Where a device takes tensors with strides, the inputs are views of
// the mapped file: a block's scales, minimums and quants are three views of the same bytes.
//
// 4-bit blocks hold element j in the low half of byte j and element j + 16 in the high half. The
// graph splits the columns of x the same way and multiplies twice, which saves writing the
// decoded weights once more in the order of columns (measured: twice as fast for one token).
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
#include <limits>
#include <map>
#include <mutex>
#include <openvino/op/ops.hpp>
#include <openvino/openvino.hpp>
#include <sstream>
#include <type_traits>
#include <utility>

#include "npu/blob_cache.h"
#include "npu/provider.h"

namespace hetero {
namespace {

using NodePtr = std::shared_ptr<ov::Node>;

/// A graph on the CPU decodes at most this many bytes of weights at a time; larger matrices run in
/// tiles of rows, one after the other through one graph. This bounds scratch memory (a vocabulary's
/// matrix in f32 can be larger than the whole model file) and keeps it in the cache: with 49152
/// rows of 576, one token takes 13 ms in tiles of 2 or 4 MiB, 16 in 8, 25 in 16, and 37 in one.
constexpr Bytes kTileBytes = 4 << 20;

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

/// One input tensor of a segment: where its elements lie inside of a block.
struct Field {
  ov::element::Type type;
  int64_t offset = 0;  // bytes from the block's start
  int64_t count = 0;   // elements of each block
};

/// How a dtype's blocks are laid out. Source: the GGUF specification's block formats.
struct Layout {
  int64_t block_elements = 1;
  int64_t block_bytes = 0;
  std::vector<Field> fields;  // quants or values first, then scale, then minimum
};

const Layout* find_layout(DType dtype) {
  static const std::map<DType, Layout> layouts = {
      {DType::kF32, {1, 4, {{ov::element::f32, 0, 1}}}},
      {DType::kF16, {1, 2, {{ov::element::f16, 0, 1}}}},
      {DType::kBF16, {1, 2, {{ov::element::bf16, 0, 1}}}},
      {DType::kQ4_0, {32, 18, {{ov::element::u8, 2, 16}, {ov::element::f16, 0, 1}}}},
      {DType::kQ4_1,
       {32, 20, {{ov::element::u8, 4, 16}, {ov::element::f16, 0, 1}, {ov::element::f16, 2, 1}}}},
      {DType::kQ8_0, {32, 34, {{ov::element::i8, 2, 32}, {ov::element::f16, 0, 1}}}},
  };
  const auto it = layouts.find(dtype);
  return it == layouts.end() ? nullptr : &it->second;
}

ov::Shape shape_of(std::initializer_list<int64_t> dims) {
  ov::Shape shape;
  for (const int64_t dim : dims) {
    shape.push_back(static_cast<size_t>(dim));
  }
  return shape;
}

ov::Shape field_shape(const Layout& layout, const Field& field, int64_t rows, int64_t k) {
  return layout.block_elements == 1 ? shape_of({rows, k})
                                    : shape_of({rows, k / layout.block_elements, field.count});
}

/// Rows [row, row + rows) of a shape's segment, written to columns from `out`.
struct Piece {
  size_t segment = 0;
  int64_t row = 0;
  int64_t out = 0;
  NpuSegment what;
};

/// The number of equal tiles, if there is one nearby, into which to cut `rows`.
int64_t tile_count(int64_t rows, int64_t most) {
  const int64_t fewest = rows / most + (rows % most != 0 ? 1 : 0);
  for (int64_t count = fewest; count <= fewest + fewest / 4; ++count) {
    if (rows % count == 0) {
      return count;
    }
  }
  return fewest;
}

/// Cuts a shape into parts of at most `most` rows, which run one after the other.
std::vector<std::vector<Piece>> cut(const NpuShape& shape, int64_t most) {
  std::vector<std::vector<Piece>> parts;
  int64_t left = 0;  // rows that still fit into the last part
  int64_t out = 0;
  for (size_t s = 0; s < shape.segments.size(); ++s) {
    const NpuSegment& segment = shape.segments[s];
    const int64_t count = tile_count(segment.rows, most);
    const int64_t tile = (segment.rows + count - 1) / count;
    for (int64_t row = 0; row < segment.rows; row += tile) {
      const int64_t rows = std::min(tile, segment.rows - row);
      if (parts.empty() || rows > left) {
        parts.emplace_back();
        left = most;
      }
      left -= rows;
      parts.back().push_back({s, row, out, {rows, segment.dtype, segment.bias}});
      out += rows;
    }
  }
  return parts;
}

// Nodes of the graph.

NodePtr constant(float value) {
  return ov::op::v0::Constant::create(ov::element::f32, {}, {value});
}

NodePtr to_f32(const NodePtr& node) {
  return node->get_element_type() == ov::element::f32
             ? node
             : std::make_shared<ov::op::v0::Convert>(node, ov::element::f32);
}

NodePtr reshape(const NodePtr& node, std::vector<int64_t> dims) {
  const size_t rank = dims.size();
  return std::make_shared<ov::op::v1::Reshape>(
      node, ov::op::v0::Constant::create(ov::element::i64, {rank}, dims), false);
}

NodePtr multiply(const NodePtr& a, const NodePtr& b) {
  return std::make_shared<ov::op::v1::Multiply>(a, b);
}
NodePtr add(const NodePtr& a, const NodePtr& b) {
  return std::make_shared<ov::op::v1::Add>(a, b);
}

NodePtr matmul(const NodePtr& x, const NodePtr& w) {
  return std::make_shared<ov::op::v0::MatMul>(x, w, false, true);
}

/// The columns of x [m, k] that belong to the low (0) or high (1) halves of 4-bit blocks, [m, k/2].
NodePtr half_columns(const NodePtr& x, int64_t m, int64_t k, int64_t half) {
  const NodePtr blocks = reshape(x, {m, k / 32, 2, 16});
  const auto index = ov::op::v0::Constant::create(ov::element::i64, {}, {half});
  const auto axis = ov::op::v0::Constant::create(ov::element::i64, {}, {2});
  return reshape(std::make_shared<ov::op::v8::Gather>(blocks, index, axis), {m, k / 2});
}

/// x W^T for one piece, whose fields arrive as `inputs`.
NodePtr product(const NodePtr& x, const std::vector<NodePtr>& inputs, DType dtype, int64_t rows, int64_t m,
                int64_t k) {
  const NodePtr values = to_f32(inputs[0]);
  if (inputs.size() == 1) {
    return matmul(x, values);
  }
  const NodePtr scale = to_f32(inputs[1]);
  if (dtype == DType::kQ8_0) {
    return matmul(x, reshape(multiply(values, scale), {rows, k}));
  }
  const NodePtr high = std::make_shared<ov::op::v0::Floor>(multiply(values, constant(0x1p-4f)));
  const NodePtr low = std::make_shared<ov::op::v1::Subtract>(values, multiply(high, constant(16.0f)));
  const auto half = [&](const NodePtr& quants, int64_t which) {
    const NodePtr weights =
        dtype == DType::kQ4_1
            ? add(multiply(quants, scale), to_f32(inputs[2]))
            : multiply(std::make_shared<ov::op::v1::Subtract>(quants, constant(8.0f)), scale);
    return matmul(half_columns(x, m, k, which), reshape(weights, {rows, k / 2}));
  };
  return add(half(low, 0), half(high, 1));
}

/// Inputs: x, then each piece's fields and bias. Outputs: one for each piece.
std::shared_ptr<ov::Model> build_model(int64_t m, int64_t k, const std::vector<Piece>& pieces) {
  ov::ParameterVector parameters;
  const auto parameter = [&](ov::element::Type type, const ov::Shape& shape) {
    parameters.push_back(std::make_shared<ov::op::v0::Parameter>(type, shape));
    return parameters.back();
  };
  const NodePtr x = parameter(ov::element::f32, shape_of({m, k}));
  ov::OutputVector results;
  for (const Piece& piece : pieces) {
    const Layout& layout = *find_layout(piece.what.dtype);
    std::vector<NodePtr> inputs;
    for (const Field& field : layout.fields) {
      inputs.push_back(parameter(field.type, field_shape(layout, field, piece.what.rows, k)));
    }
    NodePtr y = product(x, inputs, piece.what.dtype, piece.what.rows, m, k);
    if (piece.what.bias) {
      y = add(y, parameter(ov::element::f32, shape_of({1, piece.what.rows})));
    }
    results.emplace_back(y);
  }
  return std::make_shared<ov::Model>(results, parameters);
}

/// Copies of weights without gaps, shared by the executables that use the same rows.
struct DenseWeights {
  std::vector<ov::Tensor> tensors;
  std::shared_ptr<std::atomic<Bytes>> counter;
  Bytes size = 0;

  ~DenseWeights() { counter->fetch_sub(size); }
};

class Weights : public NpuWeights {
 public:
  /// For each part of the graph: the tensors of its inputs after x.
  std::vector<std::vector<ov::Tensor>> parts;
  std::vector<std::shared_ptr<DenseWeights>> copies;
};

class Device;

class OpenVinoGraph : public NpuGraph {
 public:
  OpenVinoGraph(Device& device, const NpuShape& shape) : device_(device), shape_(shape) {}
  ~OpenVinoGraph() override;

  void compile();  // throws
  Result<std::unique_ptr<NpuWeights>> bind(std::span<const NpuOperand> operands) override;
  Status run(const NpuWeights& weights, const NpuRun& run) override;

 private:
  struct Part {
    std::vector<Piece> pieces;
    size_t request = 0;  // parts that only differ in rows share one
  };

  Device& device_;
  NpuShape shape_;
  std::vector<Part> parts_;
  std::vector<ov::InferRequest> requests_;
  std::vector<float> dense_x_;
  std::vector<float> dense_y_;
  Bytes size_ = 0;
};

class Device : public NpuDevice {
 public:
  Device(ov::Core core, NpuDeviceInfo info, const NpuOptions& options)
      : core_(std::move(core)), info_(std::move(info)), cache_(options.cache_dir) {
    // Taking views with strides is known of the CPU device only.
    dense_ = options.dense || !info_.stand_in;
    config_ = {ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY)};
    if (info_.stand_in) {
      config_.insert(
          {ov::inference_num_threads(options.threads), ov::num_streams(1),
           ov::hint::enable_cpu_pinning(false),     // threads stay where the caller's affinity puts them
           ov::hint::enable_hyper_threading(true),  // as many threads as were asked for
           ov::hint::inference_precision(ov::element::f32), ov::hint::dynamic_quantization_group_size(0)});
    }
  }

  bool supports(DType dtype) const override { return find_layout(dtype) != nullptr; }
  Bytes bytes() const override { return bytes_->load(); }
  bool dense() const { return dense_; }
  const NpuDeviceInfo& info() const { return info_; }
  const std::shared_ptr<std::atomic<Bytes>>& counter() const { return bytes_; }

  Result<std::unique_ptr<NpuGraph>> compile(const NpuShape& shape) override {
    return guarded(
        fmt::format("OpenVINO on {} cannot compile a graph for {} tokens", info_.device, shape.tokens),
        [&]() -> Result<std::unique_ptr<NpuGraph>> {
          auto graph = std::make_unique<OpenVinoGraph>(*this, shape);
          graph->compile();
#if defined(__GLIBC__)
          malloc_trim(0);  // compiling leaves some 5 MB of freed heap behind each graph
#endif
          return std::unique_ptr<NpuGraph>(std::move(graph));
        });
  }

  /// From the cache, or compiled and then cached. Throws.
  ov::CompiledModel compile_pieces(int64_t m, int64_t k, const std::vector<Piece>& pieces) {
    std::string key =
        fmt::format("openvino|{}|{}|{}|graph 1|m={} k={}", info_.device, info_.name, info_.driver, m, k);
    for (const Piece& piece : pieces) {
      key += fmt::format(" {}:{}{}", static_cast<uint32_t>(piece.what.dtype), piece.what.rows,
                         piece.what.bias ? "b" : "");
    }
    for (const auto& [name, value] : config_) {
      key += fmt::format("|{}={}", name, value.as<std::string>());
    }
    if (const std::optional<std::string> blob = cache_.load(key)) {
      try {
        std::istringstream stream(*blob);
        return core_.import_model(stream, info_.device, config_);
      } catch (const std::exception&) {
        // A blob that this device no longer takes is as good as none.
      }
    }
    ov::CompiledModel compiled = core_.compile_model(build_model(m, k, pieces), info_.device, config_);
    try {
      std::ostringstream stream;
      compiled.export_model(stream);
      cache_.store(key, stream.str());
    } catch (const std::exception&) {
      // Not every device can export.
    }
    return compiled;
  }

  /// The copy of `rows` rows at `blocks`; throws when out of memory.
  std::shared_ptr<DenseWeights> dense_copy(const std::byte* blocks, DType dtype, int64_t rows, int64_t k) {
    const std::lock_guard lock(mutex_);
    std::weak_ptr<DenseWeights>& shared = copies_[{blocks, rows}];
    if (auto copy = shared.lock()) {
      return copy;
    }
    const Layout& layout = *find_layout(dtype);
    auto copy = std::make_shared<DenseWeights>();
    copy->counter = bytes_;
    const int64_t count = rows * k / layout.block_elements;
    for (const Field& field : layout.fields) {
      ov::Tensor tensor(field.type, field_shape(layout, field, rows, k));
      auto* to = static_cast<std::byte*>(tensor.data());
      const size_t size = field.type.size() * static_cast<size_t>(field.count);
      const std::byte* from = blocks + field.offset;
      for (int64_t b = 0; b < count; ++b, from += layout.block_bytes, to += size) {
        std::memcpy(to, from, size);
      }
      copy->size += static_cast<Bytes>(tensor.get_byte_size());
      copy->tensors.push_back(std::move(tensor));
    }
    bytes_->fetch_add(copy->size);
    shared = copy;
    return copy;
  }

 private:
  ov::Core core_;
  NpuDeviceInfo info_;
  BlobCache cache_;
  ov::AnyMap config_;
  bool dense_ = false;
  std::mutex mutex_;
  std::map<std::pair<const std::byte*, int64_t>, std::weak_ptr<DenseWeights>> copies_;
  std::shared_ptr<std::atomic<Bytes>> bytes_ = std::make_shared<std::atomic<Bytes>>(0);
};

OpenVinoGraph::~OpenVinoGraph() {
  device_.counter()->fetch_sub(size_);
}

void OpenVinoGraph::compile() {
  std::map<std::vector<NpuSegment>, size_t> known;
  // Elsewhere than on the CPU, starting a run costs more than scratch memory.
  const int64_t most = device_.info().stand_in ? std::max<int64_t>(1, kTileBytes / (4 * shape_.k))
                                               : std::numeric_limits<int64_t>::max();
  for (std::vector<Piece>& pieces : cut(shape_, most)) {
    std::vector<NpuSegment> key;
    for (const Piece& piece : pieces) {
      key.push_back(piece.what);
    }
    const auto [it, is_new] = known.try_emplace(std::move(key), requests_.size());
    if (is_new) {
      requests_.push_back(device_.compile_pieces(shape_.tokens, shape_.k, pieces).create_infer_request());
      for (const Piece& piece : pieces) {
        size_ += 4 * piece.what.rows * shape_.k;  // decoded weights; what else a driver holds is not known
      }
    }
    parts_.push_back({std::move(pieces), it->second});
  }
  device_.counter()->fetch_add(size_);
}

Result<std::unique_ptr<NpuWeights>> OpenVinoGraph::bind(std::span<const NpuOperand> operands) {
  return guarded(fmt::format("OpenVINO on {} cannot bind weights", device_.info().device),
                 [&]() -> Result<std::unique_ptr<NpuWeights>> {
                   auto weights = std::make_unique<Weights>();
                   for (const Part& part : parts_) {
                     std::vector<ov::Tensor>& tensors = weights->parts.emplace_back();
                     for (const Piece& piece : part.pieces) {
                       const Layout& layout = *find_layout(piece.what.dtype);
                       const NpuOperand& operand = operands[piece.segment];
                       const int64_t row_bytes = shape_.k / layout.block_elements * layout.block_bytes;
                       const std::byte* blocks = operand.weight + piece.row * row_bytes;
                       if (device_.dense() && layout.block_elements > 1) {
                         auto copy = device_.dense_copy(blocks, piece.what.dtype, piece.what.rows, shape_.k);
                         tensors.insert(tensors.end(), copy->tensors.begin(), copy->tensors.end());
                         weights->copies.push_back(std::move(copy));
                       } else {
                         for (const Field& field : layout.fields) {
                           const ov::Shape shape = field_shape(layout, field, piece.what.rows, shape_.k);
                           ov::Strides strides;
                           if (layout.block_elements > 1) {
                             strides = {static_cast<size_t>(row_bytes),
                                        static_cast<size_t>(layout.block_bytes), field.type.size()};
                           }
                           tensors.emplace_back(field.type, shape,
                                                static_cast<const void*>(blocks + field.offset), strides);
                         }
                       }
                       if (piece.what.bias) {
                         tensors.emplace_back(ov::element::f32, shape_of({1, piece.what.rows}),
                                              static_cast<const void*>(operand.bias + piece.row));
                       }
                     }
                   }
                   return std::unique_ptr<NpuWeights>(std::move(weights));
                 });
}

/// A view of a row-major matrix.
template <class T>
ov::Tensor matrix(T* data, int64_t rows, int64_t cols, int64_t stride) {
  return {ov::element::f32, shape_of({rows, cols}),
          static_cast<std::conditional_t<std::is_const_v<T>, const void*, void*>>(data),
          ov::Strides{static_cast<size_t>(stride) * sizeof(float), sizeof(float)}};
}

Status OpenVinoGraph::run(const NpuWeights& bound, const NpuRun& run) {
  const auto& weights = static_cast<const Weights&>(bound);
  return guarded(fmt::format("OpenVINO on {} failed", device_.info().device), [&]() -> Status {
    const int64_t m = shape_.tokens;
    const float* x_data = run.x;
    int64_t x_stride = run.x_stride;
    if (device_.dense() && x_stride != shape_.k) {
      dense_x_.resize(static_cast<size_t>(m * shape_.k));
      for (int64_t t = 0; t < m; ++t) {
        std::copy_n(run.x + t * x_stride, shape_.k, dense_x_.data() + t * shape_.k);
      }
      x_data = dense_x_.data();
      x_stride = shape_.k;
    }
    const ov::Tensor x = matrix(x_data, m, shape_.k, x_stride);
    for (size_t p = 0; p < parts_.size(); ++p) {
      const Part& part = parts_[p];
      ov::InferRequest& request = requests_[part.request];
      request.set_input_tensor(0, x);
      for (size_t i = 0; i < weights.parts[p].size(); ++i) {
        request.set_input_tensor(i + 1, weights.parts[p][i]);
      }
      for (size_t i = 0; i < part.pieces.size() && !device_.dense(); ++i) {
        const Piece& piece = part.pieces[i];
        request.set_output_tensor(i, matrix(run.y + piece.out, m, piece.what.rows, run.y_stride));
      }
      request.infer();
      for (size_t i = 0; i < part.pieces.size() && device_.dense(); ++i) {
        const Piece& piece = part.pieces[i];
        const auto* y = request.get_output_tensor(i).data<const float>();
        for (int64_t t = 0; t < m; ++t) {
          std::copy_n(y + t * piece.what.rows, piece.what.rows, run.y + piece.out + t * run.y_stride);
        }
      }
    }
    return {};
  });
}

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
void load_cpu_plugin(ov::Core& core) {
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
