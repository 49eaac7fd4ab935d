// Regular expressions (the part that ECMAScript and Python agree on) over the characters of a JSON
// string.
#include <fmt/format.h>

#include <algorithm>

#include "text/grammar_schema.h"
#include "text/unicode.h"

namespace hetero::grammar {
namespace {

constexpr Range kAll = {0, 0x10FFFF};

std::vector<Range> intersect(const std::vector<Range>& a, const std::vector<Range>& b) {
  std::vector<Range> both;
  for (const Range& x : a) {
    for (const Range& y : b) {
      const char32_t low = std::max(x.low, y.low);
      const char32_t high = std::min(x.high, y.high);
      if (low <= high) {
        both.push_back({low, high});
      }
    }
  }
  return both;
}

class Parser {
 public:
  Parser(std::string_view source, int depth) : source_(source), depth_(depth) {}

  Result<ExprPtr> run() {
    ExprPtr whole = alternatives(0, true);
    if (ok() && i_ < source_.size()) {
      fail(fmt::format("unexpected '{}'", source_.substr(i_, 1)));
    }
    HETERO_RETURN_IF_ERROR(error_);
    return whole;
  }

 private:
  bool ok() const { return error_.ok(); }
  char peek(size_t ahead = 0) const { return i_ + ahead < source_.size() ? source_[i_ + ahead] : '\0'; }
  bool take(char c) {
    if (i_ < source_.size() && source_[i_] == c) {
      ++i_;
      return true;
    }
    return false;
  }
  ExprPtr fail(const std::string& what) {
    if (ok()) {
      error_ = unsupported(fmt::format("pattern '{}', at character {}: {}", source_, i_ + 1, what));
    }
    i_ = source_.size();
    return sequence({});
  }

  ExprPtr alternatives(int depth, bool top) {
    if (depth > depth_) {
      return fail(fmt::format("groups are nested deeper than {}", depth_));
    }
    std::vector<ExprPtr> parts;
    do {
      parts.push_back(alternative(depth, top));
    } while (ok() && take('|'));
    return choice(std::move(parts));
  }

  ExprPtr alternative(int depth, bool top) {
    static const ExprPtr anything = repeat(json_char({kAll}), 0, -1);
    std::vector<ExprPtr> parts;
    if (top && !take('^')) {
      parts.push_back(anything);
    }
    bool ended = false;
    while (ok() && i_ < source_.size() && peek() != '|' && peek() != ')') {
      if (peek() == '^' || ended) {
        return fail("^ and $ are supported at the ends of the pattern only");
      }
      if (take('$')) {
        if (!top) {
          return fail("^ and $ are supported at the ends of the pattern only");
        }
        ended = true;
        continue;
      }
      parts.push_back(repetitions(atom(depth)));
    }
    if (top && !ended) {
      parts.push_back(anything);
    }
    return sequence(std::move(parts));
  }

  ExprPtr repetitions(ExprPtr item) {
    int64_t min = 1;
    int64_t max = 1;
    if (take('*')) {
      min = 0, max = -1;
    } else if (take('+')) {
      max = -1;
    } else if (take('?')) {
      min = 0;
    } else if (peek() == '{' && peek(1) >= '0' && peek(1) <= '9') {
      ++i_;
      min = number();
      max = min;
      if (take(',')) {
        max = peek() == '}' ? -1 : number();
      }
      if (!take('}') || (max >= 0 && max < min)) {
        return fail("a repetition of the form {m}, {m,} or {m,n}");
      }
    } else {
      return item;
    }
    take('?');  // lazy: the same texts
    if (peek() == '*' || peek() == '+' || peek() == '?') {
      return fail("possessive or repeated repetition marks are not supported");
    }
    return repeat(std::move(item), min, max);
  }

  int64_t number() {
    int64_t n = 0;
    while (peek() >= '0' && peek() <= '9' && n < 100'000) {
      n = 10 * n + (source_[i_++] - '0');
    }
    return n;
  }

  ExprPtr atom(int depth) {
    if (take('(')) {
      if (take('?') && !take(':')) {
        return fail("only plain and (?:...) groups are supported");
      }
      ExprPtr inside = alternatives(depth + 1, false);
      if (ok() && !take(')')) {
        return fail("a group without its ')'");
      }
      return inside;
    }
    if (take('[')) {
      return json_char(char_class());
    }
    if (take('.')) {
      return json_char(complement({{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}}));
    }
    if (peek() == '*' || peek() == '+' || peek() == '?') {
      return fail("nothing to repeat");
    }
    bool is_class = false;
    std::vector<Range> ranges = character(is_class);
    return json_char(ranges);
  }

