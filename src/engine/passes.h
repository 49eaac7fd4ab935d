// How a prompt is cut into passes.
#pragma once

#include <cstdint>
#include <functional>

#include "base/clock.h"

namespace hetero {

/// Tokens of one prefill pass, the largest standard length of NPU graphs. Longer prompts take
/// several passes.
inline constexpr int64_t kMaxPassTokens = 512;

/// Rows of one pass of the output head, when the logits of every position are wanted. A standard
/// length as well; more would cost memory (rows * vocabulary) and gain nothing.
inline constexpr int64_t kMaxHeadRows = 32;

/// Rows of the next pass of a prompt of which `tokens` are left: as many as there can be, or half of the
/// last ones where two such passes are predicted to be faster. A last pass of few rows reads all weights
/// for them. `cost`: the predicted time of a pass; zero: not known, then nothing is evened out.
int64_t next_pass(int64_t tokens, const std::function<Nanos(int64_t rows)>& cost);

}  // namespace hetero
