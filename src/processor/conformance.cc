#include "processor/conformance.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>

#include "base/f16.h"
#include "gguf/dequantize.h"
#include "graph/reference.h"
#include "processor/random_blocks.h"

namespace hetero {
namespace {

constexpr float kGuard = 12345.0f;  // fills what no kernel may touch
constexpr int64_t kContext = 160;

/// One operator with its weights, inputs and expected outputs.
struct Case {
  std::string name;
  Graph graph;
  std::vector<std::vector<std::byte>> weight_data;
  int64_t tokens = 1;
  int64_t position = 0;
  OpSlice slice;
  ValueId routes = -1;  // an input that holds experts' numbers and their weights
  int experts = 0;
};

class Generator {
 public:
  explicit Generator(uint32_t seed) : random_(seed) {}

  float normal() {  // sum of twelve uniforms: the same numbers with every standard library
    double sum = -6.0;
    for (int i = 0; i < 12; ++i) {
      sum += static_cast<double>(random_()) / 4294967296.0;
    }
    return static_cast<float>(sum);
  }
  std::mt19937& random() { return random_; }
  int64_t below(int64_t limit) { return static_cast<int64_t>(random_() % static_cast<uint32_t>(limit)); }

 private:
  std::mt19937 random_;
};

class CaseBuilder {
 public:
  CaseBuilder(std::string name, int64_t tokens, int64_t position)
      : generator_(static_cast<uint32_t>(name.size()) * 7919u + static_cast<uint32_t>(tokens)) {
    case_.name = std::move(name);
    case_.tokens = tokens;
    case_.position = position;
  }

  ValueId value(int64_t cols, Rows rows = Rows::kTokens, DType dtype = DType::kF32) {
    case_.graph.values.push_back({fmt::format("v{}", case_.graph.values.size()), rows, cols, dtype});
    return static_cast<ValueId>(case_.graph.values.size()) - 1;
  }

  /// Routes of tokens that chose among `experts`.
  ValueId routes(int experts, int64_t cols) {
    case_.routes = value(cols);
    case_.experts = experts;
    return case_.routes;
  }

  WeightId weight(DType dtype, int64_t rows, int64_t cols) {
    // Block formats start at an odd multiple of 2 bytes, as they may in a file's middle.
    const int64_t lead = traits(dtype).block_elements > 1 ? 2 : 0;
    std::vector<std::byte> data(static_cast<size_t>(lead + rows * row_bytes(dtype, cols)));
    random_blocks(dtype, rows * cols, generator_.random(), data.data() + lead);
    Weight w{fmt::format("w{}", case_.graph.weights.size()), dtype, rows, cols, data.data() + lead};
    case_.weight_data.push_back(std::move(data));  // moving keeps the address
    case_.graph.weights.push_back(std::move(w));
    return static_cast<WeightId>(case_.graph.weights.size()) - 1;
  }

  Case finish(OpParams params, std::vector<ValueId> inputs, std::vector<ValueId> outputs,
              std::vector<WeightId> weights = {}, std::vector<WeightId> biases = {}, int64_t begin = 0,
              int64_t end = -1) {
    Op op;
    op.name = case_.name;
    op.params = std::move(params);
    op.inputs = std::move(inputs);
    op.outputs = std::move(outputs);
    op.weights = std::move(weights);
    op.biases = std::move(biases);
    case_.graph.ops.push_back(std::move(op));
    case_.graph.head_begin = 1;
    case_.slice = {0, begin, end < 0 ? case_.graph.output_cols(0) : end};
    return std::move(case_);
  }

