// What templates can call: filters, tests, global functions, and the methods of values.
#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

#include "text/jinja_value.h"

namespace hetero::jinja {

using Filter = Value (*)(Renderer& r, const Value& value, Arguments& arguments);
using Test = bool (*)(Renderer& r, const Value& value, Arguments& arguments);
using Method = Value (*)(Renderer& r, const Value& self, Arguments& arguments);

/// Null where there is none of that name.
Filter find_filter(std::string_view name);
Test find_test(std::string_view name);
/// The filters are in two files.
Filter find_sequence_filter(std::string_view name);
Filter find_text_filter(std::string_view name);

/// A method or other attribute of a value's type, such as "x".upper or a loop's index. Those that
/// would change a list or dict are there but undefined, as in Jinja's immutable sandbox.
std::optional<Value> find_attribute(Sandbox& sandbox, const Value& object, std::string_view name);
Method find_string_method(std::string_view name);
std::optional<Value> find_global(Sandbox& sandbox, std::string_view name);

/// The sandbox's text for str.format and the `format` method of strings.
Value brace_format(Renderer& r, std::string_view format, Arguments& arguments);

std::optional<Value> find_cycler_attribute(Sandbox& sandbox, const Value& object, std::string_view name);

/// A function of the engine itself as a value.
Value make_function(Sandbox& sandbox, std::string name, Method method, Value self = {});

/// An entry of `groupby`: a pair whose parts also have the names `grouper` and `list`.
struct GroupObject : ListObject {
  explicit GroupObject(Sandbox& s) : ListObject(s, Kind::kTuple) {}
};

/// Matches the arguments of a call with parameters, as Python does.
class Bound {
 public:
  /// The first `required` of `names` must be given. `names` are those after the filter's value.
  Bound(std::string_view function, const Arguments& arguments, std::initializer_list<std::string_view> names,
        size_t required = 0);

  bool has(size_t i) const { return values_[i] != nullptr; }
  /// Given, and not None.
  bool some(size_t i) const { return has(i) && !values_[i]->is_none(); }
  const Value& at(size_t i) const { return *values_[i]; }
  Value get(size_t i, Value otherwise) const { return has(i) ? *values_[i] : otherwise; }
  bool flag(size_t i, bool otherwise = false) const { return has(i) ? truth(*values_[i]) : otherwise; }
  int64_t integer(size_t i, int64_t otherwise) const;
  /// A string; a TypeError for anything else.
  std::string_view text(size_t i, std::string_view otherwise = {}) const;

 private:
  const std::string_view function_;
  std::vector<const Value*> values_;
};

}  // namespace hetero::jinja
