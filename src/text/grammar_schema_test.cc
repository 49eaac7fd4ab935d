#include <fmt/format.h>
#include <gtest/gtest.h>

#include <functional>

#include "text/grammar.h"
#include "text/grammar_testing.h"

namespace hetero {
namespace {

using Json = nlohmann::ordered_json;

std::shared_ptr<const Grammar> schema(const std::string& source) {
  auto grammar = Grammar::from_json_schema(Json::parse(source));
  EXPECT_TRUE(grammar.ok()) << source << ": " << grammar.status().message();
  return grammar.ok() ? *grammar : nullptr;
}

std::string error_of(const std::string& source) {
  const auto grammar = Grammar::from_json_schema(Json::parse(source));
  return grammar.ok() ? "accepted" : grammar.status().message();
}

struct Case {
  const char* schema;
  std::vector<const char*> accepted;
  std::vector<const char*> refused;
};

TEST(JsonSchema, TextsThatAreAndAreNotGenerated) {
  const Case cases[] = {
      {R"({"type": "string"})",
       {R"("")", R"("a\n\"\\é東👍")"},
       {"", "a", R"("a)", R"("\q")", "\"\n\"", R"("a"b)"}},
      {R"({"type": "string", "minLength": 2, "maxLength": 3})",
       {R"("éé")", R"("a\nb")"},
       {R"("a")", R"("abcd")"}},
      {R"({"type": "integer"})", {"0", "-7", "123456789012345"}, {"01", "1.0", "+1", "-", "1e3"}},
      {R"({"type": "number"})", {"0", "-1.25", "1e5", "2.5E-3"}, {".5", "1.", "00", "1e999"}},
      {R"({"type": "boolean"})", {"true", "false"}, {"True", "tru"}},
      {R"({"type": ["null", "boolean"]})", {"null", "true"}, {"0"}},
      {R"({"enum": ["a", 1, null, {"x": [1]}]})", {R"("a")", "1", "null", R"({"x":[1]})"}, {"2", R"("b")"}},
      {R"({"const": "é\n"})", {R"("é\n")"}, {R"("é")"}},
      {R"({"type": "string", "enum": ["a", 1]})", {R"("a")"}, {"1"}},
      {R"({"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 2})",
       {"[true]", "[true,false]", "[ true, false ]", "[\n  true,\n  false\n]"},
       {"[]", "[true,false,true]", "[true,]", "[,true]", "[1]"}},
      {R"({"type": "array", "items": {"type": "null"}, "maxItems": 0})", {"[]"}, {"[null]"}},
      {R"({"type": "array", "prefixItems": [{"type": "null"}, {"type": "boolean"}], "items": {"type": "integer"},
           "minItems": 3})",
       {"[null,true,1]", "[null,true,1,2]"},
       {"[null,true]", "[true,null,1]"}},
      {R"({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "null"}}, "required": ["b"]})",
       {R"({"a":1,"b":null})", R"({"b": null})", "{\n  \"a\": 1,\n  \"b\": null\n}"},
       {R"({"a":1})", R"({"b":null,"a":1})", R"({"b":null,})", "{}", R"({"b":null,"c":1})"}},
      {R"({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "null"}}})",
       {"{}", R"({"a":1})", R"({"b":null})", R"({"a":1,"b":null})"},
       {R"({,"b":null})", R"({"c":1})"}},
      {R"({"type": "object", "properties": {"ab": {"type": "null"}, "é": {"type": "null"}},
           "additionalProperties": {"type": "integer"}})",
       {"{}", R"({"ab":null,"x":1})", R"({"x":1,"y":2})", R"({"":1})", R"({"a":1})", R"({"abc":1})",
        R"({"è":1})"},
       {R"({"ab":1})", R"({"é":1})", R"({"x":null})", R"({"a\u0062":1})"}},
      {R"({"type": "object"})", {"{}", R"({"a":[1,{"b":null}]})"}, {"[]", R"({"a"})"}},
      {R"({"type": "object", "required": ["k"]})", {R"({"k":1})", R"({"k":1,"l":{}})"}, {"{}", R"({"l":1})"}},
      {"{}", {"1", "[[[]]]", R"({"a":{"b":[true]}})"}, {"", "[", "nul"}},
      {"true", {"null", "[1,\"a\"]"}, {"["}},
      {R"({"anyOf": [{"type": "integer"}, {"type": "string"}]})", {"1", R"("1")"}, {"null"}},
      {R"({"oneOf": [{"type": "integer"}, {"type": "string"}]})", {"1", R"("1")"}, {"null"}},
      {R"({"oneOf": [{"type": "object", "properties": {"t": {"const": "a"}}, "required": ["t"]},
                     {"type": "object", "properties": {"t": {"enum": ["b", "c"]}}, "required": ["t"]}]})",
       {R"({"t":"a"})", R"({"t":"c"})"},
       {R"({"t":"d"})", "{}"}},
      {R"({"allOf": [{"type": "null"}], "description": "x"})", {"null"}, {"1"}},
      {R"({"$defs": {"tree": {"type": "object", "properties": {"v": {"type": "integer"}, "kids":
           {"type": "array", "items": {"$ref": "#/$defs/tree"}}}, "required": ["v"]}}, "$ref": "#/$defs/tree"})",
       {R"({"v":1})", R"({"v":1,"kids":[{"v":2,"kids":[]},{"v":3}]})"},
       {R"({"kids":[]})"}},
      {R"({"type": "array", "items": {"$ref": "#"}})", {"[]", "[[],[[]]]"}, {"[1]"}},
      {R"({"type": "string", "format": "date"})",
       {R"("2024-02-28")", R"("1999-12-31")"},
       {R"("2024-13-01")", R"("2024-04-31")", R"("24-01-01")"}},
      {R"({"type": "string", "format": "date-time"})",
       {R"("2024-02-28T23:59:59.5+01:00")"},
       {R"("2024-02-28")"}},
      {R"({"type": "string", "pattern": "^[A-Z]{2}-\\d+$"})",
       {R"("AB-12")"},
       {R"("AB-")", R"("xAB-1")", R"("AB-1x")"}},
      {R"({"type": "string", "pattern": "b|^c"})", {R"("abc")", R"("cx")", R"("b")"}, {R"("ac")", R"("")"}},
      {R"({"pattern": "^(?:a|\"\\\\){1,2}\\.?$"})", {R"("a")", R"("\"\\a.")"}, {R"("\"")", R"("aaa")"}},
      {R"({"pattern": "^[^a-z\\s]+?$"})", {R"("ABC東\\")"}, {R"("a")", R"(" ")"}},
      {R"({"minimum": 3, "type": "integer"})", {"3", "10"}, {"2", "-5"}},
      {R"({"properties": {"a": {"type": "null"}}, "additionalProperties": false})",
       {"{}", R"({"a":null})"},
       {"1"}},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.schema);
    const auto grammar = schema(c.schema);
    ASSERT_NE(grammar, nullptr);
    for (const char* text : c.accepted) {
      EXPECT_TRUE(matches(grammar, text)) << text;
    }
    for (const char* text : c.refused) {
      EXPECT_FALSE(matches(grammar, text)) << text;
    }
  }
}

