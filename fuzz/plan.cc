// A plan file of any text. What is accepted survives being written and read again.
#include "plan/plan.h"

#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "tiny_graph.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const hetero::TinyGraph tiny(1);
  const auto json = nlohmann::ordered_json::parse(data, data + size, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) {
    return 0;
  }
  const auto plan = hetero::plan_from_json(tiny.graph, json);
  if (!plan.ok()) {
    return 0;
  }
  if (hetero::rows_needed(*plan) < plan->tokens) {
    std::abort();
  }
  const auto written = hetero::to_json(tiny.graph, *plan);
  const auto again = hetero::plan_from_json(tiny.graph, written);
  if (!again.ok() || hetero::to_json(tiny.graph, *again) != written) {
    std::abort();
  }
  return 0;
}
