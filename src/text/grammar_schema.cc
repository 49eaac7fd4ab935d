// JSON schema (the common part of drafts 4 to 2020-12) to a grammar of the JSON texts to generate.
//
// Enforced: type (also lists), enum, const, anyOf, oneOf (where the alternatives cannot both match),
// allOf with one entry, $ref within the document, properties, required, additionalProperties, items,
// prefixItems, minItems, maxItems, minLength, maxLength, pattern, format (date, time, date-time,
// uuid), minimum, maximum, exclusiveMinimum, exclusiveMaximum, boolean schemas. Titles, descriptions
// and the like are passed over; every other keyword is an error. A schema without `type` is taken to
// mean the type that its keywords speak of.
#include "text/grammar_schema.h"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <map>
#include <set>

#include "text/grammar_automaton.h"

namespace hetero {
namespace {

using grammar::choice;
using grammar::ExprPtr;
using grammar::optional;
using grammar::repeat;
using grammar::sequence;
using grammar::type_includes;
using grammar::type_of;
using Json = nlohmann::ordered_json;

constexpr size_t kMostRules = 20'000;
constexpr size_t kLongestKey = 1'000;
constexpr size_t kMostMembers = 1'000;  // of one object or tuple

const std::set<std::string, std::less<>> kAnnotations = {
    "title",    "description", "default",  "examples",     "example",     "$schema",
    "$id",      "id",          "$comment", "$defs",        "definitions", "deprecated",
    "readOnly", "writeOnly",   "$anchor",  "discriminator"};

const std::map<std::string, std::set<std::string>, std::less<>> kKeywordsOfType = {
    {"object", {"properties", "required", "additionalProperties"}},
    {"array", {"items", "prefixItems", "minItems", "maxItems", "uniqueItems"}},
    {"string", {"minLength", "maxLength", "pattern", "format"}},
    {"number", {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}},
    {"integer", {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}},
    {"boolean", {}},
    {"null", {}}};

std::string dump(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

class Reader {
 public:
  Reader(const Json& schema, const GrammarLimits& limits) : root_(schema), limits_(limits) {}

  Result<grammar::Rules> run() {
    refs_["#"] = rules_.add("#");
    pending_.push_back({&root_, "#", 0});
    while (!pending_.empty()) {
      const Pending p = pending_.front();
      pending_.pop_front();
      HETERO_TRY(rules_.bodies[static_cast<size_t>(p.rule)], visit(*p.schema, p.path, 0));
      if (rules_.names.size() > kMostRules) {
        return resource_exhausted(fmt::format("the schema needs more than {} rules", kMostRules));
      }
    }
    return std::move(rules_);
  }

 private:
  struct Pending {
    const Json* schema;
    std::string path;
    int rule;
  };

  static Status unsupported_at(const std::string& path, const std::string& why) {
    return unsupported(fmt::format("{}: {}", path, why));
  }
  static Status malformed_at(const std::string& path, const char* expected, const Json& found) {
    return malformed(fmt::format("{}: expected {}, found {}", path, expected, dump(found).substr(0, 60)));
  }

  /// Shared pieces, made once.
  template <class Make>
  ExprPtr shared(const std::string& name, Make&& make) {
    const auto known = shared_.find(name);
    if (known != shared_.end()) {
      return grammar::rule(known->second);
    }
    const int index = rules_.add(name);
    shared_[name] = index;
    ExprPtr body = make();
    rules_.bodies[static_cast<size_t>(index)] = std::move(body);
    return grammar::rule(index);
  }
  /// Nothing, one space, or a line break and some indentation.
  ExprPtr space() {
    return shared("space", [] {
      return optional(
          choice({grammar::text(" "), sequence({grammar::text("\n"), repeat(grammar::text(" "), 0, 16)})}));
    });
  }
  ExprPtr any_char() {
    return shared("char", [] { return grammar::json_char({{0, 0x10FFFF}}); });
  }
  ExprPtr quoted(ExprPtr inside) {
    return sequence({grammar::text("\""), std::move(inside), grammar::text("\"")});
  }
  ExprPtr any_string() { return quoted(repeat(any_char(), 0, -1)); }
  ExprPtr comma() { return sequence({grammar::text(","), space()}); }

  ExprPtr any_value() {
    return shared("value", [&] {
      const ExprPtr value = grammar::rule(shared_["value"]);
      const ExprPtr member =
          sequence({any_string(), grammar::text(":"), optional(grammar::text(" ")), value});
      return choice({list("{", "}", {}, member, 0, -1), list("[", "]", {}, value, 0, -1), any_string(),
                     grammar::json_number({}).value(), grammar::text("true"), grammar::text("false"),
                     grammar::text("null")});
    });
  }

  /// The first ones, then min to max of `more` (none where it is null), with commas between.
  ExprPtr list(const char* open, const char* close, std::vector<ExprPtr> first, const ExprPtr& more,
               int64_t min, int64_t max) {
    ExprPtr body = sequence({});
    for (size_t i = 0; i < first.size(); ++i) {
      body = i == 0 ? first[0] : sequence({body, comma(), first[i]});
    }
    if (more != nullptr && max != 0) {
      const ExprPtr next = sequence({comma(), more});
      if (!first.empty()) {
        body = sequence({body, repeat(next, min, max)});
      } else {
        body = sequence({more, repeat(next, std::max<int64_t>(min - 1, 0), max < 0 ? -1 : max - 1)});
        body = min > 0 ? body : optional(body);
      }
    }
    return sequence({grammar::text(open), space(), body, space(), grammar::text(close)});
  }

  Result<const Json*> resolve(const std::string& ref, const std::string& path) const {
    if (ref.empty() || ref[0] != '#') {
      return unsupported_at(path, fmt::format("'{}' is outside of this document", ref));
    }
    if (const Json* found = grammar::find_reference(root_, ref)) {
      return found;
    }
    return malformed(fmt::format("{}: there is no '{}' in the schema", path, ref));
  }

  Result<ExprPtr> reference(const Json& ref, const std::string& path) {
    if (!ref.is_string()) {
      return malformed_at(path, "a reference", ref);
    }
    const auto target = ref.get<std::string>();
    const auto known = refs_.find(target);
    if (known != refs_.end()) {
      return grammar::rule(known->second);
    }
    HETERO_TRY(const Json* schema, resolve(target, path));
    const int index = rules_.add(target);
    refs_[target] = index;
    pending_.push_back({schema, target, index});
    return grammar::rule(index);
  }

  /// Fails at the first key beside `allowed` and annotations.
  static Status only(const Json& schema, const std::string& path,
                     const std::set<std::string, std::less<>>& allowed) {
    for (const auto& [key, value] : schema.items()) {
      if (!allowed.contains(key) && !kAnnotations.contains(key)) {
        return unsupported_at(path + "/" + key,
                              fmt::format("cannot be combined with '{}'", *allowed.begin()));
      }
    }
    return {};
  }

  Result<ExprPtr> visit(const Json& schema, const std::string& path, int depth) {
    if (depth > limits_.depth) {
      return resource_exhausted(fmt::format("{}: nested deeper than {}", path, limits_.depth));
    }
    if (schema.is_boolean()) {
      if (!schema.get<bool>()) {
        return unsupported_at(path, "nothing is valid under 'false'");
      }
      return any_value();
    }
    if (!schema.is_object()) {
      return malformed_at(path, "a schema (an object or a boolean)", schema);
    }
    if (schema.contains("$ref")) {
      HETERO_RETURN_IF_ERROR(only(schema, path, {"$ref"}));
      return reference(schema["$ref"], path + "/$ref");
    }
    if (schema.contains("allOf")) {
      HETERO_RETURN_IF_ERROR(only(schema, path, {"allOf"}));
      const Json& parts = schema["allOf"];
      if (!parts.is_array() || parts.size() != 1) {
        return unsupported_at(path + "/allOf", "supported with exactly one entry");
      }
      return visit(parts[0], path + "/allOf/0", depth + 1);
    }
    for (const char* key : {"anyOf", "oneOf"}) {
      if (schema.contains(key)) {
        HETERO_RETURN_IF_ERROR(only(schema, path, {key}));
        return alternatives(schema[key], key, path + "/" + key, depth);
      }
    }
    if (schema.contains("const") || schema.contains("enum")) {
      return values(schema, path);
    }
    return typed(schema, path, depth);
  }

  Result<ExprPtr> alternatives(const Json& parts, const std::string& key, const std::string& path,
                               int depth) {
    if (!parts.is_array() || parts.empty()) {
      return malformed_at(path, "a list of schemas", parts);
    }
    std::vector<ExprPtr> ways;
    for (size_t i = 0; i < parts.size(); ++i) {
      for (size_t j = 0; key == "oneOf" && j < i; ++j) {
        if (!grammar::cannot_both_match(root_, parts[i], parts[j])) {
          return unsupported_at(
              path, fmt::format("entries {} and {} may both match the same text; give them different "
                                "types or a required property with different constants, or use anyOf",
                                j, i));
        }
      }
      HETERO_TRY(ExprPtr way, visit(parts[i], fmt::format("{}/{}", path, i), depth + 1));
      ways.push_back(std::move(way));
    }
    return choice(std::move(ways));
  }

  Result<ExprPtr> values(const Json& schema, const std::string& path) {
    const std::string key = schema.contains("const") ? "const" : "enum";
    HETERO_RETURN_IF_ERROR(only(schema, path, {key, "type"}));
    const Json list = key == "const" ? Json::array({schema["const"]}) : schema["enum"];
    if (!list.is_array() || list.empty()) {
      return malformed_at(path + "/enum", "a list of values", list);
    }
    HETERO_TRY(const std::vector<std::string> types, types_of(schema, path));
    std::vector<ExprPtr> ways;
    for (const Json& value : list) {
      if (types.empty() || std::any_of(types.begin(), types.end(), [&](const std::string& t) {
            return type_includes(t, type_of(value));
          })) {
        ways.push_back(grammar::text(dump(value)));
      }
    }
    if (ways.empty()) {
      return malformed(fmt::format("{}/{}: no value has the type {}", path, key, dump(schema["type"])));
    }
    return choice(std::move(ways));
  }

  static Result<std::vector<std::string>> types_of(const Json& schema, const std::string& path) {
    std::vector<std::string> types;
    if (!schema.contains("type")) {
      return types;
    }
    const Json list = schema["type"].is_array() ? schema["type"] : Json::array({schema["type"]});
    for (const Json& t : list) {
      if (!t.is_string() || !kKeywordsOfType.contains(t.get<std::string>())) {
        return malformed_at(path + "/type", "object, array, string, number, integer, boolean or null", t);
      }
      types.push_back(t.get<std::string>());
    }
    if (types.empty()) {
      return malformed_at(path + "/type", "at least one type", list);
    }
    return types;
  }

  Result<ExprPtr> typed(const Json& schema, const std::string& path, int depth) {
    HETERO_TRY(std::vector<std::string> types, types_of(schema, path));
    for (const auto& [key, value] : schema.items()) {
      if (key == "type" || kAnnotations.contains(key)) {
        continue;
      }
      std::string meant;
      for (const auto& [type, keywords] : kKeywordsOfType) {
        meant = keywords.contains(key) ? type : meant;
      }
      if (meant.empty()) {
        return unsupported_at(path + "/" + key, "this keyword is not supported");
      }
      if (!schema.contains("type") && std::find(types.begin(), types.end(), meant) == types.end()) {
        types.push_back(meant);
      }
    }
    if (types.empty()) {
      return any_value();
    }
    std::vector<ExprPtr> ways;
    for (const std::string& type : types) {
      HETERO_TRY(ExprPtr way, of_type(type, schema, path, depth));
      ways.push_back(std::move(way));
    }
    return choice(std::move(ways));
  }

  Result<ExprPtr> of_type(const std::string& type, const Json& schema, const std::string& path, int depth) {
    if (type == "object") {
      return object(schema, path, depth);
    }
    if (type == "array") {
      return array(schema, path, depth);
    }
    if (type == "string") {
      return string(schema, path);
    }
    if (type == "boolean") {
      return choice({grammar::text("true"), grammar::text("false")});
    }
    if (type == "null") {
      return grammar::text("null");
    }
    HETERO_TRY(const grammar::NumberBounds bounds, number_bounds(schema, path));
    auto number = type == "integer" ? grammar::json_integer(bounds) : grammar::json_number(bounds);
    HETERO_RETURN_IF_ERROR(number.status().with_prefix(path));
    return number;
  }

  static Result<grammar::NumberBounds> number_bounds(const Json& schema, const std::string& path) {
    grammar::NumberBounds b;
    for (const char* key : {"minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"}) {
      if (!schema.contains(key)) {
        continue;
      }
      if (!schema[key].is_number()) {
        return malformed_at(fmt::format("{}/{}", path, key), "a number", schema[key]);
      }
      const auto value = schema[key].get<double>();
      const bool open = key[0] == 'e';
      const bool is_low = std::string_view(key).ends_with("inimum");
      std::optional<double>& bound = is_low ? b.low : b.high;
      bool& bound_open = is_low ? b.low_open : b.high_open;
      if (!bound || (is_low ? value > *bound : value < *bound) || value == *bound) {
        bound_open = bound && value == *bound ? (bound_open || open) : open;
        bound = value;
      }
    }
    return b;
  }

  static Result<int64_t> count(const Json& schema, const std::string& path, const char* key,
                               int64_t fallback) {
    if (!schema.contains(key)) {
      return fallback;
    }
    const Json& value = schema[key];
    if (!value.is_number() || value.get<double>() < 0 || value.get<double>() > 1e6 ||
        value.get<double>() != static_cast<double>(value.get<int64_t>())) {
      return malformed_at(fmt::format("{}/{}", path, key), "an integer from 0 to 1000000", value);
    }
    return value.get<int64_t>();
  }

  Result<ExprPtr> string(const Json& schema, const std::string& path) {
    const bool counted = schema.contains("minLength") || schema.contains("maxLength");
    if (counted + schema.contains("pattern") + schema.contains("format") > 1) {
      return unsupported_at(path,
                            "only one of minLength/maxLength, pattern and format can be enforced at a time");
    }
    if (schema.contains("format")) {
      return format(schema["format"], path + "/format");
    }
    if (schema.contains("pattern")) {
      if (!schema["pattern"].is_string()) {
        return malformed_at(path + "/pattern", "a regular expression", schema["pattern"]);
      }
      auto inside = grammar::json_pattern(schema["pattern"].get<std::string>(), limits_.depth);
      HETERO_RETURN_IF_ERROR(inside.status().with_prefix(path + "/pattern"));
      return quoted(std::move(inside).value());
    }
    HETERO_TRY(const int64_t min, count(schema, path, "minLength", 0));
    HETERO_TRY(const int64_t max, count(schema, path, "maxLength", -1));
    if (max >= 0 && max < min) {
      return malformed(fmt::format("{}: maxLength {} is below minLength {}", path, max, min));
    }
    return quoted(repeat(any_char(), min, max));
  }

  Result<ExprPtr> format(const Json& name, const std::string& path) {
    const std::map<std::string, std::string> patterns = {
        {"date", kDate}, {"time", kTime}, {"date-time", std::string(kDate) + "T" + kTime}, {"uuid", kUuid}};
    const auto known = name.is_string() ? patterns.find(name.get<std::string>()) : patterns.end();
    if (known == patterns.end()) {
      return unsupported_at(
          path, fmt::format("the format {} is not supported (date, time, date-time, uuid are)", dump(name)));
    }
    HETERO_TRY(ExprPtr inside, grammar::json_pattern("^(?:" + known->second + ")$", limits_.depth));
    return quoted(std::move(inside));
  }

  Result<ExprPtr> array(const Json& schema, const std::string& path, int depth) {
    if (schema.contains("uniqueItems") && schema["uniqueItems"] != Json(false)) {
      return unsupported_at(path + "/uniqueItems", "this keyword is not supported");
    }
    HETERO_TRY(const int64_t min, count(schema, path, "minItems", 0));
    HETERO_TRY(const int64_t max, count(schema, path, "maxItems", -1));
    if (max >= 0 && max < min) {
      return malformed(fmt::format("{}: maxItems {} is below minItems {}", path, max, min));
    }
    std::vector<ExprPtr> first;
    if (schema.contains("prefixItems")) {
      const Json& items = schema["prefixItems"];
      if (!items.is_array()) {
        return malformed_at(path + "/prefixItems", "a list of schemas", items);
      }
      if (items.size() > kMostMembers) {
        return resource_exhausted(fmt::format("{}/prefixItems: more than {} items", path, kMostMembers));
      }
      for (size_t i = 0; i < items.size() && (max < 0 || static_cast<int64_t>(i) < max); ++i) {
        HETERO_TRY(ExprPtr item, visit(items[i], fmt::format("{}/prefixItems/{}", path, i), depth + 1));
        first.push_back(std::move(item));
      }
    }
    const auto given = static_cast<int64_t>(first.size());
    const int64_t least_more = std::max<int64_t>(min - given, 0);
    const int64_t most_more = max < 0 ? -1 : max - given;
    if (schema.contains("items") && schema["items"].is_array()) {
      return unsupported_at(path + "/items", "a list of schemas is not supported (prefixItems is)");
    }
    const bool closed = schema.contains("items") && schema["items"] == Json(false);
    // Like properties, a list that names its items has no others unless it asks for them.
    if (closed || (!first.empty() && !schema.contains("items"))) {
      if (least_more > 0) {
        return malformed(
            fmt::format("{}: minItems {} is above the {} items that there can be", path, min, given));
      }
      return list("[", "]", std::move(first), nullptr, 0, 0);
    }
    ExprPtr item = any_value();
    if (schema.contains("items")) {
      HETERO_TRY(item, visit(schema["items"], path + "/items", depth + 1));
    }
    return list("[", "]", std::move(first), item, least_more, most_more);
  }

  Result<ExprPtr> object(const Json& schema, const std::string& path, int depth) {
    struct Member {
      ExprPtr expr;
      bool required;
    };
    std::vector<std::string> keys;
    std::set<std::string> required;
    Json properties = schema.value("properties", Json::object());
    if (!properties.is_object()) {
      return malformed_at(path + "/properties", "an object of schemas", properties);
    }
    const Json names = schema.value("required", Json::array());
    if (!names.is_array()) {
      return malformed_at(path + "/required", "a list of names", names);
    }
    // Without properties, any are welcome; with some, others only where they are asked for.
    const Json additional = schema.value("additionalProperties", Json(properties.empty()));
    for (const Json& name : names) {
      if (!name.is_string()) {
        return malformed_at(path + "/required", "a list of names", names);
      }
      const auto key = name.get<std::string>();
      required.insert(key);
      if (!properties.contains(key)) {
        if (additional == Json(false) && schema.contains("additionalProperties")) {
          return malformed(
              fmt::format("{}/required: '{}' is required, but additionalProperties forbids it", path, key));
        }
        properties[key] = additional == Json(false) ? Json(true) : additional;
      }
    }
    if (properties.size() > kMostMembers) {
      return resource_exhausted(fmt::format("{}/properties: more than {} properties", path, kMostMembers));
    }
    std::vector<Member> members;
    for (const auto& [key, value] : properties.items()) {
      const std::string where = path + "/properties/" + key;
      if (key.size() > kLongestKey) {
        return resource_exhausted(fmt::format("{}/properties: a name of {} bytes, expected at most {}", path,
                                              key.size(), kLongestKey));
      }
      if (value == Json(false) && !required.contains(key)) {
        keys.push_back(key);  // must not appear
        continue;
      }
      HETERO_TRY(ExprPtr inside, visit(value, where, depth + 1));
      const int index = rules_.add(where);
      rules_.bodies[static_cast<size_t>(index)] =
          sequence({grammar::text(dump(Json(key))), grammar::text(":"), optional(grammar::text(" ")),
                    std::move(inside)});
      members.push_back({grammar::rule(index), required.contains(key)});
      keys.push_back(key);
    }
    ExprPtr other;
    if (additional != Json(false)) {
      HETERO_TRY(ExprPtr inside, visit(additional, path + "/additionalProperties", depth + 1));
      const int index = rules_.add(path + "/additionalProperties");
      rules_.bodies[static_cast<size_t>(index)] =
          sequence({quoted(grammar::json_key_other_than(std::move(keys))), grammar::text(":"),
                    optional(grammar::text(" ")), std::move(inside)});
      other = grammar::rule(index);
    }
    // rest: what may follow once a member was written; body: the members from i on, none written.
    ExprPtr rest = other != nullptr ? repeat(sequence({comma(), other}), 0, -1) : sequence({});
    ExprPtr body = other != nullptr ? optional(sequence({other, rest})) : sequence({});
    for (size_t i = members.size(); i-- > 0;) {
      const Member& m = members[i];
      const int here = rules_.add(fmt::format("{}/properties (from the {}th)", path, i));
      rules_.bodies[static_cast<size_t>(here)] = rest;
      rest = grammar::rule(here);
      const ExprPtr begun = sequence({m.expr, rest});
      body = m.required ? begun : choice({begun, body});
      const ExprPtr next = sequence({comma(), m.expr});
      rest = sequence({m.required ? next : optional(next), rest});
    }
    return sequence({grammar::text("{"), space(), body, space(), grammar::text("}")});
  }

  // Days that every such month has; hours, minutes and seconds without leap seconds.
  static constexpr const char* kDate =
      "[12][0-9]{3}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|"
      "02-(?:0[1-9]|1[0-9]|2[0-8]))";
  static constexpr const char* kTime =
      "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,6})?(?:Z|[+-](?:0[0-9]|1[0-3]):[0-5][0-9])";
  static constexpr const char* kUuid =
      "[0-9a-f]{8}-[0-9a-f]{4}-[1-5][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}";

  const Json& root_;
  const GrammarLimits& limits_;
  grammar::Rules rules_;
  std::map<std::string, int> refs_;
  std::map<std::string, int> shared_;
  std::deque<Pending> pending_;
};

}  // namespace

Result<std::shared_ptr<const Grammar>> Grammar::from_json_schema(const nlohmann::ordered_json& schema,
                                                                 const GrammarLimits& limits) {
  auto rules = Reader(schema, limits).run();
  HETERO_RETURN_IF_ERROR(rules.status().with_prefix("JSON schema"));
  auto automaton = grammar::compile(*rules, limits);
  HETERO_RETURN_IF_ERROR(automaton.status().with_prefix("JSON schema"));
  return std::make_shared<const Grammar>(std::move(automaton).value(), limits);
}

}  // namespace hetero