TEST(JsonSchema, IntegerRangesAreExact) {
  for (const auto& [low, high] : std::vector<std::pair<int, int>>{{0, 9},
                                                                  {1, 10},
                                                                  {-5, 5},
                                                                  {7, 7},
                                                                  {99, 101},
                                                                  {-120, -7},
                                                                  {0, 0},
                                                                  {-1, 0},
                                                                  {123, 1098},
                                                                  {10, 99},
                                                                  {-250, 1111}}) {
    const auto both =
        schema(fmt::format(R"({{"type": "integer", "minimum": {}, "maximum": {}}})", low, high));
    const auto open = schema(fmt::format(
        R"({{"type": "integer", "exclusiveMinimum": {}, "exclusiveMaximum": {}}})", low - 0.5, high + 1));
    const auto least = schema(fmt::format(R"({{"type": "integer", "minimum": {}}})", low));
    const auto most = schema(fmt::format(R"({{"type": "integer", "maximum": {}}})", high));
    for (int i = -300; i <= 1300; ++i) {
      const std::string text = std::to_string(i);
      ASSERT_EQ(matches(both, text), low <= i && i <= high) << low << " " << high << " " << i;
      ASSERT_EQ(matches(open, text), low <= i && i <= high) << low << " " << high << " " << i;
      ASSERT_EQ(matches(least, text), low <= i) << low << " " << i;
      ASSERT_EQ(matches(most, text), i <= high) << high << " " << i;
    }
  }
}

