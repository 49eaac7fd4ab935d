#include "plan/solver.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <map>
#include <set>
#include <tuple>

#include "plan/candidates.h"
#include "plan/replace.h"
#include "plan/row_parts.h"
#include "plan/search.h"

namespace hetero {
namespace {

/// A range of operators in which layer after layer does the same work.
struct Layers {
  int first = 0;  // operator
  int ops = 0;    // in each layer
  int count = 0;
};

/// The graph's equal layers; count 0 where layers differ, or are too few to be worth it.
Layers equal_layers(const Graph& graph, int begin, int end) {
  Layers layers;
  std::vector<int> starts;
  for (int op = begin; op < end; ++op) {
    const int layer = graph.op(op).layer;
    if (layer >= 0 && layer == static_cast<int>(starts.size())) {
      starts.push_back(op);
    }
  }
  constexpr int kWorthIt = 5;
  if (static_cast<int>(starts.size()) < kWorthIt) {
    return {};
  }
  layers.first = starts[0];
  layers.ops = starts[1] - starts[0];
  layers.count = static_cast<int>(starts.size());
  const auto same = [&](int a, int b) {
    const auto* attention_a = graph.op(a).as<Attention>();
    const auto* attention_b = graph.op(b).as<Attention>();
    const bool windows =
        attention_a == nullptr || attention_b == nullptr || attention_a->window == attention_b->window;
    return windows && work_of(graph, a) == work_of(graph, b);
  };
  if (layers.first + layers.ops * layers.count > end) {
    return {};
  }
  for (int layer = 1; layer < layers.count; ++layer) {
    for (int i = 0; i < layers.ops; ++i) {
      const int op = layers.first + layer * layers.ops + i;
      // The first layer's first norm has no residual to add; what matters is the second layer's.
      if (graph.op(op).layer != layer || (layer > 1 && !same(op, layers.first + layers.ops + i))) {
        return {};
      }
    }
  }
  return layers;
}

/// A plan in two parts by rows must promise this part of the time less than one without.
constexpr int kWorthParts = 30;

/// A plan for everything that was asked for, and what is predicted of it.
struct Whole {
  std::string strategy;
  Plan plan;
  Prediction prediction;
  bool allowed = false;   // by the strategy; others are told only
  bool eligible = false;  // and keeps the limits
};

class Solver {
 public:
  Solver(const Graph& graph, const Profile& profile, bool head, int64_t tokens, const SolveOptions& options)
      : graph_(graph),
        profile_(profile),
        head_(head),
        tokens_(tokens),
        options_(options),
        begin_(head ? graph.head_begin : 0),
        end_(head ? static_cast<int>(graph.ops.size()) : graph.head_begin),
        layers_(equal_layers(graph, begin_, end_)),
        everyone_(taking_part(profile, options)) {}

  Result<Solution> run() {
    if (everyone_.processors.empty()) {
      return unavailable("no processor of the profile may take part");
    }
    if (options_.objective == Objective::kEnergy) {
      for (const ProfiledProcessor* p : everyone_.processors) {
        if (!p->watts) {
          return invalid_argument(
              fmt::format("the profile has no power for {}, which planning for energy needs", p->id));
        }
      }
    }
    for (const Strategy strategy : {Strategy::kCpu, Strategy::kGpu, Strategy::kNpuPadding, Strategy::kNpuPipe,
                                    Strategy::kNpuOnline, Strategy::kLayer}) {
      if (wanted(strategy) || options_.explain || is_single(strategy)) {
        note(strategy, by_rules(strategy));
      }
    }
    if (wanted(Strategy::kTensor) || options_.explain) {
      const Pair both = pair();
      note(Strategy::kTensor, by_search(both.members, both.options, strategy_name(Strategy::kTensor)));
    }
    if (!options_.strategy) {
      note(std::nullopt, by_search(everyone_, options_, "auto"));
    }
    if (wanted(Strategy::kTensor)) {
      note_row_parts();
    }
    return choose();
  }

 private:
  bool wanted(Strategy strategy) const { return !options_.strategy || *options_.strategy == strategy; }
  /// One processor for all linear operators.
  static bool is_single(Strategy strategy) {
    return strategy == Strategy::kCpu || strategy == Strategy::kGpu || strategy == Strategy::kNpuPadding ||
           strategy == Strategy::kNpuPipe;
  }
  const std::string& home_id() const { return everyone_.processors[static_cast<size_t>(everyone_.home)]->id; }

