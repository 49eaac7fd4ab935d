#include "text/unicode.h"

#include <array>

namespace hetero {
namespace {

struct ByteAlphabet {
  std::array<char32_t, 256> chars{};
  std::array<int16_t, 0x144> bytes{};

  constexpr ByteAlphabet() {
    bytes.fill(-1);
    char32_t next = 0x100;
    for (unsigned b = 0; b < 256; ++b) {
      const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      const char32_t c = printable ? static_cast<char32_t>(b) : next++;
      chars[b] = c;
      bytes[c] = static_cast<int16_t>(b);
    }
  }
};
constexpr ByteAlphabet kByteAlphabet;

}  // namespace

Utf8Char decode_utf8(std::string_view bytes) {
  const auto at = [&](size_t i) { return static_cast<uint8_t>(bytes[i]); };
  const uint8_t lead = at(0);
  if (lead < 0x80) {
    return {lead, 1, true};
  }
  // Lead bytes C0, C1 and F5..FF never occur; the second byte's range excludes overlong forms
  // (E0, F0), surrogates (ED) and codes above U+10FFFF (F4).
  const uint32_t length = lead >= 0xC2 && lead < 0xE0   ? 2
                          : lead >= 0xE0 && lead < 0xF0 ? 3
                          : lead >= 0xF0 && lead < 0xF5 ? 4
                                                        : 0;
  if (length == 0 || bytes.size() < length) {
    return {};
  }
  const uint8_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const uint8_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  if (at(1) < low || at(1) > high) {
    return {};
  }
  char32_t code = lead & (0x7Fu >> length);
  for (uint32_t i = 1; i < length; ++i) {
    if ((at(i) & 0xC0u) != 0x80u) {
      return {};
    }
    code = (code << 6) | (at(i) & 0x3Fu);
  }
  return {code, length, true};
}

void append_utf8(std::string& out, char32_t code) {
  const auto put = [&](char32_t byte) { out.push_back(static_cast<char>(static_cast<uint8_t>(byte))); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | (code >> 6));
    put(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    put(0xE0 | (code >> 12));
    put(0x80 | ((code >> 6) & 0x3F));
    put(0x80 | (code & 0x3F));
  } else {
    put(0xF0 | (code >> 18));
    put(0x80 | ((code >> 12) & 0x3F));
    put(0x80 | ((code >> 6) & 0x3F));
    put(0x80 | (code & 0x3F));
  }
}

char32_t byte_alphabet_char(uint8_t byte) {
  return kByteAlphabet.chars[byte];
}

int byte_of_alphabet_char(char32_t code) {
  return code < kByteAlphabet.bytes.size() ? kByteAlphabet.bytes[code] : -1;
}

}  // namespace hetero
