// Both of Python's ways to format: "%s" % values and "{}".format(values).
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "text/jinja_builtins.h"
#include "text/jinja_eval.h"
#include "text/jinja_ops.h"

namespace hetero::jinja {
namespace {

constexpr int64_t kMaxPrecision = 1000;

// [[fill]align][sign][#][0][width][grouping][.precision][type]
struct Spec {
  std::string fill = " ";
  char align = '\0';  // < > = ^
  char sign = '\0';
  bool alternate = false;
  bool zero = false;
  int64_t width = 0;
  char grouping = '\0';
  int64_t precision = -1;
  char type = '\0';
};

// Reads digits; a number too long to be meant gives an error.
int64_t read_number(std::string_view s, size_t& i) {
  int64_t n = 0;
  for (; i < s.size() && s[i] >= '0' && s[i] <= '9'; ++i) {
    n = n * 10 + (s[i] - '0');
    if (n > INT32_MAX) {
      fail("ValueError", "Too many decimal digits in format string");
    }
  }
  return n;
}

void add_padded(TextBuilder& out, std::string_view sign, std::string_view body, int64_t length,
                const Spec& spec) {
  const int64_t missing = std::max<int64_t>(0, spec.width - length - static_cast<int64_t>(sign.size()));
  const int64_t left = spec.align == '>' ? missing : spec.align == '^' ? missing / 2 : 0;
  const int64_t inside = spec.align == '=' ? missing : 0;
  out.add(static_cast<size_t>(left), spec.fill);
  out.add(sign);
  out.add(static_cast<size_t>(inside), spec.fill);
  out.add(body);
  out.add(static_cast<size_t>(missing - left - inside), spec.fill);
}

// Separators between groups of digits before the point.
std::string grouped(std::string digits, char separator, size_t every) {
  const size_t end = std::min(digits.find_first_not_of("0123456789abcdefABCDEF"), digits.size());
  for (size_t i = end; i > every; i -= every) {
    digits.insert(i - every, 1, separator);
  }
  return digits;
}

std::string in_base(Int value, int base, bool upper) {
  const std::string_view digits = upper ? "0123456789ABCDEF" : "0123456789abcdef";
  std::string out;
  do {
    out += digits[static_cast<size_t>(value % base)];
    value /= base;
  } while (value != 0);
  std::reverse(out.begin(), out.end());
  return out;
}

std::string sign_of(bool negative, char sign) {
  return negative ? "-" : sign == '+' || sign == ' ' ? std::string(1, sign) : "";
}

void add_number(TextBuilder& out, std::string sign, std::string body, Spec spec) {
  if (spec.zero && spec.align == '\0') {
    spec.fill.assign(1, '0');
    spec.align = '=';
  }
  spec.align = spec.align == '\0' ? '>' : spec.align;
  const int64_t length = static_cast<int64_t>(body.size());
  add_padded(out, sign, body, length, spec);
}

void format_int(TextBuilder& out, Int value, const Spec& spec) {
  const bool negative = value < 0;
  if (negative) {
    value = negate(Value::integer(value)).integer();
  }
  const char type = spec.type;
  const int base = type == 'x' || type == 'X' ? 16 : type == 'o' ? 8 : type == 'b' ? 2 : 10;
  std::string digits = base == 10 ? int_repr(value) : in_base(value, base, type == 'X');
  if (spec.precision > static_cast<int64_t>(digits.size())) {
    digits.insert(0, static_cast<size_t>(spec.precision) - digits.size(), '0');
  }
  if (spec.grouping != '\0') {
    digits = grouped(digits, spec.grouping, base == 10 ? 3 : 4);
  }
  std::string sign = sign_of(negative, spec.sign);
  if (spec.alternate && base != 10) {
    sign += std::string("0") + type;
  }
  add_number(out, sign, digits, spec);
}

void format_float(TextBuilder& out, double value, Spec spec) {
  const bool negative = std::signbit(value) && !std::isnan(value);
  const double size = std::abs(value);
  const bool upper = spec.type == 'E' || spec.type == 'F' || spec.type == 'G';
  const char type = spec.type == 'n' ? 'g' : static_cast<char>(spec.type | 0x20);
  const int precision = static_cast<int>(spec.precision < 0 ? 6 : spec.precision);
  std::string body;
  if (!std::isfinite(value)) {
    body = std::isnan(value) ? "nan" : "inf";
    spec.zero = false;
  } else if (spec.type == '\0') {
    body = spec.precision < 0 ? float_repr(size) : fmt::format("{:.{}g}", size, std::max(1, precision));
    if (body.find_first_of(".e") == kNotFound) {
      body += ".0";
    }
  } else if (type == 'e') {
    body =
        spec.alternate ? fmt::format("{:#.{}e}", size, precision) : fmt::format("{:.{}e}", size, precision);
  } else if (type == 'g') {
    const int digits = std::max(1, precision);
    body = spec.alternate ? fmt::format("{:#.{}g}", size, digits) : fmt::format("{:.{}g}", size, digits);
  } else {
    const double shown = spec.type == '%' ? size * 100 : size;
    body =
        spec.alternate ? fmt::format("{:#.{}f}", shown, precision) : fmt::format("{:.{}f}", shown, precision);
  }
  body += spec.type == '%' ? "%" : "";
  if (upper) {
    std::transform(body.begin(), body.end(), body.begin(),
                   [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 0x20) : c; });
  }
  if (spec.grouping != '\0') {
    body = grouped(body, spec.grouping, 3);
  }
  add_number(out, sign_of(negative, spec.sign), body, spec);
}

void format_text(TextBuilder& out, const Value& v, Spec spec) {
  std::string_view s = v.text();
  if (spec.precision >= 0) {
    s = s.substr(0, byte_offset(s, spec.precision));
  }
  spec.align = spec.align == '\0' ? '<' : spec.align;
  v.object()->sandbox.scanned(s.size());
  add_padded(out, "", s, count_code_points(s), spec);
}

std::string ascii(std::string_view s) {
  std::string out;
  for (size_t i = 0; i < s.size();) {
    const auto c = static_cast<uint32_t>(next_code_point(s, i));
    out += c < 0x80      ? std::string(1, static_cast<char>(c))
           : c < 0x100   ? fmt::format("\\x{:02x}", c)
           : c < 0x10000 ? fmt::format("\\u{:04x}", c)
                         : fmt::format("\\U{:08x}", c);
  }
  return out;
}

// str(v), repr(v) or ascii(v).
Value converted(Sandbox& sandbox, const Value& v, char conversion) {
  if (conversion == 's') {
    return to_string(sandbox, v);
  }
  const Value text = repr(sandbox, v);
  return conversion == 'a' ? sandbox.string(ascii(text.text())) : text;
}

// Takes a "%" format apart.
class PercentFormatter {
 public:
  PercentFormatter(Sandbox& sandbox, std::string_view format, const Value& values)
      : sandbox_(sandbox), format_(format), values_(values), out_(sandbox) {}