  void note(std::optional<Strategy> strategy, Result<Whole> whole) {
    if (whole.ok()) {
      // Auto may take any but npu-online, whose time is mostly compiling; tensor is the best of GPU
      // and NPU, which may be the GPU alone.
      whole->allowed = options_.strategy
                           ? strategy == options_.strategy ||
                                 (options_.strategy == Strategy::kTensor && strategy == Strategy::kGpu)
                           : strategy != Strategy::kNpuOnline;
      whole->eligible = whole->allowed && few_copies(whole->plan) && few_twice(whole->plan);
      wholes_.push_back(std::move(whole).value());
    } else if (strategy == options_.strategy) {
      why_ = whole.status();
    }
  }

  /// Whether the plan needs no graphs but those that there are, or will be.
  bool all_compiled(const Plan& plan) const {
    return !options_.compiled || std::all_of(plan.steps.begin(), plan.steps.end(), [&](const Step& step) {
      const auto ranges = options_.compiled(plan.processors[static_cast<size_t>(step.processor)], step.op);
      return !ranges || std::find(ranges->begin(), ranges->end(),
                                  SolveOptions::Columns{step.out_begin, step.out_end}) != ranges->end();
    });
  }

  /// Whether the plan keeps the limits.
  bool few_copies(const Plan& plan) const {
    return options_.copy_limit < 0 || copied(plan) <= options_.copy_limit;
  }
  bool few_twice(const Plan& plan) const {
    return options_.twice_limit < 0 || twice(plan) <= options_.twice_limit;
  }

  /// Bytes of weights that one processor has a copy of and another one reads.
  Bytes twice(const Plan& plan) const {
    std::set<std::tuple<int, int, int64_t, int64_t>> seen;
    Bytes bytes = 0;
    for (const Step& step : plan.steps) {
      if (seen.insert({step.processor, step.op, step.out_begin, step.out_end}).second) {
        bytes +=
            twice_bytes(graph_, everyone_, options_, plan.processors[static_cast<size_t>(step.processor)],
                        step.op, step.out_begin, step.out_end);
      }
    }
    return bytes;
  }

  /// Bytes of weights that the plan's processors hold copies of.
  Bytes copied(const Plan& plan) const {
    std::set<std::tuple<int, int, int64_t, int64_t>> seen;
    Bytes bytes = 0;
    for (const Step& step : plan.steps) {
      const ProfiledProcessor* p = profile_.find(plan.processors[static_cast<size_t>(step.processor)]);
      if (p->copies_weights && seen.insert({step.processor, step.op, step.out_begin, step.out_end}).second) {
        bytes += weight_bytes(graph_, step.op, step.out_begin, step.out_end);
      }
    }
    return bytes;
  }

  /// Plans in two parts by rows. Each is planned as if alone, which leaves the queues idle for different
  /// reasons at different times; together they fill each other's gaps.
  void note_row_parts() {
    std::set<int64_t> lengths;
    for (const ProfiledProcessor* p : everyone_.processors) {
      if (p->static_shapes) {
        lengths.insert(p->lengths.begin(), p->lengths.end());
      }
    }
    const auto best = std::min_element(wholes_.begin(), wholes_.end(), [](const Whole& a, const Whole& b) {
      return std::pair(!a.eligible, a.prediction.total) < std::pair(!b.eligible, b.prediction.total);
    });
    if (!options_.beyond_paper || head_ || best == wholes_.end() || everyone_.processors.size() < 2) {
      return;
    }
    // More submissions must promise more than predictions are off by.
    Nanos limit = best->prediction.total - best->prediction.total / kWorthParts;
    std::optional<Whole> found;
    for (const int64_t rows : lengths) {
      if (4 * rows < tokens_ || 8 * rows > 7 * tokens_) {
        continue;
      }
      auto whole = in_parts(rows);
      if (whole.ok() && whole->prediction.total < limit) {
        limit = whole->prediction.total;
        found = std::move(whole).value();
      }
    }
    if (found) {
      note(options_.strategy, std::move(*found));
    }
  }

