#include "text/jinja_lexer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "text/jinja_value.h"

namespace hetero::jinja {
namespace {

bool is_digit_char(char c) {
  return c >= '0' && c <= '9';
}

bool is_hex_digit(char c) {
  return is_digit_char(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

// Line ends become "\n", and the last one goes.
std::string normalize(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      i += i + 1 < source.size() && source[i + 1] == '\n' ? 1 : 0;
    } else {
      out += source[i];
    }
  }
  if (!out.empty() && out.back() == '\n') {
    out.pop_back();
  }
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(normalize(source)) {}

  std::vector<Token> run() {
    while (position_ < source_.size()) {
      text_until_tag();
    }
    add(TokenType::kEnd, "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void syntax_error(const std::string& message) const {
    throw Error{Code::kMalformed, message, line_};
  }

  bool at(std::string_view what) const { return source_.compare(position_, what.size(), what) == 0; }

  void advance(size_t to) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(position_),
                                         source_.begin() + static_cast<std::ptrdiff_t>(to), '\n'));
    position_ = to;
  }

  size_t skip_space(size_t from) const {
    while (from < source_.size()) {
      size_t next = from;
      if (!is_space(next_code_point(source_, next))) {
        break;
      }
      from = next;
    }
    return from;
  }

  Token& add(TokenType type, std::string text) {
    tokens_.push_back({type, line_, std::move(text)});
    return tokens_.back();
  }

  // The text before a tag, without the white space that the tag's sign or lstrip_blocks removes.
  std::string_view left_of_tag(std::string_view text, char sign, bool is_variable) const {
    if (sign == '-') {
      return strip(text, false, true);
    }
    if (sign == '+' || is_variable) {
      return text;
    }
    const size_t newline = text.rfind('\n');
    const size_t start = newline == kNotFound ? 0 : newline + 1;
    if ((start > 0 || line_starting_) && strip(text.substr(start)).empty()) {
      return text.substr(0, start);
    }
    return text;
  }

  void add_text(std::string_view text, char sign, bool is_variable) {
    const std::string_view kept = left_of_tag(text, sign, is_variable);
    if (!kept.empty()) {
      add(TokenType::kText, std::string(kept));
    }
  }

  char sign_at(size_t position) const {
    return position < source_.size() && (source_[position] == '-' || source_[position] == '+')
               ? source_[position]
               : '\0';
  }

  void text_until_tag() {
    size_t open = source_.find('{', position_);
    while (open != kNotFound &&
           (open + 1 == source_.size() || std::string_view("%{#").find(source_[open + 1]) == kNotFound)) {
      open = source_.find('{', open + 1);
    }
    const std::string_view source = source_;
    if (open == kNotFound) {
      add(TokenType::kText, source_.substr(position_));
      advance(source_.size());
      return;
    }
    const char type = source_[open + 1];
    const char sign = sign_at(open + 2);
    add_text(source.substr(position_, open - position_), sign, type == '{');
    const size_t inside = open + 2 + (sign != '\0' ? 1 : 0);
    size_t raw = 0;
    if (type == '%' && is_raw(inside, raw)) {
      advance(raw);
      raw_block();
      return;
    }
    advance(inside);
    if (type == '#') {
      comment();
      return;
    }
    add(type == '%' ? TokenType::kBlockBegin : TokenType::kVariableBegin, type == '%' ? "{%" : "{{");
    tag(type == '%');
  }

  // Whether "raw %}" follows; `end` is set behind it.
  bool is_raw(size_t from, size_t& end) const {
    const size_t name = skip_space(from);
    if (source_.compare(name, 3, "raw") != 0) {
      return false;
    }
    const size_t close = skip_space(name + 3);
    if (source_.compare(close, 3, "-%}") == 0) {
      end = skip_space(close + 3);
      return true;
    }
    end = close + 2;
    return source_.compare(close, 2, "%}") == 0;
  }

  void raw_block() {
    line_starting_ = source_[position_ - 1] == '\n';
    for (size_t open = source_.find("{%", position_); open != kNotFound;
         open = source_.find("{%", open + 1)) {
      const char sign = sign_at(open + 2);
      const size_t name = skip_space(open + 2 + (sign != '\0' ? 1 : 0));
      if (source_.compare(name, 6, "endraw") != 0) {
        continue;
      }
      const size_t close = skip_space(name + 6);
      const size_t end = end_of_tag(close, "%}", true);
      if (end != kNotFound) {
        add_text(std::string_view(source_).substr(position_, open - position_), sign, false);
        finish_tag(end);
        return;
      }
    }
    syntax_error("missing end of raw directive: expected {% endraw %}");
  }

