#include "text/jinja_eval.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "text/jinja_builtins.h"

namespace hetero::jinja {
namespace {

// Weights of one level of recursion, see Sandbox::Depth: about the stack that each takes.
constexpr int kStatementDepth = 1;
constexpr int kCallDepth = 5;

}  // namespace

// Runs the `if` of a loop's head on each item.
class LoopFilter : public IteratorObject {
 public:
  LoopFilter(Sandbox& s, Renderer& r, const Stmt& node, Ref<Scope> scope, Ref<IteratorObject> source)
      : IteratorObject(s, "generator"),
        renderer_(r),
        node_(node),
        scope_(std::move(scope)),
        source_(std::move(source)) {}
  bool next(Value& out) override {
    while (source_ && source_->next(out)) {
      const Ref<Scope> outer = std::exchange(renderer_.scope_, sandbox.make<Scope>(scope_));
      renderer_.assign(*node_.target, out);
      const bool fits = truth(renderer_.eval(*node_.condition));
      renderer_.scope_ = outer;
      if (fits) {
        return true;
      }
    }
    return false;
  }
  void drop_references() override {
    scope_ = {};
    source_ = {};
  }

 private:
  Renderer& renderer_;
  const Stmt& node_;
  Ref<Scope> scope_;
  Ref<IteratorObject> source_;
};

const Value* Scope::find(int id) const {
  for (const auto& [name, value] : names) {
    if (name == id) {
      return &value;
    }
  }
  return nullptr;
}

void Scope::set(int id, Value v) {
  for (auto& [name, value] : names) {
    if (name == id) {
      value = std::move(v);
      return;
    }
  }
  charge(sizeof(names[0]));
  names.emplace_back(id, std::move(v));
}

void Scope::drop_references() {
  parent = {};
  names.clear();
}

bool LoopObject::peek(Value& out) {
  if (ahead.empty()) {
    Value next;
    if (!iterator || !iterator->next(next)) {
      return false;
    }
    ahead.push_back(std::move(next));
  }
  out = ahead.front();
  return true;
}

bool LoopObject::advance(Value& out) {
  if (!peek(out)) {
    return false;
  }
  ahead.pop_front();
  ++index0;
  before = std::exchange(now, out);
  return true;
}

int64_t LoopObject::length() {
  if (!known_length && has_length(iterable)) {
    known_length = jinja::length(iterable);
  }
  if (!known_length) {
    for (Value next; iterator->next(next);) {
      charge(sizeof(Value));
      ahead.push_back(next);
    }
    known_length = static_cast<int64_t>(ahead.size()) + index0 + 1;
  }
  return *known_length;
}

std::string LoopObject::describe() {
  return fmt::format("<LoopContext {}/{}>", index0 + 1, length());
}

void LoopObject::drop_references() {
  scope = {};
  iterator = {};
  iterable = before = now = changed = {};
  ahead.clear();
}

Value MacroObject::call(Renderer& r, Arguments& arguments) {
  return r.call_macro(*this, arguments);
}

Renderer::Renderer(const Template& tree, Sandbox& s, std::tm n)
    : sandbox(s),
      now(n),
      tree_(tree),
      constants_(static_cast<size_t>(tree.constants)),
      globals_(tree.names.size()) {}

std::string Renderer::run(const nlohmann::ordered_json& context) {
  TextBuilder out(sandbox);
  out_ = &out;
  try {
    scope_ = sandbox.make<Scope>(Ref<Scope>());
    for (size_t id = 0; id < tree_.names.size(); ++id) {
      if (const auto it = context.find(tree_.names[id]); it != context.end()) {
        scope_->set(static_cast<int>(id), from_json(sandbox, *it));
      }
    }
    exec(tree_.body);
  } catch (Error& e) {
    e.line = e.line != 0 ? e.line : line_;
    throw;
  }
  return out.text();
}

template <class Run>
Value Renderer::captured(Run run) {
  TextBuilder text(sandbox);
  TextBuilder* outer = std::exchange(out_, &text);
  run();
  out_ = outer;  // on an error the whole render ends, and nothing is written any more
  return text.take();
}

Renderer::Flow Renderer::exec(const Body& body) {
  for (const StmtPtr& node : body) {
    if (const Flow flow = exec(*node); flow != Flow::kNormal) {
      return flow;
    }
  }
  return Flow::kNormal;
}

Renderer::Flow Renderer::exec_scoped(const Body& body) {
  const Ref<Scope> outer = scope_;
  scope_ = sandbox.make<Scope>(outer);
  const Flow flow = exec(body);
  scope_ = outer;
  return flow;
}

Renderer::Flow Renderer::exec(const Stmt& node) {
  const Sandbox::Depth depth(sandbox, kStatementDepth);
  sandbox.step();
  line_ = node.line;
  switch (node.type) {
    case StmtType::kText:
      out_->add(node.text);
      break;
    case StmtType::kOutput:
      print(*out_, eval(*node.value));
      break;
    case StmtType::kIf:
      for (const auto& [condition, body] : node.branches) {
        if (truth(eval(*condition))) {
          return exec(body);
        }
      }
      return exec(node.otherwise);
    case StmtType::kFor:
      return exec_for(node);
    case StmtType::kSet:
      assign(*node.target, eval(*node.value));
      break;
    case StmtType::kSetBlock: {
      Flow flow = Flow::kNormal;
      const Value text = captured([&] { flow = exec_scoped(node.body); });
      if (flow != Flow::kNormal) {
        return flow;
      }
      assign(*node.target, node.value != nullptr ? apply_filters(*node.value, text) : text);
      break;
    }
    case StmtType::kMacro:
      scope_->set(node.id, sandbox.make<MacroObject>(node, scope_));
      break;
    case StmtType::kCall: {
      const Expr& call_node = *node.value;
      const Value callee = eval(*call_node.children[0]);
      Arguments arguments = eval_arguments(*call_node.arguments);
      arguments.named.emplace_back("caller", sandbox.make<MacroObject>(node, scope_));
      write_text(call(callee, arguments));
      break;
    }
    case StmtType::kFilter: {
      Flow flow = Flow::kNormal;
      const Value text = captured([&] { flow = exec_scoped(node.body); });
      if (flow != Flow::kNormal) {
        return flow;
      }
      write_text(apply_filters(*node.value, text));
      break;
    }
    case StmtType::kWith: {
      const Ref<Scope> outer = scope_;
      const Ref<Scope> inner = sandbox.make<Scope>(outer);
      for (const auto& [target, value] : node.assignments) {
        const Value v = eval(*value);
        scope_ = inner;
        assign(*target, v);
        scope_ = outer;
      }
      scope_ = inner;
      const Flow flow = exec(node.body);
      scope_ = outer;
      return flow;
    }
    case StmtType::kScope:
      return exec_scoped(node.body);
    case StmtType::kBreak:
      return Flow::kBreak;
    case StmtType::kContinue:
      return Flow::kContinue;
    case StmtType::kFail:
      throw Error{Code::kUnsupported, node.text, node.line};
  }
  return Flow::kNormal;
}

void Renderer::write_text(const Value& v) {
  if (!v.is_string()) {
    fail("TypeError", fmt::format("the block must give a str, not {}", type_name(v)));
  }
  out_->add(v.text());
}

Renderer::Flow Renderer::exec_for(const Stmt& node) {
  return run_loop(node, eval(*node.value), 0);
}

Renderer::Flow Renderer::run_loop(const Stmt& node, const Value& iterable, int64_t depth0) {
  const Ref<Scope> outer = scope_;
  Ref<IteratorObject> iterator = iterate(sandbox, iterable);
  Value sized = iterable;
  if (node.condition != nullptr) {
    iterator = Ref<IteratorObject>(sandbox.make<LoopFilter>(*this, node, outer, iterator).get());
    sized = Value();
  }
  const Ref<LoopObject> loop = sandbox.make<LoopObject>(node, outer, sized, iterator, depth0);
  bool finished_one = false;
  for (Value current; loop->advance(current);) {
    sandbox.step();
    scope_ = sandbox.make<Scope>(outer);
    scope_->set(kNameLoop, loop);
    assign(*node.target, current);
    const Flow flow = exec(node.body);
    scope_ = outer;
    if (flow == Flow::kBreak) {
      break;
    }
    finished_one = finished_one || flow == Flow::kNormal;
  }
  // As in Jinja, a turn that `break` or `continue` ended does not count as one.
  return finished_one || node.otherwise.empty() ? Flow::kNormal : exec_scoped(node.otherwise);
}

Value Renderer::recurse(LoopObject& loop, const Value& iterable) {
  if (!loop.node.recursive) {
    fail("TypeError", "the loop must have the 'recursive' marker to be called recursively");
  }
  const Sandbox::Depth depth(sandbox, kCallDepth);
  const Ref<Scope> outer = std::exchange(scope_, loop.scope);
  const Value text = captured([&] { run_loop(loop.node, iterable, loop.depth0 + 1); });
  scope_ = outer;
  return text;
}

// Sorts the arguments of a call into a macro's parameters, in the order that Jinja does it.
Value Renderer::call_macro(MacroObject& macro, Arguments& arguments) {
  const Sandbox::Depth depth(sandbox, kCallDepth);
  const MacroSignature& signature = *macro.node.macro;
  const Ref<Scope> outer = scope_;
  const Ref<Scope> inner = sandbox.make<Scope>(macro.scope);
  const auto take = [&](std::string_view name) -> std::optional<Value> {
    for (auto it = arguments.named.begin(); it != arguments.named.end(); ++it) {
      if (it->first == name) {
        Value v = std::move(it->second);
        arguments.named.erase(it);
        return v;
      }
    }
    return std::nullopt;
  };
  scope_ = inner;
  std::vector<const Parameter*> missing;
  for (size_t i = 0; i < signature.parameters.size(); ++i) {
    const Parameter& parameter = signature.parameters[i];
    if (i < arguments.positional.size()) {
      inner->set(parameter.id, arguments.positional[i]);
    } else if (std::optional<Value> named = take(parameter.name)) {
      inner->set(parameter.id, std::move(*named));
    } else {
      missing.push_back(&parameter);
      inner->set(parameter.id,
                 sandbox.undefined(fmt::format("parameter '{}' was not provided", parameter.name)));
    }
  }
  if (signature.uses_caller) {
    std::optional<Value> caller = take("caller");
    inner->set(kNameCaller,
               caller && !caller->is_none() ? std::move(*caller) : sandbox.undefined("No caller defined"));
  }
  if (signature.uses_kwargs) {
    Ref<DictObject> rest = sandbox.make<DictObject>();
    for (const auto& [name, value] : arguments.named) {
      rest->set(sandbox.string(name), value);
    }
    inner->set(kNameKwargs, rest);
  } else if (!arguments.named.empty()) {
    fail("TypeError",
         fmt::format("macro '{}' takes no keyword argument '{}'", macro.name, arguments.named.front().first));
  }
  if (signature.uses_varargs) {
    Ref<ListObject> rest = sandbox.tuple();
    for (size_t i = signature.parameters.size(); i < arguments.positional.size(); ++i) {
      rest->add(arguments.positional[i]);
    }
    inner->set(kNameVarargs, rest);
  } else if (arguments.positional.size() > signature.parameters.size()) {
    fail("TypeError", fmt::format("macro '{}' takes not more than {} argument(s)", macro.name,
                                  signature.parameters.size()));
  }
  for (const Parameter* parameter : missing) {
    if (parameter->fallback != nullptr) {
      inner->set(parameter->id, eval(*parameter->fallback));
    }
  }
  const Value text = captured([&] { exec(macro.node.body); });
  scope_ = outer;
  return text;
}

}  // namespace hetero::jinja
