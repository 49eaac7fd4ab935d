// The Gemma family. gemma: GELU, scaled embeddings, output tied to them. gemma2 adds norms behind
// each sublayer, capped scores and logits, and every second layer sees a window only. gemma3 has
// norms of query and key heads instead of the cap, five of six layers with a window, and in these a
// rope of their own. The norms' weights lie in the files with their 1 added.
#include <cmath>
#include <cstdint>

#include "graph/builder.h"

namespace hetero {

void build_gemma(GraphBuilder& b) {
  ModelShape& s = b.shape();
  DecoderStyle style;
  style.pairs = RopePairs::kHalves;
  style.activation = Activation::kGeluTanh;
  style.embedding_scale = std::sqrt(static_cast<float>(s.width));
  const auto window = [&](std::optional<int64_t> fallback) {
    s.window = b.integer("attention.sliding_window", 0, INT32_MAX, fallback);
  };
  const auto cap = [&](const char* name, double fallback) {
    return static_cast<float>(b.real(name, 0.0, 1e6, fallback));
  };
  bool scale_by_width = false;  // scores by (width / heads)^-1/2: 27B models, of which files say nothing else
  if (s.architecture == "gemma2") {
    style.post_norms = true;
    style.window_period = 2;
    window(4096);
    style.attention_cap = cap("attn_logit_softcapping", 50.0);
    style.logit_cap = cap("final_logit_softcapping", 30.0);
    scale_by_width = s.layers == 46 && s.width == 4608;
  } else if (s.architecture == "gemma3") {
    style.post_norms = true;
    style.head_norms = true;
    style.window_period = 6;
    window(0);
    style.window_rope_base = b.real("rope.freq_base_swa", 1.0, 1e12, 10000.0);
    style.logit_cap = cap("final_logit_softcapping", 0.0);
    scale_by_width = s.layers == 62 && s.width == 5376;
  }
  const double dims = scale_by_width ? static_cast<double>(s.width) / s.heads : s.head_dim;
  style.attention_scale = static_cast<float>(b.real("attention.scale", 1e-6, 1e6, 1.0 / std::sqrt(dims)));
  build_decoder(b, style);
}

}  // namespace hetero
