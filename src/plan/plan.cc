#include "plan/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <tuple>
#include <unordered_map>

namespace hetero {
namespace {

// Far beyond any model, and small enough that nothing computed from them overflows or takes long.
constexpr int64_t kMostRows = int64_t{1} << 24;
constexpr int64_t kMostParts = 1024;  // of one operator

bool overlap(int64_t a_begin, int64_t a_end, int64_t b_begin, int64_t b_end) {
  return a_begin < b_end && b_begin < a_end;
}

std::string describe(const Graph& graph, const Plan& plan, size_t index) {
  const Step& s = plan.steps[index];
  return fmt::format("step {} ({} on {}, rows {}..{}, columns {}..{})", index, graph.op(s.op).name,
                     plan.processors[static_cast<size_t>(s.processor)], s.token_begin, s.token_end,
                     s.out_begin, s.out_end);
}

}  // namespace

std::vector<bool> for_last_row(const Graph& graph, const Plan& plan) {
  std::vector<bool> narrow = plan.last_row ? in_last_row(graph) : std::vector<bool>();
  narrow.resize(graph.ops.size());
  return narrow;
}

Status validate(const Graph& graph, const Plan& plan) {
  if (plan.tokens < 1 || plan.tokens > kMostRows) {
    return invalid_argument(fmt::format("a plan for {} tokens, expected 1 to {}", plan.tokens, kMostRows));
  }
  const int first = plan.head ? graph.head_begin : 0;
  const int last = plan.head ? static_cast<int>(graph.ops.size()) : graph.head_begin;
  if (plan.head && plan.last_row) {
    return invalid_argument("a head plan for the last row; its rows are the wanted ones");
  }
  const std::vector<bool> narrow = for_last_row(graph, plan);
  int expected_op = first;  // operators come in the graph's order, the parts of one side by side
  int64_t covered = 0;      // elements of expected_op's output so far
  int64_t parts = 0;        // steps that they come from
  for (size_t i = 0; i < plan.steps.size(); ++i) {
    const Step& s = plan.steps[i];
    if (s.op < first || s.op >= last || s.processor < 0 ||
        s.processor >= static_cast<int>(plan.processors.size())) {
      return invalid_argument(fmt::format("step {}: operator {} on processor {} does not exist in this plan",
                                          i, s.op, s.processor));
    }
    const Op& op = graph.op(s.op);
    const int64_t cols = graph.output_cols(s.op);
    if (s.token_begin < 0 || s.token_end <= s.token_begin || s.token_end > plan.tokens || s.out_begin < 0 ||
        s.out_end <= s.out_begin || s.out_end > cols) {
      return invalid_argument(
          fmt::format("{}: outside of {} rows and {} columns", describe(graph, plan, i), plan.tokens, cols));
    }
    if (!op.is<Linear>() && (s.out_begin != 0 || s.out_end != cols)) {
      return invalid_argument(
          fmt::format("{}: only linear operators can be cut by columns", describe(graph, plan, i)));
    }
    const int64_t rows = s.token_end - s.token_begin;
    if (s.padded < rows || s.padded > kMostRows ||
        (s.padded > rows && (s.token_end != plan.tokens || !op.is<Linear>()))) {
      return invalid_argument(
          fmt::format("{}: padded to {} rows; only the last rows of a linear operator can be padded",
                      describe(graph, plan, i), s.padded));
    }
    if (s.exchanged && !op.is<Linear>()) {
      return invalid_argument(fmt::format("{}: exchanged; only linear operators have an order of operands",
                                          describe(graph, plan, i)));
    }
    if (s.op != expected_op) {
      return invalid_argument(
          fmt::format("{}: expected a part of {}", describe(graph, plan, i), graph.op(expected_op).name));
    }
    parts = covered == 0 ? 1 : parts + 1;
    if (parts > kMostParts) {
      return invalid_argument(
          fmt::format("{}: an operator in more than {} parts", describe(graph, plan, i), kMostParts));
    }
    for (size_t j = i; j-- > 0 && plan.steps[j].op == s.op;) {
      const Step& o = plan.steps[j];
      if (overlap(s.token_begin, s.token_end, o.token_begin, o.token_end) &&
          overlap(s.out_begin, s.out_end, o.out_begin, o.out_end)) {
        return invalid_argument(
            fmt::format("{}: computes again what step {} computes", describe(graph, plan, i), j));
      }
    }
    const bool one_row = narrow[static_cast<size_t>(s.op)];
    if (one_row && s.token_end != plan.tokens) {
      return invalid_argument(
          fmt::format("{}: only the last row of the plan is wanted", describe(graph, plan, i)));
    }
    covered += (one_row ? 1 : rows) * (s.out_end - s.out_begin);
    if (covered == (one_row ? 1 : plan.tokens) * cols) {
      ++expected_op;
      covered = 0;
    }
  }
  if (expected_op != last) {
    return invalid_argument(fmt::format("the plan ends before {} is complete", graph.op(expected_op).name));
  }
  return {};
}

void link(const Graph& graph, Plan& plan) {
  std::unordered_map<ValueId, std::vector<int>> writers;
  for (size_t i = 0; i < plan.steps.size(); ++i) {
    Step& s = plan.steps[i];
    s.after.clear();
    for (const ValueId input : graph.op(s.op).inputs) {
      for (const int w : writers[input]) {
        const Step& writer = plan.steps[static_cast<size_t>(w)];
        // Of a cache, all rows up to the step's own.
        const int64_t first = graph.value(input).rows == Rows::kContext ? 0 : s.token_begin;
        const bool rows = overlap(first, s.token_end, writer.token_begin, writer.token_end);
        if (writer.processor != s.processor && rows &&
            std::find(s.after.begin(), s.after.end(), w) == s.after.end()) {
          s.after.push_back(w);
        }
      }
    }
    std::sort(s.after.begin(), s.after.end());
    for (const ValueId output : graph.op(s.op).outputs) {
      writers[output].push_back(static_cast<int>(i));
    }
  }
}

int64_t rows_needed(const Plan& plan) {
  int64_t rows = plan.tokens;
  for (const Step& s : plan.steps) {
    rows = std::max(rows, s.token_begin + s.padded);
  }
  return rows;
}

nlohmann::ordered_json to_json(const Graph& graph, const Plan& plan) {
  nlohmann::ordered_json json;
  json["strategy"] = plan.strategy;
  json["phase"] = plan.head ? "head" : "body";
  json["tokens"] = plan.tokens;
  if (plan.last_row) {
    json["last_row"] = true;
  }
  json["processors"] = plan.processors;
  json["predicted_ns"] = plan.predicted.count();
  json["best_single_predicted_ns"] = plan.best_single_predicted.count();
  auto& steps = json["steps"] = nlohmann::ordered_json::array();
  for (const Step& s : plan.steps) {
    nlohmann::ordered_json step = {{"op", graph.op(s.op).name},
                                   {"processor", plan.processors[static_cast<size_t>(s.processor)]},
                                   {"rows", {s.token_begin, s.token_end}},
                                   {"columns", {s.out_begin, s.out_end}},
                                   {"padded", s.padded}};
    if (s.exchanged) {
      step["exchanged"] = true;
    }
    step["after"] = s.after;
    step["predicted_ns"] = s.predicted.count();
    steps.push_back(std::move(step));
  }
  return json;
}

namespace {

/// A whole number within what plans hold; 4.5, "4" and 2^63 are errors.
int64_t number(const nlohmann::ordered_json& json) {
  const int64_t n = json.is_number_integer() ? json.get<int64_t>() : -1;
  if (n < 0 || n > std::numeric_limits<int32_t>::max()) {
    throw std::invalid_argument(
        fmt::format("expected a whole number from 0 to {}, found {}", std::numeric_limits<int32_t>::max(),
                    json.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace)));
  }
  return n;
}

/// Times are told, not needed: a plan written by hand has none.
Nanos time_or_zero(const nlohmann::ordered_json& json, const char* key) {
  if (!json.contains(key)) {
    return {};
  }
  const nlohmann::ordered_json& n = json[key];
  if (!n.is_number_integer() || n.get<int64_t>() < 0) {
    throw std::invalid_argument(fmt::format("\"{}\": expected nanoseconds", key));
  }
  return Nanos(n.get<int64_t>());
}

std::pair<int64_t, int64_t> range(const nlohmann::ordered_json& json) {
  return {number(json.at(0)), number(json.at(1))};
}

}  // namespace

