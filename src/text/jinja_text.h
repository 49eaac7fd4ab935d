// Strings as Python sees them: sequences of code points, kept as UTF-8. Bytes that are not UTF-8
// count as one code point each (0xDC80 + byte, as Python's surrogateescape) and pass through as
// they are.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace hetero::jinja {

/// Wide enough for every integer that JSON carries and for sums of them. Python's integers have no
/// limit; beyond 127 bits we report an overflow.
__extension__ typedef __int128 Int;

inline constexpr size_t kNotFound = std::string_view::npos;

/// Decodes the code point at `pos` (which must be inside) and moves `pos` behind it.
char32_t next_code_point(std::string_view s, size_t& pos);
void append_code_point(std::string& out, char32_t c);
int64_t count_code_points(std::string_view s);
bool is_ascii(std::string_view s);
/// Byte offset of code point `index`; the size of `s` when there are fewer.
size_t byte_offset(std::string_view s, int64_t index);

/// First occurrence at or after byte `from`, in time linear in both sizes.
size_t find(std::string_view s, std::string_view what, size_t from = 0);
size_t rfind(std::string_view s, std::string_view what);

bool is_space(char32_t c);
bool is_printable(char32_t c);
bool is_decimal(char32_t c);
bool is_digit(char32_t c);
bool is_numeric(char32_t c);
bool is_alpha(char32_t c);
bool is_word(char32_t c);  // \w of Python's re
bool is_lower(char32_t c);
bool is_upper(char32_t c);
bool is_title(char32_t c);
bool is_identifier(std::string_view s);
/// The code point of a Unicode character name, as in "\N{BULLET}".
std::optional<char32_t> code_point_of_name(const std::string& name);

/// str.strip, lstrip, rstrip: of white space, or of the code points in `chars`.
std::string_view strip(std::string_view s, bool left = true, bool right = true,
                       std::optional<std::string_view> chars = std::nullopt);
std::vector<std::string_view> split_lines(std::string_view s, bool keep_ends = false);

std::string to_upper(std::string_view s);
std::string to_lower(std::string_view s);
std::string to_title(std::string_view s);
std::string capitalize(std::string_view s);
std::string swap_case(std::string_view s);
std::string case_fold(std::string_view s);

/// repr() of a string and of a float. Past `most` bytes the string is left off: its result is longer,
/// and only good for telling so.
std::string quote(std::string_view s, size_t most = kNotFound);
std::string float_repr(double d);
std::string int_repr(Int i);

/// int(text, base) and float(text); nothing where Python raises ValueError. `overflow` is set when
/// the digits are fine and only the value is too large for Int.
std::optional<Int> parse_int(std::string_view text, int base, bool& overflow);
std::optional<double> parse_float(std::string_view text);

}  // namespace hetero::jinja
