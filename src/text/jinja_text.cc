#include "text/jinja_text.h"

#include <fmt/format.h>
#include <unicode/brkiter.h>
#include <unicode/locid.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>

namespace hetero::jinja {
namespace {

bool is_continuation(std::string_view s, size_t pos) {
  return pos < s.size() && (static_cast<unsigned char>(s[pos]) & 0xc0u) == 0x80;
}

char32_t low_bits(std::string_view s, size_t pos) {
  return static_cast<unsigned char>(s[pos]) & 0x3fu;
}

bool is_ascii_space(char32_t c) {
  return (c >= 9 && c <= 13) || (c >= 28 && c <= 32);
}

uint32_t category_bit(char32_t c) {
  return U_MASK(u_charType(static_cast<UChar32>(c)));
}

void append_unicode(std::string& out, const icu::UnicodeString& s) {
  s.toUTF8String(out);
}

enum class Case { kUpper, kLower, kTitle, kFold };

// The mapping of one code point, which may be several ("ß" becomes "SS").
void append_case(std::string& out, char32_t c, Case to) {
  if (c < 0x80) {
    const bool letter = to == Case::kLower || to == Case::kFold ? c >= 'A' && c <= 'Z' : c >= 'a' && c <= 'z';
    out += static_cast<char>(letter ? c ^ 0x20u : c);
    return;
  }
  if (c >= 0xd800 && c < 0xe000) {
    append_code_point(out, c);
    return;
  }
  icu::UnicodeString s(static_cast<UChar32>(c));
  switch (to) {
    case Case::kUpper:
      s.toUpper(icu::Locale::getRoot());
      break;
    case Case::kLower:
      s.toLower(icu::Locale::getRoot());
      break;
    case Case::kTitle:
      s.toTitle(nullptr, icu::Locale::getRoot());
      break;
    case Case::kFold:
      s.foldCase();
      break;
  }
  append_unicode(out, s);
}

bool is_cased(char32_t c) {
  return u_hasBinaryProperty(static_cast<UChar32>(c), UCHAR_CASED) != 0;
}

bool is_case_ignorable(char32_t c) {
  return u_hasBinaryProperty(static_cast<UChar32>(c), UCHAR_CASE_IGNORABLE) != 0;
}

// A capital sigma at the end of a word has a lower-case form of its own.
void append_lower(std::string& out, std::string_view s, size_t end, char32_t c, bool cased_before) {
  if (c != 0x3a3) {
    append_case(out, c, Case::kLower);
    return;
  }
  bool cased_after = false;
  for (size_t pos = end; pos < s.size();) {
    const char32_t next = next_code_point(s, pos);
    if (!is_case_ignorable(next)) {
      cased_after = is_cased(next);
      break;
    }
  }
  append_code_point(out, cased_before && !cased_after ? 0x3c2 : 0x3c3);
}

// Drops the underscores that Python allows between digits; nothing when one is elsewhere.
std::optional<std::string> without_underscores(std::string_view s) {
  std::string out;
  for (size_t i = 0; i < s.size(); ++i) {
    if (s[i] != '_') {
      out += s[i];
    } else if (i == 0 || i + 1 == s.size() || std::isalnum(static_cast<unsigned char>(s[i - 1])) == 0 ||
               std::isalnum(static_cast<unsigned char>(s[i + 1])) == 0) {
      return std::nullopt;
    }
  }
  return out;
}

// Other scripts' decimal digits count as digits in Python's int() and float().
std::string with_ascii_digits(std::string_view s) {
  std::string out;
  for (size_t pos = 0; pos < s.size();) {
    const char32_t c = next_code_point(s, pos);
    if (c >= 0x80 && is_decimal(c)) {
      out += static_cast<char>('0' + u_charDigitValue(static_cast<UChar32>(c)));
    } else {
      append_code_point(out, c);
    }
  }
  return out;
}

}  // namespace

char32_t next_code_point(std::string_view s, size_t& pos) {
  const auto b = static_cast<unsigned char>(s[pos]);
  if (b < 0x80) {
    ++pos;
    return b;
  }
  if (b >= 0xc2 && b < 0xe0 && is_continuation(s, pos + 1)) {
    const char32_t c = ((b & 0x1fu) << 6) | low_bits(s, pos + 1);
    pos += 2;
    return c;
  }
  if (b >= 0xe0 && b < 0xf0 && is_continuation(s, pos + 1) && is_continuation(s, pos + 2)) {
    const char32_t c = ((b & 0xfu) << 12) | (low_bits(s, pos + 1) << 6) | low_bits(s, pos + 2);
    if (c >= 0x800 && (c < 0xd800 || c > 0xdfff)) {
      pos += 3;
      return c;
    }
  }
  if (b >= 0xf0 && b < 0xf5 && is_continuation(s, pos + 1) && is_continuation(s, pos + 2) &&
      is_continuation(s, pos + 3)) {
    const char32_t c = ((b & 0x7u) << 18) | (low_bits(s, pos + 1) << 12) | (low_bits(s, pos + 2) << 6) |
                       low_bits(s, pos + 3);
    if (c >= 0x10000 && c <= 0x10ffff) {
      pos += 4;
      return c;
    }
  }
  ++pos;
  return 0xdc00u + b;
}

void append_code_point(std::string& out, char32_t c) {
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xc0u | (c >> 6));
    out += static_cast<char>(0x80u | (c & 0x3fu));
  } else if (c >= 0xdc80 && c <= 0xdcff) {
    out += static_cast<char>(c - 0xdc00);
  } else if (c >= 0xd800 && c <= 0xdfff) {
    out += "\xef\xbf\xbd";  // half of a surrogate pair has no UTF-8
  } else if (c < 0x10000) {
    out += static_cast<char>(0xe0u | (c >> 12));
    out += static_cast<char>(0x80u | ((c >> 6) & 0x3fu));
    out += static_cast<char>(0x80u | (c & 0x3fu));
  } else {
    out += static_cast<char>(0xf0u | (c >> 18));
    out += static_cast<char>(0x80u | ((c >> 12) & 0x3fu));
    out += static_cast<char>(0x80u | ((c >> 6) & 0x3fu));
    out += static_cast<char>(0x80u | (c & 0x3fu));
  }
}

