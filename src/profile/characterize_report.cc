#include "profile/characterize_report.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

namespace hetero {
namespace {

double micros(Nanos t) {
  return static_cast<double>(t.count()) / 1e3;
}
double millis(Nanos t) {
  return static_cast<double>(t.count()) / 1e6;
}

/// "npu0 (AMD EPYC, stand-in)"
std::string title(const ProfiledProcessor& p) {
  return fmt::format("{} ({}{})", p.id, p.name, p.stand_in ? ", stand-in" : "");
}

std::string percent(double part) {
  return fmt::format("{:.0f}%", 100.0 * part);
}

std::string names(const Together& set) {
  std::vector<std::string> ids;
  for (const Share& s : set.processors) {
    ids.push_back(s.id);
  }
  return fmt::format("{}", fmt::join(ids, " + "));
}

const ProductTime* best_by_rows(const ProductSpeeds& p) {
  const auto best = std::max_element(p.by_rows.begin(), p.by_rows.end(),
                                     [](const auto& a, const auto& b) { return a.gflops() < b.gflops(); });
  return best == p.by_rows.end() ? nullptr : &*best;
}

/// The set that reads fastest in sum, and the fastest processor alone.
struct Bandwidths {
  const Together* together = nullptr;
  const Together* alone = nullptr;
};
Bandwidths bandwidths(const Profile& profile) {
  Bandwidths b;
  for (const Together& t : profile.together) {
    const Together*& best = t.processors.size() > 1 ? b.together : b.alone;
    if (best == nullptr || total_gbps(t) > total_gbps(*best)) {
      best = &t;
    }
  }
  return b;
}

/// The least rows with which a processor reaches nine tenths of its best.
int64_t rows_for_most(const ProductSpeeds& p, double best) {
  for (const ProductTime& t : p.by_rows) {
    if (t.gflops() >= 0.9 * best) {
      return t.product.m;
    }
  }
  return 0;
}

std::string of_peak(double value, double peak) {
  return peak > 0.0 ? fmt::format(", {} of its peak", percent(value / peak)) : "";
}

LinePlot rows_plot(const Characterization& c) {
  LinePlot plot;
  plot.title = "Speed of a product by its rows";
  plot.x_label = "rows (tokens)";
  plot.y_label = "GFLOPS";
  for (size_t i = 0; i < c.products.size(); ++i) {
    const ProductSpeeds& p = c.products[i];
    if (p.by_rows.empty()) {
      continue;
    }
    const Product& product = p.by_rows.front().product;
    plot.note = fmt::format(
        "Weights [{},{}] in {}. A line that rises and then is flat waits for enough rows to hide what each "
        "start "
        "costs; stairs show tiles that are computed whole, however many of their rows are asked for. "
        "Whiskers: half "
        "of the samples lie within. Dashed: the known peak.",
        product.n, product.k, c.dtype);
    LineSeries series;
    series.name = p.id;
    for (const ProductTime& t : p.by_rows) {
      series.points.push_back(
          {static_cast<double>(t.product.m), t.gflops(), t.gflops_low(), t.gflops_high()});
    }
    plot.series.push_back(series);
    if (p.peak.gflops > 0.0) {
      LineSeries peak;
      peak.name = p.id + ": peak";
      peak.dashed = true;
      peak.marks = false;
      peak.points = {{1.0, p.peak.gflops}, {static_cast<double>(p.by_rows.back().product.m), p.peak.gflops}};
      plot.series.push_back(peak);
    }
  }
  return plot;
}

struct Bar {
  double value = kAbsent;
  double low = kAbsent;  // spread
  double high = kAbsent;
};

/// A bar for each of `items`, as `bar_of` says; Bar(): none.
template <class Items, class BarOf>
BarSeries bars(std::string name, const Items& items, const BarOf& bar_of) {
  BarSeries series{std::move(name), {}, {}, {}};
  for (const auto& item : items) {
    const Bar bar = bar_of(item);
    series.values.push_back(bar.value);
    series.low.push_back(bar.low);
    series.high.push_back(bar.high);
  }
  return series;
}

/// What `list` has of which `wanted` holds; nullptr: nothing.
template <class List, class Wanted>
const typename List::value_type* found(const List& list, const Wanted& wanted) {
  const auto at = std::find_if(list.begin(), list.end(), wanted);
  return at == list.end() ? nullptr : &*at;
}

Bar speed(const ProductTime& t) {
  return {t.gflops(), t.gflops_low(), t.gflops_high()};
}

/// The longest of the lists that processors have: what the plot's groups are.
template <class List>
const List& longest(const Characterization& c, List ProductSpeeds::*list) {
  static const List kNone;
  const auto most = std::max_element(c.products.begin(), c.products.end(), [&](const auto& a, const auto& b) {
    return (a.*list).size() < (b.*list).size();
  });
  return most == c.products.end() ? kNone : (*most).*list;
}

BarPlot shapes_plot(const Characterization& c) {
  BarPlot plot;
  plot.title = "The same work in other shapes";
  plot.note =
      "Equally many multiplications in every group: from deep and narrow weights to flat and wide ones.";
  plot.y_label = "GFLOPS";
  const auto& groups = longest(c, &ProductSpeeds::by_shape);
  for (const ProductTime& t : groups) {
    plot.groups.push_back(fmt::format("{}x{}", t.product.k, t.product.n));
  }
  for (const ProductSpeeds& p : c.products) {
    plot.series.push_back(bars(p.id, groups, [&](const ProductTime& group) {
      const ProductTime* t = found(p.by_shape, [&](const ProductTime& x) {
        return x.product.k == group.product.k && x.product.n == group.product.n;
      });
      return t == nullptr ? Bar() : speed(*t);
    }));
  }
  return plot;
}

BarPlot orders_plot(const Characterization& c) {
  BarPlot plot;
  plot.title = "The order of operands";
  plot.note =
      "The same numbers multiplied twice, with F16 weights: as they are, and exchanged, [M,N] x [N,K] = "
      "([K,N] x [N,M]) transposed. Processors that hold one operand still are faster in one of the two.";
  plot.y_label = "GFLOPS";
  const auto& groups = longest(c, &ProductSpeeds::by_order);
  for (const auto& [given, exchanged] : groups) {
    plot.groups.push_back(fmt::format("{} rows", given.product.m));
  }
  for (const ProductSpeeds& p : c.products) {
    const auto of = [&](auto part) {
      return [&p, part](const auto& group) {
        const auto* both =
            found(p.by_order, [&](const auto& x) { return x.first.product.m == group.first.product.m; });
        return both == nullptr ? Bar() : speed(both->*part);
      };
    };
    using Both = std::pair<ProductTime, ProductTime>;
    if (!p.by_order.empty()) {
      plot.series.push_back(bars(p.id + ", as it is", groups, of(&Both::first)));
      plot.series.push_back(bars(p.id + ", exchanged", groups, of(&Both::second)));
    }
  }
  return plot;
}

BarPlot bandwidth_plot(const Characterization& c) {
  BarPlot plot;
  plot.title = "Reading weights in decode, alone and together";
  plot.note =
      "Each processor multiplies its part of the model's matrices by one row, all of a set at once. What a "
      "set "
      "reads in sum is what decoding can use.";
  plot.y_label = "GB/s";
  for (const Together& t : c.profile.together) {
    plot.groups.push_back(names(t));
  }
  for (const ProfiledProcessor& p : c.profile.processors) {
    plot.series.push_back(bars(p.id, c.profile.together, [&](const Together& t) {
      const Share* share = found(t.processors, [&](const Share& s) { return s.id == p.id; });
      return share == nullptr ? Bar() : Bar{share->gbps};
    }));
  }
  plot.series.push_back(
      bars("sum", c.profile.together, [](const Together& t) { return Bar{total_gbps(t)}; }));
  return plot;
}

BarPlot handoff_plot(const Characterization& c) {
  BarPlot plot;
  plot.title = "Handing over";
  plot.note =
      "From the end of one processor's work to the start of another's that waited for it (or until the "
      "control "
      "thread goes on: host). fast: predicted sleep, then looking again and again; driver: the driver's "
      "blocking "
      "calls.";
  plot.y_label = "microseconds";
  for (const Handoff& h : c.profile.handoffs) {
    const std::string group = h.from + " to " + h.to;
    if (std::find(plot.groups.begin(), plot.groups.end(), group) == plot.groups.end()) {
      plot.groups.push_back(group);
    }
  }
  for (const char* sync : {"fast", "driver"}) {
    plot.series.push_back(bars(sync, plot.groups, [&](const std::string& group) {
      const Handoff* h = found(c.profile.handoffs, [&](const Handoff& x) {
        return x.sync == sync && x.from + " to " + x.to == group;
      });
      return h == nullptr ? Bar()
                          : Bar{micros(h->median), micros(h->median - std::min(h->spread, h->median)),
                                micros(h->median + h->spread)};
    }));
  }
  return plot;
}

BarPlot submit_plot(const Characterization& c) {
  BarPlot plot;
  plot.title = "Submitting";
  plot.note = "Time of the control thread for one submission.";
  plot.y_label = "microseconds";
  for (const ProfiledProcessor& p : c.profile.processors) {
    plot.groups.push_back(p.id);
  }
  plot.series.push_back(bars("submission", c.profile.processors,
                             [](const ProfiledProcessor& p) { return Bar{micros(p.submit)}; }));
  return plot;
}

LinePlot compile_plot(const Characterization& c) {
  LinePlot plot;
  plot.title = "Compiling by shape";
  plot.note =
      "Once for each shape that was not met before (and is not in the cache on disk). Processors without "
      "static "
      "shapes only prepare their weights.";
  plot.x_label = "weights (millions)";
  plot.y_label = "milliseconds";
  for (const ProductSpeeds& p : c.products) {
    LineSeries series;
    series.name = p.id;
    series.line = false;
    const auto add = [&](int64_t k, int64_t n, Nanos time) {
      if (time > Nanos{}) {
        series.points.push_back({static_cast<double>(k * n) / 1e6, millis(time)});
      }
    };
    for (const auto* list : {&p.by_rows, &p.by_shape}) {
      for (const ProductTime& t : *list) {
        add(t.product.k, t.product.n, t.compile);
      }
    }
    for (const CompileTime& t : c.profile.find(p.id)->compile_times) {
      add(t.work.k, t.work.n, t.time);
    }
    std::sort(series.points.begin(), series.points.end(),
              [](const PlotPoint& a, const PlotPoint& b) { return a.x < b.x; });
    if (!series.points.empty()) {
      plot.series.push_back(std::move(series));
    }
  }
  return plot;
}

BarPlot strategies_plot(const Characterization& c) {
  BarPlot plot;
  plot.title = "What the solver expects of each strategy";
  plot.note = fmt::format(
      "Predicted from the profile, not measured: tokens per second of {}. hetero bench measures them.",
      c.model);
  plot.y_label = "tokens/s";
  std::vector<std::string> strategies;
  for (const PredictedPass& pass : c.predictions) {
    plot.groups.push_back(pass.tokens == 1 ? "decode" : fmt::format("{} tokens", pass.tokens));
    for (const PredictedStrategy& s : pass.strategies) {
      if (std::find(strategies.begin(), strategies.end(), s.strategy) == strategies.end()) {
        strategies.push_back(s.strategy);
      }
    }
  }
  for (const std::string& name : strategies) {
    plot.series.push_back(bars(name, c.predictions, [&](const PredictedPass& pass) {
      const PredictedStrategy* s =
          found(pass.strategies, [&](const PredictedStrategy& x) { return x.strategy == name; });
      return s == nullptr || s->predicted <= Nanos{}
                 ? Bar()
                 : Bar{static_cast<double>(pass.tokens) * 1e9 / static_cast<double>(s->predicted.count())};
    }));
  }
  return plot;
}

}  // namespace

std::vector<std::string> summary_of(const Characterization& c) {
  std::vector<std::string> out;
  const ProductSpeeds* fastest = nullptr;
  double most = 0.0;
  for (const ProductSpeeds& p : c.products) {
    const ProductTime* best = best_by_rows(p);
    if (best == nullptr) {
      continue;
    }
    if (best->gflops() > most) {
      most = best->gflops();
      fastest = &p;
    }
    out.push_back(
        fmt::format("{} computes products at up to {:.0f} GFLOPS{}, nine tenths of that from {} rows on.",
                    title(*c.profile.find(p.id)), best->gflops(), of_peak(best->gflops(), p.peak.gflops),
                    rows_for_most(p, best->gflops())));
  }
  const Bandwidths b = bandwidths(c.profile);
  if (b.alone != nullptr) {
    std::string text = fmt::format("Decoding is limited by reading weights: {} alone reads {:.1f} GB/s",
                                   names(*b.alone), total_gbps(*b.alone));
    if (b.together != nullptr) {
      const double gain = total_gbps(*b.together) / total_gbps(*b.alone);
      text += gain > 1.05
                  ? fmt::format(
                        ", {} together {:.1f} GB/s, {:.2f} times as much: decoding gains from sharing work",
                        names(*b.together), total_gbps(*b.together), gain)
                  : fmt::format(", {} together {:.1f} GB/s: sharing work does not make decoding faster",
                                names(*b.together), total_gbps(*b.together));
    }
    out.push_back(text + ".");
  }
  if (fastest != nullptr && c.products.size() > 1) {
    double sum = 0.0;
    for (const ProductSpeeds& p : c.products) {
      const ProductTime* best = best_by_rows(p);
      sum += best == nullptr ? 0.0 : best->gflops();
    }
    out.push_back(
        fmt::format("Prefill is limited by computing: {} is the fastest; all at once would be {:.2f} times "
                    "as fast, if nothing "
                    "were lost.",
                    fastest->id, sum / most));
  }
  for (const PredictedPass& pass : c.predictions) {
    if (pass.strategies.empty()) {
      continue;
    }
    const PredictedStrategy& first = pass.strategies.front();
    std::string text = fmt::format(
        "{}: the solver expects {} to win with {:.1f} tokens/s{}",
        pass.tokens == 1 ? std::string("Decode") : fmt::format("A prompt of {} tokens", pass.tokens),
        first.strategy,
        static_cast<double>(pass.tokens) * 1e9 / std::max(static_cast<double>(first.predicted.count()), 1.0),
        first.shares.empty() ? "" : " (" + first.shares + ")");
    // auto is the solver's choice among all, so that it is no rival where it is the same plan.
    const auto rival =
        std::find_if(pass.strategies.begin() + 1, pass.strategies.end(),
                     [&](const PredictedStrategy& s) { return s.predicted > first.predicted; });
    if (rival != pass.strategies.end()) {
      const PredictedStrategy& second = *rival;
      text += fmt::format(", {:.2f} times as fast as {}",
                          static_cast<double>(second.predicted.count()) /
                              std::max(static_cast<double>(first.predicted.count()), 1.0),
                          second.strategy);
    }
    out.push_back(text + ".");
  }
  if (!c.complete) {
    out.push_back("Not everything was measured: it was stopped, or the time was over.");
  }
  return out;
}

Report characterize_report(const Characterization& c) {
  const ProfileIdentity& identity = c.profile.identity;
  Report report(
      "What this chip can do for a language model",
      fmt::format("{}{}, {}; operators of {}; measured in {:.0f} s", identity.simulated ? "Simulated: " : "",
                  identity.machine, identity.date, c.model, c.seconds));
  report.summary(summary_of(c));
  ReportTable processors;
  processors.title = "Processors";
  processors.columns = {"id", "name", "provider", "as", "best GFLOPS", "of peak", "peak from"};
  for (const ProductSpeeds& p : c.products) {
    const ProfiledProcessor& q = *c.profile.find(p.id);
    const ProductTime* best = best_by_rows(p);
    processors.rows.push_back(
        {q.id, q.name, q.provider,
         q.stand_in           ? "stand-in"
         : identity.simulated ? "simulated"
                              : "itself",
         best == nullptr ? "-" : short_number(best->gflops()),
         best == nullptr || p.peak.gflops <= 0.0 ? "-" : percent(best->gflops() / p.peak.gflops),
         p.peak.source.empty() ? "unknown" : p.peak.source});
  }
  report.add(processors);
  report.heading("Computing");
  if (const LinePlot plot = rows_plot(c); !plot.series.empty()) {
    report.add(plot);
  }
  if (const BarPlot plot = shapes_plot(c); !plot.groups.empty()) {
    report.add(plot);
  }
  if (const BarPlot plot = orders_plot(c); !plot.series.empty()) {
    report.add(plot);
  }
  report.heading("Together");
  if (!c.profile.together.empty()) {
    report.add(bandwidth_plot(c));
  }
  if (!c.profile.handoffs.empty()) {
    report.add(handoff_plot(c));
  }
  report.add(submit_plot(c));
  if (const LinePlot plot = compile_plot(c); !plot.series.empty()) {
    report.add(plot);
  }
  if (!c.predictions.empty()) {
    report.heading("Which strategy");
    report.add(strategies_plot(c));
  }
  for (const ProductSpeeds& p : c.products) {
    for (const std::string& why : p.refused) {
      report.text("Left out: " + why);
    }
  }
  return report;
}

}  // namespace hetero
