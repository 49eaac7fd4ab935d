#include "gguf/quantize.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <vector>

#include "gguf/dequantize.h"
#include "gguf/quantize_file.h"

namespace hetero {
namespace {

/// 4096 floats of several kinds, exactly the same everywhere: uniform in [-1, 1), peaked, shifted,
/// sparse.
std::vector<float> sample() {
  std::vector<float> x(4096);
  uint64_t state = 12345;
  for (size_t i = 0; i < x.size(); ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    x[i] = static_cast<float>(static_cast<int64_t>(state >> 40) - (1 << 23)) / static_cast<float>(1 << 23);
    switch (i / 256 % 4) {
      case 1:
        x[i] = x[i] * x[i] * x[i] * 0.25f;
        break;
      case 2:
        x[i] += 0.5f;
        break;
      case 3:
        x[i] = i % 3 != 0 ? 0.0f : x[i];
        break;
      default:
        break;
    }
  }
  return x;
}

uint64_t fnv1a(const void* data, size_t size) {
  uint64_t h = 0xcbf29ce484222325u;
  for (size_t i = 0; i < size; ++i) {
    h = (h ^ static_cast<const uint8_t*>(data)[i]) * 0x100000001b3u;
  }
  return h;
}

std::vector<std::byte> encode(DType type, const std::vector<float>& x) {
  std::vector<std::byte> bytes(static_cast<size_t>(row_bytes(type, static_cast<int64_t>(x.size()))));
  EXPECT_TRUE(quantize(type, x.data(), static_cast<int64_t>(x.size()), bytes.data()).ok());
  return bytes;
}

std::vector<float> decode(DType type, const std::vector<std::byte>& bytes, size_t count) {
  std::vector<float> y(count);
  dequantize(type, bytes.data(), static_cast<int64_t>(count), y.data());
  return y;
}

// Hashes of what gguf-py 0.19.0 (gguf.quants.quantize) makes of the same floats.
TEST(QuantizeReference, BytesAreThoseOfTheReference) {
  const std::vector<float> x = sample();
  ASSERT_EQ(fnv1a(x.data(), x.size() * 4), 0xda496e0776f6342cu);
  const std::pair<DType, uint64_t> expected[] = {
      {DType::kF16, 0x3e54932bdd7759a0u},  {DType::kBF16, 0xa3aaf161bb3b1b87u},
      {DType::kQ4_0, 0xcc79f4ca5867cc13u}, {DType::kQ4_1, 0x95564d6a48423543u},
      {DType::kQ5_0, 0xd6a6a0db8d62222cu}, {DType::kQ5_1, 0xd0cce3e2bce64235u},
      {DType::kQ8_0, 0xe10c239994b4482fu}};
  for (const auto& [type, hash] : expected) {
    const std::vector<std::byte> bytes = encode(type, x);
    EXPECT_EQ(fnv1a(bytes.data(), bytes.size()), hash) << traits(type).name;
  }
}

double squared_error(const std::vector<float>& x, const std::vector<float>& y) {
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    sum += (static_cast<double>(x[i]) - y[i]) * (static_cast<double>(x[i]) - y[i]);
  }
  return sum;
}

/// The error of the plain way to fill a part: `levels` even steps over its range (Q4_K: from the
/// smaller of 0 and the minimum; Q6_K: symmetric), with scales that are not rounded at all.
double plain_error(const std::vector<float>& x, size_t part, bool symmetric) {
  std::vector<float> y(x.size());
  for (size_t begin = 0; begin < x.size(); begin += part) {
    float low = 0;
    float high = 0;
    float largest = 0;
    for (size_t i = begin; i < begin + part; ++i) {
      low = std::min(low, x[i]);
      high = std::max(high, x[i]);
      largest = std::max(largest, std::abs(x[i]));
    }
    const float step = symmetric ? largest / 31.0f : (high - low) / 15.0f;
    for (size_t i = begin; i < begin + part; ++i) {
      const float from = symmetric ? 0.0f : low;
      y[i] = step > 0 ? std::round((x[i] - from) / step) * step + from : 0.0f;
    }
  }
  return squared_error(x, y);
}

TEST(QuantizeK, ErrorIsNoLargerThanThatOfEvenStepsOverTheRange) {
  const std::vector<float> x = sample();
  const double q4 = squared_error(x, decode(DType::kQ4_K, encode(DType::kQ4_K, x), x.size()));
  EXPECT_LT(q4, plain_error(x, 32, false));
  const double q6 = squared_error(x, decode(DType::kQ6_K, encode(DType::kQ6_K, x), x.size()));
  EXPECT_LT(q6, 1.05 * plain_error(x, 16, true));  // that has no rounding of scales to 8 bits
  EXPECT_LT(q6, q4 / 8);
}

// Levels of a part are evenly spaced, so an element inside of them is off by half a step at most,
// and one outside takes the outermost level. The step is found from the decoded levels' formula by
// decoding every level in place of the element.
TEST(QuantizeK, EveryElementTakesTheNearestLevelOfItsPart) {
  const std::vector<float> x = sample();
  for (const DType type : {DType::kQ4_K, DType::kQ6_K}) {
    const std::vector<std::byte> bytes = encode(type, x);
    const auto block = static_cast<size_t>(traits(type).block_bytes);
    for (size_t b = 0; b < x.size() / 256; ++b) {
      const std::vector<std::byte> one(bytes.begin() + b * block, bytes.begin() + (b + 1) * block);
      const std::vector<float> y = decode(type, one, 256);
      // All levels of each element: set the bits of every element to the same level.
      std::vector<std::vector<float>> levels;
      for (int q = 0; q < (type == DType::kQ4_K ? 16 : 64); ++q) {
        std::vector<std::byte> same = one;
        if (type == DType::kQ4_K) {
          std::fill(same.begin() + 16, same.end(), static_cast<std::byte>(q * 17));
        } else {
          std::fill(same.begin(), same.begin() + 128, static_cast<std::byte>((q & 15) * 17));
          std::fill(same.begin() + 128, same.begin() + 192, static_cast<std::byte>((q >> 4) * 0x55));
        }
        levels.push_back(decode(type, same, 256));
      }
      for (size_t i = 0; i < 256; ++i) {
        float best = std::numeric_limits<float>::infinity();
        for (const auto& level : levels) {
          best = std::min(best, std::abs(level[i] - x[b * 256 + i]));
        }
        const float error = std::abs(y[i] - x[b * 256 + i]);
        EXPECT_LE(error, best * (1 + 1e-4f) + 1e-7f)
            << traits(type).name << " block " << b << " element " << i;
      }
    }
  }
}

TEST(QuantizeK, ZerosAndConstantsSurvive) {
  for (const DType type : {DType::kQ4_K, DType::kQ6_K}) {
    for (const float value : {0.0f, 1.5f, -0.375f, 1e-20f, 60000.0f}) {
      const std::vector<float> x(256, value);
      for (const float y : decode(type, encode(type, x), 256)) {
        EXPECT_NEAR(y, value, std::abs(value) / 60 + 1e-6f) << traits(type).name;
      }
    }
  }
}

TEST(Quantize, ValuesThatATypeCannotHoldAreNamed) {
  std::vector<float> x(256, 1.0f);
  std::vector<std::byte> out(1024);
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), 1e38f}) {
    x[77] = bad;
    for (const DType type :
         {DType::kF16, DType::kQ4_0, DType::kQ4_1, DType::kQ8_0, DType::kQ4_K, DType::kQ6_K}) {
      const Status status = quantize(type, x.data(), 256, out.data());
      EXPECT_NE(status.message().find("element 77 is "), std::string::npos) << traits(type).name;
    }
  }
}

