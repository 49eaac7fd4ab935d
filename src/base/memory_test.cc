#include "base/memory.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <cstring>
#include <fstream>
#include <vector>

namespace hetero {
namespace {

TEST(PageMemory, IsZeroedAlignedAndMovable) {
  Result<PageMemory> r = PageMemory::allocate(100000);
  ASSERT_TRUE(r.ok());
  PageMemory memory = std::move(r).value();
  EXPECT_EQ(reinterpret_cast<uintptr_t>(memory.data()) % 4096, 0u);
  for (int i = 0; i < 100000; ++i) {
    ASSERT_EQ(memory.data()[i], std::byte{0});
  }
  std::memset(memory.data(), 7, 100000);
  const PageMemory moved = std::move(memory);
  EXPECT_EQ(moved.data()[99999], std::byte{7});
}

TEST(PageMemory, ImpossibleSizeIsAnError) {
  const auto r = PageMemory::allocate(Bytes{1} << 60);
  ASSERT_FALSE(r.ok());
  EXPECT_EQ(r.status().code(), Code::kResourceExhausted);
}

TEST(MappedFile, ReleaseAnyLeavesMemoryAloneThatIsNoMapping) {
  const std::string path = testing::TempDir() + "mapped_file_release";
  const std::string contents(5 * 4096 + 100, 'x');
  std::ofstream(path) << contents;
  {
    const auto file = MappedFile::open(path);
    const auto copy = MappedFile::read(path);
    ASSERT_TRUE(file.ok() && copy.ok());
    for (const MappedFile* f : {&*file, &*copy}) {
      EXPECT_EQ(std::memcmp(f->data(), contents.data(), contents.size()), 0);
      MappedFile::release_any(f->data() + 1, f->size() - 1);
      EXPECT_EQ(std::memcmp(f->data(), contents.data(), contents.size()), 0);
    }
    MappedFile::release_any(file->data() + 4096, Bytes{1} << 30);  // not all of it is the file's
  }
  std::vector<std::byte> memory(3 * 4096, std::byte{5});
  MappedFile::release_any(memory.data(), 3 * 4096);
  EXPECT_EQ(memory[4096], std::byte{5});
  std::remove(path.c_str());
}

TEST(MappedFile, ReadsContentsAndNamesMissingFiles) {
  const std::string path = testing::TempDir() + "mapped_file_test";
  std::ofstream(path) << "hello";
  {
    const auto file = MappedFile::open(path);
    ASSERT_TRUE(file.ok());
    ASSERT_EQ(file->size(), 5);
    EXPECT_EQ(std::memcmp(file->data(), "hello", 5), 0);
  }
  std::remove(path.c_str());
  const auto missing = MappedFile::open(path);
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(missing.status().code(), Code::kNotFound);
  EXPECT_NE(missing.status().message().find(path), std::string::npos);
  EXPECT_FALSE(MappedFile::open(testing::TempDir()).ok());
}

TEST(MappedFile, ReadGivesTheSameBytesAndSaysHowFarItIs) {
  const std::string path = testing::TempDir() + "read_file_test";
  const std::string contents(20'000'000, 'x');
  std::ofstream(path) << contents << "end";
  std::vector<Bytes> seen;
  const auto file = MappedFile::read(path, [&](Bytes done, Bytes total) {
    EXPECT_EQ(total, 20'000'003);
    seen.push_back(done);
  });
  std::remove(path.c_str());  // a copy needs the file no longer
  ASSERT_TRUE(file.ok()) << file.status().message();
  ASSERT_EQ(file->size(), 20'000'003);
  EXPECT_EQ(std::memcmp(file->data() + 20'000'000, "end", 3), 0);
  EXPECT_GT(seen.size(), 1u);
  EXPECT_EQ(seen.back(), 20'000'003);
  EXPECT_EQ(MappedFile::read(path).status().code(), Code::kNotFound);
}

TEST(MappedFile, ReleasedPagesLeaveMemoryAndComeBackWithTheirContents) {
  const std::string path = testing::TempDir() + "release_file_test";
  const std::string contents(8'000'000, 'x');
  std::ofstream(path) << contents;
  for (const bool map : {true, false}) {
    const auto file = map ? MappedFile::open(path) : MappedFile::read(path);
    ASSERT_TRUE(file.ok());
    EXPECT_EQ(std::memcmp(file->data(), contents.data(), contents.size()), 0);
    EXPECT_GE(file->resident(), 7'900'000);
    file->release(file->data() + 100, 5'999'900);
    if (map) {
      EXPECT_LT(file->resident(), 2'100'000);
    } else {
      EXPECT_EQ(file->resident(), 8'000'000) << "a copy must keep its only contents";
    }
    EXPECT_EQ(std::memcmp(file->data(), contents.data(), contents.size()), 0);
  }
  std::remove(path.c_str());
}

TEST(ResidentBytes, GrowsWithTouchedPages) {
  const Bytes before = resident_bytes();
  ASSERT_GT(before, 0);
  const auto memory = PageMemory::allocate(64 << 20);
  ASSERT_TRUE(memory.ok());
  std::memset(memory->data(), 1, 64 << 20);
  EXPECT_GT(resident_bytes(), before + (48 << 20));
  EXPECT_GE(peak_resident_bytes(), 64 << 20);
}

}  // namespace
}  // namespace hetero
