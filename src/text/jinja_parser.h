// Turns a template's source into its tree, by Jinja's grammar: the default tags, loop controls,
// and the generation block that chat templates add.
#pragma once

#include <memory>
#include <string_view>

#include "text/chat_template.h"
#include "text/jinja_ast.h"

namespace hetero::jinja {

/// Throws Error (kMalformed) with the line on a syntax error or nesting over the limit.
std::unique_ptr<Template> parse(std::string_view source, const TemplateLimits& limits);

}  // namespace hetero::jinja
