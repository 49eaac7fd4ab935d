// What the parser makes of a template: plain trees, immutable once parsed.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "text/jinja_text.h"

namespace hetero::jinja {

enum class ExprType : uint8_t {
  kNone,
  kBool,          // integer
  kInteger,       // integer
  kFloat,         // real
  kString,        // text, id: its place among the template's constants
  kName,          // text, id: its place among the template's names
  kTuple,         // children
  kList,          // children
  kDict,          // children: key, value, key, value...
  kIf,            // children: condition, value, [otherwise]
  kAnd,           // children: left, right
  kOr,            // children: left, right
  kNot,           // children: operand
  kNegate,        // children: operand
  kPlus,          // children: operand
  kBinary,        // operators[0]; children: left, right
  kCompare,       // operators[i] stands between children[i] and children[i + 1]
  kConcat,        // children
  kAttribute,     // text; children: object
  kItem,          // children: object, index
  kSlice,         // children: start, stop, step; each may be null
  kCall,          // arguments; children: callee
  kFilter,        // text, arguments; children: value (null for the text of a block)
  kTest,          // text, arguments; children: value
  kNamespaceSet,  // text: the attribute; id: the namespace; only as an assignment's target
};

enum class Operator : uint8_t {
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kFloorDivide,
  kModulo,
  kPower,
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kIn,
  kNotIn,
};

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

struct CallArguments {
  std::vector<ExprPtr> positional;
  std::vector<std::pair<std::string, ExprPtr>> named;
  ExprPtr more_positional;  // *args
  ExprPtr more_named;       // **kwargs
};

struct Expr {
  ExprType type = ExprType::kNone;
  int line = 0;
  int height = 1;  // of the tree below: evaluation recurses that deep
  int id = -1;
  std::string text;
  Int integer = 0;
  double real = 0;
  std::vector<Operator> operators;
  std::vector<ExprPtr> children;
  std::unique_ptr<CallArguments> arguments;
};

enum class StmtType : uint8_t {
  kText,      // text
  kOutput,    // value
  kIf,        // branches: (condition, body)...; otherwise
  kFor,       // target, value, condition, body, otherwise, recursive
  kSet,       // target, value
  kSetBlock,  // target, value (a filter or null), body
  kMacro,     // id, text: its name; macro, body
  kCall,      // value (a call), macro, body
  kFilter,    // value (a filter), body
  kWith,      // assignments, body
  kScope,     // body with names of its own
  kBreak,
  kContinue,
  kFail,  // text: why this cannot be rendered
};

struct Stmt;
using StmtPtr = std::unique_ptr<Stmt>;
using Body = std::vector<StmtPtr>;

struct Parameter {
  int id = -1;
  std::string name;
  ExprPtr fallback;
};

// A macro, or the body of a call block, which is a macro named "caller".
struct MacroSignature {
  std::vector<Parameter> parameters;
  bool uses_caller = false;  // whether the body mentions these names,
  bool uses_kwargs = false;  // which makes the macro accept what it does not name
  bool uses_varargs = false;
};

struct Stmt {
  StmtType type = StmtType::kText;
  int line = 0;
  int id = -1;
  std::string text;
  ExprPtr target;
  ExprPtr value;
  ExprPtr condition;
  bool recursive = false;
  std::vector<std::pair<ExprPtr, Body>> branches;
  std::vector<std::pair<ExprPtr, ExprPtr>> assignments;
  std::unique_ptr<MacroSignature> macro;
  Body body;
  Body otherwise;
};

// Names that the engine itself looks for, at fixed places among the template's names.
enum KnownName : int { kNameLoop, kNameCaller, kNameKwargs, kNameVarargs, kKnownNames };

struct Template {
  Body body;
  std::vector<std::string> names;
  int constants = 0;  // distinct places of string constants
};

}  // namespace hetero::jinja
