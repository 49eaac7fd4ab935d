// Filters on single values: text, numbers, JSON.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "text/jinja_builtins.h"
#include "text/jinja_eval.h"
#include "text/jinja_ops.h"

namespace hetero::jinja {
namespace {

// str(v), except that text marked as safe stays so.
Value text_of(Renderer& r, const Value& v) {
  return to_string(r.sandbox, v);
}

bool is_markup(const Value& v) {
  return v.is_string() && v.as<StringObject>().markup;
}

template <const char* method>
Value by_method(Renderer& r, const Value& v, Arguments& arguments) {
  return find_string_method(method)(r, text_of(r, v), arguments);
}

constexpr char kUpper[] = "upper";
constexpr char kLower[] = "lower";
constexpr char kCapitalize[] = "capitalize";
constexpr char kStrip[] = "strip";

Value trim(Renderer& r, const Value& v, Arguments& arguments) {
  const Bound bound("trim", arguments, {"chars"});
  Arguments chars;
  if (bound.has(0)) {
    chars.positional.push_back(bound.at(0));
  }
  return by_method<kStrip>(r, v, chars);
}

// Words start behind white space, "-" and opening brackets.
Value title(Renderer& r, const Value& v, Arguments& arguments) {
  const Bound bound("title", arguments, {});
  const Value value = text_of(r, v);
  const std::string_view s = value.text();
  r.sandbox.scanned(4 * s.size());
  const auto separates = [](char32_t c) {
    return is_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
  };
  std::string out;
  for (size_t pos = 0; pos < s.size();) {
    const size_t start = pos;
    size_t end_of_first = pos;
    const bool is_separator = separates(next_code_point(s, end_of_first));
    pos = end_of_first;
    while (pos < s.size()) {
      size_t next = pos;
      if (separates(next_code_point(s, next)) != is_separator) {
        break;
      }
      pos = next;
    }
    out += to_upper(s.substr(start, end_of_first - start));
    out += to_lower(s.substr(end_of_first, pos - end_of_first));
  }
  return r.sandbox.string(std::move(out));
}

Value replace(Renderer& r, const Value& v, Arguments& arguments) {
  const Bound bound("replace", arguments, {"old", "new", "count"}, 2);
  const Value s = text_of(r, v);
  const Value from = text_of(r, bound.at(0));
  const Value to = text_of(r, bound.at(1));
  return replace_text(r.sandbox, s.text(), from.text(), to.text(), bound.some(2) ? bound.integer(2, -1) : -1);
}

Value center(Renderer& r, const Value& v, Arguments& arguments) {
  const Bound bound("center", arguments, {"width"});
  return pad_text(r.sandbox, text_of(r, v), bound.integer(0, 80), 'c', " ");
}

Value indent(Renderer& r, const Value& v, Arguments& arguments) {
  const Bound bound("indent", arguments, {"width", "first", "blank"});
  const Value newline = r.sandbox.string("\n");
  const Value s = arithmetic(r.sandbox, Operator::kAdd, v, newline);
  if (!s.is_string()) {
    fail("TypeError", "indent needs a string");
  }
  r.sandbox.scanned(s.text().size());
  TextBuilder indention(r.sandbox);
  if (bound.has(0) && bound.at(0).is_string()) {
    indention.add(bound.at(0).text());
  } else {
    indention.add(static_cast<size_t>(std::max<int64_t>(0, bound.integer(0, 4))), " ");
  }
  TextBuilder out(r.sandbox);
  bool is_first = true;
  for (const std::string_view line : split_lines(s.text())) {
    r.sandbox.step();
    if (!is_first) {
      out.add("\n");
    }
    if (is_first ? bound.flag(1) : bound.flag(2) || !line.empty()) {
      out.add(indention.text());
    }
    out.add(line);
    is_first = false;
  }
  return out.take(is_markup(v));
}

Value truncate(Renderer& r, const Value& v, Arguments& arguments) {
  const Bound bound("truncate", arguments, {"length", "killwords", "end", "leeway"});
  const int64_t most = bound.integer(0, 255);
  const std::string_view end = bound.text(2, "...");
  const int64_t leeway = bound.some(3) ? bound.integer(3, 0) : 5;
  const int64_t end_length = count_code_points(end);
  if (most < end_length || leeway < 0) {
    fail("AssertionError",
         fmt::format("expected length >= {} and leeway >= 0, got {} and {}", end_length, most, leeway));
  }
  if (jinja::length(v) <= most + leeway) {
    return v;
  }
  if (!v.is_string()) {
    fail("TypeError", "truncate needs a string");
  }
  std::string_view kept = v.text().substr(0, byte_offset(v.text(), most - end_length));
  if (!bound.flag(1)) {
    kept = kept.substr(0, kept.rfind(' '));
  }
  TextBuilder out(r.sandbox);
  out.add(kept);
  out.add(end);
  return out.take();
}

Value word_count(Renderer& r, const Value& v, Arguments& arguments) {
  const Bound bound("wordcount", arguments, {});
  const Value value = text_of(r, v);
  const std::string_view s = value.text();
  r.sandbox.scanned(4 * s.size());
  int64_t words = 0;
  bool inside = false;
  for (size_t pos = 0; pos < s.size();) {
    const bool word = is_word(next_code_point(s, pos));
    words += word && !inside ? 1 : 0;
    inside = word;
  }
  return Value::integer(words);
}

Value string(Renderer& r, const Value& v, Arguments& arguments) {
  const Bound bound("string", arguments, {});
  return text_of(r, v);
}

Value safe(Renderer& r, const Value& v, Arguments& arguments) {
  const Bound bound("safe", arguments, {});
  return is_markup(v) ? v : r.sandbox.string(std::string(text_of(r, v).text()), true);
}

Value escape_text(Renderer& r, const Value& v, bool again) {
  if (is_markup(v) && !again) {
    return v;
  }
  const Value s = text_of(r, v);
  r.sandbox.scanned(s.text().size());
  return r.sandbox.string(escape(s.text()), true);
}

template <bool again>
Value escape_filter(Renderer& r, const Value& v, Arguments& arguments) {
  const Bound bound("escape", arguments, {});
  return escape_text(r, v, again);
}

Value url_encode(Renderer& r, const Value& v, Arguments& arguments) {
  const Bound bound("urlencode", arguments, {});
  TextBuilder out(r.sandbox);
  const auto add = [&](const Value& part, bool in_query) {
    const Value s = text_of(r, part);
    r.sandbox.scanned(s.text().size());
    for (const char c : s.text()) {
      const bool plain = std::isalnum(static_cast<unsigned char>(c)) != 0 ||
                         std::string_view("_.-~").find(c) != kNotFound || (c == '/' && !in_query);
      if (plain || (c == ' ' && in_query)) {
        out.add(std::string(1, plain ? c : '+'));
      } else {
        out.add(fmt::format("%{:02X}", static_cast<unsigned>(static_cast<unsigned char>(c))));
      }
    }
  };
  if (v.is_string() || !is_iterable(v)) {
    add(v, false);
    return out.take();
  }
  const Ref<IteratorObject> it = iterate(
      r.sandbox, v.is(Kind::kDict) ? Value(r.sandbox.make<DictViewObject>(
                                         Ref<DictObject>(&v.as<DictObject>()), DictViewObject::Part::kItems))
                                   : v);
  for (Value entry; it->next(entry);) {
    const Ref<ListObject> pair = to_list(r.sandbox, entry);
    if (pair->items.size() != 2) {
      fail("ValueError", "urlencode needs pairs");
    }
    if (!out.text().empty()) {
      out.add("&");
    }
    add(pair->items[0], true);
    out.add("=");
    add(pair->items[1], true);
  }
  return out.take();
}

Value format(Renderer& r, const Value& v, Arguments& arguments) {
  if (!arguments.positional.empty() && !arguments.named.empty()) {
    fail("FilterArgumentError", "can't handle positional and keyword arguments at the same time");
  }
  const Value pattern = text_of(r, v);
  if (arguments.named.empty()) {
    Ref<ListObject> values = r.sandbox.tuple();
    for (const Value& value : arguments.positional) {
      values->add(value);
    }
    return percent_format(r.sandbox, pattern.text(), values);
  }
  Ref<DictObject> values = r.sandbox.make<DictObject>();
  for (const auto& [name, value] : arguments.named) {
    values->set(r.sandbox.string(name), value);
  }
  return percent_format(r.sandbox, pattern.text(), values);
}

Value int_filter(Renderer& r, const Value& v, Arguments& arguments) {
  const Bound bound("int", arguments, {"default", "base"});
  const Value otherwise = bound.get(0, Value::integer(0));
  if (v.is_undefined()) {
    v.as<UndefinedObject>().raise();
  }
  if (v.is_integral()) {
    return Value::integer(v.integer());
  }
  std::optional<double> real;
  if (v.is(Kind::kFloat)) {
    if (std::isnan(v.real())) {
      return otherwise;
    }
    return Value::integer(int_of_float(v.real()));
  }
  if (v.is_string()) {
    r.sandbox.scanned(4 * v.text().size());
    const int64_t base = bound.integer(1, 10);
    bool overflow = false;
    if (base == 0 || (base >= 2 && base <= 36)) {
      if (const std::optional<Int> value = parse_int(v.text(), static_cast<int>(base), overflow)) {
        return Value::integer(*value);
      }
    }
    if (overflow) {
      fail("OverflowError", "integers are limited to 127 bits");
    }
    real = parse_float(v.text());
  }
  return real && std::isfinite(*real) ? Value::integer(int_of_float(*real)) : otherwise;
}

// float(v); nothing where Python raises TypeError or ValueError.
std::optional<double> to_float(const Value& v) {
  if (v.is_undefined()) {
    v.as<UndefinedObject>().raise();
  }
  if (!v.is_string()) {
    return v.is_number() ? std::optional(v.number()) : std::nullopt;
  }
  v.object()->sandbox.scanned(4 * v.text().size());
  return parse_float(v.text());
}

Value float_filter(Renderer&, const Value& v, Arguments& arguments) {
  const Bound bound("float", arguments, {"default"});
  const std::optional<double> real = to_float(v);
  return real ? Value::real(*real) : bound.get(0, Value::real(0));
}

Value abs_filter(Renderer&, const Value& v, Arguments& arguments) {
  const Bound bound("abs", arguments, {});
  if (!v.is_number()) {
    fail("TypeError", fmt::format("bad operand type for abs(): '{}'", type_name(v)));
  }
  if (v.is(Kind::kFloat)) {
    return Value::real(std::abs(v.real()));
  }
  return v.integer() < 0 ? negate(v) : Value::integer(v.integer());
}

// round() of an integer: to a multiple of 10^digits, half to even.
Int round_int(Int value, int64_t digits) {
  if (digits > 38) {
    return 0;
  }
  Int scale = 1;
  for (int64_t i = 0; i < digits; ++i) {
    scale *= 10;
  }
  const Int rest = ((value % scale) + scale) % scale;
  const Int down = value - rest;
  const bool up = rest > scale - rest || (rest == scale - rest && down / scale % 2 != 0);
  return up ? down + scale : down;
}

Value round_filter(Renderer&, const Value& v, Arguments& arguments) {
  const Bound bound("round", arguments, {"precision", "method"});
  const int64_t precision = bound.integer(0, 0);
  const std::string_view method = bound.text(1, "common");
  if (method != "common" && method != "ceil" && method != "floor") {
    fail("FilterArgumentError", "method must be common, ceil or floor");
  }
  if (!v.is_number()) {
    fail("TypeError", fmt::format("type {} doesn't define __round__ method", type_name(v)));
  }
  if (method == "common") {
    if (v.is(Kind::kFloat)) {
      return Value::real(round_to(v.real(), precision));
    }
    return Value::integer(precision >= 0 ? v.integer() : round_int(v.integer(), -precision));
  }
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double scaled = v.number() * scale;
  const Int whole = int_of_float(method == "ceil" ? std::ceil(scaled) : std::floor(scaled));
  return Value::real(static_cast<double>(whole) / scale);
}

Value file_size(Renderer& r, const Value& v, Arguments& arguments) {
  const Bound bound("filesizeformat", arguments, {"binary"});
  const bool binary = bound.flag(0);
  const std::optional<double> number = to_float(v);
  if (!number) {
    fail("TypeError", "float() argument must be a string or a real number");
  }
  const double bytes = *number;
  const double base = binary ? 1024 : 1000;
  if (bytes == 1) {
    return r.sandbox.string("1 Byte");
  }
  if (bytes < base) {
    return r.sandbox.string(fmt::format("{} Bytes", int_repr(int_of_float(bytes))));
  }
  double unit = base;
  size_t i = 0;
  do {
    unit *= base;
  } while (bytes >= unit && ++i < 8);
  const std::string_view letters = binary ? "KMGTPEZY" : "kMGTPEZY";
  return r.sandbox.string(
      fmt::format("{:.1f} {}{}", base * bytes / unit, letters[std::min<size_t>(i, 7)], binary ? "iB" : "B"));
}

Value default_filter(Renderer& r, const Value& v, Arguments& arguments) {
  const Bound bound("default", arguments, {"default_value", "boolean"});
  const bool take = v.is_undefined() || (bound.flag(1) && !truth(v));
  return !take ? v : bound.has(0) ? bound.at(0) : r.sandbox.string("");
}

Value length_filter(Renderer&, const Value& v, Arguments& arguments) {
  const Bound bound("length", arguments, {});
  return Value::integer(v.is(Kind::kLoop) ? v.as<LoopObject>().length() : length(v));
}

// json.dumps as chat templates have it: not escaped for HTML, and not for ASCII unless asked.
Value tojson(Renderer& r, const Value& v, Arguments& arguments) {
  const Bound bound("tojson", arguments, {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  style.ascii = bound.flag(0);
  style.sort_keys = bound.flag(3);
  if (bound.some(1)) {
    style.indented = true;
    style.item_separator.assign(1, ',');
    if (bound.at(1).is_string()) {
      style.indent = std::string(bound.at(1).text());
    } else {
      const int64_t width = std::max<int64_t>(0, bound.integer(1, 0));
      r.sandbox.check_text(static_cast<size_t>(width));
      style.indent.assign(static_cast<size_t>(width), ' ');
    }
  }
  if (bound.some(2)) {
    const Ref<ListObject> separators = to_list(r.sandbox, bound.at(2));
    if (separators->items.size() != 2 || !separators->items[0].is_string() ||
        !separators->items[1].is_string()) {
      fail("TypeError", "separators must be a pair of strings");
    }
    style.item_separator = std::string(separators->items[0].text());
    style.key_separator = std::string(separators->items[1].text());
  }
  return to_json(r.sandbox, v, style);
}

Value unsupported(Renderer&, const Value&, Arguments&) {
  fail("TemplateRuntimeError", "this filter of Jinja is not supported in chat templates");
}

}  // namespace

Filter find_text_filter(std::string_view name) {
  static const std::unordered_map<std::string_view, Filter> kFilters = {
      {"abs", abs_filter},
      {"capitalize", by_method<kCapitalize>},
      {"center", center},
      {"count", length_filter},
      {"d", default_filter},
      {"default", default_filter},
      {"e", escape_filter<false>},
      {"escape", escape_filter<false>},
      {"filesizeformat", file_size},
      {"float", float_filter},
      {"forceescape", escape_filter<true>},
      {"format", format},
      {"indent", indent},
      {"int", int_filter},
      {"length", length_filter},
      {"lower", by_method<kLower>},
      {"pprint", unsupported},
      {"random", unsupported},
      {"replace", replace},
      {"round", round_filter},
      {"safe", safe},
      {"string", string},
      {"striptags", unsupported},
      {"title", title},
      {"tojson", tojson},
      {"trim", trim},
      {"truncate", truncate},
      {"upper", by_method<kUpper>},
      {"urlencode", url_encode},
      {"urlize", unsupported},
      {"wordcount", word_count},
      {"wordwrap", unsupported},
      {"xmlattr", unsupported},
  };
  const auto it = kFilters.find(name);
  return it != kFilters.end() ? it->second : nullptr;
}

}  // namespace hetero::jinja