  Result<Whole> in_parts(int64_t rows) const {
    const auto [members, options] = options_.strategy ? pair() : Pair{everyone_, options_};
    const std::string name = options_.strategy ? strategy_name(*options_.strategy) : "auto";
    Result<Whole> best = unavailable("an operator cannot be cut by rows");
    for (Plan& plan : plans_in_row_parts(graph_, profile_, members, tokens_, rows, options)) {
      auto whole = finish(name, std::move(plan));
      if (!best.ok() || (whole.ok() && whole->prediction.total < best->prediction.total)) {
        best = std::move(whole);
      }
    }
    return best;
  }

  Result<Whole> finish(std::string strategy, Plan plan) const {
    Whole whole;
    whole.strategy = std::move(strategy);
    if (options_.last_row) {
      plan = keep_last_row(graph_, plan,
                           [&](const std::string& id) { return profile_.find(id)->static_shapes; });
    }
    choose_orders(graph_, profile_, plan);
    HETERO_TRY(whole.prediction, predict(graph_, profile_, plan, options_.predict));
    for (size_t i = 0; i < plan.steps.size(); ++i) {
      plan.steps[i].predicted = whole.prediction.steps[i].end - whole.prediction.steps[i].begin;
    }
    plan.strategy = whole.strategy;
    plan.predicted = whole.prediction.total;
    whole.plan = std::move(plan);
    return whole;
  }

  Result<Whole> by_rules(Strategy strategy) const {
    Team team;
    StrategyOptions rules;
    rules.npu_share = options_.npu_share;
    for (const ProfiledProcessor* p : everyone_.processors) {
      std::string& place = p->kind == "cpu" ? team.cpu : p->kind == "gpu" ? team.gpu : team.npu;
      if (place.empty()) {
        place = p->id;
        if (p->kind == "npu" && !p->lengths.empty()) {
          rules.lengths = p->lengths;
          rules.alignment = p->grid;
        }
      }
    }
    team.can_run = [&](const std::string& id, int op) {
      const ProfiledProcessor& p = *profile_.find(id);
      const int64_t rows = p.static_shapes && !p.lengths.empty() ? p.lengths.front() : tokens_;
      const bool timed = time_of(p, work_of(graph_, op), rows, rows).has_value() ||
                         (id == home_id() && is_unmeasured(graph_, profile_, op));
      return timed && (!options_.can_run || options_.can_run(id, op));
    };
    HETERO_TRY(Plan plan, make_plan(graph_, strategy, team, head_, tokens_, rules));
    HETERO_TRY(Whole whole, finish(strategy_name(strategy), std::move(plan)));
    if (strategy == Strategy::kNpuOnline) {
      // Every graph is compiled for exactly this length before it runs.
      Nanos compiling{};
      for (const Step& step : whole.plan.steps) {
        const ProfiledProcessor& p =
            *profile_.find(whole.plan.processors[static_cast<size_t>(step.processor)]);
        compiling += compile_time(p, work_of(graph_, step.op, step.out_begin, step.out_end), tokens_);
      }
      if (compiling == Nanos{} && options_.strategy != strategy) {
        return unavailable("the profile has no compile times");
      }
      whole.prediction.total += compiling;
      whole.plan.predicted += compiling;
    }
    return whole;
  }

  struct Pair {
    Members members;
    SolveOptions options;
  };
  /// Of kTensor: GPU and NPU; with the CPU where they cannot do everything, or (SolveOptions::beyond_paper)
  /// for what is not linear.
  Pair pair() const {
    SolveOptions narrowed = options_;
    narrowed.processors.clear();
    for (const ProfiledProcessor* p : everyone_.processors) {
      if (p->kind != "cpu") {
        narrowed.processors.push_back(p->id);
      }
    }
    if (narrowed.processors.empty()) {
      return {everyone_, options_};
    }
    Members members = taking_part(profile_, narrowed);
    for (const int op : listed()) {
      if (candidates(graph_, profile_, members, op, tokens_, options_).empty()) {
        return {everyone_, options_};
      }
    }
    if (!options_.beyond_paper || members.processors.size() < 2) {
      return {std::move(members), options_};
    }
    SolveOptions uncut = options_;
    uncut.can_run = [this](const std::string& id, int op) {
      const bool linear_on_cpu = graph_.op(op).is<Linear>() && profile_.find(id)->kind == "cpu";
      return !linear_on_cpu && (!options_.can_run || options_.can_run(id, op));
    };
    return {everyone_, std::move(uncut)};
  }