bool is_ascii(std::string_view s) {
  return std::all_of(s.begin(), s.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

int64_t count_code_points(std::string_view s) {
  int64_t n = 0;
  for (size_t pos = 0; pos < s.size(); ++n) {
    next_code_point(s, pos);
  }
  return n;
}

size_t byte_offset(std::string_view s, int64_t index) {
  size_t pos = 0;
  for (; index > 0 && pos < s.size(); --index) {
    next_code_point(s, pos);
  }
  return pos;
}

size_t find(std::string_view s, std::string_view what, size_t from) {
  if (what.size() <= 16 || from > s.size()) {
    return s.find(what, from);
  }
  // Knuth, Morris, Pratt: fallback[i] is the longest proper border of what[0..i].
  std::vector<uint32_t> fallback(what.size(), 0);
  for (size_t i = 1, k = 0; i < what.size(); ++i) {
    while (k > 0 && what[i] != what[k]) {
      k = fallback[k - 1];
    }
    k += what[i] == what[k] ? 1 : 0;
    fallback[i] = static_cast<uint32_t>(k);
  }
  for (size_t i = from, k = 0; i < s.size(); ++i) {
    while (k > 0 && s[i] != what[k]) {
      k = fallback[k - 1];
    }
    k += s[i] == what[k] ? 1 : 0;
    if (k == what.size()) {
      return i + 1 - k;
    }
  }
  return kNotFound;
}

size_t rfind(std::string_view s, std::string_view what) {
  if (what.size() <= 16) {
    return s.rfind(what);
  }
  const std::string reversed(s.rbegin(), s.rend());
  const std::string reversed_what(what.rbegin(), what.rend());
  const size_t at = find(reversed, reversed_what);
  return at == kNotFound ? kNotFound : s.size() - at - what.size();
}

bool is_space(char32_t c) {
  return is_ascii_space(c) || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
         c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

bool is_printable(char32_t c) {
  if (c < 0x7f) {
    return c >= 0x20;
  }
  return (category_bit(c) & (U_GC_C_MASK | U_GC_Z_MASK)) == 0;
}

bool is_decimal(char32_t c) {
  return u_getIntPropertyValue(static_cast<UChar32>(c), UCHAR_NUMERIC_TYPE) == U_NT_DECIMAL;
}

bool is_digit(char32_t c) {
  const int32_t type = u_getIntPropertyValue(static_cast<UChar32>(c), UCHAR_NUMERIC_TYPE);
  return type == U_NT_DECIMAL || type == U_NT_DIGIT;
}

bool is_numeric(char32_t c) {
  return u_getIntPropertyValue(static_cast<UChar32>(c), UCHAR_NUMERIC_TYPE) != U_NT_NONE;
}

bool is_alpha(char32_t c) {
  return (category_bit(c) & U_GC_L_MASK) != 0;
}
bool is_word(char32_t c) {
  return c == '_' || is_alpha(c) || is_numeric(c);
}
bool is_lower(char32_t c) {
  return u_hasBinaryProperty(static_cast<UChar32>(c), UCHAR_LOWERCASE) != 0;
}
bool is_upper(char32_t c) {
  return u_hasBinaryProperty(static_cast<UChar32>(c), UCHAR_UPPERCASE) != 0;
}
bool is_title(char32_t c) {
  return (category_bit(c) & U_GC_LT_MASK) != 0;
}

bool is_identifier(std::string_view s) {
  bool first = true;
  for (size_t pos = 0; pos < s.size(); first = false) {
    const auto c = static_cast<UChar32>(next_code_point(s, pos));
    const bool fits = first ? c == '_' || u_hasBinaryProperty(c, UCHAR_XID_START) != 0
                            : u_hasBinaryProperty(c, UCHAR_XID_CONTINUE) != 0;
    if (!fits) {
      return false;
    }
  }
  return !first;
}

std::optional<char32_t> code_point_of_name(const std::string& name) {
  UErrorCode error = U_ZERO_ERROR;
  const UChar32 c = u_charFromName(U_UNICODE_CHAR_NAME, name.c_str(), &error);
  return U_FAILURE(error) != 0 ? std::nullopt : std::optional(static_cast<char32_t>(c));
}

std::string_view strip(std::string_view s, bool left, bool right, std::optional<std::string_view> chars) {
  std::u32string set;
  if (chars) {
    for (size_t pos = 0; pos < chars->size();) {
      set += next_code_point(*chars, pos);
    }
    std::sort(set.begin(), set.end());
  }
  const auto drop = [&](char32_t c) {
    return chars ? std::binary_search(set.begin(), set.end(), c) : is_space(c);
  };
  while (left && !s.empty()) {
    size_t pos = 0;
    if (!drop(next_code_point(s, pos))) {
      break;
    }
    s.remove_prefix(pos);
  }
  while (right && !s.empty()) {
    size_t start = s.size() - 1;  // a code point has at most 4 bytes
    for (size_t back = 2; back <= 4 && back <= s.size(); ++back) {
      size_t pos = s.size() - back;
      next_code_point(s, pos);
      if (pos == s.size()) {
        start = s.size() - back;
      }
    }
    size_t pos = start;
    if (!drop(next_code_point(s, pos))) {
      break;
    }
    s.remove_suffix(s.size() - start);
  }
  return s;
}

std::vector<std::string_view> split_lines(std::string_view s, bool keep_ends) {
  std::vector<std::string_view> lines;
  size_t start = 0;
  for (size_t pos = 0; pos < s.size();) {
    const size_t end = pos;
    const char32_t c = next_code_point(s, pos);
    const bool breaks =
        (c >= 10 && c <= 13) || (c >= 28 && c <= 30) || c == 0x85 || c == 0x2028 || c == 0x2029;
    if (!breaks) {
      continue;
    }
    if (c == '\r' && pos < s.size() && s[pos] == '\n') {
      ++pos;
    }
    lines.push_back(s.substr(start, (keep_ends ? pos : end) - start));
    start = pos;
  }
  if (start < s.size()) {
    lines.push_back(s.substr(start));
  }
  return lines;
}

std::string to_upper(std::string_view s) {
  std::string out;
  for (size_t pos = 0; pos < s.size();) {
    append_case(out, next_code_point(s, pos), Case::kUpper);
  }
  return out;
}

std::string to_lower(std::string_view s) {
  std::string out;
  bool cased_before = false;
  for (size_t pos = 0; pos < s.size();) {
    const char32_t c = next_code_point(s, pos);
    append_lower(out, s, pos, c, cased_before);
    cased_before = is_case_ignorable(c) ? cased_before : is_cased(c);
  }
  return out;
}

std::string to_title(std::string_view s) {
  std::string out;
  bool cased_before = false;  // of the code point right before
  bool word_before = false;   // the same, looking through case-ignorable ones: for the sigma
  for (size_t pos = 0; pos < s.size();) {
    const char32_t c = next_code_point(s, pos);
    if (cased_before) {
      append_lower(out, s, pos, c, word_before);
    } else {
      append_case(out, c, Case::kTitle);
    }
    cased_before = is_cased(c);
    word_before = is_case_ignorable(c) ? word_before : cased_before;
  }
  return out;
}

std::string capitalize(std::string_view s) {
  std::string out;
  bool cased_before = false;
  for (size_t pos = 0; pos < s.size();) {
    const size_t start = pos;
    const char32_t c = next_code_point(s, pos);
    if (start == 0) {
      append_case(out, c, Case::kTitle);
    } else {
      append_lower(out, s, pos, c, cased_before);
    }
    cased_before = is_case_ignorable(c) ? cased_before : is_cased(c);
  }
  return out;
}

std::string swap_case(std::string_view s) {
  std::string out;
  for (size_t pos = 0; pos < s.size();) {
    const char32_t c = next_code_point(s, pos);
    if (is_upper(c)) {
      append_case(out, c, Case::kLower);
    } else if (is_lower(c)) {
      append_case(out, c, Case::kUpper);
    } else {
      append_code_point(out, c);
    }
  }
  return out;
}

std::string case_fold(std::string_view s) {
  std::string out;
  for (size_t pos = 0; pos < s.size();) {
    append_case(out, next_code_point(s, pos), Case::kFold);
  }
  return out;
}

std::string quote(std::string_view s, size_t most) {
  const bool has_single = s.find('\'') != kNotFound;
  const char mark = has_single && s.find('"') == kNotFound ? '"' : '\'';
  std::string out(1, mark);
  for (size_t pos = 0; pos < s.size() && out.size() <= most;) {
    const size_t start = pos;
    const char32_t c = next_code_point(s, pos);
    if (c == static_cast<char32_t>(mark) || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (is_printable(c)) {
      out += s.substr(start, pos - start);
    } else if (c < 0x100) {
      out += fmt::format("\\x{:02x}", static_cast<uint32_t>(c));
    } else if (c < 0x10000) {
      out += fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
    } else {
      out += fmt::format("\\U{:08x}", static_cast<uint32_t>(c));
    }
  }
  out += mark;
  return out;
}

std::string float_repr(double d) {
  if (std::isnan(d)) {
    return "nan";
  }
  if (std::isinf(d)) {
    return d < 0 ? "-inf" : "inf";
  }
  char buffer[40];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, d, std::chars_format::scientific).ptr;
  std::string text(buffer, end);
  const size_t e = text.find('e');
  const int exponent = std::atoi(text.c_str() + e + 1);
  std::string mantissa = text.substr(0, e);
  if (exponent < -4 || exponent >= 16) {
    return fmt::format("{}e{}{:02}", mantissa, exponent < 0 ? '-' : '+', std::abs(exponent));
  }
  const std::string sign = mantissa[0] == '-' ? "-" : "";
  std::string digits;
  std::copy_if(mantissa.begin(), mantissa.end(), std::back_inserter(digits),
               [](char c) { return c >= '0' && c <= '9'; });
  if (exponent < 0) {
    return sign + "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  }
  const size_t whole = static_cast<size_t>(exponent) + 1;
  if (digits.size() <= whole) {
    return sign + digits + std::string(whole - digits.size(), '0') + ".0";
  }
  return sign + digits.substr(0, whole) + "." + digits.substr(whole);
}

std::string int_repr(Int i) {
  if (i >= std::numeric_limits<int64_t>::min() && i <= std::numeric_limits<int64_t>::max()) {
    return std::to_string(static_cast<int64_t>(i));
  }
  std::string out;
  for (Int rest = i; rest != 0; rest /= 10) {
    const int digit = static_cast<int>(rest % 10);
    out += static_cast<char>('0' + (digit < 0 ? -digit : digit));
  }
  if (i < 0) {
    out += '-';
  }
  std::reverse(out.begin(), out.end());
  return out;
}

std::optional<Int> parse_int(std::string_view text, int base, bool& overflow) {
  overflow = false;
  const std::string ascii = with_ascii_digits(strip(text));
  std::string_view s = ascii;
  const bool negative = !s.empty() && s[0] == '-';
  if (!s.empty() && (s[0] == '-' || s[0] == '+')) {
    s.remove_prefix(1);
  }
  const char prefix = s.size() > 1 && s[0] == '0' ? static_cast<char>(s[1] | 0x20) : '0';
  const int prefix_base = prefix == 'x' ? 16 : prefix == 'o' ? 8 : prefix == 'b' ? 2 : 0;
  bool must_be_zero = false;
  if (prefix_base != 0 && (base == 0 || base == prefix_base)) {
    s.remove_prefix(2);
    base = prefix_base;
    if (!s.empty() && s[0] == '_') {
      s.remove_prefix(1);
    }
  } else if (base == 0) {
    must_be_zero = s.size() > 1 && s[0] == '0';
    base = 10;
  }
  const std::optional<std::string> digits = without_underscores(s);
  if (!digits || digits->empty()) {
    return std::nullopt;
  }
  Int value = 0;
  for (const char c : *digits) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'a' && c <= 'z' ? c - 'a' + 10
                      : c >= 'A' && c <= 'Z' ? c - 'A' + 10
                                             : 99;
    if (digit >= base || (must_be_zero && digit != 0)) {
      overflow = false;
      return std::nullopt;
    }
    overflow = overflow || __builtin_mul_overflow(value, static_cast<Int>(base), &value) ||
               __builtin_add_overflow(value, static_cast<Int>(negative ? -digit : digit), &value);
  }
  return overflow ? std::nullopt : std::optional(value);
}

std::optional<double> parse_float(std::string_view text) {
  const std::optional<std::string> plain = without_underscores(with_ascii_digits(strip(text)));
  if (!plain || plain->empty()) {
    return std::nullopt;
  }
  const std::string lower = to_lower(*plain);
  const size_t start = lower[0] == '+' || lower[0] == '-' ? 1 : 0;
  const double sign = lower[0] == '-' ? -1.0 : 1.0;
  const std::string rest = lower.substr(start);
  if (rest == "inf" || rest == "infinity") {
    return sign * std::numeric_limits<double>::infinity();
  }
  if (rest == "nan") {
    return std::numeric_limits<double>::quiet_NaN();
  }
  if (rest.empty() || rest.find_first_not_of("0123456789.e+-") != std::string::npos || rest[0] == '-' ||
      rest[0] == '+') {
    return std::nullopt;
  }
  double value = 0;
  const char* end = rest.data() + rest.size();
  const auto result = std::from_chars(rest.data(), end, value);
  if (result.ptr != end) {
    return std::nullopt;
  }
  if (result.ec == std::errc::result_out_of_range) {
    value = std::strtod(rest.c_str(), nullptr);  // infinity or zero, which from_chars does not tell apart
  } else if (result.ec != std::errc()) {
    return std::nullopt;
  }
  return sign * value;
}

}  // namespace hetero::jinja
