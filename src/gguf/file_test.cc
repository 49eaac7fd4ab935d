#include "gguf/file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "cases.h"
#include "gguf/writer.h"

namespace hetero {
namespace {

class GgufFileTest : public testing::Test {
 protected:
  void TearDown() override {
    for (const std::string& path : written_) {
      std::filesystem::remove(path);
    }
  }

  std::string save(const std::string& bytes, const std::string& name = "file.gguf") {
    const std::string path = testing::TempDir() + std::to_string(getpid()) + "_" + name;
    std::ofstream(path, std::ios::binary) << bytes;
    written_.push_back(path);
    return path;
  }

 private:
  std::vector<std::string> written_;
};

GgufWriter sample() {
  GgufWriter w;
  w.set_string("general.architecture", "llama");
  w.set_uint("llama.block_count", 7);
  w.set_float("llama.eps", 0.5f);
  w.set_bool("flag", true);
  w.set_strings("words", {"a", "", "\xff"});
  w.set_ints("ints", {-1, 2});
  w.set_floats("floats", {0.25f});
  w.add_tensor("one", DType::kF32, {3}, std::vector<std::byte>(12, std::byte{1}));
  w.add_tensor("two", DType::kQ4_0, {64, 2}, std::vector<std::byte>(72, std::byte{2}));
  return w;
}

TEST_F(GgufFileTest, ReadsBackWhatTheWriterWrote) {
  const auto file = GgufFile::open(save(sample().bytes().value()));
  ASSERT_TRUE(file.ok()) << file.status().message();
  const GgufFile& f = **file;
  EXPECT_EQ(f.version(), 3u);
  EXPECT_EQ(f.get_string("general.architecture").value(), "llama");
  EXPECT_EQ(f.get_int("llama.block_count").value(), 7);
  EXPECT_EQ(f.get_float("llama.eps").value(), 0.5);
  EXPECT_EQ(f.get_float("llama.block_count").value(), 7.0);
  EXPECT_TRUE(f.get_bool_or("flag", false).value());
  EXPECT_EQ(f.get_array("words").value()->strings, (std::vector<std::string>{"a", "", "\xff"}));
  EXPECT_EQ(f.get_array("ints").value()->signeds, (std::vector<int64_t>{-1, 2}));
  EXPECT_EQ(f.get_array("floats").value()->floats, std::vector<double>{0.25});
  ASSERT_EQ(f.tensors().size(), 2u);
  const Tensor* two = f.find_tensor("two");
  ASSERT_NE(two, nullptr);
  EXPECT_EQ(two->rows(), 2);
  EXPECT_EQ(two->bytes, 72);
  EXPECT_EQ(two->data[71], std::byte{2});
}

TEST_F(GgufFileTest, LookUpsNameFileKeyAndWhatWasFound) {
  const std::string path = save(sample().bytes().value());
  const auto file = GgufFile::open(path);
  ASSERT_TRUE(file.ok());
  EXPECT_EQ((*file)->get_int("words").status().message(), path + ": words is an array, expected an integer");
  EXPECT_EQ((*file)->get_string("nothing").status().message(), path + ": metadata key nothing is missing");
  EXPECT_EQ((*file)->get_int_or("nothing", 3).value(), 3);
  EXPECT_FALSE((*file)->get_int_or("flag", 3).ok());
}

TEST_F(GgufFileTest, EveryTruncationIsAnErrorAndNeverACrash) {
  const std::string whole = sample().bytes().value();
  const size_t needed = whole.size() - 24;  // the last tensor's 72 bytes are padded to 96
  for (size_t length = 0; length < needed; ++length) {
    const auto file = GgufFile::open(save(whole.substr(0, length)));
    EXPECT_FALSE(file.ok()) << "cut to " << length << " bytes";
  }
  EXPECT_TRUE(GgufFile::open(save(whole.substr(0, needed))).ok());
}

TEST_F(GgufFileTest, EveryFlippedByteIsReadOrRefusedWithoutACrash) {
  const std::string whole = sample().bytes().value();
  int refused = 0;
  for (size_t i = 0; i < whole.size(); ++i) {
    for (const int flip : {0x01, 0x80, 0xff}) {
      std::string bytes = whole;
      bytes[i] = static_cast<char>(bytes[i] ^ flip);
      refused += GgufFile::open(save(bytes)).ok() ? 0 : 1;
    }
  }
  EXPECT_GT(refused, 300);
}

TEST_F(GgufFileTest, TypesThatAreNotReadAreNamed) {
  GgufWriter w;
  w.add_tensor("odd", static_cast<DType>(19), {256}, std::vector<std::byte>(256));
  const std::string path = save(w.bytes().value());
  const auto file = GgufFile::open(path);
  ASSERT_FALSE(file.ok());
  EXPECT_EQ(file.status().message(), path + ": tensor odd has type IQ1_S, which is not supported");
}

TEST_F(GgufFileTest, BigEndianFilesAreRefusedAsSuch) {
  std::string bytes = sample().bytes().value();
  std::swap(bytes[4], bytes[7]);
  const auto file = GgufFile::open(save(bytes));
  EXPECT_NE(file.status().message().find("big-endian"), std::string::npos) << file.status().message();
}

TEST_F(GgufFileTest, ReadingGivesWhatMappingGives) {
  const std::string path = save(sample().bytes().value());
  int calls = 0;
  const auto read = GgufFile::open(path, {false, [&](Bytes, Bytes) { ++calls; }});
  ASSERT_TRUE(read.ok()) << read.status().message();
  EXPECT_GT(calls, 0);
  EXPECT_EQ((*read)->find_tensor("two")->data[71], std::byte{2});
  // Value type 4 (u32), then the value.
  const auto raw = (*read)->metadata_bytes(1);
  ASSERT_EQ(raw.size(), 8u);
  EXPECT_EQ(raw[0], std::byte{4});
  EXPECT_EQ(raw[4], std::byte{7});
}

std::string part(uint32_t number, uint32_t count, const std::string& tensor, uint32_t tensors = 2) {
  GgufWriter w;
  if (number == 0) {
    w.set_string("general.architecture", "llama");
  }
  w.set_uint("split.no", number);
  w.set_uint("split.count", count);
  w.set_uint("split.tensors.count", tensors);
  w.add_tensor(tensor, DType::kF32, {1}, std::vector<std::byte>(4, std::byte{static_cast<uint8_t>(number)}));
  return w.bytes().value();
}

TEST_F(GgufFileTest, AnyPartOfASplitFileOpensAllOfThem) {
  const std::string first = save(part(0, 2, "a"), "m-00001-of-00002.gguf");
  const std::string second = save(part(1, 2, "b"), "m-00002-of-00002.gguf");
  for (const std::string& path : {first, second}) {
    for (const bool map : {true, false}) {
      const auto file = GgufFile::open(path, {map, {}});
      ASSERT_TRUE(file.ok()) << file.status().message();
      ASSERT_EQ((*file)->tensors().size(), 2u);
      EXPECT_EQ((*file)->find_tensor("a")->data[0], std::byte{0});
      EXPECT_EQ((*file)->find_tensor("b")->data[0], std::byte{1});
      EXPECT_EQ((*file)->get_string("general.architecture").value(), "llama");
      EXPECT_EQ((*file)->path(), path);
    }
  }
}

TEST_F(GgufFileTest, PartsThatAreMissingOrDoNotFitAreNamed) {
  const auto error = [](const std::string& path) {
    const auto file = GgufFile::open(path);
    return file.ok() ? "opened" : file.status().message();
  };
  const std::string first = save(part(0, 2, "a"), "m-00001-of-00002.gguf");
  const std::string second = testing::TempDir() + std::to_string(getpid()) + "_m-00002-of-00002.gguf";
  EXPECT_EQ(error(first), second + ": part 2 of 2 is missing; \"" + first + "\" needs it");
  save(part(1, 2, "a"), "m-00002-of-00002.gguf");
  EXPECT_EQ(error(first), second + ": tensor a appears twice");
  save(part(0, 2, "b"), "m-00002-of-00002.gguf");
  EXPECT_EQ(error(first), second + ": says that it is part 1 of 2, expected 2 of 2");
  save(part(1, 2, "b", 3), "m-00002-of-00002.gguf");
  EXPECT_EQ(error(first), second + ": split.tensors.count is 3, but the parts before say 2");
  save(part(0, 2, "a", 3), "m-00001-of-00002.gguf");
  EXPECT_EQ(error(first), first + ": split.tensors.count is 3, but the 2 parts have 2 tensors");
  save("GGUF, but cut", "m-00002-of-00002.gguf");
  EXPECT_EQ(error(first).rfind(second, 0), 0u) << error(first);
  const std::string renamed = save(part(0, 2, "a"), "renamed.gguf");
  EXPECT_NE(error(renamed).find("expected a name that ends in \"-00001-of-00002.gguf\""), std::string::npos);
}

TEST(GgufHostile, ContainerErrorsAreRefusedAndTheRestDoesNoHarm) {
  HETERO_NEED_CASES("hostile");
  std::ifstream in(cases_dir() + "/hostile/manifest.json");
  const auto manifest = nlohmann::json::parse(in);
  int container = 0;
  for (const auto& entry : manifest.is_array() ? manifest : manifest.at("files")) {
    const std::string stage = entry.at("stage");
    const std::string name = entry.at("file");
    const auto file = GgufFile::open(cases_dir() + "/hostile/" + name);
    // Hyperparameters, vocabulary, shapes and templates concern those who read them later.
    if (stage == "header" || stage == "kv" || stage == "tensor_info" || stage == "tensor_data") {
      ++container;
      // Who computes with the file refuses these: graph/model_test.cc.
      const bool for_graph = name == "kv-arch-u32.gguf" || name == "kv-arch-unknown.gguf" ||
                             name == "kv-missing-arch.gguf" || name == "ti-type-i32-weights.gguf";
      if (entry.at("expect") == "reject" && !for_graph) {
        EXPECT_FALSE(file.ok()) << name << ": " << entry.at("what");
      }
    } else if (stage == "control") {
      EXPECT_TRUE(file.ok()) << name << ": " << file.status().message();
    }
    if (!file.ok()) {
      EXPECT_NE(file.status().message().find(name), std::string::npos) << file.status().message();
    }
  }
  EXPECT_GT(container, 30);
}

}  // namespace
}  // namespace hetero
