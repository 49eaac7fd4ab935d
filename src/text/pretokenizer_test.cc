#include "text/pretokenizer.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace hetero {
namespace {

std::vector<std::string> split(const char* name, std::string_view text) {
  auto p = PreTokenizer::create(name);
  EXPECT_TRUE(p.ok()) << p.status().message();
  if (!p.ok()) {
    return {};
  }
  auto pieces = p->split(text);
  EXPECT_TRUE(pieces.ok()) << pieces.status().message();
  return pieces.ok() ? std::vector<std::string>(pieces->begin(), pieces->end()) : std::vector<std::string>();
}

using Pieces = std::vector<std::string>;

TEST(PreTokenizer, Gpt2KeepsTheLastSpaceForTheNextWord) {
  EXPECT_EQ(split("gpt-2", "Hello   world's 123\n\n x"),
            (Pieces{"Hello", "  ", " world", "'s", " 123", "\n\n", " x"}));
  EXPECT_EQ(split("gpt-2", ""), Pieces{});
}

TEST(PreTokenizer, Llama3GroupsThreeDigitsAndQwen2One) {
  EXPECT_EQ(split("llama-bpe", "x 1234"), (Pieces{"x", " ", "123", "4"}));
  EXPECT_EQ(split("qwen2", "12 I'LL"), (Pieces{"1", "2", " I", "'LL"}));
}

TEST(PreTokenizer, LaterPatternsSeeOnlyTheirPiece) {
  EXPECT_EQ(split("starcoder", "a12 b  3"), (Pieces{"a", "1", "2", " b", "  ", "3"}));
  EXPECT_EQ(split("deepseek-coder", "a\n +x"), (Pieces{"a", "\n", " +", "x"}));
}

TEST(PreTokenizer, TekkenCutsWordsWhereTheCaseRises) {
  EXPECT_EQ(split("tekken", "helloWorld ABCdef"), (Pieces{"hello", "World", " ABCdef"}));
}

TEST(PreTokenizer, DigitsComeInThreesFromTheRight) {
  EXPECT_EQ(split("superbpe", "12345 x123"), (Pieces{"12", "345", " x", "123"}));
  EXPECT_EQ(split("superbpe", "\u00BD1234"), (Pieces{"\u00BD1", "234"}));         // the half is no digit
  EXPECT_EQ(split("afmoe", "\u00BD1234 ab"), (Pieces{"\u00BD1", "234", " ab"}));  // to this one it is
  EXPECT_EQ(split("tiny_aya", "1234567, 12345"), (Pieces{"1", "234", "567", ",", " ", "12", "345"}));
  EXPECT_EQ(split("tiny_aya", "1234x"), (Pieces{"123", "4", "x"}));  // the word does not end with the run
}

TEST(PreTokenizer, KimiKeepsHanApartAndExaoneMoeJoinsWords) {
  EXPECT_EQ(split("kimi-k2", "Hi中文World's"), (Pieces{"Hi", "中文", "World's"}));
  EXPECT_EQ(split("exaone-moe", "a bc de, f 12"), (Pieces{"a bc de", ",", " f", " ", "1", "2"}));
}

TEST(PreTokenizer, WhiteSpaceIsTheUnicodeProperty) {
  EXPECT_EQ(split("gpt-2", "a\x0B\xC2\x85z"), (Pieces{"a", "\x0B", "\xC2\x85", "z"}));
  EXPECT_EQ(split("gpt-2", "a\u200Bz"), (Pieces{"a", "\u200B", "z"}));  // zero width space is none
}

TEST(PreTokenizer, InvalidBytesStayInThePieces) {
  EXPECT_EQ(split("gpt-2", "a\xFF\xC3 b"), (Pieces{"a", "\xFF\xC3", " b"}));
}

TEST(PreTokenizer, NoKnownNameLosesOrRunsAwayOnLongRuns) {
  // One name for each list of patterns. A pattern that backtracks from every place would take hours.
  for (const char* name :
       {"default", "gpt-2",     "starcoder",    "falcon",         "llama-bpe",   "jais-2",     "minicpm5",
        "qwen2",   "qwen35",    "ufakzeka",     "laguna",         "bailingmoe",  "seed-coder", "tekken",
        "gpt-4o",  "youtu",     "deepseek-llm", "deepseek-coder", "deepseek-v3", "spark2_5",   "bloom",
        "viking",  "chameleon", "kimi-k2",      "exaone-moe",     "superbpe",    "tiny_aya",   "afmoe"}) {
    const auto p = PreTokenizer::create(name);
    ASSERT_TRUE(p.ok()) << name << p.status().message();
    for (const char* unit : {" ", "a", "A", "7", "\r", "\xCC\x81", "中"}) {
      std::string text;
      while (text.size() < 100'000) {
        text += unit;
      }
      text += "中";
      const auto pieces = p->split(text);
      ASSERT_TRUE(pieces.ok()) << name << pieces.status().message();
      std::string joined;
      for (const std::string_view piece : *pieces) {
        joined += piece;
      }
      EXPECT_TRUE(joined == text) << name;
    }
  }
}

TEST(PreTokenizer, UnknownNameIsAnError) {
  const auto p = PreTokenizer::create("kuchen");
  ASSERT_FALSE(p.ok());
  EXPECT_EQ(p.status().code(), Code::kUnsupported);
  EXPECT_NE(p.status().message().find("kuchen"), std::string::npos);
}

}  // namespace
}  // namespace hetero
