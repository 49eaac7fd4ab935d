// A language model as plain values: what is computed, not how, where or when. Processors, plans
// and the reference all read this one description.
//
// All activations are row-major matrices [rows, cols] with one row for each token of the pass.
// Notation: T tokens in this pass, P position of the first of them (tokens already in the KV
// cache), d model width, hd head_dim.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "gguf/dtype.h"

namespace hetero {

using ValueId = int;
using WeightId = int;

/// How many rows a value has.
enum class Rows {
  kTokens,   // one for each token of the pass
  kOutputs,  // one for each token whose logits are wanted
  kContext,  // one for each position of the context: the KV cache, kept between passes
};

/// Something that an operator reads or writes. dtype: F32 for activations, F32, F16 or Q8_0 for the KV
/// cache (blocks do not cross heads), I32 for token ids.
struct Value {
  std::string name;
  Rows rows = Rows::kTokens;
  int64_t cols = 0;
  DType dtype = DType::kF32;
};

/// A matrix [rows, cols] of the model, row-major in blocks of its dtype, as it lies in the file.
/// Vectors (norm weights, biases) have rows == 1. The matrices [n, cols] of experts lie behind each
/// other: rows = experts * n. `data` is owned by the model file.
struct Weight {
  std::string name;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  const std::byte* data = nullptr;
};

// Operators. For each: inputs -> outputs, and weights.

/// {ids [T,1] I32} -> {x [T,d]}; weights {table [vocabulary, d]}. x = scale * table[id].
struct Embed {
  float scale = 1.0f;
};

/// {} -> {table [T, rotary_dims]}: for each token at position p and pair i of rotary_dims/2,
/// table[2i] = magnitude * cos(p * inv_freq[i]) and table[2i+1] = magnitude * sin(...).
/// Computed in double, so that every processor rotates by the same angles.
struct RopeTable {
  std::vector<double> inv_freq;  // rotary_dims / 2
  float magnitude = 1.0f;
};

/// {x} -> {h}, or with a residual {x, y} -> {h, s}; weights {w [1, cols]}.
/// s = x + y (x alone without y); h = s / sqrt(mean(s^2) + eps) * w, row by row.
struct RmsNorm {
  float eps = 1e-5f;
};

/// {x [T,k]} -> {y [T,n]}; weights {W_1 [n_1,k], W_2 [n_2,k], ...} stacked, n = sum of n_i;
/// `biases`, where not empty, has one vector [1, n_i] or -1 for each weight. y = x W^T + b.
/// Weights of one operator may differ in dtype.
struct Linear {};

/// Where the two numbers that rope rotates together lie in a head.
enum class RopePairs {
  kAdjacent,  // (2i, 2i+1): "norm", llama files
  kHalves,    // (i, i + rotary_dims/2): "neox", qwen2, gemma, phi3
};

/// {qkv [T, (heads + 2 kv_heads) hd], rope table} -> {q [T, heads hd], K cache, V cache}; weights:
/// none, or {q norm [1, hd], k norm [1, hd]}. Normalizes each head of q and k as RmsNorm does where
/// there are weights, rotates them, and writes k and v to rows P..P+T-1 of the caches
/// [context, kv_heads hd].
struct Rope {
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int rotary_dims = 0;  // the first so many of each head; the rest passes unrotated
  RopePairs pairs = RopePairs::kAdjacent;
  float norm_eps = 0.0f;
};

/// {q [T, heads hd], K cache, V cache} -> {a [T, heads hd]}. Causal: token t sees cache rows
/// 0..P+t, which hold the pass's own k and v, or with a window only the last `window` of them.
/// Query head h reads kv head h / (heads / kv_heads). With a cap, a score s enters softmax as
/// cap * tanh(s / cap).
struct Attention {
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  float scale = 1.0f;  // of the scores before softmax
  float cap = 0.0f;    // 0: none
  int64_t window = 0;  // 0: none
};

enum class Activation { kSilu, kGeluTanh };

/// {gate_up [T, 2f]} -> {s [T, f]}: s = act(gate) * up, gate = columns 0..f-1, up = the rest.
struct Gated {
  Activation activation = Activation::kSilu;
};

/// {x [T, n]} -> {y [T, n]}: y = cap * tanh(x / cap).
struct SoftCap {
  float cap = 1.0f;
};

// Mixtures of experts (Shazeer et al., arXiv 1701.06538): a Linear gives each token's logits of the
// experts, Route chooses, ExpertLinear computes with the chosen ones only, ExpertSum adds them up.
// "Routes" [T, 2 used (+ 1)] hold for each token the chosen experts' numbers as whole floats,
// likeliest first, then their weights, then with a shared expert the weight of that.

/// {logits [T, experts (+ 1)]} -> {routes}. Chooses the `used` largest logits, of equal ones the
/// first; weights are the softmax over all experts' logits. The last logit, with a shared expert,
/// is that one's: weight sigmoid(logit).
struct Route {
  int experts = 0;
  int used = 0;
  bool normalize = true;  // the weights of the chosen are scaled to a sum of one
  bool shared = false;
  float scale = 1.0f;  // of the chosen experts' weights, in the end
};

/// {x, routes} -> {y [T, used n]}; weights {W_1 [experts n_1, k], ...}, n = sum of n_i. x is
/// [T, k], the same for all chosen experts, or [T, used k], a part for each. Output columns by
/// weight, then by choice: [W_1 by the first chosen | W_1 by the second | ... | W_2 by the first...].
struct ExpertLinear {
  int experts = 0;
  int used = 0;
};

/// {y [T, used n], routes} or {y, routes, z [T, n]} -> {sum [T, n]}: the parts of y times their
/// weights, plus z, the shared expert's result, times its weight.
struct ExpertSum {
  int used = 0;
};

using OpParams = std::variant<Embed, RopeTable, RmsNorm, Linear, Rope, Attention, Gated, SoftCap, Route,
                              ExpertLinear, ExpertSum>;

struct Op {
  std::string name;  // "blk.3.ffn_down"
  int layer = -1;    // -1: outside of the layers
  OpParams params;
  std::vector<ValueId> inputs;
  std::vector<ValueId> outputs;
  std::vector<WeightId> weights;
  std::vector<WeightId> biases;