 private:
  Generator generator_;
  Case case_;
};

struct LinearSpec {
  std::vector<DType> dtypes;
  std::vector<int64_t> rows;
  int64_t k;
  bool bias = false;
  int64_t begin = 0;
  int64_t end = -1;
  bool exchanged = false;  // for processors of one order, too, which must not mind
};

Case linear_case(const std::string& what, const LinearSpec& spec, int64_t tokens) {
  std::string name = "linear";
  for (size_t i = 0; i < spec.dtypes.size(); ++i) {
    name += fmt::format(" {}[{},{}]", traits(spec.dtypes[i]).name, spec.rows[i], spec.k);
  }
  CaseBuilder b(fmt::format("{} m={} {}", name, tokens, what), tokens, 0);
  int64_t n = 0;
  std::vector<WeightId> weights;
  std::vector<WeightId> biases;
  for (size_t i = 0; i < spec.dtypes.size(); ++i) {
    weights.push_back(b.weight(spec.dtypes[i], spec.rows[i], spec.k));
    n += spec.rows[i];
  }
  for (size_t i = 0; spec.bias && i < spec.dtypes.size(); ++i) {
    biases.push_back(i == 1 ? -1 : b.weight(DType::kF32, 1, spec.rows[i]));
  }
  const ValueId x = b.value(spec.k);
  const ValueId y = b.value(n);
  Case c = b.finish(Linear{}, {x}, {y}, weights, biases, spec.begin, spec.end);
  c.slice.exchanged = spec.exchanged;
  return c;
}

/// Every type of weights that files have.
constexpr DType kWeightTypes[] = {DType::kF32,  DType::kF16,    DType::kBF16,   DType::kQ4_0,
                                  DType::kQ4_1, DType::kQ5_0,   DType::kQ5_1,   DType::kQ8_0,
                                  DType::kQ2_K, DType::kQ3_K,   DType::kQ4_K,   DType::kQ5_K,
                                  DType::kQ6_K, DType::kIQ4_NL, DType::kIQ4_XS, DType::kMXFP4};

void linear_cases(bool quick, std::vector<Case>& cases) {
  for (const DType dtype : kWeightTypes) {
    // Rows of `blocks` blocks of 32, or of the next whole number of larger blocks.
    const auto k = [&](int64_t blocks) {
      const int64_t block = std::max(32, traits(dtype).block_elements);
      return (32 * blocks + block - 1) / block * block;
    };
    const LinearSpec plain{{dtype}, {72}, k(3)};
    for (const int64_t m : {1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 31, 32, 33, 64, 70}) {
      if (!quick || m < 6 || m == 33) {
        cases.push_back(linear_case("", plain, m));
      }
    }
    for (const int64_t m : {1, 2, 5, 13, 17, 33}) {
      if (!quick || m == 1 || m == 13) {
        cases.push_back(linear_case("odd n", {{dtype}, {37}, k(10)}, m));
      }
    }
    cases.push_back(linear_case("one row", {{dtype}, {1}, k(1)}, 3));
    cases.push_back(linear_case("columns 5..40", {{dtype}, {72}, k(3), false, 5, 40}, 1));
    cases.push_back(linear_case("columns 5..40", {{dtype}, {72}, k(3), false, 5, 40}, 10));
    cases.push_back(linear_case("stacked", {{dtype, dtype, dtype}, {48, 16, 16}, k(2)}, 1));
    cases.push_back(linear_case("stacked, biases", {{dtype, dtype, dtype}, {48, 17, 16}, k(2), true}, 6));
    for (const int64_t m : {1, 33}) {
      cases.push_back(linear_case("stacked, columns 40..70",
                                  {{dtype, dtype, dtype}, {48, 17, 16}, k(2), true, 40, 70}, m));
      cases.push_back(linear_case("stacked, columns 30..70, exchanged",
                                  {{dtype, dtype, dtype}, {48, 17, 16}, k(2), true, 30, 70, true}, m));
    }
    // Whole numbers of 256, which some kernels want of types with blocks of 32.
    if (traits(dtype).block_elements == 32) {
      for (const int64_t m : {1, 3, 20, 70}) {
        if (!quick || m == 1 || m == 70) {
          cases.push_back(linear_case("k of 256", {{dtype}, {37}, k(8)}, m));
          cases.push_back(
              linear_case("k of 256, columns", {{dtype, dtype}, {40, 45}, k(16), true, 5, 72}, m));
        }
      }
    }
    if (!quick) {
      cases.push_back(linear_case("large", {{dtype}, {576}, k(48)}, 1));
      cases.push_back(linear_case("large", {{dtype}, {576}, k(48)}, 65));
      cases.push_back(linear_case("wide", {{dtype}, {1000}, k(18)}, 130));
    }
  }
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    cases.push_back(linear_case("odd k", {{dtype}, {19}, 45}, 1));
    cases.push_back(linear_case("odd k", {{dtype}, {19}, 45}, 11));
  }
  cases.push_back(linear_case("mixed", {{DType::kQ4_1, DType::kQ8_0, DType::kF16}, {40, 24, 8}, 64}, 1));
  cases.push_back(linear_case("mixed", {{DType::kQ4_0, DType::kQ8_0, DType::kF32}, {40, 24, 8}, 64}, 9));
  cases.push_back(linear_case("mixed", {{DType::kQ4_0, DType::kQ4_1, DType::kBF16}, {40, 24, 8}, 64}, 40));
  cases.push_back(linear_case("mixed", {{DType::kQ4_K, DType::kQ6_K, DType::kQ5_0}, {40, 24, 8}, 256}, 1));
  const LinearSpec mixed{{DType::kQ5_K, DType::kQ8_0, DType::kIQ4_XS}, {40, 24, 8}, 256};
  cases.push_back(linear_case("mixed", mixed, 17));
  LinearSpec exchanged = mixed;
  exchanged.exchanged = true;
  cases.push_back(linear_case("mixed, exchanged", exchanged, 17));
}

void attention_cases(bool quick, std::vector<Case>& cases) {
  struct Spec {
    int heads, kv_heads, head_dim, rotary;
    RopePairs pairs;
    DType cache;
    bool norms = false;
    float cap = 0.0f;
    int64_t window = 0;
  };
  const Spec specs[] = {
      {9, 3, 64, 64, RopePairs::kAdjacent, DType::kF16},
      {4, 4, 32, 32, RopePairs::kHalves, DType::kF16},
      {8, 1, 80, 80, RopePairs::kHalves, DType::kF16},
      {4, 2, 128, 64, RopePairs::kAdjacent, DType::kF16},
      {6, 2, 24, 16, RopePairs::kHalves, DType::kF32},
      {2, 2, 96, 96, RopePairs::kHalves, DType::kF32},
      {4, 1, 256, 256, RopePairs::kAdjacent, DType::kF16},
      {3, 1, 10, 6, RopePairs::kAdjacent, DType::kF32},
      {4, 2, 16, 16, RopePairs::kHalves, DType::kF32, true, 3.0f, 12},
      {6, 3, 100, 100, RopePairs::kAdjacent, DType::kF16, true, 0.0f, 50},
      {8, 1, 36, 20, RopePairs::kHalves, DType::kF16, false, 50.0f, 1},
      {4, 1, 256, 256, RopePairs::kHalves, DType::kF16, true, 0.0f, 33},
      {9, 3, 64, 64, RopePairs::kAdjacent, DType::kQ8_0},
      {10, 2, 32, 16, RopePairs::kHalves, DType::kQ8_0, false, 50.0f},
      {7, 1, 96, 96, RopePairs::kHalves, DType::kQ8_0, true, 0.0f, 33},
      {4, 4, 160, 64, RopePairs::kAdjacent, DType::kQ8_0},
  };
  for (const Spec& s : specs) {
    std::string what =
        fmt::format("heads={}/{} hd={} rotary={} {} {}", s.heads, s.kv_heads, s.head_dim, s.rotary,
                    s.pairs == RopePairs::kHalves ? "halves" : "adjacent", traits(s.cache).name);
    what += fmt::format("{}{}{}", s.norms ? " norms" : "", s.cap > 0.0f ? fmt::format(" cap={}", s.cap) : "",
                        s.window > 0 ? fmt::format(" window={}", s.window) : "");
    for (const int64_t m : {1, 2, 5, 16, 33, 70}) {
      for (const int64_t position : {0, 1, 37, 90}) {
        if (quick && (m > 5 || position == 37)) {
          continue;
        }
        const std::string at = fmt::format(" m={} position={}", m, position);
        {
          CaseBuilder b("rope " + what + at, m, position);
          const ValueId qkv = b.value((s.heads + 2 * s.kv_heads) * s.head_dim);
          const ValueId table = b.value(s.rotary);
          const ValueId q = b.value(s.heads * s.head_dim);
          const ValueId k = b.value(s.kv_heads * s.head_dim, Rows::kContext, s.cache);
          const ValueId v = b.value(s.kv_heads * s.head_dim, Rows::kContext, s.cache);
          std::vector<WeightId> norms;
          if (s.norms) {
            norms = {b.weight(DType::kF32, 1, s.head_dim), b.weight(DType::kF32, 1, s.head_dim)};
          }
          cases.push_back(b.finish(Rope{s.heads, s.kv_heads, s.head_dim, s.rotary, s.pairs, 1e-6f},
                                   {qkv, table}, {q, k, v}, norms));
        }
        {
          CaseBuilder b("attention " + what + at, m, position);
          const ValueId q = b.value(s.heads * s.head_dim);
          const ValueId k = b.value(s.kv_heads * s.head_dim, Rows::kContext, s.cache);
          const ValueId v = b.value(s.kv_heads * s.head_dim, Rows::kContext, s.cache);
          const ValueId a = b.value(s.heads * s.head_dim);
          const float scale = 1.0f / std::sqrt(static_cast<float>(s.head_dim));
          cases.push_back(
              b.finish(Attention{s.heads, s.kv_heads, s.head_dim, scale, s.cap, s.window}, {q, k, v}, {a}));
        }
      }
    }
  }
}

void row_cases(bool quick, std::vector<Case>& cases) {
  for (const int64_t m : {1, 3, 32, 70}) {
    for (const int64_t cols : {64, 576, 37, 2048}) {
      if (quick && cols > 1000) {
        continue;
      }
      for (const bool residual : {false, true}) {
        CaseBuilder b(fmt::format("rms_norm m={} cols={}{}", m, cols, residual ? " residual" : ""), m, 0);
        const WeightId w = b.weight(DType::kF32, 1, cols);
        const ValueId x = b.value(cols);
        if (residual) {
          const ValueId y = b.value(cols);
          const ValueId h = b.value(cols);
          const ValueId s = b.value(cols);
          cases.push_back(b.finish(RmsNorm{1e-5f}, {x, y}, {h, s}, {w}));
        } else {
          cases.push_back(b.finish(RmsNorm{1e-6f}, {x}, {b.value(cols)}, {w}));
        }
      }
      for (const Activation activation : {Activation::kSilu, Activation::kGeluTanh}) {
        CaseBuilder b(
            fmt::format("gated {} m={} f={}", activation == Activation::kSilu ? "silu" : "gelu", m, cols), m,
            0);
        const ValueId x = b.value(2 * cols);
        cases.push_back(b.finish(Gated{activation}, {x}, {b.value(cols)}));
      }
    }
    for (const DType dtype : kWeightTypes) {
      CaseBuilder b(fmt::format("embed {} m={}", traits(dtype).name, m), m, 0);
      const int64_t cols = traits(dtype).block_elements == 256 ? 512 : m == 3 ? 256 : 96;
      const WeightId table = b.weight(dtype, 50, cols);
      const ValueId ids = b.value(1, Rows::kTokens, DType::kI32);
      cases.push_back(b.finish(Embed{m == 3 ? 2.5f : 1.0f}, {ids}, {b.value(cols)}, {table}));
    }
    for (const int64_t position : {0, 5, 131000}) {
      CaseBuilder b(fmt::format("rope_table m={} position={}", m, position), m, position);
      RopeTable table;
      for (int i = 0; i < 32; ++i) {
        table.inv_freq.push_back(std::pow(100000.0, -i / 32.0));
      }
      table.magnitude = position == 5 ? 1.19f : 1.0f;
      cases.push_back(b.finish(table, {}, {b.value(64)}));
    }
  }
}

void expert_cases(bool quick, std::vector<Case>& cases) {
  for (const int64_t m : {1, 2, 5, 33, 70}) {
    if (quick && m > 5) {
      continue;
    }
    for (const int64_t cols : {64, 37, 3000}) {
      CaseBuilder b(fmt::format("soft_cap m={} cols={}", m, cols), m, 0);
      const ValueId x = b.value(cols);
      cases.push_back(b.finish(SoftCap{cols == 37 ? 0.7f : 30.0f}, {x}, {b.value(cols)}));
    }
    struct Spec {
      Route route;
      DType dtype;
      std::vector<int64_t> rows;
      int64_t k;
    };
    const Spec specs[] = {
        {{4, 2, true, false, 1.0f}, DType::kF32, {48, 48}, 64},
        {{4, 1, false, true, 1.0f}, DType::kQ4_0, {37}, 96},
        {{9, 9, false, false, 2.5f}, DType::kF16, {20, 20}, 45},
        {{60, 4, false, true, 1.0f}, DType::kQ8_0, {72, 72}, 64},
        {{128, 8, true, false, 1.0f}, DType::kQ4_1, {40}, 32},
        {{1, 1, true, false, 1.0f}, DType::kBF16, {33, 33}, 40},
    };
    for (const Spec& s : specs) {
      const Route& r = s.route;
      const std::string what = fmt::format("m={} experts={}/{}", m, r.used, r.experts);
      {
        CaseBuilder b(
            fmt::format("route {}{}{}", what, r.normalize ? " normalized" : "", r.shared ? " shared" : ""), m,
            0);
        const ValueId logits = b.value(r.experts + (r.shared ? 1 : 0));
        cases.push_back(b.finish(r, {logits}, {b.value(2 * r.used + (r.shared ? 1 : 0))}));
      }
      for (const bool each : {false, true}) {  // x of its own for each choice
        CaseBuilder b(
            fmt::format("expert products {} {} k={}{}", traits(s.dtype).name, what, s.k, each ? " each" : ""),
            m, 0);
        std::vector<WeightId> weights;
        int64_t n = 0;
        for (const int64_t rows : s.rows) {
          weights.push_back(b.weight(s.dtype, r.experts * rows, s.k));
          n += rows;
        }
        const ValueId x = b.value(each ? r.used * s.k : s.k);
        const ValueId routes = b.routes(r.experts, 2 * r.used);
        cases.push_back(
            b.finish(ExpertLinear{r.experts, r.used}, {x, routes}, {b.value(r.used * n)}, weights));
      }
      CaseBuilder b(fmt::format("expert_sum {} n={}{}", what, s.rows[0], r.shared ? " shared" : ""), m, 0);
      std::vector<ValueId> inputs = {b.value(r.used * s.rows[0])};
      inputs.push_back(b.routes(r.experts, 2 * r.used + (r.shared ? 1 : 0)));
      if (r.shared) {
        inputs.push_back(b.value(s.rows[0]));
      }
      cases.push_back(b.finish(ExpertSum{r.used}, inputs, {b.value(s.rows[0])}));
    }
  }
}

/// A value's memory, with room around every row: row t, column c lies at (kLead + t * stride + c).
struct Area {
  PageMemory memory;
  std::unique_ptr<Buffer> buffer;
  Binding binding;
  int64_t rows = 0;
  int64_t cols = 0;
  DType dtype = DType::kF32;

