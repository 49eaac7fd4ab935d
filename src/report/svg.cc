#include "report/svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace hetero::svg {
namespace {

/// From values to places on one axis, with ticks.
class Axis {
 public:
  Axis(Scale scale, double from, double to) : scale_(scale), from_(from), to_(to) {}

  /// Places about `count` ticks; a linear axis that is not `tight` is widened to whole ones.
  void place_ticks(int count, bool tight) {
    if (!(to_ > from_)) {
      const double around = std::isfinite(from_) ? from_ : 1.0;
      from_ = scale_ == Scale::kLinear ? around - 0.5 : around / 2;
      to_ = scale_ == Scale::kLinear ? around + 0.5 : around * 2;
    }
    if (scale_ == Scale::kLinear) {
      const double step = tick_step(count);
      if (!tight) {
        from_ = std::floor(from_ / step + 1e-9) * step;
        to_ = std::ceil(to_ / step - 1e-9) * step;
      }
      for (double t = std::ceil(from_ / step - 1e-9) * step; t <= to_ + step * 1e-6; t += step) {
        ticks_.push_back(std::abs(t) < step * 1e-6 ? 0.0 : t);
      }
      return;
    }
    const double base = scale_ == Scale::kLog2 ? 2.0 : 10.0;
    const double low = std::log(from_) / std::log(base);
    const double high = std::log(to_) / std::log(base);
    const int every = std::max(1, static_cast<int>(std::ceil((high - low) / std::max(1, count))));
    for (int e = static_cast<int>(std::ceil(low - 1e-9)); e <= high + 1e-9; ++e) {
      if (e % every == 0) {
        ticks_.push_back(std::pow(base, e));
      }
    }
    if (ticks_.empty()) {
      ticks_ = {from_, to_};
    }
  }

  bool shows(double v) const { return std::isfinite(v) && (scale_ == Scale::kLinear || v > 0.0); }
  /// 0 at the axis' start, 1 at its end.
  double at(double v) const {
    const double t =
        scale_ == Scale::kLinear ? (v - from_) / (to_ - from_) : std::log(v / from_) / std::log(to_ / from_);
    return std::clamp(t, 0.0, 1.0);
  }
  const std::vector<double>& ticks() const { return ticks_; }

 private:
  double tick_step(int count) const {
    const double raw = (to_ - from_) / std::max(1, count);
    const double power = std::pow(10.0, std::floor(std::log10(raw)));
    const double digit = raw / power;
    return power * (digit <= 1.0 ? 1.0 : digit <= 2.0 ? 2.0 : digit <= 5.0 ? 5.0 : 10.0);
  }

  Scale scale_;
  double from_;
  double to_;
  std::vector<double> ticks_;
};

struct Range {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();
  void take(double v, Scale scale) {
    if (std::isfinite(v) && (scale == Scale::kLinear || v > 0.0)) {
      low = std::min(low, v);
      high = std::max(high, v);
    }
  }
};

constexpr size_t kLongestName = 32;  // letters, under a bar

/// The rectangle that marks are drawn in.
struct Frame {
  double left, top, right, bottom;
  double x(double t) const { return left + t * (right - left); }
  double y(double t) const { return bottom - t * (bottom - top); }
};

std::string open(int width, double height, const std::string& title) {
  return fmt::format(
      "<svg viewBox=\"0 0 {} {:.0f}\" role=\"img\" aria-label=\"{}\" xmlns=\"http://www.w3.org/2000/svg\">\n",
      width, height, escape(title));
}

std::string text(double x, double y, const char* anchor, const std::string& content) {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>\n", x, y, anchor,
                     escape(content));
}

std::string line(double x1, double y1, double x2, double y2, const std::string& cls) {
  return fmt::format("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" class=\"{}\"/>\n", x1, y1,
                     x2, y2, cls);
}

std::string y_axis(const Axis& axis, const Frame& f, const std::string& label) {
  std::string out;
  for (const double t : axis.ticks()) {
    const double y = f.y(axis.at(t));
    out += line(f.left, y, f.right, y, "grid") + text(f.left - 5, y + 4, "end", short_number(t));
  }
  return out + text(4, 14, "start", label);
}

double widest(const std::vector<double>& ticks) {
  size_t letters = 1;
  for (const double t : ticks) {
    letters = std::max(letters, short_number(t).size());
  }
  return static_cast<double>(letters) * 7.0;
}

