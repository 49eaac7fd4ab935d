#include "text/jinja_parser.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "text/jinja_expressions.h"
#include "text/jinja_value.h"

namespace hetero::jinja {
namespace {

// Tokens and tree take some hundred times the memory of the densest source. Real templates have
// less than a tenth of this.
constexpr size_t kMaxSource = 1 << 20;

class Parser : public ExpressionParser {
 public:
  Parser(std::vector<Token> tokens, const TemplateLimits& limits)
      : ExpressionParser(std::move(tokens), limits) {}

  std::unique_ptr<Template> run() {
    template_->body = body({}, "");
    if (!unknown_.empty()) {
      syntax_error(unknown_[0].message, unknown_[0].line);
    }
    return std::move(template_);
  }

 private:
  using Ends = std::vector<std::string_view>;

  StmtPtr statement_of(StmtType type, int line) const {
    auto node = std::make_unique<Stmt>();
    node->type = type;
    node->line = line;
    return node;
  }

  bool at_any(const Ends& ends) const {
    for (const std::string_view end : ends) {
      if (at_name(end)) {
        return true;
      }
    }
    return false;
  }

  // Statements and text up to a tag that `ends` names, which stays the current token.
  Body body(const Ends& ends, std::string_view tag) {
    Body result;
    while (true) {
      const int line = current().line;
      switch (current().type) {
        case TokenType::kText:
          result.push_back(statement_of(StmtType::kText, line));
          result.back()->text = next().text;
          break;
        case TokenType::kVariableBegin:
          next();
          result.push_back(statement_of(StmtType::kOutput, line));
          result.back()->value = tuple();
          expect(TokenType::kVariableEnd, "end of print statement");
          break;
        case TokenType::kBlockBegin: {
          next();
          if (at_any(ends)) {
            return result;
          }
          StmtPtr node = statement(ends, tag);
          if (node != nullptr) {
            result.push_back(std::move(node));
          }
          expect(TokenType::kBlockEnd, "end of statement block");
          break;
        }
        case TokenType::kEnd:
          if (!ends.empty()) {
            syntax_error(fmt::format("unexpected end of template: the block '{}' needs one of: {}", tag,
                                     fmt::join(ends, ", ")));
          }
          return result;
        default:
          syntax_error(fmt::format("unexpected {}", describe(current())));
      }
    }
  }

  // The body of a tag, from the end of its own block to one of `ends`.
  Body block(const Ends& ends, std::string_view tag, bool drop_end = true) {
    const Depth depth(*this);
    skip_op(":");
    expect(TokenType::kBlockEnd, "end of statement block");
    Body result = body(ends, tag);
    if (drop_end) {
      next();
    }
    return result;
  }

  // A body with local names; in a function of its own, when it is a macro's.
  Body scoped_block(const Ends& ends, std::string_view tag, bool is_function) {
    const bool guarded = std::exchange(guarded_, false);
    const int loops = is_function ? std::exchange(loops_, 0) : loops_;
    Body result = block(ends, tag);
    guarded_ = guarded;
    loops_ = loops;
    return result;
  }

