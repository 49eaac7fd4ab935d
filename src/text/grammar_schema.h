// Parts of the JSON schema reader: expressions for the JSON texts of characters, patterns, numbers.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/grammar_ast.h"

namespace hetero::grammar {

/// One character of a JSON string that decodes to a code point of `ranges`. Every code point has one
/// spelling: itself, or a two-character escape where JSON demands one; control characters without a
/// short escape are left out.
ExprPtr json_char(const std::vector<Range>& ranges);

/// The inside of a JSON string that the regular expression matches somewhere (everywhere with ^ and
/// $). Understands literals, ., classes, \d \w \s and their opposites, groups, |, * + ? {m,n}, and ^
/// and $ at the ends; anything else (look-around, back references, flags, \b, \p) is an error.
Result<ExprPtr> json_pattern(std::string_view regex, int depth);

/// The inside of a JSON string that is none of `keys`, spelled without escapes.
ExprPtr json_key_other_than(std::vector<std::string> keys);

/// The JSON schema type of a value; and whether values of type `other` are of type `type` too.
std::string type_of(const nlohmann::ordered_json& value);
bool type_includes(const std::string& type, const std::string& other);

/// What "#/..." points to in `root`; null where there is nothing.
const nlohmann::ordered_json* find_reference(const nlohmann::ordered_json& root, const std::string& ref);

/// Whether no document can be valid under both schemas of `root`, as far as it is easy to see: by type,
/// by constants, or by a required property.
bool cannot_both_match(const nlohmann::ordered_json& root, const nlohmann::ordered_json& a,
                       const nlohmann::ordered_json& b);

/// Bounds of a JSON number as `minimum` and its relatives give them; the larger side of both kinds.
struct NumberBounds {
  std::optional<double> low, high;
  bool low_open = false;  // the bound itself is not allowed
  bool high_open = false;
};

/// Integers of up to 15 digits between the bounds. Fails where there is none.
Result<ExprPtr> json_integer(const NumberBounds& bounds);
/// Numbers without an exponent, with up to 6 decimals, between the bounds; without bounds any number
/// with a short exponent. Fails where there is none, or where a bound has more than 6 decimals or is
/// above 1e9, where decimals would not be told apart for certain.
Result<ExprPtr> json_number(const NumberBounds& bounds);

}  // namespace hetero::grammar