  /// One character, or the class of an escape such as \d.
  std::vector<Range> character(bool& is_class) {
    is_class = false;
    if (i_ >= source_.size()) {
      fail("a class that is cut off");
      return {{0, 0}};
    }
    if (!take('\\')) {
      const Utf8Char c = decode_utf8(source_.substr(i_));
      if (!c.valid) {
        fail("a byte that is no UTF-8");
        return {};
      }
      i_ += c.length;
      return {{c.code, c.code}};
    }
    const char escape = peek();
    ++i_;
    // Classes that ECMAScript and Python disagree on outside ASCII are kept to ASCII.
    const std::vector<Range> digits = {{'0', '9'}};
    const std::vector<Range> word = {{'0', '9'}, {'A', 'Z'}, {'a', 'z'}, {'_', '_'}};
    const std::vector<Range> space = {{'\t', '\r'}, {' ', ' '}};
    const std::vector<Range> ascii = {{0, 0x7F}};
    is_class = true;
    switch (escape) {
      case 'd':
        return digits;
      case 'w':
        return word;
      case 's':
        return space;
      case 'D':
        return intersect(complement(digits), ascii);
      case 'W':
        return intersect(complement(word), ascii);
      case 'S':
        return intersect(complement(space), ascii);
      default:
        break;
    }
    is_class = false;
    const auto one = [](char32_t c) { return std::vector<Range>{{c, c}}; };
    switch (escape) {
      case 'n':
        return one('\n');
      case 'r':
        return one('\r');
      case 't':
        return one('\t');
      case 'f':
        return one('\f');
      case 'x':
        return one(hex(2));
      case 'u':
        return one(hex(4));
      default:
        if ((escape >= 'a' && escape <= 'z') || (escape >= 'A' && escape <= 'Z') ||
            (escape >= '0' && escape <= '9') || escape == '\0') {
          fail(fmt::format("the escape \\{} is not supported", escape));
        }
        return one(static_cast<uint8_t>(escape));
    }
  }

  char32_t hex(int digits) {
    char32_t code = 0;
    for (int k = 0; k < digits; ++k, ++i_) {
      const char c = peek();
      const int value = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (value < 0) {
        fail(fmt::format("expected {} hexadecimal digits", digits));
        return 0;
      }
      code = code << 4 | static_cast<char32_t>(value);
    }
    return code;
  }

  std::vector<Range> char_class() {
    const bool negated = take('^');
    std::vector<Range> ranges;
    while (ok() && peek() != ']') {
      if (i_ >= source_.size()) {
        fail("a class without its ']'");
        return {};
      }
      bool is_class = false;
      std::vector<Range> item = character(is_class);
      if (!is_class && peek() == '-' && peek(1) != ']') {
        ++i_;
        bool second_is_class = false;
        const std::vector<Range> last = character(second_is_class);
        if (!ok()) {
          return {};
        }
        if (second_is_class || last[0].low < item[0].low) {
          fail("a range in a class must go upwards from one character to another");
          return {};
        }
        item[0].high = last[0].high;
      }
      ranges.insert(ranges.end(), item.begin(), item.end());
    }
    ++i_;
    return negated ? complement(ranges) : ranges;
  }

  std::string_view source_;
  int depth_;
  size_t i_ = 0;
  Status error_;
};

/// `keys`: sorted, with the first `at` bytes (whole characters) in common.
ExprPtr other_than(const std::vector<std::string>& keys, size_t at, const ExprPtr& plain) {
  std::vector<ExprPtr> ways;
  std::vector<Range> taken = {{0, 0x1F}, {'"', '"'}, {'\\', '\\'}};
  bool may_stop = true;
  for (size_t i = 0; i < keys.size();) {
    if (keys[i].size() <= at) {
      may_stop = false;
      ++i;
      continue;
    }
    const Utf8Char c = decode_utf8(std::string_view(keys[i]).substr(at));
    const std::string bytes = keys[i].substr(at, c.length);
    std::vector<std::string> group;
    while (i < keys.size() && keys[i].compare(at, c.length, bytes) == 0) {
      group.push_back(keys[i++]);
    }
    taken.push_back({c.code, c.code});
    const bool is_plain = c.valid && c.code > 0x1F && c.code != '"' && c.code != '\\';
    if (is_plain) {
      ways.push_back(sequence({text(bytes), other_than(group, at + c.length, plain)}));
    }
  }
  ways.push_back(sequence({none_of(taken), repeat(plain, 0, -1)}));
  if (may_stop) {
    ways.push_back(sequence({}));
  }
  return choice(std::move(ways));
}

}  // namespace

ExprPtr json_char(const std::vector<Range>& ranges) {
  std::vector<ExprPtr> ways;
  const std::vector<Range> plain =
      intersect(normalized(ranges), complement({{0, 0x1F}, {'"', '"'}, {'\\', '\\'}}));
  ways.push_back(one_of(plain));
  constexpr std::pair<char, const char*> kEscapes[] = {{'"', "\\\""}, {'\\', "\\\\"}, {'\b', "\\b"},
                                                       {'\f', "\\f"}, {'\n', "\\n"},  {'\r', "\\r"},
                                                       {'\t', "\\t"}};
  for (const auto& [c, escaped] : kEscapes) {
    const auto code = static_cast<char32_t>(c);
    if (std::any_of(ranges.begin(), ranges.end(),
                    [&](const Range& r) { return r.low <= code && code <= r.high; })) {
      ways.push_back(text(escaped));
    }
  }
  return choice(std::move(ways));
}

Result<ExprPtr> json_pattern(std::string_view regex, int depth) {
  return Parser(regex, depth).run();
}

ExprPtr json_key_other_than(std::vector<std::string> keys) {
  const ExprPtr plain = none_of({{0, 0x1F}, {'"', '"'}, {'\\', '\\'}});
  if (keys.empty()) {
    return repeat(plain, 0, -1);
  }
  std::sort(keys.begin(), keys.end());
  return other_than(keys, 0, plain);
}

}  // namespace hetero::grammar