  Value run() {
    sandbox_.scanned(format_.size());
    while (position_ < format_.size()) {
      const size_t percent = std::min(format_.find('%', position_), format_.size());
      out_.add(format_.substr(position_, percent - position_));
      position_ = percent + 1;
      if (percent < format_.size()) {
        sandbox_.step();
        directive();
      }
    }
    const bool is_mapping = values_.is(Kind::kDict) || values_.is(Kind::kList);
    const size_t given = values_.is(Kind::kTuple) ? values_.items().size() : 1;
    if (used_ < given && !is_mapping) {
      fail("TypeError", "not all arguments converted during string formatting");
    }
    return out_.take();
  }

 private:
  char current() const {
    if (position_ >= format_.size()) {
      fail("ValueError", "incomplete format");
    }
    return format_[position_];
  }

  Value next_value() {
    if (keyed_) {
      return std::move(*std::exchange(keyed_, std::nullopt));
    }
    const bool many = values_.is(Kind::kTuple);
    if (used_ >= (many ? values_.items().size() : 1)) {
      fail("TypeError", "not enough arguments for format string");
    }
    ++used_;
    return many ? values_.items()[used_ - 1] : values_;
  }

  int64_t number_or_star() {
    if (current() != '*') {
      return read_number(format_, position_);
    }
    ++position_;
    const Value v = next_value();
    if (!v.is_integral()) {
      fail("TypeError", "* wants int");
    }
    return to_index(v);
  }

