// The llama family: Llama 1 to 3.2, SmolLM2, TinyLlama, and others that files call "llama".
// Pre-norm decoder layers, grouped-query attention, rope on adjacent pairs, SwiGLU.
#include <fmt/format.h>

#include <cmath>

#include "graph/builder.h"

namespace hetero {

void build_llama(GraphBuilder& b) {
  const ModelShape& s = b.shape();
  const auto eps = static_cast<float>(b.real("attention.layer_norm_rms_epsilon", 0.0, 1.0));
  const int rotary = static_cast<int>(b.integer("rope.dimension_count", 2, s.head_dim, s.head_dim));
  if (b.ok() && rotary % 2 != 0) {
    b.fail(malformed(fmt::format("{}: {} is {}, expected an even number", b.file().path(),
                                 b.key("rope.dimension_count"), rotary)));
  }
  if (b.integer("expert_count", 0, 65536, 0) > 0) {
    b.fail(unsupported(fmt::format("{}: {} is set; mixtures of experts are not supported yet", b.file().path(),
                                   b.key("expert_count"))));
  }
  if (!b.ok()) {
    return;
  }
  const Rope rope{s.heads, s.kv_heads, s.head_dim, rotary, RopePairs::kAdjacent};
  const int64_t q_rows = int64_t{s.heads} * s.head_dim;
  const int64_t kv_rows = int64_t{s.kv_heads} * s.head_dim;
  const float scale = 1.0f / std::sqrt(static_cast<float>(s.head_dim));
  // A model in full precision keeps its cache so too; for all others F16 loses nothing that counts.
  const Tensor* first = b.file().find_tensor("blk.0.attn_k.weight");
  const DType cache = first != nullptr && first->dtype == DType::kF32 ? DType::kF32 : DType::kF16;

  ValueId x = b.embed("token_embd");
  const ValueId table = b.rope_table(rotary);
  std::optional<ValueId> pending;  // a sublayer's output, added to x by the next norm
  for (int i = 0; i < s.layers && b.ok(); ++i) {
    const std::string blk = fmt::format("blk.{}.", i);
    auto n = b.rms_norm(blk + "attn_norm", i, x, pending, eps);
    const ValueId qkv = b.linear(blk + "attn_qkv", i, n.h,
                                 {{blk + "attn_q", q_rows}, {blk + "attn_k", kv_rows}, {blk + "attn_v", kv_rows}});
    const ValueId a = b.attention(i, qkv, table, rope, scale, cache);
    const ValueId o = b.linear(blk + "attn_output", i, a, {{blk + "attn_output", s.width}});
    n = b.rms_norm(blk + "ffn_norm", i, n.s, o, eps);
    const ValueId gate_up = b.linear(blk + "ffn_gate_up", i, n.h, {{blk + "ffn_gate", s.ffn}, {blk + "ffn_up", s.ffn}});
    const ValueId f = b.gated(i, gate_up, Activation::kSilu);
    pending = b.linear(blk + "ffn_down", i, f, {{blk + "ffn_down", s.width}});
    x = n.s;
  }
  b.begin_head();
  const auto n = b.rms_norm("output_norm", -1, x, pending, eps);
  const std::string output = b.has("output.weight") ? "output" : "token_embd";  // tied
  b.logits(b.linear("output", -1, n.h, {{output, s.vocabulary}}));
}

}  // namespace hetero
