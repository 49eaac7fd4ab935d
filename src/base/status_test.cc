#include "base/status.h"

#include <gtest/gtest.h>

#include <memory>

namespace hetero {
namespace {

Result<int> half(int x) {
  if (x % 2 != 0) {
    return invalid_argument("expected an even number, found " + std::to_string(x));
  }
  return x / 2;
}

Result<int> quarter(int x) {
  HETERO_TRY(const int h, half(x));
  return half(h);
}

TEST(Status, KeepsCodeAndMessageAndAddsPrefix) {
  const Status s = malformed("bad magic").with_prefix("model.gguf");
  EXPECT_EQ(s.code(), Code::kMalformed);
  EXPECT_EQ(s.message(), "model.gguf: bad magic");
  EXPECT_TRUE(Status().with_prefix("x").ok());
}

TEST(Result, TryPassesValuesAndErrors) {
  EXPECT_EQ(*quarter(12), 3);
  EXPECT_EQ(quarter(6).status().message(), "expected an even number, found 3");
}

TEST(Result, HoldsMoveOnlyValues) {
  Result<std::unique_ptr<int>> r = std::make_unique<int>(5);
  std::unique_ptr<int> p = std::move(r).value();
  EXPECT_EQ(*p, 5);
}

}  // namespace
}  // namespace hetero
