#include "text/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>
#include <vector>

namespace hetero {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
const float kNan = std::numeric_limits<float>::quiet_NaN();

SamplerOptions plain() {
  return {.temperature = 1.0f, .top_k = 0, .top_p = 1.0f, .min_p = 0.0f, .repeat_penalty = 1.0f, .seed = 7};
}

std::vector<float> logits_of(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (const double p : probabilities) {
    logits.push_back(static_cast<float>(std::log(p)));
  }
  return logits;
}

std::set<TokenId> support(const SamplerOptions& options, const std::vector<float>& logits, int draws = 3000) {
  Sampler sampler(options);
  std::set<TokenId> seen;
  for (int i = 0; i < draws; ++i) {
    seen.insert(sampler.sample(logits));
  }
  return seen;
}

TEST(Sampler, GreedyTakesTheLowerIdOfEqualLogits) {
  Sampler sampler({.temperature = 0});
  EXPECT_EQ(sampler.sample(std::vector<float>{1, 3, 2, 3, 3}), 1);
}

TEST(Sampler, NanAndInfiniteLogitsAreHandled) {
  Sampler greedy({.temperature = 0});
  EXPECT_EQ(greedy.sample(std::vector<float>{kNan, -5, kNan}), 1);
  EXPECT_EQ(greedy.sample(std::vector<float>{kNan, kNan}), 0);
  Sampler warm(plain());
  EXPECT_EQ(warm.sample(std::vector<float>{0, kInf, 1, kInf}), 1);
  EXPECT_EQ(warm.sample(std::vector<float>{-kInf, -kInf}), 0);
  EXPECT_EQ(warm.sample(std::vector<float>{}), -1);
  EXPECT_EQ(support(plain(), {kNan, 0, -kInf, 0}), (std::set<TokenId>{1, 3}));
}

TEST(Sampler, TopKKeepsExactlyTheBestK) {
  SamplerOptions o = plain();
  o.top_k = 3;
  const std::vector<float> logits = {0.1f, 0.4f, 0.2f, 0.3f, 0.2f};
  EXPECT_EQ(support(o, logits), (std::set<TokenId>{1, 2, 3}));  // of the tie at 0.2 the lower id
  o.top_k = 1;
  EXPECT_EQ(support(o, logits), (std::set<TokenId>{1}));
  o.top_k = 99;
  EXPECT_EQ(support(o, logits).size(), 5u);
}

TEST(Sampler, TopKOfManyIsWhatSortingAllWouldKeep) {
  // More logits than are looked at together, and a last lot that is not full; many are equal.
  std::vector<float> logits(1003);
  for (size_t i = 0; i < logits.size(); ++i) {
    logits[i] = static_cast<float>(i * 7919 % 251) / 251.0f;
  }
  logits[1002] = 2.0f;
  logits[17] = kNan;
  std::vector<TokenId> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::erase(order, 17);
  std::sort(order.begin(), order.end(), [&](TokenId a, TokenId b) {
    const float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  });
  for (const int k : {1, 2, 5, 12, 40}) {
    SamplerOptions options = plain();
    options.top_k = k;
    options.temperature = 100.0f;  // all about as likely
    EXPECT_EQ(support(options, logits), std::set<TokenId>(order.begin(), order.begin() + k)) << k;
  }
  Sampler greedy({.temperature = 0});
  EXPECT_EQ(greedy.sample(logits), 1002);
  logits[1002] = -kInf;
  EXPECT_EQ(greedy.sample(logits), order[1]);
}

TEST(Sampler, InfinityThatIsForbiddenNeverComes) {
  SamplerOptions options = plain();
  options.temperature = 0;
  options.logit_bias = {{1, -kInf}};
  EXPECT_EQ(Sampler(options).sample(std::vector<float>{0, kInf, 1}), 2);
}

TEST(Sampler, TopPKeepsTheShortestHeadThatReachesIt) {
  SamplerOptions o = plain();
  const std::vector<float> logits = logits_of({0.1, 0.5, 0.15, 0.25});
  o.top_p = 0.45f;
  EXPECT_EQ(support(o, logits), (std::set<TokenId>{1}));
  o.top_p = 0.7f;
  EXPECT_EQ(support(o, logits), (std::set<TokenId>{1, 3}));
  o.top_p = 0.8f;
  EXPECT_EQ(support(o, logits), (std::set<TokenId>{1, 2, 3}));
  o.top_p = 0.95f;
  EXPECT_EQ(support(o, logits).size(), 4u);
  o.top_p = 0.0f;
  EXPECT_EQ(support(o, logits), (std::set<TokenId>{1}));
}

TEST(Sampler, TopPCountsSharesOfWhatTopKLeft) {
  SamplerOptions o = plain();
  o.top_k = 2;  // leaves 0.4 and 0.3: shares 0.57 and 0.43
  o.top_p = 0.5f;
  EXPECT_EQ(support(o, logits_of({0.2, 0.4, 0.1, 0.3})), (std::set<TokenId>{1}));
}

TEST(Sampler, MinPIsRelativeToTheBest) {
  SamplerOptions o = plain();
  o.min_p = 0.3f;
  EXPECT_EQ(support(o, logits_of({0.5, 0.16, 0.14, 0.2})), (std::set<TokenId>{0, 1, 3}));
  o.min_p = 1.0f;
  EXPECT_EQ(support(o, logits_of({0.5, 0.16, 0.14, 0.2})), (std::set<TokenId>{0}));
}

TEST(Sampler, CutsComeBeforeTemperature) {
  SamplerOptions o = plain();
  o.temperature = 100.0f;  // nearly uniform, but only among what min_p left
  o.min_p = 0.3f;
  EXPECT_EQ(support(o, logits_of({0.5, 0.16, 0.14, 0.2})), (std::set<TokenId>{0, 1, 3}));
}

TEST(Sampler, RepeatPenaltyActsOnceAndOnBothSigns) {
  SamplerOptions o = {.temperature = 0, .repeat_penalty = 2.0f, .repeat_last_n = 2};
  Sampler sampler(o);
  sampler.accept(0);
  sampler.accept(0);  // twice the same: 3 / 2, not 3 / 4
  EXPECT_EQ(sampler.sample(std::vector<float>{3.0f, 1.4f}), 0);
  EXPECT_EQ(sampler.sample(std::vector<float>{3.0f, 1.6f}), 1);
  EXPECT_EQ(sampler.sample(std::vector<float>{-1.0f, -1.5f}), 1);  // negative logits get lower, too
  sampler.accept(1);
  sampler.accept(1);  // the window has only room for these
  EXPECT_EQ(sampler.sample(std::vector<float>{3.0f, 5.9f}), 0);
  sampler.accept(1000);  // no token of this vocabulary
  sampler.accept(-1);
  EXPECT_EQ(sampler.sample(std::vector<float>{3.0f, 3.1f}), 1);
}

TEST(Sampler, RepeatWindowCanBeEverythingOrNothing) {
  for (const int window : {-1, 0}) {
    Sampler sampler({.temperature = 0, .repeat_penalty = 2.0f, .repeat_last_n = window});
    sampler.accept(0);
    for (int i = 0; i < 500; ++i) {
      sampler.accept(2);
    }
    EXPECT_EQ(sampler.sample(std::vector<float>{3, 2, 0}), window == -1 ? 1 : 0);
  }
}

TEST(Sampler, SameSeedGivesTheSameSequenceOnEveryPlatform) {
  SamplerOptions o = plain();
  o.seed = 42;
  const std::vector<float> logits = logits_of({0.25, 0.25, 0.25, 0.25});
  Sampler a(o);
  // mt19937_64 is fixed by the standard, so this sequence is, too: floor(4 * u) of each draw.
  std::mt19937_64 random(42);
  Sampler b({.temperature = 1.0f, .top_k = 0, .top_p = 1.0f, .min_p = 0.0f, .seed = 43});
  bool differs = false;
  for (int i = 0; i < 64; ++i) {
    const TokenId id = a.sample(logits);
    EXPECT_EQ(id, static_cast<TokenId>(random() >> 62)) << i;
    differs |= id != b.sample(logits);
  }
  EXPECT_TRUE(differs);
}

TEST(Sampler, FrequenciesFollowTheSoftmaxAtTheTemperature) {
  const std::vector<float> logits = {1.0f, 0.0f, 2.0f, -1.0f, 0.5f};
  constexpr int kDraws = 100'000;
  for (const float temperature : {0.5f, 1.0f, 2.0f}) {
    SamplerOptions o = plain();
    o.temperature = temperature;
    Sampler sampler(o);
    std::vector<int> counts(logits.size());
    for (int i = 0; i < kDraws; ++i) {
      ++counts[static_cast<size_t>(sampler.sample(logits))];
    }
    double sum = 0;
    for (const float logit : logits) {
      sum += std::exp(logit / temperature);
    }
    double chi_square = 0;
    for (size_t i = 0; i < logits.size(); ++i) {
      const double expected = kDraws * std::exp(logits[i] / temperature) / sum;
      chi_square += (counts[i] - expected) * (counts[i] - expected) / expected;
    }
    EXPECT_LT(chi_square, 18.5) << temperature;  // 4 degrees of freedom: one in a thousand
  }
}

TEST(Sampler, OptionsOutOfRangeAreRefusedByName) {
  EXPECT_TRUE(validate({}).ok());
  EXPECT_TRUE(validate({.temperature = 0, .top_k = 0, .top_p = 1, .min_p = 0, .repeat_last_n = -1}).ok());
  const auto names = [](const SamplerOptions& o, const char* option) {
    const Status s = validate(o);
    return s.code() == Code::kInvalidArgument && s.message().find(option) != std::string::npos;
  };
  EXPECT_TRUE(names({.temperature = kNan}, "temperature"));
  EXPECT_TRUE(names({.temperature = -0.1f}, "temperature"));
  EXPECT_TRUE(names({.temperature = kInf}, "temperature"));
  EXPECT_TRUE(names({.top_k = -1}, "top_k"));
  EXPECT_TRUE(names({.top_p = 1.1f}, "top_p"));
  EXPECT_TRUE(names({.top_p = kNan}, "top_p"));
  EXPECT_TRUE(names({.min_p = -0.1f}, "min_p"));
  EXPECT_TRUE(names({.repeat_penalty = 0.0f}, "repeat_penalty"));
  EXPECT_TRUE(names({.repeat_last_n = -2}, "repeat_last_n"));
}

}  // namespace
}  // namespace hetero
