// Tests: what follows `is`.
#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>

#include "text/jinja_builtins.h"
#include "text/jinja_eval.h"
#include "text/jinja_ops.h"

namespace hetero::jinja {
namespace {

template <bool (*Is)(const Value&)>
bool plain(Renderer&, const Value& v, Arguments& arguments) {
  const Bound bound("test", arguments, {});
  return Is(v);
}

bool is_defined(const Value& v) {
  return !v.is_undefined();
}
bool is_undefined(const Value& v) {
  return v.is_undefined();
}
bool is_none(const Value& v) {
  return v.is_none();
}
bool is_boolean(const Value& v) {
  return v.is(Kind::kBool);
}
bool is_true(const Value& v) {
  return v.is(Kind::kBool) && v.integer() != 0;
}
bool is_false(const Value& v) {
  return v.is(Kind::kBool) && v.integer() == 0;
}
bool is_integer(const Value& v) {
  return v.is(Kind::kInt);
}
bool is_float(const Value& v) {
  return v.is(Kind::kFloat);
}
bool is_number(const Value& v) {
  return v.is_number();
}
bool is_string(const Value& v) {
  return v.is_string();
}
bool is_mapping(const Value& v) {
  return v.is(Kind::kDict);
}
bool is_escaped(const Value& v) {
  return v.is_string() && v.as<StringObject>().markup;
}
bool is_sequence(const Value& v) {
  return has_length(v) && !v.is(Kind::kDictView);
}
bool is_iterable_value(const Value& v) {
  return is_iterable(v) || v.is(Kind::kLoop);
}
bool is_callable(const Value& v) {
  return v.is(Kind::kCallable) || v.is_undefined() || v.is(Kind::kLoop);
}

template <int64_t remainder>
bool has_parity(Renderer& r, const Value& v, Arguments& arguments) {
  const Bound bound("test", arguments, {});
  const Value rest = arithmetic(r.sandbox, Operator::kModulo, v, Value::integer(2));
  return equal(rest, Value::integer(remainder));
}

bool divisible_by(Renderer& r, const Value& v, Arguments& arguments) {
  const Bound bound("divisibleby", arguments, {"num"}, 1);
  return equal(arithmetic(r.sandbox, Operator::kModulo, v, bound.at(0)), Value::integer(0));
}

template <bool upper>
bool has_case(Renderer& r, const Value& v, Arguments& arguments) {
  return truth(find_string_method(upper ? "isupper" : "islower")(r, to_string(r.sandbox, v), arguments));
}

bool same_as(Renderer&, const Value& v, Arguments& arguments) {
  const Bound bound("sameas", arguments, {"other"}, 1);
  return identical(v, bound.at(0));
}

template <Operator op>
bool compared(Renderer&, const Value& v, Arguments& arguments) {
  const Bound bound("test", arguments, {op == Operator::kIn ? "seq" : ""}, 1);
  return compare(op, v, bound.at(0));
}

// The name is only looked up, so that templates can ask for what they would like to use.
template <bool filter>
bool exists(Renderer&, const Value& v, Arguments& arguments) {
  const Bound bound("test", arguments, {});
  hash(v);  // an error for what cannot be a key
  return v.is_string() && (filter ? find_filter(v.text()) != nullptr : find_test(v.text()) != nullptr);
}

}  // namespace

Test find_test(std::string_view name) {
  static const std::unordered_map<std::string_view, Test> kTests = {
      {"!=", compared<Operator::kNotEqual>},
      {"<", compared<Operator::kLess>},
      {"<=", compared<Operator::kLessEqual>},
      {"==", compared<Operator::kEqual>},
      {">", compared<Operator::kGreater>},
      {">=", compared<Operator::kGreaterEqual>},
      {"boolean", plain<is_boolean>},
      {"callable", plain<is_callable>},
      {"defined", plain<is_defined>},
      {"divisibleby", divisible_by},
      {"eq", compared<Operator::kEqual>},
      {"equalto", compared<Operator::kEqual>},
      {"escaped", plain<is_escaped>},
      {"even", has_parity<0>},
      {"false", plain<is_false>},
      {"filter", exists<true>},
      {"float", plain<is_float>},
      {"ge", compared<Operator::kGreaterEqual>},
      {"greaterthan", compared<Operator::kGreater>},
      {"gt", compared<Operator::kGreater>},
      {"in", compared<Operator::kIn>},
      {"integer", plain<is_integer>},
      {"iterable", plain<is_iterable_value>},
      {"le", compared<Operator::kLessEqual>},
      {"lessthan", compared<Operator::kLess>},
      {"lower", has_case<false>},
      {"lt", compared<Operator::kLess>},
      {"mapping", plain<is_mapping>},
      {"ne", compared<Operator::kNotEqual>},
      {"none", plain<is_none>},
      {"number", plain<is_number>},
      {"odd", has_parity<1>},
      {"sameas", same_as},
      {"sequence", plain<is_sequence>},
      {"string", plain<is_string>},
      {"test", exists<false>},
      {"true", plain<is_true>},
      {"undefined", plain<is_undefined>},
      {"upper", has_case<true>},
  };
  const auto it = kTests.find(name);
  return it != kTests.end() ? it->second : nullptr;
}

}  // namespace hetero::jinja
