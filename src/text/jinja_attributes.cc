// The attributes of values other than strings: methods of dicts and lists, members of namespaces,
// what a loop knows.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "text/jinja_builtins.h"
#include "text/jinja_eval.h"
#include "text/jinja_ops.h"

namespace hetero::jinja {
namespace {

struct Function : CallableObject {
  Function(Sandbox& s, std::string n, Method m, Value v)
      : CallableObject(s, std::move(n)), method(m), self(std::move(v)) {}
  Value call(Renderer& r, Arguments& arguments) override { return method(r, self, arguments); }
  std::string describe() override { return fmt::format("<function {}>", name); }
  void drop_references() override { self = Value(); }
  const Method method;
  Value self;
};

// What the sandbox hides: these would change a value.
constexpr std::array<std::string_view, 8> kListChanges = {"append", "clear", "pop",    "reverse",
                                                          "insert", "sort",  "extend", "remove"};
constexpr std::array<std::string_view, 5> kDictChanges = {"clear", "pop", "popitem", "setdefault", "update"};

template <size_t N>
bool has(const std::array<std::string_view, N>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

template <DictViewObject::Part part>
Value dict_view(Renderer& r, const Value& self, Arguments& arguments) {
  const Bound bound("dict method", arguments, {});
  return r.sandbox.make<DictViewObject>(Ref<DictObject>(&self.as<DictObject>()), part);
}

Value dict_get(Renderer&, const Value& self, Arguments& arguments) {
  const Bound bound("get", arguments, {"", ""}, 1);
  const Value* found = self.as<DictObject>().find(bound.at(0));
  return found != nullptr ? *found : bound.get(1, Value());
}

// A copy of what cannot change is the thing itself.
Value copy(Renderer&, const Value& self, Arguments& arguments) {
  const Bound bound("copy", arguments, {});
  return self;
}

Value sequence_count(Renderer& r, const Value& self, Arguments& arguments) {
  const Bound bound("count", arguments, {""}, 1);
  int64_t n = 0;
  const Ref<IteratorObject> it = iterate(r.sandbox, self);
  for (Value item; it->next(item);) {
    n += identical(item, bound.at(0)) || equal(item, bound.at(0)) ? 1 : 0;
  }
  return Value::integer(n);
}

Value sequence_index(Renderer& r, const Value& self, Arguments& arguments) {
  const Bound bound("index", arguments, {"", "", ""}, 1);
  const int64_t size = length(self);
  const auto position = [&](size_t i, int64_t otherwise) {
    const int64_t at = bound.has(i) ? to_index(bound.at(i)) : otherwise;
    return std::max<int64_t>(at < 0 ? at + size : at, 0);
  };
  const int64_t start = position(1, 0);
  const int64_t end = std::min(position(2, size), size);
  const Ref<IteratorObject> it = iterate(r.sandbox, self);
  int64_t i = 0;
  for (Value item; i < end && it->next(item); ++i) {
    if (i >= start && (identical(item, bound.at(0)) || equal(item, bound.at(0)))) {
      return Value::integer(i);
    }
  }
  fail("ValueError", fmt::format("{} is not in {}", repr(r.sandbox, bound.at(0)).text(), type_name(self)));
}

Value loop_cycle(Renderer&, const Value& self, Arguments& arguments) {
  if (arguments.positional.empty()) {
    fail("TypeError", "no items for cycling given");
  }
  return arguments
      .positional[static_cast<size_t>(self.as<LoopObject>().index0) % arguments.positional.size()];
}

Value loop_changed(Renderer& r, const Value& self, Arguments& arguments) {
  Ref<ListObject> values = r.sandbox.tuple();
  for (const Value& v : arguments.positional) {
    values->add(v);
  }
  LoopObject& loop = self.as<LoopObject>();
  const bool changed = loop.changed.is_none() || !equal(loop.changed, values);
  loop.changed = changed ? Value(values) : loop.changed;
  return Value::boolean(changed);
}

std::optional<Value> loop_attribute(Sandbox& sandbox, LoopObject& loop, std::string_view name) {
  Value next;
  if (name == "index") {
    return Value::integer(loop.index0 + 1);
  }
  if (name == "index0") {
    return Value::integer(loop.index0);
  }
  if (name == "first") {
    return Value::boolean(loop.index0 == 0);
  }
  if (name == "last") {
    return Value::boolean(!loop.peek(next));
  }
  if (name == "length") {
    return Value::integer(loop.length());
  }
  if (name == "revindex") {
    return Value::integer(loop.length() - loop.index0);
  }
  if (name == "revindex0") {
    return Value::integer(loop.length() - loop.index0 - 1);
  }
  if (name == "depth") {
    return Value::integer(loop.depth0 + 1);
  }
  if (name == "depth0") {
    return Value::integer(loop.depth0);
  }
  if (name == "previtem") {
    return loop.index0 == 0 ? sandbox.undefined("there is no previous item") : loop.before;
  }
  if (name == "nextitem") {
    return loop.peek(next) ? next : sandbox.undefined("there is no next item");
  }
  if (name == "cycle") {
    return make_function(sandbox, "cycle", loop_cycle, Value(&loop));
  }
  if (name == "changed") {
    return make_function(sandbox, "changed", loop_changed, Value(&loop));
  }
  return std::nullopt;
}

Value number_self(Renderer&, const Value& self, Arguments&) {
  return self;
}

Value is_whole(Renderer&, const Value& self, Arguments&) {
  return Value::boolean(self.real() - static_cast<double>(static_cast<int64_t>(self.real())) == 0);
}

Value bit_length(Renderer&, const Value& self, Arguments&) {
  int bits = 0;
  for (Int rest = self.integer(); rest != 0; rest /= 2) {
    ++bits;
  }
  return Value::integer(bits);
}

std::optional<Value> number_attribute(Sandbox& sandbox, const Value& v, std::string_view name) {
  if (name == "real" || (name == "numerator" && v.is_integral())) {
    return v.is_integral() ? Value::integer(v.integer()) : v;
  }
  if (name == "imag") {
    return v.is_integral() ? Value::integer(0) : Value::real(0);
  }
  if (name == "denominator" && v.is_integral()) {
    return Value::integer(1);
  }
  if (name == "conjugate") {
    return make_function(sandbox, "conjugate", number_self, v);
  }
  if (name == "bit_length" && v.is_integral()) {
    return make_function(sandbox, "bit_length", bit_length, v);
  }
  if (name == "is_integer" && v.is(Kind::kFloat)) {
    return make_function(sandbox, "is_integer", is_whole, v);
  }
  return std::nullopt;
}

std::optional<Value> macro_attribute(Sandbox& sandbox, CallableObject& callable, std::string_view name) {
  const auto* macro = dynamic_cast<MacroObject*>(&callable);
  if (macro == nullptr) {
    return std::nullopt;
  }
  const MacroSignature& signature = *macro->node.macro;
  if (name == "name") {
    return sandbox.string(macro->name);
  }
  if (name == "arguments") {
    Ref<ListObject> names = sandbox.tuple();
    for (const Parameter& parameter : signature.parameters) {
      names->add(sandbox.string(parameter.name));
    }
    return names;
  }
  if (name == "caller" || name == "catch_kwargs" || name == "catch_varargs") {
    return Value::boolean(name == "caller"         ? signature.uses_caller
                          : name == "catch_kwargs" ? signature.uses_kwargs
                                                   : signature.uses_varargs);
  }
  return std::nullopt;
}

Method dict_method(std::string_view name) {
  using Part = DictViewObject::Part;
  return name == "items"    ? dict_view<Part::kItems>
         : name == "keys"   ? dict_view<Part::kKeys>
         : name == "values" ? dict_view<Part::kValues>
         : name == "get"    ? dict_get
         : name == "copy"   ? copy
                            : nullptr;
}

Method sequence_method(Kind kind, std::string_view name) {
  return name == "count"                         ? sequence_count
         : name == "index"                       ? sequence_index
         : name == "copy" && kind == Kind::kList ? copy
                                                 : nullptr;
}

}  // namespace

Value make_function(Sandbox& sandbox, std::string name, Method method, Value self) {
  return sandbox.make<Function>(std::move(name), method, std::move(self));
}

std::optional<Value> find_attribute(Sandbox& sandbox, const Value& object, std::string_view name) {
  const auto bound = [&](Method method) -> std::optional<Value> {
    return method != nullptr ? std::optional(make_function(sandbox, std::string(name), method, object))
                             : std::nullopt;
  };
  const auto unsafe = [&]() -> std::optional<Value> {
    return sandbox.make<UndefinedObject>(
        fmt::format("access to attribute '{}' of '{}' object is unsafe.", name, type_name(object)),
        "SecurityError");
  };
  switch (object.kind()) {
    case Kind::kBool:
    case Kind::kInt:
    case Kind::kFloat:
      return number_attribute(sandbox, object, name);
    case Kind::kString:
      return bound(find_string_method(name));
    case Kind::kDict:
      return has(kDictChanges, name) ? unsafe() : bound(dict_method(name));
    case Kind::kList:
      return has(kListChanges, name) ? unsafe() : bound(sequence_method(object.kind(), name));
    case Kind::kTuple:
      if ((name == "grouper" || name == "list") && dynamic_cast<GroupObject*>(object.object()) != nullptr) {
        return object.items()[name == "grouper" ? 0 : 1];
      }
      return bound(sequence_method(object.kind(), name));
    case Kind::kRange: {
      const RangeObject& r = object.as<RangeObject>();
      if (name == "start" || name == "stop" || name == "step") {
        return Value::integer(name == "start" ? r.begin : name == "stop" ? r.end : r.step);
      }
      return bound(sequence_method(object.kind(), name));
    }
    case Kind::kNamespace: {
      const Value* found = object.as<NamespaceObject>().find(name);
      return found != nullptr ? std::optional(*found) : std::nullopt;
    }
    case Kind::kLoop:
      return loop_attribute(sandbox, object.as<LoopObject>(), name);
    case Kind::kCycler:
      return find_cycler_attribute(sandbox, object, name);
    case Kind::kCallable:
      return macro_attribute(sandbox, object.as<CallableObject>(), name);
    default:
      return std::nullopt;
  }
}

Bound::Bound(std::string_view function, const Arguments& arguments,
             std::initializer_list<std::string_view> names, size_t required)
    : function_(function), values_(names.size(), nullptr) {
  if (arguments.positional.size() > names.size()) {
    fail("TypeError", fmt::format("{}() takes at most {} argument(s) ({} given)", function, names.size(),
                                  arguments.positional.size()));
  }
  for (size_t i = 0; i < arguments.positional.size(); ++i) {
    values_[i] = &arguments.positional[i];
  }
  for (const auto& [name, value] : arguments.named) {
    const auto* const it = name.empty() ? names.end() : std::find(names.begin(), names.end(), name);
    if (it == names.end()) {
      fail("TypeError", fmt::format("{}() got an unexpected keyword argument '{}'", function, name));
    }
    const Value*& slot = values_[static_cast<size_t>(it - names.begin())];
    if (slot != nullptr) {
      fail("TypeError", fmt::format("{}() got multiple values for argument '{}'", function, name));
    }
    slot = &value;
  }
  for (size_t i = 0; i < required; ++i) {
    if (values_[i] == nullptr) {
      fail("TypeError", fmt::format("{}() takes at least {} argument(s)", function, required));
    }
  }
}

int64_t Bound::integer(size_t i, int64_t otherwise) const {
  return has(i) ? to_index(*values_[i]) : otherwise;
}

std::string_view Bound::text(size_t i, std::string_view otherwise) const {
  if (!has(i)) {
    return otherwise;
  }
  if (values_[i]->is_undefined()) {
    values_[i]->as<UndefinedObject>().raise();
  }
  if (!values_[i]->is_string()) {
    fail("TypeError",
         fmt::format("{}() argument {} must be str, not {}", function_, i + 1, type_name(*values_[i])));
  }
  return values_[i]->text();
}

}  // namespace hetero::jinja
