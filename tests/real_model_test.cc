// SmolLM2-135M-Instruct, a real model, against float64 log-probabilities and against another
// engine's greedy continuations, in every strategy that this machine can serve.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "cases.h"
#include "engine/generate.h"
#include "graph/reference.h"
#include "scene.h"

namespace hetero {
namespace {

#define HETERO_NEED_MODEL()                                                  \
  HETERO_NEED_CASES("smollm2");                                              \
  if (real_model().empty()) {                                                \
    GTEST_SKIP() << "no model at $HETERO_MODEL or " << HETERO_MODEL_DEFAULT; \
  }

class RealModel : public testing::TestWithParam<Strategy> {
 protected:
  nlohmann::json read(const std::string& name) {
    std::ifstream in(cases_dir() + "/smollm2/" + name);
    return nlohmann::json::parse(in);
  }
};

TEST_P(RealModel, LogProbabilitiesAgreeWithTheReference) {
  HETERO_NEED_MODEL();
  Scene scene(real_model(), GetParam());
  if (scene.absent()) {
    GTEST_SKIP() << scene.status.message();
  }
  ASSERT_TRUE(scene.status.ok()) << scene.status.message();
  int positions = 0;
  int agreeing = 0;
  for (const auto& entry : read("reference_logprobs.json")) {
    const auto ids = entry.at("ids").get<std::vector<TokenId>>();
    scene.session->truncate(0);
    double nll = 0.0;
    const Status fed = scene.session->feed_with_logits(ids, [&](size_t i, std::span<const float> logits) {
      const auto top = std::max_element(logits.begin(), logits.end());
      double sum = 0.0;
      for (const float x : logits) {
        sum += std::exp(double{x} - *top);
      }
      ++positions;
      agreeing += (top - logits.begin()) == entry.at("top_ids")[i][0].get<int64_t>();
      if (i + 1 < ids.size()) {
        nll -= logits[static_cast<size_t>(ids[i + 1])] - *top - std::log(sum);
      }
    });
    ASSERT_TRUE(fed.ok()) << fed.message();
    EXPECT_NEAR(nll / static_cast<double>(ids.size() - 1), entry.at("mean_nll").get<double>(), 0.01);
  }
  EXPECT_GE(agreeing, 0.97 * positions);
}

/// Logits of the token after `ids` in plain f32. Remembered, since every strategy asks for the same.
const std::vector<float>& exact_logits(const Graph& graph, const std::vector<TokenId>& ids) {
  static std::map<std::vector<TokenId>, std::vector<float>> known;
  std::vector<float>& logits = known[ids];
  if (logits.empty()) {
    Reference reference(graph, static_cast<int64_t>(ids.size()));
    const std::vector<float>& all = reference.forward(ids, 0);
    logits.assign(all.end() - graph.shape.vocabulary, all.end());
  }
  return logits;
}

// The peer rounds activations to 8 bits, which turns near-ties: float64 arithmetic takes its first
// 12 tokens for 3 of these 5 prompts (tools/reference_logits.py, with the peer's ids). Another build
// of the peer, too, agrees with this recording for 3 only (docs/models.md). So where a continuation
// leaves the peer's, the plain reference must have done so at the same token.
TEST_P(RealModel, GreedyContinuationsBeginAsThePeersDoOrAsExactArithmeticDoes) {
  HETERO_NEED_MODEL();
  Scene scene(real_model(), GetParam());
  if (scene.absent()) {
    GTEST_SKIP() << scene.status.message();
  }
  ASSERT_TRUE(scene.status.ok()) << scene.status.message();
  int agreeing = 0;
  for (const auto& entry : read("greedy_llamacpp.json")) {
    const auto prompt = entry.at("prompt_ids").get<std::vector<TokenId>>();
    const auto expected =
        scene.engine->tokenizer().encode(entry.at("greedy_text").get<std::string>(), false, false);
    ASSERT_TRUE(expected.ok());
    GenerateOptions options;
    options.sampler.temperature = 0.0f;
    options.max_tokens = 12;
    options.ignore_eos = true;
    const auto result = generate(*scene.session, prompt, options);
    ASSERT_TRUE(result.ok()) << result.status().message();
    ASSERT_EQ(result->ids.size(), 12u);
    const auto [ours, theirs] = std::mismatch(result->ids.begin(), result->ids.end(), expected->begin());
    if (ours == result->ids.end()) {
      ++agreeing;
      continue;
    }
    std::vector<TokenId> before = prompt;
    before.insert(before.end(), result->ids.begin(), ours);
    const std::vector<float>& logits = exact_logits(scene.engine->graph(), before);
    EXPECT_EQ(*ours, std::max_element(logits.begin(), logits.end()) - logits.begin())
        << entry.at("prompt") << ": token " << before.size() - prompt.size() << ", where the peer has "
        << *theirs;
  }
  EXPECT_GE(agreeing, 3);
}

TEST_P(RealModel, PromptsAroundStandardLengthsGiveTheSameLogits) {
  HETERO_NEED_MODEL();
  std::vector<TokenId> ids;
  for (const auto& entry : read("reference_logprobs.json")) {
    if (entry.at("ids").size() > 300) {
      ids = entry.at("ids").get<std::vector<TokenId>>();
    }
  }
  ASSERT_GT(ids.size(), 300u);
  Scene cpu(real_model(), Strategy::kCpu);
  ASSERT_TRUE(cpu.status.ok());
  Scene scene(real_model(), GetParam());
  if (scene.absent()) {
    GTEST_SKIP() << scene.status.message();
  }
  ASSERT_TRUE(scene.status.ok()) << scene.status.message();
  for (const size_t length : {1, 2, 31, 32, 33, 65, 255, 256, 257, 300}) {
    const auto prompt = std::span(ids).first(length);
    cpu.session->truncate(0);
    scene.session->truncate(0);
    ASSERT_TRUE(cpu.session->feed(prompt).ok());
    ASSERT_TRUE(scene.session->feed(prompt).ok());
    double worst = 0.0;
    for (size_t i = 0; i < cpu.session->logits().size(); ++i) {
      worst = std::max(worst, std::abs(double{cpu.session->logits()[i]} - scene.session->logits()[i]));
    }
    // The caches are F16 (unit roundoff 2^-11) and logits reach about 20, so 0.1 leaves room for
    // roundings that fall the other way in each of 30 layers.
    EXPECT_LE(worst, 0.1) << "length " << length;
  }
}

INSTANTIATE_TEST_SUITE_P(Strategies, RealModel, testing::ValuesIn(kAllStrategies),
                         [](const auto& parameters) {
                           std::string name = strategy_name(parameters.param);
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

// The bound that 8-bit activations have to keep as well, on the text of 331 tokens.
TEST(RealModelCache, EightBitsMoveThePerplexityOfATextByLessThanHalfAPercent) {
  HETERO_NEED_MODEL();
  std::ifstream in(cases_dir() + "/smollm2/reference_logprobs.json");
  const auto text = nlohmann::json::parse(in).back().at("ids").get<std::vector<TokenId>>();
  const auto nll = [&](std::optional<DType> kv_cache) {
    Scene scene(real_model(), Strategy::kCpu, 0.5, kv_cache);
    EXPECT_TRUE(scene.status.ok()) << scene.status.message();
    double sum = 0.0;
    const Status fed = scene.session->feed_with_logits(text, [&](size_t i, std::span<const float> logits) {
      const float top = *std::max_element(logits.begin(), logits.end());
      double total = 0.0;
      for (const float x : logits) {
        total += std::exp(double{x} - top);
      }
      sum -= i + 1 < text.size() ? logits[static_cast<size_t>(text[i + 1])] - top - std::log(total) : 0.0;
    });
    EXPECT_TRUE(fed.ok()) << fed.message();
    return sum / static_cast<double>(text.size() - 1);
  };
  const double plain = nll({});
  const double rounded = nll(DType::kQ8_0);
  ASSERT_GT(text.size(), 300u);
  EXPECT_NE(rounded, plain);
  EXPECT_LT(std::abs(std::expm1(rounded - plain)), 0.005);
}

TEST(RealModelCache, AConversationGoesOnWhereTheCacheEnds) {
  HETERO_NEED_MODEL();
  Scene scene(real_model(), Strategy::kCpu);
  ASSERT_TRUE(scene.status.ok());
  const auto prompt = scene.engine->tokenizer().encode("The capital of France is", true, false);
  ASSERT_TRUE(prompt.ok());
  GenerateOptions options;
  options.sampler.temperature = 0.0f;
  options.max_tokens = 4;
  const auto first = generate(*scene.session, *prompt, options);
  ASSERT_TRUE(first.ok());
  std::vector<TokenId> longer = *prompt;
  longer.insert(longer.end(), first->ids.begin(), first->ids.end());
  const auto second = generate(*scene.session, longer, options);
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(second->reused_tokens, static_cast<int64_t>(longer.size()) - 1);
  Scene fresh(real_model(), Strategy::kCpu);
  const auto again = generate(*fresh.session, longer, options);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(second->ids, again->ids);
}

}  // namespace
}  // namespace hetero
