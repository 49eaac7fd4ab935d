// Python's operators and subscripts on values.
#pragma once

#include <optional>

#include "text/jinja_ast.h"
#include "text/jinja_value.h"

namespace hetero::jinja {

Value arithmetic(Sandbox& sandbox, Operator op, const Value& a, const Value& b);
Value negate(const Value& v);
/// ==, !=, <, <=, >, >=, in, not in.
bool compare(Operator op, const Value& a, const Value& b);
inline bool less(const Value& a, const Value& b) {
  return compare(Operator::kLess, a, b);
}
bool contains(const Value& container, const Value& item);

/// x[key], without falling back to attributes; nothing where Python raises LookupError or TypeError.
std::optional<Value> find_item(const Value& object, const Value& key);
/// x[start:stop:step]; a part that is left out is None.
Value slice(Sandbox& sandbox, const Value& object, const Value& start, const Value& stop, const Value& step);

/// The integer behind an int or bool, cut to 64 bits; a TypeError for anything else.
int64_t to_index(const Value& v);
/// The value as an Int: an OverflowError when a float is too large.
Int int_of_float(double d);
/// round() to `digits` decimals, half to even on the exact value.
double round_to(double value, int64_t digits);

/// HTML escapes, as `escape` gives and as adding to a Markup string does.
std::string escape(std::string_view s);
Value concatenate(Sandbox& sandbox, const Value& a, const Value& b);

/// str.replace; a negative `count` is no limit.
Value replace_text(Sandbox& sandbox, std::string_view s, std::string_view from, std::string_view to,
                   int64_t count);
/// str.ljust ('l'), rjust ('r') and center ('c').
Value pad_text(Sandbox& sandbox, const Value& v, int64_t width, char side, std::string_view fill);

/// "%s-%d" % values. A tuple or dict in `values` is taken apart.
Value percent_format(Sandbox& sandbox, std::string_view format, const Value& values);

}  // namespace hetero::jinja
