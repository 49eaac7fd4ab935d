#include "base/files.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>

namespace hetero {
namespace {

TEST(Files, ReplacesAsAWholeAndLeavesNothingElse) {
  const std::filesystem::path folder =
      std::filesystem::temp_directory_path() / ("hetero-files-" + std::to_string(getpid()));
  const std::string path = (folder / "new" / "a.txt").string();
  for (const std::string text : {"first, longer", "second"}) {
    ASSERT_TRUE(replace_file(path, text).ok());
    std::ifstream in(path, std::ios::binary);
    EXPECT_EQ(std::string(std::istreambuf_iterator<char>(in), {}), text);
  }
  const auto entries = std::filesystem::directory_iterator(folder / "new");
  EXPECT_EQ(std::distance(begin(entries), end(entries)), 1);
  const Status status = replace_file(path + "/below-a-file", "x");
  EXPECT_EQ(status.code(), Code::kIo);
  EXPECT_NE(status.message().find("below-a-file"), std::string::npos);
  std::filesystem::remove_all(folder);
}

TEST(Files, HashIsFnv1a) {
  EXPECT_EQ(text_hash(""), 0xcbf29ce484222325u);
  EXPECT_EQ(text_hash("a"), 0xaf63dc4c8601ec8cu);  // of the published test vectors
}

}  // namespace
}  // namespace hetero