  void key() {
    const size_t close = format_.find(')', position_);
    if (close == kNotFound) {
      fail("ValueError", "incomplete format key");
    }
    if (!values_.is(Kind::kDict)) {
      fail("TypeError", "format requires a mapping");
    }
    const std::string_view name = format_.substr(position_ + 1, close - position_ - 1);
    const Value* found = values_.as<DictObject>().find(name);
    if (found == nullptr) {
      fail("KeyError", quote(name));
    }
    keyed_ = *found;
    position_ = close + 1;
  }

  void directive() {
    keyed_.reset();
    if (current() == '(') {
      key();
    }
    Spec spec;
    for (; std::string_view("-+ #0").find(current()) != kNotFound; ++position_) {
      const char flag = current();
      spec.align = flag == '-' ? '<' : spec.align;
      spec.sign = flag == '+' || (flag == ' ' && spec.sign != '+') ? flag : spec.sign;
      spec.alternate = spec.alternate || flag == '#';
      spec.zero = spec.zero || flag == '0';
    }
    spec.width = number_or_star();
    if (spec.width < 0) {
      spec.align = '<';
      spec.width = -spec.width;
    }
    if (current() == '.') {
      ++position_;
      spec.precision = std::max<int64_t>(0, number_or_star());
    }
    while (std::string_view("hlL").find(current()) != kNotFound) {
      ++position_;
    }
    spec.type = current();
    ++position_;
    if (spec.type == '%') {
      out_.add("%");
      return;
    }
    convert(spec);
  }

  void convert(Spec spec) {
    const char type = spec.type;
    if (std::string_view("sra").find(type) != kNotFound) {
      const Value v = next_value();
      spec.align = spec.align == '\0' ? '>' : spec.align;
      format_text(out_, converted(sandbox_, v, type), spec);
    } else if (type == 'c') {
      const Value v = next_value();
      std::string text;
      if (v.is_integral() && v.integer() >= 0 && v.integer() < 0x110000) {
        append_code_point(text, static_cast<char32_t>(v.integer()));
      } else if (v.is_string() && length(v) == 1) {
        text = v.text();
      } else {
        fail("TypeError", "%c requires int or char");
      }
      spec.align = spec.align == '\0' ? '>' : spec.align;
      spec.precision = -1;
      format_text(out_, sandbox_.string(text), spec);
    } else if (std::string_view("diuxXo").find(type) != kNotFound) {
      limit_precision(spec);
      const Value v = next_value();
      const bool decimal = type == 'd' || type == 'i' || type == 'u';
      if (v.is_undefined() || !(v.is_integral() || (decimal && v.is(Kind::kFloat)))) {
        fail("TypeError", fmt::format("%{} format: {} is required, not {}", type,
                                      decimal ? "a real number" : "an integer", type_name(v)));
      }
      spec.type = decimal ? 'd' : type;
      format_int(out_, v.is(Kind::kFloat) ? int_of_float(v.real()) : v.integer(), spec);
    } else if (std::string_view("eEfFgG").find(type) != kNotFound) {
      limit_precision(spec);
      const Value v = next_value();
      if (!v.is_number()) {
        fail("TypeError", fmt::format("must be real number, not {}", type_name(v)));
      }
      format_float(out_, v.number(), spec);
    } else {
      fail("ValueError", fmt::format("unsupported format character '{}' at index {}", type, position_ - 1));
    }
  }

  static void limit_precision(const Spec& spec) {
    if (spec.precision > kMaxPrecision) {
      fail("ValueError",
           fmt::format("a precision of {} is over the limit of {}", spec.precision, kMaxPrecision));
    }
  }