Result<Plan> plan_from_json(const Graph& graph, const nlohmann::ordered_json& json) {
  std::unordered_map<std::string, int> ops;
  for (size_t i = 0; i < graph.ops.size(); ++i) {
    ops[graph.ops[i].name] = static_cast<int>(i);
  }
  Plan plan;
  size_t index = 0;
  try {
    plan.strategy = json.at("strategy").get<std::string>();
    const auto phase = json.at("phase").get<std::string>();
    if (phase != "head" && phase != "body") {
      return invalid_argument(fmt::format("plan: \"phase\" must be \"body\" or \"head\", not \"{}\"", phase));
    }
    plan.head = phase == "head";
    plan.tokens = number(json.at("tokens"));
    plan.last_row = json.contains("last_row") && json["last_row"].get<bool>();
    plan.processors = json.at("processors").get<std::vector<std::string>>();
    plan.predicted = time_or_zero(json, "predicted_ns");
    plan.best_single_predicted = time_or_zero(json, "best_single_predicted_ns");
    for (const auto& step : json.at("steps")) {
      Step s;
      const auto name = step.at("op").get<std::string>();
      const auto op = ops.find(name);
      if (op == ops.end()) {
        return invalid_argument(fmt::format("plan: step {}: this model has no operator \"{}\"", index, name));
      }
      s.op = op->second;
      const auto id = step.at("processor").get<std::string>();
      const auto processor = std::find(plan.processors.begin(), plan.processors.end(), id);
      if (processor == plan.processors.end()) {
        return invalid_argument(fmt::format("plan: step {}: \"{}\" is not in \"processors\"", index, id));
      }
      s.processor = static_cast<int>(processor - plan.processors.begin());
      std::tie(s.token_begin, s.token_end) = range(step.at("rows"));
      std::tie(s.out_begin, s.out_end) = range(step.at("columns"));
      s.padded = step.contains("padded") ? number(step["padded"]) : s.token_end - s.token_begin;
      s.exchanged = step.contains("exchanged") && step["exchanged"].get<bool>();
      s.predicted = time_or_zero(step, "predicted_ns");
      plan.steps.push_back(std::move(s));
      ++index;
    }
  } catch (const std::exception& e) {  // of the JSON library, and of number()
    return invalid_argument(fmt::format("plan: step {}: {}", index, e.what()));
  }
  HETERO_RETURN_IF_ERROR(validate(graph, plan).with_prefix("plan"));
  link(graph, plan);
  return plan;
}

}  // namespace hetero