// --- Whole files ---------------------------------------------------------------------------------

class QuantizeFile : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "quantize_" + std::to_string(getpid());
    std::filesystem::create_directory(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  static std::vector<std::byte> floats(size_t count) {
    std::vector<float> x = sample();
    x.resize(count, 0.25f);
    const auto* p = reinterpret_cast<const std::byte*>(x.data());
    return {p, p + count * 4};
  }
  std::string model(bool tied, DType norm = DType::kF32) {
    GgufWriter w;
    w.set_string("general.architecture", "llama");
    w.set_uint("general.file_type", 0);
    w.set_bools("flags", {true, false});
    w.add_tensor("token_embd.weight", DType::kF32, {256, 4}, floats(1024));
    w.add_tensor("blk.0.attn_norm.weight", norm, {256},
                 norm == DType::kF32 ? floats(256) : std::vector<std::byte>(272));
    w.add_tensor("blk.0.attn_q.weight", DType::kF32, {256, 8}, floats(2048));
    w.add_tensor("blk.0.odd.weight", DType::kF32, {32, 2}, floats(64));
    w.add_tensor("blk.0.odder.weight", DType::kF32, {6, 2}, floats(12));
    w.add_tensor("blk.0.ffn_gate_inp.weight", DType::kF32, {256, 2}, floats(512));
    if (!tied) {
      w.add_tensor("output.weight", DType::kF32, {256, 4}, floats(1024));
    }
    EXPECT_TRUE(w.write(path("in.gguf")).ok());
    return path("in.gguf");
  }
  std::string path(const std::string& name) const { return folder_ + "/" + name; }

  std::string folder_;
};

