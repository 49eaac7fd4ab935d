#include "text/jinja_ops.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace hetero::jinja {
namespace {

constexpr Int kIntMax = ~(static_cast<Int>(1) << 126 << 1);

std::string_view symbol(Operator op) {
  switch (op) {
    case Operator::kAdd:
      return "+";
    case Operator::kSubtract:
      return "-";
    case Operator::kMultiply:
      return "*";
    case Operator::kDivide:
      return "/";
    case Operator::kFloorDivide:
      return "//";
    case Operator::kModulo:
      return "%";
    case Operator::kPower:
      return "** or pow()";
    case Operator::kEqual:
      return "==";
    case Operator::kNotEqual:
      return "!=";
    case Operator::kLess:
      return "<";
    case Operator::kLessEqual:
      return "<=";
    case Operator::kGreater:
      return ">";
    case Operator::kGreaterEqual:
      return ">=";
    case Operator::kIn:
      return "in";
    case Operator::kNotIn:
      return "not in";
  }
  return "";
}

[[noreturn]] void unsupported(Operator op, const Value& a, const Value& b) {
  fail("TypeError", fmt::format("unsupported operand type(s) for {}: '{}' and '{}'", symbol(op), type_name(a),
                                type_name(b)));
}

[[noreturn]] void int_overflow() {
  fail("OverflowError", "integers are limited to 127 bits");
}

void check(bool fits) {
  if (!fits) {
    int_overflow();
  }
}

Int floor_divide(Int a, Int b) {
  if (b == 0) {
    fail("ZeroDivisionError", "integer division or modulo by zero");
  }
  if (b == -1) {
    return negate(Value::integer(a)).integer();
  }
  const Int quotient = a / b;
  return quotient - (a % b != 0 && (a % b < 0) != (b < 0) ? 1 : 0);
}

Int int_power(Int base, Int exponent) {
  Int result = 1;
  while (exponent > 0) {
    bool overflow = false;
    if (exponent % 2 != 0) {
      overflow = __builtin_mul_overflow(result, base, &result);
    }
    exponent /= 2;
    if (exponent > 0) {
      overflow = __builtin_mul_overflow(base, base, &base) || overflow;
    }
    check(!overflow);
  }
  return result;
}

double real_modulo(double a, double b) {
  if (b == 0) {
    fail("ZeroDivisionError", "float modulo");
  }
  double rest = std::fmod(a, b);
  if (rest != 0) {
    rest += (rest < 0) != (b < 0) ? b : 0;
  } else {
    rest = std::copysign(0.0, b);
  }
  return rest;
}

double real_power(double a, double b) {
  if (a == 0 && b < 0) {
    fail("ZeroDivisionError", "0.0 cannot be raised to a negative power");
  }
  const double result = std::pow(a, b);
  if (std::isnan(result) && !std::isnan(a) && !std::isnan(b)) {
    fail("TypeError", "complex numbers are not supported");
  }
  if (std::isinf(result) && std::isfinite(a) && std::isfinite(b)) {
    fail("OverflowError", "numerical result out of range");
  }
  return result;
}

Value real_arithmetic(Operator op, double a, double b) {
  switch (op) {
    case Operator::kAdd:
      return Value::real(a + b);
    case Operator::kSubtract:
      return Value::real(a - b);
    case Operator::kMultiply:
      return Value::real(a * b);
    case Operator::kDivide:
      if (b == 0) {
        fail("ZeroDivisionError", "float division by zero");
      }
      return Value::real(a / b);
    case Operator::kFloorDivide: {
      if (b == 0) {
        fail("ZeroDivisionError", "float floor division by zero");
      }
      const double quotient = (a - real_modulo(a, b)) / b;
      if (quotient == 0) {
        return Value::real(std::copysign(0.0, a / b));
      }
      const double floored = std::floor(quotient);
      return Value::real(quotient - floored > 0.5 ? floored + 1 : floored);
    }
    case Operator::kModulo:
      return Value::real(real_modulo(a, b));
    default:
      return Value::real(real_power(a, b));
  }
}

Value int_arithmetic(Operator op, Int a, Int b) {
  Int result = 0;
  switch (op) {
    case Operator::kAdd:
      check(!__builtin_add_overflow(a, b, &result));
      return Value::integer(result);
    case Operator::kSubtract:
      check(!__builtin_sub_overflow(a, b, &result));
      return Value::integer(result);
    case Operator::kMultiply:
      check(!__builtin_mul_overflow(a, b, &result));
      return Value::integer(result);
    case Operator::kDivide:
      if (b == 0) {
        fail("ZeroDivisionError", "division by zero");
      }
      return Value::real(static_cast<double>(static_cast<long double>(a) / static_cast<long double>(b)));
    case Operator::kFloorDivide:
      return Value::integer(floor_divide(a, b));
    case Operator::kModulo:
      if (b == -1) {
        return Value::integer(0);
      }
      return Value::integer(a - floor_divide(a, b) * b);
    default:
      return b < 0 ? Value::real(real_power(static_cast<double>(a), static_cast<double>(b)))
                   : Value::integer(int_power(a, b));
  }
}

Value repeat(Sandbox& sandbox, const Value& sequence, const Value& times) {
  if (!times.is_integral()) {
    fail("TypeError", fmt::format("can't multiply sequence by non-int of type '{}'", type_name(times)));
  }
  const size_t count = static_cast<size_t>(std::max<int64_t>(0, to_index(times)));
  if (sequence.is_string()) {
    TextBuilder out(sandbox);
    if (!sequence.text().empty()) {
      sandbox.step(static_cast<int64_t>(count / 16));
      out.add(count, sequence.text());
    }
    return out.take(sequence.as<StringObject>().markup);
  }
  Ref<ListObject> out = sandbox.make<ListObject>(sequence.kind());
  for (size_t i = 0; i < count && !sequence.items().empty(); ++i) {
    for (const Value& item : sequence.items()) {
      sandbox.step();
      out->add(item);
    }
  }
  return out;
}

bool is_repeatable(const Value& v) {
  return v.is_string() || v.is_sequence();
}

template <class T>
bool ordered(Operator op, const T& a, const T& b) {
  switch (op) {
    case Operator::kLess:
      return a < b;
    case Operator::kLessEqual:
      return a <= b;
    case Operator::kGreater:
      return a > b;
    default:
      return a >= b;
  }
}

bool order(Operator op, const Value& a, const Value& b) {
  for (const Value* v : {&a, &b}) {
    if (v->is_undefined()) {
      v->as<UndefinedObject>().raise();
    }
  }
  if (a.is_integral() && b.is_integral()) {
    return ordered(op, a.integer(), b.integer());
  }
  if (a.is_number() && b.is_number()) {
    return ordered(op, a.number(), b.number());
  }
  if (a.is_string() && b.is_string()) {
    a.object()->sandbox.copied(std::min(a.text().size(), b.text().size()));
    return ordered(op, a.text(), b.text());  // UTF-8 sorts as its code points do
  }
  if (a.is_sequence() && a.kind() == b.kind()) {
    const Sandbox::Depth depth(a.object()->sandbox, 2);
    const size_t size = std::min(a.items().size(), b.items().size());
    for (size_t i = 0; i < size; ++i) {
      a.object()->sandbox.step();
      if (!identical(a.items()[i], b.items()[i]) && !equal(a.items()[i], b.items()[i])) {
        return order(op, a.items()[i], b.items()[i]);
      }
    }
    return ordered(op, a.items().size(), b.items().size());
  }
  fail("TypeError", fmt::format("'{}' not supported between instances of '{}' and '{}'", symbol(op),
                                type_name(a), type_name(b)));
}

// Python's slice.indices: where a slice starts, and how many items it takes.
struct Range {
  int64_t start, stop, step, count;
};

Range slice_range(int64_t size, const Value& start, const Value& stop, const Value& step) {
  const auto part = [](const Value& v, int64_t otherwise) {
    if (v.is_none()) {
      return otherwise;
    }
    if (v.is_undefined() || !v.is_integral()) {
      fail("TypeError", "slice indices must be integers or None or have an __index__ method");
    }
    return to_index(v);
  };
  const int64_t by = std::max(part(step, 1), -std::numeric_limits<int64_t>::max());
  if (by == 0) {
    fail("ValueError", "slice step cannot be zero");
  }
  const int64_t low = by > 0 ? 0 : -1;
  const int64_t high = by > 0 ? size : size - 1;
  const auto clamp = [&](int64_t i) { return std::clamp(i < 0 ? i + size : i, low, high); };
  const int64_t from = start.is_none() ? (by > 0 ? low : high) : clamp(part(start, 0));
  const int64_t to = stop.is_none() ? (by > 0 ? high : low) : clamp(part(stop, 0));
  const int64_t span = by > 0 ? to - from : from - to;
  return {from, to, by, span <= 0 ? 0 : (span - 1) / (by > 0 ? by : -by) + 1};
}

Value slice_string(Sandbox& sandbox, const Value& v, const Range& range) {
  const std::string_view s = v.text();
  const bool markup = v.as<StringObject>().markup;
  if (range.count == 0) {
    return sandbox.string("", markup);
  }
  const bool one_byte_each = static_cast<size_t>(v.as<StringObject>().length()) == s.size();
  if (range.step == 1) {
    const size_t from = one_byte_each ? static_cast<size_t>(range.start) : byte_offset(s, range.start);
    const size_t bytes =
        one_byte_each ? static_cast<size_t>(range.count) : byte_offset(s.substr(from), range.count);
    sandbox.scanned(one_byte_each ? 0 : from + bytes);
    sandbox.copied(bytes);
    return sandbox.string(std::string(s.substr(from, bytes)), markup);
  }
  sandbox.scanned(s.size());
  sandbox.add_bytes(static_cast<int64_t>(4 * s.size()));
  std::u32string points;
  for (size_t pos = 0; pos < s.size();) {
    points += next_code_point(s, pos);
  }
  std::string out;
  for (int64_t i = 0; i < range.count; ++i) {
    append_code_point(out, points[static_cast<size_t>(range.start + i * range.step)]);
  }
  sandbox.add_bytes(-static_cast<int64_t>(4 * s.size()));
  return sandbox.string(std::move(out), markup);
}

}  // namespace

