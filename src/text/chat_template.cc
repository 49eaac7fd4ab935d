// "Start here" of the template engine: text -> jinja_lexer -> jinja_parser (and jinja_expressions)
// -> the tree of jinja_ast.h -> jinja_eval, which works on the values of jinja_value.h.
// The language is Jinja's as Python's jinja2 3.1 renders it in its immutable sandbox; formats and
// messages follow that library's documentation and observed behaviour.
#include "text/chat_template.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <new>

#include "text/jinja_eval.h"
#include "text/jinja_parser.h"

namespace hetero {
namespace {

// Within the engine, kInvalidArgument is what templates may catch or raise; to the caller it says that
// the template cannot do with these messages, not that the call was wrong.
Status to_status(const jinja::Error& e) {
  const Code code = e.code == Code::kInvalidArgument ? Code::kMalformed : e.code;
  return {code, e.line != 0 ? fmt::format("chat template, line {}: {}", e.line, e.message)
                            : fmt::format("chat template: {}", e.message)};
}

Status out_of_memory() {
  return resource_exhausted("chat template: out of memory");
}

// The clock that the context sets, or the local time.
Result<std::tm> clock_of(const nlohmann::ordered_json& context) {
  const auto it = context.find("now");
  std::tm tm = {};
  if (it == context.end()) {
    const std::time_t now = std::time(nullptr);
    localtime_r(&now, &tm);
    return tm;
  }
  const std::string text = it->is_string() ? it->get<std::string>() : it->dump();
  char rest = '\0';
  const int found = std::sscanf(text.c_str(), "%4d-%2d-%2dT%2d:%2d:%2d%c", &tm.tm_year, &tm.tm_mon,
                                &tm.tm_mday, &tm.tm_hour, &tm.tm_min, &tm.tm_sec, &rest);
  const bool fits = found == 6 && tm.tm_year >= 1 && tm.tm_mon >= 1 && tm.tm_mon <= 12 && tm.tm_mday >= 1 &&
                    tm.tm_mday <= 31 && tm.tm_hour >= 0 && tm.tm_hour <= 23 && tm.tm_min >= 0 &&
                    tm.tm_min <= 59 && tm.tm_sec >= 0 && tm.tm_sec <= 59;
  if (!fits) {
    return invalid_argument(
        fmt::format("chat template: 'now' must look like 2024-07-26T12:34:56, got '{}'", text.substr(0, 40)));
  }
  tm.tm_year -= 1900;
  tm.tm_mon -= 1;
  tm.tm_isdst = -1;
  std::mktime(&tm);  // fills in the days of the week and of the year
  return tm;
}

}  // namespace

struct ChatTemplate::Impl {
  std::unique_ptr<jinja::Template> tree;
  TemplateLimits limits;
};

ChatTemplate::ChatTemplate(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

Result<ChatTemplate> ChatTemplate::parse(std::string_view source, const TemplateLimits& limits) {
  if (const size_t nul = source.find('\0'); nul != std::string_view::npos) {
    return malformed(
        fmt::format("chat template, line {}: a NUL byte where text was expected",
                    1 + std::count(source.begin(), source.begin() + static_cast<int64_t>(nul), '\n')));
  }
  try {
    auto impl = std::make_unique<Impl>();
    impl->tree = jinja::parse(source, limits);
    impl->limits = limits;
    return ChatTemplate(std::move(impl));
  } catch (const jinja::Error& e) {
    return to_status(e);
  } catch (const std::bad_alloc&) {
    return out_of_memory();
  }
}

Result<std::string> ChatTemplate::render(const nlohmann::ordered_json& context) const {
  if (!context.is_object()) {
    return invalid_argument(
        fmt::format("chat template: the context must be an object, not {}", context.type_name()));
  }
  try {
    HETERO_TRY(const std::tm now, clock_of(context));
    jinja::Sandbox sandbox(impl_->limits);
    return jinja::Renderer(*impl_->tree, sandbox, now).run(context);
  } catch (const jinja::Error& e) {
    return to_status(e);
  } catch (const std::bad_alloc&) {
    return out_of_memory();
  }
}

}  // namespace hetero
