#include "text/stop_strings.h"

#include <gtest/gtest.h>

#include <random>

namespace hetero {
namespace {

TEST(StopStrings, NeverShowsPartOfAStopString) {
  StopStrings s({"END", "\n\n"});
  EXPECT_EQ(s.push("text E"), "text ");
  EXPECT_EQ(s.push("N"), "");
  EXPECT_EQ(s.push("T\n"), "ENT");
  EXPECT_EQ(s.push("x"), "\nx");
  EXPECT_EQ(s.push("yEND and more"), "y");
  EXPECT_TRUE(s.stopped());
  EXPECT_EQ(s.push("after"), "");
  EXPECT_EQ(s.finish(), "");
}

TEST(StopStrings, WhatWasHeldBackComesAtTheEnd) {
  StopStrings s({"STOP"});
  EXPECT_EQ(s.push("ST"), "");
  EXPECT_EQ(s.finish(), "ST");
  EXPECT_FALSE(s.stopped());
}

TEST(StopStrings, TheStopThatIsCompleteFirstWins) {
  StopStrings s({"longer stop", "er"});
  EXPECT_EQ(s.push("a longer stop"), "a long");
  EXPECT_TRUE(s.stopped());
  StopStrings same_end({"op", "stop"});
  EXPECT_EQ(same_end.push("a stop"), "a ");
}

TEST(StopStrings, AnEmptyStopIsNone) {
  StopStrings s({""});
  EXPECT_EQ(s.push("text"), "text");
  EXPECT_FALSE(s.stopped());
}

TEST(StopStrings, ShownTextEndsAtTheFirstStopHoweverItIsCut) {
  std::mt19937_64 random(7);
  const std::vector<std::string> stops = {"aba", "bb", "abcab"};
  for (int round = 0; round < 3000; ++round) {
    std::string text;
    for (size_t i = random() % 30; i > 0; --i) {
      text.push_back(static_cast<char>('a' + random() % 3));
    }
    const auto shown_of = [&](const auto& piece_size) {
      StopStrings s(stops);
      std::string shown;
      for (size_t i = 0; i < text.size();) {
        const size_t n = piece_size();
        shown += s.push(text.substr(i, n));
        i += n;
      }
      shown += s.finish();
      return std::pair(shown, s.stopped());
    };
    const auto [shown, stopped] = shown_of([&] { return 1 + random() % 4; });
    EXPECT_EQ(std::pair(shown, stopped), shown_of([] { return size_t{1}; }));
    EXPECT_EQ(std::pair(shown, stopped), shown_of([] { return size_t{1000}; }));
    EXPECT_EQ(text.compare(0, shown.size(), shown), 0);
    bool contains = false;
    for (const std::string& stop : stops) {
      contains = contains || text.find(stop) != std::string::npos;
      EXPECT_EQ(shown.find(stop), std::string::npos);
    }
    EXPECT_EQ(stopped, contains);
    EXPECT_EQ(shown == text, !contains);
  }
}

}  // namespace
}  // namespace hetero
