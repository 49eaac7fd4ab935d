// What the JSON schema reader asks about schemas and values, without making anything of them.
#include <algorithm>

#include "text/grammar_schema.h"

namespace hetero::grammar {

using Json = nlohmann::ordered_json;

std::string type_of(const Json& value) {
  return value.is_object()           ? "object"
         : value.is_array()          ? "array"
         : value.is_string()         ? "string"
         : value.is_boolean()        ? "boolean"
         : value.is_null()           ? "null"
         : value.is_number_integer() ? "integer"
                                     : "number";
}

bool type_includes(const std::string& type, const std::string& other) {
  return type == other || (type == "number" && other == "integer");
}

const Json* find_reference(const Json& root, const std::string& ref) {
  if (ref.empty() || ref[0] != '#') {
    return nullptr;
  }
  try {
    const Json::json_pointer pointer(ref.substr(1));
    return root.contains(pointer) ? &root.at(pointer) : nullptr;
  } catch (const nlohmann::json::exception&) {
    return nullptr;
  }
}

namespace {

/// The schema behind references; null where there is none.
const Json* follow(const Json& root, const Json& schema) {
  const Json* at = &schema;
  for (int i = 0; i < 32 && at->is_object() && at->contains("$ref"); ++i) {
    if (!(*at)["$ref"].is_string()) {
      return nullptr;
    }
    at = find_reference(root, (*at)["$ref"].get<std::string>());
    if (at == nullptr) {
      return nullptr;
    }
  }
  return at->is_object() && !at->contains("$ref") ? at : nullptr;
}

bool apart(const Json& root, const Json& a, const Json& b, int depth) {
  const Json* x = follow(root, a);
  const Json* y = follow(root, b);
  if (x == nullptr || y == nullptr || depth > 4) {
    return false;
  }
  const auto constants = [](const Json& s) {
    Json list = Json::array();
    if (s.contains("const")) {
      list.push_back(s["const"]);
    } else if (s.contains("enum") && s["enum"].is_array()) {
      list = s["enum"];
    }
    return list;
  };
  const auto types = [&](const Json& s) {
    std::vector<std::string> names;
    for (const Json& value : constants(s)) {
      names.push_back(type_of(value));
    }
    if (names.empty() && s.contains("type")) {
      for (const Json& t : s["type"].is_array() ? s["type"] : Json::array({s["type"]})) {
        names.push_back(t.is_string() ? t.get<std::string>() : "");
      }
    }
    return names;
  };
  const auto types_x = types(*x);
  const auto types_y = types(*y);
  const bool types_meet = std::any_of(types_x.begin(), types_x.end(), [&](const std::string& t) {
    return std::any_of(types_y.begin(), types_y.end(),
                       [&](const std::string& u) { return type_includes(t, u) || type_includes(u, t); });
  });
  if (!types_x.empty() && !types_y.empty() && !types_meet) {
    return true;
  }
  const Json values_x = constants(*x);
  const Json values_y = constants(*y);
  if (!values_x.empty() && !values_y.empty()) {
    return std::none_of(values_x.begin(), values_x.end(), [&](const Json& v) {
      return std::find(values_y.begin(), values_y.end(), v) != values_y.end();
    });
  }
  // Objects that a property tells apart.
  if (types_x != std::vector<std::string>{"object"} || types_y != types_x || !x->contains("properties") ||
      !y->contains("properties")) {
    return false;
  }
  const auto requires_key = [](const Json& s, const std::string& key) {
    return s.contains("required") && s["required"].is_array() &&
           std::find(s["required"].begin(), s["required"].end(), Json(key)) != s["required"].end();
  };
  for (const auto& [key, schema] : (*x)["properties"].items()) {
    if (requires_key(*x, key) && requires_key(*y, key) && (*y)["properties"].contains(key) &&
        apart(root, schema, (*y)["properties"][key], depth + 1)) {
      return true;
    }
  }
  return false;
}

}  // namespace

bool cannot_both_match(const Json& root, const Json& a, const Json& b) {
  return apart(root, a, b, 0);
}

}  // namespace hetero::grammar