  StmtPtr statement(const Ends& ends, std::string_view enclosing) {
    const Depth depth(*this);
    if (!at(TokenType::kName)) {
      syntax_error(fmt::format("tag name expected, got {}", describe(current())));
    }
    const Token& tag = next();
    const std::string& name = tag.text;
    if (name == "if") {
      return if_block(tag);
    }
    if (name == "for") {
      return for_block(tag);
    }
    if (name == "set") {
      return set(tag);
    }
    if (name == "macro") {
      return macro(tag);
    }
    if (name == "call") {
      return call_block(tag);
    }
    if (name == "filter") {
      StmtPtr node = statement_of(StmtType::kFilter, tag.line);
      node->value = filters(nullptr, true);
      node->body = scoped_block({"endfilter"}, name, false);
      return node;
    }
    if (name == "with") {
      return with(tag);
    }
    if (name == "generation") {  // marks what the assistant wrote; here only its text matters
      StmtPtr node = statement_of(StmtType::kScope, tag.line);
      node->body = scoped_block({"endgeneration"}, name, true);
      return node;
    }
    if (name == "print") {
      StmtPtr node = statement_of(StmtType::kOutput, tag.line);
      node->value = make(ExprType::kConcat, tag.line);
      while (!at(TokenType::kBlockEnd)) {
        if (!node->value->children.empty()) {
          expect_op(",");
        }
        adopt(*node->value, expression());
      }
      return node;
    }
    if (name == "break" || name == "continue") {
      if (loops_ == 0) {
        syntax_error(fmt::format("'{}' outside of a loop", name), tag.line);
      }
      return statement_of(name == "break" ? StmtType::kBreak : StmtType::kContinue, tag.line);
    }
    if (name == "include" || name == "import" || name == "from" || name == "extends") {
      return refuse(tag, fmt::format("'{}' is not supported: a chat template cannot load others", name));
    }
    if (name == "block" || name == "autoescape") {
      syntax_error(fmt::format("'{}' is not supported in chat templates", name), tag.line);
    }
    if (ends.empty()) {
      syntax_error(fmt::format("unknown tag '{}'", name), tag.line);
    }
    syntax_error(fmt::format("unknown tag '{}': the block '{}' needs one of: {}", name, enclosing,
                             fmt::join(ends, ", ")),
                 tag.line);
  }

  // As in Jinja, an error only where it is reached.
  StmtPtr refuse(const Token& tag, std::string why) {
    while (!at(TokenType::kBlockEnd) && !at(TokenType::kEnd)) {
      next();
    }
    StmtPtr node = statement_of(StmtType::kFail, tag.line);
    node->text = std::move(why);
    return node;
  }

  StmtPtr if_block(const Token& tag) {
    StmtPtr node = statement_of(StmtType::kIf, tag.line);
    const bool guarded = std::exchange(guarded_, true);
    while (true) {
      ExprPtr condition = tuple(false);
      Body branch = block({"elif", "else", "endif"}, "if", false);
      node->branches.emplace_back(std::move(condition), std::move(branch));
      const std::string& end = next().text;
      if (end == "else") {
        node->otherwise = block({"endif"}, "if");
      }
      if (end != "elif") {
        break;
      }
    }
    guarded_ = guarded;
    return node;
  }

  StmtPtr for_block(const Token& tag) {
    StmtPtr node = statement_of(StmtType::kFor, tag.line);
    node->target = target("in", false);
    expect_keyword("in");
    node->value = tuple(false, "recursive");
    const bool guarded = std::exchange(guarded_, false);
    if (skip_name("if")) {
      node->condition = expression();
    }
    node->recursive = skip_name("recursive");
    ++loops_;
    node->body = block({"endfor", "else"}, "for", false);
    --loops_;
    if (next().text == "else") {
      node->otherwise = block({"endfor"}, "for");
    }
    guarded_ = guarded;
    return node;
  }

  // One target, or a tuple of them: names, and in `set` also attributes of namespaces.
  ExprPtr target(std::string_view end, bool with_attributes) {
    const Depth depth(*this);
    const int line = current().line;
    std::vector<ExprPtr> items;
    bool is_tuple = false;
    while (!at_tuple_end(end)) {
      items.push_back(one_target(with_attributes));
      if (!skip_op(",")) {
        break;
      }
      is_tuple = true;
    }
    if (items.empty()) {
      syntax_error(fmt::format("expected a name to assign to, got {}", describe(current())));
    }
    if (!is_tuple) {
      return std::move(items[0]);
    }
    ExprPtr node = make(ExprType::kTuple, line);
    for (ExprPtr& item : items) {
      adopt(*node, std::move(item));
    }
    return node;
  }

  ExprPtr one_target(bool with_attributes) {
    const int line = current().line;
    if (skip_op("(")) {
      ExprPtr node = target({}, false);
      expect_op(")");
      return node;
    }
    const std::string name = assignable_name();
    if (with_attributes && skip_op(".")) {
      ExprPtr node = make(ExprType::kNamespaceSet, line);
      node->id = name_id(name);
      node->text = expect_name();
      return node;
    }
    ExprPtr node = make(ExprType::kName, line);
    node->text = name;
    node->id = name_id(name);
    return node;
  }