  template <class T>
  const T* as() const {
    return std::get_if<T>(&params);
  }
  template <class T>
  bool is() const {
    return std::holds_alternative<T>(params);
  }
};

/// The name of an operator's kind: "linear", "rms_norm", ...
const char* kind_name(const Op& op);

struct ModelShape {
  std::string architecture;
  std::string name;
  int layers = 0;
  int64_t width = 0;  // d
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int64_t ffn = 0;
  int64_t vocabulary = 0;
  int64_t context = 0;  // tokens that the model was trained for
  /// Tokens of context where the user asks for no other number: what the model was trained for, or
  /// the part of it where short texts are best (longrope), but at most kDefaultContext.
  int64_t default_context = 0;
  int64_t window = 0;      // tokens that local attention sees; 0: all attention is global
  int experts = 0;         // of each layer; 0: none
  int experts_used = 0;    // for each token
  int64_t expert_ffn = 0;  // width of one expert
};

constexpr int64_t kDefaultContext = 4096;

/// Operators in an order in which each value is written before it is read. Operators
/// [0, head_begin) run over all tokens of a pass; the rest, the output head, runs over the rows
/// whose logits are wanted and ends in `logits` [outputs, vocabulary].
struct Graph {
  ModelShape shape;
  std::vector<Value> values;
  std::vector<Weight> weights;
  std::vector<Op> ops;
  int head_begin = 0;
  ValueId ids = -1;
  ValueId logits = -1;

  const Value& value(ValueId id) const { return values[static_cast<size_t>(id)]; }
  const Weight& weight(WeightId id) const { return weights[static_cast<size_t>(id)]; }
  const Op& op(int index) const { return ops[static_cast<size_t>(index)]; }
  bool in_head(int index) const { return index >= head_begin; }
  int64_t output_cols(int index) const { return value(op(index).outputs[0]).cols; }
};

/// The part of one stacked weight that makes columns [out_begin, out_begin + rows) of a Linear
/// operator's output, counted from the start of the asked range.
struct LinearSegment {
  const Weight* weight = nullptr;
  const Weight* bias = nullptr;  // nullptr: none; index it by row_begin as well
  int64_t row_begin = 0;         // first row of `weight`
  int64_t rows = 0;
  int64_t out_begin = 0;
};

/// The segments of output columns [begin, end) of Linear operator `index`.
std::vector<LinearSegment> linear_segments(const Graph& graph, int index, int64_t begin, int64_t end);

/// For each operator of the body: whether rows of its results are read by nothing but the same rows of the
/// graph's result. So it is behind the last KV cache: logits of one row need one row of it.
std::vector<bool> in_last_row(const Graph& graph);

/// The operators that read `value`, once for each time that they do.
std::vector<const Op*> readers_of(const Graph& graph, ValueId value);

/// The only operator that reads `value`; nullptr: none or several, or it is the graph's result.
const Op* only_reader(const Graph& graph, ValueId value);

/// Multiply-accumulates of output columns [begin, end) of an operator over `tokens` rows at
/// `position`; 0 for operators that have none.
int64_t op_macs(const Graph& graph, int index, int64_t begin, int64_t end, int64_t tokens, int64_t position);

}  // namespace hetero
