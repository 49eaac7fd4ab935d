// The functions that every template can call.
#include <fmt/format.h>

#include <array>

#include "text/jinja_builtins.h"
#include "text/jinja_eval.h"
#include "text/jinja_ops.h"

namespace hetero::jinja {
namespace {

constexpr Int kMaxRange = 100'000;  // of Jinja's sandbox

struct Cycler : Object {
  explicit Cycler(Sandbox& s) : Object(s, Kind::kCycler) {}
  std::string describe() override { return "<jinja2.utils.Cycler object>"; }
  void drop_references() override { items.clear(); }
  std::vector<Value> items;
  size_t position = 0;
};

// A separator that is empty the first time.
struct Joiner : CallableObject {
  Joiner(Sandbox& s, Value sep) : CallableObject(s, "joiner"), separator(std::move(sep)) {}
  Value call(Renderer& r, Arguments& arguments) override {
    const Bound bound("joiner", arguments, {});
    return std::exchange(used, true) ? separator : r.sandbox.string("");
  }
  std::string describe() override { return "<jinja2.utils.Joiner object>"; }
  void drop_references() override { separator = Value(); }
  Value separator;
  bool used = false;
};

Value range(Renderer& r, const Value&, Arguments& arguments) {
  const Bound bound("range", arguments, {"", "", ""}, 1);
  const bool has_start = bound.has(1);
  const Int start = has_start ? to_index(bound.at(0)) : 0;
  const Int stop = to_index(bound.at(has_start ? 1 : 0));
  const Int step = bound.integer(2, 1);
  if (step == 0) {
    fail("ValueError", "range() arg 3 must not be zero");
  }
  Ref<RangeObject> result = r.sandbox.make<RangeObject>(start, stop, step);
  if (result->length() > kMaxRange) {
    fail("OverflowError", fmt::format("Range too big. The sandbox blocks ranges larger than MAX_RANGE ({}).",
                                      int_repr(kMaxRange)));
  }
  return result;
}

// The entries of dict(...) and namespace(...): a mapping or pairs, then keywords.
Ref<DictObject> make_dict(Renderer& r, std::string_view function, const Arguments& arguments) {
  Ref<DictObject> dict = r.sandbox.make<DictObject>();
  if (arguments.positional.size() > 1) {
    fail("TypeError",
         fmt::format("{} expected at most 1 argument, got {}", function, arguments.positional.size()));
  }
  if (!arguments.positional.empty() && arguments.positional[0].is(Kind::kDict)) {
    for (const auto& [key, value] : arguments.positional[0].as<DictObject>().entries) {
      r.sandbox.step();
      dict->set(key, value);
    }
  } else if (!arguments.positional.empty()) {
    const Ref<IteratorObject> it = iterate(r.sandbox, arguments.positional[0]);
    for (Value entry; it->next(entry);) {
      const Ref<ListObject> pair = to_list(r.sandbox, entry);
      if (pair->items.size() != 2) {
        fail("ValueError", fmt::format("dictionary update sequence element has length {}; 2 is required",
                                       pair->items.size()));
      }
      dict->set(pair->items[0], pair->items[1]);
    }
  }
  for (const auto& [name, value] : arguments.named) {
    dict->set(r.sandbox.string(name), value);
  }
  return dict;
}

Value dict(Renderer& r, const Value&, Arguments& arguments) {
  return make_dict(r, "dict", arguments);
}

Value make_namespace(Renderer& r, const Value&, Arguments& arguments) {
  const Ref<DictObject> members = make_dict(r, "namespace", arguments);
  Ref<NamespaceObject> result = r.sandbox.make<NamespaceObject>();
  for (const auto& [key, value] : members->entries) {
    r.sandbox.step();
    if (key.is_string()) {
      result->set(std::string(key.text()), value);
    }
  }
  return result;
}

Value cycler(Renderer& r, const Value&, Arguments& arguments) {
  if (arguments.positional.empty() || !arguments.named.empty()) {
    fail("RuntimeError", "at least one item has to be provided");
  }
  Ref<Cycler> result = r.sandbox.make<Cycler>();
  result->items = arguments.positional;
  result->charge(static_cast<int64_t>(sizeof(Value) * result->items.size()));
  return result;
}

Value cycler_next(Renderer&, const Value& self, Arguments&) {
  Cycler& c = self.as<Cycler>();
  const Value now = c.items[c.position];
  c.position = (c.position + 1) % c.items.size();
  return now;
}

Value cycler_reset(Renderer&, const Value& self, Arguments&) {
  self.as<Cycler>().position = 0;
  return {};
}

Value joiner(Renderer& r, const Value&, Arguments& arguments) {
  const Bound bound("joiner", arguments, {"sep"});
  return r.sandbox.make<Joiner>(bound.has(0) ? bound.at(0) : r.sandbox.string(", "));
}

Value lipsum(Renderer&, const Value&, Arguments&) {
  fail("TypeError", "lipsum is not supported in chat templates");
}

Value raise_exception(Renderer& r, const Value&, Arguments& arguments) {
  const Bound bound("raise_exception", arguments, {"message"}, 1);
  throw Error{Code::kInvalidArgument, std::string(to_string(r.sandbox, bound.at(0)).text())};
}

// One directive at a time, so that no result can be longer than the buffer. Python's clock has no
// time zone here, and counts microseconds.
Value strftime_now(Renderer& r, const Value&, Arguments& arguments) {
  const Bound bound("strftime_now", arguments, {"format"}, 1);
  const std::string_view format = bound.text(0);
  r.sandbox.scanned(format.size());
  TextBuilder out(r.sandbox);
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%') {
      out.add(format.substr(i, 1));
      continue;
    }
    const size_t start = i++;
    while (i < format.size() && std::string_view("-_0^#").find(format[i]) != kNotFound) {
      ++i;
    }
    const size_t digits = i;
    while (i < format.size() && i < digits + 2 && format[i] >= '0' && format[i] <= '9') {
      ++i;
    }
    if (i < format.size() && (format[i] == 'E' || format[i] == 'O')) {
      ++i;
    }
    const char directive = i < format.size() ? format[i] : '\0';
    if (directive == 'f') {
      out.add("000000");
    } else if (directive != 'z' && directive != 'Z') {
      char text[512];
      const std::string one(format.substr(start, i + 1 - start));
      r.sandbox.step();
      out.add({text, std::strftime(text, sizeof text, one.c_str(), &r.now)});
    }
  }
  return out.take();
}

}  // namespace

std::optional<Value> find_cycler_attribute(Sandbox& sandbox, const Value& object, std::string_view name) {
  Cycler& c = object.as<Cycler>();
  if (name == "current") {
    return c.items[c.position];
  }
  if (name == "pos") {
    return Value::integer(static_cast<Int>(c.position));
  }
  if (name == "next") {
    return make_function(sandbox, "next", cycler_next, object);
  }
  if (name == "reset") {
    return make_function(sandbox, "reset", cycler_reset, object);
  }
  return std::nullopt;
}

std::optional<Value> find_global(Sandbox& sandbox, std::string_view name) {
  static constexpr std::array<std::pair<std::string_view, Method>, 8> kGlobals = {{
      {"range", range},
      {"dict", dict},
      {"namespace", make_namespace},
      {"cycler", cycler},
      {"joiner", joiner},
      {"lipsum", lipsum},
      {"raise_exception", raise_exception},
      {"strftime_now", strftime_now},
  }};
  for (const auto& [known, method] : kGlobals) {
    if (known == name) {
      return make_function(sandbox, std::string(name), method);
    }
  }
  return std::nullopt;
}

}  // namespace hetero::jinja