  /// The operators that a search looks at: of many equal layers the first three.
  std::vector<int> listed() const {
    std::vector<int> ops;
    for (int op = begin_; op < end_; ++op) {
      if (layers_.count == 0 || op < layers_.first + 3 * layers_.ops ||
          op >= layers_.first + layers_.count * layers_.ops) {
        ops.push_back(op);
      }
    }
    return ops;
  }

  /// Where the choice for an operator stands in the list: layers do as the second of the three does,
  /// which has one before and one behind it.
  size_t place(int op) const {
    if (layers_.count == 0 || op < layers_.first) {
      return static_cast<size_t>(op - begin_);
    }
    const int behind = op - (layers_.first + layers_.count * layers_.ops);
    if (behind >= 0) {
      return static_cast<size_t>(layers_.first - begin_ + 3 * layers_.ops + behind);
    }
    const int second = layers_.first + layers_.ops + (op - layers_.first) % layers_.ops;
    const bool own = op < layers_.first + layers_.ops && work_of(graph_, op) != work_of(graph_, second);
    return static_cast<size_t>((own ? op : second) - begin_);
  }

  Result<Whole> by_search(const Members& members, const SolveOptions& options,
                          const std::string& strategy) const {
    const std::vector<int> ops = listed();
    CandidateLists all(graph_, profile_, members, tokens_, options);
    std::vector<std::vector<Candidate>> lists;
    for (const int op : ops) {
      if (all.of(op).empty()) {
        return unavailable(fmt::format("no processor that may take part can run {} of {} rows",
                                       to_string(work_of(graph_, op)), tokens_));
      }
      lists.push_back(all.of(op));
    }
    // Where copies of weights, or weights in memory twice, are limited, kinds of work lose the candidates
    // that need them, the ones that gain least by it first.
    for (;;) {
      const SearchResult result = search(graph_, profile_, members, ops, lists, options);
      if (result.choices.empty()) {
        return unavailable("no plan keeps the KV cache where it can be read");
      }
      HETERO_TRY(Whole whole, finish(strategy, assemble(members, lists, result)));
      const auto copies = [&](int, const Part& part) {
        return members.processors[static_cast<size_t>(part.processor)]->copies_weights;
      };
      const auto reads_twice = [&](int op, const Part& part) {
        return twice_bytes(graph_, members, options,
                           members.processors[static_cast<size_t>(part.processor)]->id, op, part.out_begin,
                           part.out_end) > 0;
      };
      const bool copies_less = few_copies(whole.plan);
      if ((copies_less && few_twice(whole.plan)) ||
          !(copies_less ? drop_some(members, ops, lists, result, reads_twice)
                        : drop_some(members, ops, lists, result, copies))) {
        return whole;
      }
    }
  }

  Plan assemble(const Members& members, const std::vector<std::vector<Candidate>>& lists,
                const SearchResult& result) const {
    Plan plan;
    plan.head = head_;
    plan.tokens = tokens_;
    std::vector<int> index(members.processors.size(), -1);
    for (int op = begin_; op < end_; ++op) {
      const size_t at = place(op);
      for (const Part& part : lists[at][static_cast<size_t>(result.choices[at])].parts) {
        int& p = index[static_cast<size_t>(part.processor)];
        if (p < 0) {
          p = static_cast<int>(plan.processors.size());
          plan.processors.push_back(members.processors[static_cast<size_t>(part.processor)]->id);
        }
        plan.steps.push_back({op,
                              p,
                              part.token_begin,
                              part.token_end,
                              part.out_begin,
                              part.out_end,
                              part.padded,
                              false,
                              {},
                              {}});
      }
    }
    return plan;
  }

