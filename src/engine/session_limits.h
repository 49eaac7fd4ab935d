// How much one pass of a session takes on.
#pragma once

#include <cstdint>

namespace hetero {

/// Tokens of one prefill pass, the largest standard length of NPU graphs. Longer prompts take
/// several passes.
inline constexpr int64_t kMaxPassTokens = 512;

/// Rows of one pass of the output head, when the logits of every position are wanted. A standard
/// length as well; more would cost memory (rows * vocabulary) and gain nothing.
inline constexpr int64_t kMaxHeadRows = 32;

}  // namespace hetero
