#include <gtest/gtest.h>

#include <string>

#include "text/tokenizer.h"
#include "text/unicode.h"

namespace hetero {
namespace {

// All of `bytes`, pushed one at a time.
std::string streamed(std::string_view bytes) {
  Utf8Stream stream;
  std::string out;
  for (const char byte : bytes) {
    out += stream.push(std::string_view(&byte, 1));
  }
  return out + stream.finish();
}

TEST(Utf8Stream, GivesOutOnlyWholeCharacters) {
  Utf8Stream stream;
  EXPECT_EQ(stream.push("a\xF0\x9F"), "a");
  EXPECT_EQ(stream.push("\x98"), "");
  EXPECT_EQ(stream.push("\x80z\xC3"), "😀z");
  EXPECT_EQ(stream.push("\xA9"), "é");
  EXPECT_EQ(stream.finish(), "");
}

TEST(Utf8Stream, BytesThatNeverBecomeACharacterAreReplacedAtOnce) {
  Utf8Stream stream;
  EXPECT_EQ(stream.push("\x80"), "\uFFFD");
  EXPECT_EQ(stream.push("\xFF"), "\uFFFD");
  EXPECT_EQ(stream.push("\xE2\x82"), "");
  EXPECT_EQ(stream.push("x"), "\uFFFDx");  // the begun character counts as one
}

TEST(Utf8Stream, FinishCompletesWhatIsLeft) {
  EXPECT_EQ(streamed("ab\xF0\x9F\x98"), "ab\uFFFD");
  Utf8Stream stream;
  EXPECT_EQ(stream.push("\xE2"), "");
  EXPECT_EQ(stream.finish(), "\uFFFD");
  EXPECT_EQ(stream.finish(), "");
  EXPECT_EQ(stream.push("b"), "b");
}

TEST(Utf8Stream, SurrogatesOverlongFormsAndTooLargeCodesAreReplaced) {
  EXPECT_EQ(streamed("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(streamed("\xC0\xAF"), "\uFFFD\uFFFD");
  EXPECT_EQ(streamed("\xE0\x80\xAF"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(streamed("\xF4\x90\x80\x80"), "\uFFFD\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(streamed("\xF5"), "\uFFFD");
}

TEST(Unicode, EveryCharacterSurvivesEncodingAndDecoding) {
  for (uint32_t code = 0; code <= 0x10FFFF; ++code) {
    std::string bytes;
    append_utf8(bytes, code);
    const Utf8Char c = decode_utf8(bytes);
    if (code >= 0xD800 && code < 0xE000) {
      ASSERT_FALSE(c.valid) << code;
      continue;
    }
    ASSERT_TRUE(c.valid) << code;
    ASSERT_EQ(static_cast<uint32_t>(c.code), code);
    ASSERT_EQ(c.length, bytes.size());
    if (code % 97 == 0 || code < 0x900) {
      ASSERT_EQ(streamed(bytes), bytes) << code;
    }
  }
}

TEST(Unicode, ByteAlphabetIsOneToOne) {
  for (int byte = 0; byte < 256; ++byte) {
    EXPECT_EQ(byte_of_alphabet_char(byte_alphabet_char(static_cast<uint8_t>(byte))), byte);
  }
  EXPECT_EQ(byte_alphabet_char(' '), char32_t{0x120});   // Ġ
  EXPECT_EQ(byte_alphabet_char('\n'), char32_t{0x10A});  // Ċ
  EXPECT_EQ(byte_alphabet_char(0xAD), char32_t{0x143});  // the last one
  EXPECT_EQ(byte_of_alphabet_char(' '), -1);
  EXPECT_EQ(byte_of_alphabet_char(0x144), -1);
}

}  // namespace
}  // namespace hetero
