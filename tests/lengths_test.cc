// The same greedy tokens in every strategy, whatever the length of the prompt: standard lengths and
// those beside them, prompts of several passes, and turns on a filled cache.
//
// All lengths from 1 to 300 with HETERO_LENGTHS=all (some minutes for each strategy), those
// of a range with HETERO_LENGTHS=1-100; else a sample.
#include <gtest/gtest.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string_view>

#include "engine/generate.h"
#include "scene.h"

namespace hetero {
namespace {

constexpr const char* kText =
    "The history of the steam engine begins long before the age of railways. Early machines pumped water out "
    "of mines, and each of them wasted most of the heat that its fire made. Inventors learned to condense "
    "the "
    "steam apart from the cylinder, to let it expand, and to use it twice. Ships followed, then mills, then "
    "locomotives, and with them came standards for screws, gauges and time itself. A traveller in 1850 could "
    "cross a country in a day that had taken a week before, and newspapers printed in the capital were read "
    "in the provinces the same evening. Engineers wrote tables of pressure and temperature, and physicists "
    "asked why no engine, however perfect, could turn all heat into work. ";

/// What HETERO_LENGTHS asks for; nothing if that is neither "all" nor a range.
std::vector<int64_t> lengths() {
  const char* env = std::getenv("HETERO_LENGTHS");
  if (env == nullptr) {
    return {1, 2, 31, 33, 129, 257, 300};
  }
  int64_t first = 1;
  int64_t last = 300;
  if (std::strcmp(env, "all") != 0) {
    const std::string_view range = env;
    const size_t dash = std::min(range.find('-'), range.size());
    const char* end = env + range.size();
    const auto from = std::from_chars(env, env + dash, first);
    const auto to = std::from_chars(std::min(env + dash + 1, end), end, last);
    if (from.ec != std::errc() || from.ptr != env + dash || to.ec != std::errc() || to.ptr != end ||
        first < 1) {
      return {};
    }
  }
  std::vector<int64_t> all;
  for (int64_t n = first; n <= last; ++n) {
    all.push_back(n);
  }
  return all;
}

std::vector<TokenId> text(Engine& engine, size_t tokens) {
  std::vector<TokenId> ids;
  while (ids.size() < tokens) {
    const auto more = engine.tokenizer().encode(kText, false, false);
    EXPECT_TRUE(more.ok());
    ids.insert(ids.end(), more->begin(), more->end());
  }
  ids.resize(tokens);
  return ids;
}

std::vector<TokenId> greedy(Session& session, const std::vector<TokenId>& prompt, int64_t tokens) {
  GenerateOptions o;
  o.max_tokens = tokens;
  o.ignore_eos = true;
  o.sampler.temperature = 0.0f;
  const auto g = generate(session, prompt, o);
  EXPECT_TRUE(g.ok()) << g.status().message();
  return g.ok() ? g->ids : std::vector<TokenId>();
}

/// What a strategy makes of prompts of all lengths, and of a conversation.
struct Tokens {
  std::map<int64_t, std::vector<TokenId>> by_length;
  std::vector<TokenId> conversation;
};

Tokens tokens_of(Scene& scene) {
  Tokens tokens;
  for (const int64_t length : lengths()) {
    scene.session->truncate(0);
    tokens.by_length[length] = greedy(*scene.session, text(*scene.engine, static_cast<size_t>(length)), 3);
  }
  // Each turn continues on the cache of the ones before; past one pass in the end.
  scene.session->truncate(0);
  std::vector<TokenId>& all = tokens.conversation;
  const std::vector<TokenId> source = text(*scene.engine, 700);
  for (const auto& [from, to] : {std::pair{0, 40}, {40, 45}, {45, 110}, {110, 640}}) {
    all.insert(all.end(), source.begin() + from, source.begin() + to);
    const auto answer = greedy(*scene.session, all, 2);
    all.insert(all.end(), answer.begin(), answer.end());
  }
  return tokens;
}

class Lengths : public ::testing::TestWithParam<Strategy> {};

TEST_P(Lengths, GiveTheTokensOfTheCpu) {
  const std::string model = real_model();
  if (model.empty()) {
    GTEST_SKIP() << "no real model";
  }
  ASSERT_FALSE(lengths().empty()) << "HETERO_LENGTHS is neither \"all\" nor a range as 1-100";
  static const Tokens expected = [&] {
    Scene cpu(model, Strategy::kCpu);
    return cpu.status.ok() ? tokens_of(cpu) : Tokens();
  }();
  ASSERT_FALSE(expected.conversation.empty());
  Scene scene(model, GetParam());
  if (scene.absent()) {
    GTEST_SKIP() << scene.status.message();
  }
  ASSERT_TRUE(scene.status.ok()) << scene.status.message();
  const Tokens found = tokens_of(scene);
  for (const auto& [length, ids] : expected.by_length) {
    EXPECT_EQ(found.by_length.at(length), ids) << "a prompt of " << length << " tokens";
  }
  EXPECT_EQ(found.conversation, expected.conversation) << "a conversation in four turns";
}

INSTANTIATE_TEST_SUITE_P(Strategies, Lengths, ::testing::ValuesIn(kAllStrategies), [](const auto& strategy) {
  std::string name = strategy_name(strategy.param);
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

}  // namespace
}  // namespace hetero
