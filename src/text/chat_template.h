// Chat templates: the Jinja subset that model authors use, rendered as Python's jinja2 does with
// trim_blocks, lstrip_blocks and loop controls, sandboxed by limits.
#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/status.h"

namespace hetero {

struct TemplateLimits {
  int64_t steps = 5'000'000;             // evaluated nodes and loop turns
  int64_t output_bytes = 16 << 20;       // of the rendered text and of any one string on the way
  int64_t value_bytes = 64 << 20;        // of all values alive, about
  int depth = 200;                       // of nesting, in parsing and in evaluation
};

/// A parsed template; immutable, any number of threads may render it.
class ChatTemplate {
 public:
  /// Fails on a syntax error with the line number and what was expected.
  static Result<ChatTemplate> parse(std::string_view source, const TemplateLimits& limits = {});
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ~ChatTemplate();

  /// Renders with the members of `context` (an object; ordered, since templates print it) as
  /// variables. `now` in it ("2024-07-26T12:34:56"), if present, is the clock of strftime_now;
  /// otherwise local time is. raise_exception in a template, undefined operations and exceeded
  /// limits are errors with the line number.
  Result<std::string> render(const nlohmann::ordered_json& context) const;

 private:
  struct Impl;
  explicit ChatTemplate(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace hetero
