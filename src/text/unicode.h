// UTF-8 in and out, tolerant of invalid bytes, and the byte alphabet of byte-level BPE.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace hetero {

inline constexpr char32_t kReplacementCharacter = 0xFFFD;

/// One step through a byte string: a whole, well-formed UTF-8 character, or one byte that starts
/// none (`valid` false, code U+FFFD, length 1). Overlong forms, surrogates and codes above
/// U+10FFFF are not well-formed.
struct Utf8Char {
  char32_t code = kReplacementCharacter;
  uint32_t length = 1;
  bool valid = false;
};

/// Decodes the first character of `bytes`, which must not be empty.
Utf8Char decode_utf8(std::string_view bytes);

void append_utf8(std::string& out, char32_t code);

/// The printable character that byte-level BPE writes for a byte (GPT-2's bytes_to_unicode):
/// printable Latin-1 stands for itself, the others follow from U+0100 on.
char32_t byte_alphabet_char(uint8_t byte);
/// The inverse; -1 for a character outside the alphabet.
int byte_of_alphabet_char(char32_t code);

}  // namespace hetero
