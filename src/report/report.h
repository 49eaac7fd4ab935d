// One self-contained HTML page of plots, tables and text: no script, no network, light and dark by
// the reader's setting, readable on a phone. Plots are SVG, drawn twice (for wide and for narrow
// screens, so that letters keep their size); hovering over a mark tells its values, and every plot
// has its numbers as a table behind a click.
//
//   Report report("What this chip can do", "measured on ...");
//   report.summary({"Decoding is limited by memory bandwidth."});
//   report.heading("Matrix products");
//   report.add(LinePlot{.title = "Speed by rows", .x_label = "rows", .y_label = "GFLOPS", .series = {...}});
//   HETERO_RETURN_IF_ERROR(report.write("report.html"));
//
// All text is escaped; plain values, no threads.
#pragma once

#include <limits>
#include <string>
#include <vector>

#include "base/status.h"

namespace hetero {

constexpr double kAbsent = std::numeric_limits<double>::quiet_NaN();

enum class Scale { kLinear, kLog2, kLog10 };  // axes by logarithm leave out values that are not positive

struct PlotPoint {
  double x = 0.0;
  double y = 0.0;
  double low = kAbsent;  // spread, drawn as a whisker
  double high = kAbsent;
};

struct LineSeries {
  std::string name;
  std::vector<PlotPoint> points;  // drawn in this order
  bool line = true;               // joined by lines, or marks only
  bool dashed = false;            // for what was not measured: bounds, published or predicted figures
  bool marks = true;
};

struct LinePlot {
  std::string title;
  std::string note;  // a sentence under the plot: what to see in it, where it is from
  std::string x_label;
  std::string y_label;
  Scale x_scale = Scale::kLinear;
  Scale y_scale = Scale::kLinear;
  bool y_from_zero = true;  // on linear axes
  std::vector<LineSeries> series;
};

struct BarSeries {
  std::string name;
  std::vector<double> values;  // one for each group; kAbsent: no bar
  std::vector<double> low;     // spread; empty: none
  std::vector<double> high;
};

struct BarPlot {
  std::string title;
  std::string note;
  std::string y_label;
  std::vector<std::string> groups;
  std::vector<BarSeries> series;
};

struct GanttBar {
  size_t lane = 0;
  double begin = 0.0;
  double end = 0.0;
  std::string name;  // shown on hovering, with begin and end
  size_t kind = 0;   // colour and legend: index into GanttPlot::kinds
};

struct GanttPlot {
  std::string title;
  std::string note;
  std::string x_label;  // with the unit of begin and end
  std::vector<std::string> lanes;
  std::vector<std::string> kinds;
  std::vector<GanttBar> bars;
};

struct ReportTable {
  std::string title;
  std::string note;
  std::vector<std::string> columns;
  std::vector<std::vector<std::string>> rows;  // cells that read as numbers are aligned to the right
};

class Report {
 public:
  Report(std::string title, std::string subtitle);

  /// A box of sentences under the title.
  void summary(const std::vector<std::string>& sentences);
  void heading(const std::string& text);
  void text(const std::string& paragraph);
  void add(const LinePlot& plot);
  void add(const BarPlot& plot);
  void add(const GanttPlot& plot);
  void add(const ReportTable& table);

  std::string html() const;
  Status write(const std::string& path) const;

 private:
  std::string title_;
  std::string subtitle_;
  std::string body_;
};

/// A number with about three significant digits: "1234", "12.3", "0.0123"; "-" where absent.
std::string short_number(double value);

}  // namespace hetero
