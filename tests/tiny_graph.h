// A llama-like model of a few thousand random weights, made without a file.
#pragma once

#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace hetero {

struct TinyGraph {
  Graph graph;
  std::vector<std::unique_ptr<std::vector<float>>> data;

  explicit TinyGraph(int layers = 2, DType cache = DType::kF32) {
    constexpr int kHeads = 4, kKvHeads = 2, kWidth = 32, kFfn = 64, kVocabulary = 48;
    const int head_dim = cache == DType::kQ8_0 ? 32 : 8;
    graph.shape = {"llama", "tiny", layers, kWidth, kHeads, kKvHeads, head_dim, kFfn, kVocabulary, 128};
    graph.ids = value("ids", 1, Rows::kTokens, DType::kI32);
    ValueId x = value("embeddings", kWidth);
    const WeightId table = weight(kVocabulary, kWidth);
    add("token_embd", -1, Embed{}, {graph.ids}, {x}, {table});
    RopeTable angles;
    for (int i = 0; i < head_dim / 2; ++i) {
      angles.inv_freq.push_back(std::pow(10000.0, -2.0 * i / head_dim));
    }
    const ValueId rope = value("rope_table", head_dim);
    add("rope_table", -1, angles, {}, {rope}, {});
    ValueId pending = -1;
    for (int i = 0; i < layers; ++i) {
      const std::string blk = "blk." + std::to_string(i) + ".";
      const ValueId h = norm(blk + "attn_norm", i, x, pending);
      const ValueId qkv = value(blk + "qkv", (kHeads + 2 * kKvHeads) * head_dim);
      add(blk + "attn_qkv", i, Linear{}, {h}, {qkv},
          {weight(kHeads * head_dim, kWidth), weight(kKvHeads * head_dim, kWidth),
           weight(kKvHeads * head_dim, kWidth)});
      const ValueId q = value(blk + "q", kHeads * head_dim);
      const ValueId k = value(blk + "k_cache", kKvHeads * head_dim, Rows::kContext, cache);
      const ValueId v = value(blk + "v_cache", kKvHeads * head_dim, Rows::kContext, cache);
      add(blk + "rope", i, Rope{kHeads, kKvHeads, head_dim, head_dim, RopePairs::kAdjacent}, {qkv, rope},
          {q, k, v}, {});
      const ValueId a = value(blk + "attention", kHeads * head_dim);
      add(blk + "attention", i, Attention{kHeads, kKvHeads, head_dim, 0.35f}, {q, k, v}, {a}, {});
      const ValueId o = value(blk + "o", kWidth);
      add(blk + "attn_output", i, Linear{}, {a}, {o}, {weight(kWidth, kHeads * head_dim)});
      const ValueId h2 = norm(blk + "ffn_norm", i, x, o);
      const ValueId gate_up = value(blk + "gate_up", 2 * kFfn);
      add(blk + "ffn_gate_up", i, Linear{}, {h2}, {gate_up}, {weight(kFfn, kWidth), weight(kFfn, kWidth)});
      const ValueId f = value(blk + "gated", kFfn);
      add(blk + "gated", i, Gated{}, {gate_up}, {f}, {});
      pending = value(blk + "down", kWidth);
      add(blk + "ffn_down", i, Linear{}, {f}, {pending}, {weight(kWidth, kFfn)});
    }
    graph.head_begin = static_cast<int>(graph.ops.size());
    const ValueId h = norm("output_norm", -1, x, pending);
    graph.logits = value("output", kVocabulary);
    add("output", -1, Linear{}, {h}, {graph.logits}, {table});
    for (int op = graph.head_begin; op < static_cast<int>(graph.ops.size()); ++op) {
      for (const ValueId id : graph.op(op).outputs) {
        graph.values[static_cast<size_t>(id)].rows = Rows::kOutputs;
      }
    }
  }

 private:
  ValueId value(const std::string& name, int64_t cols, Rows rows = Rows::kTokens, DType dtype = DType::kF32) {
    graph.values.push_back({name, rows, cols, dtype});
    return static_cast<ValueId>(graph.values.size()) - 1;
  }
  WeightId weight(int64_t rows, int64_t cols, float mean = 0.0f) {
    data.push_back(std::make_unique<std::vector<float>>(static_cast<size_t>(rows * cols)));
    for (float& w : *data.back()) {
      w = mean + 0.3f * (static_cast<float>(random_()) / 2147483648.0f - 1.0f);
    }
    graph.weights.push_back(
        {"w", DType::kF32, rows, cols, reinterpret_cast<const std::byte*>(data.back()->data())});
    return static_cast<WeightId>(graph.weights.size()) - 1;
  }
  void add(const std::string& name, int layer, OpParams params, std::vector<ValueId> inputs,
           std::vector<ValueId> outputs, std::vector<WeightId> weights) {
    graph.ops.push_back(
        {name, layer, std::move(params), std::move(inputs), std::move(outputs), std::move(weights), {}});
  }
  /// Normalizes x, or x + y; afterwards x is that sum.
  ValueId norm(const std::string& name, int layer, ValueId& x, ValueId y) {
    const int64_t cols = graph.value(x).cols;
    const WeightId w = weight(1, cols, 1.0f);
    const ValueId h = value(name, cols);
    if (y < 0) {
      add(name, layer, RmsNorm{}, {x}, {h}, {w});
    } else {
      const ValueId s = value(name + ".sum", cols);
      add(name, layer, RmsNorm{}, {x, y}, {h, s}, {w});
      x = s;
    }
    return h;
  }

  std::mt19937 random_{7};
};

}  // namespace hetero
