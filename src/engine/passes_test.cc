#include "engine/passes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace hetero {
namespace {

using Passes = std::vector<int64_t>;

Passes passes_of(int64_t tokens, const std::function<Nanos(int64_t)>& cost) {
  Passes passes;
  for (; tokens > 0; tokens -= passes.back()) {
    passes.push_back(next_pass(tokens, cost));
  }
  return passes;
}

/// Every pass reads all weights, which takes as long as computing 64 rows.
Nanos reading(int64_t rows) {
  return std::chrono::microseconds(std::max<int64_t>(rows, 64));
}

TEST(Passes, EvenOutTheLastTwoWhereThatIsFaster) {
  EXPECT_EQ(passes_of(525, reading), (Passes{263, 262}));
  EXPECT_EQ(passes_of(2 * 512 + 3, reading), (Passes{512, 258, 257}));
  EXPECT_EQ(passes_of(700, reading), (Passes{512, 188}));  // as fast either way
}

TEST(Passes, AreAsLongAsTheyCanBeWhereNothingIsKnown) {
  const auto unknown = [](int64_t) { return Nanos{}; };
  EXPECT_EQ(passes_of(525, unknown), (Passes{512, 13}));
  EXPECT_EQ(passes_of(512, reading), (Passes{512}));
  EXPECT_EQ(passes_of(1, reading), (Passes{1}));
  EXPECT_EQ(passes_of(1024, reading), (Passes{512, 512}));
}

TEST(Passes, StayWhereHalvesAreDearer) {
  // As graphs that pad to the next standard length.
  const auto padding = [](int64_t rows) {
    return std::chrono::microseconds(rows <= 32 ? 32 : rows <= 256 ? 256 : 512);
  };
  EXPECT_EQ(passes_of(525, padding), (Passes{512, 13}));
}

}  // namespace
}  // namespace hetero
