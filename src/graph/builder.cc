#include "graph/builder.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>

#include "gguf/dequantize.h"

namespace hetero {

GraphBuilder::GraphBuilder(const GgufFile& file, int64_t context, std::optional<DType> kv_cache)
    : file_(file), context_(context), kv_cache_(kv_cache) {}

void GraphBuilder::fail(Status error) {
  if (error_.ok()) {
    error_ = std::move(error);
  }
}

int64_t GraphBuilder::integer(const std::string& name, int64_t low, int64_t high,
                              std::optional<int64_t> fallback) {
  if (!ok()) {
    return low;
  }
  const auto found = fallback ? file_.get_int_or(key(name), *fallback) : file_.get_int(key(name));
  if (!found.ok()) {
    fail(found.status());
    return low;
  }
  if (*found < low || *found > high) {
    fail(malformed(
        fmt::format("{}: {} is {}, expected {} to {}", file_.path(), key(name), *found, low, high)));
    return low;
  }
  return *found;
}

double GraphBuilder::real(const std::string& name, double low, double high, std::optional<double> fallback) {
  if (!ok()) {
    return low;
  }
  const auto found = fallback ? file_.get_float_or(key(name), *fallback) : file_.get_float(key(name));
  if (!found.ok()) {
    fail(found.status());
    return low;
  }
  if (!(*found >= low && *found <= high)) {
    fail(malformed(
        fmt::format("{}: {} is {}, expected {} to {}", file_.path(), key(name), *found, low, high)));
    return low;
  }
  return *found;
}

DType GraphBuilder::kv_cache(const std::string& key_weights) {
  // A model in full precision keeps its cache so too; for all others F16 loses nothing that counts.
  const Tensor* keys = file_.find_tensor(key_weights);
  const DType dtype =
      kv_cache_.value_or(keys != nullptr && keys->dtype == DType::kF32 ? DType::kF32 : DType::kF16);
  const DTypeTraits& t = traits(dtype);
  if (ok() && dtype != DType::kF32 && dtype != DType::kF16 && dtype != DType::kQ8_0) {
    fail(invalid_argument(fmt::format("KV cache of {}: expected F16 or Q8_0", t.name)));
  } else if (ok() && shape().head_dim % t.block_elements != 0) {
    fail(unsupported(fmt::format(
        "{}: a KV cache of {} (--kv-cache) needs heads of a multiple of {} elements, this model's have {}",
        file_.path(), t.name, t.block_elements, shape().head_dim)));
  }
  return dtype;
}

void GraphBuilder::read_shape() {
  ModelShape& s = graph_.shape;
  const auto architecture = file_.get_string("general.architecture");
  if (!architecture.ok()) {
    return fail(architecture.status());
  }
  s.architecture = *architecture;
  if (const auto name = file_.get_string_or("general.name", ""); name.ok()) {
    s.name = *name;
  }
  // Bounds far above any model that exists; they keep products of a few within 64 bits.
  s.layers = static_cast<int>(integer("block_count", 1, 4096));
  s.width = integer("embedding_length", 1, 1 << 20);
  s.experts = static_cast<int>(integer("expert_count", 0, 65536, 0));
  if (s.experts > 0) {
    s.experts_used = static_cast<int>(integer("expert_used_count", 1, s.experts));
    s.ffn = integer("feed_forward_length", 1, 1 << 24, 1);
    s.expert_ffn = integer("expert_feed_forward_length", 1, 1 << 24, s.ffn);
  } else {
    s.ffn = integer("feed_forward_length", 1, 1 << 24);
  }
  s.context = integer("context_length", 1, int64_t{1} << 31);
  s.default_context = std::min(s.context, kDefaultContext);
  s.heads = static_cast<int>(integer("attention.head_count", 1, 65536));
  s.kv_heads = static_cast<int>(integer("attention.head_count_kv", 1, 65536, s.heads));
  if (!ok()) {
    return;
  }
  if (s.heads % s.kv_heads != 0) {
    return fail(malformed(fmt::format("{}: {} is {}, which is not a multiple of {} = {}", file_.path(),
                                      key("attention.head_count"), s.heads, key("attention.head_count_kv"),
                                      s.kv_heads)));
  }
  const bool has_key_length = file_.find(key("attention.key_length")) != nullptr;
  if (!has_key_length && s.width % s.heads != 0) {
    return fail(
        malformed(fmt::format("{}: {} is {}, which is not a multiple of {} = {}", file_.path(),
                              key("embedding_length"), s.width, key("attention.head_count"), s.heads)));
  }
  s.head_dim = static_cast<int>(integer("attention.key_length", 1, 65536, s.width / s.heads));
  if (const int64_t v = integer("attention.value_length", 1, 65536, s.head_dim); ok() && v != s.head_dim) {
    return fail(
        unsupported(fmt::format("{}: {} is {}, but heads of values and of keys must be equally long ({})",
                                file_.path(), key("attention.value_length"), v, s.head_dim)));
  }
  const Tensor* table = file_.find_tensor("token_embd.weight");
  if (table == nullptr) {
    return fail(malformed(file_.path() + ": tensor token_embd.weight is missing"));
  }
  s.vocabulary = table->rows();
  if (file_.find("tokenizer.ggml.tokens") != nullptr) {
    const auto tokens = file_.get_array("tokenizer.ggml.tokens");
    if (!tokens.ok()) {
      return fail(tokens.status());
    }
    if (static_cast<int64_t>((*tokens)->size) > s.vocabulary) {
      return fail(malformed(
          fmt::format("{}: tokenizer.ggml.tokens has {} entries, but token_embd.weight only {} rows",
                      file_.path(), (*tokens)->size, s.vocabulary)));
    }
  }
  if (const int64_t v = integer("vocab_size", 1, int64_t{1} << 31, s.vocabulary); ok() && v != s.vocabulary) {
    return fail(malformed(fmt::format("{}: {} is {}, but token_embd.weight has {} rows", file_.path(),
                                      key("vocab_size"), v, s.vocabulary)));
  }
}

ValueId GraphBuilder::value(std::string name, int64_t cols, Rows rows, DType dtype) {
  graph_.values.push_back({std::move(name), rows, cols, dtype});
  return static_cast<ValueId>(graph_.values.size()) - 1;
}

const Tensor* GraphBuilder::tensor(const std::string& name, std::vector<int64_t> dims) {
  if (!ok()) {
    return nullptr;
  }
  const Tensor* found = file_.find_tensor(name);
  if (found == nullptr) {
    fail(malformed(fmt::format("{}: tensor {} is missing", file_.path(), name)));
    return nullptr;
  }
  used_.insert(name);
  // Trailing dimensions of one are written by some converters and left out by others.
  const auto trimmed = [](std::vector<int64_t> d) {
    while (d.size() > 1 && d.back() == 1) {
      d.pop_back();
    }
    return d;
  };
  if (trimmed(found->dims) != trimmed(dims)) {
    fail(malformed(fmt::format("{}: tensor {} has shape [{}], expected [{}]", file_.path(), name,
                               fmt::join(found->dims, ", "), fmt::join(dims, ", "))));
    return nullptr;
  }
  return found;
}

WeightId GraphBuilder::add_weight(const Tensor* t, int64_t rows, int64_t cols) {
  if (t == nullptr) {
    return -1;
  }
  if (t->dtype == DType::kI32) {
    fail(malformed(fmt::format("{}: tensor {} is I32, expected a floating-point or quantized type",
                               file_.path(), t->name)));
    return -1;
  }
  graph_.weights.push_back({t->name, t->dtype, rows, cols, t->data});
  return static_cast<WeightId>(graph_.weights.size()) - 1;
}

WeightId GraphBuilder::matrix(const std::string& name, int64_t rows, int64_t cols) {
  return add_weight(tensor(name, {cols, rows}), rows, cols);
}

WeightId GraphBuilder::expert_matrices(const std::string& name, int64_t rows, int64_t cols) {
  const int64_t experts = graph_.shape.experts;
  return add_weight(tensor(name, {cols, rows, experts}), experts * rows, cols);
}

WeightId GraphBuilder::vector(const std::string& name, int64_t cols, bool optional) {
  if (optional && !has(name)) {
    return -1;
  }
  const Tensor* t = tensor(name, {cols});
  if (t != nullptr && t->dtype != DType::kF32) {
    fail(unsupported(
        fmt::format("{}: tensor {} is {}, expected F32", file_.path(), name, traits(t->dtype).name)));
    return -1;
  }
  return add_weight(t, 1, cols);
}

void GraphBuilder::append(Op op) {
  if (ok()) {
    graph_.ops.push_back(std::move(op));
  }
}

ValueId GraphBuilder::embed(const std::string& name, float scale) {
  const WeightId table = matrix(name + ".weight", graph_.shape.vocabulary, graph_.shape.width);
  graph_.ids = value("ids", 1, Rows::kTokens, DType::kI32);
  const ValueId x = value("embeddings", graph_.shape.width);
  append({name, -1, Embed{scale}, {graph_.ids}, {x}, {table}, {}});
  return x;
}

ValueId GraphBuilder::linear(const std::string& name, int layer, ValueId x,
                             const std::vector<Matrix>& matrices) {
  Op op{name, layer, Linear{}, {x}, {}, {}, {}};
  int64_t n = 0;
  bool any_bias = false;
  for (const Matrix& m : matrices) {
    op.weights.push_back(matrix(m.tensor + ".weight", m.rows, graph_.value(x).cols));
    op.biases.push_back(vector(m.tensor + ".bias", m.rows, true));
    any_bias = any_bias || op.biases.back() >= 0;
    n += m.rows;
  }
  if (!any_bias) {
    op.biases.clear();
  }
  const ValueId y = value(name, n);
  op.outputs = {y};
  append(std::move(op));
  return y;
}

GraphBuilder::Normed GraphBuilder::rms_norm(const std::string& name, int layer, ValueId x,
                                            std::optional<ValueId> y, float eps) {
  const int64_t cols = graph_.value(x).cols;
  const WeightId w = vector(name + ".weight", cols);
  const ValueId h = value(name, cols);
  if (!y) {
    append({name, layer, RmsNorm{eps}, {x}, {h}, {w}, {}});
    return {h, x};
  }
  const ValueId s = value(name + ".sum", cols);
  append({name, layer, RmsNorm{eps}, {x, *y}, {h, s}, {w}, {}});
  return {h, s};
}

ValueId GraphBuilder::attention(int layer, ValueId qkv, ValueId table, const Rope& rope,
                                const Attention& attention, DType cache, bool head_norms) {
  const std::string prefix = fmt::format("blk.{}.", layer);
  const int64_t kv_cols = int64_t{rope.kv_heads} * rope.head_dim;
  const int64_t q_cols = int64_t{rope.heads} * rope.head_dim;
  const ValueId k = value(prefix + "k_cache", kv_cols, Rows::kContext, cache);
  const ValueId v = value(prefix + "v_cache", kv_cols, Rows::kContext, cache);
  const ValueId q = value(prefix + "q", q_cols);
  std::vector<WeightId> norms;
  if (head_norms) {
    norms = {vector(prefix + "attn_q_norm.weight", rope.head_dim),
             vector(prefix + "attn_k_norm.weight", rope.head_dim)};
  }
  append({prefix + "rope", layer, rope, {qkv, table}, {q, k, v}, norms, {}});
  const ValueId a = value(prefix + "attention", q_cols);
  append({prefix + "attention", layer, attention, {q, k, v}, {a}, {}, {}});
  return a;
}

ValueId GraphBuilder::gated(const std::string& name, int layer, ValueId gate_up, Activation activation) {
  const ValueId s = value(name, graph_.value(gate_up).cols / 2);
  append({name, layer, Gated{activation}, {gate_up}, {s}, {}, {}});
  return s;
}

ValueId GraphBuilder::expert_linear(const std::string& name, int layer, ValueId x, ValueId routes,
                                    const std::vector<Matrix>& matrices, int64_t k) {
  const ModelShape& s = graph_.shape;
  Op op{name, layer, ExpertLinear{s.experts, s.experts_used}, {x, routes}, {}, {}, {}};
  int64_t n = 0;
  for (const Matrix& m : matrices) {
    op.weights.push_back(expert_matrices(m.tensor + ".weight", m.rows, k));
    n += m.rows;
  }
  const ValueId y = value(name, s.experts_used * n);
  op.outputs = {y};
  append(std::move(op));
  return y;
}

ValueId GraphBuilder::experts(int layer, ValueId h, Activation activation, bool normalize,
                              int64_t shared_ffn) {
  const ModelShape& s = graph_.shape;
  const std::string blk = fmt::format("blk.{}.", layer);
  const bool shared = shared_ffn > 0;
  Route route{s.experts, s.experts_used, normalize, shared,
              static_cast<float>(real("expert_weights_scale", 0.0, 1e6, 1.0))};
  if (route.scale == 0.0f) {
    route.scale = 1.0f;  // what converters write for models without one
  }
  if (const int64_t gating = integer("expert_gating_func", 0, 65536, 1); ok() && gating > 1) {
    fail(unsupported(fmt::format("{}: {} is {}; only 1, softmax, is known", file_.path(),
                                 key("expert_gating_func"), gating)));
  }
  std::vector<Matrix> router = {{blk + "ffn_gate_inp", s.experts}};
  if (shared) {
    router.push_back({blk + "ffn_gate_inp_shexp", 1});
  }
  const ValueId chosen = linear(blk + "ffn_router", layer, h, router);
  const ValueId routes = value(blk + "ffn_routes", 2 * s.experts_used + (shared ? 1 : 0));
  append({blk + "ffn_routes", layer, route, {chosen}, {routes}, {}, {}});
  const ValueId gate_up =
      expert_linear(blk + "ffn_gate_up_exps", layer, h, routes,
                    {{blk + "ffn_gate_exps", s.expert_ffn}, {blk + "ffn_up_exps", s.expert_ffn}}, s.width);
  const ValueId f = gated(blk + "gated_exps", layer, gate_up, activation);
  std::vector<ValueId> parts = {expert_linear(blk + "ffn_down_exps", layer, f, routes,
                                              {{blk + "ffn_down_exps", s.width}}, s.expert_ffn),
                                routes};
  if (shared) {
    const ValueId gate_up_shared =
        linear(blk + "ffn_gate_up_shexp", layer, h,
               {{blk + "ffn_gate_shexp", shared_ffn}, {blk + "ffn_up_shexp", shared_ffn}});
    const ValueId f_shared = gated(blk + "gated_shexp", layer, gate_up_shared, activation);
    parts.push_back(linear(blk + "ffn_down_shexp", layer, f_shared, {{blk + "ffn_down_shexp", s.width}}));
  }
  const ValueId sum = value(blk + "ffn_expert_sum", s.width);
  append({blk + "ffn_expert_sum", layer, ExpertSum{s.experts_used}, parts, {sum}, {}, {}});
  return sum;
}

ValueId GraphBuilder::soft_cap(const std::string& name, ValueId x, float cap) {
  const ValueId y = value(name, graph_.value(x).cols);
  append({name, -1, SoftCap{cap}, {x}, {y}, {}, {}});
  return y;
}

void GraphBuilder::logits(ValueId id) {
  graph_.logits = id;
}

Result<Graph> GraphBuilder::finish() && {
  if (!ok()) {
    return error_;
  }
  // A tensor that the family does not know would be left out of the computation.
  for (const Tensor& t : file_.tensors()) {
    const bool harmless = t.name == "rope_freqs.weight" || t.name.ends_with("attn_rot_embd.weight") ||
                          t.name.ends_with("rotary_emb.inv_freq");
    if (!used_.contains(t.name) && !harmless) {
      return unsupported(fmt::format("{}: tensor {} is not known in models of architecture {}", file_.path(),
                                     t.name, graph_.shape.architecture));
    }
  }
  for (int i = graph_.head_begin; i < static_cast<int>(graph_.ops.size()); ++i) {
    for (const ValueId id : graph_.op(i).outputs) {
      graph_.values[static_cast<size_t>(id)].rows = Rows::kOutputs;
    }
  }
  return std::move(graph_);
}

}  // namespace hetero
