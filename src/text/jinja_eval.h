// Walks a template's tree and renders it.
#pragma once

#include <ctime>
#include <deque>
#include <optional>
#include <string>

#include "text/jinja_ast.h"
#include "text/jinja_value.h"

namespace hetero::jinja {

/// Names of one stretch of the template: the context, one turn of a loop, one call of a macro.
struct Scope : Object {
  Scope(Sandbox& s, Ref<Scope> p) : Object(s, Kind::kScope), parent(std::move(p)) {}
  const Value* find(int id) const;
  void set(int id, Value v);
  void drop_references() override;
  Ref<Scope> parent;
  std::vector<std::pair<int, Value>> names;
};

/// The `loop` variable. Looks at most one item ahead, unless the length is asked for.
struct LoopObject : Object {
  LoopObject(Sandbox& s, const Stmt& n, Ref<Scope> sc, Value i, Ref<IteratorObject> it, int64_t d)
      : Object(s, Kind::kLoop),
        node(n),
        scope(std::move(sc)),
        iterable(std::move(i)),
        iterator(std::move(it)),
        depth0(d) {}
  bool advance(Value& out);
  bool peek(Value& out);
  int64_t length();
  std::string describe() override;
  void drop_references() override;

  const Stmt& node;
  Ref<Scope> scope;  // where the loop stands; a recursive call goes on from here
  Value iterable;
  Ref<IteratorObject> iterator;
  std::deque<Value> ahead;
  std::optional<int64_t> known_length;
  int64_t index0 = -1;
  const int64_t depth0;
  Value before, now, changed;
};

struct MacroObject : CallableObject {
  MacroObject(Sandbox& s, const Stmt& n, Ref<Scope> sc)
      : CallableObject(s, n.text), node(n), scope(std::move(sc)) {}
  Value call(Renderer& r, Arguments& arguments) override;
  std::string describe() override { return name.empty() ? "<Macro anonymous>" : "<Macro " + quote(name) + ">"; }
  void drop_references() override { scope = {}; }
  const Stmt& node;
  Ref<Scope> scope;  // where the macro stands
};

class Renderer {
 public:
  /// `now` is the clock of strftime_now.
  Renderer(const Template& tree, Sandbox& sandbox, std::tm now);

  /// Throws Error with the line.
  std::string run(const nlohmann::ordered_json& context);

  Value call(const Value& callee, Arguments& arguments);
  Value filter(std::string_view name, const Value& value, Arguments& arguments);
  bool test(std::string_view name, const Value& value, Arguments& arguments);
  /// object.name and object[key]; undefined where there is neither item nor attribute.
  Value attribute(const Value& object, const std::string& name);
  Value item(const Value& object, const Value& key);
  /// The text of one round of a recursive loop over `iterable`.
  Value recurse(LoopObject& loop, const Value& iterable);
  Value call_macro(MacroObject& macro, Arguments& arguments);

  Sandbox& sandbox;
  const std::tm now;

 private:
  friend class LoopFilter;
  enum class Flow { kNormal, kBreak, kContinue };

  Flow exec(const Body& body);
  Flow exec(const Stmt& node);
  Flow exec_scoped(const Body& body);
  /// What a call or filter block gives; unlike an expression's value, it must be a string already.
  void write_text(const Value& v);
  Flow exec_for(const Stmt& node);
  Flow run_loop(const Stmt& node, const Value& iterable, int64_t depth0);
  /// What `run` writes to the output, as a string.
  template <class Run>
  Value captured(Run run);

  Value eval(const Expr& e);
  Value eval_name(const Expr& e);
  bool eval_compare(const Expr& e);
  Value eval_concat(const Expr& e);
  Value eval_item(const Expr& e);
  Value eval_call(const Expr& e);
  Value apply_filters(const Expr& e, const Value& text);
  Arguments eval_arguments(const CallArguments& arguments);
  void assign(const Expr& target, const Value& v);

  const Template& tree_;
  Ref<Scope> scope_;
  TextBuilder* out_ = nullptr;
  std::vector<Value> constants_;
  std::vector<std::optional<Value>> globals_;
  int line_ = 0;
};

}  // namespace hetero::jinja