  int64_t index(int64_t row, int64_t col) const { return binding.offset + row * binding.stride + col; }
  Bytes bytes(int64_t elements) const { return row_bytes(dtype, elements); }
  float get(int64_t row, int64_t col) const {
    if (dtype == DType::kQ8_0) {
      float block[32];
      dequantize(dtype, memory.data() + bytes(index(row, col) / 32 * 32), 32, block);
      return block[index(row, col) % 32];
    }
    if (dtype == DType::kF16) {
      return f32_from_f16(reinterpret_cast<const uint16_t*>(memory.data())[index(row, col)]);
    }
    return reinterpret_cast<const float*>(memory.data())[index(row, col)];
  }
  void put(int64_t row, int64_t col, float value) {
    if (dtype == DType::kF16) {
      reinterpret_cast<uint16_t*>(memory.data())[index(row, col)] = f16_from_f32(value);
    } else if (dtype == DType::kI32) {
      reinterpret_cast<int32_t*>(memory.data())[index(row, col)] = static_cast<int32_t>(value);
    } else {
      reinterpret_cast<float*>(memory.data())[index(row, col)] = value;
    }
  }
  Region region() const { return {bytes(binding.offset), bytes(cols), bytes(binding.stride), rows}; }
};

Status check(Processor& p, const Case& c) {
  const Op& op = c.graph.op(0);
  Generator generator(static_cast<uint32_t>(c.name.size()) + 17u);
  // What goes to a cache in blocks is compared with what it was before it was rounded.
  Graph unrounded = c.graph;
  for (Value& value : unrounded.values) {
    value.dtype = value.dtype == DType::kQ8_0 ? DType::kF32 : value.dtype;
  }
  Reference reference(unrounded, kContext);

  std::vector<Area> areas(c.graph.values.size());
  for (size_t i = 0; i < areas.size(); ++i) {
    const Value& value = c.graph.values[i];
    Area& a = areas[i];
    a.dtype = value.dtype;
    a.rows = value.rows == Rows::kContext ? kContext : c.tokens;
    const bool is_output =
        std::find(op.outputs.begin(), op.outputs.end(), static_cast<ValueId>(i)) != op.outputs.end();
    // A slice writes its columns inside the wider row of the whole value.
    a.cols = is_output && op.is<Linear>() ? c.slice.end - c.slice.begin : value.cols;
    const bool dense = value.dtype == DType::kI32 || value.rows == Rows::kContext;
    a.binding.stride = dense ? value.cols : value.cols + 8;
    a.binding.offset = dense ? 0 : 16 + (is_output ? c.slice.begin : 0);
    const int64_t elements = a.binding.offset + a.rows * a.binding.stride + 32;
    const bool blocks = traits(a.dtype).block_elements > 1;
    HETERO_TRY(a.memory, PageMemory::allocate(a.bytes(elements)));
    if (blocks) {
      random_blocks(a.dtype, elements, generator.random(), a.memory.data());
    }
    for (int64_t e = 0; e < elements && a.dtype != DType::kI32 && !blocks; ++e) {
      if (a.dtype == DType::kF16) {
        reinterpret_cast<uint16_t*>(a.memory.data())[e] = f16_from_f32(0.125f);
      } else {
        reinterpret_cast<float*>(a.memory.data())[e] = kGuard;
      }
    }
    const bool is_cache = value.rows == Rows::kContext;
    std::vector<float>& truth = reference.value(static_cast<ValueId>(i));
    if (!is_output || is_cache) {
      truth.assign(static_cast<size_t>(a.rows * value.cols), 0.0f);
      for (int64_t t = 0; t < a.rows; ++t) {
        for (int64_t col = 0; col < value.cols; ++col) {
          float x = value.dtype == DType::kI32 ? static_cast<float>(generator.below(50)) : generator.normal();
          if (static_cast<ValueId>(i) == c.routes && col < value.cols / 2) {
            x = static_cast<float>(generator.below(c.experts));
          }
          if (!blocks) {
            a.put(t, col, x);
          }
          truth[static_cast<size_t>(t * value.cols + col)] = value.dtype == DType::kI32 ? x : a.get(t, col);
        }
      }
    }
    HETERO_TRY(a.buffer, p.import(a.memory.data(), a.memory.size()));
    a.binding.buffer = a.buffer.get();
    if (!p.traits().coherent) {
      // Everything goes up, so that what comes back around the region can be checked as well.
      HETERO_TRY(const Fence up, p.upload(*a.buffer, {0, a.bytes(elements), a.bytes(elements), 1}));
      HETERO_RETURN_IF_ERROR(up.wait());
    }
  }

  HETERO_TRY(const auto executable, p.compile(c.graph, c.slice, c.tokens));
  std::vector<Binding> inputs;
  std::vector<Binding> outputs;
  for (const ValueId id : op.inputs) {
    inputs.push_back(areas[static_cast<size_t>(id)].binding);
  }
  for (const ValueId id : op.outputs) {
    outputs.push_back(areas[static_cast<size_t>(id)].binding);
  }
  HETERO_TRY(const Fence fence, p.submit(*executable, {c.tokens, c.position, inputs, outputs}));
  p.flush();
  HETERO_RETURN_IF_ERROR(fence.wait());
  if (!fence.done()) {
    return internal_error("the fence is not done after wait()");
  }
  const Interval interval = p.timeline().interval(fence.ticket);
  if (interval.end < interval.begin || interval.begin.count() == 0) {
    return internal_error(fmt::format("interval [{}, {}] ns", interval.begin.count(), interval.end.count()));
  }
  reference.run(0, c.tokens, c.position);

  // Norms for the tolerances.
  const double u = p.traits().unit_roundoff;
  const auto norm = [](const float* x, int64_t n) {
    double s = 0.0;
    for (int64_t i = 0; i < n; ++i) {
      s += double{x[i]} * x[i];
    }
    return std::sqrt(s);
  };
  std::vector<double> weight_norms;
  if (op.is<Linear>()) {
    for (const LinearSegment& s : linear_segments(c.graph, 0, c.slice.begin, c.slice.end)) {
      std::vector<float> row(static_cast<size_t>(s.weight->cols));
      for (int64_t r = 0; r < s.rows; ++r) {
        dequantize(s.weight->dtype,
                   s.weight->data + (s.row_begin + r) * row_bytes(s.weight->dtype, s.weight->cols),
                   s.weight->cols, row.data());
        weight_norms.push_back(norm(row.data(), s.weight->cols));
      }
    }
  }

  // |x| |w| of one product of an ExpertLinear.
  std::vector<float> expert_row;
  if (op.is<ExpertLinear>()) {
    expert_row.resize(static_cast<size_t>(c.graph.weight(op.weights[0]).cols));
  }
  const auto expert_norms = [&](int64_t t, int64_t col) {
    const auto& e = *op.as<ExpertLinear>();
    const auto k = static_cast<int64_t>(expert_row.size());
    const Value& x = c.graph.value(op.inputs[0]);
    for (const WeightId id : op.weights) {
      const Weight& w = c.graph.weight(id);
      const int64_t n = w.rows / e.experts;
      if (col >= e.used * n) {
        col -= e.used * n;
        continue;
      }
      const int64_t choice = col / n;
      const auto expert = static_cast<int64_t>(
          reference.value(op.inputs[1])[static_cast<size_t>(t * c.graph.value(op.inputs[1]).cols + choice)]);
      dequantize(w.dtype, w.data + (expert * n + col % n) * row_bytes(w.dtype, k), k, expert_row.data());
      return norm(expert_row.data(), k) *
             norm(reference.value(op.inputs[0]).data() + t * x.cols + (x.cols == k ? 0 : choice * k), k);
    }
    return 0.0;
  };

  for (size_t o = 0; o < op.outputs.size(); ++o) {
    const ValueId id = op.outputs[o];
    Area& a = areas[static_cast<size_t>(id)];
    const Value& value = c.graph.value(id);
    const bool is_cache = value.rows == Rows::kContext;
    if (!p.traits().coherent) {
      // Only the region: the rest of the host copy must stay as it was.
      HETERO_TRY(const Fence down, p.download(*a.buffer, a.region()));
      HETERO_RETURN_IF_ERROR(down.wait());
    }
    const std::vector<float>& truth = reference.value(id);
    const int64_t first_col = op.is<Linear>() ? c.slice.begin : 0;
    for (int64_t t = 0; t < a.rows; ++t) {
      for (int64_t col = 0; col < a.cols; ++col) {
        const double expected = truth[static_cast<size_t>(t * value.cols + first_col + col)];
        const double found = a.get(t, col);
        double tolerance = 0.0;
        if (is_cache && (t < c.position || t >= c.position + c.tokens)) {
          tolerance = 0.0;  // rows of other tokens stay untouched
        } else if (op.is<Linear>()) {
          const Value& in = c.graph.value(op.inputs[0]);
          const float* x = reference.value(op.inputs[0]).data() + t * in.cols;
          tolerance = (4.0 * std::sqrt(static_cast<double>(in.cols)) + 4.0) * u * norm(x, in.cols) *
                          weight_norms[static_cast<size_t>(col)] +
                      4.0 * u * std::abs(expected);
        } else if (op.is<RmsNorm>()) {
          tolerance = (8.0 + std::sqrt(static_cast<double>(value.cols))) * u * std::abs(expected);
        } else if (op.is<Rope>()) {
          // |cos| + |sin| times operands below 6: |a| + |b| <= 12. A norm's factor, below sqrt(hd), and
          // weights below 6 come before.
          const double hd = op.as<Rope>()->head_dim;
          tolerance = op.weights.empty() ? 4.0 * u * 12.0 : (12.0 + std::sqrt(hd)) * u * 12.0 * std::sqrt(hd);
          if (value.dtype == DType::kF16) {
            tolerance += 0x1p-10 * std::abs(expected) + 0x1p-24;
          } else if (value.dtype == DType::kQ8_0) {
            // Half a step of the block's largest magnitude over 127, and the step's own rounding to F16.
            const float* block = truth.data() + t * value.cols + col / 32 * 32;
            double most = tolerance;
            for (int i = 0; i < 32; ++i) {
              most = std::max(most, std::abs(double{block[i]}) + tolerance);
            }
            tolerance += most * (0.5 / 127.0 + 0x1p-11 + 4.0 * u) + 127.0 * 0x1p-25;
          }
        } else if (const auto* attention = op.as<Attention>()) {
          const int64_t hd = attention->head_dim;
          const int64_t kv_cols = attention->kv_heads * hd;
          const int64_t head = col / hd;
          const int64_t kv = head / (attention->heads / attention->kv_heads);
          double k_norm = 0.0;
          double v_max = 0.0;
          for (int64_t s = 0; s <= c.position + t; ++s) {
            k_norm = std::max(k_norm, norm(reference.value(op.inputs[1]).data() + s * kv_cols + kv * hd, hd));
            v_max =
                std::max(v_max, std::abs(double{reference.value(
                                    op.inputs[2])[static_cast<size_t>(s * kv_cols + kv * hd + col % hd)]}));
          }
          const double q_norm =
              norm(reference.value(op.inputs[0]).data() + t * attention->heads * hd + head * hd, hd);
          const double score_error =
              4.0 * std::sqrt(static_cast<double>(hd)) * u * attention->scale * q_norm * k_norm;
          const double seen = static_cast<double>(c.position + t + 1);
          // tanh is at most as steep as its argument, and its own error is relative to the cap.
          tolerance =
              v_max * (2.0 * score_error + 8.0 * u * attention->cap + (16.0 + 2.0 * std::sqrt(seen)) * u);
        } else if (op.is<Gated>()) {
          const Value& in = c.graph.value(op.inputs[0]);
          const double gate = reference.value(op.inputs[0])[static_cast<size_t>(t * in.cols + col)];
          const double up =
              reference.value(op.inputs[0])[static_cast<size_t>(t * in.cols + value.cols + col)];
          // GELU's 1 + tanh cancels for negative gates: the bound is relative to gate * up.
          tolerance = (16.0 + 4.0 * std::abs(gate)) * u * std::abs(gate * up) + 1e-30;
        } else if (const auto* soft_cap = op.as<SoftCap>()) {
          tolerance = 8.0 * u * soft_cap->cap;
        } else if (const auto* route = op.as<Route>()) {
          // Numbers of experts are exact. Softmax: exponents below 12 in the end's relative error.
          tolerance = col < route->used
                          ? 0.0
                          : (32.0 + static_cast<double>(route->experts)) * u * std::abs(expected) + 1e-30;
        } else if (op.is<ExpertLinear>()) {
          tolerance =
              (4.0 * std::sqrt(static_cast<double>(expert_row.size())) + 4.0) * u * expert_norms(t, col) +
              4.0 * u * std::abs(expected);
        } else if (const auto* sum = op.as<ExpertSum>()) {
          const float* weights =
              reference.value(op.inputs[1]).data() + t * c.graph.value(op.inputs[1]).cols + sum->used;
          const float* parts = reference.value(op.inputs[0]).data() + t * sum->used * value.cols;
          double size = 0.0;
          for (int64_t j = 0; j < sum->used; ++j) {
            size += std::abs(double{weights[j]} * parts[j * value.cols + col]);
          }
          if (op.inputs.size() == 3) {
            size += std::abs(double{weights[sum->used]} *
                             reference.value(op.inputs[2])[static_cast<size_t>(t * value.cols + col)]);
          }
          tolerance = (4.0 + sum->used) * u * size;
        } else if (op.is<Embed>()) {
          double largest = 0.0;
          for (int64_t i = 0; i < value.cols; ++i) {
            largest = std::max(largest, std::abs(double{truth[static_cast<size_t>(t * value.cols + i)]}));
          }
          tolerance = 8.0 * 0x1p-24 * largest;
        } else if (op.is<RopeTable>()) {
          tolerance = 4.0 * 0x1p-24;  // from double angles, whatever the processor's arithmetic
        }
        if (!(std::abs(found - expected) <= tolerance)) {
          return internal_error(fmt::format("output {} row {} column {}: expected {} within {:.3g}, found {}",
                                            o, t, col, expected, tolerance, found));
        }
      }
    }
    // What surrounds the written columns.
    if (!is_cache && a.dtype == DType::kF32) {
      const auto* raw = reinterpret_cast<const float*>(a.memory.data());
      const int64_t elements = a.binding.offset + a.rows * a.binding.stride + 32;
      for (int64_t e = 0; e < elements; ++e) {
        const int64_t rel = e - a.binding.offset;
        const bool inside = rel >= 0 && rel / a.binding.stride < a.rows && rel % a.binding.stride < a.cols;
        if (!inside && raw[e] != kGuard) {
          return internal_error(fmt::format("output {}: element {} outside of the slice was written", o, e));
        }
      }
    }
  }
  return {};
}

}  // namespace

ConformanceReport run_conformance(Processor& processor, const ConformanceOptions& options) {
  std::vector<Case> cases;
  linear_cases(options.quick, cases);
  attention_cases(options.quick, cases);
  row_cases(options.quick, cases);
  expert_cases(options.quick, cases);
  ConformanceReport report;
  for (const Case& c : cases) {
    if (c.name.find(options.only) == std::string::npos) {
      continue;
    }
    if (const Status s = processor.supports(c.graph, c.slice); !s.ok()) {
      report.skipped.push_back(c.name + ": " + s.message());
      continue;
    }
    if (const Status s = check(processor, c); !s.ok()) {
      report.failures.push_back(c.name + ": " + s.message());
    } else {
      ++report.passed;
    }
  }
  return report;
}

}  // namespace hetero
