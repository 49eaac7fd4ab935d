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

/// Calls body(part, begin, end, worker) for ranges that make up [0, count) of each part, handing them to
/// whichever worker is free. They get shorter towards the end (guided self-scheduling: Polychronopoulos and
/// Kuck, IEEE Trans. Computers C-36, 1987), so that workers end together even where one of them is slower.
/// None is longer than `most`; but at the end of a part, all are multiples of `least`.
template <class Body>
void for_ranges(ThreadPool& pool, int64_t parts, int64_t count, int64_t least, int64_t most,
                const Body& body) {
  const int64_t all = parts * count;
  std::atomic<int64_t> next = 0;
  const auto loop = [&](int worker) {
    int64_t at = next.load();
    while (at < all) {
      const int64_t share = pool.size() == 1 ? all : (all - at) / (pool.size() * int64_t{4});
      const int64_t begin = at % count;
      const int64_t some = std::min(count - begin, std::max(least, std::min(share, most) / least * least));
      if (next.compare_exchange_weak(at, at + some)) {
        body(at / count, begin, begin + some, worker);
        at = next.load();
      }
    }
  };
  all <= least ? loop(0) : pool.run(std::cref(loop));
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
