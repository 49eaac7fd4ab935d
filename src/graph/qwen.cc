// The Qwen family: qwen2 (with Qwen2.5), qwen3, qwen2moe, qwen3moe. Rope on halves, SwiGLU; biases
// of q, k and v in qwen2, norms of query and key heads in qwen3, a shared expert in qwen2moe.
#include <algorithm>

#include "graph/builder.h"

namespace hetero {

void build_qwen(GraphBuilder& b) {
  ModelShape& s = b.shape();
  DecoderStyle style;
  style.pairs = RopePairs::kHalves;
  style.head_norms = s.architecture.starts_with("qwen3");
  if (s.architecture.ends_with("moe") && b.integer("expert_count", 1, 65536) > 0) {
    s.expert_ffn = b.integer("expert_feed_forward_length", 1, 1 << 24,
                             std::max<int64_t>(1, s.ffn / std::max(1, s.experts_used)));
    if (s.architecture == "qwen2moe") {
      style.normalize_routes = false;
      style.shared_ffn = b.integer("expert_shared_feed_forward_length", 1, 1 << 24, s.ffn);
    }
  }
  build_decoder(b, style);
}

}  // namespace hetero