  void comment() {
    const size_t close = source_.find("#}", position_);
    if (close == kNotFound) {
      syntax_error("missing end of comment tag: expected #}");
    }
    const bool has_sign = close > position_ && sign_at(close - 1) != '\0';
    finish_tag(end_of_tag(has_sign ? close - 1 : close, "#}", true));
  }

  // Where the text after a tag goes on, if the tag ends at `from`: behind "-%}" and white space,
  // "+%}", or "%}" and the newline that trim_blocks takes.
  size_t end_of_tag(size_t from, std::string_view close, bool trims_newline) const {
    const char sign = sign_at(from);
    const size_t at = from + (sign != '\0' ? 1 : 0);
    if (source_.compare(at, close.size(), close) != 0 || (sign == '+' && !trims_newline)) {
      return kNotFound;
    }
    const size_t end = at + close.size();
    if (sign == '-') {
      return skip_space(end);
    }
    return end + (trims_newline && sign == '\0' && end < source_.size() && source_[end] == '\n' ? 1 : 0);
  }

  void finish_tag(size_t end) {
    line_starting_ = source_[end - 1] == '\n';
    advance(end);
  }

  void tag(bool is_block) {
    std::string open;  // brackets that wait for their match
    while (true) {
      advance(skip_space(position_));
      if (position_ >= source_.size()) {
        return;  // the parser reports the missing end
      }
      const size_t end = open.empty() ? end_of_tag(position_, is_block ? "%}" : "}}", is_block) : kNotFound;
      if (end != kNotFound) {
        add(is_block ? TokenType::kBlockEnd : TokenType::kVariableEnd, is_block ? "%}" : "}}");
        finish_tag(end);
        return;
      }
      const char c = source_[position_];
      size_t next = position_;
      if (is_digit_char(c)) {
        number();
      } else if (c == '"' || c == '\'') {
        string(c);
      } else if (is_word(next_code_point(source_, next))) {
        name();
      } else {
        op(open);
      }
    }
  }

  void name() {
    size_t end = position_;
    for (size_t next = end; next < source_.size() && is_word(next_code_point(source_, next));) {
      end = next;
    }
    std::string text = source_.substr(position_, end - position_);
    if (!is_identifier(text)) {
      syntax_error(fmt::format("invalid character in identifier '{}'", text));
    }
    add(TokenType::kName, std::move(text));
    advance(end);
  }

  // Digits with single underscores between them.
  template <class Predicate>
  size_t digits(size_t from, Predicate is_one) const {
    while (from < source_.size() &&
           (is_one(source_[from]) || (source_[from] == '_' && from > 0 && is_one(source_[from - 1]) &&
                                      from + 1 < source_.size() && is_one(source_[from + 1])))) {
      ++from;
    }
    return from;
  }

  void number() {
    const auto char_at = [&](size_t i) { return i < source_.size() ? source_[i] : '\0'; };
    size_t end = digits(position_, is_digit_char);
    bool is_float = false;
    if (position_ == 0 || source_[position_ - 1] != '.') {  // x.0.1 are items, not a number
      if (char_at(end) == '.' && is_digit_char(char_at(end + 1))) {
        is_float = true;
        end = digits(end + 1, is_digit_char);
      }
      if ((char_at(end) | 0x20) == 'e') {
        const size_t exponent = end + 1 + (char_at(end + 1) == '+' || char_at(end + 1) == '-' ? 1 : 0);
        if (is_digit_char(char_at(exponent))) {
          is_float = true;
          end = digits(exponent, is_digit_char);
        }
      }
    }
    if (!is_float) {
      end = integer_end();
    }
    std::string text = source_.substr(position_, end - position_);
    Token& token = add(is_float ? TokenType::kFloat : TokenType::kInteger, text);
    bool overflow = false;
    if (is_float) {
      token.real = parse_float(text).value_or(0);
    } else if (const auto value = parse_int(text, 0, overflow)) {
      token.integer = *value;
    } else {
      syntax_error(fmt::format("the integer {} is too large", text.substr(0, 50)));
    }
    advance(end);
  }

  size_t integer_end() const {
    const auto prefixed = [&](char letter, auto is_one) {
      const size_t i = position_ + 2;
      if (i >= source_.size() || source_[position_] != '0' || (source_[i - 1] | 0x20) != letter) {
        return kNotFound;
      }
      const size_t start = source_[i] == '_' ? i + 1 : i;
      const size_t end = digits(start, is_one);
      return end > start ? end : kNotFound;
    };
    size_t end = prefixed('x', is_hex_digit);
    end = end != kNotFound ? end : prefixed('o', [](char c) { return c >= '0' && c <= '7'; });
    end = end != kNotFound ? end : prefixed('b', [](char c) { return c == '0' || c == '1'; });
    if (end != kNotFound) {
      return end;
    }
    return source_[position_] == '0' ? digits(position_, [](char c) { return c == '0'; })
                                     : digits(position_, is_digit_char);
  }