  /// Removes the candidates with such parts from one kind of work. False: there is none that can do without.
  bool drop_some(const Members& members, const std::vector<int>& ops,
                 std::vector<std::vector<Candidate>>& lists, const SearchResult& result,
                 const std::function<bool(int op, const Part&)>& concerned) const {
    const auto any = [&](int op, const Candidate& c) {
      return std::any_of(c.parts.begin(), c.parts.end(),
                         [&](const Part& part) { return concerned(op, part); });
    };
    std::optional<Work> least;
    double least_gain = 0.0;
    for (size_t i = 0; i < ops.size(); ++i) {
      const Candidate& chosen = lists[i][static_cast<size_t>(result.choices[i])];
      if (!any(ops[i], chosen)) {
        continue;
      }
      double without = -1.0;
      Bytes bytes = 0;
      for (const Candidate& c : lists[i]) {
        const double t = operator_ns(profile_, members, c, options_.predict.sync);
        if (!any(ops[i], c) && (without < 0.0 || t < without)) {
          without = t;
        }
      }
      for (const Part& part : chosen.parts) {
        if (concerned(ops[i], part)) {
          bytes += weight_bytes(graph_, ops[i], part.out_begin, part.out_end);
        }
      }
      if (without < 0.0) {
        continue;  // nobody else can
      }
      const double gain = (without - operator_ns(profile_, members, chosen, options_.predict.sync)) /
                          static_cast<double>(std::max<Bytes>(1, bytes));
      if (!least || gain < least_gain) {
        least = work_of(graph_, ops[i]);
        least_gain = gain;
      }
    }
    for (size_t i = 0; least && i < ops.size(); ++i) {
      if (work_of(graph_, ops[i]) == *least) {
        std::erase_if(lists[i], [&](const Candidate& c) { return any(ops[i], c); });
      }
    }
    return least.has_value();
  }

  Result<Solution> choose() {
    const Whole* best = nullptr;
    std::optional<Nanos> best_single;
    const auto rank = [&](const Whole& w) {
      const auto time = static_cast<double>(w.prediction.total.count());
      const double joules = w.prediction.joules.value_or(0.0);
      return options_.objective == Objective::kEnergy ? std::pair(joules, time) : std::pair(time, joules);
    };
    Solution solution;
    for (const Whole& w : wholes_) {
      if (w.eligible && (best == nullptr || rank(w) < rank(*best))) {
        best = &w;
      }
      const auto strategy = strategy_from_name(w.strategy);
      // The CPU alone is not what tensor is to be compared with.
      const bool other = options_.strategy == Strategy::kTensor && strategy == Strategy::kCpu;
      if (strategy && is_single(*strategy) && !other) {
        best_single = std::min(best_single.value_or(w.prediction.total), w.prediction.total);
      }
      solution.alternatives.push_back({w.strategy, w.prediction.total});
    }
    if (best == nullptr) {
      const bool any = std::any_of(wholes_.begin(), wholes_.end(), [](const Whole& w) { return w.allowed; });
      return any ? unavailable(missed_limit()) : why_;
    }
    solution.plan = best->plan;
    solution.plan.best_single_predicted = best_single.value_or(Nanos{});
    link(graph_, solution.plan);
    HETERO_RETURN_IF_ERROR(validate(graph_, solution.plan));
    solution.predicted = best->prediction.total;
    solution.joules = best->prediction.joules;
    solution.copied_bytes = copied(solution.plan);
    solution.twice_bytes = twice(solution.plan);
    std::stable_sort(solution.alternatives.begin(), solution.alternatives.end(),
                     [](const Alternative& a, const Alternative& b) { return a.predicted < b.predicted; });
    if (options_.explain) {
      explain(solution);
    }
    return solution;
  }

  /// Which limit no plan keeps, and the least that one needs.
  std::string missed_limit() const {
    Bytes least_copied = std::numeric_limits<Bytes>::max();
    Bytes least_twice = least_copied;
    for (const Whole& w : wholes_) {
      if (w.allowed) {
        least_copied = std::min(least_copied, copied(w.plan));
        least_twice = std::min(least_twice, twice(w.plan));
      }
    }
    return options_.copy_limit < 0 || least_copied <= options_.copy_limit
               ? fmt::format("no plan has at most {} bytes of weights in memory twice, the least is {}",
                             options_.twice_limit, least_twice)
               : fmt::format("no plan holds at most {} bytes of copies of weights, the least is {}",
                             options_.copy_limit, least_copied);
  }

