// How values become text: str(), repr() and JSON.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "text/jinja_ops.h"
#include "text/jinja_value.h"

namespace hetero::jinja {
namespace {

// Long strings are written in pieces, so that the limit on texts stops them early.
constexpr size_t kPiece = 4096;

class Printer {
 public:
  explicit Printer(TextBuilder& out) : out_(out) {}

  void repr(const Value& v) {
    switch (v.kind()) {
      case Kind::kNone:
        out_.add("None");
        break;
      case Kind::kBool:
        out_.add(v.integer() != 0 ? "True" : "False");
        break;
      case Kind::kInt:
        out_.add(int_repr(v.integer()));
        break;
      case Kind::kFloat:
        out_.add(float_repr(v.real()));
        break;
      case Kind::kUndefined:
        out_.add("Undefined");
        break;
      case Kind::kString:
        string(v.as<StringObject>());
        break;
      case Kind::kRange:
        range(v.as<RangeObject>());
        break;
      case Kind::kList:
      case Kind::kTuple:
      case Kind::kDict:
      case Kind::kDictView:
      case Kind::kNamespace:
        container(v);
        break;
      case Kind::kIterator:
        out_.add(fmt::format("<{} object>", type_name(v)));
        break;
      default:
        out_.add(v.object()->describe());
        break;
    }
  }

 private:
  void string(const StringObject& s) {
    s.sandbox.scanned(s.text.size());
    if (s.markup) {
      out_.add("Markup(");
    }
    out_.add(quote(s.text, static_cast<size_t>(s.sandbox.limits().output_bytes)));
    if (s.markup) {
      out_.add(")");
    }
  }

  void range(const RangeObject& r) {
    out_.add(fmt::format("range({}, {}", int_repr(r.begin), int_repr(r.end)));
    out_.add(r.step == 1 ? ")" : fmt::format(", {})", int_repr(r.step)));
  }

  // A container inside itself prints as "...".
  void container(const Value& v) {
    const Sandbox::Depth depth(v.object()->sandbox, 4);
    if (v.is(Kind::kNamespace)) {
      out_.add("<Namespace ");
    }
    if (std::find(active_.begin(), active_.end(), v.object()) != active_.end()) {
      out_.add(v.is(Kind::kList) ? "[...]" : v.is(Kind::kTuple) ? "(...)" : "{...}");
    } else {
      active_.push_back(v.object());
      contents(v);
      active_.pop_back();
    }
    if (v.is(Kind::kNamespace)) {
      out_.add(">");
    }
  }

  void contents(const Value& v) {
    bool first = true;
    const auto separate = [&] {
      v.object()->sandbox.step();
      if (!std::exchange(first, false)) {
        out_.add(", ");
      }
    };
    switch (v.kind()) {
      case Kind::kList:
      case Kind::kTuple:
        out_.add(v.is(Kind::kList) ? "[" : "(");
        for (const Value& item : v.items()) {
          separate();
          repr(item);
        }
        out_.add(v.is(Kind::kList) ? "]" : v.items().size() == 1 ? ",)" : ")");
        break;
      case Kind::kDict:
        out_.add("{");
        for (const auto& [key, value] : v.as<DictObject>().entries) {
          separate();
          repr(key);
          out_.add(": ");
          repr(value);
        }
        out_.add("}");
        break;
      case Kind::kNamespace:
        out_.add("{");
        for (const auto& [name, value] : v.as<NamespaceObject>().members) {
          separate();
          out_.add(fmt::format("{}: ", quote(name)));
          repr(value);
        }
        out_.add("}");
        break;
      default: {
        const DictViewObject& view = v.as<DictViewObject>();
        out_.add(fmt::format("{}([", type_name(v)));
        for (size_t i = 0; i < view.dict->entries.size(); ++i) {
          separate();
          repr(view.at(i));
        }
        out_.add("])");
        break;
      }
    }
  }

  TextBuilder& out_;
  std::vector<const Object*> active_;
};

// json.dumps.
class JsonPrinter {
 public:
  JsonPrinter(TextBuilder& out, const JsonStyle& style) : out_(out), style_(style) {}

  void value(const Value& v, size_t level) {
    switch (v.kind()) {
      case Kind::kNone:
        out_.add("null");
        break;
      case Kind::kBool:
        out_.add(v.integer() != 0 ? "true" : "false");
        break;
      case Kind::kInt:
        out_.add(int_repr(v.integer()));
        break;
      case Kind::kFloat:
        out_.add(number(v.real()));
        break;
      case Kind::kString:
        string(v.text(), v.object()->sandbox);
        break;
      case Kind::kList:
      case Kind::kTuple:
        array(v, level);
        break;
      case Kind::kDict:
        object(v.as<DictObject>(), level);
        break;
      default:
        fail("TypeError", fmt::format("Object of type {} is not JSON serializable", type_name(v)));
    }
  }

 private:
  static std::string number(double d) {
    return std::isnan(d) ? "NaN" : std::isinf(d) ? (d < 0 ? "-Infinity" : "Infinity") : float_repr(d);
  }

