// GBNF: name ::= alternatives, one rule after another.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "text/grammar_automaton.h"
#include "text/unicode.h"

namespace hetero {
namespace {

using grammar::ExprPtr;
using grammar::Range;

constexpr int64_t kMostRepetitions = 100'000;

class Parser {
 public:
  Parser(std::string_view source, const GrammarLimits& limits) : source_(source), limits_(limits) {}

  Result<grammar::Rules> run() {
    rule_index("root");
    skip(true);
    while (!at_end() && ok()) {
      rule();
    }
    HETERO_RETURN_IF_ERROR(error_);
    for (size_t i = 0; i < rules_.names.size(); ++i) {
      if (rules_.bodies[i] == nullptr) {
        return malformed(fmt::format(
            "grammar: rule {} is {}", rules_.names[i],
            i == 0 ? "missing; the text starts there"
                   : fmt::format("used in line {}, but not defined", first_use_[rules_.names[i]])));
      }
    }
    return std::move(rules_);
  }

 private:
  bool ok() const { return error_.ok(); }
  bool at_end() const { return i_ >= source_.size(); }
  char peek(size_t ahead = 0) const { return i_ + ahead < source_.size() ? source_[i_ + ahead] : '\0'; }
  bool take(std::string_view token) {
    if (at_end() || source_.substr(i_, token.size()) != token) {
      return false;
    }
    i_ += token.size();
    return true;
  }

  int64_t line() const {
    return 1 + std::count(source_.begin(),
                          source_.begin() + static_cast<int64_t>(std::min(i_, source_.size())), '\n');
  }

  ExprPtr fail(const std::string& what) {
    if (ok()) {
      error_ = malformed(fmt::format("grammar, line {}: {}", line(), what));
    }
    i_ = source_.size();
    return grammar::sequence({});
  }
  ExprPtr fail_expected(const std::string& expected) {
    const std::string found = at_end() ? "the end" : fmt::format("'{}'", source_.substr(i_, 10));
    return fail(fmt::format("expected {}, found {}", expected, found.substr(0, found.find('\n'))));
  }

  /// White space and comments; line breaks only where a rule cannot end.
  void skip(bool lines) {
    while (!at_end()) {
      if (peek() == '#') {
        while (!at_end() && peek() != '\n') {
          ++i_;
        }
      } else if (peek() == ' ' || peek() == '\t' || (lines && (peek() == '\n' || peek() == '\r'))) {
        ++i_;
      } else {
        return;
      }
    }
  }

  static bool is_name(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
  }
  std::string name() {
    const size_t begin = i_;
    while (is_name(peek())) {
      ++i_;
    }
    return std::string(source_.substr(begin, i_ - begin));
  }
  int rule_index(const std::string& name) {
    const auto [it, added] = index_.emplace(name, static_cast<int>(rules_.names.size()));
    if (added) {
      rules_.add(name);
      first_use_[name] = line();
    }
    return it->second;
  }

  void rule() {
    const std::string rule_name = name();
    if (rule_name.empty()) {
      fail_expected("the name of a rule");
      return;
    }
    skip(false);
    if (!take("::=")) {
      fail_expected(fmt::format("'::=' after {}", rule_name));
      return;
    }
    const int index = rule_index(rule_name);
    if (rules_.bodies[static_cast<size_t>(index)] != nullptr) {
      fail(fmt::format("rule {} is defined twice", rule_name));
      return;
    }
    skip(true);
    const ExprPtr body = alternatives(false, 0);
    rules_.bodies[static_cast<size_t>(index)] = body;
    if (ok() && !at_end() && peek() != '\n' && peek() != '\r') {
      fail_expected("the end of the line");
      return;
    }
    skip(true);
  }

  ExprPtr alternatives(bool nested, int depth) {
    if (depth > limits_.depth) {
      return fail(fmt::format("groups are nested deeper than {}", limits_.depth));
    }
    std::vector<ExprPtr> parts;
    for (;;) {
      parts.push_back(sequence(nested, depth));
      skip(nested);
      if (!nested) {  // an alternative may stand on a line of its own
        const size_t here = i_;
        skip(true);
        if (peek() != '|') {
          i_ = here;
        }
      }
      if (!take("|")) {
        return grammar::choice(std::move(parts));
      }
      skip(true);
    }
  }

  ExprPtr sequence(bool nested, int depth) {
    std::vector<ExprPtr> parts;
    for (skip(nested); ok(); skip(nested)) {
      ExprPtr item;
      if (peek() == '"') {
        item = literal();
      } else if (peek() == '[') {
        item = char_class();
      } else if (take(".")) {
        item = grammar::none_of({});
      } else if (take("(")) {
        item = alternatives(true, depth + 1);
        skip(true);
        if (ok() && !take(")")) {
          return fail_expected("')'");
        }
      } else if (is_name(peek())) {
        item = grammar::rule(rule_index(name()));
      } else if (peek() == '<' || (peek() == '!' && peek(1) == '<')) {
        return fail("token references (<...>) are not supported; write the text in quotes");
      } else {
        break;
      }
      parts.push_back(repetitions(std::move(item), nested));
    }
    return parts.size() == 1 ? parts[0] : grammar::sequence(std::move(parts));
  }

