// Phi-3, Phi-3.5 and Phi-4: like llama with rope on halves; q, k and v lie in one tensor, gate and up
// in another. Long contexts by longrope (rope.cc).
#include <cstdint>

#include "graph/builder.h"

namespace hetero {

void build_phi3(GraphBuilder& b) {
  b.shape().window = b.integer("attention.sliding_window", 0, INT32_MAX, 0);
  DecoderStyle style;
  style.pairs = RopePairs::kHalves;
  style.fused = true;
  build_decoder(b, style);
}

}  // namespace hetero
