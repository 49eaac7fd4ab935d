// Blocks that architectures share: checked hyperparameters and tensors, and the operators that
// they become.
#pragma once

#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include "base/status.h"
#include "gguf/file.h"
#include "graph/graph.h"

namespace hetero {

/// Reads one model file and appends to one graph. Errors stick: after the first, every call does
/// nothing and finish() returns it, so that an architecture reads as a plain list of its parts.
class GraphBuilder {
 public:
  /// As build_graph().
  GraphBuilder(const GgufFile& file, int64_t context, std::optional<DType> kv_cache);

  const GgufFile& file() const { return file_; }
  const Graph& graph() const { return graph_; }
  ModelShape& shape() { return graph_.shape; }

  /// The key "<architecture>.<name>".
  std::string key(const std::string& name) const { return graph_.shape.architecture + "." + name; }
  /// Integers and floats of the file's metadata, refused outside of [low, high].
  int64_t integer(const std::string& name, int64_t low, int64_t high, std::optional<int64_t> fallback = {});
  double real(const std::string& name, double low, double high, std::optional<double> fallback = {});
  void fail(Status error);
  bool ok() const { return error_.ok(); }

  /// Reads what all decoder-only transformers have into shape().
  void read_shape();
  /// What the KV cache holds: what was asked for or what suits a model with key weights of this name.
  DType kv_cache(const std::string& key_weights);

  ValueId value(std::string name, int64_t cols, Rows rows = Rows::kTokens, DType dtype = DType::kF32);
  bool has(const std::string& tensor) const { return file_.find_tensor(tensor) != nullptr; }
  /// A tensor that must be [rows, cols].
  WeightId matrix(const std::string& tensor, int64_t rows, int64_t cols);
  /// A tensor [experts, rows, cols].
  WeightId expert_matrices(const std::string& tensor, int64_t rows, int64_t cols);
  /// An F32 tensor [cols]; -1 where `optional` and absent.
  WeightId vector(const std::string& tensor, int64_t cols, bool optional = false);

  struct Matrix {
    std::string tensor;  // without ".weight"
    int64_t rows;
  };
  /// Token ids and their embeddings.
  ValueId embed(const std::string& tensor, float scale = 1.0f);
  /// The rotation table of the model's rope settings, for `rotary_dims` of each head.
  ValueId rope_table(int rotary_dims);
  /// One without scaling.
  ValueId plain_rope_table(const std::string& name, int rotary_dims, double base);
  /// One Linear operator of stacked matrices, each with its bias where the file has one.
  ValueId linear(const std::string& name, int layer, ValueId x, const std::vector<Matrix>& matrices);
  struct Normed {
    ValueId h;  // normalized
    ValueId s;  // the sum before
  };
  /// s = x + y (x alone without y), h = rms_norm(s).
  Normed rms_norm(const std::string& tensor, int layer, ValueId x, std::optional<ValueId> y, float eps);
  /// qkv -> rope (with `head_norms` a norm of each head first) and KV write -> attention.
  ValueId attention(int layer, ValueId qkv, ValueId table, const Rope& rope, const Attention& attention,
                    DType cache, bool head_norms);
  ValueId gated(const std::string& name, int layer, ValueId gate_up, Activation activation);
  /// A feed-forward by experts of shape(): router, chosen experts and, where `shared_ffn` > 0, a
  /// shared expert of that width.
  ValueId experts(int layer, ValueId h, Activation activation, bool normalize, int64_t shared_ffn);
  ValueId soft_cap(const std::string& name, ValueId x, float cap);
  void append(Op op);
  /// What follows belongs to the output head.
  void begin_head() { graph_.head_begin = static_cast<int>(graph_.ops.size()); }
  /// Names the last operator's output as the logits.
  void logits(ValueId value);

  Result<Graph> finish() &&;

 private:
  const Tensor* tensor(const std::string& name, std::vector<int64_t> dims);
  WeightId add_weight(const Tensor* tensor, int64_t rows, int64_t cols);
  ValueId expert_linear(const std::string& name, int layer, ValueId x, ValueId routes,
                        const std::vector<Matrix>& matrices, int64_t k);
  std::vector<double> factors(const std::string& tensor, int count);

  const GgufFile& file_;
  const int64_t context_;
  const std::optional<DType> kv_cache_;
  std::unordered_set<std::string> used_;  // tensors
  Graph graph_;
  Status error_;
};

/// What tells the families of pre-norm decoders from each other. Sizes come from the file.
struct DecoderStyle {
  RopePairs pairs = RopePairs::kAdjacent;
  Activation activation = Activation::kSilu;
  float embedding_scale = 1.0f;
  bool fused = false;                    // attn_qkv holds q, k and v, ffn_up holds gate and up
  bool head_norms = false;               // norms of each query and key head
  bool post_norms = false;               // norms of what attention and feed-forward add
  std::optional<float> attention_scale;  // otherwise head_dim^-1/2
  float attention_cap = 0.0f;            // 0: none
  float logit_cap = 0.0f;
  /// Of every so many layers, all but the last see shape().window tokens; 0: all layers do.
  int window_period = 0;
  std::optional<double> window_rope_base;  // for the layers with a window, without scaling
  bool normalize_routes = true;
  int64_t shared_ffn = 0;  // width of a shared expert
};

/// Appends a whole decoder: embedding, layers, output head.
void build_decoder(GraphBuilder& b, const DecoderStyle& style);

/// The families, one file each. Each reads its own keys and appends its decoder.
void build_llama(GraphBuilder& b);
void build_qwen(GraphBuilder& b);
void build_gemma(GraphBuilder& b);
void build_phi3(GraphBuilder& b);

}  // namespace hetero
