#include "engine/passes.h"

#include <algorithm>

namespace hetero {

int64_t next_pass(int64_t tokens, const std::function<Nanos(int64_t rows)>& cost) {
  if (tokens <= kMaxPassTokens || tokens >= 2 * kMaxPassTokens) {
    return std::min(tokens, kMaxPassTokens);
  }
  const int64_t half = (tokens + 1) / 2;
  const Nanos first = cost(half), second = cost(tokens - half);
  const Nanos full = cost(kMaxPassTokens), rest = cost(tokens - kMaxPassTokens);
  const bool known = std::min({first, second, full, rest}) > Nanos{};
  return known && first + second < full + rest ? half : kMaxPassTokens;
}

}  // namespace hetero