/// One of a few shapes, so that series differ without colour as well.
std::string mark(size_t series, double x, double y, const std::string& title) {
  const std::string head = fmt::format("class=\"m s{}\"", series % kColours);
  const std::string tail = "><title>" + escape(title) + "</title></";
  switch (series % 4) {
    case 0:
      return fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3.6\" {}{}circle>\n", x, y, head, tail);
    case 1:
      return fmt::format("<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"6.6\" height=\"6.6\" {}{}rect>\n", x - 3.3,
                         y - 3.3, head, tail);
    case 2:
      return fmt::format("<path d=\"M{:.1f} {:.1f}l4.4 7.6h-8.8z\" {}{}path>\n", x, y - 4.6, head, tail);
    default:
      return fmt::format("<path d=\"M{:.1f} {:.1f}l4.6 4.6l-4.6 4.6l-4.6 -4.6z\" {}{}path>\n", x, y - 4.6,
                         head, tail);
  }
}

std::string whisker(double x, double low, double high, size_t series) {
  const std::string cls = fmt::format("l s{}", series % kColours);
  return line(x, low, x, high, cls) + line(x - 3, low, x + 3, low, cls) + line(x - 3, high, x + 3, high, cls);
}

}  // namespace

std::string escape(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string draw(const LinePlot& plot, int width) {
  Range xs, ys;
  for (const LineSeries& s : plot.series) {
    for (const PlotPoint& p : s.points) {
      xs.take(p.x, plot.x_scale);
      for (const double y : {p.y, p.low, p.high}) {
        ys.take(y, plot.y_scale);
      }
    }
  }
  if (plot.y_from_zero && plot.y_scale == Scale::kLinear) {
    ys.low = std::min(ys.low, 0.0);
  }
  const double height = width > 500 ? 340 : 290;
  Axis x(plot.x_scale, xs.low, xs.high);
  Axis y(plot.y_scale, ys.low, ys.high);
  x.place_ticks(width > 500 ? 10 : 5, true);
  y.place_ticks(5, false);
  const Frame f{widest(y.ticks()) + 12, 24, static_cast<double>(width) - 16, height - 40};
  std::string out = open(width, height, plot.title) + y_axis(y, f, plot.y_label);
  for (const double t : x.ticks()) {
    out += line(f.x(x.at(t)), f.bottom, f.x(x.at(t)), f.bottom + 4, "axis") +
           text(f.x(x.at(t)), f.bottom + 18, "middle", short_number(t));
  }
  out += line(f.left, f.bottom, f.right, f.bottom, "axis") +
         text((f.left + f.right) / 2, height - 6, "middle", plot.x_label);
  for (size_t i = 0; i < plot.series.size(); ++i) {
    const LineSeries& s = plot.series[i];
    std::string path;
    std::string marks;
    for (const PlotPoint& p : s.points) {
      if (!x.shows(p.x) || !y.shows(p.y)) {
        continue;
      }
      const double px = f.x(x.at(p.x));
      const double py = f.y(y.at(p.y));
      path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? "M" : "L", px, py);
      std::string title = fmt::format("{}: {} at {}", s.name, short_number(p.y), short_number(p.x));
      if (y.shows(p.low) && y.shows(p.high)) {
        marks += whisker(px, f.y(y.at(p.low)), f.y(y.at(p.high)), i);
        title += fmt::format(" ({} to {})", short_number(p.low), short_number(p.high));
      }
      if (s.marks) {
        marks += mark(i, px, py, title);
      }
    }
    if (s.line && !path.empty()) {
      out += fmt::format("<path d=\"{}\" class=\"l s{}{}\"/>\n", path, i % kColours, s.dashed ? " dash" : "");
    }
    out += marks;
  }
  return out + "</svg>\n";
}

