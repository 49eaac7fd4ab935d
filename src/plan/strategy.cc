#include "plan/strategy.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "plan/replace.h"

namespace hetero {
namespace {

struct Name {
  Strategy strategy;
  const char* name;
};
constexpr Name kNames[] = {
    {Strategy::kCpu, "cpu"},
    {Strategy::kGpu, "gpu"},
    {Strategy::kNpuOnline, "npu-online"},
    {Strategy::kNpuPadding, "npu-padding"},
    {Strategy::kNpuPipe, "npu-pipe"},
    {Strategy::kLayer, "layer"},
    {Strategy::kTensor, "tensor"},
};

class Planner {
 public:
  Planner(const Graph& graph, Strategy strategy, const Team& team, int64_t tokens,
          const StrategyOptions& options)
      : graph_(graph), strategy_(strategy), team_(team), tokens_(tokens), options_(options) {
    for (const Op& op : graph.ops) {
      for (int i = 0; op.is<Route>() && i < static_cast<int>(graph.ops.size()); ++i) {
        if (graph.op(i).outputs[0] == op.inputs[0]) {
          routers_.insert(i);
        }
      }
    }
  }

  Result<Plan> make(bool head) {
    plan_.strategy = strategy_name(strategy_);
    plan_.head = head;
    plan_.tokens = tokens_;
    const int first = head ? graph_.head_begin : 0;
    const int last = head ? static_cast<int>(graph_.ops.size()) : graph_.head_begin;
    for (int op = first; op < last; ++op) {
      HETERO_RETURN_IF_ERROR(add_op(op, head));
    }
    HETERO_RETURN_IF_ERROR(validate(graph_, plan_));
    link(graph_, plan_);
    return std::move(plan_);
  }

 private:
  /// Who runs what no rule gives to the NPU.
  Result<std::string> main_processor(int op) const {
    std::string id = uses_gpu(strategy_) ? team_.gpu : team_.cpu;
    if (id.empty() && strategy_ != Strategy::kCpu && strategy_ != Strategy::kGpu) {
      id = uses_gpu(strategy_) ? team_.cpu : team_.gpu;
    }
    if (id.empty()) {
      return unavailable(fmt::format("strategy {} needs a {}, and there is none", strategy_name(strategy_),
                                     uses_gpu(strategy_) ? "GPU" : "CPU"));
    }
    if (team_.can_run && !team_.can_run(id, op) && !team_.cpu.empty()) {
      id = team_.cpu;
    }
    return id;
  }

  int processor(const std::string& id) {
    const auto found = std::find(plan_.processors.begin(), plan_.processors.end(), id);
    if (found == plan_.processors.end()) {
      plan_.processors.push_back(id);
      return static_cast<int>(plan_.processors.size()) - 1;
    }
    return static_cast<int>(found - plan_.processors.begin());
  }

  void add(int op, const std::string& id, int64_t token_begin, int64_t token_end, int64_t out_begin,
           int64_t out_end, int64_t padded) {
    if (token_begin < token_end && out_begin < out_end) {
      const bool exchanged = id == team_.npu && graph_.op(op).is<Linear>() &&
                             usually_exchanged(team_.npu_orders, padded, out_end - out_begin);
      plan_.steps.push_back(
          {op, processor(id), token_begin, token_end, out_begin, out_end, padded, exchanged, {}, {}});
    }
  }

  /// The smallest standard length that holds `rows`, or the largest below if there is none.
  int64_t length_for(int64_t rows) const {
    const auto found = std::lower_bound(options_.lengths.begin(), options_.lengths.end(), rows);
    return found == options_.lengths.end() ? options_.lengths.back() : *found;
  }

