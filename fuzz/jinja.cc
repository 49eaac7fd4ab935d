// A chat template of any text, rendered with a conversation that has all that templates look at.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "text/chat_template.h"

namespace {

const nlohmann::ordered_json& context() {
  static const auto json = nlohmann::ordered_json::parse(R"({
    "messages": [
      {"role": "system", "content": "Be brief."},
      {"role": "user", "content": "What is <b>the</b> weather?"},
      {"role": "assistant", "content": "", "reasoning_content": "Hm.", "tool_calls": [
        {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": {"city": "Z\u00fcrich", "n": 2}}}]},
      {"role": "tool", "tool_call_id": "c1", "name": "weather", "content": "{\"t\": -1.5}"},
      {"role": "user", "content": [{"type": "text", "text": "And now?"}]}],
    "tools": [{"type": "function", "function": {"name": "weather", "description": "d",
      "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}],
    "documents": null, "add_generation_prompt": true, "enable_thinking": false,
    "bos_token": "<s>", "eos_token": "</s>", "now": "2024-07-26T12:34:56"})");
  return json;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  hetero::TemplateLimits limits;  // small, so that many inputs are tried
  limits.steps = 20'000;
  limits.output_bytes = 1 << 18;
  limits.value_bytes = 4 << 20;
  const auto parsed = hetero::ChatTemplate::parse({reinterpret_cast<const char*>(data), size}, limits);
  if (parsed.ok()) {
    static_cast<void>(parsed->render(context()));
  }
  return 0;
}