  std::string assignable_name() {
    const Token token = current();
    const std::string name = expect_name();
    for (const std::string_view constant : {"true", "True", "false", "False", "none", "None"}) {
      if (name == constant) {
        syntax_error(fmt::format("cannot assign to '{}'", name), token.line);
      }
    }
    return name;
  }

  StmtPtr set(const Token& tag) {
    StmtPtr node = statement_of(StmtType::kSet, tag.line);
    node->target = target({}, true);
    if (skip_op("=")) {
      node->value = tuple();
      return node;
    }
    node->type = StmtType::kSetBlock;
    node->value = filters(nullptr);
    node->body = scoped_block({"endset"}, "set", false);
    return node;
  }

  StmtPtr with(const Token& tag) {
    StmtPtr node = statement_of(StmtType::kWith, tag.line);
    while (!at(TokenType::kBlockEnd)) {
      if (!node->assignments.empty()) {
        expect_op(",");
      }
      ExprPtr name = target({}, false);
      expect_op("=");
      node->assignments.emplace_back(std::move(name), expression());
    }
    node->body = scoped_block({"endwith"}, "with", false);
    return node;
  }

  std::unique_ptr<MacroSignature> signature() {
    auto macro = std::make_unique<MacroSignature>();
    expect_op("(");
    while (!at_op(")")) {
      if (!macro->parameters.empty()) {
        expect_op(",");
      }
      Parameter parameter;
      parameter.name = assignable_name();
      parameter.id = name_id(parameter.name);
      for (const Parameter& other : macro->parameters) {
        if (other.id == parameter.id) {
          syntax_error(fmt::format("duplicate argument '{}'", parameter.name));
        }
      }
      if (skip_op("=")) {
        parameter.fallback = expression();
      } else if (!macro->parameters.empty() && macro->parameters.back().fallback != nullptr) {
        syntax_error("non-default argument follows default argument");
      }
      macro->parameters.push_back(std::move(parameter));
    }
    expect_op(")");
    return macro;
  }

  // The body of a macro, and which of the special names it mentions.
  void macro_body(Stmt& node, std::string_view end, std::string_view tag) {
    const unsigned before = std::exchange(special_names_, 0);
    node.body = scoped_block({end}, tag, true);
    for (const Parameter& parameter : node.macro->parameters) {
      if (parameter.id == kNameCaller && parameter.fallback == nullptr) {
        syntax_error("the special argument 'caller' must be omitted or be given a default", node.line);
      }
      if (parameter.id < kKnownNames) {
        special_names_ &= ~(1u << parameter.id);
      }
    }
    node.macro->uses_caller = (special_names_ & (1u << kNameCaller)) != 0;
    node.macro->uses_kwargs = (special_names_ & (1u << kNameKwargs)) != 0;
    node.macro->uses_varargs = (special_names_ & (1u << kNameVarargs)) != 0;
    special_names_ |= before;
  }

  StmtPtr macro(const Token& tag) {
    StmtPtr node = statement_of(StmtType::kMacro, tag.line);
    node->text = assignable_name();
    node->id = name_id(node->text);
    node->macro = signature();
    macro_body(*node, "endmacro", "macro");
    return node;
  }

  StmtPtr call_block(const Token& tag) {
    StmtPtr node = statement_of(StmtType::kCall, tag.line);
    node->macro = at_op("(") ? signature() : std::make_unique<MacroSignature>();
    node->value = expression();
    if (node->value->type != ExprType::kCall) {
      syntax_error("expected a call", tag.line);
    }
    macro_body(*node, "endcall", "call");
    return node;
  }

  int loops_ = 0;  // around the current statement, in the same function
};

}  // namespace

std::unique_ptr<Template> parse(std::string_view source, const TemplateLimits& limits) {
  if (source.size() > kMaxSource) {
    throw Error{Code::kMalformed,
                fmt::format("{} bytes of source, more than the allowed {}", source.size(), kMaxSource)};
  }
  return Parser(tokenize(source), limits).run();
}

}  // namespace hetero::jinja