TEST_F(QuantizeFile, TypesAreWhatUsersOfKQuantsExpect) {
  for (const bool tied : {false, true}) {
    const auto in = GgufFile::open(model(tied));
    ASSERT_TRUE(in.ok()) << in.status().message();
    const auto summary = quantize_file(**in, path("out.gguf"), DType::kQ4_K, 2);
    ASSERT_TRUE(summary.ok()) << summary.status().message();
    EXPECT_EQ(summary->fallbacks, 2);
    const auto out = GgufFile::open(path("out.gguf"));
    ASSERT_TRUE(out.ok()) << out.status().message();
    const auto type = [&](const char* name) { return traits((*out)->find_tensor(name)->dtype).name; };
    EXPECT_EQ(type("token_embd.weight"), tied ? "Q6_K" : "Q4_K");
    EXPECT_EQ(type("blk.0.attn_norm.weight"), "F32");
    EXPECT_EQ(type("blk.0.attn_q.weight"), "Q4_K");
    EXPECT_EQ(type("blk.0.odd.weight"), "Q5_0");
    EXPECT_EQ(type("blk.0.odder.weight"), "F16");
    EXPECT_EQ(type("blk.0.ffn_gate_inp.weight"), "F32");
    if (!tied) {
      EXPECT_EQ(type("output.weight"), "Q6_K");
    }
    EXPECT_EQ((*out)->get_int("general.file_type").value(), 14);
    EXPECT_EQ((*out)->get_string("general.architecture").value(), "llama");
    EXPECT_EQ((*out)->get_array("flags").value()->bools, (std::vector<bool>{true, false}));
    std::vector<float> x = sample();
    x.resize(2048);
    const std::vector<std::byte> expected = encode(DType::kQ4_K, x);
    EXPECT_TRUE(
        std::equal(expected.begin(), expected.end(), (*out)->find_tensor("blk.0.attn_q.weight")->data));
  }
}

TEST_F(QuantizeFile, RefusesToOverwriteWhatItReads) {
  const auto in = GgufFile::open(model(true));
  ASSERT_TRUE(in.ok());
  const auto size = std::filesystem::file_size(path("in.gguf"));
  std::filesystem::create_symlink(path("in.gguf"), path("link.gguf"));
  for (const char* out : {"in.gguf", "link.gguf"}) {
    const auto summary = quantize_file(**in, path(out), DType::kQ8_0, 1);
    EXPECT_EQ(summary.status().code(), Code::kInvalidArgument);
    EXPECT_NE(summary.status().message().find(out), std::string::npos);
  }
  EXPECT_EQ(std::filesystem::file_size(path("in.gguf")), size);
}

TEST_F(QuantizeFile, AFailureLeavesNoFileBehind) {
  const auto quantized = GgufFile::open(model(true, DType::kQ8_0));
  ASSERT_TRUE(quantized.ok()) << quantized.status().message();
  const auto refused = quantize_file(**quantized, path("out.gguf"), DType::kQ4_0, 1);
  EXPECT_NE(refused.status().message().find("tensor blk.0.attn_norm.weight is Q8_0"), std::string::npos)
      << refused.status().message();
  EXPECT_FALSE(quantize_file(**quantized, path("out.gguf"), DType::kIQ4_NL, 1).ok());

  GgufWriter w;
  std::vector<std::byte> damaged = floats(512);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::memcpy(damaged.data() + 300 * 4, &nan, 4);
  w.add_tensor("good", DType::kF32, {256, 2}, floats(512));
  w.add_tensor("damaged", DType::kF32, {256, 2}, damaged);
  ASSERT_TRUE(w.write(path("damaged.gguf")).ok());
  const auto file = GgufFile::open(path("damaged.gguf"));
  ASSERT_TRUE(file.ok());
  const auto failed = quantize_file(**file, path("out.gguf"), DType::kQ4_0, 2);
  EXPECT_NE(failed.status().message().find("tensor damaged: row 1: element 44 is nan"), std::string::npos)
      << failed.status().message();
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
    files += entry.is_regular_file() ? 1 : 0;
  }
  EXPECT_EQ(files, 2);  // in.gguf and damaged.gguf
  EXPECT_FALSE(quantize_file(**file, "/nonexistent/out.gguf", DType::kF16, 1).ok());
}

}  // namespace
}  // namespace hetero