  Sandbox& sandbox_;
  const std::string_view format_;
  const Value values_;
  TextBuilder out_;
  size_t position_ = 0;
  size_t used_ = 0;
  std::optional<Value> keyed_;
};

Spec parse_spec(std::string_view s) {
  Spec spec;
  size_t i = 0;
  if (!s.empty()) {
    size_t behind_fill = 0;
    next_code_point(s, behind_fill);
    if (behind_fill < s.size() && std::string_view("<>=^").find(s[behind_fill]) != kNotFound) {
      spec.fill = std::string(s.substr(0, behind_fill));
      spec.align = s[behind_fill];
      i = behind_fill + 1;
    } else if (std::string_view("<>=^").find(s[0]) != kNotFound) {
      spec.align = s[0];
      i = 1;
    }
  }
  const auto at = [&](std::string_view any) { return i < s.size() && any.find(s[i]) != kNotFound; };
  if (at("+- ")) {
    spec.sign = s[i++];
  }
  if (at("#")) {
    spec.alternate = true;
    ++i;
  }
  if (at("0")) {
    spec.zero = true;
    ++i;
  }
  spec.width = read_number(s, i);
  if (at(",_")) {
    spec.grouping = s[i++];
  }
  if (at(".")) {
    ++i;
    if (!at("0123456789")) {
      fail("ValueError", "Format specifier missing precision");
    }
    spec.precision = read_number(s, i);
  }
  if (i < s.size()) {
    spec.type = s[i++];
  }
  if (i != s.size()) {
    fail("ValueError", fmt::format("Invalid format specifier '{}'", s));
  }
  return spec;
}

// format(value, spec)
void format_value(Sandbox& sandbox, TextBuilder& out, const Value& v, std::string_view text) {
  if (text.empty()) {
    print(out, v);
    return;
  }
  Spec spec = parse_spec(text);
  const auto unknown = [&] {
    fail("ValueError",
         fmt::format("Unknown format code '{}' for object of type '{}'", spec.type, type_name(v)));
  };
  if (v.is_number() && spec.precision > kMaxPrecision) {
    fail("ValueError",
         fmt::format("a precision of {} is over the limit of {}", spec.precision, kMaxPrecision));
  }
  if (v.is_integral() && std::string_view("eEfFgG%").find(spec.type) == kNotFound) {
    if (spec.precision >= 0) {
      fail("ValueError", "Precision not allowed in integer format specifier");
    }
    if (std::string_view("bcdoxXn").find(spec.type) == kNotFound && spec.type != '\0') {
      unknown();
    }
    if (spec.type == 'c') {
      if (v.integer() < 0 || v.integer() > 0x10ffff) {
        fail("OverflowError", "%c arg not in range(0x110000)");
      }
      std::string c;
      append_code_point(c, static_cast<char32_t>(v.integer()));
      format_text(out, sandbox.string(c), spec);
      return;
    }
    format_int(out, v.integer(), spec);
  } else if (v.is_number()) {
    if (std::string_view("eEfFgGn%").find(spec.type) == kNotFound && spec.type != '\0') {
      unknown();
    }
    format_float(out, v.number(), spec);
  } else if (v.is_string()) {
    if (spec.type != '\0' && spec.type != 's') {
      unknown();
    }
    if (spec.zero && spec.align == '\0') {
      spec.fill.assign(1, '0');
    }
    if (spec.align == '=' || spec.sign != '\0' || spec.alternate || spec.grouping != '\0') {
      fail("ValueError",
           fmt::format("'{}' does not fit a string: alignment by =, signs, # and grouping are for "
                       "numbers",
                       text));
    }
    format_text(out, v, spec);
  } else {
    fail("TypeError", fmt::format("unsupported format string passed to {}.__format__", type_name(v)));
  }
}

// Takes a "{}" format apart.
class BraceFormatter {
 public:
  BraceFormatter(Renderer& r, const Arguments& arguments) : renderer_(r), arguments_(arguments) {}

  void run(TextBuilder& out, std::string_view s, int level = 0) {
    if (level > 1) {
      fail("ValueError", "Max string recursion exceeded");
    }
    for (size_t i = 0; i < s.size();) {
      const size_t brace = std::min(s.find_first_of("{}", i), s.size());
      out.add(s.substr(i, brace - i));
      i = brace + 1;
      if (brace == s.size()) {
        break;
      }
      renderer_.sandbox.step();
      if (i < s.size() && s[i] == s[brace]) {
        out.add(s.substr(i, 1));
        ++i;
        continue;
      }
      if (s[brace] == '}') {
        fail("ValueError", "Single '}' encountered in format string");
      }
      const size_t close = end_of_field(s, i);
      field(out, s.substr(i, close - i), level);
      i = close + 1;
    }
  }

