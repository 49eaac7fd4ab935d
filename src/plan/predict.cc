#include "plan/predict.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>

namespace hetero {
namespace {

Nanos nanos(double ns) {
  return Nanos(static_cast<int64_t>(ns + 0.5));
}
double ns(Nanos t) {
  return static_cast<double>(t.count());
}

/// Of one value that a step writes.
Bytes written_bytes(const Graph& graph, const Step& step, ValueId id) {
  const Value& value = graph.value(id);
  const int64_t cols = graph.op(step.op).is<Linear>() ? step.out_end - step.out_begin : value.cols;
  return (step.token_end - step.token_begin) * row_bytes(value.dtype, cols);
}

bool overlap(const Step& a, const Step& b) {
  return a.token_begin < b.token_end && b.token_begin < a.token_end;
}

/// Of a step. `exchanged`: in which order of operands; nullopt: the faster one.
std::optional<double> ns_in_order(const Graph& graph, const Profile& profile,
                                  const ProfiledProcessor& processor, std::span<const std::string> set,
                                  const Step& step, int64_t position, std::optional<bool> exchanged) {
  const Op& op = graph.op(step.op);
  int64_t context = 0;
  if (const auto* a = op.as<Attention>()) {
    context = position + step.token_end;
    if (a->window > 0) {
      context = std::min(context, std::max(a->window, step.token_end - step.token_begin));
    }
  }
  const WidthCurve curve =
      WidthCurve::of(processor, work_of(graph, step.op, step.out_begin, step.out_end), step.padded, context);
  const int64_t n = step.out_end - step.out_begin;
  const auto timing = exchanged ? curve.at(n, *exchanged) : curve.at(n);
  if (!timing) {
    return is_unmeasured(graph, profile, step.op) ? std::optional(0.0) : std::nullopt;
  }
  return contended_ns(profile, processor.id, set, timing->ns,
                      weight_bytes(graph, step.op, step.out_begin, step.out_end));
}

/// Two processors that together do less than this times what one does alone share a lane.
constexpr double kOneAtATime = 1.25;

}  // namespace

std::vector<size_t> lanes(const Profile& profile, std::span<const ProfiledProcessor* const> processors) {
  std::vector<size_t> lane(processors.size());
  size_t count = 0;
  for (size_t b = 0; b < processors.size(); ++b) {
    lane[b] = count;
    for (size_t a = 0; a < b && lane[b] == count; ++a) {
      const std::vector<std::string> both = {processors[a]->id, processors[b]->id};
      const Share* first = profile.share(both[0], both);
      const Share* second = profile.share(both[1], both);
      const bool known = first != nullptr && second != nullptr;
      if (known && 1.0 / first->slowdown + 1.0 / second->slowdown < kOneAtATime) {
        lane[b] = lane[a];
      }
    }
    count += lane[b] == count ? 1 : 0;
  }
  return lane;
}

double QueueTimes::submit(size_t lane, double submit_ns, double work_ns, std::span<const Wait> waits) {
  control += submit_ns;
  double begin = std::max(control, free[lane]);
  for (const Wait& w : waits) {
    begin = std::max(begin, w.finish + w.handoff);
    control = blocking ? std::max(control, w.finish + w.handoff) : control;
  }
  free[lane] = begin + work_ns;
  return begin;
}

double handoff_ns(const Profile& profile, const ProfiledProcessor& from, const ProfiledProcessor& to,
                  const std::string& sync, Bytes bytes, bool cache) {
  double cost = ns(profile.handoff(from.id, to.id, sync));
  for (const ProfiledProcessor* p : {&from, &to}) {
    if (p->copy_gbps > 0.0) {
      cost += static_cast<double>(bytes) / p->copy_gbps;
    }
  }
  return cache && (from.copy_gbps > 0.0 || to.copy_gbps > 0.0) ? -1.0 : cost;
}

bool is_unmeasured(const Graph& graph, const Profile& profile, int op) {
  const Work work = work_of(graph, op);
  return std::none_of(profile.processors.begin(), profile.processors.end(), [&](const ProfiledProcessor& p) {
    const int64_t rows = p.static_shapes && !p.lengths.empty() ? p.lengths.front() : 1;
    return time_of(p, work, rows, rows).has_value();
  });
}

std::optional<double> step_ns(const Graph& graph, const Profile& profile, const ProfiledProcessor& processor,
                              std::span<const std::string> set, const Step& step, int64_t position) {
  return ns_in_order(graph, profile, processor, set, step, position, step.exchanged);
}

std::optional<double> fastest_step_ns(const Graph& graph, const Profile& profile,
                                      const ProfiledProcessor& processor, std::span<const std::string> set,
                                      const Step& step, int64_t position) {
  return ns_in_order(graph, profile, processor, set, step, position, std::nullopt);
}

void choose_orders(const Graph& graph, const Profile& profile, Plan& plan) {
  std::vector<const ProfiledProcessor*> measured;  // in both orders; nullptr: in one
  for (const std::string& id : plan.processors) {
    const ProfiledProcessor* p = profile.find(id);
    const bool both = p != nullptr && std::any_of(p->series.begin(), p->series.end(), [](const Series& s) {
                        return !s.points.empty() && s.points.back().exchanged;  // sorted
                      });
    measured.push_back(both ? p : nullptr);
  }
  for (Step& step : plan.steps) {
    const ProfiledProcessor* const p = measured[static_cast<size_t>(step.processor)];
    if (p == nullptr || !graph.op(step.op).is<Linear>()) {
      step.exchanged = false;
      continue;
    }
    const auto timing = time_of(*p, work_of(graph, step.op, step.out_begin, step.out_end), step.padded, 0);
    step.exchanged = timing && timing->exchanged;
  }
}

Result<Prediction> predict(const Graph& graph, const Profile& profile, const Plan& plan,
                           const PredictOptions& options) {
  std::vector<const ProfiledProcessor*> processors;
  for (const std::string& id : plan.processors) {
    processors.push_back(profile.find(id));
    if (processors.back() == nullptr) {
      return not_found(fmt::format("the profile has no processor \"{}\"", id));
    }
  }
  QueueTimes times;
  times.blocking = options.sync == "driver";
  const std::vector<size_t> lane = lanes(profile, processors);
  times.free.assign(processors.size(), 0.0);
  Prediction out;
  out.steps.resize(plan.steps.size());
  out.busy.resize(processors.size());
  std::vector<double> finish(plan.steps.size(), 0.0);
  std::unordered_map<ValueId, std::vector<size_t>> writers;
  for (size_t first = 0; first < plan.steps.size();) {
    size_t end = first;  // of the parts of one operator
    std::vector<std::string> set;
    for (; end < plan.steps.size() && plan.steps[end].op == plan.steps[first].op; ++end) {
      const std::string& id = plan.processors[static_cast<size_t>(plan.steps[end].processor)];
      if (std::find(set.begin(), set.end(), id) == set.end()) {
        set.push_back(id);
      }
    }
    for (size_t i = first; i < end; ++i) {
      const Step& step = plan.steps[i];
      const auto p = static_cast<size_t>(step.processor);
      const auto work = step_ns(graph, profile, *processors[p], set, step, options.position);
      if (!work) {
        return not_found(fmt::format("the profile has no time for {} of {} rows on {}",
                                     to_string(work_of(graph, step.op, step.out_begin, step.out_end)),
                                     step.padded, plan.processors[p]));
      }
      std::vector<QueueTimes::Wait> waits;
      for (const ValueId input : graph.op(step.op).inputs) {
        for (const size_t w : writers[input]) {
          const Step& writer = plan.steps[w];
          const bool cache = graph.value(input).rows == Rows::kContext;
          const bool read = cache ? writer.token_begin < step.token_end : overlap(writer, step);
          if (writer.processor == step.processor || !read) {
            continue;
          }
          const double handoff =
              handoff_ns(profile, *processors[static_cast<size_t>(writer.processor)], *processors[p],
                         options.sync, written_bytes(graph, writer, input), cache);
          if (handoff < 0.0) {
            return unsupported(fmt::format("{}: the KV cache is written by {}, and they do not share memory",
                                           graph.op(step.op).name,
                                           plan.processors[static_cast<size_t>(writer.processor)]));
          }
          waits.push_back({finish[w], handoff});
        }
      }
      const double begin = times.submit(lane[p], ns(processors[p]->submit), *work, waits);
      finish[i] = begin + *work;
      out.steps[i] = {nanos(begin), nanos(finish[i])};
      out.busy[p] += nanos(*work);
    }
    for (size_t i = first; i < end; ++i) {
      for (const ValueId output : graph.op(plan.steps[i].op).outputs) {
        writers[output].push_back(i);
      }
    }
    first = end;
  }
  double total = times.control;
  for (size_t p = 0; p < processors.size(); ++p) {
    total =
        std::max(total, times.free[lane[p]] + ns(profile.handoff(plan.processors[p], kHost, options.sync)));
  }
  out.total = nanos(total);
  double joules = 0.0;
  const bool known = std::all_of(processors.begin(), processors.end(),
                                 [](const ProfiledProcessor* p) { return p->watts.has_value(); });
  for (size_t p = 0; known && p < processors.size(); ++p) {
    joules += ns(out.busy[p]) * 1e-9 * *processors[p]->watts;
  }
  if (known) {
    out.joules = joules;
  }
  return out;
}

}  // namespace hetero
