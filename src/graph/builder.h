// Blocks that architectures share: checked hyperparameters and tensors, and the operators that
// they become.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "gguf/file.h"
#include "graph/graph.h"

namespace hetero {

/// Reads one model file and appends to one graph. Errors stick: after the first, every call does
/// nothing and finish() returns it, so that an architecture reads as a plain list of its parts.
class GraphBuilder {
 public:
  explicit GraphBuilder(const GgufFile& file);

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

  ValueId value(std::string name, int64_t cols, Rows rows = Rows::kTokens, DType dtype = DType::kF32);
  bool has(const std::string& tensor) const { return file_.find_tensor(tensor) != nullptr; }
  /// A tensor that must be [rows, cols].
  WeightId matrix(const std::string& tensor, int64_t rows, int64_t cols);
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
  /// One Linear operator of stacked matrices, each with its bias where the file has one.
  ValueId linear(const std::string& name, int layer, ValueId x, const std::vector<Matrix>& matrices);
  struct Normed {
    ValueId h;  // normalized
    ValueId s;  // the sum before
  };
  /// s = x + y (x alone without y), h = rms_norm(s).
  Normed rms_norm(const std::string& tensor, int layer, ValueId x, std::optional<ValueId> y, float eps);
  /// qkv -> rope and KV write -> attention.
  ValueId attention(int layer, ValueId qkv, ValueId table, const Rope& rope, float scale, DType cache);
  ValueId gated(int layer, ValueId gate_up, Activation activation);
  void append(Op op);
  /// What follows belongs to the output head.
  void begin_head() { graph_.head_begin = static_cast<int>(graph_.ops.size()); }
  /// Names the last operator's output as the logits.
  void logits(ValueId value);

  Result<Graph> finish() &&;

 private:
  const Tensor* tensor(const std::string& name, std::vector<int64_t> dims);

  const GgufFile& file_;
  Graph graph_;
  Status error_;
};

/// The families. Each appends its layers to the builder.
void build_llama(GraphBuilder& b);

}  // namespace hetero
