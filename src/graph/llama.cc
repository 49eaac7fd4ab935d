// The llama family: Llama 1 to 3.2, Mistral, Mixtral, SmolLM2, TinyLlama and others that files call
// "llama", and InternLM2, whose files have the same tensors. Rope on adjacent pairs, SwiGLU.
#include <cstdint>

#include "graph/builder.h"

namespace hetero {

void build_llama(GraphBuilder& b) {
  b.shape().window = b.integer("attention.sliding_window", 0, INT32_MAX, 0);  // Mistral 7B v0.1
  build_decoder(b, {});
}

}  // namespace hetero
