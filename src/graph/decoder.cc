// The decoder that most families share: pre-norm layers of grouped-query attention and a gated
// feed-forward or experts. What differs is in DecoderStyle.
#include <fmt/format.h>

#include <cmath>

#include "graph/builder.h"

namespace hetero {
namespace {

/// For each layer, whether its attention is local, by the file or else by the family's period.
std::vector<bool> local_layers(GraphBuilder& b, int period) {
  const ModelShape& s = b.shape();
  std::vector<bool> local(static_cast<size_t>(s.layers), false);
  if (s.window == 0) {
    return local;
  }
  const std::string key = b.key("attention.sliding_window_pattern");
  const MetaValue* found = b.file().find(key);
  if (found != nullptr && std::holds_alternative<std::shared_ptr<const MetaArray>>(*found)) {
    const auto& array = *std::get<std::shared_ptr<const MetaArray>>(*found);
    if (array.bools.size() != local.size()) {
      b.fail(malformed(fmt::format("{}: {} has {} booleans, expected one for each of {} layers",
                                   b.file().path(), key, array.bools.size(), s.layers)));
      return local;
    }
    return array.bools;
  }
  period = static_cast<int>(b.integer("attention.sliding_window_pattern", 0, 4096, period));
  for (int i = 0; i < s.layers; ++i) {
    local[static_cast<size_t>(i)] = period == 0 || i % period < period - 1;
  }
  return local;
}

}  // namespace

void build_decoder(GraphBuilder& b, const DecoderStyle& style) {
  const ModelShape& s = b.shape();
  const auto eps = static_cast<float>(b.real("attention.layer_norm_rms_epsilon", 0.0, 1.0));
  const int rotary = static_cast<int>(b.integer("rope.dimension_count", 2, s.head_dim, s.head_dim));
  if (b.ok() && rotary % 2 != 0) {
    b.fail(malformed(fmt::format("{}: {} is {}, expected an even number", b.file().path(),
                                 b.key("rope.dimension_count"), rotary)));
  }
  const std::vector<bool> local = local_layers(b, style.window_period);
  if (!b.ok()) {
    return;
  }
  const Rope rope{s.heads, s.kv_heads, s.head_dim, rotary, style.pairs, eps};
  const float scale = style.attention_scale.value_or(1.0f / std::sqrt(static_cast<float>(s.head_dim)));
  const int64_t q_rows = int64_t{s.heads} * s.head_dim;
  const int64_t kv_rows = int64_t{s.kv_heads} * s.head_dim;
  const DType cache = b.kv_cache(style.fused ? "blk.0.attn_qkv.weight" : "blk.0.attn_k.weight");

  ValueId x = b.embed("token_embd", style.embedding_scale);
  const ValueId table = b.rope_table(rotary);
  const ValueId local_table = s.window > 0 && style.window_rope_base
                                  ? b.plain_rope_table("rope_table.local", rotary, *style.window_rope_base)
                                  : table;
  std::optional<ValueId> pending;  // a sublayer's output, added to x by the next norm
  for (int i = 0; i < s.layers && b.ok(); ++i) {
    const std::string blk = fmt::format("blk.{}.", i);
    const bool is_local = local[static_cast<size_t>(i)];
    auto n = b.rms_norm(blk + "attn_norm", i, x, pending, eps);
    using Matrices = std::vector<GraphBuilder::Matrix>;
    const ValueId qkv = b.linear(
        blk + "attn_qkv", i, n.h,
        style.fused
            ? Matrices{{blk + "attn_qkv", q_rows + 2 * kv_rows}}
            : Matrices{{blk + "attn_q", q_rows}, {blk + "attn_k", kv_rows}, {blk + "attn_v", kv_rows}});
    const Attention attention{s.heads, s.kv_heads,          s.head_dim,
                              scale,   style.attention_cap, is_local ? s.window : 0};
    const ValueId a =
        b.attention(i, qkv, is_local ? local_table : table, rope, attention, cache, style.head_norms);
    ValueId out = b.linear(blk + "attn_output", i, a, {{blk + "attn_output", s.width}});
    if (style.post_norms) {
      out = b.rms_norm(blk + "post_attention_norm", i, out, {}, eps).h;
    }
    n = b.rms_norm(blk + "ffn_norm", i, n.s, out, eps);
    if (s.experts > 0) {
      out = b.experts(i, n.h, style.activation, style.normalize_routes, style.shared_ffn);
    } else {
      const ValueId gate_up =
          b.linear(blk + "ffn_gate_up", i, n.h,
                   style.fused ? Matrices{{blk + "ffn_up", 2 * s.ffn}}
                               : Matrices{{blk + "ffn_gate", s.ffn}, {blk + "ffn_up", s.ffn}});
      const ValueId f = b.gated(blk + "gated", i, gate_up, style.activation);
      out = b.linear(blk + "ffn_down", i, f, {{blk + "ffn_down", s.width}});
    }
    if (style.post_norms) {
      out = b.rms_norm(blk + "post_ffw_norm", i, out, {}, eps).h;
    }
    pending = out;
    x = n.s;
  }
  b.begin_head();
  const auto n = b.rms_norm("output_norm", -1, x, pending, eps);
  const std::string output = b.has("output.weight") ? "output" : "token_embd";  // tied
  const ValueId logits = b.linear("output", -1, n.h, {{output, s.vocabulary}});
  b.logits(style.logit_cap > 0.0f ? b.soft_cap("output_cap", logits, style.logit_cap) : logits);
}

}  // namespace hetero