TEST(JsonSchema, NumberRangesAreExactToTheDecimal) {
  for (const auto& [low, high] : std::vector<std::pair<double, double>>{
           {0, 1}, {0.1, 0.9}, {-1.5, 2.25}, {3, 3}, {-0.75, -0.25}, {9.9, 10.1}, {0.123, 12.5}, {-3, -2}}) {
    const auto closed =
        schema(fmt::format(R"({{"type": "number", "minimum": {}, "maximum": {}}})", low, high));
    const auto least = schema(fmt::format(R"({{"type": "number", "minimum": {}}})", low));
    for (int i = -4000; i <= 14000; i += 7) {
      const std::string text = fmt::format("{:.3f}", i / 1000.0);
      ASSERT_EQ(matches(closed, text), low <= i / 1000.0 && i / 1000.0 <= high)
          << low << " " << high << " " << text;
      ASSERT_EQ(matches(least, text), low <= i / 1000.0) << low << " " << text;
    }
    if (low < high) {
      const auto open = schema(
          fmt::format(R"({{"type": "number", "exclusiveMinimum": {}, "exclusiveMaximum": {}}})", low, high));
      EXPECT_FALSE(matches(open, fmt::format("{}", low)));
      EXPECT_FALSE(matches(open, fmt::format("{:.6f}", high)));
      EXPECT_TRUE(matches(open, fmt::format("{:.3f}", (low + high) / 2)));
    }
  }
}

