#include "text/jinja_expressions.h"

#include <algorithm>
#include <array>

#include "text/jinja_builtins.h"
#include "text/jinja_value.h"

namespace hetero::jinja {
namespace {

// Trees grow higher than the source nests: a + b + c is two levels. Evaluation recurses as deep.
constexpr int kHeightPerDepth = 8;

struct BinaryOperator {
  std::string_view text;
  Operator op;
};

constexpr std::array<BinaryOperator, 2> kSums = {{{"+", Operator::kAdd}, {"-", Operator::kSubtract}}};
constexpr std::array<BinaryOperator, 4> kProducts = {{{"*", Operator::kMultiply},
                                                      {"/", Operator::kDivide},
                                                      {"//", Operator::kFloorDivide},
                                                      {"%", Operator::kModulo}}};
constexpr std::array<BinaryOperator, 6> kComparisons = {{{"==", Operator::kEqual},
                                                         {"!=", Operator::kNotEqual},
                                                         {"<", Operator::kLess},
                                                         {"<=", Operator::kLessEqual},
                                                         {">", Operator::kGreater},
                                                         {">=", Operator::kGreaterEqual}}};

template <size_t N>
const BinaryOperator* lookup(const std::array<BinaryOperator, N>& operators, const Token& token) {
  const auto it = std::find_if(operators.begin(), operators.end(),
                               [&](const BinaryOperator& o) { return o.text == token.text; });
  return token.type == TokenType::kOperator && it != operators.end() ? &*it : nullptr;
}

}  // namespace

ExpressionParser::ExpressionParser(std::vector<Token> tokens, const TemplateLimits& limits)
    : tokens_(std::move(tokens)), limits_(limits) {
  for (const char* name : {"loop", "caller", "kwargs", "varargs"}) {
    name_id(name);  // in the order of KnownName
  }
}

ExpressionParser::Depth::Depth(ExpressionParser& parser) : parser_(parser) {
  if (++parser_.depth_ > parser_.limits_.depth) {
    const int line = parser_.current().line;
    --parser_.depth_;
    throw Error{Code::kMalformed, fmt::format("nested deeper than the allowed {}", parser_.limits_.depth),
                line};
  }
}

void ExpressionParser::syntax_error(const std::string& message, int line) const {
  throw Error{Code::kMalformed, message, line != 0 ? line : current().line};
}

const Token& ExpressionParser::next() {
  const Token& token = tokens_[position_];
  position_ += position_ + 1 < tokens_.size() ? 1 : 0;
  return token;
}

bool ExpressionParser::skip_name(std::string_view name) {
  const bool found = at_name(name);
  position_ += found ? 1 : 0;
  return found;
}

bool ExpressionParser::skip_op(std::string_view op) {
  const bool found = at_op(op);
  position_ += found ? 1 : 0;
  return found;
}

std::string ExpressionParser::expect_name() {
  if (!at(TokenType::kName)) {
    syntax_error(fmt::format("expected a name, got {}", describe(current())));
  }
  return next().text;
}

void ExpressionParser::expect_keyword(std::string_view name) {
  if (!skip_name(name)) {
    syntax_error(fmt::format("expected '{}', got {}", name, describe(current())));
  }
}

void ExpressionParser::expect_op(std::string_view op) {
  if (!skip_op(op)) {
    syntax_error(fmt::format("expected '{}', got {}", op, describe(current())));
  }
}

void ExpressionParser::expect(TokenType type, std::string_view what) {
  if (!at(type)) {
    syntax_error(fmt::format("expected {}, got {}", what, describe(current())));
  }
  next();
}

int ExpressionParser::name_id(const std::string& name) {
  const auto [it, is_new] = ids_.emplace(name, static_cast<int>(template_->names.size()));
  if (is_new) {
    template_->names.push_back(name);
  }
  return it->second;
}

ExprPtr ExpressionParser::make(ExprType type, int line) const {
  auto node = std::make_unique<Expr>();
  node->type = type;
  node->line = line;
  return node;
}

ExprPtr ExpressionParser::make(ExprType type, int line, ExprPtr a, ExprPtr b) const {
  ExprPtr node = make(type, line);
  adopt(*node, std::move(a));
  if (b != nullptr) {
    adopt(*node, std::move(b));
  }
  return node;
}

void ExpressionParser::adopt(Expr& parent, ExprPtr child) const {
  if (child != nullptr) {
    parent.height = std::max(parent.height, child->height + 1);
    if (parent.height > limits_.depth * kHeightPerDepth) {
      throw Error{Code::kMalformed,
                  fmt::format("an expression of more than {} steps in a row", parent.height - 1),
                  parent.line};
    }
  }
  parent.children.push_back(std::move(child));
}

ExprPtr ExpressionParser::expression(bool with_condition) {
  const Depth depth(*this);
  return with_condition ? condition() : binary(0);
}

ExprPtr ExpressionParser::condition() {
  int line = current().line;
  const size_t unknown_before = unknown_.size();
  ExprPtr value = binary(0);
  while (skip_name("if")) {
    ExprPtr node = make(ExprType::kIf, line, binary(0), std::move(value));
    if (skip_name("else")) {
      adopt(*node, expression());
    }
    unknown_.resize(std::min(unknown_.size(), unknown_before));
    value = std::move(node);
    line = current().line;
  }
  return value;
}

// Levels of operators that all group to the left: or, and, not and comparisons, sums, ~, products.
ExprPtr ExpressionParser::binary(int level) {
  const auto operand = [&](int l) {
    return l == 2 ? negation() : l == 3 ? concat() : l == 4 ? power() : binary(l);
  };
  const int line = current().line;
  if (level == 0 || level == 1) {
    ExprPtr left = operand(level + 1);
    while (skip_name(level == 0 ? "or" : "and")) {
      left = make(level == 0 ? ExprType::kOr : ExprType::kAnd, line, std::move(left), operand(level + 1));
    }
    return left;
  }
  ExprPtr left = operand(level);
  while (const BinaryOperator* op = level == 3 ? lookup(kSums, current()) : lookup(kProducts, current())) {
    next();
    left = make(ExprType::kBinary, line, std::move(left), operand(level));
    left->operators.push_back(op->op);
  }
  return left;
}

ExprPtr ExpressionParser::negation() {
  if (!at_name("not")) {
    return comparison();
  }
  const Depth depth(*this);
  const int line = next().line;
  return make(ExprType::kNot, line, negation());
}

ExprPtr ExpressionParser::comparison() {
  const int line = current().line;
  ExprPtr first = binary(3);
  ExprPtr node;
  while (true) {
    Operator op;
    if (const BinaryOperator* found = lookup(kComparisons, current())) {
      next();
      op = found->op;
    } else if (skip_name("in")) {
      op = Operator::kIn;
    } else if (at_name("not") && look().type == TokenType::kName && look().text == "in") {
      next();
      next();
      op = Operator::kNotIn;
    } else {
      return node != nullptr ? std::move(node) : std::move(first);
    }
    if (node == nullptr) {
      node = make(ExprType::kCompare, line, std::move(first));
    }
    node->operators.push_back(op);
    adopt(*node, binary(3));
  }
}

ExprPtr ExpressionParser::concat() {
  const int line = current().line;
  ExprPtr first = binary(4);
  if (!at_op("~")) {
    return first;
  }
  ExprPtr node = make(ExprType::kConcat, line, std::move(first));
  while (skip_op("~")) {
    adopt(*node, binary(4));
  }
  return node;
}

ExprPtr ExpressionParser::power() {
  const int line = current().line;
  ExprPtr left = unary();
  while (skip_op("**")) {
    left = make(ExprType::kBinary, line, std::move(left), unary());
    left->operators.push_back(Operator::kPower);
  }
  return left;
}

ExprPtr ExpressionParser::unary(bool with_filter) {
  ExprPtr node;
  if (at_op("-") || at_op("+")) {
    const Depth depth(*this);
    const Token& token = next();
    node = make(token.text == "-" ? ExprType::kNegate : ExprType::kPlus, token.line, unary(false));
  } else {
    node = primary();
  }
  node = postfix(std::move(node));
  return with_filter ? filters_and_tests(std::move(node)) : std::move(node);
}

ExprPtr ExpressionParser::constant(const Token& token) {
  ExprPtr node;
  if (token.type == TokenType::kInteger) {
    node = make(ExprType::kInteger, token.line);
    node->integer = token.integer;
  } else if (token.type == TokenType::kFloat) {
    node = make(ExprType::kFloat, token.line);
    node->real = token.real;
  } else {
    node = make(ExprType::kString, token.line);
    node->text = token.text;
    node->id = template_->constants++;
  }
  return node;
}

ExprPtr ExpressionParser::primary() {
  const int line = current().line;
  switch (current().type) {
    case TokenType::kName: {
      const std::string name = next().text;
      if (name == "true" || name == "True" || name == "false" || name == "False") {
        ExprPtr node = make(ExprType::kBool, line);
        node->integer = name == "true" || name == "True" ? 1 : 0;
        return node;
      }
      if (name == "none" || name == "None") {
        return make(ExprType::kNone, line);
      }
      ExprPtr node = make(ExprType::kName, line);
      node->text = name;
      node->id = name_id(name);
      if (node->id < kKnownNames) {
        special_names_ |= 1u << node->id;
      }
      return node;
    }
    case TokenType::kString: {
      Token token = next();
      while (at(TokenType::kString)) {
        token.text += next().text;
      }
      return constant(token);
    }
    case TokenType::kInteger:
    case TokenType::kFloat:
      return constant(next());
    case TokenType::kOperator:
      if (skip_op("(")) {
        ExprPtr node = tuple(true, {}, true);
        expect_op(")");
        return node;
      }
      if (at_op("[")) {
        return list();
      }
      if (at_op("{")) {
        return dict();
      }
      [[fallthrough]];
    default:
      syntax_error(fmt::format("unexpected {}", describe(current())));
  }
}

bool ExpressionParser::at_tuple_end(std::string_view end) const {
  return at(TokenType::kVariableEnd) || at(TokenType::kBlockEnd) || at_op(")") ||
         (!end.empty() && at_name(end));
}

ExprPtr ExpressionParser::tuple(bool with_condition, std::string_view end, bool parenthesized) {
  int line = current().line;
  std::vector<ExprPtr> items;
  bool is_tuple = false;
  while (!at_tuple_end(end)) {
    items.push_back(expression(with_condition));
    if (!skip_op(",")) {
      break;
    }
    is_tuple = true;
    line = current().line;
  }
  if (!is_tuple && !items.empty()) {
    return std::move(items[0]);
  }
  if (!is_tuple && !parenthesized) {
    syntax_error(fmt::format("expected an expression, got {}", describe(current())));
  }
  ExprPtr node = make(ExprType::kTuple, line);
  for (ExprPtr& item : items) {
    adopt(*node, std::move(item));
  }
  return node;
}

ExprPtr ExpressionParser::list() {
  ExprPtr node = make(ExprType::kList, next().line);
  while (!at_op("]")) {
    if (!node->children.empty()) {
      expect_op(",");
      if (at_op("]")) {
        break;
      }
    }
    adopt(*node, expression());
  }
  expect_op("]");
  return node;
}

ExprPtr ExpressionParser::dict() {
  ExprPtr node = make(ExprType::kDict, next().line);
  while (!at_op("}")) {
    if (!node->children.empty()) {
      expect_op(",");
      if (at_op("}")) {
        break;
      }
    }
    adopt(*node, expression());
    expect_op(":");
    adopt(*node, expression());
  }
  expect_op("}");
  return node;
}

ExprPtr ExpressionParser::postfix(ExprPtr node) {
  while (true) {
    if (at_op(".") || at_op("[")) {
      node = subscript(std::move(node));
    } else if (at_op("(")) {
      node = call(std::move(node));
    } else {
      return node;
    }
  }
}

ExprPtr ExpressionParser::filters_and_tests(ExprPtr node) {
  while (true) {
    if (at_op("|")) {
      node = filters(std::move(node));
    } else if (at_name("is")) {
      node = test(std::move(node));
    } else if (at_op("(")) {
      node = call(std::move(node));
    } else {
      return node;
    }
  }
}

ExprPtr ExpressionParser::subscript(ExprPtr node) {
  const Token& token = next();
  if (token.text == ".") {
    const Token& attribute = next();
    if (attribute.type == TokenType::kName) {
      ExprPtr result = make(ExprType::kAttribute, token.line, std::move(node));
      result->text = attribute.text;
      return result;
    }
    if (attribute.type != TokenType::kInteger) {
      syntax_error(fmt::format("expected a name or a number, got {}", describe(attribute)), attribute.line);
    }
    return make(ExprType::kItem, token.line, std::move(node), constant(attribute));
  }
  std::vector<ExprPtr> indices;
  while (!at_op("]")) {
    if (!indices.empty()) {
      expect_op(",");
    }
    indices.push_back(subscribed());
  }
  expect_op("]");
  if (indices.size() == 1) {
    return make(ExprType::kItem, token.line, std::move(node), std::move(indices[0]));
  }
  ExprPtr all = make(ExprType::kTuple, token.line);
  for (ExprPtr& index : indices) {
    adopt(*all, std::move(index));
  }
  return make(ExprType::kItem, token.line, std::move(node), std::move(all));
}

ExprPtr ExpressionParser::subscribed() {
  const int line = current().line;
  std::array<ExprPtr, 3> parts;
  if (!at_op(":")) {
    parts[0] = expression();
    if (!at_op(":")) {
      return std::move(parts[0]);
    }
  }
  for (size_t i = 1; i < 3 && skip_op(":"); ++i) {
    if (!at_op(":") && !at_op("]") && !at_op(",")) {
      parts[i] = expression();
    }
  }
  ExprPtr node = make(ExprType::kSlice, line);
  for (ExprPtr& part : parts) {
    adopt(*node, std::move(part));
  }
  return node;
}

std::unique_ptr<CallArguments> ExpressionParser::call_arguments(int& height) {
  auto arguments = std::make_unique<CallArguments>();
  const int line = current().line;
  expect_op("(");
  const auto ensure = [&](bool fine) {
    if (!fine) {
      syntax_error("invalid syntax for function call expression", line);
    }
  };
  const auto argument = [&] {
    ExprPtr node = expression();
    height = std::max(height, node->height + 1);
    return node;
  };
  for (bool first = true; !at_op(")"); first = false) {
    if (!first) {
      expect_op(",");
      if (at_op(")")) {
        break;
      }
    }
    if (skip_op("*")) {
      ensure(arguments->more_positional == nullptr && arguments->more_named == nullptr);
      arguments->more_positional = argument();
    } else if (skip_op("**")) {
      ensure(arguments->more_named == nullptr);
      arguments->more_named = argument();
    } else if (at(TokenType::kName) && look().type == TokenType::kOperator && look().text == "=") {
      ensure(arguments->more_named == nullptr);
      std::string name = next().text;
      next();
      for (const auto& [other, value] : arguments->named) {
        if (other == name) {
          syntax_error(fmt::format("keyword argument repeated: {}", name));
        }
      }
      arguments->named.emplace_back(std::move(name), argument());
    } else {
      ensure(arguments->more_positional == nullptr && arguments->more_named == nullptr &&
             arguments->named.empty());
      arguments->positional.push_back(argument());
    }
  }
  expect_op(")");
  return arguments;
}

ExprPtr ExpressionParser::call(ExprPtr node) {
  const int line = current().line;
  ExprPtr result = make(ExprType::kCall, line, std::move(node));
  result->arguments = call_arguments(result->height);
  return result;
}

std::string ExpressionParser::dotted_name() {
  std::string name = expect_name();
  while (skip_op(".")) {
    name = fmt::format("{}.{}", name, expect_name());
  }
  return name;
}

ExprPtr ExpressionParser::filters(ExprPtr node, bool at_filter_name) {
  while (at_filter_name || at_op("|")) {
    if (!std::exchange(at_filter_name, false)) {
      next();
    }
    ExprPtr result = make(ExprType::kFilter, current().line, std::move(node));
    result->text = dotted_name();
    if (find_filter(result->text) == nullptr && !guarded_) {
      unknown_.push_back({fmt::format("no filter named '{}'", result->text), result->line});
    }
    result->arguments = at_op("(") ? call_arguments(result->height) : std::make_unique<CallArguments>();
    node = std::move(result);
  }
  return node;
}

ExprPtr ExpressionParser::test(ExprPtr node) {
  const int line = next().line;
  const bool negated = skip_name("not");
  ExprPtr result = make(ExprType::kTest, line, std::move(node));
  result->text = dotted_name();
  if (find_test(result->text) == nullptr && !guarded_) {
    unknown_.push_back({fmt::format("no test named '{}'", result->text), line});
  }
  result->arguments = std::make_unique<CallArguments>();
  const TokenType type = current().type;
  if (at_op("(")) {
    result->arguments = call_arguments(result->height);
  } else if ((type == TokenType::kName && !at_name("else") && !at_name("or") && !at_name("and")) ||
             type == TokenType::kString || type == TokenType::kInteger || type == TokenType::kFloat ||
             at_op("[") || at_op("{")) {
    if (at_name("is")) {
      syntax_error("tests cannot be chained with is");
    }
    const Depth depth(*this);
    ExprPtr argument = postfix(primary());
    result->height = std::max(result->height, argument->height + 1);
    result->arguments->positional.push_back(std::move(argument));
  }
  return negated ? make(ExprType::kNot, line, std::move(result)) : std::move(result);
}

}  // namespace hetero::jinja
