#include "profile/profile.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <set>

namespace hetero {
namespace {

/// Weight matrices of the operators whose time they decide.
bool reads_weights(const Op& op) {
  return op.is<Linear>() || op.is<ExpertLinear>();
}

double ns(Nanos t) {
  return static_cast<double>(t.count());
}

/// Through (x0, y0) and (x1, y1) at x; never below 0.
double line(double x0, double y0, double x1, double y1, double x) {
  return x1 == x0 ? y0 : std::max(0.0, y0 + (y1 - y0) * (x - x0) / (x1 - x0));
}

/// Pairs of query and key of `tokens` rows behind `position` others.
double pairs(int64_t tokens, int64_t position) {
  const auto t = static_cast<double>(tokens);
  return t * static_cast<double>(position) + t * (t + 1) / 2;
}

/// The points of one number of tokens at `context`, linear between measured contexts.
double at_context(std::span<const Point> points, int64_t context) {
  if (points.size() == 1) {
    return ns(points[0].median);
  }
  size_t hi = 1;
  while (hi + 1 < points.size() && points[hi].context < context) {
    ++hi;
  }
  const Point& a = points[hi - 1];
  const Point& b = points[hi];
  const double t = line(static_cast<double>(a.context), ns(a.median), static_cast<double>(b.context),
                        ns(b.median), static_cast<double>(context));
  return context < points[0].context ? std::min(t, ns(points[0].median)) : t;
}

struct Found {
  double ns = 0.0;
  int64_t padded = 0;
};

/// One order of operands of one series.
std::optional<Found> at_tokens(std::span<const Point> points, bool attention, bool static_shapes,
                               int64_t tokens, int64_t context) {
  struct Group {
    int64_t tokens;
    std::span<const Point> points;  // by context
  };
  std::vector<Group> groups;
  for (size_t i = 0; i < points.size();) {
    size_t end = i;
    while (end < points.size() && points[end].tokens == points[i].tokens) {
      ++end;
    }
    groups.push_back({points[i].tokens, points.subspan(i, end - i)});
    i = end;
  }
  if (groups.empty()) {
    return std::nullopt;
  }
  const auto next = std::lower_bound(groups.begin(), groups.end(), tokens,
                                     [](const Group& g, int64_t t) { return g.tokens < t; });
  const int64_t position = std::max<int64_t>(0, context - tokens);
  const auto value = [&](const Group& g) {
    return at_context(g.points, attention ? position + g.tokens : 0);
  };
  if (next != groups.end() && (static_shapes || next->tokens == tokens)) {
    return Found{value(*next), next->tokens};
  }
  if (static_shapes) {
    return std::nullopt;
  }
  if (groups.size() == 1) {
    // Nothing to tell a slope from: twice the rows take twice as long, fewer are not known to gain.
    const double factor = static_cast<double>(tokens) / static_cast<double>(groups[0].tokens);
    return Found{value(groups[0]) * std::max(1.0, factor), tokens};
  }
  if (next == groups.begin()) {
    return Found{value(groups[0]), tokens};
  }
  const auto hi = next == groups.end() ? next - 1 : next;
  const Group& a = *(hi - 1);
  const Group& b = *hi;
  const auto x = [&](int64_t t) { return attention ? pairs(t, position) : static_cast<double>(t); };
  const double t = line(x(a.tokens), value(a), x(b.tokens), value(b), x(tokens));
  return Found{next == groups.end() ? std::max(t, value(b)) : t, tokens};
}

std::span<const Point> points_in(const Series& series, bool exchanged) {
  const auto split =
      std::find_if(series.points.begin(), series.points.end(), [](const Point& p) { return p.exchanged; });
  const auto plain = static_cast<size_t>(split - series.points.begin());
  const std::span<const Point> all(series.points);
  return exchanged ? all.subspan(plain) : all.first(plain);
}

}  // namespace

Work work_of(const Graph& graph, int index, int64_t begin, int64_t end) {
  const Op& op = graph.op(index);
  Work work;
  work.kind = kind_name(op);
  work.n = end - begin;
  work.k = static_cast<int64_t>(op.inputs.size());
  if (reads_weights(op) || op.is<Embed>()) {
    work.k = graph.weight(op.weights[0]).cols;
    for (const WeightId id : op.weights) {
      const std::string name(traits(graph.weight(id).dtype).name);
      if (work.dtype.empty()) {
        work.dtype = name;
      } else if (!work.dtype.ends_with(name)) {
        work.dtype += "+" + name;
      }
    }
  } else if (const auto* a = op.as<Attention>()) {
    work.k = int64_t{a->kv_heads} * a->head_dim;
    work.dtype = traits(graph.value(op.inputs[1]).dtype).name;
  } else if (const auto* r = op.as<Rope>()) {
    work.k = int64_t{r->kv_heads} * r->head_dim;
    work.dtype = traits(graph.value(op.outputs[1]).dtype).name;
  } else if (op.is<Route>()) {
    work.k = graph.value(op.inputs[0]).cols;
  }
  return work;
}

Bytes weight_bytes(const Graph& graph, int index, int64_t begin, int64_t end) {
  const Op& op = graph.op(index);
  Bytes bytes = 0;
  if (op.is<Linear>()) {
    for (const LinearSegment& s : linear_segments(graph, index, begin, end)) {
      bytes += s.rows * row_bytes(s.weight->dtype, s.weight->cols);
    }
  } else if (const auto* e = op.as<ExpertLinear>()) {
    for (const WeightId id : op.weights) {
      const Weight& w = graph.weight(id);
      bytes += w.rows / e->experts * e->used * row_bytes(w.dtype, w.cols);
    }
  } else if (op.is<Embed>()) {
    const Weight& w = graph.weight(op.weights[0]);
    bytes = row_bytes(w.dtype, w.cols);
  }
  return bytes;
}

std::string to_string(const Work& work) {
  return fmt::format("{}{}{} [{},{}]", work.kind, work.dtype.empty() ? "" : " ", work.dtype, work.n, work.k);
}

std::string model_shape_key(const Graph& graph) {
  std::set<Work> distinct;
  for (int op = 0; op < static_cast<int>(graph.ops.size()); ++op) {
    distinct.insert(work_of(graph, op));
  }
  std::string key = fmt::format("{} {} layers, {} operators:", graph.shape.architecture, graph.shape.layers,
                                graph.ops.size());
  for (const Work& work : distinct) {
    key += fmt::format(" {}{}{}x{}", work.kind, work.dtype.empty() ? "" : "/", work.dtype, work.n);
    key += fmt::format("x{}", work.k);
  }
  return key;
}

const ProfiledProcessor* Profile::find(const std::string& id) const {
  const auto found = std::find_if(processors.begin(), processors.end(),
                                  [&](const ProfiledProcessor& p) { return p.id == id; });
  return found == processors.end() ? nullptr : &*found;
}

Nanos Profile::handoff(const std::string& from, const std::string& to, const std::string& sync) const {
  if (from == to) {
    return {};
  }
  Nanos other{};
  for (const Handoff& h : handoffs) {
    if (h.from == from && h.to == to) {
      if (h.sync == sync) {
        return h.median;
      }
      other = h.median;
    }
  }
  return other;
}

const Share* Profile::share(const std::string& id, std::span<const std::string> set) const {
  for (const Together& t : together) {
    const bool same = t.processors.size() == set.size() &&
                      std::all_of(t.processors.begin(), t.processors.end(), [&](const Share& s) {
                        return std::find(set.begin(), set.end(), s.id) != set.end();
                      });
    for (const Share& s : t.processors) {
      if (same && s.id == id) {
        return &s;
      }
    }
  }
  return nullptr;
}

WidthCurve WidthCurve::of(const ProfiledProcessor& processor, const Work& work, int64_t tokens,
                          int64_t context) {
  WidthCurve curve;
  curve.cuttable_ = work.kind == "linear";
  // Widths that were measured with fewer rows only tell something where no other does.
  std::array<std::vector<Width>, 2> beyond;
  for (const Series& s : processor.series) {
    const bool fits = s.work.kind == work.kind && s.work.dtype == work.dtype && s.work.k == work.k &&
                      (curve.cuttable_ || s.work.n == work.n);
    for (const bool exchanged : {false, true}) {
      const auto points = fits ? points_in(s, exchanged) : std::span<const Point>();
      if (const auto found =
              at_tokens(points, work.kind == "attention", processor.static_shapes, tokens, context)) {
        const bool inside =
            std::any_of(points.begin(), points.end(), [&](const Point& p) { return p.tokens >= tokens; });
        (inside ? curve.orders_ : beyond)[exchanged ? 1 : 0].push_back(
            {s.work.n, {found->ns, found->padded, exchanged}});
      }
    }
  }
  if (curve.empty()) {
    curve.orders_ = std::move(beyond);
  }
  for (std::vector<Width>& widths : curve.orders_) {
    std::sort(widths.begin(), widths.end(), [](const Width& a, const Width& b) { return a.n < b.n; });
  }
  return curve;
}

std::optional<Timing> WidthCurve::at(int64_t n) const {
  const auto plain = in_order(n, false);
  const auto exchanged = in_order(n, true);
  return exchanged && (!plain || exchanged->ns <= plain->ns) ? exchanged : plain;
}

std::optional<Timing> WidthCurve::at(int64_t n, bool exchanged) const {
  const auto timing = in_order(n, exchanged);
  return timing ? timing : in_order(n, !exchanged);
}

std::optional<Timing> WidthCurve::in_order(int64_t n, bool exchanged) const {
  const std::vector<Width>& widths = orders_[exchanged ? 1 : 0];
  const auto next = std::lower_bound(widths.begin(), widths.end(), n,
                                     [](const Width& w, int64_t value) { return w.n < value; });
  if (next != widths.end() && next->n == n) {
    return next->timing;
  }
  if (widths.empty() || !cuttable_) {
    return std::nullopt;
  }
  Timing timing = widths.back().timing;
  if (widths.size() == 1) {
    timing.ns *= static_cast<double>(n) / static_cast<double>(widths[0].n);
    return timing;
  }
  const auto hi = next == widths.begin() ? next + 1 : next == widths.end() ? next - 1 : next;
  const Width& a = *(hi - 1);
  const Width& b = *hi;
  timing = b.timing;
  timing.ns = line(static_cast<double>(a.n), a.timing.ns, static_cast<double>(b.n), b.timing.ns,
                   static_cast<double>(n));
  if (n < a.n) {  // narrower than anything measured: nothing gains by that more than in proportion
    timing.ns = std::max(timing.ns, a.timing.ns * static_cast<double>(n) / static_cast<double>(a.n));
  }
  return timing;
}

std::optional<Timing> time_of(const ProfiledProcessor& processor, const Work& work, int64_t tokens,
                              int64_t context) {
  return WidthCurve::of(processor, work, tokens, context).at(work.n);
}

double contended_ns(const Profile& profile, const std::string& id, std::span<const std::string> set,
                    double alone_ns, Bytes bytes) {
  const Share* shared = set.size() < 2 || alone_ns <= 0.0 ? nullptr : profile.share(id, set);
  if (shared == nullptr) {
    return alone_ns;
  }
  const Share* alone = profile.share(id, std::span(&id, 1));
  double reading = 0.0;  // part of the time
  double slower = 1.0;
  if (alone != nullptr && alone->gbps > 0.0 && shared->gbps > 0.0) {
    reading = std::min(1.0, static_cast<double>(bytes) / alone->gbps / alone_ns);
    slower = std::max(1.0, alone->gbps / shared->gbps);
  }
  return alone_ns * (reading * slower + (1.0 - reading) * std::max(1.0, shared->slowdown));
}

Nanos compile_time(const ProfiledProcessor& processor, const Work& work, int64_t tokens) {
  const CompileTime* nearest = nullptr;
  double distance = 0.0;
  // As logarithms would order them, which differ in their last bit from one C library to the next.
  const auto apart = [](double a, double b) { return std::max(a / b, b / a); };
  const auto size = [](const Work& w) {
    return static_cast<double>(std::max<int64_t>(1, w.n)) * static_cast<double>(std::max<int64_t>(1, w.k));
  };
  for (const CompileTime& c : processor.compile_times) {
    if (c.work.kind != work.kind || c.work.dtype != work.dtype) {
      continue;
    }
    const double d =
        apart(size(c.work), size(work)) * apart(static_cast<double>(c.tokens), static_cast<double>(tokens));
    if (nearest == nullptr || d < distance) {
      nearest = &c;
      distance = d;
    }
  }
  return nearest == nullptr
             ? Nanos{}
             : Nanos(static_cast<int64_t>(ns(nearest->time) * size(work) / size(nearest->work)));
}

}  // namespace hetero
