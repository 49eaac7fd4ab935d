// How loops are spread over the pool's threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>

#include "base/threads.h"

namespace hetero::cpu {

inline int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}
inline int64_t round_up(int64_t a, int64_t b) {
  return ceil_div(a, b) * b;
}

/// A loop with less than this many elements is not worth waking threads for.
constexpr int64_t kElementsPerUnit = 16384;

/// Calls body(unit, worker) for each unit in [0, units), handing units to whichever worker is free.
template <class Body>
void for_units(ThreadPool& pool, int64_t units, const Body& body) {
  if (units <= 1 || pool.size() == 1) {
    for (int64_t unit = 0; unit < units; ++unit) {
      body(unit, 0);
    }
    return;
  }
  std::atomic<int64_t> next = 0;
  const auto loop = [&](int worker) {
    for (int64_t unit = next.fetch_add(1); unit < units; unit = next.fetch_add(1)) {
      body(unit, worker);
    }
  };
  pool.run(std::cref(loop));
}

/// Splits `rows` rows of `cols` elements into units of at least kElementsPerUnit elements.
template <class Body>
void for_rows(ThreadPool& pool, int64_t rows, int64_t cols, const Body& body) {
  const int64_t each = std::max<int64_t>(1, kElementsPerUnit / std::max<int64_t>(cols, 1));
  for_units(pool, ceil_div(rows, each), [&](int64_t unit, int worker) {
    for (int64_t t = unit * each; t < std::min(rows, (unit + 1) * each); ++t) {
      body(t, worker);
    }
  });
}

}  // namespace hetero::cpu
