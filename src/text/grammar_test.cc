#include "text/grammar.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <limits>

#include "text/grammar_testing.h"
#include "text/sampler.h"

namespace hetero {
namespace {

std::shared_ptr<const Grammar> gbnf(std::string_view source) {
  auto grammar = Grammar::from_gbnf(source);
  EXPECT_TRUE(grammar.ok()) << grammar.status().message();
  return grammar.ok() ? *grammar : nullptr;
}

std::string error_of(std::string_view source, const GrammarLimits& limits = {}) {
  const auto grammar = Grammar::from_gbnf(source, limits);
  return grammar.ok() ? "accepted" : grammar.status().message();
}

TEST(Gbnf, LiteralsClassesAndRepetitions) {
  const auto g = gbnf(R"(
    # a comment
    root ::= greeting " " name{1,2} ("!" | "?" | "...")* [^a-z]?  # another
    greeting ::= "Hello"
      | "H\u00e9" "\x41\n\"\\"
    name ::= [A-Z] [a-z]+
  )");
  EXPECT_TRUE(matches(g, "Hello Bob"));
  EXPECT_TRUE(matches(g, "Hello BobAnn!?...7"));
  EXPECT_TRUE(matches(g, "HéA\n\"\\ Xy"));
  EXPECT_TRUE(matches(g, "Hello Bobé"));
  EXPECT_FALSE(matches(g, "Hello "));
  EXPECT_FALSE(matches(g, "Hello Bob.x"));
  EXPECT_FALSE(matches(g, "Hello AbAbAb"));
  EXPECT_FALSE(matches(g, "Hello Bob7a"));
}

TEST(Gbnf, ExactAndOpenRepetitions) {
  const auto count = [](const std::string& mark, size_t n) {
    return matches(gbnf("root ::= \"ab\"" + mark), [&] {
      std::string text;
      for (size_t i = 0; i < n; ++i) {
        text += "ab";
      }
      return text;
    }());
  };
  for (size_t n = 0; n < 6; ++n) {
    EXPECT_EQ(count("{3}", n), n == 3) << n;
    EXPECT_EQ(count("{2,}", n), n >= 2) << n;
    EXPECT_EQ(count("{,2}", n), n <= 2) << n;
    EXPECT_EQ(count("{1,4}", n), n >= 1 && n <= 4) << n;
    EXPECT_EQ(count("{0}", n), n == 0) << n;
    EXPECT_EQ(count("*", n), true) << n;
    EXPECT_EQ(count("+", n), n >= 1) << n;
    EXPECT_EQ(count("?*", n), true) << n;
  }
}

// Every code point of the class, and no other, whatever the lengths of its bounds in UTF-8.
TEST(Gbnf, ClassesMatchTheirCodePointsInUtf8) {
  const auto utf8 = [](char32_t code) {
    std::string out;
    const auto put = [&](char32_t byte) { out.push_back(static_cast<char>(byte)); };
    if (code < 0x80) {
      put(code);
    } else if (code < 0x800) {
      put(0xC0 | code >> 6), put(0x80 | (code & 63));
    } else if (code < 0x10000) {
      put(0xE0 | code >> 12), put(0x80 | (code >> 6 & 63)), put(0x80 | (code & 63));
    } else {
      put(0xF0 | code >> 18), put(0x80 | (code >> 12 & 63)), put(0x80 | (code >> 6 & 63)),
          put(0x80 | (code & 63));
    }
    return out;
  };
  const std::pair<uint32_t, uint32_t> ranges[] = {{0x41, 0x5A},     {0x70, 0x90},      {0x7FE, 0x1005},
                                                  {0xABC, 0xDEF},   {0xFFFE, 0x10001}, {0x12345, 0x54321},
                                                  {0xD000, 0xE100}, {0, 0x10FFFF}};
  for (const auto& [low, high] : ranges) {
    const auto g = gbnf(fmt::format("root ::= [\\U{:08X}-\\U{:08X}]", low, high));
    for (uint32_t code = 0; code <= 0x10FFFF; code += code < 0x3000 ? 1 : 97) {
      if (code >= 0xD800 && code <= 0xDFFF) {
        continue;
      }
      ASSERT_EQ(matches(g, utf8(code)), code >= low && code <= high) << low << " " << high << " " << code;
    }
    for (const uint32_t edge : {low, high, low + 1, high - 1}) {
      EXPECT_TRUE(matches(g, utf8(edge)));
    }
  }
  EXPECT_FALSE(matches(gbnf("root ::= ."), "\xED\xA0\x80"));  // a surrogate
  EXPECT_FALSE(matches(gbnf("root ::= ."), "\xC0\x80"));
  EXPECT_FALSE(matches(gbnf("root ::= ."), "\xFF"));
}

TEST(Gbnf, RecursionNestsAndListsMayBeLong) {
  const auto g = gbnf("root ::= \"(\" root \")\" | \"x\" list\nlist ::= \",\" list | \"\"");
  EXPECT_TRUE(matches(g, "((x,,))"));
  EXPECT_FALSE(matches(g, "((x)"));
  EXPECT_TRUE(matches(g, "x" + std::string(20'000, ',')));
  // Nesting has a limit; up to it all is well.
  EXPECT_TRUE(matches(g, std::string(900, '(') + "x" + std::string(900, ')')));
  EXPECT_FALSE(matches(g, std::string(2000, '(') + "x" + std::string(2000, ')')));
}

TEST(Gbnf, AmbiguousGrammarsWork) {
  const auto g = gbnf("root ::= (a | b)* c\na ::= \"x\"+\nb ::= \"x\" \"y\"?\nc ::= \"x\"? \"z\"");
  EXPECT_TRUE(matches(g, "xxxxxyxxz"));
  EXPECT_FALSE(matches(g, "xxyyz"));
  EXPECT_TRUE(matches(gbnf("root ::= (\"a\"?)*"), "aaa"));
  EXPECT_TRUE(matches(gbnf("root ::= ((\"\" | \"a\")* \"b\"?)* \"c\""), "aabac"));
}

TEST(Gbnf, ErrorsNameLineRuleAndReason) {
  EXPECT_EQ(error_of("root ::= \"a\" number"), "grammar: rule number is used in line 1, but not defined");
  EXPECT_EQ(error_of("x ::= \"a\""), "grammar: rule root is missing; the text starts there");
  EXPECT_NE(error_of("root ::= expr\nexpr ::= expr \"+\" expr | \"1\"").find("rule expr is left-recursive"),
            std::string::npos);
  EXPECT_NE(error_of("root ::= a\na ::= b? c\nb ::= \"x\"\nc ::= a | \"y\"").find("left-recursive"),
            std::string::npos);
  EXPECT_NE(error_of("root ::= \"a\" root").find("rule root can never end"), std::string::npos);
  EXPECT_NE(error_of("root ::= \"a\nb\"").find("line 1: a literal without"), std::string::npos);
  EXPECT_NE(error_of("root ::= \"a\"\nroot ::= \"b\"").find("line 2: rule root is defined twice"),
            std::string::npos);
  EXPECT_NE(error_of("root ::= [z-a]").find("empty"), std::string::npos);
  EXPECT_NE(error_of("root ::= (\"a\"").find("expected ')'"), std::string::npos);
  EXPECT_NE(error_of("root ::= \"a\"{3,2}").find("{3,2}"), std::string::npos);
  EXPECT_NE(error_of("root ::= <think>").find("token references"), std::string::npos);
  EXPECT_NE(error_of("root ::= \"\\q\"").find("unknown escape"), std::string::npos);
  EXPECT_NE(error_of("root = \"a\"").find("'::='"), std::string::npos);
  EXPECT_NE(error_of("").find("root is missing"), std::string::npos);
}

TEST(Gbnf, SizeAndDepthAreLimited) {
  EXPECT_NE(error_of("root ::= ((\"abcdefgh\"{1000}){1000}){1000}").find("states"), std::string::npos);
  EXPECT_NE(error_of("root ::= \"a\"{1000000}").find("more than 100000 repetitions"), std::string::npos);
  EXPECT_NE(
      error_of("root ::= " + std::string(5000, '(') + "\"a\"" + std::string(5000, ')')).find("nested deeper"),
      std::string::npos);
  EXPECT_NE(error_of("root ::= \"a\"" + std::string(2 << 20, ' ')).find("bytes"), std::string::npos);
  EXPECT_NE(error_of("root ::= \"a\"" + std::string(100, '*')).find("repetition marks"), std::string::npos);
}

TEST(Gbnf, RandomBytesAreRefusedOrHarmless) {
  std::mt19937_64 random(3);
  const std::string pieces[] = {"root", " ::= ", "\"a\"", "[a-z]", "(",  ")",    "|", "*", "+", "?",
                                "{2}",  "\n",    "x",     ".",     "\\", "\xff", "#", "^", "-"};
  int accepted = 0;
  for (int round = 0; round < 5000; ++round) {
    std::string source = round % 2 == 0 ? "root ::= " : "";
    for (size_t i = random() % 12; i > 0; --i) {
      source += pieces[random() % std::size(pieces)];
    }
    const auto grammar = Grammar::from_gbnf(source);
    if (grammar.ok()) {
      ++accepted;
      random_text(*grammar, random, 200);
    } else {
      EXPECT_EQ(grammar.status().message().rfind("grammar", 0), 0u);
    }
  }
  EXPECT_GT(accepted, 300);
}

TEST(Gbnf, TooManyReadingsAtOnceAreAnErrorNotAHang) {
  GrammarLimits limits;
  limits.threads = 50;
  const auto g =
      Grammar::from_gbnf("root ::= a* \"!\"\na ::= b | \"x\" a \"x\" | \"x\"\nb ::= \"x\" a \"y\"", limits);
  ASSERT_TRUE(g.ok()) << g.status().message();
  const auto trie = std::make_shared<const TokenTrie>(ListedTokens::bytes());
  GrammarMatcher m(*g, trie);
  Status status;
  for (int i = 0; i < 500 && status.ok(); ++i) {
    status = m.accept('x');
  }
  EXPECT_EQ(status.code(), Code::kResourceExhausted) << status.message();
}

// --- Tokens --------------------------------------------------------------------------------------

class Tokens : public testing::Test {
 protected:
  ListedTokens tokens_{{"a", "ab", "abc", "b", "bc", "c", "", "ab", "\xC3", "\xA9", "é", "x\xC3", "é!"}};
  std::shared_ptr<const TokenTrie> trie_ = std::make_shared<const TokenTrie>(tokens_);
};

TEST_F(Tokens, MaskSaysWhatEachTokenAloneSays) {
  for (const char* source : {"root ::= \"abc\"*", "root ::= [^c]*", "root ::= \"a\"? \"é\"+",
                             "root ::= \"xé\" | \"abx\"", "root ::= \"\""}) {
    GrammarMatcher m(gbnf(source), trie_);
    std::mt19937_64 random(1);
    for (int step = 0; step < 20; ++step) {
      const std::vector<bool> mask = m.allowed();
      ASSERT_EQ(mask.size(), 14u);
      std::vector<TokenId> next;
      for (TokenId id = 0; id < 14; ++id) {
        EXPECT_EQ(mask[static_cast<size_t>(id)], m.allows(id)) << source << " token " << id;
        if (mask[static_cast<size_t>(id)] && id != 13) {
          next.push_back(id);
        }
      }
      EXPECT_FALSE(mask[6]);  // the empty token would never get anywhere
      EXPECT_EQ(mask[13], m.may_end());
      if (next.empty()) {  // the end, or a text that these tokens cannot spell
        break;
      }
      ASSERT_TRUE(m.accept(next[random() % next.size()]).ok());
    }
  }
}

TEST_F(Tokens, CharactersMayBeCutBetweenTokens) {
  GrammarMatcher m(gbnf("root ::= \"xé\" \"!\""), trie_);
  EXPECT_TRUE(m.allows(11));  // "x" and the first half of é
  ASSERT_TRUE(m.accept(11).ok());
  EXPECT_FALSE(m.allows(8));
  EXPECT_TRUE(m.allows(9));
  ASSERT_TRUE(m.accept(9).ok());
  EXPECT_FALSE(m.may_end());
  EXPECT_EQ(m.accept(0).code(), Code::kInternal);
}

TEST_F(Tokens, SamplerTakesOnlyWhatTheGrammarAllows) {
  const std::vector<float> logits = {5, 4, 3, 2, 1, 0, 9, 9, 9, 9, 9, 9, 9, 9};
  SamplerOptions greedy;
  greedy.temperature = 0.0f;
  Sampler s(greedy);
  GrammarMatcher m(gbnf("root ::= \"bc\""), trie_);
  EXPECT_EQ(s.sample(logits, &m), 3);
  ASSERT_TRUE(m.accept(3).ok());
  EXPECT_EQ(s.sample(logits, &m), 5);
  ASSERT_TRUE(m.accept(5).ok());
  EXPECT_EQ(s.sample(logits, &m), 13);  // only the end is left
  GrammarMatcher stuck(gbnf("root ::= \"z\""), trie_);
  EXPECT_EQ(s.sample(logits, &stuck), -1);
}

// The few look-ups that most tokens need must give the same draw as filtering the whole vocabulary.
TEST(GrammarSampling, TheShortWayDrawsFromTheSameTokens) {
  std::vector<std::string> pieces;
  for (int i = 0; i < 4000; ++i) {
    pieces.push_back(std::to_string(i));
  }
  const ListedTokens tokens(pieces);
  const auto trie = std::make_shared<const TokenTrie>(tokens);
  std::mt19937_64 random(11);
  std::vector<float> logits(4001);
  for (const char* source : {"root ::= [0-9]+", "root ::= [1-7]+", "root ::= \"7\"+"}) {
    const auto grammar = gbnf(source);
    for (const int top_k : {1, 5, 40}) {
      for (const float temperature : {0.0f, 1.0f}) {
        for (uint64_t seed = 0; seed < 20; ++seed) {
          for (float& x : logits) {
            x = static_cast<float>(random() % 1000) / 100.0f;
          }
          SamplerOptions o;
          o.top_k = top_k;
          o.temperature = temperature;
          o.seed = seed;
          GrammarMatcher m(grammar, trie);
          std::vector<float> filtered = logits;
          for (size_t id = 0; id < filtered.size(); ++id) {
            if (!m.allows(static_cast<TokenId>(id))) {
              filtered[id] = -std::numeric_limits<float>::infinity();
            }
          }
          EXPECT_EQ(Sampler(o).sample(logits, &m), Sampler(o).sample(filtered)) << source << " " << top_k;
        }
      }
    }
  }
}

TEST(LogitBias, MovesAndForbidsTokens) {
  SamplerOptions o;
  o.temperature = 0.0f;
  o.logit_bias = {{1, 2.5f}};
  EXPECT_EQ(Sampler(o).sample(std::vector<float>{2, 0, 1}), 1);
  o.logit_bias = {{0, -std::numeric_limits<float>::infinity()}};
  EXPECT_EQ(Sampler(o).sample(std::vector<float>{2, 0, 1}), 2);
  o.logit_bias = {{7, 100.0f}};  // beyond these logits
  EXPECT_EQ(Sampler(o).sample(std::vector<float>{2, 0, 1}), 0);
  o.logit_bias = {{0, std::numeric_limits<float>::quiet_NaN()}};
  EXPECT_FALSE(validate(o).ok());
  o.logit_bias = {{-1, 0.0f}};
  EXPECT_FALSE(validate(o).ok());
}

}  // namespace
}  // namespace hetero
