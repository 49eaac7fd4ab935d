// Options of run and chat that constrain the text: grammar, JSON schema, stop strings, logit bias.
#include <fmt/format.h>

#include <cmath>
#include <cstdlib>

#include "base/files.h"
#include "base/json_file.h"
#include "cli/commands.h"

namespace hetero {
namespace {

Result<std::pair<TokenId, float>> parse_bias(const std::string& text) {
  const size_t equals = text.find('=');
  char* end = nullptr;
  const long id = std::strtol(text.c_str(), &end, 10);
  const bool id_ok =
      equals != std::string::npos && equals > 0 && end == text.c_str() + equals && id >= 0 && id <= INT32_MAX;
  const char* value = id_ok ? text.c_str() + equals + 1 : "";
  const float bias = std::strtof(value, &end);
  if (!id_ok || *value == '\0' || *end != '\0' || std::isnan(bias)) {
    return invalid_argument(
        fmt::format("--logit-bias {}: expected ID=VALUE, for example 42=-1.5 or 42=-inf", text));
  }
  return std::pair(static_cast<TokenId>(id), bias);
}

}  // namespace

void add_constraint_options(CLI::App& command, ConstraintOptions& o) {
  auto* file =
      command.add_option("--grammar", o.grammar_file, "The text must follow the grammar (GBNF) in FILE");
  auto* text = command.add_option("--grammar-text", o.grammar_text, "The same, with the grammar itself");
  auto* schema = command.add_option("--json-schema", o.schema_file,
                                    "The text must be JSON that is valid under the schema in FILE");
  file->excludes(text)->excludes(schema);
  text->excludes(schema);
  command.add_option("--stop", o.stop, "Stop before this text (repeatable)")->allow_extra_args(false);
  command
      .add_option("--logit-bias", o.logit_bias,
                  "ID=VALUE: add VALUE to the token's logit; -inf forbids it (repeatable)")
      ->allow_extra_args(false);
}

Status apply(const ConstraintOptions& o, GenerateOptions& generate) {
  generate.stop = o.stop;
  for (const std::string& text : o.logit_bias) {
    HETERO_TRY(const auto bias, parse_bias(text));
    generate.sampler.logit_bias.push_back(bias);
  }
  HETERO_RETURN_IF_ERROR(validate(generate.sampler));
  if (!o.schema_file.empty()) {
    HETERO_TRY(const nlohmann::ordered_json schema, read_json_file(o.schema_file));
    auto grammar = Grammar::from_json_schema(schema);
    HETERO_RETURN_IF_ERROR(grammar.status().with_prefix(o.schema_file));
    generate.grammar = std::move(grammar).value();
  } else if (!o.grammar_file.empty() || !o.grammar_text.empty()) {
    std::string source = o.grammar_text;
    if (!o.grammar_file.empty()) {
      HETERO_TRY(source, read_text_file(o.grammar_file));
    }
    auto grammar = Grammar::from_gbnf(source);
    HETERO_RETURN_IF_ERROR(
        grammar.status().with_prefix(o.grammar_file.empty() ? "--grammar-text" : o.grammar_file));
    generate.grammar = std::move(grammar).value();
  }
  return {};
}

}  // namespace hetero