  void string(char mark) {
    size_t end = position_ + 1;
    while (end < source_.size() && source_[end] != mark) {
      end += source_[end] == '\\' ? 2 : 1;
    }
    if (end >= source_.size()) {
      syntax_error(fmt::format("unexpected char {} at {}: the string has no end", quote(std::string(1, mark)),
                               position_));
    }
    add(TokenType::kString, unescape(std::string_view(source_).substr(position_ + 1, end - position_ - 1)));
    advance(end + 1);
  }

  // Python's escapes; an unknown one stays as it is written.
  std::string unescape(std::string_view s) const {
    std::string out;
    for (size_t i = 0; i < s.size();) {
      if (s[i] != '\\' || i + 1 == s.size()) {
        out += s[i++];
        continue;
      }
      const char c = s[i + 1];
      i += 2;
      constexpr std::string_view kFrom = "\\'\"abfnrtv";
      constexpr std::string_view kTo = "\\'\"\a\b\f\n\r\t\v";
      if (c == '\n') {
        continue;
      }
      if (const size_t simple = kFrom.find(c); simple != kNotFound) {
        out += kTo[simple];
      } else if (c == 'x' || c == 'u' || c == 'U') {
        append_code_point(out, hex_escape(s, i, c));
      } else if (c >= '0' && c <= '7') {
        uint32_t value = 0;
        --i;
        for (int n = 0; n < 3 && i < s.size() && s[i] >= '0' && s[i] <= '7'; ++n, ++i) {
          value = value * 8 + static_cast<uint32_t>(s[i] - '0');
        }
        append_code_point(out, value);
      } else if (c == 'N') {
        const size_t close = i < s.size() && s[i] == '{' ? s.find('}', i) : kNotFound;
        const auto named = close == kNotFound
                               ? std::nullopt
                               : code_point_of_name(std::string(s.substr(i + 1, close - i - 1)));
        if (!named) {
          syntax_error("unknown Unicode character name in a \\N{...} escape");
        }
        append_code_point(out, *named);
        i = close + 1;
      } else {
        out += '\\';
        out += c;
      }
    }
    return out;
  }

  char32_t hex_escape(std::string_view s, size_t& i, char kind) const {
    const size_t count = kind == 'x' ? 2 : kind == 'u' ? 4 : 8;
    char32_t value = 0;
    for (size_t n = 0; n < count; ++n, ++i) {
      if (i >= s.size() || !is_hex_digit(s[i])) {
        syntax_error(fmt::format("a \\{} escape needs {} hexadecimal digits", kind, count));
      }
      const char c = s[i];
      value = value * 16 + static_cast<uint32_t>(is_digit_char(c) ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    if (value > 0x10ffff) {
      syntax_error("a \\U escape names no Unicode character");
    }
    return value;
  }

  void op(std::string& open) {
    static constexpr std::array<std::string_view, 26> kOperators = {
        "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
        "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};
    const auto found =
        std::find_if(kOperators.begin(), kOperators.end(), [&](std::string_view o) { return at(o); });
    if (found == kOperators.end()) {
      size_t next = position_;
      next_code_point(source_, next);
      syntax_error(fmt::format("unexpected char {}", quote(source_.substr(position_, next - position_))));
    }
    const char c = found->front();
    if (found->size() == 1 && (c == '(' || c == '[' || c == '{')) {
      open += c == '(' ? ')' : c == '[' ? ']' : '}';
    } else if (found->size() == 1 && (c == ')' || c == ']' || c == '}')) {
      if (open.empty()) {
        syntax_error(fmt::format("unexpected '{}'", c));
      }
      if (open.back() != c) {
        syntax_error(fmt::format("unexpected '{}', expected '{}'", c, open.back()));
      }
      open.pop_back();
    }
    add(TokenType::kOperator, std::string(*found));
    advance(position_ + found->size());
  }

  const std::string source_;
  size_t position_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::string describe(const Token& token) {
  switch (token.type) {
    case TokenType::kText:
      return "template text";
    case TokenType::kBlockBegin:
      return "begin of statement block";
    case TokenType::kBlockEnd:
      return "end of statement block";
    case TokenType::kVariableBegin:
      return "begin of print statement";
    case TokenType::kVariableEnd:
      return "end of print statement";
    case TokenType::kString:
      return "a string";
    case TokenType::kEnd:
      return "end of template";
    default:
      return fmt::format("'{}'", token.text);
  }
}

std::vector<Token> tokenize(std::string_view source) {
  return Lexer(source).run();
}

}  // namespace hetero::jinja
