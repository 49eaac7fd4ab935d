#include "base/files.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <thread>
#include <vector>

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

class TrimTest : public ::testing::Test {
 protected:
  TrimTest() { std::filesystem::create_directories(folder_ / "inner"); }
  ~TrimTest() override { std::filesystem::remove_all(folder_); }

  /// A file of that size, used so many hours ago.
  void add(const std::string& name, size_t size, int hours_ago) {
    std::ofstream(folder_ / name) << std::string(size, 'x');
    std::filesystem::last_write_time(folder_ / name, now_ - std::chrono::hours(hours_ago));
  }
  Bytes trim(Bytes limit) {
    return trim_folder(
        folder_.string(), limit, [](std::string_view name) { return name.ends_with(".blob"); }, now_);
  }
  /// Names in order.
  std::string left() const {
    std::set<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
      names.insert(entry.path().filename().string());
    }
    std::string text;
    for (const std::string& name : names) {
      text += (text.empty() ? "" : " ") + name;
    }
    return text;
  }

  const std::filesystem::path folder_ =
      std::filesystem::temp_directory_path() / ("hetero-trim-" + std::to_string(getpid()));
  const std::filesystem::file_time_type now_ = std::filesystem::file_time_type::clock::now();
};

TEST_F(TrimTest, RemovesWhatWasUsedLongestAgo) {
  add("a.blob", 100, 3);
  add("b.blob", 100, 9);
  add("c.blob", 100, 1);
  add("d.blob", 100, 7);
  EXPECT_EQ(trim(400), 0);
  EXPECT_EQ(left(), "a.blob b.blob c.blob d.blob inner");
  EXPECT_EQ(trim(399), 100);
  EXPECT_EQ(left(), "a.blob c.blob d.blob inner");
  mark_used((folder_ / "d.blob").string());
  EXPECT_EQ(trim(150), 200);
  EXPECT_EQ(left(), "d.blob inner");
}

TEST_F(TrimTest, KeepsWhatIsInUseAndWhatIsNotItsOwn) {
  add("a.blob", 100, 0);  // as if this process had written it
  add("b.blob", 100, 1);
  add("profile.json", 100, 50);
  add("inner/c.blob", 100, 50);
  std::filesystem::create_symlink(folder_ / "profile.json", folder_ / "link.blob");
  EXPECT_EQ(trim(0), 100);
  EXPECT_EQ(left(), "a.blob inner link.blob profile.json");
  EXPECT_TRUE(std::filesystem::exists(folder_ / "inner" / "c.blob"));
}

TEST_F(TrimTest, AFolderThatIsNotThereIsEmpty) {
  EXPECT_EQ(trim_folder((folder_ / "none").string(), 0, [](std::string_view) { return true; }, now_), 0);
}

TEST_F(TrimTest, SeveralAtOnceRemoveNoMoreThanOne) {
  for (int i = 0; i < 200; ++i) {
    add(fmt::format("{:03}.blob", i), 10, 1 + i);
  }
  std::vector<std::thread> threads;
  std::atomic<Bytes> removed = 0;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] { removed += trim(1000); });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(removed, 1000);
  EXPECT_TRUE(std::filesystem::exists(folder_ / "099.blob"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "100.blob"));
}

TEST(Files, LongTextsAreShortenedBetweenCharacters) {
  EXPECT_EQ(shortened("abc", 3), "abc");
  EXPECT_EQ(shortened("abcd", 3), "abc... (4 bytes)");
  EXPECT_EQ(shortened("ab\xc3\xa4xy", 3), "ab... (6 bytes)");
  const Status status = read_text_file(std::string(100000, 'x')).status();
  EXPECT_EQ(status.code(), Code::kNotFound);
  EXPECT_LT(status.message().size(), 400u);
}

TEST(Files, HashIsFnv1a) {
  EXPECT_EQ(text_hash(""), 0xcbf29ce484222325u);
  EXPECT_EQ(text_hash("a"), 0xaf63dc4c8601ec8cu);  // of the published test vectors
}

}  // namespace
}  // namespace hetero