  ExprPtr repetitions(ExprPtr item, bool nested) {
    for (int count = 0; ok(); ++count) {
      const size_t here = i_;
      skip(nested);
      if (count > 8) {
        return fail("more than 8 repetition marks in a row");
      }
      if (take("*")) {
        item = grammar::repeat(std::move(item), 0, -1);
      } else if (take("+")) {
        item = grammar::repeat(std::move(item), 1, -1);
      } else if (take("?")) {
        item = grammar::repeat(std::move(item), 0, 1);
      } else if (take("{")) {
        skip(nested);
        int64_t min = peek() == ',' ? 0 : number();
        int64_t max = min;
        skip(nested);
        if (take(",")) {
          skip(nested);
          max = peek() == '}' ? -1 : number();
          skip(nested);
        }
        if (ok() && !take("}")) {
          return fail_expected("'}'");
        }
        if (ok() && max >= 0 && max < min) {
          return fail(fmt::format("{{{},{}}}: the least is above the most", min, max));
        }
        item = grammar::repeat(std::move(item), min, max);
      } else {
        i_ = here;
        break;
      }
    }
    return item;
  }

  int64_t number() {
    int64_t n = 0;
    const size_t begin = i_;
    while (peek() >= '0' && peek() <= '9' && n <= kMostRepetitions) {
      n = 10 * n + (source_[i_++] - '0');
    }
    if (i_ == begin) {
      fail_expected("a number of repetitions");
    } else if (n > kMostRepetitions) {
      fail(fmt::format("more than {} repetitions", kMostRepetitions));
      return 0;
    }
    return n;
  }

  ExprPtr literal() {
    ++i_;
    std::string bytes;
    while (ok() && peek() != '"') {
      if (at_end() || peek() == '\n') {
        return fail("a literal without its closing '\"'");
      }
      append_utf8(bytes, character());
    }
    ++i_;
    return grammar::text(std::move(bytes));
  }

  ExprPtr char_class() {
    ++i_;
    const bool negated = take("^");
    std::vector<Range> ranges;
    while (ok() && peek() != ']') {
      if (at_end() || peek() == '\n') {
        return fail("a class without its closing ']'");
      }
      const char32_t low = character();
      char32_t high = low;
      if (peek() == '-' && peek(1) != ']' && i_ + 1 < source_.size()) {
        ++i_;
        high = character();
      }
      if (ok() && high < low) {
        return fail(fmt::format("a class with the range U+{:04X} to U+{:04X}, which is empty",
                                static_cast<uint32_t>(low), static_cast<uint32_t>(high)));
      }
      ranges.push_back({low, high});
    }
    ++i_;
    return negated ? grammar::none_of(std::move(ranges)) : grammar::one_of(std::move(ranges));
  }

  char32_t character() {
    if (at_end()) {
      fail("an escape or a range that is cut off");
      return 0;
    }
    if (peek() != '\\') {
      const Utf8Char c = decode_utf8(source_.substr(i_));
      if (!c.valid) {
        fail("a byte that is no UTF-8");
        return 0;
      }
      i_ += c.length;
      return c.code;
    }
    const char escape = peek(1);
    i_ += 2;
    switch (escape) {
      case 'n':
        return '\n';
      case 'r':
        return '\r';
      case 't':
        return '\t';
      case 'x':
        return hex(2);
      case 'u':
        return hex(4);
      case 'U':
        return hex(8);
      case '\\':
      case '"':
      case '[':
      case ']':
      case '-':
      case '^':
        return static_cast<char32_t>(escape);
      default:
        fail(fmt::format("unknown escape \\{}", escape));
        return 0;
    }
  }

  char32_t hex(int digits) {
    uint64_t code = 0;
    for (int k = 0; k < digits; ++k, ++i_) {
      const char c = peek();
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0) {
        fail_expected(fmt::format("{} hexadecimal digits", digits));
        return 0;
      }
      code = code << 4 | static_cast<uint64_t>(digit);
    }
    if (code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) {
      fail(fmt::format("U+{:04X} is not a character", code));
      return 0;
    }
    return static_cast<char32_t>(code);
  }

  std::string_view source_;
  const GrammarLimits& limits_;
  size_t i_ = 0;
  Status error_;
  grammar::Rules rules_;
  std::map<std::string, int> index_;
  std::map<std::string, int64_t> first_use_;
};

}  // namespace

Grammar::Grammar(std::shared_ptr<const grammar::Automaton> automaton, const GrammarLimits& limits)
    : automaton_(std::move(automaton)), limits_(limits) {}

Result<std::shared_ptr<const Grammar>> Grammar::from_gbnf(std::string_view source,
                                                          const GrammarLimits& limits) {
  if (source.size() > limits.source_bytes) {
    return resource_exhausted(
        fmt::format("grammar: {} bytes, expected at most {}", source.size(), limits.source_bytes));
  }
  HETERO_TRY(const grammar::Rules rules, Parser(source, limits).run());
  auto automaton = grammar::compile(rules, limits);
  HETERO_RETURN_IF_ERROR(automaton.status().with_prefix("grammar"));
  return std::make_shared<const Grammar>(std::move(automaton).value(), limits);
}

}  // namespace hetero