  Status add_op(int op, bool head) {
    const int64_t cols = graph_.output_cols(op);
    HETERO_TRY(const std::string main, main_processor(op));
    // The paper decodes on the GPU in its layer-level form: a matrix times one row is bound by
    // memory, where the NPU gains nothing (section 4.1.1). The head is such a product, too.
    const bool npu = graph_.op(op).is<Linear>() && uses_npu(strategy_) && !routers_.contains(op) &&
                     !(strategy_ == Strategy::kLayer && (tokens_ == 1 || head));
    if (npu && team_.npu.empty()) {
      return unavailable(
          fmt::format("strategy {} needs an NPU, and there is none", strategy_name(strategy_)));
    }
    if (!npu || (team_.can_run && !team_.can_run(team_.npu, op))) {
      add(op, main, 0, tokens_, 0, cols, tokens_);
      return {};
    }
    if (strategy_ == Strategy::kNpuOnline) {
      add(op, team_.npu, 0, tokens_, 0, cols, tokens_);
      return {};
    }
    if (strategy_ == Strategy::kTensor) {
      return add_tensor(op, main, cols);
    }
    if (strategy_ == Strategy::kNpuPipe) {
      return add_pipe(op, cols);
    }
    // Padding, in one piece, or in pieces of the largest length.
    const int64_t piece = std::min(tokens_, options_.lengths.back());
    for (int64_t t = 0; t < tokens_; t += piece) {
      const int64_t end = std::min(tokens_, t + piece);
      add(op, team_.npu, t, end, 0, cols, length_for(end - t));
    }
    return {};
  }

  /// Standard lengths from the largest down; what is left below the smallest that is worth a
  /// piece of its own is padded.
  Status add_pipe(int op, int64_t cols) {
    int64_t t = 0;
    for (auto length = options_.lengths.rbegin(); length != options_.lengths.rend(); ++length) {
      while (*length > 1 && tokens_ - t >= *length) {
        add(op, team_.npu, t, t + *length, 0, cols, *length);
        t += *length;
      }
    }
    if (t < tokens_) {
      add(op, team_.npu, t, tokens_, 0, cols, length_for(tokens_ - t));
    }
    return {};
  }

  /// Rows up to the largest standard length that fits are cut by columns between NPU and GPU
  /// (weight-centric; with an NPU share of 1, the NPU's alone), and the remaining rows are the
  /// GPU's (activation-centric). Below the smallest length the NPU's part is padded (hybrid).
  Status add_tensor(int op, const std::string& main, int64_t cols) {
    const double wanted = static_cast<double>(cols) * options_.npu_share;
    const auto grid = static_cast<double>(options_.alignment);
    const int64_t npu_cols =
        std::min(cols, static_cast<int64_t>(std::round(wanted / grid)) * options_.alignment);
    int64_t rows = 0;
    for (const int64_t length : options_.lengths) {
      if (length <= tokens_ && (length > 1 || tokens_ == 1)) {
        rows = length;
      }
    }
    const int64_t padded = rows == 0 ? length_for(tokens_) : rows;
    rows = rows == 0 ? tokens_ : rows;
    // The NPU first: it leads in prefill, and the GPU's own part runs beside it.
    add(op, team_.npu, 0, rows, 0, npu_cols, padded);
    add(op, main, 0, rows, npu_cols, cols, rows);
    add(op, main, rows, tokens_, 0, cols, tokens_ - rows);
    return {};
  }

  const Graph& graph_;
  const Strategy strategy_;
  const Team& team_;
  const int64_t tokens_;
  const StrategyOptions& options_;
  /// Linear operators that choose experts: small, and with the coarser arithmetic of an NPU they
  /// might choose others.
  std::set<int> routers_;
  Plan plan_;
};

}  // namespace

const char* strategy_name(Strategy strategy) {
  for (const Name& n : kNames) {
    if (n.strategy == strategy) {
      return n.name;
    }
  }
  return "";
}

std::optional<Strategy> strategy_from_name(const std::string& name) {
  for (const Name& n : kNames) {
    if (name == n.name) {
      return n.strategy;
    }
  }
  return std::nullopt;
}

bool uses_gpu(Strategy s) {
  return s == Strategy::kGpu || s == Strategy::kLayer || s == Strategy::kTensor;
}

bool uses_npu(Strategy s) {
  return s != Strategy::kCpu && s != Strategy::kGpu;
}

Result<Plan> make_plan(const Graph& graph, Strategy strategy, const Team& team, bool head, int64_t tokens,
                       const StrategyOptions& options) {
  HETERO_TRY(Plan plan, Planner(graph, strategy, team, tokens, options).make(head));
  if (options.last_row) {
    plan = keep_last_row(graph, plan, [&](const std::string& id) { return id == team.npu; });
  }
  return plan;
}

}  // namespace hetero