int64_t to_index(const Value& v) {
  if (v.is_undefined()) {
    v.as<UndefinedObject>().raise();
  }
  if (!v.is_integral()) {
    fail("TypeError", fmt::format("'{}' object cannot be interpreted as an integer", type_name(v)));
  }
  // Half the range, so that sums of two stay inside.
  constexpr Int kMost = std::numeric_limits<int64_t>::max() / 2;
  return static_cast<int64_t>(std::clamp<Int>(v.integer(), -kMost, kMost));
}

Int int_of_float(double d) {
  if (std::isnan(d)) {
    fail("ValueError", "cannot convert float NaN to integer");
  }
  if (std::isinf(d)) {
    fail("OverflowError", "cannot convert float infinity to integer");
  }
  if (std::abs(d) >= 0x1p126) {
    int_overflow();
  }
  return static_cast<Int>(d);
}

std::string escape(std::string_view s) {
  std::string out;
  for (const char c : s) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&#34;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

Value concatenate(Sandbox& sandbox, const Value& a, const Value& b) {
  const bool markup = a.as<StringObject>().markup || b.as<StringObject>().markup;
  TextBuilder out(sandbox);
  for (const Value* v : {&a, &b}) {
    if (markup && !v->as<StringObject>().markup) {
      sandbox.scanned(v->text().size());
      out.add(escape(v->text()));
    } else {
      out.add(v->text());
    }
  }
  return out.take(markup);
}

Value arithmetic(Sandbox& sandbox, Operator op, const Value& a, const Value& b) {
  if (op == Operator::kModulo && a.is_string()) {
    return percent_format(sandbox, a.text(), b);
  }
  for (const Value* v : {&a, &b}) {
    if (v->is_undefined()) {
      v->as<UndefinedObject>().raise();
    }
  }
  if (a.is_integral() && b.is_integral()) {
    return int_arithmetic(op, a.integer(), b.integer());
  }
  if (a.is_number() && b.is_number()) {
    return real_arithmetic(op, a.number(), b.number());
  }
  if (op == Operator::kMultiply && is_repeatable(a)) {
    return repeat(sandbox, a, b);
  }
  if (op == Operator::kMultiply && is_repeatable(b)) {
    return repeat(sandbox, b, a);
  }
  if (op != Operator::kAdd || !is_repeatable(a)) {
    unsupported(op, a, b);
  }
  if (a.kind() != b.kind()) {
    const std::string_view type = a.is_string() ? "str" : type_name(a);
    fail("TypeError", fmt::format("can only concatenate {} (not \"{}\") to {}", type, type_name(b), type));
  }
  if (a.is_string()) {
    return concatenate(sandbox, a, b);
  }
  Ref<ListObject> out = sandbox.make<ListObject>(a.kind());
  for (const Value* v : {&a, &b}) {
    sandbox.step(static_cast<int64_t>(v->items().size() / 8));
    for (const Value& item : v->items()) {
      out->add(item);
    }
  }
  return out;
}

Value negate(const Value& v) {
  if (v.is_undefined()) {
    v.as<UndefinedObject>().raise();
  }
  if (v.is(Kind::kFloat)) {
    return Value::real(-v.real());
  }
  if (!v.is_integral()) {
    fail("TypeError", fmt::format("bad operand type for unary -: '{}'", type_name(v)));
  }
  if (v.integer() == -kIntMax - 1) {
    int_overflow();
  }
  return Value::integer(-v.integer());
}

bool compare(Operator op, const Value& a, const Value& b) {
  switch (op) {
    case Operator::kEqual:
      return equal(a, b);
    case Operator::kNotEqual:
      return !equal(a, b);
    case Operator::kIn:
      return contains(b, a);
    case Operator::kNotIn:
      return !contains(b, a);
    default:
      return order(op, a, b);
  }
}

bool contains(const Value& container, const Value& item) {
  switch (container.kind()) {
    case Kind::kUndefined:
      return false;
    case Kind::kString:
      if (!item.is_string()) {
        fail("TypeError",
             fmt::format("'in <string>' requires string as left operand, not {}", type_name(item)));
      }
      container.object()->sandbox.scanned(container.text().size() + item.text().size());
      return find(container.text(), item.text()) != kNotFound;
    case Kind::kDict:
      return container.as<DictObject>().find(item) != nullptr;
    case Kind::kRange:
      if (item.is_integral()) {
        const RangeObject& r = container.as<RangeObject>();
        const Int i = item.integer();
        return (r.step > 0 ? i >= r.begin && i < r.end : i <= r.begin && i > r.end) &&
               (i - r.begin) % r.step == 0;
      }
      break;
    default:
      if (!is_iterable(container)) {
        fail("TypeError", fmt::format("argument of type '{}' is not iterable", type_name(container)));
      }
  }
  Ref<IteratorObject> it = iterate(container.object()->sandbox, container);
  for (Value other; it->next(other);) {
    if (identical(other, item) || equal(other, item)) {
      return true;
    }
  }
  return false;
}

std::optional<Value> find_item(const Value& object, const Value& key) {
  if (object.is(Kind::kDict)) {
    if (key.is_sequence() || key.is(Kind::kDict) || key.is(Kind::kDictView)) {
      try {
        hash(key);
      } catch (const Error& e) {
        if (e.code == Code::kInvalidArgument) {
          return std::nullopt;  // an unhashable key
        }
        throw;
      }
    }
    const Value* found = object.as<DictObject>().find(key);
    return found != nullptr ? std::optional(*found) : std::nullopt;
  }
  if ((!object.is_string() && !object.is_sequence() && !object.is(Kind::kRange)) || !key.is_integral()) {
    return std::nullopt;
  }
  const int64_t size = length(object);
  int64_t i = to_index(key);
  i += i < 0 ? size : 0;
  if (i < 0 || i >= size) {
    return std::nullopt;
  }
  if (object.is(Kind::kRange)) {
    return object.as<RangeObject>().at(i);
  }
  if (object.is_string()) {
    return slice_string(object.object()->sandbox, object, {i, i + 1, 1, 1});
  }
  return object.items()[static_cast<size_t>(i)];
}

Value slice(Sandbox& sandbox, const Value& object, const Value& start, const Value& stop, const Value& step) {
  if (object.is_undefined()) {
    object.as<UndefinedObject>().raise();
  }
  if (object.is(Kind::kDict)) {
    fail("TypeError", "unhashable type: 'slice'");
  }
  if (!object.is_string() && !object.is_sequence() && !object.is(Kind::kRange)) {
    fail("TypeError", fmt::format("'{}' object is not subscriptable", type_name(object)));
  }
  const Range range = slice_range(length(object), start, stop, step);
  if (object.is_string()) {
    return slice_string(sandbox, object, range);
  }
  if (object.is(Kind::kRange)) {
    const RangeObject& r = object.as<RangeObject>();
    const Int by = r.step * range.step;
    const Int from = r.begin + range.start * r.step;
    return sandbox.make<RangeObject>(from, r.begin + range.stop * r.step, by);
  }
  Ref<ListObject> out = sandbox.make<ListObject>(object.kind());
  for (int64_t i = 0; i < range.count; ++i) {
    sandbox.step();
    out->add(object.items()[static_cast<size_t>(range.start + i * range.step)]);
  }
  return out;
}

double round_to(double value, int64_t digits) {
  if (!std::isfinite(value) || digits > 323) {
    return value;
  }
  if (digits < -308) {
    return std::copysign(0.0, value);
  }
  if (digits >= 0) {
    return std::strtod(fmt::format("{:.{}f}", value, static_cast<int>(digits)).c_str(), nullptr);
  }
  const double scale = std::pow(10.0, static_cast<double>(-digits));
  return std::nearbyint(value / scale) * scale;
}

}  // namespace hetero::jinja
