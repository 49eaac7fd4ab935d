#include <fmt/format.h>

#include "text/jinja_builtins.h"
#include "text/jinja_eval.h"
#include "text/jinja_ops.h"

namespace hetero::jinja {
namespace {

// How messages about a missing attribute name the object.
std::string describe_object(const Value& v) {
  switch (v.kind()) {
    case Kind::kNone:
      return "None";
    case Kind::kNamespace:
      return "jinja2.utils.Namespace object";
    case Kind::kCycler:
      return "jinja2.utils.Cycler object";
    case Kind::kLoop:
      return "jinja2.runtime.LoopContext object";
    default:
      return fmt::format("{} object", type_name(v));
  }
}

}  // namespace

Value Renderer::eval(const Expr& e) {
  const Sandbox::Depth depth(sandbox, 1);
  sandbox.step();
  line_ = e.line;
  switch (e.type) {
    case ExprType::kNone:
      return {};
    case ExprType::kBool:
      return Value::boolean(e.integer != 0);
    case ExprType::kInteger:
      return Value::integer(e.integer);
    case ExprType::kFloat:
      return Value::real(e.real);
    case ExprType::kString: {
      Value& constant = constants_[static_cast<size_t>(e.id)];
      if (constant.is_none()) {
        constant = sandbox.string(e.text);
      }
      return constant;
    }
    case ExprType::kName:
      return eval_name(e);
    case ExprType::kTuple:
    case ExprType::kList: {
      Ref<ListObject> list = e.type == ExprType::kList ? sandbox.list() : sandbox.tuple();
      for (const ExprPtr& child : e.children) {
        list->add(eval(*child));
      }
      return list;
    }
    case ExprType::kDict: {
      Ref<DictObject> dict = sandbox.make<DictObject>();
      for (size_t i = 0; i < e.children.size(); i += 2) {
        const Value key = eval(*e.children[i]);
        dict->set(key, eval(*e.children[i + 1]));
      }
      return dict;
    }
    case ExprType::kIf:
      if (truth(eval(*e.children[0]))) {
        return eval(*e.children[1]);
      }
      if (e.children.size() > 2) {
        return eval(*e.children[2]);
      }
      return sandbox.undefined(fmt::format(
          "the inline if-expression on line {} evaluated to false and no else section was defined.", e.line));
    case ExprType::kAnd:
    case ExprType::kOr: {
      Value left = eval(*e.children[0]);
      return truth(left) == (e.type == ExprType::kAnd) ? eval(*e.children[1]) : left;
    }
    case ExprType::kNot:
      return Value::boolean(!truth(eval(*e.children[0])));
    case ExprType::kNegate:
      return negate(eval(*e.children[0]));
    case ExprType::kPlus: {
      const Value v = eval(*e.children[0]);
      return v.is(Kind::kFloat) ? v : negate(negate(v));
    }
    case ExprType::kBinary: {
      const Value left = eval(*e.children[0]);
      return arithmetic(sandbox, e.operators[0], left, eval(*e.children[1]));
    }
    case ExprType::kCompare:
      return Value::boolean(eval_compare(e));
    case ExprType::kConcat:
      return eval_concat(e);
    case ExprType::kAttribute:
      return attribute(eval(*e.children[0]), e.text);
    case ExprType::kItem:
      return eval_item(e);
    case ExprType::kCall:
      return eval_call(e);
    case ExprType::kFilter: {
      const Value v = eval(*e.children[0]);
      Arguments arguments = eval_arguments(*e.arguments);
      return filter(e.text, v, arguments);
    }
    case ExprType::kTest: {
      const Value v = eval(*e.children[0]);
      Arguments arguments = eval_arguments(*e.arguments);
      return Value::boolean(test(e.text, v, arguments));
    }
    case ExprType::kSlice:
      fail("TypeError", "a slice is no value of its own");
    case ExprType::kNamespaceSet:
      break;
  }
  return {};
}

Value Renderer::eval_name(const Expr& e) {
  for (const Scope* s = scope_.get(); s != nullptr; s = s->parent.get()) {
    if (const Value* v = s->find(e.id)) {
      return *v;
    }
  }
  std::optional<Value>& global = globals_[static_cast<size_t>(e.id)];
  if (!global) {
    global = find_global(sandbox, e.text);
  }
  if (!global) {
    global = sandbox.undefined(fmt::format("'{}' is undefined", e.text));
  }
  return *global;
}

bool Renderer::eval_compare(const Expr& e) {
  Value left = eval(*e.children[0]);
  for (size_t i = 0; i < e.operators.size(); ++i) {
    Value right = eval(*e.children[i + 1]);
    if (!compare(e.operators[i], left, right)) {
      return false;
    }
    left = std::move(right);
  }
  return true;
}

Value Renderer::eval_concat(const Expr& e) {
  std::vector<Value> parts;
  for (const ExprPtr& child : e.children) {
    parts.push_back(eval(*child));
  }
  TextBuilder out(sandbox);
  for (const Value& part : parts) {
    print(out, part);
  }
  return out.take();
}

Value Renderer::eval_item(const Expr& e) {
  const Value object = eval(*e.children[0]);
  const Expr& index = *e.children[1];
  if (index.type != ExprType::kSlice) {
    return item(object, eval(index));
  }
  Value parts[3];
  for (size_t i = 0; i < 3; ++i) {
    if (index.children[i] != nullptr) {
      parts[i] = eval(*index.children[i]);
    }
  }
  return slice(sandbox, object, parts[0], parts[1], parts[2]);
}

Value Renderer::eval_call(const Expr& e) {
  const Value callee = eval(*e.children[0]);
  Arguments arguments = eval_arguments(*e.arguments);
  line_ = e.line;
  return call(callee, arguments);
}

Arguments Renderer::eval_arguments(const CallArguments& arguments) {
  Arguments out;
  for (const ExprPtr& argument : arguments.positional) {
    out.positional.push_back(eval(*argument));
  }
  if (arguments.more_positional != nullptr) {
    const Ref<ListObject> more = to_list(sandbox, eval(*arguments.more_positional));
    out.positional.insert(out.positional.end(), more->items.begin(), more->items.end());
  }
  for (const auto& [name, argument] : arguments.named) {
    out.named.emplace_back(name, eval(*argument));
  }
  if (arguments.more_named == nullptr) {
    return out;
  }
  const Value more = eval(*arguments.more_named);
  if (!more.is(Kind::kDict)) {
    fail("TypeError", fmt::format("argument after ** must be a mapping, not {}", type_name(more)));
  }
  for (const auto& [key, value] : more.as<DictObject>().entries) {
    if (!key.is_string()) {
      fail("TypeError", "keywords must be strings");
    }
    for (size_t i = 0; i < arguments.named.size(); ++i) {
      if (out.named[i].first == key.text()) {
        fail("TypeError", fmt::format("got multiple values for keyword argument '{}'", key.text()));
      }
    }
    out.named.emplace_back(std::string(key.text()), value);
  }
  return out;
}

Value Renderer::apply_filters(const Expr& e, const Value& text) {
  const Value v = e.children[0] != nullptr ? apply_filters(*e.children[0], text) : text;
  Arguments arguments = eval_arguments(*e.arguments);
  return filter(e.text, v, arguments);
}

void Renderer::assign(const Expr& target, const Value& v) {
  if (target.type == ExprType::kName) {
    scope_->set(target.id, v);
    return;
  }
  if (target.type == ExprType::kNamespaceSet) {
    const Value* object = nullptr;
    for (const Scope* s = scope_.get(); s != nullptr && object == nullptr; s = s->parent.get()) {
      object = s->find(target.id);
    }
    if (object == nullptr || !object->is(Kind::kNamespace)) {
      fail("TemplateRuntimeError", "cannot assign attribute on non-namespace object");
    }
    object->as<NamespaceObject>().set(target.text, v);
    return;
  }
  if (!is_iterable(v)) {
    fail("TypeError", fmt::format("cannot unpack non-iterable {} object", type_name(v)));
  }
  const size_t wanted = target.children.size();
  const Ref<IteratorObject> it = iterate(sandbox, v);
  std::vector<Value> items;
  for (Value next; items.size() <= wanted && it->next(next);) {
    items.push_back(next);
  }
  if (items.size() > wanted) {
    fail("ValueError", fmt::format("too many values to unpack (expected {})", wanted));
  }
  if (items.size() < wanted) {
    fail("ValueError",
         fmt::format("not enough values to unpack (expected {}, got {})", wanted, items.size()));
  }
  for (size_t i = 0; i < wanted; ++i) {
    assign(*target.children[i], items[i]);
  }
}

Value Renderer::call(const Value& callee, Arguments& arguments) {
  const Sandbox::Depth depth(sandbox, 1);
  switch (callee.kind()) {
    case Kind::kUndefined:
      callee.as<UndefinedObject>().raise();
    case Kind::kCallable:
      return callee.as<CallableObject>().call(*this, arguments);
    case Kind::kLoop: {
      const Bound bound("loop", arguments, {"iterable"}, 1);
      return recurse(callee.as<LoopObject>(), bound.at(0));
    }
    default:
      fail("TypeError", fmt::format("'{}' object is not callable", type_name(callee)));
  }
}

Value Renderer::filter(std::string_view name, const Value& value, Arguments& arguments) {
  const Sandbox::Depth depth(sandbox, 1);
  const Filter found = find_filter(name);
  if (found == nullptr) {
    fail("TemplateRuntimeError", fmt::format("No filter named '{}' found.", name));
  }
  return found(*this, value, arguments);
}

bool Renderer::test(std::string_view name, const Value& value, Arguments& arguments) {
  const Test found = find_test(name);
  if (found == nullptr) {
    fail("TemplateRuntimeError", fmt::format("No test named '{}' found.", name));
  }
  return found(*this, value, arguments);
}

Value Renderer::attribute(const Value& object, const std::string& name) {
  if (object.is_undefined()) {
    object.as<UndefinedObject>().raise();
  }
  if (std::optional<Value> found = find_attribute(sandbox, object, name)) {
    return std::move(*found);
  }
  if (object.is(Kind::kDict)) {
    if (const Value* found = object.as<DictObject>().find(std::string_view(name))) {
      return *found;
    }
  }
  return sandbox.undefined(fmt::format("'{}' has no attribute '{}'", describe_object(object), name));
}

Value Renderer::item(const Value& object, const Value& key) {
  if (object.is_undefined()) {
    object.as<UndefinedObject>().raise();
  }
  if (std::optional<Value> found = find_item(object, key)) {
    return std::move(*found);
  }
  if (!key.is_string()) {
    const Value shown = repr(sandbox, key);
    return sandbox.undefined(fmt::format("'{}' has no element {}", describe_object(object), shown.text()));
  }
  if (std::optional<Value> found = find_attribute(sandbox, object, key.text())) {
    return std::move(*found);
  }
  return sandbox.undefined(fmt::format("'{}' has no attribute '{}'", describe_object(object), key.text()));
}

}  // namespace hetero::jinja
