// Where tests find the shared test data: $HETERO_CASES, or the folder fixed at configure time.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

namespace hetero {

inline std::string cases_dir() {
  const char* env = std::getenv("HETERO_CASES");
  return env != nullptr ? env : HETERO_CASES_DEFAULT;
}

}  // namespace hetero

/// Skips the calling test, with the reason, where `subfolder` of the test data is absent.
#define HETERO_NEED_CASES(subfolder)                                                        \
  do {                                                                                      \
    if (!std::filesystem::exists(::hetero::cases_dir() + "/" + (subfolder))) {              \
      GTEST_SKIP() << "no test data at " << ::hetero::cases_dir() << "/" << (subfolder);    \
    }                                                                                       \
  } while (0)
