// Whole engines for tests: opening a model with a strategy, and numpy files of expected logits.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/engine.h"

namespace hetero {

inline constexpr Strategy kAllStrategies[] = {Strategy::kCpu,        Strategy::kGpu,     Strategy::kNpuOnline,
                                              Strategy::kNpuPadding, Strategy::kNpuPipe, Strategy::kLayer,
                                              Strategy::kTensor};

/// Logits of every position of ids, row after row.
inline std::vector<float> all_logits(Session& session, std::span<const TokenId> ids) {
  std::vector<float> rows;
  const Status fed = session.feed_with_logits(
      ids, [&](size_t, std::span<const float> row) { rows.insert(rows.end(), row.begin(), row.end()); });
  EXPECT_TRUE(fed.ok()) << fed.message();
  return rows;
}

/// An engine and one session, or why this machine has none (then the test should skip).
struct Scene {
  std::unique_ptr<Engine> engine;
  std::unique_ptr<Session> session;
  Status status;

  Scene(const std::string& model, Strategy strategy, double npu_share = 0.5,
        std::optional<DType> kv_cache = {}) {
    EngineOptions options;
    options.kv_cache = kv_cache;
    options.model = model;
    options.request.strategy = strategy;
    options.npu_share = npu_share;
    options.cache_dir = testing::TempDir() + "hetero_scene_cache";
    auto opened = Engine::open(std::move(options));
    status = opened.status();
    if (status.ok()) {
      engine = std::move(opened).value();
      auto made = engine->new_session();
      status = made.status();
      if (status.ok()) {
        session = std::move(made).value();
      }
    }
  }
  /// True where the strategy's processors do not exist here.
  bool absent() const { return status.code() == Code::kUnavailable; }

  /// Of its session.
  std::vector<float> all_logits(const std::vector<TokenId>& ids) { return hetero::all_logits(*session, ids); }
};

/// The numbers of a little-endian f32 .npy file, version 1 (format: numpy.lib.format).
inline std::vector<float> read_npy(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (bytes.size() < 10 || bytes.find("'<f4'") == std::string::npos) {
    ADD_FAILURE() << path << " is not an f32 numpy file";
    return {};
  }
  const size_t header =
      10 + static_cast<unsigned char>(bytes[8]) + 256u * static_cast<unsigned char>(bytes[9]);
  std::vector<float> values((bytes.size() - header) / sizeof(float));
  std::memcpy(values.data(), bytes.data() + header, values.size() * sizeof(float));
  return values;
}

/// The path of the real model, from $HETERO_MODEL or the default place; empty where it is absent.
inline std::string real_model() {
  const char* env = std::getenv("HETERO_MODEL");
  const std::string path = env != nullptr ? env : HETERO_MODEL_DEFAULT;
  return std::ifstream(path).good() ? path : "";
}

}  // namespace hetero