 private:
  static size_t end_of_field(std::string_view s, size_t i) {
    int open = 1;
    for (; i < s.size(); ++i) {
      open += s[i] == '{' ? 1 : s[i] == '}' ? -1 : 0;
      if (open == 0) {
        return i;
      }
    }
    fail("ValueError", "expected '}' before end of string");
  }

  void field(TextBuilder& out, std::string_view s, int level) {
    size_t end = 0;
    for (bool inside = false; end < s.size() && (inside || (s[end] != '!' && s[end] != ':')); ++end) {
      inside = s[end] == '[' || (inside && s[end] != ']');
    }
    Value v = lookup(s.substr(0, end));
    if (end < s.size() && s[end] == '!') {
      const char conversion = end + 1 < s.size() ? s[end + 1] : '\0';
      if (conversion != 's' && conversion != 'r' && conversion != 'a') {
        fail("ValueError", "Unknown conversion specifier");
      }
      v = converted(renderer_.sandbox, v, conversion);
      end += 2;
      if (end < s.size() && s[end] != ':') {
        fail("ValueError", "expected ':' after conversion specifier");
      }
    }
    TextBuilder spec(renderer_.sandbox);
    if (end < s.size()) {
      run(spec, s.substr(end + 1), level + 1);
    }
    format_value(renderer_.sandbox, out, v, spec.text());
  }

  Value lookup(std::string_view name) {
    const size_t first_end = std::min(name.find_first_of(".["), name.size());
    Value v = argument(name.substr(0, first_end));
    for (size_t i = first_end; i < name.size();) {
      if (name[i] == '.') {
        const size_t end = std::min(name.find_first_of(".[", i + 1), name.size());
        v = renderer_.attribute(v, std::string(name.substr(i + 1, end - i - 1)));
        i = end;
        continue;
      }
      const size_t close = name.find(']', i);
      if (name[i] != '[' || close == kNotFound) {
        fail("ValueError", "Only '.' or '[' may follow ']' in format field specifier");
      }
      const std::string_view key = name.substr(i + 1, close - i - 1);
      v = renderer_.item(
          v, index(key) ? Value::integer(*index(key)) : renderer_.sandbox.string(std::string(key)));
      i = close + 1;
    }
    return v;
  }

  static std::optional<Int> index(std::string_view s) {
    if (s.empty() || s.find_first_not_of("0123456789") != kNotFound) {
      return std::nullopt;
    }
    bool overflow = false;
    return parse_int(s, 10, overflow);
  }

  Value argument(std::string_view name) {
    const std::optional<Int> number = name.empty() ? std::optional<Int>(automatic_) : index(name);
    if (name.empty() ? numbered_ : number && automatic_ > 0) {
      fail("ValueError", "cannot mix automatic and manual field numbering");
    }
    automatic_ += name.empty() ? 1 : 0;
    numbered_ = numbered_ || (number && !name.empty());
    if (number) {
      if (*number >= static_cast<Int>(arguments_.positional.size())) {
        fail("IndexError",
             fmt::format("Replacement index {} out of range for positional args tuple", int_repr(*number)));
      }
      return arguments_.positional[static_cast<size_t>(*number)];
    }
    for (const auto& [n, value] : arguments_.named) {
      if (n == name) {
        return value;
      }
    }
    fail("KeyError", quote(name));
  }

  Renderer& renderer_;
  const Arguments& arguments_;
  int64_t automatic_ = 0;
  bool numbered_ = false;  // a field has had a number
};

}  // namespace

Value percent_format(Sandbox& sandbox, std::string_view format, const Value& values) {
  return PercentFormatter(sandbox, format, values).run();
}

Value brace_format(Renderer& r, std::string_view format, Arguments& arguments) {
  r.sandbox.scanned(format.size());
  TextBuilder out(r.sandbox);
  BraceFormatter(r, arguments).run(out, format);
  return out.take();
}

}  // namespace hetero::jinja
