#include "plan/columns.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>
#include <map>
#include <set>

#include "plan/candidates.h"

namespace hetero {
namespace {

using Columns = SolveOptions::Columns;

/// What one processor computes of an operator in a plan; nothing unless that is one range.
std::optional<Columns> columns_in(const Plan& plan, int op, const std::string& processor) {
  std::optional<Columns> found;
  for (const Step& step : plan.steps) {
    if (step.op == op && plan.processors[static_cast<size_t>(step.processor)] == processor) {
      const Columns here{step.out_begin, step.out_end};
      if (found && *found != here) {
        return std::nullopt;
      }
      found = here;
    }
  }
  return found;
}

/// Columns [0, about share * all) of every linear operator of which the processor has a part, on its grid.
CompiledColumns::Entry with_share(const Graph& graph, const ProfiledProcessor& processor,
                                  const CompiledColumns::Entry& entry, double share) {
  CompiledColumns::Entry result = entry;
  for (int op = 0; op < graph.head_begin; ++op) {
    Columns& c = result.columns[static_cast<size_t>(op)];
    const int64_t cols = graph.output_cols(op);
    if (c.begin < c.end) {
      const auto grids = static_cast<int64_t>(share * static_cast<double>(cols / processor.grid) + 0.5);
      c = {0, std::clamp(grids * processor.grid, std::min(cols, processor.grid), cols)};
    }
  }
  return result;
}

/// What was chosen operator by operator leaves the processor idle while another one has what nobody cuts
/// (attention, norms). Larger and smaller parts of all operators are tried in whole plans, and the best
/// is kept.
void balance(const Graph& graph, const Profile& profile, std::span<const ExpectedPass> passes,
             const SolveOptions& options, CompiledColumns& columns) {
  SolveOptions bound = options;
  bound.explain = false;
  if (!options.beyond_paper || columns.entries.size() != 1 || passes.empty()) {
    return;
  }
  // Passes that count less would double what this takes at every start.
  std::vector<ExpectedPass> counted(passes.begin(), passes.end());
  const double most = std::max_element(counted.begin(), counted.end(), [](const auto& a, const auto& b) {
                        return a.weight < b.weight;
                      })->weight;
  std::erase_if(counted, [&](const ExpectedPass& p) { return p.weight < most; });
  const CompiledColumns::Entry as_chosen = columns.entries[0];
  std::vector<CompiledColumns::Entry> tried = {as_chosen};
  for (double share = 0.4; share < 0.85; share += 0.1) {
    tried.push_back(with_share(graph, *profile.find(as_chosen.processor), as_chosen, share));
  }
  bound.compiled = [&](const std::string& id, int op) { return columns.of(id, op); };
  std::vector<std::vector<double>> times(counted.size());
  for (CompiledColumns::Entry& entry : tried) {
    columns.entries[0] = entry;
    for (size_t i = 0; i < counted.size(); ++i) {
      const auto solution = solve(graph, profile, false, counted[i].tokens, bound);
      times[i].push_back(solution.ok() ? static_cast<double>(solution->predicted.count())
                                       : std::numeric_limits<double>::infinity());
    }
  }
  size_t best = 0;
  double least = std::numeric_limits<double>::max();
  for (size_t k = 0; k < tried.size(); ++k) {
    double sum = 0.0;
    for (size_t i = 0; i < counted.size(); ++i) {
      sum += counted[i].weight * times[i][k] /
             std::max(1.0, *std::min_element(times[i].begin(), times[i].end()));
    }
    if (sum < least) {
      least = sum;
      best = k;
    }
  }
  columns.entries[0] = std::move(tried[best]);
}

}  // namespace

std::optional<std::vector<Columns>> CompiledColumns::of(const std::string& processor, int op) const {
  for (const Entry& e : entries) {
    if (e.processor == processor) {
      const Columns& c = e.columns[static_cast<size_t>(op)];
      return c.begin < c.end ? std::vector<Columns>{c} : std::vector<Columns>{};
    }
  }
  return std::nullopt;
}

std::vector<ExpectedPass> usual_passes(int64_t longest) {
  return {{1, 1.0}, {64, 0.5}, {256, 1.0}, {longest, 0.5}};
}

Bytes all_weight_bytes(const Graph& graph) {
  Bytes bytes = 0;
  for (const Weight& w : graph.weights) {
    bytes += w.rows * row_bytes(w.dtype, w.cols);
  }
  return bytes;
}

Bytes twice_limit(const Graph& graph, bool head, double ratio) {
  std::array<double, 2> linear{};  // bytes of body and head
  for (int op = 0; op < static_cast<int>(graph.ops.size()); ++op) {
    if (graph.op(op).is<Linear>()) {
      linear[graph.in_head(op) ? 1 : 0] +=
          static_cast<double>(weight_bytes(graph, op, 0, graph.output_cols(op)));
    }
  }
  const double part = linear[head ? 1 : 0] / std::max(1.0, linear[0] + linear[1]);
  return static_cast<Bytes>((ratio - 1.0) * static_cast<double>(all_weight_bytes(graph)) * part);
}

double weight_ratio(const Graph& graph, std::span<const Plan> plans,
                    const std::function<bool(const std::string& id)>& copies) {
  struct Use {
    std::set<std::pair<std::string, Columns>> copied;  // each a copy of its own
    std::vector<Columns> read;                         // where the file has them, in decoding
  };
  std::map<int, Use> uses;  // by operator
  for (const Plan& plan : plans) {
    for (const Step& step : plan.steps) {
      const std::string& id = plan.processors[static_cast<size_t>(step.processor)];
      const Columns columns{step.out_begin, step.out_end};
      if (graph.op(step.op).is<Linear>() && copies(id)) {
        uses[step.op].copied.insert({id, columns});
      } else if (plan.tokens == 1) {
        uses[step.op].read.push_back(columns);
      }
    }
  }
  Bytes more = 0;
  for (const auto& [op, use] : uses) {
    std::set<int64_t> cuts;
    for (const auto& [id, c] : use.copied) {
      more += weight_bytes(graph, op, c.begin, c.end);
      cuts.insert({c.begin, c.end});
    }
    for (const Columns& c : use.read) {
      cuts.insert({c.begin, c.end});
    }
    // What only copies are used of is given back.
    for (auto end = cuts.begin(), begin = end++; !use.copied.empty() && end != cuts.end(); begin = end++) {
      const auto inside = [&](const Columns& c) { return c.begin <= *begin && *end <= c.end; };
      const bool copied =
          std::any_of(use.copied.begin(), use.copied.end(), [&](const auto& c) { return inside(c.second); });
      const bool read = std::any_of(use.read.begin(), use.read.end(), inside);
      more -= copied && !read ? weight_bytes(graph, op, *begin, *end) : 0;
    }
  }
  return 1.0 + static_cast<double>(more) / static_cast<double>(std::max<Bytes>(1, all_weight_bytes(graph)));
}

Result<CompiledColumns> choose_columns(const Graph& graph, const Profile& profile,
                                       std::span<const ExpectedPass> passes, const SolveOptions& options) {
  SolveOptions free = options;
  free.compiled = nullptr;
  free.explain = false;
  CompiledColumns out;
  const auto count = static_cast<int>(graph.ops.size());
  const Members members = taking_part(profile, options);
  for (const ProfiledProcessor* p : members.processors) {
    if (p->copies_weights) {
      out.entries.push_back({p->id, std::vector<Columns>(static_cast<size_t>(count))});
    }
  }
  if (out.entries.empty()) {
    return out;
  }
  // What each pass would like: by processor and kind of work.
  using Key = std::pair<std::string, Work>;
  std::map<Key, std::set<Columns>> wanted;
  for (const ExpectedPass& pass : passes) {
    for (const bool head : {false, true}) {
      HETERO_TRY(const Solution solution, solve(graph, profile, head, head ? 1 : pass.tokens, free));
      for (int op = head ? graph.head_begin : 0; op < (head ? count : graph.head_begin); ++op) {
        for (const auto& e : out.entries) {
          if (const auto columns = columns_in(solution.plan, op, e.processor)) {
            wanted[{e.processor, work_of(graph, op)}].insert(*columns);
          }
        }
      }
    }
  }
  // The one that suits all passes best, for the first operator of each kind of work.
  std::map<Key, Columns> chosen;
  for (int op = 0; op < count; ++op) {
    const Work work = work_of(graph, op);
    for (auto& e : out.entries) {
      const Key key{e.processor, work};
      if (const auto known = chosen.find(key); known != chosen.end()) {
        e.columns[static_cast<size_t>(op)] = known->second;
        continue;
      }
      Columns best{};
      double least = std::numeric_limits<double>::max();
      for (const Columns& columns : wanted[key]) {
        double sum = 0.0;
        for (const ExpectedPass& pass : passes) {
          const int64_t tokens = graph.in_head(op) ? 1 : pass.tokens;
          const auto fastest = [&](const SolveOptions& o) {
            double t = std::numeric_limits<double>::max();
            for (const Candidate& c : candidates(graph, profile, members, op, tokens, o)) {
              t = std::min(t, operator_ns(profile, members, c, o.predict.sync));
            }
            return t;
          };
          SolveOptions bound = free;
          bound.compiled = [&](const std::string& id, int) -> std::optional<std::vector<Columns>> {
            return id == e.processor ? std::optional(std::vector<Columns>{columns}) : std::nullopt;
          };
          sum += pass.weight * fastest(bound) / std::max(1.0, fastest(free));
        }
        if (sum < least) {
          least = sum;
          best = columns;
        }
      }
      chosen[key] = best;
      e.columns[static_cast<size_t>(op)] = best;
    }
  }
  balance(graph, profile, passes, options, out);
  return out;
}

std::string columns_key(const Graph& graph, const Profile& profile, std::span<const ExpectedPass> passes,
                        const SolveOptions& options) {
  std::string key =
      fmt::format("columns {}\n{}\n{}\n", kColumnsVersion, model_shape_key(graph),
                  to_json(profile).dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
  for (const ExpectedPass& p : passes) {
    key += fmt::format("{} {}, ", p.tokens, p.weight);
  }
  key += fmt::format("\nobjective {}, strategy {}, sync {} at {}, at most {} bytes, share {}, beyond {}\n",
                     static_cast<int>(options.objective),
                     options.strategy ? strategy_name(*options.strategy) : "auto", options.predict.sync,
                     options.predict.position, options.copy_limit, options.npu_share, options.beyond_paper);
  for (const std::string& id : options.processors) {
    key += id + " ";
  }
  key += "without ";
  for (const std::string& id : options.reserve) {
    key += id + " ";
  }
  for (const ProfiledProcessor& p : profile.processors) {
    key += "\n";
    for (int op = 0; op < static_cast<int>(graph.ops.size()); ++op) {
      key += !options.can_run || options.can_run(p.id, op) ? '1' : '0';
    }
  }
  return key;
}

nlohmann::ordered_json to_json(const CompiledColumns& columns) {
  auto json = nlohmann::ordered_json::array();
  for (const CompiledColumns::Entry& e : columns.entries) {
    auto ranges = nlohmann::ordered_json::array();
    for (const Columns& c : e.columns) {
      ranges.push_back({c.begin, c.end});
    }
    json.push_back({{"processor", e.processor}, {"columns", std::move(ranges)}});
  }
  return json;
}

Result<CompiledColumns> columns_from_json(const Graph& graph, const nlohmann::ordered_json& json) {
  CompiledColumns columns;
  try {
    for (const auto& e : json) {
      CompiledColumns::Entry& entry = columns.entries.emplace_back();
      entry.processor = e.at("processor").get<std::string>();
      for (const auto& range : e.at("columns")) {
        const Columns c{range.at(0).get<int64_t>(), range.at(1).get<int64_t>()};
        const size_t op = entry.columns.size();
        if (op >= graph.ops.size() || c.begin < 0 || c.begin > c.end ||
            c.end > graph.output_cols(static_cast<int>(op))) {
          return malformed(
              fmt::format("columns: operator {} of {}: {}..{}", op, graph.ops.size(), c.begin, c.end));
        }
        entry.columns.push_back(c);
      }
      if (entry.columns.size() != graph.ops.size()) {
        return malformed(fmt::format("columns: {} has {} operators, expected {}", entry.processor,
                                     entry.columns.size(), graph.ops.size()));
      }
    }
  } catch (const nlohmann::json::exception& e) {
    return malformed(fmt::format("columns: {}", e.what()));
  }
  return columns;
}

}  // namespace hetero