  void explain(Solution& solution) const {
    std::set<Work> told;
    for (int op = begin_; op < end_; ++op) {
      const Work work = work_of(graph_, op);
      if (!told.insert(work).second) {
        continue;
      }
      if (is_unmeasured(graph_, profile_, op)) {
        solution.unmeasured.push_back(to_string(work));
      }
      solution.operators.push_back(choice_of(solution.plan, op, work));
    }
  }

  OperatorChoice choice_of(const Plan& plan, int op, const Work& work) const {
    OperatorChoice choice;
    choice.op = graph_.op(op).name;
    choice.kind = work.kind;
    choice.out = work.n;
    choice.in = graph_.op(op).weights.empty() ? 0 : work.k;
    choice.tokens = tokens_;
    Candidate chosen;
    std::vector<std::string> set;
    for (const Step& step : plan.steps) {
      if (step.op == op) {
        const std::string& id = plan.processors[static_cast<size_t>(step.processor)];
        if (std::find(set.begin(), set.end(), id) == set.end()) {
          set.push_back(id);
        }
      }
    }
    std::map<int, double> elements;
    for (const Step& step : plan.steps) {
      if (step.op != op) {
        continue;
      }
      const auto p = static_cast<int>(
          std::find_if(everyone_.processors.begin(), everyone_.processors.end(),
                       [&](const ProfiledProcessor* q) {
                         return q->id == plan.processors[static_cast<size_t>(step.processor)];
                       }) -
          everyone_.processors.begin());
      const double time = step_ns(graph_, profile_, *everyone_.processors[static_cast<size_t>(p)], set, step,
                                  options_.predict.position)
                              .value_or(0.0);
      chosen.parts.push_back(
          {p, step.token_begin, step.token_end, step.out_begin, step.out_end, step.padded, time});
      const std::string& id = everyone_.processors[static_cast<size_t>(p)]->id;
      if (step.exchanged &&
          std::find(choice.exchanged.begin(), choice.exchanged.end(), id) == choice.exchanged.end()) {
        choice.exchanged.push_back(id);
      }
      elements[p] += static_cast<double>(step.token_end - step.token_begin) *
                     static_cast<double>(step.out_end - step.out_begin) /
                     (static_cast<double>(tokens_) * static_cast<double>(graph_.output_cols(op)));
    }
    for (const auto& [p, part] : elements) {
      choice.share.emplace_back(everyone_.processors[static_cast<size_t>(p)]->id, part);
    }
    const int64_t cols = graph_.output_cols(op);
    const auto nanos = [&](const Candidate& c) {
      return Nanos(static_cast<int64_t>(operator_ns(profile_, everyone_, c, options_.predict.sync) + 0.5));
    };
    choice.strategy = classify(everyone_, chosen.parts, tokens_, cols);
    choice.predicted = nanos(chosen);
    std::map<std::string, Nanos> best;
    for (const Candidate& c : candidates(graph_, profile_, everyone_, op, tokens_, options_)) {
      const std::string name = classify(everyone_, c.parts, tokens_, cols);
      const auto [found, added] = best.try_emplace(name, nanos(c));
      found->second = std::min(found->second, nanos(c));
    }
    best.erase(choice.strategy);
    for (const auto& [name, time] : best) {
      choice.rejected.push_back({name, time});
    }
    std::stable_sort(choice.rejected.begin(), choice.rejected.end(),
                     [](const Alternative& a, const Alternative& b) { return a.predicted < b.predicted; });
    return choice;
  }

  const Graph& graph_;
  const Profile& profile_;
  const bool head_;
  const int64_t tokens_;
  const SolveOptions& options_;
  const int begin_;
  const int end_;
  const Layers layers_;
  const Members everyone_;
  std::vector<Whole> wholes_;
  Status why_ = unavailable("no plan was found");
};

}  // namespace

Result<Solution> solve(const Graph& graph, const Profile& profile, bool head, int64_t tokens,
                       const SolveOptions& options) {
  if (tokens < 1) {
    return invalid_argument(fmt::format("a plan for {} tokens", tokens));
  }
  return Solver(graph, profile, head, tokens, options).run();
}

}  // namespace hetero
