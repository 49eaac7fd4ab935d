// Gemma 3 270M in Q4_K_M, a real model of another architecture than the default one, against llama.cpp's
// greedy continuations in every kind of strategy. docs/models.md says how to get the model.
#include <gtest/gtest.h>

#include <algorithm>

#include "engine/generate.h"
#include "scene.h"

namespace hetero {
namespace {

struct Continuation {
  const char* prompt;
  std::vector<TokenId> prompt_ids;
  std::vector<TokenId> ids;
};

/// By llama.cpp as PyPI's xllamacpp 2026.10.11549 has it, on a CPU with 2 threads: its server's
/// /tokenize (add_special) and /completion on those ids with temperature 0, top_k 1, ignore_eos.
const std::vector<Continuation>& continuations() {
  static const std::vector<Continuation> kContinuations = {
      {"The capital of France is",
       {2, 818, 5279, 529, 7001, 563},
       {506, 5279, 529, 506, 2891, 529, 7001, 236761, 1030, 563, 506, 7488}},
      {"Once upon a time, in a small village by the sea,",
       {2, 14946, 3324, 496, 990, 236764, 528, 496, 1944, 9744, 684, 506, 5442, 236764},
       {993, 11742, 496, 2523, 529, 2390, 236761, 2195, 964, 784, 1401, 5293}},
      {"def fibonacci(n):\n",
       {2, 2063, 10779, 78113, 236769, 236749, 1473, 107},
       {140, 584, 538, 1251, 236743, 236771, 236787, 107, 144, 2060, 236743, 236771}},
      {"The three primary colors are",
       {2, 818, 1806, 5905, 7913, 659},
       {2604, 236764, 3730, 236764, 532, 7070, 236761, 108, 818, 5905, 7913, 659}},
      {"Water boils at a temperature of",
       {2, 17390, 104264, 657, 496, 4022, 529},
       {236743, 236770, 236771, 236771, 10674, 57356, 236761, 108, 818, 31476, 1523, 529}},
  };
  return kContinuations;
}

class Gemma : public testing::TestWithParam<Strategy> {};

// llama.cpp rounds activations to 8 bits, which turns near-ties, so one of the five may differ.
TEST_P(Gemma, GreedyContinuationsBeginAsLlamaCppsDo) {
  const char* path = std::getenv("HETERO_GEMMA");
  if (path == nullptr) {
    GTEST_SKIP() << "HETERO_GEMMA does not name gemma-3-270m-q4_k_m.gguf (docs/models.md)";
  }
  Scene scene(path, GetParam());
  if (scene.absent()) {
    GTEST_SKIP() << scene.status.message();
  }
  ASSERT_TRUE(scene.status.ok()) << scene.status.message();
  int agreeing = 0;
  std::string others;
  for (const Continuation& c : continuations()) {
    const auto prompt = scene.engine->tokenizer().encode(c.prompt, true, true);
    ASSERT_TRUE(prompt.ok()) << prompt.status().message();
    EXPECT_EQ(*prompt, c.prompt_ids) << c.prompt;
    GenerateOptions options;
    options.sampler.temperature = 0.0f;
    options.max_tokens = static_cast<int64_t>(c.ids.size());
    options.ignore_eos = true;
    const auto result = generate(*scene.session, c.prompt_ids, options);
    ASSERT_TRUE(result.ok()) << result.status().message();
    if (result->ids == c.ids) {
      ++agreeing;
    } else {
      others += std::string(c.prompt) + result->text + "\n";
    }
  }
  EXPECT_GE(agreeing, 4) << others;
}

INSTANTIATE_TEST_SUITE_P(Strategies, Gemma,
                         testing::Values(Strategy::kCpu, Strategy::kGpu, Strategy::kLayer, Strategy::kTensor),
                         [](const auto& parameters) { return std::string(strategy_name(parameters.param)); });

}  // namespace
}  // namespace hetero