std::string draw(const BarPlot& plot, int width) {
  Range ys;
  ys.take(0.0, Scale::kLinear);
  for (const BarSeries& s : plot.series) {
    for (const auto* list : {&s.values, &s.low, &s.high}) {
      for (const double v : *list) {
        ys.take(v, Scale::kLinear);
      }
    }
  }
  size_t longest = 0;
  for (const std::string& g : plot.groups) {
    longest = std::max(longest, g.size());
  }
  const auto groups = static_cast<double>(std::max<size_t>(1, plot.groups.size()));
  Axis y(Scale::kLinear, ys.low, ys.high);
  y.place_ticks(5, false);
  double left = widest(y.ticks()) + 12;
  const double right = static_cast<double>(width) - 10;
  // Names that are wider than their group are written at a slant.
  const bool slant = static_cast<double>(longest) * 6.6 > (right - left) / groups;
  const double below = slant ? 18 + static_cast<double>(std::min<size_t>(longest, kLongestName)) * 4.6 : 26;
  if (slant && !plot.groups.empty()) {
    const auto letters = static_cast<double>(std::min(plot.groups[0].size(), kLongestName));
    left = std::max(left, letters * 4.8 - (right - left) / groups / 2);
  }
  const double pitch = (right - left) / groups;
  const double height = (width > 500 ? 280 : 240) + below;
  const Frame f{left, 24, right, height - below};
  std::string out = open(width, height, plot.title) + y_axis(y, f, plot.y_label);
  const double bar = pitch * 0.8 / static_cast<double>(std::max<size_t>(1, plot.series.size()));
  for (size_t g = 0; g < plot.groups.size(); ++g) {
    const double from = left + pitch * (static_cast<double>(g) + 0.1);
    for (size_t i = 0; i < plot.series.size(); ++i) {
      const BarSeries& s = plot.series[i];
      if (g >= s.values.size() || !std::isfinite(s.values[g])) {
        continue;
      }
      const double x = from + bar * static_cast<double>(i);
      const double y0 = f.y(y.at(0.0));
      const double y1 = f.y(y.at(s.values[g]));
      out += fmt::format(
          "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" class=\"m s{}\"><title>{}, {}: "
          "{}</title></rect>\n",
          x, std::min(y0, y1), std::max(1.0, bar - 1), std::max(0.5, std::abs(y1 - y0)), i % kColours,
          escape(plot.groups[g]), escape(s.name), short_number(s.values[g]));
      if (g < s.low.size() && g < s.high.size() && std::isfinite(s.low[g]) && std::isfinite(s.high[g])) {
        const double mid = x + bar / 2;
        out += line(mid, f.y(y.at(s.low[g])), mid, f.y(y.at(s.high[g])), "axis");
      }
    }
    const double middle = left + pitch * (static_cast<double>(g) + 0.5);
    if (slant) {
      std::string name = plot.groups[g];
      if (name.size() > kLongestName) {
        name = name.substr(0, kLongestName - 2) + "..";
      }
      out += fmt::format(
          "<text transform=\"translate({:.1f} {:.1f}) rotate(-45)\" text-anchor=\"end\">{}</text>\n",
          middle + 4, f.bottom + 12, escape(name));
    } else {
      out += text(middle, f.bottom + 17, "middle", plot.groups[g]);
    }
  }
  return out + line(f.left, f.y(y.at(0.0)), f.right, f.y(y.at(0.0)), "axis") + "</svg>\n";
}

std::string draw(const GanttPlot& plot, int width) {
  Range xs;
  for (const GanttBar& b : plot.bars) {
    xs.take(b.begin, Scale::kLinear);
    xs.take(b.end, Scale::kLinear);
  }
  size_t letters = 3;
  for (const std::string& lane : plot.lanes) {
    letters = std::max(letters, lane.size());
  }
  const double lane_height = 34;
  const double height = 10 + lane_height * static_cast<double>(std::max<size_t>(1, plot.lanes.size())) + 40;
  const Frame f{static_cast<double>(letters) * 7.2 + 10, 10, static_cast<double>(width) - 16, height - 40};
  Axis x(Scale::kLinear, xs.low, xs.high);
  x.place_ticks(width > 500 ? 10 : 5, true);
  std::string out = open(width, height, plot.title);
  for (const double t : x.ticks()) {
    out += line(f.x(x.at(t)), f.top, f.x(x.at(t)), f.bottom, "grid") +
           text(f.x(x.at(t)), f.bottom + 17, "middle", short_number(t));
  }
  out += text((f.left + f.right) / 2, height - 6, "middle", plot.x_label);
  for (size_t i = 0; i < plot.lanes.size(); ++i) {
    out += text(f.left - 6, f.top + lane_height * (static_cast<double>(i) + 0.5) + 4, "end", plot.lanes[i]);
  }
  for (const GanttBar& b : plot.bars) {
    const double from = f.x(x.at(b.begin));
    out += fmt::format(
        "<rect x=\"{:.2f}\" y=\"{:.1f}\" width=\"{:.2f}\" height=\"{:.1f}\" class=\"m s{}\"><title>{}: {} to "
        "{}</title></rect>\n",
        from, f.top + lane_height * static_cast<double>(b.lane) + 4, std::max(0.4, f.x(x.at(b.end)) - from),
        lane_height - 8, b.kind % kColours, escape(b.name), short_number(b.begin), short_number(b.end));
  }
  return out + line(f.left, f.bottom, f.right, f.bottom, "axis") + "</svg>\n";
}

}  // namespace hetero::svg
