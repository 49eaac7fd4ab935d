// The expression half of the parser; jinja_parser.cc has the statements.
#pragma once

#include <fmt/format.h>

#include <initializer_list>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/chat_template.h"
#include "text/jinja_ast.h"
#include "text/jinja_lexer.h"

namespace hetero::jinja {

/// A cursor over the tokens of one template.
class ExpressionParser {
 protected:
  ExpressionParser(std::vector<Token> tokens, const TemplateLimits& limits);

  [[noreturn]] void syntax_error(const std::string& message, int line = 0) const;
  const Token& current() const { return tokens_[position_]; }
  const Token& look(size_t ahead = 1) const {
    return tokens_[std::min(position_ + ahead, tokens_.size() - 1)];
  }
  const Token& next();
  bool at(TokenType type) const { return current().type == type; }
  bool at_name(std::string_view name) const { return at(TokenType::kName) && current().text == name; }
  bool at_op(std::string_view op) const { return at(TokenType::kOperator) && current().text == op; }
  bool skip_name(std::string_view name);
  bool skip_op(std::string_view op);
  std::string expect_name();
  void expect_keyword(std::string_view name);
  void expect_op(std::string_view op);
  void expect(TokenType type, std::string_view what);

  int name_id(const std::string& name);
  ExprPtr make(ExprType type, int line) const;
  ExprPtr make(ExprType type, int line, ExprPtr a, ExprPtr b = nullptr) const;
  void adopt(Expr& parent, ExprPtr child) const;

  ExprPtr expression(bool with_condition = true);
  /// One expression, or several with commas between them. `end` names the keyword that may follow.
  ExprPtr tuple(bool with_condition = true, std::string_view end = {}, bool parenthesized = false);
  ExprPtr primary();
  ExprPtr postfix(ExprPtr node);
  ExprPtr filters(ExprPtr node, bool at_name = false);
  bool at_tuple_end(std::string_view end) const;

  /// Bounds the parser's own recursion.
  class Depth {
   public:
    explicit Depth(ExpressionParser& parser);
    ~Depth() { --parser_.depth_; }
    Depth(const Depth&) = delete;
    Depth& operator=(const Depth&) = delete;

   private:
    ExpressionParser& parser_;
  };

  // An unknown filter or test is an error of the template, but where a condition guards it only
  // once it is reached.
  struct Unknown {
    std::string message;
    int line;
  };
  std::vector<Unknown> unknown_;
  bool guarded_ = false;

  std::unique_ptr<Template> template_ = std::make_unique<Template>();
  unsigned special_names_ = 0;  // bits 1 << KnownName of those that were read

 private:
  ExprPtr condition();
  ExprPtr binary(int level);
  ExprPtr negation();
  ExprPtr comparison();
  ExprPtr concat();
  ExprPtr power();
  ExprPtr unary(bool with_filter = true);
  ExprPtr filters_and_tests(ExprPtr node);
  ExprPtr subscript(ExprPtr node);
  ExprPtr subscribed();
  ExprPtr call(ExprPtr node);
  ExprPtr test(ExprPtr node);
  ExprPtr list();
  ExprPtr dict();
  ExprPtr constant(const Token& token);
  std::unique_ptr<CallArguments> call_arguments(int& height);
  std::string dotted_name();

  const std::vector<Token> tokens_;
  const TemplateLimits limits_;
  size_t position_ = 0;
  int depth_ = 0;
  std::unordered_map<std::string, int> ids_;
};

}  // namespace hetero::jinja