  void string(std::string_view s, Sandbox& sandbox) {
    sandbox.scanned(s.size());
    std::string piece(1, '"');
    for (size_t pos = 0; pos < s.size();) {
      if (piece.size() > kPiece) {
        out_.add(piece);
        piece.clear();
      }
      const size_t start = pos;
      const char32_t c = next_code_point(s, pos);
      switch (c) {
        case '"':
          piece += "\\\"";
          break;
        case '\\':
          piece += "\\\\";
          break;
        case '\n':
          piece += "\\n";
          break;
        case '\r':
          piece += "\\r";
          break;
        case '\t':
          piece += "\\t";
          break;
        case '\f':
          piece += "\\f";
          break;
        case '\b':
          piece += "\\b";
          break;
        default:
          if (c < 0x20 || (style_.ascii && c > 0x7e && c < 0x10000)) {
            piece += fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
          } else if (style_.ascii && c > 0x7e) {
            const uint32_t rest = static_cast<uint32_t>(c) - 0x10000;
            piece += fmt::format("\\u{:04x}\\u{:04x}", 0xd800 + (rest >> 10), 0xdc00 + (rest & 0x3ff));
          } else {
            piece += s.substr(start, pos - start);
          }
      }
    }
    piece += '"';
    out_.add(piece);
  }

  void line(size_t level) {
    if (style_.indented) {
      out_.add("\n");
      out_.add(level, style_.indent);
    }
  }

  void array(const Value& v, size_t level) {
    const Sandbox::Depth depth(v.object()->sandbox, 4);
    if (v.items().empty()) {
      out_.add("[]");
      return;
    }
    out_.add("[");
    bool first = true;
    for (const Value& item : v.items()) {
      v.object()->sandbox.step();
      if (!std::exchange(first, false)) {
        out_.add(style_.item_separator);
      }
      line(level + 1);
      value(item, level + 1);
    }
    line(level);
    out_.add("]");
  }

  void key(const Value& k) {
    switch (k.kind()) {
      case Kind::kString:
        string(k.text(), k.object()->sandbox);
        break;
      case Kind::kNone:
        out_.add("\"null\"");
        break;
      case Kind::kBool:
        out_.add(k.integer() != 0 ? "\"true\"" : "\"false\"");
        break;
      case Kind::kInt:
        out_.add(fmt::format("\"{}\"", int_repr(k.integer())));
        break;
      case Kind::kFloat:
        out_.add(fmt::format("\"{}\"", number(k.real())));
        break;
      default:
        fail("TypeError", fmt::format("keys must be str, int, float, bool or None, not {}", type_name(k)));
    }
  }

  void object(DictObject& dict, size_t level) {
    const Sandbox::Depth depth(dict.sandbox, 4);
    if (dict.entries.empty()) {
      out_.add("{}");
      return;
    }
    std::vector<const std::pair<Value, Value>*> entries;
    for (const auto& entry : dict.entries) {
      entries.push_back(&entry);
    }
    if (style_.sort_keys) {
      std::stable_sort(entries.begin(), entries.end(),
                       [](const auto* a, const auto* b) { return less(a->first, b->first); });
    }
    out_.add("{");
    bool first = true;
    for (const auto* entry : entries) {
      dict.sandbox.step();
      if (!std::exchange(first, false)) {
        out_.add(style_.item_separator);
      }
      line(level + 1);
      key(entry->first);
      out_.add(style_.key_separator);
      value(entry->second, level + 1);
    }
    line(level);
    out_.add("}");
  }

  TextBuilder& out_;
  const JsonStyle& style_;
};

}  // namespace

void print(TextBuilder& out, const Value& v) {
  if (v.is_string()) {
    out.add(v.text());
  } else if (!v.is_undefined()) {
    Printer(out).repr(v);
  }
}

Value to_string(Sandbox& sandbox, const Value& v) {
  if (v.is_string()) {
    return v;
  }
  TextBuilder out(sandbox);
  print(out, v);
  return out.take();
}

Value repr(Sandbox& sandbox, const Value& v) {
  TextBuilder out(sandbox);
  Printer(out).repr(v);
  return out.take();
}

Value to_json(Sandbox& sandbox, const Value& v, const JsonStyle& style) {
  TextBuilder out(sandbox);
  JsonPrinter(out, style).value(v, 0);
  return out.take();
}

Value from_json(Sandbox& sandbox, const nlohmann::ordered_json& json) {
  const Sandbox::Depth depth(sandbox, 4);
  sandbox.step();
  switch (json.type()) {
    case nlohmann::ordered_json::value_t::boolean:
      return Value::boolean(json.get<bool>());
    case nlohmann::ordered_json::value_t::number_integer:
      return Value::integer(json.get<int64_t>());
    case nlohmann::ordered_json::value_t::number_unsigned:
      return Value::integer(json.get<uint64_t>());
    case nlohmann::ordered_json::value_t::number_float:
      return Value::real(json.get<double>());
    case nlohmann::ordered_json::value_t::string:
      return sandbox.string(json.get<std::string>());
    case nlohmann::ordered_json::value_t::array: {
      Ref<ListObject> list = sandbox.list();
      for (const auto& item : json) {
        list->add(from_json(sandbox, item));
      }
      return list;
    }
    case nlohmann::ordered_json::value_t::object: {
      Ref<DictObject> dict = sandbox.make<DictObject>();
      for (const auto& [key, item] : json.items()) {
        dict->set(sandbox.string(key), from_json(sandbox, item));
      }
      return dict;
    }
    default:
      return Value();
  }
}

}  // namespace hetero::jinja