TEST(JsonSchema, WhatCannotBeEnforcedIsAnErrorWithItsPath) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"properties": {"a": {"not": {}}}})", "#/properties/a/not"},
      {R"({"type": "array", "items": {"multipleOf": 3}})", "#/items/multipleOf"},
      {R"({"patternProperties": {}})", "#/patternProperties"},
      {R"({"type": "array", "uniqueItems": true})", "#/uniqueItems"},
      {R"~({"type": "string", "pattern": "a(?=b)"})~", "#/pattern"},
      {R"({"type": "string", "pattern": "a\\b"})", "#/pattern"},
      {R"({"type": "string", "pattern": "(a)\\1"})", "#/pattern"},
      {R"({"type": "string", "format": "email"})", "#/format"},
      {R"({"type": "string", "pattern": "a", "maxLength": 3})", "#: only one of"},
      {R"({"$ref": "other.json#/a"})", "outside of this document"},
      {R"({"$ref": "#/$defs/missing"})", "there is no '#/$defs/missing'"},
      {R"({"type": "objekt"})", "#/type"},
      {R"({"type": "integer", "minimum": 5, "maximum": 4})", "no number is at least 5"},
      {R"({"type": "integer", "minimum": 1.2, "maximum": 1.8})", "no number"},
      {R"({"type": "number", "minimum": 0.12345678})", "decimals"},
      {R"({"minLength": -1})", "#/minLength"},
      {R"({"minItems": 5, "maxItems": 2, "type": "array"})", "maxItems 2 is below minItems 5"},
      {R"({"oneOf": [{"type": "number"}, {"type": "integer"}]})", "#/oneOf: entries 0 and 1 may both match"},
      {R"({"anyOf": [{"type": "null"}], "type": "object"})", "#/type"},
      {R"({"allOf": [{}, {}]})", "#/allOf"},
      {R"({"enum": []})", "#/enum"},
      {R"({"properties": {"a": false}, "required": ["a"]})", "#/properties/a"},
      {R"({"properties": {"a": 1}})", "#/properties/a: expected a schema"},
      {R"({"required": ["x"], "properties": {}, "additionalProperties": false})", "'x' is required"},
      {R"({"$ref": "#"})", "can never end"},
      {R"({"anyOf": [{"$ref": "#"}, {"type": "null"}]})", "left-recursive"},
      {R"({"pattern": "[a-"})", "#/pattern"},
      {R"({"pattern": "(a"})", "#/pattern"},
      {R"({"pattern": "a\\\\"})", "accepted"},
      {R"({"pattern": "\\u12"})", "#/pattern"},
      {R"({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]})", "can never end"},
      {R"([1])", "expected a schema"},
      {R"({"maxLength": 1000000, "minLength": 1000000})", "states"},
  };
  for (const auto& [source, part] : cases) {
    const std::string error = error_of(source);
    EXPECT_NE(error.find(part), std::string::npos) << source << ": " << error;
    EXPECT_TRUE(error == "accepted" || error.rfind("JSON schema: ", 0) == 0) << error;
  }
  std::string deep = "{}";
  for (int i = 0; i < 1000; ++i) {
    deep = R"({"items": )" + deep + "}";
  }
  EXPECT_NE(error_of(deep).find("nested deeper"), std::string::npos);
  const Json long_name = {{"properties", {{std::string(100'000, 'k'), true}}},
                          {"additionalProperties", true}};
  EXPECT_NE(error_of(long_name.dump()).find("a name of 100000 bytes"), std::string::npos);
}

// What comes out of the grammar must parse and have the shape of the schema.
TEST(JsonSchema, RandomTextsAreValid) {
  std::mt19937_64 random(5);
  const auto check = [&](const std::string& source, const std::function<bool(const Json&)>& valid) {
    const auto grammar = schema(source);
    ASSERT_NE(grammar, nullptr);
    int complete = 0;
    for (int i = 0; i < 300; ++i) {
      const std::string text = random_text(grammar, random);
      if (text.empty()) {
        continue;
      }
      ++complete;
      const Json value = Json::parse(text, nullptr, false);
      ASSERT_FALSE(value.is_discarded()) << text;
      EXPECT_TRUE(valid(value)) << text;
    }
    EXPECT_GT(complete, 100) << source;
  };
  check("{}", [](const Json&) { return true; });
  check(R"({"type": "object", "properties": {"name": {"type": "string", "minLength": 1, "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 150}, "tags": {"type": "array", "items": {"enum": ["x", "y"]},
        "maxItems": 3}}, "required": ["name", "age"], "additionalProperties": {"type": "boolean"}})",
        [](const Json& v) {
          bool ok = v.is_object() && v.at("name").is_string() && v.at("age").is_number_integer() &&
                    v["age"] >= 0 && v["age"] <= 150;
          for (const auto& [key, value] : v.items()) {
            ok = ok && (key == "name" || key == "age" || key == "tags" || value.is_boolean());
          }
          return ok && (!v.contains("tags") || v["tags"].size() <= 3);
        });
  check(R"({"type": "number", "exclusiveMinimum": -2.5, "maximum": 7.25})",
        [](const Json& v) { return v.get<double>() > -2.5 && v.get<double>() <= 7.25; });
  check(R"({"type": "string", "pattern": "^(ab|c)*d{2,3}$"})", [](const Json& v) {
    const auto s = v.get<std::string>();
    return s.size() >= 2 && s.ends_with("dd") && s.find("ddddd") == std::string::npos;
  });
}

}  // namespace
}  // namespace hetero
