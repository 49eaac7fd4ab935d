// Speed of an engine in tokens per second: what `hetero bench` reports.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "engine/engine.h"

namespace hetero {

/// A prompt of `prompt` tokens, or `decode` tokens one at a time, behind `depth` tokens that fill
/// the KV cache already. Exactly one of the two is above zero.
struct SpeedTest {
  int64_t prompt = 0;
  int64_t decode = 0;
  int64_t depth = 0;

  /// As llama-bench calls it: "pp512", "tg32", "tg32 @ d1024".
  std::string name() const;
  int64_t context() const { return depth + prompt + decode; }
};

struct Speed {
  double mean = 0.0;
  double stddev = 0.0;  // of a sample: n - 1; 0 for one sample
  double median = 0.0;
};
/// All zero without samples.
Speed summarize(std::vector<double> samples);

/// Takes samples on one engine, which outlives it. One thread, the control thread.
class SpeedMeter {
 public:
  SpeedMeter(Engine& engine, uint64_t seed) : engine_(engine), random_(seed) {}

  /// Compiles what the test needs and runs it once, shorter where it decodes.
  Status warm_up(const SpeedTest& test, const std::atomic<bool>* cancel = nullptr);

  /// Tokens per second of one run. Every run feeds tokens drawn anew, so that no cache of prompts
  /// can shorten it. Strategy npu-online compiles its graphs anew for each prompt, and that time
  /// counts.
  Result<double> sample(const SpeedTest& test, const std::atomic<bool>* cancel = nullptr);

 private:
  std::vector<TokenId> draw(int64_t count);

  Engine& engine_;
  std::unique_ptr<Session> session_;
  std::mt19937_64 random_;
};

}  // namespace hetero
