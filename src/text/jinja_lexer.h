// Cuts a template into text and tokens, with Jinja's white space control: trim_blocks and
// lstrip_blocks are on, one newline at the end of the template is dropped.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/jinja_text.h"

namespace hetero::jinja {

enum class TokenType : uint8_t {
  kText,           // between tags, or inside raw
  kBlockBegin,     // {%
  kBlockEnd,       // %}
  kVariableBegin,  // {{
  kVariableEnd,    // }}
  kName,
  kString,  // text: decoded
  kInteger,
  kFloat,
  kOperator,  // text: as written
  kEnd,       // of the template
};

struct Token {
  TokenType type = TokenType::kEnd;
  int line = 0;
  std::string text;
  Int integer = 0;
  double real = 0;
};

/// How a message names the token.
std::string describe(const Token& token);

/// Throws Error (kMalformed) with the line on what is not a template.
std::vector<Token> tokenize(std::string_view source);

}  // namespace hetero::jinja
